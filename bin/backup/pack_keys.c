/*
 * pack_keys.c
 *		Keys of a packed backup.  See pack_keys.h.
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "log.h"
#include "mem.h"
#include "pack_keys.h"
#include "page.h"
#include "pgx_io.h"

int
pack_keytable_read(const char *path, uint8_t **ret_buf, size_t *ret_len)
{
	return pgx_file_read(path, TDE_KEYTABLE_MAX_SIZE, 0, "600", ret_buf, ret_len) ?
		PGX_EXIT_OK : PGX_EXIT_FAILURE;
}

/* The master key that the table is wrapped under; an exit code. */
static int
get_master_key(keystore *ks, const tde_keytable *kt, uint8_t ret_key[KEYSTORE_KEY_LEN])
{
	uint32_t	id = tde_keytable_master_key_id(kt);
	enum keystore_status st = keystore_get_master_key(ks, id, ret_key);
	const uint8_t *ring;
	size_t		ring_len;
	size_t		added;

	/* The keystore may be an older copy; the table carries the history since. */
	ring = tde_keytable_ring(kt, &ring_len);
	if (st == KEYSTORE_ENOKEY && ring_len > 0)
	{
		st = keystore_import_ring(ks, ring, ring_len, &added);
		if (st == KEYSTORE_OK)
			st = keystore_get_master_key(ks, id, ret_key);
	}
	return st == KEYSTORE_OK ? PGX_EXIT_OK : pgx_log_keystore(ks, st);
}

int
pack_keytable_open(keystore *ks, const uint8_t *buf, size_t len, const char *what,
				   tde_keytable **ret_kt)
{
	uint8_t		master_key[KEYSTORE_KEY_LEN] = {0};
	uint8_t		ks_uuid[KEYSTORE_UUID_LEN];
	uint8_t		kt_uuid[KEYSTORE_UUID_LEN];
	tde_keytable *kt = NULL;
	enum tde_keytable_status kt_st = tde_keytable_parse(buf, len, &kt);
	int			rc = PGX_EXIT_FAILURE;

	if (kt_st != TDE_KEYTABLE_OK)
	{
		pgx_log_error("key table \"%s\" %s", what, tde_keytable_status_text(kt_st));
		return PGX_EXIT_FAILURE;
	}
	keystore_get_uuid(ks, ks_uuid);
	tde_keytable_uuid(kt, kt_uuid);
	if (memcmp(ks_uuid, kt_uuid, KEYSTORE_UUID_LEN) != 0)
	{
		pgx_log_error("the keystore does not belong to key table \"%s\"", what);
		pgx_log_hint("Use the keystore of the server that was backed up, or the copy in the backup.");
		rc = PGX_EXIT_KEY;
		goto out;
	}
	rc = get_master_key(ks, kt, master_key);
	if (rc != PGX_EXIT_OK)
		goto out;
	kt_st = tde_keytable_open(kt, master_key);
	if (kt_st != TDE_KEYTABLE_OK)
	{
		pgx_log_error("key table \"%s\" %s", what, tde_keytable_status_text(kt_st));
		rc = PGX_EXIT_FAILURE;
		goto out;
	}
	*ret_kt = kt;
	kt = NULL;

out:
	keystore_wipe(master_key, sizeof(master_key));
	tde_keytable_free(&kt);
	return rc;
}

/* The entry of a tablespace, or NULL; *ret_index is its place. */
static const struct tde_key_entry *
find_entry(const tde_keytable *kt, uint32_t tablespace, size_t *ret_index)
{
	for (size_t i = 0; kt != NULL && i < tde_keytable_count(kt); i++)
	{
		const struct tde_key_entry *entry = tde_keytable_entry(kt, i);

		if (entry->kind == TDE_KEY_TABLESPACE && entry->oid == tablespace)
		{
			*ret_index = i;
			return entry;
		}
	}
	return NULL;
}

void
pack_classify(const tde_keytable *kt, struct pack_file *file)
{
	char		path[PACK_MAX_PATH + 64];
	struct pgx_io_path id;
	size_t		index;

	if (file->kind != PACK_FILE)
		return;
	if (file->archive == 0)
		snprintf(path, sizeof(path), "%s", file->path);
	else
		snprintf(path, sizeof(path), "pg_tblspc/%u/%s", file->archive, file->path);
	pgx_io_classify(path, "/", &id);
	if (id.kind != PGX_IO_RELATION || find_entry(kt, id.tablespace, &index) == NULL ||
		id.segment > UINT32_MAX / TDE_SEGMENT_PAGES ||
		file->size / TDE_PAGE_SIZE > UINT32_MAX - id.segment * TDE_SEGMENT_PAGES)
		return;
	file->transform = PACK_PAGES;
	file->tablespace = id.tablespace;
	file->database = id.database;
	file->relation = id.relation;
	file->fork = id.fork;
	file->first_block = id.segment * TDE_SEGMENT_PAGES;
}

/* ---- ciphers -------------------------------------------------------------------- */

struct cipher
{
	uint32_t	tablespace;
	tde_xts    *xts;
};

struct pack_ciphers
{
	const tde_keytable *kt;
	struct cipher *known;
	size_t		count;
};

struct pack_ciphers *
pack_ciphers_new(const tde_keytable *kt)
{
	struct pack_ciphers *ciphers = pgx_alloc(sizeof(*ciphers));

	ciphers->kt = kt;
	ciphers->known = pgx_alloc((kt != NULL ? tde_keytable_count(kt) : 0) * sizeof(*ciphers->known));
	return ciphers;
}

void
pack_ciphers_free(struct pack_ciphers **ciphers)
{
	if (*ciphers == NULL)
		return;
	for (size_t i = 0; i < (*ciphers)->count; i++)
		tde_xts_free(&(*ciphers)->known[i].xts);
	free((*ciphers)->known);
	free(*ciphers);
	*ciphers = NULL;
}

/* NULL after a message. */
static tde_xts *
find_cipher(struct pack_ciphers *ciphers, const struct pack_file *file)
{
	const struct tde_key_entry *entry;
	const uint8_t *key = NULL;
	struct cipher *cipher;
	size_t		index = 0;
	size_t		len;

	for (size_t i = 0; i < ciphers->count; i++)
		if (ciphers->known[i].tablespace == file->tablespace)
			return ciphers->known[i].xts;

	entry = find_entry(ciphers->kt, file->tablespace, &index);
	if (entry != NULL)
		key = tde_keytable_key(ciphers->kt, index, &len);
	cipher = &ciphers->known[ciphers->count];
	if (key != NULL)
		cipher->xts = tde_xts_new(entry->alg, key);
	if (key == NULL || cipher->xts == NULL)
	{
		pgx_log_error("could not use the key of the tablespace with OID %u for file \"%s\"",
					  file->tablespace, file->path);
		return NULL;
	}
	cipher->tablespace = file->tablespace;
	ciphers->count++;
	return cipher->xts;
}

static void
first_page_id(const struct pack_record *rec, struct tde_page_id *id)
{
	id->database = rec->file.database;
	id->relation = rec->file.relation;
	id->fork = rec->file.fork;
	id->block = rec->file.first_block + (uint32_t) (rec->offset / TDE_PAGE_SIZE);
}

bool
pack_decrypt_pages(struct pack_ciphers *ciphers, const struct pack_record *rec)
{
	tde_xts    *xts = find_cipher(ciphers, &rec->file);
	struct tde_page_id id;

	if (xts == NULL)
		return false;
	first_page_id(rec, &id);
	for (size_t at = 0; at + TDE_PAGE_SIZE <= rec->len; at += TDE_PAGE_SIZE, id.block++)
	{
		enum tde_page_result result = tde_page_decrypt(xts, &id, false, rec->data + at);

		/*
		 * Zeros under another key than ours would come back as zeros, not as what is there.  No server writes
		 * such a page: one of zeros is zero on disk.
		 */
		if (result == TDE_PAGE_FAILED ||
			(result == TDE_PAGE_OK && tde_page_is_zero(rec->data + at)))
		{
			pgx_log_error("could not decrypt block %u of file \"%s\"", id.block, rec->file.path);
			return false;
		}
	}
	return true;
}

bool
pack_encrypt_pages(struct pack_ciphers *ciphers, const struct pack_record *rec)
{
	tde_xts    *xts = find_cipher(ciphers, &rec->file);
	uint8_t		page[TDE_PAGE_SIZE];
	struct tde_page_id id;

	if (xts == NULL)
		return false;
	first_page_id(rec, &id);
	for (size_t at = 0; at + TDE_PAGE_SIZE <= rec->len; at += TDE_PAGE_SIZE, id.block++)
	{
		if (tde_page_encrypt(xts, &id, false, rec->data + at, page) == TDE_PAGE_FAILED)
		{
			pgx_log_error("could not encrypt block %u of file \"%s\"", id.block, rec->file.path);
			return false;
		}
		memcpy(rec->data + at, page, TDE_PAGE_SIZE);
	}
	return true;
}
