/*
 * keys.c
 *		The keystore, and the data directory's key table.
 */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "encrypt.h"
#include "file.h"
#include "handover.h"
#include "log.h"

int
keys_open(struct keys *keys, const char *path, const char *passphrase_file, const char *host_secret)
{
	enum keystore_status st = KEYSTORE_OK;

	keys->ks = keystore_new();
	if (keys->ks == NULL)
	{
		pgx_log_error("out of memory");
		return PGX_EXIT_FAILURE;
	}
	if (host_secret != NULL)
		st = keystore_set_host_secret_path(keys->ks, host_secret);
	if (st == KEYSTORE_OK)
		st = keystore_load(keys->ks, path);
	if (st != KEYSTORE_OK)
	{
		int			rc = pgx_log_keystore(keys->ks, st);

		if (st == KEYSTORE_ENOENT)
			pgx_log_hint("Create it with \"pgx_keystore create %s\".", path);
		return rc;
	}
	if (passphrase_file == NULL && keystore_open_auto(keys->ks, path) == KEYSTORE_OK)
		return PGX_EXIT_OK;
	return pgx_keystore_ask(keys->ks, passphrase_file);
}

static int
report_table(enum tde_keytable_status status)
{
	pgx_log_error("key table \"%s\" %s", KEYTABLE_FILE, tde_keytable_status_text(status));
	return PGX_EXIT_FAILURE;
}

bool
keys_table_exists(void)
{
	return access(KEYTABLE_FILE, F_OK) == 0;
}

static bool
same_keystore(const struct keys *keys)
{
	uint8_t		ks_uuid[KEYSTORE_UUID_LEN];
	uint8_t		kt_uuid[KEYSTORE_UUID_LEN];

	keystore_get_uuid(keys->ks, ks_uuid);
	tde_keytable_uuid(keys->kt, kt_uuid);
	if (memcmp(ks_uuid, kt_uuid, KEYSTORE_UUID_LEN) == 0)
		return true;
	pgx_log_error("the keystore does not belong to this data directory");
	pgx_log_hint("Copy the keystore of this replication group with \"pgx_keystore copy\", or correct "
				 "pgx_tde.keystore_location.");
	return false;
}

/* The data may have been wrapped with a master key that this copy of the keystore does not have yet. */
static enum keystore_status
get_master_key(const struct keys *keys, uint8_t ret_key[KEYSTORE_KEY_LEN])
{
	uint32_t	id = tde_keytable_master_key_id(keys->kt);
	enum keystore_status st = keystore_get_master_key(keys->ks, id, ret_key);
	size_t		ring_len;
	const uint8_t *ring = tde_keytable_ring(keys->kt, &ring_len);
	size_t		added;

	if (st != KEYSTORE_ENOKEY || ring_len == 0)
		return st;
	st = keystore_import_ring(keys->ks, ring, ring_len, &added);
	return st == KEYSTORE_OK ? keystore_get_master_key(keys->ks, id, ret_key) : st;
}

int
keys_read_table(struct keys *keys)
{
	uint8_t		master_key[KEYSTORE_KEY_LEN];
	uint8_t    *bytes = NULL;
	size_t		len = 0;
	enum tde_keytable_status status;
	enum keystore_status st;

	if (!keys_table_exists())
		return PGX_EXIT_OK;
	/* Group access is the data directory's owner's to allow; there are only wrapped keys in it. */
	if (!pgx_file_read(KEYTABLE_FILE, TDE_KEYTABLE_MAX_SIZE, 0, "600", &bytes, &len))
		return PGX_EXIT_FAILURE;
	status = tde_keytable_parse(bytes, len, &keys->kt);
	free(bytes);
	if (status != TDE_KEYTABLE_OK)
		return report_table(status);
	if (!same_keystore(keys))
		return PGX_EXIT_KEY;
	st = get_master_key(keys, master_key);
	if (st != KEYSTORE_OK)
		return pgx_log_keystore(keys->ks, st);
	status = tde_keytable_open(keys->kt, master_key);
	keystore_wipe(master_key, sizeof(master_key));
	return status == TDE_KEYTABLE_OK ? PGX_EXIT_OK : report_table(status);
}

int
keys_make_table(struct keys *keys)
{
	uint8_t		uuid[KEYSTORE_UUID_LEN];
	uint8_t		master_key[KEYSTORE_KEY_LEN];
	uint8_t    *ring = NULL;
	size_t		ring_len = 0;
	enum keystore_status st;
	enum tde_keytable_status status = TDE_KEYTABLE_ENOMEM;

	if (keys->kt != NULL)
		return PGX_EXIT_OK;
	keystore_get_uuid(keys->ks, uuid);
	keys->kt = tde_keytable_new(uuid);
	if (keys->kt == NULL)
		return report_table(TDE_KEYTABLE_ENOMEM);
	st = keystore_get_master_key(keys->ks, keystore_active_key(keys->ks), master_key);
	if (st == KEYSTORE_OK)
		st = keystore_export_ring(keys->ks, &ring, &ring_len);
	if (st == KEYSTORE_OK)
	{
		status = tde_keytable_rewrap(keys->kt, keystore_active_key(keys->ks), master_key);
		if (status == TDE_KEYTABLE_OK)
			status = tde_keytable_set_keystore(keys->kt, keystore_get_generation(keys->ks), ring,
											   ring_len);
	}
	keystore_wipe(master_key, sizeof(master_key));
	free(ring);
	if (st != KEYSTORE_OK)
		return pgx_log_keystore(keys->ks, st);
	return status == TDE_KEYTABLE_OK ? PGX_EXIT_OK : report_table(status);
}

/* Index of an entry; the count if there is none. */
static size_t
find_entry(const struct keys *keys, enum tde_key_kind kind, uint32_t oid)
{
	size_t		count = keys->kt == NULL ? 0 : tde_keytable_count(keys->kt);
	size_t		i;

	for (i = 0; i < count; i++)
	{
		const struct tde_key_entry *entry = tde_keytable_entry(keys->kt, i);

		if (entry->kind == kind && entry->oid == oid)
			break;
	}
	return i;
}

enum tde_algorithm
keys_algorithm(const struct keys *keys, enum tde_key_kind kind, uint32_t oid)
{
	size_t		i = find_entry(keys, kind, oid);

	if (keys->kt == NULL || i == tde_keytable_count(keys->kt))
		return TDE_NONE;
	return tde_keytable_entry(keys->kt, i)->alg;
}

const uint8_t *
keys_key(const struct keys *keys, enum tde_key_kind kind, uint32_t oid)
{
	size_t		len;

	return keys->kt == NULL ? NULL : tde_keytable_key(keys->kt, find_entry(keys, kind, oid), &len);
}

bool
keys_add(struct keys *keys, enum tde_key_kind kind, uint32_t oid, enum tde_algorithm alg)
{
	enum tde_keytable_status status = tde_keytable_add(keys->kt, kind, oid, alg);

	if (status != TDE_KEYTABLE_OK)
		(void) report_table(status);
	return status == TDE_KEYTABLE_OK;
}

bool
keys_remove(struct keys *keys, enum tde_key_kind kind, uint32_t oid)
{
	enum tde_keytable_status status = tde_keytable_remove(keys->kt, kind, oid);

	if (status == TDE_KEYTABLE_ENOENT)
		status = TDE_KEYTABLE_OK;	/* a former run has removed it */
	if (status != TDE_KEYTABLE_OK)
		(void) report_table(status);
	return status == TDE_KEYTABLE_OK;
}

bool
keys_write_table(struct keys *keys, const struct cluster *cluster)
{
	uint8_t    *bytes = NULL;
	size_t		len = 0;
	enum tde_keytable_status status = tde_keytable_serialize(keys->kt, &bytes, &len);
	bool		ok;

	if (status != TDE_KEYTABLE_OK)
	{
		(void) report_table(status);
		return false;
	}
	ok = disk_replace(cluster, KEYTABLE_FILE, bytes, len);
	free(bytes);
	return ok;
}

void
keys_clear(struct keys *keys)
{
	tde_keytable_free(&keys->kt);
	keystore_free(&keys->ks);
}
