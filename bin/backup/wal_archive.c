/*
 * wal_archive.c
 *		Archiving one WAL file, durably.  See wal_archive.h.
 *
 * PostgreSQL calls an archive command again whenever it cannot be sure that it succeeded, also after a crash of the
 * machine.  So a file that is already there is the usual case after a crash, and then it may not have reached the
 * disk yet: it is synced again before it counts.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "wal.h"
#include "wal_archive.h"

#define BUFFER_LEN			(1024 * 1024)
#define NAME_LEN			24	/* hexadecimal digits of a segment's name */
#define MIN_SEGMENT			(1024 * 1024)
#define MAX_SEGMENT			(1024 * 1024 * 1024)
#define SEGMENT_SIZE_OFFSET 32	/* in a long page header, see pgx_tde_formats(5) */

struct job
{
	const char *from;
	const char *to;
	bool		verify;
	char	   *err;
	size_t		err_len;
	uint8_t    *buf;			/* BUFFER_LEN, and as much again */
	struct stat source;
};

/* Tell why; always false.  %m works. */
static bool __attribute__((format(printf, 2, 3)))
fail(struct job *job, const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	vsnprintf(job->err, job->err_len, fmt, args);
	va_end(args);
	return false;
}

/* Read len bytes at off; less at the end of the file; -1 with errno set. */
static ssize_t
read_at(int fd, void *buf, size_t len, off_t off)
{
	size_t		done = 0;

	while (done < len)
	{
		ssize_t		n = pread(fd, (char *) buf + done, len - done, off + (off_t) done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		done += (size_t) n;
	}
	return (ssize_t) done;
}

static const char *
base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash != NULL ? slash + 1 : path;
}

/* ---- is it a segment? ------------------------------------------------------------ */

static bool
is_segment_name(const char *name)
{
	return strlen(name) == NAME_LEN && strspn(name, "0123456789ABCDEF") == NAME_LEN;
}

static uint32_t
hex8(const char *digits)
{
	char		text[9];

	memcpy(text, digits, 8);
	text[8] = '\0';
	return (uint32_t) strtoul(text, NULL, 16);
}

static bool
is_zero(const uint8_t *page)
{
	return page[0] == 0 && memcmp(page, page + 1, TDE_WAL_PAGE_SIZE - 1) == 0;
}

/* What the checks of a segment's pages go by. */
struct expectation
{
	uint64_t	address;		/* of the next page */
	uint32_t	timeline;		/* of the name: pages may be of an older one */
	uint16_t	magic;			/* of the first page */
	bool		ended;			/* a page of zeros was there: the segment was switched */
};

static bool
check_page(struct job *job, const uint8_t *page, struct expectation *expect)
{
	struct tde_wal_header header;
	bool		first = expect->magic == 0;

	if (is_zero(page) && !first)
		expect->ended = true;
	else
	{
		if (first)
			memcpy(&expect->magic, page, sizeof(expect->magic));
		if (expect->ended || expect->magic == 0 || !tde_wal_parse(page, expect->magic, &header) ||
			header.address != expect->address || header.timeline > expect->timeline)
			return fail(job, "WAL segment \"%s\" is damaged: the page for LSN %X/%X is not there",
						job->from, (unsigned) (expect->address >> 32), (unsigned) expect->address);
	}
	expect->address += TDE_WAL_PAGE_SIZE;
	return true;
}

static bool
check_segment(struct job *job, int in)
{
	const char *name = base_name(job->to);
	off_t		size = job->source.st_size;
	uint32_t	noted;
	struct expectation expect = {0};

	if (size < MIN_SEGMENT || size > MAX_SEGMENT || (size & (size - 1)) != 0)
		return fail(job, "WAL segment \"%s\" has a size of %lld bytes", job->from, (long long) size);
	expect.timeline = hex8(name);
	expect.address = ((uint64_t) hex8(name + 8) << 32) + (uint64_t) hex8(name + 16) * (uint64_t) size;
	for (off_t off = 0; off < size; off += BUFFER_LEN)
	{
		if (read_at(in, job->buf, BUFFER_LEN, off) != BUFFER_LEN)
			return fail(job, "could not read file \"%s\": %m", job->from);
		for (size_t i = 0; i < BUFFER_LEN; i += TDE_WAL_PAGE_SIZE)
		{
			if (!check_page(job, job->buf + i, &expect))
				return false;
		}
		if (off > 0)
			continue;
		memcpy(&noted, job->buf + SEGMENT_SIZE_OFFSET, sizeof(noted));
		if (noted != (uint32_t) size)
			return fail(job, "WAL segment \"%s\" says that it has %u bytes, but it has %lld", job->from, noted,
						(long long) size);
	}
	return true;
}

/* ---- comparing ----------------------------------------------------------------------- */

/* 1: the same, 0: not; -1 after a message. */
static int
compare(struct job *job, int in, int there, const char *there_name)
{
	struct stat st;
	uint8_t    *other = job->buf + BUFFER_LEN;

	if (fstat(there, &st) != 0)
	{
		(void) fail(job, "could not stat file \"%s\": %m", there_name);
		return -1;
	}
	if (st.st_size != job->source.st_size)
		return 0;
	for (off_t off = 0; off < st.st_size; off += BUFFER_LEN)
	{
		ssize_t		n = read_at(in, job->buf, BUFFER_LEN, off);
		ssize_t		m = read_at(there, other, BUFFER_LEN, off);

		if (n < 0 || m < 0)
		{
			(void) fail(job, "could not read file \"%s\": %m", n < 0 ? job->from : there_name);
			return -1;
		}
		if (n != m || memcmp(job->buf, other, (size_t) n) != 0)
			return 0;
	}
	return 1;
}

static bool
sync_directory(struct job *job)
{
	const char *slash = strrchr(job->to, '/');
	char	   *dir = slash == NULL ? strdup(".") : strndup(job->to, (size_t) (slash - job->to) + 1);
	int			fd = dir != NULL ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	bool		ok = fd >= 0 && fsync(fd) == 0;

	if (!ok)
		(void) fail(job, "could not fsync directory \"%s\": %m", dir != NULL ? dir : "");
	if (fd >= 0)
		(void) close(fd);
	free(dir);
	return ok;
}

/* The name is taken: fine if it is by what we were to put there. */
static bool
accept_existing(struct job *job, int in)
{
	int			fd = open(job->to, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int			same;
	bool		ok = false;

	if (fd < 0)
		return fail(job, "could not open file \"%s\": %m", job->to);
	same = compare(job, in, fd, job->to);
	if (same == 0)
		(void) fail(job, "file \"%s\" is there already and has other content", job->to);
	else if (same > 0 && fsync(fd) != 0)
		(void) fail(job, "could not fsync file \"%s\": %m", job->to);
	else if (same > 0)
		ok = sync_directory(job);
	(void) close(fd);
	return ok;
}

/* ---- copying --------------------------------------------------------------------------- */

/*
 * Open and lock the temporary file.  Whoever had it before may have given it its name, or removed it, while we
 * waited for the lock: then what we have locked is not the temporary file any more.
 */
static int
open_temporary(struct job *job, const char *temp)
{
	for (;;)
	{
		int			fd = open(temp, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		struct stat ours;
		struct stat there;

		if (fd < 0)
		{
			(void) fail(job, "could not create file \"%s\": %m", temp);
			return -1;
		}
		while (flock(fd, LOCK_EX) != 0)
		{
			if (errno == EINTR)
				continue;
			(void) fail(job, "could not lock file \"%s\": %m", temp);
			(void) close(fd);
			return -1;
		}
		if (fstat(fd, &ours) == 0 && stat(temp, &there) == 0 &&
			ours.st_dev == there.st_dev && ours.st_ino == there.st_ino)
			return fd;
		(void) close(fd);
	}
}

static bool
write_copy(struct job *job, int in, int out, const char *temp)
{
	off_t		off = 0;

	if (ftruncate(out, 0) != 0)
		return fail(job, "could not truncate file \"%s\": %m", temp);
	for (;;)
	{
		ssize_t		n = read_at(in, job->buf, BUFFER_LEN, off);
		ssize_t		done = 0;

		if (n < 0)
			return fail(job, "could not read file \"%s\": %m", job->from);
		if (n == 0)
			break;
		while (done < n)
		{
			ssize_t		put = pwrite(out, job->buf + done, (size_t) (n - done), off + done);

			if (put < 0 && errno == EINTR)
				continue;
			if (put == 0)
				errno = ENOSPC;
			if (put <= 0)
				return fail(job, "could not write file \"%s\": %m", temp);
			done += put;
		}
		off += n;
	}
	if (off != job->source.st_size)
		return fail(job, "file \"%s\" changed its size while it was copied", job->from);
	if (fsync(out) != 0)
		return fail(job, "could not fsync file \"%s\": %m", temp);
	return true;
}

/* What the disk has, as far as the kernel lets us see: its cached copy is dropped first. */
static bool
read_back(struct job *job, int in, int out, const char *temp)
{
	int			same;

	(void) posix_fadvise(out, 0, 0, POSIX_FADV_DONTNEED);
	same = compare(job, in, out, temp);
	if (same == 0)
		return fail(job, "file \"%s\" was written but does not read back the same", temp);
	return same > 0;
}

/* Give it its name, unless somebody else has given that to another file meanwhile: 1, 0; -1 after a message. */
static int
publish(struct job *job, const char *temp)
{
	if (renameat2(AT_FDCWD, temp, AT_FDCWD, job->to, RENAME_NOREPLACE) == 0)
		return 1;
	if (errno == EINVAL || errno == ENOSYS)
	{
		/* A file system that cannot do this; a second name instead of another one is as good. */
		if (link(temp, job->to) == 0)
		{
			(void) unlink(temp);
			return 1;
		}
	}
	if (errno == EEXIST)
		return 0;
	(void) fail(job, "could not rename file \"%s\" to \"%s\": %m", temp, job->to);
	return -1;
}

static bool
copy_file(struct job *job, int in)
{
	size_t		temp_len = strlen(job->to) + sizeof(".pgx_tmp");
	char	   *temp = malloc(temp_len);
	int			published = -1;
	int			out;
	bool		ok = false;

	if (temp == NULL)
		return fail(job, "out of memory");
	snprintf(temp, temp_len, "%s.pgx_tmp", job->to);
	out = open_temporary(job, temp);
	if (out < 0)
		goto out;
	ok = write_copy(job, in, out, temp) && (!job->verify || read_back(job, in, out, temp));
	if (ok)
		published = publish(job, temp);
	if (published != 1)
		(void) unlink(temp);	/* still ours: we have its lock */
	if (published == 1)
		ok = sync_directory(job);
	else
		ok = published == 0 && accept_existing(job, in);

out:
	if (out >= 0)
		(void) close(out);		/* synced already */
	free(temp);
	return ok;
}

bool
pgx_wal_archive(const char *from, const char *to, bool verify, char *err, size_t err_len)
{
	struct job	job = {.from = from,.to = to,.verify = verify,.err = err,.err_len = err_len};
	struct stat st;
	int			in = open(from, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	bool		ok = false;

	if (in < 0)
		return fail(&job, "could not open file \"%s\": %m", from);
	job.buf = malloc(2 * BUFFER_LEN);
	if (job.buf == NULL)
		(void) fail(&job, "out of memory");
	else if (fstat(in, &job.source) != 0)
		(void) fail(&job, "could not stat file \"%s\": %m", from);
	else if (!S_ISREG(job.source.st_mode))
		(void) fail(&job, "\"%s\" is not a regular file", from);
	else if (verify && is_segment_name(base_name(to)) && !check_segment(&job, in))
		ok = false;
	else if (lstat(to, &st) == 0)
		ok = accept_existing(&job, in);
	else if (errno != ENOENT)
		(void) fail(&job, "could not stat file \"%s\": %m", to);
	else
		ok = copy_file(&job, in);
	free(job.buf);
	(void) close(in);			/* opened for reading only */
	return ok;
}
