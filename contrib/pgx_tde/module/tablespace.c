/*
 * tablespace.c
 *		CREATE TABLESPACE ... WITH (tablespace_encryption_algorithm = ...), and the same
 *		for ALTER TABLESPACE while the tablespace is empty.
 *
 * The server does not know the option, so it is taken out of the statement.  The
 * new tablespace's key is made when the server has chosen the OID, before there is
 * any file, and is logged before the tablespace is: a standby has the key first.
 */
#include "pgx_postgres.h"

#include <unistd.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xloginsert.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_tablespace.h"
#include "commands/defrem.h"
#include "commands/tablespace.h"
#include "common/file_utils.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "postmaster/bgwriter.h"
#include "storage/fd.h"
#include "storage/procsignal.h"
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
	{
		/* Another algorithm has another key. */
		if (pgx_io->get_algorithm(TDE_KEY_TABLESPACE, oid) != TDE_NONE)
			pgx_check_keytable(tde_keytable_remove(kt, TDE_KEY_TABLESPACE, oid));
		pgx_check_keytable(tde_keytable_add(kt, TDE_KEY_TABLESPACE, oid, alg));
	}
	pgx_check_keytable(tde_keytable_serialize(kt, &buf, &len));
	pgx_write_keytable(buf, len);
	XLogFlush(pgx_log_keytable(buf, len));
	free(buf);
	pgx_publish_keys(kt);
	LWLockRelease(pgx_lock());
	pgx_leave(outer);
}

/* ---- ALTER TABLESPACE ------------------------------------------------------------------------ */

/* SET, RESET.  Returns the tablespace if its algorithm is to become another one, InvalidOid otherwise. */
static Oid
prepare_alter(AlterTableSpaceOptionsStmt *stmt, bool top_level, enum tde_algorithm *ret_alg)
{
	Oid			oid;

	if (!extract_option(&stmt->options, ret_alg))
		return InvalidOid;
	oid = get_tablespace_oid(stmt->tablespacename, false);
	if (*ret_alg == pgx_io->get_algorithm(TDE_KEY_TABLESPACE, oid))
		return InvalidOid;
	/* Rolling back would not bring the key back. */
	PreventInTransactionBlock(top_level, "ALTER TABLESPACE ... SET (" OPTION_NAME ")");
	return oid;
}

/*
 * Remove the folders of databases in a tablespace, which holds only if they are empty.  While nobody can make one, since
 * we have TablespaceCreateLock, there will be no file either.
 */
static bool
remove_database_folders(Oid oid)
{
	char	   *dir = psprintf("pg_tblspc/%u/%s", oid, TABLESPACE_VERSION_DIRECTORY);
	DIR		   *handle = AllocateDir(dir);
	struct dirent *entry;
	bool		empty = true;

	while (empty && (entry = ReadDir(handle, dir)) != NULL)
	{
		char	   *path = psprintf("%s/%s", dir, entry->d_name);

		/* Temporary files have a key of their own. */
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
			strcmp(entry->d_name, PG_TEMP_FILES_DIR) == 0)
			continue;
		empty = rmdir(path) == 0 || errno == ENOENT;
		if (!empty && errno != ENOTEMPTY && errno != EEXIST)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not remove directory \"%s\": %m", path)));
	}
	FreeDir(handle);
	return empty;
}

static bool
is_emptied(Oid oid)
{
	/* These have no folder of their own, and are never empty. */
	if (oid == DEFAULTTABLESPACE_OID || oid == GLOBALTABLESPACE_OID)
		return false;
	if (remove_database_folders(oid))
		return true;

	/* The first file of what was dropped stays until a checkpoint, and others may still have it open. */
	LWLockRelease(TablespaceCreateLock);
	RequestCheckpoint(CHECKPOINT_IMMEDIATE | CHECKPOINT_FORCE | CHECKPOINT_WAIT);
	WaitForProcSignalBarrier(EmitProcSignalBarrier(PROCSIGNAL_BARRIER_SMGRRELEASE));
	LWLockAcquire(TablespaceCreateLock, LW_EXCLUSIVE);
	return remove_database_folders(oid);
}

static void
change_algorithm(Oid oid, enum tde_algorithm alg)
{
	if (pgx_state->opened_by == PGX_CLOSED)
		pgx_error_closed(ERROR, "change the encryption of a tablespace");
	LWLockAcquire(TablespaceCreateLock, LW_EXCLUSIVE);
	if (!is_emptied(oid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("tablespace encryption algorithm option cannot be changed"),
				 errdetail("The tablespace is not empty."),
				 errhint("Create another tablespace and move the objects with ALTER ... SET TABLESPACE.")));
	set_tablespace_key(oid, alg);
	LWLockRelease(TablespaceCreateLock);
}

/* ---- hooks ------------------------------------------------------------------------------------- */

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
	enum tde_algorithm wanted;
	Oid			altered;

	if (tag != T_CreateTableSpaceStmt && tag != T_AlterTableSpaceOptionsStmt)
	{
		run_utility(pstmt, query, read_only_tree, context, params, env, dest, qc);
		return;
	}

	/* The statement is changed below, and may be somebody's cached tree. */
	own = copyObject(pstmt);
	if (tag == T_AlterTableSpaceOptionsStmt)
	{
		altered = prepare_alter((AlterTableSpaceOptionsStmt *) own->utilityStmt,
								context == PROCESS_UTILITY_TOPLEVEL, &wanted);
		/* The server checks that the user may. */
		run_utility(own, query, false, context, params, env, dest, qc);
		if (altered != InvalidOid)
			change_algorithm(altered, wanted);
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
