/*
 * pgx_archive.c
 *		What pgx_walcopy does, as an archive module of the server: no process per segment.
 *
 * Set archive_library = 'pgx_archive' in the place of archive_command.  The archiver process sees WAL as it is on disk,
 * so encrypted WAL is archived encrypted.
 */
#include "pgx_postgres.h"

#include <sys/stat.h>

#include "fmgr.h"
#if PG_VERSION_NUM >= 160000
#include "archive/archive_module.h"
#else
#include "postmaster/pgarch.h"
#endif
#include "utils/guc.h"

#include "wal_archive.h"

#define DESTINATION		"pgx_tde.backup_destination"
#define ARCHIVED_WAL	"archived_wal"

PG_MODULE_MAGIC;

void		_PG_init(void);
#if PG_VERSION_NUM < 160000
extern void _PG_archive_module_init(ArchiveModuleCallbacks *cb);	/* in no header of 15 */
#endif

static char *archive_directory;
static bool archive_verify;

void
_PG_init(void)
{
	DefineCustomStringVariable("pgx_archive.directory",
							   "Directory that WAL is archived to.",
							   "Empty means archived_wal in pgx_tde.backup_destination.",
							   &archive_directory, "", PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("pgx_archive.verify",
							 "Checks each segment before it is archived, and reads the copy back.",
							 NULL, &archive_verify, true, PGC_SIGHUP, 0, NULL, NULL, NULL);
	MarkGUCPrefixReserved("pgx_archive");
}

/* Where to, for a file or for nothing but the directory; false if it is not set or too long. */
static bool
make_path(const char *file, char path[MAXPGPATH])
{
	const char *destination = GetConfigOption(DESTINATION, true, false);
	int			len;

	if (archive_directory != NULL && archive_directory[0] != '\0')
		len = snprintf(path, MAXPGPATH, "%s/%s", archive_directory, file);
	else if (destination != NULL && destination[0] != '\0')
		len = snprintf(path, MAXPGPATH, "%s/" ARCHIVED_WAL "/%s", destination, file);
	else
		return false;
	return len < MAXPGPATH;
}

static bool
is_configured(void)
{
	char		path[MAXPGPATH];
	struct stat st;

	if (make_path("", path) && stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return true;
	/* The server waits, and says that archiving is not set up; only this tells why. */
	ereport(WARNING,
			(errmsg("the directory for archived WAL does not exist or is not configured"),
			 errhint("Set pgx_archive.directory to an existing directory, or %s and create \"%s\" in it.",
					 DESTINATION, ARCHIVED_WAL)));
	return false;
}

static bool
archive_file(const char *file, const char *path)
{
	char		to[MAXPGPATH];
	char		err[1024] = "the destination is not configured, or its name is too long";

	if (make_path(file, to) && pgx_wal_archive(path, to, archive_verify, err, sizeof(err)))
		return true;
	ereport(WARNING,
			(errmsg("could not archive file \"%s\": %s", file, err)));
	return false;
}

#if PG_VERSION_NUM >= 160000

static bool
is_configured_cb(ArchiveModuleState *state)
{
	return is_configured();
}

static bool
archive_file_cb(ArchiveModuleState *state, const char *file, const char *path)
{
	return archive_file(file, path);
}

const ArchiveModuleCallbacks *
_PG_archive_module_init(void)
{
	static const ArchiveModuleCallbacks callbacks = {
		.check_configured_cb = is_configured_cb,
		.archive_file_cb = archive_file_cb,
	};

	return &callbacks;
}

#else

void
_PG_archive_module_init(ArchiveModuleCallbacks *cb)
{
	cb->check_configured_cb = is_configured;
	cb->archive_file_cb = archive_file;
}

#endif
