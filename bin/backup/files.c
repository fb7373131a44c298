/*
 * files.c
 *		Files and trees of the backup area: written, synced and removed.  See backup.h.
 *
 * Nothing here follows a symbolic link below the path it was given: a backup holds links
 * (pg_tblspc), and what they point to is not ours to sync or to remove.
 */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "backup.h"
#include "file.h"
#include "log.h"
#include "mem.h"

#define COPY_RANGE		(64 * 1024 * 1024)	/* bytes per call that the kernel is asked to copy */
#define COPY_BUFFER		(256 * 1024)	/* or that are read and written */

bool
pgx_sync_path(const char *path)
{
	int			fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	bool		ok;

	if (fd < 0)
	{
		pgx_log_error("could not open \"%s\": %m", path);
		return false;
	}
	ok = fsync(fd) == 0;
	if (!ok)
		pgx_log_error("could not fsync \"%s\": %m", path);
	(void) close(fd);			/* opened for reading only */
	return ok;
}

static bool
sync_parent(const char *path)
{
	char	   *parent = pgx_dirname(path);
	bool		ok = pgx_sync_path(parent);

	free(parent);
	return ok;
}

/* Call what on each name in a directory, files and directories alike, until one returns false. */
static bool
for_each_entry(const char *dir, bool (*what) (const char *path, const struct stat *st, void *arg), void *arg)
{
	DIR		   *d = opendir(dir);
	struct dirent *e;
	bool		ok = true;

	if (d == NULL)
	{
		pgx_log_error("could not open directory \"%s\": %m", dir);
		return false;
	}
	while (ok && (errno = 0, e = readdir(d)) != NULL)
	{
		char	   *path;
		struct stat st;

		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		path = pgx_join(dir, e->d_name);
		if (lstat(path, &st) != 0)
		{
			pgx_log_error("could not stat \"%s\": %m", path);
			ok = false;
		}
		else
			ok = what(path, &st, arg);
		free(path);
	}
	if (ok && errno != 0)
	{
		pgx_log_error("could not read directory \"%s\": %m", dir);
		ok = false;
	}
	(void) closedir(d);
	return ok;
}

static bool
sync_entry(const char *path, const struct stat *st, void *arg)
{
	uint64_t   *size = arg;

	if (S_ISDIR(st->st_mode))
	{
		if (!for_each_entry(path, sync_entry, arg))
			return false;
	}
	else if (!S_ISREG(st->st_mode))
		return true;			/* a link is part of its directory */
	*size += S_ISREG(st->st_mode) ? (uint64_t) st->st_size : 0;
	return pgx_sync_path(path);
}

bool
pgx_sync_tree(const char *path, uint64_t *ret_size)
{
	uint64_t	size = 0;

	if (!for_each_entry(path, sync_entry, &size) || !pgx_sync_path(path))
		return false;
	if (ret_size != NULL)
		*ret_size = size;
	return true;
}

/* Since 5.8 syncfs() tells of failures to write pages; before, it returned as if nothing had happened. */
static bool
syncfs_tells(void)
{
	struct utsname name;
	unsigned	major;
	unsigned	minor;

	return uname(&name) == 0 && sscanf(name.release, "%u.%u", &major, &minor) == 2 &&
		(major > 5 || (major == 5 && minor >= 8));
}

/* The file system of a directory, unless that has been done. */
static bool
sync_file_system(const char *dir, dev_t *done, size_t *n_done)
{
	int			fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat st;
	bool		ok = fd >= 0 && fstat(fd, &st) == 0;

	for (size_t i = 0; ok && i < *n_done; i++)
	{
		if (done[i] == st.st_dev)
		{
			(void) close(fd);
			return true;
		}
	}
	ok = ok && syncfs(fd) == 0;
	if (!ok)
		pgx_log_error("could not sync directory \"%s\": %m", dir);
	else
		done[(*n_done)++] = st.st_dev;
	if (fd >= 0)
		(void) close(fd);		/* opened for reading only */
	return ok;
}

bool
pgx_sync_trees(const char *const *dirs, size_t n)
{
	dev_t	   *done = pgx_alloc((n + 1) * sizeof(*done));
	size_t		n_done = 0;
	bool		whole = syncfs_tells();
	bool		ok = true;

	for (size_t i = 0; ok && i < n; i++)
		ok = whole ? sync_file_system(dirs[i], done, &n_done) : pgx_sync_tree(dirs[i], NULL);
	free(done);
	return ok;
}

static bool
remove_entry(const char *path, const struct stat *st, void *arg)
{
	bool		is_dir = S_ISDIR(st->st_mode);

	if (is_dir)
	{
		/* A data directory may have been made unwritable by whoever copied it. */
		if ((st->st_mode & S_IRWXU) != S_IRWXU)
			(void) chmod(path, S_IRWXU);
		if (!for_each_entry(path, remove_entry, arg))
			return false;
	}
	if ((is_dir ? rmdir(path) : unlink(path)) == 0 || errno == ENOENT)
		return true;
	pgx_log_error("could not remove \"%s\": %m", path);
	return false;
}

bool
pgx_remove_tree(const char *path)
{
	struct stat st;

	if (lstat(path, &st) != 0)
	{
		if (errno == ENOENT)
			return true;
		pgx_log_error("could not stat \"%s\": %m", path);
		return false;
	}
	return remove_entry(path, &st, NULL);
}

/* Write all of buf; close() is the caller's, and so is its result. */
static bool
write_all(int fd, const char *path, const void *buf, size_t len)
{
	if (pgx_write_all(fd, buf, len))
		return true;
	pgx_log_error("could not write file \"%s\": %m", path);
	return false;
}

/* Sync and close a file that was written; false after a message. */
static bool
finish_file(int fd, const char *path, bool ok)
{
	if (ok && fsync(fd) != 0)
	{
		pgx_log_error("could not fsync file \"%s\": %m", path);
		ok = false;
	}
	if (close(fd) != 0 && ok)
	{
		pgx_log_error("could not close file \"%s\": %m", path);
		ok = false;
	}
	return ok;
}

bool
pgx_write_new(const char *path, const void *buf, size_t len)
{
	int			fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
	{
		pgx_log_error("could not create file \"%s\": %m", path);
		return false;
	}
	if (finish_file(fd, path, write_all(fd, path, buf, len)))
		return true;
	(void) unlink(path);
	return false;
}

bool
pgx_write_durable(const char *path, const void *buf, size_t len)
{
	char	   *temp = pgx_printf("%s.tmp", path);
	bool		ok = false;

	/* Left by a run that died; the lock keeps others away. */
	(void) unlink(temp);
	if (!pgx_write_new(temp, buf, len))
		goto out;
	if (rename(temp, path) != 0)
	{
		pgx_log_error("could not rename file \"%s\" to \"%s\": %m", temp, path);
		(void) unlink(temp);
		goto out;
	}
	ok = sync_parent(path);

out:
	free(temp);
	return ok;
}

static bool
copy_bytes(int in, const char *from, int out, const char *to)
{
	char	   *buf = pgx_alloc(COPY_BUFFER);
	bool		ok = false;

	for (;;)
	{
		ssize_t		n = read(in, buf, COPY_BUFFER);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			pgx_log_error("could not read file \"%s\": %m", from);
		ok = n == 0;
		if (n <= 0 || !write_all(out, to, buf, (size_t) n))
			break;
	}
	free(buf);
	return ok;
}

/* Copy an open file; what is left of a failed copy is removed. */
bool
pgx_copy_open_file(int in, const char *from, const char *to, unsigned mode)
{
	int			out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);

	if (out < 0)
	{
		pgx_log_error("could not create file \"%s\": %m", to);
		return false;
	}
	if (finish_file(out, to, copy_bytes(in, from, out, to)))
		return true;
	(void) unlink(to);
	return false;
}

bool
pgx_kernel_copies_not(int err)
{
	return err == EXDEV || err == EINVAL || err == ENOSYS || err == EOPNOTSUPP;
}

bool
pgx_copy_rest(int in, int out)
{
	char	   *buf = NULL;
	ssize_t		n;

	do
	{
		if (buf == NULL)
			n = copy_file_range(in, NULL, out, NULL, COPY_RANGE, 0);
		else if ((n = read(in, buf, COPY_BUFFER)) > 0 && !pgx_write_all(out, buf, (size_t) n))
			break;
		/* Offsets are where they were. */
		if (n < 0 && buf == NULL && pgx_kernel_copies_not(errno))
			buf = pgx_alloc(COPY_BUFFER);
		else if (n < 0 && errno != EINTR)
			break;
	} while (n != 0);
	free(buf);
	return n == 0;
}

bool
pgx_copy_file(const char *from, const char *to)
{
	struct stat st;
	int			in = open(from, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	bool		ok = false;

	if (in < 0)
	{
		pgx_log_error("could not open file \"%s\": %m", from);
		return false;
	}
	if (fstat(in, &st) != 0)
		pgx_log_error("could not stat file \"%s\": %m", from);
	else if (!S_ISREG(st.st_mode))
		pgx_log_error("\"%s\" is not a regular file", from);
	else
		ok = pgx_copy_open_file(in, from, to, (st.st_mode & 0750) | 0600);
	(void) close(in);			/* opened for reading only */
	return ok;
}

bool
pgx_make_directory(const char *path)
{
	if (mkdir(path, 0700) != 0 && errno != EEXIST)
	{
		pgx_log_error("could not create directory \"%s\": %m", path);
		return false;
	}
	return sync_parent(path);
}
