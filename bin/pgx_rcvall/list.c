/*
 * list.c
 *		What is in the backup area, for a person (-l), a program (--json) or whoever wrote the copy command.
 *
 * Only looks: it takes no lock, so that it can be asked while a backup is being made.
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "file.h"
#include "log.h"
#include "mem.h"
#include "rcvall.h"
#include "server.h"
#include "walprogram.h"

#define MAX_COPY_INFO	(1024 * 1024)

/* The area that the configuration in the data directory names. */
static char *
ask_area(const char *pgdata)
{
	char	   *postgres = pgx_postgres_find();
	char	   *area = NULL;
	bool		failed = false;

	if (postgres == NULL)
		return NULL;
	area = pgx_server_setting(postgres, pgdata, NULL, 0, "pgx_tde.backup_destination", &failed);
	if (area == NULL || area[0] == '\0')
	{
		free(area);
		area = NULL;
		if (!failed)
			pgx_log_error("the backup storage directory is not configured");
		pgx_log_hint("Specify the backup storage directory with the -B option, and retry.");
	}
	free(postgres);
	return area;
}

char *
find_area(const struct rcvall_options *opts)
{
	char	   *area = NULL;

	if (opts->area != NULL)
		area = pgx_absolute(opts->area);
	else if (opts->pgdata != NULL)
		area = ask_area(opts->pgdata);
	else
	{
		pgx_log_error("the database storage directory and the $PGDATA environment variable have not been specified");
		pgx_log_hint("Specify the backup storage directory with the -B option, and retry.");
	}
	if (area != NULL && !pgx_area_check(area))
	{
		free(area);
		area = NULL;
	}
	return area;
}

/* As "2020-05-01 13:30:40", the local time of its begin, which is its name. */
static void
print_date(const struct pgx_backup *backup)
{
	printf("%.10s %.2s:%.2s:%.2s", backup->name, backup->name + 11, backup->name + 14, backup->name + 17);
}

/* The product whose interface this is separates the columns so. */
static void
print_table(const struct pgx_area *area)
{
	bool		by_command = false;

	for (size_t i = 0; i < area->count; i++)
		by_command |= area->backups[i].info.n_resources > 0;
	printf("%-24s%-16s%s%s\n", "Date", "Status", "Dir",
		   by_command ? "    Resources backed up by the copy command" : "");
	for (size_t i = 0; i < area->count; i++)
	{
		const struct pgx_backup *backup = &area->backups[i];

		print_date(backup);
		printf("%*s%-16s%s", 24 - PGX_BACKUP_NAME_LEN, "", pgx_backup_state_text(backup->state), backup->dir);
		for (size_t j = 0; j < backup->info.n_resources; j++)
			printf("%s%s", j == 0 ? "    " : ",", backup->info.resources[j]);
		printf("\n");
	}
}

static void
print_json(const struct pgx_area *area)
{
	printf("[");
	for (size_t i = 0; i < area->count; i++)
	{
		char	   *text = pgx_backup_json(&area->backups[i]);

		printf("%s%s", i > 0 ? ",\n" : "\n", text);
		free(text);
	}
	printf("%s]\n", area->count > 0 ? "\n" : "");
}

int
list_backups(const struct rcvall_options *opts)
{
	struct pgx_area area = {0};
	char	   *path = find_area(opts);
	int			rc = PGX_EXIT_FAILURE;

	if (path == NULL || !pgx_area_list(path, &area))
		goto out;
	if (opts->json)
		print_json(&area);
	else
		print_table(&area);
	for (size_t i = 0; i < area.count; i++)
	{
		if (area.backups[i].state == PGX_BACKUP_DAMAGED)
			pgx_log_warning("backup data \"%s\" is lost: %s", area.backups[i].dir, area.backups[i].reason);
	}
	if (area.count == 0 && !opts->json)
		pgx_log_warning("there is no backup in \"%s\"", path);
	rc = PGX_EXIT_OK;

out:
	pgx_area_clear(&area);
	free(path);
	return rc;
}

/* The file that the copy command wrote at the end of the newest backup, or of the one that is named. */
int
view_copying(const struct rcvall_options *opts)
{
	const struct pgx_backup *backup = NULL;
	struct pgx_area area = {0};
	char	   *path = find_area(opts);
	char	   *file = NULL;
	uint8_t    *bytes = NULL;
	size_t		len;
	int			rc = PGX_EXIT_FAILURE;

	if (path == NULL || !pgx_area_list(path, &area))
		goto out;
	backup = pgx_area_newest(&area);
	if (backup == NULL)
		pgx_log_error("backup of the database has not yet been performed, or an incorrect backup storage directory was specified");
	else if (backup->info.copy_info_file == NULL)
		pgx_log_error("backup using the copy command has not been done");
	else
	{
		file = pgx_backup_path(backup, backup->info.copy_info_file);
		if (pgx_file_read(file, MAX_COPY_INFO, 0, "600", &bytes, &len))
		{
			(void) fwrite(bytes, 1, len, stdout);	/* pgx_finish_output() sees an error */
			rc = PGX_EXIT_OK;
		}
		else
			pgx_log_hint("The results of copying file does not exist, or could not be read.");
	}

out:
	free(bytes);
	free(file);
	pgx_area_clear(&area);
	free(path);
	return rc;
}
