/*
 * standby_conninfo.c
 *		Connection strings of a standby: what it is built with, what it will follow, and whether the latter works.
 *
 * The standby connects from its server's process, which has neither a terminal nor the environment of whoever
 * builds it.  That is tried before anything is made: otherwise it would be found out after hours of copying.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include <libpq-fe.h>

#include "connect.h"
#include "keystore.h"
#include "log.h"
#include "mem.h"
#include "standby.h"

/* A password would show in the list of processes, ours and pg_basebackup's, and stay in a file. */
static bool
check_conninfo(const char *conninfo, const char *option)
{
	char	   *why = NULL;
	PQconninfoOption *parts = PQconninfoParse(conninfo, &why);
	bool		has_password = false;

	if (parts == NULL)
	{
		char	   *line = pgx_first_line(why != NULL ? why : "out of memory");

		pgx_log_error("invalid value for option %s: %s", option, line);
		free(line);
		PQfreemem(why);
		return false;
	}
	for (PQconninfoOption *p = parts; p->keyword != NULL; p++)
	{
		if (strcmp(p->keyword, "password") == 0 && p->val != NULL)
			has_password = true;
	}
	PQconninfoFree(parts);
	if (has_password)
	{
		pgx_log_error("a password cannot be given with option %s", option);
		pgx_log_hint("Put it into a password file, ~/.pgpass or the one that \"passfile\" names.");
	}
	return !has_password;
}

/* 'value', as a connection string wants it, added to the text. */
static char *
add_part(char *text, const char *keyword, const char *value)
{
	char	   *quoted = pgx_alloc(2 * strlen(value) + 1);
	char	   *more;
	size_t		n = 0;

	for (const char *p = value; *p != '\0'; p++)
	{
		if (*p == '\'' || *p == '\\')
			quoted[n++] = '\\';
		quoted[n++] = *p;
	}
	more = pgx_printf("%s%s%s='%s'", text, text[0] != '\0' ? " " : "", keyword, quoted);
	free(quoted);
	free(text);
	return more;
}

/* What the connection was made with, as pg_basebackup -R notes it, but never a password or a name. */
char *
standby_conninfo_of(PGconn *conn)
{
	/* The name in the environment is the one of whoever runs this; cluster_name is the standby's. */
	static const char *const left_out[] = {
		"password", "dbname", "replication", "fallback_application_name", "application_name"
	};
	PQconninfoOption *parts = PQconninfo(conn);
	char	   *text = pgx_strdup("");

	for (PQconninfoOption *p = parts; p != NULL && p->keyword != NULL; p++)
	{
		bool		skip = p->val == NULL || p->val[0] == '\0';

		for (size_t i = 0; i < sizeof(left_out) / sizeof(left_out[0]); i++)
			skip = skip || strcmp(p->keyword, left_out[i]) == 0;
		if (!skip)
			text = add_part(text, p->keyword, p->val);
	}
	PQconninfoFree(parts);
	return text;
}

bool
standby_check_conninfo(const struct rcvall_options *opts)
{
	return (opts->from == NULL || check_conninfo(opts->from, "--from")) &&
		(opts->primary_conninfo == NULL || check_conninfo(opts->primary_conninfo, "--primary-conninfo"));
}

/* What a standby connects with need not name a database; we need one.  The caller frees it. */
char *
standby_source_conninfo(const char *conninfo)
{
	PQconninfoOption *parts = PQconninfoParse(conninfo, NULL);
	char	   *text = pgx_strdup("");
	bool		named = getenv("PGDATABASE") != NULL || getenv("PGSERVICE") != NULL;

	for (PQconninfoOption *p = parts; p != NULL && p->keyword != NULL; p++)
	{
		if (p->val == NULL)
			continue;
		named |= strcmp(p->keyword, "dbname") == 0 || strcmp(p->keyword, "service") == 0;
		text = add_part(text, p->keyword, p->val);
	}
	PQconninfoFree(parts);
	return named ? text : add_part(text, "dbname", "postgres");
}

/* ---- as the standby will connect ----------------------------------------------------------------- */

/* What libpq would take a password from, but a server has only if whoever starts it has it. */
static const char *const passing[] = {"PGPASSWORD", "PGPASSFILE"};

#define N_PASSING	(sizeof(passing) / sizeof(passing[0]))

void
standby_forget_passwords(void)
{
	for (size_t i = 0; i < N_PASSING; i++)
		(void) unsetenv(passing[i]);
}

/* As libpqwalreceiver does it.  pg_basebackup will need the environment again. */
static PGconn *
connect_as_standby(const char *conninfo)
{
	const char *const keywords[] = {"dbname", "replication", "dbname", "fallback_application_name", NULL};
	const char *const values[] = {conninfo, "true", "replication", pgx_progname(), NULL};
	char	   *kept[N_PASSING];
	PGconn	   *conn;
	bool		ok = true;

	for (size_t i = 0; i < N_PASSING; i++)
		kept[i] = getenv(passing[i]) != NULL ? pgx_strdup(getenv(passing[i])) : NULL;
	standby_forget_passwords();
	conn = PQconnectdbParams(keywords, values, 1);
	for (size_t i = 0; i < N_PASSING; i++)
	{
		if (kept[i] == NULL)
			continue;
		ok = setenv(passing[i], kept[i], 1) == 0 && ok;
		keystore_wipe(kept[i], strlen(kept[i]));
		free(kept[i]);
	}
	if (conn == NULL || !ok)
	{
		pgx_log_error("out of memory");
		PQfinish(conn);
		return NULL;
	}
	return conn;
}

static void
say_not_connected(PGconn *conn)
{
	char	   *why = pgx_first_line(PQerrorMessage(conn));

	pgx_log_error("could not connect to the primary as the standby will: %s", why);
	if (PQconnectionNeedsPassword(conn) == 1 || PQconnectionUsedPassword(conn) == 1)
		pgx_log_hint("It takes a password from a password file only, ~/.pgpass or the one that \"passfile\" in the "
					 "connection string names; the database of its line is \"replication\" or \"*\".");
	else
		pgx_log_hint("Its user needs the attribute REPLICATION, and a line for the database \"replication\" in the "
					 "primary's pg_hba.conf.");
	free(why);
}

/* Is it the server that everything else comes from?  Its standbys have the same identifier. */
static bool
check_identity(struct standby *s, PGconn *conn)
{
	PGresult   *res = PQexec(conn, "IDENTIFY_SYSTEM");
	char	   *known = NULL;
	bool		ok = false;

	if (PQresultStatus(res) != PGRES_TUPLES_OK || PQntuples(res) != 1)
		pgx_log_result(conn, res, "could not ask the server who it is");
	else if ((known = standby_system_identifier(s)) != NULL)
	{
		ok = strcmp(known, PQgetvalue(res, 0, 0)) == 0;
		if (!ok)
			pgx_log_error("the servers of the options %s and %s are not the same", "--from", "--primary-conninfo");
	}
	free(known);
	PQclear(res);
	return ok;
}

bool
standby_check_connection(struct standby *s)
{
	PGconn	   *conn = connect_as_standby(s->conninfo);
	bool		ok = false;

	if (conn == NULL)
		return false;
	if (PQstatus(conn) != CONNECTION_OK)
		say_not_connected(conn);
	else
		ok = check_identity(s, conn);
	PQfinish(conn);
	return ok;
}
