/*
 * copy_command.c
 *		A backup in which the user's command copies the data: by a snapshot of the storage, say.
 *
 * The command is called three times: "prepare INFO TARGETS" before the server is in backup mode, "backup" while it
 * is, "finalize INFO" after it.  What the command does not copy, we do.  Any exit code but 0 ends the backup.
 */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "child.h"
#include "dmpall.h"
#include "file.h"
#include "log.h"
#include "mem.h"

#define CLUSTER_RESOURCE	"pg_data"
#define INFO_NAME			"copy_info"
#define TARGETS_NAME		"copy_targets"
#define MAX_LIST_SIZE		(1024 * 1024)

static bool
call(const struct run *run, const char *operation, const char *info, const char *targets)
{
	const char *const argv[] = {run->opts->copy_command, operation, info, targets, NULL};

	pgx_log_verbose("running \"%s %s\"", run->opts->copy_command, operation);
	return pgx_child_run(argv, -1);
}

/* The command may ask the server in "prepare": tell it where that is, and where its data is. */
static bool
set_environment(const struct run *run)
{
	const struct source *source = run->source;

	if (setenv("PGDATA", source->data_directory, 1) == 0 &&
		setenv("PGHOST", PQhost(source->conn), 1) == 0 && setenv("PGPORT", PQport(source->conn), 1) == 0)
		return true;
	pgx_log_error("could not set an environment variable: %m");
	return false;
}

/* ---- which resources the command copies ------------------------------------------- */

static void
add_resource(struct pgx_backup_info *info, const char *name)
{
	info->resources = pgx_realloc(info->resources, (info->n_resources + 1) * sizeof(*info->resources));
	info->resources[info->n_resources++] = pgx_strdup(name);
}

static bool
mark_tablespace(struct source *source, const char *name)
{
	for (size_t i = 0; i < source->n_tablespaces; i++)
	{
		if (strcmp(source->tablespaces[i].name, name) == 0)
		{
			source->tablespaces[i].by_copy_command = true;
			return true;
		}
	}
	pgx_log_error("tablespace \"%s\" does not exist", name);
	return false;
}

/* The tablespaces that the list names, one a line. */
static bool
read_list(const char *path, struct source *source)
{
	uint8_t    *bytes = NULL;
	char	   *rest;
	size_t		len;
	bool		ok = true;

	if (!pgx_file_read(path, MAX_LIST_SIZE, 0, "600", &bytes, &len))
		return false;
	rest = (char *) bytes;
	while (ok && *rest != '\0')
	{
		size_t		line = strcspn(rest, "\n");
		bool		last = rest[line] == '\0';

		rest[line] = '\0';
		if (line > 0 && rest[line - 1] == '\r')
			rest[line - 1] = '\0';
		ok = rest[0] == '\0' || mark_tablespace(source, rest);
		rest += last ? line : line + 1;
	}
	if (!ok)
		pgx_log_detail("It is named in file \"%s\".", path);
	free(bytes);
	return ok;
}

static bool
choose_resources(struct run *run)
{
	struct source *source = run->source;

	if (run->opts->copy_list != NULL && !read_list(run->opts->copy_list, source))
		return false;
	if (!run->opts->exclude_copy_cluster)
		add_resource(&run->info, CLUSTER_RESOURCE);
	for (size_t i = 0; i < source->n_tablespaces; i++)
	{
		if (run->opts->copy_list == NULL)
			source->tablespaces[i].by_copy_command = true;
		if (source->tablespaces[i].by_copy_command)
			add_resource(&run->info, source->tablespaces[i].name);
	}
	if (run->info.n_resources > 0)
		return true;
	pgx_log_error("there is nothing for the copy command to copy");
	return false;
}

static bool
write_targets(const struct run *run, const char *path)
{
	char	   *text = pgx_strdup("");
	bool		ok;

	for (size_t i = 0; i < run->info.n_resources; i++)
	{
		char	   *more = pgx_printf("%s%s\n", text, run->info.resources[i]);

		free(text);
		text = more;
	}
	ok = pgx_write_new(path, text, strlen(text));
	free(text);
	return ok;
}

/* ---- backup mode --------------------------------------------------------------------- */

static bool
start_backup_mode(struct run *run)
{
	const char *const params[] = {
		run->opts->label[0] != '\0' ? run->opts->label : pgx_progname(),
		strcmp(run->opts->checkpoint, "fast") == 0 ? "true" : "false"
	};
	PGresult   *r = source_query(run->source, "SELECT pg_catalog.pg_backup_start($1, $2::boolean)", 2, params);
	bool		ok = r != NULL;

	PQclear(r);
	return ok;
}

/* "START WAL LOCATION: 0/2000028 (file ...)", "START TIMELINE: 1" */
static bool
parse_label(const char *label, struct pgx_backup_info *info)
{
	const char *start = strstr(label, "START WAL LOCATION: ");
	const char *timeline = strstr(label, "START TIMELINE: ");
	char		lsn[PGX_LSN_STRLEN + 1] = "";

	if (start != NULL)
		snprintf(lsn, sizeof(lsn), "%.*s", (int) strcspn(start + 20, " \n"), start + 20);
	if (timeline == NULL || !pgx_lsn_parse(lsn, &info->start_lsn))
	{
		pgx_log_error("the server's backup label is not valid");
		return false;
	}
	info->start_timeline = info->end_timeline = (uint32_t) strtoul(timeline + 16, NULL, 10);
	return true;
}

static bool
write_into(const char *dir, const char *name, const char *text)
{
	char	   *path = pgx_join(dir, name);
	bool		ok = pgx_write_new(path, text, strlen(text));

	free(path);
	return ok;
}

static bool
stop_backup_mode(struct run *run)
{
	const char *const params[] = {run->opts->no_archive ? "false" : "true"};
	PGresult   *r = source_query(run->source,
								 "SELECT lsn, labelfile, spcmapfile FROM pg_catalog.pg_backup_stop($1::boolean)",
								 1, params);
	bool		ok = false;

	if (r == NULL)
		return false;
	run->info.end_time = (int64_t) time(NULL);
	if (!pgx_lsn_parse(PQgetvalue(r, 0, 0), &run->info.end_lsn))
		pgx_log_error("the server gave no valid end of the backup");
	else
		ok = parse_label(PQgetvalue(r, 0, 1), &run->info) &&
			write_into(run->dir, "backup_label", PQgetvalue(r, 0, 1)) &&
			(PQgetlength(r, 0, 2) == 0 || write_into(run->dir, "tablespace_map", PQgetvalue(r, 0, 2)));
	PQclear(r);
	return ok;
}

/* ---- what the command does not copy ----------------------------------------------------- */

static bool
copy_tablespace(const struct run *run, const struct pgx_backup_tablespace *ts)
{
	char	   *to = pgx_printf("%s/%s/%u", run->dir, PGX_BACKUP_TABLESPACES, ts->oid);
	bool		ok = copy_live_directory(ts->location, to, false);

	free(to);
	return ok;
}

static bool
copy_rest(const struct run *run)
{
	char	   *tablespaces = pgx_join(run->dir, PGX_BACKUP_TABLESPACES);
	char	   *data = pgx_join(run->dir, PGX_BACKUP_DATA);
	bool		ok = pgx_make_directory(tablespaces);

	for (size_t i = 0; ok && i < run->source->n_tablespaces; i++)
	{
		if (!run->source->tablespaces[i].by_copy_command)
			ok = copy_tablespace(run, &run->source->tablespaces[i]);
	}
	if (ok && run->opts->exclude_copy_cluster)
		ok = copy_live_directory(run->source->data_directory, data, true) && pgx_relink_tablespaces(data);
	free(data);
	free(tablespaces);
	return ok;
}

/* Copy one segment from where it is archived, else from where the server still has it. */
static bool
copy_segment(const struct run *run, const char *name, const char *to)
{
	char	   *archived = pgx_printf("%s/%s/%s", run->source->destination, PGX_AREA_ARCHIVED_WAL, name);
	char	   *live = pgx_printf("%s/pg_wal/%s", run->source->data_directory, name);
	struct stat st;
	bool		ok = pgx_copy_file(stat(archived, &st) == 0 ? archived : live, to);

	free(archived);
	free(live);
	return ok;
}

/* The WAL that makes the backup consistent is a part of it. */
static bool
copy_wal(const struct run *run)
{
	const struct pgx_backup_info *info = &run->info;
	char	   *wal = pgx_join(run->dir, PGX_BACKUP_WAL);
	uint64_t	lsn = info->start_lsn - info->start_lsn % info->wal_segment_size;
	bool		ok = pgx_make_directory(wal);

	for (; ok && lsn < info->end_lsn; lsn += info->wal_segment_size)
	{
		char		name[PGX_WAL_NAME_LEN + 1];
		char	   *to;

		pgx_wal_name(info->start_timeline, lsn, info->wal_segment_size, name);
		to = pgx_join(wal, name);
		ok = copy_segment(run, name, to) && !pgx_interrupted();
		free(to);
	}
	ok = ok && pgx_wal_is_complete(wal, info);
	free(wal);
	return ok;
}

bool
take_by_copy_command(struct run *run, const struct pgx_backup *previous)
{
	char	   *info_file = pgx_join(run->dir, INFO_NAME);
	char	   *targets = pgx_join(run->dir, TARGETS_NAME);
	char	   *before = previous == NULL ? pgx_strdup("-") :
		pgx_backup_path(previous, previous->info.copy_info_file);
	bool		ok;

	run->info.method = pgx_strdup("copy_command");
	run->info.copy_info_file = pgx_strdup(INFO_NAME);
	ok = set_environment(run) && choose_resources(run) && write_targets(run, targets) &&
		call(run, "prepare", before, targets) &&
		start_backup_mode(run) &&
		call(run, "backup", NULL, NULL) &&
		copy_rest(run) &&
		stop_backup_mode(run) &&
		copy_wal(run) &&
		pgx_write_new(info_file, "", 0) &&
		call(run, "finalize", info_file, NULL);
	free(before);
	free(targets);
	free(info_file);
	return ok;
}
