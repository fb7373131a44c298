/*
 * keywrap.c
 *		HKDF, AES-256-GCM and HMAC for the key table.
 *
 * The master key itself encrypts nothing.  HKDF-SHA256 (RFC 5869) makes one key for wrapping and
 * one for the MAC from it, with the keystore's UUID as the salt, so that neither use can be played
 * off against the other.
 */
#include <config.h>

#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include "keywrap.h"

#define INFO_WRAP	"pgx keytable wrap"
#define INFO_MAC	"pgx keytable mac"

static int
derive_one(EVP_KDF *kdf, const uint8_t *master_key, const uint8_t *uuid, const char *info,
		   uint8_t *ret_key, size_t len)
{
	char		digest[] = "SHA256";
	EVP_KDF_CTX *ctx = NULL;
	OSSL_PARAM	params[5];
	int			result = -1;

	/* libcrypto only reads what these point to; its interface has no const. */
	params[0] = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0);
	params[1] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *) master_key,
												  TDE_MASTER_KEY_LEN);
	params[2] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *) uuid,
												  KEYWRAP_UUID_LEN);
	params[3] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *) info,
												  strlen(info));
	params[4] = OSSL_PARAM_construct_end();

	ctx = EVP_KDF_CTX_new(kdf);
	if (ctx == NULL)
		goto out;
	if (EVP_KDF_derive(ctx, ret_key, len, params) != 1)
		goto out;
	result = 0;

out:
	EVP_KDF_CTX_free(ctx);
	return result;
}

enum tde_keytable_status
keywrap_derive(const uint8_t master_key[TDE_MASTER_KEY_LEN], const uint8_t uuid[KEYWRAP_UUID_LEN],
			   struct keywrap_keys *ret_keys)
{
	EVP_KDF    *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
	enum tde_keytable_status status = TDE_KEYTABLE_ECRYPTO;

	if (kdf == NULL)
		goto out;
	if (derive_one(kdf, master_key, uuid, INFO_WRAP, ret_keys->wrap, sizeof(ret_keys->wrap)) != 0 ||
		derive_one(kdf, master_key, uuid, INFO_MAC, ret_keys->mac, sizeof(ret_keys->mac)) != 0)
		goto out;
	status = TDE_KEYTABLE_OK;

out:
	if (status != TDE_KEYTABLE_OK)
		OPENSSL_cleanse(ret_keys, sizeof(*ret_keys));
	EVP_KDF_free(kdf);
	return status;
}

/* A GCM context with key, nonce and associated data in it; NULL if libcrypto fails. */
static EVP_CIPHER_CTX *
gcm_begin(const struct keywrap_keys *keys, const uint8_t *uuid, const uint8_t *ids,
		  const uint8_t *nonce, int enc)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	EVP_CIPHER_CTX *result = NULL;
	int			len = 0;

	if (ctx == NULL)
		goto out;
	if (EVP_CipherInit_ex2(ctx, EVP_aes_256_gcm(), keys->wrap, nonce, enc, NULL) != 1 ||
		EVP_CipherUpdate(ctx, NULL, &len, uuid, KEYWRAP_UUID_LEN) != 1 ||
		EVP_CipherUpdate(ctx, NULL, &len, ids, KEYWRAP_IDS_LEN) != 1)
		goto out;
	result = ctx;
	ctx = NULL;

out:
	EVP_CIPHER_CTX_free(ctx);
	return result;
}

enum tde_keytable_status
keywrap_wrap(const struct keywrap_keys *keys, const uint8_t uuid[KEYWRAP_UUID_LEN],
			 const uint8_t ids[KEYWRAP_IDS_LEN], const uint8_t *key, size_t len,
			 uint8_t ret_nonce[KEYWRAP_NONCE_LEN], uint8_t *ret_wrapped,
			 uint8_t ret_tag[KEYWRAP_TAG_LEN])
{
	EVP_CIPHER_CTX *ctx = NULL;
	uint8_t		none[16];
	int			out_len = 0;
	int			final_len = 0;
	enum tde_keytable_status status = TDE_KEYTABLE_ECRYPTO;

	/*
	 * A random nonce is safe for 2^32 wraps under one key (SP 800-38D, 8.3); a master key wraps a
	 * few thousand.
	 */
	if (RAND_bytes(ret_nonce, KEYWRAP_NONCE_LEN) != 1)
		goto out;
	ctx = gcm_begin(keys, uuid, ids, ret_nonce, 1);
	if (ctx == NULL)
		goto out;
	if (EVP_CipherUpdate(ctx, ret_wrapped, &out_len, key, (int) len) != 1 ||
		(size_t) out_len != len ||
		EVP_CipherFinal_ex(ctx, none, &final_len) != 1 || final_len != 0 ||
		EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, KEYWRAP_TAG_LEN, ret_tag) != 1)
		goto out;
	status = TDE_KEYTABLE_OK;

out:
	EVP_CIPHER_CTX_free(ctx);
	return status;
}

enum tde_keytable_status
keywrap_unwrap(const struct keywrap_keys *keys, const uint8_t uuid[KEYWRAP_UUID_LEN],
			   const uint8_t ids[KEYWRAP_IDS_LEN], const uint8_t nonce[KEYWRAP_NONCE_LEN],
			   const uint8_t *wrapped, size_t len, const uint8_t tag[KEYWRAP_TAG_LEN],
			   uint8_t *ret_key)
{
	EVP_CIPHER_CTX *ctx = NULL;
	uint8_t		none[16];
	int			out_len = 0;
	int			final_len = 0;
	enum tde_keytable_status status = TDE_KEYTABLE_ECRYPTO;

	ctx = gcm_begin(keys, uuid, ids, nonce, 0);
	if (ctx == NULL)
		goto out;
	if (EVP_CipherUpdate(ctx, ret_key, &out_len, wrapped, (int) len) != 1 ||
		(size_t) out_len != len ||
		EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, KEYWRAP_TAG_LEN, (void *) tag) != 1)
		goto out;

	/*
	 * This call compares the tags.  A wrong one is no failure of libcrypto: leave nothing in its
	 * queue.
	 */
	(void) ERR_set_mark();
	status = EVP_CipherFinal_ex(ctx, none, &final_len) == 1 && final_len == 0 ?
		TDE_KEYTABLE_OK : TDE_KEYTABLE_EDAMAGED;
	(void) ERR_pop_to_mark();

out:
	if (status != TDE_KEYTABLE_OK)
		OPENSSL_cleanse(ret_key, len);
	EVP_CIPHER_CTX_free(ctx);
	return status;
}

enum tde_keytable_status
keywrap_mac(const struct keywrap_keys *keys, const uint8_t *data, size_t len,
			uint8_t ret_mac[KEYWRAP_MAC_LEN])
{
	unsigned int mac_len = 0;

	if (HMAC(EVP_sha256(), keys->mac, (int) sizeof(keys->mac), data, len,
			 ret_mac, &mac_len) == NULL ||
		mac_len != KEYWRAP_MAC_LEN)
		return TDE_KEYTABLE_ECRYPTO;
	return TDE_KEYTABLE_OK;
}
