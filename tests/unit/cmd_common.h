/*
 * cmd_common.h
 *		What the unit tests of the commands share.
 */
#ifndef CMD_COMMON_H
#define CMD_COMMON_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH_OF(a)	((int) (sizeof(a) / sizeof((a)[0])))

/* One TCase per function under test. */
#define ADD_TEST(s, name) \
	do { \
		TCase	   *tc_ = tcase_create(#name); \
		tcase_add_test(tc_, name); \
		suite_add_tcase(s, tc_); \
	} while (0)

#define ADD_LOOP_TEST(s, name, n) \
	do { \
		TCase	   *tc_ = tcase_create(#name); \
		tcase_add_loop_test(tc_, name, 0, n); \
		suite_add_tcase(s, tc_); \
	} while (0)

static inline int
run_suite(Suite *s)
{
	SRunner    *r = srunner_create(s);
	int			failed;

	srunner_set_tap(r, "-");
	srunner_run_all(r, CK_SILENT);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif							/* CMD_COMMON_H */
