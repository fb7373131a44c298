/*
 * source.c
 *		The server that is backed up: connecting, and what it says of itself.
 */
#include <config.h>

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dmpall.h"
#include "file.h"
#include "log.h"
#include "mem.h"

/* postmaster.pid: one item a line. */
enum
{
	PID_LINE, DATA_LINE, START_LINE, PORT_LINE, SOCKET_LINE, LISTEN_LINE, N_PID_LINES
};

static bool
read_pid_file(const char *pgdata, char *lines[N_PID_LINES])
{
	char	   *path = pgx_join(pgdata, "postmaster.pid");
	FILE	   *f = fopen(path, "re");
	char		buf[PATH_MAX];
	int			n = 0;

	free(path);
	if (f == NULL)
		return false;
	while (n < N_PID_LINES && fgets(buf, sizeof(buf), f) != NULL)
	{
		buf[strcspn(buf, "\n")] = '\0';
		lines[n++] = pgx_strdup(buf);
	}
	(void) fclose(f);
	return n > SOCKET_LINE;
}

/* Is this a connection string or URI that names no database?  Otherwise it is a database's name. */
static bool
names_no_database(const char *conninfo)
{
	PQconninfoOption *options;
	bool		none = true;

	if (strchr(conninfo, '=') == NULL && strstr(conninfo, "://") == NULL)
		return false;
	options = PQconninfoParse(conninfo, NULL);
	for (PQconninfoOption *o = options; o != NULL && o->keyword != NULL; o++)
	{
		if (strcmp(o->keyword, "dbname") == 0 && o->val != NULL)
			none = false;
	}
	PQconninfoFree(options);
	return none && getenv("PGDATABASE") == NULL;
}

/* Connect by what -d says, and where it says nothing, by what the running server has noted. */
static PGconn *
connect_to(const struct options *opts)
{
	char	   *lines[N_PID_LINES] = {NULL};
	const char *keywords[8];
	const char *values[8];
	bool		noted = read_pid_file(opts->pgdata, lines);
	PGconn	   *conn;
	int			n = 0;

	if (noted && getenv("PGHOST") == NULL)
	{
		/* A server without a socket directory listens on TCP only. */
		keywords[n] = "host";
		values[n++] = lines[SOCKET_LINE][0] != '\0' ? lines[SOCKET_LINE] :
			lines[LISTEN_LINE] != NULL && strcmp(lines[LISTEN_LINE], "*") != 0 ? lines[LISTEN_LINE] :
			"localhost";
	}
	if (noted && getenv("PGPORT") == NULL)
	{
		keywords[n] = "port";
		values[n++] = lines[PORT_LINE];
	}
	/* A connection string replaces what comes before it; only the first "dbname" may be one. */
	keywords[n] = "dbname";
	values[n++] = opts->conninfo != NULL ? opts->conninfo : "postgres";
	if (opts->conninfo != NULL && names_no_database(opts->conninfo))
	{
		keywords[n] = "dbname";
		values[n++] = "postgres";
	}
	keywords[n] = "fallback_application_name";
	values[n++] = pgx_progname();
	keywords[n] = "client_encoding";
	values[n++] = "UTF8";		/* backup_info.json is */
	keywords[n] = values[n] = NULL;
	conn = PQconnectdbParams(keywords, values, 1);
	for (int i = 0; i < N_PID_LINES; i++)
		free(lines[i]);
	if (PQstatus(conn) == CONNECTION_OK)
		return conn;

	pgx_log_error("could not connect to the server of data directory \"%s\"", opts->pgdata);
	{
		char	   *text = pgx_strdup(conn != NULL ? PQerrorMessage(conn) : "out of memory");

		text[strcspn(text, "\n")] = '\0';
		pgx_log_detail("%s", text);
		free(text);
	}
	pgx_log_hint(noted ? "Use option -d to say how to connect." :
				 "Make sure that the server is running, or use option -d to say how to connect.");
	PQfinish(conn);
	return NULL;
}

/* Append "keyword='value'", quoted as libpq wants it. */
static char *
add_conninfo(char *text, const char *keyword, const char *value)
{
	char	   *quoted = pgx_alloc(2 * strlen(value) + 1);
	char	   *result;
	size_t		n = 0;

	for (const char *p = value; *p != '\0'; p++)
	{
		if (*p == '\'' || *p == '\\')
			quoted[n++] = '\\';
		quoted[n++] = *p;
	}
	result = pgx_printf("%s%s%s='%s'", text, text[0] != '\0' ? " " : "", keyword, quoted);
	free(quoted);
	free(text);
	return result;
}

/*
 * The options of this connection for another program.  What would end up on that one's command line must hold no
 * password.
 */
static char *
describe_connection(PGconn *conn)
{
	PQconninfoOption *options = PQconninfo(conn);
	char	   *text = pgx_strdup("");

	for (PQconninfoOption *o = options; o != NULL && o->keyword != NULL; o++)
	{
		if (o->val == NULL || o->val[0] == '\0' || strcmp(o->keyword, "dbname") == 0 ||
			strcmp(o->keyword, "client_encoding") == 0 || strcmp(o->keyword, "replication") == 0)
			continue;
		/* "*" marks what is secret: "password", "sslpassword" */
		if (o->dispchar[0] == '*')
		{
			if (getenv(o->envvar != NULL ? o->envvar : "") != NULL)
				continue;		/* the child has it from where we have it */
			pgx_log_error("option \"%s\" must not be in the connection string", o->keyword);
			pgx_log_hint("Put the password into the password file, ~/.pgpass.");
			free(text);
			text = NULL;
			break;
		}
		text = add_conninfo(text, o->keyword, o->val);
	}
	PQconninfoFree(options);
	return text;
}

PGresult *
source_query(struct source *source, const char *sql, int n_params, const char *const *params)
{
	PGresult   *result = PQexecParams(source->conn, sql, n_params, NULL, params, NULL, NULL, 0);

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
	{
		const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
		char	   *copy = pgx_strdup(text != NULL ? text : PQerrorMessage(source->conn));

		copy[strcspn(copy, "\n")] = '\0';
		pgx_log_error("the server refused a query of the backup: %s", copy);
		free(copy);
		PQclear(result);
		return NULL;
	}
	return result;
}

/* A value that may be NULL or empty: then it is not set. */
static char *
optional_value(const PGresult *result, int column)
{
	return PQgetisnull(result, 0, column) || PQgetlength(result, 0, column) == 0 ? NULL :
		pgx_strdup(PQgetvalue(result, 0, column));
}

static bool
read_facts(struct source *source)
{
	PGresult   *r = source_query(source,
								 "SELECT pg_catalog.current_setting('data_directory'),"
								 " pg_catalog.current_setting('config_file'),"
								 " pg_catalog.current_setting('hba_file'),"
								 " pg_catalog.current_setting('ident_file'),"
								 " pg_catalog.current_setting('pgx_tde.backup_destination', true),"
								 " pg_catalog.current_setting('pgx_tde.keystore_location', true),"
								 " pg_catalog.current_setting('archive_mode'),"
								 " (SELECT system_identifier FROM pg_catalog.pg_control_system()),"
								 " pg_catalog.current_setting('server_version_num'),"
								 " (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_segment_size'),"
								 " pg_catalog.current_setting('data_checksums'),"
								 " pg_catalog.pg_is_in_recovery(),"
								 " pg_catalog.current_setting('pgx_tde.online_wal_directory', true)", 0, NULL);

	if (r == NULL)
	{
		pgx_log_hint("Connect as a superuser.");
		return false;
	}
	source->data_directory = pgx_strdup(PQgetvalue(r, 0, 0));
	source->config_file = optional_value(r, 1);
	source->hba_file = optional_value(r, 2);
	source->ident_file = optional_value(r, 3);
	source->destination = optional_value(r, 4);
	source->keystore_location = optional_value(r, 5);
	source->archive_mode = pgx_strdup(PQgetvalue(r, 0, 6));
	source->system_identifier = pgx_strdup(PQgetvalue(r, 0, 7));
	source->version = (uint32_t) strtoul(PQgetvalue(r, 0, 8), NULL, 10);
	source->wal_segment_size = (uint32_t) strtoul(PQgetvalue(r, 0, 9), NULL, 10);
	source->checksums = strcmp(PQgetvalue(r, 0, 10), "on") == 0;
	source->in_recovery = PQgetvalue(r, 0, 11)[0] == 't';
	source->online_wal_directory = optional_value(r, 12);
	PQclear(r);
	return true;
}

/* Only those that lie outside the data directory; the others come with it. */
bool
source_read_tablespaces(struct source *source)
{
	PGresult   *r = source_query(source,
								 "SELECT oid, spcname, pg_catalog.pg_tablespace_location(oid)"
								 " FROM pg_catalog.pg_tablespace"
								 " WHERE pg_catalog.pg_tablespace_location(oid) LIKE '/%' ORDER BY oid", 0, NULL);
	int			n;

	if (r == NULL)
		return false;
	for (size_t i = 0; i < source->n_tablespaces; i++)
	{
		free(source->tablespaces[i].name);
		free(source->tablespaces[i].location);
		free(source->tablespaces[i].algorithm);
	}
	free(source->tablespaces);
	n = PQntuples(r);
	source->n_tablespaces = (size_t) n;
	source->tablespaces = pgx_alloc(((size_t) n + 1) * sizeof(*source->tablespaces));
	for (int i = 0; i < n; i++)
	{
		struct pgx_backup_tablespace *ts = &source->tablespaces[i];

		ts->oid = (uint32_t) strtoul(PQgetvalue(r, i, 0), NULL, 10);
		ts->name = pgx_strdup(PQgetvalue(r, i, 1));
		ts->location = pgx_strdup(PQgetvalue(r, i, 2));
	}
	PQclear(r);
	return true;
}

/* The programs must be of the server's version: they are beside the postgres that was started. */
static char *
find_bindir(const char *data_directory)
{
	char	   *path = pgx_join(data_directory, "postmaster.opts");
	FILE	   *f = fopen(path, "re");
	char		line[PATH_MAX] = "";
	char	   *bindir = NULL;

	if (f != NULL && fgets(line, sizeof(line), f) != NULL && line[0] == '/')
	{
		char	   *program;

		line[strcspn(line, " \n")] = '\0';
		bindir = pgx_dirname(line);
		program = pgx_join(bindir, "pg_basebackup");
		if (access(program, X_OK) != 0)
		{
			free(bindir);
			bindir = NULL;
		}
		free(program);
	}
	if (f != NULL)
		(void) fclose(f);
	free(path);
	return bindir != NULL ? bindir : pgx_strdup(PG_BINDIR);
}

static bool
same_directory(const char *one, const char *two)
{
	struct stat a;
	struct stat b;

	return stat(one, &a) == 0 && stat(two, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

bool
source_connect(const struct options *opts, struct source *source)
{
	memset(source, 0, sizeof(*source));
	source->conn = connect_to(opts);
	if (source->conn == NULL)
		return false;
	source->conninfo = describe_connection(source->conn);
	if (source->conninfo == NULL || !read_facts(source))
		return false;
	if (!same_directory(source->data_directory, opts->pgdata))
	{
		pgx_log_error("the configured database storage directory differs from the data_directory parameter");
		pgx_log_detail("The server's is \"%s\", but \"%s\" was specified.", source->data_directory,
					   opts->pgdata);
		return false;
	}
	source->bindir = find_bindir(source->data_directory);
	return source_read_tablespaces(source);
}

void
source_close(struct source *source)
{
	PQfinish(source->conn);
	for (size_t i = 0; i < source->n_tablespaces; i++)
	{
		free(source->tablespaces[i].name);
		free(source->tablespaces[i].location);
		free(source->tablespaces[i].algorithm);
	}
	free(source->tablespaces);
	free(source->conninfo);
	free(source->bindir);
	free(source->data_directory);
	free(source->config_file);
	free(source->hba_file);
	free(source->ident_file);
	free(source->destination);
	free(source->keystore_location);
	free(source->archive_mode);
	free(source->online_wal_directory);
	free(source->system_identifier);
	memset(source, 0, sizeof(*source));
}
