/*
 * main.c
 *		pgx_keystore: create, copy, inspect and open the keystore of an encrypted
 *		PostgreSQL server.
 *
 * One table of options and one of actions drive the parsing, the refusal of options that an
 * action does not take, and the help; the man page is checked against the help.
 */
#include <config.h>

#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "actions.h"
#include "log.h"
#include "mem.h"
#include "options.h"

enum
{
	OPT_FROM, OPT_TO, OPT_FORCE, OPT_SERVERS, OPT_SSH, OPT_SSH_OPTION, OPT_REMOTE_COMMAND,
	OPT_PASSPHRASE_FILE, OPT_NEW_PASSPHRASE_FILE, OPT_HOST_SECRET, OPT_KDF, OPT_KDF_COST,
	OPT_PGDATA, OPT_WAL_DIRECTORY, OPT_OPEN, OPT_JSON, OPT_ENABLE_AUTO_OPEN, OPT_VERBOSE, OPT_VERSION, OPT_HELP, OPT_CHECK_ARGS,
	N_OPTS
};

#define BIT(opt)	(1u << (opt))

/* What getopt_long() returns for a long option: above every character. */
#define OPT_BASE	256

struct option_def
{
	const char *name;
	char		letter;			/* 0: no short form */
	const char *arg;			/* NULL: takes none */
	const char *help;			/* NULL: not shown */
};

static const struct option_def option_defs[N_OPTS] = {
	[OPT_FROM] = {"from", 0, "NAME|FILE", "copy this server's keystore, or this file (default: primary)"},
	[OPT_TO] = {"to", 0, "NAME|DIR|HOST:DIR", "copy to this server, directory, or directory of another host"},
	[OPT_FORCE] = {"force", 0, NULL, "replace another or a newer keystore; it is kept as keystore.ks.prev"},
	[OPT_SERVERS] = {"servers", 0, "FILE", "file that defines the server names"},
	[OPT_SSH] = {"ssh", 0, "PROGRAM", "program that reaches another host (default: ssh)"},
	[OPT_SSH_OPTION] = {"ssh-option", 0, "OPTION", "argument for that program; may be given several times"},
	[OPT_REMOTE_COMMAND] = {"remote-command", 0, "PATH", "pgx_keystore on the other host"},
	[OPT_PASSPHRASE_FILE] = {"passphrase-file", 0, "FILE", "read the passphrase from the first line of a file"},
	[OPT_NEW_PASSPHRASE_FILE] = {"new-passphrase-file", 0, "FILE", "read the new passphrase from the first line of a file"},
	[OPT_HOST_SECRET] = {"host-secret", 0, "FILE", "secret of this host that auto-open is bound to"},
	[OPT_KDF] = {"kdf", 0, "NAME", "key derivation: scrypt (default) or pbkdf2"},
	[OPT_KDF_COST] = {"kdf-cost", 0, "N", "scrypt: log2 of N, 10 to 24; pbkdf2: iterations"},
	[OPT_PGDATA] = {"pgdata", 'D', "DATADIR", "data directory of the server"},
	[OPT_WAL_DIRECTORY] = {"wal-directory", 0, "DIR", "decrypt WAL segments of this directory too; may be given several times"},
	[OPT_OPEN] = {"open", 0, NULL, "ask for the passphrase and list the master keys too"},
	[OPT_JSON] = {"json", 0, NULL, "print JSON"},
	[OPT_ENABLE_AUTO_OPEN] = {"enable-auto-open", 0, NULL, NULL},	/* shown as an action */
	[OPT_VERBOSE] = {"verbose", 'v', NULL, "say more about what is done"},
	[OPT_VERSION] = {"version", 'V', NULL, "show the version, then exit"},
	[OPT_HELP] = {"help", '?', NULL, "show this help, then exit"},
	[OPT_CHECK_ARGS] = {"check-args", 0, NULL, NULL},	/* for tests: stop before the action */
};

#define COMMON_OPTS		(BIT(OPT_VERBOSE) | BIT(OPT_CHECK_ARGS))
#define KDF_OPTS		(BIT(OPT_KDF) | BIT(OPT_KDF_COST))

struct action
{
	const char *name;
	int			(*run) (const struct options *opts, int n_args, char **args);
	unsigned	allowed;
	int			min_args;
	int			max_args;
	const char *synopsis;		/* after the name */
	const char *help;
};

static const struct action actions[] = {
	{"create", action_create, BIT(OPT_PASSPHRASE_FILE) | KDF_OPTS, 1, 1,
	"FILE", "create a keystore with a first master key"},
	{"copy", action_copy, BIT(OPT_FROM) | BIT(OPT_TO) | BIT(OPT_FORCE) | BIT(OPT_SERVERS) |
		BIT(OPT_SSH) | BIT(OPT_SSH_OPTION) | BIT(OPT_REMOTE_COMMAND), 0, 0,
		"[--from NAME|FILE] --to NAME|DIR|HOST:DIR [--force]",
	"copy a keystore to another server's keystore directory"},
	{"receive", action_receive, BIT(OPT_FORCE), 1, 1,
	"[--force] DIR", "store the keystore read from standard input (the far end of copy)"},
	{"info", action_info, BIT(OPT_JSON) | BIT(OPT_OPEN) | BIT(OPT_PASSPHRASE_FILE) |
		BIT(OPT_HOST_SECRET), 1, 1,
	"[--json] [--open] FILE", "show what a keystore says about itself"},
	{"passwd", action_passwd, BIT(OPT_PASSPHRASE_FILE) | BIT(OPT_NEW_PASSPHRASE_FILE) | KDF_OPTS, 1, 1,
	"FILE", "change the passphrase while no server uses the keystore"},
	{"auto-open", action_auto_open, BIT(OPT_PASSPHRASE_FILE) | BIT(OPT_HOST_SECRET), 2, 2,
	"enable|disable|status FILE", "control opening without a passphrase on this host"},
	{"exec", action_exec, BIT(OPT_PGDATA) | BIT(OPT_WAL_DIRECTORY) | BIT(OPT_PASSPHRASE_FILE) |
		BIT(OPT_HOST_SECRET), 1, INT_MAX,
	"-D DATADIR [--wal-directory DIR]... -- PROGRAM [ARGUMENT...]",
	"run a program that reads encrypted WAL, such as pg_waldump or pg_rewind"},
	{"--enable-auto-open", action_enable_auto_open,
		BIT(OPT_ENABLE_AUTO_OPEN) | BIT(OPT_PASSPHRASE_FILE) | BIT(OPT_HOST_SECRET), 1, 1,
	"FILE", "the same as auto-open enable FILE"},
};

#define N_ACTIONS	(sizeof(actions) / sizeof(actions[0]))

struct command_line
{
	struct options opts;
	unsigned	seen;			/* BIT of each option given */
	const char *kdf_name;
	const char *kdf_cost;
	struct keystore_kdf_params kdf;
};

static void
print_help(void)
{
	size_t		i;

	printf("%s creates, copies and opens the keystore of an encrypted PostgreSQL server.\n\n"
		   "Usage:\n", pgx_progname());
	for (i = 0; i < N_ACTIONS; i++)
		printf("  %s %s %s\n      %s\n", pgx_progname(), actions[i].name, actions[i].synopsis,
			   actions[i].help);
	printf("\nOptions:\n");
	for (i = 0; i < N_OPTS; i++)
	{
		const struct option_def *def = &option_defs[i];
		char		text[64];

		if (def->help == NULL)
			continue;
		snprintf(text, sizeof(text), "%c%c%s--%s%s%s", def->letter ? '-' : ' ',
				 def->letter ? def->letter : ' ', def->letter ? ", " : "  ", def->name,
				 def->arg != NULL ? "=" : "", def->arg != NULL ? def->arg : "");
		printf("  %-32s %s\n", text, def->help);
	}
	printf("\nA passphrase is asked for on the terminal; without a terminal it is a line of standard\n"
		   "input.  Exit status: 0 done, 1 failed, 2 passphrase wrong or key not usable.\n");
}

static int
print_version(void)
{
	printf("%s (pgx-tde) %s\n", pgx_progname(), PACKAGE_VERSION);
	return pgx_finish_output(PGX_EXIT_OK);
}

static void
store_option(struct command_line *cl, int opt, const char *arg)
{
	struct options *opts = &cl->opts;

	cl->seen |= BIT(opt);
	switch (opt)
	{
		case OPT_FROM:
			opts->from = arg;
			break;
		case OPT_TO:
			opts->to = arg;
			break;
		case OPT_FORCE:
			opts->force = true;
			break;
		case OPT_SERVERS:
			opts->servers = arg;
			break;
		case OPT_SSH:
			opts->ssh = arg;
			break;
		case OPT_SSH_OPTION:
			opts->ssh_options = pgx_realloc(opts->ssh_options,
											(opts->n_ssh_options + 1) * sizeof(*opts->ssh_options));
			opts->ssh_options[opts->n_ssh_options++] = arg;
			break;
		case OPT_REMOTE_COMMAND:
			opts->remote_command = arg;
			break;
		case OPT_PASSPHRASE_FILE:
			opts->passphrase_file = arg;
			break;
		case OPT_NEW_PASSPHRASE_FILE:
			opts->new_passphrase_file = arg;
			break;
		case OPT_HOST_SECRET:
			opts->host_secret = arg;
			break;
		case OPT_PGDATA:
			opts->pgdata = arg;
			break;
		case OPT_WAL_DIRECTORY:
			opts->wal_directories = pgx_realloc(opts->wal_directories,
												(opts->n_wal_directories + 1) * sizeof(*opts->wal_directories));
			opts->wal_directories[opts->n_wal_directories++] = arg;
			break;
		case OPT_KDF:
			cl->kdf_name = arg;
			break;
		case OPT_KDF_COST:
			cl->kdf_cost = arg;
			break;
		case OPT_OPEN:
			opts->open = true;
			break;
		case OPT_JSON:
			opts->json = true;
			break;
		case OPT_VERBOSE:
			opts->verbose = true;
			break;
		default:				/* only noted as seen */
			break;
	}
}

/* Numbers of RFC 7914 and of the format; NULL stays where neither option is given. */
static bool
choose_kdf(struct command_line *cl)
{
	const char *name = cl->kdf_name != NULL ? cl->kdf_name : "scrypt";

	if ((cl->seen & KDF_OPTS) == 0)
		return true;
	if (strcmp(name, "scrypt") == 0)
	{
		cl->kdf = (struct keystore_kdf_params)
		{
			.kdf = KEYSTORE_KDF_SCRYPT,.cost = 17,.block_size = 8,.parallelism = 1
		};
		if (cl->kdf_cost != NULL &&
			!pgx_parse_uint(cl->kdf_cost, "--kdf-cost", 10, 24, &cl->kdf.cost))
			return false;
	}
	else if (strcmp(name, "pbkdf2") == 0)
	{
		cl->kdf = (struct keystore_kdf_params)
		{
			.kdf = KEYSTORE_KDF_PBKDF2_SHA512,.cost = 210000
		};
		if (cl->kdf_cost != NULL &&
			!pgx_parse_uint(cl->kdf_cost, "--kdf-cost", 210000, 100000000, &cl->kdf.cost))
			return false;
	}
	else
	{
		pgx_log_error("unknown key derivation \"%s\"", name);
		pgx_log_hint("Known are \"scrypt\" and \"pbkdf2\".");
		return false;
	}
	cl->opts.kdf = &cl->kdf;
	return true;
}

/* Options may stand anywhere; positional arguments end up at argv[optind]. */
static bool
parse_options(int argc, char **argv, struct command_line *cl)
{
	struct option long_options[N_OPTS + 1];
	int			c;
	int			i;

	memset(long_options, 0, sizeof(long_options));
	for (i = 0; i < N_OPTS; i++)
	{
		long_options[i].name = option_defs[i].name;
		long_options[i].has_arg = option_defs[i].arg != NULL ? required_argument : no_argument;
		long_options[i].val = OPT_BASE + i;
	}
	while ((c = getopt_long(argc, argv, "D:vV", long_options, NULL)) != -1)
	{
		if (c == 'v')
			c = OPT_BASE + OPT_VERBOSE;
		else if (c == 'V')
			c = OPT_BASE + OPT_VERSION;
		else if (c == 'D')
			c = OPT_BASE + OPT_PGDATA;
		if (c < OPT_BASE)
		{
			pgx_log_advice();	/* getopt_long() has said what is wrong */
			return false;
		}
		store_option(cl, c - OPT_BASE, optarg);
	}
	return true;
}

/* The action of this run, and its arguments in *args; NULL after a message. */
static const struct action *
find_action(const struct command_line *cl, int *n_args, char ***args)
{
	const char *name = "--enable-auto-open";
	size_t		i;

	if ((cl->seen & BIT(OPT_ENABLE_AUTO_OPEN)) == 0)
	{
		if (*n_args == 0)
		{
			pgx_log_error("no operation is specified");
			pgx_log_advice();
			return NULL;
		}
		name = (*args)[0];
		(*args)++;
		(*n_args)--;
	}
	for (i = 0; i < N_ACTIONS; i++)
	{
		if (strcmp(actions[i].name, name) == 0)
			return &actions[i];
	}
	pgx_log_error("unknown operation \"%s\"", name);
	pgx_log_advice();
	return NULL;
}

static bool
check_usage(const struct command_line *cl, const struct action *action, int n_args, char **args)
{
	unsigned	foreign = cl->seen & ~(action->allowed | COMMON_OPTS);
	int			i;

	for (i = 0; i < N_OPTS; i++)
	{
		if ((foreign & BIT(i)) != 0)
		{
			pgx_log_error("option --%s cannot be used with operation \"%s\"", option_defs[i].name,
						  action->name);
			pgx_log_hint("Usage: %s %s %s", pgx_progname(), action->name, action->synopsis);
			return false;
		}
	}
	if (n_args > action->max_args)
		pgx_log_error("too many command-line arguments (first is \"%s\")", args[action->max_args]);
	else if (n_args < action->min_args && action->max_args == 1)
		pgx_log_error("keystore location is not specified");
	else if (n_args < action->min_args)
		pgx_log_error("too few command-line arguments");
	else
		return true;
	pgx_log_hint("Usage: %s %s %s", pgx_progname(), action->name, action->synopsis);
	return false;
}

/* No core dump, no debugger of the same user, no file for others. */
static void
harden(void)
{
	const struct rlimit no_core = {0, 0};

	(void) umask(077);
	/* Lowering one's own limit and dropping a permission cannot fail. */
	(void) setrlimit(RLIMIT_CORE, &no_core);
	(void) prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

int
main(int argc, char **argv)
{
	struct command_line cl;
	const struct action *action;
	int			n_args;
	char	  **args;
	int			rc = PGX_EXIT_FAILURE;

	pgx_log_init(argv[0]);
	harden();
	memset(&cl, 0, sizeof(cl));
	cl.opts.ssh = "ssh";
	cl.opts.remote_command = "pgx_keystore";

	if (argc > 1 && strcmp(argv[1], "-?") == 0)
	{
		print_help();
		return pgx_finish_output(PGX_EXIT_OK);
	}
	if (!parse_options(argc, argv, &cl))
		goto out;
	if ((cl.seen & BIT(OPT_HELP)) != 0)
	{
		print_help();
		rc = pgx_finish_output(PGX_EXIT_OK);
		goto out;
	}
	if ((cl.seen & BIT(OPT_VERSION)) != 0)
	{
		rc = print_version();
		goto out;
	}
	n_args = argc - optind;
	args = argv + optind;
	action = find_action(&cl, &n_args, &args);
	if (action == NULL || !check_usage(&cl, action, n_args, args) || !choose_kdf(&cl))
		goto out;
	pgx_log_set_verbose(cl.opts.verbose);
	if ((cl.seen & BIT(OPT_CHECK_ARGS)) != 0)
		rc = PGX_EXIT_OK;
	else
		rc = pgx_finish_output(action->run(&cl.opts, n_args, args));

out:
	free(cl.opts.ssh_options);
	free(cl.opts.wal_directories);
	return rc;
}
