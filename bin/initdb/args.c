/*
 * args.c
 *		Read initdb's command line the way initdb does, and take our options out.
 *
 * So that a word is an option or a value here exactly when it is there: "initdb -U --encrypt" names a user.
 */
#include <config.h>

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "mem.h"

#define INITDB_LETTERS	"A:c:dD:E:gkL:nNsST:U:WX:?V"

enum
{
	OPT_ENCRYPT = 256, OPT_LOCATION, OPT_PASSPHRASE, OPT_PASSPHRASE_FILE, OPT_NO_INSTRUCTIONS, OPT_OTHER
};

static const struct option long_options[] = {
	{"encrypt", optional_argument, NULL, OPT_ENCRYPT},
	{"keystore-location", required_argument, NULL, OPT_LOCATION},
	{"keystore-passphrase", no_argument, NULL, OPT_PASSPHRASE},
	{"keystore-passphrase-file", required_argument, NULL, OPT_PASSPHRASE_FILE},
	{"pgdata", required_argument, NULL, 'D'},
	{"waldir", required_argument, NULL, 'X'},
	{"no-clean", no_argument, NULL, 'n'},
	{"no-sync", no_argument, NULL, 'N'},
	{"no-instructions", no_argument, NULL, OPT_NO_INSTRUCTIONS},
	{"help", no_argument, NULL, '?'},
	{"version", no_argument, NULL, 'V'},
	{"show", no_argument, NULL, 's'},
	{"sync-only", no_argument, NULL, 'S'},
	/* The rest only so that their values are not taken for something else. */
	{"encoding", required_argument, NULL, OPT_OTHER},
	{"locale", required_argument, NULL, OPT_OTHER},
	{"lc-collate", required_argument, NULL, OPT_OTHER},
	{"lc-ctype", required_argument, NULL, OPT_OTHER},
	{"lc-monetary", required_argument, NULL, OPT_OTHER},
	{"lc-numeric", required_argument, NULL, OPT_OTHER},
	{"lc-time", required_argument, NULL, OPT_OTHER},
	{"lc-messages", required_argument, NULL, OPT_OTHER},
	{"no-locale", no_argument, NULL, OPT_OTHER},
	{"locale-provider", required_argument, NULL, OPT_OTHER},
	{"builtin-locale", required_argument, NULL, OPT_OTHER},
	{"icu-locale", required_argument, NULL, OPT_OTHER},
	{"icu-rules", required_argument, NULL, OPT_OTHER},
	{"text-search-config", required_argument, NULL, 'T'},
	{"auth", required_argument, NULL, 'A'},
	{"auth-local", required_argument, NULL, OPT_OTHER},
	{"auth-host", required_argument, NULL, OPT_OTHER},
	{"pwprompt", no_argument, NULL, 'W'},
	{"pwfile", required_argument, NULL, OPT_OTHER},
	{"username", required_argument, NULL, 'U'},
	{"set", required_argument, NULL, 'c'},
	{"debug", no_argument, NULL, 'd'},
	{"discard-caches", no_argument, NULL, OPT_OTHER},
	{"no-data-checksums", no_argument, NULL, OPT_OTHER},
	{"data-checksums", no_argument, NULL, 'k'},
	{"wal-segsize", required_argument, NULL, OPT_OTHER},
	{"allow-group-access", no_argument, NULL, 'g'},
	{"sync-method", required_argument, NULL, OPT_OTHER},
	{"no-sync-data-files", no_argument, NULL, OPT_OTHER},
	{NULL, 0, NULL, 0}
};

static bool
take_algorithm(struct initdb_args *args, char *err, size_t err_len)
{
	args->encrypt = true;
	args->alg = TDE_AES256;
	if (optarg == NULL || (tde_algorithm_parse(optarg, &args->alg) == 0 && args->alg != TDE_NONE))
		return true;
	snprintf(err, err_len, "invalid value \"%s\" for option --encrypt: use AES128 or AES256", optarg);
	return false;
}

/* One option as returned by getopt_long(); *ret_ours tells whether the real initdb must not see it. */
static bool
take_option(int c, struct initdb_args *args, bool *ret_ours, char *err, size_t err_len)
{
	*ret_ours = c >= OPT_ENCRYPT && c <= OPT_PASSPHRASE_FILE;
	switch (c)
	{
		case OPT_ENCRYPT:
			return take_algorithm(args, err, err_len);
		case OPT_LOCATION:
			args->keystore_location = optarg;
			break;
		case OPT_PASSPHRASE:
			args->keystore_passphrase = true;
			break;
		case OPT_PASSPHRASE_FILE:
			args->keystore_passphrase = true;
			args->passphrase_file = optarg;
			break;
		case 'D':
			args->pgdata = optarg;
			break;
		case 'X':
			args->waldir = optarg;
			break;
		case 'n':
			args->no_clean = true;
			break;
		case 'N':
			args->no_sync = true;
			break;
		case OPT_NO_INSTRUCTIONS:
			args->no_instructions = true;
			break;
		case '?':				/* help, or what the real one refuses in its own words */
		case ':':
		case 'V':
		case 's':
		case 'S':
			args->only_passes = true;
			break;
		default:
			break;
	}
	return true;
}

/* Leave out the words that were ours; they are known by address, since getopt_long() permutes. */
static void
build_argv(int argc, char **argv, char **ours, size_t n_ours, struct initdb_args *args)
{
	args->argv = pgx_alloc(((size_t) argc + 3) * sizeof(char *));
	args->argc = 0;
	for (int i = 0; i < argc; i++)
	{
		size_t		j;

		for (j = 0; j < n_ours && ours[j] != argv[i]; j++)
			continue;
		if (j == n_ours)
			args->argv[args->argc++] = argv[i];
	}
	args->argv[args->argc] = NULL;
}

static bool
check_combination(const struct initdb_args *args, char *err, size_t err_len)
{
	bool		any = args->keystore_location != NULL || args->keystore_passphrase;

	if (any && !args->encrypt)
		snprintf(err, err_len, "options --keystore-location and --keystore-passphrase need --encrypt");
	else if (args->encrypt && args->only_passes)
		snprintf(err, err_len, "option --encrypt cannot be used with an option that makes no cluster, or that is "
				 "not known or abbreviated");
	else if (args->encrypt && args->keystore_location == NULL)
		snprintf(err, err_len, "option --encrypt needs --keystore-location");
	else
		return true;
	return false;
}

bool
initdb_args_parse(int argc, char **argv, struct initdb_args *ret_args, char *err, size_t err_len)
{
	struct initdb_args args;
	char	  **words = pgx_alloc(((size_t) argc + 1) * sizeof(char *));
	char	  **ours = pgx_alloc(((size_t) argc + 1) * sizeof(char *));
	size_t		n_ours = 0;
	bool		ok = true;
	int			c;

	memset(&args, 0, sizeof(args));
	memcpy(words, argv, (size_t) argc * sizeof(char *));
	opterr = 0;					/* what it does not know the real one complains about */
	optind = 0;
	while (ok && (c = getopt_long(argc, words, INITDB_LETTERS, long_options, NULL)) != -1)
	{
		bool		is_ours;

		ok = take_option(c, &args, &is_ours, err, err_len);
		/* The word or two of this option are the last that were passed; arguments before were moved behind. */
		if (is_ours)
		{
			ours[n_ours++] = words[optind - 1];
			if (optarg != NULL && optarg == words[optind - 1])
				ours[n_ours++] = words[optind - 2];
		}
	}
	if (ok && optind < argc && args.pgdata == NULL)
		args.pgdata = words[optind];
	ok = ok && check_combination(&args, err, err_len);
	if (ok)
	{
		build_argv(argc, argv, ours, n_ours, &args);
		*ret_args = args;
	}
	free(words);
	free(ours);
	return ok;
}

void
initdb_args_clear(struct initdb_args *args)
{
	free(args->argv);
	memset(args, 0, sizeof(*args));
}
