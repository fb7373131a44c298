/*
 * archive.c
 *		Waiting until WAL of the backup is archived.
 *
 * The backup has its WAL in itself; but recovery to a later time begins where that ends, and needs that
 * archiving works.  The time to learn that it does not is now.
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "child.h"
#include "dmpall.h"
#include "file.h"
#include "log.h"
#include "mem.h"

#define POLL_US			200000
#define WARN_AFTER_S	60		/* and again after twice, four times, ... as long */

/*
 * What the server itself looks at when it waits at the end of a backup: a file that says so; or neither
 * that nor the segment, which then has been archived and removed.  -1 after a message.
 */
static int
is_archived(struct source *source, const char *segment)
{
	const char *const params[] = {segment};
	PGresult   *r = source_query(source,
								 "SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_ls_archive_statusdir()"
								 "   WHERE name = $1 || '.done') THEN true"
								 " WHEN EXISTS (SELECT FROM pg_catalog.pg_ls_archive_statusdir()"
								 "   WHERE name = $1 || '.ready') THEN false"
								 " ELSE NOT EXISTS (SELECT FROM pg_catalog.pg_ls_waldir() WHERE name = $1) END",
								 1, params);
	int			yes = -1;

	if (r != NULL)
		yes = PQgetvalue(r, 0, 0)[0] == 't';
	PQclear(r);
	return yes;
}

/* Why archiving does not get on, as the server's statistics tell. */
static void
tell_archiver(struct source *source)
{
	PGresult   *r = source_query(source,
								 "SELECT last_failed_wal FROM pg_catalog.pg_stat_archiver"
								 " WHERE last_failed_time > coalesce(last_archived_time, '-infinity')", 0, NULL);

	if (r != NULL && PQntuples(r) == 1)
		pgx_log_detail("Archiving of \"%s\" failed; the server log has the reason.", PQgetvalue(r, 0, 0));
	PQclear(r);
	pgx_log_hint("Check archive_command or archive_library.");
}

static bool
wait_for(struct run *run, const char *segment)
{
	time_t		begin = time(NULL);
	time_t		warn_after = WARN_AFTER_S;

	for (;;)
	{
		int			archived = is_archived(run->source, segment);
		time_t		waited = time(NULL) - begin;

		if (archived != 0)
		{
			if (archived < 0)
				pgx_log_error("could not check the completion of archiving WAL files");
			return archived > 0;
		}
		if (pgx_interrupted())
			return false;
		if (run->opts->archive_timeout > 0 && waited >= (time_t) run->opts->archive_timeout)
		{
			pgx_log_error("WAL segment \"%s\" was not archived within %u seconds", segment,
						  run->opts->archive_timeout);
			tell_archiver(run->source);
			return false;
		}
		if (waited >= warn_after)
		{
			pgx_log_warning("still waiting for WAL segment \"%s\" to be archived", segment);
			tell_archiver(run->source);
			warn_after *= 2;
		}
		(void) usleep(POLL_US);
	}
}

bool
wait_for_archive(struct run *run)
{
	struct pgx_backup_info *info = &run->info;
	char		segment[PGX_WAL_NAME_LEN + 1];
	char	   *path;
	struct stat st;

	/* A standby ends no segment; its primary archives what the backup needs later. */
	if (run->opts->no_archive || run->source->in_recovery)
		return true;
	pgx_wal_name(info->end_timeline, info->end_lsn - 1, info->wal_segment_size, segment);
	if (!wait_for(run, segment))
		return false;

	path = pgx_printf("%s/%s/%s", run->source->destination, PGX_AREA_ARCHIVED_WAL, segment);
	info->archive_complete = stat(path, &st) == 0 && st.st_size == (off_t) info->wal_segment_size;
	if (!info->archive_complete)
	{
		pgx_log_warning("archived WAL is not in the backup storage directory: \"%s\" is not there", path);
		pgx_log_hint("Set archive_command to 'pgx_walcopy \"%%p\" \"%s/%s/%%f\"'.", run->source->destination,
					 PGX_AREA_ARCHIVED_WAL);
	}
	free(path);
	return true;
}
