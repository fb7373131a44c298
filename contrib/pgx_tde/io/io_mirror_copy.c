/*
 * io_mirror_copy.c
 *		Copying to the mirror of WAL, and comparing with it.
 *
 * In place, nothing that is the same ever becomes different: the mirror of a segment that is
 * being written may be copied again.  What takes the place of something else gets a name for
 * the time being first.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io_mirror.h"

#define COPY_CHUNK			(256 * 1024)

int
pgx_mirror_sync_directory(void)
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

/* Make the file behind to the same as the one behind from, in place. */
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
int
pgx_mirror_copy_into(const char *name, int to)
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

/* Copy pg_wal/FROM to the file TO of the mirror, durably.  For files that nobody writes at the moment. */
int
pgx_mirror_copy_whole(const char *from, const char *to)
{
	char		path[PGX_MIRROR_PATH];
	int			error;
	int			rc;
	int			fd;

	pgx_mirror_path(to, path, sizeof(path));
	fd = pgx_libc.open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -1;
	rc = pgx_mirror_copy_into(from, fd) == 0 && pgx_libc.fsync(fd) == 0 &&
		pgx_mirror_sync_directory() == 0 ? 0 : -1;
	error = errno;
	(void) pgx_libc.close(fd);
	errno = error;
	return rc;
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
	pgx_mirror_path(temp_name, temp, sizeof(temp));
	pgx_mirror_path(name, there, sizeof(there));
	to = pgx_libc.open(temp, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (to < 0)
		return -1;
	rc = copy_content(from, to) == 0 && pgx_libc.fsync(to) == 0 &&
		pgx_libc.rename(temp, there) == 0 && pgx_mirror_sync_directory() == 0 ? 0 : -1;
	error = errno;
	(void) pgx_libc.close(to);
	if (rc != 0)
		(void) pgx_libc.unlink(temp);
	errno = error;
	return rc;
}

/*
 * Make the mirror of a file that the server does not write any more the same as pg_wal's, on disk too: a process that
 * was killed may have written without syncing.  1: it was copied; 0: it is the same, or pg_wal has no
 * such file any more; -1 with errno set.
 */
int
pgx_mirror_refresh(const char *name)
{
	char		here[64];
	char		there[PGX_MIRROR_PATH];
	struct stat st;
	int			from;
	int			to;
	int			rc = -1;
	int			error;

	(void) snprintf(here, sizeof(here), "pg_wal/%s", name);
	pgx_mirror_path(name, there, sizeof(there));
	from = pgx_libc.open(here, O_RDONLY | O_CLOEXEC);
	if (from < 0)
		return errno == ENOENT ? 0 : -1;
	to = pgx_libc.open(there, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fstat(from, &st) == 0)
	{
		if (to >= 0 && same_content(from, to))
			rc = pgx_libc.fsync(to) == 0 ? pgx_mirror_sync_directory() : -1;
		else if (replace_file(from, name) == 0)
			rc = 1;
	}
	error = errno;
	if (to >= 0)
		(void) pgx_libc.close(to);
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
	if (pgx_mirror_copy_whole(name, name) != 0)
		return -1;
	(void) snprintf(mirror->current, sizeof(mirror->current), "%s", name);
	mirror->current_generation = generation;
	return 1;
}
