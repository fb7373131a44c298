/*
 * plan.c
 *		What can be found out, and refused, before anything is touched: the backup, where recovery is to end, the
 *		server's program, the places of the tablespaces, WAL.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "file.h"
#include "log.h"
#include "mem.h"
#include "rcvall.h"
#include "run.h"

#define MAX_NAME_BYTES	63		/* of a restore point: NAMEDATALEN - 1 */

static bool
refuse_target_time(const char *text)
{
	pgx_log_error("an invalid value was specified for the option %s", "-e");
	pgx_log_detail("\"%s\" is not a time.", text);
	pgx_log_hint("Specify the local time as 'YYYY-MM-DD hh:mm:ss', with a fraction of a second if wanted.");
	return false;
}

/* "YYYY-MM-DD hh:mm:ss[.ffffff]", local time, or UTC with a "Z" at the end.  One that is yet to come is refused. */
bool
check_target_time(struct recovery *r)
{
	const char *text = r->opts->target_time;
	const char *rest;
	struct tm	tm;
	struct tm	given;
	time_t		when;
	int64_t		micros = 0;

	if (text == NULL)
		return true;
	memset(&tm, 0, sizeof(tm));
	rest = strptime(text, "%Y-%m-%d %H:%M:%S", &tm);
	if (rest == NULL)
		return refuse_target_time(text);
	if (*rest == '.')
	{
		int			digits = (int) strspn(++rest, "0123456789");

		if (digits < 1 || digits > 6)
			return refuse_target_time(text);
		for (int i = 0; i < 6; i++)
			micros = micros * 10 + (i < digits ? rest[i] - '0' : 0);
		rest += digits;
	}
	tm.tm_isdst = -1;
	given = tm;
	if (strcmp(rest, "Z") == 0)
		when = timegm(&tm);
	else if (*rest == '\0')
		when = mktime(&tm);
	else
		return refuse_target_time(text);
	/* These functions make the 1st of March of the 30th of February. */
	if (when < 0 || given.tm_mday != tm.tm_mday || given.tm_mon != tm.tm_mon)
		return refuse_target_time(text);
	if (when > time(NULL))
	{
		pgx_log_error("the requested recovery point is in the future");
		pgx_log_hint("Leave out option -e to recover to the newest state.");
		return false;
	}
	r->target_time = (int64_t) when * 1000000 + micros;
	return true;
}

static bool
refuse_early(void)
{
	pgx_log_error("the requested recovery point is earlier than the date and time that the backup finished");
	pgx_log_hint("Specify a later one; \"%s -l\" lists the backups.", pgx_progname());
	return false;
}

static bool
choose_named(struct recovery *r)
{
	const struct pgx_backup_info *info;

	r->backup = pgx_area_find(&r->list, r->opts->backup);
	if (r->backup == NULL)
	{
		pgx_log_error("the specified backup does not exist");
		pgx_log_detail("No complete backup has the name or the label \"%s\".", r->opts->backup);
		return false;
	}
	info = &r->backup->info;
	if ((r->target_time != 0 && r->target_time < info->end_time * 1000000) ||
		(r->target_lsn != 0 && r->target_lsn < info->end_lsn))
		return refuse_early();
	return true;
}

bool
choose_backup(struct recovery *r)
{
	if (r->opts->target_lsn != NULL && !pgx_lsn_parse(r->opts->target_lsn, &r->target_lsn))
	{
		pgx_log_error("an invalid value was specified for the option %s", "--lsn");
		return false;
	}
	if (r->opts->target_name != NULL && strlen(r->opts->target_name) > MAX_NAME_BYTES)
	{
		pgx_log_error("restore point name is too long (maximum %d bytes)", MAX_NAME_BYTES);
		return false;
	}
	if (!pgx_area_list(r->area, &r->list))
		return false;
	for (size_t i = 0; i < r->list.count; i++)
	{
		if (r->list.backups[i].state == PGX_BACKUP_DAMAGED)
			pgx_log_warning("backup data \"%s\" is lost: %s", r->list.backups[i].dir, r->list.backups[i].reason);
	}
	if (pgx_area_newest(&r->list) == NULL)
	{
		pgx_log_error("backup of the database has not yet been performed, or an incorrect backup storage directory was specified");
		return false;
	}
	if (r->opts->backup != NULL)
		return choose_named(r);
	r->backup = pgx_area_newest_until(&r->list, r->target_time / 1000000, r->target_lsn);
	return r->backup != NULL || refuse_early();
}

/* The server's program must be of the version that was backed up. */
bool
check_versions(const struct recovery *r)
{
	const char *const argv[] = {r->postgres, "--version", NULL};
	const struct pgx_backup_info *info = &r->backup->info;
	struct pgx_run run = {.argv = argv,.capture_out = true};
	const char *number = NULL;
	bool		ok = false;

	if (!pgx_run_wait(&run))
		return false;
	if (run.exit_code == 0)
		number = strpbrk(run.out, "0123456789");
	if (number == NULL)
		pgx_log_error("program \"%s\" does not tell its version", r->postgres);
	else if (strtoul(number, NULL, 10) != info->server_version / 10000)
	{
		pgx_log_error("the backup is of PostgreSQL %u, but \"%s\" is of another version", info->server_version / 10000,
					  r->postgres);
		pgx_log_detail("It says: %.*s.", (int) strcspn(run.out, "\n"), run.out);
		pgx_log_hint("Put the directory of the right programs first in PATH.");
	}
	else
		ok = true;
	pgx_run_clear(&run);
	return ok;
}

bool
took_by_command(const struct pgx_backup *backup, const char *resource)
{
	for (size_t i = 0; i < backup->info.n_resources; i++)
	{
		if (strcmp(backup->info.resources[i], resource) == 0)
			return true;
	}
	return false;
}

static bool
check_copy_command(const struct recovery *r)
{
	bool		by_command = strcmp(r->backup->info.method, "copy_command") == 0;

	if (by_command && r->opts->copy_command == NULL)
		pgx_log_error("option -Y is necessary because backup has been performed with the copy command");
	else if (!by_command && r->opts->copy_command != NULL)
		pgx_log_error("option -Y must not be specified because backup has not been performed with the copy command");
	else if (by_command && took_by_command(r->backup, "pg_data") && !r->same_place)
	{
		pgx_log_error("the copy command restores the database storage directory \"%s\", not \"%s\"",
					  r->backup->info.data_directory, r->pgdata);
		pgx_log_hint("Specify the former with the -D option, and retry.");
	}
	else
		return true;
	return false;
}

/* Where one tablespace goes; each mapping that is used is counted. */
static char *
map_location(const struct recovery *r, const struct pgx_backup_tablespace *ts, bool *used)
{
	for (size_t i = 0; i < r->opts->n_mappings; i++)
	{
		if (strcmp(r->opts->mappings[i].old, ts->location) == 0)
		{
			used[i] = true;
			return pgx_strdup(r->opts->mappings[i].new);
		}
	}
	return pgx_strdup(ts->location);
}

/* The same directory, by whichever way?  It need not exist. */
static bool
same_path(const char *one, const char *two)
{
	char	   *a = realpath(one, NULL);
	char	   *b = realpath(two, NULL);
	bool		same = strcmp(one, two) == 0 || (a != NULL && b != NULL && strcmp(a, b) == 0);

	free(a);
	free(b);
	return same;
}

static void
free_locations(struct recovery *r)
{
	for (size_t i = 0; r->locations != NULL && r->locations[i] != NULL; i++)
		free(r->locations[i]);
	free(r->locations);
	r->locations = NULL;
}

bool
choose_locations(struct recovery *r)
{
	const struct pgx_backup_info *info = &r->backup->info;
	bool	   *used = pgx_alloc((r->opts->n_mappings + 1) * sizeof(*used));
	bool		ok = true;

	r->same_place = same_path(r->pgdata, info->data_directory);
	free_locations(r);
	r->locations = pgx_alloc((info->n_tablespaces + 1) * sizeof(*r->locations));
	for (size_t i = 0; i < info->n_tablespaces; i++)
		r->locations[i] = map_location(r, &info->tablespaces[i], used);
	for (size_t i = 0; ok && i < r->opts->n_mappings; i++)
	{
		if (!used[i])
		{
			pgx_log_error("no tablespace of the backup lies in \"%s\"", r->opts->mappings[i].old);
			ok = false;
		}
	}
	for (size_t i = 0; ok && i < info->n_tablespaces; i++)
	{
		if (info->tablespaces[i].by_copy_command && strcmp(r->locations[i], info->tablespaces[i].location) != 0)
		{
			pgx_log_error("tablespace \"%s\" is restored by the copy command and cannot be put elsewhere",
						  info->tablespaces[i].name);
			ok = false;
		}
		for (size_t j = 0; ok && j < i; j++)
		{
			if (strcmp(r->locations[i], r->locations[j]) == 0)
			{
				pgx_log_error("two tablespaces cannot both lie in \"%s\"", r->locations[i]);
				ok = false;
			}
		}
	}
	free(used);
	return ok && check_copy_command(r);
}

/* Is all WAL there, from the backup to where recovery is to end, as far as that can be told? */
bool
check_chain(struct recovery *r)
{
	char		text[PGX_LSN_STRLEN + 1];

	if (!wal_chain_follow(r->area, r->backup, r->opts->target_timeline, &r->chain))
		return false;
	pgx_lsn_text(r->chain.end, text);
	if (r->target_lsn != 0 && r->target_lsn >= r->chain.end)
	{
		pgx_log_error("the requested recovery point cannot be reached: there is WAL up to %s only", text);
		if (r->chain.missing[0] != '\0')
			pgx_log_detail("WAL segment \"%s\" is missing.", r->chain.missing);
		return false;
	}
	if (r->chain.missing[0] == '\0')
		return true;
	if (r->target_lsn != 0 || r->opts->target_time != NULL || r->opts->target_name != NULL ||
		r->opts->target_xid != NULL)
	{
		/* The point may well be before it; the server tells if it is not. */
		if (r->target_lsn == 0)
			pgx_log_warning("WAL segment \"%s\" is missing; recovery cannot go beyond %s", r->chain.missing, text);
		return true;
	}
	pgx_log_error("WAL segment \"%s\" is missing, but there are later ones", r->chain.missing);
	pgx_log_hint("Put it into \"%s/%s\"; or recover to a point before %s with -e, -n, --xid or --lsn.", r->area,
				 PGX_AREA_ARCHIVED_WAL, text);
	return false;
}
