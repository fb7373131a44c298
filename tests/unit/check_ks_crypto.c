/*
 * check_ks_crypto.c
 *		The primitives against the standards' vectors.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "ks_common.h"

static size_t
unhex(const char *hex, uint8_t *out, size_t size)
{
	size_t		len = strlen(hex) / 2;

	ck_assert_uint_le(len, size);
	for (size_t i = 0; i < len; i++)
	{
		const char	pair[3] = {hex[2 * i], hex[2 * i + 1], '\0'};

		out[i] = (uint8_t) strtoul(pair, NULL, 16);
	}
	return len;
}

static void
assert_hex(const uint8_t *got, const char *hex)
{
	uint8_t		want[256];
	size_t		len = unhex(hex, want, sizeof(want));

	ck_assert_mem_eq(got, want, len);
}

/* RFC 7914 section 12.  The last one needs 1 GB and is left out. */
static const struct
{
	const char *pass;
	const char *salt;
	uint64_t	n;
	uint32_t	r,
				p;
	const char *out;
}			scrypt_vectors[] =
{
	{"", "", 16, 1, 1,
		"77d6576238657b203b19ca42c18a0497f16b4844e3074ae8dfdffa3fede21442"
	"fcd0069ded0948f8326a753a0fc81f17e8d3e0fb2e0d3628cf35e20c38d18906"},
	{"password", "NaCl", 1024, 8, 16,
		"fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162"
	"2eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc0640"},
	{"pleaseletmein", "SodiumChloride", 16384, 8, 1,
		"7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
	"d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887"},
};

START_TEST(test_scrypt)
{
	uint8_t		out[64];

	ck_assert_int_eq(ksi_scrypt(scrypt_vectors[_i].pass, strlen(scrypt_vectors[_i].pass),
								(const uint8_t *) scrypt_vectors[_i].salt,
								strlen(scrypt_vectors[_i].salt), scrypt_vectors[_i].n,
								scrypt_vectors[_i].r, scrypt_vectors[_i].p, 64 << 20, out,
								sizeof(out)), KSI_CRYPTO_OK);
	assert_hex(out, scrypt_vectors[_i].out);
}
END_TEST

/* The default cost must work: libcrypto's own memory limit is below it. */
START_TEST(test_scrypt_default)
{
	uint8_t		out[32];
	uint8_t		again[32];

	ck_assert_int_eq(ksi_kdf_derive(&ksi_kdf_default, PASS, strlen(PASS),
									(const uint8_t *) "salt", 4, out, sizeof(out)), KSI_CRYPTO_OK);
	ck_assert_int_eq(ksi_scrypt(PASS, strlen(PASS), (const uint8_t *) "salt", 4, 131072, 8, 1,
								UINT64_C(1) << 30, again, sizeof(again)), KSI_CRYPTO_OK);
	ck_assert_mem_eq(out, again, sizeof(out));
}
END_TEST

/* Vectors of the form of RFC 6070 for SHA-512, computed with Python's hashlib. */
START_TEST(test_pbkdf2)
{
	uint8_t		out[64];

	ck_assert_int_eq(ksi_pbkdf2_sha512("passwordPASSWORDpassword", 24,
									   (const uint8_t *) "saltSALTsaltSALTsaltSALTsaltSALTsalt", 36,
									   4096, out, sizeof(out)), KSI_CRYPTO_OK);
	assert_hex(out, "8c0511f4c6e597c6ac6315d8f0362e225f3c501495ba23b868c005174dc4ee71"
			   "115b59f9e60cd9532fa33e0f75aefe30225c583a186cd82bd4daea9724a3d3b8");
}
END_TEST

/* The reference implementation's own vectors (test.c, version 0x13); OpenSSL has it from 3.2 on. */
START_TEST(test_argon2id)
{
	uint8_t		out[32];
	enum ksi_crypto result;

	result = ksi_argon2id("password", 8, (const uint8_t *) "somesalt", 8, 2, 65536, 1, out,
						  sizeof(out));
	if (result == KSI_CRYPTO_UNAVAILABLE)
		return;					/* what that leads to is tested in check_ks_handle */
	ck_assert_int_eq(result, KSI_CRYPTO_OK);
	assert_hex(out, "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7");
	result = ksi_argon2id("password", 8, (const uint8_t *) "somesalt", 8, 2, 256, 2, out,
						  sizeof(out));
	ck_assert_int_eq(result, KSI_CRYPTO_OK);
	assert_hex(out, "6d093c501fd5999645e0ea3bf620d7b8be7fd2db59c20d9fff9539da2bf57037");
}
END_TEST

/* RFC 5869 appendix A, test cases 1 and 2 */
START_TEST(test_hkdf)
{
	uint8_t		ikm[80];
	uint8_t		salt[80];
	uint8_t		info[80];
	uint8_t		out[82];

	memset(ikm, 0x0b, 22);
	unhex("000102030405060708090a0b0c", salt, sizeof(salt));
	unhex("f0f1f2f3f4f5f6f7f8f9", info, sizeof(info));
	ck_assert_int_eq(ksi_hkdf(ikm, 22, salt, 13, info, 10, out, 42), KSI_CRYPTO_OK);
	assert_hex(out, "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
			   "34007208d5b887185865");

	for (int i = 0; i < 80; i++)
	{
		ikm[i] = (uint8_t) i;
		salt[i] = (uint8_t) (0x60 + i);
		info[i] = (uint8_t) (0xb0 + i);
	}
	ck_assert_int_eq(ksi_hkdf(ikm, 80, salt, 80, info, 80, out, 82), KSI_CRYPTO_OK);
	assert_hex(out, "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c"
			   "59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71"
			   "cc30c58179ec3e87c14c01d5c1f3434f1d87");
}
END_TEST

/* McGrew and Viega, The Galois/Counter Mode of Operation, test cases 13 and 16 */
START_TEST(test_gcm)
{
	uint8_t		key[32] = {0};
	uint8_t		iv[12] = {0};
	uint8_t		aad[20];
	uint8_t		plain[60];
	uint8_t		out[60];
	uint8_t		back[60];
	uint8_t		tag[16];

	ck_assert_int_eq(ksi_gcm_seal(key, iv, NULL, 0, NULL, 0, out, tag), KSI_CRYPTO_OK);
	assert_hex(tag, "530f8afbc74536b9a963b4f1c4cb738b");

	unhex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", key, sizeof(key));
	unhex("cafebabefacedbaddecaf888", iv, sizeof(iv));
	unhex("feedfacedeadbeeffeedfacedeadbeefabaddad2", aad, sizeof(aad));
	unhex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
		  "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39", plain, sizeof(plain));
	ck_assert_int_eq(ksi_gcm_seal(key, iv, aad, 20, plain, 60, out, tag), KSI_CRYPTO_OK);
	assert_hex(out, "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
			   "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662");
	assert_hex(tag, "76fc6ece0f4e1768cddf8853bb2d551b");
	ck_assert_int_eq(ksi_gcm_open(key, iv, aad, 20, out, 60, back, tag), KSI_CRYPTO_OK);
	ck_assert_mem_eq(back, plain, 60);

	/* Of what does not verify nothing is to be seen. */
	tag[15] ^= 1;
	ck_assert_int_eq(ksi_gcm_open(key, iv, aad, 20, out, 60, back, tag), KSI_CRYPTO_MISMATCH);
	for (int i = 0; i < 60; i++)
		ck_assert_uint_eq(back[i], 0);
}
END_TEST

/* FIPS 180-2 appendix B.1 */
START_TEST(test_sha256)
{
	uint8_t		digest[32];

	ck_assert(ksi_sha256("abc", 3, digest));
	assert_hex(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}
END_TEST

START_TEST(test_random)
{
	uint8_t		a[32] = {0};
	uint8_t		b[32] = {0};

	ck_assert(ksi_random(a, sizeof(a)) && ksi_random(b, sizeof(b)));
	ck_assert_mem_ne(a, b, sizeof(a));
}
END_TEST

/* Costs, checked before they are used. */
static const struct
{
	struct keystore_kdf_params kdf;
	bool		for_new;
	const char *reason;			/* NULL: fine */
}			kdf_table[] =
{
	{{KEYSTORE_KDF_SCRYPT, 17, 0, 8, 1}, true, NULL},
	{{KEYSTORE_KDF_SCRYPT, 10, 0, 1, 16}, true, NULL},
	{{KEYSTORE_KDF_SCRYPT, 24, 0, 1, 1}, true, NULL},
	{{KEYSTORE_KDF_SCRYPT, 9, 0, 8, 1}, false, "scrypt cost must be between 10 and 24"},
	{{KEYSTORE_KDF_SCRYPT, 25, 0, 1, 1}, false, "scrypt cost must be between 10 and 24"},
	{{KEYSTORE_KDF_SCRYPT, UINT32_MAX, 0, 1, 1}, false, "scrypt cost must be between 10 and 24"},
	{{KEYSTORE_KDF_SCRYPT, 17, 0, 0, 1}, false, "scrypt block size must be between 1 and 32"},
	{{KEYSTORE_KDF_SCRYPT, 17, 0, 33, 1}, false, "scrypt block size must be between 1 and 32"},
	{{KEYSTORE_KDF_SCRYPT, 17, 0, 8, 0}, false, "scrypt parallelism must be between 1 and 16"},
	{{KEYSTORE_KDF_SCRYPT, 17, 0, 8, 17}, false, "scrypt parallelism must be between 1 and 16"},
	{{KEYSTORE_KDF_SCRYPT, 24, 0, 32, 1}, false, "scrypt must not need more than 2 GB of memory"},
	{{KEYSTORE_KDF_SCRYPT, 17, 1, 8, 1}, false, "scrypt takes no memory parameter"},
	{{KEYSTORE_KDF_PBKDF2_SHA512, 210000, 0, 0, 0}, true, NULL},
	{{KEYSTORE_KDF_PBKDF2_SHA512, 1000, 0, 0, 0}, false, NULL},
	{{KEYSTORE_KDF_PBKDF2_SHA512, 209999, 0, 0, 0}, true, "PBKDF2 needs 210000 iterations or more"},
	{{KEYSTORE_KDF_PBKDF2_SHA512, 999, 0, 0, 0}, false,
	"PBKDF2 iterations must be between 1000 and 10000000"},
	{{KEYSTORE_KDF_PBKDF2_SHA512, 10000001, 0, 0, 0}, true,
	"PBKDF2 iterations must be between 1000 and 10000000"},
	{{KEYSTORE_KDF_PBKDF2_SHA512, 1000, 0, 0, 1}, false,
	"PBKDF2 takes no other parameter than its iterations"},
	{{KEYSTORE_KDF_ARGON2ID, 3, 65536, 0, 4}, true, NULL},
	{{KEYSTORE_KDF_ARGON2ID, 0, 65536, 0, 4}, false, "argon2id passes must be between 1 and 64"},
	{{KEYSTORE_KDF_ARGON2ID, 65, 65536, 0, 4}, false, "argon2id passes must be between 1 and 64"},
	{{KEYSTORE_KDF_ARGON2ID, 3, 65536, 0, 17}, false, "argon2id lanes must be between 1 and 16"},
	{{KEYSTORE_KDF_ARGON2ID, 3, 31, 0, 4}, false,
	"argon2id needs 8 KB of memory or more for each lane"},
	{{KEYSTORE_KDF_ARGON2ID, 3, 2097153, 0, 4}, false,
	"argon2id must not need more than 2 GB of memory"},
	{{KEYSTORE_KDF_ARGON2ID, 3, 65536, 8, 4}, false, "argon2id takes no block size"},
	{{(enum keystore_kdf) 77, 0, 0, 0, 0}, true, "unknown key derivation function"},
	{{(enum keystore_kdf) 77, 0, 0, 0, 0}, false, NULL},
};

START_TEST(test_kdf_check)
{
	const char *reason = ksi_kdf_check(&kdf_table[_i].kdf, kdf_table[_i].for_new);

	if (kdf_table[_i].reason == NULL)
		ck_assert_msg(reason == NULL, "refused: %s", reason);
	else
		ck_assert_pstr_eq(reason, kdf_table[_i].reason);
}
END_TEST

int
main(void)
{
	Suite	   *suite = suite_create("crypto");
	TCase	   *tc = ks_tcase("primitives");

	tcase_add_loop_test(tc, test_scrypt, 0,
						(int) (sizeof(scrypt_vectors) / sizeof(scrypt_vectors[0])));
	tcase_add_test(tc, test_scrypt_default);
	tcase_add_test(tc, test_pbkdf2);
	tcase_add_test(tc, test_argon2id);
	tcase_add_test(tc, test_hkdf);
	tcase_add_test(tc, test_gcm);
	tcase_add_test(tc, test_sha256);
	tcase_add_test(tc, test_random);
	suite_add_tcase(suite, tc);

	tc = ks_tcase("kdf_check");
	tcase_add_loop_test(tc, test_kdf_check, 0, (int) (sizeof(kdf_table) / sizeof(kdf_table[0])));
	suite_add_tcase(suite, tc);
	return ks_run(suite);
}
