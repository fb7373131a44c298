/*
 * checksum_int.h
 *		The parts of the page checksum, for those who compute it on the way.  See checksum.c.
 */
#ifndef TDE_CHECKSUM_INT_H
#define TDE_CHECKSUM_INT_H

#include <stdint.h>

#define COLUMNS				32
#define PD_CHECKSUM_OFFSET	8	/* within the page, and so within its first row */
#define FNV_PRIME			16777619
#define FNV_SHIFT			17

/* Where each column starts. */
extern const uint32_t tde_column_start[COLUMNS];

/* The checksum from the columns' hashes, xor'ed together. */
static inline uint16_t
checksum_of(uint32_t hash, uint32_t block)
{
	return (uint16_t) ((hash ^ block) % 65535 + 1);
}

#if defined(__x86_64__)

#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))

/* One step for eight columns. */
AVX2 static inline __m256i
step_avx2(__m256i hash, __m256i words)
{
	__m256i		t = _mm256_xor_si256(hash, words);

	return _mm256_xor_si256(_mm256_mullo_epi32(t, _mm256_set1_epi32(FNV_PRIME)),
							_mm256_srli_epi32(t, FNV_SHIFT));
}

AVX2 static inline __m256i
load_avx2(const void *from)
{
	return _mm256_loadu_si256((const __m256i *) from);
}

/* All columns into one word. */
AVX2 static inline uint32_t
fold_avx2(__m256i h0, __m256i h1, __m256i h2, __m256i h3)
{
	uint32_t	lanes[8];
	uint32_t	folded = 0;

	h0 = _mm256_xor_si256(_mm256_xor_si256(h0, h1), _mm256_xor_si256(h2, h3));
	_mm256_storeu_si256((__m256i *) lanes, h0);
	for (int i = 0; i < 8; i++)
		folded ^= lanes[i];
	return folded;
}

#endif							/* __x86_64__ */

#endif							/* TDE_CHECKSUM_INT_H */
