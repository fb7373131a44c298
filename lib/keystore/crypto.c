/*
 * crypto.c
 *		The primitives, from libcrypto: random bytes, SHA-256, HKDF, AES-256-GCM
 *		and the functions that turn a passphrase into a key.
 *
 * The only file that includes <openssl/...>.  Everything is fetched by name, so
 * that a FIPS provider can be put in; what it lacks is KSI_CRYPTO_UNAVAILABLE.
 */
#include <config.h>

#include <limits.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include "ksi.h"

#ifdef __has_attribute
#if __has_attribute(zero_call_used_regs)
#define CLEARS_REGISTERS __attribute__((noinline, zero_call_used_regs("all")))
#endif
#endif
#ifndef CLEARS_REGISTERS
#define CLEARS_REGISTERS
#endif

/*
 * What copied a secret leaves it in vector registers, and an idle process keeps those: they are in
 * its core.  The compiler clears them on return, but not before a tail call, so this is a function
 * of its own that calls nothing.
 */
CLEARS_REGISTERS static void
clear_registers(void)
{
	/* The compiler must not see that there is nothing to do. */
	__asm__ volatile("" ::: "memory");
}

void
keystore_wipe(void *p, size_t len)
{
	if (p == NULL)
		return;
	OPENSSL_cleanse(p, len);
	clear_registers();
}

/*
 * Why libcrypto failed, in its own words, and leave its queue empty: the server
 * and libpq use the same queue and would report our leftovers as theirs.
 */
const char *
ksi_crypto_reason(void)
{
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());

	ERR_clear_error();
	return reason != NULL ? reason : "unknown error in libcrypto";
}

bool
ksi_equal(const void *a, const void *b, size_t len)
{
	return CRYPTO_memcmp(a, b, len) == 0;
}

bool
ksi_random(void *buf, size_t len)
{
	ERR_clear_error();
	return len <= INT_MAX && RAND_priv_bytes(buf, (int) len) == 1;
}

bool
ksi_sha256(const void *buf, size_t len, uint8_t digest[KSI_DIGEST_LEN])
{
	size_t		out_len = 0;

	ERR_clear_error();
	return EVP_Q_digest(NULL, "SHA256", NULL, buf, len, digest, &out_len) == 1 &&
		out_len == KSI_DIGEST_LEN;
}

/* AES-256-GCM; aad and in may be NULL if their length is 0. */
enum ksi_crypto
ksi_gcm_seal(const uint8_t key[KEYSTORE_KEY_LEN], const uint8_t iv[KSI_IV_LEN],
			 const uint8_t *aad, size_t aad_len, const uint8_t *in, size_t len, uint8_t *out,
			 uint8_t tag[KSI_TAG_LEN])
{
	enum ksi_crypto result = KSI_CRYPTO_FAILED;
	EVP_CIPHER *cipher = NULL;
	EVP_CIPHER_CTX *ctx = NULL;
	int			n;

	ERR_clear_error();
	if (aad_len > INT_MAX || len > INT_MAX)
		return KSI_CRYPTO_FAILED;
	cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
	ctx = EVP_CIPHER_CTX_new();
	if (cipher == NULL || ctx == NULL)
		goto out;
	if (EVP_EncryptInit_ex2(ctx, cipher, key, iv, NULL) != 1)
		goto out;
	if (aad_len > 0 && EVP_EncryptUpdate(ctx, NULL, &n, aad, (int) aad_len) != 1)
		goto out;
	if (len > 0 && (EVP_EncryptUpdate(ctx, out, &n, in, (int) len) != 1 || (size_t) n != len))
		goto out;
	if (EVP_EncryptFinal_ex(ctx, out + len, &n) != 1)
		goto out;
	if (EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, KSI_TAG_LEN, tag) != 1)
		goto out;
	result = KSI_CRYPTO_OK;

out:
	EVP_CIPHER_CTX_free(ctx);
	EVP_CIPHER_free(cipher);
	return result;
}

/* On anything but KSI_CRYPTO_OK out is wiped: unauthenticated plaintext is nobody's business. */
enum ksi_crypto
ksi_gcm_open(const uint8_t key[KEYSTORE_KEY_LEN], const uint8_t iv[KSI_IV_LEN],
			 const uint8_t *aad, size_t aad_len, const uint8_t *in, size_t len, uint8_t *out,
			 const uint8_t tag[KSI_TAG_LEN])
{
	enum ksi_crypto result = KSI_CRYPTO_FAILED;
	EVP_CIPHER *cipher = NULL;
	EVP_CIPHER_CTX *ctx = NULL;
	int			n;

	ERR_clear_error();
	if (aad_len > INT_MAX || len > INT_MAX)
		return KSI_CRYPTO_FAILED;
	cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
	ctx = EVP_CIPHER_CTX_new();
	if (cipher == NULL || ctx == NULL)
		goto out;
	if (EVP_DecryptInit_ex2(ctx, cipher, key, iv, NULL) != 1)
		goto out;
	if (aad_len > 0 && EVP_DecryptUpdate(ctx, NULL, &n, aad, (int) aad_len) != 1)
		goto out;
	if (len > 0 && (EVP_DecryptUpdate(ctx, out, &n, in, (int) len) != 1 || (size_t) n != len))
		goto out;
	/* The control call takes a plain pointer but only reads. */
	if (EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, KSI_TAG_LEN, (void *) (uintptr_t) tag) != 1)
		goto out;
	result = EVP_DecryptFinal_ex(ctx, out + len, &n) == 1 ? KSI_CRYPTO_OK : KSI_CRYPTO_MISMATCH;

out:
	if (result != KSI_CRYPTO_OK)
		OPENSSL_cleanse(out, len);
	EVP_CIPHER_CTX_free(ctx);
	EVP_CIPHER_free(cipher);
	return result;
}

/* Does this libcrypto have the function? */
bool
ksi_kdf_fetchable(const char *name)
{
	EVP_KDF    *kdf;

	ERR_clear_error();
	kdf = EVP_KDF_fetch(NULL, name, NULL);
	ERR_clear_error();
	EVP_KDF_free(kdf);
	return kdf != NULL;
}

static enum ksi_crypto
derive(const char *name, const OSSL_PARAM params[], uint8_t *out, size_t out_len)
{
	enum ksi_crypto result = KSI_CRYPTO_FAILED;
	EVP_KDF    *kdf = NULL;
	EVP_KDF_CTX *ctx = NULL;

	ERR_clear_error();
	kdf = EVP_KDF_fetch(NULL, name, NULL);
	if (kdf == NULL)
	{
		result = KSI_CRYPTO_UNAVAILABLE;
		goto out;
	}
	ctx = EVP_KDF_CTX_new(kdf);
	if (ctx == NULL)
		goto out;
	if (EVP_KDF_derive(ctx, out, out_len, params) == 1)
		result = KSI_CRYPTO_OK;
	else if (ERR_GET_REASON(ERR_peek_last_error()) == ERR_R_MALLOC_FAILURE)
		result = KSI_CRYPTO_NOMEM;

out:
	if (result != KSI_CRYPTO_OK)
		OPENSSL_cleanse(out, out_len);
	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
	return result;
}

/* libcrypto's parameters take plain pointers but only read them. */
static OSSL_PARAM
octets(const char *name, const void *p, size_t len)
{
	return OSSL_PARAM_construct_octet_string(name, (void *) (uintptr_t) p, len);
}

/* RFC 5869 with SHA-256, extract and expand. */
enum ksi_crypto
ksi_hkdf(const uint8_t *ikm, size_t ikm_len, const uint8_t *salt, size_t salt_len,
		 const uint8_t *info, size_t info_len, uint8_t *out, size_t out_len)
{
	char		digest[] = "SHA256";
	OSSL_PARAM	params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
		octets(OSSL_KDF_PARAM_KEY, ikm, ikm_len),
		octets(OSSL_KDF_PARAM_SALT, salt, salt_len),
		octets(OSSL_KDF_PARAM_INFO, info, info_len),
		OSSL_PARAM_construct_end()
	};

	return derive("HKDF", params, out, out_len);
}

/* RFC 7914.  maxmem in bytes: libcrypto's own limit, 32 MiB, is below the default cost. */
enum ksi_crypto
ksi_scrypt(const char *pass, size_t pass_len, const uint8_t *salt, size_t salt_len,
		   uint64_t n, uint32_t r, uint32_t p, uint64_t maxmem, uint8_t *out, size_t out_len)
{
	OSSL_PARAM	params[] = {
		octets(OSSL_KDF_PARAM_PASSWORD, pass, pass_len),
		octets(OSSL_KDF_PARAM_SALT, salt, salt_len),
		OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_N, &n),
		OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_R, &r),
		OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_P, &p),
		OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_MAXMEM, &maxmem),
		OSSL_PARAM_construct_end()
	};

	return derive("SCRYPT", params, out, out_len);
}

/* RFC 8018 section 5.2 with HMAC-SHA512. */
enum ksi_crypto
ksi_pbkdf2_sha512(const char *pass, size_t pass_len, const uint8_t *salt, size_t salt_len,
				  uint64_t iterations, uint8_t *out, size_t out_len)
{
	char		digest[] = "SHA512";
	OSSL_PARAM	params[] = {
		octets(OSSL_KDF_PARAM_PASSWORD, pass, pass_len),
		octets(OSSL_KDF_PARAM_SALT, salt, salt_len),
		OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_ITER, &iterations),
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
		OSSL_PARAM_construct_end()
	};

	return derive("PBKDF2", params, out, out_len);
}

/*
 * RFC 9106, version 1.3.  libcrypto has it from 3.2 on.  The parameter names are
 * spelled out because the headers of 3.0 and 3.1 have no macros for them, and a
 * library built there may run with a newer libcrypto.
 */
enum ksi_crypto
ksi_argon2id(const char *pass, size_t pass_len, const uint8_t *salt, size_t salt_len,
			 uint32_t passes, uint32_t memory_kib, uint32_t lanes, uint8_t *out, size_t out_len)
{
	OSSL_PARAM	params[] = {
		octets(OSSL_KDF_PARAM_PASSWORD, pass, pass_len),
		octets(OSSL_KDF_PARAM_SALT, salt, salt_len),
		OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_ITER, &passes),
		OSSL_PARAM_construct_uint32("lanes", &lanes),
		OSSL_PARAM_construct_uint32("memcost", &memory_kib),
		OSSL_PARAM_construct_end()
	};

	return derive("ARGON2ID", params, out, out_len);
}
