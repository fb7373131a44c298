/*
 * check_backup_area.c
 *		The backup area: what is listed as what, what is chosen, what is removed, and which backups
 *		need a key.
 */
#include <config.h>

#include <sys/stat.h>
#include <unistd.h>

#include "backup.h"
#include "cmd_common.h"
#include "file.h"
#include "log.h"
#include "mem.h"

static char area_path[64];

static void
make_area(void)
{
	strcpy(area_path, "check_area.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(area_path));
	{
		char	   *real = realpath(area_path, NULL);

		ck_assert_uint_lt(strlen(real), 4096);
		ck_assert_int_eq(chdir(real), 0);
		free(real);
	}
}

static void
remove_area(void)
{
	ck_assert_int_eq(chdir(".."), 0);
	ck_assert(pgx_remove_tree(area_path));
}

static void
put_file(const char *path, const char *text)
{
	(void) unlink(path);
	ck_assert(pgx_write_new(path, text, strlen(text)));
}

static void
put_dir(const char *path)
{
	ck_assert(pgx_make_directory(path));
}

static bool
is_there(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

#define UUID	"11111111-2222-3333-4444-555555555555"

/* An info with everything that is needed.  Strings are the caller's to free by pgx_backup_info_clear(). */
static void
fill_info(struct pgx_backup_info *info, int64_t end_time, uint64_t start_lsn)
{
	memset(info, 0, sizeof(*info));
	info->label = pgx_strdup("a label");
	info->tool = pgx_strdup("check 1");
	info->method = pgx_strdup("pg_basebackup");
	info->compression = pgx_strdup("none");
	info->system_identifier = pgx_strdup("7123456789012345678");
	info->server_version = 150020;
	info->wal_segment_size = 16 * 1024 * 1024;
	info->start_time = end_time - 60;
	info->end_time = end_time;
	info->start_timeline = info->end_timeline = 1;
	info->start_lsn = start_lsn;
	info->end_lsn = start_lsn + 0x100;
	info->size = 12345;
	info->data_directory = pgx_strdup("/srv/data");
	info->keystore_uuid = pgx_strdup(UUID);
	info->keystore_generation = 9;
	info->master_keys = pgx_alloc(2 * sizeof(uint32_t));
	info->master_keys[0] = 3;
	info->master_keys[1] = 4;
	info->n_master_keys = 2;
}

static void
put_backup(const char *name, const struct pgx_backup_info *info)
{
	char	   *data = pgx_printf("%s/data", name);
	char	   *version = pgx_printf("%s/data/PG_VERSION", name);

	put_dir(name);
	put_dir(data);
	put_file(version, "15\n");
	ck_assert(pgx_backup_info_write(name, info));
	free(version);
	free(data);
}

static void
put_simple_backup(const char *name, int64_t end_time, uint64_t start_lsn)
{
	struct pgx_backup_info info;

	fill_info(&info, end_time, start_lsn);
	put_backup(name, &info);
	pgx_backup_info_clear(&info);
}

/* ---- names of WAL ------------------------------------------------------------------ */

static const struct
{
	uint32_t	timeline;
	uint64_t	lsn;
	uint32_t	size;
	const char *name;
	uint64_t	begin;
}			wal_names[] = {
	{1, 0x2000028, 16 << 20, "000000010000000000000002", 0x2000000},
	{1, 0x2FFFFFF, 16 << 20, "000000010000000000000002", 0x2000000},
	{0xABCDEF01, UINT64_C(0x12FFFFFFFF), 16 << 20, "ABCDEF0100000012000000FF", UINT64_C(0x12FF000000)},
	{2, UINT64_C(0x7FFF00000000), 1 << 20, "0000000200007FFF00000000", UINT64_C(0x7FFF00000000)},
	{2, UINT64_C(0x1FFFFFFFF), 1 << 20, "000000020000000100000FFF", UINT64_C(0x1FFF00000)},
	{3, UINT64_C(0x1C0000000), 1 << 30, "000000030000000100000003", UINT64_C(0x1C0000000)},
};

START_TEST(wal_name)
{
	char		name[PGX_WAL_NAME_LEN + 1];
	uint32_t	timeline;
	uint64_t	lsn;

	pgx_wal_name(wal_names[_i].timeline, wal_names[_i].lsn, wal_names[_i].size, name);
	ck_assert_str_eq(name, wal_names[_i].name);
	ck_assert(pgx_wal_name_parse(name, wal_names[_i].size, &timeline, &lsn));
	ck_assert_uint_eq(timeline, wal_names[_i].timeline);
	ck_assert_uint_eq(lsn, wal_names[_i].begin);
}
END_TEST

static const char *const no_wal_names[] = {
	"", "00000001000000000000000", "0000000100000000000000020", "00000001000000000000000g",
	"00000001000000000000000a", "00000002.history", "000000010000000000000002.partial",
	"000000010000000000000100",	/* 16 MiB segments: 256 of them in 4 GiB */
};

START_TEST(no_wal_name)
{
	ck_assert(!pgx_wal_name_parse(no_wal_names[_i], 16 << 20, NULL, NULL));
}
END_TEST

START_TEST(lsn_text)
{
	static const char *const bad[] = {"", "0", "/", "1/", "/1", "123456789/0", "0/123456789", "1/2/3", "1/2 ", "-1/2", "g/1"};
	char		text[PGX_LSN_STRLEN + 1];
	uint64_t	lsn = 0;

	ck_assert(pgx_lsn_parse("16/B374D848", &lsn));
	ck_assert_uint_eq(lsn, UINT64_C(0x16B374D848));
	pgx_lsn_text(lsn, text);
	ck_assert_str_eq(text, "16/B374D848");
	pgx_lsn_text(UINT64_MAX, text);
	ck_assert_str_eq(text, "FFFFFFFF/FFFFFFFF");
	for (int i = 0; i < LENGTH_OF(bad); i++)
		ck_assert_msg(!pgx_lsn_parse(bad[i], &lsn), "\"%s\"", bad[i]);
}
END_TEST

/* ---- backup_info.json ---------------------------------------------------------------- */

START_TEST(info_round_trip)
{
	struct pgx_backup_info info;
	struct pgx_backup_info got;
	char		err[256] = "";

	make_area();
	fill_info(&info, 1795508000, 0x2000028);
	info.from_standby = true;
	info.archive_complete = true;
	info.keystore_copy = pgx_strdup("keystore/keystore.ks");
	info.tablespaces = pgx_alloc(sizeof(*info.tablespaces));
	info.tablespaces[0] = (struct pgx_backup_tablespace)
	{
		16400, pgx_strdup("t \"s\""), pgx_strdup("/ts"), pgx_strdup("AES256"), false
	};
	info.n_tablespaces = 1;
	info.confs = pgx_alloc(sizeof(*info.confs));
	info.confs[0] = (struct pgx_backup_conf)
	{
		pgx_strdup("config_file"), pgx_strdup("/etc/p.conf"), pgx_strdup("conf/p.conf")
	};
	info.n_confs = 1;
	ck_assert(pgx_backup_info_write(".", &info));
	ck_assert_msg(pgx_backup_info_read(".", &got, err, sizeof(err)), "%s", err);
	ck_assert_str_eq(got.label, "a label");
	ck_assert_int_eq(got.end_time, 1795508000);
	ck_assert_int_eq(got.start_time, 1795508000 - 60);
	ck_assert_uint_eq(got.start_lsn, 0x2000028);
	ck_assert_uint_eq(got.end_lsn, 0x2000128);
	ck_assert(got.from_standby && got.archive_complete && !got.data_checksums && !got.has_manifest);
	ck_assert_uint_eq(got.n_master_keys, 2);
	ck_assert_uint_eq(got.master_keys[1], 4);
	ck_assert_str_eq(got.keystore_copy, "keystore/keystore.ks");
	ck_assert_ptr_null(got.keystore_location);
	ck_assert_ptr_null(got.copy_info_file);
	ck_assert_uint_eq(got.n_tablespaces, 1);
	ck_assert_str_eq(got.tablespaces[0].name, "t \"s\"");
	ck_assert_str_eq(got.confs[0].file, "conf/p.conf");
	pgx_backup_info_clear(&info);
	pgx_backup_info_clear(&got);
	remove_area();
}
END_TEST

/* Replace a piece of a good file; the reason that reading then gives. */
static const struct
{
	const char *piece;
	const char *with;
	const char *err;
}			damages[] = {
	{"{", "", "is not valid"},
	{"\"format\": 1", "\"format\": 2", "has format 2, which this version does not know"},
	{"\"format\": 1", "\"format\": \"1\"", "has format 0"},
	{"COMPLETE", "INCOMPLETE", "status is \"INCOMPLETE\""},
	{"\"label\": \"a label\"", "\"label\": 3", "member \"label\" is missing or not a string"},
	{"\"label\"", "\"tool\"", "is not valid"},	/* duplicate */
	{"\"segment_size\": 16777216", "\"segment_size\": 16777215", "not a power of two"},
	{"\"segment_size\": 16777216", "\"segment_size\": 0", "\"segment_size\" is missing or out of range"},
	{"0/2000128", "0/1000128", "ends before it begins"},
	{"0/2000128", "2000128", "member \"end_lsn\" is not an LSN"},
	{"\"end_timeline\": 1", "\"end_timeline\": 0", "\"end_timeline\" is missing or out of range"},
	{"\"end_timeline\": 1", "\"end_timeline\": 4294967296", "\"end_timeline\" is missing or out of range"},
	{"\"size\": 12345", "\"size\": -1", "member \"size\" is missing or out of range"},
	{"\"end_time\": \"2", "\"end_time\": \"x2", "member \"end_time\" is not a time"},
	{"\"from_standby\": false", "\"from_standby\": 0", "\"from_standby\" is missing or not a boolean"},
	{"\"copy\": null", "\"copy\": \"/etc/passwd\"", "\"copy\" names a file outside the backup"},
	{"\"copy\": null", "\"copy\": \"../x\"", "\"copy\" names a file outside the backup"},
	{"\"copy\": null", "\"copy\": \"a/../../x\"", "\"copy\" names a file outside the backup"},
	{"\"copy\": null", "\"copy\": \"a/..\"", "\"copy\" names a file outside the backup"},
	{"\"tablespaces\": []", "\"tablespaces\": {}", "\"tablespaces\" is missing or not an array"},
	{"\"tablespaces\": []", "\"tablespaces\": [1]", "member \"oid\" is missing or out of range"},
};

START_TEST(info_damage)
{
	struct pgx_backup_info info;
	char		err[256] = "";
	uint8_t    *text;
	size_t		len;
	char	   *at;
	char	   *damaged;

	make_area();
	fill_info(&info, 1795508000, 0x2000028);
	ck_assert(pgx_backup_info_write(".", &info));
	pgx_backup_info_clear(&info);
	ck_assert(pgx_file_read(PGX_BACKUP_INFO_NAME, 65536, 0, "600", &text, &len));
	at = strstr((char *) text, damages[_i].piece);
	ck_assert_msg(at != NULL, "no %s in %s", damages[_i].piece, text);
	damaged = pgx_printf("%.*s%s%s", (int) (at - (char *) text), (char *) text, damages[_i].with,
						 at + strlen(damages[_i].piece));
	put_file(PGX_BACKUP_INFO_NAME, damaged);
	ck_assert(!pgx_backup_info_read(".", &info, err, sizeof(err)));
	ck_assert_msg(strstr(err, damages[_i].err) != NULL, "%s", err);
	free(damaged);
	free(text);
	remove_area();
}
END_TEST

/* A packed backup: its id comes back, and what is no id, or no key's number, is refused. */
static const struct
{
	const char *piece;
	const char *with;
	const char *err;
}			pack_damages[] = {
	{"00fe", "00f", "member \"id\" is not a packed file's id"},
	{"00fe", "00fg", "member \"id\" is not a packed file's id"},
	{"00fe", "00FE", "member \"id\" is not a packed file's id"},
	{"\"master_key\": 4", "\"master_key\": 0", "member \"master_key\" is missing or out of range"},
	{"\"data_size\": 99", "\"data_size\": -1", "member \"data_size\" is missing or out of range"},
	{"\"data_size\"", "\"other\"", "member \"data_size\" is missing or out of range"},
};

START_TEST(info_packed)
{
	struct pgx_backup_info info;
	struct pgx_backup_info got;
	char		err[256] = "";
	uint8_t    *text;
	size_t		len;
	char	   *at;
	char	   *damaged;

	make_area();
	fill_info(&info, 1795508000, 0x2000028);
	info.packed = true;
	info.pack_id[14] = 0;
	info.pack_id[15] = 0xfe;
	info.pack_master_key = 4;
	info.pack_data_size = 99;
	ck_assert(pgx_backup_info_write(".", &info));
	ck_assert_msg(pgx_backup_info_read(".", &got, err, sizeof(err)), "%s", err);
	ck_assert(got.packed && got.pack_master_key == 4 && got.pack_data_size == 99);
	ck_assert_mem_eq(got.pack_id, info.pack_id, sizeof(got.pack_id));
	pgx_backup_info_clear(&info);
	pgx_backup_info_clear(&got);
	ck_assert(pgx_file_read(PGX_BACKUP_INFO_NAME, 65536, 0, "600", &text, &len));
	at = strstr((char *) text, pack_damages[_i].piece);
	ck_assert_msg(at != NULL, "no %s in %s", pack_damages[_i].piece, text);
	damaged = pgx_printf("%.*s%s%s", (int) (at - (char *) text), (char *) text, pack_damages[_i].with,
						 at + strlen(pack_damages[_i].piece));
	put_file(PGX_BACKUP_INFO_NAME, damaged);
	ck_assert(!pgx_backup_info_read(".", &got, err, sizeof(err)));
	ck_assert_msg(strstr(err, pack_damages[_i].err) != NULL, "%s", err);
	free(damaged);
	free(text);
	remove_area();
}
END_TEST

START_TEST(info_key_order)
{
	struct pgx_backup_info info;
	char		err[256] = "";

	make_area();
	fill_info(&info, 1795508000, 0x2000028);
	info.master_keys[0] = 4;	/* twice the same */
	ck_assert(pgx_backup_info_write(".", &info));
	pgx_backup_info_clear(&info);
	ck_assert(!pgx_backup_info_read(".", &info, err, sizeof(err)));
	ck_assert_ptr_nonnull(strstr(err, "ascending"));
	remove_area();
}
END_TEST

/* ---- the list -------------------------------------------------------------------------- */

static const struct pgx_backup *
by_name(const struct pgx_area *area, const char *name)
{
	for (size_t i = 0; i < area->count; i++)
	{
		if (strcmp(area->backups[i].name, name) == 0)
			return &area->backups[i];
	}
	return NULL;
}

START_TEST(list_states)
{
	struct pgx_area area;
	const struct pgx_backup *backup;

	make_area();
	put_simple_backup("2026-01-01_00-00-00", 1795500000, 0x2000000);
	put_simple_backup("2026-01-02_00-00-00", 1795500100, 0x3000000);
	put_simple_backup("2026-01-03_00-00-00", 1795500200, 0x4000000);
	put_simple_backup("2026-01-04_00-00-00.incomplete", 1795500300, 0x5000000);
	put_simple_backup("2026-01-05_00-00-0", 1795500400, 0x5000000);
	put_simple_backup("2026-01-05_00-00-000", 1795500400, 0x5000000);
	put_simple_backup("2026-01-05 00-00-00", 1795500400, 0x5000000);
	put_file("2026-01-06_00-00-00", "a file");
	ck_assert_int_eq(unlink("2026-01-02_00-00-00/backup_info.json"), 0);
	ck_assert_int_eq(unlink("2026-01-03_00-00-00/data/PG_VERSION"), 0);

	ck_assert(pgx_area_list(".", &area));
	ck_assert_uint_eq(area.count, 4);
	backup = by_name(&area, "2026-01-01_00-00-00");
	ck_assert_int_eq(backup->state, PGX_BACKUP_COMPLETE);
	backup = by_name(&area, "2026-01-02_00-00-00");
	ck_assert_int_eq(backup->state, PGX_BACKUP_DAMAGED);
	ck_assert_ptr_nonnull(strstr(backup->reason, "could not open file \"backup_info.json\""));
	backup = by_name(&area, "2026-01-03_00-00-00");
	ck_assert_int_eq(backup->state, PGX_BACKUP_DAMAGED);
	ck_assert_str_eq(backup->reason, "\"data/PG_VERSION\" is missing");
	backup = by_name(&area, "2026-01-04_00-00-00");
	ck_assert_int_eq(backup->state, PGX_BACKUP_INCOMPLETE);
	ck_assert_str_eq(pgx_area_newest(&area)->name, "2026-01-01_00-00-00");
	pgx_area_clear(&area);
	ck_assert(!pgx_area_list("nowhere", &area));
	remove_area();
}
END_TEST

/* A clock that was set back: the names do not tell the order. */
START_TEST(choose)
{
	struct pgx_area area;

	make_area();
	put_simple_backup("2026-01-03_00-00-00", 1795500000, 0x2000000);
	put_simple_backup("2026-01-02_00-00-00", 1795500100, 0x3000000);
	put_simple_backup("2026-01-01_00-00-00", 1795500200, 0x4000000);
	ck_assert(pgx_area_list(".", &area));
	ck_assert_str_eq(pgx_area_newest(&area)->name, "2026-01-01_00-00-00");
	ck_assert_str_eq(pgx_area_newest_until(&area, 1795500199, 0)->name, "2026-01-02_00-00-00");
	ck_assert_str_eq(pgx_area_newest_until(&area, 1795500200, 0)->name, "2026-01-01_00-00-00");
	ck_assert_str_eq(pgx_area_newest_until(&area, 0, 0x3000100)->name, "2026-01-02_00-00-00");
	ck_assert_str_eq(pgx_area_newest_until(&area, 0, 0x30000FF)->name, "2026-01-03_00-00-00");
	ck_assert_ptr_null(pgx_area_newest_until(&area, 1795499999, 0));
	ck_assert_str_eq(pgx_area_find(&area, "2026-01-02_00-00-00")->name, "2026-01-02_00-00-00");
	ck_assert_str_eq(pgx_area_find(&area, "a label")->name, "2026-01-01_00-00-00");
	ck_assert_ptr_null(pgx_area_find(&area, "another"));
	pgx_area_clear(&area);
	remove_area();
}
END_TEST

/* ---- retention ------------------------------------------------------------------------- */

START_TEST(retain)
{
	static const char *const stay[] = {
		"000000010000000000000003", "000000010000000000000004", "000000020000000000000003", "00000002.history",
		"000000010000000000000002.gz", "000000010000000000000002.pgx_tmp", "notes", "000000010000000000000001.d"
	};
	static const char *const go[] = {
		"000000010000000000000001", "000000010000000000000002", "000000020000000000000002",
		"000000010000000000000002.partial", "000000010000000000000002.00000028.backup"
	};
	size_t		backups;
	size_t		segments;

	make_area();
	put_simple_backup("2026-01-01_00-00-00", 1795500000, 0x1000000);
	put_simple_backup("2026-01-02_00-00-00", 1795500100, 0x3000028);
	put_simple_backup("2026-01-03_00-00-00", 1795500200, 0x5000028);
	put_dir("archived_wal");
	put_dir("archived_wal/000000010000000000000000");	/* a directory is no segment */
	for (int i = 0; i < LENGTH_OF(stay); i++)
	{
		char	   *path = pgx_printf("archived_wal/%s", stay[i]);

		put_file(path, "x");
		free(path);
	}
	for (int i = 0; i < LENGTH_OF(go); i++)
	{
		char	   *path = pgx_printf("archived_wal/%s", go[i]);

		put_file(path, "x");
		free(path);
	}
	ck_assert(pgx_area_retain(".", 2, &backups, &segments));
	ck_assert_uint_eq(backups, 1);
	ck_assert_uint_eq(segments, LENGTH_OF(go));
	ck_assert(!is_there("2026-01-01_00-00-00"));
	ck_assert(!is_there("2026-01-01_00-00-00.incomplete"));
	ck_assert(is_there("2026-01-02_00-00-00"));
	ck_assert(is_there("archived_wal/000000010000000000000000"));
	for (int i = 0; i < LENGTH_OF(stay); i++)
	{
		char	   *path = pgx_printf("archived_wal/%s", stay[i]);

		ck_assert_msg(is_there(path), "%s", path);
		free(path);
	}

	/* While a backup's needs are not known, no WAL goes. */
	ck_assert_int_eq(unlink("2026-01-02_00-00-00/backup_info.json"), 0);
	ck_assert(pgx_area_retain(".", 1, &backups, &segments));
	ck_assert_uint_eq(backups, 0);
	ck_assert_uint_eq(segments, 0);
	ck_assert(is_there("2026-01-02_00-00-00"));
	remove_area();
}
END_TEST

START_TEST(leftovers)
{
	char	   *name;
	char	   *dir;
	size_t		n;

	make_area();
	ck_assert(pgx_area_begin(".", &name, &dir));
	ck_assert(!pgx_area_commit(".", name));	/* nothing says what it is */
	put_dir("2026-01-01_00-00-00.incomplete");	/* empty: died before the marker */
	put_dir("2026-01-02_00-00-00.incomplete");
	put_file("2026-01-02_00-00-00.incomplete/file", "a stranger's");
	put_dir("other.incomplete");
	ck_assert(pgx_area_remove_leftovers(".", &n));
	ck_assert_uint_eq(n, 2);
	ck_assert(!is_there(dir));
	ck_assert(!is_there("2026-01-01_00-00-00.incomplete"));
	ck_assert(is_there("2026-01-02_00-00-00.incomplete/file"));
	ck_assert(is_there("other.incomplete"));
	ck_assert(!pgx_area_remove(".", "archived_wal"));
	free(name);
	free(dir);
	remove_area();
}
END_TEST

/* Links in a backup lead to what is not ours. */
START_TEST(links_are_not_followed)
{
	make_area();
	put_dir("precious");
	put_file("precious/file", "x");
	put_dir("tree");
	ck_assert_int_eq(symlink("../precious", "tree/link"), 0);
	ck_assert(pgx_sync_tree("tree", NULL));
	ck_assert(pgx_remove_tree("tree"));
	ck_assert(is_there("precious/file"));
	remove_area();
}
END_TEST

START_TEST(lock)
{
	int			fd = -1;
	int			second = -1;

	make_area();
	ck_assert(pgx_area_lock(".", &fd));
	ck_assert(!pgx_area_lock(".", &second));
	pgx_area_unlock(&fd);
	ck_assert_int_eq(fd, -1);
	ck_assert(pgx_area_lock(".", &second));
	pgx_area_unlock(&second);
	remove_area();
}
END_TEST

/* ---- keys --------------------------------------------------------------------------------- */

static const struct
{
	const char *uuid;
	uint32_t	id;
	int			need;			/* of the first backup, with keys 3 and 4 */
	size_t		count;			/* of three: that one, a damaged one, one without a keystore */
}			needs[] = {
	{UUID, 3, PGX_KEY_FOR_DATA, 3},
	{UUID, 4, PGX_KEY_FOR_DATA, 3},
	{UUID, 5, PGX_KEY_FOR_WAL, 3},	/* replay goes through later keys */
	{UUID, 2, 0, 2},
	{"99999999-2222-3333-4444-555555555555", 3, 0, 2},
};

START_TEST(key_users)
{
	struct pgx_area area;
	struct pgx_backup_info info;
	struct pgx_key_user *users;
	size_t		n;
	int			need = 0;

	make_area();
	put_simple_backup("2026-01-01_00-00-00", 1795500000, 0x2000000);
	fill_info(&info, 1795500100, 0x3000000);
	free(info.keystore_uuid);
	info.keystore_uuid = NULL;
	info.n_master_keys = 0;
	put_backup("2026-01-02_00-00-00", &info);
	pgx_backup_info_clear(&info);
	put_dir("2026-01-03_00-00-00");
	put_simple_backup("2026-01-04_00-00-00.incomplete", 1795500000, 0x2000000);
	ck_assert(pgx_area_list(".", &area));
	n = pgx_area_key_users(&area, needs[_i].uuid, needs[_i].id, &users);
	ck_assert_uint_eq(n, needs[_i].count);
	for (size_t i = 0; i < n; i++)
	{
		if (strcmp(users[i].backup->name, "2026-01-01_00-00-00") == 0)
			need = (int) users[i].need;
		if (strcmp(users[i].backup->name, "2026-01-02_00-00-00") == 0)
			ck_assert_int_eq(users[i].need, PGX_KEY_FOR_WAL);
		if (strcmp(users[i].backup->name, "2026-01-03_00-00-00") == 0)
			ck_assert_int_eq(users[i].need, PGX_KEY_FOR_DATA);
	}
	ck_assert_int_eq(need, needs[_i].need);
	free(users);
	pgx_area_clear(&area);
	remove_area();
}
END_TEST

int
main(int argc, char **argv)
{
	Suite	   *s = suite_create("backup_area");

	pgx_log_init(argv[0]);
	ADD_LOOP_TEST(s, wal_name, LENGTH_OF(wal_names));
	ADD_LOOP_TEST(s, no_wal_name, LENGTH_OF(no_wal_names));
	ADD_TEST(s, lsn_text);
	ADD_TEST(s, info_round_trip);
	ADD_LOOP_TEST(s, info_damage, LENGTH_OF(damages));
	ADD_LOOP_TEST(s, info_packed, LENGTH_OF(pack_damages));
	ADD_TEST(s, info_key_order);
	ADD_TEST(s, list_states);
	ADD_TEST(s, choose);
	ADD_TEST(s, retain);
	ADD_TEST(s, leftovers);
	ADD_TEST(s, links_are_not_followed);
	ADD_TEST(s, lock);
	ADD_LOOP_TEST(s, key_users, LENGTH_OF(needs));
	return run_suite(s);
}
