/*
 * check_io_mirror.c
 *		The second copy of WAL when calls fail: on either copy, one call after the
 *		other.
 *
 * What is acknowledged is in both copies, or the failure has been reported, once, and the server's call went well
 * all the same.
 */
#include <config.h>

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mirror_fixture.h"

/* ---- what the server does, and a fault in each call of it ------------------------------------ */

static int
write_segment(void)
{
	return commit_pages(NAME(1), 1, 1, 0);
}

static int
write_segment_synchronously(void)
{
	return commit_pages(NAME(1), 1, 0, O_DSYNC);
}

/* A new segment is made, and written after the one before. */
static int
make_segment(void)
{
	int			rc = commit_pages(NAME(1), 1, 2, 0);

	make_file("pg_wal/xlogtemp.1", 0);
	if (rc == 0 && link("pg_wal/xlogtemp.1", WAL(2)) != 0)
		return errno;
	if (rc == 0 && unlink("pg_wal/xlogtemp.1") != 0)
		return errno;
	return rc == 0 ? commit_pages(NAME(2), 2, 0, 0) : rc;
}

/* One is recycled by each of the ways of the server's versions, then written; and one is removed. */
static int
recycle_segments(void)
{
	int			rc;

	make_file(WAL(2), 0);
	make_file(WAL(3), 0);
	rc = commit_pages(NAME(1), 1, 0, 0);
	rc = rc == 0 ? commit_pages(NAME(2), 2, 0, 0) : rc;
	rc = rc == 0 ? commit_pages(NAME(3), 3, 0, 0) : rc;
	if (rc == 0 && (link(WAL(1), WAL(4)) != 0 || unlink(WAL(1)) != 0 || rename(WAL(2), WAL(5)) != 0))
		return errno;
	rc = rc == 0 ? commit_pages(NAME(4), 4, 0, 0) : rc;
	rc = rc == 0 ? commit_pages(NAME(5), 5, 0, 0) : rc;
	return rc == 0 && unlink(WAL(3)) != 0 ? errno : rc;
}

/* A new timeline. */
static int
change_timeline(void)
{
	int			rc = commit_pages(NAME(1), 1, 3, 0);

	make_file("pg_wal/xlogtemp.1", 'h');
	if (rc != 0)
		return rc;
	if (rename("pg_wal/xlogtemp.1", "pg_wal/00000002.history") != 0 ||
		rename(WAL(1), WAL(1) ".partial") != 0)
		return errno;
	ck_assert(atomic_load(&mirror->mode) != PGX_MIRROR_ON ||
			  (is_safe("00000002.history") && is_safe(NAME(1) ".partial")));
	return 0;
}

/* What was written while nobody mirrored. */
static int
catch_up(void)
{
	char		there[128];
	int			rc;

	make_file(WAL(2), 'x');
	make_file(WAL(3), 'y');
	snprintf(there, sizeof(there), "%s/%s", mirror_dir, NAME(2));
	make_file(there, 'o');
	snprintf(there, sizeof(there), "%s/%s", mirror_dir, NAME(3));
	make_file(there, 'y');
	for (int i = 1; i <= 3; i++)
	{
		const char *name = i == 1 ? NAME(1) : i == 2 ? NAME(2) : NAME(3);

		rc = i == 1 ? io->mirror_begin(name) : io->mirror_refresh(name);
		if (rc < 0)
			io->mirror_fail("copy", name);
		ck_assert_msg(rc < 0 || is_safe(name), "%s is taken for complete", name);
	}
	return 0;
}

static int	(*const scenes[]) (void) = {
	write_segment, write_segment_synchronously, make_segment, recycle_segments, change_timeline, catch_up
};
#define SCENES	((int) (sizeof(scenes) / sizeof(scenes[0])))

static const int errors[CALL_KINDS] = {
	[CALL_OPEN] = ENOSPC,
	[CALL_PREAD] = EIO,
	[CALL_PWRITE] = EIO,
	[CALL_SHORT] = ENOSPC,
	[CALL_FTRUNCATE] = EROFS,
	[CALL_FSTAT] = EIO,
	[CALL_SYNC] = EIO,
	[CALL_RENAME] = EROFS,
	[CALL_UNLINK] = EROFS
};

/* How a run ends that finds nothing wrong: there was such a call, or there are no more. */
#define EXIT_HIT	40
#define EXIT_MISSED	41

/* One run in a directory of its own. */
static void
run_scene(int scene, bool there)
{
	int			rc;
	bool		failed;

	start_again();
	rc = scenes[scene] ();
	failed = atomic_load(&mirror->mode) == PGX_MIRROR_FAILED;
	ck_assert_int_eq(reports, failed);
	ck_assert(!failed || reported_errno == fault.error);
	ck_assert(rc == 0 || (fault.hit && !there && rc == fault.error));
	ck_assert(fault.hit || (rc == 0 && !failed));

	/* A mirror that has failed is left alone, and becomes whole again. */
	if (failed)
	{
		int			before = fault.calls;

		fault.at = 0;
		make_file(WAL(6), 0);
		ck_assert_int_eq(commit_pages(NAME(6), 6, 1, 0), 0);
		ck_assert(!there || fault.calls == before);
		resume();
		ck_assert_int_ge(io->mirror_refresh(NAME(6)), 0);
		ck_assert(is_safe(NAME(6)));
		make_file(WAL(7), 0);
		ck_assert_int_eq(commit_pages(NAME(7), 7, 2, 0), 0);
		ck_assert_int_eq(atomic_load(&mirror->mode), PGX_MIRROR_ON);
	}
	remove_all();
}

/* Each call of one kind fails, one run each.  How many there were. */
static int
fail_each(int scene, enum call call, bool there)
{
	bool		more = true;
	int			hits = 0;

	for (int n = 1; more; n++)
	{
		pid_t		child = fork();
		int			status;

		ck_assert_int_ge(child, 0);
		if (child == 0)
		{
			fault.call = call;
			fault.on_mirror = there;
			fault.at = n;
			fault.error = errors[call];
			run_scene(scene, there);
			_exit(fault.hit ? EXIT_HIT : EXIT_MISSED);
		}
		ck_assert_int_eq(waitpid(child, &status, 0), child);
		ck_assert_msg(WIFEXITED(status) && (WEXITSTATUS(status) == EXIT_HIT || WEXITSTATUS(status) == EXIT_MISSED),
					  "scene %d, call %d number %d on the %s: status %d",
					  scene, call, n, there ? "mirror" : "server's copy", status);
		more = WEXITSTATUS(status) == EXIT_HIT;
		hits += more;
	}
	return hits;
}

START_TEST(each_call_fails)
{
	int			here = 0;
	int			there = 0;

	for (int call = CALL_NONE + 1; call < CALL_KINDS; call++)
	{
		here += fail_each(_i, (enum call) call, false);
		there += fail_each(_i, (enum call) call, true);
	}
	aio_works = true;
	here += fail_each(_i, CALL_SYNC, false);
	there += fail_each(_i, CALL_SYNC, true);
	ck_assert_int_gt(here, 5);
	ck_assert_int_gt(there, 10);
}
END_TEST

/* ---- what other processes do meanwhile --------------------------------------------------------- */

static bool raced;

/* Another process writes to the new segment as soon as it is there. */
static void
write_at_once(void)
{
	pid_t		child;
	int			status;

	if (raced || access(WAL(2), F_OK) != 0)
		return;
	raced = true;
	child = fork();
	if (child == 0)
	{
		int			fd = open(WAL(2), O_RDWR);

		before_mirror_write = NULL;
		_exit(commit_page(fd, NAME(2), 2, 0));
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
}

static void
same_in_both(const char *name)
{
	char		command[256];

	snprintf(command, sizeof(command), "cmp pg_wal/%s %s/%s", name, mirror_dir, name);
	ck_assert_int_eq(system(command), 0);
}

/* 0: while a new segment is copied; 1 and 2: when a recycled one has its new name in pg_wal only. */
START_TEST(segment_is_written_at_once)
{
	int			fd;

	ck_assert_int_eq(commit_pages(NAME(1), 1, 0, 0), 0);
	make_file("pg_wal/xlogtemp.1", 0);
	if (_i == 0)
	{
		before_mirror_write = write_at_once;
		ck_assert_int_eq(link("pg_wal/xlogtemp.1", WAL(2)), 0);
		before_mirror_write = NULL;
		write_at_once();
	}
	else
		after_link = write_at_once;
	if (_i == 1)
		ck_assert_int_eq(link(WAL(1), WAL(2)), 0);
	else if (_i == 2)
		ck_assert_int_eq(rename(WAL(1), WAL(2)), 0);
	ck_assert(raced);
	same_in_both(NAME(2));
	fd = open(WAL(2), O_RDWR);
	ck_assert_int_eq(commit_page(fd, NAME(2), 2, 1), 0);
	close(fd);
	same_in_both(NAME(2));
	ck_assert_int_eq(reports, 0);
}
END_TEST

/* Who has written the end of a segment without the mirror begins the next one with it. */
START_TEST(segment_ends_while_mirroring_begins)
{
	atomic_store(&mirror->mode, PGX_MIRROR_PAUSED);
	ck_assert_int_eq(commit_pages(NAME(1), 1, 0, 0), 0);
	make_file(WAL(2), 0);
	resume();
	ck_assert_uint_eq(atomic_load(&mirror->asked), 0);
	ck_assert_int_eq(commit_pages(NAME(2), 2, 0, 0), 0);
	ck_assert_uint_eq(atomic_load(&mirror->asked), 1);
	ck_assert_int_eq(io->mirror_refresh(NAME(1)), 1);

	/* From now on nothing is missed. */
	make_file(WAL(3), 0);
	ck_assert_int_eq(commit_pages(NAME(3), 3, 0, 0), 0);
	ck_assert_uint_eq(atomic_load(&mirror->asked), 1);
}
END_TEST

static int
exit_code_of(int (*what) (void))
{
	pid_t		child = fork();
	int			status;

	if (child == 0)
		_exit(what() == 0 ? 0 : 1);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int
remove_segment(void)
{
	fault.call = CALL_UNLINK;
	fault.on_mirror = true;
	fault.at = 1;
	fault.error = EIO;
	return unlink(WAL(2));
}

static int
sync_segment(void)
{
	return fsync(open(WAL(1), O_RDWR));
}

/* No commit without the mirror: after one process has failed the others do not go on until the server ends them. */
START_TEST(no_commit_without_the_mirror)
{
	vital = true;
	make_file(WAL(2), 0);
	ck_assert_int_eq(exit_code_of(write_segment), 0);
	ck_assert_int_eq(exit_code_of(remove_segment), 9);
	ck_assert_int_eq(exit_code_of(write_segment), 8);
	ck_assert_int_eq(exit_code_of(sync_segment), 8);
	ck_assert_int_eq(exit_code_of(write_segment_synchronously), 8);
	ck_assert_uint_eq(atomic_load(&mirror->failures), 1);
	resume();
	ck_assert_int_eq(exit_code_of(write_segment), 0);
}
END_TEST

START_TEST(removed_file_is_noticed)
{
	char		there[128];
	int			fd = open(WAL(1), O_RDWR | (_i ? O_DSYNC : 0));

	ck_assert_int_eq(commit_page(fd, NAME(1), 1, 0), 0);
	snprintf(there, sizeof(there), "%s/%s", mirror_dir, NAME(1));
	ck_assert_int_eq(real.unlink(there), 0);
	ck_assert_int_eq(commit_page(fd, NAME(1), 1, 1), 0);
	ck_assert_int_eq(reports, 1);
	ck_assert_int_eq(reported_errno, ENOENT);
	close(fd);
}
END_TEST

/* An event that nobody waited for belongs to a former sync. */
START_TEST(lost_event)
{
	int			fd = open(WAL(1), O_RDWR);

	aio_works = true;
	ck_assert_int_eq(commit_page(fd, NAME(1), 1, 0), 0);
	if (submitted == 0)
		return;					/* a kernel without asynchronous I/O */
	lose_event = true;
	ck_assert_int_eq(commit_page(fd, NAME(1), 1, 1), 0);
	ck_assert_int_eq(reports, 1);
	ck_assert_int_eq(reported_errno, EINVAL);
	lose_event = false;
	submitted = 0;
	resume();
	ck_assert_int_eq(commit_page(fd, NAME(1), 1, 2), 0);
	ck_assert_int_eq(atomic_load(&mirror->mode), PGX_MIRROR_ON);
	ck_assert_int_eq(submitted, 0);
	close(fd);
}
END_TEST

int
main(void)
{
	Suite	   *suite = suite_create("io_mirror");
	TCase	   *tcase = tcase_create("mirror");
	SRunner    *runner;
	int			failed;

	tcase_set_timeout(tcase, 300);	/* some hundred processes each */
	tcase_add_checked_fixture(tcase, start_all, remove_all);
	tcase_add_loop_test(tcase, each_call_fails, 0, SCENES);
	tcase_add_loop_test(tcase, segment_is_written_at_once, 0, 3);
	tcase_add_test(tcase, segment_ends_while_mirroring_begins);
	tcase_add_test(tcase, no_commit_without_the_mirror);
	tcase_add_loop_test(tcase, removed_file_is_noticed, 0, 2);
	tcase_add_test(tcase, lost_event);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_set_tap(runner, "-");
	srunner_run_all(runner, CK_SILENT);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
