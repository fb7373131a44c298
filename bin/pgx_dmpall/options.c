/*
 * options.c
 *		The command line of pgx_dmpall, and what follows from it alone.
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dmpall.h"
#include "file.h"
#include "log.h"
#include "mem.h"
#include "option_table.h"
#include "options.h"

enum
{
	OPT_PGDATA, OPT_DBNAME, OPT_COPY_COMMAND, OPT_COPY_LIST, OPT_EXCLUDE_COPY_CLUSTER,
	OPT_CHECKPOINT, OPT_LABEL, OPT_KEEP, OPT_RETRY, OPT_ARCHIVE_TIMEOUT, OPT_NO_ARCHIVE,
	OPT_COMPRESS, OPT_JOBS, OPT_KEYSTORE_PASSPHRASE, OPT_PASSPHRASE_FILE, OPT_HOST_SECRET,
	OPT_NO_KEYSTORE_COPY, OPT_NO_VERIFY, OPT_FROM_STANDBY, OPT_CONFIG_ONLY, OPT_PROGRESS, OPT_JSON,
	OPT_VERBOSE, OPT_VERSION, OPT_HELP,
	N_OPTS
};

static const struct pgx_option option_defs[N_OPTS] = {
	[OPT_PGDATA] = {"pgdata", 'D', "DATADIR", "data directory of the server (default: $PGDATA)"},
	[OPT_DBNAME] = {"dbname", 'd', "CONNINFO", "how to connect (default: as the running server says)"},
	[OPT_COPY_COMMAND] = {"copy-command", 'Y', "FILE", "have this command copy the data; whole path"},
	[OPT_COPY_LIST] = {"copy-list", 'P', "FILE", "tablespaces that the command copies, one a line; whole path"},
	[OPT_EXCLUDE_COPY_CLUSTER] = {"exclude-copy-cluster", 0, NULL, "the command does not copy the data directory"},
	[OPT_CHECKPOINT] = {"checkpoint", 'c', "fast|spread", "speed of the checkpoint at the begin (default: fast)"},
	[OPT_LABEL] = {"label", 'l', "TEXT", "name this backup; pgx_rcvall finds it by that too"},
	[OPT_KEEP] = {"keep", 0, "N", "keep this many backups, the new one among them (default: 2)"},
	[OPT_RETRY] = {"retry", 0, "N", "if copying fails, try again this often (default: 0)"},
	[OPT_ARCHIVE_TIMEOUT] = {"archive-timeout", 0, "SECONDS", "how long to wait for the archive (default: 0, no limit)"},
	[OPT_NO_ARCHIVE] = {"no-archive", 0, NULL, "back up a server that does not archive WAL"},
	[OPT_COMPRESS] = {"compress", 'Z', "CODEC[:LEVEL]", "compress by zstd or lz4, and seal, into one file"},
	[OPT_JOBS] = {"jobs", 'j', "N", "threads that compress (default: 1)"},
	[OPT_KEYSTORE_PASSPHRASE] = {"keystore-passphrase", 0, NULL, "ask for the passphrase of the keystore"},
	[OPT_PASSPHRASE_FILE] = {"passphrase-file", 0, "FILE", "read it from the first line of a file"},
	[OPT_HOST_SECRET] = {"host-secret", 0, "FILE", "secret of this host that auto-open is bound to"},
	[OPT_NO_KEYSTORE_COPY] = {"no-keystore-copy", 0, NULL, "keep no copy of the keystore with the backup"},
	[OPT_NO_VERIFY] = {"no-verify", 0, NULL, "do not read the backup again to verify it"},
	[OPT_FROM_STANDBY] = {"from-standby", 0, NULL, "allow the server to be a standby"},
	[OPT_CONFIG_ONLY] = {"config-only", 0, NULL, "renew the configuration files of the newest backup"},
	[OPT_PROGRESS] = {"progress", 0, NULL, "show progress"},
	[OPT_JSON] = {"json", 0, NULL, "describe the new backup in JSON"},
	[OPT_VERBOSE] = {"verbose", 'v', NULL, "say more about what is done"},
	[OPT_VERSION] = {"version", 'V', NULL, "show the version, then exit"},
	[OPT_HELP] = {"help", '?', NULL, "show this help, then exit"},
};

static int
print_help(void)
{
	printf("%s backs up a PostgreSQL server, encrypted or not, into the directory that its\n"
		   "parameter pgx_tde.backup_destination names.\n\n"
		   "Usage:\n  %s [-D DATADIR] [OPTION]...\n\nOptions:\n", pgx_progname(), pgx_progname());
	pgx_print_options(option_defs, N_OPTS, 32);
	printf("\nOnly --compress needs the keystore opened: by auto-open, else by its passphrase.\n"
		   "Exit status: 0 done, 1 failed, 2 passphrase wrong or key not usable.\n");
	return pgx_finish_output(PGX_EXIT_OK);
}

static bool
store_option(struct options *opts, int opt, const char *arg)
{
	switch (opt)
	{
		case OPT_PGDATA:
			opts->pgdata = arg;
			break;
		case OPT_DBNAME:
			opts->conninfo = arg;
			break;
		case OPT_COPY_COMMAND:
			opts->copy_command = arg;
			break;
		case OPT_COPY_LIST:
			opts->copy_list = arg;
			break;
		case OPT_EXCLUDE_COPY_CLUSTER:
			opts->exclude_copy_cluster = true;
			break;
		case OPT_CHECKPOINT:
			opts->checkpoint = arg;
			break;
		case OPT_LABEL:
			opts->label = arg;
			break;
		case OPT_KEEP:
			return pgx_parse_uint(arg, "--keep", 1, 10000, &opts->keep);
		case OPT_RETRY:
			return pgx_parse_uint(arg, "--retry", 0, 10000, &opts->retry);
		case OPT_ARCHIVE_TIMEOUT:
			return pgx_parse_uint(arg, "--archive-timeout", 0, 1000000, &opts->archive_timeout);
		case OPT_COMPRESS:
			opts->compress = true;
			return pgx_pack_parse_codec(arg, &opts->codec, &opts->level);
		case OPT_JOBS:
			return pgx_parse_uint(arg, "--jobs", 1, PGX_PACK_MAX_JOBS, &opts->jobs);
		case OPT_KEYSTORE_PASSPHRASE:
			opts->ask_passphrase = true;
			break;
		case OPT_PASSPHRASE_FILE:
			opts->passphrase_file = arg;
			break;
		case OPT_HOST_SECRET:
			opts->host_secret = arg;
			break;
		case OPT_NO_ARCHIVE:
			opts->no_archive = true;
			break;
		case OPT_NO_KEYSTORE_COPY:
			opts->no_keystore_copy = true;
			break;
		case OPT_NO_VERIFY:
			opts->no_verify = true;
			break;
		case OPT_FROM_STANDBY:
			opts->from_standby = true;
			break;
		case OPT_CONFIG_ONLY:
			opts->config_only = true;
			break;
		case OPT_PROGRESS:
			opts->progress = true;
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
int
parse_options(int argc, char **argv, struct options *opts)
{
	int			opt;

	while ((opt = pgx_next_option(argc, argv, option_defs, N_OPTS)) != PGX_OPTIONS_END)
	{
		if (opt == PGX_OPTIONS_WRONG)
			return PGX_EXIT_FAILURE;
		if (opt == OPT_HELP)
			return print_help();
		if (opt == OPT_VERSION)
		{
			printf("%s (pgx-tde) %s\n", pgx_progname(), PACKAGE_VERSION);
			return pgx_finish_output(PGX_EXIT_OK);
		}
		if (!store_option(opts, opt, optarg))
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
need_option(bool given, const char *option, const char *needed)
{
	if (!given)
		return true;
	pgx_log_error("option %s is necessary for option %s", needed, option);
	pgx_log_advice();
	return false;
}

static bool
is_utf8_line(const char *text)
{
	for (const char *p = text; *p != '\0'; p++)
	{
		if ((unsigned char) *p < 0x20 || *p == 0x7f)
			return false;
	}
	return true;
}

static bool
check_usage(struct options *opts)
{
	const char *const whole[][2] = {{"-Y", opts->copy_command}, {"-P", opts->copy_list}};

	if (strcmp(opts->checkpoint, "fast") != 0 && strcmp(opts->checkpoint, "spread") != 0)
	{
		pgx_log_error("invalid checkpoint argument \"%s\", must be \"fast\" or \"spread\"", opts->checkpoint);
		return false;
	}
	for (int i = 0; i < 2; i++)
	{
		if (whole[i][1] != NULL && whole[i][1][0] != '/')
		{
			pgx_log_error("an invalid value was specified for the option %s", whole[i][0]);
			pgx_log_hint("Specify the whole path.");
			return false;
		}
	}
	if (!is_utf8_line(opts->label))
	{
		pgx_log_error("an invalid value was specified for the option %s", "--label");
		pgx_log_hint("A label has no control characters.");
		return false;
	}
	if (!opts->compress)
	{
		if (!need_option(opts->jobs != 0, "--jobs", "--compress") ||
			!need_option(opts->ask_passphrase, "--keystore-passphrase", "--compress") ||
			!need_option(opts->passphrase_file != NULL, "--passphrase-file", "--compress") ||
			!need_option(opts->host_secret != NULL, "--host-secret", "--compress"))
			return false;
	}
	else if (!pgx_refuse_together(opts->copy_command != NULL, "--compress", "-Y") ||
			 !pgx_refuse_together(opts->config_only, "--compress", "--config-only") ||
			 !pgx_refuse_together(opts->ask_passphrase && opts->passphrase_file != NULL, "--keystore-passphrase",
							  "--passphrase-file"))
		return false;
	return need_option(opts->copy_list != NULL && opts->copy_command == NULL, "-P", "-Y") &&
		need_option(opts->exclude_copy_cluster && opts->copy_command == NULL, "--exclude-copy-cluster", "-Y") &&
		pgx_refuse_together(opts->config_only && opts->copy_command != NULL, "--config-only", "-Y") &&
		pgx_refuse_together(opts->from_standby && opts->copy_command != NULL, "--from-standby", "-Y");
}

/* Who and where: what can be refused before anything is asked of a server. */
static bool
check_place(struct options *opts)
{
	char	   *version;
	struct stat st;
	bool		ok;

	if (geteuid() == 0)
	{
		pgx_log_error("cannot be run as root");
		pgx_log_hint("Run it as the user who owns the server.");
		return false;
	}
	if (opts->pgdata == NULL)
		opts->pgdata = getenv("PGDATA");
	if (opts->pgdata == NULL || opts->pgdata[0] == '\0')
	{
		pgx_log_error("the database storage directory and the $PGDATA environment variable have not been specified");
		pgx_log_advice();
		return false;
	}
	version = pgx_join(opts->pgdata, "PG_VERSION");
	ok = stat(version, &st) == 0;
	if (!ok)
	{
		pgx_log_error("the specified database storage directory is not correct");
		pgx_log_detail("\"%s\" could not be examined, or is not there.", version);
	}
	free(version);
	return ok;
}

bool
check_options(struct options *opts)
{
	return check_usage(opts) && check_place(opts);
}
