/*
 * crc32c.c
 *		CRC-32C.  See crc32c.h.
 *
 * x86-64 has an instruction for it (SSE 4.2), ten times as fast as a table; whether the machine has it is asked once
 * for each call, which is for many bytes.
 */
#include <config.h>

#include <pthread.h>
#include <string.h>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

#include "crc32c.h"

#define POLYNOMIAL	UINT32_C(0x82F63B78)	/* 0x1EDC6F41 with its bits the other way round */

static uint32_t table[256];
static pthread_once_t table_made = PTHREAD_ONCE_INIT;

static void
make_table(void)
{
	for (uint32_t i = 0; i < 256; i++)
	{
		uint32_t	crc = i;

		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
		table[i] = crc;
	}
}

uint32_t
pgx_crc32c_portable(uint32_t crc, const void *buf, size_t len)
{
	const uint8_t *p = buf;

	(void) pthread_once(&table_made, make_table);
	while (len-- > 0)
		crc = crc >> 8 ^ table[(crc ^ *p++) & 0xFF];
	return crc;
}

#if defined(__x86_64__)
static uint32_t __attribute__((target("sse4.2")))
crc_sse42(uint32_t crc, const uint8_t *p, size_t len)
{
	uint64_t	wide = crc;

	for (; len >= sizeof(wide); p += sizeof(wide), len -= sizeof(wide))
	{
		uint64_t	word;

		memcpy(&word, p, sizeof(word));
		wide = _mm_crc32_u64(wide, word);
	}
	crc = (uint32_t) wide;
	while (len-- > 0)
		crc = _mm_crc32_u8(crc, *p++);
	return crc;
}
#endif

uint32_t
pgx_crc32c(uint32_t crc, const void *buf, size_t len)
{
#if defined(__x86_64__)
	if (__builtin_cpu_supports("sse4.2"))
		return crc_sse42(crc, buf, len);
#endif
	return pgx_crc32c_portable(crc, buf, len);
}
