/*
 * keys.c
 *		The history of master keys: asked, grown, merged, carried as a ring.
 *
 * A key once met is never dropped.  Its number says what data is wrapped under it,
 * so numbers are kept wherever two histories agree.  Where two histories gave
 * the same number to different keys (both servers of a broken pair made one), the
 * side that rules keeps it and the other side's key gets the next free number.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ksi.h"

/* ---- what is in it --------------------------------------------------------------- */

size_t
keystore_key_count(const keystore *ks)
{
	return ks->key_count;
}

enum keystore_status
keystore_get_key_info(keystore *ks, size_t index, struct keystore_key_info *ret_info)
{
	enum keystore_status status = ksi_need_open(ks);
	const struct ksi_key *key;

	if (status != KEYSTORE_OK)
		return status;
	if (index >= ks->key_count)
		return ksi_fail(ks, KEYSTORE_ENOKEY, "keystore \"%s\" has only %zu master encryption keys",
						ks->where, ks->key_count);
	key = &ksi_keys(&ks->keys)[index];
	memset(ret_info, 0, sizeof(*ret_info));
	ret_info->id = key->id;
	ret_info->state = (enum keystore_key_state) key->state;
	ret_info->created = key->created;
	ret_info->activated = key->activated;
	ret_info->retired = key->retired;
	memcpy(ret_info->origin, key->origin, sizeof(ret_info->origin));
	return KEYSTORE_OK;
}

uint32_t
keystore_active_key(const keystore *ks)
{
	for (size_t i = 0; i < ks->key_count; i++)
	{
		if (ksi_keys(&ks->keys)[i].state == KEYSTORE_KEY_ACTIVE)
			return ksi_keys(&ks->keys)[i].id;
	}
	return 0;
}

enum keystore_status
keystore_get_master_key(keystore *ks, uint32_t id, uint8_t ret_key[KEYSTORE_KEY_LEN])
{
	enum keystore_status status = ksi_need_open(ks);

	if (status != KEYSTORE_OK)
		return status;
	for (size_t i = 0; i < ks->key_count; i++)
	{
		const struct ksi_key *key = &ksi_keys(&ks->keys)[i];

		if (key->id == id && key->state != KEYSTORE_KEY_DESTROYED)
		{
			memcpy(ret_key, key->key, KEYSTORE_KEY_LEN);
			return KEYSTORE_OK;
		}
	}
	(void) ksi_fail(ks, KEYSTORE_ENOKEY,
					"could not open keystore \"%s\": necessary master encryption key does not exist in the keystore",
					ks->where);
	return ksi_hint(ks, KEYSTORE_ENOKEY,
					"The keystore is older than the data.  Copy the keystore from a server that has key %u.",
					id);
}

/* ---- a new key --------------------------------------------------------------------- */

/* A random key, active as of now. */
enum keystore_status
ksi_key_make(keystore *ks, uint32_t id, const char *origin, struct ksi_key *ret_key)
{
	size_t		len = origin != NULL ? strlen(origin) : 0;

	if (len >= KSI_TEXT_LEN)
		return ksi_fail(ks, KEYSTORE_EINVAL, "origin of a master encryption key is too long");
	for (size_t i = 0; i < len; i++)
	{
		/* The format refuses what it could not read back. */
		if ((unsigned char) origin[i] < 0x20 || origin[i] == 0x7f)
			return ksi_fail(ks, KEYSTORE_EINVAL,
							"origin of a master encryption key holds a control character");
	}
	memset(ret_key, 0, sizeof(*ret_key));
	if (!ksi_random(ret_key->key, KEYSTORE_KEY_LEN))
		return ksi_fail(ks, KEYSTORE_ECRYPTO, "could not generate a random key: %s",
						ksi_crypto_reason());
	ret_key->id = id;
	ret_key->state = KEYSTORE_KEY_ACTIVE;
	ret_key->created = ret_key->activated = (int64_t) time(NULL);
	if (len > 0)
		memcpy(ret_key->origin, origin, len);
	return KEYSTORE_OK;
}

/* Commit a new history under the given generation. */
static enum keystore_status
commit_keys(keystore *ks, struct ksi_secret *keys, size_t count, uint64_t generation,
			int64_t changed)
{
	enum keystore_status status;
	struct ksi_header *header = malloc(sizeof(*header));

	if (header == NULL)
		return ksi_nomem(ks);
	*header = ks->header;
	header->generation = generation;
	header->changed = changed;
	status = ksi_commit(ks, header, keys, count);
	free(header);
	return status;
}

enum keystore_status
keystore_add_master_key(keystore *ks, const char *origin, uint32_t *ret_id)
{
	enum keystore_status status = ksi_need_open(ks);
	struct ksi_secret keys = {0};
	struct ksi_key *made;
	uint64_t	generation = 0;

	if (status != KEYSTORE_OK)
		return status;
	status = ksi_alloc_secret(ks, &keys, (ks->key_count + 1) * sizeof(struct ksi_key));
	if (status != KEYSTORE_OK)
		goto out;
	memcpy(keys.ptr, ks->keys.ptr, ks->keys.len);
	made = &ksi_keys(&keys)[ks->key_count];

	/* Destroyed keys leave their records, so the last number is the highest ever given. */
	if (made[-1].id == UINT32_MAX)
	{
		status = ksi_fail(ks, KEYSTORE_ELIMIT, "keystore \"%s\" has no key number left",
						  ks->where);
		goto out;
	}
	status = ksi_key_make(ks, made[-1].id + 1, origin, made);
	if (status != KEYSTORE_OK)
		goto out;
	for (struct ksi_key *key = ksi_keys(&keys); key < made; key++)
	{
		if (key->state == KEYSTORE_KEY_ACTIVE)
		{
			key->state = KEYSTORE_KEY_RETIRED;
			key->retired = made->activated;
		}
	}
	status = ksi_next_generation(ks, &generation);
	if (status != KEYSTORE_OK)
		goto out;
	status = commit_keys(ks, &keys, ks->key_count + 1, generation, made->created);
	if (status == KEYSTORE_OK)
		*ret_id = keystore_active_key(ks);

out:
	ksi_secret_free(&keys);
	return status;
}

/* ---- merging ------------------------------------------------------------------------ */

/* The same key?  Bytes decide; of a destroyed one they are gone, so number and time do. */
static bool
same_key(const struct ksi_key *a, const struct ksi_key *b)
{
	if (a->state == KEYSTORE_KEY_DESTROYED || b->state == KEYSTORE_KEY_DESTROYED)
		return a->id == b->id && a->created == b->created;
	return ksi_equal(a->key, b->key, KEYSTORE_KEY_LEN);
}

static bool
has_key(const struct ksi_key *keys, size_t count, const struct ksi_key *key)
{
	for (size_t i = 0; i < count; i++)
	{
		if (same_key(&keys[i], key))
			return true;
	}
	return false;
}

static size_t
count_missing(const struct ksi_key *from, size_t from_count, const struct ksi_key *in,
			  size_t in_count)
{
	size_t		missing = 0;

	for (size_t i = 0; i < from_count; i++)
	{
		if (!has_key(in, in_count, &from[i]))
			missing++;
	}
	return missing;
}

/* Put a key where its number belongs, or, if that is taken, at the end under a new one. */
static bool
insert_key(struct ksi_key *keys, size_t count, const struct ksi_key *key)
{
	size_t		pos = 0;

	while (pos < count && keys[pos].id < key->id)
		pos++;
	if (pos < count && keys[pos].id == key->id)
	{
		if (keys[count - 1].id == UINT32_MAX)
			return false;
		keys[count] = *key;
		keys[count].id = keys[count - 1].id + 1;
		return true;
	}
	memmove(&keys[pos + 1], &keys[pos], (count - pos) * sizeof(*keys));
	keys[pos] = *key;
	return true;
}

/*
 * All of ruling, and what only the other side has, as retired; the times that the
 * other side noted stay.  retired is the moment a key stops being active here.
 */
static enum keystore_status
unite(keystore *ks, const struct ksi_key *ruling, size_t ruling_count,
	  const struct ksi_key *other, size_t other_count, int64_t retired,
	  struct ksi_secret *ret_keys, size_t *ret_count)
{
	enum keystore_status status;
	struct ksi_secret keys = {0};
	size_t		count = ruling_count;
	size_t		total = ruling_count + count_missing(other, other_count, ruling, ruling_count);

	status = ksi_alloc_secret(ks, &keys, total * sizeof(struct ksi_key));
	if (status != KEYSTORE_OK)
		goto out;
	memcpy(keys.ptr, ruling, ruling_count * sizeof(struct ksi_key));

	/* First those whose number is free, so that no new number takes one of theirs. */
	for (int renumber = 0; renumber <= 1; renumber++)
	{
		for (size_t i = 0; i < other_count; i++)
		{
			bool		taken = false;

			if (has_key(ksi_keys(&keys), count, &other[i]))
				continue;
			for (size_t j = 0; j < count; j++)
				taken = taken || ksi_keys(&keys)[j].id == other[i].id;
			if (taken && renumber == 0)
				continue;
			if (!insert_key(ksi_keys(&keys), count, &other[i]))
			{
				status = ksi_fail(ks, KEYSTORE_ELIMIT, "keystore \"%s\" has no key number left",
								  ks->where);
				goto out;
			}
			count++;
		}
	}

	/* Exactly one key stays active: the ruling side's. */
	for (size_t i = 0; i < count; i++)
	{
		struct ksi_key *key = &ksi_keys(&keys)[i];

		if (key->state == KEYSTORE_KEY_ACTIVE && !has_key(ruling, ruling_count, key))
		{
			key->state = KEYSTORE_KEY_RETIRED;
			key->retired = retired;
		}
	}
	ksi_secret_move(ret_keys, &keys);
	*ret_count = count;

out:
	ksi_secret_free(&keys);
	return status;
}

enum keystore_status
keystore_merge(keystore *ks, keystore *other, size_t *ret_added)
{
	enum keystore_status status = ksi_need_open(ks);
	struct ksi_secret keys = {0};
	const struct ksi_header *newer;
	size_t		count = 0;
	size_t		added;

	if (status != KEYSTORE_OK)
		return status;
	if (!other->loaded || !keystore_is_open(other))
		return ksi_fail(ks, KEYSTORE_EINVAL, "the other keystore is not open");
	if (memcmp(ks->header.uuid, other->header.uuid, KEYSTORE_UUID_LEN) != 0)
		return ksi_fail(ks, KEYSTORE_ECONFLICT,
						"keystores \"%s\" and \"%s\" are not copies of the same keystore",
						ks->where, other->where);
	if (!ksi_equal(ks->ksk.ptr, other->ksk.ptr, KEYSTORE_KEY_LEN))
		return ksi_fail(ks, KEYSTORE_EWRONGKEY, "keystores \"%s\" and \"%s\" have different keys",
						ks->where, other->where);

	newer = other->header.generation > ks->header.generation ? &other->header : &ks->header;
	added = count_missing(ksi_keys(&other->keys), other->key_count, ksi_keys(&ks->keys),
						  ks->key_count);
	/* Nothing to take: the bytes stay those that were loaded. */
	if (added == 0 && newer == &ks->header)
		goto out;
	status = unite(ks, ksi_keys(&ks->keys), ks->key_count, ksi_keys(&other->keys),
				   other->key_count, other->header.changed, &keys, &count);
	if (status != KEYSTORE_OK)
		goto out;
	status = commit_keys(ks, &keys, count, newer->generation, newer->changed);

out:
	ksi_secret_free(&keys);
	if (status == KEYSTORE_OK)
		*ret_added = added;
	return status;
}

/* ---- the ring -------------------------------------------------------------------------- */

static void
locate_ring(const struct ksi_ring_header *ring, const uint8_t *uuid, uint8_t *buf,
			struct ksi_sealed *sealed)
{
	sealed->uuid = uuid;
	sealed->info = KSI_INFO_RING;
	sealed->aad = buf;
	sealed->aad_len = ring->iv_off;
	sealed->iv = buf + ring->iv_off;
	sealed->body = buf + ring->body_off;
	sealed->body_len = ring->body_len;
	sealed->tag = buf + ring->tag_off;
}

enum keystore_status
keystore_export_ring(keystore *ks, uint8_t **ret_buf, size_t *ret_len)
{
	enum keystore_status status = ksi_need_open(ks);
	struct ksi_ring_header ring = {.generation = ks->header.generation};
	struct ksi_sealed sealed;
	uint8_t    *buf;

	if (status != KEYSTORE_OK)
		return status;
	memcpy(ring.uuid, ks->header.uuid, KEYSTORE_UUID_LEN);
	if (ring.generation < ks->seen_generation)
		ring.generation = ks->seen_generation;
	ksi_format_ring_layout(ks->key_count, &ring);
	buf = malloc(ring.ring_len);
	if (buf == NULL)
		return ksi_nomem(ks);
	ksi_format_put_ring(&ring, buf);
	locate_ring(&ring, ring.uuid, buf, &sealed);
	status = ksi_body_seal(ks, &sealed, ksi_keys(&ks->keys), ks->key_count);
	if (status != KEYSTORE_OK)
	{
		free(buf);
		return status;
	}
	*ret_buf = buf;
	*ret_len = ring.ring_len;
	return KEYSTORE_OK;
}

/*
 * The data was written under the ring's numbers and its active key, so the ring
 * rules.  The keystore's generation stays: raising it here would make changes that
 * are still on their way in WAL look old.  The ring's is remembered, and the next
 * change goes above it.
 */
static enum keystore_status
take_ring(keystore *ks, const struct ksi_key *ring, size_t ring_count, uint64_t generation,
		  size_t *ret_added)
{
	enum keystore_status status = KEYSTORE_OK;
	struct ksi_secret keys = {0};
	size_t		count = 0;
	size_t		added = count_missing(ring, ring_count, ksi_keys(&ks->keys), ks->key_count);

	if (added > 0)
	{
		status = unite(ks, ring, ring_count, ksi_keys(&ks->keys), ks->key_count,
					   ks->header.changed, &keys, &count);
		if (status == KEYSTORE_OK)
			status = commit_keys(ks, &keys, count, ks->header.generation, ks->header.changed);
	}
	if (status == KEYSTORE_OK)
	{
		if (ks->seen_generation < generation)
			ks->seen_generation = generation;
		*ret_added = added;
	}
	ksi_secret_free(&keys);
	return status;
}

enum keystore_status
keystore_import_ring(keystore *ks, const void *buf, size_t len, size_t *ret_added)
{
	enum keystore_status status = ksi_need_open(ks);
	struct ksi_ring_header ring;
	struct ksi_sealed sealed;
	struct ksi_secret keys = {0};
	size_t		count = 0;
	const char *reason;
	uint8_t    *copy = NULL;

	if (status != KEYSTORE_OK)
		return status;
	status = ksi_format_get_ring(ks, buf, len, &ring);
	if (status != KEYSTORE_OK)
		return status;
	if (memcmp(ring.uuid, ks->header.uuid, KEYSTORE_UUID_LEN) != 0)
		return ksi_fail(ks, KEYSTORE_ECONFLICT,
						"the key ring does not belong to keystore \"%s\"", ks->where);

	copy = malloc(len);
	if (copy == NULL)
		return ksi_nomem(ks);
	memcpy(copy, buf, len);
	locate_ring(&ring, ring.uuid, copy, &sealed);
	status = ksi_body_open(ks, &sealed, ks->ksk.ptr, &keys, &count, &reason);
	if (status == KEYSTORE_EDAMAGED)
		(void) ksi_fail(ks, status, "key ring is corrupted: %s",
						reason != NULL ? reason : "its content was altered");
	if (status == KEYSTORE_OK)
		status = take_ring(ks, ksi_keys(&keys), count, ring.generation, ret_added);
	ksi_secret_free(&keys);
	free(copy);
	return status;
}
