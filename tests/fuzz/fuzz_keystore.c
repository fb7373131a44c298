/*
 * fuzz_keystore.c
 *		Any bytes as a keystore, a key ring, a rekey envelope, or a recovery key.
 *
 * The checksum is put right, as else no input would get past it.  What then loads as a keystore, or parses
 * as a ring, is sealed anew under a known key with its body as the plaintext: so the history gets hostile
 * bytes too.  What opens is written out again and must say the same.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "ksi.h"

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t ksk[KEYSTORE_KEY_LEN] = {1, 2, 3};

static void
require(bool condition)
{
	if (!condition)
		abort();
}

static enum ksi_crypto
seal(const uint8_t *uuid, const char *info, const uint8_t *aad, size_t aad_len, const uint8_t *iv,
	 uint8_t *body, size_t len, uint8_t *tag)
{
	uint8_t		key[KEYSTORE_KEY_LEN];
	uint8_t    *plain = malloc(len);
	enum ksi_crypto result;

	require(plain != NULL);
	memcpy(plain, body, len);
	require(ksi_hkdf(ksk, sizeof(ksk), uuid, KEYSTORE_UUID_LEN, (const uint8_t *) info,
					 strlen(info), key, sizeof(key)) == KSI_CRYPTO_OK);
	result = ksi_gcm_seal(key, iv, aad, aad_len, plain, len, body, tag);
	free(plain);
	return result;
}

/* An open keystore: whatever is asked of it must make sense, and a change must be readable again. */
static void
use(keystore *ks)
{
	keystore   *again = keystore_new();
	uint8_t    *buf = NULL,
			   *ring = NULL;
	size_t		len,
				ring_len,
				added = 99;
	uint32_t	id;

	require(again != NULL && keystore_active_key(ks) != 0);
	for (size_t i = 0; i < keystore_key_count(ks); i++)
	{
		struct keystore_key_info info;

		require(keystore_get_key_info(ks, i, &info) == KEYSTORE_OK);
		require(strlen(info.origin) < sizeof(info.origin) && strlen(info.label) < sizeof(info.label));
	}
	require(keystore_export_ring(ks, &ring, &ring_len) == KEYSTORE_OK);
	require(keystore_import_ring(ks, ring, ring_len, &added) == KEYSTORE_OK && added == 0);
	free(ring);
	if (keystore_add_master_key(ks, "fuzz", &id) != KEYSTORE_OK)
		goto out;				/* no number or no room left */
	require(keystore_serialize(ks, &buf, &len) == KEYSTORE_OK);
	require(keystore_load_bytes(again, buf, len, "again") == KEYSTORE_OK);
	require(keystore_open_ksk(again, ksk) == KEYSTORE_OK);
	require(keystore_active_key(again) == id);
	require(keystore_key_count(again) == keystore_key_count(ks));

out:
	free(buf);
	keystore_free(&again);
}

static void
try_keystore(const uint8_t *data, size_t size)
{
	keystore   *ks = keystore_new();
	uint8_t    *buf = malloc(size + 1);
	struct ksi_layout l;

	require(ks != NULL && buf != NULL);
	memcpy(buf, data, size);
	if (size >= KSI_DIGEST_LEN)
		require(ksi_sha256(buf, size - KSI_DIGEST_LEN, buf + size - KSI_DIGEST_LEN));
	if (keystore_load_bytes(ks, buf, size, "fuzz") != KEYSTORE_OK)
		goto out;
	for (size_t i = 0; i < keystore_slot_count(ks); i++)
	{
		struct keystore_slot_info info;

		require(keystore_get_slot(ks, i, &info) == KEYSTORE_OK);
		require(info.id != 0 && strlen(info.label) < sizeof(info.label));
	}
	require(keystore_open_ksk(ks, ksk) != KEYSTORE_OK);
	l = ks->layout;
	require(seal(ks->header.uuid, KSI_INFO_BODY, buf, l.header_len, buf + l.iv_off, buf + l.body_off,
				 l.body_len, buf + l.tag_off) == KSI_CRYPTO_OK);
	require(ksi_sha256(buf, l.digest_off, buf + l.digest_off));
	require(keystore_load_bytes(ks, buf, size, "fuzz") == KEYSTORE_OK);
	if (keystore_open_ksk(ks, ksk) == KEYSTORE_OK)
		use(ks);

out:
	free(buf);
	keystore_free(&ks);
}

/* A keystore with this UUID, to import into. */
static keystore *
make_keystore(const uint8_t *uuid)
{
	keystore   *ks = keystore_new();
	struct ksi_header *header = calloc(1, sizeof(*header));
	struct ksi_history history = {0};
	struct ksi_secret own = {0};
	const struct ksi_slot_fields slot = {
		.id = 1, .kind = KEYSTORE_SLOT_PASSPHRASE, .flags = 1, .label = "x",
		.kdf = {KEYSTORE_KDF_SCRYPT, 10, 0, 8, 1}
	};

	require(ks != NULL && header != NULL);
	memcpy(header->uuid, uuid, KEYSTORE_UUID_LEN);
	header->generation = 1;
	header->slot_count = 1;
	ksi_format_put_slot(&slot, &header->slots[0]);
	require(ksi_set_where(ks, "fuzz") == KEYSTORE_OK);
	require(ksi_history_alloc(ks, &history, 1, 0) == KEYSTORE_OK);
	require(ksi_key_make(ks, uuid, 1, "fuzz", ksi_keys(&history)) == KEYSTORE_OK);
	require(ksi_secret_alloc(&own, KEYSTORE_KEY_LEN));
	memcpy(own.ptr, ksk, sizeof(ksk));
	require(ksi_commit_rekeyed(ks, header, &history, &own) == KEYSTORE_OK);
	free(header);
	return ks;
}

static void
try_ring(const uint8_t *data, size_t size)
{
	keystore   *ks = keystore_new();
	uint8_t    *buf = malloc(size + 1);
	struct ksi_ring_header ring;
	uint8_t		uuid[KEYSTORE_UUID_LEN];
	uint64_t	generation;
	size_t		added;

	require(ks != NULL && buf != NULL);
	memcpy(buf, data, size);
	if (keystore_ring_info(ks, buf, size, uuid, &generation) != KEYSTORE_OK)
		goto out;
	require(ksi_format_get_ring(ks, buf, size, &ring) == KEYSTORE_OK);
	require(seal(ring.uuid, KSI_INFO_RING, buf, ring.iv_off, buf + ring.iv_off, buf + ring.body_off,
				 ring.body_len, buf + ring.tag_off) == KSI_CRYPTO_OK);
	keystore_free(&ks);
	ks = make_keystore(uuid);
	if (keystore_import_ring(ks, buf, size, &added) == KEYSTORE_OK)
		use(ks);
	require(keystore_is_open(ks) && keystore_active_key(ks) != 0);

out:
	free(buf);
	keystore_free(&ks);
}

static void
try_envelope(const uint8_t *data, size_t size)
{
	uint8_t		uuid[KEYSTORE_UUID_LEN] = {0};
	keystore   *ks;
	uint8_t    *own;
	size_t		len;

	if (size >= 32)
		memcpy(uuid, data + 16, sizeof(uuid));
	ks = make_keystore(uuid);
	require(keystore_serialize(ks, &own, &len) == KEYSTORE_OK);
	require(keystore_apply_rekey(ks, own, len, data, size) != KEYSTORE_OK);
	require(keystore_is_open(ks));
	require(keystore_open_rekeyed(ks, ksk, data, size) != KEYSTORE_OK);
	free(own);
	keystore_free(&ks);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int			result = keystore_recovery_check((const char *) data, size);

	require(result >= -1 && result <= KEYSTORE_RECOVERY_GROUPS);
	try_keystore(data, size);
	try_ring(data, size);
	if (size >= 5 && memcmp(data, "PGXKE", 5) == 0)
		try_envelope(data, size);
	return 0;
}
