/*
 * wal.h
 *		A page of WAL, as the server sees it and as it lies on disk, in the
 *		archive and on the wire.
 *
 * AES-CTR; counter block = epoch (u32) | timeline (u32) | LSN / 16 (u64), all
 * big-endian.  Timeline and LSN are those in the page's own header (xlp_tli, xlp_pageaddr).
 * The epoch is kept in bytes 20 to 23 of the page header, which PostgreSQL leaves zero
 * and never reads; here it is stored big-endian; 0 means that the page is plain.  The header (24
 * bytes, 40 with XLP_LONG_HEADER) stays in the clear.  The run of zero 8-byte words at
 * the end of a page is plain zero.
 *
 * Page header fields other than the epoch are PostgreSQL's, in the machine's
 * byte order: xlp_magic u16 at 0, xlp_info u16 at 2, xlp_tli u32 at 4,
 * xlp_pageaddr u64 at 8, xlp_rem_len u32 at 16.
 */
#ifndef TDE_WAL_H
#define TDE_WAL_H

#include <stdbool.h>
#include <stdint.h>

#include "cipher.h"

#define TDE_WAL_PAGE_SIZE		8192
#define TDE_WAL_SHORT_HEADER	24
#define TDE_WAL_LONG_HEADER		40

struct tde_wal_header
{
	uint32_t	epoch;			/* 0: plain */
	uint32_t	timeline;
	uint64_t	address;		/* LSN of the page's first byte */
	uint32_t	header_len;		/* TDE_WAL_SHORT_HEADER or TDE_WAL_LONG_HEADER */
};

/*
 * Read a page header, TDE_WAL_SHORT_HEADER bytes at page.  magic is the server's XLOG_PAGE_MAGIC.
 * False if these bytes do not begin a WAL page: another magic, or an address that is
 * not a multiple of the page size.
 */
extern bool tde_wal_parse(const uint8_t *page, uint16_t magic, struct tde_wal_header *ret_header);

/* Put an epoch into a page header. */
extern void tde_wal_set_epoch(uint8_t *page, uint32_t epoch);

/*
 * Encrypt or decrypt len bytes that begin offset bytes into the page described by header.  offset
 * + len stays within the page; bytes of the page's header (offset < header_len) are copied as they
 * are.  Knows nothing of trailing zeros.  in == out is fine.  Epoch 0 copies.
 */
extern int	tde_wal_crypt(tde_ctr *ctr, const struct tde_wal_header *header, size_t offset,
						  const uint8_t *in, uint8_t *out, size_t len);

/* Length of the page without the zero 8-byte words at its end. */
extern size_t tde_wal_used(const uint8_t *page);

/*
 * Encrypt a whole page under header->epoch (not 0): bytes up to valid_len (header_len to
 * TDE_WAL_PAGE_SIZE) are encrypted, those after it are not read and are zero in out; the epoch is put
 * into out's header.  valid_len is a multiple of 8, as every insert position is.  Each byte of in is
 * read once, since another process may be writing to it; in == out is fine.
 */
extern int	tde_wal_page_encrypt(tde_ctr *ctr, const struct tde_wal_header *header,
								 size_t valid_len, const uint8_t *in, uint8_t *out);

/* Decrypt a whole page in place, trailing zeros left alone.  The epoch stays in its header. */
extern int	tde_wal_page_decrypt(tde_ctr *ctr, const struct tde_wal_header *header, uint8_t *page);

#endif							/* TDE_WAL_H */
