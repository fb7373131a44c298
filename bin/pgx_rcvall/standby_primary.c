/*
 * standby_primary.c
 *		The server that a standby is made of: what it has, the slot, and whether it is streaming to us.
 */
#include <config.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "child.h"
#include "connect.h"
#include "file.h"
#include "log.h"
#include "mem.h"
#include "run.h"
#include "server.h"
#include "standby.h"

#define POLL_US			200000
#define WAIT_CONNECT_S	60		/* for the standby's first connection */
#define WAIT_SLOT_S		10		/* for a broken connection to let go of the slot */

/* A query with one text parameter, or none.  NULL after a message. */
static PGresult *
query(PGconn *conn, const char *sql, const char *param, const char *what)
{
	const char *params[] = {param};
	PGresult   *res = PQexecParams(conn, sql, param != NULL ? 1 : 0, NULL, params, NULL, NULL, 0);

	if (PQresultStatus(res) == PGRES_TUPLES_OK)
		return res;
	pgx_log_result(conn, res, what);
	PQclear(res);
	return NULL;
}

static bool
check_version(struct standby *s)
{
	const char *const argv[] = {s->postgres, "--version", NULL};
	struct pgx_run run = {.argv = argv,.capture_out = true};
	const char *number = NULL;
	bool		ok;

	if (!pgx_run_wait(&run))
		return false;
	if (run.exit_code == 0)
		number = strpbrk(run.out, "0123456789");
	ok = number != NULL && strtol(number, NULL, 10) == PQserverVersion(s->conn) / 10000;
	if (!ok)
	{
		pgx_log_error("the server is of PostgreSQL %d, but \"%s\" is of another version",
					  PQserverVersion(s->conn) / 10000, s->postgres);
		pgx_log_hint("Put the directory of the right programs first in PATH.");
	}
	pgx_run_clear(&run);
	return ok;
}

static bool
read_tablespaces(struct standby *s)
{
	PGresult   *res = query(s->conn, "SELECT pg_catalog.pg_tablespace_location(oid) FROM pg_catalog.pg_tablespace "
							"WHERE pg_catalog.pg_tablespace_location(oid) ~ '^/' ORDER BY oid", NULL,
							"could not read the list of tablespaces");

	if (res == NULL)
		return false;
	s->n_tablespaces = (size_t) PQntuples(res);
	s->tablespaces = pgx_alloc((s->n_tablespaces + 1) * sizeof(*s->tablespaces));
	for (size_t i = 0; i < s->n_tablespaces; i++)
		s->tablespaces[i].location = pgx_strdup(PQgetvalue(res, (int) i, 0));
	PQclear(res);
	for (size_t i = 0; i < s->n_tablespaces; i++)
	{
		const char *to = s->tablespaces[i].location;

		for (size_t j = 0; j < s->opts->n_mappings; j++)
		{
			if (strcmp(s->opts->mappings[j].old, s->tablespaces[i].location) == 0)
				to = s->opts->mappings[j].new;
		}
		s->tablespaces[i].target = pgx_strdup(to);
	}
	return true;
}

/* Over a socket it is this machine, and paths there are paths here. */
static bool
is_same_here(PGconn *conn, const char *theirs, const char *ours)
{
	struct stat a;
	struct stat b;

	return PQhost(conn)[0] == '/' && stat(theirs, &a) == 0 && stat(ours, &b) == 0 && a.st_dev == b.st_dev &&
		a.st_ino == b.st_ino;
}

/* Has it the module and a keystore?  Then the standby needs one. */
static bool
find_keystore_directory(struct standby *s)
{
	PGresult   *res = query(s->conn, "SELECT COALESCE(pg_catalog.current_setting('pgx_tde.keystore_location', true), '')",
							NULL, "could not read the server's configuration");
	bool		has = res != NULL && PQgetvalue(res, 0, 0)[0] != '\0';

	bool		same = has && s->opts->keystore_location != NULL &&
		is_same_here(s->conn, PQgetvalue(res, 0, 0), s->opts->keystore_location);

	PQclear(res);
	if (res == NULL)
		return false;
	if (same)
	{
		pgx_log_error("keystore directory \"%s\" is that of the primary", s->opts->keystore_location);
		pgx_log_hint("Each server has a keystore directory of its own.");
		return false;
	}
	if (has != (s->opts->keystore_location != NULL))
	{
		if (has)
			pgx_log_error("option %s is necessary for option %s", "--keystore-location", "--standby");
		else
			pgx_log_error("the server has no keystore");
		if (has)
			pgx_log_hint("Name a directory for the standby's own copy of the keystore.");
		return false;
	}
	if (has)
	{
		s->keystore_dir = pgx_absolute(s->opts->keystore_location);
		s->keystore_path = pgx_join(s->keystore_dir, KEYSTORE_FILE_NAME);
	}
	return true;
}

bool
standby_connect(struct standby *s)
{
	char	   *source;

	if (!standby_check_conninfo(s->opts))
		return false;
	source = standby_source_conninfo(s->source);
	s->conn = pgx_connect(source);
	free(source);
	if (s->conn == NULL)
		return false;
	s->conninfo = s->opts->primary_conninfo != NULL ? pgx_strdup(s->opts->primary_conninfo) : standby_conninfo_of(s->conn);
	/* A backup knows its own tablespaces. */
	return check_version(s) && standby_check_connection(s) && (s->opts->from == NULL || read_tablespaces(s)) &&
		find_keystore_directory(s) && standby_check_slot(s);
}

/* NULL after a message. */
char *
standby_system_identifier(struct standby *s)
{
	PGresult   *res = query(s->conn, "SELECT system_identifier FROM pg_catalog.pg_control_system()", NULL,
							"could not ask the server who it is");
	char	   *text = res != NULL ? pgx_strdup(PQgetvalue(res, 0, 0)) : NULL;

	PQclear(res);
	return text;
}

/* A server without the extension in this database does not tell; the key table will. */
char *
standby_keystore_uuid(struct standby *s)
{
	PGresult   *res = PQexec(s->conn, "SELECT uuid FROM pg_catalog.pgx_keystore_state()");
	char	   *uuid = NULL;

	if (PQresultStatus(res) == PGRES_TUPLES_OK && PQntuples(res) == 1 && !PQgetisnull(res, 0, 0))
		uuid = pgx_strdup(PQgetvalue(res, 0, 0));
	PQclear(res);
	return uuid;
}

/* ---- the slot ------------------------------------------------------------------------------- */

bool
standby_check_slot(struct standby *s)
{
	const char *slot = s->opts->slot;
	PGresult   *res;
	bool		ok = false;

	if (slot == NULL)
		return true;
	res = query(s->conn, "SELECT slot_type, active FROM pg_catalog.pg_replication_slots WHERE slot_name = $1", slot,
				"could not read the list of replication slots");
	if (res == NULL)
		return false;
	if (PQntuples(res) == 0 && !s->opts->create_slot)
	{
		pgx_log_error("replication slot \"%s\" does not exist", slot);
		pgx_log_hint("Use option --create-slot to make it.");
	}
	else if (PQntuples(res) > 0 && s->opts->create_slot)
	{
		pgx_log_error("replication slot \"%s\" already exists", slot);
		pgx_log_hint("Choose another name, or leave out --create-slot if it was made for this standby.");
	}
	else if (PQntuples(res) > 0 && strcmp(PQgetvalue(res, 0, 0), "physical") != 0)
		pgx_log_error("replication slot \"%s\" is not a physical one", slot);
	else if (PQntuples(res) > 0 && strcmp(PQgetvalue(res, 0, 1), "t") == 0)
		pgx_log_error("replication slot \"%s\" is in use", slot);
	else
		ok = true;
	PQclear(res);
	return ok;
}

bool
standby_make_slot(struct standby *s)
{
	PGresult   *res;

	if (!s->opts->create_slot)
		return true;
	/* It keeps WAL from now on, not only from the standby's first connection. */
	res = query(s->conn, "SELECT slot_name FROM pg_catalog.pg_create_physical_replication_slot($1, true)", s->opts->slot,
				"could not create the replication slot");
	s->made_slot = res != NULL;
	PQclear(res);
	if (s->made_slot)
		printf("Replication slot: %s\n", s->opts->slot);
	return s->made_slot;
}

/*
 * Whoever used it is ours: pg_basebackup's second process, which goes on for a while when the first is ended, or the
 * standby's receiver, which may be gone without the server's knowing yet.
 */
void
standby_drop_slot(struct standby *s)
{
	const char *params[] = {s->opts->slot};
	bool		ok = false;

	if (!s->made_slot)
		return;
	if (PQstatus(s->conn) != CONNECTION_OK)
		PQreset(s->conn);
	for (int tries = 0; !ok && tries < WAIT_SLOT_S * 1000000 / POLL_US; tries++)
	{
		PGresult   *res = PQexecParams(s->conn, "SELECT pg_catalog.pg_terminate_backend(active_pid) FROM "
									   "pg_catalog.pg_replication_slots WHERE slot_name = $1 AND active_pid IS NOT NULL",
									   1, NULL, params, NULL, NULL, 0);

		PQclear(res);
		res = PQexecParams(s->conn, "SELECT pg_catalog.pg_drop_replication_slot($1)", 1, NULL, params, NULL, NULL, 0);

		ok = PQresultStatus(res) == PGRES_TUPLES_OK;
		PQclear(res);
		if (PQstatus(s->conn) != CONNECTION_OK)
			break;
		if (!ok)
			(void) usleep(POLL_US);
	}
	if (ok)
		return;
	pgx_log_warning("could not drop replication slot \"%s\"", s->opts->slot);
	pgx_log_hint("It keeps WAL on the primary: drop it there with pg_drop_replication_slot().");
}

/* ---- does it stream? ------------------------------------------------------------------------- */

/* Is the server there?  Its number is the first line of postmaster.pid. */
static long
postmaster_pid(const struct standby *s)
{
	char	   *path = pgx_join(s->pgdata, "postmaster.pid");
	FILE	   *f = fopen(path, "re");
	long		pid = 0;

	free(path);
	if (f == NULL)
		return 0;
	if (fscanf(f, "%ld", &pid) != 1 || pid <= 0 || kill((pid_t) pid, 0) != 0)
		pid = 0;
	(void) fclose(f);
	return pid;
}

/* The name under which the standby's receiver shows on the primary. */
static char *
application_name(const struct standby *s)
{
	PQconninfoOption *parts = PQconninfoParse(s->conninfo, NULL);
	char	   *name = NULL;
	bool		failed;

	for (PQconninfoOption *p = parts; p != NULL && p->keyword != NULL; p++)
	{
		if (strcmp(p->keyword, "application_name") == 0 && p->val != NULL)
			name = pgx_strdup(p->val);
	}
	PQconninfoFree(parts);
	if (name == NULL)
		name = pgx_server_setting(s->postgres, s->pgdata, NULL, 0, "cluster_name", &failed);
	if (name == NULL || name[0] == '\0')
	{
		free(name);
		name = pgx_strdup("walreceiver");
	}
	return name;
}

/*
 * Ask the server that it follows.  Who has been there since before standby_begin_wait() is another one.  1: it streams, 0: not yet, -1: cannot be told, after a message.
 */
static int
is_streaming(PGconn *conn, const char *name, bool *ret_seen)
{
	PGresult   *res = query(conn, "SELECT state FROM pg_catalog.pg_stat_replication WHERE application_name = $1 "
							"AND backend_start >= pg_catalog.current_setting('pgx_rcvall.begin')::pg_catalog.timestamptz "
							"ORDER BY backend_start DESC LIMIT 1", name, "could not read pg_stat_replication");
	int			streams;

	if (res == NULL)
		return -1;
	*ret_seen = PQntuples(res) > 0;
	streams = *ret_seen && strcmp(PQgetvalue(res, 0, 0), "streaming") == 0;
	PQclear(res);
	return streams;
}

/* What the server's clock says now, kept in our session there. */
bool
standby_begin_wait(struct standby *s)
{
	PGresult   *res = query(s->conn, "SELECT pg_catalog.set_config('pgx_rcvall.begin', "
							"pg_catalog.clock_timestamp()::pg_catalog.text, false)", NULL,
							"could not ask the server for the time");
	bool		ok = res != NULL;

	PQclear(res);
	return ok;
}

bool
standby_wait(struct standby *s)
{
	char	   *name = application_name(s);
	int			left = WAIT_CONNECT_S * (1000000 / POLL_US);
	int			streams = 0;
	bool		seen;

	while (left > 0 && streams == 0)
	{
		streams = is_streaming(s->conn, name, &seen);
		if (pgx_interrupted())
			streams = -1;
		else if (streams == 0 && postmaster_pid(s) == 0)
		{
			pgx_log_error("the standby has stopped");
			streams = -1;
		}
		left -= !seen;
		if (streams == 0)
			(void) usleep(POLL_US);
	}
	if (streams == 0)
		pgx_log_error("the standby does not stream from the primary after %d seconds", WAIT_CONNECT_S);
	free(name);
	return streams == 1;
}
