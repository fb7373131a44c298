/*
 * autoopen.c
 *		keystore.aks: the keystore key sealed to this server, so that the keystore
 *		opens without a passphrase.
 *
 * This is obfuscation, not encryption: who can read the file, the machine-id and
 * the host secret, and knows user and directory, has all that the seal is made of.
 * It keeps a copy of the keystore's directory from opening elsewhere, no more.
 */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ksi.h"

#define KIND_HOST			"host"
#define INFO_HOST			"pgx auto-open host"

/* Where keystore.aks is, and how it is called in messages. */
struct location
{
	struct ksi_place place;
	char	   *name;
	char	   *dir;			/* canonical */
};

static void
leave(struct location *loc)
{
	ksi_place_close(&loc->place);
	free(loc->name);
	free(loc->dir);
}

static enum keystore_status
locate(keystore *ks, const char *path, struct location *ret_loc)
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

/*
 * The sealing key.  Each part goes in with its length before it, so that no two
 * sets of parts make the same input.
 */
static enum keystore_status
seal_key(keystore *ks, const struct location *loc, const struct ksi_auto_open *aks, bool create,
		 uint8_t key[KEYSTORE_KEY_LEN])
{
	enum keystore_status status;
	struct ksi_secret host_secret = {0};
	struct ksi_secret input = {0};
	char		machine_id[KSI_MACHINE_ID_LEN + 1];
	size_t		dir_len = strlen(loc->dir);
	uint8_t    *p;

	status = ksi_machine_id(ks, machine_id);
	if (status == KEYSTORE_OK)
		status = ksi_host_secret(ks, loc->dir, create, &host_secret);
	if (status == KEYSTORE_OK)
		status = ksi_alloc_secret(ks, &input,
								  4 + KSI_HOST_SECRET_LEN + 4 + KSI_MACHINE_ID_LEN + 4 + 4 + 4 + dir_len);
	if (status != KEYSTORE_OK)
		goto out;

	p = ksi_put32(input.ptr, KSI_HOST_SECRET_LEN);
	memcpy(p, host_secret.ptr, KSI_HOST_SECRET_LEN);
	p = ksi_put32(p + KSI_HOST_SECRET_LEN, KSI_MACHINE_ID_LEN);
	memcpy(p, machine_id, KSI_MACHINE_ID_LEN);
	p = ksi_put32(p + KSI_MACHINE_ID_LEN, 4);
	p = ksi_put32(p, aks->uid);
	p = ksi_put32(p, (uint32_t) dir_len);
	memcpy(p, loc->dir, dir_len);
	if (ksi_hkdf(input.ptr, input.len, aks->uuid, KEYSTORE_UUID_LEN,
				 (const uint8_t *) INFO_HOST, strlen(INFO_HOST), key,
				 KEYSTORE_KEY_LEN) != KSI_CRYPTO_OK)
		status = ksi_fail(ks, KEYSTORE_ECRYPTO,
						  "encryption or decryption of the auto-open keystore \"%s\" failed: %s",
						  loc->name, ksi_crypto_reason());

out:
	ksi_secret_free(&host_secret);
	ksi_secret_free(&input);
	return status;
}

/* ---- making and removing ---------------------------------------------------------- */

static enum keystore_status
seal(keystore *ks, const struct location *loc, uint8_t buf[KSI_AUTO_OPEN_LEN])
{
	enum keystore_status status;
	struct ksi_auto_open aks;
	uint8_t		key[KEYSTORE_KEY_LEN];

	memset(&aks, 0, sizeof(aks));
	aks.created = (int64_t) time(NULL);
	aks.uid = (uint32_t) geteuid();
	memcpy(aks.uuid, ks->header.uuid, KEYSTORE_UUID_LEN);
	status = seal_key(ks, loc, &aks, true, key);
	if (status != KEYSTORE_OK)
		goto out;
	status = ksi_fail(ks, KEYSTORE_ECRYPTO, "encryption of the auto-open keystore \"%s\" failed",
					  loc->name);
	if (!ksi_sha256(loc->dir, strlen(loc->dir), aks.path_digest) ||
		!ksi_random(aks.iv, KSI_IV_LEN))
		goto out;

	/* The associated data is the file's own beginning, so lay that out first. */
	ksi_format_put_auto_open(&aks, buf);
	if (ksi_gcm_seal(key, aks.iv, buf, KSI_AUTO_OPEN_AAD_LEN, ks->ksk.ptr, KEYSTORE_KEY_LEN,
					 aks.sealed, aks.tag) != KSI_CRYPTO_OK)
		goto out;
	ksi_format_put_auto_open(&aks, buf);
	if (!ksi_sha256(buf, KSI_AUTO_OPEN_DIGEST_OFF, buf + KSI_AUTO_OPEN_DIGEST_OFF))
		goto out;
	ksi_clear_error(ks);
	status = KEYSTORE_OK;

out:
	if (status == KEYSTORE_ECRYPTO)
		(void) ksi_crypto_reason();	/* leave no error behind */
	keystore_wipe(key, sizeof(key));
	return status;
}

enum keystore_status
keystore_auto_open_enable(keystore *ks, const char *path)
{
	enum keystore_status status = ksi_need_open(ks);
	struct location loc = {{-1, NULL, NULL}, NULL, NULL};
	uint8_t		buf[KSI_AUTO_OPEN_LEN];

	if (status != KEYSTORE_OK)
		return status;
	status = locate(ks, path, &loc);
	if (status == KEYSTORE_OK)
		status = seal(ks, &loc, buf);
	if (status == KEYSTORE_OK)
		status = ksi_replace(ks, &loc.place, KEYSTORE_AUTO_OPEN_NAME, buf, sizeof(buf),
							 KSI_OVERWRITE);
	leave(&loc);
	return status;
}

enum keystore_status
keystore_auto_open_disable(keystore *ks, const char *path)
{
	enum keystore_status status;
	struct location loc = {{-1, NULL, NULL}, NULL, NULL};

	ksi_clear_error(ks);
	status = locate(ks, path, &loc);
	if (status != KEYSTORE_OK)
		goto out;
	if (unlinkat(loc.place.dirfd, KEYSTORE_AUTO_OPEN_NAME, 0) != 0)
	{
		if (errno != ENOENT)
			status = ksi_fail(ks, KEYSTORE_EIO, "could not remove file \"%s\": %m", loc.name);
		goto out;
	}
	/* It must not come back after a crash. */
	if (fsync(loc.place.dirfd) != 0)
		status = ksi_fail(ks, KEYSTORE_EIO, "could not fsync directory of \"%s\": %m", loc.name);

out:
	leave(&loc);
	return status;
}

/* ---- opening ------------------------------------------------------------------------ */

static enum keystore_status
read_file(keystore *ks, const struct location *loc, uint8_t *ret_buf,
		  struct ksi_auto_open *ret_aks)
{
	enum keystore_status status;
	uint8_t		digest[KSI_DIGEST_LEN];
	uint8_t    *buf = NULL;
	size_t		len = 0;

	status = ksi_file_read(ks, &loc->place, KEYSTORE_AUTO_OPEN_NAME, KEYSTORE_MAX_FILE_SIZE, &buf,
						   &len);
	if (status == KEYSTORE_ENOENT)
		(void) ksi_fail(ks, status, "auto-open keystore \"%s\" does not exist", loc->name);
	if (status != KEYSTORE_OK)
		goto out;
	status = ksi_format_get_auto_open(ks, loc->name, buf, len, ret_aks);
	if (status == KEYSTORE_EFORMAT || len != KSI_AUTO_OPEN_LEN)
		goto out;

	/* Also where the version looks unknown: a flipped bit is no new version. */
	if (!ksi_sha256(buf, KSI_AUTO_OPEN_DIGEST_OFF, digest))
		status = ksi_fail(ks, KEYSTORE_ECRYPTO, "could not compute the checksum of \"%s\": %s",
						  loc->name, ksi_crypto_reason());
	else if (!ksi_equal(digest, buf + KSI_AUTO_OPEN_DIGEST_OFF, KSI_DIGEST_LEN))
		status = ksi_fail(ks, KEYSTORE_EDAMAGED,
						  "auto-open keystore \"%s\" is corrupted: invalid checksum", loc->name);
	if (status == KEYSTORE_OK)
		memcpy(ret_buf, buf, KSI_AUTO_OPEN_LEN);

out:
	free(buf);
	return status;
}

/*
 * Why the file cannot be for this place, as far as its own header tells; NULL if
 * nothing speaks against it.
 */
static const char *
misfit(const keystore *ks, const struct location *loc, const struct ksi_auto_open *aks)
{
	uint8_t		digest[KSI_DIGEST_LEN];

	if (ks->loaded && memcmp(aks->uuid, ks->header.uuid, KEYSTORE_UUID_LEN) != 0)
		return "it belongs to another keystore";
	if (aks->uid != (uint32_t) geteuid())
		return "it was created for another user";
	if (ksi_sha256(loc->dir, strlen(loc->dir), digest) &&
		!ksi_equal(digest, aks->path_digest, KSI_DIGEST_LEN))
		return "it was created for another directory";
	return NULL;
}

/*
 * Unseal the KSK.  KEYSTORE_EWRONGKEY comes without a message; *ret_reason says
 * why.  The keystore itself, if one is loaded, has the last word.
 */
static enum keystore_status
unseal(keystore *ks, const struct location *loc, uint8_t ret_ksk[KEYSTORE_KEY_LEN],
	   const char **ret_reason)
{
	enum keystore_status status;
	struct ksi_auto_open aks;
	struct ksi_history history = {0};
	uint8_t		buf[KSI_AUTO_OPEN_LEN];
	uint8_t		key[KEYSTORE_KEY_LEN];
	enum ksi_crypto result;
	const char *reason;

	status = read_file(ks, loc, buf, &aks);
	if (status != KEYSTORE_OK)
		goto out;
	status = KEYSTORE_EWRONGKEY;
	*ret_reason = misfit(ks, loc, &aks);
	if (*ret_reason != NULL)
		goto out;

	/* A secret that is gone is for the user as if the file came from elsewhere. */
	status = seal_key(ks, loc, &aks, false, key);
	if (status == KEYSTORE_ENOENT)
	{
		status = KEYSTORE_EWRONGKEY;
		*ret_reason = "the host secret does not exist";
	}
	if (status != KEYSTORE_OK)
		goto out;
	result = ksi_gcm_open(key, aks.iv, buf, KSI_AUTO_OPEN_AAD_LEN, aks.sealed, KEYSTORE_KEY_LEN,
						  ret_ksk, aks.tag);
	if (result == KSI_CRYPTO_MISMATCH)
	{
		status = KEYSTORE_EWRONGKEY;
		*ret_reason = "it was created on another computer, or the host secret was replaced";
	}
	else if (result != KSI_CRYPTO_OK)
		status = ksi_fail(ks, KEYSTORE_ECRYPTO,
						  "decryption of the auto-open keystore \"%s\" failed: %s", loc->name,
						  ksi_crypto_reason());
	if (status != KEYSTORE_OK || !ks->loaded)
		goto out;
	status = ksi_open_with(ks, ret_ksk, &history, &reason);
	if (status == KEYSTORE_EDAMAGED)
		(void) ksi_fail(ks, status, "keystore \"%s\" is corrupted: %s", ks->where,
						reason != NULL ? reason : "its content was altered");

out:
	ksi_history_free(&history);
	keystore_wipe(key, sizeof(key));
	return status;
}

enum keystore_status
keystore_auto_open_status(keystore *ks, const char *path,
						  struct keystore_auto_open_info *ret_info)
{
	enum keystore_status status;
	struct location loc = {{-1, NULL, NULL}, NULL, NULL};
	struct keystore_auto_open_info info;
	const char *reason = NULL;
	uint8_t		ksk[KEYSTORE_KEY_LEN];

	ksi_clear_error(ks);
	memset(&info, 0, sizeof(info));
	status = locate(ks, path, &loc);
	if (status != KEYSTORE_OK)
		goto out;
	(void) snprintf(info.kind, sizeof(info.kind), KIND_HOST);
	status = unseal(ks, &loc, ksk, &reason);
	switch (status)
	{
		case KEYSTORE_OK:
			info.usable = true;
			break;
		case KEYSTORE_ENOENT:
			(void) snprintf(info.kind, sizeof(info.kind), "none");
			break;
		case KEYSTORE_ENOMEM:
		case KEYSTORE_ECRYPTO:
			goto out;			/* says nothing about the file */
		default:
			(void) snprintf(info.reason, sizeof(info.reason), "%.*s",
							(int) sizeof(info.reason) - 1, reason != NULL ? reason : ks->errmsg);
			break;
	}
	status = KEYSTORE_OK;
	ksi_clear_error(ks);
	*ret_info = info;

out:
	keystore_wipe(ksk, sizeof(ksk));
	leave(&loc);
	return status;
}

enum keystore_status
keystore_open_auto(keystore *ks, const char *path)
{
	enum keystore_status status = ksi_need_loaded(ks);
	struct location loc = {{-1, NULL, NULL}, NULL, NULL};
	const char *reason = NULL;
	uint8_t		ksk[KEYSTORE_KEY_LEN];

	if (status != KEYSTORE_OK)
		return status;
	status = locate(ks, path, &loc);
	if (status == KEYSTORE_OK)
		status = unseal(ks, &loc, ksk, &reason);
	if (status == KEYSTORE_OK)
		status = keystore_open_ksk(ks, ksk);
	if (status == KEYSTORE_EWRONGKEY && reason != NULL)
	{
		(void) ksi_fail(ks, status,
						"could not open keystore \"%s\": passphrase is wrong, or the auto-open keystore was created by another computer or user",
						ks->where);
		(void) ksi_hint(ks, status,
						"Auto-open keystore \"%s\" cannot be used: %s.  Run \"pgx_keystore --enable-auto-open %s\" on this computer as this user.",
						loc.name, reason, path);
	}
	keystore_wipe(ksk, sizeof(ksk));
	leave(&loc);
	return status;
}
