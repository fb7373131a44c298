/*
 * check_io_mirror.c
 *		The second copy of WAL when calls fail: on either copy, one call after the
 *		other.
 *
 * What was synced is remembered, and so is what a synced directory held.  Whenever the layer says that a sync of WAL
 * was done and still mirrors, what the mirror would hold after a power failure has to be what pg_wal
 * holds.  Otherwise the failure has been reported, once, and the server's call went well all the same.
 */
#include <config.h>

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/aio_abi.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io_internal.h"

#define MAGIC		0xD110
#define PAGE		8192
#define PAGES		4			/* of a segment here */
#define SEGMENT		(PAGES * PAGE)
#define NAME(n)		"00000001000000000000000" #n
#define WAL(n)		"pg_wal/" NAME(n)
#define MAX_FILES	32

extern struct pgx_io_api pgx_tde_io_api;
extern int	MyBackendType;
int			MyBackendType;

static struct pgx_io_api *io = &pgx_tde_io_api;
static struct pgx_io_mirror *mirror;
static struct pgx_io_libc real;
static char top[] = "/tmp/check_mirror_XXXXXX";
static char data_dir[64];
static char mirror_dir[64];

/* ---- faults ------------------------------------------------------------------------ */

enum call
{
	CALL_NONE,
	CALL_OPEN,
	CALL_PREAD,
	CALL_PWRITE,
	CALL_SHORT,					/* a pwrite() of a part, and then none */
	CALL_FTRUNCATE,
	CALL_FSTAT,
	CALL_SYNC,
	CALL_RENAME,
	CALL_UNLINK,
	CALL_KINDS
};

static enum call failing;
static bool failing_mirror;		/* on which of the two copies */
static int	fail_at;			/* at this call, from 1 */
static int	fail_with;
static int	calls;
static bool hit;
static bool disk_is_full;		/* after a short write */
static bool aio_works;			/* otherwise io_setup() is refused */
static bool lose_event;			/* io_getevents() fails */
static int	submitted;
static int	aio_fd;
static void (*after_link) (void);
static void (*before_mirror_write) (void);

/* What the server was told. */
static int	reports;
static int	reported_errno;
static bool vital;

static bool
on_mirror(int fd)
{
	char		link_path[64];
	char		path[256] = "";

	snprintf(link_path, sizeof(link_path), "/proc/self/fd/%d", fd);
	ck_assert_int_gt(readlink(link_path, path, sizeof(path) - 1), 0);
	return strncmp(path, mirror_dir, strlen(mirror_dir)) == 0;
}

static bool
fails(enum call call, bool there)
{
	if (call != failing || there != failing_mirror || ++calls != fail_at)
		return false;
	hit = true;
	errno = fail_with;
	return true;
}

static bool
is_there(const char *path)
{
	return strncmp(path, mirror_dir, strlen(mirror_dir)) == 0;
}

/* ---- what would be left after a power failure ----------------------------------------- */

static struct synced_file
{
	ino_t		inode;
	ssize_t		size;
	uint8_t		content[SEGMENT];
} synced[MAX_FILES];
static struct synced_name
{
	char		name[40];
	ino_t		inode;
} names[MAX_FILES];

extern int	__real_fstat(int fd, struct stat *st);

static void
remember(int fd)
{
	struct stat st;

	ck_assert_int_eq(__real_fstat(fd, &st), 0);
	if (!on_mirror(fd))
		return;
	if (S_ISDIR(st.st_mode))
	{
		DIR		   *d = opendir(mirror_dir);
		struct dirent *e;
		int			n = 0;

		memset(names, 0, sizeof(names));
		while ((e = readdir(d)) != NULL && n < MAX_FILES)
		{
			if (e->d_name[0] == '.')
				continue;
			memcpy(names[n].name, e->d_name, strnlen(e->d_name, sizeof(names[n].name) - 1));
			names[n++].inode = e->d_ino;
		}
		closedir(d);
		return;
	}
	for (int i = 0; i < MAX_FILES; i++)
	{
		if (synced[i].inode != 0 && synced[i].inode != st.st_ino)
			continue;
		synced[i].inode = st.st_ino;
		synced[i].size = real.pread(fd, synced[i].content, SEGMENT, 0);
		return;
	}
	ck_abort_msg("too many files");
}

/* Would the mirror's file be the same as pg_wal's? */
static bool
is_safe(const char *name)
{
	uint8_t		here[SEGMENT];
	char		path[64];
	ssize_t		size;
	int			fd;

	snprintf(path, sizeof(path), "pg_wal/%s", name);
	fd = real.open(path, O_RDONLY);
	ck_assert_int_ge(fd, 0);
	size = real.pread(fd, here, SEGMENT, 0);
	real.close(fd);
	for (int i = 0; i < MAX_FILES; i++)
	{
		if (strcmp(names[i].name, name) != 0)
			continue;
		for (int j = 0; j < MAX_FILES; j++)
		{
			if (synced[j].inode == names[i].inode)
				return synced[j].size == size && memcmp(synced[j].content, here, (size_t) size) == 0;
		}
	}
	return false;
}

/* ---- the calls ------------------------------------------------------------------------- */

static int
fake_open(const char *path, int flags,...)
{
	va_list		args;
	mode_t		mode;

	va_start(args, flags);
	mode = (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;
	va_end(args);
	return fails(CALL_OPEN, is_there(path)) ? -1 : real.open(path, flags, mode);
}

static ssize_t
fake_pread(int fd, void *buf, size_t len, off_t off)
{
	return fails(CALL_PREAD, on_mirror(fd)) ? -1 : real.pread(fd, buf, len, off);
}

static ssize_t
fake_pwrite(int fd, const void *buf, size_t len, off_t off)
{
	bool		there = on_mirror(fd);

	if (there && before_mirror_write != NULL)
		before_mirror_write();
	if (disk_is_full && there == failing_mirror)
	{
		errno = ENOSPC;
		return -1;
	}
	if (fails(CALL_SHORT, there))
	{
		disk_is_full = true;
		return real.pwrite(fd, buf, len / 2, off);
	}
	return fails(CALL_PWRITE, there) ? -1 : real.pwrite(fd, buf, len, off);
}

static int
fake_ftruncate(int fd, off_t size)
{
	return fails(CALL_FTRUNCATE, on_mirror(fd)) ? -1 : real.ftruncate(fd, size);
}

static int
fake_fsync(int fd)
{
	if (fails(CALL_SYNC, on_mirror(fd)))
		return -1;
	remember(fd);
	return 0;
}

static int
fake_fdatasync(int fd)
{
	return fake_fsync(fd);
}

static int
fake_rename(const char *from, const char *to)
{
	int			rc = fails(CALL_RENAME, is_there(from)) ? -1 : real.rename(from, to);

	if (rc == 0 && !is_there(from) && after_link != NULL)
		after_link();
	return rc;
}

static int
fake_link(const char *from, const char *to)
{
	int			rc = fails(CALL_RENAME, is_there(from)) ? -1 : real.link(from, to);

	if (rc == 0 && after_link != NULL)
		after_link();
	return rc;
}

static int
fake_unlink(const char *path)
{
	return fails(CALL_UNLINK, is_there(path)) ? -1 : real.unlink(path);
}

extern int	__wrap_fstat(int fd, struct stat *st);
int
__wrap_fstat(int fd, struct stat *st)
{
	return fails(CALL_FSTAT, on_mirror(fd)) ? -1 : __real_fstat(fd, st);
}

extern long __real_syscall(long number,...);
extern long __wrap_syscall(long number,...);
long
__wrap_syscall(long number,...)
{
	va_list		args;
	long		arg[5];
	struct io_event *event;
	long		n;

	va_start(args, number);
	for (int i = 0; i < 5; i++)
		arg[i] = va_arg(args, long);
	va_end(args);
	if (number == SYS_io_setup && !aio_works)
	{
		errno = EAGAIN;
		return -1;
	}
	if (number == SYS_io_submit)
	{
		submitted++;
		aio_fd = (int) ((struct iocb **) arg[2])[0]->aio_fildes;
	}
	if (number == SYS_io_getevents && lose_event)
	{
		errno = EINVAL;
		return -1;
	}
	n = __real_syscall(number, arg[0], arg[1], arg[2], arg[3], arg[4]);
	if (number != SYS_io_getevents || n != 1)
		return n;
	event = (struct io_event *) arg[3];
	if (event->res == 0 && fails(CALL_SYNC, true))
		event->res = -fail_with;
	if (event->res == 0)
		remember(aio_fd);
	return n;
}

/* ---- the server ------------------------------------------------------------------------ */

static bool
is_raw(enum pgx_io_kind kind, int open_flags)
{
	return false;
}

static uint64_t
insert_end(void)
{
	return UINT64_MAX;
}

static uint64_t
replay_end(void)
{
	return 0;
}

static bool
mirror_is_vital(void)
{
	return vital;
}

static void
mirror_failed(const char *operation, const char *name, int error)
{
	if (vital)
		_exit(operation == NULL ? 8 : 9);	/* as a PANIC would */
	ck_assert_ptr_nonnull(operation);
	ck_assert_ptr_nonnull(name);
	reports++;
	reported_errno = error;
}

static struct pgx_io_server server = {
	.wal_magic = MAGIC,
	.is_raw = is_raw,
	.insert_end = insert_end,
	.replay_end = replay_end,
	.mirror_is_vital = mirror_is_vital,
	.mirror_failed = mirror_failed,
};

/* A file of pg_wal that the layer has not seen. */
static void
make_file(const char *path, char content)
{
	uint8_t		buf[SEGMENT];
	int			fd = real.open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	memset(buf, content, sizeof(buf));
	ck_assert_int_eq(real.pwrite(fd, buf, sizeof(buf), 0), SEGMENT);
	real.close(fd);
}

static void
start_all(void)
{
	uint8_t		key[TDE_MAX_KEY_LEN] = {1, 2, 3};

	real = pgx_libc;
	ck_assert_ptr_nonnull(mkdtemp(top));
	snprintf(data_dir, sizeof(data_dir), "%s/data", top);
	snprintf(mirror_dir, sizeof(mirror_dir), "%s/mirror", top);
	ck_assert_int_eq(mkdir(data_dir, 0700), 0);
	ck_assert_int_eq(chdir(data_dir), 0);
	ck_assert_int_eq(mkdir("pg_wal", 0700), 0);
	ck_assert_int_eq(mkdir(mirror_dir, 0700), 0);
	server.data_dir = data_dir;
	io->start(&server);
	ck_assert_ptr_nonnull(io->shared);
	ck_assert_int_eq(io->set_key(TDE_KEY_WAL, 0, TDE_AES256, key), 0);
	ck_assert_int_eq(io->new_epoch(), 0);
	atomic_store(&io->shared->wal_on, 1);

	/* This memory outlives the process that Check runs a test in. */
	mirror = &io->shared->mirror;
	memset(mirror, 0, sizeof(*mirror));
	snprintf(mirror->directory, sizeof(mirror->directory), "%s", mirror_dir);
	atomic_store(&mirror->generation, 1);
	atomic_store(&mirror->mode, PGX_MIRROR_ON);
	pgx_libc.open = fake_open;
	pgx_libc.pread = fake_pread;
	pgx_libc.pwrite = fake_pwrite;
	pgx_libc.ftruncate = fake_ftruncate;
	pgx_libc.fsync = fake_fsync;
	pgx_libc.fdatasync = fake_fdatasync;
	pgx_libc.rename = fake_rename;
	pgx_libc.link = fake_link;
	pgx_libc.unlink = fake_unlink;
	make_file(WAL(1), 0);
}

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return type == FTW_DP ? rmdir(path) : real.unlink(path);
}

static void
remove_all(void)
{
	ck_assert_int_eq(nftw(top, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

/* Start mirroring again, as pgx_resume_wal_multiplexing() does. */
static void
resume(void)
{
	failing = CALL_NONE;
	disk_is_full = false;
	atomic_fetch_add(&mirror->generation, 1);
	atomic_store(&mirror->mode, PGX_MIRROR_ON);
}

/*
 * A page of WAL, written and synced as the server does.  0, or the errno of what failed.  That a sync was good
 * is believed only if both copies are.
 */
static int
commit_page(int fd, const char *name, uint64_t segment, int number)
{
	uint8_t		page[PAGE];
	uint16_t	magic = MAGIC;
	uint32_t	timeline = 1;
	uint64_t	address = segment * 0x1000000 + (uint64_t) number * PAGE;

	memset(page, 'a' + number, PAGE);
	memset(page, 0, 24);
	memcpy(page, &magic, 2);
	memcpy(page + 4, &timeline, 4);
	memcpy(page + 8, &address, 8);
	if (pwrite(fd, page, PAGE, (off_t) number * PAGE) != PAGE)
		return errno;
	if ((number % 2 == 0 ? fsync(fd) : fdatasync(fd)) != 0)
		return errno;
	ck_assert_msg(atomic_load(&mirror->mode) != PGX_MIRROR_ON || is_safe(name),
				  "page %d of %s is acknowledged, and not in the mirror", number, name);
	return 0;
}

static int
commit_pages(const char *name, uint64_t segment, int first, int flags)
{
	char		path[64];
	int			rc = 0;
	int			fd;

	snprintf(path, sizeof(path), "pg_wal/%s", name);
	fd = open(path, O_RDWR | flags);
	if (fd < 0)
		return errno;
	for (int i = first; i < PAGES && rc == 0; i++)
		rc = commit_page(fd, name, segment, i);
	ck_assert_int_eq(close(fd), 0);
	return rc;
}

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

	strcpy(top + strlen(top) - 6, "XXXXXX");
	pgx_libc = real;
	start_all();
	rc = scenes[scene] ();
	failed = atomic_load(&mirror->mode) == PGX_MIRROR_FAILED;
	ck_assert_int_eq(reports, failed);
	ck_assert(!failed || reported_errno == fail_with);
	ck_assert(rc == 0 || (hit && !there && rc == fail_with));
	ck_assert(hit || (rc == 0 && !failed));

	/* A mirror that has failed is left alone, and becomes whole again. */
	if (failed)
	{
		int			before = calls;

		fail_at = 0;
		make_file(WAL(6), 0);
		ck_assert_int_eq(commit_pages(NAME(6), 6, 1, 0), 0);
		ck_assert(!there || calls == before);
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
			failing = call;
			failing_mirror = there;
			fail_at = n;
			fail_with = errors[call];
			run_scene(scene, there);
			_exit(hit ? EXIT_HIT : EXIT_MISSED);
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
	failing = CALL_UNLINK;
	failing_mirror = true;
	fail_at = 1;
	fail_with = EIO;
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
