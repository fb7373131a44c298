/*
 * keytable.h
 *		$PGDATA/pgx_tde/keys: the keys that encrypt data, each wrapped under a
 *		master key, as one small file.
 *
 * The table is a value in memory; reading and replacing the file is the caller's.  Layout
 * (all big-endian, see pgx_tde_keys(5)): magic, version, generation,
 * keystore UUID, keystore generation, master key id, entries, the keystore's key ring as an opaque
 * string, and an HMAC-SHA256 over all that, under a key derived from the master key.
 */
#ifndef TDE_KEYTABLE_H
#define TDE_KEYTABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cipher.h"

#define TDE_KEYTABLE_MAX_ENTRIES	4096
#define TDE_KEYTABLE_MAX_RING		(1024 * 1024)	/* bytes */
#define TDE_KEYTABLE_MAX_SIZE		(2 * 1024 * 1024)	/* bytes of the whole file */
#define TDE_MASTER_KEY_LEN			32

enum tde_keytable_status
{
	TDE_KEYTABLE_OK = 0,
	TDE_KEYTABLE_ENOMEM = 1,
	TDE_KEYTABLE_EFORMAT = 2,	/* wrong magic */
	TDE_KEYTABLE_EVERSION = 3,	/* unknown version */
	TDE_KEYTABLE_EDAMAGED = 4,	/* truncated, extended, out of range, or MAC or unwrap fails */
	TDE_KEYTABLE_ECRYPTO = 5,	/* libcrypto failed */
	TDE_KEYTABLE_EFULL = 6,		/* no room for another entry */
	TDE_KEYTABLE_ENOENT = 7,	/* no such entry */
	TDE_KEYTABLE_ECLOSED = 8,	/* needs tde_keytable_open() first or, on a new table,
								 * tde_keytable_rewrap() */
	TDE_KEYTABLE_EINVAL = 9		/* kind, oid and algorithm that do not go together */
};

/* Numbers are on disk. */
enum tde_key_kind
{
	TDE_KEY_WAL = 1,			/* oid is 0; the key is for CTR */
	TDE_KEY_TABLESPACE = 2		/* oid is the tablespace's; the key is for XTS */
};

struct tde_key_entry
{
	enum tde_key_kind kind;
	uint32_t	oid;
	enum tde_algorithm alg;
};

typedef struct tde_keytable tde_keytable;

/* An empty table, generation 0, for a keystore.  NULL if memory is out. */
extern tde_keytable *tde_keytable_new(const uint8_t keystore_uuid[16]);
extern void tde_keytable_free(tde_keytable **kt);	/* wipes; NULLs the caller's pointer */

/*
 * Parse a file's bytes.  Checks everything that needs no key; wrapped keys stay wrapped.  buf may
 * be freed after.
 */
extern enum tde_keytable_status tde_keytable_parse(const void *buf, size_t len,
												   tde_keytable **ret_kt);

/* Header fields. */
extern void tde_keytable_uuid(const tde_keytable *kt, uint8_t ret_uuid[16]);
extern uint64_t tde_keytable_generation(const tde_keytable *kt);
extern uint64_t tde_keytable_keystore_generation(const tde_keytable *kt);

/* Id of the master key that the entries are wrapped under. */
extern uint32_t tde_keytable_master_key_id(const tde_keytable *kt);

/* The ring and the entries are borrowed.  The ring may be empty. */
extern const uint8_t *tde_keytable_ring(const tde_keytable *kt, size_t *ret_len);
extern size_t tde_keytable_count(const tde_keytable *kt);
extern const struct tde_key_entry *tde_keytable_entry(const tde_keytable *kt, size_t index);

/*
 * Give the parsed table its master key (the one of tde_keytable_master_key_id()): verifies the MAC,
 * unwraps every entry.  EDAMAGED if the key is another one or anything was altered.
 * Before this, or tde_keytable_rewrap(), keys can neither be read nor added.
 */
extern enum tde_keytable_status tde_keytable_open(tde_keytable *kt,
												  const uint8_t master_key[TDE_MASTER_KEY_LEN]);

/* Wrap everything under another master key from now on.  On a new table: sets the first one. */
extern enum tde_keytable_status tde_keytable_rewrap(tde_keytable *kt, uint32_t master_key_id,
													const uint8_t master_key[TDE_MASTER_KEY_LEN]);

/* Add an entry with a fresh random key, or replace the entry of that kind and oid by one. */
extern enum tde_keytable_status tde_keytable_add(tde_keytable *kt, enum tde_key_kind kind,
												 uint32_t oid, enum tde_algorithm alg);
extern enum tde_keytable_status tde_keytable_remove(tde_keytable *kt, enum tde_key_kind kind,
													uint32_t oid);

/*
 * An entry's key in the clear, borrowed until the table changes; *ret_len bytes.  NULL if not open
 * or no such entry.
 */
extern const uint8_t *tde_keytable_key(const tde_keytable *kt, size_t index, size_t *ret_len);

/* Note the keystore's generation and its ring (copied). */
extern enum tde_keytable_status tde_keytable_set_keystore(tde_keytable *kt,
														  uint64_t keystore_generation,
														  const void *ring, size_t ring_len);

/*
 * The file's bytes, with the generation raised by one first; *ret_buf is malloc'ed, the caller
 * frees it (ciphertext). Entries are in ascending order of kind and oid, in the file and in
 * memory.
 */
extern enum tde_keytable_status tde_keytable_serialize(tde_keytable *kt, uint8_t **ret_buf,
													   size_t *ret_len);

/* One sentence fragment for a message, e.g. "is damaged". */
extern const char *tde_keytable_status_text(enum tde_keytable_status status);

#endif							/* TDE_KEYTABLE_H */
