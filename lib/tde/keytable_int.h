/*
 * keytable_int.h
 *		The key table as its own files see it: keytable.c (what is done with a table) and
 *		keytable_format.c (its form as bytes).  Not for anyone else.
 */
#ifndef TDE_KEYTABLE_INT_H
#define TDE_KEYTABLE_INT_H

#include "keytable.h"
#include "keywrap.h"

/* An entry with its key, wrapped and, once the table is open, in the clear. */
struct slot
{
	struct tde_key_entry entry;
	uint8_t		nonce[KEYWRAP_NONCE_LEN];
	uint8_t		wrapped[TDE_MAX_KEY_LEN];
	uint8_t		tag[KEYWRAP_TAG_LEN];
	uint8_t		key[TDE_MAX_KEY_LEN];	/* secret */
};

enum state
{
	STATE_NEW,					/* no master key yet */
	STATE_LOCKED,				/* parsed; the master key has not been given */
	STATE_OPEN
};

struct tde_keytable
{
	enum state	state;
	uint64_t	generation;
	uint64_t	keystore_generation;
	uint32_t	master_key_id;
	uint8_t		uuid[KEYWRAP_UUID_LEN];
	struct keywrap_keys keys;	/* secret; valid in STATE_OPEN */
	struct slot *slots;
	size_t		count;
	size_t		capacity;
	uint8_t    *ring;
	size_t		ring_len;
	uint8_t		mac[KEYWRAP_MAC_LEN];	/* as parsed; valid in STATE_LOCKED */
};

/* Length of an entry's key; 0 if kind, oid and algorithm do not go together. */
extern size_t keytable_key_len(const struct tde_key_entry *entry);

/* Kind, oid and algorithm as they are on disk and in the associated data. */
extern void keytable_ids(const struct tde_key_entry *entry, uint8_t ids[KEYWRAP_IDS_LEN]);

/* Below, at or above 0 as entry comes before, at or after kind and oid. */
extern int	keytable_compare(const struct tde_key_entry *entry, enum tde_key_kind kind,
							 uint32_t oid);

/* Everything in the file before the MAC: its length, and writing it; returns the end. */
extern size_t keytable_body_len(const tde_keytable *kt);
extern uint8_t *keytable_put_body(const tde_keytable *kt, uint64_t generation, uint8_t *to);

#endif							/* TDE_KEYTABLE_INT_H */
