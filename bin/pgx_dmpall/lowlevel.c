/*
 * lowlevel.c
 *		A copy of a directory of a running server in backup mode.
 *
 * Where the user's command copies some of the cluster, pg_basebackup cannot copy just the rest.  What is left out
 * is what PostgreSQL's documentation tells to leave out.  Files that come and go meanwhile are put
 * right by WAL.
 */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "child.h"
#include "dmpall.h"
#include "file.h"
#include "log.h"
#include "mem.h"

/* Directories of the data directory of which only the directory itself is copied. */
static const char *const empty_directories[] = {
	"pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans",
	"pg_wal", NULL
};

/* Files of the data directory that belong to the running server, or to another backup. */
static const char *const skipped_files[] = {
	"postmaster.pid", "postmaster.opts", "postgresql.auto.conf.tmp", "current_logfiles.tmp",
	"backup_label", "backup_label.old", "tablespace_map", "tablespace_map.old", "backup_manifest", NULL
};

static bool
is_one_of(const char *name, const char *const *list)
{
	for (; *list != NULL; list++)
	{
		if (strcmp(name, *list) == 0)
			return true;
	}
	return false;
}

static bool
copy_one_file(const char *from, const char *to)
{
	int			fd = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	bool		ok;

	if (fd < 0 && errno == ENOENT)
		return true;			/* dropped meanwhile */
	if (fd < 0)
	{
		pgx_log_error("could not open file \"%s\": %m", from);
		return false;
	}
	ok = pgx_copy_open_file(fd, from, to, 0600);
	(void) close(fd);			/* opened for reading only */
	return ok;
}

static bool
copy_link(const char *from, const char *to)
{
	char		target[4096];
	ssize_t		len = readlink(from, target, sizeof(target) - 1);

	if (len < 0 && errno == ENOENT)
		return true;
	if (len < 0)
	{
		pgx_log_error("could not read symbolic link \"%s\": %m", from);
		return false;
	}
	target[len] = '\0';
	if (symlink(target, to) == 0)
		return true;
	pgx_log_error("could not create symbolic link \"%s\": %m", to);
	return false;
}

static bool
copy_entry(const char *from, const char *to, const char *name, bool top)
{
	struct stat st;
	bool		empty = top && is_one_of(name, empty_directories);

	if (strncmp(name, "pgsql_tmp", 9) == 0 || strncmp(name, "pg_internal.init", 16) == 0 ||
		(top && is_one_of(name, skipped_files)))
		return true;
	if ((empty ? stat(from, &st) : lstat(from, &st)) != 0)
	{
		if (errno == ENOENT)
			return true;
		pgx_log_error("could not stat \"%s\": %m", from);
		return false;
	}
	if (S_ISLNK(st.st_mode))
		return copy_link(from, to);
	if (S_ISREG(st.st_mode))
		return copy_one_file(from, to);
	if (!S_ISDIR(st.st_mode))
		return true;			/* a socket, say */
	return empty ? pgx_make_directory(to) : copy_live_directory(from, to, false);
}

/* cluster: from is the data directory itself. */
bool
copy_live_directory(const char *from, const char *to, bool cluster)
{
	DIR		   *d = opendir(from);
	struct dirent *e;
	bool		ok;

	if (d == NULL)
	{
		if (errno == ENOENT && !cluster)
			return true;		/* a database that was dropped meanwhile */
		pgx_log_error("could not open directory \"%s\": %m", from);
		return false;
	}
	ok = pgx_make_directory(to);
	while (ok && (errno = 0, e = readdir(d)) != NULL)
	{
		char	   *from_path;
		char	   *to_path;

		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		from_path = pgx_join(from, e->d_name);
		to_path = pgx_join(to, e->d_name);
		ok = copy_entry(from_path, to_path, e->d_name, cluster) && !pgx_interrupted();
		free(from_path);
		free(to_path);
	}
	if (ok && errno != 0)
	{
		pgx_log_error("could not read directory \"%s\": %m", from);
		ok = false;
	}
	(void) closedir(d);
	return ok;
}
