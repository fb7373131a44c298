/*
 * exec.c
 *		pgx_keystore exec: run a program of PostgreSQL that parses WAL (pg_waldump,
 *		pg_rewind, pg_verifybackup) so that it sees decrypted WAL.
 *
 * The program is started with the I/O layer and, in a memory file, the one key that it
 * needs: that of WAL.  It never gets the keystore's key or a master key.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "actions.h"
#include "file.h"
#include "keytable.h"
#include "log.h"
#include "mem.h"
#include "prompt.h"
#include "server.h"
#include "walkey.h"

#define IO_LAYER		"pgx_tde_io.so"
#define KEYTABLE		"pgx_tde/keys"

/* The program in PATH, else in the directory of the server we were built for; the caller frees it. */
static char *
find_postgres(void)
{
	const char *path = getenv("PATH");
	char	   *found = NULL;

	while (found == NULL && path != NULL && *path != '\0')
	{
		size_t		len = strcspn(path, ":");
		char	   *dir = len == 0 ? pgx_strdup(".") : pgx_strndup(path, len);

		found = pgx_join(dir, "postgres");
		if (access(found, X_OK) != 0)
		{
			free(found);
			found = NULL;
		}
		free(dir);
		path += len;
		path += *path == ':';
	}
	return found != NULL ? found : pgx_join(PG_BINDIR, "postgres");
}

/* The I/O layer of the installation that postgres belongs to; NULL after a message. */
static char *
find_layer(const char *postgres)
{
	char	   *resolved = realpath(postgres, NULL);
	char	   *bindir = pgx_dirname(resolved != NULL ? resolved : postgres);
	char	   *layer = pgx_printf("%s/../lib/%s", bindir, IO_LAYER);

	if (access(layer, R_OK) != 0)
	{
		free(layer);
		layer = pgx_join(PG_PKGLIBDIR, IO_LAYER);
	}
	if (access(layer, R_OK) != 0)
	{
		pgx_log_error("could not access the I/O layer \"%s\": %m", layer);
		pgx_log_hint("Install the server module of pgx-tde for this server.");
		free(layer);
		layer = NULL;
	}
	free(resolved);
	free(bindir);
	return layer;
}

/* Open through keystore.aks where that works, else with the passphrase; an exit code. */
static int
open_keystore(keystore *ks, const struct options *opts, const char *path)
{
	enum keystore_status st = KEYSTORE_OK;

	if (opts->host_secret != NULL)
		st = keystore_set_host_secret_path(ks, opts->host_secret);
	if (st == KEYSTORE_OK)
		st = keystore_load(ks, path);
	if (st != KEYSTORE_OK)
		return pgx_log_keystore(ks, st);
	if (opts->passphrase_file == NULL && keystore_open_auto(ks, path) == KEYSTORE_OK)
		return PGX_EXIT_OK;
	return open_with_passphrase(ks, opts->passphrase_file);
}

/* Unwrap the data directory's keys; an exit code. */
static int
open_keytable(keystore *ks, const char *path, tde_keytable **ret_kt)
{
	uint8_t		master_key[KEYSTORE_KEY_LEN];
	uint8_t		ks_uuid[KEYSTORE_UUID_LEN];
	uint8_t		kt_uuid[KEYSTORE_UUID_LEN];
	uint8_t    *bytes = NULL;
	size_t		len = 0;
	enum tde_keytable_status kt_st;
	enum keystore_status st;

	if (!pgx_file_read(path, TDE_KEYTABLE_MAX_SIZE, 0, "600", &bytes, &len))
		return PGX_EXIT_FAILURE;
	kt_st = tde_keytable_parse(bytes, len, ret_kt);
	free(bytes);
	if (kt_st != TDE_KEYTABLE_OK)
	{
		pgx_log_error("key table \"%s\" %s", path, tde_keytable_status_text(kt_st));
		return PGX_EXIT_FAILURE;
	}
	keystore_get_uuid(ks, ks_uuid);
	tde_keytable_uuid(*ret_kt, kt_uuid);
	if (memcmp(ks_uuid, kt_uuid, KEYSTORE_UUID_LEN) != 0)
	{
		pgx_log_error("the keystore does not belong to the data directory of \"%s\"", path);
		pgx_log_hint("Copy the keystore of this replication group with \"%s copy\".", pgx_progname());
		return PGX_EXIT_KEY;
	}
	st = keystore_get_master_key(ks, tde_keytable_master_key_id(*ret_kt), master_key);
	if (st != KEYSTORE_OK)
		return pgx_log_keystore(ks, st);
	kt_st = tde_keytable_open(*ret_kt, master_key);
	keystore_wipe(master_key, sizeof(master_key));
	if (kt_st != TDE_KEYTABLE_OK)
	{
		pgx_log_error("key table \"%s\" %s", path, tde_keytable_status_text(kt_st));
		return PGX_EXIT_FAILURE;
	}
	return PGX_EXIT_OK;
}

/* Lay the WAL key out as the I/O layer reads it; false if WAL is not encrypted. */
static bool
make_message(const tde_keytable *kt, uint8_t message[TDE_WALKEY_LEN])
{
	for (size_t i = 0; i < tde_keytable_count(kt); i++)
	{
		const struct tde_key_entry *entry = tde_keytable_entry(kt, i);
		const uint8_t *key;
		size_t		len;

		if (entry->kind != TDE_KEY_WAL)
			continue;
		key = tde_keytable_key(kt, i, &len);
		if (key == NULL || len > TDE_WALKEY_LEN - 9)
			return false;
		memset(message, 0, TDE_WALKEY_LEN);
		memcpy(message, TDE_WALKEY_MAGIC, 8);
		message[8] = (uint8_t) entry->alg;
		memcpy(message + 9, key, len);
		return true;
	}
	return false;
}

/*
 * Put the key into a memory file.  Its descriptor is inherited, by the programs that the program
 * starts too: pg_verifybackup has pg_waldump do a part of its work.
 */
static bool
make_key_file(const uint8_t *message)
{
	char		number[16];
	int			fd = memfd_create("pgx_wal_key", MFD_ALLOW_SEALING);

	if (fd < 0 || write(fd, message, TDE_WALKEY_LEN) != TDE_WALKEY_LEN ||
		fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) != 0)
	{
		pgx_log_error("could not write a memory file: %m");
		if (fd >= 0)
			(void) close(fd);
		return false;
	}
	snprintf(number, sizeof(number), "%d", fd);
	return setenv(TDE_WALKEY_ENV, number, 1) == 0;
}

/* Tell the layer where to decrypt: pg_wal, and what --wal-directory names. */
static bool
set_environment(const struct options *opts, const char *layer)
{
	const char *others = getenv("LD_PRELOAD");
	char	   *dirs = pgx_printf("%s/pg_wal", opts->pgdata);
	char	   *preload = others != NULL && others[0] != '\0' ?
		pgx_printf("%s:%s", layer, others) : pgx_strdup(layer);
	bool		ok;

	for (size_t i = 0; i < opts->n_wal_directories; i++)
	{
		char	   *more = pgx_printf("%s:%s", dirs, opts->wal_directories[i]);

		free(dirs);
		dirs = more;
	}
	ok = setenv(TDE_WALKEY_DIRS_ENV, dirs, 1) == 0 && setenv("LD_PRELOAD", preload, 1) == 0;
	free(dirs);
	free(preload);
	return ok;
}

/* All that comes before the program takes our place; an exit code. */
static int
prepare(const struct options *opts)
{
	char	   *postgres = find_postgres();
	char	   *layer = find_layer(postgres);
	char	   *location = NULL;
	char	   *path = NULL;
	char	   *keytable = pgx_join(opts->pgdata, KEYTABLE);
	keystore   *ks = new_handle();
	tde_keytable *kt = NULL;
	uint8_t		message[TDE_WALKEY_LEN];
	int			rc = PGX_EXIT_FAILURE;

	pgx_secret_lock(message, sizeof(message));
	if (layer == NULL)
		goto out;
	location = pgx_server_keystore_location(postgres, opts->pgdata, NULL, 0);
	if (location == NULL)
		goto out;
	path = pgx_join(location, KEYSTORE_FILE_NAME);
	rc = open_keystore(ks, opts, path);
	if (rc == PGX_EXIT_OK)
		rc = open_keytable(ks, keytable, &kt);
	if (rc != PGX_EXIT_OK)
		goto out;
	rc = PGX_EXIT_FAILURE;
	if (!make_message(kt, message))
		pgx_log_error("WAL of the server in \"%s\" is not encrypted", opts->pgdata);
	else if (make_key_file(message) && set_environment(opts, layer))
		rc = PGX_EXIT_OK;

out:
	keystore_wipe(message, sizeof(message));
	tde_keytable_free(&kt);
	keystore_free(&ks);
	free(postgres);
	free(layer);
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
	(void) execvp(args[0], args);
	pgx_log_error("could not run program \"%s\": %m", args[0]);
	return PGX_EXIT_FAILURE;
}
