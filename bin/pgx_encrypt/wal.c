/*
 * wal.c
 *		Making the new version of a WAL segment, and finding the end of WAL.
 *
 * What is before the end of WAL is encrypted under an epoch drawn by this run; the server that starts next
 * goes on in the last page under the epoch that it finds there.  What is behind the end, or belongs to the
 * segment that this file was before it was recycled, becomes zeros: it is of no use, and is
 * somebody's data.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "encrypt.h"
#include "file.h"
#include "log.h"
#include "mem.h"
#include "wal.h"

#define RECORD_ALIGN	8

bool
wal_parse_name(const struct cluster *cluster, const char *path, uint32_t *ret_timeline, uint64_t *ret_segment)
{
	const char *slash = strrchr(path, '/');
	uint32_t	timeline = 0;
	uint32_t	high = 0;
	uint32_t	low = 0;

	if (sscanf(slash == NULL ? path : slash + 1, "%8" SCNx32 "%8" SCNx32 "%8" SCNx32, &timeline, &high,
			   &low) != 3)
		return false;
	*ret_timeline = timeline;
	*ret_segment = (uint64_t) high * (UINT64_C(0x100000000) / cluster->segment_size) + low;
	return true;
}

static char *
segment_path(const struct cluster *cluster, uint64_t segment)
{
	uint64_t	per_id = UINT64_C(0x100000000) / cluster->segment_size;

	return pgx_printf("pg_wal/%08X%08X%08X", cluster->timeline, (uint32_t) (segment / per_id),
					  (uint32_t) (segment % per_id));
}

/* Is this page of WAL the one that belongs at that address?  Any magic: the version has been checked. */
static bool
is_page_of(const uint8_t *page, uint64_t address, struct tde_wal_header *ret_header)
{
	uint16_t	magic;

	memcpy(&magic, page, sizeof(magic));
	return magic != 0 && tde_wal_parse(page, magic, ret_header) && ret_header->address == address;
}

static tde_ctr *
make_cipher(const struct keys *keys)
{
	const uint8_t *key = keys_key(keys, TDE_KEY_WAL, 0);
	tde_ctr    *ctr = key == NULL ? NULL : tde_ctr_new(keys_algorithm(keys, TDE_KEY_WAL, 0), key);

	if (ctr == NULL)
		pgx_log_error("could not prepare the encryption of WAL");
	return ctr;
}

/* Read the page at an address, decrypted. */
static bool
read_page(const struct cluster *cluster, const struct keys *keys, uint64_t address, uint8_t *page,
		  struct tde_wal_header *ret_header)
{
	char	   *path = segment_path(cluster, address / cluster->segment_size);
	int			fd = open(path, O_RDONLY | O_CLOEXEC);
	tde_ctr    *ctr = NULL;
	bool		ok = false;

	if (fd < 0)
		pgx_log_error("could not open file \"%s\": %m", path);
	else if (pread(fd, page, TDE_WAL_PAGE_SIZE, (off_t) (address % cluster->segment_size)) != TDE_WAL_PAGE_SIZE ||
			 !is_page_of(page, address, ret_header))
		pgx_log_error("could not find the last checkpoint in file \"%s\"", path);
	else if (ret_header->epoch == 0)
		ok = true;
	else if ((ctr = make_cipher(keys)) != NULL)
		ok = tde_wal_page_decrypt(ctr, ret_header, page) == 0;
	tde_ctr_free(&ctr);
	if (fd >= 0)
		(void) close(fd);
	free(path);
	return ok;
}

/*
 * The shutdown checkpoint is the last record.  Its length is its first field; where a page ends, the
 * next one's header comes between.
 */
bool
wal_find_end(const struct cluster *cluster, const struct keys *keys, uint64_t *ret_end)
{
	uint8_t		page[TDE_WAL_PAGE_SIZE];
	struct tde_wal_header header;
	uint64_t	address = cluster->checkpoint - cluster->checkpoint % TDE_WAL_PAGE_SIZE;
	uint32_t	offset = (uint32_t) (cluster->checkpoint % TDE_WAL_PAGE_SIZE);
	uint32_t	left;

	if (!read_page(cluster, keys, address, page, &header))
		return false;
	if (offset % RECORD_ALIGN != 0 || offset < header.header_len)
	{
		pgx_log_error("the location of the last checkpoint is not that of a record");
		return false;
	}
	memcpy(&left, page + offset, sizeof(left));
	if (left == 0 || left > TDE_WAL_PAGE_SIZE)
	{
		pgx_log_error("the record of the last checkpoint is damaged");
		return false;
	}
	while (left > TDE_WAL_PAGE_SIZE - offset)
	{
		left -= TDE_WAL_PAGE_SIZE - offset;
		address += TDE_WAL_PAGE_SIZE;
		if (!read_page(cluster, keys, address, page, &header))
			return false;
		offset = header.header_len;
	}
	*ret_end = address + offset + (left + RECORD_ALIGN - 1) / RECORD_ALIGN * RECORD_ALIGN;
	return true;
}

/* A page in place.  Nothing is left of what does not belong there. */
static bool
convert_page(const struct conversion *conversion, tde_ctr *ctr, uint64_t address, uint8_t *page)
{
	struct tde_wal_header header;
	size_t		valid = TDE_WAL_PAGE_SIZE;

	if (!is_page_of(page, address, &header) || conversion->wal_end <= address)
	{
		memset(page, 0, TDE_WAL_PAGE_SIZE);
		return true;
	}
	if (conversion->wal_end - address < TDE_WAL_PAGE_SIZE)
		valid = (size_t) (conversion->wal_end - address);
	if (valid < header.header_len)
		valid = header.header_len;
	if (conversion->decrypt)
	{
		if (header.epoch != 0 && tde_wal_page_decrypt(ctr, &header, page) != 0)
			return false;
		tde_wal_set_epoch(page, 0);
		memset(page + valid, 0, TDE_WAL_PAGE_SIZE - valid);
		return true;
	}
	if (header.epoch != 0)
		return true;			/* encrypted by the server; the rest of the page is zeros */
	header.epoch = conversion->wal_epoch;
	return tde_wal_page_encrypt(ctr, &header, valid, page, page) == 0;
}

bool
convert_wal(const struct conversion *conversion, const struct data_file *file, int fd, int new_fd)
{
	const struct cluster *cluster = conversion->cluster;
	tde_ctr    *ctr = make_cipher(conversion->keys);
	uint8_t		page[TDE_WAL_PAGE_SIZE];
	uint32_t	timeline;
	uint64_t	address;
	bool		ok = false;

	if (ctr == NULL)
		return false;
	if (!wal_parse_name(cluster, file->path, &timeline, &address))
		goto out;				/* does not happen: such files are not in the list any more */
	address *= cluster->segment_size;
	for (;;)
	{
		ssize_t		got = read(fd, page, sizeof(page));

		if (got == 0)
			break;
		if (got != (ssize_t) sizeof(page))
		{
			pgx_log_error("could not read file \"%s\": %m", file->path);
			goto out;
		}
		if (!convert_page(conversion, ctr, address, page))
		{
			pgx_log_error("could not convert file \"%s\": libcrypto failed", file->path);
			goto out;
		}
		if (stop_requested())
			goto out;
		if (!pgx_write_all(new_fd, page, sizeof(page)))
		{
			pgx_log_error("could not write the new version of file \"%s\": %m", file->path);
			goto out;
		}
		address += sizeof(page);
		progress_add(sizeof(page));
	}
	ok = true;

out:
	tde_ctr_free(&ctr);
	return ok;
}
