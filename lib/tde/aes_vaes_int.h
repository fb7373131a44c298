/*
 * aes_vaes_int.h
 *		What the files share that use the vector AES instructions; for those, on x86-64, only.
 */
#ifndef TDE_AES_VAES_INT_H
#define TDE_AES_VAES_INT_H

#include <immintrin.h>

#include "aes_vaes.h"

#define VAES __attribute__((target("avx2,aes,vaes,vpclmulqdq")))

#define BLOCK_LEN		16		/* bytes */
#define REGISTERS		8
#define STEP_LEN		(REGISTERS * 2 * BLOCK_LEN)
#define XTS_POLYNOMIAL	0x87	/* x^128 = x^7 + x^2 + x + 1 */

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

VAES static inline void
xts_first_tweaks(const struct xts_vaes *xts, const uint8_t tweak[BLOCK_LEN], __m256i tweaks[REGISTERS])
{
	__m128i		even = _mm_loadu_si128((const __m128i *) tweak);
	const uint8_t (*keys)[BLOCK_LEN] = xts->tweak;

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

/* Sixteen blocks, and the tweaks of the next sixteen; encrypt is known where this is expanded. */
VAES static inline __attribute__((always_inline)) void
xts_blocks(const uint8_t (*keys)[BLOCK_LEN], int rounds, bool encrypt, __m256i tweaks[REGISTERS],
		   __m256i blocks[REGISTERS])
{
	__m256i		key = load_key(keys[0]);

#pragma GCC unroll 8
	for (int i = 0; i < REGISTERS; i++)
		blocks[i] = _mm256_xor_si256(_mm256_xor_si256(blocks[i], tweaks[i]), key);
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
		tweaks[i] = times_x16(tweaks[i]);
	}
}

#endif							/* TDE_AES_VAES_INT_H */
