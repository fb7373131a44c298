/*
 * format_body.c
 *		The bytes of the history, as they are before encryption, and of the key ring
 *		that carries it, to and from structs.
 *
 * Pure, as format.c is, and as suspicious.  Version 1 is read, version 2 is written.
 */
#include <config.h>

#include <string.h>

#include "ksi.h"

#define MAGIC_LEN			8
static const uint8_t ring_magic[MAGIC_LEN] = {'P', 'G', 'X', 'K', 'R', '\r', '\n', 0x1a};

/* the plaintext: a count, then records; in version 2 then another count and the former KSKs */
#define COUNT_LEN			4

/* a key in both versions, up to its times */
#define KEY_ID				0
#define KEY_STATE			4
#define KEY_FLAGS			6
#define KEY_CREATED			8
#define KEY_ACTIVATED		16
#define KEY_RETIRED			24

#define KEY_ORIGIN_V1		32
#define KEY_BYTES_V1		96
#define KEY_LEN_V1			128

#define KEY_COMPROMISED		32
#define KEY_DESTROYED		40
#define KEY_ORIGIN			48
#define KEY_LABEL			112
#define KEY_BYTES			176
#define KEY_IDENTITY		208
#define KEY_LEN				224

#define FORMER_REPLACED		0
#define FORMER_BYTES		8
#define FORMER_LEN			40

/* the ring; version 1 has no identity, so its IV and body come earlier */
#define RING_VERSION		8
#define RING_FLAGS			10
#define RING_BODY_LENGTH	12
#define RING_UUID			16
#define RING_GENERATION		32
#define RING_FIXED_V1		40
#define RING_KSK_IDENTITY	40
#define RING_FIXED_V2		56

/* ---- the history ------------------------------------------------------------- */

static size_t
key_len(uint16_t version)
{
	return version == KSI_FORMAT_V1 ? KEY_LEN_V1 : KEY_LEN;
}

size_t
ksi_format_body_len(const struct ksi_history *history)
{
	return COUNT_LEN + history->key_count * KEY_LEN + COUNT_LEN +
		history->former_count * FORMER_LEN;
}

/* Can a body have this length?  Says why not, or NULL.  In version 2 only its content tells exactly. */
const char *
ksi_format_body_len_check(uint16_t version, size_t len)
{
	size_t		least = COUNT_LEN + key_len(version);
	size_t		most = COUNT_LEN + KEYSTORE_MAX_MASTER_KEYS * key_len(version);

	if (version != KSI_FORMAT_V1)
	{
		least += COUNT_LEN;
		most += COUNT_LEN + KSI_MAX_FORMER * FORMER_LEN;
	}
	if (len < least || len > most ||
		(version == KSI_FORMAT_V1 && (len - COUNT_LEN) % KEY_LEN_V1 != 0))
		return "invalid length of the body";
	return NULL;
}

void
ksi_format_put_body(const struct ksi_history *history, uint8_t *buf)
{
	uint8_t    *p = ksi_put32(buf, (uint32_t) history->key_count);

	for (size_t i = 0; i < history->key_count; i++, p += KEY_LEN)
	{
		const struct ksi_key *key = &ksi_keys(history)[i];

		(void) ksi_put32(p + KEY_ID, key->id);
		(void) ksi_put16(p + KEY_STATE, (uint16_t) key->state);
		(void) ksi_put16(p + KEY_FLAGS, 0);
		(void) ksi_put64(p + KEY_CREATED, (uint64_t) key->created);
		(void) ksi_put64(p + KEY_ACTIVATED, (uint64_t) key->activated);
		(void) ksi_put64(p + KEY_RETIRED, (uint64_t) key->retired);
		(void) ksi_put64(p + KEY_COMPROMISED, (uint64_t) key->compromised);
		(void) ksi_put64(p + KEY_DESTROYED, (uint64_t) key->destroyed);
		memcpy(p + KEY_ORIGIN, key->origin, KSI_TEXT_LEN);
		memcpy(p + KEY_LABEL, key->label, KSI_TEXT_LEN);
		memcpy(p + KEY_BYTES, key->key, KEYSTORE_KEY_LEN);
		memcpy(p + KEY_IDENTITY, key->identity, KSI_IDENTITY_LEN);
	}
	p = ksi_put32(p, (uint32_t) history->former_count);
	for (size_t i = 0; i < history->former_count; i++, p += FORMER_LEN)
	{
		(void) ksi_put64(p + FORMER_REPLACED, (uint64_t) ksi_formers(history)[i].replaced);
		memcpy(p + FORMER_BYTES, ksi_formers(history)[i].key, KEYSTORE_KEY_LEN);
	}
}

/* How many records a decrypted body holds; says what is wrong with it, or NULL. */
const char *
ksi_format_body_count(uint16_t version, const uint8_t *buf, size_t len, size_t *ret_keys,
					  size_t *ret_formers)
{
	uint32_t	keys = len < COUNT_LEN ? 0 : ksi_get32(buf);
	uint32_t	formers = 0;
	size_t		expected = COUNT_LEN + (size_t) keys * key_len(version);

	if (keys < 1 || keys > KEYSTORE_MAX_MASTER_KEYS)
		return "invalid number of keys";
	if (version != KSI_FORMAT_V1)
	{
		if (len < expected + COUNT_LEN)
			return "invalid number of keys";
		formers = ksi_get32(buf + expected);
		if (formers > KSI_MAX_FORMER)
			return "invalid number of former keystore keys";
		expected += COUNT_LEN + (size_t) formers * FORMER_LEN;
	}
	if (len != expected)
		return "invalid number of keys";
	*ret_keys = keys;
	*ret_formers = formers;
	return NULL;
}

/* What only one of the versions has, and where. */
static void
get_key_rest(uint16_t version, const uint8_t *p, struct ksi_key *key)
{
	if (version == KSI_FORMAT_V1)
	{
		memcpy(key->origin, p + KEY_ORIGIN_V1, KSI_TEXT_LEN);
		memcpy(key->key, p + KEY_BYTES_V1, KEYSTORE_KEY_LEN);
		return;
	}
	key->compromised = (int64_t) ksi_get64(p + KEY_COMPROMISED);
	key->destroyed = (int64_t) ksi_get64(p + KEY_DESTROYED);
	memcpy(key->origin, p + KEY_ORIGIN, KSI_TEXT_LEN);
	memcpy(key->label, p + KEY_LABEL, KSI_TEXT_LEN);
	memcpy(key->key, p + KEY_BYTES, KEYSTORE_KEY_LEN);
	memcpy(key->identity, p + KEY_IDENTITY, KSI_IDENTITY_LEN);
}

static const char *
check_key(uint16_t version, const struct ksi_key *key, const struct ksi_key *former)
{
	uint32_t	last = version == KSI_FORMAT_V1 ? KEYSTORE_KEY_DESTROYED : KEYSTORE_KEY_COMPROMISED;
	static const uint8_t zero[KEYSTORE_KEY_LEN];

	if (key->id == 0 || (former != NULL && key->id <= former->id))
		return "keys are not in ascending order";
	if (key->state < KEYSTORE_KEY_ACTIVE || key->state > last)
		return "unknown key state";
	if (!ksi_format_text_is_clean((const uint8_t *) key->origin))
		return "invalid origin of a key";
	if (!ksi_format_text_is_clean((const uint8_t *) key->label))
		return "invalid label of a key";
	if (key->state == KEYSTORE_KEY_DESTROYED && !ksi_equal(key->key, zero, sizeof(zero)))
		return "a destroyed key has bytes";
	return NULL;
}

/* Decode into history, which has room for what was counted; says what is wrong, or NULL. */
const char *
ksi_format_get_body(uint16_t version, const uint8_t *buf, const struct ksi_history *history)
{
	const uint8_t *p = buf + COUNT_LEN;
	size_t		active = 0;

	for (size_t i = 0; i < history->key_count; i++, p += key_len(version))
	{
		struct ksi_key *key = &ksi_keys(history)[i];
		const char *reason;

		key->id = ksi_get32(p + KEY_ID);
		key->state = ksi_get16(p + KEY_STATE);
		key->created = (int64_t) ksi_get64(p + KEY_CREATED);
		key->activated = (int64_t) ksi_get64(p + KEY_ACTIVATED);
		key->retired = (int64_t) ksi_get64(p + KEY_RETIRED);
		get_key_rest(version, p, key);
		reason = check_key(version, key, i > 0 ? key - 1 : NULL);
		if (reason != NULL)
			return reason;
		if (ksi_get16(p + KEY_FLAGS) != 0)
			return "unknown key flags";
		if (key->state == KEYSTORE_KEY_ACTIVE)
			active++;
	}
	p += COUNT_LEN;
	for (size_t i = 0; i < history->former_count; i++, p += FORMER_LEN)
	{
		ksi_formers(history)[i].replaced = (int64_t) ksi_get64(p + FORMER_REPLACED);
		memcpy(ksi_formers(history)[i].key, p + FORMER_BYTES, KEYSTORE_KEY_LEN);
	}
	return active == 1 ? NULL : "not exactly one key is active";
}

/* ---- the ring ------------------------------------------------------------------ */

static void
set_ring_layout(struct ksi_ring_header *ring, size_t body_len)
{
	ring->body_len = body_len;
	ring->iv_off = ring->version == KSI_FORMAT_V1 ? RING_FIXED_V1 : RING_FIXED_V2;
	ring->body_off = ring->iv_off + KSI_IV_LEN;
	ring->tag_off = ring->body_off + body_len;
	ring->ring_len = ring->tag_off + KSI_TAG_LEN;
}

void
ksi_format_ring_layout(const struct ksi_history *history, struct ksi_ring_header *ring)
{
	ring->version = KSI_FORMAT_V2;
	set_ring_layout(ring, ksi_format_body_len(history));
}

void
ksi_format_put_ring(const struct ksi_ring_header *ring, uint8_t *buf)
{
	memcpy(buf, ring_magic, MAGIC_LEN);
	(void) ksi_put16(buf + RING_VERSION, KSI_FORMAT_V2);
	(void) ksi_put16(buf + RING_FLAGS, 0);
	(void) ksi_put32(buf + RING_BODY_LENGTH, (uint32_t) ring->body_len);
	memcpy(buf + RING_UUID, ring->uuid, KEYSTORE_UUID_LEN);
	(void) ksi_put64(buf + RING_GENERATION, ring->generation);
	memcpy(buf + RING_KSK_IDENTITY, ring->ksk_identity, KSI_IDENTITY_LEN);
}

enum keystore_status
ksi_format_get_ring(keystore *ks, const uint8_t *buf, size_t len, struct ksi_ring_header *ret_ring)
{
	if (!ksi_format_begins_with(buf, len, ring_magic))
		return ksi_fail(ks, KEYSTORE_EFORMAT, "the data is not a key ring");
	if (len < RING_FIXED_V1 + KSI_IV_LEN + KSI_TAG_LEN)
		return ksi_fail(ks, KEYSTORE_EDAMAGED, "key ring is corrupted: size = %zu bytes", len);
	memset(ret_ring, 0, sizeof(*ret_ring));
	ret_ring->version = ksi_get16(buf + RING_VERSION);
	if ((ret_ring->version != KSI_FORMAT_V1 && ret_ring->version != KSI_FORMAT_V2) ||
		ksi_get16(buf + RING_FLAGS) != 0)
		return ksi_fail(ks, KEYSTORE_EVERSION,
						"key ring has format version %u, but only versions %d and %d are supported",
						ret_ring->version, KSI_FORMAT_V1, KSI_FORMAT_V2);
	set_ring_layout(ret_ring, ksi_get32(buf + RING_BODY_LENGTH));
	if (ret_ring->ring_len != len ||
		ksi_format_body_len_check(ret_ring->version, ret_ring->body_len) != NULL)
		return ksi_fail(ks, KEYSTORE_EDAMAGED,
						"key ring is corrupted: size = %zu bytes, expected size = %zu bytes",
						len, ret_ring->ring_len);
	memcpy(ret_ring->uuid, buf + RING_UUID, KEYSTORE_UUID_LEN);
	ret_ring->generation = ksi_get64(buf + RING_GENERATION);
	if (ret_ring->version == KSI_FORMAT_V2)
		memcpy(ret_ring->ksk_identity, buf + RING_KSK_IDENTITY, KSI_IDENTITY_LEN);
	return KEYSTORE_OK;
}
