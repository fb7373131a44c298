/*
 * manifest.c
 *		What is needed around pg_basebackup: an option's text, and of its backup the WAL range and the links.
 *
 * The manifest is verified by pg_verifybackup.  It has a line for each file of the cluster, and the WAL
 * range stands at its end, so only the end is read.
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

#include <jansson.h>

#include "area_int.h"
#include "file.h"
#include "log.h"
#include "mem.h"

/* A range per timeline switch during one backup: far more than fit in here do not happen. */
#define TAIL_LEN	(64 * 1024)

/* The last bytes of a file, NUL-terminated; NULL after a message. */
static char *
read_tail(const char *path)
{
	int			fd = open(path, O_RDONLY | O_CLOEXEC);
	char	   *buf = NULL;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0)
		pgx_log_error("could not open file \"%s\": %m", path);
	else
	{
		off_t		from = st.st_size > TAIL_LEN ? st.st_size - TAIL_LEN : 0;
		size_t		len = (size_t) (st.st_size - from);

		buf = pgx_alloc(len + 1);
		if (pread(fd, buf, len, from) != (ssize_t) len)
		{
			pgx_log_error("could not read file \"%s\": %m", path);
			free(buf);
			buf = NULL;
		}
	}
	if (fd >= 0)
		(void) close(fd);
	return buf;
}

static bool
take_range(json_t *range, struct pgx_backup_info *info)
{
	json_t	   *timeline = json_object_get(range, "Timeline");
	const char *start = json_string_value(json_object_get(range, "Start-LSN"));
	const char *end = json_string_value(json_object_get(range, "End-LSN"));
	uint64_t	start_lsn;
	uint64_t	end_lsn;
	uint32_t	tli;

	if (!json_is_integer(timeline) || start == NULL || end == NULL ||
		!pgx_lsn_parse(start, &start_lsn) || !pgx_lsn_parse(end, &end_lsn))
		return false;
	tli = (uint32_t) json_integer_value(timeline);
	if (info->start_timeline == 0 || start_lsn < info->start_lsn)
	{
		info->start_timeline = tli;
		info->start_lsn = start_lsn;
	}
	if (end_lsn >= info->end_lsn)
	{
		info->end_timeline = tli;
		info->end_lsn = end_lsn;
	}
	return true;
}

bool
pgx_manifest_wal_range(const char *data, struct pgx_backup_info *info)
{
	char	   *path = pgx_join(data, "backup_manifest");
	char	   *tail = read_tail(path);
	char	   *begin = tail != NULL ? strstr(tail, "\"WAL-Ranges\"") : NULL;
	json_t	   *ranges = NULL;
	bool		ok = false;

	info->start_timeline = info->end_timeline = 0;
	info->start_lsn = info->end_lsn = 0;
	if (tail == NULL)
		goto out;
	begin = begin != NULL ? strchr(begin, '[') : NULL;
	if (begin != NULL)
		ranges = json_loads(begin, JSON_DISABLE_EOF_CHECK, NULL);
	ok = json_array_size(ranges) > 0;
	for (size_t i = 0; ok && i < json_array_size(ranges); i++)
		ok = take_range(json_array_get(ranges, i), info);
	if (!ok)
		pgx_log_error("file \"%s\" has no valid WAL range", path);

out:
	json_decref(ranges);
	free(tail);
	free(path);
	return ok;
}

/* Make one link of pg_tblspc relative, so that the backup can be moved or copied as a whole. */
static bool
relink(const char *dir, const char *oid)
{
	char	   *link = pgx_join(dir, oid);
	char	   *target = pgx_printf("../../" PGX_BACKUP_TABLESPACES "/%s", oid);
	char		now[512];
	ssize_t		len = readlink(link, now, sizeof(now) - 1);
	bool		ok;

	/* A directory that is read while it changes may show a new link too. */
	now[len < 0 ? 0 : len] = '\0';
	ok = strcmp(now, target) == 0 || (unlink(link) == 0 && symlink(target, link) == 0);
	if (!ok)
		pgx_log_error("could not replace symbolic link \"%s\": %m", link);
	free(target);
	free(link);
	return ok;
}

bool
pgx_relink_tablespaces(const char *data)
{
	char	   *dir = pgx_join(data, "pg_tblspc");
	DIR		   *d = opendir(dir);
	struct dirent *e;
	bool		ok = d != NULL;

	if (d == NULL)
		pgx_log_error("could not open directory \"%s\": %m", dir);
	while (ok && (e = readdir(d)) != NULL)
	{
		char	   *path = pgx_join(dir, e->d_name);
		struct stat st;

		if (lstat(path, &st) == 0 && S_ISLNK(st.st_mode))
			ok = relink(dir, e->d_name);
		free(path);
	}
	if (d != NULL)
		(void) closedir(d);
	free(dir);
	return ok;
}

bool
pgx_wal_is_complete(const char *dir, const struct pgx_backup_info *info)
{
	uint32_t	size = info->wal_segment_size;
	uint64_t	lsn = info->start_lsn - info->start_lsn % size;

	/* On the way from one timeline to the next, either may have the segment. */
	for (; lsn < info->end_lsn; lsn += size)
	{
		bool		found = false;
		char		name[PGX_WAL_NAME_LEN + 1];

		for (uint32_t tli = info->end_timeline; !found && tli >= info->start_timeline; tli--)
		{
			char	   *path;
			struct stat st;

			pgx_wal_name(tli, lsn, size, name);
			path = pgx_join(dir, name);
			found = stat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == (off_t) size;
			free(path);
		}
		if (!found)
		{
			pgx_log_error("WAL segment \"%s\" is missing in \"%s\" or has a wrong size", name, dir);
			return false;
		}
	}
	return true;
}

/* OLDDIR=NEWDIR for pg_basebackup: an equals sign in a name is escaped. */
char *
pgx_tablespace_mapping(const char *from, const char *to)
{
	const char *const sides[] = {from, to};
	char	   *text = pgx_alloc(2 * (strlen(from) + strlen(to)) + 2);
	size_t		n = 0;

	for (int i = 0; i < 2; i++)
	{
		if (i == 1)
			text[n++] = '=';
		for (const char *p = sides[i]; *p != '\0'; p++)
		{
			if (*p == '=')
				text[n++] = '\\';
			text[n++] = *p;
		}
	}
	return text;
}
