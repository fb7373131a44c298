/*
 * derive.c
 *		Keys for other programs, made from a master key.
 *
 * What is given out is never the master key: from a derived key neither the master key
 * nor the key of another purpose can be found.
 */
#include <config.h>

#include <string.h>

#include "ksi.h"

/* Stands before the purpose, so that nothing else that we derive from a master key can be the same. */
#define LABEL		"pgx key for other programs 1:"
#define LABEL_LEN	(sizeof(LABEL) - 1)

enum keystore_status
keystore_derive_key(keystore *ks, uint32_t id, const char *purpose, uint8_t *ret_key, size_t len)
{
	uint8_t		master[KEYSTORE_KEY_LEN];
	uint8_t		uuid[KEYSTORE_UUID_LEN];
	char		info[LABEL_LEN + KEYSTORE_PURPOSE_MAX];
	size_t		purpose_len = strlen(purpose);
	enum keystore_status status;
	enum ksi_crypto crypto;

	if (purpose_len == 0 || purpose_len > KEYSTORE_PURPOSE_MAX)
		return ksi_fail(ks, KEYSTORE_EINVAL, "the purpose of a key must have 1 to %d bytes",
						KEYSTORE_PURPOSE_MAX);
	if (len < KEYSTORE_DERIVED_MIN || len > KEYSTORE_DERIVED_MAX)
		return ksi_fail(ks, KEYSTORE_EINVAL, "the length of a derived key must be %d to %d bytes",
						KEYSTORE_DERIVED_MIN, KEYSTORE_DERIVED_MAX);
	status = keystore_get_master_key(ks, id, master);
	if (status != KEYSTORE_OK)
		return status;
	keystore_get_uuid(ks, uuid);
	memcpy(info, LABEL, LABEL_LEN);
	memcpy(info + LABEL_LEN, purpose, purpose_len);
	crypto = ksi_hkdf(master, sizeof(master), uuid, sizeof(uuid), (const uint8_t *) info,
					  LABEL_LEN + purpose_len, ret_key, len);
	keystore_wipe(master, sizeof(master));
	if (crypto == KSI_CRYPTO_NOMEM)
		return ksi_fail(ks, KEYSTORE_ENOMEM, "out of memory");
	if (crypto != KSI_CRYPTO_OK)
		return ksi_fail(ks, KEYSTORE_ECRYPTO, "could not derive a key: %s", ksi_crypto_reason());
	return KEYSTORE_OK;
}
