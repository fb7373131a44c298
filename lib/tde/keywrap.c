/*
 * keywrap.c
 *		HKDF, AES-256-GCM and HMAC for the key table.
 *
 * The master key itself encrypts nothing.  HKDF-SHA256 (RFC 5869) makes one key for wrapping and
 * one for the MAC from it, with the keystore's UUID as the salt, so that neither use can be played
 * off against the other.
 */
#include <config.h>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include "hkdf.h"
#include "keywrap.h"

#define INFO_WRAP	"pgx keytable wrap"
#define INFO_MAC	"pgx keytable mac"

enum tde_keytable_status
keywrap_derive(const uint8_t master_key[TDE_MASTER_KEY_LEN], const uint8_t uuid[KEYWRAP_UUID_LEN],
			   struct keywrap_keys *ret_keys)
{
	if (tde_hkdf(master_key, TDE_MASTER_KEY_LEN, uuid, KEYWRAP_UUID_LEN, INFO_WRAP,
				 ret_keys->wrap, sizeof(ret_keys->wrap)) == 0 &&
		tde_hkdf(master_key, TDE_MASTER_KEY_LEN, uuid, KEYWRAP_UUID_LEN, INFO_MAC,
				 ret_keys->mac, sizeof(ret_keys->mac)) == 0)
		return TDE_KEYTABLE_OK;
	OPENSSL_cleanse(ret_keys, sizeof(*ret_keys));
	return TDE_KEYTABLE_ECRYPTO;
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
