/*
 * check_io_temp.c
 *		The I/O layer on temporary files, and what it counts.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "io_common.h"

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
	TCase	   *tcase = tcase_create("temp");

	tcase_add_loop_test(tcase, temp_like_a_plain_file, 0, 10);
	tcase_add_test(tcase, temp_is_encrypted);
	tcase_add_test(tcase, temp_append);
	tcase_add_test(tcase, counts_are_exact);
	tcase_add_test(tcase, failures_are_counted);
	tcase_add_test(tcase, time_is_taken_if_asked_for);
	return io_run("io_temp", tcase);
}
