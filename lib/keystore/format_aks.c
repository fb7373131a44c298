/*
 * format_aks.c
 *		The bytes of keystore.aks, to and from a struct.  Pure, as format.c is.
 */
#include <config.h>

#include <string.h>

#include "ksi.h"

#define MAGIC_LEN			8
static const uint8_t auto_open_magic[MAGIC_LEN] = {'P', 'G', 'X', 'A', 'O', '\r', '\n', 0x1a};

#define AKS_FORMAT_VERSION	1
#define AKS_VERSION			8
#define AKS_KIND			10
#define AKS_UID				12
#define AKS_UUID			16
#define AKS_CREATED			32
#define AKS_PATH_DIGEST		40
#define AKS_COMMON_LEN		72

/* kind host ends here, with IV, sealed key, tag and digest; the others have first */
#define AKS_MACHINE			72
#define AKS_DATA_LENGTH		88
#define AKS_DATA			92

#define AKS_END_LEN			(KSI_IV_LEN + KEYSTORE_KEY_LEN + KSI_TAG_LEN + KSI_DIGEST_LEN)

/* Associated data: everything before the IV. */
size_t
ksi_format_auto_open_aad_len(const struct ksi_auto_open *aks)
{
	return aks->kind == KSI_SEALER_HOST ? AKS_COMMON_LEN : AKS_DATA + aks->data.len;
}

size_t
ksi_format_auto_open_len(const struct ksi_auto_open *aks)
{
	return ksi_format_auto_open_aad_len(aks) + AKS_END_LEN;
}

/* Write everything but the digest, which ends the file. */
void
ksi_format_put_auto_open(const struct ksi_auto_open *aks, uint8_t *buf)
{
	uint8_t    *end = buf + ksi_format_auto_open_aad_len(aks);

	memcpy(buf, auto_open_magic, MAGIC_LEN);
	(void) ksi_put16(buf + AKS_VERSION, AKS_FORMAT_VERSION);
	(void) ksi_put16(buf + AKS_KIND, aks->kind);
	(void) ksi_put32(buf + AKS_UID, aks->uid);
	memcpy(buf + AKS_UUID, aks->uuid, KEYSTORE_UUID_LEN);
	(void) ksi_put64(buf + AKS_CREATED, (uint64_t) aks->created);
	memcpy(buf + AKS_PATH_DIGEST, aks->path_digest, KSI_DIGEST_LEN);
	if (aks->kind != KSI_SEALER_HOST)
	{
		memcpy(buf + AKS_MACHINE, aks->machine, KSI_IDENTITY_LEN);
		(void) ksi_put32(buf + AKS_DATA_LENGTH, (uint32_t) aks->data.len);
		memcpy(buf + AKS_DATA, aks->data.bytes, aks->data.len);
	}
	memcpy(end, aks->iv, KSI_IV_LEN);
	memcpy(end + KSI_IV_LEN, aks->sealed, KEYSTORE_KEY_LEN);
	memcpy(end + KSI_IV_LEN + KEYSTORE_KEY_LEN, aks->tag, KSI_TAG_LEN);
}

static enum keystore_status
bad_size(keystore *ks, const char *where, size_t len, size_t expected)
{
	return ksi_fail(ks, KEYSTORE_EDAMAGED,
					"auto-open keystore \"%s\" is corrupted: size = %zu bytes, expected size = %zu bytes",
					where, len, expected);
}

/* The caller compares the digest, and asks the kind about its data. */
enum keystore_status
ksi_format_get_auto_open(keystore *ks, const char *where, const uint8_t *buf, size_t len,
						 struct ksi_auto_open *ret_aks)
{
	const uint8_t *end;
	uint32_t	data_len;

	if (!ksi_format_begins_with(buf, len, auto_open_magic))
		return ksi_fail(ks, KEYSTORE_EFORMAT, "file \"%s\" is not an auto-open keystore", where);
	memset(ret_aks, 0, sizeof(*ret_aks));
	ret_aks->kind = len >= AKS_UID ? ksi_get16(buf + AKS_KIND) : KSI_SEALER_HOST;
	if (len >= AKS_UID && (ksi_get16(buf + AKS_VERSION) != AKS_FORMAT_VERSION ||
						   ret_aks->kind < KSI_SEALER_HOST || ret_aks->kind > KSI_SEALER_TPM2))
		return ksi_fail(ks, KEYSTORE_EVERSION,
						"auto-open keystore \"%s\" has version %u and kind %u, which this version does not support",
						where, ksi_get16(buf + AKS_VERSION), ret_aks->kind);
	if (ret_aks->kind != KSI_SEALER_HOST)
	{
		if (len < AKS_DATA + AKS_END_LEN)
			return bad_size(ks, where, len, AKS_DATA + AKS_END_LEN);
		data_len = ksi_get32(buf + AKS_DATA_LENGTH);
		if (data_len > KSI_SEAL_DATA_MAX)
			return ksi_fail(ks, KEYSTORE_EDAMAGED,
							"auto-open keystore \"%s\" is corrupted: invalid length of a part", where);
		ret_aks->data.len = data_len;
	}
	if (len != ksi_format_auto_open_len(ret_aks))
		return bad_size(ks, where, len, ksi_format_auto_open_len(ret_aks));
	ret_aks->uid = ksi_get32(buf + AKS_UID);
	memcpy(ret_aks->uuid, buf + AKS_UUID, KEYSTORE_UUID_LEN);
	ret_aks->created = (int64_t) ksi_get64(buf + AKS_CREATED);
	memcpy(ret_aks->path_digest, buf + AKS_PATH_DIGEST, KSI_DIGEST_LEN);
	if (ret_aks->kind != KSI_SEALER_HOST)
	{
		memcpy(ret_aks->machine, buf + AKS_MACHINE, KSI_IDENTITY_LEN);
		memcpy(ret_aks->data.bytes, buf + AKS_DATA, ret_aks->data.len);
	}
	end = buf + ksi_format_auto_open_aad_len(ret_aks);
	memcpy(ret_aks->iv, end, KSI_IV_LEN);
	memcpy(ret_aks->sealed, end + KSI_IV_LEN, KEYSTORE_KEY_LEN);
	memcpy(ret_aks->tag, end + KSI_IV_LEN + KEYSTORE_KEY_LEN, KSI_TAG_LEN);
	return KEYSTORE_OK;
}
