/*
 * body.c
 *		The history of master keys, sealed: the body of keystore.ks and the key ring.
 *
 * Also the one way in which a handle takes on new content, ksi_commit().
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "ksi.h"

/* The key of one use: HKDF-SHA256 over the KSK, salted with the keystore's UUID. */
static enum ksi_crypto
derive_key(const struct ksi_sealed *sealed, const uint8_t *ksk, uint8_t key[KEYSTORE_KEY_LEN])
{
	return ksi_hkdf(ksk, KEYSTORE_KEY_LEN, sealed->uuid, KEYSTORE_UUID_LEN,
					(const uint8_t *) sealed->info, strlen(sealed->info), key, KEYSTORE_KEY_LEN);
}

/* Seal keys under the handle's KSK and a fresh IV into where sealed says. */
enum keystore_status
ksi_body_seal(keystore *ks, const struct ksi_sealed *sealed, const struct ksi_key *keys,
			  size_t count)
{
	enum keystore_status status;
	struct ksi_secret plain = {0};
	uint8_t		key[KEYSTORE_KEY_LEN];

	status = ksi_alloc_secret(ks, &plain, sealed->body_len);
	if (status != KEYSTORE_OK)
		goto out;
	ksi_format_put_body(keys, count, plain.ptr);
	if (!ksi_random(sealed->iv, KSI_IV_LEN) ||
		derive_key(sealed, ks->ksk.ptr, key) != KSI_CRYPTO_OK ||
		ksi_gcm_seal(key, sealed->iv, sealed->aad, sealed->aad_len, plain.ptr, plain.len,
					 sealed->body, sealed->tag) != KSI_CRYPTO_OK)
		status = ksi_fail(ks, KEYSTORE_ECRYPTO, "encryption of the keystore failed: %s",
						  ksi_crypto_reason());

out:
	keystore_wipe(key, sizeof(key));
	ksi_secret_free(&plain);
	return status;
}

/*
 * Undo it with the given KSK.  KEYSTORE_EDAMAGED comes without a message, because
 * only the caller knows what it means; *ret_reason then says what is wrong with
 * the content, or is NULL if the tag did not match.
 */
enum keystore_status
ksi_body_open(keystore *ks, const struct ksi_sealed *sealed, const uint8_t *ksk,
			  struct ksi_secret *ret_keys, size_t *ret_count, const char **ret_reason)
{
	enum keystore_status status;
	struct ksi_secret plain = {0};
	struct ksi_secret keys = {0};
	uint8_t		key[KEYSTORE_KEY_LEN];
	enum ksi_crypto result;
	size_t		count;

	*ret_reason = NULL;
	status = ksi_alloc_secret(ks, &plain, sealed->body_len);
	if (status != KEYSTORE_OK)
		goto out;
	result = derive_key(sealed, ksk, key);
	if (result == KSI_CRYPTO_OK)
		result = ksi_gcm_open(key, sealed->iv, sealed->aad, sealed->aad_len, sealed->body,
							  sealed->body_len, plain.ptr, sealed->tag);
	if (result == KSI_CRYPTO_MISMATCH)
	{
		status = KEYSTORE_EDAMAGED;
		goto out;
	}
	if (result != KSI_CRYPTO_OK)
	{
		status = ksi_fail(ks, KEYSTORE_ECRYPTO, "decryption of the keystore failed: %s",
						  ksi_crypto_reason());
		goto out;
	}

	*ret_reason = ksi_format_body_count(plain.ptr, plain.len, &count);
	if (*ret_reason == NULL)
	{
		status = ksi_alloc_secret(ks, &keys, count * sizeof(struct ksi_key));
		if (status != KEYSTORE_OK)
			goto out;
		*ret_reason = ksi_format_get_body(plain.ptr, count, ksi_keys(&keys));
	}
	if (*ret_reason != NULL)
	{
		status = KEYSTORE_EDAMAGED;
		goto out;
	}
	ksi_secret_move(ret_keys, &keys);
	*ret_count = count;

out:
	keystore_wipe(key, sizeof(key));
	ksi_secret_free(&plain);
	ksi_secret_free(&keys);
	return status;
}

/* Where the body lies in a keystore file. */
static void
locate_body(const struct ksi_layout *layout, const uint8_t *uuid, uint8_t *raw,
			struct ksi_sealed *sealed)
{
	sealed->uuid = uuid;
	sealed->info = KSI_INFO_BODY;
	sealed->aad = raw;
	sealed->aad_len = layout->header_len;
	sealed->iv = raw + layout->iv_off;
	sealed->body = raw + layout->body_off;
	sealed->body_len = layout->body_len;
	sealed->tag = raw + layout->tag_off;
}

/* ksi_body_open() on the loaded file. */
enum keystore_status
ksi_open_with(keystore *ks, const uint8_t *ksk, struct ksi_secret *ret_keys, size_t *ret_count,
			  const char **ret_reason)
{
	struct ksi_sealed sealed;

	locate_body(&ks->layout, ks->header.uuid, ks->raw, &sealed);
	return ksi_body_open(ks, &sealed, ksk, ret_keys, ret_count, ret_reason);
}

/*
 * Make the file's bytes for a new header and history, and only when that has
 * succeeded let the handle be them.  The handle's KSK seals; keys is emptied.
 * keys may be NULL: the history stays as it is.
 */
enum keystore_status
ksi_commit(keystore *ks, const struct ksi_header *header, struct ksi_secret *keys,
		   size_t key_count)
{
	enum keystore_status status;
	struct ksi_layout layout;
	struct ksi_sealed sealed;
	uint8_t    *raw;

	if (keys == NULL)
		key_count = ks->key_count;
	if (key_count > KEYSTORE_MAX_MASTER_KEYS)
	{
		(void) ksi_fail(ks, KEYSTORE_ELIMIT,
						"keystore \"%s\" cannot hold more than %d master encryption keys",
						ks->where, KEYSTORE_MAX_MASTER_KEYS);
		return ksi_hint(ks, KEYSTORE_ELIMIT, "Create a new keystore.");
	}
	ksi_format_layout(header, key_count, &layout);
	raw = malloc(layout.file_len);
	if (raw == NULL)
		return ksi_nomem(ks);
	ksi_format_put_header(header, &layout, raw);
	locate_body(&layout, header->uuid, raw, &sealed);
	status = ksi_body_seal(ks, &sealed, ksi_keys(keys != NULL ? keys : &ks->keys), key_count);
	if (status != KEYSTORE_OK)
		goto out;
	if (!ksi_sha256(raw, layout.digest_off, raw + layout.digest_off))
	{
		status = ksi_fail(ks, KEYSTORE_ECRYPTO, "encryption of the keystore failed: %s",
						  ksi_crypto_reason());
		goto out;
	}

	free(ks->raw);
	ks->raw = raw;
	raw = NULL;
	ks->layout = layout;
	ks->header = *header;
	if (keys != NULL)
	{
		ksi_secret_move(&ks->keys, keys);
		ks->key_count = key_count;
	}
	ks->loaded = true;

out:
	free(raw);
	return status;
}
