/*
 * pgx_tde.c
 *		Entry point of the server module: settings, hooks, and the order in which
 *		things come up.
 */
#include "pgx_postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/guc.h"

#include "compat.h"
#include "pgx_tde.h"

#if BLCKSZ != 8192 || XLOG_BLCKSZ != 8192 || RELSEG_SIZE != 131072
#error "pgx_tde needs a server built with the default block and segment sizes"
#endif

PG_MODULE_MAGIC;

void		_PG_init(void);

const struct pgx_io_api *pgx_io;
PgxState   *pgx_state;

char	   *pgx_keystore_location;
char	   *pgx_keystore_passphrase_command;
char	   *pgx_host_secret_file;
int			pgx_default_algorithm = TDE_NONE;

static shmem_request_hook_type prev_shmem_request_hook;
static shmem_startup_hook_type prev_shmem_startup_hook;
static LWLock *lock;

static const struct config_enum_entry algorithm_options[] = {
	{"none", TDE_NONE, false},
	{"AES128", TDE_AES128, false},
	{"AES256", TDE_AES256, false},
	{NULL, 0, false}
};

LWLock *
pgx_lock(void)
{
	return lock;
}

void
pgx_require_preload(void)
{
	if (pgx_io == NULL || lock == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pgx_tde must be loaded via shared_preload_libraries"),
				 errhint("Add pgx_tde to shared_preload_libraries in postgresql.conf and restart the server.")));
}

void
pgx_error_closed(int elevel, const char *what)
{
	/* Recovery takes the keys from the key table, so with an open keystore it is the table that is missing. */
	if (AmStartupProcess() && pgx_state->opened_by != PGX_CLOSED)
		ereport(elevel,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not %s because the keys in file \"%s\" are missing", what,
						PGX_KEYTABLE_FILE),
				 errhint("Restore the file from a backup of this data directory, or from another server of its replication group.")));
	ereport(elevel,
			(errhidestmt(true),
			 errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("could not %s because the keystore is not open", what),
			 errhint("Open the existing keystore, or set the master encryption key to create and open a new keystore")));
}

static void
define_settings(void)
{
	DefineCustomStringVariable("pgx_tde.keystore_location",
							   "Directory that holds this server's keystore.",
							   "It must lie outside the data directory and belong to this server alone.",
							   &pgx_keystore_location, "", PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("pgx_tde.keystore_passphrase_command",
							   "Command that prints the passphrase of the keystore at server start.",
							   "%p is replaced by a prompt, as in ssl_passphrase_command.",
							   &pgx_keystore_passphrase_command, "", PGC_POSTMASTER,
							   GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomStringVariable("pgx_tde.host_secret_file",
							   "File with this server's secret for automatic opening of the keystore.",
							   "Empty means .pgx/host_secret in the home directory of the server's user.",
							   &pgx_host_secret_file, "", PGC_POSTMASTER,
							   GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomEnumVariable("pgx_tde.tablespace_encryption_algorithm",
							 "Encryption algorithm of tablespaces that are created without one.",
							 NULL, &pgx_default_algorithm, TDE_NONE, algorithm_options,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	pgx_define_destination();
	pgx_define_mirror();
	pgx_define_waiting();
	MarkGUCPrefixReserved("pgx_tde");
}

static void
shmem_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	RequestNamedLWLockTranche("pgx_tde", 1);
	pgx_request_stats();
}

/*
 * Runs at start and whenever the postmaster restarts its children after a crash.  WAL
 * that was written but not flushed may be gone then, and its place is
 * filled again: under a new epoch.
 */
static void
shmem_startup(void)
{
	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();
	lock = &GetNamedLWLockTranche("pgx_tde")->lock;
	if (pgx_io->new_epoch() != 0)
		ereport(FATAL,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not draw random bytes for the encryption of WAL")));
	pgx_mirror_restarted();
	pgx_start_stats();
}

static PgxState *
make_state(void)
{
	bool		locked;
	PgxState   *state = pgx_io->alloc_shared(sizeof(PgxState), &locked);

	if (state == NULL || pgx_io->shared == NULL)
		ereport(FATAL,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not map memory for encryption keys: %m")));
	if (!locked || !pgx_io->shared_is_locked)
		ereport(WARNING,
				(errmsg("could not lock the memory that holds encryption keys"),
				 errhint("Raise the limit on locked memory of the server's user (ulimit -l), or disable swap.")));
	return state;
}

void
_PG_init(void)
{
	/* Loaded by a session: too late for settings of the postmaster; the functions say what to do. */
	if (!process_shared_preload_libraries_in_progress)
		return;
	define_settings();
	if (pgx_only_prints_setting())
		return;

	pgx_refuse_bypasses();
	pgx_load_io_layer();		/* does not return if the server has to be executed again */
	pgx_note_server_version();
	pgx_check_destination();
	pgx_state = make_state();
	pgx_start_io_layer();
	pgx_self_check();
	pgx_setup_mirror();
	pgx_register_rmgr();
	pgx_open_at_start();

	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = shmem_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
	pgx_install_tablespace_hooks();
	pgx_install_wire();
	pgx_install_logging();
}
