/*
 * locate.c
 *		Find the real pg_ctl, and the keystore of the server it would start.
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "keystore.h"
#include "log.h"
#include "mem.h"
#include "options.h"
#include "server.h"
#include "shim.h"

#define PROGRAM			"pg_ctl"

/* More than any sensible postmaster.opts. */
#define MAX_OPTS_FILE	(64 * 1024)

static bool
is_program(const char *path, struct stat *st)
{
	return stat(path, st) == 0 && S_ISREG(st->st_mode) && access(path, X_OK) == 0;
}

static bool
is_self(const struct stat *st)
{
	struct stat self;

	return stat("/proc/self/exe", &self) == 0 && self.st_dev == st->st_dev &&
		self.st_ino == st->st_ino;
}

/*
 * Only what comes in PATH after the last place where this program is found is
 * looked at.  So a second copy of the shim in PATH (another file, which is not "itself") passes
 * on to the real one instead of back to the first.
 */
char *
find_real_pg_ctl(const char *path, const char *bindir)
{
	char	   *found = NULL;
	char	   *candidate;
	struct stat st;

	while (path != NULL && *path != '\0')
	{
		size_t		len = strcspn(path, ":");
		char	   *dir = len == 0 ? pgx_strdup(".") : pgx_strndup(path, len);

		candidate = pgx_join(dir, PROGRAM);
		free(dir);
		if (is_program(candidate, &st) && is_self(&st))
		{
			free(found);
			found = NULL;
		}
		else if (found == NULL && is_program(candidate, &st))
		{
			found = candidate;
			candidate = NULL;
		}
		free(candidate);
		path += len;
		path += *path == ':';
	}
	if (found == NULL)
	{
		candidate = pgx_join(bindir, PROGRAM);
		if (is_program(candidate, &st) && !is_self(&st))
			found = candidate;
		else
			free(candidate);
	}
	if (found == NULL)
	{
		pgx_log_error("could not find PostgreSQL's own pg_ctl in PATH or in \"%s\"", bindir);
		pgx_log_hint("Put the directory of PostgreSQL's programs into PATH.");
	}
	return found;
}

/*
 * pg_ctl starts the postgres beside itself, symbolic links resolved.  What is found in PATH
 * may be a distribution's wrapper, with no postgres beside it; then it is that of the
 * server we were built for.
 */
static char *
find_postgres(const char *real_pg_ctl, const char *pg_bindir)
{
	char	   *resolved = realpath(real_pg_ctl, NULL);
	char	   *dir = pgx_dirname(resolved != NULL ? resolved : real_pg_ctl);
	char	   *postgres = pgx_join(dir, "postgres");
	struct stat st;

	if (!is_program(postgres, &st))
	{
		free(postgres);
		postgres = pgx_join(pg_bindir, "postgres");
	}
	free(resolved);
	free(dir);
	return postgres;
}

/*
 * "pg_ctl restart" without -o starts the program, and takes the options, of the last start, which the
 * server keeps in postmaster.opts: the program, then each option within double quotes.
 */
static void
read_last_start(const char *pgdata, char **options, char **postgres)
{
	char	   *path = pgx_join(pgdata, "postmaster.opts");
	char	   *line = NULL;
	size_t		size = 0;
	FILE	   *f = fopen(path, "re");
	char	   *quote;

	/* If it cannot be read the real pg_ctl will say so. */
	if (f != NULL)
	{
		if (getline(&line, &size, f) > 0 && size < MAX_OPTS_FILE)
		{
			line[strcspn(line, "\n")] = '\0';
			quote = strstr(line, " \"");
			if (quote != NULL)
			{
				*options = pgx_strdup(quote + 1);
				*quote = '\0';
			}
			if (*postgres == NULL)
				*postgres = pgx_strdup(line);
		}
		(void) fclose(f);
	}
	free(line);
	free(path);
}

char *
find_keystore(const struct shim_args *args, const char *pgdata, const char *real_pg_ctl)
{
	char	   *options = args->options != NULL ? pgx_strdup(args->options) : NULL;
	char	   *postgres = args->exec_path != NULL ? pgx_strdup(args->exec_path) : NULL;
	char	  **words = NULL;
	size_t		n_words = 0;
	char	   *location = NULL;
	char	   *path = NULL;

	if (options == NULL && strcmp(args->mode, "restart") == 0)
		read_last_start(pgdata, &options, &postgres);
	if (postgres == NULL)
		postgres = find_postgres(real_pg_ctl, PG_BINDIR);
	if (!pgx_words_split(options != NULL ? options : "", &words, &n_words))
	{
		pgx_log_error("a quote in the options of the server is not closed: %s", options);
		goto out;
	}
	location = pgx_server_keystore_location(postgres, pgdata, words, n_words);
	if (location != NULL && pgx_outside_cluster(location))
		path = pgx_join(location, KEYSTORE_FILE_NAME);

out:
	pgx_words_free(&words);
	free(options);
	free(postgres);
	free(location);
	return path;
}
