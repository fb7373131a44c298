/*
 * mirror_setup.c
 *		The directory of the mirrored (multiplexed) WAL: the setting, where it may
 *		lie, and whose it is.
 *
 * After a disaster the mirror may hold the only copy of the last transactions.  Then the administrator
 * restores a backup, configuration and all, and starts it; a server that simply went on
 * mirroring would remove and overwrite what is to be recovered.  So mirror and
 * pg_wal carry the same random id, in a file that no base backup contains, and a
 * mirror that belongs to another pg_wal is not touched.
 */
#include "pgx_postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "access/xlog_internal.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/guc.h"

#include "mirror.h"
#include "pgx_tde.h"

#define SETTING		"pgx_tde.online_wal_directory"
#define ID_FILE		"pgx_mirror.id"
#define ID_IN_WAL	XLOGDIR "/" ID_FILE
#define ID_LEN		33			/* hexadecimal digits and a newline */
#define START_HINT	"To start without multiplexing of WAL, set " SETTING " to an empty string."

char	   *pgx_online_wal_directory;
int			pgx_on_mirror_failure = PGX_MIRROR_PAUSE;

static const struct config_enum_entry failure_options[] = {
	{"pause", PGX_MIRROR_PAUSE, false},
	{"restart", PGX_MIRROR_RESTART, false},
	{NULL, 0, false}
};

void
pgx_define_mirror(void)
{
	DefineCustomStringVariable(SETTING,
							   "Directory where multiplexed transaction log files are stored.",
							   "On another disk than pg_wal, and for this server alone.  An empty string disables multiplexing.",
							   &pgx_online_wal_directory, "", PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("pgx_tde.on_wal_multiplexing_failure",
							 "What happens when WAL can no longer be multiplexed.",
							 "\"pause\" goes on without; \"restart\" restarts all server processes, and then needs the directory.",
							 &pgx_on_mirror_failure, PGX_MIRROR_PAUSE, failure_options,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
}

bool
pgx_mirror_is_configured(void)
{
	return pgx_online_wal_directory != NULL && pgx_online_wal_directory[0] != '\0';
}

static char *
in_mirror(const char *name)
{
	return psprintf("%s/%s", pgx_online_wal_directory, name);
}

/* What is wrong with the directory itself, palloc'd; NULL if nothing is. */
static char *
objection(void)
{
	char		path[PATH_MAX];
	struct stat st;
	const char *other;

	if (!is_absolute_path(pgx_online_wal_directory))
		return pstrdup("It is not an absolute path.");
	if (strlen(pgx_online_wal_directory) >= sizeof(pgx_io->shared->mirror.directory))
		return pstrdup("It is too long.");
	if (realpath(pgx_online_wal_directory, path) == NULL || stat(path, &st) != 0)
		return psprintf("It cannot be reached: %m.");
	if (!S_ISDIR(st.st_mode))
		return pstrdup("It is not a directory.");
	if (st.st_uid != geteuid())
		return pstrdup("It belongs to another user.");
	if ((st.st_mode & (S_IRWXG | S_IRWXO)) != 0)
		return pstrdup("Other users have access to it; its permissions must be u=rwx (0700).");
	if (access(path, R_OK | W_OK | X_OK) != 0)
		return psprintf("It cannot be written: %m.");
	other = pgx_overlaps_with(path);
	return other == NULL ? NULL : psprintf("It and %s overlap.", other);
}

/* Read an id; false if there is no such file.  Damage counts as an id that nobody has. */
static bool
read_id(const char *path, char ret_id[ID_LEN])
{
	int			fd = BasicOpenFile(path, O_RDONLY | O_NOFOLLOW | PG_BINARY);
	ssize_t		got;

	memset(ret_id, 0, ID_LEN);
	if (fd < 0 && errno == ENOENT)
		return false;
	if (fd < 0)
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", path), errhint(START_HINT)));
	got = read(fd, ret_id, ID_LEN);
	close(fd);
	if (got != ID_LEN)
		memset(ret_id, '?', ID_LEN);
	return true;
}

static void
write_id(const char *path, const char id[ID_LEN])
{
	int			fd = BasicOpenFile(path, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | PG_BINARY);

	if (fd < 0 || write(fd, id, ID_LEN) != ID_LEN || pg_fsync(fd) != 0)
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", path), errhint(START_HINT)));
	close(fd);
	fsync_fname(path, false);
}

static void
make_id(char ret_id[ID_LEN])
{
	uint8		random[(ID_LEN - 1) / 2];

	if (!pg_strong_random(random, sizeof(random)))
		ereport(FATAL,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not draw random bytes for the directory of multiplexed WAL")));
	for (int i = 0; i < (int) sizeof(random); i++)
	{
		ret_id[2 * i] = "0123456789abcdef"[random[i] >> 4];
		ret_id[2 * i + 1] = "0123456789abcdef"[random[i] & 15];
	}
	ret_id[ID_LEN - 1] = '\n';
}

/* Is there WAL in the mirror?  What an interrupted copying left is removed. */
static bool
holds_wal(void)
{
	DIR		   *dir = AllocateDir(pgx_online_wal_directory);
	struct dirent *entry;
	bool		found = false;

	while ((entry = ReadDirExtended(dir, pgx_online_wal_directory, FATAL)) != NULL)
	{
		if (strncmp(entry->d_name, PGX_MIRROR_COPYING, strlen(PGX_MIRROR_COPYING)) == 0)
			(void) unlink(in_mirror(entry->d_name));
		else if (IsXLogFileName(entry->d_name) || IsPartialXLogFileName(entry->d_name) ||
				 IsTLHistoryFileName(entry->d_name))
			found = true;
	}
	FreeDir(dir);
	return found;
}

/* Only one server, for as long as this process lives; children do not inherit such a lock. */
static void
lock_mirror(void)
{
	struct flock range = {.l_type = F_WRLCK,.l_whence = SEEK_SET};
	char	   *path = in_mirror(ID_FILE);
	int			fd = BasicOpenFile(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | PG_BINARY);

	if (fd < 0)
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", path), errhint(START_HINT)));
	if (fcntl(fd, F_SETLK, &range) != 0)
		ereport(FATAL,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("directory \"%s\" is used by another server for its multiplexed WAL",
						pgx_online_wal_directory),
				 errhint("Give each server a directory of its own.")));

	/* Not closed: that would release the lock. */
}

/* Does the mirror belong to this server's pg_wal?  A directory without WAL is taken. */
static void
check_owner(void)
{
	char		here[ID_LEN];
	char		there[ID_LEN];
	bool		has_wal = holds_wal();
	bool		id_here = read_id(ID_IN_WAL, here);
	bool		id_there = read_id(in_mirror(ID_FILE), there);

	if (id_here && id_there && memcmp(here, there, ID_LEN) == 0)
		return;
	if (has_wal)
		ereport(FATAL,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("directory \"%s\" holds multiplexed WAL of another pg_wal",
						pgx_online_wal_directory),
				 errdetail("If that pg_wal was lost, this may be the only copy of its last transactions."),
				 errhint("Recover with it first, if there is something to recover.  Then move the content of the directory away.  "
						 "To start without multiplexing of WAL, set " SETTING " to an empty string.")));
	make_id(here);
	write_id(ID_IN_WAL, here);
	write_id(in_mirror(ID_FILE), here);
}

/* Is the directory there, and still the one that the server was started with?  For resuming. */
void
pgx_mirror_recheck(void)
{
	char		here[ID_LEN];
	char		there[ID_LEN];
	char	   *wrong = objection();

	if (wrong == NULL &&
		(!read_id(ID_IN_WAL, here) || !read_id(in_mirror(ID_FILE), there) ||
		 memcmp(here, there, ID_LEN) != 0))
		wrong = psprintf("It does not hold the file \"%s\" that this server made in it.", ID_FILE);
	if (wrong != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not resume multiplexing of WAL in directory \"%s\"", pgx_online_wal_directory),
				 errdetail_internal("%s", wrong),
				 errhint("Put the directory right and resume again; or restart the server, which also takes an empty one.")));
}

static void
check_directory(void)
{
	char	   *wrong = objection();

	if (wrong != NULL)
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("invalid value for parameter \"%s\": \"%s\"", SETTING, pgx_online_wal_directory),
				 errdetail_internal("%s", wrong),
				 errhint("Make a directory on another disk for the multiplexed WAL of this server alone.  "
						 "To start without multiplexing of WAL, set " SETTING " to an empty string.")));
}

void
pgx_setup_mirror(void)
{
	struct pgx_io_mirror *mirror = &pgx_io->shared->mirror;

	if (!pgx_mirror_is_configured())
		return;
	canonicalize_path(pgx_online_wal_directory);
	check_directory();
	check_owner();
	lock_mirror();
	strlcpy(mirror->directory, pgx_online_wal_directory, sizeof(mirror->directory));
	atomic_store(&mirror->generation, 1);
	atomic_store(&mirror->changed_at, (long long) time(NULL));
	atomic_store(&mirror->mode, PGX_MIRROR_ON);
	pgx_register_mirror_worker();
}

/*
 * The postmaster restarts its children after a crash.  Nobody knows what they had left to do, so the mirror is
 * compared again; and if it was a failure of the mirror that all were restarted for, it has to work now.
 */
void
pgx_mirror_restarted(void)
{
	struct pgx_io_mirror *mirror = &pgx_io->shared->mirror;

	atomic_fetch_add(&mirror->generation, 1);
	if (atomic_load(&mirror->mode) != PGX_MIRROR_RESTARTING &&
		(atomic_load(&mirror->mode) != PGX_MIRROR_FAILED || pgx_on_mirror_failure != PGX_MIRROR_RESTART))
		return;
	check_directory();
	check_owner();
	atomic_store(&mirror->mode, PGX_MIRROR_ON);
}
