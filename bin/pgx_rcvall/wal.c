/*
 * wal.c
 *		WAL for recovery: the timelines that lead to where it ends, and whether all segments of them are there.
 *
 * The rules are the server's: of the timelines that lead to the one recovery follows, a segment is taken from
 * the newest that has it.  What is read here is not encrypted: names, sizes and page headers.
 */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "log.h"
#include "mem.h"
#include "rcvall.h"
#include "wal.h"
#include "wal_archive.h"
#include "wal_files.h"

#define MAX_HISTORY		(1024 * 1024)

/* ---- timelines ------------------------------------------------------------------------ */

/* In the area; or in the backup, which has that of its own timeline. */
static char *
history_path(const char *area, const struct pgx_backup *backup, uint32_t timeline)
{
	char	   *dir = pgx_backup_path(backup, PGX_BACKUP_DATA "/pg_wal");
	char	   *found = NULL;
	char		name[24];

	snprintf(name, sizeof(name), "%08" PRIX32 ".history", timeline);
	for (size_t i = 0; found == NULL && i < 3; i++)
	{
		found = i < 2 ? wal_place_path(area, i, name) : pgx_join(dir, name);
		if (access(found, F_OK) != 0)
		{
			free(found);
			found = NULL;
		}
	}
	free(dir);
	return found;
}

/* The newest timeline there is, as the server looks for it: one number after the other. */
static uint32_t
newest_timeline(const char *area, const struct pgx_backup *backup, uint32_t from)
{
	for (;;)
	{
		char	   *path = history_path(area, backup, from + 1);

		if (path == NULL)
			return from;
		free(path);
		from++;
	}
}

static void
add_timeline(struct wal_chain *chain, uint32_t id, uint64_t begin)
{
	chain->timelines = pgx_realloc(chain->timelines, (chain->n_timelines + 1) * sizeof(*chain->timelines));
	/* A history file has them oldest first; here they are newest first. */
	memmove(chain->timelines + 1, chain->timelines, chain->n_timelines * sizeof(*chain->timelines));
	chain->timelines[0].id = id;
	chain->timelines[0].begin = begin;
	chain->n_timelines++;
}

/* Lines "PARENT <tab> LSN <tab> REASON": up to there, the parent. */
static bool
parse_history(char *text, uint32_t timeline, struct wal_chain *chain)
{
	uint64_t	begin = 0;

	for (char *line = text, *next; line != NULL && *line != '\0'; line = next)
	{
		char		lsn_text[PGX_LSN_STRLEN + 1];
		uint32_t	id;
		uint64_t	lsn;

		next = strchr(line, '\n');
		if (next != NULL)
			*next++ = '\0';
		line += strspn(line, " \t");
		if (*line == '\0' || *line == '#')
			continue;
		if (sscanf(line, "%" SCNu32 " %17s", &id, lsn_text) != 2 || !pgx_lsn_parse(lsn_text, &lsn))
			return false;
		add_timeline(chain, id, begin);
		begin = lsn;
	}
	add_timeline(chain, timeline, begin);
	return true;
}

static bool
read_history(const char *area, const struct pgx_backup *backup, uint32_t timeline, struct wal_chain *chain)
{
	char	   *path = history_path(area, backup, timeline);
	uint8_t    *bytes = NULL;
	size_t		len;
	bool		ok = false;

	if (path == NULL && (timeline == 1 || (timeline == backup->info.start_timeline &&
										   timeline == backup->info.end_timeline)))
	{
		add_timeline(chain, timeline, 0);	/* the first has no history, and the others need none of before */
		return true;
	}
	if (path == NULL)
		pgx_log_error("the history file \"%08" PRIX32 ".history\" of timeline %" PRIu32 " is missing in \"%s/%s\"",
					  timeline, timeline, area, PGX_AREA_ARCHIVED_WAL);
	else if (pgx_file_read(path, MAX_HISTORY, 0, "600", &bytes, &len))
	{
		ok = parse_history((char *) bytes, timeline, chain);
		if (!ok)
			pgx_log_error("timeline history file \"%s\" is not valid", path);
	}
	free(bytes);
	free(path);
	return ok;
}

/* Does the history go through the end of the backup? */
static bool
check_history(const struct wal_chain *chain, const struct pgx_backup *backup)
{
	const struct pgx_backup_info *info = &backup->info;

	for (size_t i = 0; i < chain->n_timelines; i++)
	{
		if (chain->timelines[i].id == info->end_timeline &&
			(i == 0 || chain->timelines[i - 1].begin >= info->end_lsn))
			return true;
	}
	pgx_log_error("timeline %" PRIu32 " does not come from the backup \"%s\"", chain->timelines[0].id, backup->name);
	pgx_log_hint("Choose another backup with --backup, or another timeline with --target-timeline.");
	return false;
}

/* ---- the chain -------------------------------------------------------------------------- */

/*
 * The segment at an LSN, from the newest timeline that has it.  *ret_name: that name, or the first that
 * was looked for.
 */
static char *
segment_at(const char *area, const struct pgx_backup *backup, const struct wal_chain *chain, uint64_t lsn,
		   char ret_name[PGX_WAL_NAME_LEN + 1])
{
	uint32_t	size = backup->info.wal_segment_size;

	ret_name[0] = '\0';
	for (size_t i = 0; i < chain->n_timelines; i++)
	{
		char		name[PGX_WAL_NAME_LEN + 1];
		char	   *path;

		if (chain->timelines[i].begin >= lsn + size)
			continue;			/* it began later */
		pgx_wal_name(chain->timelines[i].id, lsn, size, name);
		if (ret_name[0] == '\0')
			memcpy(ret_name, name, sizeof(name));
		path = wal_find_segment(area, backup, name);
		if (path != NULL)
		{
			memcpy(ret_name, name, sizeof(name));
			return path;
		}
	}
	return NULL;
}

/* Has a directory a segment that recovery would need after the missing one? */
static bool
has_later(const char *area, const char *folder, const struct wal_chain *chain, uint32_t size)
{
	char	   *dir = pgx_join(area, folder);
	DIR		   *d = opendir(dir);
	struct dirent *e;
	bool		found = false;

	free(dir);
	while (!found && d != NULL && (e = readdir(d)) != NULL)
	{
		uint32_t	timeline;
		uint64_t	lsn;

		char	   *path;
		bool		begun;

		if (!pgx_wal_name_parse(e->d_name, size, &timeline, &lsn) || lsn <= chain->end)
			continue;
		path = pgx_printf("%s/%s/%s", area, folder, e->d_name);
		begun = wal_is_begun(path, lsn);
		free(path);
		if (!begun)
			continue;
		for (size_t i = 0; i < chain->n_timelines; i++)
		{
			if (chain->timelines[i].id == timeline && lsn + size > chain->timelines[i].begin &&
				(i == 0 || lsn < chain->timelines[i - 1].begin))
				found = true;
		}
	}
	if (d != NULL)
		(void) closedir(d);
	return found;
}

static bool
follow_segments(const char *area, const struct pgx_backup *backup, struct wal_chain *chain)
{
	const struct pgx_backup_info *info = &backup->info;
	uint32_t	size = info->wal_segment_size;
	char		name[PGX_WAL_NAME_LEN + 1];

	chain->end = info->start_lsn - info->start_lsn % size;
	for (;;)
	{
		char	   *path = segment_at(area, backup, chain, chain->end, name);
		bool		ok;

		if (path == NULL && (!info->packed || chain->end >= info->end_lsn))
			break;
		/* A packed backup has the WAL of its own time inside. */
		ok = path == NULL || wal_check_segment(path, chain->end, info);
		free(path);
		if (!ok)
			return false;
		chain->end += size;
		chain->n_segments++;
	}
	if (chain->end < info->end_lsn)
	{
		pgx_log_error("WAL segment \"%s\", which the backup \"%s\" needs, is missing", name, backup->name);
		return false;
	}
	if (has_later(area, PGX_AREA_ARCHIVED_WAL, chain, size) || has_later(area, PGX_AREA_ONLINE_WAL, chain, size))
		memcpy(chain->missing, name, sizeof(name));
	return true;
}

bool
wal_chain_follow(const char *area, const struct pgx_backup *backup, const char *target_timeline,
				 struct wal_chain *ret_chain)
{
	const struct pgx_backup_info *info = &backup->info;
	struct wal_chain chain = {0};
	uint32_t	timeline = info->end_timeline;

	if (target_timeline == NULL || strcmp(target_timeline, "latest") == 0)
		timeline = newest_timeline(area, backup, timeline);
	else if (strcmp(target_timeline, "current") != 0)
		timeline = (uint32_t) strtoul(target_timeline, NULL, 0);
	if (read_history(area, backup, timeline, &chain) && check_history(&chain, backup) &&
		follow_segments(area, backup, &chain))
	{
		*ret_chain = chain;
		return true;
	}
	wal_chain_clear(&chain);
	return false;
}

uint64_t
wal_chain_readable(const char *area, const struct pgx_backup *backup, const struct wal_chain *chain)
{
	uint64_t	start = backup->info.start_lsn;
	uint32_t	size = backup->info.wal_segment_size;
	uint64_t	lsn = chain->end;

	while (lsn > start)
	{
		char		name[PGX_WAL_NAME_LEN + 1];
		char	   *path = segment_at(area, backup, chain, lsn - size, name);

		if (path == NULL)
			return lsn;
		free(path);
		lsn -= size;
	}
	return start;
}

bool
wal_chain_link(const char *area, const struct pgx_backup *backup, const struct wal_chain *chain, const char *dir)
{
	uint32_t	size = backup->info.wal_segment_size;
	uint64_t	lsn = backup->info.start_lsn - backup->info.start_lsn % size;
	bool		ok = true;

	for (; ok && lsn < chain->end; lsn += size)
	{
		char		name[PGX_WAL_NAME_LEN + 1];
		char	   *path = segment_at(area, backup, chain, lsn, name);
		char	   *link;

		if (path == NULL)
			continue;			/* in a packed backup; or taken away just now */
		pgx_wal_name(chain->timelines[0].id, lsn, size, name);
		link = pgx_join(dir, name);
		ok = symlink(path, link) == 0;
		if (!ok)
			pgx_log_error("could not create symbolic link \"%s\": %m", link);
		free(link);
		free(path);
	}
	return ok;
}

bool
wal_chain_archive(const char *area, const struct pgx_backup *backup, const struct wal_chain *chain)
{
	uint32_t	size = backup->info.wal_segment_size;
	uint64_t	lsn = backup->info.start_lsn - backup->info.start_lsn % size;
	char	   *mirror = pgx_join(area, PGX_AREA_ONLINE_WAL "/");
	bool		ok = true;

	/* The last one is not full. */
	for (; lsn + size < chain->end; lsn += size)
	{
		char		name[PGX_WAL_NAME_LEN + 1];
		char		err[1024];
		char	   *path = segment_at(area, backup, chain, lsn, name);

		if (path != NULL && strncmp(path, mirror, strlen(mirror)) == 0)
		{
			char	   *to = pgx_printf("%s/%s/%s", area, PGX_AREA_ARCHIVED_WAL, name);

			if (!pgx_wal_archive(path, to, true, err, sizeof(err)))
			{
				pgx_log_warning("%s", err);
				ok = false;
			}
			free(to);
		}
		free(path);
	}
	free(mirror);
	return ok;
}

void
wal_chain_clear(struct wal_chain *chain)
{
	free(chain->timelines);
	memset(chain, 0, sizeof(*chain));
}
