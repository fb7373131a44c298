/*
 * mirror.c
 *		Mirrored (multiplexed) WAL while the server runs: catching up, pausing and
 *		resuming, failures, and what there is to see.
 *
 * The I/O layer mirrors what is written.  What was written while nobody mirrored is copied from pg_wal here: by
 * a background worker after the start, and by pgx_resume_wal_multiplexing().
 */
#include "pgx_postgres.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "access/htup_details.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "replication/walreceiver.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "mirror.h"
#include "pgx_tde.h"

PG_FUNCTION_INFO_V1(pgx_pause_wal_multiplexing);
PG_FUNCTION_INFO_V1(pgx_resume_wal_multiplexing);
PG_FUNCTION_INFO_V1(pgx_is_wal_multiplexing_paused);
PG_FUNCTION_INFO_V1(pgx_wal_mirror_state);

extern PGDLLEXPORT void pgx_mirror_worker_main(Datum arg);

/* The worker looks this often whether there is something to catch up. */
#define WORKER_NAP_MS	2000L

static struct pgx_io_mirror *
mirror(void)
{
	return &pgx_io->shared->mirror;
}

bool
pgx_mirror_is_vital(void)
{
	return pgx_on_mirror_failure == PGX_MIRROR_RESTART;
}

/* Runs wherever WAL is written, also in critical sections. */
void
pgx_mirror_failed(const char *operation, const char *name, int error)
{
	bool		restart = atomic_load(&mirror()->mode) == PGX_MIRROR_RESTARTING;

	if (operation == NULL)
		ereport(PANIC,
				(errcode(ERRCODE_IO_ERROR),
				 errmsg("a failure has occurred while multiplexing transaction log files"),
				 errdetail("Another server process has reported it, and all server processes have to restart.")));
	errno = error;
	ereport(restart ? PANIC : WARNING,
			(errcode_for_file_access(),
			 errmsg("a failure has occurred while multiplexing transaction log files"),
			 errdetail("Operation \"%s\" failed on file \"%s/%s\": %m.", operation, mirror()->directory, name),
			 restart ?
			 errhint("The server starts again when the directory can be used.") :
			 errhint("Transaction log files are not multiplexed now.  Put the directory right and call pgx_resume_wal_multiplexing().")));
}

/* ---- catching up --------------------------------------------------------------------- */

/* Where WAL ends that is not written any more; false while that is not known. */
static bool
end_of_wal(XLogRecPtr *ret_end, TimeLineID *ret_timeline)
{
	if (RecoveryInProgress())
		*ret_end = GetWalRcvFlushRecPtr(NULL, ret_timeline);
	else
		*ret_end = GetFlushRecPtr(ret_timeline);
	return !XLogRecPtrIsInvalid(*ret_end);
}

/* Compare one file of pg_wal with its mirror, and copy it.  False: that failed, and mirroring has stopped. */
static bool
refresh(const char *name, XLogSegNo end, TimeLineID end_timeline, XLogSegNo *oldest)
{
	TimeLineID	timeline;
	XLogSegNo	segment;

	if (IsXLogFileName(name))
	{
		XLogFromFileName(name, &timeline, &segment, wal_segment_size);
		if (segment < *oldest)
			*oldest = segment;
		/* The last one is written to; later ones are there to be used. */
		if (timeline >= end_timeline && segment >= end)
			return true;
	}
	else if (!IsPartialXLogFileName(name) && !IsTLHistoryFileName(name))
		return true;
	if (pgx_io->mirror_refresh(name) >= 0)
		return true;
	pgx_io->mirror_fail("copy", name);
	return false;
}

/* Segments that the server removed from pg_wal while nobody mirrored: only such as are older than all it has. */
static void
remove_older(XLogSegNo oldest)
{
	DIR		   *dir = AllocateDir(mirror()->directory);
	struct dirent *entry;

	while ((entry = ReadDirExtended(dir, mirror()->directory, LOG)) != NULL)
	{
		TimeLineID	timeline;
		XLogSegNo	segment;

		if (!IsXLogFileName(entry->d_name) && !IsPartialXLogFileName(entry->d_name))
			continue;
		XLogFromFileName(entry->d_name, &timeline, &segment, wal_segment_size);
		if (segment < oldest)
			(void) unlink(psprintf("%s/%s", mirror()->directory, entry->d_name));
	}
	FreeDir(dir);
}

/* The segment that is written to: its writers have to wait.  On a standby the walreceiver does this with its next write. */
static bool
refresh_current(void)
{
	char		name[MAXFNAMELEN];
	XLogSegNo	segment;
	int			rc;

	if (RecoveryInProgress())
		return true;
	LWLockAcquire(WALWriteLock, LW_EXCLUSIVE);
	XLByteToSeg(GetXLogWriteRecPtr(), segment, wal_segment_size);
	XLogFileName(name, GetWALInsertionTimeLine(), segment, wal_segment_size);
	rc = pgx_io->mirror_begin(name);
	if (rc < 0)
		pgx_io->mirror_fail("copy", name);
	LWLockRelease(WALWriteLock);
	return rc >= 0;
}

/* Compare and copy once.  False: not now, or mirroring has stopped. */
static bool
compare_all(void)
{
	TimeLineID	timeline;
	XLogRecPtr	end;
	XLogSegNo	end_segment;
	XLogSegNo	oldest = PG_UINT64_MAX;
	DIR		   *dir;
	struct dirent *entry;
	bool		good = true;

	if (atomic_load(&mirror()->mode) != PGX_MIRROR_ON || !end_of_wal(&end, &timeline))
		return false;
	XLByteToSeg(end, end_segment, wal_segment_size);
	dir = AllocateDir(XLOGDIR);
	while (good && (entry = ReadDirExtended(dir, XLOGDIR, LOG)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		good = !ShutdownRequestPending && refresh(entry->d_name, end_segment, timeline, &oldest);
	}
	FreeDir(dir);
	if (!good || !refresh_current())
		return false;
	if (oldest != PG_UINT64_MAX)
		remove_older(oldest);
	return true;
}

static bool
is_caught_up(void)
{
	return atomic_load(&mirror()->caught_up) == atomic_load(&mirror()->generation) &&
		atomic_load(&mirror()->answered) == atomic_load(&mirror()->asked);
}

/*
 * Make the mirror whole.  False: not now, or mirroring has stopped.  Which segment is being written may change
 * meanwhile; the layer asks for another look where that matters, once in a generation.
 */
static bool
catch_up(void)
{
	unsigned	generation = atomic_load(&mirror()->generation);
	unsigned	asked;

	do
	{
		asked = atomic_load(&mirror()->asked);
		if (!compare_all())
			return false;
		atomic_store(&mirror()->answered, asked);
	} while (atomic_load(&mirror()->asked) != asked);
	atomic_store(&mirror()->caught_up, generation);
	return true;
}

void
pgx_register_mirror_worker(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	strlcpy(worker.bgw_name, "pgx_tde WAL mirror", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "pgx_tde WAL mirror", sizeof(worker.bgw_type));
	strlcpy(worker.bgw_library_name, "pgx_tde", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "pgx_mirror_worker_main", sizeof(worker.bgw_function_name));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS;
	worker.bgw_start_time = BgWorkerStart_PostmasterStart;
	worker.bgw_restart_time = 5;
	RegisterBackgroundWorker(&worker);
}

void
pgx_mirror_worker_main(Datum arg)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	while (!ShutdownRequestPending)
	{
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (!is_caught_up() && catch_up())
			ereport(LOG,
					(errmsg("multiplexed transaction log files in \"%s\" are complete", mirror()->directory)));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, WORKER_NAP_MS,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
	proc_exit(1);				/* not 0, after which it would not be started again */
}

/* ---- SQL ------------------------------------------------------------------------------ */

static void
check_allowed(void)
{
	pgx_require_preload();
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to control WAL multiplexing")));
	if (atomic_load(&mirror()->mode) == PGX_MIRROR_OFF)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("WAL multiplexing is not configured"),
				 errhint("Set pgx_tde.online_wal_directory and restart the server.")));
}

Datum
pgx_pause_wal_multiplexing(PG_FUNCTION_ARGS)
{
	unsigned	on = PGX_MIRROR_ON;

	check_allowed();
	if (!atomic_compare_exchange_strong(&mirror()->mode, &on, PGX_MIRROR_PAUSED))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("WAL multiplexing is already paused")));
	atomic_store(&mirror()->changed_at, (long long) time(NULL));
	ereport(LOG, (errmsg("multiplexing of transaction log files has been stopped")));
	PG_RETURN_VOID();
}

/* Returns when the mirror is whole again; on a standby, when all but the segment being received is. */
Datum
pgx_resume_wal_multiplexing(PG_FUNCTION_ARGS)
{
	check_allowed();
	LWLockAcquire(pgx_lock(), LW_EXCLUSIVE);	/* one at a time */
	if (atomic_load(&mirror()->mode) == PGX_MIRROR_ON || atomic_load(&mirror()->mode) == PGX_MIRROR_RESTARTING)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("WAL multiplexing is not paused")));
	pgx_mirror_recheck();

	/* Who is writing may have begun without the mirror; what it has written is to be seen by catch_up(). */
	LWLockAcquire(WALWriteLock, LW_EXCLUSIVE);
	atomic_fetch_add(&mirror()->generation, 1);
	atomic_store(&mirror()->changed_at, (long long) time(NULL));
	atomic_store(&mirror()->mode, PGX_MIRROR_ON);
	LWLockRelease(WALWriteLock);
	LWLockRelease(pgx_lock());
	ereport(LOG, (errmsg("multiplexing of transaction log files has been resumed")));
	(void) catch_up();
	if (atomic_load(&mirror()->mode) == PGX_MIRROR_FAILED)
		ereport(ERROR,
				(errcode(ERRCODE_IO_ERROR),
				 errmsg("could not resume multiplexing of WAL in directory \"%s\"", mirror()->directory),
				 errdetail("It has failed again; the server log has the reason.")));
	PG_RETURN_VOID();
}

Datum
pgx_is_wal_multiplexing_paused(PG_FUNCTION_ARGS)
{
	check_allowed();
	PG_RETURN_BOOL(atomic_load(&mirror()->mode) != PGX_MIRROR_ON);
}

static const char *
state_text(unsigned mode)
{
	switch (mode)
	{
		case PGX_MIRROR_OFF:
			return "off";
		case PGX_MIRROR_ON:
			return is_caught_up() ? "mirroring" : "catching up";
		case PGX_MIRROR_PAUSED:
			return "paused";
		default:
			return "failed";
	}
}

/* One row for the view pgx_wal_mirror_status. */
Datum
pgx_wal_mirror_state(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[8] = {0};
	bool		nulls[8] = {0};
	unsigned	mode;
	unsigned long long failures;

	pgx_require_preload();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	mode = atomic_load(&mirror()->mode);
	failures = atomic_load(&mirror()->failures);
	nulls[0] = nulls[2] = mode == PGX_MIRROR_OFF;
	nulls[3] = mirror()->current[0] == '\0';
	nulls[7] = failures == 0;
	values[0] = CStringGetTextDatum(mirror()->directory);
	values[1] = CStringGetTextDatum(state_text(mode));
	values[2] = TimestampTzGetDatum(time_t_to_timestamptz((pg_time_t) atomic_load(&mirror()->changed_at)));
	values[3] = CStringGetTextDatum(pnstrdup(mirror()->current, sizeof(mirror()->current) - 1));
	values[4] = Int64GetDatum((int64) atomic_load(&mirror()->bytes));
	values[5] = Int64GetDatum((int64) atomic_load(&mirror()->syncs));
	values[6] = Int64GetDatum((int64) failures);
	if (failures > 0)
		values[7] = CStringGetTextDatum(psprintf("%s of \"%s\": %s", mirror()->failed_operation,
												 mirror()->failed_name, strerror(mirror()->failed_errno)));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}
