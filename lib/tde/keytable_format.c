/*
 * keytable_format.c
 *		The key table as the bytes of a file; pgx_tde_keys(5) describes them.
 *
 * Reading trusts nothing: each length is checked against what is there and against its limit
 * before it is used.  The form is canonical: entries are in ascending order of kind and oid, and
 * nothing is optional.  So one table has one form, duplicates cannot hide, and keytable.c can
 * check the MAC of a parsed table by writing it out again.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "keytable_int.h"

#define FORMAT_VERSION		1
#define MAGIC_LEN			8
#define HEADER_LEN			52	/* magic to number of entries */
#define ENTRY_FIXED_LEN		(KEYWRAP_IDS_LEN + KEYWRAP_NONCE_LEN + KEYWRAP_TAG_LEN)
#define RING_LENGTH_LEN		4	/* the field before the ring */

static const uint8_t magic[MAGIC_LEN] = {'P', 'G', 'X', 'K', 'E', 'Y', 'S', '\0'};

static uint8_t *
put_bytes(uint8_t *to, const void *from, size_t len)
{
	if (len > 0)
		memcpy(to, from, len);
	return to + len;
}

static uint8_t *
put_u32(uint8_t *to, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		*to++ = (uint8_t) (value >> (24 - 8 * i));
	return to;
}

static uint8_t *
put_u64(uint8_t *to, uint64_t value)
{
	return put_u32(put_u32(to, (uint32_t) (value >> 32)), (uint32_t) value);
}

/* The part of the file that has not been read yet. */
struct reader
{
	const uint8_t *at;
	size_t		left;
};

/* The next len bytes, or NULL if there are not so many. */
static const uint8_t *
take(struct reader *r, size_t len)
{
	const uint8_t *at = r->at;

	if (len > r->left)
		return NULL;
	r->at += len;
	r->left -= len;
	return at;
}

static uint32_t
get_u32(const uint8_t *from)
{
	return (uint32_t) from[0] << 24 | (uint32_t) from[1] << 16 | (uint32_t) from[2] << 8 | from[3];
}

static uint64_t
get_u64(const uint8_t *from)
{
	return (uint64_t) get_u32(from) << 32 | get_u32(from + 4);
}

size_t
keytable_key_len(const struct tde_key_entry *entry)
{
	switch (entry->kind)
	{
		case TDE_KEY_WAL:
			return entry->oid == 0 ? tde_ctr_key_len(entry->alg) : 0;
		case TDE_KEY_TABLESPACE:
			return entry->oid != 0 ? tde_xts_key_len(entry->alg) : 0;
	}
	return 0;
}

void
keytable_ids(const struct tde_key_entry *entry, uint8_t ids[KEYWRAP_IDS_LEN])
{
	put_u32(put_u32(put_u32(ids, entry->kind), entry->oid), entry->alg);
}

int
keytable_compare(const struct tde_key_entry *entry, enum tde_key_kind kind, uint32_t oid)
{
	if (entry->kind != kind)
		return entry->kind < kind ? -1 : 1;
	if (entry->oid != oid)
		return entry->oid < oid ? -1 : 1;
	return 0;
}

size_t
keytable_body_len(const tde_keytable *kt)
{
	size_t		len = HEADER_LEN + RING_LENGTH_LEN + kt->ring_len;

	for (size_t i = 0; i < kt->count; i++)
		len += ENTRY_FIXED_LEN + keytable_key_len(&kt->slots[i].entry);
	return len;
}

uint8_t *
keytable_put_body(const tde_keytable *kt, uint64_t generation, uint8_t *to)
{
	to = put_bytes(to, magic, MAGIC_LEN);
	to = put_u32(to, FORMAT_VERSION);
	to = put_u64(to, generation);
	to = put_bytes(to, kt->uuid, KEYWRAP_UUID_LEN);
	to = put_u64(to, kt->keystore_generation);
	to = put_u32(to, kt->master_key_id);
	to = put_u32(to, (uint32_t) kt->count);
	for (size_t i = 0; i < kt->count; i++)
	{
		const struct slot *slot = &kt->slots[i];

		keytable_ids(&slot->entry, to);
		to += KEYWRAP_IDS_LEN;
		to = put_bytes(to, slot->nonce, KEYWRAP_NONCE_LEN);
		to = put_bytes(to, slot->wrapped, keytable_key_len(&slot->entry));
		to = put_bytes(to, slot->tag, KEYWRAP_TAG_LEN);
	}
	to = put_u32(to, (uint32_t) kt->ring_len);
	return put_bytes(to, kt->ring, kt->ring_len);
}

/* Read an entry into its slot.  False if it is cut off, means nothing, or is out of order. */
static bool
take_entry(struct reader *r, tde_keytable *kt, size_t index)
{
	struct slot *slot = &kt->slots[index];
	const uint8_t *ids = take(r, KEYWRAP_IDS_LEN);
	const uint8_t *rest;
	size_t		key_len;

	if (ids == NULL)
		return false;
	slot->entry.kind = (enum tde_key_kind) get_u32(ids);
	slot->entry.oid = get_u32(ids + 4);
	slot->entry.alg = (enum tde_algorithm) get_u32(ids + 8);
	key_len = keytable_key_len(&slot->entry);
	if (key_len == 0)
		return false;
	if (index > 0 && keytable_compare(&slot[-1].entry, slot->entry.kind, slot->entry.oid) >= 0)
		return false;

	rest = take(r, KEYWRAP_NONCE_LEN + key_len + KEYWRAP_TAG_LEN);
	if (rest == NULL)
		return false;
	memcpy(slot->nonce, rest, KEYWRAP_NONCE_LEN);
	memcpy(slot->wrapped, rest + KEYWRAP_NONCE_LEN, key_len);
	memcpy(slot->tag, rest + KEYWRAP_NONCE_LEN + key_len, KEYWRAP_TAG_LEN);
	return true;
}

/* Read what follows the version; kt is new. */
static enum tde_keytable_status
take_body(struct reader *r, tde_keytable *kt)
{
	const uint8_t *at = take(r, HEADER_LEN - MAGIC_LEN - 4);
	uint32_t	count;

	if (at == NULL)
		return TDE_KEYTABLE_EDAMAGED;
	kt->generation = get_u64(at);
	memcpy(kt->uuid, at + 8, KEYWRAP_UUID_LEN);
	kt->keystore_generation = get_u64(at + 24);
	kt->master_key_id = get_u32(at + 32);
	count = get_u32(at + 36);

	/* No table is written with generation 0.  No memory is taken for what the bytes cannot hold. */
	if (kt->generation == 0 || count > TDE_KEYTABLE_MAX_ENTRIES ||
		count > r->left / ENTRY_FIXED_LEN)
		return TDE_KEYTABLE_EDAMAGED;
	kt->slots = calloc(count > 0 ? count : 1, sizeof(*kt->slots));
	if (kt->slots == NULL)
		return TDE_KEYTABLE_ENOMEM;
	kt->capacity = count;
	for (; kt->count < count; kt->count++)
		if (!take_entry(r, kt, kt->count))
			return TDE_KEYTABLE_EDAMAGED;

	at = take(r, RING_LENGTH_LEN);
	if (at == NULL)
		return TDE_KEYTABLE_EDAMAGED;
	kt->ring_len = get_u32(at);

	/* The MAC has to follow the ring and to end the file. */
	if (kt->ring_len > TDE_KEYTABLE_MAX_RING || r->left != kt->ring_len + KEYWRAP_MAC_LEN)
		return TDE_KEYTABLE_EDAMAGED;
	if (kt->ring_len > 0)
	{
		kt->ring = malloc(kt->ring_len);
		if (kt->ring == NULL)
			return TDE_KEYTABLE_ENOMEM;
		memcpy(kt->ring, take(r, kt->ring_len), kt->ring_len);
	}
	memcpy(kt->mac, take(r, KEYWRAP_MAC_LEN), KEYWRAP_MAC_LEN);
	return TDE_KEYTABLE_OK;
}

enum tde_keytable_status
tde_keytable_parse(const void *buf, size_t len, tde_keytable **ret_kt)
{
	struct reader r = {buf, len};
	tde_keytable *kt = NULL;
	const uint8_t *at;
	enum tde_keytable_status status;

	/* A file that was cut off inside the magic is a damaged table, not something else. */
	if (len > 0 && memcmp(buf, magic, len < MAGIC_LEN ? len : MAGIC_LEN) != 0)
		return TDE_KEYTABLE_EFORMAT;
	at = take(&r, MAGIC_LEN + 4);
	if (at == NULL)
		return TDE_KEYTABLE_EDAMAGED;
	if (get_u32(at + MAGIC_LEN) != FORMAT_VERSION)
		return TDE_KEYTABLE_EVERSION;
	if (len > TDE_KEYTABLE_MAX_SIZE)
		return TDE_KEYTABLE_EDAMAGED;

	kt = calloc(1, sizeof(*kt));
	if (kt == NULL)
		return TDE_KEYTABLE_ENOMEM;
	kt->state = STATE_LOCKED;
	status = take_body(&r, kt);
	if (status == TDE_KEYTABLE_OK)
	{
		*ret_kt = kt;
		kt = NULL;
	}
	tde_keytable_free(&kt);
	return status;
}
