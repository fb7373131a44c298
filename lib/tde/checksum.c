/*
 * checksum.c
 *		PostgreSQL's page checksum, computed as the server computes it.
 *
 * The page is a table of 64 rows by 32 columns of 32-bit words in the machine's byte order.  Each
 * column is hashed by itself, with a variant of FNV-1a whose step is
 *
 *		t = hash ^ word;  hash = t * 16777619 ^ t >> 17
 *
 * from a start value of its own; two rows of zeros follow the page; the columns are xor'ed
 * together and the block number is xor'ed in; the remainder by 65535, plus one, is the checksum.
 * pd_checksum itself counts as zero.
 *
 * With checksums on, a page that is read is hashed three times: its ciphertext and its plaintext
 * by us, and the plaintext again by the server.  Hence the version with AVX2, which is about four
 * times as fast as the other.  Both read unaligned pages.
 */
#include <config.h>

#include <string.h>

#include "checksum_int.h"
#include "page.h"

#define ROW_LEN				(COLUMNS * sizeof(uint32_t))
#define ROWS				(TDE_PAGE_SIZE / ROW_LEN)
#define ZERO_ROWS			2	/* rows of zeros hashed after the page */

/* Where each column starts; constants of PostgreSQL's format since 9.3. */
const uint32_t tde_column_start[COLUMNS] = {
	0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A,
	0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
	0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA,
	0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
	0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE,
	0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
	0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E,
	0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756
};

/* first is the first row with pd_checksum cleared; the page gives the rest. */
static uint32_t
hash_portable(const uint8_t *first, const uint8_t *page)
{
	uint32_t	hash[COLUMNS];
	uint32_t	row[COLUMNS];
	uint32_t	folded = 0;

	memcpy(hash, tde_column_start, sizeof(hash));
	for (size_t r = 0; r < ROWS + ZERO_ROWS; r++)
	{
		if (r >= ROWS)
			memset(row, 0, ROW_LEN);
		else
			memcpy(row, r == 0 ? first : page + r * ROW_LEN, ROW_LEN);
		for (size_t c = 0; c < COLUMNS; c++)
		{
			uint32_t	t = hash[c] ^ row[c];

			hash[c] = t * FNV_PRIME ^ t >> FNV_SHIFT;
		}
	}
	for (size_t c = 0; c < COLUMNS; c++)
		folded ^= hash[c];
	return folded;
}

#if defined(__x86_64__)

/*
 * Four registers hold the 32 columns.  A multiplication takes about ten cycles but a new one can
 * begin every other cycle, so it matters that the four do not wait for each other.
 */
AVX2 static uint32_t
hash_avx2(const uint8_t *first, const uint8_t *page)
{
	const __m256i zero = _mm256_setzero_si256();
	__m256i		h0 = load_avx2(tde_column_start);
	__m256i		h1 = load_avx2(tde_column_start + 8);
	__m256i		h2 = load_avx2(tde_column_start + 16);
	__m256i		h3 = load_avx2(tde_column_start + 24);
	const uint8_t *row = first;

	for (size_t r = 1; r <= ROWS; r++)
	{
		h0 = step_avx2(h0, load_avx2(row));
		h1 = step_avx2(h1, load_avx2(row + 32));
		h2 = step_avx2(h2, load_avx2(row + 64));
		h3 = step_avx2(h3, load_avx2(row + 96));
		row = page + r * ROW_LEN;
	}
	for (int r = 0; r < ZERO_ROWS; r++)
	{
		h0 = step_avx2(h0, zero);
		h1 = step_avx2(h1, zero);
		h2 = step_avx2(h2, zero);
		h3 = step_avx2(h3, zero);
	}
	return fold_avx2(h0, h1, h2, h3);
}

#endif							/* __x86_64__ */

uint16_t
tde_page_checksum(const uint8_t *page, uint32_t block)
{
	uint8_t		first[ROW_LEN];
	uint32_t	hash;

	/* The page is not ours to write to: clear the field in a copy of the one row that has it. */
	memcpy(first, page, ROW_LEN);
	memset(first + PD_CHECKSUM_OFFSET, 0, sizeof(uint16_t));

#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx2"))
		hash = hash_avx2(first, page);
	else
#endif
		hash = hash_portable(first, page);

	return checksum_of(hash, block);
}
