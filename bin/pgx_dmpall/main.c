/*
 * main.c
 *		pgx_dmpall: back up a running server into its backup area.
 *
 * The order of the steps is what makes a backup safe: it has its incomplete name from before its first byte,
 * everything is synced before backup_info.json is written, and only then does it get its own name;
 * only after that may older backups go.
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "child.h"
#include "dmpall.h"
#include "file.h"
#include "handover.h"
#include "log.h"
#include "mem.h"
#include "options.h"

/* Is this server one that we may back up, and is there a place for it? */
static bool
check_source(const struct options *opts, const struct source *source)
{
	if (source->in_recovery && !opts->from_standby)
	{
		/* The product whose interface this is prints just this line, and scripts look for it. */
		fprintf(stderr, "ERROR:recovery is in progress (10095)\n");
		return false;
	}
	if (source->destination == NULL)
	{
		pgx_log_error("the backup storage directory is not configured");
		pgx_log_hint("Please set the backup storage directory to the 'pgx_tde.backup_destination' parameter and restart the server.");
		return false;
	}
	if (!pgx_area_check(source->destination))
		return false;
	if (strcmp(source->archive_mode, "off") == 0 && !opts->no_archive && !opts->config_only)
	{
		pgx_log_error("the server does not archive WAL");
		pgx_log_detail("Without archived WAL, recovery ends where the backup ends.");
		pgx_log_hint("Set archive_mode and archive_command and restart the server, or use option --no-archive.");
		return false;
	}
	return true;
}

/* What is known of the server before a byte is copied. */
static void
describe(struct run *run)
{
	const struct source *source = run->source;
	struct pgx_backup_info *info = &run->info;
	char	   *wal = pgx_join(source->data_directory, "pg_wal");
	struct stat st;

	info->label = pgx_strdup(run->opts->label);
	info->tool = pgx_printf("%s %s", pgx_progname(), PACKAGE_VERSION);
	info->compression = pgx_strdup(pgx_pack_codec_name(run->opts->codec));
	info->system_identifier = pgx_strdup(source->system_identifier);
	info->server_version = source->version;
	info->wal_segment_size = source->wal_segment_size;
	info->data_checksums = source->checksums;
	info->from_standby = source->in_recovery;
	info->data_directory = pgx_strdup(source->data_directory);
	if (lstat(wal, &st) == 0 && S_ISLNK(st.st_mode))
	{
		char	   *real = realpath(wal, NULL);

		info->wal_directory = real != NULL ? pgx_strdup(real) : NULL;
		free(real);
	}
	if (source->online_wal_directory != NULL)
		info->online_wal_directory = pgx_strdup(source->online_wal_directory);
	info->start_time = (int64_t) time(NULL);
	free(wal);
}

/* Ask for each tablespace's algorithm; "none" where the extension is not installed. */
static bool
describe_tablespaces(struct run *run)
{
	struct source *source = run->source;
	struct pgx_backup_info *info = &run->info;
	PGresult   *r = source_query(source,
								 "SELECT 1 FROM pg_catalog.pg_proc WHERE proname = 'pgx_tablespace_algorithm'"
								 " AND pronamespace = 'pg_catalog'::pg_catalog.regnamespace", 0, NULL);
	bool		installed = r != NULL && PQntuples(r) > 0;
	bool		ok = r != NULL;

	PQclear(r);
	info->tablespaces = pgx_alloc((source->n_tablespaces + 1) * sizeof(*info->tablespaces));
	for (size_t i = 0; ok && i < source->n_tablespaces; i++)
	{
		struct pgx_backup_tablespace *from = &source->tablespaces[i];
		struct pgx_backup_tablespace *to = &info->tablespaces[info->n_tablespaces++];
		char	   *oid = pgx_printf("%u", from->oid);
		const char *const params[] = {oid};

		to->oid = from->oid;
		to->name = pgx_strdup(from->name);
		to->location = pgx_strdup(from->location);
		to->by_copy_command = from->by_copy_command;
		r = installed ? source_query(source, "SELECT pg_catalog.pgx_tablespace_algorithm($1::oid)", 1, params) : NULL;
		ok = !installed || r != NULL;
		to->algorithm = pgx_strdup(r != NULL ? PQgetvalue(r, 0, 0) : "none");
		PQclear(r);
		free(oid);
	}
	return ok;
}

static bool
copy_everything(struct run *run, const struct pgx_backup *previous)
{
	struct key_range keys = {0};
	const char *live = run->source->data_directory;
	char	   *data = pgx_join(run->dir, PGX_BACKUP_DATA);
	bool		ok;

	/* The key table before, in and after the copy: rotations in between are in its WAL. */
	ok = note_keytable(live, &keys);
	if (ok && run->opts->copy_command != NULL)
		ok = keep_keytable(run, live) && take_by_copy_command(run, previous);
	else if (ok && run->opts->compress)
	{
		ok = take_packed_backup(run);
		if (ok)
			note_master_key(run->info.pack_master_key, &keys);
	}
	else
		ok = ok && take_base_backup(run);
	/* A packed one was read between the two looks at the live one. */
	ok = ok && (run->info.packed || note_keytable(data, &keys)) && note_keytable(live, &keys) &&
		take_keystore(run, &keys) &&
		take_configuration(run->source, run->dir, PGX_BACKUP_CONF, &run->info) &&
		describe_tablespaces(run);
	free(data);
	return ok;
}

/* Make the backup under its incomplete name, and give it its own. */
static bool
make_backup(struct run *run, const struct pgx_backup *previous)
{
	const char *area = run->source->destination;
	bool		ok;

	if (!pgx_area_begin(area, &run->name, &run->dir))
		return false;
	pgx_log_verbose("copying to \"%s\"", run->dir);
	describe(run);
	ok = copy_everything(run, previous) && wait_for_archive(run) &&
		(run->opts->no_verify || !run->info.has_manifest ||
		 (run->info.packed ? verify_packed_backup(run) : verify_base_backup(run))) &&
		pgx_sync_tree(run->dir, &run->info.size) && !pgx_interrupted() &&
		pgx_backup_info_write(run->dir, &run->info) && pgx_area_commit(area, run->name);
	if (!ok)
	{
		/* Nobody is helped by half a backup; if it cannot be removed now, the next run does it. */
		pgx_log_verbose("removing \"%s\"", run->dir);
		(void) pgx_area_remove(area, run->name);
	}
	return ok;
}

/* The older backup that has a copy command's file, for the next call of such a command. */
static const struct pgx_backup *
previous_by_copy_command(const struct pgx_area *area)
{
	for (size_t i = area->count; i-- > 0;)
	{
		if (area->backups[i].state == PGX_BACKUP_COMPLETE && area->backups[i].info.copy_info_file != NULL)
			return &area->backups[i];
	}
	return NULL;
}

static bool
print_result(const struct run *run)
{
	if (run->opts->json)
	{
		struct pgx_area area;
		const struct pgx_backup *backup;
		bool		ok = pgx_area_list(run->source->destination, &area);

		if (!ok)
			return false;
		backup = pgx_area_find(&area, run->name);
		if (backup != NULL)
		{
			char	   *text = pgx_backup_json(backup);

			printf("%s\n", text);
			free(text);
		}
		else
			pgx_log_error("backup data \"%s\" is lost", run->dir);
		ok = backup != NULL;
		pgx_area_clear(&area);
		return ok;
	}
	printf("backup of database and configuration files completed successfully\n");
	return true;
}

static bool
back_up(struct run *run)
{
	const char *destination = run->source->destination;
	char	   *archive = pgx_join(destination, PGX_AREA_ARCHIVED_WAL);
	struct pgx_area area = {0};
	size_t		n = 0;
	size_t		n_segments = 0;
	bool		ok;

	ok = pgx_area_remove_leftovers(destination, &n) && pgx_make_directory(archive) &&
		pgx_area_list(destination, &area);
	if (ok && n > 0)
		pgx_log_verbose("removed %zu incomplete backups", n);
	ok = ok && make_backup(run, previous_by_copy_command(&area));
	pgx_area_clear(&area);
	if (ok && !pgx_area_retain(destination, run->opts->keep, &n, &n_segments))
	{
		pgx_log_error("the backup is complete, but older ones could not be removed");
		ok = false;
	}
	else if (ok)
		pgx_log_verbose("removed %zu older backups and %zu archived WAL files", n, n_segments);
	ok = ok && print_result(run);
	free(archive);
	return ok;
}

/* A name for another folder of configuration files. */
static char *
free_folder(const char *dir)
{
	for (long long i = (long long) time(NULL);; i++)
	{
		char	   *sub = pgx_printf(PGX_BACKUP_CONF "-%lld", i);
		char	   *path = pgx_join(dir, sub);
		struct stat st;
		bool		taken = lstat(path, &st) == 0;

		free(path);
		if (!taken)
			return sub;
		free(sub);
	}
}

/* Give the newest backup the configuration files of today, in one step. */
static bool
renew_configuration(struct run *run)
{
	struct pgx_area area;
	const struct pgx_backup *newest;
	struct pgx_backup_info info;
	char	   *sub = NULL;
	char	   *old = NULL;
	char	   *dir = NULL;
	char		err[512];
	bool		ok = false;

	if (!pgx_area_list(run->source->destination, &area))
		goto out;
	newest = pgx_area_newest(&area);
	if (newest == NULL)
	{
		pgx_log_error("backup of the database has not yet been performed, or an incorrect backup storage directory was specified");
		goto out;
	}
	if (!pgx_backup_info_read(newest->dir, &info, err, sizeof(err)))
	{
		pgx_log_error("backup data \"%s\" is lost: %s", newest->dir, err);
		goto out;
	}
	/* The folder in use is told by the list itself. */
	for (size_t i = 0; old == NULL && i < info.n_confs; i++)
	{
		if (strncmp(info.confs[i].file, PGX_BACKUP_CONF, strlen(PGX_BACKUP_CONF)) == 0)
			old = pgx_strndup(info.confs[i].file, strcspn(info.confs[i].file, "/"));
	}
	for (size_t i = 0; i < info.n_confs; i++)
	{
		free(info.confs[i].parameter);
		free(info.confs[i].path);
		free(info.confs[i].file);
	}
	info.n_confs = 0;
	sub = free_folder(newest->dir);
	dir = pgx_join(newest->dir, sub);
	ok = take_configuration(run->source, newest->dir, sub, &info) && pgx_sync_tree(dir, NULL) &&
		pgx_sync_path(newest->dir) && pgx_backup_info_write(newest->dir, &info);
	if (!ok)
		(void) pgx_remove_tree(dir);
	else if (old != NULL)
	{
		char	   *path = pgx_join(newest->dir, old);

		ok = pgx_remove_tree(path);
		free(path);
	}
	if (ok)
		printf("backup of configuration files completed successfully\n");
	pgx_backup_info_clear(&info);

out:
	pgx_area_clear(&area);
	free(old);
	free(dir);
	free(sub);
	return ok;
}

int
main(int argc, char **argv)
{
	struct options opts = {.checkpoint = "fast",.label = "",.keep = 2};
	struct source source = {0};
	struct run	run = {.opts = &opts,.source = &source,.lock_fd = -1,.exit_code = PGX_EXIT_FAILURE};
	struct pgx_core_policy core;
	bool		ok = false;
	int			rc;

	pgx_log_init(argv[0]);
	(void) umask(077);
	rc = parse_options(argc, argv, &opts);
	if (rc >= 0)
		return rc;
	pgx_log_set_verbose(opts.verbose);
	if (!check_options(&opts))
		return PGX_EXIT_FAILURE;
	if (opts.compress)
		pgx_core_forbid(&core); /* for good: keys and pages are in memory to the end */
	if (source_connect(&opts, &source) && check_source(&opts, &source) &&
		(!opts.compress || open_keystore(&run)))
	{
		/* From here on something is changed; while a passphrase is being typed, a signal just ends us. */
		pgx_catch_signals();
		if (pgx_area_lock(source.destination, &run.lock_fd))
			ok = opts.config_only ? renew_configuration(&run) : back_up(&run);
	}
	pgx_area_unlock(&run.lock_fd);
	close_keystore(&run);
	pgx_backup_info_clear(&run.info);
	free(run.name);
	free(run.dir);
	source_close(&source);
	return pgx_finish_output(ok ? PGX_EXIT_OK : run.exit_code);
}
