/*
 * hkdf.c
 *		HKDF-SHA256 through libcrypto.
 */
#include <config.h>

#include <string.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include "hkdf.h"

int
tde_hkdf(const uint8_t *secret, size_t secret_len, const uint8_t *salt, size_t salt_len,
		 const char *info, uint8_t *ret_key, size_t len)
{
	char		digest[] = "SHA256";
	EVP_KDF    *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
	EVP_KDF_CTX *ctx = NULL;
	OSSL_PARAM	params[5];
	int			result = -1;

	if (kdf == NULL)
		goto out;

	/* libcrypto only reads what these point to; its interface has no const. */
	params[0] = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0);
	params[1] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *) secret, secret_len);
	params[2] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *) salt, salt_len);
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
	EVP_KDF_free(kdf);
	return result;
}
