/*
 * pack_keys.h
 *		Keys of a packed backup: the master key of its stream, and the tablespaces' keys of its pages.
 */
#ifndef PACK_KEYS_H
#define PACK_KEYS_H

#include <stdbool.h>
#include <stdint.h>

#include "cipher.h"
#include "keystore.h"
#include "keytable.h"
#include "pack_format.h"

/* Read a key table file; *ret_buf is freed by the caller.  An exit code. */
extern int	pack_keytable_read(const char *path, uint8_t **ret_buf, size_t *ret_len);

/*
 * Open a key table's bytes with the keystore, taking master keys from its ring that the keystore has not
 * (in memory only).  what names it in messages.  An exit code; the caller frees *ret_kt.
 */
extern int	pack_keytable_open(keystore *ks, const uint8_t *buf, size_t len, const char *what,
							   tde_keytable **ret_kt);

/* Is this a file of pages that are encrypted with a key of kt?  Sets the fields of PACK_PAGES if so. */
extern void pack_classify(const tde_keytable *kt, struct pack_file *file);

/* Ciphers of the tablespaces, made when first needed; for one thread. */
struct pack_ciphers;

extern struct pack_ciphers *pack_ciphers_new(const tde_keytable *kt);	/* kt is borrowed and may be NULL */
extern void pack_ciphers_free(struct pack_ciphers **ciphers);

/*
 * Decrypt or encrypt the whole pages of an extent of PACK_PAGES in place.  Page checksums are neither looked
 * at nor set: what is encrypted again has to be what was there.  False after a message.
 */
extern bool pack_decrypt_pages(struct pack_ciphers *ciphers, const struct pack_record *rec);
extern bool pack_encrypt_pages(struct pack_ciphers *ciphers, const struct pack_record *rec);

#endif							/* PACK_KEYS_H */
