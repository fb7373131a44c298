/*
 * check_tde_cipher.c
 *		AES-XTS and AES-CTR against the standards' vectors.
 */
#include <config.h>

#include <openssl/evp.h>

#include "cipher.h"
#include "tde_common.h"

#define CTR_LEN		900		/* bytes: three steps of the faster implementation and more */

/* Bytes 00 to ff, twice: the plaintext of IEEE 1619's longer vectors. */
#define COUNTED		NULL

/* IEEE 1619-2007, annex B. */
static const struct
{
	const char *name;
	enum tde_algorithm alg;
	const char *key;
	const char *tweak;
	const char *plain;
	const char *cipher;
} xts_vectors[] = {
	{"vector 2", TDE_AES128,
		"1111111111111111111111111111111122222222222222222222222222222222",
		"33333333330000000000000000000000",
		"4444444444444444444444444444444444444444444444444444444444444444",
	"c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0"},
	{"vector 3", TDE_AES128,
		"fffefdfcfbfaf9f8f7f6f5f4f3f2f1f022222222222222222222222222222222",
		"33333333330000000000000000000000",
		"4444444444444444444444444444444444444444444444444444444444444444",
	"af85336b597afc1a900b2eb21ec949d292df4c047e0b21532186a5971a227a89"},
	{"vector 4", TDE_AES128,
		"2718281828459045235360287471352631415926535897932384626433832795",
		"00000000000000000000000000000000",
		COUNTED,
		"27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c"
		"c78cf7f5e543445f8333d8fa7f56000005279fa5d8b5e4ad40e736ddb4d35412"
		"328063fd2aab53e5ea1e0a9f332500a5df9487d07a5c92cc512c8866c7e860ce"
		"93fdf166a24912b422976146ae20ce846bb7dc9ba94a767aaef20c0d61ad0265"
		"5ea92dc4c4e41a8952c651d33174be51a10c421110e6d81588ede82103a252d8"
		"a750e8768defffed9122810aaeb99f9172af82b604dc4b8e51bcb08235a6f434"
		"1332e4ca60482a4ba1a03b3e65008fc5da76b70bf1690db4eae29c5f1badd03c"
		"5ccf2a55d705ddcd86d449511ceb7ec30bf12b1fa35b913f9f747a8afd1b130e"
		"94bff94effd01a91735ca1726acd0b197c4e5b03393697e126826fb6bbde8ecc"
		"1e08298516e2c9ed03ff3c1b7860f6de76d4cecd94c8119855ef5297ca67e9f3"
		"e7ff72b1e99785ca0a7e7720c5b36dc6d72cac9574c8cbbc2f801e23e56fd344"
		"b07f22154beba0f08ce8891e643ed995c94d9a69c9f1b5f499027a78572aeebd"
		"74d20cc39881c213ee770b1010e4bea718846977ae119f7a023ab58cca0ad752"
		"afe656bb3c17256a9f6e9bf19fdd5a38fc82bbe872c5539edb609ef4f79c203e"
		"bb140f2e583cb2ad15b4aa5b655016a8449277dbd477ef2c8d6c017db738b18d"
	"eb4a427d1923ce3ff262735779a418f20a282df920147beabe421ee5319d0568"},
	{"vector 10", TDE_AES256,
		"2718281828459045235360287471352662497757247093699959574966967627"
		"3141592653589793238462643383279502884197169399375105820974944592",
		"ff000000000000000000000000000000",
		COUNTED,
		"1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b"
		"5d31e276f8fe4a8d66b317f9ac683f44680a86ac35adfc3345befecb4bb188fd"
		"5776926c49a3095eb108fd1098baec70aaa66999a72a82f27d848b21d4a741b0"
		"c5cd4d5fff9dac89aeba122961d03a757123e9870f8acf1000020887891429ca"
		"2a3e7a7d7df7b10355165c8b9a6d0a7de8b062c4500dc4cd120c0f7418dae3d0"
		"b5781c34803fa75421c790dfe1de1834f280d7667b327f6c8cd7557e12ac3a0f"
		"93ec05c52e0493ef31a12d3d9260f79a289d6a379bc70c50841473d1a8cc81ec"
		"583e9645e07b8d9670655ba5bbcfecc6dc3966380ad8fecb17b6ba02469a020a"
		"84e18e8f84252070c13e9f1f289be54fbc481457778f616015e1327a02b140f1"
		"505eb309326d68378f8374595c849d84f4c333ec4423885143cb47bd71c5edae"
		"9be69a2ffeceb1bec9de244fbe15992b11b77c040f12bd8f6a975a44a0f90c29"
		"a9abc3d4d893927284c58754cce294529f8614dcd2aba991925fedc4ae74ffac"
		"6e333b93eb4aff0479da9a410e4450e0dd7ae4c6e2910900575da401fc07059f"
		"645e8b7e9bfdef33943054ff84011493c27b3429eaedb4ed5376441a77ed4385"
		"1ad77f16f541dfd269d50d6a5f14fb0aab1cbb4c1550be97f7ab4066193c4caa"
	"773dad38014bd2092fa755c824bb5e54c4f36ffda9fcea70b9c6e693e148c151"},
};

/* SP 800-38A, F.5.1 and F.5.5; both have the same counter and plaintext. */
#define CTR_COUNTER	"f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
#define CTR_PLAIN \
	"6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51" \
	"30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"

static const struct
{
	enum tde_algorithm alg;
	const char *key;
	const char *cipher;
} ctr_vectors[] = {
	{TDE_AES128, "2b7e151628aed2a6abf7158809cf4f3c",
		"874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"
	"5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee"},
	{TDE_AES256, "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
		"601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
	"2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"},
};

START_TEST(xts_known_answer)
{
	uint8_t		key[TDE_MAX_KEY_LEN];
	uint8_t		tweak[16];
	uint8_t		plain[512];
	uint8_t		cipher[512];
	uint8_t		out[512];
	size_t		len = from_hex(xts_vectors[_i].cipher, cipher);
	tde_xts    *xts;

	ck_assert_uint_eq(from_hex(xts_vectors[_i].key, key), tde_xts_key_len(xts_vectors[_i].alg));
	ck_assert_uint_eq(from_hex(xts_vectors[_i].tweak, tweak), 16);
	if (xts_vectors[_i].plain == COUNTED)
		count_up(plain, sizeof(plain), 0);
	else
		ck_assert_uint_eq(from_hex(xts_vectors[_i].plain, plain), len);
	xts = tde_xts_new(xts_vectors[_i].alg, key);
	ck_assert_ptr_nonnull(xts);

	/*
	 * Twice, and in both directions by turns: nothing of one call may reach the next.  Then libcrypto alone, where
	 * this machine has something faster.
	 */
	for (int round = 0; round < 4; round++)
	{
		if (round == 2)
			tde_xts_set_slow(xts);
		ck_assert_int_eq(tde_xts_encrypt(xts, tweak, plain, out, len), 0);
		ck_assert_mem_eq(out, cipher, len);
		ck_assert_int_eq(tde_xts_decrypt(xts, tweak, out, out, len), 0);
		ck_assert_mem_eq(out, plain, len);
	}
	tde_xts_free(&xts);
	ck_assert_ptr_null(xts);
}
END_TEST

/* IEEE 1619's vector 1 has a key of zeros: equal halves, which we refuse. */
START_TEST(xts_equal_halves)
{
	uint8_t		key[TDE_MAX_KEY_LEN] = {0};

	ck_assert_ptr_null(tde_xts_new(TDE_AES128, key));
	ck_assert_ptr_null(tde_xts_new(TDE_AES256, key));
	fill(key, 32, 1);
	memcpy(key + 32, key, 32);
	ck_assert_ptr_null(tde_xts_new(TDE_AES256, key));
	key[63] ^= 1;
	for (int alg = TDE_AES128; alg <= TDE_AES256; alg++)
	{
		tde_xts    *xts = tde_xts_new((enum tde_algorithm) alg, key);

		ck_assert_ptr_nonnull(xts);
		tde_xts_free(&xts);
	}
}
END_TEST

START_TEST(xts_lengths)
{
	uint8_t		key[TDE_MAX_KEY_LEN];
	uint8_t		tweak[16] = {0};
	uint8_t		buf[64] = {0};
	tde_xts    *xts;

	count_up(key, sizeof(key), 0);
	xts = tde_xts_new(TDE_AES256, key);
	ck_assert_int_eq(tde_xts_encrypt(xts, tweak, buf, buf, 15), -1);
	ck_assert_int_eq(tde_xts_decrypt(xts, tweak, buf, buf, 0), -1);
	ck_assert_int_eq(tde_xts_encrypt(xts, tweak, buf, buf, (16 << 20) + 1), -1);
	ck_assert_int_eq(tde_xts_decrypt(xts, tweak, buf, buf, SIZE_MAX), -1);

	/* Not a multiple of the block: ciphertext stealing. */
	for (size_t len = 16; len <= sizeof(buf); len++)
	{
		uint8_t		plain[64];

		fill(plain, sizeof(plain), (uint32_t) len);
		ck_assert_int_eq(tde_xts_encrypt(xts, tweak, plain, buf, len), 0);
		ck_assert_mem_ne(buf, plain, len);
		ck_assert_int_eq(tde_xts_decrypt(xts, tweak, buf, buf, len), 0);
		ck_assert_mem_eq(buf, plain, len);
	}
	tde_xts_free(&xts);
}
END_TEST

/* The faster implementation and libcrypto, for each number of blocks up to a page; no byte beyond is touched. */
START_TEST(xts_fast_and_slow)
{
	uint8_t		key[TDE_MAX_KEY_LEN];
	uint8_t		tweak[16];
	uint8_t		plain[PAGE_LEN];
	uint8_t		fast_out[PAGE_LEN + 32];
	uint8_t		slow_out[PAGE_LEN + 32];
	enum tde_algorithm alg = _i == 0 ? TDE_AES128 : TDE_AES256;
	tde_xts    *fast;
	tde_xts    *slow;

	fill(key, sizeof(key), 3);
	fast = tde_xts_new(alg, key);
	slow = tde_xts_new(alg, key);
	tde_xts_set_slow(slow);
	ck_assert(!tde_xts_is_fast(slow));
	for (size_t len = 16; len <= PAGE_LEN; len += 16)
	{
		fill(plain, sizeof(plain), (uint32_t) len);
		fill(tweak, sizeof(tweak), (uint32_t) len + 1);
		memset(fast_out, 0xAA, sizeof(fast_out));
		memset(slow_out, 0xAA, sizeof(slow_out));
		ck_assert_int_eq(tde_xts_encrypt(fast, tweak, plain, fast_out, len), 0);
		ck_assert_int_eq(tde_xts_encrypt(slow, tweak, plain, slow_out, len), 0);
		ck_assert_msg(memcmp(fast_out, slow_out, sizeof(fast_out)) == 0, "encrypting %zu bytes", len);
		ck_assert_mem_ne(fast_out, plain, len);
		ck_assert_int_eq(tde_xts_decrypt(fast, tweak, fast_out, fast_out, len), 0);
		ck_assert_int_eq(tde_xts_decrypt(slow, tweak, slow_out, slow_out, len), 0);
		ck_assert_msg(memcmp(fast_out, slow_out, sizeof(fast_out)) == 0, "decrypting %zu bytes", len);
		ck_assert_mem_eq(fast_out, plain, len);
	}
	tde_xts_free(&fast);
	tde_xts_free(&slow);
}
END_TEST

START_TEST(ctr_known_answer)
{
	uint8_t		key[TDE_MAX_KEY_LEN];
	uint8_t		counter[16];
	uint8_t		plain[64];
	uint8_t		cipher[64];
	uint8_t		out[64];
	tde_ctr    *ctr;

	ck_assert_uint_eq(from_hex(ctr_vectors[_i].key, key), tde_ctr_key_len(ctr_vectors[_i].alg));
	from_hex(CTR_COUNTER, counter);
	from_hex(CTR_PLAIN, plain);
	ck_assert_uint_eq(from_hex(ctr_vectors[_i].cipher, cipher), sizeof(cipher));
	ctr = tde_ctr_new(ctr_vectors[_i].alg, key);
	ck_assert_ptr_nonnull(ctr);
	for (int round = 0; round < 2; round++)
	{
		if (round == 1)
			tde_ctr_set_slow(ctr);
		ck_assert_int_eq(tde_ctr_crypt(ctr, counter, 0, plain, out, 64), 0);
		ck_assert_mem_eq(out, cipher, 64);
		ck_assert_int_eq(tde_ctr_crypt(ctr, counter, 0, out, out, 64), 0);
		ck_assert_mem_eq(out, plain, 64);
	}
	tde_ctr_free(&ctr);
	ck_assert_ptr_null(ctr);
}
END_TEST

/* The counter is 128 bits wide: it carries over all of them, and from the last value to 0. */
START_TEST(ctr_carry)
{
	static const char *const counters[] = {
		"ffffffffffffffffffffffffffffffff",
		"000000000000000000000000ffffffff",
		"0123456789abcdefffffffffffffffff",
		"00000000000000ffffffffffffffffff",
	};
	static const char *const next[] = {
		"00000000000000000000000000000000",
		"00000000000000000000000100000000",
		"0123456789abcdf00000000000000000",
		"00000000000001000000000000000000",
	};
	uint8_t		key[32];
	uint8_t		counter[16];
	uint8_t		zeros[32] = {0};
	uint8_t		out[32];
	uint8_t		block[16];
	int			len;
	tde_ctr    *ctr;
	EVP_CIPHER_CTX *ecb = EVP_CIPHER_CTX_new();

	count_up(key, sizeof(key), 7);
	ctr = tde_ctr_new(TDE_AES256, key);
	from_hex(counters[_i], counter);
	ck_assert_int_eq(tde_ctr_crypt(ctr, counter, 0, zeros, out, sizeof(out)), 0);

	/* The plain cipher on the next counter is the second block of keystream. */
	from_hex(next[_i], counter);
	ck_assert_int_eq(EVP_EncryptInit_ex(ecb, EVP_aes_256_ecb(), NULL, key, NULL), 1);
	ck_assert_int_eq(EVP_EncryptUpdate(ecb, block, &len, counter, 16), 1);
	ck_assert_mem_eq(out + 16, block, 16);
	EVP_CIPHER_CTX_free(ecb);
	tde_ctr_free(&ctr);
}
END_TEST

/*
 * The faster implementation and libcrypto: each skip, lengths to more than three steps of it, and a carry at each block
 * that such a step can have it at.  No byte beyond is touched.
 */
START_TEST(ctr_fast_and_slow)
{
	uint8_t		key[32];
	uint8_t		plain[CTR_LEN];
	uint8_t		fast_out[CTR_LEN + 32];
	uint8_t		slow_out[CTR_LEN + 32];
	enum tde_algorithm alg = _i == 0 ? TDE_AES128 : TDE_AES256;
	tde_ctr    *fast;
	tde_ctr    *slow;

	fill(key, sizeof(key), 3);
	fill(plain, sizeof(plain), 4);
	fast = tde_ctr_new(alg, key);
	slow = tde_ctr_new(alg, key);
	tde_ctr_set_slow(slow);
	ck_assert(!tde_ctr_is_fast(slow));
	for (size_t len = 0; len <= CTR_LEN; len++)
	{
		uint8_t		counter[16];
		size_t		skip = len % 16;

		/* The lower half runs over after len / 16 blocks. */
		fill(counter, sizeof(counter), (uint32_t) len);
		memset(counter + 8, 0xFF, 8);
		counter[15] = (uint8_t) (0xFF - len / 16);
		memset(fast_out, 0xAA, sizeof(fast_out));
		memset(slow_out, 0xAA, sizeof(slow_out));
		ck_assert_int_eq(tde_ctr_crypt(fast, counter, skip, plain, fast_out, len), 0);
		ck_assert_int_eq(tde_ctr_crypt(slow, counter, skip, plain, slow_out, len), 0);
		ck_assert_msg(memcmp(fast_out, slow_out, sizeof(fast_out)) == 0, "%zu bytes, short", len);
		ck_assert_int_eq(tde_ctr_crypt(fast, counter, skip, plain, fast_out, CTR_LEN), 0);
		ck_assert_int_eq(tde_ctr_crypt(slow, counter, skip, plain, slow_out, CTR_LEN), 0);
		ck_assert_msg(memcmp(fast_out, slow_out, sizeof(fast_out)) == 0, "%zu bytes, whole", len);
		ck_assert_mem_ne(fast_out, plain, CTR_LEN);
		ck_assert_int_eq(tde_ctr_crypt(fast, counter, skip, fast_out, fast_out, CTR_LEN), 0);
		ck_assert_mem_eq(fast_out, plain, CTR_LEN);
	}
	tde_ctr_free(&fast);
	tde_ctr_free(&slow);
}
END_TEST

/* Each skip, and each length from it, is the same slice of the whole. */
START_TEST(ctr_skip)
{
	uint8_t		key[32];
	uint8_t		counter[16];
	uint8_t		plain[80];
	uint8_t		whole[80];
	uint8_t		out[80];
	tde_ctr    *ctr;

	count_up(key, sizeof(key), 0);
	fill(counter, sizeof(counter), 5);
	fill(plain, sizeof(plain), 6);
	ctr = tde_ctr_new(TDE_AES256, key);
	ck_assert_int_eq(tde_ctr_crypt(ctr, counter, 0, plain, whole, sizeof(whole)), 0);
	for (size_t skip = 0; skip < 16; skip++)
	{
		for (size_t len = 0; skip + len <= sizeof(plain); len++)
		{
			memset(out, 0xAA, sizeof(out));
			ck_assert_int_eq(tde_ctr_crypt(ctr, counter, skip, plain + skip, out, len), 0);
			ck_assert_msg(memcmp(out, whole + skip, len) == 0, "skip %zu, length %zu", skip, len);
			for (size_t i = len; i < sizeof(out); i++)
				ck_assert_uint_eq(out[i], 0xAA);
		}
	}
	ck_assert_int_eq(tde_ctr_crypt(ctr, counter, 16, plain, out, 1), -1);
	ck_assert_int_eq(tde_ctr_crypt(ctr, counter, 0, plain, out, (size_t) INT32_MAX + 1), -1);
	tde_ctr_free(&ctr);
}
END_TEST

/* A page in two parts, split at every byte, is the page in one. */
START_TEST(ctr_every_split)
{
	uint8_t		key[32];
	uint8_t		plain[PAGE_LEN];
	uint8_t		whole[PAGE_LEN];
	uint8_t		out[PAGE_LEN];
	uint8_t		counter[16] = {0};
	tde_ctr    *ctr;

	count_up(key, sizeof(key), 0);
	fill(plain, sizeof(plain), 1);
	ctr = tde_ctr_new(TDE_AES128, key);
	ck_assert_int_eq(tde_ctr_crypt(ctr, counter, 0, plain, whole, PAGE_LEN), 0);
	for (size_t split = 0; split <= PAGE_LEN; split++)
	{
		uint8_t		second[16] = {0};

		memcpy(out, plain, PAGE_LEN);
		second[14] = (uint8_t) (split / 16 >> 8);
		second[15] = (uint8_t) (split / 16);
		ck_assert_int_eq(tde_ctr_crypt(ctr, counter, 0, out, out, split), 0);
		ck_assert_int_eq(tde_ctr_crypt(ctr, second, split % 16, out + split, out + split,
									   PAGE_LEN - split), 0);
		ck_assert_msg(memcmp(out, whole, PAGE_LEN) == 0, "split at %zu", split);
	}
	tde_ctr_free(&ctr);
}
END_TEST

START_TEST(algorithm_names)
{
	enum tde_algorithm alg = TDE_AES128;

	ck_assert_str_eq(tde_algorithm_name(TDE_NONE), "none");
	ck_assert_str_eq(tde_algorithm_name(TDE_AES128), "AES128");
	ck_assert_str_eq(tde_algorithm_name(TDE_AES256), "AES256");
	ck_assert_ptr_null(tde_algorithm_name((enum tde_algorithm) 3));
	ck_assert_int_eq(tde_algorithm_parse("aes256", &alg), 0);
	ck_assert_int_eq(alg, TDE_AES256);
	ck_assert_int_eq(tde_algorithm_parse("None", &alg), 0);
	ck_assert_int_eq(alg, TDE_NONE);
	ck_assert_int_eq(tde_algorithm_parse("AES", &alg), -1);
	ck_assert_int_eq(tde_algorithm_parse("", &alg), -1);
	ck_assert_int_eq(tde_algorithm_parse("AES2566", &alg), -1);
	ck_assert_int_eq(alg, TDE_NONE);

	ck_assert_uint_eq(tde_xts_key_len(TDE_NONE), 0);
	ck_assert_uint_eq(tde_xts_key_len(TDE_AES128), 32);
	ck_assert_uint_eq(tde_xts_key_len(TDE_AES256), 64);
	ck_assert_uint_eq(tde_ctr_key_len(TDE_NONE), 0);
	ck_assert_uint_eq(tde_ctr_key_len(TDE_AES128), 16);
	ck_assert_uint_eq(tde_ctr_key_len(TDE_AES256), 32);
	ck_assert_uint_eq(tde_ctr_key_len((enum tde_algorithm) 77), 0);
}
END_TEST

START_TEST(no_context_without_algorithm)
{
	uint8_t		key[TDE_MAX_KEY_LEN];
	tde_xts    *xts = NULL;
	tde_ctr    *ctr = NULL;

	count_up(key, sizeof(key), 0);
	ck_assert_ptr_null(tde_xts_new(TDE_NONE, key));
	ck_assert_ptr_null(tde_ctr_new(TDE_NONE, key));
	ck_assert_ptr_null(tde_xts_new((enum tde_algorithm) 9, key));
	ck_assert_ptr_null(tde_ctr_new((enum tde_algorithm) 9, key));

	/* Freeing nothing is allowed. */
	tde_xts_free(&xts);
	tde_ctr_free(&ctr);
	ck_assert_ptr_null(xts);
	ck_assert_ptr_null(ctr);
}
END_TEST

int
main(void)
{
	Suite	   *s = suite_create("tde cipher");

	ADD_LOOP_TEST(s, xts_known_answer, LENGTH_OF(xts_vectors));
	ADD_TEST(s, xts_equal_halves);
	ADD_TEST(s, xts_lengths);
	ADD_LOOP_TEST(s, xts_fast_and_slow, 2);
	ADD_LOOP_TEST(s, ctr_known_answer, LENGTH_OF(ctr_vectors));
	ADD_LOOP_TEST(s, ctr_carry, 4);
	ADD_LOOP_TEST(s, ctr_fast_and_slow, 2);
	ADD_TEST(s, ctr_skip);
	ADD_TEST(s, ctr_every_split);
	ADD_TEST(s, algorithm_names);
	ADD_TEST(s, no_context_without_algorithm);
	return run_suite(s);
}
