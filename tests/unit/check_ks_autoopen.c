/*
 * check_ks_autoopen.c
 *		keystore.aks: opens where it was made, nowhere else, and says why not.
 *
 * ksi_machine_id() is replaced by the linker (--wrap), so that the test needs no
 * machine-id and can be on two computers.
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ks_common.h"

#define NOBODY 65534
#define FEP_TEXT "could not open keystore \"%s\": passphrase is wrong, or the auto-open keystore was created by another computer or user"

static const char *machine_id = "0123456789abcdef0123456789abcdef";
static char secret_dir[300];
static char secret_path[320];
static char aks_path[320];

enum keystore_status __wrap_ksi_machine_id(keystore *ks, char ret_id[KSI_MACHINE_ID_LEN + 1]);
enum keystore_status __real_ksi_machine_id(keystore *ks, char ret_id[KSI_MACHINE_ID_LEN + 1]);

enum keystore_status
__wrap_ksi_machine_id(keystore *ks, char ret_id[KSI_MACHINE_ID_LEN + 1])
{
	if (machine_id == NULL)
		return __real_ksi_machine_id(ks, ret_id);
	memcpy(ret_id, machine_id, KSI_MACHINE_ID_LEN + 1);
	return KEYSTORE_OK;
}

/* The keystore in a directory of its own, the host secret in another. */
static void
setup(void)
{
	ks_setup_below();
	snprintf(aks_path, sizeof(aks_path), "%s/%s", ks_dir, KEYSTORE_AUTO_OPEN_NAME);
	snprintf(secret_dir, sizeof(secret_dir), "%s/home", ks_top);
	snprintf(secret_path, sizeof(secret_path), "%s/secret", secret_dir);
}

/* A new process's view: loaded, closed, the same host secret. */
static keystore *
load_closed(const char *path)
{
	keystore   *ks = keystore_new();

	assert_ok(ks, keystore_set_host_secret_path(ks, secret_path));
	assert_ok(ks, keystore_load(ks, path));
	return ks;
}

static void
assert_not_here(const char *path, const char *reason)
{
	keystore   *ks = load_closed(path);
	struct keystore_auto_open_info info;

	assert_fails(ks, keystore_open_auto(ks, path), KEYSTORE_EWRONGKEY, ks_text(FEP_TEXT, path));
	ck_assert_msg(strstr(keystore_errhint(ks), reason) != NULL, "hint: %s", keystore_errhint(ks));
	ck_assert(strstr(keystore_errhint(ks), "pgx_keystore --enable-auto-open") != NULL);
	ck_assert(!keystore_is_open(ks));
	assert_ok(ks, keystore_auto_open_status(ks, path, &info));
	ck_assert_str_eq(info.kind, "host");
	ck_assert(!info.usable);
	ck_assert_str_eq(info.reason, reason);
	ck_assert_str_eq(keystore_errmsg(ks), "");
	keystore_free(&ks);
}

START_TEST(test_enable_and_open)
{
	keystore   *ks = ks_make_enabled(secret_path);
	keystore   *back = load_closed(ks_path);
	struct keystore_auto_open_info info;
	struct stat st;
	uint8_t		a[KEYSTORE_KEY_LEN];
	uint8_t		b[KEYSTORE_KEY_LEN];

	ck_assert_int_eq(lstat(aks_path, &st), 0);
	ck_assert_int_eq(st.st_mode & 07777, 0600);
	ck_assert_int_eq(st.st_size, KSI_AUTO_OPEN_LEN);
	ck_assert_int_eq(lstat(secret_path, &st), 0);
	ck_assert_int_eq(st.st_mode & 07777, 0600);
	ck_assert_int_eq(st.st_size, 32);
	ck_assert_int_eq(lstat(secret_dir, &st), 0);
	ck_assert_int_eq(st.st_mode & 07777, 0700);
	ck_assert_int_eq(ks_count_files(secret_dir), 1);

	assert_ok(back, keystore_auto_open_status(back, ks_path, &info));
	ck_assert_str_eq(info.kind, "host");
	ck_assert(info.usable);
	ck_assert_str_eq(info.reason, "");
	ck_assert(!keystore_is_open(back));
	assert_ok(back, keystore_open_auto(back, ks_path));
	assert_ok(ks, keystore_get_ksk(ks, a));
	assert_ok(back, keystore_get_ksk(back, b));
	ck_assert_mem_eq(a, b, sizeof(a));
	keystore_free(&ks);
	keystore_free(&back);
}
END_TEST

/* The seal is made of what keystore.aks(5) says, all of it. */
START_TEST(test_seal_parts)
{
	keystore   *ks = ks_make_enabled(secret_path);
	size_t		len;
	uint8_t    *aks = ks_read_file(aks_path, &len);
	uint8_t    *secret = ks_read_file(secret_path, &len);
	char	   *dir = realpath(ks_dir, NULL);
	uint8_t		input[1024];
	uint8_t    *p;
	uint8_t		key[KEYSTORE_KEY_LEN];
	uint8_t		ksk[KEYSTORE_KEY_LEN];
	uint8_t		want[KEYSTORE_KEY_LEN];

	ck_assert_ptr_nonnull(dir);
	p = ksi_put32(input, 32);
	memcpy(p, secret, 32);
	p = ksi_put32(p + 32, 32);
	memcpy(p, machine_id, 32);
	p = ksi_put32(p + 32, 4);
	p = ksi_put32(p, (uint32_t) geteuid());
	p = ksi_put32(p, (uint32_t) strlen(dir));
	memcpy(p, dir, strlen(dir));
	p += strlen(dir);
	ck_assert_int_eq(ksi_hkdf(input, (size_t) (p - input), aks + 16, 16,
							  (const uint8_t *) "pgx auto-open host", 18, key, sizeof(key)),
					 KSI_CRYPTO_OK);
	ck_assert_int_eq(ksi_gcm_open(key, aks + 72, aks, 72, aks + 84, 32, ksk, aks + 116),
					 KSI_CRYPTO_OK);
	assert_ok(ks, keystore_get_ksk(ks, want));
	ck_assert_mem_eq(ksk, want, sizeof(want));
	free(dir);
	free(aks);
	free(secret);
	keystore_free(&ks);
}
END_TEST

/* It wraps the KSK, so rotations and a new passphrase leave it valid. */
START_TEST(test_survives_changes)
{
	keystore   *ks = ks_make_enabled(secret_path);
	keystore   *back;
	uint32_t	id;

	assert_ok(ks, keystore_add_master_key(ks, "test", &id));
	assert_ok(ks, keystore_change_passphrase(ks, PASS, strlen(PASS), PASS2, strlen(PASS2),
											 &ks_cheap));
	assert_ok(ks, keystore_store(ks, ks_path));
	back = load_closed(ks_path);
	assert_ok(back, keystore_open_auto(back, ks_path));
	ck_assert_uint_eq(keystore_active_key(back), 2);
	keystore_free(&ks);
	keystore_free(&back);
}
END_TEST

/* The host secret is made once; enabling again leaves it, and other keystores' files, alone. */
START_TEST(test_enable_twice)
{
	keystore   *ks = ks_make_enabled(secret_path);
	size_t		len;
	uint8_t    *before = ks_read_file(secret_path, &len);
	uint8_t    *after;

	assert_ok(ks, keystore_auto_open_enable(ks, ks_path));
	after = ks_read_file(secret_path, &len);
	ck_assert_mem_eq(before, after, len);
	assert_ok(ks, keystore_open_auto(ks, ks_path));
	free(before);
	free(after);
	keystore_free(&ks);
}
END_TEST

START_TEST(test_disable)
{
	keystore   *ks = ks_make_enabled(secret_path);
	struct keystore_auto_open_info info;

	assert_ok(ks, keystore_auto_open_disable(ks, ks_path));
	ck_assert(!ks_exists(aks_path));
	assert_ok(ks, keystore_auto_open_disable(ks, ks_path));
	assert_ok(ks, keystore_auto_open_status(ks, ks_path, &info));
	ck_assert_str_eq(info.kind, "none");
	ck_assert(!info.usable);
	ck_assert_str_eq(info.reason, "");
	assert_fails(ks, keystore_open_auto(ks, ks_path), KEYSTORE_ENOENT,
				 ks_text("auto-open keystore \"%s\" does not exist", aks_path));
	keystore_free(&ks);
}
END_TEST

/* ---- elsewhere --------------------------------------------------------------------- */

START_TEST(test_other_directory)
{
	keystore   *ks = ks_make_enabled(secret_path);
	char		other[400];

	snprintf(other, sizeof(other), "%s/elsewhere", ks_top);
	ck_assert_int_eq(rename(ks_dir, other), 0);
	assert_not_here(ks_text("%s/%s", other, KEYSTORE_FILE_NAME), "it was created for another directory");

	/* Back where it was, also under another spelling of the same path. */
	ck_assert_int_eq(rename(other, ks_dir), 0);
	assert_ok(ks, keystore_load(ks, ks_text("%s/../keystore/%s", ks_dir, KEYSTORE_FILE_NAME)));
	assert_ok(ks, keystore_open_auto(ks, ks_text("%s/../keystore/%s", ks_dir, KEYSTORE_FILE_NAME)));
	keystore_free(&ks);
}
END_TEST

START_TEST(test_other_computer)
{
	keystore   *ks = ks_make_enabled(secret_path);

	machine_id = "fedcba9876543210fedcba9876543210";
	assert_not_here(ks_path, "it was created on another computer, or the host secret was replaced");
	keystore_free(&ks);
}
END_TEST

START_TEST(test_secret_removed)
{
	keystore   *ks = ks_make_enabled(secret_path);

	ck_assert_int_eq(unlink(secret_path), 0);
	assert_not_here(ks_path, "the host secret does not exist");
	/* Looking does not make a new one. */
	ck_assert(!ks_exists(secret_path));
	ck_assert_int_eq(rmdir(secret_dir), 0);
	assert_not_here(ks_path, "the host secret does not exist");
	ck_assert(!ks_exists(secret_dir));
	keystore_free(&ks);
}
END_TEST

START_TEST(test_secret_changed)
{
	keystore   *ks = ks_make_enabled(secret_path);
	uint8_t		secret[32] = "another secret of 32 bytes.....";

	ks_write_file(secret_path, secret, sizeof(secret), 0600);
	assert_not_here(ks_path, "it was created on another computer, or the host secret was replaced");
	keystore_free(&ks);
}
END_TEST

START_TEST(test_other_keystore)
{
	keystore   *ks = ks_make_enabled(secret_path);
	keystore   *other = ks_make();

	assert_ok(other, keystore_store(other, ks_path));
	assert_not_here(ks_path, "it belongs to another keystore");
	keystore_free(&ks);
	keystore_free(&other);
}
END_TEST

/* For root alone: all the files given to another user, who has everything but the number. */
START_TEST(test_other_user)
{
	keystore   *ks = ks_make_enabled(secret_path);
	int			status;
	pid_t		pid;

	ck_assert_int_eq(chown(ks_top, NOBODY, (gid_t) -1), 0);
	ck_assert_int_eq(chown(ks_dir, NOBODY, (gid_t) -1), 0);
	ck_assert_int_eq(chown(ks_path, NOBODY, (gid_t) -1), 0);
	ck_assert_int_eq(chown(aks_path, NOBODY, (gid_t) -1), 0);
	ck_assert_int_eq(chown(secret_dir, NOBODY, (gid_t) -1), 0);
	ck_assert_int_eq(chown(secret_path, NOBODY, (gid_t) -1), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0)
	{
		if (setuid(NOBODY) != 0)
			_exit(1);
		assert_not_here(ks_path, "it was created for another user");
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	keystore_free(&ks);
}
END_TEST

/* One who changes the harmless numbers in the file does not get further. */
START_TEST(test_forged_header)
{
	keystore   *ks = ks_make_enabled(secret_path);
	char		other[400];
	char		path[500];
	uint8_t    *aks;
	size_t		len;

	aks = ks_read_file(aks_path, &len);
	snprintf(other, sizeof(other), "%s/elsewhere", ks_top);
	snprintf(path, sizeof(path), "%s/%s", other, KEYSTORE_FILE_NAME);
	ck_assert_int_eq(rename(ks_dir, other), 0);
	ck_assert(ksi_sha256(other, strlen(other), aks + 40));
	ks_redigest(aks, len);
	ks_write_file(ks_text("%s/%s", other, KEYSTORE_AUTO_OPEN_NAME), aks, len, 0600);
	assert_not_here(path, "it was created on another computer, or the host secret was replaced");
	free(aks);
	keystore_free(&ks);
}
END_TEST

/* ---- unsafe, damaged ------------------------------------------------------------------- */

START_TEST(test_unsafe_secret)
{
	keystore   *ks = ks_make_enabled(secret_path);
	struct keystore_auto_open_info info;

	ck_assert_int_eq(chmod(secret_path, 0644), 0);
	assert_fails(ks, keystore_open_auto(ks, ks_path), KEYSTORE_EPERM,
				 ks_text("file \"%s\" has group or other access (mode 0644)", secret_path));
	ck_assert_str_eq(keystore_errhint(ks), ks_text("Run \"chmod 600 %s\".", secret_path));
	assert_status(ks, keystore_auto_open_enable(ks, ks_path), KEYSTORE_EPERM);
	assert_ok(ks, keystore_auto_open_status(ks, ks_path, &info));
	ck_assert(!info.usable);
	ck_assert_str_eq(info.reason,
					 ks_text("file \"%s\" has group or other access (mode 0644)", secret_path));
	ck_assert_int_eq(chmod(secret_path, 0600), 0);
	ck_assert_int_eq(chmod(secret_dir, 0755), 0);
	assert_fails(ks, keystore_open_auto(ks, ks_path), KEYSTORE_EPERM,
				 ks_text("directory \"%s\" has group or other access (mode 0755)", secret_dir));
	keystore_free(&ks);
}
END_TEST

START_TEST(test_short_secret)
{
	keystore   *ks = ks_make_enabled(secret_path);

	ck_assert_int_eq(truncate(secret_path, 31), 0);
	assert_fails(ks, keystore_open_auto(ks, ks_path), KEYSTORE_EDAMAGED,
				 ks_text("host secret \"%s\" is corrupted: size = 31 bytes, expected size = 32 bytes",
						 secret_path));
	keystore_free(&ks);
}
END_TEST

/* Beside the keystore it would be copied along with it. */
START_TEST(test_secret_beside_keystore)
{
	keystore   *ks = ks_make_stored();
	char		beside[320];

	snprintf(beside, sizeof(beside), "%s/../keystore/secret", ks_dir);
	assert_ok(ks, keystore_set_host_secret_path(ks, beside));
	assert_fails(ks, keystore_auto_open_enable(ks, ks_path), KEYSTORE_EINVAL,
				 ks_text("host secret \"%s\" is in the directory of the keystore", beside));
	ck_assert_int_eq(ks_count_files(ks_dir), 1);
	keystore_free(&ks);
}
END_TEST

START_TEST(test_unsafe_aks)
{
	keystore   *ks = ks_make_enabled(secret_path);

	ck_assert_int_eq(chmod(aks_path, 0660), 0);
	assert_fails(ks, keystore_open_auto(ks, ks_path), KEYSTORE_EPERM,
				 ks_text("file \"%s\" has group or other access (mode 0660)", aks_path));
	ck_assert_int_eq(unlink(aks_path), 0);
	ck_assert_int_eq(symlink("elsewhere", aks_path), 0);
	assert_fails(ks, keystore_open_auto(ks, ks_path), KEYSTORE_EPERM,
				 ks_text("file \"%s\" is a symbolic link", aks_path));
	keystore_free(&ks);
}
END_TEST

START_TEST(test_flip_every_byte)
{
	keystore   *ks = ks_make_enabled(secret_path);
	size_t		len;
	uint8_t    *aks = ks_read_file(aks_path, &len);
	struct keystore_auto_open_info info;

	for (size_t i = 0; i < len; i++)
	{
		enum keystore_status want = i < 8 ? KEYSTORE_EFORMAT : KEYSTORE_EDAMAGED;

		aks[i] ^= 4;
		ks_write_file(aks_path, aks, len, 0600);
		assert_status(ks, keystore_open_auto(ks, ks_path), want);
		assert_ok(ks, keystore_auto_open_status(ks, ks_path, &info));
		ck_assert(!info.usable);
		ck_assert_str_eq(info.reason,
						 i < 8 ? ks_text("file \"%s\" is not an auto-open keystore", aks_path) :
						 ks_text("auto-open keystore \"%s\" is corrupted: invalid checksum", aks_path));
		if (i < len - KSI_DIGEST_LEN)
		{
			enum keystore_status status;

			ks_redigest(aks, len);
			ks_write_file(aks_path, aks, len, 0600);
			status = keystore_open_auto(ks, ks_path);
			ck_assert_msg(status == KEYSTORE_EWRONGKEY || status == KEYSTORE_EFORMAT ||
						  status == KEYSTORE_EVERSION, "byte %zu: status %d", i, (int) status);
		}
		aks[i] ^= 4;
		ks_redigest(aks, len);
	}
	ks_write_file(aks_path, aks, len, 0600);
	assert_ok(ks, keystore_open_auto(ks, ks_path));
	for (size_t cut = 0; cut < len; cut++)
	{
		ks_write_file(aks_path, aks, cut, 0600);
		assert_status(ks, keystore_open_auto(ks, ks_path), KEYSTORE_EDAMAGED);
	}
	free(aks);
	keystore_free(&ks);
}
END_TEST

/* The file opens, the keystore beside it was altered: that is not the auto-open file's fault. */
START_TEST(test_altered_keystore)
{
	keystore   *ks = ks_make_enabled(secret_path);
	size_t		len;
	uint8_t    *buf = ks_read_file(ks_path, &len);

	buf[len - 60] ^= 1;
	ks_redigest(buf, len);
	ks_write_file(ks_path, buf, len, 0600);
	assert_ok(ks, keystore_load(ks, ks_path));
	assert_fails(ks, keystore_open_auto(ks, ks_path), KEYSTORE_EDAMAGED,
				 ks_text("keystore \"%s\" is corrupted: its content was altered", ks_path));
	free(buf);
	keystore_free(&ks);
}
END_TEST

/* The real one: 32 digits where the system has them, else the command that makes them. */
START_TEST(test_real_machine_id)
{
	keystore   *ks = keystore_new();
	char		id[KSI_MACHINE_ID_LEN + 1];
	enum keystore_status status = __real_ksi_machine_id(ks, id);

	if (ks_exists("/etc/machine-id") && status == KEYSTORE_OK)
		ck_assert_uint_eq(strspn(id, "0123456789abcdef"), KSI_MACHINE_ID_LEN);
	else if (status != KEYSTORE_OK)
	{
		ck_assert_int_eq(status, KEYSTORE_EIO);
		ck_assert_str_eq(keystore_errmsg(ks), "this computer has no machine ID in \"/etc/machine-id\"");
		ck_assert(strstr(keystore_errhint(ks), "systemd-machine-id-setup") != NULL);
	}
	keystore_free(&ks);
}
END_TEST

/* "" goes back to the default; only the setting is tested, nobody's home is written to. */
START_TEST(test_default_path)
{
	keystore   *ks = keystore_new();

	assert_ok(ks, keystore_set_host_secret_path(ks, "/some/where"));
	ck_assert_ptr_nonnull(ks->host_secret_path);
	assert_ok(ks, keystore_set_host_secret_path(ks, ""));
	ck_assert_ptr_null(ks->host_secret_path);
	assert_ok(ks, keystore_set_host_secret_path(ks, NULL));
	ck_assert_ptr_null(ks->host_secret_path);
	keystore_free(&ks);
}
END_TEST

int
main(void)
{
	Suite	   *suite = suite_create("autoopen");
	TCase	   *tc = ks_tcase("here");

	tcase_add_checked_fixture(tc, setup, ks_teardown_below);
	tcase_add_test(tc, test_enable_and_open);
	tcase_add_test(tc, test_seal_parts);
	tcase_add_test(tc, test_survives_changes);
	tcase_add_test(tc, test_enable_twice);
	tcase_add_test(tc, test_disable);
	tcase_add_test(tc, test_real_machine_id);
	tcase_add_test(tc, test_default_path);
	suite_add_tcase(suite, tc);

	tc = ks_tcase("elsewhere");
	tcase_add_checked_fixture(tc, setup, ks_teardown_below);
	tcase_add_test(tc, test_other_directory);
	tcase_add_test(tc, test_other_computer);
	tcase_add_test(tc, test_secret_removed);
	tcase_add_test(tc, test_secret_changed);
	tcase_add_test(tc, test_other_keystore);
	tcase_add_test(tc, test_forged_header);
	if (geteuid() == 0)
		tcase_add_test(tc, test_other_user);
	suite_add_tcase(suite, tc);

	tc = ks_tcase("damaged");
	tcase_add_checked_fixture(tc, setup, ks_teardown_below);
	tcase_add_test(tc, test_unsafe_secret);
	tcase_add_test(tc, test_short_secret);
	tcase_add_test(tc, test_secret_beside_keystore);
	tcase_add_test(tc, test_unsafe_aks);
	tcase_add_test(tc, test_flip_every_byte);
	tcase_add_test(tc, test_altered_keystore);
	suite_add_tcase(suite, tc);
	return ks_run(suite);
}
