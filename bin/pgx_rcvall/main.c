/*
 * main.c
 *		pgx_rcvall: recover a server from a backup of pgx_dmpall.
 *
 * The command line and what follows from it alone; the work is in the other files.
 */
#include <config.h>

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "mem.h"
#include "rcvall.h"

enum
{
	OPT_PGDATA, OPT_AREA, OPT_LIST, OPT_VIEW_COPYING, OPT_JSON, OPT_VERBOSE, OPT_VERSION, OPT_HELP,
	N_OPTS
};

/* What getopt_long() returns for a long option: above every character. */
#define OPT_BASE	256

static const struct option_def
{
	const char *name;
	char		letter;			/* 0: no short form */
	const char *arg;			/* NULL: takes none */
	const char *help;
}			option_defs[N_OPTS] = {
	[OPT_PGDATA] = {"pgdata", 'D', "DATADIR", "data directory (default: $PGDATA)"},
	[OPT_AREA] = {"backup-destination", 'B', "DIR", "backup area (default: as configured in DATADIR)"},
	[OPT_LIST] = {"list", 'l', NULL, "list the backups and do nothing else"},
	[OPT_VIEW_COPYING] = {"view-results-of-copying", 0, NULL, "show what the copy command noted, and do nothing else"},
	[OPT_JSON] = {"json", 0, NULL, "tell the result in JSON"},
	[OPT_VERBOSE] = {"verbose", 'v', NULL, "say more about what is done"},
	[OPT_VERSION] = {"version", 'V', NULL, "show the version, then exit"},
	[OPT_HELP] = {"help", '?', NULL, "show this help, then exit"},
};

static int
print_help(void)
{
	printf("%s recovers a PostgreSQL server, encrypted or not, from a backup made by pgx_dmpall.\n\n"
		   "Usage:\n  %s -l [-B DIR] [-D DATADIR]\n\nOptions:\n", pgx_progname(), pgx_progname());
	for (int i = 0; i < N_OPTS; i++)
	{
		const struct option_def *def = &option_defs[i];
		char		text[64];

		snprintf(text, sizeof(text), "%c%c%s--%s%s%s", def->letter ? '-' : ' ',
				 def->letter ? def->letter : ' ', def->letter ? ", " : "  ", def->name,
				 def->arg != NULL ? "=" : "", def->arg != NULL ? def->arg : "");
		printf("  %-34s %s\n", text, def->help);
	}
	printf("\nExit status: 0 done, 1 failed, 2 passphrase wrong or key not usable.\n");
	return pgx_finish_output(PGX_EXIT_OK);
}

static bool
store_option(struct rcvall_options *opts, int opt, const char *arg)
{
	switch (opt)
	{
		case OPT_PGDATA:
			opts->pgdata = arg;
			break;
		case OPT_AREA:
			opts->area = arg;
			break;
		case OPT_LIST:
			opts->list = true;
			break;
		case OPT_VIEW_COPYING:
			opts->view_copying = true;
			break;
		case OPT_JSON:
			opts->json = true;
			break;
		case OPT_VERBOSE:
			opts->verbose = true;
			break;
		default:
			break;
	}
	return true;
}

/* -1: go on; else the exit code. */
static int
parse_options(int argc, char **argv, struct rcvall_options *opts)
{
	struct option long_options[N_OPTS + 1];
	int			c;

	memset(long_options, 0, sizeof(long_options));
	for (int i = 0; i < N_OPTS; i++)
	{
		long_options[i].name = option_defs[i].name;
		long_options[i].has_arg = option_defs[i].arg != NULL ? required_argument : no_argument;
		long_options[i].val = OPT_BASE + i;
	}
	if (argc > 1 && strcmp(argv[1], "-?") == 0)
		return print_help();
	while ((c = getopt_long(argc, argv, "D:B:lvV", long_options, NULL)) != -1)
	{
		for (int i = 0; i < N_OPTS && c < OPT_BASE; i++)
		{
			if (option_defs[i].letter == c && c != '?')
				c = OPT_BASE + i;	/* '?' is for what is unknown, too */
		}
		if (c < OPT_BASE)
		{
			pgx_log_advice();	/* getopt_long() has said what is wrong */
			return PGX_EXIT_FAILURE;
		}
		if (c - OPT_BASE == OPT_HELP)
			return print_help();
		if (c - OPT_BASE == OPT_VERSION)
		{
			printf("%s (pgx-tde) %s\n", pgx_progname(), PACKAGE_VERSION);
			return pgx_finish_output(PGX_EXIT_OK);
		}
		if (!store_option(opts, c - OPT_BASE, optarg))
			return PGX_EXIT_FAILURE;
	}
	if (optind < argc)
	{
		pgx_log_error("invalid argument %s", argv[optind]);
		pgx_log_advice();
		return PGX_EXIT_FAILURE;
	}
	return -1;
}

static bool
refuse_together(bool given, const char *option, const char *other)
{
	if (!given)
		return true;
	pgx_log_error("option %s conflicts with option %s", option, other);
	pgx_log_advice();
	return false;
}

static bool
check_usage(struct rcvall_options *opts)
{
	const char *pgdata = getenv("PGDATA");

	if (geteuid() == 0)
	{
		pgx_log_error("cannot be run as root");
		pgx_log_hint("Run it as the user who owns the server.");
		return false;
	}
	if (opts->pgdata == NULL && pgdata != NULL && pgdata[0] != '\0')
		opts->pgdata = pgdata;
	if (!opts->list && !opts->view_copying)
	{
		pgx_log_error("no operation is specified");
		pgx_log_advice();
		return false;
	}
	return refuse_together(opts->list && opts->view_copying, "-l", "--view-results-of-copying") &&
		refuse_together(opts->json && opts->view_copying, "--json", "--view-results-of-copying");
}

int
main(int argc, char **argv)
{
	struct rcvall_options opts = {0};
	int			rc;

	pgx_log_init(argv[0]);
	(void) umask(077);
	rc = parse_options(argc, argv, &opts);
	if (rc >= 0)
		return rc;
	pgx_log_set_verbose(opts.verbose);
	if (!check_usage(&opts))
		return PGX_EXIT_FAILURE;
	rc = opts.list ? list_backups(&opts) : view_copying(&opts);
	return pgx_finish_output(rc);
}
