/*
 * format.c
 *		The bytes of keystore.ks, keystore.aks and the key ring, to and from structs.
 *
 * Pure: no I/O, no cryptography, no clock.  Every input is hostile until proven
 * otherwise: each length is checked against what is there before it is used.
 * Fields are big-endian and written one by one.  keystore.ks(5) and
 * keystore.aks(5) describe the layouts; they and this file change together.
 */
#include <config.h>

#include <assert.h>
#include <string.h>

#include "ksi.h"

/*
 * The magic of each file holds a CR, an LF and a ^Z, as PNG's does, so that a copy
 * in text mode is noticed at the first bytes.
 */
#define MAGIC_LEN			8
static const uint8_t keystore_magic[MAGIC_LEN] = {'P', 'G', 'X', 'K', 'S', '\r', '\n', 0x1a};
static const uint8_t auto_open_magic[MAGIC_LEN] = {'P', 'G', 'X', 'A', 'O', '\r', '\n', 0x1a};
static const uint8_t ring_magic[MAGIC_LEN] = {'P', 'G', 'X', 'K', 'R', '\r', '\n', 0x1a};

#define FORMAT_VERSION		1		/* of all three */

/* keystore.ks: offsets in the header, before the slots */
#define HDR_VERSION			8
#define HDR_FLAGS			10
#define HDR_LENGTH			12
#define HDR_UUID			16
#define HDR_GENERATION		32
#define HDR_CHANGED			40
#define HDR_BODY_LENGTH		48
#define HDR_SLOT_COUNT		52
#define HDR_SLOTS			56

/* a slot: offsets in its record; what follows the label depends on the kind */
#define SLOT_LENGTH			0
#define SLOT_ID				4
#define SLOT_KIND			8
#define SLOT_FLAGS			10
#define SLOT_CREATED		12
#define SLOT_LABEL			20
#define SLOT_COMMON_LEN		84
#define SLOT_KDF			84
#define SLOT_COST			88
#define SLOT_MEMORY			92
#define SLOT_BLOCK_SIZE		96
#define SLOT_PARALLELISM	100
#define SLOT_SALT			104
#define SLOT_IV				136
#define SLOT_WRAPPED		148
#define SLOT_TAG			180
#define SLOT_LEN			196

static_assert(KSI_SLOT_AAD_LEN == KEYSTORE_UUID_LEN + SLOT_IV, "associated data ends at the IV");

/* the body's plaintext: a count, then records */
#define BODY_RECORDS		4
#define KEY_ID				0
#define KEY_STATE			4
#define KEY_FLAGS			6
#define KEY_CREATED			8
#define KEY_ACTIVATED		16
#define KEY_RETIRED			24
#define KEY_ORIGIN			32
#define KEY_BYTES			96
#define KEY_LEN				128

/* the ring */
#define RING_VERSION		8
#define RING_FLAGS			10
#define RING_BODY_LENGTH	12
#define RING_UUID			16
#define RING_GENERATION		32
#define RING_IV				40
#define RING_BODY			52

/* keystore.aks */
#define AKS_VERSION			8
#define AKS_KIND			10
#define AKS_UID				12
#define AKS_UUID			16
#define AKS_CREATED			32
#define AKS_PATH_DIGEST		40
#define AKS_IV				72
#define AKS_SEALED			84
#define AKS_TAG				116
#define AKS_KIND_HOST		1

static uint16_t
get16(const uint8_t *p)
{
	return (uint16_t) (p[0] << 8 | p[1]);
}

static uint32_t
get32(const uint8_t *p)
{
	return (uint32_t) get16(p) << 16 | get16(p + 2);
}

static uint64_t
get64(const uint8_t *p)
{
	return (uint64_t) get32(p) << 32 | get32(p + 4);
}

static void
put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t) (v >> 8);
	p[1] = (uint8_t) v;
}

/* Returns what follows the field. */
uint8_t *
ksi_put32(uint8_t *p, uint32_t v)
{
	put16(p, (uint16_t) (v >> 16));
	put16(p + 2, (uint16_t) v);
	return p + 4;
}

static void
put64(uint8_t *p, uint64_t v)
{
	(void) ksi_put32(p, (uint32_t) (v >> 32));
	(void) ksi_put32(p + 4, (uint32_t) v);
}

/* Text in a file: no control characters, at least one NUL, and nothing but NULs after it. */
static bool
text_is_clean(const uint8_t *p)
{
	size_t		i = 0;

	while (i < KSI_TEXT_LEN && p[i] >= 0x20 && p[i] != 0x7f)
		i++;
	if (i == KSI_TEXT_LEN)
		return false;
	while (i < KSI_TEXT_LEN && p[i] == 0)
		i++;
	return i == KSI_TEXT_LEN;
}

/* Does buf begin like the magic, as far as it goes?  So a file cut short is told as damaged. */
static bool
begins_with(const uint8_t *buf, size_t len, const uint8_t magic[MAGIC_LEN])
{
	return memcmp(buf, magic, len < MAGIC_LEN ? len : MAGIC_LEN) == 0;
}

/* ---- keystore.ks --------------------------------------------------------- */

size_t
ksi_format_body_len(size_t key_count)
{
	return BODY_RECORDS + key_count * KEY_LEN;
}

static void
set_layout(struct ksi_layout *layout, size_t header_len, size_t body_len)
{
	layout->header_len = header_len;
	layout->iv_off = header_len;
	layout->body_off = layout->iv_off + KSI_IV_LEN;
	layout->body_len = body_len;
	layout->tag_off = layout->body_off + body_len;
	layout->digest_off = layout->tag_off + KSI_TAG_LEN;
	layout->file_len = layout->digest_off + KSI_DIGEST_LEN;
}

void
ksi_format_layout(const struct ksi_header *header, size_t key_count, struct ksi_layout *ret_layout)
{
	size_t		header_len = HDR_SLOTS;

	for (size_t i = 0; i < header->slot_count; i++)
		header_len += header->slots[i].len;
	set_layout(ret_layout, header_len, ksi_format_body_len(key_count));
}

static enum keystore_status
bad_size(keystore *ks, const char *where, size_t len, uint64_t expected)
{
	return ksi_fail(ks, KEYSTORE_EDAMAGED,
					"keystore \"%s\" is corrupted: size = %zu bytes, expected size = %llu bytes",
					where, len, (unsigned long long) expected);
}

/*
 * Is it a keystore, and is all of it there?  Comes before the digest, because
 * "too short" says more than "invalid checksum".  Only a file long enough to
 * carry a version and a digest passes, whatever the version is.
 */
enum keystore_status
ksi_format_check_size(keystore *ks, const char *where, const uint8_t *buf, size_t len)
{
	uint64_t	expected;

	if (!begins_with(buf, len, keystore_magic))
		return ksi_fail(ks, KEYSTORE_EFORMAT, "file \"%s\" is not a keystore", where);
	if (len < HDR_SLOTS + KSI_IV_LEN + KSI_TAG_LEN + KSI_DIGEST_LEN)
		return ksi_fail(ks, KEYSTORE_EDAMAGED,
						"keystore \"%s\" is corrupted: size = %zu bytes, expected size = %d bytes or more",
						where, len, HDR_SLOTS + KSI_IV_LEN + KSI_TAG_LEN + KSI_DIGEST_LEN);
	if (get16(buf + HDR_VERSION) != FORMAT_VERSION)
		return KEYSTORE_OK;
	expected = (uint64_t) get32(buf + HDR_LENGTH) + get32(buf + HDR_BODY_LENGTH) +
		KSI_IV_LEN + KSI_TAG_LEN + KSI_DIGEST_LEN;
	if (len != expected)
		return bad_size(ks, where, len, expected);
	return KEYSTORE_OK;
}

bool
ksi_format_slot_is_ours(const struct ksi_slot *slot)
{
	return get16(slot->record + SLOT_KIND) == KEYSTORE_SLOT_PASSPHRASE;
}

/* Check one slot, whose record is whole, and copy it. */
static enum keystore_status
parse_slot(keystore *ks, const char *where, const uint8_t *p, size_t len,
		   struct ksi_header *header)
{
	struct ksi_slot *slot = &header->slots[header->slot_count];
	uint32_t	id = get32(p + SLOT_ID);
	struct ksi_slot_fields fields;
	const char *reason;

	if (id == 0)
		return ksi_fail(ks, KEYSTORE_EDAMAGED,
						"keystore \"%s\" is corrupted: slot number is zero", where);
	for (size_t i = 0; i < header->slot_count; i++)
	{
		if (get32(header->slots[i].record + SLOT_ID) == id)
			return ksi_fail(ks, KEYSTORE_EDAMAGED,
							"keystore \"%s\" is corrupted: slot %u occurs twice", where, id);
	}
	if (!text_is_clean(p + SLOT_LABEL))
		return ksi_fail(ks, KEYSTORE_EDAMAGED,
						"keystore \"%s\" is corrupted: invalid label of slot %u", where, id);

	slot->len = len;
	memcpy(slot->record, p, len);
	if (!ksi_format_slot_is_ours(slot))
	{
		if (get16(p + SLOT_FLAGS) & KSI_SLOT_CRITICAL)
		{
			(void) ksi_fail(ks, KEYSTORE_EVERSION,
							"keystore \"%s\" has a slot of kind %u, which this version does not support",
							where, get16(p + SLOT_KIND));
			return ksi_hint(ks, KEYSTORE_EVERSION,
							"Use the version that wrote the keystore, or a later one.");
		}
		return KEYSTORE_OK;
	}
	if (get16(p + SLOT_FLAGS) & ~KSI_SLOT_CRITICAL)
		return ksi_fail(ks, KEYSTORE_EVERSION,
						"keystore \"%s\" has flags in slot %u that this version does not support",
						where, id);
	if (len != SLOT_LEN)
		return ksi_fail(ks, KEYSTORE_EDAMAGED,
						"keystore \"%s\" is corrupted: invalid length of slot %u", where, id);
	ksi_format_get_slot(slot, &fields);
	reason = ksi_kdf_check(&fields.kdf, false);
	if (reason != NULL)
		return ksi_fail(ks, KEYSTORE_EDAMAGED, "keystore \"%s\" is corrupted: slot %u: %s",
						where, id, reason);
	return KEYSTORE_OK;
}

/*
 * Everything that can be checked without a key.  The caller has run
 * ksi_format_check_size() and compared the digest.  *ret_header and *ret_layout
 * are undefined on failure.
 */
enum keystore_status
ksi_format_parse(keystore *ks, const char *where, const uint8_t *buf, size_t len,
				 struct ksi_header *ret_header, struct ksi_layout *ret_layout)
{
	enum keystore_status status;
	uint32_t	header_len;
	uint32_t	body_len;
	uint32_t	slot_count;
	size_t		off = HDR_SLOTS;

	if (get16(buf + HDR_VERSION) != FORMAT_VERSION)
	{
		(void) ksi_fail(ks, KEYSTORE_EVERSION,
						"keystore \"%s\" has format version %u, but only version %d is supported",
						where, get16(buf + HDR_VERSION), FORMAT_VERSION);
		return ksi_hint(ks, KEYSTORE_EVERSION,
						"Use the version that wrote the keystore, or a later one.");
	}
	if (get16(buf + HDR_FLAGS) != 0)
		return ksi_fail(ks, KEYSTORE_EVERSION,
						"keystore \"%s\" has flags that this version does not support", where);

	header_len = get32(buf + HDR_LENGTH);
	body_len = get32(buf + HDR_BODY_LENGTH);
	slot_count = get32(buf + HDR_SLOT_COUNT);
	if (header_len < HDR_SLOTS || header_len > len || body_len > len)
		return ksi_fail(ks, KEYSTORE_EDAMAGED,
						"keystore \"%s\" is corrupted: invalid length of a part", where);
	if (body_len < ksi_format_body_len(1) || (body_len - BODY_RECORDS) % KEY_LEN != 0 ||
		body_len > ksi_format_body_len(KEYSTORE_MAX_MASTER_KEYS))
		return ksi_fail(ks, KEYSTORE_EDAMAGED,
						"keystore \"%s\" is corrupted: invalid length of the body", where);
	if (slot_count < 1 || slot_count > KSI_MAX_SLOTS)
		return ksi_fail(ks, KEYSTORE_EDAMAGED,
						"keystore \"%s\" is corrupted: invalid number of slots: %u",
						where, slot_count);
	set_layout(ret_layout, header_len, body_len);
	if (ret_layout->file_len != len)
		return bad_size(ks, where, len, ret_layout->file_len);

	memcpy(ret_header->uuid, buf + HDR_UUID, KEYSTORE_UUID_LEN);
	ret_header->generation = get64(buf + HDR_GENERATION);
	ret_header->changed = (int64_t) get64(buf + HDR_CHANGED);
	for (ret_header->slot_count = 0; ret_header->slot_count < slot_count; ret_header->slot_count++)
	{
		size_t		slot_len = header_len - off < SLOT_COMMON_LEN ? 0 : get32(buf + off);

		if (slot_len < SLOT_COMMON_LEN || slot_len > KSI_SLOT_RECORD_MAX ||
			slot_len > header_len - off)
			return ksi_fail(ks, KEYSTORE_EDAMAGED,
							"keystore \"%s\" is corrupted: invalid length of a slot", where);
		status = parse_slot(ks, where, buf + off, slot_len, ret_header);
		if (status != KEYSTORE_OK)
			return status;
		off += slot_len;
	}
	if (off != header_len)
		return ksi_fail(ks, KEYSTORE_EDAMAGED,
						"keystore \"%s\" is corrupted: invalid length of the header", where);
	return KEYSTORE_OK;
}

/* Write layout->header_len bytes. */
void
ksi_format_put_header(const struct ksi_header *header, const struct ksi_layout *layout,
					  uint8_t *buf)
{
	uint8_t    *p = buf + HDR_SLOTS;

	memcpy(buf, keystore_magic, MAGIC_LEN);
	put16(buf + HDR_VERSION, FORMAT_VERSION);
	put16(buf + HDR_FLAGS, 0);
	(void) ksi_put32(buf + HDR_LENGTH, (uint32_t) layout->header_len);
	memcpy(buf + HDR_UUID, header->uuid, KEYSTORE_UUID_LEN);
	put64(buf + HDR_GENERATION, header->generation);
	put64(buf + HDR_CHANGED, (uint64_t) header->changed);
	(void) ksi_put32(buf + HDR_BODY_LENGTH, (uint32_t) layout->body_len);
	(void) ksi_put32(buf + HDR_SLOT_COUNT, (uint32_t) header->slot_count);
	for (size_t i = 0; i < header->slot_count; i++)
	{
		memcpy(p, header->slots[i].record, header->slots[i].len);
		p += header->slots[i].len;
	}
}

/* Of a slot that is not ours, only what all kinds share; the rest is zero. */
void
ksi_format_get_slot(const struct ksi_slot *slot, struct ksi_slot_fields *ret_fields)
{
	const uint8_t *p = slot->record;

	memset(ret_fields, 0, sizeof(*ret_fields));
	ret_fields->id = get32(p + SLOT_ID);
	ret_fields->kind = get16(p + SLOT_KIND);
	ret_fields->flags = get16(p + SLOT_FLAGS);
	ret_fields->created = (int64_t) get64(p + SLOT_CREATED);
	memcpy(ret_fields->label, p + SLOT_LABEL, KSI_TEXT_LEN);
	if (!ksi_format_slot_is_ours(slot))
		return;
	ret_fields->kdf.kdf = (enum keystore_kdf) get32(p + SLOT_KDF);
	ret_fields->kdf.cost = get32(p + SLOT_COST);
	ret_fields->kdf.memory_kib = get32(p + SLOT_MEMORY);
	ret_fields->kdf.block_size = get32(p + SLOT_BLOCK_SIZE);
	ret_fields->kdf.parallelism = get32(p + SLOT_PARALLELISM);
	memcpy(ret_fields->salt, p + SLOT_SALT, KSI_SALT_LEN);
	memcpy(ret_fields->iv, p + SLOT_IV, KSI_IV_LEN);
	memcpy(ret_fields->wrapped, p + SLOT_WRAPPED, KEYSTORE_KEY_LEN);
	memcpy(ret_fields->tag, p + SLOT_TAG, KSI_TAG_LEN);
}

void
ksi_format_put_slot(const struct ksi_slot_fields *fields, struct ksi_slot *ret_slot)
{
	uint8_t    *p = ret_slot->record;

	ret_slot->len = SLOT_LEN;
	(void) ksi_put32(p + SLOT_LENGTH, SLOT_LEN);
	(void) ksi_put32(p + SLOT_ID, fields->id);
	put16(p + SLOT_KIND, fields->kind);
	put16(p + SLOT_FLAGS, fields->flags);
	put64(p + SLOT_CREATED, (uint64_t) fields->created);
	memcpy(p + SLOT_LABEL, fields->label, KSI_TEXT_LEN);
	(void) ksi_put32(p + SLOT_KDF, (uint32_t) fields->kdf.kdf);
	(void) ksi_put32(p + SLOT_COST, fields->kdf.cost);
	(void) ksi_put32(p + SLOT_MEMORY, fields->kdf.memory_kib);
	(void) ksi_put32(p + SLOT_BLOCK_SIZE, fields->kdf.block_size);
	(void) ksi_put32(p + SLOT_PARALLELISM, fields->kdf.parallelism);
	memcpy(p + SLOT_SALT, fields->salt, KSI_SALT_LEN);
	memcpy(p + SLOT_IV, fields->iv, KSI_IV_LEN);
	memcpy(p + SLOT_WRAPPED, fields->wrapped, KEYSTORE_KEY_LEN);
	memcpy(p + SLOT_TAG, fields->tag, KSI_TAG_LEN);
}

/* What a slot's tag vouches for besides the KSK: whose it is, and all of the slot before the IV. */
void
ksi_format_slot_aad(const uint8_t uuid[KEYSTORE_UUID_LEN], const struct ksi_slot *slot,
					uint8_t aad[KSI_SLOT_AAD_LEN])
{
	memcpy(aad, uuid, KEYSTORE_UUID_LEN);
	memcpy(aad + KEYSTORE_UUID_LEN, slot->record, SLOT_IV);
}

/* ---- the body -------------------------------------------------------------- */

void
ksi_format_put_body(const struct ksi_key *keys, size_t count, uint8_t *buf)
{
	uint8_t    *p = ksi_put32(buf, (uint32_t) count);

	for (size_t i = 0; i < count; i++, p += KEY_LEN)
	{
		(void) ksi_put32(p + KEY_ID, keys[i].id);
		put16(p + KEY_STATE, (uint16_t) keys[i].state);
		put16(p + KEY_FLAGS, 0);
		put64(p + KEY_CREATED, (uint64_t) keys[i].created);
		put64(p + KEY_ACTIVATED, (uint64_t) keys[i].activated);
		put64(p + KEY_RETIRED, (uint64_t) keys[i].retired);
		memcpy(p + KEY_ORIGIN, keys[i].origin, KSI_TEXT_LEN);
		memcpy(p + KEY_BYTES, keys[i].key, KEYSTORE_KEY_LEN);
	}
}

/* How many keys a decrypted body holds; says what is wrong with it, or NULL. */
const char *
ksi_format_body_count(const uint8_t *buf, size_t len, size_t *ret_count)
{
	uint32_t	count = len < BODY_RECORDS ? 0 : get32(buf);

	if (count < 1 || count > KEYSTORE_MAX_MASTER_KEYS || len != ksi_format_body_len(count))
		return "invalid number of keys";
	*ret_count = count;
	return NULL;
}

/* Decode count records; says what is wrong with them, or NULL. */
const char *
ksi_format_get_body(const uint8_t *buf, size_t count, struct ksi_key *ret_keys)
{
	const uint8_t *p = buf + BODY_RECORDS;
	size_t		active = 0;

	for (size_t i = 0; i < count; i++, p += KEY_LEN)
	{
		struct ksi_key *key = &ret_keys[i];

		key->id = get32(p + KEY_ID);
		key->state = get16(p + KEY_STATE);
		key->created = (int64_t) get64(p + KEY_CREATED);
		key->activated = (int64_t) get64(p + KEY_ACTIVATED);
		key->retired = (int64_t) get64(p + KEY_RETIRED);
		memcpy(key->origin, p + KEY_ORIGIN, KSI_TEXT_LEN);
		memcpy(key->key, p + KEY_BYTES, KEYSTORE_KEY_LEN);

		if (key->id == 0 || (i > 0 && key->id <= ret_keys[i - 1].id))
			return "keys are not in ascending order";
		if (key->state < KEYSTORE_KEY_ACTIVE || key->state > KEYSTORE_KEY_DESTROYED)
			return "unknown key state";
		if (get16(p + KEY_FLAGS) != 0)
			return "unknown key flags";
		if (!text_is_clean(p + KEY_ORIGIN))
			return "invalid origin of a key";
		if (key->state == KEYSTORE_KEY_ACTIVE)
			active++;
	}
	return active == 1 ? NULL : "not exactly one key is active";
}

/* ---- the ring ------------------------------------------------------------------ */

static void
set_ring_layout(struct ksi_ring_header *ring, size_t body_len)
{
	ring->body_len = body_len;
	ring->iv_off = RING_IV;
	ring->body_off = RING_BODY;
	ring->tag_off = RING_BODY + body_len;
	ring->ring_len = ring->tag_off + KSI_TAG_LEN;
}

void
ksi_format_ring_layout(size_t key_count, struct ksi_ring_header *ring)
{
	set_ring_layout(ring, ksi_format_body_len(key_count));
}

void
ksi_format_put_ring(const struct ksi_ring_header *ring, uint8_t *buf)
{
	memcpy(buf, ring_magic, MAGIC_LEN);
	put16(buf + RING_VERSION, FORMAT_VERSION);
	put16(buf + RING_FLAGS, 0);
	(void) ksi_put32(buf + RING_BODY_LENGTH, (uint32_t) ring->body_len);
	memcpy(buf + RING_UUID, ring->uuid, KEYSTORE_UUID_LEN);
	put64(buf + RING_GENERATION, ring->generation);
}

enum keystore_status
ksi_format_get_ring(keystore *ks, const uint8_t *buf, size_t len, struct ksi_ring_header *ret_ring)
{
	if (!begins_with(buf, len, ring_magic))
		return ksi_fail(ks, KEYSTORE_EFORMAT, "the data is not a key ring");
	if (len < RING_BODY + KSI_TAG_LEN)
		return ksi_fail(ks, KEYSTORE_EDAMAGED, "key ring is corrupted: size = %zu bytes", len);
	if (get16(buf + RING_VERSION) != FORMAT_VERSION || get16(buf + RING_FLAGS) != 0)
		return ksi_fail(ks, KEYSTORE_EVERSION,
						"key ring has format version %u, but only version %d is supported",
						get16(buf + RING_VERSION), FORMAT_VERSION);
	set_ring_layout(ret_ring, get32(buf + RING_BODY_LENGTH));
	if (ret_ring->ring_len != len ||
		ret_ring->body_len > ksi_format_body_len(KEYSTORE_MAX_MASTER_KEYS))
		return ksi_fail(ks, KEYSTORE_EDAMAGED,
						"key ring is corrupted: size = %zu bytes, expected size = %zu bytes",
						len, ret_ring->ring_len);
	memcpy(ret_ring->uuid, buf + RING_UUID, KEYSTORE_UUID_LEN);
	ret_ring->generation = get64(buf + RING_GENERATION);
	return KEYSTORE_OK;
}

/* ---- keystore.aks -------------------------------------------------------------- */

/* Write the KSI_AUTO_OPEN_DIGEST_OFF bytes before the digest. */
void
ksi_format_put_auto_open(const struct ksi_auto_open *aks, uint8_t *buf)
{
	memcpy(buf, auto_open_magic, MAGIC_LEN);
	put16(buf + AKS_VERSION, FORMAT_VERSION);
	put16(buf + AKS_KIND, AKS_KIND_HOST);
	(void) ksi_put32(buf + AKS_UID, aks->uid);
	memcpy(buf + AKS_UUID, aks->uuid, KEYSTORE_UUID_LEN);
	put64(buf + AKS_CREATED, (uint64_t) aks->created);
	memcpy(buf + AKS_PATH_DIGEST, aks->path_digest, KSI_DIGEST_LEN);
	memcpy(buf + AKS_IV, aks->iv, KSI_IV_LEN);
	memcpy(buf + AKS_SEALED, aks->sealed, KEYSTORE_KEY_LEN);
	memcpy(buf + AKS_TAG, aks->tag, KSI_TAG_LEN);
}

/* The caller compares the digest. */
enum keystore_status
ksi_format_get_auto_open(keystore *ks, const char *where, const uint8_t *buf, size_t len,
						 struct ksi_auto_open *ret_aks)
{
	if (!begins_with(buf, len, auto_open_magic))
		return ksi_fail(ks, KEYSTORE_EFORMAT, "file \"%s\" is not an auto-open keystore", where);
	if (len >= AKS_UID && (get16(buf + AKS_VERSION) != FORMAT_VERSION ||
						   get16(buf + AKS_KIND) != AKS_KIND_HOST))
		return ksi_fail(ks, KEYSTORE_EVERSION,
						"auto-open keystore \"%s\" has version %u and kind %u, which this version does not support",
						where, get16(buf + AKS_VERSION), get16(buf + AKS_KIND));
	if (len != KSI_AUTO_OPEN_LEN)
		return ksi_fail(ks, KEYSTORE_EDAMAGED,
						"auto-open keystore \"%s\" is corrupted: size = %zu bytes, expected size = %d bytes",
						where, len, KSI_AUTO_OPEN_LEN);
	ret_aks->uid = get32(buf + AKS_UID);
	memcpy(ret_aks->uuid, buf + AKS_UUID, KEYSTORE_UUID_LEN);
	ret_aks->created = (int64_t) get64(buf + AKS_CREATED);
	memcpy(ret_aks->path_digest, buf + AKS_PATH_DIGEST, KSI_DIGEST_LEN);
	memcpy(ret_aks->iv, buf + AKS_IV, KSI_IV_LEN);
	memcpy(ret_aks->sealed, buf + AKS_SEALED, KEYSTORE_KEY_LEN);
	memcpy(ret_aks->tag, buf + AKS_TAG, KSI_TAG_LEN);
	return KEYSTORE_OK;
}
