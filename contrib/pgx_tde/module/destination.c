/*
 * destination.c
 *		The setting pgx_tde.backup_destination, and where the backup area may lie.
 *
 * A backup that lies in what it is a backup of is lost together with it, and each one would
 * contain the one before.
 */
#include "pgx_postgres.h"

#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/guc.h"

#include "pgx_tde.h"

#define DESTINATION "pgx_tde.backup_destination"

char	   *pgx_backup_destination;

/* Is one of the two canonical paths the other, or inside it? */
static bool
overlap(const char *one, const char *two)
{
	size_t		one_len = strlen(one);
	size_t		two_len = strlen(two);
	size_t		len = one_len < two_len ? one_len : two_len;
	const char *longer = one_len < two_len ? two : one;

	return strncmp(one, two, len) == 0 && (longer[len] == '/' || longer[len] == '\0');
}

/* What of this server shares a place with the canonical path?  NULL: nothing. */
const char *
pgx_overlaps_with(const char *destination)
{
	char		other[PATH_MAX];
	const char *found = NULL;
	DIR		   *dir;
	struct dirent *entry;

	if (realpath(DataDir, other) != NULL && overlap(destination, other))
		return "the data directory";
	if (realpath("pg_wal", other) != NULL && overlap(destination, other))
		return "the directory of WAL";
	if (pgx_location_is_set() && realpath(pgx_keystore_location, other) != NULL &&
		overlap(destination, other))
		return "the directory of the keystore";

	dir = AllocateDir("pg_tblspc");
	while ((entry = ReadDirExtended(dir, "pg_tblspc", LOG)) != NULL)
	{
		char		link[MAXPGPATH + 16];

		if (entry->d_name[0] == '.')
			continue;
		snprintf(link, sizeof(link), "pg_tblspc/%s", entry->d_name);
		if (realpath(link, other) != NULL && overlap(destination, other))
			found = "a tablespace";
	}
	FreeDir(dir);
	return found;
}

/* What is wrong with a value, palloc'd; NULL if nothing is.  One that is not there yet is for pgx_dmpall to judge. */
static char *
objection(const char *value)
{
	char		destination[PATH_MAX];
	const char *other;

	if (value == NULL || value[0] == '\0')
		return NULL;
	if (!is_absolute_path(value))
		return pstrdup("It is not an absolute path.");
	if (realpath(value, destination) == NULL)
		return NULL;
	other = pgx_overlaps_with(destination);
	return other == NULL ? NULL : psprintf("It and %s overlap.", other);
}

/*
 * For ALTER SYSTEM.  While the module is being loaded, an objection of this hook would only be a warning, and the
 * server would run without the setting: pgx_check_destination() refuses the start.
 */
static bool
check_hook(char **newval, void **extra, GucSource source)
{
	char	   *wrong = process_shared_preload_libraries_in_progress ? NULL : objection(*newval);

	if (wrong == NULL)
		return true;
	GUC_check_errdetail("%s", wrong);
	return false;
}

void
pgx_define_destination(void)
{
	DefineCustomStringVariable(DESTINATION,
							   "Directory that pgx_dmpall makes backups in.",
							   "It must lie outside the data directory, the tablespaces and the keystore's directory, and belong to this server alone.",
							   &pgx_backup_destination, "", PGC_POSTMASTER, 0, check_hook, NULL, NULL);
}

void
pgx_check_destination(void)
{
	char	   *wrong = objection(pgx_backup_destination);

	if (wrong != NULL)
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("invalid value for parameter \"%s\": \"%s\"", DESTINATION, pgx_backup_destination),
				 errdetail_internal("%s", wrong),
				 errhint("Specify a directory on another disk that holds nothing but backups of this server.")));
}
