/*
 * aes_vaes.c
 *		AES-XTS and AES-CTR by the vector AES instructions (VAES) of newer processors.
 *
 * AES is FIPS 197, XTS is IEEE 1619 (SP 800-38E) without ciphertext stealing, CTR is SP 800-38A.  All of it is
 * instructions that take the same time for any data: there is no table and no branch on a secret.  A step does
 * sixteen blocks in eight registers: the instruction takes four cycles and two can begin in each.
 */
#include <config.h>

#include "aes_vaes.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <string.h>

#include <openssl/crypto.h>

#include "aes_vaes_int.h"

#define ROUNDS(key_len)	((key_len) == 32 ? 14 : 10)

#define LEAF_7_ECX_VAES			(1u << 9)
#define LEAF_7_ECX_VPCLMULQDQ	(1u << 10)
#define LEAF_1_ECX_AES			(1u << 25)

bool
aes_vaes_supported(void)
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
expand_128(const uint8_t *key, __m128i keys[AES_VAES_MAX_KEYS])
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
expand_256(const uint8_t *key, __m128i keys[AES_VAES_MAX_KEYS])
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

VAES static void
expand(const uint8_t *key, size_t len, __m128i keys[AES_VAES_MAX_KEYS])
{
	if (len == 32)
		expand_256(key, keys);
	else
		expand_128(key, keys);
}

VAES void
ctr_vaes_init(struct ctr_vaes *ctr, const uint8_t *key, size_t len)
{
	__m128i		keys[AES_VAES_MAX_KEYS];

	memset(ctr, 0, sizeof(*ctr));
	ctr->rounds = ROUNDS(len);
	expand(key, len, keys);
	for (int i = 0; i <= ctr->rounds; i++)
		_mm_storeu_si128((__m128i *) ctr->keys[i], keys[i]);
	OPENSSL_cleanse(keys, sizeof(keys));
}

VAES void
xts_vaes_init(struct xts_vaes *xts, const uint8_t *key, size_t half)
{
	__m128i		keys[AES_VAES_MAX_KEYS];
	int			rounds = ROUNDS(half);

	memset(xts, 0, sizeof(*xts));
	xts->rounds = rounds;
	expand(key, half, keys);
	for (int i = 0; i <= rounds; i++)
	{
		/* The equivalent inverse cipher (FIPS 197, 5.3.5): backwards, all but the outer two transformed. */
		__m128i		back = keys[rounds - i];

		if (i > 0 && i < rounds)
			back = _mm_aesimc_si128(back);
		_mm_storeu_si128((__m128i *) xts->encrypt[i], keys[i]);
		_mm_storeu_si128((__m128i *) xts->decrypt[i], back);
	}
	expand(key + half, half, keys);
	for (int i = 0; i <= rounds; i++)
		_mm_storeu_si128((__m128i *) xts->tweak[i], keys[i]);
	OPENSSL_cleanse(keys, sizeof(keys));
}

/* ---- XTS --------------------------------------------------------------------- */

VAES static inline __attribute__((always_inline)) void
crypt_step(const uint8_t (*keys)[BLOCK_LEN], int rounds, bool encrypt, __m256i tweaks[REGISTERS],
		   const uint8_t *in, uint8_t *out)
{
	__m256i		blocks[REGISTERS];

#pragma GCC unroll 8
	for (int i = 0; i < REGISTERS; i++)
		blocks[i] = _mm256_loadu_si256((const __m256i *) in + i);
	xts_blocks(keys, rounds, encrypt, tweaks, blocks);
#pragma GCC unroll 8
	for (int i = 0; i < REGISTERS; i++)
		_mm256_storeu_si256((__m256i *) out + i, blocks[i]);
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

	xts_first_tweaks(xts, tweak, tweaks);
	if (encrypt)
		crypt_all(xts->encrypt, xts->rounds, true, tweaks, in, out, len);
	else
		crypt_all(xts->decrypt, xts->rounds, false, tweaks, in, out, len);
}

/* ---- CTR --------------------------------------------------------------------- */

static uint64_t
get_u64(const uint8_t *from)
{
	uint64_t	value = 0;

	for (int i = 0; i < 8; i++)
		value = value << 8 | from[i];
	return value;
}

/* The counter blocks of a step, and the next one's: each half-register is the number, lowest byte first. */
VAES static void
first_counters(const uint8_t counter[BLOCK_LEN], __m256i counters[REGISTERS])
{
	uint64_t	high = get_u64(counter);
	uint64_t	low = get_u64(counter + 8);

	for (int i = 0; i < REGISTERS; i++)
	{
		uint64_t	even = low + 2 * (uint64_t) i;
		uint64_t	odd = even + 1;

		/* What does not fit into the lower half is carried; odd and even apart, for it may be between them. */
		counters[i] = _mm256_set_epi64x((long long) (high + (odd < low)), (long long) odd,
										(long long) (high + (even < low)), (long long) even);
	}
}

/* Sixteen blocks on.  The carry is a mask of ones, that is -1, where the lower half has become less than what was added. */
VAES static inline __m256i
next_counter(__m256i counter)
{
	const __m256i step = _mm256_set_epi64x(0, 2 * REGISTERS, 0, 2 * REGISTERS);
	const __m256i highest = _mm256_set1_epi64x((long long) (UINT64_C(1) << 63));
	__m256i		sum = _mm256_add_epi64(counter, step);
	__m256i		carry = _mm256_cmpgt_epi64(_mm256_xor_si256(step, highest), _mm256_xor_si256(sum, highest));

	return _mm256_sub_epi64(sum, _mm256_slli_si256(carry, 8));
}

/* Sixteen blocks. */
VAES static inline __attribute__((always_inline)) void
ctr_step(const uint8_t (*keys)[BLOCK_LEN], int rounds, __m256i counters[REGISTERS], const uint8_t *in, uint8_t *out)
{
	const __m256i backwards = _mm256_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
											  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
	__m256i		blocks[REGISTERS];
	__m256i		key = load_key(keys[0]);

#pragma GCC unroll 8
	for (int i = 0; i < REGISTERS; i++)
	{
		blocks[i] = _mm256_xor_si256(_mm256_shuffle_epi8(counters[i], backwards), key);
		counters[i] = next_counter(counters[i]);
	}
	for (int round = 1; round < rounds; round++)
	{
		key = load_key(keys[round]);
#pragma GCC unroll 8
		for (int i = 0; i < REGISTERS; i++)
			blocks[i] = _mm256_aesenc_epi128(blocks[i], key);
	}
	key = load_key(keys[rounds]);
#pragma GCC unroll 8
	for (int i = 0; i < REGISTERS; i++)
	{
		/* The last round adds its key, and the data go in with that: no keystream is ever in memory. */
		__m256i		last = _mm256_xor_si256(key, _mm256_loadu_si256((const __m256i *) in + i));

		_mm256_storeu_si256((__m256i *) out + i, _mm256_aesenclast_epi128(blocks[i], last));
	}
}

/* Part of a step: the bytes before skip and after len are made up. */
VAES static size_t
ctr_part(const struct ctr_vaes *ctr, __m256i counters[REGISTERS], size_t skip, const uint8_t *in, uint8_t *out,
		 size_t len)
{
	uint8_t		part[STEP_LEN] = {0};

	if (len > STEP_LEN - skip)
		len = STEP_LEN - skip;
	memcpy(part + skip, in, len);
	ctr_step(ctr->keys, ctr->rounds, counters, part, part);
	memcpy(out, part + skip, len);

	/* Around the data this is keystream, and what it hides is on disk. */
	OPENSSL_cleanse(part, sizeof(part));
	return len;
}

VAES void
ctr_vaes_crypt(const struct ctr_vaes *ctr, const uint8_t counter[BLOCK_LEN], size_t skip, const uint8_t *in,
			   uint8_t *out, size_t len)
{
	__m256i		counters[REGISTERS];
	size_t		done = 0;

	first_counters(counter, counters);
	if (skip > 0)
		done = ctr_part(ctr, counters, skip, in, out, len);
	for (; len - done >= STEP_LEN; done += STEP_LEN)
		ctr_step(ctr->keys, ctr->rounds, counters, in + done, out + done);
	if (done < len)
		ctr_part(ctr, counters, 0, in + done, out + done, len - done);
}

#else							/* not x86-64 */

#include <stdlib.h>

bool
aes_vaes_supported(void)
{
	return false;
}

/* Nobody comes here, or below, where it is not supported. */
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

void
ctr_vaes_init(struct ctr_vaes *ctr, const uint8_t *key, size_t len)
{
	(void) ctr;
	(void) key;
	(void) len;
	abort();
}

void
ctr_vaes_crypt(const struct ctr_vaes *ctr, const uint8_t counter[16], size_t skip, const uint8_t *in,
			   uint8_t *out, size_t len)
{
	(void) ctr;
	(void) counter;
	(void) skip;
	(void) in;
	(void) out;
	(void) len;
	abort();
}

#endif
