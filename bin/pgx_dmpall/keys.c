/*
 * keys.c
 *		The keystore, and which master keys the backup needs.
 *
 * No key is needed for that: key table and keystore say in the clear which master key and which
 * generation they are at.
 */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "dmpall.h"
#include "file.h"
#include "keytable.h"
#include "log.h"
#include "mem.h"
#include "walprogram.h"

#define KEYTABLE		"pgx_tde/keys"

void
note_master_key(uint32_t id, struct key_range *range)
{
	if (range->first == 0 || id < range->first)
		range->first = id;
	if (id > range->last)
		range->last = id;
}

/* Take the master key that a data directory's key table is wrapped under into the range. */
bool
note_keytable(const char *data, struct key_range *range)
{
	char	   *path = pgx_join(data, KEYTABLE);
	tde_keytable *kt = NULL;
	enum tde_keytable_status status;
	uint8_t		uuid[KEYSTORE_UUID_LEN];
	uint8_t    *bytes = NULL;
	struct stat st;
	size_t		len;
	bool		ok = false;

	if (stat(path, &st) != 0 && errno == ENOENT)
	{
		free(path);
		return true;			/* nothing is encrypted */
	}
	if (!pgx_file_read(path, TDE_KEYTABLE_MAX_SIZE, 0, "600", &bytes, &len))
		goto out;
	status = tde_keytable_parse(bytes, len, &kt);
	if (status != TDE_KEYTABLE_OK)
	{
		pgx_log_error("key table \"%s\" %s", path, tde_keytable_status_text(status));
		goto out;
	}
	tde_keytable_uuid(kt, uuid);
	keystore_uuid_text(uuid, range->uuid);
	note_master_key(tde_keytable_master_key_id(kt), range);
	ok = true;

out:
	tde_keytable_free(&kt);
	free(bytes);
	free(path);
	return ok;
}

/*
 * Where the data is not in the backup, its key table is all the same: with that, and the keystore, WAL can be looked into
 * before anything is restored.
 */
bool
keep_keytable(struct run *run, const char *pgdata)
{
	char	   *from = pgx_join(pgdata, PGX_KEYTABLE);
	char	   *to = pgx_join(run->dir, PGX_BACKUP_KEYTABLE);
	struct stat st;
	bool		ok = (lstat(from, &st) != 0 && errno == ENOENT) || pgx_copy_file(from, to);

	free(to);
	free(from);
	return ok;
}

static bool
write_copy(struct run *run, const uint8_t *bytes, size_t len)
{
	char	   *dir = pgx_join(run->dir, PGX_BACKUP_KEYSTORE);
	char	   *path = pgx_join(dir, KEYSTORE_FILE_NAME);
	bool		ok = pgx_make_directory(dir) && pgx_write_new(path, bytes, len);

	if (ok)
		run->info.keystore_copy = pgx_strdup(PGX_BACKUP_KEYSTORE "/" KEYSTORE_FILE_NAME);
	free(path);
	free(dir);
	return ok;
}

/* Read the keystore's bytes and have the library look at them; keep a copy unless told not to. */
static bool
read_keystore(struct run *run, const char *path, const struct key_range *range)
{
	keystore   *ks = keystore_new();
	uint8_t		uuid[KEYSTORE_UUID_LEN];
	char		uuid_text[KEYSTORE_UUID_STRLEN + 1];
	uint8_t    *bytes = NULL;
	size_t		len;
	enum keystore_status status;
	bool		ok = false;

	if (ks == NULL)
	{
		pgx_log_error("out of memory");
		return false;
	}
	if (!pgx_file_read(path, KEYSTORE_MAX_FILE_SIZE, 077, "600", &bytes, &len))
		goto out;
	status = keystore_load_bytes(ks, bytes, len, path);
	if (status != KEYSTORE_OK)
	{
		(void) pgx_log_keystore(ks, status);
		goto out;
	}
	keystore_get_uuid(ks, uuid);
	keystore_uuid_text(uuid, uuid_text);
	if (range->uuid[0] != '\0' && strcmp(range->uuid, uuid_text) != 0)
	{
		pgx_log_error("keystore \"%s\" does not belong to this data directory", path);
		pgx_log_detail("The data needs keystore %s, but this is keystore %s.", range->uuid, uuid_text);
		goto out;
	}
	run->info.keystore_uuid = pgx_strdup(uuid_text);
	run->info.keystore_generation = keystore_get_generation(ks);
	ok = run->opts->no_keystore_copy || write_copy(run, bytes, len);

out:
	free(bytes);
	keystore_free(&ks);
	return ok;
}

/* All ids from the lowest to the highest that was seen: rotations in between are in the backup's WAL. */
static void
note_master_keys(struct pgx_backup_info *info, const struct key_range *range)
{
	if (range->first == 0)
		return;
	info->n_master_keys = range->last - range->first + 1;
	info->master_keys = pgx_alloc(info->n_master_keys * sizeof(*info->master_keys));
	for (uint32_t i = 0; i < info->n_master_keys; i++)
		info->master_keys[i] = range->first + i;
}

/* After the copying: the keystore then has every key that the data may need. */
bool
take_keystore(struct run *run, const struct key_range *range)
{
	struct pgx_backup_info *info = &run->info;
	const char *location = run->source->keystore_location;
	char	   *path = location != NULL ? pgx_join(location, KEYSTORE_FILE_NAME) : NULL;
	struct stat st;
	bool		ok = true;

	if (path == NULL || (lstat(path, &st) != 0 && errno == ENOENT))
	{
		/* No keystore: fine while nothing is encrypted, and otherwise for the administrator to put right. */
		if (range->uuid[0] != '\0' && !run->opts->no_keystore_copy)
		{
			pgx_log_error("the data is encrypted, but its keystore was not found");
			pgx_log_hint("Correct pgx_tde.keystore_location, or use option --no-keystore-copy.");
			ok = false;
		}
		else if (range->uuid[0] != '\0')
			info->keystore_uuid = pgx_strdup(range->uuid);
	}
	else
		ok = read_keystore(run, path, range);
	if (ok && info->keystore_uuid != NULL)
	{
		info->keystore_location = location != NULL ? pgx_strdup(location) : NULL;
		note_master_keys(info, range);
	}
	free(path);
	return ok;
}
