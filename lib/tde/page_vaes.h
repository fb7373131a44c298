/*
 * page_vaes.h
 *		A page's XTS and its checksums in one pass, by the vector AES instructions.
 *
 * The checksum waits for multiplications while AES waits for nothing, and the two use other parts of the
 * processor for the most part: done together they cost little more than AES alone.  For page.c only,
 * and only with a context that cipher.c has found good.
 */
#ifndef TDE_PAGE_VAES_H
#define TDE_PAGE_VAES_H

#include "aes_vaes.h"

/*
 * Encrypt TDE_PAGE_SIZE bytes but the first TDE_PAGE_CLEAR, which are in out already.  Returns the hash over
 * out, pd_checksum taken as zero, see checksum_of().  Each byte of in is read once.
 */
extern uint32_t page_vaes_encrypt(const struct xts_vaes *xts, const uint8_t tweak[16], const uint8_t *in,
								  uint8_t *out);

/* Decrypt in place; the hash of the page as it was, and of the page as it is. */
extern void page_vaes_decrypt(const struct xts_vaes *xts, const uint8_t tweak[16], uint8_t *page,
							  uint32_t *ret_before, uint32_t *ret_after);

#endif							/* TDE_PAGE_VAES_H */
