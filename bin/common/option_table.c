/*
 * option_table.c
 *		A command's options from one table: what getopt_long() takes, and what --help shows.
 */
#include <config.h>

#include <assert.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "log.h"
#include "option_table.h"

/* What getopt_long() returns for a long option: above every character. */
#define OPT_BASE	256

int
pgx_next_option(int argc, char **argv, const struct pgx_option *table, int n)
{
	struct option long_options[PGX_MAX_OPTIONS + 1];
	char		letters[2 * PGX_MAX_OPTIONS + 1];
	size_t		n_letters = 0;
	int			c;

	assert(n <= PGX_MAX_OPTIONS);
	/* getopt_long() has this as its own word for what it does not know. */
	if (optind < argc && strcmp(argv[optind], "-?") == 0)
	{
		for (int i = 0; i < n; i++)
		{
			if (table[i].letter == '?')
			{
				optind++;
				return i;
			}
		}
	}
	memset(long_options, 0, sizeof(long_options));
	for (int i = 0; i < n; i++)
	{
		long_options[i].name = table[i].name;
		long_options[i].has_arg = table[i].arg != NULL ? required_argument : no_argument;
		long_options[i].val = OPT_BASE + i;
		if (table[i].letter == 0 || table[i].letter == '?')
			continue;
		letters[n_letters++] = table[i].letter;
		if (table[i].arg != NULL)
			letters[n_letters++] = ':';
	}
	letters[n_letters] = '\0';

	c = getopt_long(argc, argv, letters, long_options, NULL);
	if (c == -1)
		return PGX_OPTIONS_END;
	for (int i = 0; i < n; i++)
	{
		if (c == OPT_BASE + i || (c == table[i].letter && c != '?'))
			return i;
	}
	pgx_log_advice();			/* getopt_long() has said what is wrong */
	return PGX_OPTIONS_WRONG;
}

void
pgx_print_options(const struct pgx_option *table, int n, int width)
{
	for (int i = 0; i < n; i++)
	{
		const struct pgx_option *option = &table[i];
		char		text[64];

		(void) snprintf(text, sizeof(text), "%c%c%s--%s%s%s", option->letter ? '-' : ' ',
						option->letter ? option->letter : ' ', option->letter ? ", " : "  ", option->name,
						option->arg != NULL ? "=" : "", option->arg != NULL ? option->arg : "");
		printf("  %-*s %s\n", width, text, option->help);
	}
}

bool
pgx_refuse_together(bool given, const char *option, const char *other)
{
	if (!given)
		return true;
	pgx_log_error("option %s conflicts with option %s", option, other);
	pgx_log_advice();
	return false;
}
