/*
 * pgx_tde.h
 *		What the files of the server module share.
 */
#ifndef PGX_TDE_H
#define PGX_TDE_H

#include "access/xlogdefs.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "keystore.h"
#include "keytable.h"
#include "pgx_io.h"

/* Resource manager of our WAL records; the number is in WAL for good. */
#define PGX_TDE_RMGR_ID		145
#define PGX_TDE_RMGR_NAME	"pgx_tde"

#define PGX_TDE_DIR			"pgx_tde"
#define PGX_KEYTABLE_FILE	PGX_TDE_DIR "/keys"
#define PGX_CONVERSION_FILE	PGX_TDE_DIR "/conversion"
#define PGX_OPEN_SOCKET		PGX_TDE_DIR "/open.sock"	/* bin/pgx_keystore/waiting.c has it too */

/* The message on the pipe from pg_ctl: magic, UUID of the keystore, KSK. */
#define PGX_HANDOVER_ENV	"PGX_KEYSTORE_FD"
#define PGX_HANDOVER_MAGIC	"PGXKSK01"
#define PGX_HANDOVER_LEN	(8 + KEYSTORE_UUID_LEN + KEYSTORE_KEY_LEN)

typedef enum PgxOpenedBy
{
	PGX_CLOSED = 0,
	PGX_OPENED_BY_PG_CTL,
	PGX_OPENED_BY_COMMAND,
	PGX_OPENED_BY_AUTO_OPEN,
	PGX_OPENED_BY_SQL,
	PGX_OPENED_BY_PGX_KEYSTORE
} PgxOpenedBy;

/*
 * The keystore as this server has it.  In memory that is shared with the children, locked and not dumped.
 * Guarded by pgx_lock() once the server runs.
 */
typedef struct PgxState
{
	PgxOpenedBy opened_by;		/* PGX_CLOSED: the fields below are not valid */
	uint8		uuid[KEYSTORE_UUID_LEN];
	uint64		generation;
	uint32		active_key;
	uint8		ksk[KEYSTORE_KEY_LEN];

	/* What the file is under if a rekey was stored, but not noted above any more: a process crashed in between. */
	uint8		next_ksk[KEYSTORE_KEY_LEN];
} PgxState;

extern const struct pgx_io_api *pgx_io; /* NULL without the I/O layer */
extern PgxState *pgx_state;

/* GUCs */
extern char *pgx_keystore_location;
extern char *pgx_keystore_passphrase_command;
extern char *pgx_host_secret_file;
extern int	pgx_default_algorithm;	/* enum tde_algorithm */
extern char *pgx_backup_destination;

/* pgx_tde.c */
extern LWLock *pgx_lock(void);
extern void pgx_require_preload(void);

/* preload.c: getting the I/O layer into the process, and proof that it works */
extern void pgx_load_io_layer(void);
extern void pgx_self_check(void);
extern bool pgx_only_prints_setting(void);

/* role.c: what depends on the kind of process */
extern void pgx_start_io_layer(void);
extern void pgx_install_wire(void);

/* guard.c */
extern void pgx_check_tablespaces(void);

/* opening.c */
extern void pgx_open_at_start(void);
extern void pgx_note_open(keystore *ks, PgxOpenedBy by);
extern void pgx_open_with_key(const uint8 *uuid, const uint8 *ksk);

/* waiting.c: a closed keystore where WAL must be read */
enum
{
	PGX_ON_CLOSED_FAIL, PGX_ON_CLOSED_WAIT
};
extern int	pgx_on_closed_keystore;
extern void pgx_define_waiting(void);
extern bool pgx_wait_for_open(void);

/*
 * keyfiles.c and keytable_file.c: keystore and key table as files, and as keys in shared memory.
 * Whoever uses these brackets them with pgx_enter() and pgx_leave(), which wipes handles and releases the lock.
 */
extern MemoryContext pgx_enter(void);
extern void pgx_leave(MemoryContext outer);
extern void pgx_lock_keystore(keystore *ks);
extern const char *pgx_keystore_path(void);
extern bool pgx_location_is_set(void);
extern void pgx_check_location(int elevel);
extern keystore *pgx_new_keystore(void);
extern void pgx_report_keystore(int elevel, keystore *ks, enum keystore_status status);
extern enum keystore_status pgx_open_with_own_key(keystore *ks);
extern keystore *pgx_open_own_keystore(void);
extern tde_keytable *pgx_new_keytable(keystore *ks);
extern tde_keytable *pgx_parse_keytable(const void *buf, size_t len);
extern tde_keytable *pgx_read_keytable(void);
extern void pgx_check_keytable(enum tde_keytable_status status);
extern void pgx_open_keytable(tde_keytable *kt, keystore *ks);
extern void pgx_bind_keytable(tde_keytable *kt, keystore *ks);
extern void pgx_write_keytable(const void *buf, size_t len);
extern void pgx_publish_keys(tde_keytable *kt);

/* rmgr.c */
extern void pgx_register_rmgr(void);
extern XLogRecPtr pgx_log_keytable(const void *keytable, size_t keytable_len);
extern XLogRecPtr pgx_log_keystore(const void *ks, size_t ks_len, const void *keytable, size_t keytable_len,
								   const void *envelope);

/* audit.c: a line in the server log for each key event */
extern void pgx_audit(const char *event, const char *method, const char *reason);
extern void pgx_audit_begin(void);
extern Datum pgx_run_audited(FunctionCallInfo fcinfo, const char *event, Datum (*function) (FunctionCallInfo fcinfo));

/* logging.c: keeping passphrases out of the log */
extern void pgx_install_logging(void);
extern void pgx_hide_statement(void);

/* store.c: handing out the keystore, taking over a changed one */
extern void pgx_log_change(keystore *ks, const uint8_t *keytable, size_t keytable_len, const uint8_t *envelope);
extern bool pgx_reseal_auto_open(keystore *ks);
extern bool pgx_is_rekey_pending(keystore *ks, uint8_t *ret_envelope);
extern void pgx_finish_rekey(void);

/* destination.c: where backups go */
extern void pgx_define_destination(void);
extern void pgx_check_destination(void);
extern const char *pgx_overlaps_with(const char *destination);

/* mirror_setup.c, mirror.c: the second copy of WAL */
extern void pgx_define_mirror(void);
extern void pgx_setup_mirror(void);
extern bool pgx_mirror_is_vital(void);
extern void pgx_mirror_failed(const char *operation, const char *name, int error);
extern void pgx_mirror_restarted(void);

/* stats.c: counting what is encrypted and decrypted */
extern void pgx_request_stats(void);
extern void pgx_start_stats(void);
extern void pgx_count_this_process(void);

/* tablespace.c */
extern void pgx_install_tablespace_hooks(void);

/* Texts that several files use; FEP's where it has one. */
extern void pgx_error_closed(int elevel, const char *what);

#endif							/* PGX_TDE_H */
