/*
 * stats.c
 *		What the processes of this server have encrypted and decrypted: the view
 *		pg_stat_pgx_tde.
 *
 * Each process adds up in a place of its own, one for each PGPROC, so that the I/O layer needs
 * no lock and a reader sees all that has been done.  A process that comes later goes on where
 * the one before it in that place left off; so nothing has to be handed over at the end of a
 * process, and what counts is the sum of all places.  They are not written while there are
 * readers but by their owners: a reset takes note of the sums instead.
 */
#include "pgx_postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "pgx_tde.h"

PG_FUNCTION_INFO_V1(pg_stat_get_pgx_tde);
PG_FUNCTION_INFO_V1(pg_stat_reset_pgx_tde);

#define STATS_NAME		"pgx_tde statistics"
#define STATS_COLUMNS	9

/* What a place holds and the view shows, as plain numbers. */
typedef struct Sums
{
	uint64		pages[PGX_DIRECTIONS];
	uint64		bytes[PGX_DIRECTIONS];
	uint64		nanoseconds[PGX_DIRECTIONS];
	uint64		failures;
} Sums;

typedef struct Stats
{
	/* Guarded by the lock: what the sums were at the last reset. */
	TimestampTz reset_at;
	Sums		at_reset[PGX_COUNT_KINDS];

	int			places;
	struct pgx_io_counts of_process[FLEXIBLE_ARRAY_MEMBER];
} Stats;

static Stats *stats;
static LWLock *lock;

static const char *const kind_names[PGX_COUNT_KINDS] = {
	[PGX_COUNT_RELATION] = "relation",
	[PGX_COUNT_WAL] = "wal",
	[PGX_COUNT_REPLICATION] = "replication",
	[PGX_COUNT_TEMP] = "temporary",
	[PGX_COUNT_SPILL] = "spill",
};

/* Every process that may touch files of ours has a PGPROC of these; behind them are prepared transactions. */
static int
count_places(void)
{
	return MaxBackends + NUM_AUXILIARY_PROCS;
}

static Size
stats_size(void)
{
	return add_size(offsetof(Stats, of_process), mul_size(count_places(), sizeof(struct pgx_io_counts)));
}

void
pgx_request_stats(void)
{
	RequestAddinShmemSpace(stats_size());
	RequestNamedLWLockTranche(STATS_NAME, 1);
}

/* At start, and again when the postmaster has made new shared memory after a crash: everything begins at zero. */
void
pgx_start_stats(void)
{
	bool		found;

	stats = ShmemInitStruct(STATS_NAME, stats_size(), &found);
	lock = &GetNamedLWLockTranche(STATS_NAME)->lock;
	if (found)
		return;
	memset(stats, 0, stats_size());
	stats->places = count_places();
	stats->reset_at = GetCurrentTimestamp();
}

/* Shared memory goes away soon, for the next owner of this place at once. */
static void
leave_place(int code, Datum arg)
{
	pgx_io->count_in(NULL);
}

/* Called often, acts once in each process. */
void
pgx_count_this_process(void)
{
	static PGPROC *known;
	ptrdiff_t	place;

	if (MyProc == known || MyProc == NULL || stats == NULL)
		return;
	known = MyProc;
	place = MyProc - ProcGlobal->allProcs;
	if (place < 0 || place >= stats->places)
		return;
	on_shmem_exit(leave_place, (Datum) 0);
	pgx_io->count_in(&stats->of_process[place]);
}

static void
add_up(Sums *sums)
{
	memset(sums, 0, sizeof(Sums) * PGX_COUNT_KINDS);
	for (int place = 0; place < stats->places; place++)
	{
		for (int kind = 0; kind < PGX_COUNT_KINDS; kind++)
		{
			struct pgx_io_count *count = &stats->of_process[place].of[kind];

			for (int direction = 0; direction < PGX_DIRECTIONS; direction++)
			{
				sums[kind].pages[direction] += atomic_load_explicit(&count->pages[direction], memory_order_relaxed);
				sums[kind].bytes[direction] += atomic_load_explicit(&count->bytes[direction], memory_order_relaxed);
				sums[kind].nanoseconds[direction] += atomic_load_explicit(&count->nanoseconds[direction],
																		  memory_order_relaxed);
			}
			sums[kind].failures += atomic_load_explicit(&count->failures, memory_order_relaxed);
		}
	}
}

static Datum
milliseconds(uint64 nanoseconds)
{
	return Float8GetDatum((double) nanoseconds / 1000000.0);
}

Datum
pg_stat_get_pgx_tde(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Sums		now[PGX_COUNT_KINDS];
	Sums		before[PGX_COUNT_KINDS];
	TimestampTz reset_at;

	pgx_require_preload();
	InitMaterializedSRF(fcinfo, 0);

	/* Sums taken before somebody's reset would be less than what it notes. */
	LWLockAcquire(lock, LW_SHARED);
	add_up(now);
	memcpy(before, stats->at_reset, sizeof(before));
	reset_at = stats->reset_at;
	LWLockRelease(lock);

	for (int kind = 0; kind < PGX_COUNT_KINDS; kind++)
	{
		Datum		values[STATS_COLUMNS];
		bool		nulls[STATS_COLUMNS] = {0};
		int			column = 0;

		values[column++] = CStringGetTextDatum(kind_names[kind]);
		for (int direction = 0; direction < PGX_DIRECTIONS; direction++)
		{
			values[column++] = Int64GetDatum((int64) (now[kind].pages[direction] - before[kind].pages[direction]));
			values[column++] = Int64GetDatum((int64) (now[kind].bytes[direction] - before[kind].bytes[direction]));
			values[column++] = milliseconds(now[kind].nanoseconds[direction] - before[kind].nanoseconds[direction]);
		}
		values[column++] = Int64GetDatum((int64) (now[kind].failures - before[kind].failures));
		values[column++] = TimestampTzGetDatum(reset_at);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

Datum
pg_stat_reset_pgx_tde(PG_FUNCTION_ARGS)
{
	pgx_require_preload();
	LWLockAcquire(lock, LW_EXCLUSIVE);
	add_up(stats->at_reset);
	stats->reset_at = GetCurrentTimestamp();
	LWLockRelease(lock);
	PG_RETURN_VOID();
}
