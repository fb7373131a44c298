/*
 * xts_vaes.c
 *		AES-XTS by the vector AES instructions (VAES) of newer processors.
 *
 * AES is FIPS 197, XTS is IEEE 1619 (SP 800-38E) without ciphertext stealing.  All of it is instructions that
 * take the same time for any data: there is no table and no branch on a secret.  A step does
 * sixteen blocks in eight registers: the instruction takes four cycles and two can begin in each.
 */
#include <config.h>

#include "xts_vaes.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>
#include <string.h>

#include <openssl/crypto.h>

#define VAES __attribute__((target("avx2,aes,vaes,vpclmulqdq")))

#define BLOCK_LEN		16		/* bytes */
#define REGISTERS		8
#define STEP_LEN		(REGISTERS * 2 * BLOCK_LEN)
#define XTS_POLYNOMIAL	0x87	/* x^128 = x^7 + x^2 + x + 1 */

#define LEAF_7_ECX_VAES			(1u << 9)
#define LEAF_7_ECX_VPCLMULQDQ	(1u << 10)
#define LEAF_1_ECX_AES			(1u << 25)

bool
xts_vaes_supported(void)
{
	unsigned	eax;
	unsigned	ebx;
	unsigned	ecx;
	unsigned	edx;

	/* This one asks the operating system too: whether it saves the wide registers. */
	if (!__builtin_cpu_supports("avx2"))
		return false;
	if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & LEAF_1_ECX_AES) == 0)
		return false;
	return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 &&
		(ecx & LEAF_7_ECX_VAES) != 0 && (ecx & LEAF_7_ECX_VPCLMULQDQ) != 0;
}

/* ---- keys -------------------------------------------------------------------- */

/* A round key from the one it follows and the word that the instruction made of the last key. */
VAES static inline __m128i
next_key(__m128i key, __m128i word)
{
	key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
	key = _mm_xor_si128(key, _mm_slli_si128(key, 8));
	return _mm_xor_si128(key, word);
}

/* FIPS 197, 5.2: rotated, substituted, with the round constant; the instruction takes a constant only. */
#define ROTATED(key, rcon) _mm_shuffle_epi32(_mm_aeskeygenassist_si128(key, rcon), 0xff)
#define SUBSTITUTED(key) _mm_shuffle_epi32(_mm_aeskeygenassist_si128(key, 0), 0xaa)

VAES static void
expand_128(const uint8_t *key, __m128i keys[XTS_VAES_MAX_KEYS])
{
	keys[0] = _mm_loadu_si128((const __m128i *) key);
	keys[1] = next_key(keys[0], ROTATED(keys[0], 0x01));
	keys[2] = next_key(keys[1], ROTATED(keys[1], 0x02));
	keys[3] = next_key(keys[2], ROTATED(keys[2], 0x04));
	keys[4] = next_key(keys[3], ROTATED(keys[3], 0x08));
	keys[5] = next_key(keys[4], ROTATED(keys[4], 0x10));
	keys[6] = next_key(keys[5], ROTATED(keys[5], 0x20));
	keys[7] = next_key(keys[6], ROTATED(keys[6], 0x40));
	keys[8] = next_key(keys[7], ROTATED(keys[7], 0x80));
	keys[9] = next_key(keys[8], ROTATED(keys[8], 0x1b));
	keys[10] = next_key(keys[9], ROTATED(keys[9], 0x36));
}

VAES static void
expand_256(const uint8_t *key, __m128i keys[XTS_VAES_MAX_KEYS])
{
	keys[0] = _mm_loadu_si128((const __m128i *) key);
	keys[1] = _mm_loadu_si128((const __m128i *) (key + BLOCK_LEN));
	keys[2] = next_key(keys[0], ROTATED(keys[1], 0x01));
	keys[3] = next_key(keys[1], SUBSTITUTED(keys[2]));
	keys[4] = next_key(keys[2], ROTATED(keys[3], 0x02));
	keys[5] = next_key(keys[3], SUBSTITUTED(keys[4]));
	keys[6] = next_key(keys[4], ROTATED(keys[5], 0x04));
	keys[7] = next_key(keys[5], SUBSTITUTED(keys[6]));
	keys[8] = next_key(keys[6], ROTATED(keys[7], 0x08));
	keys[9] = next_key(keys[7], SUBSTITUTED(keys[8]));
	keys[10] = next_key(keys[8], ROTATED(keys[9], 0x10));
	keys[11] = next_key(keys[9], SUBSTITUTED(keys[10]));
	keys[12] = next_key(keys[10], ROTATED(keys[11], 0x20));
	keys[13] = next_key(keys[11], SUBSTITUTED(keys[12]));
	keys[14] = next_key(keys[12], ROTATED(keys[13], 0x40));
}

VAES void
xts_vaes_init(struct xts_vaes *xts, const uint8_t *key, size_t half)
{
	__m128i		keys[XTS_VAES_MAX_KEYS];
	int			rounds = half == 32 ? 14 : 10;

	memset(xts, 0, sizeof(*xts));
	xts->rounds = rounds;
	if (half == 32)
		expand_256(key, keys);
	else
		expand_128(key, keys);
	for (int i = 0; i <= rounds; i++)
	{
		/* The equivalent inverse cipher (FIPS 197, 5.3.5): backwards, all but the outer two transformed. */
		__m128i		back = keys[rounds - i];

		if (i > 0 && i < rounds)
			back = _mm_aesimc_si128(back);
		_mm_storeu_si128((__m128i *) xts->encrypt[i], keys[i]);
		_mm_storeu_si128((__m128i *) xts->decrypt[i], back);
	}
	if (half == 32)
		expand_256(key + half, keys);
	else
		expand_128(key + half, keys);
	for (int i = 0; i <= rounds; i++)
		_mm_storeu_si128((__m128i *) xts->tweak[i], keys[i]);
	OPENSSL_cleanse(keys, sizeof(keys));
}

/* ---- pages ------------------------------------------------------------------- */

VAES static inline __m256i
load_key(const uint8_t *key)
{
	return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) key));
}

/* The tweak of the next block: times x, in little-endian order. */
VAES static inline __m128i
times_x(__m128i tweak)
{
	/* Each 32-bit word's highest bit goes into the next word, the last one's becomes the polynomial. */
	__m128i		carry = _mm_shuffle_epi32(_mm_srai_epi32(tweak, 31), 0x93);

	return _mm_xor_si128(_mm_slli_epi32(tweak, 1),
						 _mm_and_si128(carry, _mm_set_epi32(1, 1, 1, XTS_POLYNOMIAL)));
}

/* The tweaks of the blocks one step further: times x^16, that is two bytes up, and what falls out reduced. */
VAES static inline __m256i
times_x16(__m256i tweaks)
{
	__m256i		out = _mm256_srli_si256(tweaks, BLOCK_LEN - 2);

	return _mm256_xor_si256(_mm256_slli_si256(tweaks, 2),
							_mm256_clmulepi64_epi128(out, _mm256_set1_epi64x(XTS_POLYNOMIAL), 0));
}

VAES static void
first_tweaks(const struct xts_vaes *xts, const uint8_t tweak[16], __m256i tweaks[REGISTERS])
{
	__m128i		even = _mm_loadu_si128((const __m128i *) tweak);
	const uint8_t (*keys)[16] = xts->tweak;

	even = _mm_xor_si128(even, _mm_loadu_si128((const __m128i *) keys[0]));
	for (int round = 1; round < xts->rounds; round++)
		even = _mm_aesenc_si128(even, _mm_loadu_si128((const __m128i *) keys[round]));
	even = _mm_aesenclast_si128(even, _mm_loadu_si128((const __m128i *) keys[xts->rounds]));
	for (int i = 0; i < REGISTERS; i++)
	{
		__m128i		odd = times_x(even);

		tweaks[i] = _mm256_set_m128i(odd, even);
		even = times_x(odd);
	}
}

/* Sixteen blocks; encrypt is known where this is expanded. */
VAES static inline __attribute__((always_inline)) void
crypt_step(const uint8_t (*keys)[16], int rounds, bool encrypt, __m256i tweaks[REGISTERS],
		   const uint8_t *in, uint8_t *out)
{
	__m256i		blocks[REGISTERS];
	__m256i		key = load_key(keys[0]);

#pragma GCC unroll 8
	for (int i = 0; i < REGISTERS; i++)
		blocks[i] = _mm256_xor_si256(_mm256_xor_si256(_mm256_loadu_si256((const __m256i *) in + i),
													  tweaks[i]), key);
	for (int round = 1; round < rounds; round++)
	{
		key = load_key(keys[round]);
#pragma GCC unroll 8
		for (int i = 0; i < REGISTERS; i++)
			blocks[i] = encrypt ? _mm256_aesenc_epi128(blocks[i], key) :
				_mm256_aesdec_epi128(blocks[i], key);
	}
	key = load_key(keys[rounds]);
#pragma GCC unroll 8
	for (int i = 0; i < REGISTERS; i++)
	{
		/* The last round adds its key, and the tweak goes in with that. */
		__m256i		last = _mm256_xor_si256(key, tweaks[i]);

		blocks[i] = encrypt ? _mm256_aesenclast_epi128(blocks[i], last) :
			_mm256_aesdeclast_epi128(blocks[i], last);
		_mm256_storeu_si256((__m256i *) out + i, blocks[i]);
		tweaks[i] = times_x16(tweaks[i]);
	}
}

VAES static inline __attribute__((always_inline)) void
crypt_all(const uint8_t (*keys)[16], int rounds, bool encrypt, __m256i tweaks[REGISTERS],
		  const uint8_t *in, uint8_t *out, size_t len)
{
	uint8_t		rest[STEP_LEN] = {0};

	for (; len >= STEP_LEN; len -= STEP_LEN, in += STEP_LEN, out += STEP_LEN)
		crypt_step(keys, rounds, encrypt, tweaks, in, out);
	if (len > 0)
	{
		memcpy(rest, in, len);
		crypt_step(keys, rounds, encrypt, tweaks, rest, rest);
		memcpy(out, rest, len);
	}
}

VAES void
xts_vaes_crypt(const struct xts_vaes *xts, bool encrypt, const uint8_t tweak[16],
			   const uint8_t *in, uint8_t *out, size_t len)
{
	__m256i		tweaks[REGISTERS];

	first_tweaks(xts, tweak, tweaks);
	if (encrypt)
		crypt_all(xts->encrypt, xts->rounds, true, tweaks, in, out, len);
	else
		crypt_all(xts->decrypt, xts->rounds, false, tweaks, in, out, len);
}

#else							/* not x86-64 */

#include <stdlib.h>

bool
xts_vaes_supported(void)
{
	return false;
}

/* Nobody comes here where it is not supported. */
void
xts_vaes_init(struct xts_vaes *xts, const uint8_t *key, size_t half)
{
	(void) xts;
	(void) key;
	(void) half;
	abort();
}

void
xts_vaes_crypt(const struct xts_vaes *xts, bool encrypt, const uint8_t tweak[16],
			   const uint8_t *in, uint8_t *out, size_t len)
{
	(void) xts;
	(void) encrypt;
	(void) tweak;
	(void) in;
	(void) out;
	(void) len;
	abort();
}

#endif
