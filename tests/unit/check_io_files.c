/*
 * check_io_files.c
 *		The I/O layer on real files: what the server writes, what lies on disk, what
 *		comes back.  The layer is linked in, so open() and pwrite() here are its own.
 */
#include <config.h>

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "page.h"
#include "pgx_io.h"

#define MAGIC		0xD110
#define PAGE		8192
#define SEGMENT		"pg_wal/000000010000000000000001"
#define SEGMENT_LSN	0x1000000UL
#define TABLESPACE	16385
#define RELATION	"pg_tblspc/16385/PG_15_202209061/5/16400"

extern struct pgx_io_api pgx_tde_io_api;

/* The layer works in processes that have this symbol of the server's. */
extern int	MyBackendType;
int			MyBackendType;

static struct pgx_io_api *io = &pgx_tde_io_api;
static char dir[] = "/tmp/check_io_XXXXXX";
static uint64_t end_of_wal;
static uint64_t end_of_replay;
static bool raw_process;
static int	missing_keys;

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

static struct pgx_io_server server = {
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

/* What is on disk, past the layer. */
static void
read_disk(const char *path, off_t off, uint8_t *buf, size_t len)
{
	int			fd = (int) syscall(SYS_openat, AT_FDCWD, path, O_RDONLY);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(syscall(SYS_pread64, fd, buf, len, off), (long) len);
	syscall(SYS_close, fd);
}

/* Pages of relations, each with the size and layout version that PostgreSQL's have. */
static void
make_pages(uint8_t *pages, size_t n)
{
	const uint16_t layout = PAGE | 4;

	memset(pages, 'a', n * PAGE);
	for (size_t i = 0; i < n; i++)
		memcpy(pages + i * PAGE + 18, &layout, sizeof(layout));
}

/* A WAL page of records 'x' up to used bytes, as it is in the server's buffers. */
static void
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

static uint32_t
epoch_of(const uint8_t *page)
{
	struct tde_wal_header header;

	ck_assert(tde_wal_parse(page, MAGIC, &header));
	return header.epoch;
}

static int
open_segment(void)
{
	int			fd = open(SEGMENT, O_RDWR | O_CREAT, 0600);

	ck_assert_int_ge(fd, 0);
	return fd;
}

START_TEST(relation_round_trip)
{
	static uint8_t pages[40 * PAGE];
	static uint8_t back[40 * PAGE];
	uint8_t		disk[PAGE];
	int			fd = open(RELATION, O_RDWR | O_CREAT, 0600);

	for (size_t i = 0; i < sizeof(pages); i++)
		pages[i] = (uint8_t) (i / PAGE + i % 251);
	memset(pages + 3 * PAGE, 0, PAGE);
	ck_assert_int_eq(pwrite(fd, pages, sizeof(pages), 0), sizeof(pages));
	ck_assert_int_eq(pread(fd, back, sizeof(back), 0), sizeof(back));
	for (int i = 0; i < 40; i++)
		ck_assert_mem_eq(back + i * PAGE + 16, pages + i * PAGE + 16, PAGE - 16);

	read_disk(RELATION, PAGE, disk, PAGE);
	ck_assert_mem_ne(disk + 16, pages + PAGE + 16, 16);
	ck_assert_mem_eq(disk, pages + PAGE, 8);	/* pd_lsn */
	read_disk(RELATION, 3 * PAGE, disk, PAGE);
	ck_assert(tde_page_is_zero(disk));
	close(fd);
}
END_TEST

START_TEST(relation_by_vector_and_position)
{
	uint8_t		a[PAGE];
	uint8_t		b[PAGE];
	uint8_t		back[2 * PAGE];
	struct iovec iov[2] = {{a, PAGE}, {b, PAGE}};
	int			fd = open(RELATION, O_RDWR | O_CREAT, 0600);

	memset(a, 'a', PAGE);
	memset(b, 'b', PAGE);
	ck_assert_int_eq(pwritev(fd, iov, 2, PAGE), 2 * PAGE);
	ck_assert_int_eq(lseek(fd, PAGE, SEEK_SET), PAGE);
	ck_assert_int_eq(read(fd, back, 2 * PAGE), 2 * PAGE);
	ck_assert_int_eq(lseek(fd, 0, SEEK_CUR), 3 * PAGE);
	ck_assert_mem_eq(back + 16, a + 16, PAGE - 16);
	ck_assert_mem_eq(back + PAGE + 16, b + 16, PAGE - 16);
	memset(a, 0, PAGE);
	memset(b, 0, PAGE);
	ck_assert_int_eq(preadv(fd, iov, 2, PAGE), 2 * PAGE);
	ck_assert_int_eq(b[100], 'b');
	ck_assert_int_eq(read(fd, back, PAGE), 0);
	close(fd);
}
END_TEST

START_TEST(relation_refuses_parts_of_pages)
{
	uint8_t		page[PAGE] = {1};
	int			fd = open(RELATION, O_RDWR | O_CREAT, 0600);

	ck_assert_int_eq(pwrite(fd, page, 100, 0), -1);
	ck_assert_int_eq(errno, EINVAL);
	ck_assert_int_eq(pwrite(fd, page, PAGE, 512), -1);
	ck_assert_int_eq(pread(fd, page, 100, 0), -1);
	close(fd);
}
END_TEST

/* The kernel would copy ciphertext that is good for one file only; files that are not ours it may copy. */
START_TEST(relation_is_not_cloned)
{
	uint8_t		page[PAGE] = {1};
	uint8_t		disk[PAGE];
	int			fd = open(RELATION, O_RDWR | O_CREAT, 0600);
	int			plain = open("base/5/PG_VERSION", O_RDWR | O_CREAT, 0600);
	int			copy = open("base/5/copy", O_RDWR | O_CREAT, 0600);

	ck_assert_int_eq(pwrite(fd, page, PAGE, 0), PAGE);
	ck_assert_int_eq(pwrite(plain, page, PAGE, 0), PAGE);
	ck_assert_int_eq(copy_file_range(fd, NULL, copy, NULL, PAGE, 0), -1);
	ck_assert_int_eq(errno, EOPNOTSUPP);
	errno = 0;
	ck_assert_int_eq(copy_file_range(plain, NULL, fd, NULL, PAGE, 0), -1);
	ck_assert_int_eq(errno, EOPNOTSUPP);
	ck_assert_int_eq(copy_file_range(plain, NULL, copy, NULL, PAGE, 0), PAGE);
	read_disk("base/5/copy", 0, disk, PAGE);
	ck_assert_mem_eq(disk, page, PAGE);
	close(fd);
	close(plain);
	close(copy);
}
END_TEST

/* A file that ends inside a page: only whole pages come back, so that the server reports a short read. */
START_TEST(relation_torn_end)
{
	uint8_t		page[2 * PAGE] = {1};
	int			fd = open(RELATION, O_RDWR | O_CREAT, 0600);

	ck_assert_int_eq(pwrite(fd, page, 2 * PAGE, 0), 2 * PAGE);
	ck_assert_int_eq(truncate(RELATION, PAGE + 100), 0);
	ck_assert_int_eq(pread(fd, page, 2 * PAGE, 0), PAGE);
	ck_assert_int_eq(pread(fd, page, PAGE, PAGE), 0);
	close(fd);
}
END_TEST

/* A disk that becomes full in the middle of a page: what is said to be written is whole pages. */
START_TEST(relation_full_disk)
{
	static uint8_t pages[20 * PAGE];
	struct rlimit limit = {5 * PAGE + 1000, RLIM_INFINITY};
	int			fd = open(RELATION, O_RDWR | O_CREAT, 0600);

	memset(pages, 'q', sizeof(pages));
	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	ck_assert_int_eq(pwrite(fd, pages, sizeof(pages), 0), 5 * PAGE);
	ck_assert_int_eq(pwrite(fd, pages, PAGE, 5 * PAGE), -1);
	ck_assert_int_eq(errno, EFBIG);
	close(fd);
}
END_TEST

START_TEST(relation_same_page_elsewhere_differs)
{
	uint8_t		page[PAGE];
	uint8_t		one[PAGE];
	uint8_t		two[PAGE];
	int			fd = open(RELATION, O_RDWR | O_CREAT, 0600);
	int			fd1 = open(RELATION ".1", O_RDWR | O_CREAT, 0600);

	memset(page, 'p', PAGE);
	ck_assert_int_eq(pwrite(fd, page, PAGE, 0), PAGE);
	ck_assert_int_eq(pwrite(fd, page, PAGE, PAGE), PAGE);
	ck_assert_int_eq(pwrite(fd1, page, PAGE, 0), PAGE);
	read_disk(RELATION, 0, one, PAGE);
	read_disk(RELATION, PAGE, two, PAGE);
	ck_assert_mem_ne(one + 16, two + 16, 16);
	read_disk(RELATION ".1", 0, two, PAGE);
	ck_assert_mem_ne(one + 16, two + 16, 16);
	close(fd);
	close(fd1);
}
END_TEST

/* Without a key nothing is encrypted, with a key that comes later even open files are. */
START_TEST(relation_key_comes_later)
{
	const char *path = "pg_tblspc/16385/PG_15_202209061/5/16500";
	uint8_t		key[TDE_MAX_KEY_LEN];
	uint8_t		page[PAGE];
	uint8_t		disk[PAGE];
	int			fd;

	memset(page, 'p', PAGE);
	memset(key, 'k', 16);
	memset(key + 16, 'l', 48);
	ck_assert_int_eq(io->set_key(TDE_KEY_TABLESPACE, TABLESPACE, TDE_NONE, NULL), 0);
	ck_assert_int_eq(io->get_algorithm(TDE_KEY_TABLESPACE, TABLESPACE), TDE_NONE);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	ck_assert_int_eq(pwrite(fd, page, PAGE, 0), PAGE);
	read_disk(path, 0, disk, PAGE);
	ck_assert_mem_eq(disk, page, PAGE);

	ck_assert_int_eq(io->set_key(TDE_KEY_TABLESPACE, TABLESPACE, TDE_AES128, key), 0);
	ck_assert_int_eq(pwrite(fd, page, PAGE, 0), PAGE);
	read_disk(path, 0, disk, PAGE);
	ck_assert_mem_ne(disk + 16, page + 16, 16);

	/* A key that is withdrawn while the file is open leaves it unreadable, never in the clear. */
	ck_assert_int_eq(io->set_key(TDE_KEY_TABLESPACE, TABLESPACE, TDE_NONE, NULL), 0);
	ck_assert_int_eq(pwrite(fd, page, PAGE, 0), -1);
	ck_assert_int_eq(errno, ENOKEY);
	close(fd);
}
END_TEST

START_TEST(wal_grows_page_by_page)
{
	uint8_t		page[PAGE];
	uint8_t		back[PAGE];
	uint8_t		before[PAGE];
	uint8_t		after[PAGE];
	int			fd = open_segment();

	make_wal_page(page, SEGMENT_LSN, 1000);
	end_of_wal = SEGMENT_LSN + 1000;
	ck_assert_int_eq(pwrite(fd, page, PAGE, 0), PAGE);
	read_disk(SEGMENT, 0, before, PAGE);
	ck_assert_mem_ne(before + 24, page + 24, 16);
	for (int i = 1000; i < PAGE; i++)
		ck_assert_uint_eq(before[i], 0);

	make_wal_page(page, SEGMENT_LSN, 3000);
	end_of_wal = SEGMENT_LSN + 3000;
	ck_assert_int_eq(pwrite(fd, page, PAGE, 0), PAGE);
	read_disk(SEGMENT, 0, after, PAGE);
	ck_assert_mem_eq(after, before, 1000);	/* flushed bytes never change */
	ck_assert_int_eq(pread(fd, back, PAGE, 0), PAGE);
	ck_assert_mem_eq(back + 24, page + 24, PAGE - 24);
	close(fd);
}
END_TEST

/* Bytes that another process has begun to insert are not written, and no keystream is either. */
START_TEST(wal_stops_at_insert_position)
{
	uint8_t		page[PAGE];
	uint8_t		disk[PAGE];
	int			fd = open_segment();

	make_wal_page(page, SEGMENT_LSN, 3000);
	end_of_wal = SEGMENT_LSN + 2000;
	ck_assert_int_eq(pwrite(fd, page, PAGE, 0), PAGE);
	read_disk(SEGMENT, 0, disk, PAGE);
	for (int i = 2000; i < PAGE; i++)
		ck_assert_uint_eq(disk[i], 0);
	close(fd);
}
END_TEST

/* A record that ends in zeros: they are encrypted, since they are promised. */
START_TEST(wal_promised_zeros)
{
	uint8_t		page[PAGE];
	uint8_t		disk[PAGE];
	uint8_t		back[PAGE];
	int			fd = open_segment();

	make_wal_page(page, SEGMENT_LSN, 1000);
	end_of_wal = SEGMENT_LSN + 1200;
	ck_assert_int_eq(pwrite(fd, page, PAGE, 0), PAGE);
	read_disk(SEGMENT, 0, disk, PAGE);
	ck_assert_uint_eq(tde_wal_used(disk), 1200);
	ck_assert_int_eq(pread(fd, back, PAGE, 0), PAGE);
	ck_assert_mem_eq(back + 24, page + 24, PAGE - 24);
	close(fd);
}
END_TEST

START_TEST(wal_epoch_survives_restart)
{
	uint8_t		page[2 * PAGE];
	uint8_t		disk[PAGE];
	uint32_t	first;
	uint32_t	second;
	int			fd = open_segment();

	make_wal_page(page, SEGMENT_LSN, 1000);
	end_of_wal = SEGMENT_LSN + 1000;
	ck_assert_int_eq(pwrite(fd, page, PAGE, 0), PAGE);
	read_disk(SEGMENT, 0, disk, PAGE);
	first = epoch_of(disk);
	ck_assert_uint_ne(first, 0);

	/* The server starts again, and goes on in the middle of the page. */
	ck_assert_int_eq(io->new_epoch(), 0);
	second = atomic_load(&io->shared->wal_epoch);
	make_wal_page(page, SEGMENT_LSN, PAGE);
	make_wal_page(page + PAGE, SEGMENT_LSN + PAGE, 504);
	end_of_wal = SEGMENT_LSN + PAGE + 504;
	ck_assert_int_eq(pwrite(fd, page, 2 * PAGE, 0), 2 * PAGE);
	read_disk(SEGMENT, 0, disk, PAGE);
	ck_assert_uint_eq(epoch_of(disk), first);
	read_disk(SEGMENT, PAGE, disk, PAGE);
	ck_assert_uint_eq(epoch_of(disk), second);
	ck_assert_uint_ne(first, second);
	close(fd);
}
END_TEST

/* A recycled segment holds pages of another place: they do not give their epoch to new ones. */
START_TEST(wal_recycled_segment)
{
	uint8_t		page[PAGE];
	uint8_t		disk[PAGE];
	int			fd = open_segment();

	make_wal_page(page, SEGMENT_LSN - 0x1000000, PAGE);
	tde_wal_set_epoch(page, 77);
	ck_assert_int_eq(syscall(SYS_pwrite64, fd, page, PAGE, 0), PAGE);
	make_wal_page(page, SEGMENT_LSN, 104);
	end_of_wal = SEGMENT_LSN + 104;
	ck_assert_int_eq(pwrite(fd, page, PAGE, 0), PAGE);
	read_disk(SEGMENT, 0, disk, PAGE);
	ck_assert_uint_eq(epoch_of(disk), atomic_load(&io->shared->wal_epoch));
	close(fd);
}
END_TEST

/* A page begun before encryption was switched on stays in the clear, the next one does not. */
START_TEST(wal_plain_page_stays_plain)
{
	uint8_t		page[PAGE];
	uint8_t		disk[PAGE];
	int			fd = open_segment();

	atomic_store(&io->shared->wal_on, 0);
	make_wal_page(page, SEGMENT_LSN, 1000);
	ck_assert_int_eq(pwrite(fd, page, PAGE, 0), PAGE);
	atomic_store(&io->shared->wal_on, 1);
	make_wal_page(page, SEGMENT_LSN, 2000);
	end_of_wal = SEGMENT_LSN + 2000;
	ck_assert_int_eq(pwrite(fd, page, PAGE, 0), PAGE);
	read_disk(SEGMENT, 0, disk, PAGE);
	ck_assert_mem_eq(disk, page, PAGE);
	make_wal_page(page, SEGMENT_LSN + PAGE, 104);
	end_of_wal = SEGMENT_LSN + PAGE + 104;
	ck_assert_int_eq(pwrite(fd, page, PAGE, PAGE), PAGE);
	read_disk(SEGMENT, PAGE, disk, PAGE);
	ck_assert_mem_ne(disk + 24, page + 24, 16);
	close(fd);
}
END_TEST

/* Any range reads as the same range of the whole. */
START_TEST(wal_odd_reads)
{
	static uint8_t pages[20 * PAGE];
	static uint8_t back[20 * PAGE];
	int			fd = open_segment();

	for (int i = 0; i < 20; i++)
		make_wal_page(pages + i * PAGE, SEGMENT_LSN + (uint64_t) i * PAGE, i == 19 ? 4000 : PAGE);
	end_of_wal = SEGMENT_LSN + 19 * PAGE + 4000;
	ck_assert_int_eq(pwrite(fd, pages, sizeof(pages), 0), sizeof(pages));
	for (int i = 0; i < 20; i++)
		tde_wal_set_epoch(pages + i * PAGE, atomic_load(&io->shared->wal_epoch));
	for (size_t from = 0; from < sizeof(pages); from += 3001)
	{
		for (size_t len = 1; from + len <= sizeof(pages); len = len * 3 + 1)
		{
			ck_assert_int_eq(pread(fd, back, len, (off_t) from), (long) len);
			ck_assert_mem_eq(back, pages + from, len);
		}
	}
	ck_assert_int_eq(pread(fd, back, 100, sizeof(pages)), 0);
	ck_assert_int_eq(pread(fd, back, 1000, sizeof(pages) - 10), 10);
	close(fd);
}
END_TEST

START_TEST(wal_zero_and_foreign_pages)
{
	uint8_t		page[PAGE] = {0};
	uint8_t		disk[PAGE];
	int			fd = open_segment();

	ck_assert_int_eq(pwrite(fd, page, PAGE, 0), PAGE);
	read_disk(SEGMENT, 0, disk, PAGE);
	ck_assert(tde_page_is_zero(disk));

	/* Neither a WAL page nor zero: data that would be in the clear. */
	memset(page, 'x', PAGE);
	ck_assert_int_eq(pwrite(fd, page, PAGE, 0), -1);
	ck_assert_int_eq(errno, EINVAL);
	ck_assert_int_eq(pwrite(fd, page, 100, 0), -1);
	close(fd);
}
END_TEST

/* xlogtemp holds a timeline's history as text, or copied pages under this run's epoch. */
START_TEST(wal_temp_file)
{
	const char *path = "pg_wal/xlogtemp.1";
	uint8_t		page[PAGE];
	uint8_t		disk[PAGE];
	int			fd = open(path, O_RDWR | O_CREAT, 0600);

	ck_assert_int_eq(write(fd, "1\t0/3000000\tno recovery target\n", 31), 31);
	read_disk(path, 0, disk, 31);
	ck_assert_mem_eq(disk, "1\t0/3000000\t", 12);

	make_wal_page(page, SEGMENT_LSN, 1000);
	end_of_replay = SEGMENT_LSN + 1040;
	ck_assert_int_eq(lseek(fd, 0, SEEK_SET), 0);
	ck_assert_int_eq(write(fd, page, PAGE), PAGE);
	read_disk(path, 0, disk, PAGE);
	ck_assert_mem_ne(disk + 24, page + 24, 16);
	ck_assert_uint_eq(tde_wal_used(disk), 1040);	/* replayed zeros too, the rest not */
	close(fd);
}
END_TEST

START_TEST(wal_raw_process_sees_disk)
{
	uint8_t		page[PAGE];
	uint8_t		disk[PAGE];
	uint8_t		seen[PAGE];
	int			fd = open_segment();

	make_wal_page(page, SEGMENT_LSN, 1000);
	end_of_wal = SEGMENT_LSN + 1000;
	ck_assert_int_eq(pwrite(fd, page, PAGE, 0), PAGE);
	close(fd);
	raw_process = true;
	fd = open(SEGMENT, O_RDONLY);
	ck_assert_int_eq(pread(fd, seen, PAGE, 0), PAGE);
	read_disk(SEGMENT, 0, disk, PAGE);
	ck_assert_mem_eq(seen, disk, PAGE);
	close(fd);
}
END_TEST

START_TEST(wal_without_key)
{
	uint8_t		page[PAGE];
	int			fd = open_segment();

	make_wal_page(page, SEGMENT_LSN, 1000);
	end_of_wal = SEGMENT_LSN + 1000;
	ck_assert_int_eq(pwrite(fd, page, PAGE, 0), PAGE);
	ck_assert_int_eq(io->set_key(TDE_KEY_WAL, 0, TDE_NONE, NULL), 0);
	ck_assert_int_eq(pread(fd, page, PAGE, 0), -1);
	ck_assert_int_eq(errno, ENOKEY);
	ck_assert_int_eq(missing_keys, 1);
	ck_assert_int_eq(pwrite(fd, page, PAGE, 0), -1);
	close(fd);
}
END_TEST

/* What the wire needs: the header of a page that was read, and the same ciphertext as on disk. */
START_TEST(wal_wire_is_disk)
{
	uint8_t		page[PAGE];
	uint8_t		disk[PAGE];
	uint8_t		part[500];
	struct tde_wal_header header;
	int			fd = open_segment();

	make_wal_page(page, SEGMENT_LSN, 1000);
	end_of_wal = SEGMENT_LSN + 1000;
	ck_assert_int_eq(pwrite(fd, page, PAGE, 0), PAGE);
	ck_assert(!io->wal_header(SEGMENT_LSN, &header));
	ck_assert_int_eq(pread(fd, part, sizeof(part), 300), sizeof(part));
	ck_assert_mem_eq(part, page + 300, sizeof(part));
	ck_assert(io->wal_header(SEGMENT_LSN, &header));
	ck_assert(!io->wal_header(SEGMENT_LSN + 64 * PAGE, &header));
	ck_assert_int_eq(io->wal_crypt(&header, 300, part, sizeof(part)), 0);
	read_disk(SEGMENT, 0, disk, PAGE);
	ck_assert_mem_eq(part, disk + 300, sizeof(part));
	close(fd);
}
END_TEST

/* Temporary files: a model in memory, and the file, under the same random operations. */
#define TEMP_MAX	60000
#define TEMP_FILE	"base/pgsql_tmp/pgsql_tmp1.0"

static uint32_t
next_random(uint32_t *state)
{
	*state = *state * 1664525 + 1013904223;
	return *state >> 8;
}

START_TEST(temp_like_a_plain_file)
{
	static uint8_t model[TEMP_MAX];
	static uint8_t buf[TEMP_MAX];
	size_t		size = 0;
	uint32_t	state = (uint32_t) _i + 1;
	struct stat st;
	int			fd = open(TEMP_FILE, O_RDWR | O_CREAT, 0600);

	memset(model, 0, sizeof(model));
	for (int step = 0; step < 400; step++)
	{
		/* Mostly near the end, as the server does; sometimes anywhere, or past the end. */
		size_t		off = next_random(&state) % 3 != 0 ? size : next_random(&state) % (size + 9000);
		size_t		len = 1 + next_random(&state) % (next_random(&state) % 2 ? 20 : 20000);

		if (off >= TEMP_MAX)
			off = TEMP_MAX - 1;
		if (off + len > TEMP_MAX)
			len = TEMP_MAX - off;
		if (step % 17 == 16)
		{
			size = next_random(&state) % (size + 1);
			memset(model + size, 0, TEMP_MAX - size);
			ck_assert_int_eq(ftruncate(fd, (off_t) size), 0);
		}
		else
		{
			for (size_t i = 0; i < len; i++)
				buf[i] = (uint8_t) next_random(&state);
			ck_assert_int_eq(pwrite(fd, buf, len, (off_t) off), (long) len);
			memcpy(model + off, buf, len);
			if (size < off + len)
				size = off + len;
		}
		ck_assert_int_eq(fstat(fd, &st), 0);
		ck_assert_uint_eq((size_t) st.st_size, size);
		off = size > 0 ? next_random(&state) % size : 0;
		len = size - off;
		ck_assert_int_eq(pread(fd, buf, TEMP_MAX, (off_t) off), (long) len);
		ck_assert_mem_eq(buf, model + off, len);
	}
	close(fd);
}
END_TEST

START_TEST(temp_is_encrypted)
{
	uint8_t		data[3 * PAGE + 100];
	uint8_t		disk[sizeof(data)];
	int			fd = open(TEMP_FILE, O_RDWR | O_CREAT, 0600);

	memset(data, 'm', sizeof(data));
	ck_assert_int_eq(write(fd, data, sizeof(data)), sizeof(data));
	read_disk(TEMP_FILE, 0, disk, sizeof(disk));
	for (size_t i = 0; i + 16 <= sizeof(disk); i += 4)
		ck_assert_mem_ne(disk + i, data + i, 16);
	ck_assert_mem_ne(disk, disk + PAGE, 16);
	ck_assert_int_eq(ftruncate(fd, PAGE + 5), 0);
	read_disk(TEMP_FILE, PAGE, disk, 5);
	ck_assert_mem_ne(disk, data, 5);
	close(fd);

	/* The same bytes in another file are other bytes on disk. */
	fd = open("base/pgsql_tmp/pgsql_tmp1.1", O_RDWR | O_CREAT, 0600);
	ck_assert_int_eq(write(fd, data, PAGE), PAGE);
	read_disk(TEMP_FILE, 0, disk, PAGE);
	read_disk("base/pgsql_tmp/pgsql_tmp1.1", 0, data, PAGE);
	ck_assert_mem_ne(disk, data, 16);
	close(fd);
}
END_TEST

/* A spill file is opened again and again to append. */
START_TEST(temp_append)
{
	const char *path = "pg_replslot/s/xid-751-lsn-0-2000000.spill";
	uint8_t		piece[777];
	uint8_t		back[777];
	uint8_t		disk[16];
	int			fd;

	ck_assert_int_eq(system("mkdir -p pg_replslot/s"), 0);
	for (int i = 0; i < 30; i++)
	{
		fd = open(path, O_CREAT | O_WRONLY | O_APPEND, 0600);
		memset(piece, 'a' + i, sizeof(piece));
		ck_assert_int_eq(write(fd, piece, sizeof(piece)), sizeof(piece));
		close(fd);
	}
	fd = open(path, O_RDONLY);
	for (int i = 0; i < 30; i++)
	{
		memset(piece, 'a' + i, sizeof(piece));
		ck_assert_int_eq(read(fd, back, sizeof(back)), sizeof(back));
		ck_assert_mem_eq(back, piece, sizeof(piece));
	}
	ck_assert_int_eq(read(fd, back, 1), 0);
	close(fd);
	read_disk(path, 0, disk, sizeof(disk));
	ck_assert_mem_ne(disk, "aaaaaaaaaaaaaaaa", 16);
}
END_TEST

/* A descriptor number that is used again for another file is another file. */
START_TEST(descriptor_is_forgotten)
{
	uint8_t		page[PAGE];
	uint8_t		disk[PAGE];
	int			fd = open(RELATION, O_RDWR | O_CREAT, 0600);
	int			again;

	memset(page, 'p', PAGE);
	close(fd);
	again = open("base/5/PG_VERSION", O_RDWR | O_CREAT, 0600);
	ck_assert_int_eq(again, fd);
	ck_assert_int_eq(pwrite(again, page, PAGE, 0), PAGE);
	read_disk("base/5/PG_VERSION", 0, disk, PAGE);
	ck_assert_mem_eq(disk, page, PAGE);
	close(again);
}
END_TEST

static void
check_count(const struct pgx_io_counts *counts, enum pgx_io_counted what, enum pgx_io_direction direction,
			unsigned pages, unsigned bytes)
{
	ck_assert_uint_eq(counts->of[what].pages[direction], pages);
	ck_assert_uint_eq(counts->of[what].bytes[direction], bytes);
	ck_assert_uint_eq(counts->of[what].failures, 0);
}

/* Pages of zeros are not counted, nor is what another process sees; what was counted before is carried over. */
START_TEST(counts_are_exact)
{
	static struct pgx_io_counts counts;
	static uint8_t pages[20 * PAGE];
	struct tde_wal_header header;
	int			fd = open(RELATION, O_RDWR | O_CREAT, 0600);

	make_pages(pages, 20);
	memset(pages + 3 * PAGE, 0, PAGE);
	ck_assert_int_eq(pwrite(fd, pages, sizeof(pages), 0), sizeof(pages));
	io->count_in(&counts);
	check_count(&counts, PGX_COUNT_RELATION, PGX_ENCRYPTED, 19, 19 * (PAGE - 16));
	ck_assert_int_eq(pread(fd, pages, 5 * PAGE, 0), 5 * PAGE);
	check_count(&counts, PGX_COUNT_RELATION, PGX_DECRYPTED, 4, 4 * (PAGE - 16));
	close(fd);

	fd = open_segment();
	make_wal_page(pages, SEGMENT_LSN, 1000);
	make_wal_page(pages + PAGE, SEGMENT_LSN + PAGE, 1000);
	end_of_wal = SEGMENT_LSN + PAGE + 1000;
	ck_assert_int_eq(pwrite(fd, pages, 2 * PAGE, 0), 2 * PAGE);
	check_count(&counts, PGX_COUNT_WAL, PGX_ENCRYPTED, 2, PAGE - 24 + 1000 - 24);
	ck_assert_int_eq(pread(fd, pages, 2 * PAGE, 0), 2 * PAGE);
	check_count(&counts, PGX_COUNT_WAL, PGX_DECRYPTED, 2, PAGE - 24 + 1000 - 24);
	ck_assert(io->wal_header(SEGMENT_LSN, &header));
	ck_assert_int_eq(io->wal_crypt(&header, 300, pages, 500), 0);
	check_count(&counts, PGX_COUNT_REPLICATION, PGX_ENCRYPTED, 1, 500);
	close(fd);

	/* A part of a unit is read before it is written. */
	fd = open("base/pgsql_tmp/pgsql_tmp1.0", O_RDWR | O_CREAT, 0600);
	memset(pages, 'a', PAGE);
	ck_assert_int_eq(pwrite(fd, pages, 1000, 0), 1000);
	check_count(&counts, PGX_COUNT_TEMP, PGX_DECRYPTED, 0, 0);
	ck_assert_int_eq(pwrite(fd, pages, PAGE, 1000), PAGE);
	check_count(&counts, PGX_COUNT_TEMP, PGX_DECRYPTED, 1, 1000);
	check_count(&counts, PGX_COUNT_TEMP, PGX_ENCRYPTED, 3, 1000 + PAGE + 1000);
	close(fd);

	io->count_in(NULL);
	fd = open(RELATION, O_RDONLY);
	ck_assert_int_eq(read(fd, pages, PAGE), PAGE);
	close(fd);
	check_count(&counts, PGX_COUNT_RELATION, PGX_DECRYPTED, 4, 4 * (PAGE - 16));
}
END_TEST

START_TEST(failures_are_counted)
{
	static struct pgx_io_counts counts;
	uint8_t		pages[3 * PAGE];
	int			fd = open(RELATION, O_RDWR | O_CREAT, 0600);
	int			raw = (int) syscall(SYS_openat, AT_FDCWD, RELATION, O_WRONLY);

	io->count_in(&counts);
	make_pages(pages, 3);
	ck_assert_int_eq(pwrite(fd, pages, sizeof(pages), 0), sizeof(pages));
	ck_assert_int_eq(pread(fd, pages, sizeof(pages), 0), sizeof(pages));
	ck_assert_uint_eq(counts.of[PGX_COUNT_RELATION].failures, 0);

	/* A damaged page is given to the server, which rejects it. */
	ck_assert_int_eq(syscall(SYS_pwrite64, raw, "!", 1, (off_t) PAGE + 100), 1);
	ck_assert_int_eq(pread(fd, pages, sizeof(pages), 0), sizeof(pages));
	ck_assert_uint_eq(counts.of[PGX_COUNT_RELATION].failures, 1);
	ck_assert_int_eq(pread(fd, pages, 100, 0), -1);
	ck_assert_uint_eq(counts.of[PGX_COUNT_RELATION].failures, 2);

	/* So is what is no page, though nothing is wrong with it on disk. */
	memset(pages, 'a', PAGE);
	ck_assert_int_eq(pwrite(fd, pages, PAGE, 0), PAGE);
	ck_assert_int_eq(pread(fd, pages, PAGE, 0), PAGE);
	ck_assert_uint_eq(counts.of[PGX_COUNT_RELATION].failures, 3);
	close(fd);
	syscall(SYS_close, raw);

	fd = open_segment();
	make_wal_page(pages, SEGMENT_LSN, 1000);
	end_of_wal = SEGMENT_LSN + 1000;
	ck_assert_int_eq(pwrite(fd, pages, PAGE, 0), PAGE);
	ck_assert_int_eq(io->set_key(TDE_KEY_WAL, 0, TDE_NONE, NULL), 0);
	ck_assert_int_eq(pread(fd, pages, PAGE, 0), -1);
	ck_assert_uint_eq(counts.of[PGX_COUNT_WAL].failures, 1);
	close(fd);
	io->count_in(NULL);
}
END_TEST

START_TEST(time_is_taken_if_asked_for)
{
	static struct pgx_io_counts counts;
	static bool timing;
	uint8_t		page[PAGE];
	int			fd = open(RELATION, O_RDWR | O_CREAT, 0600);

	io->count_in(&counts);
	server.timing = &timing;
	memset(page, 'a', PAGE);
	for (int i = 0; i < 2; i++, timing = true)
	{
		ck_assert_int_eq(pwrite(fd, page, PAGE, 0), PAGE);
		ck_assert_int_eq(pread(fd, page, PAGE, 0), PAGE);
		for (int direction = 0; direction < PGX_DIRECTIONS; direction++)
			ck_assert(timing == (counts.of[PGX_COUNT_RELATION].nanoseconds[direction] != 0));
	}
	server.timing = NULL;
	io->count_in(NULL);
	close(fd);
}
END_TEST

int
main(void)
{
	Suite	   *suite = suite_create("io_files");
	TCase	   *tcase = tcase_create("files");
	SRunner    *runner;
	int			failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, relation_round_trip);
	tcase_add_test(tcase, relation_by_vector_and_position);
	tcase_add_test(tcase, relation_refuses_parts_of_pages);
	tcase_add_test(tcase, relation_is_not_cloned);
	tcase_add_test(tcase, relation_torn_end);
	tcase_add_test(tcase, relation_full_disk);
	tcase_add_test(tcase, relation_same_page_elsewhere_differs);
	tcase_add_test(tcase, relation_key_comes_later);
	tcase_add_test(tcase, wal_grows_page_by_page);
	tcase_add_test(tcase, wal_stops_at_insert_position);
	tcase_add_test(tcase, wal_promised_zeros);
	tcase_add_test(tcase, wal_epoch_survives_restart);
	tcase_add_test(tcase, wal_recycled_segment);
	tcase_add_test(tcase, wal_plain_page_stays_plain);
	tcase_add_test(tcase, wal_odd_reads);
	tcase_add_test(tcase, wal_zero_and_foreign_pages);
	tcase_add_test(tcase, wal_temp_file);
	tcase_add_test(tcase, wal_raw_process_sees_disk);
	tcase_add_test(tcase, wal_without_key);
	tcase_add_test(tcase, wal_wire_is_disk);
	tcase_add_loop_test(tcase, temp_like_a_plain_file, 0, 10);
	tcase_add_test(tcase, temp_is_encrypted);
	tcase_add_test(tcase, temp_append);
	tcase_add_test(tcase, descriptor_is_forgotten);
	tcase_add_test(tcase, counts_are_exact);
	tcase_add_test(tcase, failures_are_counted);
	tcase_add_test(tcase, time_is_taken_if_asked_for);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_set_tap(runner, "-");
	srunner_run_all(runner, CK_SILENT);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
