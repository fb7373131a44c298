/*
 * target.c
 *		A keystore file, or the keystore of a running server.  See target.h.
 */
#include <config.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "connect.h"
#include "file.h"
#include "log.h"
#include "mem.h"
#include "prompt.h"
#include "server.h"
#include "target.h"

/* Is it certain that a server works on this keystore?  Says so. */
static bool
refuse_if_in_use(const char *path)
{
	char	   *dir = pgx_dirname(path);
	char	   *pgdata = pgx_server_using_keystore(dir);

	free(dir);
	if (pgdata == NULL)
		return false;
	pgx_log_error("keystore \"%s\" is in use by the server in \"%s\"", path, pgdata);
	pgx_log_hint("Let the server make the change, so that its standbys follow: use option -d with a connection string "
				 "instead of the file; or stop the server first.");
	free(pgdata);
	return true;
}

int
target_begin(struct target *target, const struct options *opts, int n_args, char **args, bool writes)
{
	memset(target, 0, sizeof(*target));
	if ((n_args > 0) == (opts->dbname != NULL))
	{
		if (n_args > 0)
		{
			pgx_log_error("a keystore file and option -d cannot be used together");
			pgx_log_hint("With -d it is the server's keystore.");
		}
		else
		{
			pgx_log_error("keystore location is not specified");
			pgx_log_hint("Give a keystore file, or with -d a running server.");
		}
		return PGX_EXIT_FAILURE;
	}
	if (opts->dbname != NULL)
	{
		target->conn = pgx_connect(opts->dbname);
		if (target->conn == NULL)
			return PGX_EXIT_FAILURE;
		target->name = pgx_printf("server \"%s:%s\"", PQhost(target->conn), PQport(target->conn));
		pgx_audit_note("server", "%s:%s", PQhost(target->conn), PQport(target->conn));
		return PGX_EXIT_OK;
	}
	target->path = args[0];
	target->name = pgx_printf("keystore \"%s\"", args[0]);
	pgx_audit_note("keystore", "%s", args[0]);
	if (writes && (!check_file_name(args[0]) || refuse_if_in_use(args[0])))
		return PGX_EXIT_FAILURE;
	return PGX_EXIT_OK;
}

void
target_end(struct target *target)
{
	free(target->name);
	PQfinish(target->conn);
	keystore_wipe(target->envelope, sizeof(target->envelope));
	memset(target, 0, sizeof(*target));
}

int
target_load(struct target *target, const struct options *opts, keystore *ks)
{
	enum keystore_status st;
	uint8_t    *bytes = NULL;
	size_t		len;

	if (target->path != NULL)
		return load_keystore(ks, opts, target->path);
	if (!pgx_fetch_keystore(target->conn, &bytes, &len))
		return PGX_EXIT_FAILURE;
	st = keystore_load_bytes(ks, bytes, len, target->name);
	free(bytes);
	if (st != KEYSTORE_OK)
		return pgx_log_keystore(ks, st);
	pgx_audit_keystore(ks);
	return PGX_EXIT_OK;
}

static int
store(struct target *target, keystore *ks)
{
	enum keystore_status st;
	uint8_t    *bytes = NULL;
	size_t		len;
	bool		done;

	if (target->path != NULL)
	{
		st = KEYSTORE_OK;
		if (target->rekeyed)
			st = keystore_rekey_begin(ks, target->path, target->envelope, sizeof(target->envelope));
		if (st == KEYSTORE_OK)
			st = keystore_store(ks, target->path);
		return st == KEYSTORE_OK ? PGX_EXIT_OK : pgx_log_keystore(ks, st);
	}
	st = keystore_serialize(ks, &bytes, &len);
	if (st != KEYSTORE_OK)
		return pgx_log_keystore(ks, st);
	done = pgx_put_keystore(target->conn, bytes, len, target->rekeyed ? target->envelope : NULL,
							sizeof(target->envelope));
	free(bytes);
	if (!done && PQstatus(target->conn) != CONNECTION_OK)
		pgx_log_hint("It is not known whether the change was made.  If it was, then the server's keystore has generation %"
					 PRIu64 " when the server is there again; \"%s status\" shows it.",
					 keystore_get_generation(ks), pgx_progname());
	return done ? PGX_EXIT_OK : PGX_EXIT_FAILURE;
}

int
target_change(struct target *target, const struct options *opts, keystore *ks, target_change_fn change,
			  void *arg)
{
	uint8_t		ksk[KEYSTORE_KEY_LEN];
	enum keystore_status st;
	int			lock = -1;
	int			rc;

	pgx_secret_lock(ksk, sizeof(ksk));
	st = keystore_get_ksk(ks, ksk);
	if (st == KEYSTORE_OK && target->path != NULL)
		st = keystore_lock(ks, target->path, LOCK_WAIT_MS, &lock);
	rc = st == KEYSTORE_OK ? target_load(target, opts, ks) : pgx_log_keystore(ks, st);
	if (rc != PGX_EXIT_OK)
		goto out;
	st = keystore_open_ksk(ks, ksk);
	keystore_wipe(ksk, sizeof(ksk));	/* what follows takes its time, and has the key in ks */
	if (st != KEYSTORE_OK)
	{
		rc = pgx_log_keystore(ks, st);
		goto out;
	}
	rc = change(ks, arg);
	if (rc == PGX_EXIT_OK)
		rc = store(target, ks);
	if (rc == PGX_EXIT_OK)
		pgx_audit_keystore(ks);

out:
	keystore_wipe(ksk, sizeof(ksk));
	if (lock >= 0)
		keystore_unlock(lock);
	return rc;
}
