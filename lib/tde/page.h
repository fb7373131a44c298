/*
 * page.h
 *		A page of a relation file, as the server sees it and as it lies on disk.
 *
 * AES-XTS, length-preserving.  Bytes 0 to 15 of the page (pd_lsn, pd_checksum,
 * pd_flags, pd_lower, pd_upper) stay in the clear, 16 to 8191 are encrypted.
 * The tweak is database OID, relation file number, fork number and block number within
 * the fork, each a big-endian u32; neither tablespace nor path is in it.
 * An all-zero page is all-zero on disk.  With data checksums, pd_checksum on
 * disk is right for the ciphertext page, so that tools which verify files need no key.
 */
#ifndef TDE_PAGE_H
#define TDE_PAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "cipher.h"

#define TDE_PAGE_SIZE		8192	/* bytes; the only block size supported */
#define TDE_PAGE_CLEAR		16	/* leading bytes that stay in the clear */
#define TDE_SEGMENT_PAGES	131072	/* pages of a full segment file */

struct tde_page_id
{
	uint32_t	database;		/* OID; 0 in pg_global */
	uint32_t	relation;		/* relation file number */
	uint32_t	fork;			/* 0 main, 1 fsm, 2 vm, 3 init */
	uint32_t	block;			/* within the fork: segment * TDE_SEGMENT_PAGES + block */
};

enum tde_page_result
{
	TDE_PAGE_FAILED = -1,		/* libcrypto failed; out is unspecified */
	TDE_PAGE_OK = 0,
	TDE_PAGE_ZERO = 1,			/* an all-zero page, passed through */
	TDE_PAGE_CHECKSUM = 2		/* checksum on disk was wrong; out is decrypted all the same, with
								 * a pd_checksum that the server will reject too */
};

/*
 * Turn the server's page into the page for the disk.  Each byte of in is read once (others may
 * set hint bits in it meanwhile); where XTS could read it twice, it is copied to out first.  in and
 * out do not overlap; both TDE_PAGE_SIZE bytes.  checksums: the cluster has data checksums.
 */
extern enum tde_page_result tde_page_encrypt(tde_xts *xts, const struct tde_page_id *id,
											 bool checksums, const uint8_t *in, uint8_t *out);

/*
 * The same for a page that comes from a file rather than from the server, which makes the checksum of what it
 * writes: if that of in is wrong, so is that of out, and the result is TDE_PAGE_CHECKSUM.  Otherwise damage
 * would be hidden by a fresh checksum.
 */
extern enum tde_page_result tde_page_encrypt_verified(tde_xts *xts, const struct tde_page_id *id,
													  bool checksums, const uint8_t *in, uint8_t *out);

/* The reverse, in place. */
extern enum tde_page_result tde_page_decrypt(tde_xts *xts, const struct tde_page_id *id,
											 bool checksums, uint8_t *page);

/*
 * The same for the server, with data checksums.  A page under another key or of another place decrypts to noise, for
 * which the checksum that is made for the server is right like any other, and once in a hundred times
 * the server takes that for a page.  So what does not have the size and layout version of PostgreSQL's pages
 * (8.3 and later) is TDE_PAGE_CHECKSUM too.  Without data checksums nothing is looked at.
 */
extern enum tde_page_result tde_page_decrypt_verified(tde_xts *xts, const struct tde_page_id *id,
													  bool checksums, uint8_t *page);

/*
 * PostgreSQL's page checksum (FNV-1a in 32 lanes), pd_checksum taken as zero.  AVX2 where the CPU
 * has it.
 */
extern uint16_t tde_page_checksum(const uint8_t *page, uint32_t block);

/* True if all TDE_PAGE_SIZE bytes are zero. */
extern bool tde_page_is_zero(const uint8_t *page);

#endif							/* TDE_PAGE_H */
