/*
 * check_io_relations.c
 *		The I/O layer on files of relations: what the server writes, what lies on disk,
 *		what comes back; and that another file on the same descriptor is another file.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <unistd.h>

#include "io_common.h"

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

int
main(void)
{
	TCase	   *tcase = tcase_create("relations");

	tcase_add_test(tcase, relation_round_trip);
	tcase_add_test(tcase, relation_by_vector_and_position);
	tcase_add_test(tcase, relation_refuses_parts_of_pages);
	tcase_add_test(tcase, relation_is_not_cloned);
	tcase_add_test(tcase, relation_torn_end);
	tcase_add_test(tcase, relation_full_disk);
	tcase_add_test(tcase, relation_same_page_elsewhere_differs);
	tcase_add_test(tcase, relation_key_comes_later);
	tcase_add_test(tcase, descriptor_is_forgotten);
	return io_run("io_relations", tcase);
}
