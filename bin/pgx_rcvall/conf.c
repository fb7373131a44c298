/*
 * conf.c
 *		The configuration files.
 *
 * Those below the data directory come with it, or, if they are newer than the data, are put over it.  Those from
 * elsewhere are put back where they are missing; what is there is somebody's and stays.  If the server gets
 * another data directory, they go into that.
 */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "log.h"
#include "mem.h"
#include "rcvall.h"

#define MAX_CONF	(16 * 1024 * 1024)

/* The names under which the server looks for them in its data directory. */
static const char *const standard_names[][2] = {
	{"config_file", "postgresql.conf"},
	{"hba_file", "pg_hba.conf"},
	{"ident_file", "pg_ident.conf"},
	{"auto_conf", "postgresql.auto.conf"},
};

static const char *
below(const char *path, const char *dir)
{
	size_t		len = strlen(dir);

	return strncmp(path, dir, len) == 0 && path[len] == '/' ? path + len + 1 : NULL;
}

static bool
comes_with_data(const struct pgx_backup_conf *conf)
{
	return below(conf->file, PGX_BACKUP_DATA) != NULL;
}

static bool
replace_file(const char *from, const char *to)
{
	uint8_t    *bytes = NULL;
	size_t		len;
	bool		ok = pgx_file_read(from, MAX_CONF, 0, "600", &bytes, &len) && pgx_write_durable(to, bytes, len);

	free(bytes);
	return ok;
}

static bool
same_content(const char *one, const char *two)
{
	uint8_t    *a = NULL;
	uint8_t    *b = NULL;
	size_t		a_len;
	size_t		b_len;
	bool		same = pgx_file_read(one, MAX_CONF, 0, "600", &a, &a_len) &&
		pgx_file_read(two, MAX_CONF, 0, "600", &b, &b_len) && a_len == b_len && memcmp(a, b, a_len) == 0;

	free(a);
	free(b);
	return same;
}

/* A file from outside the data directory, back to its place. */
static bool
put_back(const char *from, const struct pgx_backup_conf *conf)
{
	char	   *parent = pgx_dirname(conf->path);
	struct stat st;
	bool		ok = true;

	if (stat(conf->path, &st) != 0 && errno == ENOENT)
		ok = (stat(parent, &st) == 0 || pgx_make_directory(parent)) && pgx_copy_file(from, conf->path);
	else if (!same_content(from, conf->path))
	{
		pgx_log_warning("configuration file \"%s\" is not as it was in the backup, and stays as it is", conf->path);
		pgx_log_detail("The backup has it as \"%s\".", from);
	}
	free(parent);
	return ok;
}

/* The same, where the data directory is another one: next to the data, under the standard name. */
static bool
put_inside(const struct recovery *r, const char *from, const struct pgx_backup_conf *conf)
{
	for (size_t i = 0; i < sizeof(standard_names) / sizeof(standard_names[0]); i++)
	{
		if (strcmp(conf->parameter, standard_names[i][0]) == 0)
		{
			char	   *to = pgx_join(r->pgdata, standard_names[i][1]);
			bool		ok = replace_file(from, to);

			free(to);
			return ok;
		}
	}
	pgx_log_warning("configuration file \"%s\" was not restored", conf->path);
	pgx_log_detail("The backup has it as \"%s\".", from);
	return true;
}

/* Into the places of the server that was backed up?  A standby may share a machine with it, and must be removable. */
static bool
in_place(const struct recovery *r)
{
	return r->same_place && !r->opts->standby;
}

static bool
restore_one(const struct recovery *r, const struct pgx_backup_conf *conf)
{
	const char *inside = below(conf->path, r->backup->info.data_directory);
	char	   *from = pgx_backup_path(r->backup, conf->file);
	bool		ok;

	if (comes_with_data(conf))
		ok = true;
	else if (inside != NULL)
	{
		char	   *to = pgx_join(r->pgdata, inside);

		ok = replace_file(from, to);
		free(to);
	}
	else
		ok = in_place(r) ? put_back(from, conf) : put_inside(r, from, conf);
	free(from);
	return ok;
}

/* Add lines at the end of a file in the data directory; the last one of a parameter counts. */
static bool
append(const struct recovery *r, const char *name, const char *lines)
{
	char	   *path = pgx_join(r->pgdata, name);
	uint8_t    *bytes = NULL;
	size_t		len = 0;
	struct stat st;
	bool		ok = stat(path, &st) != 0 || pgx_file_read(path, MAX_CONF, 0, "600", &bytes, &len);

	if (ok)
	{
		char	   *text = pgx_printf("%s%s", bytes != NULL ? (char *) bytes : "", lines);

		ok = pgx_write_durable(path, text, strlen(text));
		free(text);
	}
	free(bytes);
	free(path);
	return ok;
}

/* 'text', as a configuration file wants it. */
static char *
quote(const char *text)
{
	char	   *quoted = pgx_alloc(2 * strlen(text) + 3);
	size_t		n = 0;

	quoted[n++] = '\'';
	for (const char *p = text; *p != '\0'; p++)
	{
		if (*p == '\'' || *p == '\\')
			quoted[n++] = *p;
		quoted[n++] = *p;
	}
	quoted[n] = '\'';
	return quoted;
}

/* What a server in another place must be told differently. */
static bool
adapt(const struct recovery *r)
{
	char	   *keys = r->opts->keystore_location != NULL ? pgx_absolute(r->opts->keystore_location) : NULL;
	bool		ok = true;
	char	   *config = external_configuration(r, "config_file");

	if (config != NULL && !in_place(r))
	{
		char	   *dir = quote(r->pgdata);
		char	   *hba = pgx_join(r->pgdata, "pg_hba.conf");
		char	   *ident = pgx_join(r->pgdata, "pg_ident.conf");
		char	   *quoted_hba = quote(hba);
		char	   *quoted_ident = quote(ident);
		char	   *lines = pgx_printf("\n# added by %s\ndata_directory = %s\nhba_file = %s\nident_file = %s\n",
									   pgx_progname(), dir, quoted_hba, quoted_ident);

		ok = append(r, "postgresql.conf", lines);
		free(lines);
		free(quoted_ident);
		free(quoted_hba);
		free(ident);
		free(hba);
		free(dir);
	}
	if (ok && keys != NULL)
	{
		char	   *quoted = quote(keys);
		char	   *lines = pgx_printf("pgx_tde.keystore_location = %s\n", quoted);

		ok = append(r, "postgresql.auto.conf", lines);
		free(lines);
		free(quoted);
	}
	free(config);
	free(keys);
	return ok;
}

bool
restore_configuration(struct recovery *r)
{
	bool		ok = true;

	for (size_t i = 0; ok && i < r->backup->info.n_confs; i++)
		ok = restore_one(r, &r->backup->info.confs[i]);
	ok = ok && adapt(r);
	if (!ok)
		pgx_log_error("could not restore the configuration files");
	return ok;
}

/* The path of a configuration file that lies outside the data directory; NULL if it lies in it.  The caller frees it. */
char *
external_configuration(const struct recovery *r, const char *parameter)
{
	const struct pgx_backup_info *info = &r->backup->info;

	for (size_t i = 0; i < info->n_confs; i++)
	{
		if (strcmp(info->confs[i].parameter, parameter) == 0)
			return below(info->confs[i].path, info->data_directory) != NULL || comes_with_data(&info->confs[i]) ?
				NULL : pgx_strdup(info->confs[i].path);
	}
	return NULL;
}
