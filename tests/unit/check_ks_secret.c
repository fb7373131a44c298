/*
 * check_ks_secret.c
 *		Guarded memory: dies on overflow, locked, not dumped, wiped, copied by fork().
 */
#include <config.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ks_common.h"

START_TEST(test_sizes)
{
	static const size_t sizes[] = {1, 32, 33, 4095, 4096, 4097, 100000};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
	{
		struct ksi_secret s;

		ck_assert(ksi_secret_alloc(&s, sizes[i]));
		ck_assert_uint_eq(s.len, sizes[i]);
		for (size_t j = 0; j < sizes[i]; j++)
			ck_assert_uint_eq(s.ptr[j], 0);
		memset(s.ptr, 0xa5, sizes[i]);
		ksi_secret_free(&s);
		ck_assert_ptr_null(s.ptr);
		ksi_secret_free(&s);	/* twice is fine */
	}
}
END_TEST

START_TEST(test_impossible_sizes)
{
	struct ksi_secret s;

	ck_assert(!ksi_secret_alloc(&s, 0));
	ck_assert(!ksi_secret_alloc(&s, SIZE_MAX));
	ck_assert(!ksi_secret_alloc(&s, SIZE_MAX / 2));
	ck_assert_ptr_null(s.map);
}
END_TEST

#ifndef __SANITIZE_ADDRESS__		/* it turns the signal into its own exit code, and mlock() into nothing */

static volatile uint8_t sink;

START_TEST(test_write_over_end)
{
	struct ksi_secret s;

	ck_assert(ksi_secret_alloc(&s, 32));
	*(volatile uint8_t *) (s.ptr + 32) = 1;
}
END_TEST

START_TEST(test_read_over_end)
{
	struct ksi_secret s;

	ck_assert(ksi_secret_alloc(&s, 32));
	sink = *(volatile uint8_t *) (s.ptr + 32);
}
END_TEST

START_TEST(test_read_before_page)
{
	struct ksi_secret s;

	ck_assert(ksi_secret_alloc(&s, (size_t) sysconf(_SC_PAGESIZE)));
	sink = *(volatile uint8_t *) (s.ptr - 1);
}
END_TEST

START_TEST(test_use_after_free)
{
	struct ksi_secret s;
	volatile uint8_t *p;

	ck_assert(ksi_secret_alloc(&s, 32));
	p = s.ptr;
	ksi_secret_free(&s);
	sink = *p;
}
END_TEST

/* What the kernel says of the page that holds p: the VmFlags line of /proc/self/smaps, proc(5). */
static void
get_flags(const void *p, char *flags, size_t size)
{
	FILE	   *f = fopen("/proc/self/smaps", "r");
	char		line[512];
	bool		here = false;

	flags[0] = '\0';
	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof(line), f) != NULL)
	{
		unsigned long start,
					end;

		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = (uintptr_t) p >= start && (uintptr_t) p < end;
		if (here && strncmp(line, "VmFlags:", 8) == 0)
			snprintf(flags, size, "%s", line);
	}
	fclose(f);
}

START_TEST(test_kernel_flags)
{
	struct ksi_secret s;
	char		flags[512];

	ck_assert(ksi_secret_alloc(&s, 32));
	get_flags(s.ptr, flags, sizeof(flags));
	ck_assert_msg(strstr(flags, " dd") != NULL, "in core dumps: %s", flags);
	ck_assert_msg((strstr(flags, " lo") != NULL) == s.locked, "lock: %s", flags);
	ksi_secret_free(&s);
}
END_TEST

/* With no memory to lock the secret is there all the same, and the handle says so. */
START_TEST(test_lock_refused)
{
	const struct rlimit none = {0, 0};
	keystore   *ks;

	ck_assert_int_eq(setrlimit(RLIMIT_MEMLOCK, &none), 0);
	if (geteuid() == 0)			/* root may lock whatever the limit is */
		ck_assert_int_eq(setuid(65534), 0);
	ks = ks_make();
	ck_assert(!keystore_memory_locked(ks));
	ck_assert(keystore_is_open(ks));
	keystore_free(&ks);
}
END_TEST

#endif							/* !__SANITIZE_ADDRESS__ */

START_TEST(test_lock_told)
{
	keystore   *ks = keystore_new();
	struct ksi_secret probe;
	bool		possible;

	ck_assert(ksi_secret_alloc(&probe, 4096));
	possible = probe.locked;
	ksi_secret_free(&probe);
	assert_ok(ks, keystore_create(ks, PASS, strlen(PASS), &ks_cheap, "test"));
	ck_assert(keystore_memory_locked(ks) == possible);
	keystore_free(&ks);
}
END_TEST

/* The child has the keys, but not the lock, and it can free them without the parent's noticing. */
START_TEST(test_fork)
{
	keystore   *ks = ks_make();
	uint8_t		before[KEYSTORE_KEY_LEN];
	uint8_t		after[KEYSTORE_KEY_LEN];
	int			status;
	pid_t		pid;

	assert_ok(ks, keystore_get_master_key(ks, 1, before));
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0)
	{
		uint8_t		mine[KEYSTORE_KEY_LEN];

		if (keystore_get_master_key(ks, 1, mine) != KEYSTORE_OK ||
			memcmp(mine, before, sizeof(mine)) != 0)
			_exit(1);
		if (keystore_memory_locked(ks))
			_exit(2);
		keystore_free(&ks);
		_exit(ks == NULL ? 0 : 3);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	assert_ok(ks, keystore_get_master_key(ks, 1, after));
	ck_assert_mem_eq(before, after, sizeof(before));
	keystore_free(&ks);
}
END_TEST

START_TEST(test_wipe)
{
	uint8_t		buf[64];

	memset(buf, 0x5a, sizeof(buf));
	keystore_wipe(buf, sizeof(buf));
	for (size_t i = 0; i < sizeof(buf); i++)
		ck_assert_uint_eq(buf[i], 0);
	keystore_wipe(NULL, 0);
}
END_TEST

int
main(void)
{
	Suite	   *suite = suite_create("secret");
	TCase	   *tc = ks_tcase("secret");

	tcase_add_test(tc, test_sizes);
	tcase_add_test(tc, test_impossible_sizes);
	tcase_add_test(tc, test_lock_told);
	tcase_add_test(tc, test_fork);
	tcase_add_test(tc, test_wipe);
#ifndef __SANITIZE_ADDRESS__
	tcase_add_test(tc, test_kernel_flags);
	tcase_add_test(tc, test_lock_refused);
	tcase_add_test_raise_signal(tc, test_write_over_end, SIGSEGV);
	tcase_add_test_raise_signal(tc, test_read_over_end, SIGSEGV);
	tcase_add_test_raise_signal(tc, test_read_before_page, SIGSEGV);
	tcase_add_test_raise_signal(tc, test_use_after_free, SIGSEGV);
#endif
	suite_add_tcase(suite, tc);
	return ks_run(suite);
}
