/*
 * cipher.h
 *		Data keys and the cipher contexts made from them.
 *
 * Everything in lib/tde works on buffers: no files, no globals, nothing of
 * PostgreSQL's process.  Functions return 0, or -1 if libcrypto failed or the
 * input is not acceptable; what that means to a person is the caller's to say.
 * A context belongs to one thread at a time and may be used on after fork().
 */
#ifndef TDE_CIPHER_H
#define TDE_CIPHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Numbers are on disk (key table): never reused. */
enum tde_algorithm
{
	TDE_NONE = 0,
	TDE_AES128 = 1,
	TDE_AES256 = 2
};

#define TDE_MAX_KEY_LEN		64	/* bytes; XTS takes two AES keys */

/* Bytes of key material: XTS 32 or 64, CTR 16 or 32; 0 for TDE_NONE. */
extern size_t tde_xts_key_len(enum tde_algorithm alg);
extern size_t tde_ctr_key_len(enum tde_algorithm alg);

/* FEP's spelling: "none", "AES128", "AES256".  Parsing ignores case; -1 if unknown. */
extern const char *tde_algorithm_name(enum tde_algorithm alg);
extern int	tde_algorithm_parse(const char *name, enum tde_algorithm *ret_alg);

/*
 * AES-XTS (IEEE 1619, SP 800-38E) with the key schedule kept; only the tweak changes from call to
 * call.
 */
typedef struct tde_xts tde_xts;
extern tde_xts *tde_xts_new(enum tde_algorithm alg, const uint8_t *key);	/* NULL on failure, and
																		 * for equal halves */
extern void tde_xts_free(tde_xts **xts);	/* wipes; NULLs the caller's pointer */
extern int	tde_xts_encrypt(tde_xts *xts, const uint8_t tweak[16], const uint8_t *in,
							uint8_t *out, size_t len);
extern int	tde_xts_decrypt(tde_xts *xts, const uint8_t tweak[16], const uint8_t *in,
							uint8_t *out, size_t len);

/*
 * Is libcrypto passed by for whole blocks?  Then each byte of the input is read once.  And, for tests and
 * benchmarks: do not.
 */
extern bool tde_xts_is_fast(const tde_xts *xts);
extern void tde_xts_set_slow(tde_xts *xts);

/* AES-CTR (SP 800-38A), 128-bit big-endian counter; skip is 0 to 15 bytes into the first block. */
typedef struct tde_ctr tde_ctr;
extern tde_ctr *tde_ctr_new(enum tde_algorithm alg, const uint8_t *key);
extern void tde_ctr_free(tde_ctr **ctr);
extern int	tde_ctr_crypt(tde_ctr *ctr, const uint8_t counter[16], size_t skip,
						  const uint8_t *in, uint8_t *out, size_t len);	/* in == out is fine */

/* The same two for CTR, where it holds for any length. */
extern bool tde_ctr_is_fast(const tde_ctr *ctr);
extern void tde_ctr_set_slow(tde_ctr *ctr);

#endif							/* TDE_CIPHER_H */
