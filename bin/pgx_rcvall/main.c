/*
 * main.c
 *		pgx_rcvall: recover a server from a backup of pgx_dmpall.
 *
 * The command line and what follows from it alone; the work is in the other files.
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "mem.h"
#include "option_table.h"
#include "options.h"
#include "pack.h"
#include "rcvall.h"

enum
{
	OPT_PGDATA, OPT_AREA, OPT_LIST, OPT_VIEW_COPYING, OPT_CHECK, OPT_FETCH_WAL, OPT_DRY_RUN,
	OPT_BACKUP, OPT_TIME, OPT_NAME, OPT_XID, OPT_LSN, OPT_TIMELINE, OPT_COPY_COMMAND, OPT_MAPPING,
	OPT_PASSPHRASE, OPT_PASSPHRASE_FILE, OPT_KEYSTORE_LOCATION, OPT_NO_VERIFY, OPT_JOBS, OPT_LOG,
	OPT_STANDBY, OPT_FROM, OPT_PRIMARY_CONNINFO, OPT_KEYSTORE, OPT_SSH, OPT_SSH_OPTION, OPT_SLOT, OPT_CREATE_SLOT,
	OPT_AUTO_OPEN, OPT_SET, OPT_PROGRESS, OPT_JSON, OPT_VERBOSE, OPT_VERSION, OPT_HELP,
	N_OPTS
};

static const struct pgx_option option_defs[N_OPTS] = {
	[OPT_PGDATA] = {"pgdata", 'D', "DATADIR", "data directory (default: $PGDATA)"},
	[OPT_AREA] = {"backup-destination", 'B', "DIR", "backup area (default: as configured in DATADIR)"},
	[OPT_LIST] = {"list", 'l', NULL, "list the backups and do nothing else"},
	[OPT_VIEW_COPYING] = {"view-results-of-copying", 0, NULL, "show what the copy command noted, and do nothing else"},
	[OPT_CHECK] = {"check", 0, NULL, "prove that backup, WAL and keystore fit together"},
	[OPT_FETCH_WAL] = {"fetch-wal", 0, NULL, "for restore_command: copy a WAL file from the area"},
	[OPT_DRY_RUN] = {"dry-run", 0, NULL, "check everything, tell what would be done, change nothing"},
	[OPT_BACKUP] = {"backup", 0, "NAME|LABEL", "recover from this backup (default: the newest that fits)"},
	[OPT_TIME] = {"target-time", 'e', "TIME", "recover to a time, 'YYYY-MM-DD hh:mm:ss'"},
	[OPT_NAME] = {"target-name", 'n', "NAME", "recover to a restore point"},
	[OPT_XID] = {"xid", 0, "XID", "recover up to the end of a transaction"},
	[OPT_LSN] = {"lsn", 0, "LSN", "recover up to a position in WAL"},
	[OPT_TIMELINE] = {"target-timeline", 0, "ID", "timeline to follow: latest, current or a number"},
	[OPT_COPY_COMMAND] = {"copy-command", 'Y', "FILE", "the command that copied the data; whole path"},
	[OPT_MAPPING] = {"tablespace-mapping", 0, "OLD=NEW", "put the tablespace of directory OLD into NEW"},
	[OPT_PASSPHRASE] = {"keystore-passphrase", 0, NULL, "ask for the passphrase and open the keystore for recovery"},
	[OPT_PASSPHRASE_FILE] = {"passphrase-file", 0, "FILE", "the same, with the first line of a file"},
	[OPT_KEYSTORE_LOCATION] = {"keystore-location", 0, "DIR", "directory of the recovered server's keystore"},
	[OPT_NO_VERIFY] = {"no-verify", 0, NULL, "do not compare what was restored with the manifest"},
	[OPT_JOBS] = {"jobs", 'j', "N", "threads that restore a compressed backup (default: 1)"},
	[OPT_LOG] = {"log", 0, "FILE", "append the server's log during recovery to a file"},
	[OPT_STANDBY] = {"standby", 0, NULL, "build and start a standby of a running server"},
	[OPT_FROM] = {"from", 0, "CONNINFO", "the server to copy and to follow; with --standby"},
	[OPT_PRIMARY_CONNINFO] = {"primary-conninfo", 0, "CONNINFO", "what the standby connects with (default: as --from)"},
	[OPT_KEYSTORE] = {"keystore", 0, "FILE|DIR|HOST:DIR", "keystore to copy (default: fetched by SQL)"},
	[OPT_SSH] = {"ssh", 0, "PROGRAM", "program that reaches the keystore's host (default: ssh)"},
	[OPT_SSH_OPTION] = {"ssh-option", 0, "OPTION", "argument for that program; may be given several times"},
	[OPT_SLOT] = {"slot", 0, "NAME", "replication slot of the standby"},
	[OPT_CREATE_SLOT] = {"create-slot", 0, NULL, "make that slot"},
	[OPT_AUTO_OPEN] = {"auto-open", 0, NULL, "enable automatic opening of the standby's keystore"},
	[OPT_SET] = {"set", 0, "NAME=VALUE", "set a parameter in the standby's configuration"},
	[OPT_PROGRESS] = {"progress", 0, NULL, "show progress"},
	[OPT_JSON] = {"json", 0, NULL, "tell the result in JSON"},
	[OPT_VERBOSE] = {"verbose", 'v', NULL, "say more about what is done"},
	[OPT_VERSION] = {"version", 'V', NULL, "show the version, then exit"},
	[OPT_HELP] = {"help", '?', NULL, "show this help, then exit"},
};

static int
print_help(void)
{
	printf("%s recovers a PostgreSQL server, encrypted or not, from a backup made by pgx_dmpall.\n\n"
		   "Usage:\n"
		   "  %s [-D DATADIR] -B DIR [OPTION]...\n"
		   "  %s --check -B DIR [-D DATADIR] [OPTION]...\n"
		   "  %s --standby [-D DATADIR] --from=CONNINFO [OPTION]...\n"
		   "  %s --standby [-D DATADIR] -B DIR --primary-conninfo=CONNINFO [OPTION]...\n"
		   "  %s -l [-B DIR] [-D DATADIR]\n"
		   "  %s --fetch-wal -B DIR NAME FILE\n\nOptions:\n",
		   pgx_progname(), pgx_progname(), pgx_progname(), pgx_progname(), pgx_progname(), pgx_progname(), pgx_progname());
	pgx_print_options(option_defs, N_OPTS, 34);
	printf("\nExit status: 0 done, 1 failed, 2 passphrase wrong or key not usable.\n");
	return pgx_finish_output(PGX_EXIT_OK);
}

/* OLD=NEW; as in pg_basebackup, a backslash keeps an equals sign in a name. */
static bool
add_mapping(struct rcvall_options *opts, const char *arg)
{
	char	   *sides[2] = {pgx_alloc(strlen(arg) + 1), pgx_alloc(strlen(arg) + 1)};
	size_t		n[2] = {0, 0};
	int			side = 0;
	struct rcvall_mapping *mapping;

	for (const char *p = arg; *p != '\0'; p++)
	{
		if (*p == '\\' && p[1] == '=')
			p++;
		else if (*p == '=' && side == 0)
		{
			side = 1;
			continue;
		}
		sides[side][n[side]++] = *p;
	}
	if (side == 0 || sides[0][0] != '/' || sides[1][0] != '/')
	{
		pgx_log_error("an invalid value was specified for the option %s", "--tablespace-mapping");
		pgx_log_hint("Specify OLD=NEW with two whole paths.");
		free(sides[0]);
		free(sides[1]);
		return false;
	}
	opts->mappings = pgx_realloc(opts->mappings, (opts->n_mappings + 1) * sizeof(*opts->mappings));
	mapping = &opts->mappings[opts->n_mappings++];
	mapping->old = sides[0];
	mapping->new = sides[1];
	return true;
}

static void
add_text(const char ***texts, size_t *n, const char *text)
{
	*texts = pgx_realloc(*texts, (*n + 1) * sizeof(**texts));
	(*texts)[(*n)++] = text;
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
		case OPT_CHECK:
			opts->check = true;
			break;
		case OPT_FETCH_WAL:
			opts->fetch_wal = true;
			break;
		case OPT_DRY_RUN:
			opts->dry_run = true;
			break;
		case OPT_BACKUP:
			opts->backup = arg;
			break;
		case OPT_TIME:
			opts->target_time = arg;
			break;
		case OPT_NAME:
			opts->target_name = arg;
			break;
		case OPT_XID:
			opts->target_xid = arg;
			break;
		case OPT_LSN:
			opts->target_lsn = arg;
			break;
		case OPT_TIMELINE:
			opts->target_timeline = arg;
			break;
		case OPT_COPY_COMMAND:
			opts->copy_command = arg;
			break;
		case OPT_MAPPING:
			return add_mapping(opts, arg);
		case OPT_PASSPHRASE:
			opts->keystore_passphrase = true;
			break;
		case OPT_PASSPHRASE_FILE:
			opts->keystore_passphrase = true;
			opts->passphrase_file = arg;
			break;
		case OPT_KEYSTORE_LOCATION:
			opts->keystore_location = arg;
			break;
		case OPT_JOBS:
			return pgx_parse_uint(arg, "--jobs", 1, PGX_PACK_MAX_JOBS, &opts->jobs);
		case OPT_NO_VERIFY:
			opts->no_verify = true;
			break;
		case OPT_LOG:
			opts->log_file = arg;
			break;
		case OPT_STANDBY:
			opts->standby = true;
			break;
		case OPT_FROM:
			opts->from = arg;
			break;
		case OPT_PRIMARY_CONNINFO:
			opts->primary_conninfo = arg;
			break;
		case OPT_KEYSTORE:
			opts->keystore = arg;
			break;
		case OPT_SSH:
			opts->ssh = arg;
			break;
		case OPT_SSH_OPTION:
			add_text(&opts->ssh_options, &opts->n_ssh_options, arg);
			break;
		case OPT_SLOT:
			opts->slot = arg;
			break;
		case OPT_CREATE_SLOT:
			opts->create_slot = true;
			break;
		case OPT_AUTO_OPEN:
			opts->auto_open = true;
			break;
		case OPT_SET:
			add_text(&opts->settings, &opts->n_settings, arg);
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
static int
parse_options(int argc, char **argv, struct rcvall_options *opts)
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
	if (argc - optind != (opts->fetch_wal ? 2 : 0))
	{
		if (optind < argc)
			pgx_log_error("invalid argument %s", argv[argc - 1]);
		else
			pgx_log_error("the name of a WAL file and where to copy it are necessary for option %s", "--fetch-wal");
		pgx_log_advice();
		return PGX_EXIT_FAILURE;
	}
	return -1;
}

/* What chooses what is done: at most one of them, and what does not go with it. */
static bool
check_operation(const struct rcvall_options *opts)
{
	const struct
	{
		bool		given;
		const char *name;
	}			operations[] = {
		{opts->list, "-l"},
		{opts->view_copying, "--view-results-of-copying"},
		{opts->fetch_wal, "--fetch-wal"},
		{opts->dry_run, "--dry-run"},
		{opts->check, "--check"},
		{opts->standby, "--standby"},
	};
	const char *first = NULL;
	bool		recovers = !opts->list && !opts->view_copying && !opts->fetch_wal;

	for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++)
	{
		if (!operations[i].given)
			continue;
		if (!pgx_refuse_together(first != NULL, first, operations[i].name))
			return false;
		first = operations[i].name;
	}
	if (opts->check && (!pgx_refuse_together(opts->json, "--json", "--check") ||
						!pgx_refuse_together(opts->copy_command != NULL, "-Y", "--check") ||
						!pgx_refuse_together(opts->n_mappings > 0, "--tablespace-mapping", "--check")))
		return false;
	return recovers ||
		(pgx_refuse_together(opts->keystore_passphrase, "--keystore-passphrase", first) &&
		 pgx_refuse_together(opts->target_time != NULL, "-e", first) &&
		 pgx_refuse_together(opts->target_name != NULL, "-n", first) &&
		 pgx_refuse_together(opts->target_xid != NULL, "--xid", first) &&
		 pgx_refuse_together(opts->target_lsn != NULL, "--lsn", first) &&
		 pgx_refuse_together(opts->copy_command != NULL, "-Y", first) &&
		 pgx_refuse_together(opts->n_mappings > 0, "--tablespace-mapping", first) &&
		 pgx_refuse_together(opts->json && !opts->list, "--json", first));
}

/* At most one place where recovery ends; and values that are none are refused here. */
static bool
check_targets(const struct rcvall_options *opts)
{
	const char *const targets[][2] = {
		{opts->target_time, "-e"}, {opts->target_name, "-n"}, {opts->target_xid, "--xid"}, {opts->target_lsn, "--lsn"}
	};
	const char *first = NULL;
	uint32_t	number;

	for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++)
	{
		if (targets[i][0] == NULL)
			continue;
		if (!pgx_refuse_together(first != NULL, first, targets[i][1]))
			return false;
		first = targets[i][1];
	}
	if (opts->target_xid != NULL && !pgx_parse_uint(opts->target_xid, "--xid", 3, UINT32_MAX, &number))
		return false;
	if (opts->target_timeline != NULL && strcmp(opts->target_timeline, "latest") != 0 &&
		strcmp(opts->target_timeline, "current") != 0 &&
		!pgx_parse_uint(opts->target_timeline, "--target-timeline", 1, UINT32_MAX, &number))
		return false;
	if (opts->copy_command != NULL && opts->copy_command[0] != '/')
	{
		pgx_log_error("an invalid value was specified for the option %s", "-Y");
		pgx_log_hint("Specify the whole path.");
		return false;
	}
	return true;
}

/* What only goes with --standby, and what does not. */
static bool
check_standby(const struct rcvall_options *opts)
{
	const struct
	{
		bool		given;
		const char *name;
	}			own[] = {
		{opts->from != NULL, "--from"}, {opts->primary_conninfo != NULL, "--primary-conninfo"},
		{opts->keystore != NULL, "--keystore"}, {opts->ssh != NULL, "--ssh"},
		{opts->n_ssh_options > 0, "--ssh-option"}, {opts->slot != NULL, "--slot"},
		{opts->create_slot, "--create-slot"}, {opts->auto_open, "--auto-open"}, {opts->n_settings > 0, "--set"},
	};

	for (size_t i = 0; !opts->standby && i < sizeof(own) / sizeof(own[0]); i++)
	{
		if (!own[i].given)
			continue;
		pgx_log_error("option %s is necessary for option %s", "--standby", own[i].name);
		pgx_log_advice();
		return false;
	}
	if (!opts->standby)
		return true;
	if (opts->from == NULL && (opts->area == NULL || opts->primary_conninfo == NULL))
	{
		if (opts->area != NULL)
			pgx_log_error("option %s is necessary for option %s", "--primary-conninfo", "-B");
		else
			pgx_log_error("option %s is necessary for option %s", "--from", "--standby");
		pgx_log_hint("A standby is made of a server (--from) or of a backup (-B with --primary-conninfo).");
		return false;
	}
	if (opts->create_slot && opts->slot == NULL)
	{
		pgx_log_error("option %s is necessary for option %s", "--slot", "--create-slot");
		pgx_log_advice();
		return false;
	}
	/* What chooses a backup and restores it. */
	if (opts->from != NULL &&
		(!pgx_refuse_together(opts->area != NULL, "-B", "--from") ||
		 !pgx_refuse_together(opts->backup != NULL, "--backup", "--from") ||
		 !pgx_refuse_together(opts->copy_command != NULL, "-Y", "--from") ||
		 !pgx_refuse_together(opts->no_verify, "--no-verify", "--from") ||
		 !pgx_refuse_together(opts->jobs != 0, "--jobs", "--from")))
		return false;
	return (pgx_refuse_together(opts->target_time != NULL, "-e", "--standby") &&
		 pgx_refuse_together(opts->target_name != NULL, "-n", "--standby") &&
		 pgx_refuse_together(opts->target_xid != NULL, "--xid", "--standby") &&
		 pgx_refuse_together(opts->target_lsn != NULL, "--lsn", "--standby") &&
		 pgx_refuse_together(opts->target_timeline != NULL, "--target-timeline", "--standby") &&
		 pgx_refuse_together(opts->json, "--json", "--standby"));
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
	if (opts->fetch_wal && opts->area == NULL)
	{
		pgx_log_error("option %s is necessary for option %s", "-B", "--fetch-wal");
		return false;
	}
	return check_operation(opts) && check_targets(opts) && check_standby(opts);
}

static int
run(const struct rcvall_options *opts, char **args)
{
	if (opts->list)
		return list_backups(opts);
	if (opts->view_copying)
		return view_copying(opts);
	if (opts->fetch_wal)
		return fetch_wal(opts->area, args[0], args[1]);
	if (opts->check)
		return check_backup(opts);
	if (opts->standby)
		return standby_run(opts);
	return recover(opts);
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
	/* What the server runs must not end recovery where it ends itself. */
	if (!check_usage(&opts))
		return opts.fetch_wal ? FETCH_BROKEN : PGX_EXIT_FAILURE;
	rc = run(&opts, argv + optind);
	for (size_t i = 0; i < opts.n_mappings; i++)
	{
		free(opts.mappings[i].old);
		free(opts.mappings[i].new);
	}
	free(opts.mappings);
	free(opts.settings);
	free(opts.ssh_options);
	return pgx_finish_output(rc);
}
