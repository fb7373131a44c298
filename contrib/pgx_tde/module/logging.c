/*
 * logging.c
 *		Keeping passphrases that are given in SQL out of the server log, the statistics of
 *		activity, and pg_stat_statements.
 *
 * A statement is known by the names of the functions in its text, before it is even parsed, so a syntax error
 * does not show it either.  The log gets what can be said without any of the statement's text; the
 * client gets its message as it is.
 */
#include "pgx_postgres.h"

#include "access/xact.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "parser/analyze.h"
#include "parser/scansup.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/backend_status.h"
#include "utils/memutils.h"

#include "pgx_tde.h"

#define HIDDEN	"(hidden by pgx_tde, since it may hold a passphrase)"

static emit_log_hook_type prev_emit_log;
static post_parse_analyze_hook_type prev_post_parse_analyze;
static ExecutorStart_hook_type prev_executor_start;
static ExecutorRun_hook_type prev_executor_run;
static ProcessUtility_hook_type prev_process_utility;

/* A statement with a passphrase, or a place for one, was prepared: any EXECUTE may carry it from now on. */
static bool prepared;

/* Start of the statement in which one of our functions was called, by whatever name the client knows it. */
static TimestampTz called_at;

/* The text that was looked through last without finding anything. */
static TimestampTz clean_at;
static const char *clean_text;

/* ---- which statements ----------------------------------------------------------------------- */

static bool
is_word_char(char c)
{
	return isalnum((unsigned char) c) || c == '_' || IS_HIGHBIT_SET(c);
}

static const char *
skip_space(const char *p, const char *end)
{
	while (p < end && isspace((unsigned char) *p))
		p++;
	return p;
}

/* Arguments with no passphrase: none, or the types as GRANT and COMMENT have them. */
static bool
is_harmless(const char *p, const char *end)
{
	static const char *const lists[] = {"()", "(text)", "(text,text)", "(text, text)"};

	for (size_t i = 0; i < lengthof(lists); i++)
	{
		size_t		len = strlen(lists[i]);

		if ((size_t) (end - p) >= len && pg_strncasecmp(p, lists[i], len) == 0)
			return true;
	}
	return false;
}

/*
 * Does a text name one of the functions with an argument?  A beginning is enough: a misspelled name does not make
 * the passphrase less secret.
 */
static bool
mentions(const char *text, size_t len)
{
	const char *end = text + len;
	const char *p = text;

	while ((p = memchr(p, '_', end - p)) != NULL)
	{
		const char *name = p - 3;

		p++;
		if (name < text || pg_strncasecmp(name, "pgx", 3) != 0 ||
			!((end - p >= 3 && pg_strncasecmp(p, "set", 3) == 0) ||
			  (end - p >= 4 && pg_strncasecmp(p, "open", 4) == 0)))
			continue;
		while (p < end && is_word_char(*p))
			p++;
		if (p < end && *p == '"')
			p++;
		if (!is_harmless(skip_space(p, end), end))
			return true;
	}
	return false;
}

static bool
has_word(const char *text, size_t len, const char *word)
{
	size_t		word_len = strlen(word);

	for (size_t i = 0; i + word_len <= len; i++)
	{
		if ((i == 0 || !is_word_char(text[i - 1])) && pg_strncasecmp(text + i, word, word_len) == 0 &&
			(i + word_len == len || !is_word_char(text[i + word_len])))
			return true;
	}
	return false;
}

static bool
is_secret(const char *text, size_t len)
{
	return mentions(text, len) || (prepared && has_word(text, len, "execute"));
}

static bool
names_function(const char *text)
{
	return text != NULL && mentions(text, strlen(text));
}

/* Is what this process is doing for its client a statement to be hidden? */
static bool
in_secret_statement(void)
{
	if (called_at != 0 && called_at == GetCurrentStatementStartTimestamp())
		return true;
	return debug_query_string != NULL && is_secret(debug_query_string, strlen(debug_query_string));
}

/* ---- pg_stat_activity -------------------------------------------------------------------------- */

static void
hide_activity(void)
{
	if (MyBEEntry != NULL && MyBEEntry->st_procpid == MyProcPid &&
		strcmp(MyBEEntry->st_activity_raw, HIDDEN) != 0)
		pgstat_report_activity(STATE_RUNNING, HIDDEN);
}

/* The server shows the client's text again with each message of the protocol. */
static void
look_at_statement(void)
{
	TimestampTz now;

	if (debug_query_string == NULL)
		return;
	now = GetCurrentStatementStartTimestamp();
	if (now == clean_at && debug_query_string == clean_text)
		return;
	if (in_secret_statement())
		hide_activity();
	else
	{
		clean_at = now;
		clean_text = debug_query_string;
	}
}

/* One of our functions has been called with a passphrase, under whatever name. */
void
pgx_hide_statement(void)
{
	called_at = GetCurrentStatementStartTimestamp();
	hide_activity();
}

/* ---- the server log ------------------------------------------------------------------------------ */

/* What the log gets in place of a message. */
typedef struct Replacement
{
	ErrorData  *original;
	bool		whole;			/* nothing of the statement; else only what names a function is hidden */
	bool		keep_message;
} Replacement;

static Replacement *replacing;

/* Errors whose texts have nothing of a statement but names of what exists; the auditor wants them. */
static bool
is_plain_error(int sqlerrcode)
{
	switch (sqlerrcode)
	{
		case ERRCODE_INSUFFICIENT_PRIVILEGE:
		case ERRCODE_ACTIVE_SQL_TRANSACTION:
		case ERRCODE_READ_ONLY_SQL_TRANSACTION:
		case ERRCODE_IN_FAILED_SQL_TRANSACTION:
			return true;
		default:
			return ERRCODE_TO_CATEGORY(sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION ||
				ERRCODE_TO_CATEGORY(sqlerrcode) == ERRCODE_INSUFFICIENT_RESOURCES;
	}
}

static bool
is_own(const ErrorData *edata)
{
	return edata->domain != NULL && strcmp(edata->domain, PGX_TEXTDOMAIN) == 0;
}

/* A user's RAISE can have any code, so only errors that the server's own code reports are plain. */
static bool
can_keep_message(const ErrorData *edata)
{
	if (is_own(edata))
		return true;
	if (edata->elevel < ERROR || names_function(edata->message))
		return edata->elevel >= ERROR && edata->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE &&
			edata->funcname != NULL && strcmp(edata->funcname, "aclcheck_error") == 0;
	return is_plain_error(edata->sqlerrcode) &&
		(edata->funcname == NULL || strcmp(edata->funcname, "exec_stmt_raise") != 0);
}

static char *
new_message(const ErrorData *edata)
{
	static const char duration[] = "duration: ";
	const char *message = edata->message != NULL ? edata->message : "";
	size_t		len = strlen(duration);

	if (strncmp(message, duration, len) == 0)
	{
		len += strspn(message + len, "0123456789.");
		return psprintf("%.*s ms  statement: %s", (int) len, message, HIDDEN);
	}
	if (strncmp(message, "statement: ", strlen("statement: ")) == 0)
		return psprintf("statement: %s", HIDDEN);
	if (edata->elevel >= ERROR)
		return psprintf("a statement that may hold a passphrase failed with SQLSTATE %s; the message went to the client only",
						unpack_sql_state(edata->sqlerrcode));
	return pstrdup("message " HIDDEN);
}

static char *
cleaned(char *text, bool whole)
{
	if (text == NULL || (!whole && !names_function(text)))
		return text;
	return pstrdup(HIDDEN);
}

/* Make edata what the log may have of it.  Its old texts, which the server frees with the context, are left alone. */
static void
clean(ErrorData *edata, const Replacement *r)
{
	MemoryContext outer = MemoryContextSwitchTo(ErrorContext);
	bool		keep = r->keep_message;

	if (!keep)
		edata->message = new_message(edata);
	edata->detail = keep ? edata->detail : cleaned(edata->detail, r->whole);
	edata->detail_log = keep ? edata->detail_log : cleaned(edata->detail_log, r->whole);
	edata->hint = keep ? edata->hint : cleaned(edata->hint, r->whole);
	edata->context = cleaned(edata->context, r->whole);
	edata->internalquery = cleaned(edata->internalquery, r->whole);
	edata->hide_stmt = edata->hide_stmt || r->whole;
	MemoryContextSwitchTo(outer);
}

/* The record that is made in place of another: give it all that the other has, as far as the log may have it. */
static void
fill_in(ErrorData *edata)
{
	const ErrorData *original = replacing->original;

	edata->elevel = original->elevel;
	edata->sqlerrcode = original->sqlerrcode;
	edata->filename = original->filename;
	edata->lineno = original->lineno;
	edata->funcname = original->funcname;
	edata->domain = original->domain;
	edata->message = original->message;
	edata->detail = original->detail;
	edata->detail_log = original->detail_log;
	edata->hint = original->hint;
	edata->context = original->context;
	edata->internalquery = original->internalquery;
	clean(edata, replacing);

	/* What stayed belongs to the original, and each is freed by itself. */
#define OWN(field) \
	if (edata->field != NULL && edata->field == original->field) \
		edata->field = MemoryContextStrdup(ErrorContext, edata->field)
	OWN(message);
	OWN(detail);
	OWN(detail_log);
	OWN(hint);
	OWN(context);
	OWN(internalquery);
#undef OWN
	edata->output_to_client = false;
}

/*
 * The client is to get the original, so the log gets a record of its own.  It is reported as LOG, which goes wherever a
 * lower level or an error goes and never unwinds, and gets its real level in fill_in().
 */
static void
log_instead(Replacement *r)
{
	ErrorContextCallback *context = error_context_stack;

	replacing = r;
	error_context_stack = NULL;
	ereport(LOG, (errmsg_internal(" ")));
	error_context_stack = context;
	replacing = NULL;
}

static void
emit_log(ErrorData *edata)
{
	Replacement r = {.original = edata};

	if (replacing != NULL)
		fill_in(edata);
	else
	{
		r.whole = in_secret_statement();
		if (r.whole)
			hide_activity();
		if (r.whole || names_function(edata->message) || names_function(edata->detail) ||
			names_function(edata->detail_log) || names_function(edata->hint) ||
			names_function(edata->context) || names_function(edata->internalquery))
		{
			r.keep_message = can_keep_message(edata) || (!r.whole && !names_function(edata->message));
			if (edata->output_to_client && edata->elevel < FATAL)
			{
				edata->output_to_server = false;
				log_instead(&r);
				return;
			}
			clean(edata, &r);
		}
	}
	if (prev_emit_log)
		prev_emit_log(edata);
}

/* ---- hooks ------------------------------------------------------------------------------------------ */

/* The part of the source that is a query's; location and length as in Query. */
static bool
is_secret_source(const char *text, int location, int len)
{
	size_t		all;

	if (text == NULL)
		return false;
	all = strlen(text);
	if (location < 0 || (size_t) location > all)
		location = 0;
	if (len <= 0 || (size_t) len > all - location)
		len = all - location;
	if (!is_secret(text + location, len))
		return false;
	if (has_word(text + location, len, "prepare") || memchr(text + location, '$', len) != NULL)
		prepared = true;
	return true;
}

/* Without a query identifier pg_stat_statements takes no notice of a statement, whichever hook runs first. */
static void
post_parse_analyze(ParseState *pstate, Query *query, JumbleState *jstate)
{
	look_at_statement();
	if (is_secret_source(pstate->p_sourcetext, query->stmt_location, query->stmt_len))
		query->queryId = 0;
	if (prev_post_parse_analyze)
		prev_post_parse_analyze(pstate, query, jstate);
}

static void
executor_start(QueryDesc *query, int flags)
{
	look_at_statement();
	if (prev_executor_start)
		prev_executor_start(query, flags);
	else
		standard_ExecutorStart(query, flags);
}

#if PG_VERSION_NUM >= 180000
static void
executor_run(QueryDesc *query, ScanDirection direction, uint64 count)
{
	look_at_statement();
	if (prev_executor_run)
		prev_executor_run(query, direction, count);
	else
		standard_ExecutorRun(query, direction, count);
}
#else
static void
executor_run(QueryDesc *query, ScanDirection direction, uint64 count, bool once)
{
	look_at_statement();
	if (prev_executor_run)
		prev_executor_run(query, direction, count, once);
	else
		standard_ExecutorRun(query, direction, count, once);
}
#endif

static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree, ProcessUtilityContext context,
				ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	ProcessUtility_hook_type next = prev_process_utility ? prev_process_utility : standard_ProcessUtility;

	look_at_statement();
	next(pstmt, query, read_only_tree, context, params, env, dest, qc);
}

/* Also what ended before any hook: by a syntax error, say, that the settings keep out of the log. */
static void
transaction_ends(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT || event == XACT_EVENT_PRE_COMMIT)
		look_at_statement();
}

void
pgx_install_logging(void)
{
	prev_emit_log = emit_log_hook;
	emit_log_hook = emit_log;
	prev_post_parse_analyze = post_parse_analyze_hook;
	post_parse_analyze_hook = post_parse_analyze;
	prev_executor_start = ExecutorStart_hook;
	ExecutorStart_hook = executor_start;
	prev_executor_run = ExecutorRun_hook;
	ExecutorRun_hook = executor_run;
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	RegisterXactCallback(transaction_ends, NULL);
}
