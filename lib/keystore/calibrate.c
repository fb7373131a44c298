/*
 * calibrate.c
 *		What a key derivation function costs on this machine, and which parameters
 *		cost as much as somebody is willing to wait.
 */
#include <config.h>

#include <string.h>
#include <time.h>

#include "ksi.h"

/* Bounds of what calibration chooses; what may be read from a file has wider ones, in kdf.c. */
#define SCRYPT_LEAST_LOG2N		15
#define SCRYPT_MOST_LOG2N		20	/* 1 GiB with r = 8 */
#define SCRYPT_R				8
#define MOST_PARALLELISM		16
#define PBKDF2_LEAST			210000
#define PBKDF2_MOST				10000000
#define PBKDF2_PROBE			50000
#define ARGON2_LEAST_KIB		(19 * 1024)
#define ARGON2_MOST_KIB			(1024 * 1024)
#define ARGON2_LANES			4
#define ARGON2_MOST_PASSES		64

const char *
keystore_kdf_name(enum keystore_kdf kdf)
{
	return ksi_kdf_name((uint32_t) kdf);
}

bool
keystore_kdf_available(enum keystore_kdf kdf)
{
	switch ((uint32_t) kdf)
	{
		case KEYSTORE_KDF_SCRYPT:
			return ksi_kdf_fetchable("SCRYPT");
		case KEYSTORE_KDF_PBKDF2_SHA512:
			return ksi_kdf_fetchable("PBKDF2");
		case KEYSTORE_KDF_ARGON2ID:
			return ksi_kdf_fetchable("ARGON2ID");
		default:
			return false;
	}
}

/* Time one derivation, parameters unchecked: a probe may be cheaper than any slot. */
static enum keystore_status
measure(const struct keystore_kdf_params *kdf, uint64_t *ret_us)
{
	static const char probe[] = "a passphrase";
	uint8_t		salt[KSI_SALT_LEN] = {0};
	uint8_t		key[KEYSTORE_KEY_LEN];
	struct timespec start,
				end;
	enum ksi_crypto result;

	(void) clock_gettime(CLOCK_MONOTONIC, &start);	/* cannot fail with this clock */
	result = ksi_kdf_derive(kdf, probe, strlen(probe), salt, sizeof(salt), key, sizeof(key));
	(void) clock_gettime(CLOCK_MONOTONIC, &end);
	if (result != KSI_CRYPTO_OK)
	{
		(void) ksi_crypto_reason();	/* leave no error behind */
		if (result == KSI_CRYPTO_UNAVAILABLE)
			return KEYSTORE_EKDF;
		return result == KSI_CRYPTO_NOMEM ? KEYSTORE_ENOMEM : KEYSTORE_ECRYPTO;
	}
	*ret_us = (uint64_t) ((int64_t) (end.tv_sec - start.tv_sec) * 1000000 +
						  (end.tv_nsec - start.tv_nsec) / 1000);
	return KEYSTORE_OK;
}

enum keystore_status
keystore_kdf_measure(const struct keystore_kdf_params *kdf, uint64_t *ret_us)
{
	if (ksi_kdf_check(kdf, false) != NULL)
		return KEYSTORE_EINVAL;
	return measure(kdf, ret_us);
}

/* Double N while the target is not reached, then use parallelism, which costs time and no memory. */
static enum keystore_status
calibrate_scrypt(uint64_t target_us, struct keystore_kdf_params *ret_params)
{
	struct keystore_kdf_params kdf = {KEYSTORE_KDF_SCRYPT, SCRYPT_LEAST_LOG2N, 0, SCRYPT_R, 1};
	enum keystore_status status;
	uint64_t	us = 1;

	for (;;)
	{
		status = measure(&kdf, &us);
		/* What has less memory than that gets what it had the memory for. */
		if (status == KEYSTORE_ENOMEM && kdf.cost > SCRYPT_LEAST_LOG2N)
		{
			kdf.cost--;
			break;
		}
		if (status != KEYSTORE_OK)
			return status;
		if (kdf.cost == SCRYPT_MOST_LOG2N || us * 2 > target_us)
			break;
		kdf.cost++;
	}
	if (us == 0)
		us = 1;
	while (kdf.parallelism < MOST_PARALLELISM && us * (kdf.parallelism + 1) <= target_us)
		kdf.parallelism++;
	*ret_params = kdf;
	return KEYSTORE_OK;
}

static enum keystore_status
calibrate_pbkdf2(uint64_t target_us, struct keystore_kdf_params *ret_params)
{
	struct keystore_kdf_params kdf = {KEYSTORE_KDF_PBKDF2_SHA512, PBKDF2_PROBE, 0, 0, 0};
	enum keystore_status status;
	uint64_t	us = 1;
	uint64_t	iterations;

	status = measure(&kdf, &us);
	if (status != KEYSTORE_OK)
		return status;
	iterations = target_us * PBKDF2_PROBE / (us > 0 ? us : 1);
	if (iterations < PBKDF2_LEAST)
		iterations = PBKDF2_LEAST;
	if (iterations > PBKDF2_MOST)
		iterations = PBKDF2_MOST;
	kdf.cost = (uint32_t) iterations;
	*ret_params = kdf;
	return KEYSTORE_OK;
}

/* Memory first, as RFC 9106 section 4 advises, then passes. */
static enum keystore_status
calibrate_argon2id(uint64_t target_us, struct keystore_kdf_params *ret_params)
{
	struct keystore_kdf_params kdf = {KEYSTORE_KDF_ARGON2ID, 1, ARGON2_LEAST_KIB, 0, ARGON2_LANES};
	enum keystore_status status;
	uint64_t	us = 1;

	for (;;)
	{
		status = measure(&kdf, &us);
		if (status == KEYSTORE_ENOMEM && kdf.memory_kib > ARGON2_LEAST_KIB)
		{
			kdf.memory_kib /= 2;
			us /= 2;
			break;
		}
		if (status != KEYSTORE_OK)
			return status;
		if (kdf.memory_kib * 2 > ARGON2_MOST_KIB || us * 2 > target_us)
			break;
		kdf.memory_kib *= 2;
	}
	if (us == 0)
		us = 1;
	/* With the least memory one pass is too few: OWASP asks for two. */
	kdf.cost = (uint32_t) (target_us / us < ARGON2_MOST_PASSES ? target_us / us : ARGON2_MOST_PASSES);
	if (kdf.cost < (kdf.memory_kib == ARGON2_LEAST_KIB ? 2 : 1))
		kdf.cost = kdf.memory_kib == ARGON2_LEAST_KIB ? 2 : 1;
	*ret_params = kdf;
	return KEYSTORE_OK;
}

enum keystore_status
keystore_kdf_calibrate(enum keystore_kdf kdf, unsigned target_ms,
					   struct keystore_kdf_params *ret_params)
{
	uint64_t	target_us = (uint64_t) target_ms * 1000;

	if (target_ms < KEYSTORE_KDF_TARGET_MIN || target_ms > KEYSTORE_KDF_TARGET_MAX)
		return KEYSTORE_EINVAL;
	switch ((uint32_t) kdf)
	{
		case KEYSTORE_KDF_SCRYPT:
			return calibrate_scrypt(target_us, ret_params);
		case KEYSTORE_KDF_PBKDF2_SHA512:
			return calibrate_pbkdf2(target_us, ret_params);
		case KEYSTORE_KDF_ARGON2ID:
			return calibrate_argon2id(target_us, ret_params);
		default:
			return KEYSTORE_EKDF;
	}
}
