/*
 * cipher_int.h
 *		What page.c has to know of a context beside cipher.h.
 */
#ifndef TDE_CIPHER_INT_H
#define TDE_CIPHER_INT_H

#include "cipher.h"

struct xts_vaes;

/* The round keys for the processor's own instructions, or NULL where libcrypto is to be used.  Owned by xts. */
extern const struct xts_vaes *tde_xts_vaes(const tde_xts *xts);

#endif							/* TDE_CIPHER_INT_H */
