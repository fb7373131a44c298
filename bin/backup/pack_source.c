/*
 * pack_source.c
 *		A base backup by the replication protocol.  See pack_source.h.
 *
 * One connection, one walsender: the server reads its files once and sends them as tar archives, tablespaces
 * first, then the data directory, then the manifest.  The files are as they lie on disk, so encrypted
 * pages come encrypted.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libpq-fe.h>

#include "log.h"
#include "mem.h"
#include "pack_format.h"
#include "pack_source.h"

#define MIN_SERVER_VERSION	150000
#define POLL_MS				200 /* how soon a cancel is noticed while nothing comes */

struct pack_source
{
	const struct pgx_pack_options *opts;
	const struct pack_receiver *receiver;
	struct pgx_pack_result *result;
	PGconn	   *conn;
	uint64_t	total;			/* the server's estimate of what comes, bytes */
	uint64_t	done;
	bool		in_archive;
	bool		in_manifest;
};

/* libpq's messages end with a newline, and may have several lines. */
static void
say_libpq(const struct pack_source *source, const char *what)
{
	const char *text = PQerrorMessage(source->conn);
	size_t		len = strlen(text);

	while (len > 0 && text[len - 1] == '\n')
		len--;
	pgx_log_error("%s: %.*s", what, (int) len, text);
}

/* ---- connection ------------------------------------------------------------------- */

/* The caller's parameters, with ours added; NULL after a message. */
static PGconn *
connect_with(const char *conninfo)
{
	char	   *err = NULL;
	PQconninfoOption *parsed = PQconninfoParse(conninfo, &err);
	const char **keywords;
	const char **values;
	size_t		n = 0;
	PGconn	   *conn;

	if (parsed == NULL)
	{
		size_t		len = err != NULL ? strcspn(err, "\n") : 0;

		pgx_log_error("could not use the connection string: %.*s", (int) len, err != NULL ? err : "");
		PQfreemem(err);
		return NULL;
	}
	for (const PQconninfoOption *o = parsed; o->keyword != NULL; o++)
		n++;
	keywords = pgx_alloc((n + 4) * sizeof(*keywords));
	values = pgx_alloc((n + 4) * sizeof(*values));
	n = 0;
	for (const PQconninfoOption *o = parsed; o->keyword != NULL; o++)
	{
		if (o->val == NULL || strcmp(o->keyword, "replication") == 0)
			continue;
		keywords[n] = o->keyword;
		values[n++] = o->val;
	}
	keywords[n] = "replication";
	values[n++] = "true";
	keywords[n] = "fallback_application_name";
	values[n++] = pgx_progname();
	conn = PQconnectdbParams(keywords, values, 0);
	free(keywords);
	free(values);
	PQconninfoFree(parsed);
	return conn;
}

static bool
connect_source(struct pack_source *source)
{
	source->conn = connect_with(source->opts->conninfo);
	if (source->conn == NULL)
		return false;
	if (PQstatus(source->conn) != CONNECTION_OK)
	{
		say_libpq(source, "could not connect to the server");
		return false;
	}
	if (PQserverVersion(source->conn) < MIN_SERVER_VERSION)
	{
		pgx_log_error("the server is older than PostgreSQL %d", MIN_SERVER_VERSION / 10000);
		return false;
	}
	return true;
}

/* ---- the command -------------------------------------------------------------------- */

/* A string constant of the replication grammar; the caller frees it. */
static char *
quote(const char *text)
{
	char	   *quoted = pgx_alloc(2 * strlen(text) + 3);
	char	   *to = quoted;

	*to++ = '\'';
	for (; *text != '\0'; text++)
	{
		if (*text == '\'')
			*to++ = '\'';
		*to++ = *text;
	}
	*to = '\'';
	return quoted;
}

static bool
send_command(struct pack_source *source)
{
	const struct pgx_pack_options *opts = source->opts;
	char	   *label = quote(opts->label != NULL ? opts->label : "pgx_dmpall");
	char	   *manifest = quote(opts->manifest != NULL ? opts->manifest : "yes");
	char	   *command;
	bool		ok;

	/* With its WAL a backup is whole by itself; without, the server waits until the archive has it. */
	command = pgx_printf("BASE_BACKUP (LABEL %s, CHECKPOINT '%s', MANIFEST %s, PROGRESS, %s, TARGET 'client')",
						 label, opts->checkpoint_fast ? "fast" : "spread", manifest,
						 opts->wal ? "WAL, WAIT false" : "WAIT true");
	ok = PQsendQuery(source->conn, command) == 1;
	if (!ok)
		say_libpq(source, "could not begin the base backup");
	free(label);
	free(manifest);
	free(command);
	return ok;
}

/*
 * The WAL that goes into the backup is read at its end; a temporary slot, which goes with the connection, keeps
 * the server from recycling it meanwhile.  A server that has no slot to spare may have kept it all
 * the same, and says so at the end if it has not.
 */
static void
reserve_wal(struct pack_source *source)
{
	char	   *command = pgx_printf("CREATE_REPLICATION_SLOT \"pgx_pack_%d\" TEMPORARY PHYSICAL (RESERVE_WAL)",
									 (int) getpid());
	PGresult   *res = PQexec(source->conn, command);

	if (PQresultStatus(res) != PGRES_TUPLES_OK)
		pgx_log_verbose("could not create a temporary replication slot: %s", PQerrorMessage(source->conn));
	PQclear(res);
	free(command);
}

/* Wait until libpq has something, or the user wants to stop. */
static bool
wait_input(struct pack_source *source)
{
	struct pollfd pfd = {.fd = PQsocket(source->conn), .events = POLLIN};

	if (source->opts->cancel != NULL && *source->opts->cancel != 0)
	{
		pgx_log_error("canceled");
		return false;
	}
	if (poll(&pfd, 1, POLL_MS) < 0 && errno != EINTR)
	{
		pgx_log_error("could not wait for the server: %m");
		return false;
	}
	if (PQconsumeInput(source->conn) != 1)
	{
		say_libpq(source, "could not receive from the server");
		return false;
	}
	return true;
}

/* The next result, which must have this status; NULL after a message. */
static PGresult *
next_result(struct pack_source *source, ExecStatusType status)
{
	PGresult   *res;

	while (PQisBusy(source->conn) == 1)
		if (!wait_input(source))
			return NULL;
	res = PQgetResult(source->conn);
	if (res != NULL && PQresultStatus(res) == status)
		return res;
	say_libpq(source, "could not take the base backup");
	PQclear(res);
	return NULL;
}

/* "16/B374D848" and a timeline in the first row. */
static bool
get_position(const PGresult *res, uint64_t *ret_lsn, uint32_t *ret_timeline)
{
	uint32_t	high;
	uint32_t	low;

	if (PQntuples(res) != 1 || PQnfields(res) < 2 ||
		sscanf(PQgetvalue(res, 0, 0), "%" SCNx32 "/%" SCNx32, &high, &low) != 2 ||
		sscanf(PQgetvalue(res, 0, 1), "%" SCNu32, ret_timeline) != 1)
	{
		pgx_log_error("the server's answer to %s is not understood", "BASE_BACKUP");
		return false;
	}
	*ret_lsn = (uint64_t) high << 32 | low;
	return true;
}

/* Rows of OID, location and size in kB; the data directory's has no OID. */
static bool
get_tablespaces(struct pack_source *source, const PGresult *res)
{
	struct pgx_pack_result *result = source->result;

	result->tablespaces = pgx_alloc((size_t) PQntuples(res) * sizeof(*result->tablespaces));
	for (int i = 0; i < PQntuples(res) && PQnfields(res) >= 3; i++)
	{
		struct pgx_pack_tablespace *to = &result->tablespaces[result->n_tablespaces];

		source->total += strtoull(PQgetvalue(res, i, 2), NULL, 10) * 1024;
		if (PQgetisnull(res, i, 0))
			continue;
		to->oid = (uint32_t) strtoul(PQgetvalue(res, i, 0), NULL, 10);
		to->location = pgx_strdup(PQgetvalue(res, i, 1));
		result->n_tablespaces++;
		if (strlen(to->location) > PACK_MAX_PATH)
		{
			pgx_log_error("the location of the tablespace with OID %u is too long", to->oid);
			return false;
		}
	}
	return true;
}

/* ---- the copying --------------------------------------------------------------------- */

/* Close what is open before something new, or the end. */
static bool
end_part(struct pack_source *source)
{
	const struct pack_receiver *to = source->receiver;
	bool		ok = true;

	if (source->in_archive)
		ok = to->archive_end(to->arg);
	else if (source->in_manifest)
		ok = to->manifest_end(to->arg);
	source->in_archive = source->in_manifest = false;
	return ok;
}

/* 'n': name of an archive, "base.tar" or "OID.tar", and a location, both C strings. */
static bool
begin_archive(struct pack_source *source, const char *buf, size_t len)
{
	const struct pack_receiver *to = source->receiver;
	uint32_t	archive = 0;

	if (memchr(buf, '\0', len) == NULL)
		return false;
	if (strcmp(buf, "base.tar") != 0)
	{
		char	   *end;
		unsigned long oid = strtoul(buf, &end, 10);

		if (oid == 0 || oid > UINT32_MAX || strcmp(end, ".tar") != 0)
			return false;
		archive = (uint32_t) oid;
	}
	source->in_archive = true;
	return to->archive(to->arg, archive);
}

/* One message of the copying.  *ret_known: false if the protocol has no such message. */
static bool
take_message(struct pack_source *source, const char *buf, size_t len, bool *ret_known)
{
	const struct pack_receiver *to = source->receiver;

	*ret_known = len > 0;
	if (len == 0)
		return false;
	switch (buf[0])
	{
		case 'n':
			if (!end_part(source))
				return false;
			*ret_known = len > 1;
			return len > 1 && begin_archive(source, buf + 1, len - 1);
		case 'm':
			if (!end_part(source))
				return false;
			source->in_manifest = true;
			return to->manifest(to->arg);
		case 'd':
			*ret_known = source->in_archive || source->in_manifest;
			if (!*ret_known || !to->data(to->arg, (const uint8_t *) buf + 1, len - 1))
				return false;
			source->done += len - 1;
			return true;
		case 'p':
			if (source->opts->progress != NULL)
				source->opts->progress(source->opts->progress_arg, source->done, source->total);
			return true;
		default:
			*ret_known = false;
			return false;
	}
}

static bool
copy_all(struct pack_source *source)
{
	for (;;)
	{
		char	   *buf = NULL;
		bool		known = true;
		bool		ok;
		int			n = PQgetCopyData(source->conn, &buf, 1);

		if (n == 0)
		{
			if (!wait_input(source))
				return false;
			continue;
		}
		if (n == -1)
			return end_part(source);
		if (n < 0)
		{
			say_libpq(source, "could not receive the base backup");
			return false;
		}
		ok = take_message(source, buf, (size_t) n, &known);
		PQfreemem(buf);
		if (!known)
			pgx_log_error("the server sent a message in the base backup that is not understood");
		if (!ok)
			return false;
		if (source->opts->cancel != NULL && *source->opts->cancel != 0)
		{
			pgx_log_error("canceled");
			return false;
		}
	}
}

static bool
run(struct pack_source *source)
{
	struct pgx_pack_result *result = source->result;
	const struct pack_receiver *to = source->receiver;
	PGresult   *res;
	bool		ok;

	if (source->opts->wal)
		reserve_wal(source);
	if (!send_command(source))
		return false;
	res = next_result(source, PGRES_TUPLES_OK);
	ok = res != NULL && get_position(res, &result->start_lsn, &result->start_timeline);
	PQclear(res);
	if (!ok)
		return false;
	res = next_result(source, PGRES_TUPLES_OK);
	ok = res != NULL && get_tablespaces(source, res);
	PQclear(res);
	if (!ok || !to->begin(to->arg, result, source->total))
		return false;
	res = next_result(source, PGRES_COPY_OUT);
	PQclear(res);
	if (res == NULL || !copy_all(source))
		return false;
	res = next_result(source, PGRES_TUPLES_OK);
	ok = res != NULL && get_position(res, &result->end_lsn, &result->end_timeline);
	PQclear(res);
	if (!ok)
		return false;

	/* Only this says that the server is content: page checksums were right, WAL is in the archive. */
	res = next_result(source, PGRES_COMMAND_OK);
	PQclear(res);
	return res != NULL;
}

int
pack_source_run(const struct pgx_pack_options *opts, const struct pack_receiver *receiver,
				struct pgx_pack_result *result)
{
	struct pack_source source = {.opts = opts, .receiver = receiver, .result = result};
	bool		ok = connect_source(&source) && run(&source);

	/* Closing the connection is what ends a backup that is given up. */
	PQfinish(source.conn);
	return ok ? PGX_EXIT_OK : PGX_EXIT_FAILURE;
}
