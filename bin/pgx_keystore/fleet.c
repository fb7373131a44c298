/*
 * fleet.c
 *		Asking every server about its keystore.  See fleet.h.
 *
 * All connections are made and all questions asked at once, by libpq's asynchronous
 * functions and one poll(), so that servers that hang cost one timeout together.
 */
#include <config.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "connect.h"
#include "fleet.h"
#include "log.h"
#include "mem.h"

/*
 * The function is in pg_catalog, the view may be in any schema.  Columns are looked up by name, and times
 * through JSON, so that a server whose module has fewer of them is understood too.
 */
static const char question[] =
	"SELECT pg_catalog.pg_is_in_recovery() AS in_recovery, s.*, "
	"EXTRACT(epoch FROM (pg_catalog.to_jsonb(s) ->> 'last_rotation')::pg_catalog.timestamptz)::pg_catalog.int8 "
	"AS rotation_epoch, "
	"EXTRACT(epoch FROM (pg_catalog.to_jsonb(s) ->> 'last_backup')::pg_catalog.timestamptz)::pg_catalog.int8 "
	"AS backup_epoch "
	"FROM pg_catalog.pgx_keystore_state() AS s";

#define UNDEFINED_FUNCTION	"42883"

enum stage
{
	STAGE_CONNECTING,
	STAGE_ASKED,
	STAGE_DONE
};

struct talk
{
	struct fleet_row *row;
	PGconn	   *conn;
	enum stage	stage;
	short		events;			/* what poll() waits for */
};

static void
fail(struct talk *talk, const char *reason)
{
	talk->row->error = pgx_first_line(reason);
	talk->stage = STAGE_DONE;
}

static void
begin(struct talk *talk)
{
	const char *keywords[PGX_CONNECT_PARAMS];
	const char *values[PGX_CONNECT_PARAMS];

	if (talk->row->server->conninfo == NULL)
	{
		fail(talk, "no conninfo in the servers file");
		return;
	}
	pgx_connect_params(talk->row->server->conninfo, keywords, values);
	talk->conn = PQconnectStartParams(keywords, values, 1);
	if (talk->conn == NULL)
		fail(talk, "out of memory");
	else if (PQstatus(talk->conn) == CONNECTION_BAD)
		fail(talk, PQerrorMessage(talk->conn));
	else
	{
		talk->stage = STAGE_CONNECTING;
		talk->events = POLLOUT; /* as PQconnectPoll()'s description has it */
	}
}

static void
go_on_connecting(struct talk *talk)
{
	switch (PQconnectPoll(talk->conn))
	{
		case PGRES_POLLING_READING:
			talk->events = POLLIN;
			return;
		case PGRES_POLLING_WRITING:
			talk->events = POLLOUT;
			return;
		case PGRES_POLLING_OK:
			if (PQsetnonblocking(talk->conn, 1) == 0 && PQsendQuery(talk->conn, question) == 1)
			{
				talk->stage = STAGE_ASKED;
				talk->events = POLLIN | POLLOUT;
				return;
			}
			break;
		default:
			break;
	}
	fail(talk, PQerrorMessage(talk->conn));
}

/* The text of a column, or NULL. */
static char *
column(const PGresult *res, const char *name)
{
	int			i = PQfnumber(res, name);

	if (i < 0 || PQgetisnull(res, 0, i))
		return NULL;
	return pgx_strdup(PQgetvalue(res, 0, i));
}

static bool
column_is_true(const PGresult *res, const char *name)
{
	int			i = PQfnumber(res, name);

	return i >= 0 && !PQgetisnull(res, 0, i) && strcmp(PQgetvalue(res, 0, i), "t") == 0;
}

static void
take_row(struct fleet_row *row, const PGresult *res)
{
	row->reachable = row->has_module = true;
	row->role = pgx_strdup(column_is_true(res, "in_recovery") ? "standby" : "primary");
	row->state = column(res, "status");
	row->opened_by = column(res, "opened_by");
	row->uuid = column(res, "uuid");
	row->generation = column(res, "generation");
	row->active_key = column(res, "active_master_key");
	row->auto_open = column(res, "auto_open");
	row->last_rotation = column(res, "rotation_epoch");
	row->has_backup_column = PQfnumber(res, "last_backup") >= 0;
	row->last_backup = column(res, "backup_epoch");
	row->backup_current = column_is_true(res, "backup_current");
}

static void
take_answer(struct talk *talk)
{
	PGresult   *res = PQgetResult(talk->conn);
	const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);

	if (PQresultStatus(res) == PGRES_TUPLES_OK && PQntuples(res) == 1)
	{
		take_row(talk->row, res);
		talk->stage = STAGE_DONE;
	}
	else if (state != NULL && strcmp(state, UNDEFINED_FUNCTION) == 0)
	{
		talk->row->reachable = true;
		fail(talk, "the database has no extension pgx_tde");
	}
	else
	{
		const char *primary = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);

		/* An error with a code is the server's answer; without one the connection broke. */
		talk->row->reachable = state != NULL;
		fail(talk, primary != NULL ? primary : PQerrorMessage(talk->conn));
	}
	PQclear(res);
}

static void
go_on_asking(struct talk *talk)
{
	int			left = PQflush(talk->conn);

	if (left < 0 || PQconsumeInput(talk->conn) == 0)
		fail(talk, PQerrorMessage(talk->conn));
	else if (PQisBusy(talk->conn) == 0)
		take_answer(talk);
	else
		talk->events = left > 0 ? POLLIN | POLLOUT : POLLIN;
}

static int64_t
now_ms(void)
{
	struct timespec ts;

	(void) clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* One round of waiting; false when nobody is waited for or time is up. */
static bool
wait_once(struct talk *talks, struct pollfd *fds, size_t count, int64_t deadline)
{
	int64_t		left = deadline - now_ms();
	size_t		waiting = 0;

	for (size_t i = 0; i < count; i++)
	{
		fds[i].fd = talks[i].stage == STAGE_DONE ? -1 : PQsocket(talks[i].conn);
		fds[i].events = talks[i].events;
		fds[i].revents = 0;
		waiting += talks[i].stage != STAGE_DONE;
	}
	if (waiting == 0 || left <= 0)
		return false;
	if (poll(fds, (nfds_t) count, (int) left) < 0)
		return errno == EINTR;
	for (size_t i = 0; i < count; i++)
	{
		if (fds[i].revents == 0)
			continue;
		if (talks[i].stage == STAGE_CONNECTING)
			go_on_connecting(&talks[i]);
		else if (talks[i].stage == STAGE_ASKED)
			go_on_asking(&talks[i]);
	}
	return true;
}

struct fleet_row *
fleet_ask(const struct pgx_servers *servers, int timeout_ms)
{
	struct fleet_row *rows = pgx_alloc(servers->count * sizeof(*rows));
	struct talk *talks = pgx_alloc(servers->count * sizeof(*talks));
	struct pollfd *fds = pgx_alloc(servers->count * sizeof(*fds));
	int64_t		deadline = now_ms() + timeout_ms;
	char	   *late = pgx_printf("no answer within %g seconds", timeout_ms / 1000.0);
	size_t		i;

	for (i = 0; i < servers->count; i++)
	{
		rows[i].server = &servers->servers[i];
		talks[i].row = &rows[i];
		begin(&talks[i]);
	}
	while (wait_once(talks, fds, servers->count, deadline))
		continue;
	for (i = 0; i < servers->count; i++)
	{
		if (talks[i].stage != STAGE_DONE)
			fail(&talks[i], late);
		PQfinish(talks[i].conn);
	}
	free(late);
	free(talks);
	free(fds);
	return rows;
}

void
fleet_clear(struct fleet_row **rows, size_t count)
{
	if (*rows == NULL)
		return;
	for (size_t i = 0; i < count; i++)
	{
		struct fleet_row *row = &(*rows)[i];

		free(row->error);
		free(row->role);
		free(row->state);
		free(row->opened_by);
		free(row->uuid);
		free(row->generation);
		free(row->active_key);
		free(row->auto_open);
		free(row->last_rotation);
		free(row->last_backup);
	}
	free(*rows);
	*rows = NULL;
}
