/*
 * packed.c
 *		A packed backup as one of the area.  See packed.h.
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "file.h"
#include "log.h"
#include "packed.h"

void
pgx_progress_show(void *arg, uint64_t done, uint64_t total)
{
	struct pgx_progress_line *line = arg;
	time_t		now = time(NULL);

	/* The total may be the server's estimate. */
	if (total < done)
		total = done;
	if (line->shown && now == line->last && done < total)
		return;
	line->last = now;
	line->shown = true;
	fprintf(stderr, "%llu/%llu kB (%d%%)%s", (unsigned long long) (done / 1024),
			(unsigned long long) (total / 1024), total > 0 ? (int) (100.0 * (double) done / (double) total) : 0,
			isatty(STDERR_FILENO) ? "\r" : "\n");
}

void
pgx_progress_end(const struct pgx_progress_line *line)
{
	if (line->shown && isatty(STDERR_FILENO))
		fputc('\n', stderr);
}

int
pgx_packed_restore(const struct pgx_backup *backup, keystore *ks, const struct pgx_packed_target *to,
				   unsigned jobs, bool progress, const volatile sig_atomic_t *cancel)
{
	char	   *path = pgx_join(backup->dir, PGX_PACK_NAME);
	struct pgx_progress_line line = {0};
	struct pgx_unpack_options opts = {
		.path = path,
		.ks = ks,
		.backup_id = backup->info.pack_id,
		.verify_only = to == NULL,
		.jobs = jobs > 0 ? jobs : 1,
		.progress = progress ? pgx_progress_show : NULL,
		.progress_arg = &line,
		.cancel = cancel
	};
	int			rc;

	if (to != NULL)
	{
		opts.data_dir = to->data_dir;
		opts.wal_dir = to->wal_dir;
		opts.tablespaces = to->tablespaces;
		opts.n_tablespaces = to->n_tablespaces;
	}
	rc = pgx_unpack(&opts);
	pgx_progress_end(&line);
	free(path);
	return rc;
}

int
pgx_packed_keytable(const struct pgx_backup *backup, keystore *ks, tde_keytable **ret_kt)
{
	char	   *path = pgx_join(backup->dir, PGX_PACK_NAME);
	int			rc = pgx_unpack_keytable(path, ks, backup->info.pack_id, ret_kt);

	if (rc == PGX_EXIT_KEY)
		pgx_log_hint("A compressed backup needs a keystore that is as new as the backup, or newer.");
	free(path);
	return rc;
}
