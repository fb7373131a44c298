/*
 * check_tde_wal.c
 *		Pages of WAL: known answers, every length, every slice, and bytes that stay put.
 */
#include <config.h>

#include "tde_common.h"
#include "wal.h"

static tde_ctr *
new_ctr(enum tde_algorithm alg)
{
	uint8_t		key[TDE_MAX_KEY_LEN];
	tde_ctr    *ctr;

	count_up(key, sizeof(key), 0);
	ctr = tde_ctr_new(alg, key);
	ck_assert_ptr_nonnull(ctr);
	return ctr;
}

/* A page with bytes everywhere, and a header as the server would write it. */
static void
make_page(uint8_t *page, bool long_header, uint64_t address, struct tde_wal_header *ret_header)
{
	uint16_t	magic = MAGIC_15;
	uint16_t	info = long_header ? 0x0002 : 0x0001;
	uint32_t	timeline = 7;

	fill(page, PAGE_LEN, (uint32_t) address);
	memcpy(page, &magic, 2);
	memcpy(page + 2, &info, 2);
	memcpy(page + 4, &timeline, 4);
	memcpy(page + 8, &address, 8);
	memset(page + 20, 0, 4);
	ck_assert(tde_wal_parse(page, MAGIC_15, ret_header));
	ck_assert_uint_eq(ret_header->epoch, 0);
	ck_assert_uint_eq(ret_header->timeline, 7);
	ck_assert_uint_eq(ret_header->address, address);
	ck_assert_uint_eq(ret_header->header_len, long_header ? 40 : 24);
}

static const struct
{
	const char *plain;
	const char *cipher;
	enum tde_algorithm alg;
	uint32_t	epoch;
	bool		long_header;
	size_t		used;			/* the last record of a page may itself end in zeros */
	size_t		valid;
} known[] = {
	{"wal_long.page", "wal_long_128.page", TDE_AES128, 1, true, 4336, PAGE_LEN},
	{"wal_short.page", "wal_short_256.page", TDE_AES256, 0xFEDCBA98, false, 4416, PAGE_LEN},
	{"wal_tail.page", "wal_tail_256.page", TDE_AES256, 2, false, 2544, 2544},
};

START_TEST(known_answer)
{
	uint8_t		plain[PAGE_LEN];
	uint8_t		expected[PAGE_LEN];
	uint8_t		page[PAGE_LEN];
	struct tde_wal_header header;
	tde_ctr    *ctr = new_ctr(known[_i].alg);

	read_page(known[_i].plain, plain);
	read_page(known[_i].cipher, expected);
	memcpy(page, plain, PAGE_LEN);
	ck_assert(tde_wal_parse(page, MAGIC_15, &header));
	ck_assert_uint_eq(header.header_len, known[_i].long_header ? 40 : 24);
	header.epoch = known[_i].epoch;
	ck_assert_uint_eq(tde_wal_used(page), known[_i].used);
	ck_assert_int_eq(tde_wal_page_encrypt(ctr, &header, known[_i].valid, page, page), 0);
	ck_assert_mem_eq(page, expected, PAGE_LEN);

	/* The reader has only the page to go by. */
	memset(&header, 0, sizeof(header));
	ck_assert(tde_wal_parse(page, MAGIC_15, &header));
	ck_assert_uint_eq(header.epoch, known[_i].epoch);
	ck_assert_int_eq(tde_wal_page_decrypt(ctr, &header, page), 0);
	tde_wal_set_epoch(page, 0);
	ck_assert_mem_eq(page, plain, PAGE_LEN);
	tde_ctr_free(&ctr);
}
END_TEST

START_TEST(parse_refuses)
{
	uint8_t		page[PAGE_LEN];
	struct tde_wal_header header;
	struct tde_wal_header untouched;

	make_page(page, false, 0x5000000, &header);
	memset(&header, 0x55, sizeof(header));
	untouched = header;
	ck_assert(!tde_wal_parse(page, MAGIC_15 + 1, &header));
	page[8] = 8;
	ck_assert(!tde_wal_parse(page, MAGIC_15, &header));
	page[8] = 0;
	page[9] = 0x10;
	ck_assert(!tde_wal_parse(page, MAGIC_15, &header));
	memset(page, 0, PAGE_LEN);
	ck_assert(!tde_wal_parse(page, MAGIC_15, &header));
	ck_assert_mem_eq(&header, &untouched, sizeof(header));
}
END_TEST

/* Every insert position that a page can have. */
START_TEST(every_valid_len)
{
	static const uint8_t zero[PAGE_LEN];
	bool		long_header = _i == 1;
	uint8_t		plain[PAGE_LEN];
	uint8_t		plain_copy[PAGE_LEN];
	uint8_t		page[PAGE_LEN];
	uint8_t		out[PAGE_LEN];
	uint8_t		longest[PAGE_LEN];
	struct tde_wal_header header;
	tde_ctr    *ctr = new_ctr(TDE_AES256);

	make_page(plain, long_header, UINT64_C(0x123456789A000), &header);
	header.epoch = 0xABCD1234;
	memcpy(longest, plain, PAGE_LEN);
	ck_assert_int_eq(tde_wal_page_encrypt(ctr, &header, PAGE_LEN, longest, longest), 0);
	for (size_t valid = header.header_len; valid <= PAGE_LEN; valid += 8)
	{
		struct tde_wal_header found;

		memcpy(page, plain, PAGE_LEN);
		ck_assert_int_eq(tde_wal_page_encrypt(ctr, &header, valid, page, page), 0);

		/* The same into another buffer, where nothing behind valid may be read, nor the source be written. */
		memcpy(plain_copy, plain, PAGE_LEN);
		memset(plain_copy + valid, 0xEE, PAGE_LEN - valid);
		memset(out, 0xAA, PAGE_LEN);
		ck_assert_int_eq(tde_wal_page_encrypt(ctr, &header, valid, plain_copy, out), 0);
		ck_assert_mem_eq(out, page, PAGE_LEN);
		ck_assert_mem_eq(plain_copy, plain, valid);
		ck_assert_uint_eq(plain_copy[PAGE_LEN - 1], valid == PAGE_LEN ? plain[PAGE_LEN - 1] : 0xEE);

		/* Sticky: what is on disk already stays as it is when the page grows. */
		ck_assert_mem_eq(page, longest, valid);
		ck_assert_mem_eq(page + valid, zero, PAGE_LEN - valid);
		ck_assert_uint_eq(tde_wal_used(page), valid);

		ck_assert(tde_wal_parse(page, MAGIC_15, &found));
		ck_assert_uint_eq(found.epoch, header.epoch);
		ck_assert_int_eq(tde_wal_page_decrypt(ctr, &found, page), 0);
		tde_wal_set_epoch(page, 0);
		ck_assert_mem_eq(page, plain, valid);
		ck_assert_uint_eq(page[PAGE_LEN - 1], valid == PAGE_LEN ? plain[PAGE_LEN - 1] : 0);
	}
	tde_ctr_free(&ctr);
}
END_TEST

/*
 * Zeros inside what the server has promised are encrypted.  A standby may hold the first half of a
 * record already, and has to be able to join the second to it.
 */
START_TEST(zeros_of_a_record)
{
	uint8_t		page[PAGE_LEN];
	struct tde_wal_header header;
	tde_ctr    *ctr = new_ctr(TDE_AES128);

	make_page(page, false, 0x2000, &header);
	header.epoch = 3;
	memset(page + 1000, 0, PAGE_LEN - 1000);
	ck_assert_int_eq(tde_wal_page_encrypt(ctr, &header, 2000, page, page), 0);
	ck_assert_uint_eq(tde_wal_used(page), 2000);
	ck_assert_int_eq(tde_wal_page_decrypt(ctr, &header, page), 0);
	ck_assert_uint_eq(tde_wal_used(page), 1000);
	tde_ctr_free(&ctr);
}
END_TEST

START_TEST(page_encrypt_refuses)
{
	uint8_t		page[PAGE_LEN];
	uint8_t		before[PAGE_LEN];
	struct tde_wal_header header;
	tde_ctr    *ctr = new_ctr(TDE_AES256);

	make_page(page, true, 0x4000, &header);
	memcpy(before, page, PAGE_LEN);
	ck_assert_int_eq(tde_wal_page_encrypt(ctr, &header, PAGE_LEN, page, page), -1);	/* epoch 0 */
	header.epoch = 1;
	ck_assert_int_eq(tde_wal_page_encrypt(ctr, &header, 32, page, page), -1);	/* inside the header */
	ck_assert_int_eq(tde_wal_page_encrypt(ctr, &header, PAGE_LEN + 8, page, page), -1);
	for (size_t odd = 1; odd < 8; odd++)
		ck_assert_int_eq(tde_wal_page_encrypt(ctr, &header, 4096 + odd, page, page), -1);
	ck_assert_mem_eq(page, before, PAGE_LEN);
	tde_ctr_free(&ctr);
}
END_TEST

/* Any part of a page is transformed as the same part of the whole page is. */
START_TEST(any_slice)
{
	uint8_t		plain[PAGE_LEN];
	uint8_t		whole[PAGE_LEN];
	uint8_t		out[PAGE_LEN];
	struct tde_wal_header header;
	uint32_t	seed = 1;
	tde_ctr    *ctr = new_ctr(TDE_AES256);

	make_page(plain, _i == 1, UINT64_C(0xFFFFFFFFFFFFE000), &header);
	header.epoch = 0x01020304;
	ck_assert_int_eq(tde_wal_crypt(ctr, &header, 0, plain, whole, PAGE_LEN), 0);
	ck_assert_mem_eq(whole, plain, header.header_len);
	for (size_t i = header.header_len; i < PAGE_LEN; i += 16)
		ck_assert_mem_ne(whole + i, plain + i, PAGE_LEN - i < 16 ? PAGE_LEN - i : 16);

	for (size_t from = 0; from < PAGE_LEN; from += from < 64 ? 1 : 13)
	{
		for (size_t to = from; to <= PAGE_LEN; to += to < from + 64 ? 1 : 311)
		{
			ck_assert_int_eq(tde_wal_crypt(ctr, &header, from, plain + from, out, to - from), 0);
			ck_assert_msg(memcmp(out, whole + from, to - from) == 0, "from %zu to %zu", from, to);
		}
	}

	/* In place, and in random pieces one after the other. */
	for (int round = 0; round < 200; round++)
	{
		memcpy(out, plain, PAGE_LEN);
		for (size_t at = 0; at < PAGE_LEN;)
		{
			size_t		len;

			seed = seed * 1664525 + 1013904223;
			len = 1 + (seed >> 20) % 700;
			len = len < PAGE_LEN - at ? len : PAGE_LEN - at;
			ck_assert_int_eq(tde_wal_crypt(ctr, &header, at, out + at, out + at, len), 0);
			at += len;
		}
		ck_assert_mem_eq(out, whole, PAGE_LEN);
	}
	tde_ctr_free(&ctr);
}
END_TEST

START_TEST(crypt_refuses)
{
	uint8_t		page[PAGE_LEN] = {0};
	struct tde_wal_header header = {1, 1, 0x6000, 24};
	tde_ctr    *ctr = new_ctr(TDE_AES256);

	ck_assert_int_eq(tde_wal_crypt(ctr, &header, PAGE_LEN, page, page, 0), 0);
	ck_assert_int_eq(tde_wal_crypt(ctr, &header, PAGE_LEN, page, page, 1), -1);
	ck_assert_int_eq(tde_wal_crypt(ctr, &header, PAGE_LEN + 1, page, page, 0), -1);
	ck_assert_int_eq(tde_wal_crypt(ctr, &header, 8, page, page, PAGE_LEN - 7), -1);
	ck_assert_int_eq(tde_wal_crypt(ctr, &header, 8, page, page, SIZE_MAX), -1);
	header.header_len = 32;
	ck_assert_int_eq(tde_wal_crypt(ctr, &header, 0, page, page, PAGE_LEN), -1);
	header.header_len = 40;
	header.address = 0x6001;
	ck_assert_int_eq(tde_wal_crypt(ctr, &header, 0, page, page, PAGE_LEN), -1);
	tde_ctr_free(&ctr);
}
END_TEST

START_TEST(epoch_zero_copies)
{
	uint8_t		plain[PAGE_LEN];
	uint8_t		out[PAGE_LEN];
	struct tde_wal_header header;
	tde_ctr    *ctr = new_ctr(TDE_AES256);

	make_page(plain, false, 0x8000, &header);
	ck_assert_int_eq(tde_wal_crypt(ctr, &header, 0, plain, out, PAGE_LEN), 0);
	ck_assert_mem_eq(out, plain, PAGE_LEN);
	ck_assert_int_eq(tde_wal_page_decrypt(ctr, &header, out), 0);
	ck_assert_mem_eq(out, plain, PAGE_LEN);
	tde_ctr_free(&ctr);
}
END_TEST

/* No two of epoch, timeline and position share keystream. */
START_TEST(every_field_counts)
{
	static const uint8_t zero[PAGE_LEN];
	const struct tde_wal_header base = {0x10, 0x20, UINT64_C(0x4000000000), 24};
	uint8_t		expected[PAGE_LEN];
	uint8_t		out[PAGE_LEN];
	tde_ctr    *ctr = new_ctr(TDE_AES256);

	ck_assert_int_eq(tde_wal_crypt(ctr, &base, 0, zero, expected, PAGE_LEN), 0);
	for (int bit = 0; bit < 64; bit++)
	{
		struct tde_wal_header header = base;

		if (bit < 32)
			header.epoch ^= UINT32_C(1) << bit;
		else
			header.timeline ^= UINT32_C(1) << (bit - 32);
		ck_assert_int_eq(tde_wal_crypt(ctr, &header, 0, zero, out, PAGE_LEN), 0);
		for (size_t i = 32; i < PAGE_LEN; i += 16)
			ck_assert_mem_ne(out + i, expected + i, 16);
		if (bit < 13)
			continue;
		header = base;
		header.address ^= UINT64_C(1) << bit;
		ck_assert_int_eq(tde_wal_crypt(ctr, &header, 0, zero, out, PAGE_LEN), 0);
		for (size_t i = 32; i < PAGE_LEN; i += 16)
			ck_assert_mem_ne(out + i, expected + i, 16);
	}
	tde_ctr_free(&ctr);
}
END_TEST

START_TEST(used_length)
{
	uint8_t		page[PAGE_LEN] = {0};

	ck_assert_uint_eq(tde_wal_used(page), 0);
	for (size_t i = 0; i < PAGE_LEN; i++)
	{
		page[i] = 1;
		ck_assert_uint_eq(tde_wal_used(page), (i | 7) + 1);
		page[i] = 0;
	}
}
END_TEST

int
main(void)
{
	Suite	   *s = suite_create("tde wal");

	ADD_LOOP_TEST(s, known_answer, LENGTH_OF(known));
	ADD_TEST(s, parse_refuses);
	ADD_LOOP_TEST(s, every_valid_len, 2);
	ADD_TEST(s, zeros_of_a_record);
	ADD_TEST(s, page_encrypt_refuses);
	ADD_LOOP_TEST(s, any_slice, 2);
	ADD_TEST(s, crypt_refuses);
	ADD_TEST(s, epoch_zero_copies);
	ADD_TEST(s, every_field_counts);
	ADD_TEST(s, used_length);
	return run_suite(s);
}
