/*
 * basebackup.c
 *		The files of the cluster, through the server's own pg_basebackup.
 *
 * WAL is streamed into the backup beside the data (-X stream), so that a backup can be restored with
 * nothing but itself: with the archive alone, one lost segment of the few in its range would
 * make the whole backup worthless.  It costs that WAL twice, which is little.
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "child.h"
#include "dmpall.h"
#include "file.h"
#include "log.h"
#include "mem.h"

static bool
run_pg_basebackup(struct run *run)
{
	const struct source *source = run->source;
	const char **argv = pgx_alloc((2 * source->n_tablespaces + 24) * sizeof(*argv));
	char	  **owned = pgx_alloc((source->n_tablespaces + 4) * sizeof(*owned));
	size_t		n_owned = 0;
	size_t		n = 0;
	bool		ok;

	argv[n++] = owned[n_owned++] = pgx_join(source->bindir, "pg_basebackup");
	argv[n++] = "-D";
	argv[n++] = owned[n_owned++] = pgx_join(run->dir, PGX_BACKUP_DATA);
	argv[n++] = "-d";
	argv[n++] = source->conninfo;
	argv[n++] = "-w";
	argv[n++] = "-F";
	argv[n++] = "plain";
	argv[n++] = "-X";
	argv[n++] = "stream";
	argv[n++] = "-N";			/* everything is synced together in the end */
	argv[n++] = "-c";
	argv[n++] = run->opts->checkpoint;
	argv[n++] = "-l";
	argv[n++] = run->opts->label[0] != '\0' ? run->opts->label : pgx_progname();
	if (run->opts->progress)
		argv[n++] = "-P";
	for (size_t i = 0; i < source->n_tablespaces; i++)
	{
		char	   *to = pgx_printf("%s/%s/%u", run->dir, PGX_BACKUP_TABLESPACES, source->tablespaces[i].oid);

		argv[n++] = "-T";
		argv[n++] = owned[n_owned++] = pgx_tablespace_mapping(source->tablespaces[i].location, to);
		free(to);
	}
	argv[n] = NULL;
	ok = pgx_child_run(argv, run->lock_fd);
	for (size_t i = 0; i < n_owned; i++)
		free(owned[i]);
	free(owned);
	free(argv);
	return ok;
}

/* Take away what a failed attempt left, for the next one. */
static bool
clear_attempt(const struct run *run)
{
	char	   *data = pgx_join(run->dir, PGX_BACKUP_DATA);
	char	   *tablespaces = pgx_join(run->dir, PGX_BACKUP_TABLESPACES);
	bool		ok = pgx_remove_tree(data) && pgx_remove_tree(tablespaces) && pgx_make_directory(tablespaces);

	free(data);
	free(tablespaces);
	return ok;
}

/*
 * Copy, as often as is allowed.  A tablespace that is made between our looking and the copying makes
 * pg_basebackup fail; so the list is read anew.
 */
bool
copy_with_retries(struct run *run, bool (*copy) (struct run *run))
{
	for (uint32_t tries = 0;; tries++)
	{
		if (copy(run))
			return true;
		if (pgx_interrupted() || run->exit_code == PGX_EXIT_KEY)
			return false;
		if (tries == run->opts->retry)
		{
			if (tries > 0)
				pgx_log_error("retried backup %u times, but failed", tries);
			return false;
		}
		if (!source_read_tablespaces(run->source))
			return false;
		fprintf(stderr, "Retrying backup. (%u times).\n", tries + 1);
	}
}

static bool
copy_by_pg_basebackup(struct run *run)
{
	return clear_attempt(run) && run_pg_basebackup(run);
}

bool
take_base_backup(struct run *run)
{
	struct pgx_backup_info *info = &run->info;
	char	   *data = pgx_join(run->dir, PGX_BACKUP_DATA);
	char	   *wal = pgx_join(data, "pg_wal");
	bool		ok;

	info->method = pgx_strdup("pg_basebackup");
	info->has_manifest = true;
	ok = copy_with_retries(run, copy_by_pg_basebackup);
	info->end_time = (int64_t) time(NULL);
	ok = ok && pgx_manifest_wal_range(data, info) && pgx_wal_is_complete(wal, info) &&
		pgx_relink_tablespaces(data);
	free(wal);
	free(data);
	return ok;
}

/*
 * Read everything back and compare it with the manifest.  Without -n, pg_verifybackup would also have WAL parsed,
 * which needs the key; its segments have been counted already.
 */
bool
verify_base_backup(const struct run *run)
{
	char	   *program = pgx_join(run->source->bindir, "pg_verifybackup");
	char	   *data = pgx_join(run->dir, PGX_BACKUP_DATA);
	const char *const argv[] = {program, "-n", "-q", data, NULL};
	bool		ok = pgx_child_run(argv, run->lock_fd);

	free(data);
	free(program);
	return ok;
}
