/*
 * check_ks_sealers.c
 *		Auto-open by a credential and by a TPM, the latter against swtpm, a real TPM 2.0 in
 *		software.  Each opens where it was made, nowhere else, and says why not.
 *
 * ksi_machine_id() is replaced by the linker (--wrap), so that the test can be on two computers.
 */
#include <config.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ks_common.h"
#include "sealer.h"

static const char *machine_id = "0123456789abcdef0123456789abcdef";

enum keystore_status __wrap_ksi_machine_id(keystore *ks, char ret_id[KSI_MACHINE_ID_LEN + 1]);

enum keystore_status
__wrap_ksi_machine_id(keystore *ks, char ret_id[KSI_MACHINE_ID_LEN + 1])
{
	memcpy(ret_id, machine_id, KSI_MACHINE_ID_LEN + 1);
	return KEYSTORE_OK;
}

static char credential_dir[320];
static char aks_path[320];
static const char *tcti;		/* of the handles that the test makes */

static void
setup(void)
{
	ks_setup_below();
	snprintf(aks_path, sizeof(aks_path), "%s/%s", ks_dir, KEYSTORE_AUTO_OPEN_NAME);
	snprintf(credential_dir, sizeof(credential_dir), "%s/credentials", ks_top);
	ck_assert_int_eq(mkdir(credential_dir, 0700), 0);
	tcti = NULL;
}

static void
put_credential(const char *name, char fill, size_t len, int mode)
{
	char		path[400];
	char		bytes[5000];

	memset(bytes, fill, sizeof(bytes));
	snprintf(path, sizeof(path), "%s/%s", credential_dir, name);
	(void) unlink(path);
	ks_write_file(path, bytes, len, mode);
}

/* A new process's view: loaded, closed. */
static keystore *
load_closed(const char *path)
{
	keystore   *ks = keystore_new();

	assert_ok(ks, keystore_set_sealer_paths(ks, tcti, credential_dir));
	assert_ok(ks, keystore_load(ks, path));
	return ks;
}

static void
assert_opens(const char *path)
{
	keystore   *ks = load_closed(path);
	struct keystore_auto_open_info info;

	assert_ok(ks, keystore_open_auto(ks, path));
	ck_assert(keystore_is_open(ks));
	ck_assert_uint_eq(keystore_opened_slot(ks), 0);
	assert_ok(ks, keystore_auto_open_status(ks, path, &info));
	ck_assert(info.usable);
	ck_assert_str_eq(info.reason, "");
	keystore_free(&ks);
}

static void
assert_not_here(const char *path, enum keystore_status status, const char *reason)
{
	keystore   *ks = load_closed(path);
	struct keystore_auto_open_info info;

	assert_status(ks, keystore_open_auto(ks, path), status);
	if (status == KEYSTORE_EWRONGKEY)
		ck_assert_msg(strstr(keystore_errhint(ks), reason) != NULL, "hint: %s", keystore_errhint(ks));
	else
		ck_assert_str_eq(keystore_errmsg(ks), reason);
	ck_assert(!keystore_is_open(ks));
	assert_ok(ks, keystore_auto_open_status(ks, path, &info));
	ck_assert(!info.usable);
	ck_assert_str_eq(info.reason, reason);
	keystore_free(&ks);
}

/* Copy the keystore and its auto-open file to another directory. */
static void
copy_pair(const char *dir, char path[400])
{
	const char *const names[] = {KEYSTORE_FILE_NAME, KEYSTORE_AUTO_OPEN_NAME};

	ck_assert_int_eq(mkdir(dir, 0700), 0);
	for (int i = 0; i < 2; i++)
	{
		char		from[400],
					to[400];
		size_t		len;
		uint8_t    *buf;

		snprintf(from, sizeof(from), "%s/%s", ks_dir, names[i]);
		snprintf(to, sizeof(to), "%s/%s", dir, names[i]);
		buf = ks_read_file(from, &len);
		ks_write_file(to, buf, len, 0600);
		free(buf);
	}
	snprintf(path, 400, "%s/%s", dir, KEYSTORE_FILE_NAME);
}

/* Put another user's number into the file, as if it had been made by him. */
static void
make_other_users(void)
{
	size_t		len;
	uint8_t    *buf = ks_read_file(aks_path, &len);

	(void) ksi_put32(buf + 12, (uint32_t) geteuid() + 1);
	ks_redigest(buf, len);
	ks_write_file(aks_path, buf, len, 0600);
	free(buf);
}

/* What is the same for all kinds: user, directory, computer, keystore, rekey. */
static void
check_bindings(keystore *ks, const struct keystore_seal_options *options)
{
	const struct keystore_passphrase pass = {PASS, strlen(PASS)};
	uint8_t		envelope[KEYSTORE_ENVELOPE_LEN];
	struct keystore_slot_info dropped[KEYSTORE_MAX_SLOTS];
	size_t		count;
	char		dir[320],
				path[400];
	bool		resealed = false;
	keystore   *other;

	assert_opens(ks_path);
	machine_id = "1123456789abcdef0123456789abcdef";
	assert_not_here(ks_path, KEYSTORE_EWRONGKEY, "it was created on another computer");
	machine_id = "0123456789abcdef0123456789abcdef";
	snprintf(dir, sizeof(dir), "%s/copy", ks_top);
	copy_pair(dir, path);
	assert_not_here(path, KEYSTORE_EWRONGKEY, "it was created for another directory");
	make_other_users();
	assert_not_here(ks_path, KEYSTORE_EWRONGKEY, "it was created for another user");
	assert_ok(ks, keystore_auto_open_enable_sealed(ks, ks_path, options));

	other = ks_make();
	assert_ok(other, keystore_store(other, ks_path));
	keystore_free(&other);
	assert_not_here(ks_path, KEYSTORE_EWRONGKEY, "it belongs to another keystore");

	/* After a rekey it has to be made anew. */
	assert_ok(ks, keystore_rekey(ks, &pass, 1, envelope, dropped, &count));
	assert_ok(ks, keystore_store(ks, ks_path));
	assert_not_here(ks_path, KEYSTORE_EWRONGKEY, "the keystore was rekeyed since it was created");
	assert_ok(ks, keystore_auto_open_reseal(ks, ks_path, &resealed));
	ck_assert(resealed);
	assert_opens(ks_path);

	assert_ok(ks, keystore_auto_open_disable(ks, ks_path));
	resealed = true;
	assert_ok(ks, keystore_auto_open_reseal(ks, ks_path, &resealed));
	ck_assert(!resealed);
	ck_assert(!ks_exists(aks_path));
}

/* Every byte altered, with and without the checksum put right; every length. */
static void
check_damage(void)
{
	size_t		len;
	uint8_t    *good = ks_read_file(aks_path, &len);
	uint8_t    *buf = calloc(1, len + 64);
	keystore   *ks = load_closed(ks_path);

	ck_assert_ptr_nonnull(buf);
	for (int put_right = 0; put_right <= 1; put_right++)
	{
		for (size_t i = 0; i < len - (put_right ? KSI_DIGEST_LEN : 0); i++)
		{
			enum keystore_status status;

			memcpy(buf, good, len);
			buf[i] ^= 0x01;
			if (put_right)
				ks_redigest(buf, len);
			ks_write_file(aks_path, buf, len, 0600);
			status = keystore_open_auto(ks, ks_path);
			ck_assert_msg(status == KEYSTORE_EFORMAT || status == KEYSTORE_EVERSION ||
						  status == KEYSTORE_EDAMAGED || status == KEYSTORE_EWRONGKEY ||
						  status == KEYSTORE_ESEALER, "byte %zu: status %d: %s", i, (int) status,
						  keystore_errmsg(ks));
			if (!put_right)
				ck_assert(status != KEYSTORE_EWRONGKEY && status != KEYSTORE_ESEALER);
			ck_assert(!keystore_is_open(ks));
		}
	}
	for (size_t other = 0; other < len + 64; other++)
	{
		if (other == len)
			continue;
		memset(buf, 0, len + 64);
		memcpy(buf, good, other < len ? other : len);
		ks_write_file(aks_path, buf, other, 0600);
		assert_status(ks, keystore_open_auto(ks, ks_path), KEYSTORE_EDAMAGED);
		if (other > KSI_DIGEST_LEN)
		{
			ks_redigest(buf, other);
			ks_write_file(aks_path, buf, other, 0600);
			ck_assert_int_ne(keystore_open_auto(ks, ks_path), KEYSTORE_OK);
		}
		ck_assert(!keystore_is_open(ks));
	}
	ks_write_file(aks_path, good, len, 0600);
	assert_ok(ks, keystore_open_auto(ks, ks_path));
	free(good);
	free(buf);
	keystore_free(&ks);
}

/* ---- credential --------------------------------------------------------------------------- */

static const struct keystore_seal_options by_credential = {
	.kind = "credential", .credential = "pgx-keystore"
};

static keystore *
make_by_credential(void)
{
	keystore   *ks = ks_make_stored();

	put_credential("pgx-keystore", 'k', 32, 0400);
	assert_ok(ks, keystore_set_sealer_paths(ks, NULL, credential_dir));
	assert_ok(ks, keystore_auto_open_enable_sealed(ks, ks_path, &by_credential));
	return ks;
}

START_TEST(test_credential)
{
	keystore   *ks = make_by_credential();
	struct keystore_auto_open_info info;

	ck_assert(keystore_sealer_available("credential"));
	assert_ok(ks, keystore_auto_open_status(ks, ks_path, &info));
	ck_assert_str_eq(info.kind, "credential");
	ck_assert_str_eq(info.grade, "as good as the protection of the credential");
	ck_assert_str_eq(info.grade, keystore_sealer_grade("credential"));
	ck_assert_str_eq(info.detail, "credential pgx-keystore");
	ck_assert_int_gt(info.created, 0);
	check_bindings(ks, &by_credential);
	keystore_free(&ks);
}
END_TEST

START_TEST(test_credential_wrong)
{
#define CANNOT(what) "credential \"pgx-keystore\" cannot be used: " what
	keystore   *ks = make_by_credential();

	put_credential("pgx-keystore", 'K', 32, 0400);
	assert_not_here(ks_path, KEYSTORE_EWRONGKEY,
					"the credential is not the one that it was sealed with");
	put_credential("pgx-keystore", 'k', 33, 0400);
	assert_not_here(ks_path, KEYSTORE_EWRONGKEY,
					"the credential is not the one that it was sealed with");
	put_credential("pgx-keystore", 'k', 31, 0400);
	assert_not_here(ks_path, KEYSTORE_ESEALER, CANNOT("it must have 32 to 4096 bytes"));
	put_credential("pgx-keystore", 'k', 4097, 0400);
	assert_not_here(ks_path, KEYSTORE_ESEALER, CANNOT("it must have 32 to 4096 bytes"));
	put_credential("pgx-keystore", 'k', 32, 0444);
	assert_not_here(ks_path, KEYSTORE_ESEALER,
					CANNOT("it is not a regular file, or others can read it"));
	put_credential("pgx-keystore", 'k', 32, 0440);	/* as systemd leaves it where it uses ACLs */
	assert_opens(ks_path);
	ck_assert_int_lt(snprintf(aks_path, sizeof(aks_path), "%.250s/pgx-keystore", credential_dir),
					 (int) sizeof(aks_path));
	ck_assert_int_eq(unlink(aks_path), 0);
	assert_not_here(ks_path, KEYSTORE_ESEALER, CANNOT("it does not exist"));
	ck_assert_int_eq(symlink("/dev/zero", aks_path), 0);
	assert_not_here(ks_path, KEYSTORE_ESEALER, CANNOT("it could not be opened"));
	credential_dir[0] = '\0';
	assert_not_here(ks_path, KEYSTORE_ESEALER, CANNOT("this process was given no credentials"));
	keystore_free(&ks);
}
END_TEST

START_TEST(test_credential_names)
{
	static const char *const names[] = {
		NULL, "", ".", "..", ".hidden", "a/b", "/etc/machine-id", "a b", "a\n", "\xc3\xa9",
		"1234567890123456789012345678901234567890123456789012345678901234"
	};
	keystore   *ks = ks_make_stored();

	assert_ok(ks, keystore_set_sealer_paths(ks, NULL, credential_dir));
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		const struct keystore_seal_options options = {.kind = "credential", .credential = names[i]};

		assert_fails(ks, keystore_auto_open_enable_sealed(ks, ks_path, &options), KEYSTORE_EINVAL,
					 ks_text("\"%s\" is not a name for a credential", names[i] != NULL ? names[i] : ""));
		ck_assert(!ks_exists(aks_path));
	}
	keystore_free(&ks);
}
END_TEST

START_TEST(test_credential_damage)
{
	keystore   *ks = make_by_credential();

	check_damage();
	keystore_free(&ks);
}
END_TEST

START_TEST(test_unknown_kind)
{
	keystore   *ks = ks_make_stored();
	const struct keystore_seal_options options = {.kind = "fido2"};

	assert_fails(ks, keystore_auto_open_enable_sealed(ks, ks_path, &options), KEYSTORE_EINVAL,
				 "there is no auto-open of kind \"fido2\"");
	ck_assert(!keystore_sealer_available("fido2"));
	ck_assert_str_eq(keystore_sealer_grade("fido2"), "");
	ck_assert(keystore_sealer_available("host"));
	ck_assert_str_eq(keystore_sealer_grade("host"),
					 "obfuscation: opens for whoever can read the files of this user on this computer");
	keystore_free(&ks);
}
END_TEST

/* ---- tpm2 ----------------------------------------------------------------------------------- */

#ifdef HAVE_TSS2

#include <tss2/tss2_esys.h>
#include <tss2/tss2_tctildr.h>

static pid_t swtpm;

static bool
can_connect(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int			fd = socket(AF_UNIX, SOCK_STREAM, 0);
	bool		connected;

	ck_assert_int_ge(fd, 0);
	ck_assert_uint_lt(strlen(path), sizeof(addr.sun_path));
	memcpy(addr.sun_path, path, strlen(path));
	connected = connect(fd, (struct sockaddr *) &addr, sizeof(addr)) == 0;
	close(fd);
	return connected;
}

/* A TPM with the given state directory.  Its seed is made at the first start. */
static void
start_tpm(const char *state)
{
	static char config[400];
	char		server[400],
				ctrl[400],
				dir[400],
				server_path[360],
				ctrl_path[360];
	const struct timespec pause = {0, 10000000};

	/* Paths of sockets must be short, so the program runs in the directory. */
	ck_assert_int_eq(chdir(ks_top), 0);
	snprintf(server_path, sizeof(server_path), "%s.sock", state);
	snprintf(ctrl_path, sizeof(ctrl_path), "%s.sock.ctrl", state);
	snprintf(server, sizeof(server), "type=unixio,path=%s", server_path);
	snprintf(ctrl, sizeof(ctrl), "type=unixio,path=%s", ctrl_path);
	snprintf(dir, sizeof(dir), "dir=%s", state);
	snprintf(config, sizeof(config), "swtpm:path=%s", server_path);
	tcti = config;
	(void) mkdir(state, 0700);
	swtpm = fork();
	ck_assert_int_ge(swtpm, 0);
	if (swtpm == 0)
	{
		/* It must not outlive a test that failed. */
		(void) prctl(PR_SET_PDEATHSIG, SIGTERM);
		execlp("swtpm", "swtpm", "socket", "--tpm2", "--tpmstate", dir, "--server", server, "--ctrl",
			   ctrl, "--flags", "not-need-init,startup-clear", (char *) NULL);
		_exit(127);
	}
	/* Check stops the test, and with it the loop, when the time of a test is over. */
	while (!ks_exists(server_path) || !can_connect(ctrl_path))
	{
		ck_assert_msg(waitpid(swtpm, NULL, WNOHANG) == 0, "swtpm did not start");
		(void) nanosleep(&pause, NULL);
	}
}

static void
stop_tpm(void)
{
	ck_assert_int_eq(kill(swtpm, SIGTERM), 0);
	ck_assert_int_eq(waitpid(swtpm, NULL, 0), swtpm);
}

/* What is in the TPM's memory after we are through: nothing. */
static void
assert_tpm_empty(void)
{
	static const TPM2_HANDLE ranges[] = {
		TPM2_TRANSIENT_FIRST, TPM2_LOADED_SESSION_FIRST, TPM2_ACTIVE_SESSION_FIRST,
		TPM2_PERSISTENT_FIRST
	};
	TSS2_TCTI_CONTEXT *context = NULL;
	ESYS_CONTEXT *esys = NULL;

	ck_assert_uint_eq(Tss2_TctiLdr_Initialize(tcti, &context), TSS2_RC_SUCCESS);
	ck_assert_uint_eq(Esys_Initialize(&esys, context, NULL), TSS2_RC_SUCCESS);
	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
	{
		TPMS_CAPABILITY_DATA *data = NULL;
		TPMI_YES_NO more;

		ck_assert_uint_eq(Esys_GetCapability(esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE,
											 TPM2_CAP_HANDLES, ranges[i], 10, &more, &data),
						  TSS2_RC_SUCCESS);
		ck_assert_msg(data->data.handles.count == 0, "%u handles from %x on are left",
					  data->data.handles.count, ranges[i]);
		Esys_Free(data);
	}
	Esys_Finalize(&esys);
	Tss2_TctiLdr_Finalize(&context);
}

/* As an update of the firmware or the boot loader would. */
static void
extend_pcr(ESYS_TR pcr)
{
	TSS2_TCTI_CONTEXT *context = NULL;
	ESYS_CONTEXT *esys = NULL;
	TPML_DIGEST_VALUES digests = {.count = 1,.digests = {{.hashAlg = TPM2_ALG_SHA256}}};

	memset(digests.digests[0].digest.sha256, 7, TPM2_SHA256_DIGEST_SIZE);
	ck_assert_uint_eq(Tss2_TctiLdr_Initialize(tcti, &context), TSS2_RC_SUCCESS);
	ck_assert_uint_eq(Esys_Initialize(&esys, context, NULL), TSS2_RC_SUCCESS);
	ck_assert_uint_eq(Esys_PCR_Extend(esys, pcr, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
									  &digests), TSS2_RC_SUCCESS);
	Esys_Finalize(&esys);
	Tss2_TctiLdr_Finalize(&context);
}

static keystore *
make_by_tpm(const struct keystore_seal_options *options)
{
	keystore   *ks = ks_make_stored();

	assert_ok(ks, keystore_set_sealer_paths(ks, tcti, NULL));
	assert_ok(ks, keystore_auto_open_enable_sealed(ks, ks_path, options));
	return ks;
}

START_TEST(test_tpm)
{
	const struct keystore_seal_options options = {.kind = "tpm2"};
	struct keystore_auto_open_info info;
	keystore   *ks;

	start_tpm("one");
	ks = make_by_tpm(&options);
	assert_ok(ks, keystore_auto_open_status(ks, ks_path, &info));
	ck_assert_str_eq(info.kind, "tpm2");
	ck_assert_str_eq(info.detail, "no PCRs");
	ck_assert_str_eq(info.grade, "bound to the TPM of this computer, and to the PCRs that were named");
	assert_tpm_empty();

	/* Another start of the same TPM is fine, and PCRs do not matter. */
	stop_tpm();
	start_tpm("one");
	extend_pcr(ESYS_TR_PCR7);
	check_bindings(ks, &options);
	assert_tpm_empty();
	stop_tpm();
	keystore_free(&ks);
}
END_TEST

START_TEST(test_tpm_another)
{
	const struct keystore_seal_options options = {.kind = "tpm2"};
	keystore   *ks;

	start_tpm("one");
	ks = make_by_tpm(&options);
	stop_tpm();
	start_tpm("two");
	assert_not_here(ks_path, KEYSTORE_EWRONGKEY,
					"it was sealed with another TPM, or the TPM was cleared since");
	assert_tpm_empty();
	stop_tpm();
	keystore_free(&ks);

	/* And with no TPM at all. */
	ks = load_closed(ks_path);
	assert_status(ks, keystore_open_auto(ks, ks_path), KEYSTORE_ESEALER);
	ck_assert_msg(strncmp(keystore_errmsg(ks), "could not connect to the TPM: ", 30) == 0, "%s",
				  keystore_errmsg(ks));
	ck_assert(strstr(keystore_errhint(ks), "TPM 2.0") != NULL);
	keystore_free(&ks);
}
END_TEST

START_TEST(test_tpm_pcrs)
{
	const struct keystore_seal_options options = {.kind = "tpm2", .pcrs = 1U << 7 | 1U << 16};
	const struct keystore_seal_options bad = {.kind = "tpm2", .pcrs = 1U << 24};
	struct keystore_auto_open_info info;
	bool		resealed = false;
	keystore   *ks;

	start_tpm("one");
	ks = make_by_tpm(&options);
	assert_ok(ks, keystore_auto_open_status(ks, ks_path, &info));
	ck_assert_str_eq(info.detail, "PCRs sha256:7,16");
	assert_opens(ks_path);
	extend_pcr(ESYS_TR_PCR8);	/* not one of them */
	assert_opens(ks_path);
	extend_pcr(ESYS_TR_PCR7);
	assert_not_here(ks_path, KEYSTORE_EWRONGKEY, "the PCRs that it was sealed to have changed");
	assert_tpm_empty();

	/* Sealed anew, to the same PCRs as they are now. */
	assert_ok(ks, keystore_auto_open_reseal(ks, ks_path, &resealed));
	ck_assert(resealed);
	assert_opens(ks_path);
	assert_ok(ks, keystore_auto_open_status(ks, ks_path, &info));
	ck_assert_str_eq(info.detail, "PCRs sha256:7,16");
	assert_fails(ks, keystore_auto_open_enable_sealed(ks, ks_path, &bad), KEYSTORE_EINVAL,
				 "PCRs are numbered from 0 to 23");

	/* A new start of the computer takes the PCRs back to what they were at first: not what they are sealed to. */
	stop_tpm();
	start_tpm("one");
	assert_not_here(ks_path, KEYSTORE_EWRONGKEY, "the PCRs that it was sealed to have changed");
	stop_tpm();
	keystore_free(&ks);
}
END_TEST

START_TEST(test_tpm_damage)
{
	const struct keystore_seal_options options = {.kind = "tpm2", .pcrs = 1U << 7};
	keystore   *ks;

	start_tpm("one");
	ks = make_by_tpm(&options);
	check_damage();
	assert_tpm_empty();
	stop_tpm();
	keystore_free(&ks);
}
END_TEST

/* What goes to the TPM and comes back does not hold the secret, nor does the file the KSK. */
START_TEST(test_tpm_secret_is_not_in_the_file)
{
	const struct keystore_seal_options options = {.kind = "tpm2"};
	keystore   *ks;
	size_t		len;
	uint8_t    *buf;
	uint8_t		ksk[KEYSTORE_KEY_LEN];

	start_tpm("one");
	ks = make_by_tpm(&options);
	buf = ks_read_file(aks_path, &len);
	assert_ok(ks, keystore_get_ksk(ks, ksk));
	ck_assert_ptr_null(memmem(buf, len, ksk, sizeof(ksk)));
	ck_assert_ptr_nonnull(memmem(buf, len, buf + 16, KEYSTORE_UUID_LEN));	/* it would be found */
	free(buf);
	stop_tpm();
	keystore_free(&ks);
}
END_TEST

static bool
has_swtpm(void)
{
	return system("swtpm --version >/dev/null 2>&1") == 0;
}

#else							/* not HAVE_TSS2 */

START_TEST(test_tpm_unsupported)
{
	const struct keystore_seal_options options = {.kind = "tpm2"};
	keystore   *ks = ks_make_stored();

	ck_assert(!keystore_sealer_available("tpm2"));
	assert_fails(ks, keystore_auto_open_enable_sealed(ks, ks_path, &options), KEYSTORE_EUNSUPPORTED,
				 "auto-open of kind \"tpm2\" is not supported by this build");
	keystore_free(&ks);
}
END_TEST

#endif							/* HAVE_TSS2 */

int
main(void)
{
	Suite	   *suite = suite_create("sealers");
	TCase	   *tc = ks_tcase("credential");

	tcase_add_checked_fixture(tc, setup, ks_teardown_below);
	tcase_add_test(tc, test_credential);
	tcase_add_test(tc, test_credential_wrong);
	tcase_add_test(tc, test_credential_names);
	tcase_add_test(tc, test_credential_damage);
	tcase_add_test(tc, test_unknown_kind);
	suite_add_tcase(suite, tc);
	tc = ks_tcase("tpm2");
	tcase_add_checked_fixture(tc, setup, ks_teardown_below);
#ifdef HAVE_TSS2
	/* tpm2-tss reports each refusal on standard error; the tests provoke thousands. */
	(void) setenv("TSS2_LOG", "all+none", 1);
	if (has_swtpm())
	{
		tcase_add_test(tc, test_tpm);
		tcase_add_test(tc, test_tpm_another);
		tcase_add_test(tc, test_tpm_pcrs);
		tcase_add_test(tc, test_tpm_damage);
		tcase_add_test(tc, test_tpm_secret_is_not_in_the_file);
	}
	else
		printf("# swtpm is not installed: the tests of kind tpm2 are left out\n");
#else
	tcase_add_test(tc, test_tpm_unsupported);
#endif
	suite_add_tcase(suite, tc);
	return ks_run(suite);
}
