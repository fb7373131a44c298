/*
 * keyfiles.c
 *		The keystore and the key table as files, and the keys in shared memory.
 */
#include "pgx_postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#include "pgx_tde.h"

#define KEYTABLE_TEMP	PGX_KEYTABLE_FILE ".tmp"

/* How long to wait for pgx_keystore to be done with the file. */
#define KEYSTORE_LOCK_WAIT_MS	10000

bool
pgx_location_is_set(void)
{
	return pgx_keystore_location != NULL && pgx_keystore_location[0] != '\0';
}

/* Path of this server's keystore; the setting does not change while the server runs. */
const char *
pgx_keystore_path(void)
{
	static char path[MAXPGPATH];

	if (!pgx_location_is_set())
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("keystore location is not configured"),
				 errhint("Specify pgx_tde.keystore_location parameter in postgresql.conf.")));
	if (snprintf(path, sizeof(path), "%s/%s", pgx_keystore_location, KEYSTORE_FILE_NAME) >=
		(int) sizeof(path))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("keystore location \"%s\" is too long", pgx_keystore_location)));
	return path;
}

/* Does path lie in dir, or is it dir itself?  Both are canonical. */
static bool
lies_in(const char *path, const char *dir)
{
	size_t		len = strlen(dir);

	return strncmp(path, dir, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

static void
refuse_location(int elevel, const char *what)
{
	ereport(elevel,
			(errcode(ERRCODE_CONFIG_FILE_ERROR),
			 errmsg("keystore location \"%s\" lies in %s", pgx_keystore_location, what),
			 errdetail("A copy or backup of the data would carry the keystore along."),
			 errhint("Move the keystore to a directory of its own and change pgx_tde.keystore_location.")));
}

/* The keystore must not be where copies of the data are made from. */
void
pgx_check_location(int elevel)
{
	char		location[PATH_MAX];
	char		other[PATH_MAX];
	DIR		   *dir;
	struct dirent *entry;

	if (!is_absolute_path(pgx_keystore_location))
		ereport(elevel,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("keystore location \"%s\" is not an absolute path", pgx_keystore_location),
				 errhint("Specify the whole path in pgx_tde.keystore_location.")));
	if (realpath(pgx_keystore_location, location) == NULL)
		return;					/* not there: whoever needs it says so */
	if (realpath(DataDir, other) != NULL && lies_in(location, other))
		refuse_location(elevel, "the data directory");

	dir = AllocateDir("pg_tblspc");
	while ((entry = ReadDirExtended(dir, "pg_tblspc", LOG)) != NULL)
	{
		char		link[MAXPGPATH + 16];

		if (entry->d_name[0] == '.')
			continue;
		snprintf(link, sizeof(link), "pg_tblspc/%s", entry->d_name);
		if (realpath(link, other) != NULL && lies_in(location, other))
			refuse_location(elevel, "a tablespace");
	}
	FreeDir(dir);
}

/*
 * Handles, and the lock on the keystore's file, belong to a memory context of their own, so that they are
 * wiped, freed and released on error paths too.  Returns what pgx_leave() takes.
 */
MemoryContext
pgx_enter(void)
{
	return MemoryContextSwitchTo(AllocSetContextCreate(CurrentMemoryContext, "pgx_tde",
													   ALLOCSET_DEFAULT_SIZES));
}

void
pgx_leave(MemoryContext outer)
{
	MemoryContext inner = MemoryContextSwitchTo(outer);

	MemoryContextDelete(inner);
}

static void
free_keystore(void *arg)
{
	keystore   *ks = arg;

	keystore_free(&ks);
}

static void
free_keytable(void *arg)
{
	tde_keytable *kt = arg;

	tde_keytable_free(&kt);
}

static void
unlock_keystore(void *arg)
{
	keystore_unlock((int) (intptr_t) arg);
}

static void
free_with_context(MemoryContextCallbackFunction function, void *object)
{
	MemoryContextCallback *callback = palloc0(sizeof(MemoryContextCallback));

	callback->func = function;
	callback->arg = object;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
}

static void
out_of_memory(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("out of memory")));
}

/* An empty handle. */
keystore *
pgx_new_keystore(void)
{
	keystore   *ks = keystore_new();
	enum keystore_status status;

	if (ks == NULL)
		out_of_memory();
	free_with_context(free_keystore, ks);
	status = keystore_set_host_secret_path(ks, pgx_host_secret_file);
	if (status != KEYSTORE_OK)
		pgx_report_keystore(ERROR, ks, status);
	return ks;
}

/* An empty key table for a keystore. */
tde_keytable *
pgx_new_keytable(keystore *ks)
{
	uint8		uuid[KEYSTORE_UUID_LEN];
	tde_keytable *kt;

	keystore_get_uuid(ks, uuid);
	kt = tde_keytable_new(uuid);
	if (kt == NULL)
		out_of_memory();
	free_with_context(free_keytable, kt);
	return kt;
}

/* A key table from its bytes, the keys still wrapped. */
tde_keytable *
pgx_parse_keytable(const void *buf, size_t len)
{
	tde_keytable *kt = NULL;

	pgx_check_keytable(tde_keytable_parse(buf, len, &kt));
	free_with_context(free_keytable, kt);
	return kt;
}

/*
 * Keep pgx_keystore, and whoever else writes the file, out until pgx_leave().  Sessions
 * of this server are kept out by pgx_lock().
 */
void
pgx_lock_keystore(keystore *ks)
{
	int			fd;
	enum keystore_status status = keystore_lock(ks, pgx_keystore_path(), KEYSTORE_LOCK_WAIT_MS, &fd);

	if (status != KEYSTORE_OK)
		pgx_report_keystore(ERROR, ks, status);
	free_with_context(unlock_keystore, (void *) (intptr_t) fd);
}

static int
sqlstate_of(enum keystore_status status)
{
	switch (status)
	{
		case KEYSTORE_ENOMEM:
			return ERRCODE_OUT_OF_MEMORY;
		case KEYSTORE_EIO:
			return ERRCODE_IO_ERROR;
		case KEYSTORE_ENOENT:
		case KEYSTORE_ENOKEY:
			return ERRCODE_UNDEFINED_OBJECT;
		case KEYSTORE_EEXIST:
			return ERRCODE_DUPLICATE_OBJECT;
		case KEYSTORE_EFORMAT:
		case KEYSTORE_EDAMAGED:
			return ERRCODE_DATA_CORRUPTED;
		case KEYSTORE_EPASSPHRASE:
		case KEYSTORE_EWRONGKEY:
			return ERRCODE_INVALID_PASSWORD;
		case KEYSTORE_EPASSLEN:
			return ERRCODE_INVALID_PARAMETER_VALUE;
		case KEYSTORE_EVERSION:
		case KEYSTORE_EKDF:
			return ERRCODE_FEATURE_NOT_SUPPORTED;
		case KEYSTORE_EPERM:
			return ERRCODE_CONFIG_FILE_ERROR;
		case KEYSTORE_EBUSY:
			return ERRCODE_LOCK_NOT_AVAILABLE;
		default:
			return ERRCODE_INTERNAL_ERROR;
	}
}

/* Report what the library has to say.  The statement may hold a passphrase and is not logged. */
void
pgx_report_keystore(int elevel, keystore *ks, enum keystore_status status)
{
	const char *message = keystore_errmsg(ks);
	const char *hint = keystore_errhint(ks);

	if (status == KEYSTORE_EPASSLEN)
		ereport(elevel,
				(errhidestmt(true),
				 errcode(sqlstate_of(status)),
				 errmsg_internal("%s", message),
				 errdetail("The length of the passphrase must be between %d and %d bytes.",
						   KEYSTORE_PASSPHRASE_MIN, KEYSTORE_PASSPHRASE_MAX)));
	else
		ereport(elevel,
				(errhidestmt(true),
				 errcode(sqlstate_of(status)),
				 errmsg_internal("%s", message),
				 hint[0] != '\0' ? errhint("%s", hint) : 0));
}

/* This server's keystore, opened with the key that the server holds. */
keystore *
pgx_open_own_keystore(void)
{
	keystore   *ks = pgx_new_keystore();
	enum keystore_status status = keystore_load(ks, pgx_keystore_path());

	if (status == KEYSTORE_OK)
		status = keystore_open_ksk(ks, pgx_state->ksk);
	if (status == KEYSTORE_EWRONGKEY && keystore_open_ksk(ks, pgx_state->next_ksk) == KEYSTORE_OK)
		status = KEYSTORE_OK;
	/* Somebody replaced the file.  The library cannot know where the right one is. */
	if (status == KEYSTORE_EWRONGKEY || status == KEYSTORE_ENOENT)
		ereport(ERROR,
				(errhidestmt(true),
				 errcode(sqlstate_of(status)),
				 errmsg_internal("%s", keystore_errmsg(ks)),
				 errhint("Copy the keystore of this replication group into its place with \"pgx_keystore copy\", or restore the latest backup of the keystore; if the server has stopped, then start it again.")));
	if (status != KEYSTORE_OK)
		pgx_report_keystore(ERROR, ks, status);
	return ks;
}

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
