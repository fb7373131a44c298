/*
 * io_mirror.c
 *		The second copy of WAL: what happens to a segment in pg_wal happens to the
 *		file of the same name in the mirror directory too.
 *
 * Bytes go to the mirror after they went to pg_wal, as they are there: ciphertext.  A sync of a
 * segment returns when both files are synced, so a commit that was acknowledged is in both.  Renaming, recycling
 * and removal follow, so the mirror holds the segments that pg_wal holds, and no commit waits
 * for a file to be made or filled.
 *
 * Writers of one segment exclude each other: the server's WALWriteLock, or on a standby the walreceiver being
 * alone.  That guards the note of which segment's mirror is whole ("current").  A mirror that
 * has missed something, because it was paused, has failed or the server was
 * down, belongs to an older generation: the first write then copies the segment.
 *
 * A failure here never fails the server's own call.  It is reported once, and mirroring stops
 * until somebody resumes it.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "io_internal.h"

#define SEGMENT_NAME_LEN	24
#define COPY_CHUNK			(256 * 1024)

/* Segments that this process has open for writing: one, and one more while it goes to the next. */
#define MAX_OPEN			8
static struct mirror_file
{
	char		name[SEGMENT_NAME_LEN + 1];	/* "": not in use */
	int			fd;				/* of the mirror's file, -1 if not open yet */
	int			sync_flags;		/* O_SYNC, O_DSYNC as the server opened it */
	unsigned	generation;		/* in which fd was opened */
} files[MAX_OPEN];

enum wal_file
{
	WAL_OTHER = 0,
	WAL_SEGMENT,
	WAL_PARTIAL,				/* the last segment of a former timeline */
	WAL_HISTORY,
	WAL_TEMP					/* a segment or a history in the making */
};

static bool
is_hex(const char *name, size_t len)
{
	return strspn(name, "0123456789ABCDEF") == len;
}

static enum wal_file
wal_file_kind(const char *name)
{
	if (strncmp(name, "xlogtemp.", 9) == 0)
		return WAL_TEMP;
	if (is_hex(name, SEGMENT_NAME_LEN) && name[SEGMENT_NAME_LEN] == '\0')
		return WAL_SEGMENT;
	if (is_hex(name, SEGMENT_NAME_LEN) && strcmp(name + SEGMENT_NAME_LEN, ".partial") == 0)
		return WAL_PARTIAL;
	if (is_hex(name, 8) && strcmp(name + 8, ".history") == 0)
		return WAL_HISTORY;
	return WAL_OTHER;
}

/* The name of a file in pg_wal; NULL if the path leads elsewhere. */
static const char *
name_in_wal(const char *path)
{
	size_t		len = strlen(pgx_server->data_dir);

	if (strncmp(path, pgx_server->data_dir, len) == 0 && path[len] == '/')
		path += len + 1;
	while (path[0] == '.' && path[1] == '/')
		path += 2;
	if (strncmp(path, "pg_wal/", 7) != 0 || strchr(path + 7, '/') != NULL)
		return NULL;
	return path + 7;
}

static bool
is_on(void)
{
	return pgx_shared != NULL && atomic_load(&pgx_shared->mirror.mode) == PGX_MIRROR_ON;
}

static void
mirror_path(const char *name, char *ret_path, size_t size)
{
	(void) snprintf(ret_path, size, "%s/%s", pgx_shared->mirror.directory, name);
}

/* Stop mirroring, and have it said once.  errno says why. */
void
pgx_mirror_fail(const char *operation, const char *name)
{
	struct pgx_io_mirror *mirror = &pgx_shared->mirror;
	unsigned	on = PGX_MIRROR_ON;
	int			error = errno;

	if (!atomic_compare_exchange_strong(&mirror->mode, &on, PGX_MIRROR_FAILED))
		return;
	(void) snprintf(mirror->failed_operation, sizeof(mirror->failed_operation), "%s", operation);
	(void) snprintf(mirror->failed_name, sizeof(mirror->failed_name), "%s", name);
	mirror->failed_errno = error;
	atomic_store(&mirror->changed_at, (long long) time(NULL));
	atomic_fetch_add(&mirror->failures, 1);
	pgx_server->mirror_failed(operation, name, error);
}

static int
sync_directory(void)
{
	int			fd = pgx_libc.open(pgx_shared->mirror.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int			rc;
	int			error;

	if (fd < 0)
		return -1;
	rc = pgx_libc.fsync(fd);
	error = errno;
	(void) pgx_libc.close(fd);
	errno = error;
	return rc;
}

/* Make the file behind to the same as the one behind from, in place: nothing that is the same ever becomes different. */
static int
copy_content(int from, int to)
{
	static uint8_t chunk[COPY_CHUNK];
	struct stat st;
	off_t		done = 0;
	ssize_t		got;

	while ((got = pgx_raw_pread(from, chunk, sizeof(chunk), done)) > 0)
	{
		if (pgx_raw_pwrite(to, chunk, (size_t) got, done) != got)
			return -1;
		done += got;
	}
	if (got < 0 || fstat(to, &st) != 0)
		return -1;
	return st.st_size > done ? pgx_libc.ftruncate(to, done) : 0;
}

/* Copy pg_wal/NAME into an open file of the mirror. */
static int
copy_into(const char *name, int to)
{
	char		path[64];
	int			from;
	int			rc;
	int			error;

	(void) snprintf(path, sizeof(path), "pg_wal/%s", name);
	from = pgx_libc.open(path, O_RDONLY | O_CLOEXEC);
	if (from < 0)
		return -1;
	rc = copy_content(from, to);
	error = errno;
	(void) pgx_libc.close(from);
	errno = error;
	return rc;
}

static bool
same_content(int one, int two)
{
	static uint8_t chunk_one[COPY_CHUNK / 4];
	static uint8_t chunk_two[COPY_CHUNK / 4];
	off_t		done = 0;
	ssize_t		got;

	do
	{
		got = pgx_raw_pread(one, chunk_one, sizeof(chunk_one), done);
		if (got < 0 || pgx_raw_pread(two, chunk_two, sizeof(chunk_two), done) != got ||
			memcmp(chunk_one, chunk_two, (size_t) got) != 0)
			return false;
		done += got;
	} while (got > 0);
	return true;
}

/* Copy pg_wal/NAME to the mirror's file of that name, durably.  For files that nobody writes at the moment. */
static int
copy_whole(const char *name)
{
	char		path[PGX_MIRROR_PATH];
	int			error;
	int			rc;
	int			to;

	mirror_path(name, path, sizeof(path));
	to = pgx_libc.open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (to < 0)
		return -1;
	rc = copy_into(name, to) == 0 && pgx_libc.fsync(to) == 0 && sync_directory() == 0 ? 0 : -1;
	error = errno;
	(void) pgx_libc.close(to);
	errno = error;
	return rc;
}

/* ---- segments that the server has open -------------------------------------------- */

static void
close_file(struct mirror_file *file)
{
	if (file->fd >= 0)
		(void) pgx_libc.close(file->fd);
	file->fd = -1;
}

void
pgx_mirror_opened(int fd, const char *path, int flags)
{
	const char *name = name_in_wal(path);

	if (pgx_shared == NULL || atomic_load(&pgx_shared->mirror.mode) == PGX_MIRROR_OFF ||
		(flags & O_ACCMODE) == O_RDONLY || name == NULL || wal_file_kind(name) != WAL_SEGMENT)
		return;
	for (int i = 0; i < MAX_OPEN; i++)
	{
		if (files[i].name[0] != '\0')
			continue;
		memcpy(files[i].name, name, sizeof(files[i].name));
		files[i].fd = -1;
		files[i].sync_flags = flags & (O_SYNC | O_DSYNC);
		pgx_files[fd].mirror = (uint8_t) (i + 1);
		return;
	}

	/* No server that we know does this; what it writes would be missing. */
	errno = EMFILE;
	pgx_mirror_fail("open", name);
}

void
pgx_mirror_closed(int fd)
{
	struct mirror_file *file = &files[pgx_files[fd].mirror - 1];
	int			error = errno;

	close_file(file);
	file->name[0] = '\0';
	pgx_files[fd].mirror = 0;
	errno = error;
}

/* Is the mirror of this segment whole, up to what was written last? */
static bool
is_current(const struct mirror_file *file, unsigned generation)
{
	const struct pgx_io_mirror *mirror = &pgx_shared->mirror;

	return mirror->current_generation == generation && strcmp(mirror->current, file->name) == 0;
}

static int
open_file(struct mirror_file *file, unsigned generation, int flags)
{
	char		path[PGX_MIRROR_PATH];

	if (file->fd >= 0 && file->generation == generation)
		return 0;
	close_file(file);
	mirror_path(file->name, path, sizeof(path));
	file->fd = pgx_libc.open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | file->sync_flags | flags, 0600);
	file->generation = generation;
	return file->fd < 0 ? -1 : 0;
}

/* A file that somebody has removed takes writes as before, and keeps none. */
static int
check_there(int fd)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return -1;
	if (st.st_nlink > 0)
		return 0;
	errno = ENOENT;
	return -1;
}

/*
 * The first write to a segment.  If the one before it was mirrored, and this one begins, the file that came with
 * the segment is as good as any; otherwise all that pg_wal has is copied.
 */
static int
begin_segment(struct mirror_file *file, unsigned generation, int fd, const void *buf, size_t len, off_t off)
{
	struct pgx_io_mirror *mirror = &pgx_shared->mirror;
	bool		goes_on = off == 0 && mirror->current_generation == generation;
	struct stat here;
	struct stat there;

	if (open_file(file, generation, O_CREAT) != 0 || fstat(file->fd, &there) != 0 || fstat(fd, &here) != 0)
		return -1;
	if (goes_on && there.st_size == here.st_size)
	{
		if (pgx_raw_pwrite(file->fd, buf, len, off) != (ssize_t) len)
			return -1;
	}
	else if (copy_into(file->name, file->fd) != 0 || sync_directory() != 0)
		return -1;
	mirror->current_generation = 0;
	memcpy(mirror->current, file->name, sizeof(mirror->current));
	mirror->current_generation = generation;
	return 0;
}

void
pgx_mirror_wrote(int fd, const void *buf, size_t len, off_t off)
{
	struct mirror_file *file = &files[pgx_files[fd].mirror - 1];
	int			error = errno;
	unsigned	generation = atomic_load(&pgx_shared->mirror.generation);
	int			rc;

	if (!is_on())
		return;
	if (!is_current(file, generation))
		rc = begin_segment(file, generation, fd, buf, len, off);
	else if (open_file(file, generation, 0) != 0)
		rc = -1;
	else
		rc = pgx_raw_pwrite(file->fd, buf, len, off) == (ssize_t) len ? 0 : -1;

	/* No sync follows such a write. */
	if (rc == 0 && file->sync_flags != 0)
		rc = check_there(file->fd);
	if (rc == 0)
		atomic_fetch_add(&pgx_shared->mirror.bytes, len);
	else
		pgx_mirror_fail("write", file->name);
	errno = error;
}

/*
 * Syncing both files one after the other would double the time of a commit.  The kernel's asynchronous I/O syncs one
 * in the background, without a thread in the server's process, while we sync the other.  Where it cannot
 * be had (an old kernel, a sandbox, fs.aio-max-nr), they are synced in turn.
 */
static aio_context_t aio;
static pid_t aio_owner;			/* a child does not inherit it */
static bool aio_refused;

static bool
begin_sync(int fd, bool data_only)
{
	struct iocb request;
	struct iocb *requests[1] = {&request};

	if (aio_owner != getpid())
	{
		aio = 0;
		aio_owner = getpid();
		aio_refused = syscall(SYS_io_setup, 1, &aio) != 0;
	}
	if (aio_refused)
		return false;
	memset(&request, 0, sizeof(request));
	request.aio_fildes = (uint32_t) fd;
	request.aio_lio_opcode = data_only ? IOCB_CMD_FDSYNC : IOCB_CMD_FSYNC;
	aio_refused = syscall(SYS_io_submit, aio, 1, requests) != 1;
	return !aio_refused;
}

/* Wait for what begin_sync() began: 0, or -1 with errno set. */
static int
end_sync(void)
{
	struct io_event event;
	long		n;

	do
		n = syscall(SYS_io_getevents, aio, 1, 1, &event, NULL);
	while (n < 0 && errno == EINTR);
	if (n != 1)
		return -1;
	if (event.res == 0)
		return 0;
	errno = (int) -event.res;
	return -1;
}

/* Sync both. */
int
pgx_mirror_sync(int fd, int (*sync) (int))
{
	struct mirror_file *file = &files[pgx_files[fd].mirror - 1];
	unsigned	generation = atomic_load(&pgx_shared->mirror.generation);
	bool		both = is_on() && is_current(file, generation);
	bool		begun;
	int			rc;
	int			error;

	if (both && open_file(file, generation, 0) != 0)
	{
		pgx_mirror_fail("open", file->name);
		both = false;
	}
	begun = both && begin_sync(file->fd, sync == pgx_libc.fdatasync);
	rc = sync(fd);
	error = errno;
	if (both)
	{
		if ((begun ? end_sync() : sync(file->fd)) != 0 || check_there(file->fd) != 0)
			pgx_mirror_fail("fsync", file->name);
		else
			atomic_fetch_add(&pgx_shared->mirror.syncs, 1);
	}
	errno = error;
	return rc;
}

/* ---- names ------------------------------------------------------------------------ */

/* The server has given a file of pg_wal another name, or one more that is to replace the old one. */
void
pgx_mirror_renamed(const char *from_path, const char *to_path)
{
	char		from_there[PGX_MIRROR_PATH];
	char		to_there[PGX_MIRROR_PATH];
	const char *from = name_in_wal(from_path);
	const char *to = name_in_wal(to_path);
	enum wal_file from_kind;
	enum wal_file to_kind;
	int			error = errno;
	int			rc = 0;

	if (!is_on() || from == NULL || to == NULL)
		return;
	from_kind = wal_file_kind(from);
	to_kind = wal_file_kind(to);
	mirror_path(from, from_there, sizeof(from_there));
	mirror_path(to, to_there, sizeof(to_there));

	/* What comes from the archive need not be mirrored. */
	if (from_kind == WAL_TEMP && to_kind != WAL_OTHER)
		rc = copy_whole(to);
	else if (from_kind == WAL_SEGMENT && to_kind != WAL_OTHER)
	{
		rc = pgx_libc.rename(from_there, to_there);
		if (rc != 0 && errno == ENOENT)
		{
			/* It was never mirrored.  Nothing else may pass for it. */
			rc = pgx_libc.unlink(to_there);
			if (rc != 0 && errno == ENOENT)
				rc = 0;
		}
		if (rc == 0)
			rc = sync_directory();
	}
	if (rc != 0)
		pgx_mirror_fail("rename", to);
	errno = error;
}

void
pgx_mirror_unlinked(const char *path)
{
	char		there[PGX_MIRROR_PATH];
	const char *name = name_in_wal(path);
	int			error = errno;

	if (!is_on() || name == NULL ||
		(wal_file_kind(name) != WAL_SEGMENT && wal_file_kind(name) != WAL_PARTIAL))
		return;
	mirror_path(name, there, sizeof(there));
	if (pgx_libc.unlink(there) != 0 && errno != ENOENT)
		pgx_mirror_fail("unlink", name);
	errno = error;
}

/* ---- catching up, for the module ------------------------------------------------------ */

static bool
same_file(const char *path, const struct stat *st)
{
	struct stat now;

	return stat(path, &now) == 0 && now.st_dev == st->st_dev && now.st_ino == st->st_ino;
}

/* Put a copy of an open file of pg_wal into the mirror under a name for the time being, then under its own. */
static int
replace_file(int from, const char *name)
{
	char		temp_name[32];
	char		temp[PGX_MIRROR_PATH];
	char		there[PGX_MIRROR_PATH];
	int			error;
	int			rc;
	int			to;

	(void) snprintf(temp_name, sizeof(temp_name), PGX_MIRROR_COPYING "%d", (int) getpid());
	mirror_path(temp_name, temp, sizeof(temp));
	mirror_path(name, there, sizeof(there));
	to = pgx_libc.open(temp, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (to < 0)
		return -1;
	rc = copy_content(from, to) == 0 && pgx_libc.fsync(to) == 0 &&
		pgx_libc.rename(temp, there) == 0 && sync_directory() == 0 ? 0 : -1;
	error = errno;
	(void) pgx_libc.close(to);
	if (rc != 0)
		(void) pgx_libc.unlink(temp);
	errno = error;
	return rc;
}

/*
 * Make the mirror of a file that the server does not write any more the same as pg_wal's.  1: it was
 * copied; 0: it is the same, or pg_wal has no such file any more; -1 with errno set.
 */
int
pgx_mirror_refresh(const char *name)
{
	char		here[64];
	char		there[PGX_MIRROR_PATH];
	struct stat st;
	bool		same;
	int			from;
	int			to;
	int			rc = 0;
	int			error;

	(void) snprintf(here, sizeof(here), "pg_wal/%s", name);
	mirror_path(name, there, sizeof(there));
	from = pgx_libc.open(here, O_RDONLY | O_CLOEXEC);
	if (from < 0)
		return errno == ENOENT ? 0 : -1;
	if (fstat(from, &st) != 0)
		rc = -1;
	to = pgx_libc.open(there, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	same = to >= 0 && same_content(from, to);
	if (to >= 0)
		(void) pgx_libc.close(to);
	if (rc == 0 && !same)
		rc = replace_file(from, name) == 0 ? 1 : -1;
	error = errno;
	(void) pgx_libc.close(from);

	/* Recycled meanwhile: what was copied may be of the segment that the file is now. */
	if (rc == 1 && !same_file(here, &st))
	{
		(void) pgx_libc.unlink(there);
		rc = 0;
	}
	errno = error;
	return rc;
}

/* The same for the segment that is being written, by whoever keeps all others from writing it. */
int
pgx_mirror_begin(const char *name)
{
	struct pgx_io_mirror *mirror = &pgx_shared->mirror;
	unsigned	generation = atomic_load(&mirror->generation);
	char		here[64];

	if (mirror->current_generation == generation)
		return 0;
	(void) snprintf(here, sizeof(here), "pg_wal/%s", name);
	if (access(here, F_OK) != 0)
		return errno == ENOENT ? 0 : -1;	/* its first write will do it */
	if (copy_whole(name) != 0)
		return -1;
	(void) snprintf(mirror->current, sizeof(mirror->current), "%s", name);
	mirror->current_generation = generation;
	return 1;
}
