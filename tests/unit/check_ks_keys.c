/*
 * check_ks_keys.c
 *		The history of master keys: growing, merging two histories, the ring.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "ks_common.h"

static uint32_t
add(keystore *ks, const char *origin)
{
	uint32_t	id = 0;

	assert_ok(ks, keystore_add_master_key(ks, origin, &id));
	return id;
}

/* A second handle on the same keystore, open. */
static keystore *
copy_of(keystore *ks)
{
	keystore   *copy = keystore_new();
	uint8_t    *buf;
	size_t		len;
	uint8_t		ksk[KEYSTORE_KEY_LEN];

	ck_assert_ptr_nonnull(copy);
	assert_ok(ks, keystore_serialize(ks, &buf, &len));
	assert_ok(copy, keystore_load_bytes(copy, buf, len, "copy"));
	assert_ok(ks, keystore_get_ksk(ks, ksk));
	assert_ok(copy, keystore_open_ksk(copy, ksk));
	free(buf);
	return copy;
}

static void
assert_same_bytes(keystore *ks, const uint8_t *want, size_t want_len)
{
	uint8_t    *buf;
	size_t		len;

	assert_ok(ks, keystore_serialize(ks, &buf, &len));
	ck_assert_uint_eq(len, want_len);
	ck_assert_mem_eq(buf, want, len);
	free(buf);
}

/* What is in the handle is also what its bytes say. */
static void
assert_consistent(keystore *ks)
{
	keystore   *copy = copy_of(ks);

	ck_assert_uint_eq(keystore_key_count(ks), keystore_key_count(copy));
	ck_assert_mem_eq(ks->history.keys.ptr, copy->history.keys.ptr, ks->history.keys.len);
	ck_assert_uint_eq(keystore_get_generation(ks), keystore_get_generation(copy));
	keystore_free(&copy);
}

/* Which id, if any, holds these bytes? */
static uint32_t
find(keystore *ks, const uint8_t key[KEYSTORE_KEY_LEN])
{
	for (size_t i = 0; i < keystore_key_count(ks); i++)
	{
		struct keystore_key_info info;
		uint8_t		mine[KEYSTORE_KEY_LEN];

		assert_ok(ks, keystore_get_key_info(ks, i, &info));
		if (info.state == KEYSTORE_KEY_DESTROYED)
			continue;
		assert_ok(ks, keystore_get_master_key(ks, info.id, mine));
		if (memcmp(mine, key, KEYSTORE_KEY_LEN) == 0)
			return info.id;
	}
	return 0;
}

START_TEST(test_add)
{
	keystore   *ks = ks_make();
	struct keystore_key_info info;
	uint8_t		first[KEYSTORE_KEY_LEN];
	uint8_t		again[KEYSTORE_KEY_LEN];

	assert_ok(ks, keystore_get_master_key(ks, 1, first));
	for (uint32_t want = 2; want <= 20; want++)
	{
		ck_assert_uint_eq(add(ks, "rotation"), want);
		ck_assert_uint_eq(keystore_active_key(ks), want);
		ck_assert_uint_eq(keystore_get_generation(ks), want);
	}
	ck_assert_uint_eq(keystore_key_count(ks), 20);
	for (size_t i = 0; i < 20; i++)
	{
		assert_ok(ks, keystore_get_key_info(ks, i, &info));
		ck_assert_uint_eq(info.id, i + 1);
		ck_assert_int_eq(info.state, i == 19 ? KEYSTORE_KEY_ACTIVE : KEYSTORE_KEY_RETIRED);
		ck_assert((info.retired == 0) == (i == 19));
	}
	assert_ok(ks, keystore_get_master_key(ks, 1, again));
	ck_assert_mem_eq(first, again, sizeof(first));
	assert_consistent(ks);
	assert_fails(ks, keystore_get_master_key(ks, 21, again), KEYSTORE_ENOKEY,
				 "could not open keystore \"keystore.ks\": necessary master encryption key does not exist in the keystore");
	ck_assert_str_eq(keystore_errhint(ks),
					 "The keystore is older than the data.  Copy the keystore from a server that has key 21.");
	keystore_free(&ks);
}
END_TEST

/* Up to the limit; the file then is still smaller than what is read. */
START_TEST(test_limit)
{
	keystore   *ks = ks_make();
	struct ksi_header *header = malloc(sizeof(*header));
	struct ksi_history history = {0};
	uint8_t    *buf;
	size_t		len;
	uint32_t	id = 0;

	ck_assert_ptr_nonnull(header);
	*header = ks->header;
	assert_ok(ks, ksi_history_alloc(ks, &history, KEYSTORE_MAX_MASTER_KEYS, KSI_MAX_FORMER));
	for (uint32_t i = 0; i < KEYSTORE_MAX_MASTER_KEYS; i++)
	{
		struct ksi_key *key = &ksi_keys(&history)[i];

		key->id = i + 1;
		key->state = i + 1 < KEYSTORE_MAX_MASTER_KEYS ? KEYSTORE_KEY_RETIRED : KEYSTORE_KEY_ACTIVE;
		memcpy(key->key, &i, sizeof(i));
	}
	assert_ok(ks, ksi_commit(ks, header, &history));
	assert_fails(ks, keystore_add_master_key(ks, "one more", &id), KEYSTORE_ELIMIT,
				 "keystore \"keystore.ks\" cannot hold more than 4096 master encryption keys");
	ck_assert_uint_eq(id, 0);
	ck_assert_uint_eq(keystore_key_count(ks), KEYSTORE_MAX_MASTER_KEYS);
	assert_ok(ks, keystore_serialize(ks, &buf, &len));
	ck_assert_uint_le(len, KEYSTORE_MAX_FILE_SIZE);
	assert_consistent(ks);
	free(buf);
	free(header);
	keystore_free(&ks);
}
END_TEST

/* A standby merges what it has into what the primary logged: nothing, as a rule. */
START_TEST(test_merge_older)
{
	keystore   *standby = ks_make();
	keystore   *primary = copy_of(standby);
	size_t		added = 99;
	uint8_t    *logged;
	size_t		len;

	add(primary, "primary");
	assert_ok(primary, keystore_serialize(primary, &logged, &len));
	assert_ok(primary, keystore_merge(primary, standby, &added));
	ck_assert_uint_eq(added, 0);
	assert_same_bytes(primary, logged, len);
	ck_assert_uint_eq(keystore_get_generation(primary), 2);
	free(logged);
	keystore_free(&standby);
	keystore_free(&primary);
}
END_TEST

START_TEST(test_merge_newer)
{
	keystore   *older = ks_make();
	keystore   *newer = copy_of(older);
	uint8_t		key[KEYSTORE_KEY_LEN];
	struct keystore_key_info info;
	size_t		added = 99;

	add(newer, "newer");
	add(newer, "newer");
	assert_ok(newer, keystore_get_master_key(newer, 3, key));
	assert_ok(older, keystore_merge(older, newer, &added));
	ck_assert_uint_eq(added, 2);
	ck_assert_uint_eq(keystore_key_count(older), 3);
	ck_assert_uint_eq(keystore_active_key(older), 1);
	ck_assert_uint_eq(find(older, key), 3);
	ck_assert_uint_eq(keystore_get_generation(older), 3);
	assert_ok(older, keystore_get_key_info(older, 2, &info));
	ck_assert_int_eq(info.state, KEYSTORE_KEY_RETIRED);
	ck_assert_int_ne(info.retired, 0);
	assert_consistent(older);

	/* Once more: nothing. */
	assert_ok(older, keystore_merge(older, newer, &added));
	ck_assert_uint_eq(added, 0);
	keystore_free(&older);
	keystore_free(&newer);
}
END_TEST

/* Two servers that both made key 2: every key stays, the ruling side's numbers too. */
START_TEST(test_merge_diverged)
{
	keystore   *a = ks_make();
	keystore   *b = copy_of(a);
	uint8_t		a2[KEYSTORE_KEY_LEN],
				b2[KEYSTORE_KEY_LEN],
				b3[KEYSTORE_KEY_LEN];
	size_t		added = 99;

	add(a, "a");
	add(b, "b");
	add(b, "b");
	assert_ok(a, keystore_get_master_key(a, 2, a2));
	assert_ok(b, keystore_get_master_key(b, 2, b2));
	assert_ok(b, keystore_get_master_key(b, 3, b3));
	assert_ok(a, keystore_merge(a, b, &added));
	ck_assert_uint_eq(added, 2);
	ck_assert_uint_eq(find(a, a2), 2);
	ck_assert_uint_eq(find(a, b3), 3);	/* its number was free */
	ck_assert_uint_eq(find(a, b2), 4);	/* its was not */
	ck_assert_uint_eq(keystore_active_key(a), 2);
	ck_assert_uint_eq(keystore_get_generation(a), 3);
	assert_consistent(a);

	/* Known by its bytes, it is not taken over twice. */
	assert_ok(a, keystore_merge(a, b, &added));
	ck_assert_uint_eq(added, 0);
	ck_assert_uint_eq(keystore_key_count(a), 4);
	keystore_free(&a);
	keystore_free(&b);
}
END_TEST

START_TEST(test_merge_refused)
{
	keystore   *a = ks_make();
	keystore   *b = ks_make();
	keystore   *closed = copy_of(a);
	size_t		added = 99;

	assert_fails(a, keystore_merge(a, b, &added), KEYSTORE_ECONFLICT,
				 "keystores \"keystore.ks\" and \"keystore.ks\" are not copies of the same keystore");
	keystore_close(closed);
	assert_fails(a, keystore_merge(a, closed, &added), KEYSTORE_EINVAL,
				 "the other keystore is not open");
	assert_status(closed, keystore_merge(closed, a, &added), KEYSTORE_EINVAL);

	/* The same UUID with another KSK does not happen, but would do harm. */
	memcpy(b->header.uuid, a->header.uuid, KEYSTORE_UUID_LEN);
	assert_fails(a, keystore_merge(a, b, &added), KEYSTORE_EWRONGKEY,
				 "keystores \"keystore.ks\" and \"keystore.ks\" have different keys");
	ck_assert_uint_eq(added, 99);
	keystore_free(&a);
	keystore_free(&b);
	keystore_free(&closed);
}
END_TEST

/* An older copy of the keystore meets newer data. */
START_TEST(test_ring)
{
	keystore   *older = ks_make();
	keystore   *newer = copy_of(older);
	uint8_t    *ring;
	size_t		len;
	size_t		added = 99;
	uint8_t		key[KEYSTORE_KEY_LEN];
	uint8_t    *before;
	size_t		before_len;

	add(newer, "newer");
	add(newer, "newer");
	assert_ok(newer, keystore_get_master_key(newer, 3, key));
	assert_ok(newer, keystore_export_ring(newer, &ring, &len));
	ck_assert_uint_eq(len, 68 + 4 + 3 * 224 + 4 + 16);
	assert_ok(older, keystore_import_ring(older, ring, len, &added));
	ck_assert_uint_eq(added, 2);
	ck_assert_uint_eq(keystore_active_key(older), 3);
	ck_assert_uint_eq(find(older, key), 3);
	assert_consistent(older);

	/* The generation stays, the next change goes above the ring's. */
	ck_assert_uint_eq(keystore_get_generation(older), 1);
	ck_assert_uint_eq(add(older, "next"), 4);
	ck_assert_uint_eq(keystore_get_generation(older), 4);

	/* Nothing in it that is not known: the bytes stay. */
	assert_ok(older, keystore_serialize(older, &before, &before_len));
	assert_ok(older, keystore_import_ring(older, ring, len, &added));
	ck_assert_uint_eq(added, 0);
	ck_assert_uint_eq(keystore_active_key(older), 4);
	assert_same_bytes(older, before, before_len);
	free(before);
	free(ring);
	keystore_free(&older);
	keystore_free(&newer);
}
END_TEST

/* The data's key 2 is the ring's, not the one that the keystore calls so. */
START_TEST(test_ring_diverged)
{
	keystore   *a = ks_make();
	keystore   *b = copy_of(a);
	uint8_t		a2[KEYSTORE_KEY_LEN],
				b2[KEYSTORE_KEY_LEN];
	uint8_t    *ring;
	size_t		len;
	size_t		added = 99;

	add(a, "a");
	add(b, "b");
	assert_ok(a, keystore_get_master_key(a, 2, a2));
	assert_ok(b, keystore_get_master_key(b, 2, b2));
	assert_ok(b, keystore_export_ring(b, &ring, &len));
	assert_ok(a, keystore_import_ring(a, ring, len, &added));
	ck_assert_uint_eq(added, 1);
	ck_assert_uint_eq(keystore_key_count(a), 3);
	ck_assert_uint_eq(find(a, b2), 2);
	ck_assert_uint_eq(find(a, a2), 3);
	ck_assert_uint_eq(keystore_active_key(a), 2);
	assert_consistent(a);
	free(ring);
	keystore_free(&a);
	keystore_free(&b);
}
END_TEST

START_TEST(test_ring_damage)
{
	keystore   *ks = ks_make();
	keystore   *other = ks_make();
	uint8_t    *ring;
	size_t		len;
	size_t		added = 99;

	assert_ok(ks, keystore_export_ring(ks, &ring, &len));
	assert_fails(other, keystore_import_ring(other, ring, len, &added), KEYSTORE_ECONFLICT,
				 "the key ring does not belong to keystore \"keystore.ks\"");
	for (size_t i = 0; i < len; i++)
	{
		enum keystore_status status;

		ring[i] ^= 0x10;
		status = keystore_import_ring(ks, ring, len, &added);
		ck_assert_msg(status == KEYSTORE_EFORMAT || status == KEYSTORE_EVERSION ||
					  status == KEYSTORE_EDAMAGED || status == KEYSTORE_ECONFLICT ||
					  (i >= 40 && i < 56 && status == KEYSTORE_EWRONGKEY),	/* whose KSK */
					  "byte %zu: status %d", i, (int) status);
		ring[i] ^= 0x10;
	}
	for (size_t cut = 0; cut < len; cut++)
		assert_status(ks, keystore_import_ring(ks, ring, cut, &added), KEYSTORE_EDAMAGED);
	ring[len - 1] ^= 1;
	assert_fails(ks, keystore_import_ring(ks, ring, len, &added), KEYSTORE_EDAMAGED,
				 "key ring is corrupted: its content was altered");
	ck_assert_uint_eq(added, 99);
	ck_assert_uint_eq(keystore_key_count(ks), 1);
	free(ring);
	keystore_free(&ks);
	keystore_free(&other);
}
END_TEST

/* The ring and the file's body are sealed under different keys. */
START_TEST(test_ring_is_no_body)
{
	keystore   *ks = ks_make();
	uint8_t    *ring;
	size_t		len;
	struct ksi_ring_header parsed;
	struct ksi_sealed sealed;
	struct ksi_history history = {0};
	const char *reason;

	assert_ok(ks, keystore_export_ring(ks, &ring, &len));
	assert_ok(ks, ksi_format_get_ring(ks, ring, len, &parsed));
	sealed.version = parsed.version;
	sealed.uuid = parsed.uuid;
	sealed.aad = ring;
	sealed.aad_len = parsed.iv_off;
	sealed.iv = ring + parsed.iv_off;
	sealed.body = ring + parsed.body_off;
	sealed.body_len = parsed.body_len;
	sealed.tag = ring + parsed.tag_off;
	sealed.info = KSI_INFO_BODY;
	ck_assert_int_eq(ksi_body_open(ks, &sealed, ks->ksk.ptr, &history, &reason),
					 KEYSTORE_EDAMAGED);
	sealed.info = KSI_INFO_RING;
	ck_assert_int_eq(ksi_body_open(ks, &sealed, ks->ksk.ptr, &history, &reason),
					 KEYSTORE_OK);
	ksi_history_free(&history);
	free(ring);
	keystore_free(&ks);
}
END_TEST

/* ---- destroyed for good --------------------------------------------------------------- */

static void
assert_destroyed(keystore *ks, uint32_t id)
{
	static const uint8_t zero[KEYSTORE_KEY_LEN];
	uint8_t		key[KEYSTORE_KEY_LEN];
	struct keystore_key_info info;
	bool		found = false;

	assert_fails(ks, keystore_get_master_key(ks, id, key), KEYSTORE_ENOKEY,
				 ks_text("could not open keystore \"%s\": necessary master encryption key does not exist in the keystore",
						 ks->where));
	ck_assert_str_eq(keystore_errhint(ks),
					 ks_text("Key %u was destroyed.  Only a backup of the keystore from before that can open this data.",
							 id));
	for (size_t i = 0; i < keystore_key_count(ks); i++)
	{
		assert_ok(ks, keystore_get_key_info(ks, i, &info));
		if (info.id != id)
			continue;
		found = true;
		ck_assert_int_eq(info.state, KEYSTORE_KEY_DESTROYED);
		ck_assert_int_gt(info.destroyed, 0);
		ck_assert_mem_eq(ksi_keys(&ks->history)[i].key, zero, KEYSTORE_KEY_LEN);
	}
	ck_assert(found);
	assert_consistent(ks);
}

START_TEST(test_destroy)
{
	keystore   *ks = ks_make();
	uint64_t	generation;

	assert_fails(ks, keystore_destroy_key(ks, 1), KEYSTORE_EINVAL,
				 "master encryption key 1 of keystore \"keystore.ks\" is active and cannot be destroyed");
	assert_fails(ks, keystore_destroy_key(ks, 2), KEYSTORE_ENOKEY,
				 "keystore \"keystore.ks\" has no master encryption key 2");
	add(ks, "second");
	generation = keystore_get_generation(ks);
	assert_ok(ks, keystore_destroy_key(ks, 1));
	ck_assert_uint_eq(keystore_get_generation(ks), generation + 1);
	assert_destroyed(ks, 1);
	ck_assert_uint_eq(keystore_key_count(ks), 2);

	/* Once more changes nothing, and its number is not given again. */
	assert_ok(ks, keystore_destroy_key(ks, 1));
	ck_assert_uint_eq(keystore_get_generation(ks), generation + 1);
	ck_assert_uint_eq(add(ks, "third"), 3);
	keystore_close(ks);
	assert_fails(ks, keystore_destroy_key(ks, 2), KEYSTORE_EINVAL,
				 "keystore \"keystore.ks\" is not open");
	keystore_free(&ks);
}
END_TEST

/* Through a merge in both directions, the key stays destroyed, and is so on the other side too. */
START_TEST(test_merge_destroyed)
{
	keystore   *a = ks_make();
	keystore   *b;
	size_t		added = 99;

	add(a, "second");
	b = copy_of(a);
	assert_ok(b, keystore_destroy_key(b, 1));
	assert_ok(b, keystore_merge(b, a, &added));
	ck_assert_uint_eq(added, 0);
	assert_destroyed(b, 1);
	assert_ok(a, keystore_merge(a, b, &added));
	ck_assert_uint_eq(added, 1);
	assert_destroyed(a, 1);
	ck_assert_uint_eq(keystore_key_count(a), 2);
	keystore_free(&a);
	keystore_free(&b);
}
END_TEST

/*
 * The case that number and time cannot tell: two servers gave number 2 to different keys, one was
 * renumbered when they met and then destroyed.  The old copy, in which it is still number 2, comes by.
 */
START_TEST(test_merge_destroyed_renumbered)
{
	keystore   *a = ks_make();
	keystore   *b = copy_of(a);
	keystore   *old;
	uint8_t		key[KEYSTORE_KEY_LEN];
	size_t		added = 99;
	uint8_t    *ring;
	size_t		len;

	add(a, "a's");
	add(b, "b's");
	assert_ok(b, keystore_get_master_key(b, 2, key));
	old = copy_of(b);
	assert_ok(a, keystore_merge(a, b, &added));
	ck_assert_uint_eq(find(a, key), 3);
	assert_ok(a, keystore_destroy_key(a, 3));
	assert_ok(a, keystore_merge(a, old, &added));
	ck_assert_uint_eq(added, 0);
	ck_assert_uint_eq(find(a, key), 0);
	ck_assert_uint_eq(keystore_key_count(a), 3);

	/* The old copy's ring does not bring it back either, though the key is active there. */
	assert_ok(old, keystore_export_ring(old, &ring, &len));
	assert_ok(a, keystore_import_ring(a, ring, len, &added));
	ck_assert_uint_eq(added, 0);
	ck_assert_uint_eq(find(a, key), 0);
	ck_assert_uint_eq(keystore_active_key(a), 2);
	free(ring);

	/* Nor if the ring has another key to offer: that one is taken, and the own active key stays. */
	add(old, "later");
	assert_ok(old, keystore_get_master_key(old, 3, key));
	assert_ok(old, keystore_export_ring(old, &ring, &len));
	assert_ok(a, keystore_import_ring(a, ring, len, &added));
	ck_assert_uint_eq(added, 1);
	ck_assert_uint_ne(find(a, key), 0);
	assert_consistent(a);
	free(ring);
	keystore_free(&a);
	keystore_free(&b);
	keystore_free(&old);
}
END_TEST

/* What is destroyed here and active there cannot be both. */
START_TEST(test_merge_destroyed_active)
{
	keystore   *a = ks_make();
	keystore   *b = copy_of(a);
	size_t		added = 99;
	uint8_t    *before;
	size_t		len;

	add(b, "second");
	assert_ok(b, keystore_destroy_key(b, 1));
	assert_ok(a, keystore_serialize(a, &before, &len));
	assert_fails(a, keystore_merge(a, b, &added), KEYSTORE_ECONFLICT,
				 "master encryption key 1 is active in one copy of keystore \"keystore.ks\" and destroyed in another");
	ck_assert_uint_eq(added, 99);
	assert_same_bytes(a, before, len);
	free(before);
	keystore_free(&a);
	keystore_free(&b);
}
END_TEST

/* The tombstone is in the ring: an older copy of the keystore learns of it. */
START_TEST(test_ring_destroyed)
{
	keystore   *a = ks_make();
	keystore   *older;
	uint8_t    *ring;
	size_t		len;
	size_t		added = 99;
	uint8_t		uuid[KEYSTORE_UUID_LEN],
				own[KEYSTORE_UUID_LEN];
	uint64_t	generation = 0;

	add(a, "second");
	older = copy_of(a);
	assert_ok(a, keystore_destroy_key(a, 1));
	assert_ok(a, keystore_export_ring(a, &ring, &len));
	assert_ok(older, keystore_import_ring(older, ring, len, &added));
	ck_assert_uint_eq(added, 1);
	assert_destroyed(older, 1);

	assert_ok(older, keystore_ring_info(older, ring, len, uuid, &generation));
	keystore_get_uuid(a, own);
	ck_assert_mem_eq(uuid, own, sizeof(uuid));
	ck_assert_uint_eq(generation, keystore_get_generation(a));
	assert_fails(older, keystore_ring_info(older, "x", 1, uuid, &generation), KEYSTORE_EFORMAT,
				 "the data is not a key ring");
	free(ring);
	keystore_free(&a);
	keystore_free(&older);
}
END_TEST

START_TEST(test_compromise_and_label)
{
	keystore   *ks = ks_make();
	keystore   *other;
	struct keystore_key_info info;
	uint8_t		key[KEYSTORE_KEY_LEN];
	size_t		added = 99;

	assert_fails(ks, keystore_compromise_key(ks, 1), KEYSTORE_EINVAL,
				 "master encryption key 1 of keystore \"keystore.ks\" is active and cannot be declared compromised");
	add(ks, "second");
	other = copy_of(ks);
	assert_ok(ks, keystore_compromise_key(ks, 1));
	assert_ok(ks, keystore_get_key_info(ks, 0, &info));
	ck_assert_int_eq(info.state, KEYSTORE_KEY_COMPROMISED);
	ck_assert_int_gt(info.compromised, 0);
	ck_assert_int_eq(info.destroyed, 0);
	assert_ok(ks, keystore_get_master_key(ks, 1, key));
	assert_ok(other, keystore_merge(other, ks, &added));
	ck_assert_uint_eq(added, 1);
	assert_ok(other, keystore_get_key_info(other, 0, &info));
	ck_assert_int_eq(info.state, KEYSTORE_KEY_COMPROMISED);

	assert_ok(ks, keystore_set_key_label(ks, 2, "r\xc3\xb6tation 2026"));
	assert_ok(ks, keystore_get_key_info(ks, 1, &info));
	ck_assert_str_eq(info.label, "r\xc3\xb6tation 2026");
	assert_consistent(ks);
	assert_fails(ks, keystore_set_key_label(ks, 2, "a\nb"), KEYSTORE_EINVAL,
				 "label holds a control character");
	assert_fails(ks, keystore_set_key_label(ks, 2, "\xc3("), KEYSTORE_EINVAL,
				 "label is not valid UTF-8");
	assert_fails(ks, keystore_set_key_label(ks, 9, "x"), KEYSTORE_ENOKEY,
				 "keystore \"keystore.ks\" has no master encryption key 9");
	assert_ok(ks, keystore_set_key_label(ks, 2, NULL));
	assert_ok(ks, keystore_get_key_info(ks, 1, &info));
	ck_assert_str_eq(info.label, "");

	assert_ok(ks, keystore_destroy_key(ks, 1));
	assert_fails(ks, keystore_compromise_key(ks, 1), KEYSTORE_EINVAL,
				 "master encryption key 1 of keystore \"keystore.ks\" is destroyed");
	assert_ok(ks, keystore_get_key_info(ks, 0, &info));
	ck_assert_int_eq(info.state, KEYSTORE_KEY_DESTROYED);
	ck_assert_int_gt(info.compromised, 0);
	keystore_free(&ks);
	keystore_free(&other);
}
END_TEST

START_TEST(test_generation_end)
{
	keystore   *ks = ks_make();
	uint32_t	id = 0;

	ks->header.generation = UINT64_MAX;
	assert_fails(ks, keystore_add_master_key(ks, "x", &id), KEYSTORE_ELIMIT,
				 "keystore \"keystore.ks\" has no generation left");
	ck_assert_uint_eq(keystore_key_count(ks), 1);
	keystore_free(&ks);
}
END_TEST

/* RFC 5869 by its letter, two blocks of SHA-256 long; salt is the keystore's UUID. */
static void
expect_derived(keystore *ks, uint32_t id, const char *purpose, uint8_t ret_key[KEYSTORE_DERIVED_MAX])
{
	const char *label = "pgx key for other programs 1:";
	uint8_t		master[KEYSTORE_KEY_LEN];
	uint8_t		uuid[KEYSTORE_UUID_LEN];
	uint8_t		prk[32];
	uint8_t		block[32];
	uint8_t		input[512];
	size_t		done = 0;

	assert_ok(ks, keystore_get_master_key(ks, id, master));
	keystore_get_uuid(ks, uuid);
	ck_assert_ptr_nonnull(HMAC(EVP_sha256(), uuid, sizeof(uuid), master, sizeof(master), prk, NULL));
	for (uint8_t n = 1; done < KEYSTORE_DERIVED_MAX; n++)
	{
		size_t		len = 0;
		size_t		part = KEYSTORE_DERIVED_MAX - done < sizeof(block) ? KEYSTORE_DERIVED_MAX - done : sizeof(block);

		if (n > 1)
		{
			memcpy(input, block, sizeof(block));
			len = sizeof(block);
		}
		memcpy(input + len, label, strlen(label));
		len += strlen(label);
		memcpy(input + len, purpose, strlen(purpose));
		len += strlen(purpose);
		input[len++] = n;
		ck_assert_ptr_nonnull(HMAC(EVP_sha256(), prk, sizeof(prk), input, len, block, NULL));
		memcpy(ret_key + done, block, part);
		done += part;
	}
}

START_TEST(test_derive)
{
	keystore   *ks = ks_make();
	uint32_t	second = add(ks, "test");
	uint8_t		want[KEYSTORE_DERIVED_MAX];
	uint8_t		got[KEYSTORE_DERIVED_MAX];
	uint8_t		other[KEYSTORE_DERIVED_MAX];
	char		purpose[KEYSTORE_PURPOSE_MAX + 2];

	expect_derived(ks, 1, "dump", want);
	assert_ok(ks, keystore_derive_key(ks, 1, "dump", got, sizeof(got)));
	ck_assert_mem_eq(got, want, sizeof(got));

	/* Another purpose or master key: another key.  A shorter one is the beginning. */
	assert_ok(ks, keystore_derive_key(ks, 1, "dumps", other, sizeof(other)));
	ck_assert_mem_ne(other, want, sizeof(other));
	assert_ok(ks, keystore_derive_key(ks, second, "dump", other, sizeof(other)));
	ck_assert_mem_ne(other, want, sizeof(other));
	assert_ok(ks, keystore_derive_key(ks, 1, "dump", other, KEYSTORE_DERIVED_MIN));
	ck_assert_mem_eq(other, want, KEYSTORE_DERIVED_MIN);

	memset(purpose, 'p', sizeof(purpose) - 1);
	purpose[KEYSTORE_PURPOSE_MAX + 1] = '\0';
	assert_fails(ks, keystore_derive_key(ks, 1, purpose, got, sizeof(got)), KEYSTORE_EINVAL,
				 "the purpose of a key must have 1 to 128 bytes");
	assert_fails(ks, keystore_derive_key(ks, 1, "", got, sizeof(got)), KEYSTORE_EINVAL,
				 "the purpose of a key must have 1 to 128 bytes");
	purpose[KEYSTORE_PURPOSE_MAX] = '\0';
	expect_derived(ks, 1, purpose, want);
	assert_ok(ks, keystore_derive_key(ks, 1, purpose, got, sizeof(got)));
	ck_assert_mem_eq(got, want, sizeof(got));
	assert_status(ks, keystore_derive_key(ks, 1, "dump", got, KEYSTORE_DERIVED_MIN - 1), KEYSTORE_EINVAL);
	assert_status(ks, keystore_derive_key(ks, 1, "dump", got, KEYSTORE_DERIVED_MAX + 1), KEYSTORE_EINVAL);
	assert_status(ks, keystore_derive_key(ks, 99, "dump", got, sizeof(got)), KEYSTORE_ENOKEY);
	keystore_close(ks);
	assert_status(ks, keystore_derive_key(ks, 1, "dump", got, sizeof(got)), KEYSTORE_EINVAL);
	keystore_free(&ks);
}
END_TEST

int
main(void)
{
	Suite	   *suite = suite_create("keys");
	TCase	   *tc = ks_tcase("keys");

	tcase_add_test(tc, test_add);
	tcase_add_test(tc, test_limit);
	tcase_add_test(tc, test_generation_end);
	suite_add_tcase(suite, tc);
	tc = ks_tcase("merge");
	tcase_add_test(tc, test_merge_older);
	tcase_add_test(tc, test_merge_newer);
	tcase_add_test(tc, test_merge_diverged);
	tcase_add_test(tc, test_merge_refused);
	suite_add_tcase(suite, tc);
	tc = ks_tcase("destroyed");
	tcase_add_test(tc, test_destroy);
	tcase_add_test(tc, test_merge_destroyed);
	tcase_add_test(tc, test_merge_destroyed_renumbered);
	tcase_add_test(tc, test_merge_destroyed_active);
	tcase_add_test(tc, test_ring_destroyed);
	tcase_add_test(tc, test_compromise_and_label);
	suite_add_tcase(suite, tc);
	tc = ks_tcase("ring");
	tcase_add_test(tc, test_ring);
	tcase_add_test(tc, test_ring_diverged);
	tcase_add_test(tc, test_ring_damage);
	tcase_add_test(tc, test_ring_is_no_body);
	suite_add_tcase(suite, tc);
	tc = ks_tcase("derived");
	tcase_add_test(tc, test_derive);
	suite_add_tcase(suite, tc);
	return ks_run(suite);
}
