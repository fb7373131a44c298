/*
 * mirror_fixture.c
 *		Calls that fail, a memory of what was synced, and a server, for the tests of the second copy of WAL.
 */
#include <config.h>

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/aio_abi.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mirror_fixture.h"

#define MAX_FILES	32

extern struct pgx_io_api pgx_tde_io_api;
extern int	MyBackendType;
int			MyBackendType;

struct pgx_io_api *io = &pgx_tde_io_api;
struct pgx_io_mirror *mirror;
struct pgx_io_libc real;
char		mirror_dir[64];
static char top[] = "/tmp/check_mirror_XXXXXX";
static char data_dir[64];

struct fault fault;
static bool disk_is_full;		/* after a short write */
bool		aio_works;
bool		lose_event;
int			submitted;
static int	aio_fd;
void		(*after_link) (void);
void		(*before_mirror_write) (void);

int			reports;
int			reported_errno;
bool		vital;

/* ---- faults ------------------------------------------------------------------------ */

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
	if (call != fault.call || there != fault.on_mirror || ++fault.calls != fault.at)
		return false;
	fault.hit = true;
	errno = fault.error;
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

bool
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
	if (disk_is_full && there == fault.on_mirror)
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
		event->res = -fault.error;
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

void
make_file(const char *path, char content)
{
	uint8_t		buf[SEGMENT];
	int			fd = real.open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	memset(buf, content, sizeof(buf));
	ck_assert_int_eq(real.pwrite(fd, buf, sizeof(buf), 0), SEGMENT);
	real.close(fd);
}

void
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

void
start_again(void)
{
	strcpy(top + strlen(top) - 6, "XXXXXX");
	pgx_libc = real;
	start_all();
}

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return type == FTW_DP ? rmdir(path) : real.unlink(path);
}

void
remove_all(void)
{
	ck_assert_int_eq(nftw(top, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

void
resume(void)
{
	fault.call = CALL_NONE;
	disk_is_full = false;
	atomic_fetch_add(&mirror->generation, 1);
	atomic_store(&mirror->mode, PGX_MIRROR_ON);
}

int
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

int
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
