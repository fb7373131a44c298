/*
 * check.c
 *		--check: do the backup, WAL and the keystore fit together?  Nothing but the area's lock is touched.
 *
 * What is missing is named: the file, the segment, the key.  One trouble does not hide the next: every part
 * that can still be looked at is.
 */
#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "child.h"
#include "log.h"
#include "packed.h"
#include "rcvall.h"
#include "walprogram.h"

/* The worse of two exit codes: a failure hides a key that is not usable. */
static int
worse(int a, int b)
{
	if (a == PGX_EXIT_FAILURE || b == PGX_EXIT_FAILURE)
		return PGX_EXIT_FAILURE;
	return a > b ? a : b;
}

/* ---- files ------------------------------------------------------------------------- */

/* Is every file there, with the content that the manifest says? */
static int
check_files(const struct recovery *r)
{
	const struct pgx_backup_info *info = &r->backup->info;
	char	   *program = pgx_postgres_program(r->postgres, "pg_verifybackup");
	char	   *data = pgx_backup_path(r->backup, PGX_BACKUP_DATA);
	const char *const argv[] = {program, "-n", "-q", data, NULL};
	int			rc = PGX_EXIT_OK;

	if (info->packed && (r->ks == NULL || !keystore_is_open(r->ks)))
		rc = PGX_EXIT_KEY;		/* that it is not open has been said */
	else if (info->packed)
		rc = pgx_packed_restore(r->backup, r->ks, NULL, 1, r->opts->progress, &pgx_caught_signal);
	else if (!info->has_manifest)
		pgx_log_warning("what the copy command copied cannot be checked");
	else if (!pgx_child_run(argv, r->area_fd))
	{
		pgx_log_error("backup data \"%s\" is not what its manifest says", r->backup->dir);
		rc = PGX_EXIT_FAILURE;
	}
	if (rc == PGX_EXIT_OK && (info->has_manifest || info->packed))
		printf("Files: complete\n");
	free(data);
	free(program);
	return rc;
}

/* ---- keys -------------------------------------------------------------------------- */

/* The state of a master key in the opened keystore; 0 if it is not there.  *ret_newest: the highest number. */
static enum keystore_key_state
key_state(keystore *ks, uint32_t id, uint32_t *ret_newest)
{
	enum keystore_key_state state = 0;

	*ret_newest = 0;
	for (size_t i = 0; i < keystore_key_count(ks); i++)
	{
		struct keystore_key_info key;

		if (keystore_get_key_info(ks, i, &key) != KEYSTORE_OK)
			continue;
		if (key.id == id)
			state = key.state;
		if (key.id > *ret_newest)
			*ret_newest = key.id;
	}
	return state;
}

/* Each master key that the backup needs.  One that is newer than the keystore comes with WAL. */
static int
check_master_keys(const struct recovery *r)
{
	const struct pgx_backup_info *info = &r->backup->info;
	int			rc = PGX_EXIT_OK;

	for (size_t i = 0; i < info->n_master_keys; i++)
	{
		uint32_t	newest;
		enum keystore_key_state state = key_state(r->ks, info->master_keys[i], &newest);

		if (state == KEYSTORE_KEY_DESTROYED)
			pgx_log_error("master key %u, which the backup needs, has been destroyed", info->master_keys[i]);
		else if (state == 0 && info->master_keys[i] < newest)
			pgx_log_error("master key %u, which the backup needs, does not exist in the keystore",
						  info->master_keys[i]);
		else
			continue;
		rc = PGX_EXIT_KEY;
	}
	return rc;
}

static int
check_keystore(struct recovery *r)
{
	int			rc;

	if (!choose_keystore(r))
		return PGX_EXIT_FAILURE;
	if (r->ks == NULL)
	{
		printf("Keystore: none is needed\n");
		return PGX_EXIT_OK;
	}
	rc = open_keystore(r);
	if (keystore_is_open(r->ks))
		rc = worse(rc, check_master_keys(r));
	if (rc == PGX_EXIT_OK)
		printf("Keystore: \"%s\"%s opens the backup\n", r->keystore_path,
			   r->use_keystore_copy ? ", lost, as the backup has it," : "");
	return rc;
}

/* ---- WAL --------------------------------------------------------------------------- */

static void
ignore_line(const char *line, void *arg)
{
	(void) line;
	(void) arg;
}

/* Can all of it be read, decrypted with the key that the backup has? */
static int
read_wal(const struct recovery *r)
{
	const char *const options[] = {"-q", NULL};
	uint32_t	size = r->backup->info.wal_segment_size;
	uint64_t	stopped = 0;
	char		text[PGX_LSN_STRLEN + 1];
	int			rc;

	/* A copy command's backup that was made without the key table keeps the key from us. */
	if (took_by_command(r->backup, "pg_data") && r->ks != NULL && !has_keytable(r))
	{
		pgx_log_warning("the backup has no key table, so WAL cannot be looked into");
		return PGX_EXIT_OK;
	}
	if (r->ks != NULL && !keystore_is_open(r->ks))
		return PGX_EXIT_KEY;	/* said already */
	rc = wal_read(r, &r->chain, options, ignore_line, NULL, &stopped);
	if (rc != PGX_EXIT_OK || stopped + size >= r->chain.end)
		return rc;
	pgx_lsn_text(stopped, text);
	pgx_log_error("WAL cannot be read beyond %s", text);
	pgx_log_detail("It is damaged there, or encrypted with a key that the backup does not have.");
	return PGX_EXIT_FAILURE;
}

static int
check_wal(struct recovery *r)
{
	char		text[PGX_LSN_STRLEN + 1];
	int			rc;

	if (!check_chain(r))
		return PGX_EXIT_FAILURE;
	if (r->chain.missing[0] != '\0')
		return PGX_EXIT_FAILURE;	/* a warning only where the point of recovery may come before */
	rc = read_wal(r);
	pgx_lsn_text(r->chain.end, text);
	if (rc == PGX_EXIT_OK)
		printf("WAL: complete up to %s on timeline %" PRIu32 "\n", text, r->chain.timelines[0].id);
	return rc;
}

int
check_backup(const struct rcvall_options *opts)
{
	struct recovery r;
	int			rc = PGX_EXIT_FAILURE;

	if (recovery_begin(&r, opts))
	{
		pgx_catch_signals();
		printf("Backup: %s\n", r.backup->dir);
		(void) fflush(stdout);	/* programs of PostgreSQL have their own say in between */
		rc = check_keystore(&r);
		rc = worse(rc, check_files(&r));
		rc = worse(rc, check_wal(&r));
		if (pgx_interrupted())
			rc = PGX_EXIT_FAILURE;
		if (rc == PGX_EXIT_OK)
			printf("Backup, WAL and keystore fit together.\n");
	}
	recovery_end(&r);
	return rc;
}
