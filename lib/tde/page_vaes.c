/*
 * page_vaes.c
 *		A page's XTS and its checksums in one pass, by the vector AES instructions.
 *
 * What AES has in its registers goes into the checksum from there.  Those are the page's bytes from
 * TDE_PAGE_CLEAR on, half a register behind the checksum's rows; but each column of the checksum is hashed by
 * itself, so four registers may as well hold columns 4 to 11, 12 to 19, 20 to 27, and 28 to 31 with 0 to 3 of the next
 * row.  Columns 0 to 3 get their first row from the clear header then; and their first row of zeros from what
 * fills up the last step, whose second half-register is behind the page.
 */
#include <config.h>

#include "page_vaes.h"

#if defined(__x86_64__)

#include <string.h>

#include "aes_vaes_int.h"
#include "checksum_int.h"
#include "page.h"

#define BODY_LEN	(TDE_PAGE_SIZE - TDE_PAGE_CLEAR)
#define LAST_LEN	(BODY_LEN % STEP_LEN)
#define HASHES		4

_Static_assert(LAST_LEN == STEP_LEN - BLOCK_LEN, "the last half-register of the last step is not the page's");

VAES static inline void
hash_begin(__m256i hash[HASHES], const uint8_t *header)
{
	uint8_t		clear[TDE_PAGE_CLEAR];
	__m256i		first;

	memcpy(clear, header, sizeof(clear));
	memset(clear + PD_CHECKSUM_OFFSET, 0, sizeof(uint16_t));
	first = step_avx2(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *) tde_column_start)),
					  _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *) clear)));
	for (int i = 0; i < HASHES - 1; i++)
		hash[i] = load_avx2(tde_column_start + 4 + 8 * i);
	hash[HASHES - 1] = _mm256_set_m128i(_mm256_castsi256_si128(first),
										_mm_loadu_si128((const __m128i *) (tde_column_start + 28)));
}

VAES static inline __attribute__((always_inline)) void
hash_blocks(__m256i hash[HASHES], const __m256i blocks[REGISTERS])
{
#pragma GCC unroll 8
	for (int i = 0; i < REGISTERS; i++)
		hash[i % HASHES] = step_avx2(hash[i % HASHES], blocks[i]);
}

/* Two rows of zeros after the page, of which columns 0 to 3 have had one. */
VAES static inline uint32_t
hash_end(const __m256i hash[HASHES])
{
	const __m256i zero = _mm256_setzero_si256();
	__m256i		once[HASHES];
	__m256i		twice[HASHES];

	for (int i = 0; i < HASHES; i++)
	{
		once[i] = step_avx2(hash[i], zero);
		twice[i] = step_avx2(once[i], zero);
	}
	return fold_avx2(twice[0], twice[1], twice[2],
					 _mm256_blend_epi32(twice[HASHES - 1], once[HASHES - 1], 0xF0));
}

VAES static inline __attribute__((always_inline)) void
load_blocks(__m256i blocks[REGISTERS], const uint8_t *from)
{
#pragma GCC unroll 8
	for (int i = 0; i < REGISTERS; i++)
		blocks[i] = load_avx2(from + sizeof(__m256i) * (size_t) i);
}

VAES static inline __attribute__((always_inline)) void
store_blocks(uint8_t *to, const __m256i blocks[REGISTERS])
{
#pragma GCC unroll 8
	for (int i = 0; i < REGISTERS; i++)
		_mm256_storeu_si256((__m256i *) to + i, blocks[i]);
}

/* The last step's half-register that is not the page's must be zero when it is hashed. */
VAES static inline void
clear_last(__m256i blocks[REGISTERS])
{
	blocks[REGISTERS - 1] = _mm256_blend_epi32(blocks[REGISTERS - 1], _mm256_setzero_si256(), 0xF0);
}

VAES static inline __attribute__((always_inline)) uint32_t
encrypt(const struct xts_vaes *xts, int rounds, __m256i tweaks[REGISTERS], const uint8_t *in, uint8_t *out)
{
	uint8_t		last[STEP_LEN] = {0};
	__m256i		blocks[REGISTERS];
	__m256i		hash[HASHES];
	size_t		at = TDE_PAGE_CLEAR;

	hash_begin(hash, out);
	for (; at + STEP_LEN <= TDE_PAGE_SIZE; at += STEP_LEN)
	{
		load_blocks(blocks, in + at);
		xts_blocks(xts->encrypt, rounds, true, tweaks, blocks);
		store_blocks(out + at, blocks);
		hash_blocks(hash, blocks);
	}
	memcpy(last, in + at, LAST_LEN);
	load_blocks(blocks, last);
	xts_blocks(xts->encrypt, rounds, true, tweaks, blocks);
	clear_last(blocks);
	store_blocks(last, blocks);
	memcpy(out + at, last, LAST_LEN);
	hash_blocks(hash, blocks);
	return hash_end(hash);
}

VAES static inline __attribute__((always_inline)) void
decrypt(const struct xts_vaes *xts, int rounds, __m256i tweaks[REGISTERS], uint8_t *page, __m256i before[HASHES],
		__m256i after[HASHES])
{
	uint8_t		last[STEP_LEN] = {0};
	__m256i		blocks[REGISTERS];
	size_t		at = TDE_PAGE_CLEAR;

	for (; at + STEP_LEN <= TDE_PAGE_SIZE; at += STEP_LEN)
	{
		load_blocks(blocks, page + at);
		hash_blocks(before, blocks);
		xts_blocks(xts->decrypt, rounds, false, tweaks, blocks);
		store_blocks(page + at, blocks);
		hash_blocks(after, blocks);
	}
	memcpy(last, page + at, LAST_LEN);
	load_blocks(blocks, last);
	hash_blocks(before, blocks);
	xts_blocks(xts->decrypt, rounds, false, tweaks, blocks);
	clear_last(blocks);
	store_blocks(last, blocks);
	memcpy(page + at, last, LAST_LEN);
	hash_blocks(after, blocks);
}

/* The number of rounds is a constant in each branch, so that the compiler can unroll them. */
VAES uint32_t
page_vaes_encrypt(const struct xts_vaes *xts, const uint8_t tweak[16], const uint8_t *in, uint8_t *out)
{
	__m256i		tweaks[REGISTERS];

	xts_first_tweaks(xts, tweak, tweaks);
	return xts->rounds == 14 ? encrypt(xts, 14, tweaks, in, out) : encrypt(xts, 10, tweaks, in, out);
}

VAES void
page_vaes_decrypt(const struct xts_vaes *xts, const uint8_t tweak[16], uint8_t *page, uint32_t *ret_before,
				  uint32_t *ret_after)
{
	__m256i		tweaks[REGISTERS];
	__m256i		before[HASHES];
	__m256i		after[HASHES];

	xts_first_tweaks(xts, tweak, tweaks);
	hash_begin(before, page);
	memcpy(after, before, sizeof(after));
	if (xts->rounds == 14)
		decrypt(xts, 14, tweaks, page, before, after);
	else
		decrypt(xts, 10, tweaks, page, before, after);
	*ret_before = hash_end(before);
	*ret_after = hash_end(after);
}

#else							/* not x86-64 */

#include <stdlib.h>

/* Nobody comes here: there is no such context. */
uint32_t
page_vaes_encrypt(const struct xts_vaes *xts, const uint8_t tweak[16], const uint8_t *in, uint8_t *out)
{
	(void) xts;
	(void) tweak;
	(void) in;
	(void) out;
	abort();
}

void
page_vaes_decrypt(const struct xts_vaes *xts, const uint8_t tweak[16], uint8_t *page, uint32_t *ret_before,
				  uint32_t *ret_after)
{
	(void) xts;
	(void) tweak;
	(void) page;
	(void) ret_before;
	(void) ret_after;
	abort();
}

#endif
