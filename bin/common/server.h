/*
 * server.h
 *		What a server's configuration says, asked from the server's own binary.
 */
#ifndef PGX_SERVER_H
#define PGX_SERVER_H

#include <stdbool.h>
#include <stddef.h>

/*
 * The server's value of a parameter, asked from the server binary itself, so that includes,
 * postgresql.auto.conf and command-line options count as they do at start.  words: further
 * options for the server, n_words of them.  NULL if the
 * parameter is unknown; *ret_failed if the question could not be answered, after a message.
 * The caller frees the result.
 */
extern char *pgx_server_setting(const char *postgres, const char *pgdata, char *const *words,
								size_t n_words, const char *guc, bool *ret_failed);

/*
 * The directory of the server's keystore, absolute the way the server would make it: from its data
 * directory.  NULL after a message.  The caller frees it.
 */
extern char *pgx_server_keystore_location(const char *postgres, const char *pgdata,
										  char *const *words, size_t n_words);

/*
 * The data directory of a running server of this user whose keystore is in this directory, or NULL if none is known;
 * the caller frees it.  What runs as another user or in another container cannot be seen.
 */
extern char *pgx_server_using_keystore(const char *keystore_dir);

#endif							/* PGX_SERVER_H */
