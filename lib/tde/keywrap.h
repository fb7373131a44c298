/*
 * keywrap.h
 *		How the key table protects its keys.  Used by keytable.c alone.
 */
#ifndef TDE_KEYWRAP_H
#define TDE_KEYWRAP_H

#include <stddef.h>
#include <stdint.h>

#include "keytable.h"

#define KEYWRAP_UUID_LEN	16	/* bytes */
#define KEYWRAP_NONCE_LEN	12	/* SP 800-38D's recommended length */
#define KEYWRAP_TAG_LEN		16
#define KEYWRAP_MAC_LEN		32	/* HMAC-SHA256 */
#define KEYWRAP_IDS_LEN		12	/* kind, oid, algorithm, as on disk */

/* What a master key gives for one keystore; a secret, wiped by its owner. */
struct keywrap_keys
{
	uint8_t		wrap[32];
	uint8_t		mac[32];
};

extern enum tde_keytable_status
			keywrap_derive(const uint8_t master_key[TDE_MASTER_KEY_LEN],
						   const uint8_t uuid[KEYWRAP_UUID_LEN], struct keywrap_keys *ret_keys);

/* Wrap len bytes of key under a fresh nonce.  uuid and ids are authenticated with it. */
extern enum tde_keytable_status
			keywrap_wrap(const struct keywrap_keys *keys, const uint8_t uuid[KEYWRAP_UUID_LEN],
						 const uint8_t ids[KEYWRAP_IDS_LEN], const uint8_t *key, size_t len,
						 uint8_t ret_nonce[KEYWRAP_NONCE_LEN], uint8_t *ret_wrapped,
						 uint8_t ret_tag[KEYWRAP_TAG_LEN]);

/* The reverse; EDAMAGED, with ret_key wiped, if the tag does not fit. */
extern enum tde_keytable_status
			keywrap_unwrap(const struct keywrap_keys *keys, const uint8_t uuid[KEYWRAP_UUID_LEN],
						   const uint8_t ids[KEYWRAP_IDS_LEN],
						   const uint8_t nonce[KEYWRAP_NONCE_LEN],
						   const uint8_t *wrapped, size_t len,
						   const uint8_t tag[KEYWRAP_TAG_LEN], uint8_t *ret_key);

extern enum tde_keytable_status
			keywrap_mac(const struct keywrap_keys *keys, const uint8_t *data, size_t len,
						uint8_t ret_mac[KEYWRAP_MAC_LEN]);

#endif							/* TDE_KEYWRAP_H */
