/*
 * store.c
 *		Handing out the keystore file, and taking over one that a client has changed.
 *
 * So nobody's passphrase has to come to the server: pgx_keystore fetches the file, which is ciphertext, builds the
 * new slot on its own side, and hands the new file back.  Only somebody who opened the keystore can make a file
 * that passes: its header is authenticated under the keystore's key, which this server holds, too.
 */
#include "pgx_postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xloginsert.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "pgx_tde.h"

PG_FUNCTION_INFO_V1(pgx_get_keystore);
PG_FUNCTION_INFO_V1(pgx_store_keystore);

static void
check(keystore *ks, enum keystore_status status)
{
	if (status != KEYSTORE_OK)
		pgx_report_keystore(ERROR, ks, status);
}

/* ---- changes on their way to the standbys ------------------------------------------------ */

/*
 * Slots of the keystore, which a passphrase could be guessed from, never are in WAL in the clear.  A page that
 * was begun before WAL was encrypted stays in the clear to its end, over a restart too; then begin
 * another segment.
 */
static void
leave_clear_page(void)
{
	const struct pgx_io_shared *shared = pgx_io->shared;
	XLogRecPtr	end = GetXLogInsertRecPtr();
	bool		first_page = XLogSegmentOffset(end, wal_segment_size) < XLOG_BLCKSZ;

	/* Nothing is in the page yet, and nothing to flush in it. */
	if (end % XLOG_BLCKSZ == (first_page ? SizeOfXLogLongPHD : SizeOfXLogShortPHD))
		return;

	/* If no page was written since the start, what this one is like is not known. */
	XLogFlush(end);
	if (!shared->last_valid || shared->last_epoch == 0)
		XLogFlush(RequestXLogSwitch(false));
}

/*
 * Log a keystore that is stored here, with the key table unless it is NULL, and after a rekey with the envelope.  While
 * WAL is not encrypted nothing is logged: the first master key brings the standbys all of it.
 */
void
pgx_log_change(keystore *ks, const uint8_t *keytable, size_t keytable_len, const uint8_t *envelope)
{
	uint8_t    *buf;
	size_t		len;

	if (atomic_load(&pgx_io->shared->wal_on) == 0)
		return;
	check(ks, keystore_serialize(ks, &buf, &len));
	leave_clear_page();
	XLogFlush(pgx_log_keystore(buf, len, keytable, keytable_len, envelope));
	free(buf);
}

/*
 * After a rekey what opened this server without a passphrase does not any more, but can be made anew.  Not being able to
 * is no reason to fail: the change is made.  False if that failed; then the envelope should stay, and with it this server
 * still opens by itself.
 */
bool
pgx_reseal_auto_open(keystore *ks)
{
	bool		resealed = false;
	enum keystore_status status = keystore_auto_open_reseal(ks, pgx_keystore_path(), &resealed);

	if (status != KEYSTORE_OK)
		ereport(WARNING,
				(errmsg("could not enable automatic opening of keystore \"%s\" anew", pgx_keystore_path()),
				 errdetail_internal("%s", keystore_errmsg(ks)),
				 errhint("Run \"pgx_keystore --enable-auto-open %s\" as the server's user.",
						 pgx_keystore_path())));
	else if (resealed)
		ereport(LOG,
				(errmsg("automatic opening of keystore \"%s\" has been enabled anew", pgx_keystore_path())));
	return status == KEYSTORE_OK;
}

/* Is the envelope still there of the rekey that made the keystore what it is?  The handle is open. */
bool
pgx_is_rekey_pending(keystore *ks, uint8_t *ret_envelope)
{
	bool		pending = false;

	check(ks, keystore_rekey_pending(ks, pgx_keystore_path(), ret_envelope, &pending));
	return pending;
}

/*
 * If the server, or a backend, died after a rekey was stored and before it was logged, then no standby can follow any
 * later change.  So whatever changes the keystore next does first what was left to do.  Records can be replayed any number of
 * times, so nothing is wrong if it had been logged.  The caller has both locks.
 */
void
pgx_finish_rekey(void)
{
	uint8_t		envelope[KEYSTORE_ENVELOPE_LEN];
	tde_keytable *kt;
	keystore   *ks;
	uint8_t    *kt_buf = NULL;
	size_t		kt_len = 0;

	if (pgx_state->opened_by == PGX_CLOSED)
		return;
	ks = pgx_open_own_keystore();
	if (!pgx_is_rekey_pending(ks, envelope))
	{
		/* One that never came to be, or one that was given up. */
		check(ks, keystore_rekey_end(ks, pgx_keystore_path()));
		return;
	}
	kt = pgx_read_keytable();
	if (kt != NULL)
	{
		pgx_open_keytable(kt, ks);
		pgx_check_keytable(tde_keytable_serialize(kt, &kt_buf, &kt_len));
	}
	pgx_note_open(ks, PGX_CLOSED);
	pgx_log_change(ks, kt_buf, kt_len, envelope);
	free(kt_buf);
	if (pgx_reseal_auto_open(ks))
		check(ks, keystore_rekey_end(ks, pgx_keystore_path()));
	ereport(LOG,
			(errmsg("a rekey of keystore \"%s\" that was interrupted has been completed", pgx_keystore_path())));
}

/* ---- handing out ------------------------------------------------------------------------- */

/* The file's bytes, NULL if there is no keystore.  Whether the keystore is open does not matter. */
Datum
pgx_get_keystore(PG_FUNCTION_ARGS)
{
	MemoryContext outer;
	keystore   *ks;
	enum keystore_status status;
	uint8_t    *buf;
	size_t		len;
	bytea	   *result = NULL;

	pgx_require_preload();
	outer = pgx_enter();
	ks = pgx_new_keystore();
	status = keystore_load(ks, pgx_keystore_path());
	if (status != KEYSTORE_ENOENT)
	{
		check(ks, status);
		check(ks, keystore_serialize(ks, &buf, &len));
		result = MemoryContextAlloc(outer, VARHDRSZ + len);
		SET_VARSIZE(result, VARHDRSZ + len);
		memcpy(VARDATA(result), buf, len);
		free(buf);
	}
	pgx_leave(outer);
	if (result == NULL)
		PG_RETURN_NULL();
	pgx_audit_begin();
	pgx_audit("fetch", NULL, NULL);
	PG_RETURN_BYTEA_P(result);
}

/* ---- taking over ------------------------------------------------------------------------- */

/* What pgx_store_keystore() was given. */
typedef struct Offer
{
	const uint8 *file;
	size_t		len;
	const uint8 *envelope;		/* NULL: no rekey */
} Offer;

static Offer
get_offer(FunctionCallInfo fcinfo)
{
	bytea	   *file = PG_GETARG_BYTEA_PP(0);
	Offer		offer = {(const uint8 *) VARDATA_ANY(file), VARSIZE_ANY_EXHDR(file), NULL};

	if (PG_NARGS() > 1)
	{
		bytea	   *envelope = PG_GETARG_BYTEA_PP(1);

		if (VARSIZE_ANY_EXHDR(envelope) != KEYSTORE_ENVELOPE_LEN)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("the envelope of a rekey must have %d bytes", KEYSTORE_ENVELOPE_LEN)));
		offer.envelope = (const uint8 *) VARDATA_ANY(envelope);
	}
	return offer;
}

/* Is it a file of this keystore, and made from what is stored here now? */
static void
check_header(keystore *current, keystore *offered)
{
	uint8		uuids[2][KEYSTORE_UUID_LEN];
	char		texts[2][KEYSTORE_UUID_STRLEN + 1];
	uint64		generation = keystore_get_generation(current);

	keystore_get_uuid(current, uuids[0]);
	keystore_get_uuid(offered, uuids[1]);
	if (memcmp(uuids[0], uuids[1], KEYSTORE_UUID_LEN) != 0)
	{
		for (int i = 0; i < 2; i++)
			keystore_uuid_text(uuids[i], texts[i]);
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the new keystore is not this server's keystore"),
				 errdetail("This server has keystore %s, but the new one is keystore %s.", texts[0], texts[1]),
				 errhint("Fetch the keystore from this server and change that.")));
	}
	if (keystore_get_generation(offered) != generation + 1)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the keystore has been changed by somebody else meanwhile"),
				 errdetail("This server has generation %llu, so the next is %llu, but the new keystore has generation %llu.",
						   (unsigned long long) generation, (unsigned long long) generation + 1,
						   (unsigned long long) keystore_get_generation(offered)),
				 errhint("Fetch the keystore from this server again and repeat the change.")));
}

/*
 * Open what was offered: with the key that this server holds, or after a rekey with the one that the envelope brings
 * to who holds the former.
 */
static keystore *
open_offered(keystore *current, const Offer *offer)
{
	keystore   *offered = pgx_new_keystore();

	check(offered, keystore_load_bytes(offered, offer->file, offer->len, "new keystore"));
	check_header(current, offered);
	if (offer->envelope == NULL)
	{
		check(offered, keystore_open_ksk(offered, pgx_state->ksk));
		return offered;
	}
	offered = pgx_open_own_keystore();
	check(offered, keystore_apply_rekey(offered, offer->file, offer->len, offer->envelope,
										KEYSTORE_ENVELOPE_LEN));
	return offered;
}

/* Is there a record of the key, a tombstone at least? */
static bool
has_record(keystore *ks, uint32 id)
{
	struct keystore_key_info info;

	for (size_t i = 0; i < keystore_key_count(ks); i++)
	{
		check(ks, keystore_get_key_info(ks, i, &info));
		if (info.id == id)
			return true;
	}
	return false;
}

static void
refuse_keys(uint32 id, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("master encryption key %u %s in the new keystore", id, what),
			 errhint("Fetch the keystore from this server and change that; master keys are made with pgx_set_master_key().")));
}

/*
 * Every master key of before is there, with the same bytes; or it is destroyed, which is what a client may do to
 * one that nothing here is wrapped under.
 */
static void
check_keys(keystore *current, keystore *offered, uint32 in_use)
{
	uint8		before[KEYSTORE_KEY_LEN];
	uint8		after[KEYSTORE_KEY_LEN];
	struct keystore_key_info info;

	if (keystore_active_key(offered) != keystore_active_key(current))
		refuse_keys(keystore_active_key(current), "is not the active one");
	for (size_t i = 0; i < keystore_key_count(current); i++)
	{
		enum keystore_status status;
		bool		kept;
		bool		same;

		check(current, keystore_get_key_info(current, i, &info));
		if (!has_record(offered, info.id))
			refuse_keys(info.id, "is missing");
		/* No error may leave with a key on the stack. */
		status = keystore_get_master_key(offered, info.id, after);
		kept = status == KEYSTORE_OK;
		same = kept && keystore_get_master_key(current, info.id, before) == KEYSTORE_OK &&
			memcmp(before, after, sizeof(after)) == 0;
		explicit_bzero(before, sizeof(before));
		explicit_bzero(after, sizeof(after));
		if (status != KEYSTORE_ENOKEY)
			check(offered, status);
		if (kept && !same)
			refuse_keys(info.id, "is another one");
		if (!kept && info.id == in_use)
			refuse_keys(info.id, "is destroyed, but in use,");
	}
}

/*
 * Store what has passed.  The key table goes first: its keys stay under the same master key, so it opens with the
 * keystore of before too, and its ring is one that the new keystore opens.
 */
static void
store_offered(keystore *offered, tde_keytable *kt, const uint8 *envelope)
{
	uint8_t    *kt_buf = NULL;
	size_t		kt_len = 0;

	if (kt != NULL)
	{
		pgx_bind_keytable(kt, offered);
		pgx_check_keytable(tde_keytable_serialize(kt, &kt_buf, &kt_len));
		pgx_write_keytable(kt_buf, kt_len);
	}

	/*
	 * If another process crashes now, recovery opens the file with one of the two keys; a server that is
	 * started, with the envelope.
	 */
	check(offered, keystore_get_ksk(offered, pgx_state->next_ksk));
	if (envelope != NULL)
		check(offered, keystore_rekey_begin(offered, pgx_keystore_path(), envelope, KEYSTORE_ENVELOPE_LEN));
	check(offered, keystore_store(offered, pgx_keystore_path()));
	pgx_note_open(offered, PGX_CLOSED);
	pgx_log_change(offered, kt_buf, kt_len, envelope);
	free(kt_buf);
	if (envelope != NULL && pgx_reseal_auto_open(offered))
		check(offered, keystore_rekey_end(offered, pgx_keystore_path()));
}

static void
store(const Offer *offer)
{
	keystore   *current;
	keystore   *offered;
	tde_keytable *kt;

	pgx_check_location(ERROR);
	LWLockAcquire(pgx_lock(), LW_EXCLUSIVE);
	if (pgx_state->opened_by == PGX_CLOSED)
		pgx_error_closed(ERROR, "check the new keystore");
	current = pgx_new_keystore();
	pgx_lock_keystore(current);
	pgx_finish_rekey();
	kt = pgx_read_keytable();
	current = pgx_open_own_keystore();
	if (kt != NULL)
		pgx_open_keytable(kt, current);
	offered = open_offered(current, offer);
	check_keys(current, offered, kt != NULL ? tde_keytable_master_key_id(kt) : 0);
	store_offered(offered, kt, offer->envelope);
	LWLockRelease(pgx_lock());
	ereport(LOG,
			(errmsg(offer->envelope != NULL ? "a keystore with a new key of its own has been stored" :
					"a changed keystore has been stored"),
			 errdetail("Keystore \"%s\" has generation %llu.", pgx_keystore_path(),
					   (unsigned long long) pgx_state->generation)));
}

static Datum
run_store_keystore(FunctionCallInfo fcinfo)
{
	Offer		offer;

	PreventInTransactionBlock(true, "pgx_store_keystore()");
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("recovery is in progress"),
				 errhint("Make the change on the primary; it reaches this server's keystore by replication.")));
	offer = get_offer(fcinfo);
	store(&offer);
	PG_RETURN_VOID();
}

/*
 * Whoever may execute it need not be a superuser: without a passphrase or recovery key nobody can make a file that is
 * accepted.
 */
Datum
pgx_store_keystore(PG_FUNCTION_ARGS)
{
	pgx_require_preload();
	return pgx_run_audited(fcinfo, PG_NARGS() > 1 ? "rekey" : "store", run_store_keystore);
}
