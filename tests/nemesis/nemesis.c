/*
 * nemesis.c
 *		A shared object that stands between the I/O layer and the C library and does
 *		to a server what disks and kernels do: short counts, errors, a full disk.  It
 *		also notes what every write replaced and what was synced, so that powerloss.c
 *		can make the disk forget writes that nobody had synced.
 *
 * It is preloaded behind the I/O layer, which is the one that is shipped, not a
 * build for tests.  In anything but postgres it does nothing.
 */
#include <config.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "nemesis.h"

#define LOG_FD_MIN			900	/* away from the server's own descriptors */
#define LARGEST_WRITE		(1024 * 1024)	/* what the server writes in one call, and more */

static const char *directory;
static struct nemesis_control *control;
static pid_t log_owner;
static int	log_fd = -1;
static uint32_t dice;
static uint8_t *before;			/* LARGEST_WRITE bytes */

/* The C library's functions. */
static int	(*libc_open) (const char *, int,...);
static ssize_t (*libc_read) (int, void *, size_t);
static ssize_t (*libc_write) (int, const void *, size_t);
static ssize_t (*libc_pread) (int, void *, size_t, off_t);
static ssize_t (*libc_pwrite) (int, const void *, size_t, off_t);
static ssize_t (*libc_preadv) (int, const struct iovec *, int, off_t);
static ssize_t (*libc_pwritev) (int, const struct iovec *, int, off_t);
static int	(*libc_fsync) (int);
static int	(*libc_fdatasync) (int);
static int	(*libc_ftruncate) (int, off_t);
static int	(*libc_truncate) (const char *, off_t);
static FILE *(*libc_fopen) (const char *, const char *);

static void
resolve(void)
{
	if (libc_ftruncate != NULL)
		return;
	*(void **) &libc_open = dlsym(RTLD_NEXT, "open");
	*(void **) &libc_read = dlsym(RTLD_NEXT, "read");
	*(void **) &libc_write = dlsym(RTLD_NEXT, "write");
	*(void **) &libc_pread = dlsym(RTLD_NEXT, "pread");
	*(void **) &libc_pwrite = dlsym(RTLD_NEXT, "pwrite");
	*(void **) &libc_preadv = dlsym(RTLD_NEXT, "preadv");
	*(void **) &libc_pwritev = dlsym(RTLD_NEXT, "pwritev");
	*(void **) &libc_fsync = dlsym(RTLD_NEXT, "fsync");
	*(void **) &libc_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
	*(void **) &libc_truncate = dlsym(RTLD_NEXT, "truncate");
	*(void **) &libc_fopen = dlsym(RTLD_NEXT, "fopen");
	*(void **) &libc_ftruncate = dlsym(RTLD_NEXT, "ftruncate");
}

__attribute__((constructor))
static void
nemesis_constructor(void)
{
	char		path[4096];
	int			fd;

	resolve();
	directory = getenv(NEMESIS_ENV);
	if (directory == NULL || dlsym(RTLD_DEFAULT, "MyBackendType") == NULL)
		return;
	snprintf(path, sizeof(path), "%s/control", directory);
	fd = libc_open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		abort();				/* a test without its nemesis would prove nothing */
	control = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	before = malloc(LARGEST_WRITE);
	if (control == MAP_FAILED || before == NULL)
		abort();
	(void) close(fd);
	directory = strdup(directory);
}

/* ---- the log -------------------------------------------------------------- */

static uint64_t
next_seq(void)
{
	return __atomic_add_fetch(&control->seq, 1, __ATOMIC_SEQ_CST);
}

/* This process's own log; a child starts another. */
static int
own_log(void)
{
	char		path[4096];
	int			fd;

	if (log_owner == getpid())
		return log_fd;
	if (log_fd >= 0)
		(void) syscall(SYS_close, log_fd);
	log_owner = getpid();
	dice = control->seed ^ ((uint32_t) log_owner * 2654435761u);
	snprintf(path, sizeof(path), "%s/log.%d.%llu", directory, (int) log_owner,
			 (unsigned long long) next_seq());
	fd = libc_open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	log_fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, LOG_FD_MIN);
	if (log_fd < 0)
		abort();
	(void) syscall(SYS_close, fd);
	return log_fd;
}

static void
note(const struct nemesis_record *record, const void *bytes)
{
	struct iovec iov[2] = {
		{(void *) record, sizeof(*record)},
		{(void *) bytes, record->length},
	};
	ssize_t		want = (ssize_t) (sizeof(*record) + record->length);

	if (syscall(SYS_writev, own_log(), iov, record->length > 0 ? 2 : 1) != want)
		abort();
}

/* A regular file that is not one of the standard streams (the server's log). */
static bool
is_ours(int fd, struct stat *ret_st)
{
	return control != NULL && fd > 2 && fstat(fd, ret_st) == 0 && S_ISREG(ret_st->st_mode);
}

static void
note_event(const struct stat *st, enum nemesis_event event, uint64_t seq, off_t offset)
{
	struct nemesis_record record = {
		.seq = seq, .device = st->st_dev, .inode = st->st_ino, .offset = (uint64_t) offset, .event = event,
	};

	note(&record, NULL);
}

/* Keep what is about to be replaced: zeros where the file has no bytes yet. */
static void
note_write(int fd, const struct stat *st, off_t off, size_t len)
{
	struct nemesis_record record = {
		.seq = next_seq(), .device = st->st_dev, .inode = st->st_ino, .offset = (uint64_t) off,
		.length = (uint32_t) len, .event = NEMESIS_WRITE,
	};
	int			flags = fcntl(fd, F_GETFL);

	if (len > LARGEST_WRITE)
		abort();
	memset(before, 0, len);
	if (off < st->st_size)
	{
		char		path[64];
		int			reader = fd;

		/* A file that is open for writing alone, or for direct I/O, is read through another descriptor. */
		if ((flags & O_ACCMODE) != O_RDWR || (flags & O_DIRECT) != 0)
		{
			snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
			reader = libc_open(path, O_RDONLY | O_CLOEXEC);
		}
		if (reader < 0 || libc_pread(reader, before, len, off) < 0)
			abort();
		if (reader != fd)
			(void) syscall(SYS_close, reader);
	}
	note(&record, before);
	if ((flags & (O_SYNC | O_DSYNC)) != 0)
		note_event(st, NEMESIS_SYNC, next_seq(), 0);
}

/* ---- faults ----------------------------------------------------------------- */

static uint32_t
roll(void)
{
	(void) own_log();			/* seeds the dice of this process */
	dice ^= dice << 13;
	dice ^= dice >> 17;
	dice ^= dice << 5;
	return dice;
}

/*
 * Only WAL and relations in tablespaces, which are encrypted here: of a plain relation the server itself takes a
 * short count for an error, and what else fails ends it at once, which is no test of ours.
 */
static bool
is_data_file(int fd)
{
	char		link[64];
	char		path[4096];
	const char *name;
	ssize_t		len;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	len = readlink(link, path, sizeof(path) - 1);
	if (len < 0)
		return false;
	path[len] = '\0';
	name = strrchr(path, '/');
	return name != NULL && name[1] >= '0' && name[1] <= '9' &&
		(strstr(path, "/PG_") != NULL || strstr(path, "/pg_wal/0") != NULL);
}

static bool
strikes(uint32_t odds, int fd)
{
	if (odds == 0 || roll() % 1000000 >= odds || !is_data_file(fd))
		return false;
	__atomic_add_fetch(&control->faults, 1, __ATOMIC_RELAXED);
	return true;
}

/* 0: go on with *len bytes, perhaps fewer than asked for; else the errno to fail with. */
static int
read_fault(int fd, size_t *len)
{
	struct stat st;

	if (control == NULL || (control->short_read | control->read_error) == 0 || !is_ours(fd, &st))
		return 0;
	if (strikes(control->read_error, fd))
		return EIO;
	if (*len > 1 && strikes(control->short_read, fd))
		*len = 1 + roll() % (*len - 1);
	return 0;
}

static int
write_fault(int fd, size_t *len)
{
	if (strikes(control->write_error, fd))
		return EIO;
	if (strikes(control->no_space, fd))
		return ENOSPC;
	if (*len > 1 && strikes(control->short_write, fd))
		*len = 1 + roll() % (*len - 1);
	return 0;
}

/* ---- the functions ------------------------------------------------------------ */

int
open(const char *path, int flags,...)
{
	struct stat st;
	mode_t		mode = 0;
	int			fd;

	resolve();
	if ((flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE)
	{
		va_list		args;

		va_start(args, flags);
		mode = va_arg(args, mode_t);
		va_end(args);
	}
	fd = libc_open(path, flags, mode);
	if (fd > 2 && (flags & (O_CREAT | O_TRUNC)) != 0 && is_ours(fd, &st) && st.st_size == 0)
		note_event(&st, NEMESIS_CREATE, next_seq(), 0);
	return fd;
}

/* What is written through stdio is not seen; but the file may have the number of one that is gone. */
FILE *
fopen(const char *path, const char *mode)
{
	struct stat st;
	FILE	   *file;

	resolve();
	file = libc_fopen(path, mode);
	if (file != NULL && mode[0] == 'w' && is_ours(fileno(file), &st))
		note_event(&st, NEMESIS_CREATE, next_seq(), 0);
	return file;
}

ssize_t
pread(int fd, void *buf, size_t len, off_t off)
{
	int			fault = read_fault(fd, &len);

	resolve();
	if (fault == 0)
		return libc_pread(fd, buf, len, off);
	errno = fault;
	return -1;
}

ssize_t
read(int fd, void *buf, size_t len)
{
	int			fault = read_fault(fd, &len);

	resolve();
	if (fault == 0)
		return libc_read(fd, buf, len);
	errno = fault;
	return -1;
}

ssize_t
pwrite(int fd, const void *buf, size_t len, off_t off)
{
	struct stat st;
	int			fault;

	resolve();
	if (!is_ours(fd, &st))
		return libc_pwrite(fd, buf, len, off);
	fault = write_fault(fd, &len);
	if (fault != 0)
	{
		errno = fault;
		return -1;
	}
	note_write(fd, &st, off, len);
	return libc_pwrite(fd, buf, len, off);
}

ssize_t
write(int fd, const void *buf, size_t len)
{
	struct stat st;
	off_t		off;
	int			fault;

	resolve();
	if (!is_ours(fd, &st))
		return libc_write(fd, buf, len);
	fault = write_fault(fd, &len);
	if (fault != 0)
	{
		errno = fault;
		return -1;
	}
	off = (fcntl(fd, F_GETFL) & O_APPEND) != 0 ? st.st_size : lseek(fd, 0, SEEK_CUR);
	note_write(fd, &st, off, len);
	return libc_write(fd, buf, len);
}

ssize_t
preadv(int fd, const struct iovec *iov, int count, off_t off)
{
	size_t		len = count > 0 ? iov[0].iov_len : 0;
	int			fault = read_fault(fd, &len);

	resolve();
	if (fault != 0)
	{
		errno = fault;
		return -1;
	}
	if (count > 0 && len < iov[0].iov_len)
		return libc_pread(fd, iov[0].iov_base, len, off);
	return libc_preadv(fd, iov, count, off);
}

/* One call for each part; a short one ends it, as with the kernel's. */
ssize_t
pwritev(int fd, const struct iovec *iov, int count, off_t off)
{
	ssize_t		done = 0;

	resolve();
	for (int i = 0; i < count; i++)
	{
		ssize_t		put = pwrite(fd, iov[i].iov_base, iov[i].iov_len, off + done);

		if (put < 0)
			return done > 0 ? done : -1;
		done += put;
		if ((size_t) put < iov[i].iov_len)
			break;
	}
	return done;
}

static int
synced(int (*sync) (int), int fd)
{
	struct stat st;
	uint64_t	seq;
	int			rc;

	if (!is_ours(fd, &st))
		return sync(fd);
	seq = next_seq();			/* what begins from here on is not covered */
	rc = sync(fd);
	if (rc == 0)
		note_event(&st, NEMESIS_SYNC, seq, 0);
	return rc;
}

int
fsync(int fd)
{
	resolve();
	return synced(libc_fsync, fd);
}

int
fdatasync(int fd)
{
	resolve();
	return synced(libc_fdatasync, fd);
}

int
ftruncate(int fd, off_t size)
{
	struct stat st;
	int			rc;

	resolve();
	rc = libc_ftruncate(fd, size);
	if (rc == 0 && is_ours(fd, &st))
		note_event(&st, NEMESIS_TRUNCATE, next_seq(), size);
	return rc;
}

int
truncate(const char *path, off_t size)
{
	struct stat st;
	int			rc;

	resolve();
	rc = libc_truncate(path, size);
	if (rc == 0 && control != NULL && stat(path, &st) == 0)
		note_event(&st, NEMESIS_TRUNCATE, next_seq(), size);
	return rc;
}
