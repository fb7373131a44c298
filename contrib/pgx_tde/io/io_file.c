/*
 * io_file.c
 *		The functions that stand in front of the C library's, and the table of
 *		open files.
 *
 * A descriptor that is not ours costs one comparison.  The server's processes
 * have one thread; signal handlers write to pipes only, which are not ours.
 */
#include <config.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io_internal.h"

struct pgx_io_libc pgx_libc;
struct pgx_io_file pgx_files[PGX_IO_MAX_FD];

/* Not in a header here: the fortified read() of programs built with _FORTIFY_SOURCE. */
extern ssize_t __read_chk(int fd, void *buf, size_t len, size_t buflen);
extern void __chk_fail(void) __attribute__((noreturn));

static void *
next_symbol(const char *name)
{
	void	   *p = dlsym(RTLD_NEXT, name);

	if (p == NULL)
		abort();				/* no C library without these */
	return p;
}

void
pgx_io_resolve_libc(void)
{
	if (pgx_libc.open != NULL)
		return;
	*(void **) &pgx_libc.close = next_symbol("close");
	*(void **) &pgx_libc.read = next_symbol("read");
	*(void **) &pgx_libc.write = next_symbol("write");
	*(void **) &pgx_libc.pread = next_symbol("pread");
	*(void **) &pgx_libc.pwrite = next_symbol("pwrite");
	*(void **) &pgx_libc.preadv = next_symbol("preadv");
	*(void **) &pgx_libc.pwritev = next_symbol("pwritev");
	*(void **) &pgx_libc.copy_file_range = next_symbol("copy_file_range");
	*(void **) &pgx_libc.ftruncate = next_symbol("ftruncate");
	*(void **) &pgx_libc.fsync = next_symbol("fsync");
	*(void **) &pgx_libc.fdatasync = next_symbol("fdatasync");
	*(void **) &pgx_libc.rename = next_symbol("rename");
	*(void **) &pgx_libc.link = next_symbol("link");
	*(void **) &pgx_libc.unlink = next_symbol("unlink");
	*(void **) &pgx_libc.open = next_symbol("open");
}

/* Read until len bytes, end of file or an error; -1 only if nothing came. */
ssize_t
pgx_raw_pread(int fd, void *buf, size_t len, off_t off)
{
	size_t		done = 0;

	while (done < len)
	{
		ssize_t		got = pgx_libc.pread(fd, (char *) buf + done, len - done, off + (off_t) done);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return done > 0 ? (ssize_t) done : -1;
		if (got == 0)
			break;
		done += (size_t) got;
	}
	return (ssize_t) done;
}

/* Write until len bytes or an error; less than len means that errno says why. */
ssize_t
pgx_raw_pwrite(int fd, const void *buf, size_t len, off_t off)
{
	size_t		done = 0;

	while (done < len)
	{
		ssize_t		put = pgx_libc.pwrite(fd, (const char *) buf + done, len - done,
										  off + (off_t) done);

		if (put < 0 && errno == EINTR)
			continue;
		if (put == 0)
			errno = ENOSPC;
		if (put <= 0)
			return done > 0 ? (ssize_t) done : -1;
		done += (size_t) put;
	}
	return (ssize_t) done;
}

/* Of kind PGX_IO_NONE too: a walreceiver's segments. */
static bool
is_mirrored(int fd)
{
	return (unsigned) fd < PGX_IO_MAX_FD && pgx_files[fd].mirror != 0;
}

static enum pgx_io_kind
kind_of(int fd)
{
	if ((unsigned) fd >= PGX_IO_MAX_FD)
		return PGX_IO_NONE;
	return (enum pgx_io_kind) pgx_files[fd].kind;
}

static ssize_t
pread_as(enum pgx_io_kind kind, int fd, void *buf, size_t len, off_t off)
{
	if (kind == PGX_IO_RELATION)
		return pgx_relation_pread(fd, buf, len, off);
	if (kind == PGX_IO_TEMP)
		return pgx_temp_pread(fd, buf, len, off);
	return pgx_wal_pread(fd, buf, len, off);
}

static ssize_t
pwrite_as(enum pgx_io_kind kind, int fd, const void *buf, size_t len, off_t off)
{
	if (kind == PGX_IO_RELATION)
		return pgx_relation_pwrite(fd, buf, len, off);
	if (kind == PGX_IO_TEMP)
		return pgx_temp_pwrite(fd, buf, len, off);
	return pgx_wal_pwrite(fd, buf, len, off);
}

/*
 * A tablespace got its key.  Recovery looks ahead and may have opened its files before the record with the
 * key was replayed.
 */
void
pgx_io_tablespace_keyed(uint32_t tablespace, int slot)
{
	for (int fd = 0; fd < PGX_IO_MAX_FD; fd++)
	{
		if (pgx_files[fd].kind == PGX_IO_NONE && pgx_files[fd].tablespace == tablespace)
		{
			pgx_files[fd].slot = (uint16_t) slot;
			pgx_files[fd].kind = PGX_IO_RELATION;
		}
	}
}

/* What a file that is about to be opened will be; PGX_IO_NONE if it is passed through. */
static void
describe_file(const char *path, int flags, struct pgx_io_file *ret_file)
{
	struct pgx_io_path is;
	int			slot = 0;

	memset(ret_file, 0, sizeof(*ret_file));
	if (pgx_in_server)
		pgx_io_classify(path, pgx_server->data_dir, &is);
	else
		pgx_io_classify_wal(path, &is);
	if (is.kind == PGX_IO_NONE || pgx_server->is_raw(is.kind, flags))
		return;
	if (!pgx_in_server && !pgx_frontend_is_ours(path))
		return;
	if (is.kind == PGX_IO_RELATION)
	{
		ret_file->tablespace = is.tablespace;
		ret_file->database = is.database;
		ret_file->relation = is.relation;
		ret_file->fork = (uint8_t) is.fork;
		ret_file->first_block = is.segment * TDE_SEGMENT_PAGES;
		slot = pgx_io_find_key(TDE_KEY_TABLESPACE, is.tablespace);
	}
	else if (is.kind == PGX_IO_TEMP)
	{
		ret_file->temp_id = pgx_temp_file_id(path);
		ret_file->counted = is.spill ? PGX_COUNT_SPILL : PGX_COUNT_TEMP;
		slot = pgx_io_find_key(PGX_IO_KEY_TEMP, 0);
	}
	if (slot < 0 || (is.kind == PGX_IO_RELATION && pgx_shared->keys[slot].alg == TDE_NONE))
		return;
	ret_file->slot = (uint16_t) slot;
	ret_file->kind = (uint8_t) is.kind;
}

/* Open a file of ours, or that may become one of ours. */
static int
open_described(const char *path, int flags, mode_t mode)
{
	struct pgx_io_file file;
	bool		append = false;
	int			fd;

	describe_file(path, flags, &file);
	if (file.kind == PGX_IO_TEMP && (flags & O_ACCMODE) == O_WRONLY)
	{
		/* Appending to a unit means to read and write it; the server opens such a file to append only. */
		append = (flags & O_APPEND) != 0;
		flags = (flags & ~(O_ACCMODE | O_APPEND)) | O_RDWR;
	}
	fd = pgx_libc.open(path, flags, mode);
	if (fd < 0)
		return fd;
	/* An empty tablespace may just have got another key; since there is a file, that is over. */
	if (file.tablespace != 0)
		describe_file(path, flags, &file);
	if (fd < PGX_IO_MAX_FD)
		pgx_files[fd] = file;
	else if (file.kind != PGX_IO_NONE)
	{
		(void) pgx_libc.close(fd);
		errno = EMFILE;
		return -1;
	}
	if (pgx_in_server && fd < PGX_IO_MAX_FD)
		pgx_mirror_opened(fd, path, flags);
	if (append)
		(void) lseek(fd, 0, SEEK_END);	/* cannot fail on a regular file */
	return fd;
}

int
open(const char *path, int flags,...)
{
	mode_t		mode = 0;

	if (pgx_libc.open == NULL)
		pgx_io_resolve_libc();
	if ((flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE)
	{
		va_list		args;

		va_start(args, flags);
		mode = va_arg(args, mode_t);
		va_end(args);
	}
	return pgx_server != NULL ? open_described(path, flags, mode) : pgx_libc.open(path, flags, mode);
}

int
close(int fd)
{
	if (pgx_libc.open == NULL)
		pgx_io_resolve_libc();
	if ((unsigned) fd < PGX_IO_MAX_FD)
	{
		pgx_files[fd].kind = PGX_IO_NONE;
		pgx_files[fd].tablespace = 0;
		if (pgx_files[fd].mirror != 0)
			pgx_mirror_closed(fd);
	}
	return pgx_libc.close(fd);
}

ssize_t
pread(int fd, void *buf, size_t len, off_t off)
{
	enum pgx_io_kind kind = kind_of(fd);

	if (kind != PGX_IO_NONE)
		return pread_as(kind, fd, buf, len, off);
	if (pgx_libc.open == NULL)
		pgx_io_resolve_libc();
	return pgx_libc.pread(fd, buf, len, off);
}

ssize_t
pwrite(int fd, const void *buf, size_t len, off_t off)
{
	enum pgx_io_kind kind = kind_of(fd);
	ssize_t		put;

	if (kind != PGX_IO_NONE)
		return pwrite_as(kind, fd, buf, len, off);
	if (pgx_libc.open == NULL)
		pgx_io_resolve_libc();
	put = pgx_libc.pwrite(fd, buf, len, off);
	if (put > 0 && is_mirrored(fd))
		pgx_mirror_wrote(fd, buf, (size_t) put, off);
	return put;
}

int
fsync(int fd)
{
	if (pgx_libc.open == NULL)
		pgx_io_resolve_libc();
	return is_mirrored(fd) ? pgx_mirror_sync(fd, pgx_libc.fsync) : pgx_libc.fsync(fd);
}

int
fdatasync(int fd)
{
	if (pgx_libc.open == NULL)
		pgx_io_resolve_libc();
	return is_mirrored(fd) ? pgx_mirror_sync(fd, pgx_libc.fdatasync) : pgx_libc.fdatasync(fd);
}

/* Names matter to the mirror of WAL only. */
int
rename(const char *from, const char *to)
{
	if (pgx_libc.open == NULL)
		pgx_io_resolve_libc();
	if (pgx_in_server && pgx_server != NULL)
		return pgx_mirror_rename(from, to, pgx_libc.rename);
	return pgx_libc.rename(from, to);
}

/* Up to 15 the server gives a file of WAL its new name so, and then removes the old one. */
int
link(const char *from, const char *to)
{
	if (pgx_libc.open == NULL)
		pgx_io_resolve_libc();
	if (pgx_in_server && pgx_server != NULL)
		return pgx_mirror_rename(from, to, pgx_libc.link);
	return pgx_libc.link(from, to);
}

int
unlink(const char *path)
{
	int			rc;

	if (pgx_libc.open == NULL)
		pgx_io_resolve_libc();
	rc = pgx_libc.unlink(path);
	if (rc == 0 && pgx_in_server && pgx_server != NULL)
		pgx_mirror_unlinked(path);
	return rc;
}

int
ftruncate(int fd, off_t size)
{
	if (kind_of(fd) == PGX_IO_TEMP)
		return pgx_temp_ftruncate(fd, size);
	if (pgx_libc.open == NULL)
		pgx_io_resolve_libc();
	return pgx_libc.ftruncate(fd, size);
}

/*
 * What the kernel copies by itself has been encrypted for the file that it comes from.  From 18 on the server
 * can be told to do so; the module refuses the setting, and this is for whatever it does not know of.
 */
ssize_t
copy_file_range(int in, off_t *in_off, int out, off_t *out_off, size_t len, unsigned flags)
{
	if (kind_of(in) != PGX_IO_NONE || kind_of(out) != PGX_IO_NONE)
	{
		errno = EOPNOTSUPP;
		return -1;
	}
	if (pgx_libc.open == NULL)
		pgx_io_resolve_libc();
	return pgx_libc.copy_file_range(in, in_off, out, out_off, len, flags);
}

/* read() and write() on a file of ours: the same, at the descriptor's position. */
static ssize_t
at_position(enum pgx_io_kind kind, int fd, void *to, const void *from, size_t len)
{
	off_t		off = lseek(fd, 0, SEEK_CUR);
	ssize_t		n;

	if (off < 0)
		return -1;
	n = to != NULL ? pread_as(kind, fd, to, len, off) : pwrite_as(kind, fd, from, len, off);
	if (n > 0 && lseek(fd, off + n, SEEK_SET) < 0)
		return -1;
	return n;
}

ssize_t
read(int fd, void *buf, size_t len)
{
	enum pgx_io_kind kind = kind_of(fd);

	if (kind != PGX_IO_NONE)
		return at_position(kind, fd, buf, NULL, len);
	if (pgx_libc.open == NULL)
		pgx_io_resolve_libc();
	return pgx_libc.read(fd, buf, len);
}

ssize_t
__read_chk(int fd, void *buf, size_t len, size_t buflen)
{
	if (len > buflen)
		__chk_fail();
	return read(fd, buf, len);
}

ssize_t
write(int fd, const void *buf, size_t len)
{
	enum pgx_io_kind kind = kind_of(fd);

	if (kind != PGX_IO_NONE)
		return at_position(kind, fd, NULL, buf, len);
	if (pgx_libc.open == NULL)
		pgx_io_resolve_libc();
	return pgx_libc.write(fd, buf, len);
}

ssize_t
preadv(int fd, const struct iovec *iov, int count, off_t off)
{
	enum pgx_io_kind kind = kind_of(fd);
	ssize_t		done = 0;

	if (kind == PGX_IO_NONE)
	{
		if (pgx_libc.open == NULL)
			pgx_io_resolve_libc();
		return pgx_libc.preadv(fd, iov, count, off);
	}
	for (int i = 0; i < count; i++)
	{
		ssize_t		n = pread_as(kind, fd, iov[i].iov_base, iov[i].iov_len, off + done);

		if (n < 0)
			return done > 0 ? done : -1;
		done += n;
		if ((size_t) n < iov[i].iov_len)
			break;
	}
	return done;
}

ssize_t
pwritev(int fd, const struct iovec *iov, int count, off_t off)
{
	enum pgx_io_kind kind = kind_of(fd);
	ssize_t		done = 0;

	if (kind == PGX_IO_NONE)
	{
		if (pgx_libc.open == NULL)
			pgx_io_resolve_libc();
		return pgx_libc.pwritev(fd, iov, count, off);
	}
	for (int i = 0; i < count; i++)
	{
		ssize_t		n = pwrite_as(kind, fd, iov[i].iov_base, iov[i].iov_len, off + done);

		if (n < 0)
			return done > 0 ? done : -1;
		done += n;
		if ((size_t) n < iov[i].iov_len)
			break;
	}
	return done;
}
