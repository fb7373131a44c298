/*
 * slot.c
 *		A slot: the keystore key (KSK) wrapped under what a passphrase or a recovery key
 *		yields.  Made, tried, and replaced by keystore_change_passphrase().
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ksi.h"

enum keystore_status
ksi_check_passphrase(keystore *ks, size_t len)
{
	if (len >= KEYSTORE_PASSPHRASE_MIN && len <= KEYSTORE_PASSPHRASE_MAX)
		return KEYSTORE_OK;
	(void) ksi_fail(ks, KEYSTORE_EPASSLEN, "passphrase is too short or too long");
	return ksi_hint(ks, KEYSTORE_EPASSLEN,
					"The length of the passphrase must be between %d and %d bytes.",
					KEYSTORE_PASSPHRASE_MIN, KEYSTORE_PASSPHRASE_MAX);
}

/* Turn what the primitives say about a KDF into a status; never "wrong passphrase". */
enum keystore_status
ksi_kdf_fail(keystore *ks, enum ksi_crypto result, const struct keystore_kdf_params *kdf)
{
	const char *name = ksi_kdf_name((uint32_t) kdf->kdf);

	if (result == KSI_CRYPTO_NOMEM)
		return ksi_fail(ks, KEYSTORE_ENOMEM,
						"passphrase-based key derivation failed: out of memory");
	if (result != KSI_CRYPTO_UNAVAILABLE)
		return ksi_fail(ks, KEYSTORE_ECRYPTO, "passphrase-based key derivation failed: %s",
						ksi_crypto_reason());
	(void) ksi_crypto_reason();	/* leave no error behind */
	if (name == NULL)
		(void) ksi_fail(ks, KEYSTORE_EKDF,
						"passphrase-based key derivation failed: function number %u is not known",
						(unsigned) kdf->kdf);
	else
		(void) ksi_fail(ks, KEYSTORE_EKDF,
						"passphrase-based key derivation failed: %s is not available", name);
	return ksi_hint(ks, KEYSTORE_EKDF,
					"Use a libcrypto that provides the function, or change the passphrase where the keystore opens.");
}

/* Parameters that the function has no use for are stored as zero, whatever they were. */
static void
normalize_kdf(struct keystore_kdf_params *kdf)
{
	if (kdf->kdf != KEYSTORE_KDF_ARGON2ID)
		kdf->memory_kib = 0;
	if (kdf->kdf != KEYSTORE_KDF_SCRYPT)
		kdf->block_size = 0;
	if (kdf->kdf == KEYSTORE_KDF_PBKDF2_SHA512)
		kdf->parallelism = 0;
}

/* Under the FIPS policy there is one function, and it is the default too. */
static enum keystore_status
choose_kdf(keystore *ks, const struct ksi_new_slot *new_slot, struct keystore_kdf_params *ret_kdf)
{
	struct keystore_kdf_params kdf;
	const char *reason;

	if (new_slot->kdf != NULL)
		kdf = *new_slot->kdf;
	else
		kdf = new_slot->fips ? ksi_kdf_default_fips : ksi_kdf_default;
	normalize_kdf(&kdf);
	reason = ksi_kdf_check(&kdf, !new_slot->as_before);
	if (reason != NULL)
		return ksi_fail(ks, KEYSTORE_EINVAL, "passphrase-based key derivation failed: %s", reason);
	if (new_slot->fips && kdf.kdf != KEYSTORE_KDF_PBKDF2_SHA512)
	{
		(void) ksi_fail(ks, KEYSTORE_EPOLICY,
						"the FIPS policy of keystore \"%s\" forbids %s", ks->where,
						ksi_kdf_name((uint32_t) kdf.kdf));
		return ksi_hint(ks, KEYSTORE_EPOLICY, "Use %s.",
						ksi_kdf_name(KEYSTORE_KDF_PBKDF2_SHA512));
	}
	*ret_kdf = kdf;
	return KEYSTORE_OK;
}

/* The length of a passphrase and the label have been checked. */
enum keystore_status
ksi_slot_make(keystore *ks, const struct ksi_new_slot *new_slot, struct ksi_slot *ret_slot)
{
	enum keystore_status status;
	struct ksi_slot_fields fields;
	uint8_t		aad[KSI_SLOT_AAD_LEN];
	uint8_t		key[KEYSTORE_KEY_LEN];
	enum ksi_crypto result;

	memset(&fields, 0, sizeof(fields));
	fields.id = new_slot->id;
	fields.kind = (uint16_t) new_slot->kind;
	fields.flags = KSI_SLOT_CRITICAL | KSI_SLOT_FREE_LABEL;
	fields.created = (int64_t) time(NULL);
	memcpy(fields.label, new_slot->label, strnlen(new_slot->label, KSI_TEXT_LEN - 1));
	status = choose_kdf(ks, new_slot, &fields.kdf);
	if (status != KEYSTORE_OK)
		return status;

	if (!ksi_random(fields.salt, KSI_SALT_LEN) || !ksi_random(fields.iv, KSI_IV_LEN))
	{
		status = ksi_fail(ks, KEYSTORE_ECRYPTO, "could not generate a random key: %s",
						  ksi_crypto_reason());
		goto out;
	}
	result = ksi_kdf_derive(&fields.kdf, new_slot->text, new_slot->text_len, fields.salt,
							KSI_SALT_LEN, key, sizeof(key));
	if (result != KSI_CRYPTO_OK)
	{
		status = ksi_kdf_fail(ks, result, &fields.kdf);
		goto out;
	}

	/* The associated data is the slot's own beginning, so lay that out first. */
	ksi_format_put_slot(&fields, ret_slot);
	ksi_format_slot_aad(new_slot->uuid, ret_slot, aad);
	if (ksi_gcm_seal(key, fields.iv, aad, sizeof(aad), new_slot->ksk, KEYSTORE_KEY_LEN,
					 fields.wrapped, fields.tag) != KSI_CRYPTO_OK)
	{
		status = ksi_fail(ks, KEYSTORE_ECRYPTO, "encryption of the keystore failed: %s",
						  ksi_crypto_reason());
		goto out;
	}
	ksi_format_put_slot(&fields, ret_slot);

out:
	keystore_wipe(key, sizeof(key));
	return status;
}

void
ksi_slot_info(const struct ksi_slot_fields *fields, struct keystore_slot_info *ret_info)
{
	memset(ret_info, 0, sizeof(*ret_info));
	ret_info->id = fields->id;
	ret_info->kind = (enum keystore_slot_kind) fields->kind;
	memcpy(ret_info->label, fields->label, sizeof(ret_info->label));
	ret_info->kdf = fields->kdf;
	ret_info->created = fields->created;
}

/* KSI_CRYPTO_MISMATCH: this passphrase does not open this slot. */
static enum ksi_crypto
unwrap(const uint8_t uuid[KEYSTORE_UUID_LEN], const struct ksi_slot *slot,
	   const struct ksi_slot_fields *fields, const char *pass, size_t pass_len,
	   uint8_t ret_ksk[KEYSTORE_KEY_LEN], bool *ret_kdf_failed)
{
	uint8_t		aad[KSI_SLOT_AAD_LEN];
	uint8_t		key[KEYSTORE_KEY_LEN];
	enum ksi_crypto result;

	result = ksi_kdf_derive(&fields->kdf, pass, pass_len, fields->salt, KSI_SALT_LEN, key,
							sizeof(key));
	*ret_kdf_failed = result != KSI_CRYPTO_OK;
	if (result == KSI_CRYPTO_OK)
	{
		ksi_format_slot_aad(uuid, slot, aad);
		result = ksi_gcm_open(key, fields->iv, aad, sizeof(aad), fields->wrapped,
							  KEYSTORE_KEY_LEN, ret_ksk, fields->tag);
	}
	keystore_wipe(key, sizeof(key));
	return result;
}

/* How a text that opens nothing is called depends on what it looks like. */
static enum keystore_status
fail_to_open(keystore *ks, int recovery)
{
	bool		has_recovery = false;

	for (size_t i = 0; i < ks->header.slot_count; i++)
	{
		struct ksi_slot_fields fields;

		ksi_format_get_slot(&ks->header.slots[i], &fields);
		has_recovery = has_recovery || fields.kind == KEYSTORE_SLOT_RECOVERY;
	}
	if (recovery == 0 || !has_recovery)
		return ksi_fail(ks, KEYSTORE_EPASSPHRASE,
						"could not open keystore \"%s\": passphrase is wrong", ks->where);
	if (recovery < 0)
		return ksi_fail(ks, KEYSTORE_EPASSPHRASE,
						"could not open keystore \"%s\": recovery key is wrong", ks->where);
	(void) ksi_fail(ks, KEYSTORE_EPASSPHRASE,
					"could not open keystore \"%s\": group %d of the recovery key is mistyped",
					ks->where, recovery);
	return ksi_hint(ks, KEYSTORE_EPASSPHRASE,
					"Compare the group with what was written down, and type the recovery key again.");
}

/*
 * Try the slots of one kind.  KEYSTORE_EPASSPHRASE, without a message, if none opens; a slot whose
 * KDF is not available decides the status only then.
 */
static enum keystore_status
try_slots(keystore *ks, enum keystore_slot_kind kind, const char *text, size_t len,
		  uint8_t ret_ksk[KEYSTORE_KEY_LEN], size_t *ret_index)
{
	enum keystore_status status = KEYSTORE_EPASSPHRASE;

	for (size_t i = 0; i < ks->header.slot_count; i++)
	{
		const struct ksi_slot *slot = &ks->header.slots[i];
		struct ksi_slot_fields fields;
		enum ksi_crypto result;
		bool		kdf_failed;

		ksi_format_get_slot(slot, &fields);
		if (fields.kind != kind)
			continue;
		result = unwrap(ks->header.uuid, slot, &fields, text, len, ret_ksk, &kdf_failed);
		if (result == KSI_CRYPTO_OK)
		{
			ksi_clear_error(ks);
			*ret_index = i;
			return KEYSTORE_OK;
		}
		if (kdf_failed)
			status = ksi_kdf_fail(ks, result, &fields.kdf);
		else if (result != KSI_CRYPTO_MISMATCH)
			status = ksi_fail(ks, KEYSTORE_ECRYPTO, "decryption of the keystore failed: %s",
							  ksi_crypto_reason());
		if (status != KEYSTORE_EPASSPHRASE && status != KEYSTORE_EKDF)
			return status;
	}
	return status;
}

/*
 * The slot that the text opens.  A sound recovery key is tried as one first; but somebody may have
 * chosen a passphrase that looks like one, so it is tried as that too.
 */
enum keystore_status
ksi_slot_find(keystore *ks, const char *text, size_t len, uint8_t ret_ksk[KEYSTORE_KEY_LEN],
			  size_t *ret_index)
{
	enum keystore_status status = KEYSTORE_EPASSPHRASE;
	enum keystore_status second;
	char		canonical[KSI_RECOVERY_LEN];
	int			recovery = ksi_recovery_parse(text, len, canonical);

	if (recovery < 0)
		status = try_slots(ks, KEYSTORE_SLOT_RECOVERY, canonical, sizeof(canonical), ret_ksk,
						   ret_index);
	keystore_wipe(canonical, sizeof(canonical));
	if (status != KEYSTORE_EPASSPHRASE && status != KEYSTORE_EKDF)
		return status;
	second = try_slots(ks, KEYSTORE_SLOT_PASSPHRASE, text, len, ret_ksk, ret_index);
	if (second != KEYSTORE_EPASSPHRASE)
		status = second;
	return status == KEYSTORE_EPASSPHRASE ? fail_to_open(ks, recovery) : status;
}

/* Open the handle with a passphrase; *ret_index is the slot that did it. */
static enum keystore_status
open_passphrase(keystore *ks, const char *pass, size_t pass_len, size_t *ret_index)
{
	enum keystore_status status;
	struct ksi_slot_fields fields;
	struct ksi_secret ksk = {0};

	status = ksi_need_loaded(ks);
	if (status == KEYSTORE_OK)
		status = ksi_check_passphrase(ks, pass_len);
	if (status != KEYSTORE_OK)
		return status;
	status = ksi_alloc_secret(ks, &ksk, KEYSTORE_KEY_LEN);
	if (status != KEYSTORE_OK)
		goto out;
	status = ksi_slot_find(ks, pass, pass_len, ksk.ptr, ret_index);
	if (status != KEYSTORE_OK)
		goto out;

	/* The slot vouches for this KSK, so a body that it does not open was altered. */
	status = keystore_open_ksk(ks, ksk.ptr);
	if (status == KEYSTORE_EWRONGKEY)
	{
		(void) ksi_fail(ks, KEYSTORE_EDAMAGED,
						"keystore \"%s\" is corrupted: its content was altered", ks->where);
		status = ksi_hint(ks, KEYSTORE_EDAMAGED,
						  "Restore the keystore from its \"%s\" or from another server.",
						  KEYSTORE_PREV_NAME);
	}
	if (status == KEYSTORE_OK)
	{
		ksi_format_get_slot(&ks->header.slots[*ret_index], &fields);
		ks->opened_slot = fields.id;
	}

out:
	ksi_secret_free(&ksk);
	return status;
}

enum keystore_status
keystore_open_passphrase(keystore *ks, const char *passphrase, size_t len)
{
	size_t		index;

	return open_passphrase(ks, passphrase, len, &index);
}

/* The slot keeps its number and label; everything else in it is new. */
enum keystore_status
keystore_change_passphrase(keystore *ks, const char *old_passphrase, size_t old_len,
						   const char *new_passphrase, size_t new_len,
						   const struct keystore_kdf_params *kdf)
{
	enum keystore_status status;
	bool		was_open;
	struct ksi_header *header = NULL;
	struct ksi_slot_fields fields;
	size_t		index = 0;

	status = ksi_need_loaded(ks);
	if (status == KEYSTORE_OK)
		status = ksi_check_passphrase(ks, new_len);
	if (status != KEYSTORE_OK)
		return status;
	was_open = keystore_is_open(ks);
	status = open_passphrase(ks, old_passphrase, old_len, &index);
	if (status != KEYSTORE_OK)
		return status;

	header = malloc(sizeof(*header));
	if (header == NULL)
	{
		status = ksi_nomem(ks);
		goto out;
	}
	*header = ks->header;
	ksi_format_get_slot(&header->slots[index], &fields);
	if (fields.kind != KEYSTORE_SLOT_PASSPHRASE)
	{
		(void) ksi_fail(ks, KEYSTORE_EINVAL,
						"slot %u of keystore \"%s\" is opened by a recovery key, which cannot be changed",
						fields.id, ks->where);
		status = ksi_hint(ks, KEYSTORE_EINVAL,
						  "Add a passphrase or another recovery key, then remove the slot.");
		goto out;
	}
	status = ksi_slot_make(ks, &(struct ksi_new_slot){
		.uuid = header->uuid, .ksk = ks->ksk.ptr, .id = fields.id,
		.kind = KEYSTORE_SLOT_PASSPHRASE, .label = fields.label, .text = new_passphrase,
		.text_len = new_len, .kdf = kdf, .fips = header->fips
	}, &header->slots[index]);
	if (status != KEYSTORE_OK)
		goto out;
	status = ksi_next_generation(ks, &header->generation);
	if (status != KEYSTORE_OK)
		goto out;
	header->changed = ksi_change_time(ks);
	status = ksi_commit(ks, header, NULL);

out:
	free(header);
	if (status != KEYSTORE_OK && !was_open)
		keystore_close(ks);
	return status;
}
