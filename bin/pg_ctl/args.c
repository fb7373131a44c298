/*
 * args.c
 *		Read pg_ctl's command line the way pg_ctl does, and take our options out.
 *
 * The loop and the option letters follow main() of PostgreSQL 15's pg_ctl.c, so
 * that a word is an option, a value or the mode here exactly when it is there:
 * "pg_ctl -l --keystore-passphrase start" names a log file.
 */
#include <config.h>

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"
#include "shim.h"

#define PG_CTL_LETTERS	"cD:e:l:m:N:o:p:P:sS:t:U:wW"

#define OPTION_NAME		"--keystore-passphrase"
#define OPTION_FILE_NAME "--keystore-passphrase-file"

enum
{
	OPT_PASSPHRASE = 256, OPT_PASSPHRASE_FILE
};

static const struct option long_options[] = {
	{"help", no_argument, NULL, '?'},
	{"version", no_argument, NULL, 'V'},
	{"log", required_argument, NULL, 'l'},
	{"mode", required_argument, NULL, 'm'},
	{"pgdata", required_argument, NULL, 'D'},
	{"options", required_argument, NULL, 'o'},
	{"silent", no_argument, NULL, 's'},
	{"timeout", required_argument, NULL, 't'},
	{"core-files", no_argument, NULL, 'c'},
	{"wait", no_argument, NULL, 'w'},
	{"no-wait", no_argument, NULL, 'W'},
	{"keystore-passphrase", no_argument, NULL, OPT_PASSPHRASE},
	{"keystore-passphrase-file", required_argument, NULL, OPT_PASSPHRASE_FILE},
	{NULL, 0, NULL, 0}
};

static void
append_options(struct shim_args *args, const char *more)
{
	char	   *joined = args->options == NULL ? pgx_strdup(more) :
		pgx_printf("%s %s", args->options, more);

	free(args->options);
	args->options = joined;
}

/* getopt_long() refused word: is that about an option of ours? */
static bool
own_option_misused(const char *word, char *err, size_t err_len)
{
	size_t		name_len = strlen(OPTION_NAME);

	if (strncmp(word, OPTION_NAME "=", name_len + 1) == 0)
	{
		snprintf(err, err_len, "option %s takes no value: others could see it in the process list",
				 OPTION_NAME);
		return true;
	}
	if (strcmp(word, OPTION_FILE_NAME) == 0)
	{
		snprintf(err, err_len, "option %s requires a file name", OPTION_FILE_NAME);
		return true;
	}
	return false;
}

/* Leave out the words that were ours; they are known by address, since getopt_long() permutes. */
static void
build_argv(int argc, char **argv, char **ours, size_t n_ours, struct shim_args *args)
{
	int			i;
	size_t		j;

	args->argv = pgx_alloc(((size_t) argc + 1) * sizeof(char *));
	args->argc = 0;
	for (i = 0; i < argc; i++)
	{
		for (j = 0; j < n_ours && ours[j] != argv[i]; j++)
			continue;
		if (j == n_ours)
			args->argv[args->argc++] = argv[i];
	}
	args->argv[args->argc] = NULL;
}

/* One option as returned by getopt_long(); its last word is words[optind - 1]. */
static bool
take_option(int c, char **words, char **ours, size_t *n_ours, struct shim_args *args, char *err,
			size_t err_len)
{
	switch (c)
	{
		case OPT_PASSPHRASE:
			args->keystore_passphrase = true;
			ours[(*n_ours)++] = words[optind - 1];
			break;
		case OPT_PASSPHRASE_FILE:
			args->keystore_passphrase = true;
			args->passphrase_file = optarg;
			ours[(*n_ours)++] = words[optind - 1];
			if (optarg == words[optind - 1])
				ours[(*n_ours)++] = words[optind - 2];
			break;
		case 'D':
			args->pgdata = optarg;
			break;
		case 'p':
			args->exec_path = optarg;
			break;
		case 'o':
			append_options(args, optarg);
			break;
		case '?':
		case 'V':				/* known, but only as the first argument */
			if (own_option_misused(words[optind - 1], err, err_len))
				return false;
			args->rejected = true;
			break;
		default:
			break;
	}
	return true;
}

bool
shim_args_parse(int argc, char **argv, struct shim_args *ret_args, char *err, size_t err_len)
{
	struct shim_args args;
	char	  **words = pgx_alloc(((size_t) argc + 1) * sizeof(char *));
	char	  **ours = pgx_alloc(((size_t) argc * 2 + 1) * sizeof(char *));
	size_t		n_ours = 0;
	bool		ok = true;
	int			c;

	memset(&args, 0, sizeof(args));
	memcpy(words, argv, (size_t) argc * sizeof(char *));
	opterr = 0;					/* the real pg_ctl says what is wrong, in its words */
	optind = 0;					/* glibc: forget an earlier scan */
	do
	{
		while (ok && (c = getopt_long(argc, words, PG_CTL_LETTERS, long_options, NULL)) != -1)
			ok = take_option(c, words, ours, &n_ours, &args, err, err_len);
		if (!ok || optind >= argc)
			break;
		if (args.mode != NULL)
		{
			/* No reading on: glibc sets optind back to the first of several non-options. */
			args.rejected = true;
			break;
		}
		args.mode = words[optind];
		/* "kill" is followed by a signal name and a process id. */
		if (strcmp(words[optind], "kill") == 0)
			optind += argc - optind < 3 ? 0 : 2;
		optind++;
	} while (optind < argc);

	if (ok)
	{
		build_argv(argc, argv, ours, n_ours, &args);
		*ret_args = args;
	}
	else
		free(args.options);
	free(words);
	free(ours);
	return ok;
}

void
shim_args_clear(struct shim_args *args)
{
	free(args->argv);
	free(args->options);
	memset(args, 0, sizeof(*args));
}
