/*
 * check_ks_faults.c
 *		Every call that can fail does so once, the first, the second, the third one.
 *
 * After each fault: the right status, a handle that still works, no descriptor and no mapping left, and
 * on disk the old keystore or the new one.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "ks_faults.h"

/* One fault; false if the scenario does not call that often. */
static bool
run_one(int index, enum call call, int at)
{
	keystore   *ks = make();
	uint8_t    *before,
			   *after;
	size_t		before_len,
				after_len;
	enum keystore_status status;
	const char *what;
	int			fds,
				maps;
	bool		reached;

	if (scenarios[index].prepare != NULL)
		scenarios[index].prepare(ks);
	assert_ok(ks, keystore_serialize(ks, &before, &before_len));
	fds = ks_count_fds();
	failing = call;
	fail_at = at;
	call_count = 0;
	maps = mapped;
	status = scenarios[index].run(ks);
	failing = CALL_NONE;
	reached = call_count >= at;
	what = ks_text("%s, failing %s %d: status %d, %s", scenarios[index].name, fault_calls[call].name, at,
				   (int) status, keystore_errmsg(ks));
	ck_assert_msg(status == KEYSTORE_OK ||
				  ((fault_calls[call].statuses | scenarios[index].statuses) & 1U << status) != 0,
				  "%s", what);
	ck_assert_msg(reached || status == KEYSTORE_OK, "%s", what);
	ck_assert_msg((status == KEYSTORE_OK) == (keystore_errmsg(ks)[0] == '\0'), "%s", what);
	ck_assert_msg(ks_count_fds() == fds, "descriptor left: %s", what);
	if (scenarios[index].keeps && status != KEYSTORE_OK)
	{
		ck_assert_msg(keystore_is_open(ks), "closed: %s", what);
		ck_assert_msg(mapped == maps, "mapping left: %s", what);
		assert_ok(ks, keystore_serialize(ks, &after, &after_len));
		ck_assert_msg(after_len == before_len && memcmp(after, before, after_len) == 0,
					  "altered: %s", what);
		free(after);
	}
	assert_sound(what);

	/* The handle still works. */
	ck_assert_msg(status == KEYSTORE_OK || scenarios[index].run(ks) == KEYSTORE_OK,
				  "second try: %s", keystore_errmsg(ks));
	assert_sound(what);
	keystore_free(&ks);
	ck_assert_msg(mapped == 0, "mapping left at the end: %s", what);
	free(before);
	return reached;
}

START_TEST(test_faults)
{
	int			faults = 0;

	for (enum call call = CALL_NONE + 1; call < CALL_COUNT; call++)
	{
		int			at = 1;

		while (run_one(_i, call, at))
			at++;
		faults += at - 1;
		ck_assert_int_lt(at, 200);
	}
	/* Each of them allocates or calls the system at least once. */
	ck_assert_int_gt(faults, 0);
}
END_TEST

/* keystore_new() itself */
START_TEST(test_no_handle)
{
	keystore   *ks;

	failing = CALL_CALLOC;
	fail_at = 1;
	call_count = 0;
	ks = keystore_new();
	failing = CALL_NONE;
	ck_assert_ptr_null(ks);
	ck_assert_str_eq(keystore_errmsg(ks), "out of memory");
}
END_TEST

/* A disk that is full says so, whatever call it says it in. */
START_TEST(test_full_disk)
{
	keystore   *ks = make();

	failing = CALL_WRITE;
	fail_at = 2;				/* the first is the one for the former generation */
	call_count = 0;
	assert_fails(ks, keystore_store(ks, ks_path), KEYSTORE_EIO,
				 ks_text("could not write file \"%s\": No space left on device", ks_path));
	failing = CALL_NONE;
	assert_sound("full disk");
	assert_ok(ks, keystore_store(ks, ks_path));
	keystore_free(&ks);
}
END_TEST

/* A disk that keeps something else than it was given is noticed before the old file is gone. */
START_TEST(test_corrupting_disk)
{
	keystore   *ks = make();
	enum keystore_status status;

	corrupting = true;
	status = keystore_store(ks, ks_path);
	corrupting = false;
	ck_assert_int_eq(status, KEYSTORE_EIO);
	ck_assert(strstr(keystore_errmsg(ks), "does not hold what was written to it") != NULL);
	assert_sound("corrupting disk");
	ck_assert_int_eq(ks_count_files(ks_dir), 1);
	keystore_free(&ks);
}
END_TEST

/* The order that makes it durable: write, fsync, rename, fsync of the directory. */
START_TEST(test_order)
{
	keystore   *ks = ks_make();
	uint32_t	id;

	assert_ok(ks, keystore_set_host_secret_path(ks, secret_path));
	memset(trace, 0, sizeof(trace));
	assert_ok(ks, keystore_store(ks, ks_path));
	ck_assert_str_eq(trace, "wfRf");
	assert_ok(ks, keystore_add_master_key(ks, "test", &id));
	memset(trace, 0, sizeof(trace));
	assert_ok(ks, keystore_store(ks, ks_path));
	ck_assert_str_eq(trace, "wfRfwfRf");

	/* The same again: only that it is on disk is made sure of. */
	memset(trace, 0, sizeof(trace));
	assert_ok(ks, keystore_store(ks, ks_path));
	ck_assert_str_eq(trace, "ff");

	/* The host secret, never replaced, then keystore.aks; its directory's entry first. */
	memset(trace, 0, sizeof(trace));
	assert_ok(ks, keystore_auto_open_enable(ks, ks_path));
	ck_assert_str_eq(trace, "fwfLfUwfRf");
	memset(trace, 0, sizeof(trace));
	assert_ok(ks, keystore_auto_open_disable(ks, ks_path));
	ck_assert_str_eq(trace, "Uf");
	keystore_free(&ks);
}
END_TEST

int
main(void)
{
	Suite	   *suite = suite_create("faults");
	TCase	   *tc = ks_tcase("faults");

	tcase_add_checked_fixture(tc, faults_setup, faults_teardown);
	tcase_add_loop_test(tc, test_faults, 0, scenario_count);
	tcase_add_test(tc, test_no_handle);
	tcase_add_test(tc, test_full_disk);
	tcase_add_test(tc, test_corrupting_disk);
	tcase_add_test(tc, test_order);
	suite_add_tcase(suite, tc);
	return ks_run(suite);
}
