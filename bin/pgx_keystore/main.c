/*
 * main.c
 *		pgx_keystore: create, copy, inspect and open the keystore of an encrypted
 *		PostgreSQL server.
 *
 * One table of options (cmdline.c) and one of actions drive the parsing, the refusal of options
 * that an action does not take, the help, and which actions leave an audit line; the man page is
 * checked against the help.
 */
#include <config.h>

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit.h"
#include "cmdline.h"
#include "log.h"

#define SSH_OPTS		(BIT(OPT_SSH) | BIT(OPT_SSH_OPTION) | BIT(OPT_REMOTE_COMMAND))
#define CHANGE_OPTS		(BIT(OPT_DBNAME) | BIT(OPT_PASSPHRASE_FILE))
#define SEAL_OPTS		(BIT(OPT_SEAL) | BIT(OPT_PCRS) | BIT(OPT_CREDENTIAL) | BIT(OPT_TPM2_DEVICE))
#define FLEET_OPTS		(BIT(OPT_SERVERS) | BIT(OPT_TIMEOUT))

static const struct action action_table[] = {
	{"create", action_create, "create", BIT(OPT_PASSPHRASE_FILE) | BIT(OPT_LABEL) | KDF_OPTS, 1, 1,
	"FILE", "create a keystore with a first master key"},
	{"copy", action_copy, "copy", BIT(OPT_FROM) | BIT(OPT_TO) | BIT(OPT_FORCE) | BIT(OPT_SERVERS) |
		SSH_OPTS, 0, 0,
		"[--from NAME|FILE] --to NAME|DIR|HOST:DIR|all-standbys [--force]",
	"copy a keystore to another server's keystore directory"},
	{"receive", action_receive, "copy", BIT(OPT_FORCE), 1, 1,
	"[--force] DIR", "store the keystore read from standard input (the far end of copy)"},
	{"info", action_info, "open", BIT(OPT_JSON) | BIT(OPT_OPEN) | OPENING_OPTS, 1, 1,
	"[--json] [--open] FILE", "show what a keystore says about itself"},
	{"passwd", action_passwd, "change-passphrase", CHANGE_OPTS | BIT(OPT_NEW_PASSPHRASE_FILE) | KDF_OPTS,
		0, 1,
	"FILE | -d CONNINFO", "change a passphrase"},
	{"slot", action_slot, "slot", CHANGE_OPTS | BIT(OPT_NEW_PASSPHRASE_FILE) | KDF_OPTS |
		BIT(OPT_SLOT) | BIT(OPT_LABEL) | BIT(OPT_JSON), 1, 2,
		"list|add|change|remove|label [--slot ID] [--label TEXT] FILE | -d CONNINFO",
	"control who can open the keystore: one slot a custodian"},
	{"recovery-key", action_recovery_key, "add-recovery-key", CHANGE_OPTS | KDF_OPTS |
		BIT(OPT_LABEL) | BIT(OPT_STDOUT), 1, 2,
		"add [--label TEXT] FILE | -d CONNINFO",
	"make a key to be typed when every passphrase is lost"},
	{"benchmark", action_benchmark, NULL, BIT(OPT_KDF_TIME) | BIT(OPT_JSON), 0, 0,
		"[--kdf-time TIME]", "tell how long key derivation takes on this machine"},
	{"keys", action_keys, "open", CHANGE_OPTS | BIT(OPT_HOST_SECRET) | BIT(OPT_JSON), 0, 1,
	"[--json] FILE | -d CONNINFO", "list the master keys"},
	{"rotate", action_rotate, "rotate", CHANGE_OPTS | BIT(OPT_HOST_SECRET), 0, 1,
	"FILE | -d CONNINFO", "make a new master key the active one"},
	{"rekey", action_rekey, "rekey", CHANGE_OPTS | BIT(OPT_HOST_SECRET) | BIT(OPT_FORCE), 0, 1,
	"[--force] FILE | -d CONNINFO", "replace the keystore's own key, after a passphrase has leaked"},
	{"destroy", action_destroy, "destroy", CHANGE_OPTS | BIT(OPT_PGDATA) | BIT(OPT_BACKUP) | BIT(OPT_FORCE),
		1, 2,
		"[-D DATADIR] [--backup-destination DIR]... [--force] KEYID FILE | -d CONNINFO",
	"destroy a master key that nothing needs any more"},
	{"auto-open", action_auto_open, "auto-open", OPENING_OPTS | SEAL_OPTS, 2, 2,
		"enable|disable|status [--seal KIND] [--pcrs LIST] [--credential NAME] FILE",
	"control opening without a passphrase on this host"},
	{"backup", action_backup, "backup", OPENING_OPTS | BIT(OPT_TO) | BIT(OPT_OPEN), 1, 1,
	"--to DIR [--open] FILE", "make a dated copy that is verified"},
	{"verify", action_verify, "open", OPENING_OPTS | BIT(OPT_OPEN) | BIT(OPT_PGDATA), 1, 1,
	"[--open] [-D DATADIR] FILE", "examine a keystore and what lies beside it"},
	{"repair", action_repair, "repair", BIT(OPT_FROM) | BIT(OPT_FORCE), 1, 1,
	"[--from BACKUP] [--force] FILE", "put the former file or a backup in place of a damaged keystore"},
	{"status", action_status, NULL, FLEET_OPTS | BIT(OPT_JSON), 0, 0,
	"[--json] [--servers FILE] [--timeout SECONDS]", "ask every server of the servers file about its keystore"},
	{"compare", action_compare, "open", FLEET_OPTS | BIT(OPT_OPEN) | OPENING_OPTS, 2, 2,
	"[--open] NAME|FILE NAME|FILE", "tell what differs between two copies of a keystore"},
	{"get-key", action_get_key, "get-key", BIT(OPT_PURPOSE) | BIT(OPT_KEY_ID) | BIT(OPT_FORMAT) |
		BIT(OPT_LENGTH) | BIT(OPT_MASTER_KEY) | BIT(OPT_FORCE_TERMINAL) | OPENING_OPTS, 1, 1,
		"--purpose TEXT --key-id N [--format FORMAT] [--length BYTES] FILE",
	"print a key made from a master key, for another program"},
	{"exec", action_exec, "open", BIT(OPT_PGDATA) | BIT(OPT_WAL_DIRECTORY) | OPENING_OPTS, 1, INT_MAX,
		"-D DATADIR [--wal-directory DIR]... -- PROGRAM [ARGUMENT...]",
	"run a program that reads encrypted WAL, such as pg_waldump or pg_rewind"},
	{"open", action_open, "open", BIT(OPT_PGDATA) | BIT(OPT_PASSPHRASE_FILE), 0, 0,
		"-D DATADIR",
	"open the keystore of a server that waits for it at its start"},
	{"--enable-auto-open", action_enable_auto_open, "enable-auto-open",
		BIT(OPT_ENABLE_AUTO_OPEN) | OPENING_OPTS | SEAL_OPTS, 1, 1,
	"FILE", "the same as auto-open enable FILE"},
};

const struct action *const actions = action_table;
const size_t n_actions = sizeof(action_table) / sizeof(action_table[0]);

static int
print_version(void)
{
	printf("%s (pgx-tde) %s\n", pgx_progname(), PACKAGE_VERSION);
	return pgx_finish_output(PGX_EXIT_OK);
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
	for (i = 0; i < n_actions; i++)
	{
		if (strcmp(actions[i].name, name) == 0)
			return &actions[i];
	}
	pgx_log_error("unknown operation \"%s\"", name);
	pgx_log_advice();
	return NULL;
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

/* Values that are wrong whatever the operation does with them are told before anything is done. */
static bool
check_values(const struct command_line *cl)
{
	return (cl->seen & KDF_OPTS) == 0 || check_kdf_options(&cl->opts);
}

static int
run(const struct action *action, const struct command_line *cl, int n_args, char **args)
{
	const char *file = cl->opts.audit_file;

	if (action->event == NULL)
		return pgx_finish_output(action->run(&cl->opts, n_args, args));
	if (!pgx_audit_begin(action->event, file != NULL ? file : getenv(PGX_AUDIT_FILE_ENV)))
		return PGX_EXIT_FAILURE;
	return pgx_audit_end(pgx_finish_output(action->run(&cl->opts, n_args, args)));
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
	if (action == NULL || !check_usage(&cl, action, n_args, args))
		goto out;
	pgx_log_set_verbose(cl.opts.verbose);
	if ((cl.seen & BIT(OPT_CHECK_ARGS)) != 0)
		rc = check_values(&cl) ? PGX_EXIT_OK : PGX_EXIT_FAILURE;
	else if (check_values(&cl))
		rc = run(action, &cl, n_args, args);

out:
	command_line_clear(&cl);
	return rc;
}
