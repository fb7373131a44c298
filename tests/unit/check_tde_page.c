/*
 * check_tde_page.c
 *		Pages of relation files: known answers, round trips, damage, and a writer that races.
 */
#include <config.h>

#include <pthread.h>
#include <stdatomic.h>

#include "page.h"
#include "tde_common.h"

#define HINT_BYTE	4000		/* where the race sets its bits */

static uint16_t
stored(const uint8_t *page)
{
	uint16_t	checksum;

	memcpy(&checksum, page + 8, 2);
	return checksum;
}

static void
store(uint8_t *page, uint16_t checksum)
{
	memcpy(page + 8, &checksum, 2);
}

static tde_xts *
new_xts(enum tde_algorithm alg)
{
	uint8_t		key[TDE_MAX_KEY_LEN];
	tde_xts    *xts;

	count_up(key, sizeof(key), 0);
	xts = tde_xts_new(alg, key);
	ck_assert_ptr_nonnull(xts);
	return xts;
}

static const struct
{
	const char *plain;
	const char *cipher;
	enum tde_algorithm alg;
	struct tde_page_id id;
	bool		checksums;
} known[] = {
	{"heap.page", "heap_128.page", TDE_AES128, {5, 1259, 0, 0}, false},
	{"heap.page", "heap_256.page", TDE_AES256, {5, 1259, 0, 0}, false},
	{"heap.page", "heap_256_sum.page", TDE_AES256, {5, 1259, 0, 0}, true},
	{"fsm.page", "fsm_128_sum.page", TDE_AES128, {0x01020304, 0xFFFFFFFF, 1, 2}, true},
};

START_TEST(known_answer)
{
	uint8_t		plain[PAGE_LEN];
	uint8_t		expected[PAGE_LEN];
	uint8_t		out[PAGE_LEN];
	tde_xts    *xts = new_xts(known[_i].alg);

	read_page(known[_i].plain, plain);
	read_page(known[_i].cipher, expected);
	ck_assert_int_eq(tde_page_encrypt(xts, &known[_i].id, known[_i].checksums, plain, out),
					 TDE_PAGE_OK);
	ck_assert_mem_eq(out, expected, PAGE_LEN);
	ck_assert_int_eq(tde_page_decrypt(xts, &known[_i].id, known[_i].checksums, out), TDE_PAGE_OK);

	/* Without checksums pd_checksum passes through; with them it is the plaintext's again. */
	ck_assert_mem_eq(out, plain, PAGE_LEN);
	tde_xts_free(&xts);
}
END_TEST

START_TEST(round_trip)
{
	enum tde_algorithm alg = _i < 8 ? TDE_AES128 : TDE_AES256;
	struct tde_page_id id = {16384, 16390, (uint32_t) _i % 4, 131072 + 17};
	bool		checksums = _i / 4 % 2 == 1;
	uint8_t		plain[PAGE_LEN];
	uint8_t		out[PAGE_LEN];
	tde_xts    *xts = new_xts(alg);

	fill(plain, sizeof(plain), (uint32_t) _i);
	if (checksums)
		store(plain, tde_page_checksum(plain, id.block));
	ck_assert_int_eq(tde_page_encrypt(xts, &id, checksums, plain, out), TDE_PAGE_OK);
	ck_assert_mem_eq(out, plain, 8);
	ck_assert_mem_eq(out + 10, plain + 10, 6);
	if (checksums)
		ck_assert_uint_eq(stored(out), tde_page_checksum(out, id.block));
	else
		ck_assert_uint_eq(stored(out), stored(plain));

	/* No block of 16 bytes may come through as it was. */
	for (size_t i = 16; i < PAGE_LEN; i += 16)
		ck_assert_mem_ne(out + i, plain + i, 16);

	ck_assert_int_eq(tde_page_decrypt(xts, &id, checksums, out), TDE_PAGE_OK);
	ck_assert_mem_eq(out, plain, PAGE_LEN);
	tde_xts_free(&xts);
}
END_TEST

/* Each part of the identity is in the tweak. */
START_TEST(every_id_field_counts)
{
	const struct tde_page_id base = {1, 2, 3, 4};
	uint8_t		plain[PAGE_LEN];
	uint8_t		expected[PAGE_LEN];
	uint8_t		out[PAGE_LEN];
	tde_xts    *xts = new_xts(TDE_AES256);

	fill(plain, sizeof(plain), 1);
	tde_page_encrypt(xts, &base, false, plain, expected);
	for (int bit = 0; bit < 32; bit++)
	{
		for (int field = 0; field < 4; field++)
		{
			struct tde_page_id id = base;
			uint32_t   *fields[] = {&id.database, &id.relation, &id.fork, &id.block};

			*fields[field] ^= UINT32_C(1) << bit;
			tde_page_encrypt(xts, &id, false, plain, out);
			ck_assert_mem_eq(out, expected, 16);
			for (size_t i = 16; i < PAGE_LEN; i += 16)
				ck_assert_mem_ne(out + i, expected + i, 16);
		}
	}
	tde_xts_free(&xts);
}
END_TEST

/* What the server demands of a page, with data checksums; all of it but the checksum may come of noise. */
static bool
server_takes(const uint8_t *page, uint32_t block)
{
	uint16_t	upper;
	uint16_t	special;

	memcpy(&upper, page + 14, sizeof(upper));
	memcpy(&special, page + 16, sizeof(special));
	return stored(page) == tde_page_checksum(page, block) && upper <= special && special <= PAGE_LEN &&
		special % 8 == 0;
}

/* A page in the place of another one decrypts to noise; the server must not take it for a page. */
START_TEST(noise_is_no_page)
{
	const uint16_t header[4] = {24, 64, PAGE_LEN, PAGE_LEN | 4};	/* pd_lower and so on */
	struct tde_page_id id = {1, 2, 0, 4};
	uint8_t		plain[PAGE_LEN];
	uint8_t		disk[PAGE_LEN];
	uint8_t		out[PAGE_LEN];
	int			taken = 0;
	int			verified = 0;
	tde_xts    *xts = new_xts(TDE_AES256);

	fill(plain, sizeof(plain), 1);
	memcpy(plain + 12, header, sizeof(header));
	store(plain, tde_page_checksum(plain, id.block));
	ck_assert_int_eq(tde_page_encrypt(xts, &id, true, plain, disk), TDE_PAGE_OK);
	memcpy(out, disk, PAGE_LEN);
	ck_assert_int_eq(tde_page_decrypt_verified(xts, &id, true, out), TDE_PAGE_OK);
	ck_assert_mem_eq(out, plain, PAGE_LEN);

	for (id.relation = 3; id.relation < 20000; id.relation++)
	{
		memcpy(out, disk, PAGE_LEN);
		ck_assert_int_eq(tde_page_decrypt(xts, &id, true, out), TDE_PAGE_OK);
		taken += server_takes(out, id.block);
		memcpy(out, disk, PAGE_LEN);
		(void) tde_page_decrypt_verified(xts, &id, true, out);
		verified += server_takes(out, id.block);
	}
	ck_assert_int_gt(taken, 0);	/* control */
	ck_assert_int_eq(verified, 0);

	/* Without data checksums there is none to spoil. */
	ck_assert_int_eq(tde_page_encrypt(xts, &id, false, plain, disk), TDE_PAGE_OK);
	id.relation = 2;
	ck_assert_int_eq(tde_page_decrypt_verified(xts, &id, false, disk), TDE_PAGE_OK);
	tde_xts_free(&xts);
}
END_TEST

START_TEST(zero_page)
{
	static const uint8_t zero[PAGE_LEN];
	struct tde_page_id id = {1, 2, 0, 4};
	uint8_t		page[PAGE_LEN];
	uint8_t		other[PAGE_LEN];
	tde_xts    *xts = new_xts(TDE_AES256);

	ck_assert(tde_page_is_zero(zero));
	for (int checksums = 0; checksums < 2; checksums++)
	{
		memset(page, 0xFF, sizeof(page));
		ck_assert_int_eq(tde_page_encrypt(xts, &id, checksums == 1, zero, page), TDE_PAGE_ZERO);
		ck_assert_mem_eq(page, zero, PAGE_LEN);
		ck_assert_int_eq(tde_page_decrypt(xts, &id, checksums == 1, page), TDE_PAGE_ZERO);
		ck_assert_mem_eq(page, zero, PAGE_LEN);
	}
	for (size_t i = 0; i < PAGE_LEN; i++)
	{
		page[i] = 0x80;
		ck_assert_msg(!tde_page_is_zero(page), "byte %zu", i);
		page[i] = 0;
	}

	/* One bit anywhere makes it a page like any other. */
	page[PAGE_LEN - 1] = 1;
	ck_assert_int_eq(tde_page_encrypt(xts, &id, true, page, page), TDE_PAGE_OK);
	ck_assert_int_eq(tde_page_decrypt(xts, &id, true, page), TDE_PAGE_OK);
	ck_assert_uint_eq(page[PAGE_LEN - 1], 1);

	/* In its header too. */
	memcpy(page, zero, PAGE_LEN);
	page[15] = 1;
	ck_assert_int_eq(tde_page_encrypt(xts, &id, true, page, other), TDE_PAGE_OK);
	ck_assert_mem_ne(other + 16, zero, PAGE_LEN - 16);
	ck_assert_int_eq(tde_page_decrypt(xts, &id, true, other), TDE_PAGE_OK);
	ck_assert_mem_eq(other + 16, zero, PAGE_LEN - 16);
	ck_assert_uint_eq(other[15], 1);
	tde_xts_free(&xts);
}
END_TEST

/* Whatever byte of the page on disk was altered, the server's own check has to fail. */
START_TEST(damaged_page)
{
	struct tde_page_id id = {5, 1259, 0, 0};
	uint8_t		plain[PAGE_LEN];
	uint8_t		disk[PAGE_LEN];
	uint8_t		page[PAGE_LEN];
	tde_xts    *xts = new_xts(TDE_AES256);

	read_page("heap.page", plain);
	read_page("heap_256_sum.page", disk);
	for (size_t i = 0; i < PAGE_LEN; i++)
	{
		memcpy(page, disk, PAGE_LEN);
		page[i] ^= 0x04;
		ck_assert_int_eq(tde_page_decrypt(xts, &id, true, page), TDE_PAGE_CHECKSUM);
		ck_assert_uint_ne(stored(page), tde_page_checksum(page, id.block));
		ck_assert_uint_ne(stored(page), 0);

		/*
		 * Only the block of 16 bytes that was hit is lost; ignore_checksum_failure can get at the
		 * rest.
		 */
		if (i >= 16)
		{
			ck_assert_mem_eq(page + 16, plain + 16, (i & ~(size_t) 15) - 16);
			ck_assert_mem_eq(page + (i | 15) + 1, plain + (i | 15) + 1, PAGE_LEN - (i | 15) - 1);
		}
	}

	/* A page that lies in the wrong place. */
	id.block = 1;
	memcpy(page, disk, PAGE_LEN);
	ck_assert_int_eq(tde_page_decrypt(xts, &id, true, page), TDE_PAGE_CHECKSUM);

	/* Without checksums nobody looks. */
	id.block = 0;
	memcpy(page, disk, PAGE_LEN);
	page[100] ^= 1;
	ck_assert_int_eq(tde_page_decrypt(xts, &id, false, page), TDE_PAGE_OK);
	tde_xts_free(&xts);
}
END_TEST

/* The wrong checksum put into a damaged page is not 0 even where the right one is 1. */
START_TEST(wrong_checksum_is_not_zero)
{
	struct tde_page_id id = {5, 1259, 0, 0};
	uint8_t		page[PAGE_LEN];
	uint8_t		disk[PAGE_LEN];
	tde_xts    *xts = new_xts(TDE_AES128);

	read_page("heap.page", page);
	while (tde_page_checksum(page, id.block) != 1)
		id.block++;
	ck_assert_int_eq(tde_page_encrypt(xts, &id, true, page, disk), TDE_PAGE_OK);
	store(disk, (uint16_t) (stored(disk) ^ 0x8000));
	ck_assert_int_eq(tde_page_decrypt(xts, &id, true, disk), TDE_PAGE_CHECKSUM);
	ck_assert_mem_eq(disk + 16, page + 16, PAGE_LEN - 16);
	ck_assert_uint_eq(stored(disk), 3);
	tde_xts_free(&xts);
}
END_TEST

/* Where this machine has something faster than libcrypto, it makes the same pages and finds the same damage. */
START_TEST(fast_and_slow)
{
	enum tde_algorithm alg = _i % 2 == 0 ? TDE_AES128 : TDE_AES256;
	bool		checksums = _i / 2 == 0;
	tde_xts    *fast = new_xts(alg);
	tde_xts    *slow = new_xts(alg);

	tde_xts_set_slow(slow);
	for (uint32_t seed = 0; seed < 500; seed++)
	{
		struct tde_page_id id = {seed, 1259, seed % 4, seed * 977};
		uint8_t		page[PAGE_LEN];
		uint8_t		fast_out[PAGE_LEN];
		uint8_t		slow_out[PAGE_LEN];
		size_t		damaged = (size_t) seed * 8191 % PAGE_LEN;
		enum tde_page_result result;

		fill(page, sizeof(page), seed);
		ck_assert_int_eq(tde_page_encrypt(fast, &id, checksums, page, fast_out), TDE_PAGE_OK);
		ck_assert_int_eq(tde_page_encrypt(slow, &id, checksums, page, slow_out), TDE_PAGE_OK);
		ck_assert_mem_eq(fast_out, slow_out, PAGE_LEN);
		if (checksums)
			ck_assert_uint_eq(stored(fast_out), tde_page_checksum(fast_out, id.block));

		/* Each second page with a byte that is not what was written. */
		fast_out[damaged] ^= (uint8_t) (seed % 2);
		memcpy(slow_out, fast_out, PAGE_LEN);
		result = tde_page_decrypt(fast, &id, checksums, fast_out);
		ck_assert_int_eq(result, checksums && seed % 2 == 1 ? TDE_PAGE_CHECKSUM : TDE_PAGE_OK);
		ck_assert_int_eq(tde_page_decrypt(slow, &id, checksums, slow_out), result);
		ck_assert_mem_eq(fast_out, slow_out, PAGE_LEN);
	}
	tde_xts_free(&fast);
	tde_xts_free(&slow);
}
END_TEST

struct race
{
	volatile uint8_t *byte;
	atomic_bool stop;
};

static void *
set_hint_bits(void *arg)
{
	struct race *race = arg;

	while (!atomic_load(&race->stop))
		*race->byte = (uint8_t) (*race->byte + 1);
	return NULL;
}

/*
 * A backend sets hint bits while another one writes the page out.  What gets to the disk must be
 * one of the states that the page has been in, with the checksum that belongs to it.
 */
START_TEST(hint_bit_race)
{
	struct tde_page_id id = {5, 1259, 0, 7};
	static uint8_t shared[PAGE_LEN];
	uint8_t		before[PAGE_LEN];
	uint8_t		out[PAGE_LEN];
	struct race race = {shared + HINT_BYTE, false};
	pthread_t	thread;
	tde_xts    *xts = new_xts(TDE_AES256);

	/* With libcrypto too, where this machine has something faster. */
	if (_i == 1)
		tde_xts_set_slow(xts);
	fill(shared, sizeof(shared), 8);
	memcpy(before, shared, PAGE_LEN);
	ck_assert_int_eq(pthread_create(&thread, NULL, set_hint_bits, &race), 0);
	for (int i = 0; i < 5000; i++)
	{
		ck_assert_int_eq(tde_page_encrypt(xts, &id, true, shared, out), TDE_PAGE_OK);
		ck_assert_int_eq(tde_page_decrypt(xts, &id, true, out), TDE_PAGE_OK);
		ck_assert_uint_eq(stored(out), tde_page_checksum(out, id.block));
		out[HINT_BYTE] = before[HINT_BYTE];
		store(out, stored(before));
		ck_assert_mem_eq(out, before, PAGE_LEN);
	}
	atomic_store(&race.stop, true);
	pthread_join(thread, NULL);
	tde_xts_free(&xts);
}
END_TEST

int
main(void)
{
	Suite	   *s = suite_create("tde page");

	ADD_LOOP_TEST(s, known_answer, LENGTH_OF(known));
	ADD_LOOP_TEST(s, round_trip, 16);
	ADD_TEST(s, every_id_field_counts);
	ADD_TEST(s, noise_is_no_page);
	ADD_TEST(s, zero_page);
	ADD_TEST(s, damaged_page);
	ADD_TEST(s, wrong_checksum_is_not_zero);
	ADD_LOOP_TEST(s, fast_and_slow, 4);
	ADD_LOOP_TEST(s, hint_bit_race, 2);
	return run_suite(s);
}
