/*
 * cmdline.h
 *		The options of pgx_keystore: one table for parsing, for refusing what an
 *		operation does not take, for the help and for completion.
 */
#ifndef PGX_CMDLINE_H
#define PGX_CMDLINE_H

#include "actions.h"

enum
{
	OPT_AUDIT_FILE, OPT_BACKUP, OPT_CHECK_ARGS, OPT_CREDENTIAL, OPT_DBNAME, OPT_ENABLE_AUTO_OPEN,
	OPT_FIPS, OPT_FORCE, OPT_FORCE_TERMINAL, OPT_FORMAT, OPT_FROM, OPT_HELP, OPT_HOST_SECRET, OPT_JSON,
	OPT_KDF, OPT_KDF_COST, OPT_KDF_TIME, OPT_KEY_ID, OPT_LABEL, OPT_LENGTH, OPT_MASTER_KEY,
	OPT_NEW_PASSPHRASE_FILE, OPT_OPEN, OPT_PASSPHRASE_FILE, OPT_PCRS, OPT_PGDATA, OPT_PURPOSE,
	OPT_REMOTE_COMMAND, OPT_SEAL, OPT_SERVERS, OPT_SLOT, OPT_SSH, OPT_SSH_OPTION, OPT_STDOUT,
	OPT_TIMEOUT, OPT_TO, OPT_TPM2_DEVICE, OPT_VERBOSE, OPT_VERSION, OPT_WAL_DIRECTORY,
	N_OPTS
};

#define BIT(opt)	(UINT64_C(1) << (opt))
_Static_assert(N_OPTS <= 64, "a set of options is one word");

/* The options of each operation. */
#define COMMON_OPTS		(BIT(OPT_VERBOSE) | BIT(OPT_CHECK_ARGS) | BIT(OPT_AUDIT_FILE))
#define KDF_OPTS		(BIT(OPT_KDF) | BIT(OPT_KDF_COST) | BIT(OPT_KDF_TIME) | BIT(OPT_FIPS))
#define OPENING_OPTS	(BIT(OPT_PASSPHRASE_FILE) | BIT(OPT_HOST_SECRET) | BIT(OPT_TPM2_DEVICE))

struct action
{
	const char *name;
	int			(*run) (const struct options *opts, int n_args, char **args);
	const char *event;			/* of the audit line; NULL: none is written */
	uint64_t	allowed;
	int			min_args;
	int			max_args;
	const char *synopsis;		/* after the name */
	const char *help;
};

extern const struct action *const actions;
extern const size_t n_actions;

struct command_line
{
	struct options opts;
	uint64_t	seen;			/* BIT of each option given */
};

/* Options may stand anywhere; positional arguments end up at argv[optind].  False after a message. */
extern bool parse_options(int argc, char **argv, struct command_line *cl);
extern void command_line_clear(struct command_line *cl);

/* Refuse the options that the action does not take, and a wrong number of arguments. */
extern bool check_usage(const struct command_line *cl, const struct action *action, int n_args,
						char **args);

extern void print_help(void);

#endif							/* PGX_CMDLINE_H */
