/*
 * merge.c
 *		Two histories become one: from another copy of the keystore, or from a ring.
 *
 * A key once met is never dropped, and one that was destroyed never comes back.  A key's number says
 * what data is wrapped under it, so numbers are kept wherever two histories agree.  Where two
 * histories gave the same number to different keys (both servers of a broken pair made one), the
 * side that rules keeps it and the other side's key gets the next free number.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "ksi.h"

/* ---- comparing ------------------------------------------------------------------------ */

/*
 * The same key?  What tells it from others outlives its bytes.  Only of one that a file of version 1
 * destroyed it is gone; then number and time decide.
 */
static bool
same_key(const struct ksi_key *a, const struct ksi_key *b)
{
	static const uint8_t unknown[KSI_IDENTITY_LEN];

	if (memcmp(a->identity, unknown, KSI_IDENTITY_LEN) == 0 ||
		memcmp(b->identity, unknown, KSI_IDENTITY_LEN) == 0)
		return a->id == b->id && a->created == b->created;
	return memcmp(a->identity, b->identity, KSI_IDENTITY_LEN) == 0;
}

static struct ksi_key *
find_same(const struct ksi_key *keys, size_t count, const struct ksi_key *key)
{
	for (size_t i = 0; i < count; i++)
	{
		if (same_key(&keys[i], key))
			return (struct ksi_key *) (uintptr_t) &keys[i];
	}
	return NULL;
}

/* Does what theirs says about a key go beyond what ours says?  Destroyed beats all. */
static bool
is_worse(const struct ksi_key *theirs, const struct ksi_key *ours)
{
	if (ours->state == KEYSTORE_KEY_DESTROYED)
		return false;
	return theirs->state == KEYSTORE_KEY_DESTROYED ||
		(theirs->state == KEYSTORE_KEY_COMPROMISED && ours->state == KEYSTORE_KEY_RETIRED);
}

/* How many keys theirs has that ours lacks, or knows something worse about. */
size_t
ksi_count_changes(const struct ksi_history *ours, const struct ksi_history *theirs)
{
	size_t		changes = 0;

	for (size_t i = 0; i < theirs->key_count; i++)
	{
		const struct ksi_key *key = &ksi_keys(theirs)[i];
		const struct ksi_key *own = find_same(ksi_keys(ours), ours->key_count, key);

		if (own == NULL || is_worse(key, own))
			changes++;
	}
	return changes;
}

/* ---- uniting --------------------------------------------------------------------------- */

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

/* Insert what only other has.  First what has a free number, so that no new number takes one of theirs. */
static enum keystore_status
insert_missing(keystore *ks, struct ksi_history *history, size_t count,
			   const struct ksi_history *other)
{
	struct ksi_key *keys = ksi_keys(history);

	for (int renumber = 0; renumber <= 1; renumber++)
	{
		for (size_t i = 0; i < other->key_count; i++)
		{
			const struct ksi_key *key = &ksi_keys(other)[i];
			bool		taken = false;

			if (find_same(keys, count, key) != NULL)
				continue;
			for (size_t j = 0; j < count; j++)
				taken = taken || keys[j].id == key->id;
			if (taken && renumber == 0)
				continue;
			if (!insert_key(keys, count, key))
				return ksi_fail(ks, KEYSTORE_ELIMIT, "keystore \"%s\" has no key number left",
								ks->where);
			count++;
		}
	}
	return KEYSTORE_OK;
}

/* What other knows to be destroyed or compromised is so; but nothing takes the active key. */
static enum keystore_status
mark_worse(keystore *ks, struct ksi_history *history, const struct ksi_history *other)
{
	for (size_t i = 0; i < other->key_count; i++)
	{
		const struct ksi_key *theirs = &ksi_keys(other)[i];
		struct ksi_key *key = find_same(ksi_keys(history), history->key_count, theirs);

		if (key == NULL || !is_worse(theirs, key))
			continue;
		if (key->state == KEYSTORE_KEY_ACTIVE)
		{
			(void) ksi_fail(ks, KEYSTORE_ECONFLICT,
							"master encryption key %u is active in one copy of keystore \"%s\" and destroyed in another",
							key->id, ks->where);
			return ksi_hint(ks, KEYSTORE_ECONFLICT,
							"Decide which of the two is right, and copy its keystore to the other server.");
		}
		if (theirs->state == KEYSTORE_KEY_DESTROYED)
			ksi_key_destroy(key, theirs->destroyed);
		else
		{
			key->state = theirs->state;
			key->compromised = theirs->compromised;
		}
	}
	return KEYSTORE_OK;
}

/* The former KSKs of both, without those that both have; the oldest go if there are too many. */
static void
unite_formers(struct ksi_history *history, const struct ksi_history *ruling,
			  const struct ksi_history *other)
{
	struct ksi_former *formers = ksi_formers(history);
	size_t		count = 0;

	for (int side = 0; side <= 1; side++)
	{
		const struct ksi_history *from = side == 0 ? other : ruling;

		for (size_t i = 0; i < from->former_count; i++)
		{
			const struct ksi_former *former = &ksi_formers(from)[i];
			bool		known = false;

			for (size_t j = 0; side == 0 && j < ruling->former_count; j++)
				known = known || ksi_equal(ksi_formers(ruling)[j].key, former->key, KEYSTORE_KEY_LEN);
			if (!known)
				formers[count++] = *former;
		}
	}
	while (count > KSI_MAX_FORMER)
		memmove(formers, formers + 1, --count * sizeof(*formers));
	history->former_count = count;
}

/*
 * All of ruling, and what only the other side has, as retired; the times that the other side noted
 * stay.  retired is the moment a key stops being active here.
 */
enum keystore_status
ksi_unite(keystore *ks, const struct ksi_history *ruling, const struct ksi_history *other,
		  int64_t retired, struct ksi_history *ret_history)
{
	enum keystore_status status;
	struct ksi_history history = {0};
	size_t		missing = 0;

	for (size_t i = 0; i < other->key_count; i++)
		missing += find_same(ksi_keys(ruling), ruling->key_count, &ksi_keys(other)[i]) == NULL;
	status = ksi_history_alloc(ks, &history, ruling->key_count + missing,
							   ruling->former_count + other->former_count);
	if (status != KEYSTORE_OK)
		return status;
	memcpy(history.keys.ptr, ruling->keys.ptr, ruling->keys.len);
	status = insert_missing(ks, &history, ruling->key_count, other);

	/* Exactly one key stays active: the ruling side's. */
	for (size_t i = 0; status == KEYSTORE_OK && i < history.key_count; i++)
	{
		struct ksi_key *key = &ksi_keys(&history)[i];

		if (key->state == KEYSTORE_KEY_ACTIVE &&
			find_same(ksi_keys(ruling), ruling->key_count, key) == NULL)
		{
			key->state = KEYSTORE_KEY_RETIRED;
			key->retired = retired;
		}
	}
	if (status == KEYSTORE_OK)
		status = mark_worse(ks, &history, other);
	if (status == KEYSTORE_OK)
	{
		unite_formers(&history, ruling, other);
		ksi_history_move(ret_history, &history);
	}
	ksi_history_free(&history);
	return status;
}

/* ---- another copy ------------------------------------------------------------------------ */

/* Is the key the handle's KSK, or was it? */
bool
ksi_has_ksk(const keystore *ks, const uint8_t *ksk)
{
	if (ksi_equal(ks->ksk.ptr, ksk, KEYSTORE_KEY_LEN))
		return true;
	for (size_t i = 0; i < ks->history.former_count; i++)
	{
		if (ksi_equal(ksi_formers(&ks->history)[i].key, ksk, KEYSTORE_KEY_LEN))
			return true;
	}
	return false;
}

enum keystore_status
keystore_merge(keystore *ks, keystore *other, size_t *ret_added)
{
	enum keystore_status status = ksi_need_open(ks);
	struct ksi_history history = {0};
	const struct ksi_header *newer;
	size_t		added;

	if (status != KEYSTORE_OK)
		return status;
	if (!other->loaded || !keystore_is_open(other))
		return ksi_fail(ks, KEYSTORE_EINVAL, "the other keystore is not open");
	if (memcmp(ks->header.uuid, other->header.uuid, KEYSTORE_UUID_LEN) != 0)
		return ksi_fail(ks, KEYSTORE_ECONFLICT,
						"keystores \"%s\" and \"%s\" are not copies of the same keystore",
						ks->where, other->where);
	if (!ksi_has_ksk(ks, other->ksk.ptr))
		return ksi_fail(ks, KEYSTORE_EWRONGKEY, "keystores \"%s\" and \"%s\" have different keys",
						ks->where, other->where);

	newer = other->header.generation > ks->header.generation ? &other->header : &ks->header;
	added = ksi_count_changes(&ks->history, &other->history);
	/* Nothing to take: the bytes stay those that were loaded. */
	if (added == 0 && newer == &ks->header)
		goto out;
	status = ksi_unite(ks, &ks->history, &other->history, other->header.changed, &history);
	if (status == KEYSTORE_OK)
		status = ksi_commit_keys(ks, &history, newer->generation, newer->changed);

out:
	ksi_history_free(&history);
	if (status == KEYSTORE_OK)
		*ret_added = added;
	return status;
}

/* ---- the ring -------------------------------------------------------------------------- */

static void
locate_ring(const struct ksi_ring_header *ring, const uint8_t *uuid, uint8_t *buf,
			struct ksi_sealed *sealed)
{
	sealed->version = ring->version;
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
	if (ksi_identity(ks->ksk.ptr, ring.uuid, KSI_INFO_KSK_IDENTITY,
					 ring.ksk_identity) != KSI_CRYPTO_OK)
		return ksi_fail(ks, KEYSTORE_ECRYPTO, "encryption of the keystore failed: %s",
						ksi_crypto_reason());
	if (ring.generation < ks->seen_generation)
		ring.generation = ks->seen_generation;
	ksi_format_ring_layout(&ks->history, &ring);
	buf = malloc(ring.ring_len);
	if (buf == NULL)
		return ksi_nomem(ks);
	ksi_format_put_ring(&ring, buf);
	locate_ring(&ring, ring.uuid, buf, &sealed);
	status = ksi_body_seal(ks, &sealed, ks->ksk.ptr, &ks->history);
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
 * rules, unless what is active there has been destroyed here since.  The keystore's generation
 * stays: raising it here would make changes that are still on their way in WAL look old.  The
 * ring's is remembered, and the next change goes above it.
 */
static enum keystore_status
take_ring(keystore *ks, const struct ksi_history *ring, uint64_t generation, size_t *ret_added)
{
	enum keystore_status status = KEYSTORE_OK;
	struct ksi_history history = {0};
	bool		rules = true;
	size_t		added = ksi_count_changes(&ks->history, ring);

	for (size_t i = 0; i < ring->key_count; i++)
	{
		const struct ksi_key *key = &ksi_keys(ring)[i];
		const struct ksi_key *own = find_same(ksi_keys(&ks->history), ks->history.key_count, key);

		if (key->state == KEYSTORE_KEY_ACTIVE && own != NULL &&
			own->state == KEYSTORE_KEY_DESTROYED)
			rules = false;
	}
	if (added > 0)
	{
		status = ksi_unite(ks, rules ? ring : &ks->history, rules ? &ks->history : ring,
						   ks->header.changed, &history);
		if (status == KEYSTORE_OK)
			status = ksi_commit_keys(ks, &history, ks->header.generation, ks->header.changed);
	}
	if (status == KEYSTORE_OK)
	{
		if (ks->seen_generation < generation)
			ks->seen_generation = generation;
		*ret_added = added;
	}
	ksi_history_free(&history);
	return status;
}

/* The ring may be older than a rekey, so what was the KSK before is tried too. */
static enum keystore_status
open_ring(keystore *ks, const struct ksi_ring_header *ring, const struct ksi_sealed *sealed,
		  struct ksi_history *ret_history)
{
	enum keystore_status status;
	const char *reason = NULL;

	status = ksi_body_open(ks, sealed, ks->ksk.ptr, ret_history, &reason);
	for (size_t i = ks->history.former_count;
		 status == KEYSTORE_EDAMAGED && reason == NULL && i > 0; i--)
		status = ksi_body_open(ks, sealed, ksi_formers(&ks->history)[i - 1].key, ret_history,
							   &reason);
	if (status != KEYSTORE_EDAMAGED)
		return status;
	if (reason == NULL && ring->version != KSI_FORMAT_V1 &&
		memcmp(ring->ksk_identity, ks->header.ksk_identity, KSI_IDENTITY_LEN) != 0)
	{
		(void) ksi_fail(ks, KEYSTORE_EWRONGKEY,
						"the key ring was made after keystore \"%s\" was rekeyed elsewhere",
						ks->where);
		return ksi_hint(ks, KEYSTORE_EWRONGKEY,
						"Copy the keystore from the server that was rekeyed.");
	}
	return ksi_fail(ks, KEYSTORE_EDAMAGED, "key ring is corrupted: %s",
					reason != NULL ? reason : "its content was altered");
}

enum keystore_status
keystore_import_ring(keystore *ks, const void *buf, size_t len, size_t *ret_added)
{
	enum keystore_status status = ksi_need_open(ks);
	struct ksi_ring_header ring;
	struct ksi_sealed sealed;
	struct ksi_history history = {0};
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
	status = open_ring(ks, &ring, &sealed, &history);
	if (status == KEYSTORE_OK)
		status = take_ring(ks, &history, ring.generation, ret_added);
	ksi_history_free(&history);
	free(copy);
	return status;
}

enum keystore_status
keystore_ring_info(keystore *ks, const void *buf, size_t len, uint8_t ret_uuid[KEYSTORE_UUID_LEN],
				   uint64_t *ret_generation)
{
	enum keystore_status status;
	struct ksi_ring_header ring;

	ksi_clear_error(ks);
	status = ksi_format_get_ring(ks, buf, len, &ring);
	if (status != KEYSTORE_OK)
		return status;
	memcpy(ret_uuid, ring.uuid, KEYSTORE_UUID_LEN);
	*ret_generation = ring.generation;
	return KEYSTORE_OK;
}
