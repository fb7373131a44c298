/*
 * keys.c
 *		The keystore for recovery: today's, or one that was restored; where that is lost, the copy in the backup.
 *
 * An older keystore is fine: WAL brings it up to date.  A newer one is, too: it has kept the former master keys.
 */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "file.h"
#include "log.h"
#include "mem.h"
#include "packed.h"
#include "rcvall.h"
#include "server.h"
#include "walprogram.h"

/* What the configuration in the backup says; NULL if nothing, or if the backup does not have it. */
char *
configured(const struct recovery *r, const char *guc)
{
	const struct pgx_backup_info *info = &r->backup->info;
	char	   *data = pgx_backup_path(r->backup, PGX_BACKUP_DATA);
	char	   *words[3] = {NULL};
	size_t		n_words = 0;
	char	   *value = NULL;
	bool		failed;

	for (size_t i = 0; i < info->n_confs; i++)
	{
		if (strcmp(info->confs[i].parameter, "config_file") == 0)
		{
			char	   *file = pgx_backup_path(r->backup, info->confs[i].file);

			words[0] = pgx_strdup("-c");
			words[1] = pgx_printf("config_file=%s", file);
			n_words = 2;
			free(file);
			break;
		}
	}
	if (!took_by_command(r->backup, "pg_data") && !r->backup->info.packed)
		value = pgx_server_setting(r->postgres, data, words, n_words, guc, &failed);
	free(words[0]);
	free(words[1]);
	free(data);
	if (value != NULL && value[0] == '\0')
	{
		free(value);
		value = NULL;
	}
	return value;
}

/* The directory that the recovered server's keystore is in; NULL if none is known. */
static char *
keystore_directory(const struct recovery *r)
{
	const char *noted = r->backup->info.keystore_location;
	char	   *dir;

	if (r->opts->keystore_location != NULL)
		return pgx_absolute(r->opts->keystore_location);
	dir = noted != NULL ? pgx_strdup(noted) : configured(r, "pgx_tde.keystore_location");
	if (dir != NULL && dir[0] != '/')
	{
		char	   *absolute = pgx_join(r->pgdata, dir);	/* as the server makes it */

		free(dir);
		dir = absolute;
	}
	return dir;
}

/* Another server that works on the keystore would be surprised to find it changed by our replay. */
static bool
check_unused(const char *dir)
{
	char	   *pgdata = pgx_server_using_keystore(dir);

	if (pgdata == NULL)
		return true;
	pgx_log_error("the keystore in \"%s\" is in use by the server of data directory \"%s\"", dir, pgdata);
	pgx_log_hint("Stop that server, or give the recovered one a keystore of its own with --keystore-location.");
	free(pgdata);
	return false;
}

static bool
check_uuid(const struct recovery *r, const char *path)
{
	uint8_t		uuid[KEYSTORE_UUID_LEN];
	char		text[KEYSTORE_UUID_STRLEN + 1];

	keystore_get_uuid(r->ks, uuid);
	keystore_uuid_text(uuid, text);
	if (r->backup->info.keystore_uuid == NULL || strcmp(r->backup->info.keystore_uuid, text) == 0)
		return true;
	pgx_log_error("keystore \"%s\" does not belong to the backup \"%s\"", path, r->backup->name);
	pgx_log_detail("The backup needs keystore %s, but this is keystore %s.", r->backup->info.keystore_uuid, text);
	return false;
}

/* Load the keystore that there is; an exit code other than 0 is false, since nothing was asked yet. */
static bool
load(struct recovery *r)
{
	const struct pgx_backup_info *info = &r->backup->info;
	char	   *path = NULL;
	uint8_t    *bytes = NULL;
	size_t		len;
	struct stat st;
	enum keystore_status status;
	bool		ok = false;

	r->use_keystore_copy = lstat(r->keystore_path, &st) != 0 && errno == ENOENT;
	if (!r->use_keystore_copy)
		path = pgx_strdup(r->keystore_path);
	else if (info->keystore_copy != NULL)
		path = pgx_backup_path(r->backup, info->keystore_copy);
	else if (info->keystore_uuid == NULL)
		return true;			/* nothing was encrypted; if that began later, the server will say so */
	else
	{
		pgx_log_error("keystore does not exist");
		pgx_log_detail("\"%s\" is missing, and the backup \"%s\" has no copy of it.", r->keystore_path,
					   r->backup->name);
		pgx_log_hint("Put a copy of the keystore there that is as new as the backup, or newer.");
		return false;
	}
	r->ks = keystore_new();
	if (r->ks == NULL)
		pgx_log_error("out of memory");
	else if (r->use_keystore_copy)
	{
		/* The area is checked as a whole; a directory of a backup is no keystore's. */
		if (pgx_file_read(path, KEYSTORE_MAX_FILE_SIZE, 077, "600", &bytes, &len))
		{
			status = keystore_load_bytes(r->ks, bytes, len, path);
			ok = status == KEYSTORE_OK;
			if (!ok)
				(void) pgx_log_keystore(r->ks, status);
		}
	}
	else
	{
		status = keystore_load(r->ks, path);
		ok = status == KEYSTORE_OK;
		if (!ok)
			(void) pgx_log_keystore(r->ks, status);
	}
	ok = ok && check_uuid(r, path);
	free(bytes);
	free(path);
	return ok;
}

bool
choose_keystore(struct recovery *r)
{
	char	   *dir = keystore_directory(r);
	bool		ok;

	if (dir == NULL)
	{
		if (r->opts->keystore_passphrase)
			pgx_log_error("keystore location is not configured");
		return !r->opts->keystore_passphrase;
	}
	r->keystore_path = pgx_join(dir, KEYSTORE_FILE_NAME);
	ok = (r->opts->check || check_unused(dir)) && load(r);
	free(dir);
	if (ok && r->ks == NULL && r->opts->keystore_passphrase)
	{
		pgx_log_error("keystore does not exist");
		ok = false;
	}
	return ok;
}

/* The key table's file, where the backup is not packed.  The caller frees it. */
static char *
keytable_path(const struct recovery *r)
{
	return pgx_backup_path(r->backup, took_by_command(r->backup, "pg_data") ? PGX_BACKUP_KEYTABLE :
						   PGX_BACKUP_DATA "/" PGX_KEYTABLE);
}

/* Has the backup what it takes to look into WAL? */
bool
has_keytable(const struct recovery *r)
{
	char	   *path = keytable_path(r);
	struct stat st;
	bool		has = r->backup->info.packed || stat(path, &st) == 0;

	free(path);
	return has;
}

/* The backup's key table, opened with the open keystore; *ret_kt stays NULL if there is none.  An exit code. */
int
open_keytable(const struct recovery *r, tde_keytable **ret_kt)
{
	char	   *path;
	struct stat st;
	int			rc = PGX_EXIT_OK;

	if (r->backup->info.packed)
		return pgx_packed_keytable(r->backup, r->ks, ret_kt);
	path = keytable_path(r);
	if (stat(path, &st) == 0)
		rc = pgx_keytable_open(r->ks, path, ret_kt);
	free(path);
	return rc;
}

/* Do the keystore and the backup fit?  The key table has what wraps its keys, so opening it proves it. */
static int
try_keytable(const struct recovery *r)
{
	tde_keytable *kt = NULL;
	int			rc = open_keytable(r, &kt);

	tde_keytable_free(&kt);
	return rc;
}

/*
 * Open it here if we can, so that what does not fit is found before anything is touched.  Whether the server will be
 * able to open it by itself can be told too.
 */
int
open_keystore(struct recovery *r)
{
	int			rc;

	if (r->ks == NULL)
		return PGX_EXIT_OK;
	if (r->use_keystore_copy)
		pgx_log_warning("keystore \"%s\" does not exist; the copy in the backup takes its place", r->keystore_path);
	pgx_core_forbid(&r->core);
	if (r->opts->keystore_passphrase)
	{
		rc = pgx_keystore_ask(r->ks, r->opts->passphrase_file);
		if (rc != PGX_EXIT_OK)
			return rc;
	}
	else if (keystore_open_auto(r->ks, r->keystore_path) != KEYSTORE_OK)
	{
		char	   *command = configured(r, "pgx_tde.keystore_passphrase_command");
		bool		hopeless = command == NULL && !took_by_command(r->backup, "pg_data");

		/* What is packed is encrypted here, not by the server. */
		hopeless |= r->backup->info.packed;
		free(command);
		if (!hopeless && !r->opts->check)
			return PGX_EXIT_OK;
		pgx_log_error("the keystore is not open");
		pgx_log_hint("Use option --keystore-passphrase, or enable automatic opening with \"pgx_keystore --enable-auto-open %s\".",
					 r->keystore_path);
		return PGX_EXIT_KEY;
	}
	return try_keytable(r);
}

/* Put the backup's copy where the server looks for its keystore. */
bool
place_keystore(const struct recovery *r)
{
	char	   *dir;
	char	   *copy;
	struct stat st;
	bool		ok;

	if (!r->use_keystore_copy || r->ks == NULL)
		return true;
	dir = pgx_dirname(r->keystore_path);
	copy = pgx_backup_path(r->backup, r->backup->info.keystore_copy);
	ok = pgx_outside_cluster(dir) && (stat(dir, &st) == 0 || pgx_make_directory(dir)) &&
		pgx_copy_file(copy, r->keystore_path) && pgx_sync_path(dir);
	free(copy);
	free(dir);
	return ok;
}
