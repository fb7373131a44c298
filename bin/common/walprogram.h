/*
 * walprogram.h
 *		Programs of PostgreSQL beside the server, run so that they see decrypted WAL.
 *
 * Such a program gets the I/O layer and, in a memory file, the one key that it needs: that of WAL.  It
 * never gets the keystore's key or a master key.
 */
#ifndef PGX_WALPROGRAM_H
#define PGX_WALPROGRAM_H

#include <stdbool.h>
#include <stddef.h>

#include "keystore.h"
#include "keytable.h"

/* In a data directory. */
#define PGX_KEYTABLE		"pgx_tde/keys"

/* The server's program in PATH, else in the directory of the server we were built for; the caller frees it. */
extern char *pgx_postgres_find(void);

/* A program of the same installation, "pg_waldump" say; the caller frees it. */
extern char *pgx_postgres_program(const char *postgres, const char *name);

/*
 * Read a key table and unwrap its keys with those of the opened keystore, or of the table's own key ring, if the
 * keystore is an older one; ks then knows those keys too.  Returns an exit code of log.h, with the reason said.
 * *ret_kt is freed by the caller, also after a failure.
 */
extern int	pgx_keytable_open(keystore *ks, const char *path, tde_keytable **ret_kt);

/* Has the opened table a key of WAL? */
extern bool pgx_keytable_has_wal(const tde_keytable *kt);

/*
 * Set the environment, for programs that are started from now on, so that they decrypt the segments in the given
 * directories.  False, with the reason said, if that cannot be done.
 */
extern bool pgx_wal_environment_set(const tde_keytable *kt, const char *postgres,
									const char *const *dirs, size_t n_dirs, int *ret_fd);

/* Take it back, after pgx_wal_environment_set() gave the descriptor. */
extern void pgx_wal_environment_end(int *fd);

#endif							/* PGX_WALPROGRAM_H */
