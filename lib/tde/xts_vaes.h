/*
 * xts_vaes.h
 *		AES-XTS by the vector AES instructions (VAES) of newer processors.
 *
 * libcrypto up to 3.x runs XTS one block per instruction where the processor has no AVX-512.  With two
 * blocks per instruction a page takes two thirds of the time.  For cipher.c only, which keeps
 * libcrypto's contexts beside it, compares the two before it relies on this, and never uses this in FIPS mode.
 */
#ifndef TDE_XTS_VAES_H
#define TDE_XTS_VAES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define XTS_VAES_MAX_KEYS	15	/* round keys of AES-256 */

/* Round keys of both AES keys; secret, to be wiped by whoever owns it. */
struct xts_vaes
{
	uint8_t		encrypt[XTS_VAES_MAX_KEYS][16];
	uint8_t		decrypt[XTS_VAES_MAX_KEYS][16];
	uint8_t		tweak[XTS_VAES_MAX_KEYS][16];
	int			rounds;
};

/* Has this processor, under this operating system, what is needed? */
extern bool xts_vaes_supported(void);

/* Expand the two keys, each of half bytes (16 or 32).  Only where it is supported. */
extern void xts_vaes_init(struct xts_vaes *xts, const uint8_t *key, size_t half);

/* len is a multiple of 16 and not 0; each byte of in is read once; in == out is fine, other overlaps are not. */
extern void xts_vaes_crypt(const struct xts_vaes *xts, bool encrypt, const uint8_t tweak[16],
						   const uint8_t *in, uint8_t *out, size_t len);

#endif							/* TDE_XTS_VAES_H */
