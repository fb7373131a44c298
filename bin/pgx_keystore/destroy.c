/*
 * destroy.c
 *		pgx_keystore destroy: destroy a master key that nothing needs any more.
 *
 * What only that key opens is lost for good, so first it is found out who still needs it: the key table of the
 * data directory, and backups.  Not knowing counts as being needed.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "audit.h"
#ifdef HAVE_JANSSON
#include "backup.h"
#endif
#include "connect.h"
#include "file.h"
#include "keytable.h"
#include "log.h"
#include "mem.h"
#include "options.h"
#include "target.h"
#include "walprogram.h"

/* Everything that stands against the destruction. */
struct reasons
{
	char	  **losses;			/* what would be lost, whole sentences */
	size_t		n_losses;
	size_t		n_looked;		/* places that were looked at */
	bool		failed;			/* one could not be looked at; it has been said */
};

static void
add_loss(struct reasons *reasons, char *text)
{
	reasons->losses = pgx_realloc(reasons->losses, (reasons->n_losses + 1) * sizeof(char *));
	reasons->losses[reasons->n_losses++] = text;
}

/* Which master key are the data keys of this data directory wrapped under? */
static void
look_at_data(struct reasons *reasons, const char *pgdata, const uint8_t uuid[KEYSTORE_UUID_LEN], uint32_t id)
{
	char	   *path = pgx_join(pgdata, PGX_KEYTABLE);
	tde_keytable *kt = NULL;
	uint8_t    *bytes = NULL;
	uint8_t		kt_uuid[KEYSTORE_UUID_LEN];
	size_t		len;
	enum tde_keytable_status status;

	reasons->n_looked++;
	if (!pgx_file_read(path, TDE_KEYTABLE_MAX_SIZE, 0, "600", &bytes, &len))
	{
		reasons->failed = true;
		goto out;
	}
	status = tde_keytable_parse(bytes, len, &kt);
	if (status != TDE_KEYTABLE_OK)
	{
		pgx_log_error("key table \"%s\" %s", path, tde_keytable_status_text(status));
		reasons->failed = true;
		goto out;
	}
	tde_keytable_uuid(kt, kt_uuid);
	if (memcmp(uuid, kt_uuid, sizeof(kt_uuid)) != 0)
	{
		pgx_log_error("the keystore does not belong to the data directory of \"%s\"", path);
		reasons->failed = true;
	}
	else if (tde_keytable_master_key_id(kt) == id)
		add_loss(reasons, pgx_printf("All encrypted data and WAL of the data directory \"%s\".", pgdata));

out:
	tde_keytable_free(&kt);
	free(bytes);
	free(path);
}

static void
look_at_backups(struct reasons *reasons, const char *dir, const char *uuid_text, uint32_t id)
{
#ifdef HAVE_JANSSON
	struct pgx_area area = {0};
	struct pgx_key_user *users = NULL;
	size_t		count;

	reasons->n_looked++;
	if (!pgx_area_check(dir) || !pgx_area_list(dir, &area))
	{
		reasons->failed = true;
		return;
	}
	count = pgx_area_key_users(&area, uuid_text, id, &users);
	for (size_t i = 0; i < count; i++)
	{
		const char *backup = users[i].backup->dir;

		add_loss(reasons, users[i].backup->state == PGX_BACKUP_DAMAGED ?
				 pgx_printf("Perhaps the backup \"%s\", which is damaged and does not tell.", backup) :
				 users[i].need == PGX_KEY_FOR_DATA ? pgx_printf("The backup \"%s\".", backup) :
				 pgx_printf("Recovery from the backup \"%s\" to a later time.", backup));
	}
	free(users);
	pgx_area_clear(&area);
#else
	(void) uuid_text;
	(void) id;
	pgx_log_error("could not look at the backups in \"%s\": this build has no libjansson", dir);
	reasons->failed = true;
#endif
}

/* The backups that the server itself knows of. */
static void
look_at_servers_backups(struct reasons *reasons, PGconn *conn, const char *uuid_text, uint32_t id)
{
	PGresult   *res = PQexec(conn, "SELECT pg_catalog.current_setting('pgx_tde.backup_destination', true)");
	const char *dir;

	if (PQresultStatus(res) != PGRES_TUPLES_OK)
	{
		pgx_log_result(conn, res, "could not ask the server for its backups");
		reasons->failed = true;
	}
	else if (!PQgetisnull(res, 0, 0) && (dir = PQgetvalue(res, 0, 0))[0] != '\0')
	{
		pgx_log_verbose("looking at the backups in \"%s\"", dir);
		look_at_backups(reasons, dir, uuid_text, id);
	}
	PQclear(res);
}

static void
look(struct reasons *reasons, const struct target *target, const struct options *opts, keystore *ks,
	 uint32_t id)
{
	uint8_t		uuid[KEYSTORE_UUID_LEN];
	char		uuid_text[KEYSTORE_UUID_STRLEN + 1];

	keystore_get_uuid(ks, uuid);
	keystore_uuid_text(uuid, uuid_text);
	if (opts->pgdata != NULL)
		look_at_data(reasons, opts->pgdata, uuid, id);
	for (size_t i = 0; i < opts->backups.count; i++)
		look_at_backups(reasons, opts->backups.items[i], uuid_text, id);
	if (target->conn != NULL)
	{
		/* Its key table is under the active key, which cannot be destroyed, and it looks again itself. */
		reasons->n_looked++;
		look_at_servers_backups(reasons, target->conn, uuid_text, id);
	}
}

/* Say what stands against it; an exit code. */
static int
judge(const struct reasons *reasons, uint32_t id, bool force)
{
	if (reasons->n_losses > 0 && !force)
		pgx_log_error("master key %u is still needed", id);
	else if (reasons->n_losses > 0)
		pgx_log_warning("what needs master key %u is lost for good", id);
	for (size_t i = 0; i < reasons->n_losses; i++)
		pgx_log_detail("%s", reasons->losses[i]);
	if (force)
		return PGX_EXIT_OK;
	if (reasons->n_losses > 0)
	{
		pgx_log_hint("Rotate the master key on the server, remove the backups when they are no longer wanted, then "
					 "try again; or lose all this with --force.");
		return PGX_EXIT_FAILURE;
	}
	if (reasons->failed)
	{
		pgx_log_hint("Since it cannot be told what needs master key %u, it stays; --force destroys it all the same.",
					 id);
		return PGX_EXIT_FAILURE;
	}
	if (reasons->n_looked == 0)
	{
		pgx_log_error("it is not known what needs master key %u", id);
		pgx_log_hint("Name the data directory with -D and directories of backups with --backup-destination.");
		return PGX_EXIT_FAILURE;
	}
	return PGX_EXIT_OK;
}

static int
apply_destroy(keystore *ks, void *arg)
{
	enum keystore_status st = keystore_destroy_key(ks, *(const uint32_t *) arg);

	return st == KEYSTORE_OK ? PGX_EXIT_OK : pgx_log_keystore(ks, st);
}

/* Is there such a key, and can it be destroyed at all?  Better said before what would be lost. */
static int
check_key(keystore *ks, uint32_t id)
{
	for (size_t i = 0; i < keystore_key_count(ks); i++)
	{
		struct keystore_key_info key;

		if (keystore_get_key_info(ks, i, &key) != KEYSTORE_OK || key.id != id)
			continue;
		if (key.state == KEYSTORE_KEY_ACTIVE)
		{
			pgx_log_error("master key %u is the active one", id);
			pgx_log_hint("Rotate the master key first.");
			return PGX_EXIT_FAILURE;
		}
		if (key.state != KEYSTORE_KEY_DESTROYED)
			return PGX_EXIT_OK;
		pgx_log_error("master key %u has been destroyed already", id);
		return PGX_EXIT_FAILURE;
	}
	pgx_log_error("there is no master key %u", id);
	pgx_log_hint("Use \"%s keys\" to list them.", pgx_progname());
	return PGX_EXIT_KEY;
}

static int
destroy(struct target *target, const struct options *opts, keystore *ks, uint32_t id)
{
	struct reasons reasons = {0};
	int			rc = target_load(target, opts, ks);

	if (rc == PGX_EXIT_OK)
		rc = open_with_passphrase(ks, opts->passphrase_file);
	if (rc == PGX_EXIT_OK)
		rc = check_key(ks, id);
	if (rc != PGX_EXIT_OK)
		return rc;
	look(&reasons, target, opts, ks, id);
	rc = judge(&reasons, id, opts->force);
	for (size_t i = 0; i < reasons.n_losses; i++)
		free(reasons.losses[i]);
	free(reasons.losses);
	if (rc == PGX_EXIT_OK)
		rc = target_change(target, opts, ks, apply_destroy, &id);
	if (rc == PGX_EXIT_OK)
		printf("master key %u of %s has been destroyed, generation %" PRIu64 "\n", id, target->name,
			   keystore_get_generation(ks));
	return rc;
}

int
action_destroy(const struct options *opts, int n_args, char **args)
{
	struct target target;
	keystore   *ks = NULL;
	uint32_t	id = 0;
	int			rc;

	if (!pgx_parse_uint(args[0], "KEYID", 1, UINT32_MAX, &id))
		return PGX_EXIT_FAILURE;
	pgx_audit_note("key", "%u", id);
	ks = new_handle();
	rc = target_begin(&target, opts, n_args - 1, args + 1, true);
	if (rc == PGX_EXIT_OK)
		rc = destroy(&target, opts, ks, id);
	keystore_free(&ks);
	target_end(&target);
	return rc;
}
