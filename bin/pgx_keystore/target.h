/*
 * target.h
 *		What an operation works on: a keystore file, or the keystore of a running server.
 *
 * With a server, all of the work on passphrases is done here: the file's bytes are fetched, changed, and
 * handed back.  The server checks, stores and activates them, and logs them for its standbys.
 */
#ifndef PGX_TARGET_H
#define PGX_TARGET_H

#include <libpq-fe.h>

#include "actions.h"

struct target
{
	const char *path;			/* NULL: a server */
	PGconn	   *conn;
	char	   *name;			/* for messages: file "..." or server "..." */
	uint8_t		envelope[KEYSTORE_ENVELOPE_LEN];	/* of a rekey, from the change */
	bool		rekeyed;
};

/*
 * FILE in args, or -d in the options, never both; connects.  For a file, the directory is looked at: while a
 * server is at work on it, changes are refused, if writes is set.  Returns an exit code.
 */
extern int	target_begin(struct target *target, const struct options *opts, int n_args, char **args,
						 bool writes);
extern void target_end(struct target *target);

/* Load the keystore, closed; an exit code. */
extern int	target_load(struct target *target, const struct options *opts, keystore *ks);

/* Change an opened keystore in memory; an exit code, with the reason said.  arg: whatever it needs. */
typedef int (*target_change_fn) (keystore *ks, void *arg);

/*
 * Load it again, under the file's lock, since it may have been changed while a person was thinking; open it with the
 * key that ks had, change it, and store it.  ks is then what was stored.
 */
extern int	target_change(struct target *target, const struct options *opts, keystore *ks,
						  target_change_fn change, void *arg);

#endif							/* PGX_TARGET_H */
