/*
 * backup.c
 *		pgx_keystore backup, verify and repair.
 */
#include <config.h>

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actions.h"
#include "audit.h"
#include "file.h"
#include "keytable.h"
#include "log.h"
#include "mem.h"
#include "walprogram.h"

#define MAX_FINDINGS	64

int
action_backup(const struct options *opts, int n_args, char **args)
{
	keystore   *ks = NULL;
	char		name[PATH_MAX];
	enum keystore_status st;
	bool		made = false;
	int			lock = -1;
	int			rc = PGX_EXIT_FAILURE;

	if (opts->to == NULL)
	{
		pgx_log_error("no target is specified");
		pgx_log_hint("Name a directory with --to, on other storage than the keystore and the data.");
		return rc;
	}
	pgx_audit_note("to", "%s", opts->to);
	ks = new_handle();
	if (check_file_name(args[0]) && pgx_outside_cluster(opts->to))
		rc = load_keystore(ks, opts, args[0]);
	if (rc == PGX_EXIT_OK && opts->open)
		rc = open_with_passphrase(ks, opts->passphrase_file);
	if (rc != PGX_EXIT_OK)
		goto out;
	rc = PGX_EXIT_FAILURE;
	if (!directory_make(opts->to, &made))
		goto out;
	st = keystore_lock(ks, args[0], LOCK_WAIT_MS, &lock);
	if (st == KEYSTORE_OK)
		st = keystore_backup(ks, args[0], opts->to, name, sizeof(name));
	if (lock >= 0)
		keystore_unlock(lock);
	if (st != KEYSTORE_OK)
	{
		rc = pgx_log_keystore(ks, st);
		if (made)
			directory_unmake(opts->to);
		goto out;
	}
	pgx_audit_note("to", "%s", name);
	printf("keystore \"%s\" generation %" PRIu64 " has been backed up to \"%s\"\n", args[0],
		   keystore_get_generation(ks), name);
	rc = PGX_EXIT_OK;

out:
	keystore_free(&ks);
	return rc;
}

/* ---- verify ------------------------------------------------------------------------------ */

/*
 * The key table knows the generation of the keystore that last changed it: a keystore with a lower one was
 * put back from an old copy.  Returns whether something is wrong.
 */
static bool
check_against_data(keystore *ks, const char *pgdata, const char *path)
{
	char	   *table = pgx_join(pgdata, PGX_KEYTABLE);
	tde_keytable *kt = NULL;
	uint8_t    *bytes = NULL;
	uint8_t		ks_uuid[KEYSTORE_UUID_LEN];
	uint8_t		kt_uuid[KEYSTORE_UUID_LEN];
	uint64_t	generation = keystore_get_generation(ks);
	size_t		len;
	bool		wrong = true;

	if (!pgx_file_read(table, TDE_KEYTABLE_MAX_SIZE, 0, "600", &bytes, &len))
		goto out;
	if (tde_keytable_parse(bytes, len, &kt) != TDE_KEYTABLE_OK)
	{
		printf("error: key table \"%s\" is damaged\n", table);
		goto out;
	}
	keystore_get_uuid(ks, ks_uuid);
	tde_keytable_uuid(kt, kt_uuid);
	if (memcmp(ks_uuid, kt_uuid, sizeof(ks_uuid)) != 0)
		printf("error: the data directory \"%s\" belongs to another keystore\n", pgdata);
	else if (generation < tde_keytable_keystore_generation(kt))
	{
		printf("error: keystore \"%s\" is an older one: generation %" PRIu64 ", but the data directory \"%s\" has seen "
			   "%" PRIu64 "\n", path, generation, pgdata, tde_keytable_keystore_generation(kt));
		printf("hint: Copy the keystore from a server of the group, or from a newer backup; the server also recovers "
			   "missing keys from the key table at its next start.\n");
	}
	else
		wrong = false;

out:
	tde_keytable_free(&kt);
	free(bytes);
	free(table);
	return wrong;
}

int
action_verify(const struct options *opts, int n_args, char **args)
{
	static const char *const words[] = {
		[KEYSTORE_NOTE] = "note",[KEYSTORE_WARNING] = "warning",[KEYSTORE_ERROR] = "error"
	};
	struct keystore_finding *findings = pgx_alloc(MAX_FINDINGS * sizeof(*findings));
	keystore   *ks = new_handle();
	size_t		count = 0;
	enum keystore_status st = KEYSTORE_OK;
	bool		wrong = false;
	bool		loaded;
	int			rc = PGX_EXIT_OK;

	if (!opts->open)
		pgx_audit_event(NULL);
	pgx_audit_note("keystore", "%s", args[0]);
	if (opts->host_secret != NULL)
		st = keystore_set_host_secret_path(ks, opts->host_secret);
	/* A file that does not load is what verify is there to describe. */
	loaded = st == KEYSTORE_OK && keystore_load(ks, args[0]) == KEYSTORE_OK;
	if (loaded && opts->open)
		rc = open_with_passphrase(ks, opts->passphrase_file);
	if (rc != PGX_EXIT_OK)
		goto out;
	st = keystore_verify(ks, args[0], findings, MAX_FINDINGS, &count);
	if (st != KEYSTORE_OK)
	{
		rc = pgx_log_keystore(ks, st);
		goto out;
	}
	for (size_t i = 0; i < count; i++)
	{
		printf("%s: %s\n", words[findings[i].severity], findings[i].text);
		if (findings[i].hint[0] != '\0')
			printf("hint: %s\n", findings[i].hint);
		wrong = wrong || findings[i].severity == KEYSTORE_ERROR;
	}
	if (loaded && opts->pgdata != NULL)
		wrong = check_against_data(ks, opts->pgdata, args[0]) || wrong;
	if (!wrong)
		printf("keystore \"%s\" is in order%s\n", args[0],
			   opts->open ? "" : ", as far as it can be told without the passphrase");
	rc = wrong ? PGX_EXIT_FAILURE : PGX_EXIT_OK;

out:
	free(findings);
	keystore_free(&ks);
	return rc;
}

/* ---- repair ------------------------------------------------------------------------------ */

int
action_repair(const struct options *opts, int n_args, char **args)
{
	keystore   *ks = new_handle();
	char		kept[PATH_MAX] = "";
	enum keystore_status st;
	int			lock = -1;
	int			rc = PGX_EXIT_FAILURE;

	pgx_audit_note("keystore", "%s", args[0]);
	if (opts->from != NULL)
		pgx_audit_note("from", "%s", opts->from);
	if (!check_file_name(args[0]))
		goto out;
	st = keystore_lock(ks, args[0], LOCK_WAIT_MS, &lock);
	if (st == KEYSTORE_OK)
		st = keystore_repair(ks, args[0], opts->from, opts->force, kept, sizeof(kept));
	if (lock >= 0)
		keystore_unlock(lock);
	if (st != KEYSTORE_OK)
	{
		rc = pgx_log_keystore(ks, st);
		goto out;
	}
	rc = load_keystore(ks, opts, args[0]);
	if (rc != PGX_EXIT_OK)
		goto out;
	printf("keystore \"%s\" has been put back, generation %" PRIu64 "\n", args[0], keystore_get_generation(ks));
	if (kept[0] != '\0')
		printf("what was there is kept as \"%s\"\n", kept);

out:
	keystore_free(&ks);
	return rc;
}
