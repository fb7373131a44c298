/*
 * check_ks_reader.c
 *		What the library writes is read by a program that knows only keystore.ks(5):
 *		tests/data/keystore/read_keystore.py.  And the known answers of version 2, which such a
 *		program wrote, are read by the library.
 */
#include <config.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ks_common.h"

#define READER			TEST_DATA "/keystore/read_keystore.py"

/* ---- the library writes ------------------------------------------------------------------ */

/* What the reader prints, with the secret on its standard input.  NULL if it fails. */
static char *
run_reader(const char *path, const char *secret)
{
	static char out[8192];
	int			in_pipe[2],
				out_pipe[2];
	size_t		len = 0;
	ssize_t		n;
	int			status;
	pid_t		pid;

	ck_assert_int_eq(pipe(in_pipe), 0);
	ck_assert_int_eq(pipe(out_pipe), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0)
	{
		dup2(in_pipe[0], 0);
		dup2(out_pipe[1], 1);
		close(in_pipe[1]);
		close(out_pipe[0]);
		execlp("python3", "python3", READER, path, (char *) NULL);
		_exit(127);
	}
	close(in_pipe[0]);
	close(out_pipe[1]);
	ck_assert_int_eq(write(in_pipe[1], secret, strlen(secret)), (ssize_t) strlen(secret));
	close(in_pipe[1]);
	while ((n = read(out_pipe[0], out + len, sizeof(out) - 1 - len)) > 0)
		len += (size_t) n;
	close(out_pipe[0]);
	out[len] = '\0';
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return status == 0 ? out : NULL;
}

static bool
has_line(const char *out, const char *line)
{
	const char *at = strstr(out, line);

	return at != NULL && (at == out || at[-1] == '\n') && at[strlen(line)] == '\n';
}

/* The line that the reader is to print for a key. */
static const char *
key_line(keystore *ks, uint32_t id, int state)
{
	uint8_t		key[KEYSTORE_KEY_LEN] = {0};
	char		hex[2 * KEYSTORE_KEY_LEN + 1];

	if (state != KEYSTORE_KEY_DESTROYED)
		assert_ok(ks, keystore_get_master_key(ks, id, key));
	for (int i = 0; i < KEYSTORE_KEY_LEN; i++)
		snprintf(hex + 2 * i, 3, "%02x", key[i]);
	return ks_text("key %u state %d origin test %s", id, state, hex);
}

START_TEST(test_written)
{
	const struct keystore_kdf_params pbkdf2 = {KEYSTORE_KDF_PBKDF2_SHA512, 210000, 0, 0, 0};
	keystore   *ks = ks_make();
	char		recovery[KEYSTORE_RECOVERY_STRLEN + 1];
	struct keystore_passphrase passphrases[3] = {
		{PASS, strlen(PASS)}, {PASS2, strlen(PASS2)}, {recovery, KEYSTORE_RECOVERY_STRLEN}
	};
	struct keystore_slot_info dropped[KEYSTORE_MAX_SLOTS];
	uint8_t		envelope[KEYSTORE_ENVELOPE_LEN];
	size_t		count;
	uint32_t	id;

	assert_ok(ks, keystore_add_passphrase(ks, PASS2, strlen(PASS2), "second", &pbkdf2, &id));
	assert_ok(ks, keystore_set_slot_label(ks, 1, "renamed"));
	assert_ok(ks, keystore_add_recovery_key(ks, "safe", &ks_cheap, recovery, &id));
	for (int i = 0; i < 3; i++)
		assert_ok(ks, keystore_add_master_key(ks, "test", &id));
	assert_ok(ks, keystore_destroy_key(ks, 1));
	assert_ok(ks, keystore_compromise_key(ks, 2));
	assert_ok(ks, keystore_set_key_label(ks, 3, "labelled"));
	assert_ok(ks, keystore_rekey(ks, passphrases, 3, envelope, dropped, &count));
	ck_assert_uint_eq(count, 0);
	assert_ok(ks, keystore_store(ks, ks_path));
	for (int i = 0; i < 3; i++)
	{
		char	   *out = run_reader(ks_path, passphrases[i].text);

		ck_assert_msg(out != NULL, "passphrase %d does not open it", i);
		ck_assert(has_line(out, "slot 1 kind 1 label renamed"));
		ck_assert(has_line(out, "slot 2 kind 1 label second"));
		ck_assert(has_line(out, "slot 3 kind 2 label safe"));
		ck_assert(has_line(out, key_line(ks, 1, KEYSTORE_KEY_DESTROYED)));
		ck_assert(has_line(out, key_line(ks, 2, KEYSTORE_KEY_COMPROMISED)));
		ck_assert(has_line(out, key_line(ks, 3, KEYSTORE_KEY_RETIRED)));
		ck_assert(has_line(out, key_line(ks, 4, KEYSTORE_KEY_ACTIVE)));
	}
	ck_assert_ptr_null(run_reader(ks_path, "neither of them"));
	keystore_free(&ks);
}
END_TEST

/* ---- the library reads -------------------------------------------------------------------- */

static const uint8_t first_byte[] = {[2] = 0x80,[3] = 0xa0,[7] = 0xc0};

/* What tests/data/keystore/make_keystore.py says of all its files of version 2. */
static void
assert_known_content(keystore *ks)
{
	static const struct
	{
		uint32_t	id;
		enum keystore_key_state state;
		int64_t		retired,
					compromised,
					destroyed;
		const char *origin;
		const char *label;
	}			want[] =
	{
		{1, KEYSTORE_KEY_DESTROYED, 1800000100, 0, 1800000500, "recipe", ""},
		{2, KEYSTORE_KEY_COMPROMISED, 1800000200, 1800000400, 0, "recipe", "leaked"},
		{3, KEYSTORE_KEY_RETIRED, 1800000300, 0, 0, "recipe", ""},
		{7, KEYSTORE_KEY_ACTIVE, 0, 0, 0, "recipe, last", "r\xc3\xa9sum\xc3\xa9"},
	};
	uint8_t		key[KEYSTORE_KEY_LEN];

	ck_assert_uint_eq(keystore_key_count(ks), 4);
	for (size_t i = 0; i < 4; i++)
	{
		struct keystore_key_info info;

		assert_ok(ks, keystore_get_key_info(ks, i, &info));
		ck_assert_uint_eq(info.id, want[i].id);
		ck_assert_int_eq(info.state, want[i].state);
		ck_assert_int_eq(info.retired, want[i].retired);
		ck_assert_int_eq(info.compromised, want[i].compromised);
		ck_assert_int_eq(info.destroyed, want[i].destroyed);
		ck_assert_str_eq(info.origin, want[i].origin);
		ck_assert_str_eq(info.label, want[i].label);
		if (info.state == KEYSTORE_KEY_DESTROYED)
			continue;
		assert_ok(ks, keystore_get_master_key(ks, info.id, key));
		for (int j = 0; j < KEYSTORE_KEY_LEN; j++)
			ck_assert_uint_eq(key[j], first_byte[info.id] + j);
	}
}

static const struct
{
	const char *file;
	const char *pass;			/* NULL: the recovery key in v2.recovery */
	uint32_t	slot;
}			known[] =
{
	{"v2.ks", PASS, 1},
	{"v2.ks", PASS2, 2},
	{"v2.ks", NULL, 5},
	{"v2-fips.ks", PASS2, 2},
	{"v2-fips.ks", NULL, 5},
	{"v2-argon2id.ks", PASS, 1},
	{"v2-argon2id.ks", "glass marble", 6},
};

START_TEST(test_known)
{
	keystore   *ks = keystore_new();
	size_t		len,
				pass_len;
	uint8_t    *buf = ks_read_data(known[_i].file, &len);
	uint8_t    *recovery = ks_read_data("v2.recovery", &pass_len);
	const char *pass = known[_i].pass != NULL ? known[_i].pass : (const char *) recovery;

	if (known[_i].pass != NULL)
		pass_len = strlen(pass);
	else
		pass_len--;				/* the line end */
	assert_ok(ks, keystore_load_bytes(ks, buf, len, "K"));
	ck_assert_uint_eq(keystore_get_generation(ks), 11);
	ck_assert(keystore_get_fips(ks) == (strcmp(known[_i].file, "v2-fips.ks") == 0));
	if (known[_i].slot == 6 && !keystore_kdf_available(KEYSTORE_KDF_ARGON2ID))
		assert_fails(ks, keystore_open_passphrase(ks, pass, pass_len), KEYSTORE_EKDF,
					 "passphrase-based key derivation failed: argon2id is not available");
	else
	{
		assert_ok(ks, keystore_open_passphrase(ks, pass, pass_len));
		ck_assert_uint_eq(keystore_opened_slot(ks), known[_i].slot);
		assert_known_content(ks);
	}
	free(buf);
	free(recovery);
	keystore_free(&ks);
}
END_TEST

/* The ring of the same history, and the envelope that leads from the former KSK to the present one. */
START_TEST(test_known_ring_and_envelope)
{
	keystore   *ks = keystore_new();
	keystore   *before = keystore_new();
	size_t		len,
				ring_len,
				envelope_len,
				added = 99;
	uint8_t    *buf = ks_read_data("v2.ks", &len);
	uint8_t    *ring = ks_read_data("v2.ring", &ring_len);
	uint8_t    *envelope = ks_read_data("v2.envelope", &envelope_len);
	uint8_t		ksk[KEYSTORE_KEY_LEN];
	struct ksi_secret former = {0};
	struct ksi_history history = {0};
	struct ksi_header *header = malloc(sizeof(*header));

	assert_ok(ks, keystore_load_bytes(ks, buf, len, "K"));
	assert_ok(ks, keystore_open_passphrase(ks, PASS, strlen(PASS)));
	assert_ok(ks, keystore_import_ring(ks, ring, ring_len, &added));
	ck_assert_uint_eq(added, 0);

	/* The keystore as it was before the rekey: an older generation, sealed under the former KSK. */
	ck_assert_ptr_nonnull(header);
	*header = ks->header;
	header->generation = 5;
	ck_assert(ksi_secret_alloc(&former, KEYSTORE_KEY_LEN));
	for (int i = 0; i < KEYSTORE_KEY_LEN; i++)
		former.ptr[i] = (uint8_t) (0x20 + i);
	assert_ok(before, keystore_load_bytes(before, buf, len, "K"));
	assert_ok(before, keystore_open_like(before, ks));
	assert_ok(before, ksi_history_copy(before, &history));
	ksi_secret_free(&history.formers);
	history.former_count = 0;
	assert_ok(before, ksi_commit_rekeyed(before, header, &history, &former));
	assert_ok(before, keystore_apply_rekey(before, buf, len, envelope, envelope_len));
	assert_ok(before, keystore_get_ksk(before, ksk));
	ck_assert_uint_eq(ksk[0], 0x40);
	ck_assert_uint_eq(keystore_get_generation(before), 11);
	assert_known_content(before);
	free(header);
	free(buf);
	free(ring);
	free(envelope);
	keystore_free(&before);
	keystore_free(&ks);
}
END_TEST

/* What version 0.1 wrote opens for good, with each of its secrets. */
START_TEST(test_written_0_1)
{
	static const char *const secrets[] = {
		PASS, PASS2, "F3PVY-CJF3T-V935K-AY3E4-V4A4P-WE9KW-VNE2G-CY9DB"
	};
	static const uint8_t start[] = {0x7d, 0x07, 0x39, 0x44, 0x86, 0xed, 0x50, 0x93};
	keystore   *ks = keystore_new();
	size_t		len;
	uint8_t    *buf = ks_read_data("written-0.1.ks", &len);
	uint8_t		key[KEYSTORE_KEY_LEN];

	assert_ok(ks, keystore_load_bytes(ks, buf, len, "K"));
	for (uint32_t i = 0; i < 3; i++)
	{
		keystore_close(ks);
		assert_ok(ks, keystore_open_passphrase(ks, secrets[i], strlen(secrets[i])));
		ck_assert_uint_eq(keystore_opened_slot(ks), i + 1);
		ck_assert_uint_eq(keystore_active_key(ks), 3);
		assert_ok(ks, keystore_get_master_key(ks, 3, key));
		ck_assert_mem_eq(key, start, sizeof(start));
		assert_status(ks, keystore_get_master_key(ks, 1, key), KEYSTORE_ENOKEY);
	}
	free(buf);
	keystore_free(&ks);
}
END_TEST

/* Its auto-open files are for another machine, which is all that is wrong with them. */
START_TEST(test_written_0_1_auto_open)
{
	static const char *const kinds[] = {"host", "credential", "tpm2"};
	static const char *const details[] = {"", "credential pgx-keystore", "PCRs sha256:7"};
	keystore   *ks = keystore_new();
	struct keystore_auto_open_info info;
	char		path[320];
	size_t		len;
	uint8_t    *buf = ks_read_data("written-0.1.ks", &len);

	ks_write_file(ks_path, buf, len, 0600);
	free(buf);
	assert_ok(ks, keystore_load(ks, ks_path));
	snprintf(path, sizeof(path), "%s/%s", ks_dir, KEYSTORE_AUTO_OPEN_NAME);
	for (int i = 0; i < 3; i++)
	{
		buf = ks_read_data(ks_text("written-0.1-%s.aks", kinds[i]), &len);
		ks_write_file(path, buf, len, 0600);
		free(buf);
		assert_ok(ks, keystore_auto_open_status(ks, ks_path, &info));
		ck_assert_str_eq(info.kind, kinds[i]);
		ck_assert_str_eq(info.detail, details[i]);
		ck_assert(!info.usable);
		ck_assert_msg(strcmp(info.reason, "it was created for another directory") == 0 ||
					  strcmp(info.reason, "it was created for another user") == 0, "%s", info.reason);
		assert_status(ks, keystore_open_auto(ks, ks_path), KEYSTORE_EWRONGKEY);
	}
	keystore_free(&ks);
}
END_TEST

int
main(void)
{
	Suite	   *suite = suite_create("reader");
	TCase	   *tc = ks_tcase("known");

	tcase_add_loop_test(tc, test_known, 0, (int) (sizeof(known) / sizeof(known[0])));
	tcase_add_test(tc, test_known_ring_and_envelope);
	tcase_add_test(tc, test_written_0_1);
	suite_add_tcase(suite, tc);
	tc = ks_tcase("written");
	tcase_add_checked_fixture(tc, ks_setup, ks_teardown);
	tcase_add_test(tc, test_written_0_1_auto_open);
	if (system("python3 -c 'import cryptography' 2>/dev/null") == 0)
		tcase_add_test(tc, test_written);
	else
		printf("# python3-cryptography is not installed: the test of what is written is left out\n");
	suite_add_tcase(suite, tc);
	return ks_run(suite);
}
