/*
 * envelope.c
 *		What carries a new keystore key (KSK) to those who have the old one; and keystore.rekey, the
 *		file that has it for as long as a rekey is being stored.
 */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ksi.h"

#define INFO_ENVELOPE		"pgx keystore rekey"

#define MAGIC_LEN			8
static const uint8_t envelope_magic[MAGIC_LEN] = {'P', 'G', 'X', 'K', 'E', '\r', '\n', 0x1a};

#define ENVELOPE_VERSION	1
#define ENV_VERSION			8
#define ENV_FLAGS			10
#define ENV_RESERVED		12
#define ENV_UUID			16
#define ENV_GENERATION		32
#define ENV_OLD				40
#define ENV_NEW				56
#define ENV_IV				72
#define ENV_SEALED			84
#define ENV_TAG				116

static_assert(ENV_TAG + KSI_TAG_LEN == KEYSTORE_ENVELOPE_LEN, "the tag ends the envelope");

/* ---- the envelope --------------------------------------------------------------------- */

static enum keystore_status
fail_envelope(keystore *ks)
{
	return ksi_fail(ks, KEYSTORE_ECRYPTO, "encryption or decryption of a rekey envelope failed: %s",
					ksi_crypto_reason());
}

static enum ksi_crypto
envelope_key(const uint8_t *old_ksk, const uint8_t *uuid, uint8_t key[KEYSTORE_KEY_LEN])
{
	return ksi_hkdf(old_ksk, KEYSTORE_KEY_LEN, uuid, KEYSTORE_UUID_LEN,
					(const uint8_t *) INFO_ENVELOPE, strlen(INFO_ENVELOPE), key, KEYSTORE_KEY_LEN);
}

enum keystore_status
ksi_envelope_seal(keystore *ks, const struct ksi_header *header, const uint8_t *new_ksk,
				  uint8_t env[KEYSTORE_ENVELOPE_LEN])
{
	enum keystore_status status = KEYSTORE_OK;
	uint8_t		key[KEYSTORE_KEY_LEN];

	memcpy(env, envelope_magic, MAGIC_LEN);
	(void) ksi_put16(env + ENV_VERSION, ENVELOPE_VERSION);
	(void) ksi_put16(env + ENV_FLAGS, 0);
	(void) ksi_put32(env + ENV_RESERVED, 0);
	memcpy(env + ENV_UUID, header->uuid, KEYSTORE_UUID_LEN);
	(void) ksi_put64(env + ENV_GENERATION, header->generation);
	if (ksi_identity(ks->ksk.ptr, header->uuid, KSI_INFO_KSK_IDENTITY,
					 env + ENV_OLD) != KSI_CRYPTO_OK ||
		ksi_identity(new_ksk, header->uuid, KSI_INFO_KSK_IDENTITY,
					 env + ENV_NEW) != KSI_CRYPTO_OK ||
		!ksi_random(env + ENV_IV, KSI_IV_LEN) ||
		envelope_key(ks->ksk.ptr, header->uuid, key) != KSI_CRYPTO_OK ||
		ksi_gcm_seal(key, env + ENV_IV, env, ENV_IV, new_ksk, KEYSTORE_KEY_LEN, env + ENV_SEALED,
					 env + ENV_TAG) != KSI_CRYPTO_OK)
		status = fail_envelope(ks);
	keystore_wipe(key, sizeof(key));
	return status;
}

static enum keystore_status
check_envelope(keystore *ks, const uint8_t *env, size_t len)
{
	if (!ksi_format_begins_with(env, len, envelope_magic))
		return ksi_fail(ks, KEYSTORE_EFORMAT, "the data is not a rekey envelope");
	if (len != KEYSTORE_ENVELOPE_LEN)
		return ksi_fail(ks, KEYSTORE_EDAMAGED,
						"rekey envelope is corrupted: size = %zu bytes, expected size = %d bytes",
						len, KEYSTORE_ENVELOPE_LEN);
	if (ksi_get16(env + ENV_VERSION) != ENVELOPE_VERSION || ksi_get16(env + ENV_FLAGS) != 0 ||
		ksi_get32(env + ENV_RESERVED) != 0)
		return ksi_fail(ks, KEYSTORE_EVERSION,
						"rekey envelope has format version %u, but only version %d is supported",
						ksi_get16(env + ENV_VERSION), ENVELOPE_VERSION);
	if (memcmp(env + ENV_UUID, ks->header.uuid, KEYSTORE_UUID_LEN) != 0)
		return ksi_fail(ks, KEYSTORE_ECONFLICT,
						"the rekey envelope does not belong to keystore \"%s\"", ks->where);
	return KEYSTORE_OK;
}

/* Of the KSK and its predecessors, newest first, the one with this identity; NULL if there is none. */
static enum keystore_status
find_ksk(keystore *ks, const uint8_t identity[KSI_IDENTITY_LEN], const uint8_t **ret_ksk)
{
	uint8_t		own[KSI_IDENTITY_LEN];

	for (size_t i = ks->history.former_count + 1; i > 0; i--)
	{
		const uint8_t *ksk = i > ks->history.former_count ? ks->ksk.ptr :
			ksi_formers(&ks->history)[i - 1].key;

		if (ksi_identity(ksk, ks->header.uuid, KSI_INFO_KSK_IDENTITY, own) != KSI_CRYPTO_OK)
			return fail_envelope(ks);
		if (memcmp(own, identity, KSI_IDENTITY_LEN) == 0)
		{
			*ret_ksk = ksk;
			return KEYSTORE_OK;
		}
	}
	*ret_ksk = NULL;
	return KEYSTORE_OK;
}

/* What the envelope holds, for who has the KSK that it was made from. */
static enum keystore_status
unseal_envelope(keystore *ks, const uint8_t *env, const uint8_t *old_ksk, uint8_t *ret_ksk)
{
	uint8_t		key[KEYSTORE_KEY_LEN];
	enum ksi_crypto result = envelope_key(old_ksk, ks->header.uuid, key);

	if (result == KSI_CRYPTO_OK)
		result = ksi_gcm_open(key, env + ENV_IV, env, ENV_IV, env + ENV_SEALED, KEYSTORE_KEY_LEN,
							  ret_ksk, env + ENV_TAG);
	keystore_wipe(key, sizeof(key));
	if (result == KSI_CRYPTO_MISMATCH)
		return ksi_fail(ks, KEYSTORE_EDAMAGED, "rekey envelope is corrupted: its content was altered");
	return result == KSI_CRYPTO_OK ? KEYSTORE_OK : fail_envelope(ks);
}

static enum keystore_status
fail_other_envelope(keystore *ks)
{
	(void) ksi_fail(ks, KEYSTORE_EWRONGKEY,
					"keystore \"%s\" does not have the key that the rekey envelope was made from",
					ks->where);
	return ksi_hint(ks, KEYSTORE_EWRONGKEY, "Copy the keystore from the server that was rekeyed.");
}

/* The new KSK: one that ks has already, or what the envelope holds. */
enum keystore_status
ksi_envelope_open(keystore *ks, const uint8_t *env, size_t len, struct ksi_secret *ret_ksk)
{
	enum keystore_status status;
	const uint8_t *ksk = NULL;

	status = check_envelope(ks, env, len);
	if (status == KEYSTORE_OK)
		status = ksi_alloc_secret(ks, ret_ksk, KEYSTORE_KEY_LEN);
	if (status == KEYSTORE_OK)
		status = find_ksk(ks, env + ENV_NEW, &ksk);
	if (status != KEYSTORE_OK)
		return status;
	if (ksk != NULL)
	{
		memcpy(ret_ksk->ptr, ksk, KEYSTORE_KEY_LEN);
		return KEYSTORE_OK;
	}
	status = find_ksk(ks, env + ENV_OLD, &ksk);
	if (status != KEYSTORE_OK)
		return status;
	return ksk == NULL ? fail_other_envelope(ks) : unseal_envelope(ks, env, ksk, ret_ksk->ptr);
}

enum keystore_status
keystore_open_rekeyed(keystore *ks, const uint8_t former_ksk[KEYSTORE_KEY_LEN], const void *envelope,
					  size_t envelope_len)
{
	enum keystore_status status = ksi_need_loaded(ks);
	const uint8_t *env = envelope;
	struct ksi_secret ksk = {0};
	uint8_t		identity[KSI_IDENTITY_LEN];

	if (status == KEYSTORE_OK)
		status = check_envelope(ks, env, envelope_len);
	if (status == KEYSTORE_OK && ksi_identity(former_ksk, ks->header.uuid, KSI_INFO_KSK_IDENTITY,
											  identity) != KSI_CRYPTO_OK)
		status = fail_envelope(ks);
	if (status == KEYSTORE_OK && memcmp(identity, env + ENV_OLD, KSI_IDENTITY_LEN) != 0)
		status = fail_other_envelope(ks);
	if (status == KEYSTORE_OK)
		status = ksi_alloc_secret(ks, &ksk, KEYSTORE_KEY_LEN);
	if (status == KEYSTORE_OK)
		status = unseal_envelope(ks, env, former_ksk, ksk.ptr);
	if (status == KEYSTORE_OK)
		status = keystore_open_ksk(ks, ksk.ptr);
	ksi_secret_free(&ksk);
	return status;
}

/* ---- a rekey that is being stored ---------------------------------------------------------- */

/*
 * The envelope that lies beside the keystore, malloc'ed; NULL if there is none, or none that is of any use.  Then
 * it is as if it were not there: what it would have helped with fails as it would without.
 */
static enum keystore_status
read_envelope(keystore *ks, const struct ksi_place *place, uint8_t **ret_env)
{
	uint8_t    *env = NULL;
	size_t		len = 0;
	enum keystore_status status = ksi_file_read(ks, place, KEYSTORE_REKEY_NAME, KEYSTORE_ENVELOPE_LEN,
												&env, &len);

	if (status == KEYSTORE_OK)
		status = check_envelope(ks, env, len);
	if (status == KEYSTORE_OK)
	{
		*ret_env = env;
		return KEYSTORE_OK;
	}
	free(env);
	switch (status)
	{
		case KEYSTORE_ENOENT:
		case KEYSTORE_EFORMAT:
		case KEYSTORE_EDAMAGED:
		case KEYSTORE_EVERSION:
		case KEYSTORE_ECONFLICT:
			ksi_clear_error(ks);
			*ret_env = NULL;
			return KEYSTORE_OK;
		default:
			return status;
	}
}

/* Does the envelope lead from a KSK to the one that the loaded keystore is under?  Then that is in ksk. */
static enum keystore_status
follow_envelope(keystore *ks, const uint8_t *env, uint8_t ksk[KEYSTORE_KEY_LEN], bool *ret_followed)
{
	enum keystore_status status;
	struct ksi_secret next = {0};
	uint8_t		identity[KSI_IDENTITY_LEN];

	*ret_followed = false;
	if (memcmp(env + ENV_NEW, ks->header.ksk_identity, KSI_IDENTITY_LEN) != 0)
		return KEYSTORE_OK;
	if (ksi_identity(ksk, ks->header.uuid, KSI_INFO_KSK_IDENTITY, identity) != KSI_CRYPTO_OK)
		return fail_envelope(ks);
	if (memcmp(env + ENV_OLD, identity, KSI_IDENTITY_LEN) != 0)
		return KEYSTORE_OK;
	status = ksi_alloc_secret(ks, &next, KEYSTORE_KEY_LEN);
	if (status == KEYSTORE_OK)
		status = unseal_envelope(ks, env, ksk, next.ptr);
	if (status == KEYSTORE_OK)
	{
		memcpy(ksk, next.ptr, KEYSTORE_KEY_LEN);
		*ret_followed = true;
	}
	else if (status == KEYSTORE_EDAMAGED)
	{
		ksi_clear_error(ks);
		status = KEYSTORE_OK;
	}
	ksi_secret_free(&next);
	return status;
}

/* What a KSK of before an interrupted rekey has become. */
enum keystore_status
ksi_envelope_follow(keystore *ks, const struct ksi_place *place, uint8_t ksk[KEYSTORE_KEY_LEN],
					bool *ret_followed)
{
	uint8_t    *env = NULL;
	enum keystore_status status = read_envelope(ks, place, &env);

	*ret_followed = false;
	if (status == KEYSTORE_OK && env != NULL)
		status = follow_envelope(ks, env, ksk, ret_followed);
	free(env);
	return status;
}

enum keystore_status
keystore_rekey_begin(keystore *ks, const char *path, const void *envelope, size_t envelope_len)
{
	enum keystore_status status = ksi_need_loaded(ks);
	struct ksi_place place = {-1, NULL, NULL};

	if (status == KEYSTORE_OK)
		status = check_envelope(ks, envelope, envelope_len);
	if (status == KEYSTORE_OK)
		status = ksi_place_open(ks, path, &place);
	if (status == KEYSTORE_OK)
		status = ksi_replace(ks, &place, KEYSTORE_REKEY_NAME, envelope, envelope_len, KSI_OVERWRITE);
	ksi_place_close(&place);
	return status;
}

enum keystore_status
keystore_rekey_pending(keystore *ks, const char *path, uint8_t ret_envelope[KEYSTORE_ENVELOPE_LEN],
					   bool *ret_pending)
{
	enum keystore_status status = ksi_need_open(ks);
	struct ksi_place place = {-1, NULL, NULL};
	struct ksi_secret ksk = {0};
	const uint8_t *former = NULL;
	uint8_t    *env = NULL;
	bool		pending = false;

	if (status == KEYSTORE_OK)
		status = ksi_place_open(ks, path, &place);
	if (status == KEYSTORE_OK)
		status = read_envelope(ks, &place, &env);
	if (status == KEYSTORE_OK && env != NULL)
		status = find_ksk(ks, env + ENV_OLD, &former);
	if (status == KEYSTORE_OK && former != NULL)
		status = ksi_alloc_secret(ks, &ksk, KEYSTORE_KEY_LEN);
	if (status == KEYSTORE_OK && former != NULL)
	{
		memcpy(ksk.ptr, former, KEYSTORE_KEY_LEN);
		status = follow_envelope(ks, env, ksk.ptr, &pending);
	}
	if (status == KEYSTORE_OK)
	{
		*ret_pending = pending && ksi_equal(ksk.ptr, ks->ksk.ptr, KEYSTORE_KEY_LEN);
		if (*ret_pending)
			memcpy(ret_envelope, env, KEYSTORE_ENVELOPE_LEN);
	}
	free(env);
	ksi_secret_free(&ksk);
	ksi_place_close(&place);
	return status;
}

enum keystore_status
keystore_rekey_end(keystore *ks, const char *path)
{
	enum keystore_status status;
	struct ksi_place place = {-1, NULL, NULL};

	ksi_clear_error(ks);
	status = ksi_place_open(ks, path, &place);
	if (status != KEYSTORE_OK)
		goto out;
	ksi_sweep(&place, KEYSTORE_REKEY_NAME);
	if (unlinkat(place.dirfd, KEYSTORE_REKEY_NAME, 0) == 0)
	{
		/* If it came back after a crash nothing would be wrong, but whoever has the former KSK could open it. */
		if (fsync(place.dirfd) != 0)
			status = ksi_fail(ks, KEYSTORE_EIO, "could not fsync directory of \"%s%s\": %m", place.prefix,
							  KEYSTORE_REKEY_NAME);
	}
	else if (errno != ENOENT)
		status = ksi_fail(ks, KEYSTORE_EIO, "could not remove file \"%s%s\": %m", place.prefix,
						  KEYSTORE_REKEY_NAME);

out:
	ksi_place_close(&place);
	return status;
}
