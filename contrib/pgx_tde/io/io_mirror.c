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
 * until somebody resumes it; or, where no commit may do without the mirror, every process that would
 * write or sync WAL from then on is stopped by the module.
 *
 * Copying is in io_mirror_copy.c, names are in io_mirror_names.c.
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

#include "io_mirror.h"

/* Segments that this process has open for writing: one, and one more while it goes to the next. */
#define MAX_OPEN			8
static struct mirror_file
{
	char		name[PGX_WAL_NAME_LEN + 1];	/* "": not in use */
	int			fd;				/* of the mirror's file, -1 if not open yet */
	int			sync_flags;		/* O_SYNC, O_DSYNC as the server opened it */
	unsigned	generation;		/* in which fd was opened */
} files[MAX_OPEN];

bool
pgx_mirror_is_on(void)
{
	return pgx_shared != NULL && atomic_load(&pgx_shared->mirror.mode) == PGX_MIRROR_ON;
}

/* A failure that all processes are restarted for.  Until that has come to this one, it must not go on. */
static void
stop_if_restarting(void)
{
	if (atomic_load(&pgx_shared->mirror.mode) == PGX_MIRROR_RESTARTING)
		pgx_server->mirror_failed(NULL, NULL, 0);
}

void
pgx_mirror_path(const char *name, char *ret_path, size_t size)
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

	if (!atomic_compare_exchange_strong(&mirror->mode, &on, pgx_server->mirror_is_vital() ?
										PGX_MIRROR_RESTARTING : PGX_MIRROR_FAILED))
	{
		stop_if_restarting();
		return;
	}
	(void) snprintf(mirror->failed_operation, sizeof(mirror->failed_operation), "%s", operation);
	(void) snprintf(mirror->failed_name, sizeof(mirror->failed_name), "%s", name);
	mirror->failed_errno = error;
	atomic_store(&mirror->changed_at, (long long) time(NULL));
	atomic_fetch_add(&mirror->failures, 1);
	pgx_server->mirror_failed(operation, name, error);
}

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
	const char *name = pgx_name_in_wal(path);

	if (pgx_shared == NULL || atomic_load(&pgx_shared->mirror.mode) == PGX_MIRROR_OFF ||
		(flags & O_ACCMODE) == O_RDONLY || name == NULL || pgx_wal_file_kind(name) != PGX_WAL_SEGMENT)
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
	pgx_mirror_path(file->name, path, sizeof(path));
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
	else if (pgx_mirror_copy_into(file->name, file->fd) != 0 || pgx_mirror_sync_directory() != 0)
		return -1;

	/* The end of the segment before may have been written when nobody mirrored, and synced just now. */
	if (off == 0 && !goes_on)
		atomic_fetch_add(&mirror->asked, 1);
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

	if (!pgx_mirror_is_on())
	{
		stop_if_restarting();
		return;
	}
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
	{
		/* What was begun may end later, and would be taken for the end of another one. */
		aio_refused = true;
		return -1;
	}
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
	bool		both = pgx_mirror_is_on() && is_current(file, generation);
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
	else
		stop_if_restarting();
	errno = error;
	return rc;
}
