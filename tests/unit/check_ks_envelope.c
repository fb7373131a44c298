/*
 * check_ks_envelope.c
 *		keystore.rekey: wherever a rekey is interrupted while it is being stored, the keystore still opens by itself, and
 *		who goes on finds the envelope.  The envelope's own format is in check_ks_rekey.c.
 *
 * ksi_machine_id() is replaced by the linker (--wrap), so that the test needs no machine-id.
 */
#include <config.h>

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "ks_common.h"

static char secret_path[320];
static char rekey_path[320];

enum keystore_status __wrap_ksi_machine_id(keystore *ks, char ret_id[KSI_MACHINE_ID_LEN + 1]);

enum keystore_status
__wrap_ksi_machine_id(keystore *ks, char ret_id[KSI_MACHINE_ID_LEN + 1])
{
	memcpy(ret_id, "0123456789abcdef0123456789abcdef", KSI_MACHINE_ID_LEN + 1);
	return KEYSTORE_OK;
}

/* The keystore in a directory of its own, the host secret in another. */
static void
setup(void)
{
	ks_setup_below();
	snprintf(rekey_path, sizeof(rekey_path), "%s/%s", ks_dir, KEYSTORE_REKEY_NAME);
	snprintf(secret_path, sizeof(secret_path), "%s/home/secret", ks_top);
}

static void
rekey(keystore *ks, uint8_t envelope[KEYSTORE_ENVELOPE_LEN])
{
	const struct keystore_passphrase pass = {PASS, strlen(PASS)};
	struct keystore_slot_info dropped[KEYSTORE_MAX_SLOTS];
	size_t		count;

	assert_ok(ks, keystore_rekey(ks, &pass, 1, envelope, dropped, &count));
}

static bool
pending(keystore *ks, const uint8_t *envelope)
{
	uint8_t		found[KEYSTORE_ENVELOPE_LEN];
	bool		result = false;

	assert_ok(ks, keystore_rekey_pending(ks, ks_path, found, &result));
	if (result)
		ck_assert_mem_eq(found, envelope, sizeof(found));
	return result;
}

/* What a server that starts has: the file, and what opens it by itself. */
static enum keystore_status
open_by_itself(void)
{
	keystore   *ks = keystore_new();
	struct keystore_auto_open_info info;
	enum keystore_status status;

	ck_assert_ptr_nonnull(ks);
	assert_ok(ks, keystore_set_host_secret_path(ks, secret_path));
	assert_ok(ks, keystore_load(ks, ks_path));
	status = keystore_open_auto(ks, ks_path);
	assert_ok(ks, keystore_auto_open_status(ks, ks_path, &info));
	ck_assert_int_eq(info.usable, status == KEYSTORE_OK);
	if (status != KEYSTORE_OK)
		ck_assert_str_eq(info.reason, "the keystore was rekeyed since it was created");
	keystore_free(&ks);
	return status;
}

START_TEST(test_interrupted)
{
	keystore   *ks = ks_make_enabled(secret_path);
	uint8_t		envelope[KEYSTORE_ENVELOPE_LEN];
	bool		resealed = false;

	rekey(ks, envelope);
	ck_assert(!pending(ks, envelope));

	/* At each step what is on disk opens by itself. */
	assert_ok(ks, keystore_rekey_begin(ks, ks_path, envelope, sizeof(envelope)));
	ck_assert_int_eq(open_by_itself(), KEYSTORE_OK);
	assert_ok(ks, keystore_store(ks, ks_path));
	ck_assert(pending(ks, envelope));
	ck_assert_int_eq(open_by_itself(), KEYSTORE_OK);
	assert_ok(ks, keystore_auto_open_reseal(ks, ks_path, &resealed));
	ck_assert(resealed);
	ck_assert(pending(ks, envelope));
	ck_assert_int_eq(open_by_itself(), KEYSTORE_OK);

	/* Also what another writer that died has left is gone. */
	ks_write_file(ks_text("%s.new.0123456789abcdef", rekey_path), "x", 1, 0600);
	assert_ok(ks, keystore_rekey_end(ks, ks_path));
	ck_assert(!ks_exists(rekey_path));
	ck_assert(!ks_exists(ks_text("%s.new.0123456789abcdef", rekey_path)));
	ck_assert(!pending(ks, envelope));
	ck_assert_int_eq(open_by_itself(), KEYSTORE_OK);
	assert_ok(ks, keystore_rekey_end(ks, ks_path));
	keystore_free(&ks);
}
END_TEST

/* The envelope of another rekey, or one that was damaged, is as good as none. */
START_TEST(test_interrupted_useless)
{
	keystore   *ks = ks_make_enabled(secret_path);
	uint8_t		envelope[2][KEYSTORE_ENVELOPE_LEN];
	uint8_t		found[KEYSTORE_ENVELOPE_LEN];
	bool		result = true;

	rekey(ks, envelope[0]);
	assert_ok(ks, keystore_store(ks, ks_path));
	ck_assert_int_eq(open_by_itself(), KEYSTORE_EWRONGKEY);
	for (size_t i = 0; i <= KEYSTORE_ENVELOPE_LEN; i++)
	{
		uint8_t		env[KEYSTORE_ENVELOPE_LEN + 1] = {0};

		/* The generation is not looked at, but it is authenticated. */
		memcpy(env, envelope[0], KEYSTORE_ENVELOPE_LEN);
		env[i] ^= 1;
		ks_write_file(rekey_path, env, KEYSTORE_ENVELOPE_LEN + (i == KEYSTORE_ENVELOPE_LEN), 0600);
		ck_assert(!pending(ks, envelope[0]));
		ck_assert_int_eq(open_by_itself(), KEYSTORE_EWRONGKEY);
		ks_write_file(rekey_path, envelope[0], i, 0600);
		ck_assert(pending(ks, envelope[0]) == (i == KEYSTORE_ENVELOPE_LEN));
		ck_assert(open_by_itself() == (i == KEYSTORE_ENVELOPE_LEN ? KEYSTORE_OK : KEYSTORE_EWRONGKEY));
	}
	rekey(ks, envelope[1]);
	assert_ok(ks, keystore_store(ks, ks_path));
	ck_assert(!pending(ks, envelope[0]));
	ck_assert_int_eq(open_by_itself(), KEYSTORE_EWRONGKEY);
	assert_fails(ks, keystore_rekey_begin(ks, ks_path, "x", 1), KEYSTORE_EFORMAT,
				 "the data is not a rekey envelope");

	/* A file that others can read is not passed over. */
	ks_write_file(rekey_path, envelope[1], KEYSTORE_ENVELOPE_LEN, 0644);
	assert_fails(ks, keystore_rekey_pending(ks, ks_path, found, &result), KEYSTORE_EPERM,
				 ks_text("file \"%s\" has group or other access (mode 0644)", rekey_path));
	keystore_free(&ks);
}
END_TEST

int
main(void)
{
	Suite	   *suite = suite_create("envelope");
	TCase	   *tc = ks_tcase("interrupted");

	tcase_add_checked_fixture(tc, setup, ks_teardown_below);
	tcase_add_test(tc, test_interrupted);
	tcase_add_test(tc, test_interrupted_useless);
	suite_add_tcase(suite, tc);
	return ks_run(suite);
}
