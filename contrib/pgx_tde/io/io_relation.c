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
	errno = EINVAL;
	return false;
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
	ssize_t		got;

	if (!whole_pages(len, off))
		return -1;
	xts = pgx_io_relation_cipher(file->slot);
	if (xts == NULL)
		return -1;

	got = pgx_raw_pread(fd, buf, len, off);
	if (got <= 0)
		return got;
	got -= got % PGX_IO_PAGE;
	page_id(file, off, &id);
	for (ssize_t done = 0; done < got; done += PGX_IO_PAGE, id.block++)
	{
		if (tde_page_decrypt(xts, &id, pgx_server->checksums, page + done) == TDE_PAGE_FAILED)
		{
			errno = EIO;
			return -1;
		}
	}
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
	xts = pgx_io_relation_cipher(file->slot);
	if (xts == NULL)
		return -1;

	page_id(file, off, &id);
	while (done < len)
	{
		size_t		batch = len - done;
		ssize_t		put;

		if (batch > PGX_IO_BATCH * PGX_IO_PAGE)
			batch = PGX_IO_BATCH * PGX_IO_PAGE;
		for (size_t i = 0; i < batch; i += PGX_IO_PAGE, id.block++)
		{
			if (tde_page_encrypt(xts, &id, pgx_server->checksums, from + done + i,
								 pgx_bounce + i) == TDE_PAGE_FAILED)
			{
				errno = EIO;
				return -1;
			}
		}
		put = pgx_raw_pwrite(fd, pgx_bounce, batch, off + (off_t) done);
		if (put > 0)
			done += (size_t) (put - put % PGX_IO_PAGE);
		if (put < (ssize_t) batch)
			return done > 0 ? (ssize_t) done : -1;
	}
	return (ssize_t) done;
}
