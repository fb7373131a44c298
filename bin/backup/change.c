/*
 * change.c
 *		Making and removing backups.  See backup.h.
 *
 * What is on disk at each moment: a new backup has its incomplete name and a marker in it from before
 * its first byte; the last step of making one is a rename, and the first step of removing one is the
 * rename back.  So whatever is interrupted is found, and known to be ours, by the next run.
 */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "area_int.h"
#include "file.h"
#include "log.h"
#include "mem.h"

static bool
exists(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

static bool
exists_in(const char *dir, const char *name)
{
	char	   *path = pgx_join(dir, name);
	bool		yes = exists(path);

	free(path);
	return yes;
}

static char *
incomplete_path(const char *area, const char *name)
{
	return pgx_printf("%s/%s%s", area, name, PGX_BACKUP_SUFFIX);
}

static bool
write_marker(const char *dir)
{
	static const char text[] = "This backup is not complete.  The next run of pgx_dmpall removes it.\n";
	char	   *path = pgx_join(dir, PGX_BACKUP_MARKER);
	bool		ok;

	/* Its name is what counts, so it needs no temporary one; died in between, an empty file will do. */
	ok = (exists(path) || pgx_write_new(path, text, strlen(text))) && pgx_sync_path(dir);
	free(path);
	return ok;
}

/* A name that neither a complete nor an incomplete backup has. */
static char *
free_name(const char *area)
{
	time_t		when = time(NULL);

	for (;; when++)
	{
		struct tm	tm;
		char		name[PGX_BACKUP_NAME_LEN + 1];
		char	   *incomplete;
		bool		taken;

		if (localtime_r(&when, &tm) == NULL ||
			strftime(name, sizeof(name), "%Y-%m-%d_%H-%M-%S", &tm) == 0)
		{
			pgx_log_error("could not tell the local time");
			return NULL;
		}
		incomplete = incomplete_path(area, name);
		taken = exists_in(area, name) || exists(incomplete);
		free(incomplete);
		if (!taken)
			return pgx_strdup(name);
	}
}

bool
pgx_area_begin(const char *path, char **ret_name, char **ret_dir)
{
	char	   *name = free_name(path);
	char	   *dir = name != NULL ? incomplete_path(path, name) : NULL;

	if (dir == NULL)
		return false;
	if (mkdir(dir, 0700) != 0)
		pgx_log_error("could not create directory \"%s\": %m", dir);
	else if (write_marker(dir) && pgx_sync_path(path))
	{
		*ret_name = name;
		*ret_dir = dir;
		return true;
	}
	else
		(void) pgx_remove_tree(dir);
	free(name);
	free(dir);
	return false;
}

static bool
rename_synced(const char *area, const char *from, const char *to)
{
	if (rename(from, to) != 0)
	{
		pgx_log_error("could not rename directory \"%s\" to \"%s\": %m", from, to);
		return false;
	}
	return pgx_sync_path(area);
}

bool
pgx_area_commit(const char *path, const char *name)
{
	char	   *dir = incomplete_path(path, name);
	char	   *final = pgx_join(path, name);
	char	   *marker = pgx_join(dir, PGX_BACKUP_MARKER);
	bool		ok = false;

	if (!exists_in(dir, PGX_BACKUP_INFO_NAME))
		pgx_log_error("\"%s/%s\" is missing", dir, PGX_BACKUP_INFO_NAME);
	else if (unlink(marker) != 0 && errno != ENOENT)
		pgx_log_error("could not remove \"%s\": %m", marker);
	else
		ok = pgx_sync_path(dir) && rename_synced(path, dir, final);
	free(marker);
	free(final);
	free(dir);
	return ok;
}

/* Remove an incomplete backup; the marker goes last, so that what is left is known as ours until then. */
static bool
remove_incomplete(const char *dir)
{
	DIR		   *d;
	struct dirent *e;
	bool		ok = true;

	if (!write_marker(dir))
		return false;
	d = opendir(dir);
	if (d == NULL)
	{
		pgx_log_error("could not open directory \"%s\": %m", dir);
		return false;
	}
	while (ok && (e = readdir(d)) != NULL)
	{
		char	   *path;

		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
			strcmp(e->d_name, PGX_BACKUP_MARKER) == 0)
			continue;
		path = pgx_join(dir, e->d_name);
		ok = pgx_remove_tree(path);
		free(path);
	}
	(void) closedir(d);
	return ok && pgx_remove_tree(dir);
}

bool
pgx_area_remove(const char *path, const char *name)
{
	char	   *dir = pgx_join(path, name);
	char	   *incomplete = incomplete_path(path, name);
	bool		ok = true;

	if (!pgx_backup_name_parse(name, strlen(name), NULL))
	{
		pgx_log_error("\"%s\" is not the name of a backup", name);
		ok = false;
	}
	else if (exists(dir))
		ok = rename_synced(path, dir, incomplete);
	ok = ok && (!exists(incomplete) || remove_incomplete(incomplete));
	free(incomplete);
	free(dir);
	return ok;
}

/* Was the directory made by us?  Empty: we died between making it and writing the marker. */
static bool
is_ours(const char *dir)
{
	return exists_in(dir, PGX_BACKUP_MARKER) || exists_in(dir, PGX_BACKUP_INFO_NAME) || rmdir(dir) == 0;
}

bool
pgx_area_remove_leftovers(const char *path, size_t *ret_count)
{
	struct pgx_area area;
	bool		ok = true;
	size_t		n = 0;

	if (!pgx_area_list(path, &area))
		return false;
	for (size_t i = 0; ok && i < area.count; i++)
	{
		const struct pgx_backup *backup = &area.backups[i];

		if (backup->state != PGX_BACKUP_INCOMPLETE)
			continue;
		if (!is_ours(backup->dir))
		{
			pgx_log_warning("directory \"%s\" was not made by a backup and is left alone", backup->dir);
			continue;
		}
		ok = !exists(backup->dir) || remove_incomplete(backup->dir);
		n += ok;
	}
	pgx_area_clear(&area);
	if (ok && ret_count != NULL)
		*ret_count = n;
	return ok;
}

/* ---- retention ------------------------------------------------------------------- */

/*
 * Archived files end where the segment's name begins: the segment, its partial copy, or the history file of a backup
 * in it.  Histories of timelines have other names.
 */
static bool
is_archived_before(const char *file, uint64_t lsn, uint32_t segment_size)
{
	char		name[PGX_WAL_NAME_LEN + 1];
	const char *rest;
	uint64_t	begin;

	if (strlen(file) < PGX_WAL_NAME_LEN)
		return false;
	memcpy(name, file, PGX_WAL_NAME_LEN);
	name[PGX_WAL_NAME_LEN] = '\0';
	rest = file + PGX_WAL_NAME_LEN;
	if (!pgx_wal_name_parse(name, segment_size, NULL, &begin))
		return false;
	if (rest[0] != '\0' && strcmp(rest, ".partial") != 0 &&
		!(strlen(rest) == 16 && rest[0] == '.' && strspn(rest + 1, "0123456789ABCDEF") == 8 &&
		  strcmp(rest + 9, ".backup") == 0))
		return false;
	return begin + segment_size <= lsn;
}

/* Positions of all timelines are compared alike: a segment that any of them needs stays. */
static bool
remove_archived(const char *area, uint64_t lsn, uint32_t segment_size, size_t *ret_count)
{
	char	   *dir = pgx_join(area, PGX_AREA_ARCHIVED_WAL);
	DIR		   *d = opendir(dir);
	struct dirent *e;
	bool		ok = true;
	size_t		n = 0;

	if (d == NULL)
	{
		ok = errno == ENOENT;
		if (!ok)
			pgx_log_error("could not open directory \"%s\": %m", dir);
		free(dir);
		return ok;
	}
	while (ok && (errno = 0, e = readdir(d)) != NULL)
	{
		char	   *path;
		struct stat st;

		if (!is_archived_before(e->d_name, lsn, segment_size))
			continue;
		path = pgx_join(dir, e->d_name);
		if (lstat(path, &st) == 0 && S_ISREG(st.st_mode))
		{
			ok = unlink(path) == 0;
			n += ok;
			if (!ok)
				pgx_log_error("could not remove file \"%s\": %m", path);
		}
		free(path);
	}
	if (ok && errno != 0)
	{
		pgx_log_error("could not read directory \"%s\": %m", dir);
		ok = false;
	}
	(void) closedir(d);
	free(dir);
	if (ret_count != NULL)
		*ret_count = n;
	return ok;
}

bool
pgx_area_retain(const char *path, unsigned keep, size_t *ret_backups, size_t *ret_segments)
{
	struct pgx_area area;
	uint64_t	oldest_lsn = UINT64_MAX;
	uint32_t	segment_size = 0;
	unsigned	kept = 0;
	size_t		removed = 0;
	bool		ok = true;
	bool		known = true;

	if (ret_segments != NULL)
		*ret_segments = 0;
	if (!pgx_area_list(path, &area))
		return false;
	for (size_t i = area.count; ok && i-- > 0;)
	{
		const struct pgx_backup *backup = &area.backups[i];

		/* A damaged one is for a person to judge; until then the WAL that it may need stays. */
		if (backup->state == PGX_BACKUP_DAMAGED)
		{
			pgx_log_warning("backup data \"%s\" is lost: %s", backup->dir, backup->reason);
			known = false;
		}
		if (backup->state != PGX_BACKUP_COMPLETE)
			continue;
		if (kept >= (keep > 0 ? keep : 1))
		{
			ok = pgx_area_remove(path, backup->name);
			removed += ok;
			continue;
		}
		kept++;
		if (backup->info.start_lsn < oldest_lsn)
			oldest_lsn = backup->info.start_lsn;
		segment_size = backup->info.wal_segment_size;
	}
	if (ok && known && kept > 0)
		ok = remove_archived(path, oldest_lsn, segment_size, ret_segments);
	pgx_area_clear(&area);
	if (ret_backups != NULL)
		*ret_backups = removed;
	return ok;
}
