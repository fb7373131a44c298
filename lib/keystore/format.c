/*
 * format.c
 *		The bytes of keystore.ks up to its body, to and from structs; and what the
 *		other formats share.  The body and the key ring are in format_body.c,
 *		keystore.aks is in format_aks.c.
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

/* offsets in the header, before the slots; version 2 has the identity of the KSK there */
#define HDR_VERSION			8
#define HDR_FLAGS			10
#define HDR_LENGTH			12
#define HDR_UUID			16
#define HDR_GENERATION		32
#define HDR_CHANGED			40
#define HDR_BODY_LENGTH		48
#define HDR_SLOT_COUNT		52
#define HDR_FIXED_V1		56
#define HDR_KSK_IDENTITY	56
#define HDR_FIXED_V2		72

#define FLAG_FIPS			0x0001

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

uint16_t
ksi_get16(const uint8_t *p)
{
	return (uint16_t) (p[0] << 8 | p[1]);
}

uint32_t
ksi_get32(const uint8_t *p)
{
	return (uint32_t) ksi_get16(p) << 16 | ksi_get16(p + 2);
}

uint64_t
ksi_get64(const uint8_t *p)
{
	return (uint64_t) ksi_get32(p) << 32 | ksi_get32(p + 4);
}

/* These return what follows the field. */
uint8_t *
ksi_put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t) (v >> 8);
	p[1] = (uint8_t) v;
	return p + 2;
}

uint8_t *
ksi_put32(uint8_t *p, uint32_t v)
{
	return ksi_put16(ksi_put16(p, (uint16_t) (v >> 16)), (uint16_t) v);
}

uint8_t *
ksi_put64(uint8_t *p, uint64_t v)
{
	return ksi_put32(ksi_put32(p, (uint32_t) (v >> 32)), (uint32_t) v);
}

/* Text in a file: no control characters, at least one NUL, and nothing but NULs after it. */
bool
ksi_format_text_is_clean(const uint8_t *p)
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
bool
ksi_format_begins_with(const uint8_t *buf, size_t len, const uint8_t magic[MAGIC_LEN])
{
	return memcmp(buf, magic, len < MAGIC_LEN ? len : MAGIC_LEN) == 0;
}

/* ---- keystore.ks --------------------------------------------------------- */

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

/* What is written is of version 2. */
void
ksi_format_layout(const struct ksi_header *header, const struct ksi_history *history,
				  struct ksi_layout *ret_layout)
{
	size_t		header_len = HDR_FIXED_V2;

	for (size_t i = 0; i < header->slot_count; i++)
		header_len += header->slots[i].len;
	set_layout(ret_layout, header_len, ksi_format_body_len(history));
}

static enum keystore_status
bad_size(keystore *ks, const char *where, size_t len, uint64_t expected)
{
	return ksi_fail(ks, KEYSTORE_EDAMAGED,
					"keystore \"%s\" is corrupted: size = %zu bytes, expected size = %llu bytes",
					where, len, (unsigned long long) expected);
}

static bool
is_known_version(uint16_t version)
{
	return version == KSI_FORMAT_V1 || version == KSI_FORMAT_V2;
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

	if (!ksi_format_begins_with(buf, len, keystore_magic))
		return ksi_fail(ks, KEYSTORE_EFORMAT, "file \"%s\" is not a keystore", where);
	if (len < HDR_FIXED_V1 + KSI_IV_LEN + KSI_TAG_LEN + KSI_DIGEST_LEN)
		return ksi_fail(ks, KEYSTORE_EDAMAGED,
						"keystore \"%s\" is corrupted: size = %zu bytes, expected size = %d bytes or more",
						where, len, HDR_FIXED_V1 + KSI_IV_LEN + KSI_TAG_LEN + KSI_DIGEST_LEN);
	if (!is_known_version(ksi_get16(buf + HDR_VERSION)))
		return KEYSTORE_OK;
	expected = (uint64_t) ksi_get32(buf + HDR_LENGTH) + ksi_get32(buf + HDR_BODY_LENGTH) +
		KSI_IV_LEN + KSI_TAG_LEN + KSI_DIGEST_LEN;
	if (len != expected)
		return bad_size(ks, where, len, expected);
	return KEYSTORE_OK;
}

bool
ksi_format_slot_is_ours(const struct ksi_slot *slot)
{
	uint16_t	kind = ksi_get16(slot->record + SLOT_KIND);

	return kind == KEYSTORE_SLOT_PASSPHRASE || kind == KEYSTORE_SLOT_RECOVERY;
}

/* May the slot be in a file under the FIPS policy?  Only what is known to be PBKDF2. */
bool
ksi_format_slot_is_fips(const struct ksi_slot *slot)
{
	return ksi_format_slot_is_ours(slot) && slot->len == SLOT_LEN &&
		ksi_get32(slot->record + SLOT_KDF) == KEYSTORE_KDF_PBKDF2_SHA512;
}

/* Check one slot, whose record is whole, and copy it. */
static enum keystore_status
parse_slot(keystore *ks, const char *where, const uint8_t *p, size_t len,
		   struct ksi_header *header)
{
	struct ksi_slot *slot = &header->slots[header->slot_count];
	uint32_t	id = ksi_get32(p + SLOT_ID);
	struct ksi_slot_fields fields;
	const char *reason;

	if (id == 0)
		return ksi_fail(ks, KEYSTORE_EDAMAGED,
						"keystore \"%s\" is corrupted: slot number is zero", where);
	for (size_t i = 0; i < header->slot_count; i++)
	{
		if (ksi_get32(header->slots[i].record + SLOT_ID) == id)
			return ksi_fail(ks, KEYSTORE_EDAMAGED,
							"keystore \"%s\" is corrupted: slot %u occurs twice", where, id);
	}
	if (!ksi_format_text_is_clean(p + SLOT_LABEL))
		return ksi_fail(ks, KEYSTORE_EDAMAGED,
						"keystore \"%s\" is corrupted: invalid label of slot %u", where, id);

	slot->len = len;
	memcpy(slot->record, p, len);
	if (header->fips && !ksi_format_slot_is_fips(slot))
		return ksi_fail(ks, KEYSTORE_EDAMAGED,
						"keystore \"%s\" is corrupted: its FIPS policy forbids slot %u", where, id);
	if (!ksi_format_slot_is_ours(slot))
	{
		if (ksi_get16(p + SLOT_FLAGS) & KSI_SLOT_CRITICAL)
		{
			(void) ksi_fail(ks, KEYSTORE_EVERSION,
							"keystore \"%s\" has a slot of kind %u, which this version does not support",
							where, ksi_get16(p + SLOT_KIND));
			return ksi_hint(ks, KEYSTORE_EVERSION,
							"Use the version that wrote the keystore, or a later one.");
		}
		return KEYSTORE_OK;
	}
	if (ksi_get16(p + SLOT_FLAGS) &
		~(KSI_SLOT_CRITICAL | (header->version == KSI_FORMAT_V1 ? 0 : KSI_SLOT_FREE_LABEL)))
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
	uint16_t	version = ksi_get16(buf + HDR_VERSION);
	uint16_t	flags = ksi_get16(buf + HDR_FLAGS);
	uint32_t	header_len;
	uint32_t	body_len;
	uint32_t	slot_count;
	size_t		off = version == KSI_FORMAT_V1 ? HDR_FIXED_V1 : HDR_FIXED_V2;
	const char *reason;

	if (!is_known_version(version))
	{
		(void) ksi_fail(ks, KEYSTORE_EVERSION,
						"keystore \"%s\" has format version %u, but only versions %d and %d are supported",
						where, version, KSI_FORMAT_V1, KSI_FORMAT_V2);
		return ksi_hint(ks, KEYSTORE_EVERSION,
						"Use the version that wrote the keystore, or a later one.");
	}
	if ((flags & ~(version == KSI_FORMAT_V1 ? 0 : FLAG_FIPS)) != 0)
		return ksi_fail(ks, KEYSTORE_EVERSION,
						"keystore \"%s\" has flags that this version does not support", where);

	header_len = ksi_get32(buf + HDR_LENGTH);
	body_len = ksi_get32(buf + HDR_BODY_LENGTH);
	slot_count = ksi_get32(buf + HDR_SLOT_COUNT);
	if (header_len < off || header_len > len || body_len > len)
		return ksi_fail(ks, KEYSTORE_EDAMAGED,
						"keystore \"%s\" is corrupted: invalid length of a part", where);
	reason = ksi_format_body_len_check(version, body_len);
	if (reason != NULL)
		return ksi_fail(ks, KEYSTORE_EDAMAGED, "keystore \"%s\" is corrupted: %s", where, reason);
	if (slot_count < 1 || slot_count > KSI_MAX_SLOTS)
		return ksi_fail(ks, KEYSTORE_EDAMAGED,
						"keystore \"%s\" is corrupted: invalid number of slots: %u",
						where, slot_count);
	set_layout(ret_layout, header_len, body_len);
	if (ret_layout->file_len != len)
		return bad_size(ks, where, len, ret_layout->file_len);

	ret_header->version = version;
	ret_header->fips = (flags & FLAG_FIPS) != 0;
	memset(ret_header->ksk_identity, 0, KSI_IDENTITY_LEN);
	if (version == KSI_FORMAT_V2)
		memcpy(ret_header->ksk_identity, buf + HDR_KSK_IDENTITY, KSI_IDENTITY_LEN);
	memcpy(ret_header->uuid, buf + HDR_UUID, KEYSTORE_UUID_LEN);
	ret_header->generation = ksi_get64(buf + HDR_GENERATION);
	ret_header->changed = (int64_t) ksi_get64(buf + HDR_CHANGED);
	for (ret_header->slot_count = 0; ret_header->slot_count < slot_count; ret_header->slot_count++)
	{
		size_t		slot_len = header_len - off < SLOT_COMMON_LEN ? 0 : ksi_get32(buf + off);

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

/* Write layout->header_len bytes, of version 2. */
void
ksi_format_put_header(const struct ksi_header *header, const struct ksi_layout *layout,
					  uint8_t *buf)
{
	uint8_t    *p = buf + HDR_FIXED_V2;

	memcpy(buf, keystore_magic, MAGIC_LEN);
	(void) ksi_put16(buf + HDR_VERSION, KSI_FORMAT_V2);
	(void) ksi_put16(buf + HDR_FLAGS, header->fips ? FLAG_FIPS : 0);
	(void) ksi_put32(buf + HDR_LENGTH, (uint32_t) layout->header_len);
	memcpy(buf + HDR_UUID, header->uuid, KEYSTORE_UUID_LEN);
	(void) ksi_put64(buf + HDR_GENERATION, header->generation);
	(void) ksi_put64(buf + HDR_CHANGED, (uint64_t) header->changed);
	(void) ksi_put32(buf + HDR_BODY_LENGTH, (uint32_t) layout->body_len);
	(void) ksi_put32(buf + HDR_SLOT_COUNT, (uint32_t) header->slot_count);
	memcpy(buf + HDR_KSK_IDENTITY, header->ksk_identity, KSI_IDENTITY_LEN);
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
	ret_fields->id = ksi_get32(p + SLOT_ID);
	ret_fields->kind = ksi_get16(p + SLOT_KIND);
	ret_fields->flags = ksi_get16(p + SLOT_FLAGS);
	ret_fields->created = (int64_t) ksi_get64(p + SLOT_CREATED);
	memcpy(ret_fields->label, p + SLOT_LABEL, KSI_TEXT_LEN);
	if (!ksi_format_slot_is_ours(slot))
		return;
	ret_fields->kdf.kdf = (enum keystore_kdf) ksi_get32(p + SLOT_KDF);
	ret_fields->kdf.cost = ksi_get32(p + SLOT_COST);
	ret_fields->kdf.memory_kib = ksi_get32(p + SLOT_MEMORY);
	ret_fields->kdf.block_size = ksi_get32(p + SLOT_BLOCK_SIZE);
	ret_fields->kdf.parallelism = ksi_get32(p + SLOT_PARALLELISM);
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
	(void) ksi_put16(p + SLOT_KIND, fields->kind);
	(void) ksi_put16(p + SLOT_FLAGS, fields->flags);
	(void) ksi_put64(p + SLOT_CREATED, (uint64_t) fields->created);
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

void
ksi_format_set_slot_label(struct ksi_slot *slot, const char label[KSI_TEXT_LEN])
{
	memcpy(slot->record + SLOT_LABEL, label, KSI_TEXT_LEN);
}

/* What a slot's tag vouches for besides the KSK: whose it is, and all of the slot before the IV. */
void
ksi_format_slot_aad(const uint8_t uuid[KEYSTORE_UUID_LEN], const struct ksi_slot *slot,
					uint8_t aad[KSI_SLOT_AAD_LEN])
{
	memcpy(aad, uuid, KEYSTORE_UUID_LEN);
	memcpy(aad + KEYSTORE_UUID_LEN, slot->record, SLOT_IV);
	if (ksi_get16(slot->record + SLOT_FLAGS) & KSI_SLOT_FREE_LABEL)
		memset(aad + KEYSTORE_UUID_LEN + SLOT_LABEL, 0, KSI_TEXT_LEN);
}
