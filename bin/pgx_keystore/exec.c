/*
 * exec.c
 *		pgx_keystore exec: run a program of PostgreSQL that parses WAL (pg_waldump,
 *		pg_rewind, pg_verifybackup) so that it sees decrypted WAL.
 *
 * The program is started with the I/O layer and, in a memory file, the one key that it
 * needs: that of WAL.  It never gets the keystore's key or a master key.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "actions.h"
#include "audit.h"
#include "file.h"
#include "log.h"
#include "mem.h"
#include "server.h"
#include "walprogram.h"

/* Decrypt in pg_wal, and in what --wal-directory names. */
static bool
set_environment(const struct options *opts, const tde_keytable *kt, const char *postgres)
{
	const char **dirs = pgx_alloc((opts->wal_directories.count + 1) * sizeof(*dirs));
	char	   *pg_wal = pgx_join(opts->pgdata, "pg_wal");
	int			fd = -1;		/* stays open for the program */
	bool		ok;

	dirs[0] = pg_wal;
	for (size_t i = 0; i < opts->wal_directories.count; i++)
		dirs[i + 1] = opts->wal_directories.items[i];
	ok = pgx_wal_environment_set(kt, postgres, dirs, opts->wal_directories.count + 1, &fd);
	free(pg_wal);
	free(dirs);
	return ok;
}

/* All that comes before the program takes our place; an exit code. */
static int
prepare(const struct options *opts)
{
	char	   *postgres = pgx_postgres_find();
	char	   *location = NULL;
	char	   *path = NULL;
	char	   *keytable = pgx_join(opts->pgdata, PGX_KEYTABLE);
	keystore   *ks = new_handle();
	tde_keytable *kt = NULL;
	int			rc = PGX_EXIT_FAILURE;

	location = pgx_server_keystore_location(postgres, opts->pgdata, NULL, 0);
	if (location == NULL)
		goto out;
	path = pgx_join(location, KEYSTORE_FILE_NAME);
	rc = load_keystore(ks, opts, path);
	if (rc == PGX_EXIT_OK)
		rc = open_keystore(ks, opts, path);
	if (rc == PGX_EXIT_OK)
		rc = pgx_keytable_open(ks, keytable, &kt);
	if (rc != PGX_EXIT_OK)
		goto out;
	rc = PGX_EXIT_FAILURE;
	if (!pgx_keytable_has_wal(kt))
		pgx_log_error("WAL of the server in \"%s\" is not encrypted", opts->pgdata);
	else if (set_environment(opts, kt, postgres))
		rc = PGX_EXIT_OK;

out:
	tde_keytable_free(&kt);
	keystore_free(&ks);
	free(postgres);
	free(location);
	free(path);
	free(keytable);
	return rc;
}

int
action_exec(const struct options *opts, int n_args, char **args)
{
	int			rc;

	if (opts->pgdata == NULL)
	{
		pgx_log_error("no data directory is specified");
		pgx_log_hint("Use option -D.");
		return PGX_EXIT_FAILURE;
	}
	rc = prepare(opts);
	if (rc != PGX_EXIT_OK)
		return rc;
	/* Now or never: the program takes our place.  The keystore has been opened for it. */
	pgx_audit_note("program", "%s", args[0]);
	rc = pgx_audit_end(PGX_EXIT_OK);
	if (rc != PGX_EXIT_OK)
		return rc;
	(void) execvp(args[0], args);
	pgx_log_error("could not run program \"%s\": %m", args[0]);
	return PGX_EXIT_FAILURE;
}
