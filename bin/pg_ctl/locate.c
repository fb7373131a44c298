/*
 * locate.c
 *		Find the keystore of the server that pg_ctl would start.
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "keystore.h"
#include "locate.h"
#include "log.h"
#include "mem.h"
#include "options.h"
#include "server.h"
#include "shim.h"

/* More than any sensible postmaster.opts. */
#define MAX_OPTS_FILE	(64 * 1024)

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
		postgres = pgx_find_beside(real_pg_ctl, "postgres", PG_BINDIR);	/* as pg_ctl does */
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
