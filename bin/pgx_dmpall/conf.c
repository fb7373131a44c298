/*
 * conf.c
 *		Configuration files.  Those in the data directory are in the backup anyway; distributions such as
 *		Debian keep them elsewhere, and then they are copied.
 */
#include <config.h>

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "dmpall.h"
#include "file.h"
#include "log.h"
#include "mem.h"

/* Does the file lie in the data directory?  Gives its path below that. */
static const char *
below(const char *path, const char *data_directory)
{
	size_t		len = strlen(data_directory);

	return strncmp(path, data_directory, len) == 0 && path[len] == '/' ? path + len + 1 : NULL;
}

static bool
is_noted(const struct pgx_backup_info *info, const char *path)
{
	for (size_t i = 0; i < info->n_confs; i++)
	{
		if (strcmp(info->confs[i].path, path) == 0)
			return true;
	}
	return false;
}

/* A name in the backup's folder that no other file has: two files of one name lie in different directories. */
static char *
free_file_name(const char *dir, const char *sub, const char *path)
{
	const char *base = strrchr(path, '/');
	char	   *file = NULL;

	base = base != NULL ? base + 1 : path;
	for (unsigned i = 0;; i++)
	{
		char	   *full;
		struct stat st;
		bool		taken;

		file = i == 0 ? pgx_printf("%s/%s", sub, base) : pgx_printf("%s/%u-%s", sub, i, base);
		full = pgx_join(dir, file);
		taken = lstat(full, &st) == 0;
		free(full);
		if (!taken)
			return file;
		free(file);
	}
}

/* Note one file, and copy it if it does not come with the data. */
static bool
take_file(struct source *source, const char *dir, const char *sub, const char *parameter, const char *path,
		  struct pgx_backup_info *info)
{
	struct pgx_backup_conf *conf;
	char	   *real;
	const char *inside;
	char	   *file;
	bool		ok = true;

	if (path == NULL || is_noted(info, path))
		return true;
	real = realpath(path, NULL);
	inside = real != NULL ? below(real, source->data_directory) : NULL;
	if (inside == NULL)
		inside = below(path, source->data_directory);
	/* With sub "conf" the data is in the backup too; otherwise this is a copy of the configuration alone. */
	if (inside != NULL && strcmp(sub, PGX_BACKUP_CONF) == 0)
		file = pgx_printf("%s/%s", PGX_BACKUP_DATA, inside);
	else
	{
		char	   *full;

		file = free_file_name(dir, sub, path);
		full = pgx_join(dir, file);
		ok = pgx_copy_file(path, full);
		free(full);
	}
	free(real);
	if (!ok)
	{
		free(file);
		return false;
	}
	info->confs = pgx_realloc(info->confs, (info->n_confs + 1) * sizeof(*info->confs));
	conf = &info->confs[info->n_confs++];
	conf->parameter = pgx_strdup(parameter);
	conf->path = pgx_strdup(path);
	conf->file = file;
	return true;
}

/* Files that the main ones include; an older server has them for postgresql.conf only. */
static bool
take_includes(struct source *source, const char *dir, const char *sub, struct pgx_backup_info *info)
{
	const char *sql = source->version >= 160000 ?
		"SELECT sourcefile FROM pg_catalog.pg_file_settings"
		" UNION SELECT file_name FROM pg_catalog.pg_hba_file_rules"
		" UNION SELECT file_name FROM pg_catalog.pg_ident_file_mappings ORDER BY 1" :
		"SELECT DISTINCT sourcefile FROM pg_catalog.pg_file_settings ORDER BY 1";
	PGresult   *r = source_query(source, sql, 0, NULL);
	bool		ok = r != NULL;

	for (int i = 0; ok && i < PQntuples(r); i++)
	{
		const char *path = PQgetvalue(r, i, 0);
		const char *base = strrchr(path, '/');

		if (PQgetisnull(r, i, 0) || base == NULL)
			continue;
		ok = take_file(source, dir, sub,
					   strcmp(base, "/postgresql.auto.conf") == 0 ? "auto_conf" : "include", path, info);
	}
	PQclear(r);
	return ok;
}

bool
take_configuration(struct source *source, const char *dir, const char *sub, struct pgx_backup_info *info)
{
	char	   *folder = pgx_join(dir, sub);
	bool		ok;

	ok = pgx_make_directory(folder) &&
		take_file(source, dir, sub, "config_file", source->config_file, info) &&
		take_file(source, dir, sub, "hba_file", source->hba_file, info) &&
		take_file(source, dir, sub, "ident_file", source->ident_file, info) &&
		take_includes(source, dir, sub, info);
	free(folder);
	return ok;
}
