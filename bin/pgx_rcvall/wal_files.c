/*
 * wal_files.c
 *		Files of WAL, one at a time: where one is, whether it is what its name says, and fetching it for the server.
 *
 * What is read here is not encrypted: names, sizes and page headers.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "log.h"
#include "mem.h"
#include "rcvall.h"
#include "wal.h"
#include "wal_files.h"

/* Offsets in a long page header, see pgx_tde_formats(5). */
#define SYSID_OFFSET		24
#define SEGMENT_SIZE_OFFSET 32

/* ---- fetching one file ------------------------------------------------------------- */

/* Where a file may be, best first.  "%s" is its name. */
static const char *const places[] = {
	PGX_AREA_ARCHIVED_WAL "/%s",
	PGX_AREA_ONLINE_WAL "/%s",
	PGX_AREA_ONLINE_WAL "/%s.partial",	/* pg_receivewal's current one */
};

#define N_PLACES	(sizeof(places) / sizeof(places[0]))
#define FIRST_MIRROR	1			/* from here on they are of the mirror */

char *
wal_place_path(const char *area, size_t place, const char *name)
{
	const char *suffix = strchr(places[place], '%') + 2;

	return pgx_printf("%s/%.*s%s%s", area, (int) (strchr(places[place], '%') - places[place]), places[place], name,
					  suffix);
}

static bool
copy_wal(const char *from, const char *to)
{
	int			in = open(from, O_RDONLY | O_CLOEXEC);
	int			out = -1;
	bool		ok = false;

	if (in < 0)
		pgx_log_error("could not open file \"%s\": %m", from);
	else if ((out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)) < 0)
		pgx_log_error("could not create file \"%s\": %m", to);
	else
	{
		ok = pgx_copy_rest(in, out);
		if (!ok)
			pgx_log_error("could not copy file \"%s\" to \"%s\": %m", from, to);
	}
	if (out >= 0 && close(out) != 0 && ok)
	{
		pgx_log_error("could not close file \"%s\": %m", to);
		ok = false;
	}
	if (in >= 0)
		(void) close(in);
	return ok;
}

int
fetch_wal(const char *area, const char *name, const char *to)
{
	if (name[0] == '\0' || strchr(name, '/') != NULL)
	{
		pgx_log_error("invalid argument %s", name);
		return FETCH_BROKEN;
	}
	for (size_t i = 0; i < N_PLACES; i++)
	{
		char	   *path = wal_place_path(area, i, name);
		struct stat st;
		int			rc = -1;

		if (stat(path, &st) == 0)
			rc = copy_wal(path, to) ? PGX_EXIT_OK : FETCH_BROKEN;
		else if (errno != ENOENT)
		{
			pgx_log_error("could not stat file \"%s\": %m", path);
			rc = FETCH_BROKEN;
		}
		free(path);
		if (rc >= 0)
			return rc;
	}
	return PGX_EXIT_FAILURE;
}

/* ---- one segment -------------------------------------------------------------------- */

/*
 * Does a file begin with the page that belongs there?  In a mirror, as in pg_wal, there are also files that are
 * only there to become a later segment: zero, or with the content of a former one.
 */
bool
wal_is_begun(const char *path, uint64_t lsn)
{
	uint8_t		page[TDE_WAL_LONG_HEADER];
	struct tde_wal_header header;
	uint16_t	magic;
	int			fd = open(path, O_RDONLY | O_CLOEXEC);
	bool		begun = fd >= 0 && pread(fd, page, sizeof(page), 0) == (ssize_t) sizeof(page);

	if (begun)
	{
		memcpy(&magic, page, sizeof(magic));
		begun = tde_wal_parse(page, magic, &header) && header.address == lsn;
	}
	if (fd >= 0)
		(void) close(fd);
	return begun;
}

/* Where a segment is: in the area, or in the backup.  NULL if nowhere.  The caller frees it. */
char *
wal_find_segment(const char *area, const struct pgx_backup *backup, const char *name)
{
	static const char *const own[] = {PGX_BACKUP_WAL, PGX_BACKUP_DATA "/pg_wal"};
	uint64_t	lsn = 0;

	(void) pgx_wal_name_parse(name, backup->info.wal_segment_size, NULL, &lsn);

	for (size_t i = 0; i < N_PLACES + 2; i++)
	{
		char	   *dir = i < N_PLACES ? NULL : pgx_backup_path(backup, own[i - N_PLACES]);
		char	   *path = i < N_PLACES ? wal_place_path(area, i, name) : pgx_join(dir, name);

		free(dir);
		if (access(path, F_OK) == 0 && (i < FIRST_MIRROR || i >= N_PLACES || wal_is_begun(path, lsn)))
			return path;
		free(path);
	}
	return NULL;
}

/* Is the file what its name says, and of the server that was backed up? */
bool
wal_check_segment(const char *path, uint64_t lsn, const struct pgx_backup_info *info)
{
	uint8_t		page[TDE_WAL_LONG_HEADER];
	struct tde_wal_header header;
	struct stat st;
	uint64_t	sysid;
	uint32_t	size;
	uint16_t	magic;
	char		sysid_text[24];
	const char *wrong = NULL;
	int			fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) != 0)
		wrong = strerror(errno);
	else if (st.st_size != (off_t) info->wal_segment_size)
		wrong = "its size is wrong";
	else if (pread(fd, page, sizeof(page), 0) != (ssize_t) sizeof(page))
		wrong = "it could not be read";
	else
	{
		memcpy(&magic, page, sizeof(magic));
		memcpy(&sysid, page + SYSID_OFFSET, sizeof(sysid));
		memcpy(&size, page + SEGMENT_SIZE_OFFSET, sizeof(size));
		snprintf(sysid_text, sizeof(sysid_text), "%" PRIu64, sysid);
		if (!tde_wal_parse(page, magic, &header) || header.address != lsn || size != info->wal_segment_size)
			wrong = "it does not begin with the page that belongs there";
		else if (strcmp(sysid_text, info->system_identifier) != 0)
			wrong = "it is of another server";
	}
	if (fd >= 0)
		(void) close(fd);
	if (wrong != NULL)
		pgx_log_error("WAL segment \"%s\" is not usable: %s", path, wrong);
	return wrong == NULL;
}
