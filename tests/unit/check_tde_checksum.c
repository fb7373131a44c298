/*
 * check_tde_checksum.c
 *		The page checksum: the server's own pages, and every version of the loop against
 *		a plain reading of the algorithm.
 */
#include <config.h>

#include <sys/mman.h>

/* Its versions are static, and the CPU at hand would choose only one. */
#include "checksum.c"

#include "tde_common.h"

/* Word by word, in the order in which they lie in the page. */
static uint16_t
plain_reading(const uint8_t *page, uint32_t block)
{
	uint32_t	sums[32];
	uint32_t	folded = block;

	memcpy(sums, tde_column_start, sizeof(sums));
	for (size_t i = 0; i < 2048 + 64; i++)
	{
		uint32_t	word = 0;
		uint32_t	t;

		if (i < 2048)
			memcpy(&word, page + 4 * i, 4);
		if (i == 2)
			memset(&word, 0, 2);
		t = sums[i % 32] ^ word;
		sums[i % 32] = (t * 16777619) ^ (t >> 17);
	}
	for (size_t i = 0; i < 32; i++)
		folded ^= sums[i];
	return (uint16_t) (folded % 65535 + 1);
}

static uint16_t
stored(const uint8_t *page)
{
	uint16_t	checksum;

	memcpy(&checksum, page + 8, 2);
	return checksum;
}

/* These pages were written by PostgreSQL 15, the second one as block 2 of its fork. */
START_TEST(server_pages)
{
	uint8_t		page[PAGE_LEN];

	read_page("heap.page", page);
	ck_assert_uint_eq(tde_page_checksum(page, 0), stored(page));
	ck_assert_uint_ne(tde_page_checksum(page, 1), stored(page));
	read_page("fsm.page", page);
	ck_assert_uint_eq(tde_page_checksum(page, 2), stored(page));
}
END_TEST

START_TEST(versions_agree)
{
	uint8_t		page[PAGE_LEN];

	for (uint32_t seed = 0; seed < 500; seed++)
	{
		uint16_t	expected;

		fill(page, sizeof(page), seed);
		expected = plain_reading(page, seed * 77777777);
		ck_assert_uint_eq(tde_page_checksum(page, seed * 77777777), expected);

		/* Called directly they want a row without pd_checksum. */
		memset(page + 8, 0, 2);
		ck_assert_uint_eq((hash_portable(page, page) ^ seed * 77777777) % 65535 + 1, expected);
#if defined(__x86_64__)
		if (__builtin_cpu_supports("avx2"))
			ck_assert_uint_eq((hash_avx2(page, page) ^ seed * 77777777) % 65535 + 1, expected);
#endif
	}
}
END_TEST

/* Its old value must not matter, and each other byte must. */
START_TEST(every_byte_counts)
{
	uint8_t		page[PAGE_LEN];
	uint16_t	checksum;

	fill(page, sizeof(page), 3);
	checksum = tde_page_checksum(page, 9);
	for (size_t i = 0; i < PAGE_LEN; i++)
	{
		page[i] ^= 0x10;
		if (i == 8 || i == 9)
			ck_assert_uint_eq(tde_page_checksum(page, 9), checksum);
		else
			ck_assert_msg(tde_page_checksum(page, 9) != checksum, "byte %zu", i);
		page[i] ^= 0x10;
	}
}
END_TEST

/* A shared buffer must not be written to, not even for a moment. */
START_TEST(page_is_only_read)
{
	uint8_t    *page = mmap(NULL, PAGE_LEN, PROT_READ | PROT_WRITE,
							MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(page, MAP_FAILED);
	read_page("heap.page", page);
	ck_assert_int_eq(mprotect(page, PAGE_LEN, PROT_READ), 0);
	ck_assert_uint_eq(tde_page_checksum(page, 0), stored(page));
	munmap(page, PAGE_LEN);
}
END_TEST

START_TEST(unaligned_page)
{
	uint8_t		buf[PAGE_LEN + 64];
	uint8_t		page[PAGE_LEN];

	fill(page, sizeof(page), 4);
	for (size_t shift = 0; shift < 64; shift++)
	{
		memcpy(buf + shift, page, PAGE_LEN);
		ck_assert_uint_eq(tde_page_checksum(buf + shift, 1), tde_page_checksum(page, 1));
	}
}
END_TEST

int
main(void)
{
	Suite	   *s = suite_create("tde checksum");

	ADD_TEST(s, server_pages);
	ADD_TEST(s, versions_agree);
	ADD_TEST(s, every_byte_counts);
	ADD_TEST(s, page_is_only_read);
	ADD_TEST(s, unaligned_page);
	return run_suite(s);
}
