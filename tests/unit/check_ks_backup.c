/*
 * check_ks_backup.c
 *		Backup, repair, and what verify finds.
 */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ks_common.h"

static char top[256];
static char backups[320];
static char prev_path[320];
static char secret_path[400];

static void
setup(void)
{
	ks_setup();
	snprintf(top, sizeof(top), "%s", ks_dir);
	ck_assert_int_lt(snprintf(ks_dir, sizeof(ks_dir), "%.200s/keystore", top), 256);
	ck_assert_int_eq(mkdir(ks_dir, 0700), 0);
	snprintf(ks_path, sizeof(ks_path), "%s/%s", ks_dir, KEYSTORE_FILE_NAME);
	snprintf(prev_path, sizeof(prev_path), "%s/%s", ks_dir, KEYSTORE_PREV_NAME);
	snprintf(backups, sizeof(backups), "%s/backups", top);
	ck_assert_int_eq(mkdir(backups, 0700), 0);
	snprintf(secret_path, sizeof(secret_path), "%s/home/secret", top);
}

static void
teardown(void)
{
	snprintf(ks_dir, sizeof(ks_dir), "%s", top);
	ks_teardown();
}

static void
rotate(keystore *ks)
{
	uint32_t	id;

	assert_ok(ks, keystore_add_master_key(ks, "test", &id));
	assert_ok(ks, keystore_store(ks, ks_path));
}

static bool
same_files(const char *a, const char *b)
{
	size_t		a_len,
				b_len;
	uint8_t    *a_buf = ks_read_file(a, &a_len);
	uint8_t    *b_buf = ks_read_file(b, &b_len);
	bool		same = a_len == b_len && memcmp(a_buf, b_buf, a_len) == 0;

	free(a_buf);
	free(b_buf);
	return same;
}

static void
damage(const char *path)
{
	size_t		len;
	uint8_t    *buf = ks_read_file(path, &len);

	buf[len / 2] ^= 1;
	ks_write_file(path, buf, len, 0600);
	free(buf);
}

/* ---- backup ---------------------------------------------------------------------------- */

START_TEST(test_backup)
{
	keystore   *ks = ks_make_stored();
	keystore   *closed = keystore_new();
	struct keystore_backup_info info;
	char		name[512],
				second[512],
				uuid_text[KEYSTORE_UUID_STRLEN + 1];
	uint8_t		uuid[KEYSTORE_UUID_LEN];
	struct stat st;

	assert_ok(ks, keystore_last_backup(ks, ks_path, &info));
	ck_assert(!info.known && !info.current);

	assert_ok(ks, keystore_backup(ks, ks_path, backups, name, sizeof(name)));
	ck_assert(same_files(name, ks_path));
	ck_assert_int_eq(stat(name, &st), 0);
	ck_assert_int_eq(st.st_mode & 07777, 0600);
	keystore_get_uuid(ks, uuid);
	keystore_uuid_text(uuid, uuid_text);
	ck_assert_ptr_nonnull(strstr(name, ks_text("%s/keystore-%s-2", backups, uuid_text)));
	ck_assert_str_eq(name + strlen(name) - 6, "-g1.ks");
	assert_ok(ks, keystore_last_backup(ks, ks_path, &info));
	ck_assert(info.known && info.current);
	ck_assert_uint_eq(info.generation, 1);
	ck_assert_int_gt(info.time, 0);
	ck_assert_str_eq(info.name, name);

	/* In the same second too, never the same name; and a closed handle does. */
	assert_ok(closed, keystore_backup(closed, ks_path, backups, second, sizeof(second)));
	ck_assert_str_ne(name, second);
	ck_assert_int_eq(ks_count_files(backups), 2);

	rotate(ks);
	assert_ok(ks, keystore_last_backup(ks, ks_path, &info));
	ck_assert(info.known && !info.current);
	ck_assert_uint_eq(info.generation, 1);
	assert_ok(ks, keystore_backup(ks, ks_path, backups, name, sizeof(name)));
	ck_assert_str_eq(name + strlen(name) - 6, "-g2.ks");
	assert_ok(closed, keystore_last_backup(closed, ks_path, &info));
	ck_assert(info.current);

	/* What was backed up opens. */
	assert_ok(closed, keystore_load(closed, second));
	assert_ok(closed, keystore_open_passphrase(closed, PASS, strlen(PASS)));
	keystore_free(&closed);
	keystore_free(&ks);
}
END_TEST

START_TEST(test_backup_refused)
{
	keystore   *ks = ks_make_stored();
	char		name[512] = "untouched";
	char		dir[400];

	assert_fails(ks, keystore_backup(ks, ks_path, ks_dir, name, sizeof(name)), KEYSTORE_EINVAL,
				 ks_text("\"%s\" is the directory of the keystore itself", ks_dir));
	snprintf(dir, sizeof(dir), "%s/../keystore", backups);
	assert_status(ks, keystore_backup(ks, ks_path, dir, name, sizeof(name)), KEYSTORE_EINVAL);
	snprintf(dir, sizeof(dir), "%s/none", top);
	assert_fails(ks, keystore_backup(ks, ks_path, dir, name, sizeof(name)), KEYSTORE_ENOENT,
				 ks_text("directory \"%s\" does not exist", dir));
	ck_assert_int_eq(chmod(backups, 0755), 0);
	assert_fails(ks, keystore_backup(ks, ks_path, backups, name, sizeof(name)), KEYSTORE_EPERM,
				 ks_text("directory \"%s\" has group or other access (mode 0755)", backups));
	ck_assert_int_eq(chmod(backups, 0700), 0);
	assert_status(ks, keystore_backup(ks, ks_path, backups, name, 20), KEYSTORE_EINVAL);
	damage(ks_path);
	assert_status(ks, keystore_backup(ks, ks_path, backups, name, sizeof(name)), KEYSTORE_EDAMAGED);
	ck_assert_str_eq(name, "untouched");
	ck_assert_int_eq(ks_count_files(backups), 0);
	keystore_free(&ks);
}
END_TEST

/* A file that ks is sure of, but whose body somebody altered, is not backed up as if it were sound. */
START_TEST(test_backup_of_altered)
{
	keystore   *ks = ks_make_stored();
	keystore   *closed = keystore_new();
	char		name[512];
	size_t		len;
	uint8_t    *buf = ks_read_file(ks_path, &len);

	buf[len - 60] ^= 1;
	ks_redigest(buf, len);
	ks_write_file(ks_path, buf, len, 0600);
	assert_status(ks, keystore_backup(ks, ks_path, backups, name, sizeof(name)),
				  KEYSTORE_EWRONGKEY);
	ck_assert_int_eq(ks_count_files(backups), 0);
	assert_ok(closed, keystore_backup(closed, ks_path, backups, name, sizeof(name)));
	free(buf);
	keystore_free(&closed);
	keystore_free(&ks);
}
END_TEST

/* A note that is not ours, or was altered, is no backup; nothing in it can do harm. */
START_TEST(test_note_damage)
{
	keystore   *ks = ks_make_stored();
	struct keystore_backup_info info;
	char		name[512],
				note_path[400];
	uint8_t    *note;
	size_t		len;

	assert_ok(ks, keystore_backup(ks, ks_path, backups, name, sizeof(name)));
	snprintf(note_path, sizeof(note_path), "%s/%s", ks_dir, KEYSTORE_BACKUP_NOTE_NAME);
	note = ks_read_file(note_path, &len);
	for (size_t i = 0; i < len; i++)
	{
		note[i] ^= 0x01;
		ks_write_file(note_path, note, len, 0600);
		assert_ok(ks, keystore_last_backup(ks, ks_path, &info));
		if (i < 22 + KEYSTORE_UUID_STRLEN)	/* the magic and the UUID */
			ck_assert(!info.known);
		if (!info.known)
			ck_assert(!info.current && info.generation == 0 && info.name[0] == '\0');
		note[i] ^= 0x01;
	}
	for (size_t cut = 0; cut < len; cut++)
	{
		ks_write_file(note_path, note, cut, 0600);
		assert_ok(ks, keystore_last_backup(ks, ks_path, &info));
		ck_assert(!info.known);
	}
	ks_write_file(note_path, note, len, 0644);
	assert_status(ks, keystore_last_backup(ks, ks_path, &info), KEYSTORE_EPERM);
	free(note);
	keystore_free(&ks);
}
END_TEST

/* ---- repair -------------------------------------------------------------------------------- */

START_TEST(test_repair_from_prev)
{
	keystore   *ks = ks_make_stored();
	char		kept[512];
	char		damaged[400];

	rotate(ks);
	damage(ks_path);
	snprintf(damaged, sizeof(damaged), "%s/as_it_was", top);
	ck_assert_int_eq(link(ks_path, damaged), 0);
	assert_ok(ks, keystore_repair(ks, ks_path, NULL, false, kept, sizeof(kept)));
	ck_assert(same_files(ks_path, prev_path));
	ck_assert_ptr_nonnull(strstr(kept, ks_text("%s.damaged-2", ks_path)));
	ck_assert(same_files(kept, damaged));

	/* Done: the same again changes nothing. */
	assert_ok(ks, keystore_repair(ks, ks_path, NULL, false, kept, sizeof(kept)));
	ck_assert_str_eq(kept, "");
	assert_ok(ks, keystore_load(ks, ks_path));
	assert_ok(ks, keystore_open_passphrase(ks, PASS, strlen(PASS)));
	keystore_free(&ks);
}
END_TEST

START_TEST(test_repair_from_backup)
{
	keystore   *ks = ks_make_stored();
	char		name[512],
				kept[512] = "untouched";

	assert_ok(ks, keystore_backup(ks, ks_path, backups, name, sizeof(name)));
	rotate(ks);
	assert_fails(ks, keystore_repair(ks, ks_path, name, false, kept, sizeof(kept)),
				 KEYSTORE_ECONFLICT,
				 ks_text("keystore \"%s\" is sound and has generation 2, \"%s\" has generation 1",
						 ks_path, name));
	ck_assert_str_eq(kept, "untouched");
	assert_ok(ks, keystore_repair(ks, ks_path, name, true, kept, sizeof(kept)));
	ck_assert(same_files(ks_path, name));

	/* The newer one, kept aside, goes back without force; and a missing file is put in place. */
	assert_ok(ks, keystore_repair(ks, ks_path, kept, false, kept, sizeof(kept)));
	ck_assert(same_files(kept, name));
	ck_assert_int_eq(unlink(ks_path), 0);
	assert_ok(ks, keystore_repair(ks, ks_path, name, false, kept, sizeof(kept)));
	ck_assert_str_eq(kept, "");
	ck_assert(same_files(ks_path, name));

	/* What is cut to nothing, or is something else entirely, is kept too. */
	ks_write_file(ks_path, "", 0, 0600);
	assert_ok(ks, keystore_repair(ks, ks_path, name, false, kept, sizeof(kept)));
	ck_assert(ks_exists(kept));
	ks_write_file(ks_path, "something else", 14, 0600);
	assert_ok(ks, keystore_repair(ks, ks_path, name, false, kept, sizeof(kept)));
	ck_assert(ks_exists(kept));
	ck_assert(same_files(ks_path, name));
	keystore_free(&ks);
}
END_TEST

START_TEST(test_repair_refused)
{
	keystore   *ks = ks_make_stored();
	keystore   *other = ks_make();
	char		kept[512] = "untouched";
	char		path[400],
				before[400];

	snprintf(before, sizeof(before), "%s/before", top);
	ck_assert_int_eq(link(ks_path, before), 0);
	assert_fails(ks, keystore_repair(ks, ks_path, NULL, false, kept, sizeof(kept)), KEYSTORE_ENOENT,
				 ks_text("keystore \"%s\" does not exist", prev_path));
	snprintf(path, sizeof(path), "%s/other.ks", backups);
	assert_ok(other, keystore_store(other, path));
	assert_fails(ks, keystore_repair(ks, ks_path, path, false, kept, sizeof(kept)),
				 KEYSTORE_ECONFLICT,
				 ks_text("\"%s\" and \"%s\" are not copies of the same keystore", ks_path, path));
	damage(path);
	assert_status(ks, keystore_repair(ks, ks_path, path, true, kept, sizeof(kept)),
				  KEYSTORE_EDAMAGED);

	/* A wrong mode says nothing about the content. */
	assert_ok(ks, keystore_backup(ks, ks_path, backups, path, sizeof(path)));
	ck_assert_int_eq(chmod(ks_path, 0640), 0);
	assert_status(ks, keystore_repair(ks, ks_path, path, true, kept, sizeof(kept)), KEYSTORE_EPERM);
	ck_assert_int_eq(chmod(ks_path, 0600), 0);
	ck_assert_str_eq(kept, "untouched");
	ck_assert(same_files(ks_path, before));
	keystore_free(&ks);
	keystore_free(&other);
}
END_TEST

/* ---- verify --------------------------------------------------------------------------------- */

static struct keystore_finding findings[64];
static size_t count;

/* Is there a finding of this severity with this text (a part of it)? */
static bool
found(enum keystore_severity severity, const char *text)
{
	for (size_t i = 0; i < count; i++)
	{
		if (findings[i].severity == severity && strstr(findings[i].text, text) != NULL)
			return true;
	}
	return false;
}

static void
verify(keystore *ks)
{
	assert_ok(ks, keystore_verify(ks, ks_path, findings, 64, &count));
	for (size_t i = 1; i < count; i++)
		ck_assert_int_ge(findings[i - 1].severity, findings[i].severity);
}

#define assert_found(severity, want) \
	ck_assert_msg(found(severity, want), "not found: %s; first of %zu: %s", want, count, \
				  count > 0 ? findings[0].text : "")

static keystore *
make_good(void)
{
	const struct keystore_kdf_params strong = {KEYSTORE_KDF_PBKDF2_SHA512, 210000, 0, 0, 0};
	keystore   *ks = keystore_new();
	char		text[KEYSTORE_RECOVERY_STRLEN + 1];
	char		name[512];
	uint32_t	id;

	assert_ok(ks, keystore_set_host_secret_path(ks, secret_path));
	assert_ok(ks, keystore_create(ks, PASS, strlen(PASS), &strong, "test"));
	assert_ok(ks, keystore_add_recovery_key(ks, NULL, &ks_cheap, text, &id));
	assert_ok(ks, keystore_store(ks, ks_path));
	rotate(ks);
	assert_ok(ks, keystore_backup(ks, ks_path, backups, name, sizeof(name)));
	return ks;
}

START_TEST(test_verify_good)
{
	keystore   *ks = make_good();
	keystore   *closed = keystore_new();

	verify(ks);
	ck_assert_msg(count == 0, "found: %s", findings[0].text);
	verify(closed);
	ck_assert_uint_eq(count, 1);
	assert_found(KEYSTORE_NOTE, "the content was not examined, since no key for it was given");
	assert_ok(ks, keystore_auto_open_enable(ks, ks_path));
	verify(ks);
	ck_assert_uint_eq(count, 1);
	assert_found(KEYSTORE_NOTE, "auto-open is enabled: host, which is obfuscation");
	keystore_free(&ks);
	keystore_free(&closed);
}
END_TEST

START_TEST(test_verify_bad_file)
{
	keystore   *ks = make_good();
	uint8_t    *buf;
	size_t		len;
	size_t		none = 99;

	buf = ks_read_file(ks_path, &len);
	damage(ks_path);
	verify(ks);
	assert_found(KEYSTORE_ERROR, "is corrupted: invalid checksum");
	ck_assert_int_eq(findings[0].status, KEYSTORE_EDAMAGED);
	ck_assert(findings[0].hint[0] != '\0');

	/* Altered, with the checksum put right: only the key tells. */
	buf[len - 60] ^= 1;
	ks_redigest(buf, len);
	ks_write_file(ks_path, buf, len, 0600);
	verify(ks);
	assert_found(KEYSTORE_ERROR, "the key belongs to another keystore, or the keystore was altered");
	keystore_close(ks);
	verify(ks);
	ck_assert(!found(KEYSTORE_ERROR, ""));

	ck_assert_int_eq(chmod(ks_path, 0604), 0);
	verify(ks);
	assert_found(KEYSTORE_ERROR, "has group or other access (mode 0604)");
	ck_assert_int_eq(unlink(ks_path), 0);
	verify(ks);
	assert_found(KEYSTORE_ERROR, "does not exist");
	assert_ok(ks, keystore_verify(ks, ks_path, findings, 0, &none));
	ck_assert_uint_eq(none, 0);
	free(buf);
	keystore_free(&ks);
}
END_TEST

START_TEST(test_verify_surroundings)
{
	keystore   *ks = make_good();
	char		path[400];
	char		kept[512];
	uint8_t    *newer;
	size_t		len;

	/* An older keystore put back by mistake: .prev is newer. */
	newer = ks_read_file(ks_path, &len);
	assert_ok(ks, keystore_repair(ks, ks_path, NULL, true, kept, sizeof(kept)));
	ks_write_file(prev_path, newer, len, 0600);
	verify(ks);
	assert_found(KEYSTORE_WARNING, "an older keystore seems to have been put back");
	assert_found(KEYSTORE_WARNING, "the keystore was not backed up since its last change");
	assert_found(KEYSTORE_NOTE, "is what a repair found in place of the keystore");
	damage(prev_path);
	verify(ks);
	assert_found(KEYSTORE_WARNING, "keystore.ks.prev\" is corrupted: invalid checksum");

	snprintf(path, sizeof(path), "%s.new.0123456789abcdef", ks_path);
	ks_write_file(path, "x", 1, 0600);
	snprintf(path, sizeof(path), "%s/%s", ks_dir, KEYSTORE_BACKUP_NOTE_NAME);
	ck_assert_int_eq(unlink(path), 0);
	snprintf(path, sizeof(path), "%s/%s", ks_dir, KEYSTORE_AUTO_OPEN_NAME);
	ks_write_file(path, "x", 1, 0600);
	verify(ks);
	assert_found(KEYSTORE_NOTE, "was left by a program that was interrupted");
	assert_found(KEYSTORE_WARNING, "the keystore was never backed up");
	assert_found(KEYSTORE_WARNING, "auto-open is enabled but cannot be used");
	free(newer);
	keystore_free(&ks);
}
END_TEST

START_TEST(test_verify_content)
{
	keystore   *ks = ks_make_stored();
	struct ksi_history history = {0};

	rotate(ks);
	assert_ok(ks, keystore_compromise_key(ks, 1));
	assert_ok(ks, ksi_history_copy(ks, &history));
	ksi_keys(&history)[1].activated -= INT64_C(86400) * 731;
	ksi_keys(&history)[0].created += INT64_C(86400) * 3;
	assert_ok(ks, ksi_commit_keys(ks, &history, 9, 9));
	assert_ok(ks, keystore_store(ks, ks_path));
	verify(ks);
	assert_found(KEYSTORE_WARNING, "master encryption key 1 is compromised");
	assert_found(KEYSTORE_WARNING, "the active master encryption key is 731 days old");
	assert_found(KEYSTORE_NOTE, "master encryption key 1 was created in the future");
	assert_found(KEYSTORE_WARNING, "slot 1 (\"passphrase\") is cheaper to guess than a new one would be");
	assert_found(KEYSTORE_NOTE, "there is no recovery key");
	keystore_free(&ks);
}
END_TEST

/* More findings than room: the worst stay. */
START_TEST(test_verify_room)
{
	keystore   *ks = ks_make_stored();

	assert_ok(ks, keystore_verify(ks, ks_path, findings, 2, &count));
	ck_assert_uint_eq(count, 2);
	assert_found(KEYSTORE_WARNING, "cheaper to guess");
	assert_found(KEYSTORE_WARNING, "never backed up");
	keystore_free(&ks);
}
END_TEST

int
main(void)
{
	Suite	   *suite = suite_create("backup");
	TCase	   *tc = ks_tcase("backup");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, test_backup);
	tcase_add_test(tc, test_backup_refused);
	tcase_add_test(tc, test_backup_of_altered);
	tcase_add_test(tc, test_note_damage);
	suite_add_tcase(suite, tc);
	tc = ks_tcase("repair");
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, test_repair_from_prev);
	tcase_add_test(tc, test_repair_from_backup);
	tcase_add_test(tc, test_repair_refused);
	suite_add_tcase(suite, tc);
	tc = ks_tcase("verify");
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, test_verify_good);
	tcase_add_test(tc, test_verify_bad_file);
	tcase_add_test(tc, test_verify_surroundings);
	tcase_add_test(tc, test_verify_content);
	tcase_add_test(tc, test_verify_room);
	suite_add_tcase(suite, tc);
	return ks_run(suite);
}
