/*
 * run.h
 *		Run another program by its argument vector.  No shell is ever involved.
 */
#ifndef PGX_RUN_H
#define PGX_RUN_H

#include <stdbool.h>
#include <stddef.h>

struct pgx_run
{
	/* in */
	const char *const *argv;	/* argv[0] is looked up in PATH unless it has a slash */
	const void *input;			/* for its standard input; NULL: /dev/null, or */
	bool		inherit_in;		/* that of this program */
	size_t		input_len;
	bool		capture_out;	/* else inherited */
	bool		capture_err;
	/* out */
	int			exit_code;		/* -1 if a signal ended it */
	int			signo;			/* that signal, else 0 */
	char	   *out;			/* captured text, NUL-terminated; pgx_run_clear() frees */
	char	   *err;
};

/*
 * Run and wait.  False, with the reason said, only if the program could not be
 * run; how it ended is in exit_code and signo.  A child that does not read its
 * input to the end is no failure here.
 */
extern bool pgx_run_wait(struct pgx_run *run);
extern void pgx_run_clear(struct pgx_run *run);

#endif							/* PGX_RUN_H */
