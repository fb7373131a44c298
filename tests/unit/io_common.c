/*
 * io_common.c
 *		What the unit tests of the I/O layer on real files share.
 */
#include <config.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "io_common.h"

extern struct pgx_io_api pgx_tde_io_api;

/* The layer works in processes that have this symbol of the server's. */
extern int	MyBackendType;
int			MyBackendType;

struct pgx_io_api *io = &pgx_tde_io_api;
uint64_t	end_of_wal;
uint64_t	end_of_replay;
bool		raw_process;
int			missing_keys;
static char dir[] = "/tmp/check_io_XXXXXX";

static bool
is_raw(enum pgx_io_kind kind, int open_flags)
{
	return raw_process;
}

static uint64_t
insert_end(void)
{
	return end_of_wal;
}

static uint64_t
replay_end(void)
{
	return end_of_replay;
}

static void
wal_key_missing(void)
{
	missing_keys++;
}

struct pgx_io_server server = {
	.wal_magic = MAGIC,
	.checksums = true,
	.is_raw = is_raw,
	.insert_end = insert_end,
	.replay_end = replay_end,
	.wal_key_missing = wal_key_missing,
};

static void
setup(void)
{
	uint8_t		key[TDE_MAX_KEY_LEN];

	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_int_eq(chdir(dir), 0);
	ck_assert_int_eq(mkdir("pg_wal", 0700), 0);
	ck_assert_int_eq(system("mkdir -p pg_tblspc/16385/PG_15_202209061/5 base/5 base/pgsql_tmp"), 0);
	server.data_dir = dir;
	io->start(&server);
	ck_assert_ptr_nonnull(io->shared);
	for (size_t i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t) (i * 7 + 1);
	ck_assert_int_eq(io->set_key(TDE_KEY_TABLESPACE, TABLESPACE, TDE_AES256, key), 0);
	ck_assert_int_eq(io->set_key(TDE_KEY_WAL, 0, TDE_AES256, key), 0);
	ck_assert_int_eq(io->set_key(PGX_IO_KEY_TEMP, 0, TDE_AES256, key), 0);
	ck_assert_int_eq(io->new_epoch(), 0);
	atomic_store(&io->shared->wal_on, 1);
}

static void
teardown(void)
{
	char		command[64];

	snprintf(command, sizeof(command), "rm -rf %s", dir);
	ck_assert_int_eq(system(command), 0);
}

void
read_disk(const char *path, off_t off, uint8_t *buf, size_t len)
{
	int			fd = (int) syscall(SYS_openat, AT_FDCWD, path, O_RDONLY);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(syscall(SYS_pread64, fd, buf, len, off), (long) len);
	syscall(SYS_close, fd);
}

void
make_pages(uint8_t *pages, size_t n)
{
	const uint16_t layout = PAGE | 4;

	memset(pages, 'a', n * PAGE);
	for (size_t i = 0; i < n; i++)
		memcpy(pages + i * PAGE + 18, &layout, sizeof(layout));
}

void
make_wal_page(uint8_t *page, uint64_t address, size_t used)
{
	uint16_t	magic = MAGIC;
	uint32_t	timeline = 1;

	memset(page, 0, PAGE);
	memset(page, 'x', used);
	memset(page, 0, 24);
	memcpy(page, &magic, 2);
	memcpy(page + 4, &timeline, 4);
	memcpy(page + 8, &address, 8);
}

uint32_t
epoch_of(const uint8_t *page)
{
	struct tde_wal_header header;

	ck_assert(tde_wal_parse(page, MAGIC, &header));
	return header.epoch;
}

int
open_segment(void)
{
	int			fd = open(SEGMENT, O_RDWR | O_CREAT, 0600);

	ck_assert_int_ge(fd, 0);
	return fd;
}

int
io_run(const char *name, TCase *tcase)
{
	Suite	   *suite = suite_create(name);
	SRunner    *runner;
	int			failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_set_tap(runner, "-");
	srunner_run_all(runner, CK_SILENT);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
