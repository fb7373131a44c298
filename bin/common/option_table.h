/*
 * option_table.h
 *		A command's options from one table: what getopt_long() takes, and what --help shows.
 */
#ifndef PGX_OPTION_TABLE_H
#define PGX_OPTION_TABLE_H

#include <stdbool.h>

struct pgx_option
{
	const char *name;
	char		letter;			/* 0: no short form */
	const char *arg;			/* NULL: takes none */
	const char *help;
};

/* The most that a table may hold. */
#define PGX_MAX_OPTIONS		64

/* What pgx_next_option() returns beside the place in the table. */
#define PGX_OPTIONS_END		(-1)
#define PGX_OPTIONS_WRONG	(-2)	/* the reason has been said, with the advice to use --help */

/*
 * The next option of the command line; its argument is in optarg, and after the last one optind is the place of
 * the first operand, as getopt_long() has it.
 */
extern int	pgx_next_option(int argc, char **argv, const struct pgx_option *table, int n);

/* The lines of --help, on standard output; width: of the column of options. */
extern void pgx_print_options(const struct pgx_option *table, int n, int width);

/* "given" is whether the first option is; false after a message if that must not be. */
extern bool pgx_refuse_together(bool given, const char *option, const char *other);

#endif							/* PGX_OPTION_TABLE_H */
