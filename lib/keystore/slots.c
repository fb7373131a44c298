/*
 * slots.c
 *		The slots of a keystore as a set: added, removed, named, and held to the FIPS
 *		policy.  How one slot is made is slot.c's.
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ksi.h"

/* The start of a multi-byte character: how many bytes follow, and the least character that needs them. */
static int
utf8_follow(unsigned char c, uint32_t *ret_bits, uint32_t *ret_least)
{
	if (c >= 0xc2 && c <= 0xdf)
	{
		*ret_bits = c & 0x1f;
		*ret_least = 0x80;
		return 1;
	}
	if (c >= 0xe0 && c <= 0xef)
	{
		*ret_bits = c & 0x0f;
		*ret_least = 0x800;
		return 2;
	}
	if (c >= 0xf0 && c <= 0xf4)
	{
		*ret_bits = c & 0x07;
		*ret_least = 0x10000;
		return 3;
	}
	return -1;
}

/* UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. */
static bool
is_utf8(const char *text)
{
	const unsigned char *p = (const unsigned char *) text;

	while (*p != 0)
	{
		uint32_t	c,
					least;
		int			follow;

		if (*p < 0x80)
		{
			p++;
			continue;
		}
		follow = utf8_follow(*p++, &c, &least);
		if (follow < 0)
			return false;
		for (; follow > 0; follow--, p++)
		{
			if ((*p & 0xc0) != 0x80)
				return false;
			c = c << 6 | (*p & 0x3f);
		}
		if (c < least || (c >= 0xd800 && c <= 0xdfff) || c > 0x10ffff)
			return false;
	}
	return true;
}

/* What people write goes into messages, tables and JSON, so only text does. */
enum keystore_status
ksi_check_label(keystore *ks, const char *label)
{
	if (strlen(label) > KEYSTORE_LABEL_MAX)
		return ksi_fail(ks, KEYSTORE_EINVAL, "label is longer than %d bytes", KEYSTORE_LABEL_MAX);
	for (const char *p = label; *p != '\0'; p++)
	{
		if ((unsigned char) *p < 0x20 || *p == 0x7f)
			return ksi_fail(ks, KEYSTORE_EINVAL, "label holds a control character");
	}
	if (!is_utf8(label))
		return ksi_fail(ks, KEYSTORE_EINVAL, "label is not valid UTF-8");
	return KEYSTORE_OK;
}

static bool
label_is_taken(const struct ksi_header *header, const char *label, uint32_t except,
			   uint32_t *ret_by)
{
	for (size_t i = 0; i < header->slot_count; i++)
	{
		struct ksi_slot_fields fields;

		ksi_format_get_slot(&header->slots[i], &fields);
		if (fields.id != except && strcmp(fields.label, label) == 0)
		{
			*ret_by = fields.id;
			return true;
		}
	}
	return false;
}

/* Check the label that was asked for, or find one. */
static enum keystore_status
choose_label(keystore *ks, const struct ksi_header *header, const char *label,
			 enum keystore_slot_kind kind, uint32_t except, char ret_label[KSI_TEXT_LEN])
{
	const char *stem = kind == KEYSTORE_SLOT_RECOVERY ? "recovery key" : "passphrase";
	enum keystore_status status;
	uint32_t	by = 0;

	memset(ret_label, 0, KSI_TEXT_LEN);
	if (label == NULL)
	{
		(void) snprintf(ret_label, KSI_TEXT_LEN, "%s", stem);
		for (int n = 2; label_is_taken(header, ret_label, except, &by); n++)
			(void) snprintf(ret_label, KSI_TEXT_LEN, "%s %d", stem, n);
		return KEYSTORE_OK;
	}
	status = ksi_check_label(ks, label);
	if (status != KEYSTORE_OK)
		return status;
	if (label[0] == '\0')
		return ksi_fail(ks, KEYSTORE_EINVAL, "label is empty");
	if (label_is_taken(header, label, except, &by))
		return ksi_fail(ks, KEYSTORE_EEXIST, "slot %u of keystore \"%s\" has the label \"%s\" already",
						by, ks->where, label);
	memcpy(ret_label, label, strlen(label));
	return KEYSTORE_OK;
}

/* A copy of the header, one generation on, to be changed and committed. */
static enum keystore_status
next_header(keystore *ks, struct ksi_header **ret_header)
{
	enum keystore_status status;
	struct ksi_header *header = malloc(sizeof(*header));

	if (header == NULL)
		return ksi_nomem(ks);
	*header = ks->header;
	header->changed = ksi_change_time(ks);
	status = ksi_next_generation(ks, &header->generation);
	if (status == KEYSTORE_OK)
		*ret_header = header;
	else
		free(header);
	return status;
}

static enum keystore_status
find(keystore *ks, uint32_t id, size_t *ret_index, struct ksi_slot_fields *ret_fields)
{
	for (size_t i = 0; i < ks->header.slot_count; i++)
	{
		ksi_format_get_slot(&ks->header.slots[i], ret_fields);
		if (ret_fields->id == id)
		{
			*ret_index = i;
			return KEYSTORE_OK;
		}
	}
	return ksi_fail(ks, KEYSTORE_ENOSLOT, "keystore \"%s\" has no slot %u", ks->where, id);
}

/* ---- adding ---------------------------------------------------------------------------- */

/* Numbers that are free again are not given to others while a higher one is left. */
static uint32_t
free_id(const struct ksi_header *header)
{
	uint32_t	highest = 0;
	uint32_t	id = 0;
	bool		taken = true;

	for (size_t i = 0; i < header->slot_count; i++)
	{
		struct ksi_slot_fields fields;

		ksi_format_get_slot(&header->slots[i], &fields);
		if (fields.id > highest)
			highest = fields.id;
	}
	if (highest < UINT32_MAX)
		return highest + 1;
	while (taken)
	{
		id++;
		taken = false;
		for (size_t i = 0; i < header->slot_count; i++)
		{
			struct ksi_slot_fields fields;

			ksi_format_get_slot(&header->slots[i], &fields);
			taken = taken || fields.id == id;
		}
	}
	return id;
}

static enum keystore_status
add_slot(keystore *ks, enum keystore_slot_kind kind, const char *text, size_t len,
		 const char *label, const struct keystore_kdf_params *kdf, uint32_t *ret_slot_id)
{
	enum keystore_status status;
	struct ksi_header *header = NULL;
	char		chosen[KSI_TEXT_LEN];
	uint32_t	id;

	status = choose_label(ks, &ks->header, label, kind, 0, chosen);
	if (status != KEYSTORE_OK)
		return status;
	if (ks->header.slot_count == KSI_MAX_SLOTS)
	{
		(void) ksi_fail(ks, KEYSTORE_ELIMIT, "keystore \"%s\" cannot hold more than %d slots",
						ks->where, KSI_MAX_SLOTS);
		return ksi_hint(ks, KEYSTORE_ELIMIT, "Remove a slot that is not needed any more.");
	}
	status = next_header(ks, &header);
	if (status != KEYSTORE_OK)
		return status;
	id = free_id(header);
	status = ksi_slot_make(ks, &(struct ksi_new_slot){
		.uuid = header->uuid, .ksk = ks->ksk.ptr, .id = id, .kind = kind, .label = chosen,
		.text = text, .text_len = len, .kdf = kdf, .fips = header->fips
	}, &header->slots[header->slot_count]);
	if (status == KEYSTORE_OK)
	{
		header->slot_count++;
		status = ksi_commit(ks, header, NULL);
	}
	if (status == KEYSTORE_OK)
		*ret_slot_id = id;
	free(header);
	return status;
}

enum keystore_status
keystore_add_passphrase(keystore *ks, const char *passphrase, size_t len, const char *label,
						const struct keystore_kdf_params *kdf, uint32_t *ret_slot_id)
{
	enum keystore_status status = ksi_need_open(ks);

	if (status == KEYSTORE_OK)
		status = ksi_check_passphrase(ks, len);
	if (status == KEYSTORE_OK)
		status = add_slot(ks, KEYSTORE_SLOT_PASSPHRASE, passphrase, len, label, kdf, ret_slot_id);
	return status;
}

enum keystore_status
keystore_add_recovery_key(keystore *ks, const char *label, const struct keystore_kdf_params *kdf,
						  char ret_text[KEYSTORE_RECOVERY_STRLEN + 1], uint32_t *ret_slot_id)
{
	enum keystore_status status = ksi_need_open(ks);
	char		text[KEYSTORE_RECOVERY_STRLEN + 1];
	char		canonical[KSI_RECOVERY_LEN];

	if (status != KEYSTORE_OK)
		return status;
	if (!ksi_recovery_make(text, canonical))
	{
		status = ksi_fail(ks, KEYSTORE_ECRYPTO, "could not generate a random key: %s",
						  ksi_crypto_reason());
		goto out;
	}
	status = add_slot(ks, KEYSTORE_SLOT_RECOVERY, canonical, sizeof(canonical), label, kdf,
					  ret_slot_id);
	if (status == KEYSTORE_OK)
		memcpy(ret_text, text, sizeof(text));

out:
	keystore_wipe(text, sizeof(text));
	keystore_wipe(canonical, sizeof(canonical));
	return status;
}

/* ---- changing and removing --------------------------------------------------------------- */

enum keystore_status
keystore_change_slot(keystore *ks, uint32_t id, const char *passphrase, size_t len,
					 const struct keystore_kdf_params *kdf)
{
	enum keystore_status status = ksi_need_open(ks);
	struct ksi_slot_fields fields;
	struct ksi_header *header = NULL;
	size_t		index = 0;

	if (status == KEYSTORE_OK)
		status = ksi_check_passphrase(ks, len);
	if (status == KEYSTORE_OK)
		status = find(ks, id, &index, &fields);
	if (status != KEYSTORE_OK)
		return status;
	if (fields.kind != KEYSTORE_SLOT_PASSPHRASE)
		return ksi_fail(ks, KEYSTORE_EINVAL, "slot %u of keystore \"%s\" is not for a passphrase",
						id, ks->where);
	status = next_header(ks, &header);
	if (status != KEYSTORE_OK)
		return status;
	status = ksi_slot_make(ks, &(struct ksi_new_slot){
		.uuid = header->uuid, .ksk = ks->ksk.ptr, .id = id, .kind = KEYSTORE_SLOT_PASSPHRASE,
		.label = fields.label, .text = passphrase, .text_len = len, .kdf = kdf,
		.fips = header->fips
	}, &header->slots[index]);
	if (status == KEYSTORE_OK)
		status = ksi_commit(ks, header, NULL);
	free(header);
	return status;
}

/* Whoever holds what the slot takes can open the keystore with this build. */
static bool
is_way_in(const struct ksi_slot *slot)
{
	struct ksi_slot_fields fields;

	if (!ksi_format_slot_is_ours(slot))
		return false;
	ksi_format_get_slot(slot, &fields);
	return keystore_kdf_available(fields.kdf.kdf);
}

enum keystore_status
keystore_remove_slot(keystore *ks, uint32_t id)
{
	enum keystore_status status = ksi_need_open(ks);
	struct ksi_slot_fields fields;
	struct ksi_header *header = NULL;
	size_t		index = 0;
	size_t		ways = 0;

	if (status == KEYSTORE_OK)
		status = find(ks, id, &index, &fields);
	if (status != KEYSTORE_OK)
		return status;
	for (size_t i = 0; i < ks->header.slot_count; i++)
		ways += i != index && is_way_in(&ks->header.slots[i]);
	if (ways == 0)
	{
		(void) ksi_fail(ks, KEYSTORE_ELASTSLOT,
						"slot %u is the last way to open keystore \"%s\"", id, ks->where);
		return ksi_hint(ks, KEYSTORE_ELASTSLOT, "Add a passphrase or a recovery key first.");
	}
	status = next_header(ks, &header);
	if (status != KEYSTORE_OK)
		return status;
	header->slot_count--;
	memmove(&header->slots[index], &header->slots[index + 1],
			(header->slot_count - index) * sizeof(header->slots[0]));
	status = ksi_commit(ks, header, NULL);
	free(header);
	return status;
}

enum keystore_status
keystore_set_slot_label(keystore *ks, uint32_t id, const char *label)
{
	enum keystore_status status = ksi_need_open(ks);
	struct ksi_slot_fields fields;
	struct ksi_header *header = NULL;
	char		chosen[KSI_TEXT_LEN];
	size_t		index = 0;

	if (status == KEYSTORE_OK)
		status = find(ks, id, &index, &fields);
	if (status == KEYSTORE_OK)
		status = choose_label(ks, &ks->header, label, (enum keystore_slot_kind) fields.kind, id,
							  chosen);
	if (status != KEYSTORE_OK)
		return status;
	if (!(fields.flags & KSI_SLOT_FREE_LABEL))
	{
		/* Its tag vouches for the label too, and a new tag takes the passphrase. */
		(void) ksi_fail(ks, KEYSTORE_EINVAL,
						"slot %u of keystore \"%s\" cannot be renamed: it is of format version 1",
						id, ks->where);
		return ksi_hint(ks, KEYSTORE_EINVAL, "Change its passphrase first.");
	}
	status = next_header(ks, &header);
	if (status != KEYSTORE_OK)
		return status;
	ksi_format_set_slot_label(&header->slots[index], chosen);
	status = ksi_commit(ks, header, NULL);
	free(header);
	return status;
}

/* ---- the FIPS policy --------------------------------------------------------------------- */

enum keystore_status
keystore_set_fips(keystore *ks, bool fips)
{
	enum keystore_status status = ksi_need_open(ks);
	struct ksi_header *header = NULL;

	if (status != KEYSTORE_OK || ks->header.fips == fips)
		return status;
	for (size_t i = 0; fips && i < ks->header.slot_count; i++)
	{
		struct ksi_slot_fields fields;

		if (ksi_format_slot_is_fips(&ks->header.slots[i]))
			continue;
		ksi_format_get_slot(&ks->header.slots[i], &fields);
		(void) ksi_fail(ks, KEYSTORE_EPOLICY,
						"slot %u (\"%s\") of keystore \"%s\" does not use %s", fields.id,
						fields.label, ks->where, ksi_kdf_name(KEYSTORE_KDF_PBKDF2_SHA512));
		return ksi_hint(ks, KEYSTORE_EPOLICY, "Change its passphrase, or remove the slot.");
	}
	status = next_header(ks, &header);
	if (status != KEYSTORE_OK)
		return status;
	header->fips = fips;
	status = ksi_commit(ks, header, NULL);
	free(header);
	return status;
}
