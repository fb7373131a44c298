/*
 * args.h
 *		The command line of the initdb front end.
 */
#ifndef PGX_INITDB_ARGS_H
#define PGX_INITDB_ARGS_H

#include <stdbool.h>
#include <stddef.h>

#include "cipher.h"

struct initdb_args
{
	/* ours */
	bool		encrypt;
	enum tde_algorithm alg;
	const char *keystore_location;	/* NULL: not given */
	bool		keystore_passphrase;
	const char *passphrase_file;	/* NULL: prompt */
	/* the real initdb's, as far as they matter here */
	const char *pgdata;			/* NULL if neither -D nor an argument is given */
	const char *waldir;
	bool		no_clean;
	bool		no_sync;
	bool		no_instructions;
	bool		only_passes;	/* --help, --version, --show, --sync-only, or what it refuses */
	char	  **argv;			/* without our options; NULL at the end, with room for two more */
	int			argc;
};

/*
 * Read a command line as the real initdb (PostgreSQL 15 to 18) does.  argv is not changed; strings are
 * borrowed from it.  False, with the reason in err, if our own options are misused.
 */
extern bool initdb_args_parse(int argc, char **argv, struct initdb_args *ret_args, char *err, size_t err_len);
extern void initdb_args_clear(struct initdb_args *args);

#endif							/* PGX_INITDB_ARGS_H */
