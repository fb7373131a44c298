/*
 * io_relation.c
 *		Reading and writing pages of relations in encrypted tablespaces.
 *
 * The server asks for whole pages.  A request that is not made of whole pages
 * is refused, since a part of a page can be neither encrypted nor checked.
 * What the kernel does in part is finished here, and counts that go back are of
 * whole pages, because the server would continue a short one at an odd offset.
 */
#include <config.h>

#include <errno.h>

#include "io_internal.h"

static bool
whole_pages(size_t len, off_t off)
{
	if (len % PGX_IO_PAGE == 0 && off % PGX_IO_PAGE == 0)
		return true;
	pgx_count_failure(PGX_COUNT_RELATION);
	errno = EINVAL;
	return false;
}

static tde_xts *
cipher_of(const struct pgx_io_file *file)
{
	tde_xts    *xts = pgx_io_relation_cipher(file->slot);

	if (xts == NULL)
		pgx_count_failure(PGX_COUNT_RELATION);
	return xts;
}

static ssize_t
cipher_failed(void)
{
	pgx_count_failure(PGX_COUNT_RELATION);
	errno = EIO;
	return -1;
}

/* Pages of zeros go by uncounted. */
static void
count(enum pgx_io_direction direction, size_t pages, uint64_t begin)
{
	pgx_count(PGX_COUNT_RELATION, direction, pages, pages * (PGX_IO_PAGE - TDE_PAGE_CLEAR), begin);
}

static void
page_id(const struct pgx_io_file *file, off_t off, struct tde_page_id *id)
{
	id->database = file->database;
	id->relation = file->relation;
	id->fork = file->fork;
	id->block = file->first_block + (uint32_t) (off / PGX_IO_PAGE);
}

ssize_t
pgx_relation_pread(int fd, void *buf, size_t len, off_t off)
{
	const struct pgx_io_file *file = &pgx_files[fd];
	uint8_t    *page = buf;
	struct tde_page_id id;
	tde_xts    *xts;
	size_t		pages = 0;
	uint64_t	begin;
	ssize_t		got;

	if (!whole_pages(len, off))
		return -1;
	xts = cipher_of(file);
	if (xts == NULL)
		return -1;

	got = pgx_raw_pread(fd, buf, len, off);
	if (got <= 0)
		return got;
	got -= got % PGX_IO_PAGE;
	page_id(file, off, &id);
	begin = pgx_count_begin();
	for (ssize_t done = 0; done < got; done += PGX_IO_PAGE, id.block++)
	{
		enum tde_page_result result = tde_page_decrypt_verified(xts, &id, pgx_server->checksums, page + done);

		if (result == TDE_PAGE_FAILED)
			return cipher_failed();
		if (result == TDE_PAGE_CHECKSUM)
			pgx_count_failure(PGX_COUNT_RELATION);
		pages += result != TDE_PAGE_ZERO;
	}
	count(PGX_DECRYPTED, pages, begin);
	return got;
}

ssize_t
pgx_relation_pwrite(int fd, const void *buf, size_t len, off_t off)
{
	const struct pgx_io_file *file = &pgx_files[fd];
	const uint8_t *from = buf;
	struct tde_page_id id;
	tde_xts    *xts;
	size_t		done = 0;

	if (!whole_pages(len, off))
		return -1;
	xts = cipher_of(file);
	if (xts == NULL)
		return -1;

	page_id(file, off, &id);
	while (done < len)
	{
		size_t		batch = len - done;
		size_t		pages = 0;
		uint64_t	begin = pgx_count_begin();
		ssize_t		put;

		if (batch > PGX_IO_BATCH * PGX_IO_PAGE)
			batch = PGX_IO_BATCH * PGX_IO_PAGE;
		for (size_t i = 0; i < batch; i += PGX_IO_PAGE, id.block++)
		{
			enum tde_page_result result = tde_page_encrypt(xts, &id, pgx_server->checksums,
														   from + done + i, pgx_bounce + i);

			if (result == TDE_PAGE_FAILED)
				return cipher_failed();
			pages += result != TDE_PAGE_ZERO;
		}
		count(PGX_ENCRYPTED, pages, begin);
		put = pgx_raw_pwrite(fd, pgx_bounce, batch, off + (off_t) done);
		if (put > 0)
			done += (size_t) (put - put % PGX_IO_PAGE);
		if (put < (ssize_t) batch)
			return done > 0 ? (ssize_t) done : -1;
	}
	return (ssize_t) done;
}
