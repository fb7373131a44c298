/*
 * restore.c
 *		The files of the cluster: from the backup, or by the user's copy command, to where they belong.
 *
 * pg_control gets its name last, when everything is on disk, so that no server starts on a copy that is not whole.
 */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "child.h"
#include "file.h"
#include "log.h"
#include "mem.h"
#include "packed.h"
#include "rcvall.h"

/* ---- the copy command --------------------------------------------------------------------- */

/* What a running server keeps in these, or keeps to itself, is not restored. */
static const char *const emptied[] = {
	"pg_wal", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans",
	NULL
};

static bool
put_file(const struct recovery *r, const char *name, const char *to)
{
	char	   *from = pgx_backup_path(r->backup, name);
	char	   *path = pgx_join(r->pgdata, to);
	bool		ok = pgx_remove_tree(path) && pgx_copy_file(from, path);

	free(path);
	free(from);
	return ok;
}

/* The segments from begin to end of the backup, beside the data. */
static bool
put_wal(const struct recovery *r)
{
	char	   *dir = pgx_backup_path(r->backup, PGX_BACKUP_WAL);
	DIR		   *d = opendir(dir);
	struct dirent *e;
	bool		ok = d != NULL;

	if (d == NULL)
		pgx_log_error("could not open directory \"%s\": %m", dir);
	while (ok && (e = readdir(d)) != NULL)
	{
		char	   *from;
		char	   *to;

		if (!pgx_wal_name_parse(e->d_name, r->backup->info.wal_segment_size, NULL, NULL))
			continue;
		from = pgx_printf("%s/%s", PGX_BACKUP_WAL, e->d_name);
		to = pgx_printf("pg_wal/%s", e->d_name);
		ok = put_file(r, from, to);
		free(to);
		free(from);
	}
	if (d != NULL)
		(void) closedir(d);
	free(dir);
	if (!ok)
		pgx_log_error("could not replace the contents of the pg_wal directory");
	return ok;
}

static bool
tidy_data(const struct recovery *r)
{
	static const char *const removed[] = {
		"postmaster.pid", "postmaster.opts", "standby.signal", "recovery.signal", "tablespace_map", NULL
	};
	char	   *status = pgx_join(r->pgdata, "pg_wal/archive_status");
	bool		ok = true;

	for (const char *const *name = removed; ok && *name != NULL; name++)
	{
		char	   *path = pgx_join(r->pgdata, *name);

		ok = pgx_remove_tree(path);
		free(path);
	}
	for (const char *const *name = emptied; ok && *name != NULL; name++)
	{
		char	   *path = pgx_join(r->pgdata, *name);

		ok = pgx_remove_tree(path) && pgx_make_directory(path);
		free(path);
	}
	ok = ok && pgx_make_directory(status);
	free(status);
	return ok && put_file(r, "backup_label", "backup_label") && put_wal(r);
}

/* "restore INFO TARGETS": the resources are those of the backup; its directories are there and empty. */
static bool
call_copy_command(const struct recovery *r)
{
	char	   *info = pgx_backup_path(r->backup, r->backup->info.copy_info_file);
	char	   *targets = pgx_printf("%s/%s", r->area, "pgx_rcvall.targets");
	char	   *text = pgx_strdup("");
	const char *const argv[] = {r->opts->copy_command, "restore", info, targets, NULL};
	bool		ok;

	for (size_t i = 0; i < r->backup->info.n_resources; i++)
	{
		char	   *more = pgx_printf("%s%s\n", text, r->backup->info.resources[i]);

		free(text);
		text = more;
	}
	ok = pgx_write_durable(targets, text, strlen(text));
	if (ok && setenv("PGDATA", r->pgdata, 1) != 0)
	{
		pgx_log_error("could not set an environment variable: %m");
		ok = false;
	}
	ok = ok && pgx_child_run(argv, -1);
	(void) unlink(targets);
	free(text);
	free(targets);
	free(info);
	return ok;
}

/* ---- a packed backup ---------------------------------------------------------------------- */

/* It verifies itself, and its pg_control comes last too. */
static bool
unpack(const struct recovery *r)
{
	const struct pgx_backup_info *info = &r->backup->info;
	struct pgx_pack_tablespace *places = pgx_alloc((info->n_tablespaces + 1) * sizeof(*places));
	struct pgx_packed_target to = {.data_dir = r->pgdata,.tablespaces = places,.n_tablespaces = info->n_tablespaces};
	int			rc;

	for (size_t i = 0; i < info->n_tablespaces; i++)
	{
		places[i].oid = info->tablespaces[i].oid;
		places[i].location = r->locations[i];
	}
	rc = pgx_packed_restore(r->backup, r->ks, &to, r->opts->jobs, r->opts->progress, &pgx_caught_signal);
	if (rc != PGX_EXIT_OK)
		pgx_log_error("could not restore the database storage directory \"%s\"", r->pgdata);
	free(places);
	return rc == PGX_EXIT_OK;
}

/* Files that only the server that was backed up had a use for. */
static bool
tidy_unpacked(const struct recovery *r)
{
	static const char *const removed[] = {"standby.signal", "recovery.signal", "backup_manifest", NULL};
	bool		ok = true;

	for (const char *const *name = removed; ok && *name != NULL; name++)
	{
		char	   *path = pgx_join(r->pgdata, *name);

		ok = pgx_remove_tree(path);
		free(path);
	}
	return ok;
}

/* ---- all of it --------------------------------------------------------------------------- */

static bool
make_links(const struct recovery *r)
{
	bool		ok = true;

	for (size_t i = 0; ok && i < r->backup->info.n_tablespaces; i++)
	{
		char	   *link = pgx_printf("%s/pg_tblspc/%u", r->pgdata, r->backup->info.tablespaces[i].oid);

		if ((unlink(link) != 0 && errno != ENOENT) || symlink(r->locations[i], link) != 0)
		{
			pgx_log_error("could not create symbolic link \"%s\": %m", link);
			ok = false;
		}
		free(link);
	}
	return ok;
}

/* Everything is on disk: now the server may find it. */
static bool
name_control(const struct recovery *r)
{
	char	   *pending = pgx_join(r->pgdata, PG_CONTROL_PENDING);
	char	   *control = pgx_join(r->pgdata, PG_CONTROL);
	char	   *dir = pgx_dirname(control);
	bool		ok = rename(pending, control) == 0;

	if (!ok)
		pgx_log_error("could not rename file \"%s\" to \"%s\": %m", pending, control);
	ok = ok && pgx_sync_path(dir);
	free(dir);
	free(control);
	free(pending);
	return ok;
}

/* What was done to a packed backup's files after they had been synced: names went, links were made. */
static bool
sync_directories(const struct recovery *r)
{
	char	   *links = pgx_join(r->pgdata, "pg_tblspc");
	bool		ok = pgx_sync_path(links) && pgx_sync_path(r->pgdata);

	free(links);
	return ok;
}

static bool
sync_all(const struct recovery *r)
{
	size_t		n = r->backup->info.n_tablespaces;
	const char **dirs = pgx_alloc((n + 1) * sizeof(*dirs));
	bool		ok;

	for (size_t i = 0; i < n; i++)
		dirs[i] = r->locations[i];
	dirs[n] = r->pgdata;
	ok = pgx_sync_trees(dirs, n + 1);
	free(dirs);
	return ok;
}

bool
restore_files(struct recovery *r)
{
	const struct pgx_backup_info *info = &r->backup->info;
	bool		by_command = info->n_resources > 0;
	char	   *signal_file = pgx_join(r->pgdata, r->opts->standby ? "standby.signal" : "recovery.signal");
	bool		ok = true;

	if (by_command)
		ok = call_copy_command(r) && target_mark(r);	/* the command may have taken the marker away */
	if (info->packed)
		ok = ok && unpack(r) && tidy_unpacked(r);
	else
		ok = ok && copy_backup(r);
	ok = ok && make_links(r);
	if (ok && by_command)
		ok = tidy_data(r);
	if (ok && chmod(r->pgdata, 0700) != 0)
	{
		pgx_log_error("could not set permissions of directory \"%s\": %m", r->pgdata);
		ok = false;
	}
	if (ok && info->wal_directory != NULL)
		pgx_log_warning("\"pg_wal\" was a symbolic link to \"%s\" and is a directory now", info->wal_directory);
	ok = ok && restore_configuration(r) && (info->packed ? sync_directories(r) : sync_all(r)) && !pgx_interrupted();
	if (ok && !info->packed && !took_by_command(r->backup, "pg_data"))
		ok = name_control(r);
	/* Only now may a server be started here, and then it recovers. */
	ok = ok && pgx_write_durable(signal_file, "", 0);
	free(signal_file);
	return ok;
}
