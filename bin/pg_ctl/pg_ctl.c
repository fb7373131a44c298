/*
 * pg_ctl.c
 *		A pg_ctl that knows --keystore-passphrase, in front of PostgreSQL's own.
 *
 * It replaces itself by the real pg_ctl in the end, so output, signals and exit codes are
 * the real one's.  Without our options it does nothing else.  It must never print, log or pass
 * on a passphrase, and never start anything after a wrong one.
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "handover.h"
#include "locate.h"
#include "log.h"
#include "mem.h"
#include "run.h"
#include "shim.h"

static int
become_real(const char *real, const struct shim_args *args)
{
	/* pg_ctl finds postgres by its own path, so it must be told where it really is. */
	args->argv[0] = pgx_strdup(real);
	(void) execv(real, args->argv);
	pgx_log_error("could not run program \"%s\": %m", real);
	return PGX_EXIT_FAILURE;
}

static int
show_help(const char *real)
{
	const char *argv[] = {real, "--help", NULL};
	struct pgx_run run;

	memset(&run, 0, sizeof(run));
	run.argv = argv;
	if (!pgx_run_wait(&run))
		return PGX_EXIT_FAILURE;
	pgx_run_clear(&run);
	printf("\nOptions for start or restart of a server with an encrypted keystore:\n"
		   "  --keystore-passphrase  ask for the passphrase and open the keystore for the server;\n"
		   "                         without a terminal, read it from standard input\n"
		   "  --keystore-passphrase-file=FILE\n"
		   "                         read the passphrase from the first line of a file\n");
	return pgx_finish_output(run.exit_code < 0 ? PGX_EXIT_FAILURE : run.exit_code);
}

static bool
is_help(const char *arg)
{
	return strcmp(arg, "--help") == 0 || strcmp(arg, "-?") == 0;
}

static bool
is_mode(const char *mode)
{
	static const char *const modes[] = {
		"init", "initdb", "start", "stop", "restart", "reload", "status", "promote", "logrotate",
		"kill"
	};
	size_t		i;

	for (i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
	{
		if (strcmp(mode, modes[i]) == 0)
			return true;
	}
	return false;
}

/* Is this a command line that the real pg_ctl refuses anyway?  Then it says why, and nobody is asked. */
static bool
is_refused_anyway(const struct shim_args *args, const char *pgdata)
{
	return args->rejected || args->mode == NULL || !is_mode(args->mode) || pgdata == NULL ||
		geteuid() == 0;
}

static int
open_for_server(const struct shim_args *args, const char *pgdata, const char *real)
{
	struct pgx_core_policy policy;
	keystore   *ks = NULL;
	char	   *path = NULL;
	enum keystore_status st;
	int			fd = -1;
	int			rc = PGX_EXIT_FAILURE;

	pgx_core_forbid(&policy);
	path = find_keystore(args, pgdata, real);
	if (path == NULL)
		goto out;
	ks = keystore_new();
	if (ks == NULL)
	{
		pgx_log_error("out of memory");
		goto out;
	}
	st = keystore_load(ks, path);
	rc = st == KEYSTORE_OK ? pgx_keystore_ask(ks, args->passphrase_file) : pgx_log_keystore(ks, st);
	if (rc == PGX_EXIT_OK)
		rc = pgx_handover_prepare(ks, &fd);

out:
	keystore_free(&ks);
	pgx_core_restore(&policy);
	free(path);
	return rc;
}

int
main(int argc, char **argv)
{
	struct shim_args args;
	const char *pgdata;
	char	   *real = NULL;
	char		why[256];
	int			rc = PGX_EXIT_FAILURE;

	pgx_log_init(argv[0]);
	memset(&args, 0, sizeof(args));
	if (!shim_args_parse(argc, argv, &args, why, sizeof(why)))
	{
		pgx_log_error("%s", why);
		pgx_log_advice();
		goto out;
	}
	real = pgx_find_real_program("pg_ctl", getenv("PATH"), PG_BINDIR);
	if (real == NULL)
		goto out;
	if (args.argc > 1 && is_help(args.argv[1]))
	{
		rc = show_help(real);
		goto out;
	}
	pgdata = args.pgdata != NULL ? args.pgdata : getenv("PGDATA");
	if (args.keystore_passphrase && !is_refused_anyway(&args, pgdata))
	{
		if (strcmp(args.mode, "start") != 0 && strcmp(args.mode, "restart") != 0)
		{
			pgx_log_error("option --keystore-passphrase cannot be used with mode \"%s\"", args.mode);
			pgx_log_hint("It opens the keystore for a server that is being started; use it with "
						 "\"start\" or \"restart\".");
			goto out;
		}
		rc = open_for_server(&args, pgdata, real);
		if (rc != PGX_EXIT_OK)
			goto out;
	}
	rc = become_real(real, &args);

out:
	shim_args_clear(&args);
	free(real);
	return rc;
}
