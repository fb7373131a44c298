/*
 * server.c
 *		What a server's configuration says, asked from the server's own binary.
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "log.h"
#include "mem.h"
#include "run.h"
#include "server.h"

#define LOCATION_GUC	"pgx_tde.keystore_location"

char *
pgx_server_setting(const char *postgres, const char *pgdata, char *const *words, size_t n_words,
				   const char *guc, bool *ret_failed)
{
	const char **argv = pgx_alloc((n_words + 8) * sizeof(*argv));
	struct pgx_run run;
	char	   *value = NULL;
	char	   *unknown = pgx_printf("unrecognized configuration parameter \"%s\"", guc);
	size_t		n = 0;
	size_t		i;

	*ret_failed = false;
	argv[n++] = postgres;
	argv[n++] = "-D";
	argv[n++] = pgdata;
	for (i = 0; i < n_words; i++)
		argv[n++] = words[i];
	argv[n++] = "-c";
	argv[n++] = "lc_messages=C";	/* the answer "unknown" must be recognised */
	argv[n++] = "-C";
	argv[n++] = guc;
	argv[n] = NULL;

	memset(&run, 0, sizeof(run));
	run.argv = argv;
	run.capture_out = true;
	run.capture_err = true;
	if (!pgx_run_wait(&run))
		*ret_failed = true;
	else if (run.exit_code == 0)
	{
		run.out[strcspn(run.out, "\n")] = '\0';
		value = pgx_strdup(run.out);
	}
	else if (strstr(run.err, unknown) == NULL)
	{
		run.err[strcspn(run.err, "\n")] = '\0';
		pgx_log_error("could not read the configuration of the server in \"%s\"", pgdata);
		pgx_log_detail("\"%s\" said: %s", postgres, run.err);
		*ret_failed = true;
	}
	pgx_run_clear(&run);
	free(unknown);
	free(argv);
	return value;
}

char *
pgx_server_keystore_location(const char *postgres, const char *pgdata, char *const *words, size_t n_words)
{
	bool		failed;
	char	   *location = pgx_server_setting(postgres, pgdata, words, n_words, LOCATION_GUC, &failed);
	char	   *data_directory;

	if (failed)
		return NULL;
	if (location == NULL || location[0] == '\0')
	{
		pgx_log_error("keystore location is not configured");
		pgx_log_hint("Specify %s parameter in postgresql.conf.", LOCATION_GUC);
		free(location);
		return NULL;
	}
	if (location[0] == '/')
		return location;
	data_directory = pgx_server_setting(postgres, pgdata, words, n_words, "data_directory", &failed);
	if (data_directory != NULL && !failed)
	{
		char	   *absolute = pgx_join(data_directory, location);

		free(location);
		location = absolute;
	}
	else
	{
		free(location);
		location = NULL;
	}
	free(data_directory);
	return location;
}
