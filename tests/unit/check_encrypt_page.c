/*
 * check_encrypt_page.c
 *		How pgx_encrypt tells a plain page from an encrypted one, and the rare page
 *		that looks like both.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include <check.h>

#include "bin/pgx_encrypt/encrypt.h"

/*
 * The number of a block that, with the key and the page below, is a valid page as it is and also one when it is
 * decrypted; found by trying.
 */
#define UNLUCKY_BLOCK	10208337

static tde_xts *xts;

static void
put_u16(uint8_t *page, size_t offset, uint16_t value)
{
	memcpy(page + offset, &value, sizeof(value));
}

static void
setup(void)
{
	uint8_t		key[64];

	for (size_t i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t) i;
	xts = tde_xts_new(TDE_AES128, key);
	ck_assert_ptr_nonnull(xts);
}

static void
teardown(void)
{
	tde_xts_free(&xts);
}

static void
make_page(uint8_t *page)
{
	memset(page, 0, TDE_PAGE_SIZE);
	put_u16(page, 12, 24);
	put_u16(page, 14, 24);
	put_u16(page, 16, TDE_PAGE_SIZE);
	put_u16(page, 18, TDE_PAGE_SIZE | 4);
}

START_TEST(test_looks)
{
	struct tde_page_id id = {1, 2, 0, 3};
	uint8_t		page[TDE_PAGE_SIZE] = {0};
	uint8_t		encrypted[TDE_PAGE_SIZE];

	ck_assert_int_eq(page_look(xts, &id, page), PAGE_EMPTY);
	make_page(page);
	ck_assert_int_eq(page_look(xts, &id, page), PAGE_PLAIN);
	ck_assert_int_eq(page_look(NULL, &id, page), PAGE_PLAIN);
	ck_assert_int_eq(tde_page_encrypt_verified(xts, &id, false, page, encrypted), TDE_PAGE_OK);
	ck_assert_int_eq(page_look(xts, &id, encrypted), PAGE_ENCRYPTED);
	ck_assert_int_eq(page_look(NULL, &id, encrypted), PAGE_DAMAGED);
	id.block++;
	ck_assert_int_eq(page_look(xts, &id, encrypted), PAGE_DAMAGED);
}
END_TEST

START_TEST(test_either)
{
	struct tde_page_id id = {1, 2, 0, UNLUCKY_BLOCK};
	uint8_t		page[TDE_PAGE_SIZE];

	make_page(page);
	ck_assert_int_eq(page_look(xts, &id, page), PAGE_EITHER);
	ck_assert_int_eq(page_look(NULL, &id, page), PAGE_PLAIN);
}
END_TEST

int
main(void)
{
	Suite	   *suite = suite_create("encrypt page");
	TCase	   *tcase = tcase_create("looks");
	SRunner    *runner;
	int			failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, test_looks);
	tcase_add_test(tcase, test_either);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_set_tap(runner, "-");
	srunner_run_all(runner, CK_SILENT);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
