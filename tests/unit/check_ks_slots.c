/*
 * check_ks_slots.c
 *		Slots as a set, the recovery key, the FIPS policy, and what KDFs cost.
 *
 * EVP_KDF_fetch() is replaced by the linker (--wrap), so that a libcrypto that lacks a function can be
 * played on one that has it.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>
#include <openssl/kdf.h>

#include "ks_common.h"

static const struct keystore_kdf_params pbkdf2 = {KEYSTORE_KDF_PBKDF2_SHA512, 210000, 0, 0, 0};

static const char *missing_kdf;	/* this libcrypto has not */

EVP_KDF    *__wrap_EVP_KDF_fetch(OSSL_LIB_CTX *ctx, const char *name, const char *properties);
EVP_KDF    *__real_EVP_KDF_fetch(OSSL_LIB_CTX *ctx, const char *name, const char *properties);

EVP_KDF *
__wrap_EVP_KDF_fetch(OSSL_LIB_CTX *ctx, const char *name, const char *properties)
{
	if (missing_kdf != NULL && strcmp(name, missing_kdf) == 0)
		return NULL;
	return __real_EVP_KDF_fetch(ctx, name, properties);
}

/* A handle as another process would have it: from the bytes, closed. */
static keystore *
reload(keystore *ks)
{
	keystore   *copy = keystore_new();
	uint8_t    *buf;
	size_t		len;

	ck_assert_ptr_nonnull(copy);
	assert_ok(ks, keystore_serialize(ks, &buf, &len));
	assert_ok(copy, keystore_load_bytes(copy, buf, len, "K"));
	free(buf);
	return copy;
}

/* Which slot does the passphrase open?  0: none. */
static uint32_t
opens(keystore *ks, const char *pass)
{
	keystore   *copy = reload(ks);
	uint32_t	id = 0;

	if (keystore_open_passphrase(copy, pass, strlen(pass)) == KEYSTORE_OK)
		id = keystore_opened_slot(copy);
	keystore_free(&copy);
	return id;
}

static uint32_t
add(keystore *ks, const char *pass, const char *label)
{
	uint32_t	id = 0;

	assert_ok(ks, keystore_add_passphrase(ks, pass, strlen(pass), label, &ks_cheap, &id));
	return id;
}

/* ---- slots ------------------------------------------------------------------------------ */

START_TEST(test_add)
{
	keystore   *ks = ks_make();
	struct keystore_slot_info info;
	uint32_t	id = 99;

	ck_assert_uint_eq(keystore_opened_slot(ks), 1);
	ck_assert_uint_eq(add(ks, "of the second", "Ren\xc3\xa9"), 2);
	ck_assert_uint_eq(add(ks, "of the third", NULL), 3);
	ck_assert_uint_eq(keystore_get_generation(ks), 3);
	ck_assert_uint_eq(keystore_slot_count(ks), 3);
	assert_ok(ks, keystore_get_slot(ks, 1, &info));
	ck_assert_uint_eq(info.id, 2);
	ck_assert_int_eq(info.kind, KEYSTORE_SLOT_PASSPHRASE);
	ck_assert_str_eq(info.label, "Ren\xc3\xa9");
	ck_assert_uint_eq(info.kdf.cost, 10);
	assert_ok(ks, keystore_get_slot(ks, 2, &info));
	ck_assert_str_eq(info.label, "passphrase 2");

	ck_assert_uint_eq(opens(ks, PASS), 1);
	ck_assert_uint_eq(opens(ks, "of the second"), 2);
	ck_assert_uint_eq(opens(ks, "of the third"), 3);
	ck_assert_uint_eq(opens(ks, "of the fourth"), 0);

	assert_fails(ks, keystore_add_passphrase(ks, "another one", 11, "Ren\xc3\xa9", &ks_cheap, &id),
				 KEYSTORE_EEXIST,
				 "slot 2 of keystore \"keystore.ks\" has the label \"Ren\xc3\xa9\" already");
	assert_fails(ks, keystore_add_passphrase(ks, "short", 5, NULL, &ks_cheap, &id),
				 KEYSTORE_EPASSLEN, "passphrase is too short or too long");
	assert_fails(ks, keystore_add_passphrase(ks, "another one", 11, "", &ks_cheap, &id),
				 KEYSTORE_EINVAL, "label is empty");
	ck_assert_uint_eq(id, 99);
	ck_assert_uint_eq(keystore_get_generation(ks), 3);
	keystore_close(ks);
	assert_fails(ks, keystore_add_passphrase(ks, "another one", 11, NULL, &ks_cheap, &id),
				 KEYSTORE_EINVAL, "keystore \"keystore.ks\" is not open");
	ck_assert_uint_eq(keystore_opened_slot(ks), 0);
	keystore_free(&ks);
}
END_TEST

static const struct
{
	const char *label;
	const char *message;		/* NULL: fine */
}			labels[] =
{
	{"123456789012345678901234567890123456789012345678901234567890123", NULL},
	{"1234567890123456789012345678901234567890123456789012345678901234",
	"label is longer than 63 bytes"},
	{"tab\there", "label holds a control character"},
	{"\x7f", "label holds a control character"},
	{"\xe2\x82\xac \xf0\x9f\x94\x91", NULL},
	{"\xc0\xaf", "label is not valid UTF-8"},	/* overlong */
	{"\xe0\x80\xaf", "label is not valid UTF-8"},
	{"\xed\xa0\x80", "label is not valid UTF-8"},	/* a surrogate */
	{"\xf4\x90\x80\x80", "label is not valid UTF-8"},	/* above U+10FFFF */
	{"\xe2\x82", "label is not valid UTF-8"},
	{"\x80", "label is not valid UTF-8"},
	{"\xff", "label is not valid UTF-8"},
};

START_TEST(test_label)
{
	keystore   *ks = ks_make();
	struct keystore_slot_info info;
	keystore   *copy;

	if (labels[_i].message != NULL)
		assert_fails(ks, keystore_set_slot_label(ks, 1, labels[_i].label), KEYSTORE_EINVAL,
					 labels[_i].message);
	else
	{
		assert_ok(ks, keystore_set_slot_label(ks, 1, labels[_i].label));
		copy = reload(ks);
		assert_ok(copy, keystore_get_slot(copy, 0, &info));
		ck_assert_str_eq(info.label, labels[_i].label);
		keystore_free(&copy);
	}
	ck_assert_uint_eq(opens(ks, PASS), 1);
	keystore_free(&ks);
}
END_TEST

/* A slot of a file of version 1 has its label under its own tag. */
START_TEST(test_label_of_version_1)
{
	keystore   *ks = keystore_new();
	size_t		len;
	uint8_t    *buf = ks_read_data("v1.ks", &len);

	assert_ok(ks, keystore_load_bytes(ks, buf, len, "v1.ks"));
	assert_ok(ks, keystore_open_passphrase(ks, PASS, strlen(PASS)));
	assert_fails(ks, keystore_set_slot_label(ks, 1, "new"), KEYSTORE_EINVAL,
				 "slot 1 of keystore \"v1.ks\" cannot be renamed: it is of format version 1");
	ck_assert_str_eq(keystore_errhint(ks), "Change its passphrase first.");
	assert_ok(ks, keystore_change_slot(ks, 1, "another one", 11, &ks_cheap));
	assert_ok(ks, keystore_set_slot_label(ks, 1, "new"));
	ck_assert_uint_eq(opens(ks, "another one"), 1);
	free(buf);
	keystore_free(&ks);
}
END_TEST

START_TEST(test_change_slot)
{
	keystore   *ks = ks_make();
	struct keystore_slot_info info;
	uint32_t	id = add(ks, "of the second", "second");
	char		text[KEYSTORE_RECOVERY_STRLEN + 1];
	uint32_t	recovery = 0;

	assert_ok(ks, keystore_change_slot(ks, id, "its new one", 11, &pbkdf2));
	ck_assert_uint_eq(opens(ks, "of the second"), 0);
	ck_assert_uint_eq(opens(ks, "its new one"), id);
	ck_assert_uint_eq(opens(ks, PASS), 1);
	assert_ok(ks, keystore_get_slot(ks, 1, &info));
	ck_assert_str_eq(info.label, "second");
	ck_assert_int_eq(info.kdf.kdf, KEYSTORE_KDF_PBKDF2_SHA512);
	assert_fails(ks, keystore_change_slot(ks, 7, "its new one", 11, &ks_cheap), KEYSTORE_ENOSLOT,
				 "keystore \"keystore.ks\" has no slot 7");
	assert_ok(ks, keystore_add_recovery_key(ks, NULL, &ks_cheap, text, &recovery));
	assert_fails(ks, keystore_change_slot(ks, recovery, "its new one", 11, &ks_cheap),
				 KEYSTORE_EINVAL, "slot 3 of keystore \"keystore.ks\" is not for a passphrase");
	assert_fails(ks, keystore_change_passphrase(ks, text, strlen(text), "its new one", 11,
												&ks_cheap), KEYSTORE_EINVAL,
				 "slot 3 of keystore \"keystore.ks\" is opened by a recovery key, which cannot be changed");
	ck_assert_uint_eq(opens(ks, text), recovery);
	keystore_free(&ks);
}
END_TEST

START_TEST(test_remove)
{
	keystore   *ks = ks_make();
	char		text[KEYSTORE_RECOVERY_STRLEN + 1];
	uint32_t	recovery = 0;

	assert_fails(ks, keystore_remove_slot(ks, 1), KEYSTORE_ELASTSLOT,
				 "slot 1 is the last way to open keystore \"keystore.ks\"");
	ck_assert_str_eq(keystore_errhint(ks), "Add a passphrase or a recovery key first.");
	assert_fails(ks, keystore_remove_slot(ks, 2), KEYSTORE_ENOSLOT,
				 "keystore \"keystore.ks\" has no slot 2");
	add(ks, "of the second", NULL);
	add(ks, "of the third", NULL);
	assert_ok(ks, keystore_remove_slot(ks, 2));
	ck_assert_uint_eq(opens(ks, "of the second"), 0);
	ck_assert_uint_eq(opens(ks, "of the third"), 3);
	ck_assert_uint_eq(keystore_slot_count(ks), 2);

	/* The number of one that is gone is not given again, as long as a later one is there. */
	ck_assert_uint_eq(add(ks, "of the fourth", NULL), 4);
	assert_ok(ks, keystore_add_recovery_key(ks, NULL, &ks_cheap, text, &recovery));
	for (uint32_t id = 1; id <= 4; id++)
	{
		if (id != 2)
			assert_ok(ks, keystore_remove_slot(ks, id));
	}
	ck_assert_uint_eq(opens(ks, text), recovery);
	assert_status(ks, keystore_remove_slot(ks, recovery), KEYSTORE_ELASTSLOT);
	keystore_free(&ks);
}
END_TEST

/* What this build cannot open is no way in; and numbers may start anywhere. */
START_TEST(test_remove_last_available)
{
	keystore   *ks = ks_make();
	uint32_t	id = 0;

	assert_ok(ks, keystore_add_passphrase(ks, "of the second", 13, NULL, &pbkdf2, &id));
	missing_kdf = "PBKDF2";
	ck_assert(!keystore_kdf_available(KEYSTORE_KDF_PBKDF2_SHA512));
	assert_status(ks, keystore_remove_slot(ks, 1), KEYSTORE_ELASTSLOT);
	missing_kdf = NULL;
	assert_ok(ks, keystore_remove_slot(ks, 1));
	keystore_free(&ks);
}
END_TEST

START_TEST(test_limit)
{
	keystore   *ks = ks_make();
	uint32_t	id = 0;
	char		pass[] = "passphrase of A";

	for (int i = 2; i <= KEYSTORE_MAX_SLOTS; i++)
	{
		pass[sizeof(pass) - 2] = (char) ('A' + i);
		ck_assert_uint_eq(add(ks, pass, NULL), (uint32_t) i);
	}
	assert_fails(ks, keystore_add_passphrase(ks, "one too many", 12, NULL, &ks_cheap, &id),
				 KEYSTORE_ELIMIT, "keystore \"keystore.ks\" cannot hold more than 16 slots");
	ck_assert_uint_eq(opens(ks, "passphrase of C"), 2);
	ck_assert_uint_eq(opens(ks, "passphrase of Q"), 16);
	keystore_free(&ks);
}
END_TEST

/* ---- the recovery key --------------------------------------------------------------------- */

#define KNOWN		"01234-56789-ABCDE-FGHJK-MNPQR-STVWX-YZ012-34567"

START_TEST(test_recovery)
{
	keystore   *ks = ks_make();
	keystore   *copy;
	struct keystore_slot_info info;
	char		text[KEYSTORE_RECOVERY_STRLEN + 1];
	char		other[KEYSTORE_RECOVERY_STRLEN + 1];
	uint32_t	id = 0;

	assert_ok(ks, keystore_add_recovery_key(ks, NULL, &ks_cheap, text, &id));
	ck_assert_uint_eq(id, 2);
	ck_assert_uint_eq(strlen(text), KEYSTORE_RECOVERY_STRLEN);
	for (int i = 0; i < KEYSTORE_RECOVERY_STRLEN; i++)
	{
		if (i % 6 == 5)
			ck_assert_int_eq(text[i], '-');
		else
			ck_assert_ptr_nonnull(strchr("0123456789ABCDEFGHJKMNPQRSTVWXYZ", text[i]));
	}
	ck_assert_int_eq(keystore_recovery_check(text, strlen(text)), -1);
	assert_ok(ks, keystore_get_slot(ks, 1, &info));
	ck_assert_int_eq(info.kind, KEYSTORE_SLOT_RECOVERY);
	ck_assert_str_eq(info.label, "recovery key");
	ck_assert_uint_eq(opens(ks, text), 2);
	ck_assert_uint_eq(opens(ks, PASS), 1);

	/* Another keystore's recovery key is sound, and wrong. */
	assert_ok(ks, keystore_add_recovery_key(ks, NULL, &ks_cheap, other, &id));
	ck_assert_str_ne(text, other);
	assert_ok(ks, keystore_get_slot(ks, 2, &info));
	ck_assert_str_eq(info.label, "recovery key 2");
	assert_ok(ks, keystore_remove_slot(ks, id));
	copy = reload(ks);
	assert_fails(copy, keystore_open_passphrase(copy, other, strlen(other)), KEYSTORE_EPASSPHRASE,
				 "could not open keystore \"K\": recovery key is wrong");

	/* Where there is no recovery slot, nobody needs to hear of recovery keys. */
	assert_ok(ks, keystore_remove_slot(ks, 2));
	keystore_free(&copy);
	copy = reload(ks);
	assert_fails(copy, keystore_open_passphrase(copy, text, strlen(text)), KEYSTORE_EPASSPHRASE,
				 "could not open keystore \"K\": passphrase is wrong");
	keystore_free(&copy);
	keystore_free(&ks);
}
END_TEST

/* As people type it. */
START_TEST(test_recovery_tolerance)
{
	keystore   *ks = ks_make();
	char		text[KEYSTORE_RECOVERY_STRLEN + 1];
	char		typed[2 * KEYSTORE_RECOVERY_STRLEN + 1];
	uint32_t	id = 0;
	size_t		n = 0;

	/* Until there is a 0 and a 1 in it, which look like letters. */
	do
	{
		if (id != 0)
			assert_ok(ks, keystore_remove_slot(ks, id));
		assert_ok(ks, keystore_add_recovery_key(ks, NULL, &ks_cheap, text, &id));
	} while (strchr(text, '0') == NULL || strchr(text, '1') == NULL);

	for (size_t i = 0; text[i] != '\0'; i++)	/* without dashes, in lower case */
	{
		if (text[i] != '-')
			typed[n++] = (char) (text[i] >= 'A' ? text[i] - 'A' + 'a' : text[i]);
	}
	typed[n] = '\0';
	ck_assert_uint_eq(opens(ks, typed), id);

	n = 0;
	for (size_t i = 0; text[i] != '\0'; i++)	/* spaces all over, letters for digits */
	{
		typed[n] = text[i] == '-' ? ' ' : text[i];
		if (text[i] == '0')
			typed[n] = i % 2 ? 'O' : 'o';
		if (text[i] == '1')
			typed[n] = i % 3 == 0 ? 'I' : i % 3 == 1 ? 'l' : 'L';
		n++;
		if (i % 6 == 2)
			typed[n++] = ' ';
	}
	typed[n] = '\0';
	ck_assert_uint_eq(opens(ks, typed), id);
	keystore_free(&ks);
}
END_TEST

/* One wrong character, two that changed places, two groups that did: found, and the group named. */
START_TEST(test_recovery_mistyped)
{
	static const char digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
	keystore   *ks = ks_make();
	keystore   *copy;
	char		text[KEYSTORE_RECOVERY_STRLEN + 1];
	char		typed[KEYSTORE_RECOVERY_STRLEN + 1];
	uint32_t	id = 0;

	assert_ok(ks, keystore_add_recovery_key(ks, NULL, &ks_cheap, text, &id));
	for (int i = 0; i < KEYSTORE_RECOVERY_STRLEN; i++)
	{
		if (text[i] == '-')
			continue;
		memcpy(typed, text, sizeof(text));
		for (const char *d = digits; *d != '\0'; d++)
		{
			if (*d == text[i])
				continue;
			typed[i] = *d;
			ck_assert_int_eq(keystore_recovery_check(typed, strlen(typed)), i / 6 + 1);
		}
		typed[i] = 'U';			/* no digit at all */
		ck_assert_int_eq(keystore_recovery_check(typed, strlen(typed)), i / 6 + 1);
		if (i % 6 < 4 && text[i] != text[i + 1])
		{
			typed[i] = text[i + 1];
			typed[i + 1] = text[i];
			ck_assert_int_eq(keystore_recovery_check(typed, strlen(typed)), i / 6 + 1);
		}
	}
	for (int a = 0; a < KEYSTORE_RECOVERY_GROUPS; a++)
	{
		for (int b = a + 1; b < KEYSTORE_RECOVERY_GROUPS; b++)
		{
			memcpy(typed, text, sizeof(text));
			memcpy(typed + 6 * a, text + 6 * b, 5);
			memcpy(typed + 6 * b, text + 6 * a, 5);
			ck_assert_int_eq(keystore_recovery_check(typed, strlen(typed)), a + 1);
		}
	}

	/* A character left out, or twice. */
	memcpy(typed, text, sizeof(text));
	memmove(typed + 20, typed + 21, strlen(typed + 20));
	ck_assert_int_eq(keystore_recovery_check(typed, strlen(typed)), 4);
	copy = reload(ks);
	assert_fails(copy, keystore_open_passphrase(copy, typed, strlen(typed)), KEYSTORE_EPASSPHRASE,
				 "could not open keystore \"K\": group 4 of the recovery key is mistyped");
	ck_assert_str_eq(keystore_errhint(copy),
					 "Compare the group with what was written down, and type the recovery key again.");
	keystore_free(&copy);
	keystore_free(&ks);
}
END_TEST

/* A passphrase is a passphrase, whatever it looks like. */
START_TEST(test_recovery_lookalikes)
{
	static const char *const passphrases[] = {
		"correct horse battery staple", "one two three four five six seven eight", KNOWN,
		"--------", "0123456789", "zzzz-zzzz-zzzz-zzzz", "        "
	};

	ck_assert_int_gt(keystore_recovery_check(KNOWN, strlen(KNOWN)), 0);
	ck_assert_int_eq(keystore_recovery_check("", 0), 0);
	ck_assert_int_eq(keystore_recovery_check(PASS, strlen(PASS)), 0);
	for (size_t i = 0; i < sizeof(passphrases) / sizeof(passphrases[0]); i++)
	{
		keystore   *ks = keystore_new();
		char		text[KEYSTORE_RECOVERY_STRLEN + 1];
		uint32_t	id = 0;

		assert_ok(ks, keystore_create(ks, passphrases[i], strlen(passphrases[i]), &ks_cheap, NULL));
		assert_ok(ks, keystore_add_recovery_key(ks, NULL, &ks_cheap, text, &id));
		ck_assert_uint_eq(opens(ks, passphrases[i]), 1);

		/* Even somebody else's sound recovery key can be one. */
		assert_ok(ks, keystore_remove_slot(ks, id));
		assert_ok(ks, keystore_change_slot(ks, 1, text, strlen(text), &ks_cheap));
		ck_assert_uint_eq(opens(ks, text), 1);
		keystore_free(&ks);
	}
}
END_TEST

/* ---- policy and functions ------------------------------------------------------------------ */

START_TEST(test_fips)
{
	keystore   *ks = keystore_new();
	keystore   *copy;
	struct keystore_slot_info info;
	char		text[KEYSTORE_RECOVERY_STRLEN + 1];
	uint32_t	id = 0;

	assert_ok(ks, keystore_create(ks, PASS, strlen(PASS), &ks_cheap, NULL));
	assert_fails(ks, keystore_set_fips(ks, true), KEYSTORE_EPOLICY,
				 "slot 1 (\"passphrase\") of keystore \"keystore.ks\" does not use PBKDF2-HMAC-SHA512");
	ck_assert(!keystore_get_fips(ks));
	assert_ok(ks, keystore_change_slot(ks, 1, PASS, strlen(PASS), &pbkdf2));
	assert_ok(ks, keystore_set_fips(ks, true));
	copy = reload(ks);
	ck_assert(keystore_get_fips(copy));
	assert_ok(copy, keystore_open_passphrase(copy, PASS, strlen(PASS)));

	assert_fails(copy, keystore_add_passphrase(copy, PASS2, strlen(PASS2), NULL, &ks_cheap, &id),
				 KEYSTORE_EPOLICY, "the FIPS policy of keystore \"K\" forbids scrypt");
	assert_fails(copy, keystore_change_slot(copy, 1, PASS2, strlen(PASS2), &ks_cheap),
				 KEYSTORE_EPOLICY, "the FIPS policy of keystore \"K\" forbids scrypt");
	assert_fails(copy, keystore_change_passphrase(copy, PASS, strlen(PASS), PASS2, strlen(PASS2),
												  &ks_cheap),
				 KEYSTORE_EPOLICY, "the FIPS policy of keystore \"K\" forbids scrypt");

	/* The default is what is allowed. */
	assert_ok(copy, keystore_add_recovery_key(copy, NULL, NULL, text, &id));
	assert_ok(copy, keystore_get_slot(copy, 1, &info));
	ck_assert_int_eq(info.kdf.kdf, KEYSTORE_KDF_PBKDF2_SHA512);
	ck_assert_uint_eq(info.kdf.cost, 210000);
	assert_ok(copy, keystore_change_passphrase(copy, PASS, strlen(PASS), PASS2, strlen(PASS2),
											   NULL));
	ck_assert_uint_eq(opens(copy, PASS2), 1);
	assert_ok(copy, keystore_set_fips(copy, false));
	assert_ok(copy, keystore_add_passphrase(copy, PASS, strlen(PASS), NULL, &ks_cheap, &id));
	keystore_free(&copy);
	keystore_free(&ks);
}
END_TEST

/* "Not available" is a status of its own, unless another slot opens. */
START_TEST(test_missing_kdf)
{
	keystore   *ks = ks_make();
	keystore   *copy;
	uint32_t	id = 0;

	assert_ok(ks, keystore_add_passphrase(ks, PASS2, strlen(PASS2), NULL, &pbkdf2, &id));
	copy = reload(ks);
	missing_kdf = "SCRYPT";
	ck_assert(!keystore_kdf_available(KEYSTORE_KDF_SCRYPT));
	ck_assert(keystore_kdf_available(KEYSTORE_KDF_PBKDF2_SHA512));
	assert_fails(copy, keystore_open_passphrase(copy, PASS, strlen(PASS)), KEYSTORE_EKDF,
				 "passphrase-based key derivation failed: scrypt is not available");
	assert_ok(copy, keystore_open_passphrase(copy, PASS2, strlen(PASS2)));
	ck_assert_uint_eq(keystore_opened_slot(copy), 2);
	assert_fails(copy, keystore_change_slot(copy, 2, PASS2, strlen(PASS2), &ks_cheap),
				 KEYSTORE_EKDF, "passphrase-based key derivation failed: scrypt is not available");
	missing_kdf = NULL;
	ck_assert(!keystore_kdf_available((enum keystore_kdf) 77));
	ck_assert_str_eq(keystore_kdf_name(KEYSTORE_KDF_ARGON2ID), "argon2id");
	ck_assert_ptr_null(keystore_kdf_name((enum keystore_kdf) 77));
	keystore_free(&copy);
	keystore_free(&ks);
}
END_TEST

/* Argon2id where libcrypto has it, and the right words where not. */
START_TEST(test_argon2id)
{
	const struct keystore_kdf_params argon2id = {KEYSTORE_KDF_ARGON2ID, 1, 64, 0, 1};
	struct keystore_kdf_params found;
	keystore   *ks = ks_make();
	uint32_t	id = 0;
	uint64_t	us = 0;

	if (keystore_kdf_available(KEYSTORE_KDF_ARGON2ID))
	{
		assert_ok(ks, keystore_add_passphrase(ks, PASS2, strlen(PASS2), NULL, &argon2id, &id));
		ck_assert_uint_eq(opens(ks, PASS2), 2);
		missing_kdf = "ARGON2ID";
	}
	assert_fails(ks, keystore_change_slot(ks, 1, PASS, strlen(PASS), &argon2id), KEYSTORE_EKDF,
				 "passphrase-based key derivation failed: argon2id is not available");
	ck_assert_int_eq(keystore_kdf_measure(&argon2id, &us), KEYSTORE_EKDF);
	ck_assert_int_eq(keystore_kdf_calibrate(KEYSTORE_KDF_ARGON2ID, 10, &found), KEYSTORE_EKDF);
	keystore_free(&ks);
}
END_TEST

/* How long it takes is the machine's affair; what must hold are the bounds. */
START_TEST(test_calibrate)
{
	struct keystore_kdf_params kdf;
	uint64_t	us = 0;

	ck_assert_int_eq(keystore_kdf_measure(&ks_cheap, &us), KEYSTORE_OK);
	ck_assert_uint_gt(us, 0);
	kdf = ks_cheap;
	kdf.cost = 25;
	ck_assert_int_eq(keystore_kdf_measure(&kdf, &us), KEYSTORE_EINVAL);

	ck_assert_int_eq(keystore_kdf_calibrate(KEYSTORE_KDF_SCRYPT, 9, &kdf), KEYSTORE_EINVAL);
	ck_assert_int_eq(keystore_kdf_calibrate(KEYSTORE_KDF_SCRYPT, 60001, &kdf), KEYSTORE_EINVAL);
	ck_assert_int_eq(keystore_kdf_calibrate((enum keystore_kdf) 77, 100, &kdf), KEYSTORE_EKDF);

	ck_assert_int_eq(keystore_kdf_calibrate(KEYSTORE_KDF_SCRYPT, 10, &kdf), KEYSTORE_OK);
	ck_assert_int_eq(kdf.kdf, KEYSTORE_KDF_SCRYPT);
	ck_assert_uint_ge(kdf.cost, 15);
	ck_assert_uint_le(kdf.cost, 20);
	ck_assert_ptr_null(ksi_kdf_check(&kdf, true));
	ck_assert_int_eq(keystore_kdf_calibrate(KEYSTORE_KDF_PBKDF2_SHA512, 10, &kdf), KEYSTORE_OK);
	ck_assert_uint_ge(kdf.cost, 210000);
	ck_assert_ptr_null(ksi_kdf_check(&kdf, true));
	missing_kdf = "PBKDF2";
	ck_assert_int_eq(keystore_kdf_calibrate(KEYSTORE_KDF_PBKDF2_SHA512, 10, &kdf), KEYSTORE_EKDF);
}
END_TEST

int
main(void)
{
	Suite	   *suite = suite_create("slots");
	TCase	   *tc = ks_tcase("slots");

	tcase_add_test(tc, test_add);
	tcase_add_loop_test(tc, test_label, 0, (int) (sizeof(labels) / sizeof(labels[0])));
	tcase_add_test(tc, test_label_of_version_1);
	tcase_add_test(tc, test_change_slot);
	tcase_add_test(tc, test_remove);
	tcase_add_test(tc, test_remove_last_available);
	tcase_add_test(tc, test_limit);
	suite_add_tcase(suite, tc);
	tc = ks_tcase("recovery");
	tcase_add_test(tc, test_recovery);
	tcase_add_test(tc, test_recovery_tolerance);
	tcase_add_test(tc, test_recovery_mistyped);
	tcase_add_test(tc, test_recovery_lookalikes);
	suite_add_tcase(suite, tc);
	tc = ks_tcase("kdf");
	tcase_add_test(tc, test_fips);
	tcase_add_test(tc, test_missing_kdf);
	tcase_add_test(tc, test_argon2id);
	tcase_add_test(tc, test_calibrate);
	suite_add_tcase(suite, tc);
	return ks_run(suite);
}
