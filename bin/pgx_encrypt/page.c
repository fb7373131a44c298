/*
 * page.c
 *		Making the new version of a relation file.
 */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "encrypt.h"
#include "file.h"
#include "log.h"

#define CHUNK_PAGES		32
#define CHUNK			(CHUNK_PAGES * TDE_PAGE_SIZE)

/* PageHeaderData, in the machine's byte order. */
#define PD_LOWER_OFFSET			12
#define PD_UPPER_OFFSET			14
#define PD_SPECIAL_OFFSET		16
#define PD_SIZE_VERSION_OFFSET	18
#define PAGE_HEADER_LEN			24
#define PAGE_VERSION			4	/* since PostgreSQL 8.3; pages of 8.2 cannot have come here */

static uint16_t
get_u16(const uint8_t *page, size_t offset)
{
	uint16_t	value;

	memcpy(&value, page + offset, sizeof(value));
	return value;
}

/* Whatever access method a page belongs to, the server demands this of it. */
static bool
has_page_header(const uint8_t *page)
{
	uint16_t	lower = get_u16(page, PD_LOWER_OFFSET);
	uint16_t	upper = get_u16(page, PD_UPPER_OFFSET);
	uint16_t	special = get_u16(page, PD_SPECIAL_OFFSET);

	return get_u16(page, PD_SIZE_VERSION_OFFSET) == (TDE_PAGE_SIZE | PAGE_VERSION) &&
		lower >= PAGE_HEADER_LEN && lower <= upper && upper <= special && special <= TDE_PAGE_SIZE &&
		special % 8 == 0;
}

enum page_look
page_look(tde_xts *xts, const struct tde_page_id *id, const uint8_t *page)
{
	uint8_t		copy[TDE_PAGE_SIZE];

	if (tde_page_is_zero(page))
		return PAGE_EMPTY;
	if (xts != NULL)
	{
		memcpy(copy, page, sizeof(copy));
		/* Once in four million pages, which is once in 32 GB, the other has such a header too. */
		if (tde_page_decrypt(xts, id, false, copy) == TDE_PAGE_OK && has_page_header(copy))
			return has_page_header(page) ? PAGE_EITHER : PAGE_ENCRYPTED;
	}
	return has_page_header(page) ? PAGE_PLAIN : PAGE_DAMAGED;
}

/* The journal and the file disagree: converting twice would destroy it. */
static bool
refuse(const struct conversion *conversion, const struct data_file *file, uint32_t block)
{
	pgx_log_error("block %u of file \"%s\" is %s already", block, file->path,
				  conversion->decrypt ? "decrypted" : "encrypted");
	pgx_log_hint("The file does not belong to the rest of the data directory; restore it, or all, from "
				 "a backup.");
	return false;
}

/* A page from which nothing can be made out.  Its bytes survive being converted there and back. */
static void
warn_damaged(const struct data_file *file, uint32_t block)
{
	pgx_log_warning("block %u of file \"%s\" has no valid page header", block, file->path);
}

static bool
convert_page(const struct conversion *conversion, const struct data_file *file, tde_xts *xts,
			 const struct tde_page_id *id, uint8_t *page, uint8_t *out)
{
	bool		checksums = conversion->cluster->checksums;
	enum page_look look = page_look(xts, id, page);
	enum tde_page_result result;

	if (look == PAGE_EMPTY)
	{
		memset(out, 0, TDE_PAGE_SIZE);
		return true;
	}
	/* PAGE_EITHER is what the journal says; a file that was converted before has other pages that tell. */
	if (look == (conversion->decrypt ? PAGE_PLAIN : PAGE_ENCRYPTED))
		return refuse(conversion, file, id->block);
	if (look == PAGE_DAMAGED)
		warn_damaged(file, id->block);

	/* A page whose checksum is wrong has a wrong one afterwards, so that damage stays known. */
	if (conversion->decrypt)
	{
		memcpy(out, page, TDE_PAGE_SIZE);
		result = tde_page_decrypt(xts, id, checksums, out);
	}
	else
		result = tde_page_encrypt_verified(xts, id, checksums, page, out);
	if (result == TDE_PAGE_CHECKSUM)
		pgx_log_warning("checksum of block %u of file \"%s\" is wrong, and stays so", id->block, file->path);
	if (result == TDE_PAGE_FAILED)
		pgx_log_error("could not convert block %u of file \"%s\": libcrypto failed", id->block, file->path);
	return result != TDE_PAGE_FAILED;
}

static ssize_t
read_chunk(int fd, uint8_t *buf, off_t off)
{
	size_t		done = 0;

	while (done < CHUNK)
	{
		ssize_t		n = pread(fd, buf + done, CHUNK - done, off + (off_t) done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		done += (size_t) n;
	}
	return (ssize_t) done;
}

/* Where the next data is; a hole stays a hole.  At least off, and a multiple of the page size. */
static off_t
skip_hole(int fd, off_t off, off_t size)
{
	off_t		data = lseek(fd, off, SEEK_DATA);

	if (data < 0)
		return errno == ENXIO ? size : off; /* a hole to the end; or not known here */
	data -= data % TDE_PAGE_SIZE;
	return data > off ? data : off;
}

bool
convert_relation(const struct conversion *conversion, const struct data_file *file, int fd, int new_fd)
{
	enum tde_algorithm alg = keys_algorithm(conversion->keys, TDE_KEY_TABLESPACE, file->is.tablespace);
	const uint8_t *key = keys_key(conversion->keys, TDE_KEY_TABLESPACE, file->is.tablespace);
	tde_xts    *xts = key == NULL ? NULL : tde_xts_new(alg, key);
	struct tde_page_id id = {file->is.database, file->is.relation, file->is.fork, 0};
	off_t		size = file->size - file->size % TDE_PAGE_SIZE;
	uint8_t    *buf = malloc(2 * CHUNK);
	bool		ok = false;

	if (xts == NULL || buf == NULL)
	{
		pgx_log_error("could not prepare the encryption of file \"%s\"", file->path);
		goto out;
	}
	if (size != file->size)
		pgx_log_warning("file \"%s\" ends with a part of a page, which the server ignores; it is left out",
						file->path);
	for (off_t off = 0; off < size; off += CHUNK)
	{
		ssize_t		got;
		off_t		from = off;

		off = skip_hole(fd, off, size);
		progress_add((uint64_t) (off - from));
		if (off >= size)
			break;
		if (stop_requested())
			goto out;
		got = read_chunk(fd, buf, off);
		if (got > size - off)
			got = (ssize_t) (size - off);
		if (got < 0 || got % TDE_PAGE_SIZE != 0 || got == 0)
		{
			pgx_log_error("could not read file \"%s\": %m", file->path);
			goto out;
		}
		id.block = file->is.segment * TDE_SEGMENT_PAGES + (uint32_t) (off / TDE_PAGE_SIZE);
		for (ssize_t i = 0; i < got; i += TDE_PAGE_SIZE, id.block++)
		{
			if (!convert_page(conversion, file, xts, &id, buf + i, buf + CHUNK + i))
				goto out;
		}
		if (lseek(new_fd, off, SEEK_SET) < 0 || !pgx_write_all(new_fd, buf + CHUNK, (size_t) got))
		{
			pgx_log_error("could not write the new version of file \"%s\": %m", file->path);
			goto out;
		}
		progress_add((uint64_t) got);
	}
	ok = ftruncate(new_fd, size) == 0;	/* with a hole at its end */
	if (!ok)
		pgx_log_error("could not write the new version of file \"%s\": %m", file->path);

out:
	tde_xts_free(&xts);
	free(buf);
	return ok;
}
