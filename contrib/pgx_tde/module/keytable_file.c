/*
 * keytable_file.c
 *		The key table of the data directory as a file, and its keys in shared memory.
 */
#include "pgx_postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/fd.h"

#include "pgx_tde.h"

#define KEYTABLE_TEMP	PGX_KEYTABLE_FILE ".tmp"

void
pgx_check_keytable(enum tde_keytable_status status)
{
	if (status == TDE_KEYTABLE_OK)
		return;
	ereport(ERROR,
			(errcode(status == TDE_KEYTABLE_ENOMEM ? ERRCODE_OUT_OF_MEMORY :
					 status == TDE_KEYTABLE_EFULL ? ERRCODE_PROGRAM_LIMIT_EXCEEDED :
					 status == TDE_KEYTABLE_ECRYPTO ? ERRCODE_INTERNAL_ERROR : ERRCODE_DATA_CORRUPTED),
			 errmsg("key table \"%s\" %s", PGX_KEYTABLE_FILE, tde_keytable_status_text(status)),
			 status == TDE_KEYTABLE_EDAMAGED || status == TDE_KEYTABLE_EFORMAT ?
			 errhint("Restore the file from a backup of this data directory, or from another server of its replication group.") : 0));
}

/* The key table of the data directory, its keys still wrapped; NULL if there is none. */
tde_keytable *
pgx_read_keytable(void)
{
	int			fd = OpenTransientFile(PGX_KEYTABLE_FILE, O_RDONLY | PG_BINARY);
	struct stat st;
	tde_keytable *kt;
	char	   *buf;

	if (fd < 0 && errno == ENOENT)
		return NULL;
	if (fd < 0 || fstat(fd, &st) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", PGX_KEYTABLE_FILE)));
	if (st.st_size > TDE_KEYTABLE_MAX_SIZE)
		pgx_check_keytable(TDE_KEYTABLE_EDAMAGED);
	buf = palloc(st.st_size + 1);
	if (read(fd, buf, st.st_size) != st.st_size)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read file \"%s\": %m", PGX_KEYTABLE_FILE)));
	CloseTransientFile(fd);
	kt = pgx_parse_keytable(buf, st.st_size);
	pfree(buf);
	return kt;
}

/*
 * The data may be newer than this copy of the keystore: the key was changed while the
 * base backup was running, say.  Then the table carries the keys that are missing, sealed
 * under the key that the opened keystore has.  True if that brought any.
 */
static bool
catch_up_with_data(tde_keytable *kt, keystore *ks)
{
	size_t		ring_len;
	const uint8_t *ring = tde_keytable_ring(kt, &ring_len);
	enum keystore_status status;
	size_t		added = 0;

	if (ring_len == 0)
		return false;
	status = keystore_import_ring(ks, ring, ring_len, &added);
	if (status == KEYSTORE_EDAMAGED || status == KEYSTORE_EFORMAT)
		pgx_check_keytable(TDE_KEYTABLE_EDAMAGED);	/* the ring is a part of that file */
	if (status == KEYSTORE_OK && added > 0)
	{
		pgx_lock_keystore(ks);
		status = keystore_store(ks, pgx_keystore_path());
	}
	if (status != KEYSTORE_OK)
		pgx_report_keystore(ERROR, ks, status);
	if (added > 0)
		ereport(LOG,
				(errmsg("keystore \"%s\" was older than the data and has been brought up to date",
						pgx_keystore_path())));
	return added > 0;
}

static void
refuse_other_keystore(const uint8 *data_uuid, const uint8 *keystore_uuid)
{
	char		data_text[KEYSTORE_UUID_STRLEN + 1];
	char		keystore_text[KEYSTORE_UUID_STRLEN + 1];

	keystore_uuid_text(data_uuid, data_text);
	keystore_uuid_text(keystore_uuid, keystore_text);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("keystore \"%s\" does not belong to this data directory", pgx_keystore_path()),
			 errdetail("The data needs keystore %s, but this is keystore %s.", data_text, keystore_text),
			 errhint("Copy the keystore of this replication group with \"pgx_keystore copy\", or correct pgx_tde.keystore_location.")));
}

/* TDE_KEYTABLE_ENOENT: the keystore has no key of that number. */
static enum tde_keytable_status
try_master_key(tde_keytable *kt, keystore *ks)
{
	uint8		master_key[KEYSTORE_KEY_LEN];
	enum keystore_status status;
	enum tde_keytable_status kt_status;

	status = keystore_get_master_key(ks, tde_keytable_master_key_id(kt), master_key);
	if (status == KEYSTORE_ENOKEY)
		return TDE_KEYTABLE_ENOENT;
	if (status != KEYSTORE_OK)
		pgx_report_keystore(ERROR, ks, status);
	kt_status = tde_keytable_open(kt, master_key);
	explicit_bzero(master_key, sizeof(master_key));
	return kt_status;
}

/* Unwrap the table's keys with the keystore's. */
void
pgx_open_keytable(tde_keytable *kt, keystore *ks)
{
	uint8		data_uuid[KEYSTORE_UUID_LEN];
	uint8		ks_uuid[KEYSTORE_UUID_LEN];
	enum tde_keytable_status status;

	tde_keytable_uuid(kt, data_uuid);
	keystore_get_uuid(ks, ks_uuid);
	if (memcmp(data_uuid, ks_uuid, KEYSTORE_UUID_LEN) != 0)
		refuse_other_keystore(data_uuid, ks_uuid);

	/* The wrong key is there, under the right number, where two servers of a broken pair made one each. */
	status = try_master_key(kt, ks);
	if ((status == TDE_KEYTABLE_ENOENT || status == TDE_KEYTABLE_EDAMAGED) &&
		catch_up_with_data(kt, ks))
		status = try_master_key(kt, ks);
	if (status == TDE_KEYTABLE_ENOENT)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("could not open keystore \"%s\": necessary master encryption key does not exist in the keystore",
						pgx_keystore_path()),
				 errdetail("The data needs master key %u.", tde_keytable_master_key_id(kt)),
				 errhint("Copy a newer keystore from the primary with \"pgx_keystore copy\", or restore the latest backup of the keystore.")));
	pgx_check_keytable(status);
}

/* Wrap the table under the keystore's active key, and let it carry the keystore's key ring. */
void
pgx_bind_keytable(tde_keytable *kt, keystore *ks)
{
	uint8		master_key[KEYSTORE_KEY_LEN];
	uint8_t    *ring;
	size_t		ring_len;
	enum keystore_status status;
	enum tde_keytable_status kt_status;

	status = keystore_get_master_key(ks, keystore_active_key(ks), master_key);
	if (status != KEYSTORE_OK)
		pgx_report_keystore(ERROR, ks, status);
	kt_status = tde_keytable_rewrap(kt, keystore_active_key(ks), master_key);
	explicit_bzero(master_key, sizeof(master_key));
	pgx_check_keytable(kt_status);

	status = keystore_export_ring(ks, &ring, &ring_len);
	if (status != KEYSTORE_OK)
		pgx_report_keystore(ERROR, ks, status);
	kt_status = tde_keytable_set_keystore(kt, keystore_get_generation(ks), ring, ring_len);
	free(ring);
	pgx_check_keytable(kt_status);
}

/* Replace the data directory's key table: after a crash there is the old one or the new one. */
void
pgx_write_keytable(const void *buf, size_t len)
{
	int			fd;

	if (MakePGDirectory(PGX_TDE_DIR) < 0 && errno != EEXIST)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create directory \"%s\": %m", PGX_TDE_DIR)));
	fd = OpenTransientFile(KEYTABLE_TEMP, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY);
	if (fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create file \"%s\": %m", KEYTABLE_TEMP)));
	errno = 0;
	if (write(fd, buf, len) != (ssize_t) len)
	{
		int			save_errno = errno ? errno : ENOSPC;

		CloseTransientFile(fd);
		unlink(KEYTABLE_TEMP);
		errno = save_errno;
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", KEYTABLE_TEMP)));
	}
	if (pg_fsync(fd) != 0 || CloseTransientFile(fd) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not fsync file \"%s\": %m", KEYTABLE_TEMP)));
	durable_rename(KEYTABLE_TEMP, PGX_KEYTABLE_FILE, ERROR);
}

/* Does an opened table have an entry? */
static bool
has_entry(tde_keytable *kt, enum tde_key_kind kind, uint32 oid)
{
	for (size_t i = 0; i < tde_keytable_count(kt); i++)
	{
		const struct tde_key_entry *entry = tde_keytable_entry(kt, i);

		if (entry->kind == kind && entry->oid == oid)
			return true;
	}
	return false;
}

/* Put the keys of an opened table where every process of the server finds them. */
void
pgx_publish_keys(tde_keytable *kt)
{
	const struct pgx_io_shared *shared = pgx_io->shared;
	unsigned	published = atomic_load(&shared->key_count);

	for (size_t i = 0; i < tde_keytable_count(kt); i++)
	{
		const struct tde_key_entry *entry = tde_keytable_entry(kt, i);
		size_t		len;
		const uint8_t *key = tde_keytable_key(kt, i, &len);

		if (key == NULL || pgx_io->set_key(entry->kind, entry->oid, entry->alg, key) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("too many encryption keys")));
	}

	/* An OID that is used again, now for a tablespace in the clear. */
	for (unsigned i = 0; i < published; i++)
	{
		if (shared->keys[i].kind == TDE_KEY_TABLESPACE && shared->keys[i].alg != TDE_NONE &&
			!has_entry(kt, TDE_KEY_TABLESPACE, shared->keys[i].oid))
			(void) pgx_io->set_key(TDE_KEY_TABLESPACE, shared->keys[i].oid, TDE_NONE, NULL);
	}
}
