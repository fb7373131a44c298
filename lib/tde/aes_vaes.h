/*
 * aes_vaes.h
 *		AES-XTS and AES-CTR by the vector AES instructions (VAES) of newer processors.
 *
 * libcrypto up to 3.x runs both one block per instruction where the processor has no AVX-512.  With two
 * blocks per instruction a page takes two thirds of the time.  For cipher.c only, which keeps
 * libcrypto's contexts beside it, compares the two before it relies on this, and never uses this in FIPS mode.
 */
#ifndef TDE_AES_VAES_H
#define TDE_AES_VAES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AES_VAES_MAX_KEYS	15	/* round keys of AES-256 */

/* Round keys of both AES keys; secret, to be wiped by whoever owns it. */
struct xts_vaes
{
	uint8_t		encrypt[AES_VAES_MAX_KEYS][16];
	uint8_t		decrypt[AES_VAES_MAX_KEYS][16];
	uint8_t		tweak[AES_VAES_MAX_KEYS][16];
	int			rounds;
};

/* Round keys of one AES key; the same. */
struct ctr_vaes
{
	uint8_t		keys[AES_VAES_MAX_KEYS][16];
	int			rounds;
};

/* Has this processor, under this operating system, what is needed? */
extern bool aes_vaes_supported(void);

/* Expand the two keys, each of half bytes (16 or 32).  Only where it is supported. */
extern void xts_vaes_init(struct xts_vaes *xts, const uint8_t *key, size_t half);

/* len is a multiple of 16 and not 0; each byte of in is read once; in == out is fine, other overlaps are not. */
extern void xts_vaes_crypt(const struct xts_vaes *xts, bool encrypt, const uint8_t tweak[16],
						   const uint8_t *in, uint8_t *out, size_t len);

/* The same for CTR, key of len bytes (16 or 32). */
extern void ctr_vaes_init(struct ctr_vaes *ctr, const uint8_t *key, size_t len);

/*
 * The counter is 128 bits, big-endian; skip is 0 to 15 bytes into the first block.  len may be anything; each
 * byte of in is read once; in == out is fine, other overlaps are not.
 */
extern void ctr_vaes_crypt(const struct ctr_vaes *ctr, const uint8_t counter[16], size_t skip,
						   const uint8_t *in, uint8_t *out, size_t len);

#endif							/* TDE_AES_VAES_H */
