/*
 * shim.h
 *		The parts of the pg_ctl shim.
 */
#ifndef PGX_SHIM_H
#define PGX_SHIM_H

#include <stdbool.h>
#include <stddef.h>

struct shim_args
{
	/* ours */
	bool		keystore_passphrase;
	const char *passphrase_file;	/* NULL: prompt */
	/* the real pg_ctl's, as far as they matter here */
	const char *mode;			/* NULL if there is none */
	const char *pgdata;			/* NULL if -D is not given */
	const char *exec_path;		/* -p, NULL if not given */
	char	   *options;		/* all -o, with blanks between; NULL if not given */
	bool		rejected;		/* the real pg_ctl will refuse this command line */
	char	  **argv;			/* without our options; NULL at the end */
	int			argc;
};

/*
 * Read a command line as the real pg_ctl (PostgreSQL 15) does.  argv is not changed; strings are
 * borrowed from it.  False, with the reason in err, if our own options are misused.
 */
extern bool shim_args_parse(int argc, char **argv, struct shim_args *ret_args, char *err, size_t err_len);
extern void shim_args_clear(struct shim_args *args);

/* The configured keystore file of the server that args would start, or NULL after a message. */
extern char *find_keystore(const struct shim_args *args, const char *pgdata, const char *real_pg_ctl);

#endif							/* PGX_SHIM_H */
