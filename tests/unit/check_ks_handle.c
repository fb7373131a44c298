/*
 * check_ks_handle.c
 *		Handles and slots: create, open, close, change the passphrase, and every
 *		way of asking for something that is not there.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "ks_common.h"

START_TEST(test_new_and_free)
{
	keystore   *ks = keystore_new();
	uint8_t		key[KEYSTORE_KEY_LEN];
	uint8_t    *buf;
	size_t		len;
	uint32_t	id;

	ck_assert_ptr_nonnull(ks);
	ck_assert_str_eq(keystore_errmsg(ks), "");
	ck_assert_str_eq(keystore_errhint(ks), "");
	ck_assert(!keystore_is_open(ks));
	ck_assert_uint_eq(keystore_active_key(ks), 0);
	ck_assert_uint_eq(keystore_key_count(ks), 0);
	ck_assert_uint_eq(keystore_slot_count(ks), 0);
	ck_assert(keystore_memory_locked(ks));

	/* Nothing is loaded. */
	assert_fails(ks, keystore_serialize(ks, &buf, &len), KEYSTORE_EINVAL, "no keystore is loaded");
	assert_fails(ks, keystore_store(ks, "x"), KEYSTORE_EINVAL, "no keystore is loaded");
	assert_fails(ks, keystore_open_passphrase(ks, PASS, strlen(PASS)), KEYSTORE_EINVAL,
				 "no keystore is loaded");
	memset(key, 0, sizeof(key));
	assert_fails(ks, keystore_open_ksk(ks, key), KEYSTORE_EINVAL, "no keystore is loaded");
	assert_fails(ks, keystore_open_auto(ks, "x"), KEYSTORE_EINVAL, "no keystore is loaded");
	assert_fails(ks, keystore_add_master_key(ks, "x", &id), KEYSTORE_EINVAL,
				 "no keystore is loaded");
	assert_fails(ks, keystore_export_ring(ks, &buf, &len), KEYSTORE_EINVAL,
				 "no keystore is loaded");

	keystore_free(&ks);
	ck_assert_ptr_null(ks);
	keystore_free(&ks);
	keystore_free(NULL);
	ck_assert_str_eq(keystore_errmsg(NULL), "out of memory");
	ck_assert_str_eq(keystore_errhint(NULL), "");
}
END_TEST

START_TEST(test_status_names)
{
	for (int i = 0; i <= KEYSTORE_ENOSLOT; i++)
	{
		const char *name = keystore_status_name((enum keystore_status) i);

		ck_assert_str_ne(name, "unknown status");
		for (int j = 0; j < i; j++)
			ck_assert_str_ne(name, keystore_status_name((enum keystore_status) j));
	}
	ck_assert_str_eq(keystore_status_name((enum keystore_status) 24), "unknown status");
	ck_assert_str_eq(keystore_status_name((enum keystore_status) -1), "unknown status");
	ck_assert_str_eq(keystore_version(), PACKAGE_VERSION);
}
END_TEST

START_TEST(test_create)
{
	keystore   *ks = ks_make();
	keystore   *second = ks_make();
	struct keystore_slot_info slot;
	struct keystore_key_info info;
	uint8_t		uuid[2][KEYSTORE_UUID_LEN];
	uint8_t		key[2][KEYSTORE_KEY_LEN];

	ck_assert(keystore_is_open(ks));
	ck_assert_uint_eq(keystore_get_generation(ks), 1);
	ck_assert_int_gt(keystore_get_changed(ks), 1700000000);
	ck_assert_uint_eq(keystore_slot_count(ks), 1);
	assert_ok(ks, keystore_get_slot(ks, 0, &slot));
	ck_assert_uint_eq(slot.id, 1);
	ck_assert_uint_eq(slot.kdf.cost, 10);
	assert_fails(ks, keystore_get_slot(ks, 1, &slot), KEYSTORE_EINVAL,
				 "keystore \"keystore.ks\" has no slot 1");
	ck_assert_uint_eq(keystore_key_count(ks), 1);
	ck_assert_uint_eq(keystore_active_key(ks), 1);
	assert_ok(ks, keystore_get_key_info(ks, 0, &info));
	ck_assert_str_eq(info.origin, "test");
	ck_assert_int_eq(info.state, KEYSTORE_KEY_ACTIVE);
	assert_fails(ks, keystore_get_key_info(ks, 1, &info), KEYSTORE_ENOKEY,
				 "keystore \"keystore.ks\" has only 1 master encryption keys");

	/* Nothing is shared between two keystores. */
	keystore_get_uuid(ks, uuid[0]);
	keystore_get_uuid(second, uuid[1]);
	ck_assert_mem_ne(uuid[0], uuid[1], KEYSTORE_UUID_LEN);
	ck_assert_int_eq(uuid[0][6] >> 4, 4);
	ck_assert_int_eq(uuid[0][8] >> 6, 2);
	assert_ok(ks, keystore_get_ksk(ks, key[0]));
	assert_ok(second, keystore_get_ksk(second, key[1]));
	ck_assert_mem_ne(key[0], key[1], KEYSTORE_KEY_LEN);
	assert_ok(ks, keystore_get_master_key(ks, 1, key[0]));
	assert_ok(second, keystore_get_master_key(second, 1, key[1]));
	ck_assert_mem_ne(key[0], key[1], KEYSTORE_KEY_LEN);
	keystore_free(&ks);
	keystore_free(&second);
}
END_TEST

START_TEST(test_default_kdf)
{
	keystore   *ks = keystore_new();
	struct keystore_slot_info slot;

	assert_ok(ks, keystore_create(ks, PASS, strlen(PASS), NULL, NULL));
	assert_ok(ks, keystore_get_slot(ks, 0, &slot));
	ck_assert_int_eq(slot.kdf.kdf, KEYSTORE_KDF_SCRYPT);
	ck_assert_uint_eq(slot.kdf.cost, 17);
	ck_assert_uint_eq(slot.kdf.block_size, 8);
	ck_assert_uint_eq(slot.kdf.parallelism, 1);
	keystore_free(&ks);
}
END_TEST

/* What a caller leaves in fields that the function has no use for does no harm. */
START_TEST(test_pbkdf2_slot)
{
	const struct keystore_kdf_params kdf = {KEYSTORE_KDF_PBKDF2_SHA512, 210000, 65536, 8, 1};
	keystore   *ks = keystore_new();

	assert_ok(ks, keystore_create(ks, PASS, strlen(PASS), &kdf, "test"));
	keystore_close(ks);
	assert_ok(ks, keystore_open_passphrase(ks, PASS, strlen(PASS)));
	keystore_free(&ks);
}
END_TEST

/* argon2id where libcrypto has it; where not, the status says so and nothing else. */
START_TEST(test_argon2id_slot)
{
	const struct keystore_kdf_params kdf = {KEYSTORE_KDF_ARGON2ID, 1, 64, 0, 1};
	keystore   *ks = keystore_new();
	uint8_t		out[32];
	enum keystore_status status = keystore_create(ks, PASS, strlen(PASS), &kdf, "test");

	if (ksi_argon2id("x", 1, (const uint8_t *) "12345678", 8, 1, 64, 1, out,
					 sizeof(out)) == KSI_CRYPTO_UNAVAILABLE)
	{
		ck_assert_int_eq(status, KEYSTORE_EKDF);
		ck_assert_str_eq(keystore_errmsg(ks),
						 "passphrase-based key derivation failed: argon2id is not available");
		ck_assert_str_ne(keystore_errhint(ks), "");
	}
	else
	{
		ck_assert_int_eq(status, KEYSTORE_OK);
		keystore_close(ks);
		assert_fails(ks, keystore_open_passphrase(ks, PASS2, strlen(PASS2)), KEYSTORE_EPASSPHRASE,
					 "could not open keystore \"keystore.ks\": passphrase is wrong");
		assert_ok(ks, keystore_open_passphrase(ks, PASS, strlen(PASS)));
	}
	keystore_free(&ks);
}
END_TEST

START_TEST(test_bad_kdf)
{
	const struct keystore_kdf_params weak = {KEYSTORE_KDF_PBKDF2_SHA512, 1000, 0, 0, 0};
	keystore   *ks = keystore_new();

	assert_fails(ks, keystore_create(ks, PASS, strlen(PASS), &weak, "test"), KEYSTORE_EINVAL,
				 "passphrase-based key derivation failed: PBKDF2 needs 210000 iterations or more");
	ck_assert(!keystore_is_open(ks));
	keystore_free(&ks);
}
END_TEST

static const struct
{
	size_t		len;
	enum keystore_status status;
}			lengths[] =
{
	{0, KEYSTORE_EPASSLEN}, {7, KEYSTORE_EPASSLEN}, {8, KEYSTORE_OK},
	{200, KEYSTORE_OK}, {201, KEYSTORE_EPASSLEN}, {SIZE_MAX, KEYSTORE_EPASSLEN}
};

START_TEST(test_passphrase_length)
{
	keystore   *ks = ks_make();
	keystore   *made = keystore_new();
	char		pass[201];

	memset(pass, 'x', sizeof(pass));
	assert_status(made, keystore_create(made, pass, lengths[_i].len, &ks_cheap, "test"),
				  lengths[_i].status);
	assert_status(ks, keystore_change_passphrase(ks, PASS, strlen(PASS), pass, lengths[_i].len,
												 &ks_cheap), lengths[_i].status);
	if (lengths[_i].status == KEYSTORE_OK)
	{
		keystore_close(made);
		assert_ok(made, keystore_open_passphrase(made, pass, lengths[_i].len));
		assert_fails(made, keystore_open_passphrase(made, pass,
													lengths[_i].len == 8 ? 9 : lengths[_i].len - 1),
					 KEYSTORE_EPASSPHRASE,
					 "could not open keystore \"keystore.ks\": passphrase is wrong");
	}
	else
	{
		ck_assert_str_eq(keystore_errmsg(ks), "passphrase is too short or too long");
		ck_assert_str_eq(keystore_errhint(ks),
						 "The length of the passphrase must be between 8 and 200 bytes.");
		assert_fails(ks, keystore_open_passphrase(ks, pass, lengths[_i].len), KEYSTORE_EPASSLEN,
					 "passphrase is too short or too long");
		ck_assert_uint_eq(keystore_get_generation(ks), 1);
	}
	keystore_free(&ks);
	keystore_free(&made);
}
END_TEST

/* Any byte is part of a passphrase, NUL too. */
START_TEST(test_passphrase_with_nul)
{
	keystore   *ks = keystore_new();

	assert_ok(ks, keystore_create(ks, "12345678\0a", 10, &ks_cheap, "test"));
	keystore_close(ks);
	assert_status(ks, keystore_open_passphrase(ks, "12345678\0b", 10), KEYSTORE_EPASSPHRASE);
	assert_ok(ks, keystore_open_passphrase(ks, "12345678\0a", 10));
	keystore_free(&ks);
}
END_TEST

START_TEST(test_bad_origin)
{
	keystore   *ks = ks_make();
	char		origin[65];
	uint32_t	id = 0;

	memset(origin, 'x', 64);
	origin[64] = '\0';
	assert_fails(ks, keystore_add_master_key(ks, origin, &id), KEYSTORE_EINVAL,
				 "origin of a master encryption key is too long");
	assert_fails(ks, keystore_add_master_key(ks, "a\tb", &id), KEYSTORE_EINVAL,
				 "origin of a master encryption key holds a control character");
	ck_assert_uint_eq(id, 0);
	ck_assert_uint_eq(keystore_key_count(ks), 1);
	origin[63] = '\0';
	assert_ok(ks, keystore_add_master_key(ks, origin, &id));
	ck_assert_uint_eq(id, 2);
	keystore_free(&ks);
}
END_TEST

START_TEST(test_close)
{
	keystore   *ks = ks_make();
	uint8_t		key[KEYSTORE_KEY_LEN];
	struct keystore_key_info info;
	uint8_t    *buf;
	size_t		len;
	uint32_t	id;

	keystore_close(ks);
	keystore_close(ks);
	ck_assert(!keystore_is_open(ks));
	ck_assert_uint_eq(keystore_active_key(ks), 0);
	ck_assert_uint_eq(keystore_key_count(ks), 0);
	ck_assert_uint_eq(keystore_get_generation(ks), 1);
	assert_fails(ks, keystore_get_ksk(ks, key), KEYSTORE_EINVAL,
				 "keystore \"keystore.ks\" is not open");
	assert_status(ks, keystore_get_master_key(ks, 1, key), KEYSTORE_EINVAL);
	assert_status(ks, keystore_get_key_info(ks, 0, &info), KEYSTORE_EINVAL);
	assert_status(ks, keystore_add_master_key(ks, "x", &id), KEYSTORE_EINVAL);
	assert_status(ks, keystore_export_ring(ks, &buf, &len), KEYSTORE_EINVAL);
	assert_status(ks, keystore_auto_open_enable(ks, "x"), KEYSTORE_EINVAL);

	/* What it is on disk is known without being open. */
	assert_ok(ks, keystore_serialize(ks, &buf, &len));
	free(buf);
	keystore_free(&ks);
}
END_TEST

START_TEST(test_open_ksk)
{
	keystore   *ks = ks_make();
	keystore   *other = ks_make();
	uint8_t		ksk[KEYSTORE_KEY_LEN];

	assert_ok(ks, keystore_get_ksk(ks, ksk));
	keystore_close(ks);
	assert_ok(ks, keystore_open_ksk(ks, ksk));
	ck_assert_uint_eq(keystore_key_count(ks), 1);
	assert_ok(ks, keystore_open_ksk(ks, ks->ksk.ptr));

	/* A failing call leaves the handle as it was. */
	assert_fails(other, keystore_open_ksk(other, ksk), KEYSTORE_EWRONGKEY,
				 "could not open keystore \"keystore.ks\": the key belongs to another keystore, or the keystore was altered");
	ck_assert(keystore_is_open(other));
	keystore_close(other);
	assert_status(other, keystore_open_ksk(other, ksk), KEYSTORE_EWRONGKEY);
	ck_assert(!keystore_is_open(other));
	keystore_free(&ks);
	keystore_free(&other);
}
END_TEST

START_TEST(test_change_passphrase)
{
	const struct keystore_kdf_params weak = {KEYSTORE_KDF_PBKDF2_SHA512, 1000, 0, 0, 0};
	keystore   *ks = ks_make();
	uint8_t		before[KEYSTORE_KEY_LEN];
	uint8_t		after[KEYSTORE_KEY_LEN];
	struct keystore_slot_info slot;
	uint8_t    *buf;
	size_t		len;

	assert_ok(ks, keystore_get_ksk(ks, before));
	assert_fails(ks, keystore_change_passphrase(ks, "wrong one", 9, PASS2, strlen(PASS2), &ks_cheap),
				 KEYSTORE_EPASSPHRASE,
				 "could not open keystore \"keystore.ks\": passphrase is wrong");
	ck_assert_uint_eq(keystore_get_generation(ks), 1);
	ck_assert(keystore_is_open(ks));

	/* On a closed handle it opens; on a failure it stays closed, also if it comes after the opening. */
	keystore_close(ks);
	assert_status(ks, keystore_change_passphrase(ks, PASS, strlen(PASS), PASS2, strlen(PASS2),
												 &weak), KEYSTORE_EINVAL);
	ck_assert(!keystore_is_open(ks));
	assert_status(ks, keystore_change_passphrase(ks, PASS, strlen(PASS), "short", 5, &ks_cheap),
				  KEYSTORE_EPASSLEN);
	ck_assert(!keystore_is_open(ks));
	assert_ok(ks, keystore_change_passphrase(ks, PASS, strlen(PASS), PASS2, strlen(PASS2),
											 &ks_cheap));
	ck_assert(keystore_is_open(ks));
	ck_assert_uint_eq(keystore_get_generation(ks), 2);
	assert_ok(ks, keystore_get_ksk(ks, after));
	ck_assert_mem_eq(before, after, sizeof(before));
	ck_assert_uint_eq(keystore_slot_count(ks), 1);
	assert_ok(ks, keystore_get_slot(ks, 0, &slot));
	ck_assert_uint_eq(slot.id, 1);
	ck_assert_str_eq(slot.label, "passphrase");

	/* The file too knows only the new one. */
	assert_ok(ks, keystore_serialize(ks, &buf, &len));
	assert_ok(ks, keystore_load_bytes(ks, buf, len, "K"));
	assert_fails(ks, keystore_open_passphrase(ks, PASS, strlen(PASS)), KEYSTORE_EPASSPHRASE,
				 "could not open keystore \"K\": passphrase is wrong");
	assert_ok(ks, keystore_open_passphrase(ks, PASS2, strlen(PASS2)));
	free(buf);
	keystore_free(&ks);
}
END_TEST

/* Of several slots only the one that the old passphrase opens is replaced. */
START_TEST(test_change_one_of_two)
{
	keystore   *ks = keystore_new();
	size_t		len;
	uint8_t    *buf = ks_read_data("v1.ks", &len);

	assert_ok(ks, keystore_load_bytes(ks, buf, len, "v1.ks"));
	assert_ok(ks, keystore_change_passphrase(ks, PASS2, strlen(PASS2), "another one", 11,
											 &ks_cheap));
	ck_assert_uint_eq(keystore_get_generation(ks), 8);
	keystore_close(ks);
	assert_status(ks, keystore_open_passphrase(ks, PASS2, strlen(PASS2)), KEYSTORE_EPASSPHRASE);
	assert_ok(ks, keystore_open_passphrase(ks, PASS, strlen(PASS)));
	keystore_close(ks);
	assert_ok(ks, keystore_open_passphrase(ks, "another one", 11));
	ck_assert_uint_eq(keystore_slot_count(ks), 3);
	free(buf);
	keystore_free(&ks);
}
END_TEST

/* The handle, used again, holds nothing of what it held. */
START_TEST(test_load_forgets)
{
	keystore   *ks = ks_make();
	const char	junk[200] = "no keystore at all";

	assert_fails(ks, keystore_load_bytes(ks, junk, sizeof(junk), "K"), KEYSTORE_EFORMAT,
				 "file \"K\" is not a keystore");
	ck_assert(!keystore_is_open(ks));
	ck_assert_uint_eq(keystore_get_generation(ks), 0);
	ck_assert_uint_eq(keystore_slot_count(ks), 0);
	keystore_free(&ks);
}
END_TEST

/* Messages and hints of a success are empty, so nothing old is shown with it. */
START_TEST(test_messages_are_cleared)
{
	keystore   *ks = ks_make();

	assert_status(ks, keystore_open_passphrase(ks, "short", 5), KEYSTORE_EPASSLEN);
	ck_assert_str_ne(keystore_errhint(ks), "");
	assert_ok(ks, keystore_open_passphrase(ks, PASS, strlen(PASS)));
	ck_assert_str_eq(keystore_errmsg(ks), "");
	ck_assert_str_eq(keystore_errhint(ks), "");
	keystore_free(&ks);
}
END_TEST

int
main(void)
{
	Suite	   *suite = suite_create("handle");
	TCase	   *tc = ks_tcase("handle");

	tcase_add_test(tc, test_new_and_free);
	tcase_add_test(tc, test_status_names);
	tcase_add_test(tc, test_create);
	tcase_add_test(tc, test_default_kdf);
	tcase_add_test(tc, test_pbkdf2_slot);
	tcase_add_test(tc, test_argon2id_slot);
	tcase_add_test(tc, test_bad_kdf);
	tcase_add_loop_test(tc, test_passphrase_length, 0, (int) (sizeof(lengths) / sizeof(lengths[0])));
	tcase_add_test(tc, test_passphrase_with_nul);
	tcase_add_test(tc, test_bad_origin);
	tcase_add_test(tc, test_close);
	tcase_add_test(tc, test_open_ksk);
	tcase_add_test(tc, test_change_passphrase);
	tcase_add_test(tc, test_change_one_of_two);
	tcase_add_test(tc, test_load_forgets);
	tcase_add_test(tc, test_messages_are_cleared);
	suite_add_tcase(suite, tc);
	return ks_run(suite);
}
