/*
 * remote.c
 *		The near end of a copy to another host: ssh to "pgx_keystore receive".
 *
 * Only ciphertext travels.  All decisions about the target are made by the far
 * end, which sees it; here only the answer is checked.
 */
#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actions.h"
#include "log.h"
#include "mem.h"
#include "options.h"
#include "run.h"

/* ssh's own failures, and a POSIX shell's two ways not to find a program. */
#define SSH_FAILED			255
#define SHELL_NOT_FOUND		127
#define SHELL_NOT_RUNNABLE	126

/* What is added to ssh's own options: program, --, host, command, receive, --force, --verbose, --, dir, NULL. */
#define FIXED_ARGS			10

/*
 * Whatever ssh is given after the host goes to a shell over there, so the two
 * words that are not ours are quoted for it.  "--" keeps the host from being an option.
 */
static const char **
build_argv(const struct options *opts, const char *host, const char *command, const char *dir)
{
	const char **argv = pgx_alloc((opts->ssh_options.count + FIXED_ARGS) * sizeof(*argv));
	size_t		n = 0;
	size_t		i;

	argv[n++] = opts->ssh;
	for (i = 0; i < opts->ssh_options.count; i++)
		argv[n++] = opts->ssh_options.items[i];
	argv[n++] = "--";
	argv[n++] = host;
	argv[n++] = command;
	argv[n++] = "receive";
	if (opts->force)
		argv[n++] = "--force";
	if (opts->verbose)
		argv[n++] = "--verbose";
	argv[n++] = "--";
	argv[n++] = dir;
	argv[n] = NULL;
	return argv;
}

/* Did the far end store, or have, what we sent?  A forced command that exits 0 did not. */
static bool
is_confirmed(const char *answer, const struct parcel *parcel)
{
	char	   *expected = pgx_printf("keystore %s generation %" PRIu64 " ", parcel->uuid_text,
									  parcel->generation);
	bool		found = strstr(answer, expected) != NULL;

	free(expected);
	return found;
}

static int
report(const struct pgx_run *run, const struct parcel *parcel, const struct options *opts,
	   const char *host)
{
	if (run->signo != 0)
		pgx_log_error("\"%s\" was ended by signal %d", opts->ssh, run->signo);
	else if (run->exit_code == SSH_FAILED)
	{
		pgx_log_error("could not reach host \"%s\"", host);
		pgx_log_hint("Try: %s %s true", opts->ssh, host);
	}
	else if (run->exit_code == SHELL_NOT_FOUND || run->exit_code == SHELL_NOT_RUNNABLE)
	{
		pgx_log_error("could not run \"%s\" on host \"%s\"", opts->remote_command, host);
		pgx_log_hint("Give its path on that host with --remote-command.");
	}
	else if (run->exit_code != 0)
		pgx_log_error("host \"%s\" did not take the keystore", host);
	else if (!is_confirmed(run->out, parcel))
	{
		pgx_log_error("host \"%s\" did not confirm the copy", host);
		pgx_log_detail("The answer is not that of \"pgx_keystore receive\".");
	}
	else
		return PGX_EXIT_OK;
	return run->exit_code == PGX_EXIT_KEY ? PGX_EXIT_KEY : PGX_EXIT_FAILURE;
}

int
parcel_send(const struct parcel *parcel, const struct options *opts, const char *host, const char *dir)
{
	char	   *command = pgx_shell_quote(opts->remote_command);
	char	   *quoted_dir = pgx_shell_quote(dir);
	const char **argv = build_argv(opts, host, command, quoted_dir);
	struct pgx_run run;
	int			rc = PGX_EXIT_FAILURE;

	memset(&run, 0, sizeof(run));
	run.argv = argv;
	run.input = parcel->bytes;
	run.input_len = parcel->len;
	run.capture_out = true;
	if (pgx_run_wait(&run))
	{
		fputs(run.out, stdout);
		rc = report(&run, parcel, opts, host);
	}
	pgx_run_clear(&run);
	free(argv);
	free(command);
	free(quoted_dir);
	return rc;
}
