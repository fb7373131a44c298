/*
 * mirror.c
 *		The mirrored WAL after a recovery.
 *
 * The server refuses a mirror that belongs to another pg_wal, since that may be all that is left of the last
 * transactions.  Once they are recovered, the place is free for the new pg_wal.  Nothing is removed: full segments
 * that had not been archived are, so that an older backup can still be recovered through them, and
 * the files go into a folder beside.
 */
#include <config.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "file.h"
#include "log.h"
#include "mem.h"
#include "rcvall.h"

/* Move every file to the folder to. */
static bool
move_files(const char *mirror, const char *to)
{
	DIR		   *d = opendir(mirror);
	struct dirent *e;
	bool		ok = d != NULL;

	while (ok && (e = readdir(d)) != NULL)
	{
		char	   *from_path = pgx_join(mirror, e->d_name);
		char	   *to_path = pgx_join(to, e->d_name);
		struct stat st;

		if (lstat(from_path, &st) == 0 && S_ISREG(st.st_mode))
			ok = rename(from_path, to_path) == 0;
		free(from_path);
		free(to_path);
	}
	if (!ok)
		pgx_log_warning("could not move the files in \"%s\" to \"%s\": %m", mirror, to);
	if (d != NULL)
		(void) closedir(d);
	return ok && pgx_sync_path(to) && pgx_sync_path(mirror);
}

void
mirror_put_aside(const struct recovery *r)
{
	char	   *mirror = pgx_join(r->area, PGX_AREA_ONLINE_WAL);
	char	   *id = pgx_join(mirror, "pgx_mirror.id");
	time_t		now = time(NULL);
	char		stamp[32] = "";
	struct tm	tm;
	struct stat st;

	/* A copy of the server, made elsewhere, leaves the server's own as it is. */
	if (r->same_place && stat(id, &st) == 0 && localtime_r(&now, &tm) != NULL &&
		strftime(stamp, sizeof(stamp), "recovered_%Y-%m-%d_%H-%M-%S", &tm) > 0)
	{
		char	   *to = pgx_join(mirror, stamp);

		if (!wal_chain_archive(r->area, r->backup, &r->chain))
			pgx_log_hint("Keep the files in \"%s\" until there is a new backup.", to);
		if (!pgx_make_directory(to) || !move_files(mirror, to))
			pgx_log_hint("Move the files in \"%s\" away before the server is started.", mirror);
		else
			pgx_log_verbose("the mirrored WAL is in \"%s\" now", to);
		free(to);
	}
	free(id);
	free(mirror);
}
