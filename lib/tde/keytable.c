/*
 * keytable.c
 *		The key table in memory: opening it, and what can be done with an open one.
 *
 * Clear keys are in the slots and nowhere else; every array of slots is wiped before it is freed.
 * A call that fails leaves the table as it was.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "keytable_int.h"

#define FIRST_CAPACITY		16	/* slots */

/* Where the entry is, or where it would have to be put. */
static size_t
find(const tde_keytable *kt, enum tde_key_kind kind, uint32_t oid, bool *ret_found)
{
	size_t		low = 0;
	size_t		high = kt->count;

	while (low < high)
	{
		size_t		middle = low + (high - low) / 2;

		if (keytable_compare(&kt->slots[middle].entry, kind, oid) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	*ret_found = low < kt->count && keytable_compare(&kt->slots[low].entry, kind, oid) == 0;
	return low;
}

static enum tde_keytable_status
slot_wrap(const tde_keytable *kt, const struct keywrap_keys *keys, struct slot *slot)
{
	uint8_t		ids[KEYWRAP_IDS_LEN];

	keytable_ids(&slot->entry, ids);
	return keywrap_wrap(keys, kt->uuid, ids, slot->key, keytable_key_len(&slot->entry),
						slot->nonce, slot->wrapped, slot->tag);
}

static void
slots_free(struct slot *slots, size_t capacity)
{
	if (slots == NULL)
		return;
	OPENSSL_cleanse(slots, capacity * sizeof(*slots));
	free(slots);
}

/*
 * Put a copy of the slots, with room for capacity of them, in *ret_slots.  realloc() is of no use,
 * since it may leave the keys behind in memory that is no longer ours to wipe.
 */
static enum tde_keytable_status
slots_copy(const tde_keytable *kt, size_t capacity, struct slot **ret_slots)
{
	struct slot *slots = calloc(capacity > 0 ? capacity : 1, sizeof(*slots));

	if (slots == NULL)
		return TDE_KEYTABLE_ENOMEM;
	if (kt->count > 0)
		memcpy(slots, kt->slots, kt->count * sizeof(*slots));
	*ret_slots = slots;
	return TDE_KEYTABLE_OK;
}

static void
slots_replace(tde_keytable *kt, struct slot *slots, size_t capacity)
{
	slots_free(kt->slots, kt->capacity);
	kt->slots = slots;
	kt->capacity = capacity;
}

/* Make the whole file in malloc'ed memory. */
static enum tde_keytable_status
make_file(const tde_keytable *kt, uint64_t generation, uint8_t **ret_buf, size_t *ret_len)
{
	size_t		len = keytable_body_len(kt);
	uint8_t    *buf = malloc(len + KEYWRAP_MAC_LEN);
	enum tde_keytable_status status;

	if (buf == NULL)
		return TDE_KEYTABLE_ENOMEM;
	keytable_put_body(kt, generation, buf);
	status = keywrap_mac(&kt->keys, buf, len, buf + len);
	if (status != TDE_KEYTABLE_OK)
	{
		free(buf);
		return status;
	}
	*ret_buf = buf;
	*ret_len = len + KEYWRAP_MAC_LEN;
	return TDE_KEYTABLE_OK;
}

tde_keytable *
tde_keytable_new(const uint8_t keystore_uuid[16])
{
	tde_keytable *kt = calloc(1, sizeof(*kt));

	if (kt == NULL)
		return NULL;
	kt->state = STATE_NEW;
	memcpy(kt->uuid, keystore_uuid, KEYWRAP_UUID_LEN);
	return kt;
}

void
tde_keytable_free(tde_keytable **kt)
{
	if (*kt == NULL)
		return;
	slots_free((*kt)->slots, (*kt)->capacity);
	free((*kt)->ring);
	OPENSSL_cleanse(*kt, sizeof(**kt));
	free(*kt);
	*kt = NULL;
}

void
tde_keytable_uuid(const tde_keytable *kt, uint8_t ret_uuid[16])
{
	memcpy(ret_uuid, kt->uuid, KEYWRAP_UUID_LEN);
}

uint64_t
tde_keytable_generation(const tde_keytable *kt)
{
	return kt->generation;
}

uint64_t
tde_keytable_keystore_generation(const tde_keytable *kt)
{
	return kt->keystore_generation;
}

uint32_t
tde_keytable_master_key_id(const tde_keytable *kt)
{
	return kt->master_key_id;
}

const uint8_t *
tde_keytable_ring(const tde_keytable *kt, size_t *ret_len)
{
	*ret_len = kt->ring_len;
	return kt->ring;
}

size_t
tde_keytable_count(const tde_keytable *kt)
{
	return kt->count;
}

const struct tde_key_entry *
tde_keytable_entry(const tde_keytable *kt, size_t index)
{
	return index < kt->count ? &kt->slots[index].entry : NULL;
}

enum tde_keytable_status
tde_keytable_open(tde_keytable *kt, const uint8_t master_key[TDE_MASTER_KEY_LEN])
{
	struct keywrap_keys keys = {{0}, {0}};
	uint8_t    *body = NULL;
	size_t		len = keytable_body_len(kt);
	uint8_t		mac[KEYWRAP_MAC_LEN];
	struct slot *slots = NULL;
	enum tde_keytable_status status;

	if (kt->state == STATE_NEW)
		return TDE_KEYTABLE_ECLOSED;
	status = keywrap_derive(master_key, kt->uuid, &keys);
	if (status != TDE_KEYTABLE_OK)
		goto out;
	if (kt->state == STATE_OPEN)
	{
		/* Nothing is left to be opened; say whether it is the key. */
		if (CRYPTO_memcmp(&keys, &kt->keys, sizeof(keys)) != 0)
			status = TDE_KEYTABLE_EDAMAGED;
		goto out;
	}

	body = malloc(len);
	if (body == NULL)
	{
		status = TDE_KEYTABLE_ENOMEM;
		goto out;
	}
	keytable_put_body(kt, kt->generation, body);
	status = keywrap_mac(&keys, body, len, mac);
	if (status == TDE_KEYTABLE_OK && CRYPTO_memcmp(mac, kt->mac, sizeof(mac)) != 0)
		status = TDE_KEYTABLE_EDAMAGED;
	if (status == TDE_KEYTABLE_OK)
		status = slots_copy(kt, kt->capacity, &slots);
	for (size_t i = 0; status == TDE_KEYTABLE_OK && i < kt->count; i++)
	{
		uint8_t		ids[KEYWRAP_IDS_LEN];

		keytable_ids(&slots[i].entry, ids);
		status = keywrap_unwrap(&keys, kt->uuid, ids, slots[i].nonce, slots[i].wrapped,
								keytable_key_len(&slots[i].entry), slots[i].tag, slots[i].key);
	}
	if (status != TDE_KEYTABLE_OK)
		goto out;
	slots_replace(kt, slots, kt->capacity);
	slots = NULL;
	memcpy(&kt->keys, &keys, sizeof(keys));
	kt->state = STATE_OPEN;

out:
	slots_free(slots, kt->capacity);
	free(body);
	OPENSSL_cleanse(&keys, sizeof(keys));
	return status;
}

enum tde_keytable_status
tde_keytable_rewrap(tde_keytable *kt, uint32_t master_key_id,
					const uint8_t master_key[TDE_MASTER_KEY_LEN])
{
	struct keywrap_keys keys = {{0}, {0}};
	struct slot *slots = NULL;
	enum tde_keytable_status status;

	if (kt->state == STATE_LOCKED)
		return TDE_KEYTABLE_ECLOSED;
	status = keywrap_derive(master_key, kt->uuid, &keys);
	if (status == TDE_KEYTABLE_OK)
		status = slots_copy(kt, kt->capacity, &slots);
	for (size_t i = 0; status == TDE_KEYTABLE_OK && i < kt->count; i++)
		status = slot_wrap(kt, &keys, &slots[i]);
	if (status != TDE_KEYTABLE_OK)
		goto out;
	slots_replace(kt, slots, kt->capacity);
	slots = NULL;
	memcpy(&kt->keys, &keys, sizeof(keys));
	kt->master_key_id = master_key_id;
	kt->state = STATE_OPEN;

out:
	slots_free(slots, kt->capacity);
	OPENSSL_cleanse(&keys, sizeof(keys));
	return status;
}

/* Make a key at random.  The halves of a key for XTS have to differ; see tde_xts_new(). */
static enum tde_keytable_status
make_key(const struct tde_key_entry *entry, uint8_t *ret_key)
{
	size_t		len = keytable_key_len(entry);

	if (RAND_priv_bytes(ret_key, (int) len) != 1)
		return TDE_KEYTABLE_ECRYPTO;
	if (entry->kind == TDE_KEY_TABLESPACE &&
		CRYPTO_memcmp(ret_key, ret_key + len / 2, len / 2) == 0)
		return TDE_KEYTABLE_ECRYPTO;
	return TDE_KEYTABLE_OK;
}

enum tde_keytable_status
tde_keytable_add(tde_keytable *kt, enum tde_key_kind kind, uint32_t oid, enum tde_algorithm alg)
{
	struct slot slot = {.entry = {kind, oid, alg}};
	struct slot *slots = NULL;
	size_t		capacity = kt->capacity;
	size_t		at;
	bool		found;
	enum tde_keytable_status status;

	if (kt->state != STATE_OPEN)
		return TDE_KEYTABLE_ECLOSED;
	if (keytable_key_len(&slot.entry) == 0)
		return TDE_KEYTABLE_EINVAL;
	at = find(kt, kind, oid, &found);
	if (!found && kt->count == TDE_KEYTABLE_MAX_ENTRIES)
		return TDE_KEYTABLE_EFULL;

	status = make_key(&slot.entry, slot.key);
	if (status == TDE_KEYTABLE_OK)
		status = slot_wrap(kt, &kt->keys, &slot);
	if (status != TDE_KEYTABLE_OK)
		goto out;
	if (!found && kt->count == kt->capacity)
	{
		capacity = capacity == 0 ? FIRST_CAPACITY : 2 * capacity;
		status = slots_copy(kt, capacity, &slots);
		if (status != TDE_KEYTABLE_OK)
			goto out;
		slots_replace(kt, slots, capacity);
	}
	if (!found)
	{
		memmove(&kt->slots[at + 1], &kt->slots[at], (kt->count - at) * sizeof(slot));
		kt->count++;
	}
	memcpy(&kt->slots[at], &slot, sizeof(slot));

out:
	OPENSSL_cleanse(&slot, sizeof(slot));
	return status;
}

enum tde_keytable_status
tde_keytable_remove(tde_keytable *kt, enum tde_key_kind kind, uint32_t oid)
{
	bool		found;
	size_t		at;

	if (kt->state == STATE_LOCKED)
		return TDE_KEYTABLE_ECLOSED;
	at = find(kt, kind, oid, &found);
	if (!found)
		return TDE_KEYTABLE_ENOENT;
	kt->count--;
	memmove(&kt->slots[at], &kt->slots[at + 1], (kt->count - at) * sizeof(*kt->slots));
	OPENSSL_cleanse(&kt->slots[kt->count], sizeof(*kt->slots));
	return TDE_KEYTABLE_OK;
}

const uint8_t *
tde_keytable_key(const tde_keytable *kt, size_t index, size_t *ret_len)
{
	if (kt->state != STATE_OPEN || index >= kt->count)
		return NULL;
	*ret_len = keytable_key_len(&kt->slots[index].entry);
	return kt->slots[index].key;
}

enum tde_keytable_status
tde_keytable_set_keystore(tde_keytable *kt, uint64_t keystore_generation, const void *ring,
						  size_t ring_len)
{
	uint8_t    *copy = NULL;

	/* A locked table has to stay as it was parsed, or its MAC could not be checked any more. */
	if (kt->state == STATE_LOCKED)
		return TDE_KEYTABLE_ECLOSED;
	if (ring_len > TDE_KEYTABLE_MAX_RING)
		return TDE_KEYTABLE_EFULL;
	if (ring_len > 0)
	{
		copy = malloc(ring_len);
		if (copy == NULL)
			return TDE_KEYTABLE_ENOMEM;
		memcpy(copy, ring, ring_len);
	}
	free(kt->ring);
	kt->ring = copy;
	kt->ring_len = ring_len;
	kt->keystore_generation = keystore_generation;
	return TDE_KEYTABLE_OK;
}

enum tde_keytable_status
tde_keytable_serialize(tde_keytable *kt, uint8_t **ret_buf, size_t *ret_len)
{
	enum tde_keytable_status status;

	if (kt->state != STATE_OPEN)
		return TDE_KEYTABLE_ECLOSED;
	if (kt->generation == UINT64_MAX)
		return TDE_KEYTABLE_EFULL;
	status = make_file(kt, kt->generation + 1, ret_buf, ret_len);
	if (status == TDE_KEYTABLE_OK)
		kt->generation++;
	return status;
}

const char *
tde_keytable_status_text(enum tde_keytable_status status)
{
	switch (status)
	{
		case TDE_KEYTABLE_OK:
			return "is intact";
		case TDE_KEYTABLE_ENOMEM:
			return "could not be processed: out of memory";
		case TDE_KEYTABLE_EFORMAT:
			return "is not a key table";
		case TDE_KEYTABLE_EVERSION:
			return "has a format version that is not supported";
		case TDE_KEYTABLE_EDAMAGED:
			return "is damaged";
		case TDE_KEYTABLE_ECRYPTO:
			return "could not be processed: encryption or decryption failed";
		case TDE_KEYTABLE_EFULL:
			return "is full";
		case TDE_KEYTABLE_ENOENT:
			return "has no such entry";
		case TDE_KEYTABLE_ECLOSED:
			return "has not been opened with its master key";
		case TDE_KEYTABLE_EINVAL:
			return "cannot hold a key of that kind";
	}
	return "could not be processed: unknown status";
}
