/*
 * io_mirror_names.c
 *		Files of pg_wal that get another name, or go: the mirror follows.
 *
 * A segment is mirrored under its new name before pg_wal has it under that name.  From then on
 * other processes open and write it, and nothing may come over what they mirror.
 */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "io_mirror.h"

static bool
is_hex(const char *name, size_t len)
{
	return strspn(name, "0123456789ABCDEF") == len;
}

enum pgx_wal_file
pgx_wal_file_kind(const char *name)
{
	if (strncmp(name, "xlogtemp.", 9) == 0)
		return PGX_WAL_TEMP;
	if (is_hex(name, PGX_WAL_NAME_LEN) && name[PGX_WAL_NAME_LEN] == '\0')
		return PGX_WAL_SEGMENT;
	if (is_hex(name, PGX_WAL_NAME_LEN) && strcmp(name + PGX_WAL_NAME_LEN, ".partial") == 0)
		return PGX_WAL_PARTIAL;
	if (is_hex(name, 8) && strcmp(name + 8, ".history") == 0)
		return PGX_WAL_HISTORY;
	return PGX_WAL_OTHER;
}

const char *
pgx_name_in_wal(const char *path)
{
	size_t		len = strlen(pgx_server->data_dir);

	if (strncmp(path, pgx_server->data_dir, len) == 0 && path[len] == '/')
		path += len + 1;
	while (path[0] == '.' && path[1] == '/')
		path += 2;
	if (strncmp(path, "pg_wal/", 7) != 0 || strchr(path + 7, '/') != NULL)
		return NULL;
	return path + 7;
}

/* Both names are the mirror's. */
static int
rename_there(const char *from, const char *to)
{
	char		from_there[PGX_MIRROR_PATH];
	char		to_there[PGX_MIRROR_PATH];

	pgx_mirror_path(from, from_there, sizeof(from_there));
	pgx_mirror_path(to, to_there, sizeof(to_there));
	if (pgx_libc.rename(from_there, to_there) != 0)
	{
		/* It was never mirrored.  Nothing else may pass for it. */
		if (errno != ENOENT || (pgx_libc.unlink(to_there) != 0 && errno != ENOENT))
			return -1;
	}
	return pgx_mirror_sync_directory();
}

static int
unlink_there(const char *name)
{
	char		there[PGX_MIRROR_PATH];

	pgx_mirror_path(name, there, sizeof(there));
	return pgx_libc.unlink(there) == 0 || errno == ENOENT ? 0 : -1;
}

/* The server's rename() has failed: the mirror's goes back, too. */
static int
undo(const char *from, const char *to)
{
	return pgx_wal_file_kind(from) == PGX_WAL_SEGMENT ? rename_there(to, from) : unlink_there(to);
}

/* Give a file of pg_wal another name, or one more that is to replace the old one: rename() or link(). */
int
pgx_mirror_rename(const char *from_path, const char *to_path, int (*rename_it) (const char *, const char *))
{
	const char *from = pgx_name_in_wal(from_path);
	const char *to = pgx_name_in_wal(to_path);
	enum pgx_wal_file from_kind = from == NULL ? PGX_WAL_OTHER : pgx_wal_file_kind(from);
	enum pgx_wal_file to_kind = to == NULL ? PGX_WAL_OTHER : pgx_wal_file_kind(to);
	bool		first;
	int			good = 0;
	int			error;
	int			rc;

	/* What comes from the archive need not be mirrored. */
	if (!pgx_mirror_is_on() || (from_kind != PGX_WAL_TEMP && from_kind != PGX_WAL_SEGMENT) || to_kind == PGX_WAL_OTHER)
		return rename_it(from_path, to_path);

	/* Nobody writes to a history, and one that pg_wal does not have in the end would mislead a recovery. */
	error = errno;
	first = to_kind != PGX_WAL_HISTORY && access(to_path, F_OK) != 0;
	errno = error;
	if (first)
		good = from_kind == PGX_WAL_TEMP ? pgx_mirror_copy_whole(from, to) : rename_there(from, to);
	if (good != 0)
		pgx_mirror_fail("rename", to);
	errno = error;
	rc = rename_it(from_path, to_path);
	error = errno;
	if (first && rc != 0)
		good = undo(from, to);
	else if (!first && rc == 0)
		good = from_kind == PGX_WAL_TEMP ? pgx_mirror_copy_whole(to, to) : rename_there(from, to);
	else if (rc == 0 && from_kind == PGX_WAL_SEGMENT)
		good = unlink_there(from);	/* catching up may just have made it anew */
	else
		good = 0;
	if (good != 0)
		pgx_mirror_fail("rename", to);
	errno = error;
	return rc;
}

/* The server has removed a file. */
void
pgx_mirror_unlinked(const char *path)
{
	const char *name = pgx_name_in_wal(path);
	int			error = errno;

	if (!pgx_mirror_is_on() || name == NULL ||
		(pgx_wal_file_kind(name) != PGX_WAL_SEGMENT && pgx_wal_file_kind(name) != PGX_WAL_PARTIAL))
		return;
	if (unlink_there(name) != 0)
		pgx_mirror_fail("unlink", name);
	errno = error;
}
