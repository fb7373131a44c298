/*
 * tde_common.h
 *		What the unit tests of lib/tde share: known answers, hex, and the run itself.
 */
#ifndef TDE_COMMON_H
#define TDE_COMMON_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_LEN	8192		/* of relation files and of WAL alike */
#define MAGIC_15	0xD110		/* XLOG_PAGE_MAGIC of PostgreSQL 15 */

/* Read a file of tests/data/tde; returns its length, which is at most max. */
static inline size_t
read_data(const char *name, uint8_t *buf, size_t max)
{
	char		path[1024];
	FILE	   *f;
	size_t		len;

	snprintf(path, sizeof(path), "%s/tde/%s", TEST_DATA, name);
	f = fopen(path, "rb");
	ck_assert_msg(f != NULL, "could not open \"%s\"", path);
	len = fread(buf, 1, max, f);
	ck_assert_int_eq(ferror(f), 0);
	fclose(f);
	return len;
}

static inline void
read_page(const char *name, uint8_t page[PAGE_LEN])
{
	ck_assert_uint_eq(read_data(name, page, PAGE_LEN), PAGE_LEN);
}

/* The known answers' keys count up from 0. */
static inline void
count_up(uint8_t *buf, size_t len, uint8_t first)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t) (first + i);
}

/* Bytes without a pattern, the same in every run. */
static inline void
fill(uint8_t *buf, size_t len, uint32_t seed)
{
	for (size_t i = 0; i < len; i++)
	{
		seed = seed * 1664525 + 1013904223;
		buf[i] = (uint8_t) (seed >> 24);
	}
}

static inline size_t
from_hex(const char *hex, uint8_t *buf)
{
	size_t		len = strlen(hex) / 2;

	for (size_t i = 0; i < len; i++)
	{
		unsigned int byte;

		ck_assert_int_eq(sscanf(hex + 2 * i, "%2x", &byte), 1);
		buf[i] = (uint8_t) byte;
	}
	return len;
}

/* Run a suite with TAP on standard output; the exit status of main(). */
static inline int
run_suite(Suite *suite)
{
	SRunner    *runner = srunner_create(suite);
	int			failed;

	srunner_set_tap(runner, "-");
	srunner_run_all(runner, CK_SILENT);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#define ADD_TEST(suite, test) \
	do { \
		TCase	   *tc = tcase_create(#test); \
		tcase_set_timeout(tc, 120); \
		tcase_add_test(tc, test); \
		suite_add_tcase(suite, tc); \
	} while (0)

#define ADD_LOOP_TEST(suite, test, n) \
	do { \
		TCase	   *tc = tcase_create(#test); \
		tcase_set_timeout(tc, 120); \
		tcase_add_loop_test(tc, test, 0, (int) (n)); \
		suite_add_tcase(suite, tc); \
	} while (0)

#define LENGTH_OF(array)	(sizeof(array) / sizeof((array)[0]))

#endif							/* TDE_COMMON_H */
