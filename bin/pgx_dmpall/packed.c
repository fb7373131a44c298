/*
 * packed.c
 *		A backup in one sealed, compressed file: pgx_dmpall --compress.
 *
 * Ciphertext does not compress, so pages are decrypted on the way, and what comes out is encrypted again; all
 * that is libpgxpack's.  Here are the opened keystore that this takes, progress, and what backup_info.json says of it.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "child.h"
#include "dmpall.h"
#include "file.h"
#include "handover.h"
#include "log.h"
#include "mem.h"
#include "packed.h"

/* ---- the keystore ------------------------------------------------------------------- */

/* The server's own keystore; the caller frees it.  NULL after a message. */
static char *
keystore_path(const struct source *source)
{
	char	   *dir;
	char	   *path;

	if (source->keystore_location == NULL)
	{
		pgx_log_error("the server has no keystore");
		pgx_log_detail("A compressed backup is sealed under a master key.");
		pgx_log_hint("Set pgx_tde.keystore_location and call pgx_set_master_key(), or leave out option --compress.");
		return NULL;
	}
	/* The server takes a relative name from its data directory. */
	dir = source->keystore_location[0] == '/' ? pgx_strdup(source->keystore_location) :
		pgx_join(source->data_directory, source->keystore_location);
	path = pgx_join(dir, KEYSTORE_FILE_NAME);
	free(dir);
	return path;
}

/* An exit code. */
static int
open_at(keystore *ks, const char *path, const struct options *opts)
{
	enum keystore_status st = KEYSTORE_OK;

	if (opts->host_secret != NULL)
		st = keystore_set_host_secret_path(ks, opts->host_secret);
	/* The service manager tells us there where credentials are. */
	if (st == KEYSTORE_OK)
		st = keystore_set_sealer_paths(ks, NULL, getenv("CREDENTIALS_DIRECTORY"));
	if (st == KEYSTORE_OK)
		st = keystore_load(ks, path);
	if (st != KEYSTORE_OK)
		return pgx_log_keystore(ks, st);
	if (opts->passphrase_file == NULL && !opts->ask_passphrase && keystore_open_auto(ks, path) == KEYSTORE_OK)
		return PGX_EXIT_OK;
	return pgx_keystore_ask(ks, opts->passphrase_file);
}

bool
open_keystore(struct run *run)
{
	char	   *path = keystore_path(run->source);

	if (path == NULL)
		return false;
	run->ks = keystore_new();
	if (run->ks == NULL)
		pgx_log_error("out of memory");
	else
		run->exit_code = open_at(run->ks, path, run->opts);
	free(path);
	if (run->ks == NULL || run->exit_code != PGX_EXIT_OK)
		return false;
	run->exit_code = PGX_EXIT_FAILURE;	/* of whatever comes now */
	return true;
}

void
close_keystore(struct run *run)
{
	keystore_free(&run->ks);
}

/* ---- the backup -------------------------------------------------------------------------- */

static void
note_result(struct pgx_backup_info *info, const struct pgx_pack_result *result)
{
	info->packed = true;
	memcpy(info->pack_id, result->backup_id, sizeof(info->pack_id));
	info->pack_master_key = result->master_key_id;
	info->pack_data_size = result->raw_size;
	info->start_lsn = result->start_lsn;
	info->start_timeline = result->start_timeline;
	info->end_lsn = result->end_lsn;
	info->end_timeline = result->end_timeline;
}

static bool
pack_once(struct run *run)
{
	const struct options *opts = run->opts;
	char	   *path = pgx_join(run->dir, PGX_PACK_NAME);
	struct pgx_progress_line line = {0};
	const struct pgx_pack_options pack = {
		.conninfo = run->source->conninfo,
		.label = opts->label[0] != '\0' ? opts->label : NULL,
		.checkpoint_fast = strcmp(opts->checkpoint, "fast") == 0,
		.wal = true,
		.data_dir = run->source->data_directory,
		.ks = run->ks,
		.path = path,
		.codec = opts->codec,
		.level = opts->level,
		.jobs = opts->jobs > 0 ? opts->jobs : 1,
		.progress = opts->progress ? pgx_progress_show : NULL,
		.progress_arg = &line,
		.cancel = &pgx_caught_signal
	};
	struct pgx_pack_result result = {0};
	int			rc = pgx_pack(&pack, &result);

	pgx_progress_end(&line);
	if (rc == PGX_EXIT_OK)
		note_result(&run->info, &result);
	else
		run->exit_code = rc;
	pgx_pack_result_clear(&result);
	free(path);
	return rc == PGX_EXIT_OK;
}

bool
take_packed_backup(struct run *run)
{
	bool		ok;

	run->info.method = pgx_strdup("packed");
	run->info.has_manifest = true;
	ok = copy_with_retries(run, pack_once);
	run->info.end_time = (int64_t) time(NULL);
	return ok;
}

/* Read the file again, to its last tag; what is in it was checked by the server's own checksums before. */
bool
verify_packed_backup(struct run *run)
{
	const struct pgx_backup backup = {.dir = run->dir,.info = run->info};
	int			rc = pgx_packed_restore(&backup, run->ks, NULL, run->opts->jobs, false, &pgx_caught_signal);

	if (rc != PGX_EXIT_OK)
		run->exit_code = rc;
	return rc == PGX_EXIT_OK;
}
