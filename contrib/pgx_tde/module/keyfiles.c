/*
 * keyfiles.c
 *		This server's keystore: where it lies, its handles, and what the library has
 *		to say.  The key table is in keytable_file.c.
 */
#include "pgx_postgres.h"

#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#include "pgx_tde.h"

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

/*
 * Open the loaded keystore with the key that the server holds; or, if a process died in the middle of a rekey, with
 * the one that was to come.
 */
enum keystore_status
pgx_open_with_own_key(keystore *ks)
{
	enum keystore_status status = keystore_open_ksk(ks, pgx_state->ksk);

	if (status == KEYSTORE_EWRONGKEY && keystore_open_ksk(ks, pgx_state->next_ksk) == KEYSTORE_OK)
		status = KEYSTORE_OK;
	return status;
}

/* This server's keystore, opened with the key that the server holds. */
keystore *
pgx_open_own_keystore(void)
{
	keystore   *ks = pgx_new_keystore();
	enum keystore_status status = keystore_load(ks, pgx_keystore_path());

	if (status == KEYSTORE_OK)
		status = pgx_open_with_own_key(ks);
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
