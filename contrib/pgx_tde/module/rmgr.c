/*
 * rmgr.c
 *		WAL records that carry keystore and key table to every server.
 *
 * A record holds everything that is needed, never a reference, and can be
 * replayed any number of times.  Redo replaces this server's own files.  If it
 * cannot, replay stops: the record comes again at the next start.
 *
 * KEYTABLE: the bytes of the new key table.
 * KEYSTORE: u32 length of the new key table (0: unchanged), its bytes, then the bytes of the new keystore.
 * REKEY: the same, with the new keystore's key, sealed for who has the former one, after the key table.
 */
#include "pgx_postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xloginsert.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "pgx_tde.h"

#define XLOG_PGX_KEYTABLE	0x00
#define XLOG_PGX_KEYSTORE	0x10
#define XLOG_PGX_REKEY		0x20

static bool
same_file_bytes(keystore *ks, const void *buf, size_t len)
{
	uint8_t    *mine;
	size_t		mine_len;
	bool		same;

	if (keystore_serialize(ks, &mine, &mine_len) != KEYSTORE_OK)
		return false;
	same = mine_len == len && memcmp(mine, buf, len) == 0;
	free(mine);
	return same;
}

/* Replay cannot go on before the keystore is open: wait for that, or stop. */
static void
require_open(const char *what)
{
	if (pgx_state->opened_by != PGX_CLOSED || pgx_wait_for_open())
		return;
	ereport(FATAL,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("could not encrypt or decrypt data because the keystore is not open"),
			 errdetail("Recovery reached a change of the %s.", what),
			 errhint("Copy the primary's keystore into this server's own directory with \"pgx_keystore copy\", set pgx_tde.keystore_location, and start this server with \"pg_ctl --keystore-passphrase start\".")));
}

static void
redo_keytable(const char *buf, size_t len)
{
	tde_keytable *kt = pgx_parse_keytable(buf, len);
	tde_keytable *mine = pgx_read_keytable();
	bool		newer = mine == NULL ||
		tde_keytable_generation(kt) >= tde_keytable_generation(mine);

	/* The same generation again is either the same table, or one that was never logged before a failover. */
	if (!newer)
		return;
	pgx_write_keytable(buf, len);
	require_open("key table");
	pgx_open_keytable(kt, pgx_open_own_keystore());
	pgx_publish_keys(kt);
	atomic_store(&pgx_io->shared->wal_on, 1);
}

/* Store what came by replication, and let the server know. */
static void
take_over(keystore *ks)
{
	enum keystore_status status = keystore_store(ks, pgx_keystore_path());

	if (status != KEYSTORE_OK)
		pgx_report_keystore(FATAL, ks, status);
	LWLockAcquire(pgx_lock(), LW_EXCLUSIVE);
	pgx_note_open(ks, PGX_CLOSED);
	LWLockRelease(pgx_lock());
	pgx_audit("replicate", NULL, NULL);
	ereport(LOG,
			(errmsg("keystore \"%s\" has been brought to generation %llu by replication",
					pgx_keystore_path(), (unsigned long long) keystore_get_generation(ks))));
}

/* Does the auto-open file open the keystore, or is there none? */
static bool
opens_automatically(keystore *ks)
{
	struct keystore_auto_open_info info;

	return keystore_auto_open_status(ks, pgx_keystore_path(), &info) == KEYSTORE_OK &&
		(info.usable || strcmp(info.kind, "none") == 0);
}

static bool
same_ksk(keystore *one, keystore *two)
{
	uint8		ksk[2][KEYSTORE_KEY_LEN];
	bool		same;

	same = keystore_get_ksk(one, ksk[0]) == KEYSTORE_OK && keystore_get_ksk(two, ksk[1]) == KEYSTORE_OK &&
		memcmp(ksk[0], ksk[1], KEYSTORE_KEY_LEN) == 0;
	explicit_bzero(ksk, sizeof(ksk));
	return same;
}

/*
 * What opens this server without a passphrase is made anew if it does not open the keystore any more, or only with
 * the help of the envelope.  If the server stopped before it came to that, it does so when the record comes again.
 */
static bool
keep_auto_open(keystore *mine)
{
	uint8_t		envelope[KEYSTORE_ENVELOPE_LEN];

	if (pgx_is_rekey_pending(mine, envelope) || !opens_automatically(mine))
		return pgx_reseal_auto_open(mine);
	return true;
}

/*
 * Follow to another KSK, with the envelope of its rekey or, where that is one that this server had before, without.  The
 * passphrases are those that the primary has now.
 */
static void
follow(keystore *mine, const char *buf, size_t len, const char *envelope)
{
	uint64		generation = keystore_get_generation(mine);
	uint8		former[KEYSTORE_KEY_LEN];
	enum keystore_status status = keystore_get_ksk(mine, former);
	bool		another;

	if (status == KEYSTORE_OK)
		status = keystore_apply_rekey(mine, buf, len, envelope, envelope != NULL ? KEYSTORE_ENVELOPE_LEN : 0);
	if (status == KEYSTORE_OK)
		status = keystore_get_ksk(mine, pgx_state->next_ksk);
	another = status == KEYSTORE_OK && memcmp(former, pgx_state->next_ksk, KEYSTORE_KEY_LEN) != 0;
	explicit_bzero(former, sizeof(former));
	if (status != KEYSTORE_OK)
		pgx_report_keystore(FATAL, mine, status);
	take_over(mine);
	if (envelope == NULL || (another && keystore_get_generation(mine) <= generation))
		ereport(WARNING,
				(errmsg("changes of keystore \"%s\" that were made on this server only have been given up",
						pgx_keystore_path()),
				 errdetail("The primary has not had them when it was promoted.  Passphrases are now those of the primary; master keys that only this server had are kept."),
				 errhint("If the keystore was rekeyed here because a passphrase had become known, then rekey it again on the primary.")));
}

/*
 * Take over a keystore from WAL.  Older than, or the same as, this server's own: nothing to do.  Keys
 * that only this server has (made on a primary whose WAL was lost in a failover) are kept as retired ones.
 */
static void
redo_keystore(const char *buf, size_t len)
{
	keystore   *mine;
	keystore   *theirs = pgx_new_keystore();
	enum keystore_status status;
	size_t		only_theirs;
	size_t		only_mine;
	bool		older;

	require_open("keystore");
	pgx_lock_keystore(theirs);
	mine = pgx_open_own_keystore();
	if (same_file_bytes(mine, buf, len))
	{
		(void) keep_auto_open(mine);
		return;
	}

	/* What was logged before a rekey that is known here already opens with the former key. */
	status = keystore_load_bytes(theirs, buf, len, "WAL");
	if (status == KEYSTORE_OK)
		status = keystore_open_like(theirs, mine);
	if (status == KEYSTORE_EWRONGKEY)
		ereport(FATAL,
				(errcode(ERRCODE_INVALID_PASSWORD),
				 errmsg("the primary's keystore has been rekeyed in a way that did not reach this server"),
				 errhint("Copy the primary's keystore into the place of \"%s\" with \"pgx_keystore copy --force\", and start this server with \"pg_ctl --keystore-passphrase start\".",
						 pgx_keystore_path())));
	if (status != KEYSTORE_OK)
		pgx_report_keystore(FATAL, theirs, status);

	/* Not older, or changed after this server was rekeyed: its rekey has no place in the history that is replayed. */
	older = keystore_get_generation(theirs) < keystore_get_generation(mine);
	if (!same_ksk(mine, theirs) && (!older || keystore_rekey_lost(mine, theirs)))
	{
		follow(mine, buf, len, NULL);
		(void) keep_auto_open(mine);
		return;
	}

	if (older)
	{
		status = keystore_merge(mine, theirs, &only_theirs);
		if (status != KEYSTORE_OK)
			pgx_report_keystore(FATAL, mine, status);
		if (only_theirs == 0)
			return;
		if (!same_ksk(mine, theirs))
		{
			take_over(mine);
			return;
		}
	}
	status = keystore_merge(theirs, mine, &only_mine);
	if (status != KEYSTORE_OK)
		pgx_report_keystore(FATAL, theirs, status);
	take_over(theirs);
}

/*
 * This server's keystore where a rekey comes.  If somebody has put the primary's rekeyed file in its place while this
 * server was running, then what the server holds does not open it, but with the envelope it does.
 */
static keystore *
open_own_at_rekey(const char *envelope)
{
	keystore   *ks = pgx_new_keystore();

	if (keystore_load(ks, pgx_keystore_path()) == KEYSTORE_OK &&
		keystore_open_rekeyed(ks, pgx_state->ksk, envelope, KEYSTORE_ENVELOPE_LEN) == KEYSTORE_OK)
		return ks;
	return pgx_open_own_keystore();
}

/* Is it open with the key that this server remembers? */
static bool
is_noted(keystore *mine)
{
	uint8		ksk[KEYSTORE_KEY_LEN];
	bool		noted = keystore_get_ksk(mine, ksk) == KEYSTORE_OK &&
		memcmp(ksk, pgx_state->ksk, sizeof(ksk)) == 0;

	explicit_bzero(ksk, sizeof(ksk));
	return noted;
}

/*
 * Follow a rekey.  What crash recovery replays may be older than one that this server has stored and not logged; that one's
 * envelope stays until it is logged.
 */
static void
redo_rekey(const char *envelope, const char *buf, size_t len)
{
	uint8_t		own_envelope[KEYSTORE_ENVELOPE_LEN];
	keystore   *mine;
	bool		unlogged;
	enum keystore_status status = KEYSTORE_OK;

	require_open("keystore");
	mine = pgx_new_keystore();
	pgx_lock_keystore(mine);
	mine = open_own_at_rekey(envelope);
	unlogged = pgx_is_rekey_pending(mine, own_envelope) &&
		memcmp(own_envelope, envelope, KEYSTORE_ENVELOPE_LEN) != 0;
	if (!same_file_bytes(mine, buf, len) || !is_noted(mine))
	{
		if (!unlogged)
			status = keystore_rekey_begin(mine, pgx_keystore_path(), envelope, KEYSTORE_ENVELOPE_LEN);
		if (status != KEYSTORE_OK)
			pgx_report_keystore(FATAL, mine, status);
		follow(mine, buf, len, envelope);
	}
	if (keep_auto_open(mine) && !unlogged)
		status = keystore_rekey_end(mine, pgx_keystore_path());
	if (status != KEYSTORE_OK)
		pgx_report_keystore(FATAL, mine, status);
}

static void
redo_record(XLogReaderState *record)
{
	const char *data = XLogRecGetData(record);
	size_t		len = XLogRecGetDataLen(record);
	uint8		type = XLogRecGetInfo(record) & ~XLR_INFO_MASK;
	size_t		envelope_len = type == XLOG_PGX_REKEY ? KEYSTORE_ENVELOPE_LEN : 0;
	uint32		keytable_len;
	const char *rest;

	switch (type)
	{
		case XLOG_PGX_KEYTABLE:
			redo_keytable(data, len);
			break;
		case XLOG_PGX_KEYSTORE:
		case XLOG_PGX_REKEY:
			if (len < sizeof(keytable_len) + envelope_len)
				elog(PANIC, "pgx_tde: KEYSTORE record is too short");
			memcpy(&keytable_len, data, sizeof(keytable_len));
			data += sizeof(keytable_len);
			len -= sizeof(keytable_len) + envelope_len;
			if (keytable_len > len)
				elog(PANIC, "pgx_tde: KEYSTORE record is too short");

			/* The keystore first: it has the key that the new table is wrapped under. */
			rest = data + keytable_len;
			if (type == XLOG_PGX_REKEY)
				redo_rekey(rest, rest + envelope_len, len - keytable_len);
			else
				redo_keystore(rest, len - keytable_len);
			if (keytable_len > 0)
				redo_keytable(data, keytable_len);
			break;
		default:
			elog(PANIC, "pgx_tde: unknown record type %u", XLogRecGetInfo(record));
	}
}

static void
pgx_redo(XLogReaderState *record)
{
	MemoryContext outer = pgx_enter();

	redo_record(record);
	pgx_leave(outer);
}

/* What pg_walinspect shows. */
static void
pgx_desc(StringInfo buf, XLogReaderState *record)
{
	appendStringInfo(buf, "%u bytes", XLogRecGetDataLen(record));
}

static const char *
pgx_identify(uint8 info)
{
	switch (info & ~XLR_INFO_MASK)
	{
		case XLOG_PGX_KEYTABLE:
			return "KEYTABLE";
		case XLOG_PGX_KEYSTORE:
			return "KEYSTORE";
		case XLOG_PGX_REKEY:
			return "REKEY";
		default:
			return NULL;
	}
}

static RmgrData rmgr = {
	.rm_name = PGX_TDE_RMGR_NAME,
	.rm_redo = pgx_redo,
	.rm_desc = pgx_desc,
	.rm_identify = pgx_identify,
};

void
pgx_register_rmgr(void)
{
	RegisterCustomRmgr(PGX_TDE_RMGR_ID, &rmgr);
}

XLogRecPtr
pgx_log_keytable(const void *keytable, size_t keytable_len)
{
	XLogBeginInsert();
	XLogRegisterData((char *) keytable, (int) keytable_len);
	return XLogInsert(PGX_TDE_RMGR_ID, XLOG_PGX_KEYTABLE);
}

XLogRecPtr
pgx_log_keystore(const void *ks, size_t ks_len, const void *keytable, size_t keytable_len,
				 const void *envelope)
{
	uint32		header = (uint32) keytable_len;

	XLogBeginInsert();
	XLogRegisterData((char *) &header, sizeof(header));
	if (keytable_len > 0)
		XLogRegisterData((char *) keytable, (int) keytable_len);
	if (envelope != NULL)
		XLogRegisterData((char *) envelope, KEYSTORE_ENVELOPE_LEN);
	XLogRegisterData((char *) ks, (int) ks_len);
	return XLogInsert(PGX_TDE_RMGR_ID, envelope != NULL ? XLOG_PGX_REKEY : XLOG_PGX_KEYSTORE);
}
