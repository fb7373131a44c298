/*
 * disk.c
 *		Files that are there, whole, after a crash.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "encrypt.h"
#include "file.h"
#include "log.h"
#include "mem.h"

bool
disk_sync_dir(const struct cluster *cluster, const char *dir)
{
	int			fd;
	bool		ok;

	if (!cluster->sync)
		return true;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ok = fd >= 0 && fsync(fd) == 0;
	if (!ok)
		pgx_log_error("could not fsync directory \"%s\": %m", dir);
	if (fd >= 0)
		(void) close(fd);
	return ok;
}

static bool
sync_parent(const struct cluster *cluster, const char *path)
{
	char	   *dir = pgx_dirname(path);
	bool		ok = disk_sync_dir(cluster, dir);

	free(dir);
	return ok;
}

bool
disk_replace(const struct cluster *cluster, const char *path, const void *buf, size_t len)
{
	char	   *temp = pgx_printf("%s.tmp", path);
	int			fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	bool		ok = false;

	if (fd < 0)
	{
		pgx_log_error("could not create file \"%s\": %m", temp);
		goto out;
	}
	if (fchmod(fd, cluster->file_mode) != 0 || !pgx_write_all(fd, buf, len))
	{
		pgx_log_error("could not write file \"%s\": %m", temp);
		goto out;
	}
	if (cluster->sync && fsync(fd) != 0)
	{
		pgx_log_error("could not fsync file \"%s\": %m", temp);
		goto out;
	}
	if (rename(temp, path) != 0)
	{
		pgx_log_error("could not rename file \"%s\" to \"%s\": %m", temp, path);
		goto out;
	}
	ok = sync_parent(cluster, path);

out:
	if (fd >= 0)
		(void) close(fd);		/* what it could report, fsync() has */
	if (!ok)
		(void) unlink(temp);
	free(temp);
	return ok;
}

bool
disk_remove(const struct cluster *cluster, const char *path)
{
	if (unlink(path) != 0 && errno != ENOENT)
	{
		pgx_log_error("could not remove file \"%s\": %m", path);
		return false;
	}
	return sync_parent(cluster, path);
}

bool
disk_make_dir(const struct cluster *cluster, const char *path)
{
	if (mkdir(path, 0700) == 0)
	{
		if (chmod(path, cluster->dir_mode) == 0)
			return sync_parent(cluster, path);
		pgx_log_error("could not set permissions of directory \"%s\": %m", path);
		return false;
	}
	if (errno == EEXIST)
		return true;
	pgx_log_error("could not create directory \"%s\": %m", path);
	return false;
}
