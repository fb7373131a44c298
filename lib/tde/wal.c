/*
 * wal.c
 *		A page of WAL on its way between the server and the disk.
 *
 * The keystream of a byte depends on its LSN, the timeline and the page's epoch, and on nothing
 * else.  So any part of a page can be transformed alone, a longer prefix of a page leaves the
 * bytes of a shorter one as they were, and every server that holds a page holds the same bytes.
 */
#include <config.h>

#include <string.h>

#include "wal.h"

/* PostgreSQL's header, see wal.h. */
#define XLP_MAGIC_OFFSET		0
#define XLP_INFO_OFFSET			2
#define XLP_TLI_OFFSET			4
#define XLP_PAGEADDR_OFFSET		8
#define XLP_EPOCH_OFFSET		20	/* padding to PostgreSQL */
#define XLP_LONG_HEADER			0x0002	/* in xlp_info */

#define AES_BLOCK_LEN			16	/* bytes */
#define WORD_LEN				8	/* PostgreSQL aligns records to this (MAXALIGN) */

static void
put_u32(uint8_t *to, uint32_t value)
{
	to[0] = (uint8_t) (value >> 24);
	to[1] = (uint8_t) (value >> 16);
	to[2] = (uint8_t) (value >> 8);
	to[3] = (uint8_t) value;
}

static uint32_t
get_u32(const uint8_t *from)
{
	return (uint32_t) from[0] << 24 | (uint32_t) from[1] << 16 | (uint32_t) from[2] << 8 | from[3];
}

static bool
header_ok(const struct tde_wal_header *header)
{
	return (header->header_len == TDE_WAL_SHORT_HEADER ||
			header->header_len == TDE_WAL_LONG_HEADER) &&
		header->address % TDE_WAL_PAGE_SIZE == 0;
}

bool
tde_wal_parse(const uint8_t *page, uint16_t magic, struct tde_wal_header *ret_header)
{
	struct tde_wal_header header;
	uint16_t	page_magic;
	uint16_t	info;

	memcpy(&page_magic, page + XLP_MAGIC_OFFSET, sizeof(page_magic));
	memcpy(&info, page + XLP_INFO_OFFSET, sizeof(info));
	memcpy(&header.timeline, page + XLP_TLI_OFFSET, sizeof(header.timeline));
	memcpy(&header.address, page + XLP_PAGEADDR_OFFSET, sizeof(header.address));
	header.epoch = get_u32(page + XLP_EPOCH_OFFSET);
	header.header_len = (info & XLP_LONG_HEADER) != 0 ? TDE_WAL_LONG_HEADER : TDE_WAL_SHORT_HEADER;

	if (page_magic != magic || !header_ok(&header))
		return false;
	*ret_header = header;
	return true;
}

void
tde_wal_set_epoch(uint8_t *page, uint32_t epoch)
{
	put_u32(page + XLP_EPOCH_OFFSET, epoch);
}

int
tde_wal_crypt(tde_ctr *ctr, const struct tde_wal_header *header, size_t offset, const uint8_t *in,
			  uint8_t *out, size_t len)
{
	uint8_t		counter[AES_BLOCK_LEN];
	size_t		clear = 0;
	uint64_t	lsn;

	if (!header_ok(header) || offset > TDE_WAL_PAGE_SIZE || len > TDE_WAL_PAGE_SIZE - offset)
		return -1;

	if (header->epoch == 0)
		clear = len;
	else if (offset < header->header_len)
		clear = len < header->header_len - offset ? len : header->header_len - offset;
	if (clear > 0 && in != out)
		memcpy(out, in, clear);
	if (clear == len)
		return 0;

	lsn = header->address + offset + clear;
	put_u32(counter, header->epoch);
	put_u32(counter + 4, header->timeline);
	put_u32(counter + 8, (uint32_t) (lsn / AES_BLOCK_LEN >> 32));
	put_u32(counter + 12, (uint32_t) (lsn / AES_BLOCK_LEN));
	return tde_ctr_crypt(ctr, counter, lsn % AES_BLOCK_LEN, in + clear, out + clear, len - clear);
}

size_t
tde_wal_used(const uint8_t *page)
{
	size_t		used = TDE_WAL_PAGE_SIZE;

	while (used > 0)
	{
		uint64_t	word;

		memcpy(&word, page + used - WORD_LEN, WORD_LEN);
		if (word != 0)
			break;
		used -= WORD_LEN;
	}
	return used;
}

int
tde_wal_page_encrypt(tde_ctr *ctr, const struct tde_wal_header *header, size_t valid_len,
					 const uint8_t *in, uint8_t *out)
{
	/*
	 * The reader finds the end of the encrypted part by the zero words after it.  An end inside a
	 * word would have it decrypt the zeros that fill that word up.  The server's insert position
	 * never is there.
	 */
	if (header->epoch == 0 || valid_len < header->header_len || valid_len > TDE_WAL_PAGE_SIZE ||
		valid_len % WORD_LEN != 0)
		return -1;

	/*
	 * What lies past valid_len is not the server's word yet.  It would be written again, with
	 * other contents under the same keystream; and an encrypted zero is keystream for all to read.
	 */
	memset(out + valid_len, 0, TDE_WAL_PAGE_SIZE - valid_len);

	/* Our own CTR reads each byte once; libcrypto promises nothing. */
	if (in != out && !tde_ctr_is_fast(ctr))
	{
		memcpy(out, in, valid_len);
		in = out;
	}
	if (tde_wal_crypt(ctr, header, 0, in, out, valid_len) != 0)
		return -1;
	tde_wal_set_epoch(out, header->epoch);
	return 0;
}

int
tde_wal_page_decrypt(tde_ctr *ctr, const struct tde_wal_header *header, uint8_t *page)
{
	return tde_wal_crypt(ctr, header, 0, page, page, tde_wal_used(page));
}
