/*
 * aks.c
 *		keystore.aks: the keystore key sealed to this server.
 *
 * What is the same for all kinds: the file, the binding to computer, user, directory and keystore, and
 * the encryption.  Where a kind has its secret from is behind sealer.h.
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "aks.h"

void
ksi_aks_leave(struct ksi_aks_place *loc)
{
	ksi_place_close(&loc->place);
	free(loc->name);
	free(loc->dir);
}

enum keystore_status
ksi_aks_locate(keystore *ks, const char *path, struct ksi_aks_place *ret_loc)
{
	enum keystore_status status;
	size_t		size;

	ret_loc->name = NULL;
	ret_loc->dir = NULL;
	status = ksi_place_open(ks, path, &ret_loc->place);
	if (status == KEYSTORE_OK)
		status = ksi_canonical_dir(ks, ret_loc->place.prefix, &ret_loc->dir);
	if (status != KEYSTORE_OK)
		return status;
	size = strlen(ret_loc->place.prefix) + sizeof(KEYSTORE_AUTO_OPEN_NAME);
	ret_loc->name = malloc(size);
	if (ret_loc->name == NULL)
		return ksi_nomem(ks);
	(void) snprintf(ret_loc->name, size, "%s%s", ret_loc->place.prefix, KEYSTORE_AUTO_OPEN_NAME);
	return KEYSTORE_OK;
}

/* ---- what it is bound to ------------------------------------------------------------- */

/*
 * The sealing key.  Each part goes in with its length before it, so that no two
 * sets of parts make the same input.
 */
static enum keystore_status
seal_key(keystore *ks, const struct ksi_aks_place *loc, const struct ksi_sealer *sealer,
		 const struct ksi_auto_open *aks, const struct ksi_secret *secret,
		 uint8_t key[KEYSTORE_KEY_LEN])
{
	enum keystore_status status;
	struct ksi_secret input = {0};
	char		machine_id[KSI_MACHINE_ID_LEN + 1];
	size_t		dir_len = strlen(loc->dir);
	uint8_t    *p;

	status = ksi_machine_id(ks, machine_id);
	if (status == KEYSTORE_OK)
		status = ksi_alloc_secret(ks, &input,
								  4 + secret->len + 4 + KSI_MACHINE_ID_LEN + 4 + 4 + 4 + dir_len);
	if (status != KEYSTORE_OK)
		return status;
	p = ksi_put32(input.ptr, (uint32_t) secret->len);
	memcpy(p, secret->ptr, secret->len);
	p = ksi_put32(p + secret->len, KSI_MACHINE_ID_LEN);
	memcpy(p, machine_id, KSI_MACHINE_ID_LEN);
	p = ksi_put32(p + KSI_MACHINE_ID_LEN, 4);
	p = ksi_put32(p, aks->uid);
	p = ksi_put32(p, (uint32_t) dir_len);
	memcpy(p, loc->dir, dir_len);
	if (ksi_hkdf(input.ptr, input.len, aks->uuid, KEYSTORE_UUID_LEN,
				 (const uint8_t *) sealer->info, strlen(sealer->info), key,
				 KEYSTORE_KEY_LEN) != KSI_CRYPTO_OK)
		status = ksi_fail(ks, KEYSTORE_ECRYPTO,
						  "encryption or decryption of the auto-open keystore \"%s\" failed: %s",
						  loc->name, ksi_crypto_reason());
	ksi_secret_free(&input);
	return status;
}

/*
 * What tells this computer from others: a digest of the UUID and the machine ID, which
 * machine-id(5) asks not to write into files as it is.
 */
static enum keystore_status
machine_digest(keystore *ks, const uint8_t uuid[KEYSTORE_UUID_LEN],
			   uint8_t ret_machine[KSI_IDENTITY_LEN])
{
	enum keystore_status status;
	char		machine_id[KSI_MACHINE_ID_LEN + 1];
	uint8_t		input[KEYSTORE_UUID_LEN + KSI_MACHINE_ID_LEN];
	uint8_t		digest[KSI_DIGEST_LEN];

	status = ksi_machine_id(ks, machine_id);
	if (status != KEYSTORE_OK)
		return status;
	memcpy(input, uuid, KEYSTORE_UUID_LEN);
	memcpy(input + KEYSTORE_UUID_LEN, machine_id, KSI_MACHINE_ID_LEN);
	if (!ksi_sha256(input, sizeof(input), digest))
		return ksi_fail(ks, KEYSTORE_ECRYPTO, "could not compute a checksum: %s",
						ksi_crypto_reason());
	memcpy(ret_machine, digest, KSI_IDENTITY_LEN);
	return KEYSTORE_OK;
}

/* ---- making and removing ---------------------------------------------------------- */

/* Lay the file out in buf, KSI_AUTO_OPEN_MAX bytes. */
enum keystore_status
ksi_aks_seal(keystore *ks, const struct ksi_aks_place *loc, const struct keystore_seal_options *options,
			 uint8_t *buf, size_t *ret_len)
{
	const struct ksi_sealer *sealer = ksi_sealer_by_name(options->kind);
	enum keystore_status status = KEYSTORE_OK;
	struct ksi_secret secret = {0};
	struct ksi_auto_open aks;
	uint8_t		key[KEYSTORE_KEY_LEN];
	size_t		len;

	if (sealer == NULL)
		return ksi_fail(ks, KEYSTORE_EINVAL, "there is no auto-open of kind \"%s\"", options->kind);
	if (!sealer->available)
		return ksi_sealer_unavailable(ks, sealer->name);
	memset(&aks, 0, sizeof(aks));
	aks.kind = sealer->number;
	aks.created = (int64_t) time(NULL);
	aks.uid = (uint32_t) geteuid();
	memcpy(aks.uuid, ks->header.uuid, KEYSTORE_UUID_LEN);
	if (sealer->number != KSI_SEALER_HOST)
		status = machine_digest(ks, aks.uuid, aks.machine);
	if (status == KEYSTORE_OK)
		status = sealer->make(ks, loc->dir, options, &secret, &aks.data);
	if (status == KEYSTORE_OK)
		status = seal_key(ks, loc, sealer, &aks, &secret, key);
	if (status != KEYSTORE_OK)
		goto out;
	len = ksi_format_auto_open_len(&aks);
	status = ksi_fail(ks, KEYSTORE_ECRYPTO, "encryption of the auto-open keystore \"%s\" failed",
					  loc->name);
	if (!ksi_sha256(loc->dir, strlen(loc->dir), aks.path_digest) ||
		!ksi_random(aks.iv, KSI_IV_LEN))
		goto out;

	/* The associated data is the file's own beginning, so lay that out first. */
	ksi_format_put_auto_open(&aks, buf);
	if (ksi_gcm_seal(key, aks.iv, buf, ksi_format_auto_open_aad_len(&aks), ks->ksk.ptr,
					 KEYSTORE_KEY_LEN, aks.sealed, aks.tag) != KSI_CRYPTO_OK)
		goto out;
	ksi_format_put_auto_open(&aks, buf);
	if (!ksi_sha256(buf, len - KSI_DIGEST_LEN, buf + len - KSI_DIGEST_LEN))
		goto out;
	ksi_clear_error(ks);
	*ret_len = len;
	status = KEYSTORE_OK;

out:
	if (status == KEYSTORE_ECRYPTO)
		(void) ksi_crypto_reason();	/* leave no error behind */
	keystore_wipe(key, sizeof(key));
	ksi_secret_free(&secret);
	return status;
}

/* ---- reading ------------------------------------------------------------------------ */

/* All that can be checked of the bytes without a secret. */
enum keystore_status
ksi_aks_check(keystore *ks, const struct ksi_aks_place *loc, const uint8_t *buf, size_t len,
			  struct ksi_auto_open *ret_aks)
{
	enum keystore_status status;
	uint8_t		digest[KSI_DIGEST_LEN];

	status = ksi_format_get_auto_open(ks, loc->name, buf, len, ret_aks);
	if (status == KEYSTORE_EFORMAT || status == KEYSTORE_EDAMAGED || len < KSI_AUTO_OPEN_LEN)
		return status;

	/* Also where the version looks unknown: a flipped bit is no new version. */
	if (!ksi_sha256(buf, len - KSI_DIGEST_LEN, digest))
		return ksi_fail(ks, KEYSTORE_ECRYPTO, "could not compute the checksum of \"%s\": %s",
						loc->name, ksi_crypto_reason());
	if (!ksi_equal(digest, buf + len - KSI_DIGEST_LEN, KSI_DIGEST_LEN))
		return ksi_fail(ks, KEYSTORE_EDAMAGED,
						"auto-open keystore \"%s\" is corrupted: invalid checksum", loc->name);
	if (status == KEYSTORE_OK && !ksi_sealer_by_number(ret_aks->kind)->is_valid(&ret_aks->data))
		return ksi_fail(ks, KEYSTORE_EDAMAGED,
						"auto-open keystore \"%s\" is corrupted: invalid content", loc->name);
	return status;
}

/* *ret_buf is malloc'ed. */
enum keystore_status
ksi_aks_read(keystore *ks, const struct ksi_aks_place *loc, uint8_t **ret_buf,
			 struct ksi_auto_open *ret_aks)
{
	enum keystore_status status;
	uint8_t    *buf = NULL;
	size_t		len = 0;

	status = ksi_file_read(ks, &loc->place, KEYSTORE_AUTO_OPEN_NAME, KEYSTORE_MAX_FILE_SIZE, &buf,
						   &len);
	if (status == KEYSTORE_ENOENT)
		(void) ksi_fail(ks, status, "auto-open keystore \"%s\" does not exist", loc->name);
	if (status == KEYSTORE_OK)
		status = ksi_aks_check(ks, loc, buf, len, ret_aks);
	if (status == KEYSTORE_OK)
		*ret_buf = buf;
	else
		free(buf);
	return status;
}

/*
 * Why the file cannot be for this place, as far as its own header tells; NULL if
 * nothing speaks against it.
 */
static const char *
misfit(keystore *ks, const struct ksi_aks_place *loc, const struct ksi_auto_open *aks)
{
	uint8_t		digest[KSI_DIGEST_LEN];
	uint8_t		machine[KSI_IDENTITY_LEN];

	if (ks->loaded && memcmp(aks->uuid, ks->header.uuid, KEYSTORE_UUID_LEN) != 0)
		return "it belongs to another keystore";
	if (aks->uid != (uint32_t) geteuid())
		return "it was created for another user";
	if (ksi_sha256(loc->dir, strlen(loc->dir), digest) &&
		!ksi_equal(digest, aks->path_digest, KSI_DIGEST_LEN))
		return "it was created for another directory";
	if (aks->kind != KSI_SEALER_HOST && machine_digest(ks, aks->uuid, machine) == KEYSTORE_OK &&
		memcmp(machine, aks->machine, KSI_IDENTITY_LEN) != 0)
		return "it was created on another computer";
	ksi_clear_error(ks);
	return NULL;
}

/*
 * Does the KSK that came out open the keystore?  If not, either the keystore got a new one, which its
 * header tells, or somebody altered it.
 */
static enum keystore_status
try_ksk(keystore *ks, const uint8_t ksk[KEYSTORE_KEY_LEN], const char **ret_reason)
{
	enum keystore_status status;
	struct ksi_history history = {0};
	uint8_t		identity[KSI_IDENTITY_LEN];
	const char *reason = NULL;

	status = ksi_open_with(ks, ksk, &history, &reason);
	ksi_history_free(&history);
	if (status != KEYSTORE_EDAMAGED)
		return status;
	if (reason == NULL && ks->header.version != KSI_FORMAT_V1 &&
		ksi_identity(ksk, ks->header.uuid, KSI_INFO_KSK_IDENTITY, identity) == KSI_CRYPTO_OK &&
		memcmp(identity, ks->header.ksk_identity, KSI_IDENTITY_LEN) != 0)
	{
		*ret_reason = "the keystore was rekeyed since it was created";
		return KEYSTORE_EWRONGKEY;
	}
	return ksi_fail(ks, status, "keystore \"%s\" is corrupted: %s", ks->where,
					reason != NULL ? reason : "its content was altered");
}

/*
 * If a rekey was interrupted before auto-open was made anew, then what leads from the one KSK to the other is still
 * there.
 */
static enum keystore_status
follow_rekey(keystore *ks, const struct ksi_aks_place *loc, uint8_t ksk[KEYSTORE_KEY_LEN],
			 const char **ret_reason)
{
	bool		followed = false;
	enum keystore_status status = ksi_envelope_follow(ks, &loc->place, ksk, &followed);

	if (status != KEYSTORE_OK)
		return status;
	return followed ? try_ksk(ks, ksk, ret_reason) : KEYSTORE_EWRONGKEY;
}

/*
 * Unseal the KSK.  KEYSTORE_EWRONGKEY comes without a message; *ret_reason says
 * why.  The keystore itself, if one is loaded, has the last word.
 */
enum keystore_status
ksi_aks_unseal(keystore *ks, const struct ksi_aks_place *loc, const uint8_t *buf,
			   const struct ksi_auto_open *aks, struct ksi_secret *ret_ksk,
			   const char **ret_reason)
{
	const struct ksi_sealer *sealer = ksi_sealer_by_number(aks->kind);
	enum keystore_status status;
	struct ksi_secret secret = {0};
	uint8_t		key[KEYSTORE_KEY_LEN];
	enum ksi_crypto result;

	*ret_reason = misfit(ks, loc, aks);
	if (*ret_reason != NULL)
		return KEYSTORE_EWRONGKEY;
	*ret_reason = "its content was altered";
	status = sealer->get(ks, loc->dir, &aks->data, &secret, ret_reason);
	if (status == KEYSTORE_OK)
		status = seal_key(ks, loc, sealer, aks, &secret, key);
	if (status == KEYSTORE_OK)
		status = ksi_alloc_secret(ks, ret_ksk, KEYSTORE_KEY_LEN);
	if (status != KEYSTORE_OK)
		goto out;
	result = ksi_gcm_open(key, aks->iv, buf, ksi_format_auto_open_aad_len(aks), aks->sealed,
						  KEYSTORE_KEY_LEN, ret_ksk->ptr, aks->tag);
	if (result == KSI_CRYPTO_MISMATCH)
		status = KEYSTORE_EWRONGKEY;
	else if (result != KSI_CRYPTO_OK)
		status = ksi_fail(ks, KEYSTORE_ECRYPTO,
						  "decryption of the auto-open keystore \"%s\" failed: %s", loc->name,
						  ksi_crypto_reason());
	if (status == KEYSTORE_OK && ks->loaded)
		status = try_ksk(ks, ret_ksk->ptr, ret_reason);
	if (status == KEYSTORE_EWRONGKEY && result == KSI_CRYPTO_OK)
		status = follow_rekey(ks, loc, ret_ksk->ptr, ret_reason);

out:
	keystore_wipe(key, sizeof(key));
	ksi_secret_free(&secret);
	return status;
}

/* ksi_aks_read() and ksi_aks_unseal() in one. */
enum keystore_status
ksi_aks_read_and_unseal(keystore *ks, const struct ksi_aks_place *loc, struct ksi_auto_open *ret_aks,
						struct ksi_secret *ret_ksk, const char **ret_reason)
{
	uint8_t    *buf = NULL;
	enum keystore_status status = ksi_aks_read(ks, loc, &buf, ret_aks);

	if (status == KEYSTORE_OK)
		status = ksi_aks_unseal(ks, loc, buf, ret_aks, ret_ksk, ret_reason);
	free(buf);
	return status;
}
