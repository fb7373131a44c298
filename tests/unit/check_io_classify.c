/*
 * check_io_classify.c
 *		Which paths the I/O layer takes for files of its own.
 */
#include <config.h>

#include <check.h>
#include <stdlib.h>

#include "pgx_io.h"

#define DATA_DIR "/srv/pg/data"

static const struct
{
	const char *path;
	struct pgx_io_path is;
} paths[] = {
	{"base/5/1259", {PGX_IO_RELATION, 1663, 5, 1259, 0, 0, false}},
	{"./base/5/1259", {PGX_IO_RELATION, 1663, 5, 1259, 0, 0, false}},
	{DATA_DIR "/base/5/1259", {PGX_IO_RELATION, 1663, 5, 1259, 0, 0, false}},
	{"base/5/1259_fsm", {PGX_IO_RELATION, 1663, 5, 1259, 1, 0, false}},
	{"base/5/1259_vm", {PGX_IO_RELATION, 1663, 5, 1259, 2, 0, false}},
	{"base/5/16384_init", {PGX_IO_RELATION, 1663, 5, 16384, 3, 0, false}},
	{"base/5/16384.1", {PGX_IO_RELATION, 1663, 5, 16384, 0, 1, false}},
	{"base/5/16384_fsm.12", {PGX_IO_RELATION, 1663, 5, 16384, 1, 12, false}},
	{"base/5/t3_16390", {PGX_IO_RELATION, 1663, 5, 16390, 0, 0, false}},
	{"base/5/t3_16390_vm.2", {PGX_IO_RELATION, 1663, 5, 16390, 2, 2, false}},
	{"base/5/4294967295", {PGX_IO_RELATION, 1663, 5, 4294967295U, 0, 0, false}},
	{"global/1262", {PGX_IO_RELATION, 1664, 0, 1262, 0, 0, false}},
	{"pg_tblspc/16385/PG_15_202209061/5/16400", {PGX_IO_RELATION, 16385, 5, 16400, 0, 0, false}},
	{"pg_tblspc/16385/PG_15_202209061/5/16400_vm.1", {PGX_IO_RELATION, 16385, 5, 16400, 2, 1, false}},
	{"pgx_tde/selfcheck", {PGX_IO_RELATION, PGX_IO_SELF_CHECK_OID, 0, 0, 0, 0, false}},
	{"pg_wal/000000010000000000000001", {.kind = PGX_IO_WAL}},
	{"pg_wal/0000000A00000000000000FF.partial", {.kind = PGX_IO_WAL}},
	{"pg_wal/RECOVERYXLOG", {.kind = PGX_IO_WAL}},
	{DATA_DIR "/pg_wal/000000010000000000000001", {.kind = PGX_IO_WAL}},
	{"pg_wal/xlogtemp.4711", {.kind = PGX_IO_WAL_TEMP}},
	{"base/pgsql_tmp/pgsql_tmp123.0", {.kind = PGX_IO_TEMP}},
	{"base/pgsql_tmp/pgsql_tmp7.1.fileset/i1of4.p0.0", {.kind = PGX_IO_TEMP}},
	{"pg_tblspc/16385/PG_15_202209061/pgsql_tmp/pgsql_tmp1.0", {.kind = PGX_IO_TEMP}},
	{"pg_replslot/s/xid-751-lsn-0-2000000.spill", {.kind = PGX_IO_TEMP, .spill = true}},
	/* What looks alike and is not. */
	{"base/5/PG_VERSION", {.kind = PGX_IO_NONE}},
	{"base/5/pg_filenode.map", {.kind = PGX_IO_NONE}},
	{"base/5/pg_internal.init", {.kind = PGX_IO_NONE}},
	{"base/5/1259_old", {.kind = PGX_IO_NONE}},
	{"base/5/1259.", {.kind = PGX_IO_NONE}},
	{"base/5/1259.1x", {.kind = PGX_IO_NONE}},
	{"base/5/4294967296", {.kind = PGX_IO_NONE}},
	{"base/5/1259.32768", {.kind = PGX_IO_NONE}},
	{"base/5/", {.kind = PGX_IO_NONE}},
	{"base/5", {.kind = PGX_IO_NONE}},
	{"pg_replslot/s/state", {.kind = PGX_IO_NONE}},
	{"pg_replslot/s/xid-1.tmp", {.kind = PGX_IO_NONE}},
	{"pg_replslot/xid-1.spill", {.kind = PGX_IO_NONE}},
	{"global/pg_control", {.kind = PGX_IO_NONE}},
	{"pg_tblspc/16385/other/5/16400", {.kind = PGX_IO_NONE}},
	{"pg_wal/00000002.history", {.kind = PGX_IO_NONE}},
	{"pg_wal/000000010000000000000001.00000028.backup", {.kind = PGX_IO_NONE}},
	{"pg_wal/archive_status/000000010000000000000001.ready", {.kind = PGX_IO_NONE}},
	{"pg_wal/00000001000000000000000", {.kind = PGX_IO_NONE}},
	{"/srv/pg/data2/base/5/1259", {.kind = PGX_IO_NONE}},
	{"/srv/pg/datab/base/5/1259", {.kind = PGX_IO_NONE}},
	{"/etc/passwd", {.kind = PGX_IO_NONE}},
	{"postgresql.conf", {.kind = PGX_IO_NONE}},
	{"", {.kind = PGX_IO_NONE}},
};

START_TEST(classify)
{
	struct pgx_io_path is;

	pgx_io_classify(paths[_i].path, DATA_DIR, &is);
	ck_assert_msg(is.kind == paths[_i].is.kind, "%s: kind %d", paths[_i].path, is.kind);
	ck_assert(is.spill == paths[_i].is.spill);
	if (is.kind != PGX_IO_RELATION)
		return;
	ck_assert_uint_eq(is.tablespace, paths[_i].is.tablespace);
	ck_assert_uint_eq(is.database, paths[_i].is.database);
	ck_assert_uint_eq(is.relation, paths[_i].is.relation);
	ck_assert_uint_eq(is.fork, paths[_i].is.fork);
	ck_assert_uint_eq(is.segment, paths[_i].is.segment);
}
END_TEST

int
main(void)
{
	Suite	   *suite = suite_create("io_classify");
	TCase	   *tcase = tcase_create("classify");
	SRunner    *runner;
	int			failed;

	tcase_add_loop_test(tcase, classify, 0, (int) (sizeof(paths) / sizeof(paths[0])));
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_set_tap(runner, "-");
	srunner_run_all(runner, CK_SILENT);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
