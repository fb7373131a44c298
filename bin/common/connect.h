/*
 * connect.h
 *		Connections to servers, and the functions of our module there.
 */
#ifndef PGX_CONNECT_H
#define PGX_CONNECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libpq-fe.h>

/*
 * Keywords and values for PQconnectdbParams() and PQconnectStartParams() with expand_dbname, both
 * ended by NULL: the connection string, and what our connections have in common.
 */
#define PGX_CONNECT_PARAMS	8
extern void pgx_connect_params(const char *conninfo, const char *keywords[PGX_CONNECT_PARAMS],
							   const char *values[PGX_CONNECT_PARAMS]);

/*
 * Connect and set an empty search path; waits as long as libpq does.  A password is asked for if the server
 * wants one and a terminal is there.  NULL after a message; the caller PQfinish()es.
 */
extern PGconn *pgx_connect(const char *conninfo);

/* A libpq message without the newline at its end, and with only its first line; the caller frees it. */
extern char *pgx_first_line(const char *message);

/* Say why the statement failed, with the server's own detail and hint; what: "could not fetch ...". */
extern void pgx_log_result(const PGconn *conn, const PGresult *res, const char *what);

/* The keystore file's bytes from the server.  False after a message.  The caller frees *ret_buf (ciphertext). */
extern bool pgx_fetch_keystore(PGconn *conn, uint8_t **ret_buf, size_t *ret_len);

/*
 * Hand the server a new keystore file, which it checks, stores, activates and logs for its standbys.  envelope:
 * the new KSK under the old one, only after a rekey, else NULL.  False after a message.
 */
extern bool pgx_put_keystore(PGconn *conn, const uint8_t *buf, size_t len, const uint8_t *envelope,
							 size_t envelope_len);

#endif							/* PGX_CONNECT_H */
