/*
 * slot.c
 *		Passphrase slots: the keystore key (KSK) wrapped under what a passphrase yields.
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
static enum keystore_status
fail_kdf(keystore *ks, enum ksi_crypto result, const struct keystore_kdf_params *kdf)
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

/* Make a slot for the handle's KSK.  The passphrase's length has been checked. */
enum keystore_status
ksi_slot_make(keystore *ks, const uint8_t uuid[KEYSTORE_UUID_LEN], uint32_t id,
			  const char *label, const char *pass, size_t pass_len,
			  const struct keystore_kdf_params *kdf, struct ksi_slot *ret_slot)
{
	enum keystore_status status = KEYSTORE_OK;
	struct ksi_slot_fields fields;
	uint8_t		aad[KSI_SLOT_AAD_LEN];
	uint8_t		key[KEYSTORE_KEY_LEN];
	enum ksi_crypto result;
	const char *reason;

	memset(&fields, 0, sizeof(fields));
	fields.id = id;
	fields.kind = KEYSTORE_SLOT_PASSPHRASE;
	fields.flags = KSI_SLOT_CRITICAL;
	fields.created = (int64_t) time(NULL);
	memcpy(fields.label, label, strnlen(label, KSI_TEXT_LEN - 1));
	fields.kdf = kdf != NULL ? *kdf : ksi_kdf_default;
	normalize_kdf(&fields.kdf);
	reason = ksi_kdf_check(&fields.kdf, true);
	if (reason != NULL)
		return ksi_fail(ks, KEYSTORE_EINVAL, "passphrase-based key derivation failed: %s", reason);

	if (!ksi_random(fields.salt, KSI_SALT_LEN) || !ksi_random(fields.iv, KSI_IV_LEN))
	{
		status = ksi_fail(ks, KEYSTORE_ECRYPTO, "could not generate a random key: %s",
						  ksi_crypto_reason());
		goto out;
	}
	result = ksi_kdf_derive(&fields.kdf, pass, pass_len, fields.salt, KSI_SALT_LEN, key,
							sizeof(key));
	if (result != KSI_CRYPTO_OK)
	{
		status = fail_kdf(ks, result, &fields.kdf);
		goto out;
	}

	/* The associated data is the slot's own beginning, so lay that out first. */
	ksi_format_put_slot(&fields, ret_slot);
	ksi_format_slot_aad(uuid, ret_slot, aad);
	if (ksi_gcm_seal(key, fields.iv, aad, sizeof(aad), ks->ksk.ptr, KEYSTORE_KEY_LEN,
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

/*
 * The first slot that the passphrase opens.  A slot whose KDF is not available
 * decides the status only if no other one opens.
 */
static enum keystore_status
find_slot(keystore *ks, const char *pass, size_t pass_len, uint8_t ret_ksk[KEYSTORE_KEY_LEN],
		  size_t *ret_index)
{
	enum keystore_status status = KEYSTORE_OK;

	for (size_t i = 0; i < ks->header.slot_count; i++)
	{
		const struct ksi_slot *slot = &ks->header.slots[i];
		struct ksi_slot_fields fields;
		enum ksi_crypto result;
		bool		kdf_failed;

		if (!ksi_format_slot_is_ours(slot))
			continue;
		ksi_format_get_slot(slot, &fields);
		result = unwrap(ks->header.uuid, slot, &fields, pass, pass_len, ret_ksk, &kdf_failed);
		if (result == KSI_CRYPTO_OK)
		{
			ksi_clear_error(ks);
			*ret_index = i;
			return KEYSTORE_OK;
		}
		if (kdf_failed)
			status = fail_kdf(ks, result, &fields.kdf);
		else if (result != KSI_CRYPTO_MISMATCH)
			status = ksi_fail(ks, KEYSTORE_ECRYPTO, "decryption of the keystore failed: %s",
							  ksi_crypto_reason());
		if (status != KEYSTORE_OK && status != KEYSTORE_EKDF)
			return status;
	}
	if (status == KEYSTORE_OK)
		status = ksi_fail(ks, KEYSTORE_EPASSPHRASE,
						  "could not open keystore \"%s\": passphrase is wrong", ks->where);
	return status;
}

/* Open the handle with a passphrase; *ret_index is the slot that did it. */
static enum keystore_status
open_passphrase(keystore *ks, const char *pass, size_t pass_len, size_t *ret_index)
{
	enum keystore_status status;
	struct ksi_secret ksk = {0};

	status = ksi_need_loaded(ks);
	if (status == KEYSTORE_OK)
		status = ksi_check_passphrase(ks, pass_len);
	if (status != KEYSTORE_OK)
		return status;
	status = ksi_alloc_secret(ks, &ksk, KEYSTORE_KEY_LEN);
	if (status != KEYSTORE_OK)
		goto out;
	status = find_slot(ks, pass, pass_len, ksk.ptr, ret_index);
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
	status = ksi_slot_make(ks, header->uuid, fields.id, fields.label, new_passphrase, new_len,
						   kdf, &header->slots[index]);
	if (status != KEYSTORE_OK)
		goto out;
	status = ksi_next_generation(ks, &header->generation);
	if (status != KEYSTORE_OK)
		goto out;
	header->changed = (int64_t) time(NULL);
	status = ksi_commit(ks, header, NULL, 0);

out:
	free(header);
	if (status != KEYSTORE_OK && !was_open)
		keystore_close(ks);
	return status;
}
