/*
 * recover.c
 *		Recovery as a whole: everything is checked, then the directories are filled, then WAL is replayed.
 */
#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include "child.h"
#include "file.h"
#include "log.h"
#include "mem.h"
#include "rcvall.h"
#include "walprogram.h"

/* Who and where; the backup is chosen, and nothing is touched but the area's lock. */
bool
recovery_begin(struct recovery *r, const struct rcvall_options *opts)
{
	memset(r, 0, sizeof(*r));
	r->opts = opts;
	r->area_fd = r->pgdata_fd = r->handover_fd = -1;
	if (opts->pgdata == NULL && !opts->check)
	{
		pgx_log_error("the database storage directory and the $PGDATA environment variable have not been specified");
		pgx_log_advice();
		return false;
	}
	if (!check_target_time(r))
		return false;
	r->pgdata = opts->pgdata != NULL ? pgx_absolute(opts->pgdata) : NULL;
	r->area = find_area(opts);
	r->postgres = pgx_postgres_find();
	if (r->area == NULL || !pgx_area_lock(r->area, &r->area_fd) || !choose_backup(r))
		return false;
	if (r->pgdata == NULL)
		r->pgdata = pgx_strdup(r->backup->info.data_directory);	/* to check it is enough to know the backup */
	return check_versions(r);
}

void
recovery_end(struct recovery *r)
{
	pgx_handover_end(&r->handover_fd);
	keystore_free(&r->ks);
	pgx_core_restore(&r->core);
	wal_chain_clear(&r->chain);
	for (size_t i = 0; r->locations != NULL && r->locations[i] != NULL; i++)
		free(r->locations[i]);
	free(r->locations);
	pgx_area_clear(&r->list);
	pgx_area_unlock(&r->area_fd);
	if (r->pgdata_fd >= 0)
		(void) close(r->pgdata_fd);
	free(r->area);
	free(r->pgdata);
	free(r->postgres);
	free(r->keystore_path);
	free(r->log_path);
	free(r->last_lsn);
	free(r->last_time);
	memset(r, 0, sizeof(*r));
	r->area_fd = r->pgdata_fd = r->handover_fd = -1;
}

/* A mirror that is not in the area is not found. */
static void
warn_of_mirror(const struct recovery *r)
{
	const char *noted = r->backup->info.online_wal_directory;
	char	   *mirror = noted != NULL ? pgx_strdup(noted) : configured(r, "pgx_tde.online_wal_directory");
	char	   *usual = pgx_join(r->area, PGX_AREA_ONLINE_WAL);
	char	   *real = mirror != NULL ? realpath(mirror, NULL) : NULL;
	char	   *real_usual = realpath(usual, NULL);

	if (real != NULL && (real_usual == NULL || strcmp(real, real_usual) != 0))
	{
		pgx_log_warning("mirrored WAL in \"%s\" is not used", mirror);
		pgx_log_hint("Copy its segments to \"%s\" first to recover to the last commit.", usual);
	}
	free(real_usual);
	free(real);
	free(usual);
	free(mirror);
}

/* Everything that can be refused now; an exit code. */
static int
check(struct recovery *r)
{
	const struct pgx_backup *first = r->backup;
	bool		leftover;
	int			rc;

	if (!choose_locations(r) || !target_check(r, &leftover) || !choose_keystore(r))
		return PGX_EXIT_FAILURE;
	rc = open_keystore(r);
	if (rc == PGX_EXIT_OK)
		rc = search_target(r);
	if (rc != PGX_EXIT_OK)
		return rc;
	/* Another backup may have other tablespaces. */
	if (r->backup != first && (!choose_locations(r) || !target_check(r, &leftover)))
		return PGX_EXIT_FAILURE;
	if (r->same_place)
		warn_of_mirror(r);
	return check_chain(r) ? PGX_EXIT_OK : PGX_EXIT_FAILURE;
}

/* ---- telling ------------------------------------------------------------------------- */

/* The most memory that this process had, without the server's. */
static json_int_t
peak_kilobytes(void)
{
	struct rusage usage;

	return getrusage(RUSAGE_SELF, &usage) == 0 ? (json_int_t) usage.ru_maxrss : 0;
}

static void
print_json(const struct recovery *r)
{
	json_t	   *spaces = json_array();
	json_t	   *root;
	char		end[PGX_LSN_STRLEN + 1];
	char	   *text;

	for (size_t i = 0; i < r->backup->info.n_tablespaces; i++)
		(void) json_array_append_new(spaces, json_pack("{s:s, s:s}", "name", r->backup->info.tablespaces[i].name,
													   "location", r->locations[i]));
	pgx_lsn_text(r->chain.end, end);
	root = json_pack("{s:s, s:s, s:s, s:o, s:s?, s:b, s:s}", "status", r->opts->dry_run ? "CHECKED" : "RECOVERED",
					 "backup", r->backup->dir, "data_directory", r->pgdata, "tablespaces", spaces,
					 "keystore", r->keystore_path, "keystore_from_backup", r->use_keystore_copy && r->ks != NULL,
					 "wal_end", end);
	if (root != NULL && !r->opts->dry_run)
		(void) json_object_update_new(root, json_pack("{s:s?, s:s?, s:I, s:f, s:f, s:I}", "last_lsn", r->last_lsn,
													  "last_time", r->last_time, "timeline", (json_int_t) r->timeline,
													  "files_seconds", r->files_seconds, "replay_seconds",
													  r->replay_seconds, "peak_kilobytes", peak_kilobytes()));
	text = root != NULL ? json_dumps(root, JSON_INDENT(2)) : NULL;
	printf("%s\n", text != NULL ? text : "null");
	free(text);
	json_decref(root);
}

static void
print_plan(const struct recovery *r)
{
	char		end[PGX_LSN_STRLEN + 1];

	pgx_lsn_text(r->chain.end, end);
	printf("Backup: %s\n", r->backup->dir);
	printf("Data directory: %s\n", r->pgdata);
	for (size_t i = 0; i < r->backup->info.n_tablespaces; i++)
		printf("Tablespace %s: %s\n", r->backup->info.tablespaces[i].name, r->locations[i]);
	if (r->ks != NULL)
		printf("Keystore: %s%s\n", r->keystore_path, r->use_keystore_copy ? " (from the backup)" : "");
	printf("WAL: up to %s on timeline %" PRIu32 "\n", end, r->chain.timelines[0].id);
	printf("Nothing was changed.\n");
}

static void
print_result(const struct recovery *r)
{
	printf("Last replayed LSN: %s\n", r->last_lsn != NULL ? r->last_lsn : "none");
	printf("Last replayed transaction: %s\n", r->last_time != NULL ? r->last_time : "none");
	printf("Recovery of database completed successfully.\n");
}

static void
print_outcome(const struct recovery *r)
{
	if (r->opts->json)
		print_json(r);
	else if (r->opts->dry_run)
		print_plan(r);
	else
		print_result(r);
}

/* A step, and how long it took. */
static bool
timed(bool (*step) (struct recovery *r), struct recovery *r, double *ret_seconds)
{
	struct timespec begin;
	struct timespec end;
	bool		ok;

	(void) clock_gettime(CLOCK_MONOTONIC, &begin);
	ok = step(r);
	(void) clock_gettime(CLOCK_MONOTONIC, &end);
	*ret_seconds = (double) (end.tv_sec - begin.tv_sec) + (double) (end.tv_nsec - begin.tv_nsec) / 1e9;
	return ok;
}

int
recover(const struct rcvall_options *opts)
{
	struct recovery r;
	int			rc = PGX_EXIT_FAILURE;

	if (recovery_begin(&r, opts))
		rc = check(&r);
	if (rc == PGX_EXIT_OK && !opts->dry_run)
	{
		rc = PGX_EXIT_FAILURE;
		pgx_catch_signals();
		if (target_prepare(&r) && timed(restore_files, &r, &r.files_seconds) && place_keystore(&r) &&
			timed(replay, &r, &r.replay_seconds) && target_finish(&r))
		{
			rc = PGX_EXIT_OK;
			mirror_put_aside(&r);
		}
		else if (r.pgdata_fd >= 0)
			(void) pgx_interrupted();
	}
	if (rc == PGX_EXIT_OK)
		print_outcome(&r);
	recovery_end(&r);
	return rc;
}
