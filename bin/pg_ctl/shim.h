/*
 * shim.h
 *		The parts of the pg_ctl shim.
 */
#ifndef PGX_SHIM_H
#define PGX_SHIM_H

#include <stdbool.h>
#include <stddef.h>

/* The descriptor's number, for the server module; what comes through it is below. */
#define HANDOVER_ENV		"PGX_KEYSTORE_FD"

/* Message: magic, keystore UUID, keystore key. */
#define HANDOVER_MAGIC		"PGXKSK01"
#define HANDOVER_MAGIC_LEN	8
#define HANDOVER_LEN		56

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

/*
 * The next pg_ctl in PATH that is not this program, else the one in bindir.  The caller frees it.
 * NULL, with the reason said, if there is none.
 */
extern char *find_real_pg_ctl(const char *path, const char *bindir);

/* The configured keystore file of the server that args would start, or NULL after a message. */
extern char *find_keystore(const struct shim_args *args, const char *pgdata, const char *real_pg_ctl);

/*
 * Open the keystore and write its key into a pipe.  *ret_fd is the read end, to be inherited.  Returns
 * an exit code of log.h.
 */
extern int	handover_prepare(const char *keystore_path, const char *passphrase_file, int *ret_fd);

#endif							/* PGX_SHIM_H */
