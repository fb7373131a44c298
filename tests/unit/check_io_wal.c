/*
 * check_io_wal.c
 *		The I/O layer on WAL files: what the server writes, what lies on disk, what
 *		comes back.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "io_common.h"

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

int
main(void)
{
	TCase	   *tcase = tcase_create("wal");

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
	return io_run("io_wal", tcase);
}
