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
#define AKS_IV				72
#define AKS_SEALED			84
#define AKS_TAG				116
#define AKS_KIND_HOST		1

/* Write the KSI_AUTO_OPEN_DIGEST_OFF bytes before the digest. */
void
ksi_format_put_auto_open(const struct ksi_auto_open *aks, uint8_t *buf)
{
	memcpy(buf, auto_open_magic, MAGIC_LEN);
	(void) ksi_put16(buf + AKS_VERSION, AKS_FORMAT_VERSION);
	(void) ksi_put16(buf + AKS_KIND, AKS_KIND_HOST);
	(void) ksi_put32(buf + AKS_UID, aks->uid);
	memcpy(buf + AKS_UUID, aks->uuid, KEYSTORE_UUID_LEN);
	(void) ksi_put64(buf + AKS_CREATED, (uint64_t) aks->created);
	memcpy(buf + AKS_PATH_DIGEST, aks->path_digest, KSI_DIGEST_LEN);
	memcpy(buf + AKS_IV, aks->iv, KSI_IV_LEN);
	memcpy(buf + AKS_SEALED, aks->sealed, KEYSTORE_KEY_LEN);
	memcpy(buf + AKS_TAG, aks->tag, KSI_TAG_LEN);
}

/* The caller compares the digest. */
enum keystore_status
ksi_format_get_auto_open(keystore *ks, const char *where, const uint8_t *buf, size_t len,
						 struct ksi_auto_open *ret_aks)
{
	if (!ksi_format_begins_with(buf, len, auto_open_magic))
		return ksi_fail(ks, KEYSTORE_EFORMAT, "file \"%s\" is not an auto-open keystore", where);
	if (len >= AKS_UID && (ksi_get16(buf + AKS_VERSION) != AKS_FORMAT_VERSION ||
						   ksi_get16(buf + AKS_KIND) != AKS_KIND_HOST))
		return ksi_fail(ks, KEYSTORE_EVERSION,
						"auto-open keystore \"%s\" has version %u and kind %u, which this version does not support",
						where, ksi_get16(buf + AKS_VERSION), ksi_get16(buf + AKS_KIND));
	if (len != KSI_AUTO_OPEN_LEN)
		return ksi_fail(ks, KEYSTORE_EDAMAGED,
						"auto-open keystore \"%s\" is corrupted: size = %zu bytes, expected size = %d bytes",
						where, len, KSI_AUTO_OPEN_LEN);
	ret_aks->uid = ksi_get32(buf + AKS_UID);
	memcpy(ret_aks->uuid, buf + AKS_UUID, KEYSTORE_UUID_LEN);
	ret_aks->created = (int64_t) ksi_get64(buf + AKS_CREATED);
	memcpy(ret_aks->path_digest, buf + AKS_PATH_DIGEST, KSI_DIGEST_LEN);
	memcpy(ret_aks->iv, buf + AKS_IV, KSI_IV_LEN);
	memcpy(ret_aks->sealed, buf + AKS_SEALED, KEYSTORE_KEY_LEN);
	memcpy(ret_aks->tag, buf + AKS_TAG, KSI_TAG_LEN);
	return KEYSTORE_OK;
}
