/*
 * audit.c
 *		One line in the server log for each key event, whether it succeeded or not.
 *
 * It has the form of the lines that the commands write (bin/common/audit.h), so that one pattern finds both: who,
 * what, on which keystore, which key, and the outcome; never a passphrase or a key.
 */
#include "pgx_postgres.h"

#include <netdb.h>

#include "commands/dbcommands.h"
#include "common/ip.h"
#include "miscadmin.h"
#include "utils/backend_status.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "pgx_tde.h"

/* Append name="value" so that no value can end its quotes or the line.  Plain words need no quotes. */
static void
append(StringInfo line, const char *name, const char *value)
{
	static const char plain[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:@+";

	if (value == NULL)
		return;
	appendStringInfo(line, " %s=", name);
	if (value[0] != '\0' && value[strspn(value, plain)] == '\0')
	{
		appendStringInfoString(line, value);
		return;
	}
	appendStringInfoChar(line, '"');
	for (const char *p = value; *p != '\0'; p++)
	{
		if (*p == '"' || *p == '\\')
			appendStringInfoChar(line, '\\');
		if ((unsigned char) *p < 0x20 || *p == 0x7f)
			appendStringInfo(line, "\\x%02x", (unsigned char) *p);
		else
			appendStringInfoChar(line, *p);
	}
	appendStringInfoChar(line, '"');
}

/* Looked up when an event begins, since no catalog can be read after an error. */
static char database[NAMEDATALEN];

/*
 * The session's user, since that is who logged in; the role it has taken may be anybody's.  Nobody: the server
 * itself.
 */
static void
append_who(StringInfo line)
{
	char		host[NI_MAXHOST];
	SockAddr   *address;

	if (MyBEEntry == NULL || MyBackendType != B_BACKEND)
		return;
	append(line, "user", GetConfigOption("session_authorization", true, false));
	if (database[0] != '\0')
		append(line, "database", database);
	address = &MyBEEntry->st_clientaddr;
	if (address->addr.ss_family == AF_UNIX ||
		pg_getnameinfo_all(&address->addr, address->salen, host, sizeof(host), NULL, 0, NI_NUMERICHOST) != 0)
		append(line, "client", "[local]");
	else
		append(line, "client", host);
}

static void
append_keystore(StringInfo line)
{
	char		uuid[KEYSTORE_UUID_STRLEN + 1];

	append(line, "keystore", pgx_location_is_set() ? pgx_keystore_path() : NULL);
	if (pgx_state->opened_by == PGX_CLOSED)
		return;
	keystore_uuid_text(pgx_state->uuid, uuid);
	append(line, "uuid", uuid);
	appendStringInfo(line, " generation=%llu key=%u", (unsigned long long) pgx_state->generation,
					 pgx_state->active_key);
}

/* event and method are words; method NULL: none; reason NULL: success. */
void
pgx_audit(const char *event, const char *method, const char *reason)
{
	StringInfoData line;

	initStringInfo(&line);
	appendStringInfo(&line, "event=%s outcome=%s", event, reason == NULL ? "success" : "failure");
	append_who(&line);
	append_keystore(&line);
	append(&line, "method", method);
	append(&line, "reason", reason);
	ereport(LOG,
			(errhidestmt(true), errhidecontext(true),
			 errmsg_internal("%s", line.data)));
	pfree(line.data);
}

/*
 * In PG_CATCH(): the event failed for the error that is being thrown.  A message of somebody else's may have a part of
 * the statement, so of that only the SQLSTATE is told.
 */
static void
audit_error(const char *event)
{
	ErrorData  *error = CopyErrorData();
	bool		own = error->domain != NULL && strcmp(error->domain, PGX_TEXTDOMAIN) == 0;

	pgx_audit(event, NULL, own && error->message != NULL ? error->message :
			  psprintf("SQLSTATE %s", unpack_sql_state(error->sqlerrcode)));
	FreeErrorData(error);
}

/* An event of a session begins. */
void
pgx_audit_begin(void)
{
	char	   *name = get_database_name(MyDatabaseId);

	strlcpy(database, name != NULL ? name : "", sizeof(database));
}

/* Run an SQL function, in a memory context of its own for handles, and leave a line. */
Datum
pgx_run_audited(FunctionCallInfo fcinfo, const char *event, Datum (*function) (FunctionCallInfo fcinfo))
{
	MemoryContext caller = CurrentMemoryContext;
	Datum		result = (Datum) 0;

	pgx_audit_begin();
	PG_TRY();
	{
		MemoryContext outer = pgx_enter();

		result = function(fcinfo);
		pgx_leave(outer);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		audit_error(event);
		PG_RE_THROW();
	}
	PG_END_TRY();
	pgx_audit(event, NULL, NULL);
	return result;
}
