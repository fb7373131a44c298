/*
 * tablespace.c
 *		CREATE TABLESPACE ... WITH (tablespace_encryption_algorithm = ...).
 *
 * The server does not know the option, so it is taken out of the statement.  The
 * new tablespace's key is made when the server has chosen the OID, before there is
 * any file, and is logged before the tablespace is: a standby has the key first.
 */
#include "pgx_postgres.h"

#include "access/xlog.h"
#include "access/xloginsert.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_tablespace.h"
#include "commands/defrem.h"
#include "commands/tablespace.h"
#include "miscadmin.h"
#include "tcop/utility.h"

#include "pgx_tde.h"

#define OPTION_NAME	"tablespace_encryption_algorithm"

static ProcessUtility_hook_type prev_process_utility;
static object_access_hook_type prev_object_access;

/* Algorithm of the tablespace that the running statement creates; the setting's value if it names none. */
static bool creating;
static enum tde_algorithm creating_algorithm;

static enum tde_algorithm
parse_algorithm(DefElem *option)
{
	char	   *name = defGetString(option);
	enum tde_algorithm alg;

	if (tde_algorithm_parse(name, &alg) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for parameter \"%s\": \"%s\"", OPTION_NAME, name),
				 errhint("Available values: none, AES128, AES256.")));
	return alg;
}

/* Take our option out of a list; true, and its value, if it was there. */
static bool
extract_option(List **options, enum tde_algorithm *ret_alg)
{
	List	   *rest = NIL;
	bool		found = false;
	ListCell   *cell;

	foreach(cell, *options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (option->defnamespace == NULL && strcmp(option->defname, OPTION_NAME) == 0)
		{
			if (found)
				ereport(ERROR,
						(errcode(ERRCODE_SYNTAX_ERROR),
						 errmsg("parameter \"%s\" specified more than once", OPTION_NAME)));
			found = true;
			if (option->arg != NULL)
				*ret_alg = parse_algorithm(option);
			else
				*ret_alg = TDE_NONE;	/* RESET names no value */
		}
		else
			rest = lappend(rest, option);
	}
	if (found)
		*options = rest;
	return found;
}

/* ALTER TABLESPACE ... SET, RESET: allowed if it changes nothing. */
static void
check_alter(AlterTableSpaceOptionsStmt *stmt)
{
	enum tde_algorithm wanted;

	if (!extract_option(&stmt->options, &wanted))
		return;
	if (wanted != pgx_io->get_algorithm(TDE_KEY_TABLESPACE,
										get_tablespace_oid(stmt->tablespacename, false)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("tablespace encryption algorithm option cannot be changed"),
				 errhint("Create another tablespace and move the objects with ALTER ... SET TABLESPACE.")));
}

static void
run_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree, ProcessUtilityContext context,
			ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	ProcessUtility_hook_type next = prev_process_utility ? prev_process_utility : standard_ProcessUtility;

	next(pstmt, query, read_only_tree, context, params, env, dest, qc);
}

static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree, ProcessUtilityContext context,
				ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	NodeTag		tag = nodeTag(pstmt->utilityStmt);
	PlannedStmt *own;

	if (tag != T_CreateTableSpaceStmt && tag != T_AlterTableSpaceOptionsStmt)
	{
		run_utility(pstmt, query, read_only_tree, context, params, env, dest, qc);
		return;
	}

	/* The statement is changed below, and may be somebody's cached tree. */
	own = copyObject(pstmt);
	if (tag == T_AlterTableSpaceOptionsStmt)
	{
		check_alter((AlterTableSpaceOptionsStmt *) own->utilityStmt);
		run_utility(own, query, false, context, params, env, dest, qc);
		return;
	}

	creating_algorithm = (enum tde_algorithm) pgx_default_algorithm;
	(void) extract_option(&((CreateTableSpaceStmt *) own->utilityStmt)->options, &creating_algorithm);
	creating = true;
	PG_TRY();
	{
		run_utility(own, query, false, context, params, env, dest, qc);
	}
	PG_FINALLY();
	{
		creating = false;
	}
	PG_END_TRY();
}

/* Give a tablespace a key, or make sure that it has none, in file, WAL and memory, in this order. */
static void
set_tablespace_key(Oid oid, enum tde_algorithm alg)
{
	MemoryContext outer = pgx_enter();
	keystore   *ks;
	tde_keytable *kt;
	uint8_t    *buf;
	size_t		len;

	LWLockAcquire(pgx_lock(), LW_EXCLUSIVE);
	ks = pgx_open_own_keystore();
	kt = pgx_read_keytable();
	if (kt == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not create an encrypted tablespace because no master encryption key has been set"),
				 errhint("Set the master encryption key with pgx_set_master_key().")));
	pgx_open_keytable(kt, ks);
	if (alg == TDE_NONE)
		pgx_check_keytable(tde_keytable_remove(kt, TDE_KEY_TABLESPACE, oid));
	else
		pgx_check_keytable(tde_keytable_add(kt, TDE_KEY_TABLESPACE, oid, alg));
	pgx_check_keytable(tde_keytable_serialize(kt, &buf, &len));
	pgx_write_keytable(buf, len);
	XLogFlush(pgx_log_keytable(buf, len));
	free(buf);
	pgx_publish_keys(kt);
	LWLockRelease(pgx_lock());
	pgx_leave(outer);
}

static void
object_access(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg)
{
	if (prev_object_access)
		prev_object_access(access, class_id, object_id, sub_id, arg);
	if (access != OAT_POST_CREATE || class_id != TableSpaceRelationId || !creating)
		return;

	if (creating_algorithm == TDE_NONE)
	{
		/* The OID may have belonged to an encrypted tablespace once. */
		if (pgx_io->get_algorithm(TDE_KEY_TABLESPACE, object_id) != TDE_NONE)
			set_tablespace_key(object_id, TDE_NONE);
		return;
	}
	if (pgx_state->opened_by == PGX_CLOSED)
		pgx_error_closed(ERROR, "create an encrypted tablespace");
	set_tablespace_key(object_id, creating_algorithm);
}

void
pgx_install_tablespace_hooks(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	prev_object_access = object_access_hook;
	object_access_hook = object_access;
}
