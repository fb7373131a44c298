/*
 * handover.h
 *		Open the keystore for a server that is about to be started, and hand the key to it.
 *
 * The key goes through a pipe whose read end the server inherits; an environment variable names the
 * descriptor.  Message: magic, keystore UUID, keystore key.
 */
#ifndef PGX_HANDOVER_H
#define PGX_HANDOVER_H

#include <stdbool.h>
#include <sys/resource.h>

#include "keystore.h"

#define PGX_HANDOVER_ENV		"PGX_KEYSTORE_FD"
#define PGX_HANDOVER_MAGIC		"PGXKSK01"
#define PGX_HANDOVER_MAGIC_LEN	8
#define PGX_HANDOVER_LEN		56

/*
 * Open a loaded keystore with a passphrase: of the file if that is not NULL, else asked for; on a terminal
 * up to three times.  Returns an exit code of log.h, with the reason said.
 */
extern int	pgx_keystore_ask(keystore *ks, const char *passphrase_file);

/* The message for the server that has this opened keystore; the caller wipes it.  An exit code, with the reason said. */
extern int	pgx_handover_message(keystore *ks, unsigned char ret_message[PGX_HANDOVER_LEN]);

/*
 * Write the opened keystore's key into a new pipe and name its read end, *ret_fd, in the environment of the programs
 * that are started from now on.  Returns an exit code, with the reason said.
 */
extern int	pgx_handover_prepare(keystore *ks, int *ret_fd);

/* Close the descriptor, which is then -1, and take it out of the environment.  Fine if it is -1. */
extern void pgx_handover_end(int *fd);

/* Core dumps are off while secrets are here, and as before for a server that is started. */
struct pgx_core_policy
{
	struct rlimit limit;
	int			dumpable;
	bool		changed;
};

extern void pgx_core_forbid(struct pgx_core_policy *ret_saved);
extern void pgx_core_restore(const struct pgx_core_policy *saved);

#endif							/* PGX_HANDOVER_H */
