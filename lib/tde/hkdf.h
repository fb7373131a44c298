/*
 * hkdf.h
 *		HKDF-SHA256 (RFC 5869), extract and expand in one.  Used inside lib/tde.
 */
#ifndef TDE_HKDF_H
#define TDE_HKDF_H

#include <stddef.h>
#include <stdint.h>

/* Derive len bytes; info is a C string.  0, or -1 if libcrypto failed. */
extern int	tde_hkdf(const uint8_t *secret, size_t secret_len, const uint8_t *salt, size_t salt_len,
					 const char *info, uint8_t *ret_key, size_t len);

#endif							/* TDE_HKDF_H */
