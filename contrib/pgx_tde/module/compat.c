/*
 * compat.c
 *		What differs between the major versions of PostgreSQL.
 *
 * | from | what is new there                               | what it means here              |
 * |------|-------------------------------------------------|---------------------------------|
 * | 16   | relations are extended with posix_fallocate()   | zeros, which are zeros on disk  |
 * | 17   | a walsender takes WAL from the buffers          | pgx_learn_wal_header()          |
 * | 18   | io_method = io_uring, file_copy_method = clone  | refused: pgx_refuse_bypasses()  |
 *
 * Within a major version PostgreSQL keeps its ABI, and what the module uses of it is old: hooks, settings, WAL
 * records, PQcommMethods, the state of a walsender, the name of a slot.  So a module that was compiled with
 * the headers of one minor version runs with the others.  Another major version is refused by
 * the server itself ("incompatible library"), by what PG_MODULE_MAGIC says.
 */
#include "pgx_postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "postmaster/startup.h"
#include "storage/fd.h"
#include "utils/guc.h"
#if PG_VERSION_NUM >= 180000
#include "storage/copydir.h"
#include "utils/guc_tables.h"
#endif

#include "compat.h"
#include "pgx_tde.h"

void
pgx_note_server_version(void)
{
	const char *number = GetConfigOption("server_version_num", false, false);

	if (atoi(number) != PG_VERSION_NUM)
		ereport(LOG,
				(errmsg("pgx_tde was compiled for PostgreSQL %s and runs in %s", PG_VERSION,
						GetConfigOption("server_version", false, false)),
				 errdetail("Minor versions of one major version are compatible.")));
}

void
pgx_startup_interrupts(void)
{
#if PG_VERSION_NUM >= 180000
	ProcessStartupProcInterrupts();
#else
	HandleStartupProcInterrupts();
#endif
}

#if PG_VERSION_NUM >= 170000

/*
 * From 17 on a walsender of a primary takes WAL from the buffers, where no page has an
 * epoch.  What is sent is on disk, though, in a segment of the timeline that is
 * being written; to read there is to learn the header.
 */
bool
pgx_learn_wal_header(XLogRecPtr page, struct tde_wal_header *ret_header)
{
	static int	fd = -1;
	static XLogSegNo open_segment;
	XLogSegNo	segment;
	char		start[TDE_WAL_SHORT_HEADER];

	XLByteToSeg(page, segment, wal_segment_size);
	if (fd >= 0 && segment != open_segment)
	{
		close(fd);
		fd = -1;
	}
	if (fd < 0)
	{
		char		path[MAXPGPATH];

		if (RecoveryInProgress())
			return false;
		XLogFilePath(path, GetWALInsertionTimeLine(), segment, wal_segment_size);
		fd = BasicOpenFile(path, O_RDONLY | PG_BINARY);
		open_segment = segment;
	}
	return fd >= 0 &&
		pg_pread(fd, start, sizeof(start), XLogSegmentOffset(page, wal_segment_size)) == sizeof(start) &&
		pgx_io->wal_header(page, ret_header);
}

#else

/* Up to 16 all WAL that is sent has been read from a file before. */
bool
pgx_learn_wal_header(XLogRecPtr page, struct tde_wal_header *ret_header)
{
	return false;
}

#endif

#if PG_VERSION_NUM >= 180000

#define CLONE_DETAIL	"Cloned pages would be encrypted for the database that they were copied from."
#define CLONE_HINT		"Set file_copy_method to \"copy\"."

static bool
check_file_copy_method(int *newval, void **extra, GucSource source)
{
	if (*newval != FILE_COPY_METHOD_CLONE)
		return true;
	GUC_check_errmsg("file_copy_method = clone is not supported with pgx_tde");
	GUC_check_errdetail("%s", CLONE_DETAIL);
	GUC_check_errhint("%s", CLONE_HINT);
	return false;
}

void
pgx_refuse_bypasses(void)
{
	struct config_generic *setting = find_option("file_copy_method", false, false, FATAL);

	/* The kernel would read and write the buffers by itself. */
	if (strcmp(GetConfigOption("io_method", false, false), "io_uring") == 0)
		ereport(FATAL,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("io_method = io_uring is not supported with pgx_tde"),
				 errdetail("Pages would go to disk without being encrypted."),
				 errhint("Set io_method to \"worker\" or \"sync\".")));
	if (file_copy_method == FILE_COPY_METHOD_CLONE)
		ereport(FATAL,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("file_copy_method = clone is not supported with pgx_tde"),
				 errdetail(CLONE_DETAIL),
				 errhint(CLONE_HINT)));

	/* The setting may be changed in a session, and has no check of the server's own. */
	if (setting->vartype != PGC_ENUM || ((struct config_enum *) setting)->check_hook != NULL)
		ereport(FATAL,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("setting \"file_copy_method\" is not what pgx_tde expects")));
	((struct config_enum *) setting)->check_hook = check_file_copy_method;
}

#else

/* Up to 17 every page goes through the C library. */
void
pgx_refuse_bypasses(void)
{
}

#endif
