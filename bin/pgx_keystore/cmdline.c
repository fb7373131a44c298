/*
 * cmdline.c
 *		The options of pgx_keystore.  See cmdline.h.
 */
#include <config.h>

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmdline.h"
#include "log.h"
#include "mem.h"

/* What getopt_long() returns for a long option: above every character. */
#define OPT_BASE	256

enum option_kind
{
	KIND_NOTED,					/* only seen; the program looks at the set */
	KIND_FLAG,					/* bool */
	KIND_TEXT,					/* const char *, the last one counts */
	KIND_LIST					/* struct text_list, all of them */
};

struct option_def
{
	const char *name;
	char		letter;			/* 0: no short form */
	enum option_kind kind;
	size_t		offset;			/* of the field in struct options */
	const char *arg;			/* NULL: takes none */
	const char *help;			/* NULL: not shown */
};

#define HELP_WIDTH			90

#define FLAG(field)			0, KIND_FLAG, offsetof(struct options, field), NULL
#define TEXT(field, arg)	0, KIND_TEXT, offsetof(struct options, field), arg
#define LIST(field, arg)	0, KIND_LIST, offsetof(struct options, field), arg
#define LETTER(c, field, arg)	c, KIND_TEXT, offsetof(struct options, field), arg

static const struct option_def option_defs[N_OPTS] = {
	[OPT_AUDIT_FILE] = {"audit-file", TEXT(audit_file, "FILE"), "append the audit line to this file too"},
	[OPT_BACKUP] = {"backup-destination", LIST(backups, "DIR"), "look into these backups too; may be repeated"},
	[OPT_CHECK_ARGS] = {"check-args", 0, KIND_NOTED, 0, NULL, NULL},	/* for tests: stop before the action */
	[OPT_CREDENTIAL] = {"credential", TEXT(credential, "NAME"), "name of the systemd credential that seals"},
	[OPT_DBNAME] = {"dbname", LETTER('d', dbname, "CONNINFO"), "change that of this primary, and of its standbys"},
	[OPT_ENABLE_AUTO_OPEN] = {"enable-auto-open", 0, KIND_NOTED, 0, NULL, NULL},	/* shown as an action */
	[OPT_FIPS] = {"fips", FLAG(fips), "allow PBKDF2 only, now and ever after in this keystore"},
	[OPT_FORCE] = {"force", FLAG(force), "do what would be refused as dangerous; see the operation"},
	[OPT_FORCE_TERMINAL] = {"force-terminal", FLAG(force_terminal), "print a key even to a terminal"},
	[OPT_FORMAT] = {"format", TEXT(format, "FORMAT"), "form of a key: hex (default), base64 or raw"},
	[OPT_FROM] = {"from", TEXT(from, "NAME|FILE"), "this server's keystore, or a file (copy: default primary)"},
	[OPT_HELP] = {"help", '?', KIND_NOTED, 0, NULL, "show this help, then exit"},
	[OPT_HOST_SECRET] = {"host-secret", TEXT(host_secret, "FILE"), "secret of this host that auto-open is bound to"},
	[OPT_JSON] = {"json", FLAG(json), "print JSON"},
	[OPT_KDF] = {"kdf", TEXT(kdf_name, "NAME"), "key derivation: scrypt (default), argon2id or pbkdf2"},
	[OPT_KDF_COST] = {"kdf-cost", TEXT(kdf_cost, "N"), "scrypt: log2 of N; argon2id: passes; pbkdf2: iterations"},
	[OPT_KDF_TIME] = {"kdf-time", TEXT(kdf_time, "TIME"), "let a try take this long here, as 1s or 500ms"},
	[OPT_KEY_ID] = {"key-id", TEXT(key_id, "N"), "number of the master key to use"},
	[OPT_LABEL] = {"label", TEXT(label, "TEXT"), "whose slot it is, or what for"},
	[OPT_LENGTH] = {"length", TEXT(length, "BYTES"), "length of a key, 16 to 64 (default: 32)"},
	[OPT_MASTER_KEY] = {"master-key", FLAG(master_key), "give out the master key itself, not a key made from it"},
	[OPT_NEW_PASSPHRASE_FILE] = {"new-passphrase-file", TEXT(new_passphrase_file, "FILE"), "read the new passphrase from the first line of a file"},
	[OPT_OPEN] = {"open", FLAG(open), "ask for the passphrase, and show what only it opens"},
	[OPT_PASSPHRASE_FILE] = {"passphrase-file", TEXT(passphrase_file, "FILE"), "read the passphrase from the first line of a file"},
	[OPT_PCRS] = {"pcrs", TEXT(pcrs, "LIST"), "seal to these registers of the TPM, as 0,7"},
	[OPT_PGDATA] = {"pgdata", LETTER('D', pgdata, "DATADIR"), "data directory of the server"},
	[OPT_PURPOSE] = {"purpose", TEXT(purpose, "TEXT"), "what the key is for; every purpose has a key of its own"},
	[OPT_REMOTE_COMMAND] = {"remote-command", TEXT(remote_command, "PATH"), "pgx_keystore on the other host"},
	[OPT_SEAL] = {"seal", TEXT(seal, "KIND"), "bind auto-open to: host (default), tpm2, credential"},
	[OPT_SERVERS] = {"servers", TEXT(servers, "FILE"), "file that defines the server names"},
	[OPT_SLOT] = {"slot", TEXT(slot, "ID"), "number of the slot"},
	[OPT_SSH] = {"ssh", TEXT(ssh, "PROGRAM"), "program that reaches another host (default: ssh)"},
	[OPT_SSH_OPTION] = {"ssh-option", LIST(ssh_options, "OPTION"), "argument for that program; may be given several times"},
	[OPT_STDOUT] = {"stdout", FLAG(to_stdout), "print the recovery key although this is no terminal"},
	[OPT_TIMEOUT] = {"timeout", TEXT(timeout, "SECONDS"), "how long to wait for the servers (default: 10)"},
	[OPT_TO] = {"to", TEXT(to, "NAME|DIR|HOST:DIR"), "where: a server, or a directory here or elsewhere"},
	[OPT_TPM2_DEVICE] = {"tpm2-device", TEXT(tpm2_device, "TCTI"), "how to reach the TPM, as device:/dev/tpmrm0"},
	[OPT_VERBOSE] = {"verbose", 'v', KIND_FLAG, offsetof(struct options, verbose), NULL, "say more about what is done"},
	[OPT_VERSION] = {"version", 'V', KIND_NOTED, 0, NULL, "show the version, then exit"},
	[OPT_WAL_DIRECTORY] = {"wal-directory", LIST(wal_directories, "DIR"), "decrypt WAL in this directory too; may be repeated"},
};

/* How an action is called, in lines that a terminal shows whole; words that stay together have no break. */
static void
print_synopsis(const char *name, const char *synopsis)
{
	int			column = printf("  %s %s", pgx_progname(), name);
	int			depth = 0;
	const char *from = synopsis;

	for (const char *p = synopsis;; p++)
	{
		depth += (*p == '[') - (*p == ']');
		if (*p != '\0' && (*p != ' ' || depth > 0))
			continue;
		if (column + 1 + (int) (p - from) > HELP_WIDTH)
			column = printf("\n         ") - 1;
		column += printf(" %.*s", (int) (p - from), from);
		if (*p == '\0')
			break;
		from = p + 1;
	}
	putchar('\n');
}

void
print_help(void)
{
	size_t		i;

	printf("%s creates, changes, copies and opens the keystore of encrypted PostgreSQL servers.\n\n"
		   "Usage:\n", pgx_progname());
	for (i = 0; i < n_actions; i++)
	{
		print_synopsis(actions[i].name, actions[i].synopsis);
		printf("      %s\n", actions[i].help);
	}
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

static void
store_option(struct command_line *cl, int opt, const char *arg)
{
	const struct option_def *def = &option_defs[opt];
	char	   *field = (char *) &cl->opts + def->offset;

	cl->seen |= BIT(opt);
	switch (def->kind)
	{
		case KIND_NOTED:
			break;
		case KIND_FLAG:
			*(bool *) field = true;
			break;
		case KIND_TEXT:
			*(const char **) field = arg;
			break;
		case KIND_LIST:
			{
				struct text_list *list = (struct text_list *) field;

				list->items = pgx_realloc(list->items, (list->count + 1) * sizeof(*list->items));
				list->items[list->count++] = arg;
				break;
			}
	}
}

bool
parse_options(int argc, char **argv, struct command_line *cl)
{
	struct option long_options[N_OPTS + 1];
	char		letters[2 * N_OPTS + 1];
	char	   *next = letters;
	int			c;
	int			i;

	memset(long_options, 0, sizeof(long_options));
	for (i = 0; i < N_OPTS; i++)
	{
		long_options[i].name = option_defs[i].name;
		long_options[i].has_arg = option_defs[i].arg != NULL ? required_argument : no_argument;
		long_options[i].val = OPT_BASE + i;
		/* "-?" is getopt_long()'s own word for what it does not know. */
		if (option_defs[i].letter == 0 || option_defs[i].letter == '?')
			continue;
		*next++ = option_defs[i].letter;
		if (option_defs[i].arg != NULL)
			*next++ = ':';
	}
	*next = '\0';
	while ((c = getopt_long(argc, argv, letters, long_options, NULL)) != -1)
	{
		for (i = 0; c < OPT_BASE && i < N_OPTS; i++)
		{
			if (c != '?' && option_defs[i].letter == c)
				c = OPT_BASE + i;
		}
		if (c < OPT_BASE)
		{
			pgx_log_advice();	/* getopt_long() has said what is wrong */
			return false;
		}
		store_option(cl, c - OPT_BASE, optarg);
	}
	return true;
}

void
command_line_clear(struct command_line *cl)
{
	free(cl->opts.ssh_options.items);
	free(cl->opts.wal_directories.items);
	free(cl->opts.backups.items);
	memset(cl, 0, sizeof(*cl));
}

bool
check_usage(const struct command_line *cl, const struct action *action, int n_args, char **args)
{
	uint64_t	foreign = cl->seen & ~(action->allowed | COMMON_OPTS);
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
