/*
 * functions.c
 *		The SQL functions: set and change keys, open the keystore, tell its state.
 *
 * A statement may hold a passphrase, so no message from here has the
 * statement logged with it.
 */
#include "pgx_postgres.h"

#include <sys/stat.h>

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xloginsert.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/uuid.h"

#include "pgx_tde.h"

PG_FUNCTION_INFO_V1(pgx_set_master_key);
PG_FUNCTION_INFO_V1(pgx_open_keystore);
PG_FUNCTION_INFO_V1(pgx_set_keystore_passphrase);
PG_FUNCTION_INFO_V1(pgx_keystore_state);
PG_FUNCTION_INFO_V1(pgx_tablespace_algorithm);

/* A passphrase as given in SQL; wiped together with the context that holds it. */
typedef struct Passphrase
{
	const char *text;
	size_t		len;
} Passphrase;

static void
check_allowed(const char *function, bool changes)
{
	pgx_require_preload();
	if (!superuser())
		ereport(ERROR,
				(errhidestmt(true), errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to manipulate keystore")));
	if (!changes)
		return;
	PreventInTransactionBlock(true, function);
	if (RecoveryInProgress())
		ereport(ERROR,
				(errhidestmt(true), errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("recovery is in progress"),
				 errhint("Run %s on the primary; the change reaches this server's keystore by replication.",
						 function)));
}

static Passphrase
get_passphrase(FunctionCallInfo fcinfo, int arg)
{
	text	   *value = PG_GETARG_TEXT_PP(arg);
	Passphrase	result;

	pgx_hide_statement();
	result.text = VARDATA_ANY(value);
	result.len = VARSIZE_ANY_EXHDR(value);
	return result;
}

static bool
file_exists(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

static void
check(keystore *ks, enum keystore_status status)
{
	if (status != KEYSTORE_OK)
		pgx_report_keystore(ERROR, ks, status);
}

/* Make a keystore with its first key, or load the one that exists and give it a new key. */
static void
prepare_keystore(keystore *ks, const Passphrase *passphrase)
{
	const char *path = pgx_keystore_path();
	uint32_t	id;

	if (!file_exists(path))
	{
		if (passphrase == NULL)
			ereport(ERROR,
					(errhidestmt(true), errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("keystore does not exist"),
					 errhint("Make sure pgx_tde.keystore_location points to the correct location.  If the setting is correct, set the master encryption key with a passphrase to create the keystore.")));
		if (file_exists(PGX_KEYTABLE_FILE))
			ereport(ERROR,
					(errhidestmt(true), errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("keystore \"%s\" does not exist, but the data directory is encrypted with its keys", path),
					 errhint("Put the keystore back from another server of the replication group or from a backup; a new one cannot open this data.")));
		check(ks, keystore_create(ks, passphrase->text, passphrase->len, NULL, "pgx_set_master_key"));
		return;
	}
	check(ks, keystore_load(ks, path));
	if (passphrase != NULL)
		check(ks, keystore_open_passphrase(ks, passphrase->text, passphrase->len));
	else if (pgx_state->opened_by != PGX_CLOSED)
		check(ks, pgx_open_with_own_key(ks));
	else
		pgx_error_closed(ERROR, "set the master encryption key");
	check(ks, keystore_add_master_key(ks, "pgx_set_master_key", &id));
}

static bool
has_wal_key(tde_keytable *kt)
{
	for (size_t i = 0; i < tde_keytable_count(kt); i++)
	{
		if (tde_keytable_entry(kt, i)->kind == TDE_KEY_WAL)
			return true;
	}
	return false;
}

/*
 * Begin to encrypt WAL.  The record with the wrapped key goes out in the clear, and is safe there before there is a
 * key table, which makes a server encrypt from its start on: a standby could not read the record otherwise.
 */
static void
begin_wal_encryption(tde_keytable *kt, const uint8_t *kt_buf, size_t kt_len)
{
	XLogFlush(pgx_log_keytable(kt_buf, kt_len));
	pgx_write_keytable(kt_buf, kt_len);
	pgx_publish_keys(kt);
	atomic_store(&pgx_io->shared->wal_on, 1);
}

/*
 * Set the master key.  The order matters; a crash at any point leaves a keystore that opens every
 * key in use: first the new master key is safe in the keystore, then the data keys
 * are wrapped under it, then both are logged for the standbys.  A base backup that takes the new table and the
 * old keystore finds the missing key in the table's ring.
 */
static void
set_master_key(const Passphrase *passphrase)
{
	keystore   *ks = pgx_new_keystore();
	tde_keytable *kt;
	uint8_t    *kt_buf;
	size_t		kt_len;

	pgx_check_location(ERROR);
	LWLockAcquire(pgx_lock(), LW_EXCLUSIVE);
	pgx_lock_keystore(ks);
	pgx_finish_rekey();
	kt = pgx_read_keytable();
	prepare_keystore(ks, passphrase);
	if (kt == NULL)
		kt = pgx_new_keytable(ks);
	else
		pgx_open_keytable(kt, ks);
	check(ks, keystore_store(ks, pgx_keystore_path()));

	/* From here on recovery may meet the new key; after a crash of another process it has only what is noted. */
	pgx_note_open(ks, pgx_state->opened_by == PGX_CLOSED ? PGX_OPENED_BY_SQL : PGX_CLOSED);

	pgx_bind_keytable(kt, ks);
	if (!has_wal_key(kt))
		pgx_check_keytable(tde_keytable_add(kt, TDE_KEY_WAL, 0, TDE_AES256));
	pgx_check_keytable(tde_keytable_serialize(kt, &kt_buf, &kt_len));
	if (atomic_load(&pgx_io->shared->wal_on) == 0)
		begin_wal_encryption(kt, kt_buf, kt_len);
	else
		pgx_write_keytable(kt_buf, kt_len);

	pgx_log_change(ks, kt_buf, kt_len, NULL);
	free(kt_buf);
	LWLockRelease(pgx_lock());
	ereport(LOG,
			(errhidestmt(true),
			 errmsg("a new master encryption key has been set"),
			 errdetail("Keystore \"%s\" has generation %llu, its active master key is %u.",
					   pgx_keystore_path(), (unsigned long long) pgx_state->generation,
					   pgx_state->active_key)));
}

static Datum
run_set_master_key(FunctionCallInfo fcinfo)
{
	Passphrase	passphrase;

	check_allowed("pgx_set_master_key()", true);
	if (PG_NARGS() == 0)
		set_master_key(NULL);
	else
	{
		passphrase = get_passphrase(fcinfo, 0);
		set_master_key(&passphrase);
	}
	PG_RETURN_VOID();
}

Datum
pgx_set_master_key(PG_FUNCTION_ARGS)
{
	bool		exists;

	pgx_require_preload();
	exists = !pgx_location_is_set() || file_exists(pgx_keystore_path());
	return pgx_run_audited(fcinfo, exists ? "rotate" : "create", run_set_master_key);
}

static Datum
run_open_keystore(FunctionCallInfo fcinfo)
{
	Passphrase	passphrase = get_passphrase(fcinfo, 0);
	keystore   *ks;
	tde_keytable *kt;

	check_allowed("pgx_open_keystore()", false);
	pgx_check_location(ERROR);
	LWLockAcquire(pgx_lock(), LW_EXCLUSIVE);
	if (pgx_state->opened_by != PGX_CLOSED)
		ereport(ERROR,
				(errhidestmt(true), errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("keystore is already open")));
	ks = pgx_new_keystore();
	check(ks, keystore_load(ks, pgx_keystore_path()));
	check(ks, keystore_open_passphrase(ks, passphrase.text, passphrase.len));
	kt = pgx_read_keytable();
	if (kt != NULL)
	{
		pgx_open_keytable(kt, ks);
		pgx_publish_keys(kt);
	}
	pgx_note_open(ks, PGX_OPENED_BY_SQL);
	LWLockRelease(pgx_lock());
	ereport(LOG, (errhidestmt(true), errmsg("keystore has been opened")));
	PG_RETURN_VOID();
}

Datum
pgx_open_keystore(PG_FUNCTION_ARGS)
{
	pgx_require_preload();
	return pgx_run_audited(fcinfo, "open", run_open_keystore);
}

static Datum
run_set_keystore_passphrase(FunctionCallInfo fcinfo)
{
	Passphrase	old = get_passphrase(fcinfo, 0);
	Passphrase	new = get_passphrase(fcinfo, 1);
	keystore   *ks;

	check_allowed("pgx_set_keystore_passphrase()", true);
	pgx_check_location(ERROR);
	ks = pgx_new_keystore();
	LWLockAcquire(pgx_lock(), LW_EXCLUSIVE);
	pgx_lock_keystore(ks);
	pgx_finish_rekey();
	check(ks, keystore_load(ks, pgx_keystore_path()));
	check(ks, keystore_change_passphrase(ks, old.text, old.len, new.text, new.len, NULL));
	check(ks, keystore_store(ks, pgx_keystore_path()));
	pgx_log_change(ks, NULL, 0, NULL);
	if (pgx_state->opened_by != PGX_CLOSED)
		pgx_note_open(ks, PGX_CLOSED);
	LWLockRelease(pgx_lock());
	ereport(LOG, (errhidestmt(true), errmsg("passphrase of the keystore has been changed")));
	PG_RETURN_VOID();
}

Datum
pgx_set_keystore_passphrase(PG_FUNCTION_ARGS)
{
	pgx_require_preload();
	return pgx_run_audited(fcinfo, "change-passphrase", run_set_keystore_passphrase);
}

static const char *
opened_by_text(PgxOpenedBy by)
{
	switch (by)
	{
		case PGX_CLOSED:
			return NULL;
		case PGX_OPENED_BY_PG_CTL:
			return "pg_ctl";
		case PGX_OPENED_BY_COMMAND:
			return "passphrase command";
		case PGX_OPENED_BY_AUTO_OPEN:
			return "auto-open";
		case PGX_OPENED_BY_SQL:
			return "SQL function";
		case PGX_OPENED_BY_PGX_KEYSTORE:
			return "pgx_keystore";
	}
	return NULL;
}

static const char *
auto_open_text(void)
{
	MemoryContext outer;
	keystore   *ks;
	struct keystore_auto_open_info info;

	if (!pgx_location_is_set() || !file_exists(pgx_keystore_path()))
		return "none";
	outer = pgx_enter();
	ks = pgx_new_keystore();
	check(ks, keystore_load(ks, pgx_keystore_path()));
	check(ks, keystore_auto_open_status(ks, pgx_keystore_path(), &info));
	pgx_leave(outer);
	return psprintf("%s%s", info.kind,
					strcmp(info.kind, "none") == 0 || info.usable ? "" : " (not usable)");
}

/* One row for the view pgx_keystore_status. */
Datum
pgx_keystore_state(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[8] = {0};
	bool		nulls[8] = {0};
	PgxState	now;
	const char *by;
	pg_uuid_t  *uuid = palloc(sizeof(pg_uuid_t));

	pgx_require_preload();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	LWLockAcquire(pgx_lock(), LW_SHARED);
	now.opened_by = pgx_state->opened_by;
	memcpy(now.uuid, pgx_state->uuid, sizeof(now.uuid));
	now.generation = pgx_state->generation;
	now.active_key = pgx_state->active_key;
	LWLockRelease(pgx_lock());

	by = opened_by_text(now.opened_by);
	memcpy(uuid->data, now.uuid, UUID_LEN);
	values[0] = CStringGetTextDatum(pgx_keystore_location);
	nulls[0] = !pgx_location_is_set();
	values[1] = CStringGetTextDatum(by == NULL ? "closed" : "open");
	nulls[2] = nulls[3] = nulls[4] = nulls[5] = by == NULL;
	if (by != NULL)
	{
		values[2] = CStringGetTextDatum(by);
		values[3] = UUIDPGetDatum(uuid);
		values[4] = Int64GetDatum((int64) now.generation);
		values[5] = Int32GetDatum((int32) now.active_key);
	}
	values[6] = CStringGetTextDatum(auto_open_text());
	values[7] = BoolGetDatum(atomic_load(&pgx_io->shared->wal_on) != 0);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}

Datum
pgx_tablespace_algorithm(PG_FUNCTION_ARGS)
{
	pgx_require_preload();
	PG_RETURN_TEXT_P(cstring_to_text(tde_algorithm_name(pgx_io->get_algorithm(TDE_KEY_TABLESPACE,
																			  PG_GETARG_OID(0)))));
}
