/*
 * body.c
 *		The history of keys, in memory and sealed: the body of keystore.ks and the
 *		key ring.
 *
 * Also the one way in which a handle takes on new content, ksi_commit().
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "ksi.h"

/* ---- the history in memory -------------------------------------------------------- */

struct ksi_key *
ksi_keys(const struct ksi_history *history)
{
	/* It ends a page, and its size is a multiple of 8. */
	return (struct ksi_key *) (void *) history->keys.ptr;
}

struct ksi_former *
ksi_formers(const struct ksi_history *history)
{
	return (struct ksi_former *) (void *) history->formers.ptr;
}

void
ksi_history_free(struct ksi_history *history)
{
	ksi_secret_free(&history->keys);
	ksi_secret_free(&history->formers);
	history->key_count = 0;
	history->former_count = 0;
}

/* Hand over what from holds; what to held is wiped. */
void
ksi_history_move(struct ksi_history *to, struct ksi_history *from)
{
	ksi_secret_move(&to->keys, &from->keys);
	ksi_secret_move(&to->formers, &from->formers);
	to->key_count = from->key_count;
	to->former_count = from->former_count;
	from->key_count = 0;
	from->former_count = 0;
}

/* Room for so many, zeroed.  The history was empty. */
enum keystore_status
ksi_history_alloc(keystore *ks, struct ksi_history *history, size_t key_count, size_t former_count)
{
	enum keystore_status status;

	status = ksi_alloc_secret(ks, &history->keys, key_count * sizeof(struct ksi_key));
	if (status == KEYSTORE_OK && former_count > 0)
		status = ksi_alloc_secret(ks, &history->formers, former_count * sizeof(struct ksi_former));
	if (status != KEYSTORE_OK)
	{
		ksi_history_free(history);
		return status;
	}
	history->key_count = key_count;
	history->former_count = former_count;
	return KEYSTORE_OK;
}

/* A copy of the handle's own, to be changed and committed. */
enum keystore_status
ksi_history_copy(keystore *ks, struct ksi_history *ret_copy)
{
	const struct ksi_history *own = &ks->history;
	enum keystore_status status;

	status = ksi_history_alloc(ks, ret_copy, own->key_count, own->former_count);
	if (status != KEYSTORE_OK)
		return status;
	memcpy(ret_copy->keys.ptr, own->keys.ptr, own->keys.len);
	if (own->former_count > 0)
		memcpy(ret_copy->formers.ptr, own->formers.ptr, own->formers.len);
	return KEYSTORE_OK;
}

/*
 * What tells a key from others without telling its bytes, so that it can stand where the key
 * must not: with a tombstone, and in the clear.
 */
enum ksi_crypto
ksi_identity(const uint8_t key[KEYSTORE_KEY_LEN], const uint8_t uuid[KEYSTORE_UUID_LEN],
			 const char *info, uint8_t ret_identity[KSI_IDENTITY_LEN])
{
	return ksi_hkdf(key, KEYSTORE_KEY_LEN, uuid, KEYSTORE_UUID_LEN, (const uint8_t *) info,
					strlen(info), ret_identity, KSI_IDENTITY_LEN);
}

/* Version 1 did not write identities. */
static bool
add_identities(struct ksi_history *history, const uint8_t *uuid)
{
	for (size_t i = 0; i < history->key_count; i++)
	{
		struct ksi_key *key = &ksi_keys(history)[i];

		if (key->state != KEYSTORE_KEY_DESTROYED &&
			ksi_identity(key->key, uuid, KSI_INFO_KEY_IDENTITY, key->identity) != KSI_CRYPTO_OK)
			return false;
	}
	return true;
}

/* ---- sealed ------------------------------------------------------------------------- */

/* The key of one use: HKDF-SHA256 over the KSK, salted with the keystore's UUID. */
static enum ksi_crypto
derive_key(const struct ksi_sealed *sealed, const uint8_t *ksk, uint8_t key[KEYSTORE_KEY_LEN])
{
	return ksi_hkdf(ksk, KEYSTORE_KEY_LEN, sealed->uuid, KEYSTORE_UUID_LEN,
					(const uint8_t *) sealed->info, strlen(sealed->info), key, KEYSTORE_KEY_LEN);
}

/* Seal a history under the KSK and a fresh IV into where sealed says. */
enum keystore_status
ksi_body_seal(keystore *ks, const struct ksi_sealed *sealed, const uint8_t *ksk,
			  const struct ksi_history *history)
{
	enum keystore_status status;
	struct ksi_secret plain = {0};
	uint8_t		key[KEYSTORE_KEY_LEN];

	status = ksi_alloc_secret(ks, &plain, sealed->body_len);
	if (status != KEYSTORE_OK)
		goto out;
	ksi_format_put_body(history, plain.ptr);
	if (!ksi_random(sealed->iv, KSI_IV_LEN) ||
		derive_key(sealed, ksk, key) != KSI_CRYPTO_OK ||
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
			  struct ksi_history *ret_history, const char **ret_reason)
{
	enum keystore_status status;
	struct ksi_secret plain = {0};
	struct ksi_history history = {0};
	uint8_t		key[KEYSTORE_KEY_LEN];
	enum ksi_crypto result;
	size_t		key_count,
				former_count;

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

	*ret_reason = ksi_format_body_count(sealed->version, plain.ptr, plain.len, &key_count,
										&former_count);
	if (*ret_reason == NULL)
	{
		status = ksi_history_alloc(ks, &history, key_count, former_count);
		if (status != KEYSTORE_OK)
			goto out;
		*ret_reason = ksi_format_get_body(sealed->version, plain.ptr, &history);
	}
	if (*ret_reason != NULL)
	{
		status = KEYSTORE_EDAMAGED;
		goto out;
	}
	if (sealed->version == KSI_FORMAT_V1 && !add_identities(&history, sealed->uuid))
	{
		status = ksi_fail(ks, KEYSTORE_ECRYPTO, "decryption of the keystore failed: %s",
						  ksi_crypto_reason());
		goto out;
	}
	ksi_history_move(ret_history, &history);

out:
	keystore_wipe(key, sizeof(key));
	ksi_secret_free(&plain);
	ksi_history_free(&history);
	return status;
}

/* Where the body lies in a keystore file. */
static void
locate_body(const struct ksi_layout *layout, uint16_t version, const uint8_t *uuid, uint8_t *raw,
			struct ksi_sealed *sealed)
{
	sealed->version = version;
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
ksi_open_with(keystore *ks, const uint8_t *ksk, struct ksi_history *ret_history,
			  const char **ret_reason)
{
	struct ksi_sealed sealed;

	locate_body(&ks->layout, ks->header.version, ks->header.uuid, ks->raw, &sealed);
	return ksi_body_open(ks, &sealed, ksk, ret_history, ret_reason);
}

/*
 * Make the file's bytes for a new header and history, and only when that has
 * succeeded let the handle be them.  ksk seals and becomes the handle's; NULL is the one
 * that it has.  history and ksk are emptied.  history may be NULL: it stays as it is.
 */
enum keystore_status
ksi_commit_rekeyed(keystore *ks, const struct ksi_header *header, struct ksi_history *history,
				   struct ksi_secret *ksk)
{
	enum keystore_status status;
	const struct ksi_history *content = history != NULL ? history : &ks->history;
	const uint8_t *key = ksk != NULL ? ksk->ptr : ks->ksk.ptr;
	struct ksi_header *made = NULL;
	struct ksi_layout layout;
	struct ksi_sealed sealed;
	uint8_t    *raw = NULL;

	if (content->key_count > KEYSTORE_MAX_MASTER_KEYS)
	{
		(void) ksi_fail(ks, KEYSTORE_ELIMIT,
						"keystore \"%s\" cannot hold more than %d master encryption keys",
						ks->where, KEYSTORE_MAX_MASTER_KEYS);
		return ksi_hint(ks, KEYSTORE_ELIMIT, "Create a new keystore.");
	}
	ksi_format_layout(header, content, &layout);
	made = malloc(sizeof(*made));
	raw = malloc(layout.file_len);
	if (made == NULL || raw == NULL)
	{
		status = ksi_nomem(ks);
		goto out;
	}
	*made = *header;
	made->version = KSI_FORMAT_V2;
	if (ksi_identity(key, made->uuid, KSI_INFO_KSK_IDENTITY, made->ksk_identity) != KSI_CRYPTO_OK)
	{
		status = ksi_fail(ks, KEYSTORE_ECRYPTO, "encryption of the keystore failed: %s",
						  ksi_crypto_reason());
		goto out;
	}
	ksi_format_put_header(made, &layout, raw);
	locate_body(&layout, made->version, made->uuid, raw, &sealed);
	status = ksi_body_seal(ks, &sealed, key, content);
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
	ks->header = *made;
	if (history != NULL)
		ksi_history_move(&ks->history, history);
	if (ksk != NULL)
		ksi_secret_move(&ks->ksk, ksk);
	ks->loaded = true;

out:
	free(made);
	free(raw);
	return status;
}

enum keystore_status
ksi_commit(keystore *ks, const struct ksi_header *header, struct ksi_history *history)
{
	return ksi_commit_rekeyed(ks, header, history, NULL);
}
