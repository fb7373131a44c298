/*
 * connect.c
 *		Connections to servers.  See connect.h.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "connect.h"
#include "keystore.h"
#include "log.h"
#include "mem.h"
#include "prompt.h"

#define UNDEFINED_FUNCTION	"42883"

void
pgx_connect_params(const char *conninfo, const char *keywords[PGX_CONNECT_PARAMS],
				   const char *values[PGX_CONNECT_PARAMS])
{
	size_t		n = 0;

	/* What follows the expanded connection string would win over it, so only fallbacks do. */
	keywords[n] = "fallback_application_name";
	values[n++] = pgx_progname();
	keywords[n] = "dbname";
	values[n++] = conninfo;
	keywords[n] = NULL;
	values[n] = NULL;
}

char *
pgx_first_line(const char *message)
{
	return pgx_strndup(message, strcspn(message, "\n"));
}

/* Connect once more with a password from the terminal. */
static PGconn *
connect_with_password(const char *conninfo)
{
	const char *keywords[PGX_CONNECT_PARAMS];
	const char *values[PGX_CONNECT_PARAMS];
	struct pgx_passphrase password;
	PGconn	   *conn = NULL;
	size_t		n = 0;

	if (!pgx_passphrase_read(NULL, "Password of the database user: ", NULL, &password))
		return NULL;
	pgx_connect_params(conninfo, keywords, values);
	while (keywords[n] != NULL)
		n++;
	if (password.len < PGX_PASSPHRASE_BUF)
	{
		password.bytes[password.len] = '\0';
		keywords[n] = "password";
		values[n++] = password.bytes;
		keywords[n] = NULL;
		values[n] = NULL;
		conn = PQconnectdbParams(keywords, values, 1);
	}
	else
		pgx_log_error("password is too long");
	pgx_passphrase_wipe(&password);
	return conn;
}

PGconn *
pgx_connect(const char *conninfo)
{
	const char *keywords[PGX_CONNECT_PARAMS];
	const char *values[PGX_CONNECT_PARAMS];
	PGconn	   *conn;
	PGresult   *res;
	bool		ok;

	pgx_connect_params(conninfo, keywords, values);
	conn = PQconnectdbParams(keywords, values, 1);
	if (conn != NULL && PQstatus(conn) == CONNECTION_BAD && PQconnectionNeedsPassword(conn) == 1 &&
		pgx_prompt_interactive())
	{
		PQfinish(conn);
		conn = connect_with_password(conninfo);
		if (conn == NULL)
			return NULL;
	}
	if (conn == NULL)
	{
		pgx_log_error("out of memory");
		return NULL;
	}
	if (PQstatus(conn) != CONNECTION_OK)
	{
		char	   *why = pgx_first_line(PQerrorMessage(conn));

		pgx_log_error("could not connect to the server: %s", why);
		free(why);
		PQfinish(conn);
		return NULL;
	}
	/* As all of PostgreSQL's own clients do: nobody can put a function in front of those we call. */
	res = PQexec(conn, "SELECT pg_catalog.set_config('search_path', '', false)");
	ok = PQresultStatus(res) == PGRES_TUPLES_OK;
	if (!ok)
		pgx_log_result(conn, res, "could not set the search path");
	PQclear(res);
	if (ok)
		return conn;
	PQfinish(conn);
	return NULL;
}

void
pgx_log_result(const PGconn *conn, const PGresult *res, const char *what)
{
	const char *primary = res != NULL ? PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY) : NULL;
	const char *detail = res != NULL ? PQresultErrorField(res, PG_DIAG_MESSAGE_DETAIL) : NULL;
	const char *hint = res != NULL ? PQresultErrorField(res, PG_DIAG_MESSAGE_HINT) : NULL;
	const char *state = res != NULL ? PQresultErrorField(res, PG_DIAG_SQLSTATE) : NULL;
	char	   *text = primary != NULL ? pgx_strdup(primary) : pgx_first_line(PQerrorMessage(conn));

	pgx_log_error("%s: %s", what, text[0] != '\0' ? text : "unexpected answer of the server");
	if (detail != NULL)
		pgx_log_detail("%s", detail);
	if (state != NULL && strcmp(state, UNDEFINED_FUNCTION) == 0)
		pgx_log_hint("The database \"%s\" must have the extension pgx_tde of this version: run "
					 "CREATE EXTENSION pgx_tde, or ALTER EXTENSION pgx_tde UPDATE.", PQdb(conn));
	else if (hint != NULL)
		pgx_log_hint("%s", hint);
	free(text);
}

bool
pgx_fetch_keystore(PGconn *conn, uint8_t **ret_buf, size_t *ret_len)
{
	PGresult   *res;
	bool		ok;

	res = PQexecParams(conn, "SELECT pg_catalog.pgx_get_keystore()", 0, NULL, NULL, NULL, NULL, 1);
	ok = PQresultStatus(res) == PGRES_TUPLES_OK && PQntuples(res) == 1 && PQnfields(res) == 1;
	if (!ok)
		pgx_log_result(conn, res, "could not fetch the keystore");
	else if (PQgetisnull(res, 0, 0))
	{
		pgx_log_error("the server has no keystore");
		ok = false;
	}
	else
	{
		*ret_len = (size_t) PQgetlength(res, 0, 0);
		*ret_buf = pgx_alloc(*ret_len);
		memcpy(*ret_buf, PQgetvalue(res, 0, 0), *ret_len);
	}
	PQclear(res);
	return ok;
}

bool
pgx_put_keystore(PGconn *conn, const uint8_t *buf, size_t len, const uint8_t *envelope,
				 size_t envelope_len)
{
	static const int binary[2] = {1, 1};
	const char *values[2] = {(const char *) buf, (const char *) envelope};
	const int	lengths[2] = {(int) len, (int) envelope_len};
	int			n = envelope != NULL ? 2 : 1;
	PGresult   *res;
	bool		ok;

	if (len > KEYSTORE_MAX_FILE_SIZE)
	{
		pgx_log_error("the new keystore is larger than %d bytes", KEYSTORE_MAX_FILE_SIZE);
		return false;
	}
	/* As a parameter, so that no log of statements has it, though it is ciphertext. */
	res = PQexecParams(conn, n == 2 ? "SELECT pg_catalog.pgx_store_keystore($1::pg_catalog.bytea, $2::pg_catalog.bytea)" :
					   "SELECT pg_catalog.pgx_store_keystore($1::pg_catalog.bytea)",
					   n, NULL, values, lengths, binary, 1);
	ok = PQresultStatus(res) == PGRES_TUPLES_OK;
	if (!ok)
		pgx_log_result(conn, res, "could not store the new keystore");
	PQclear(res);
	return ok;
}
