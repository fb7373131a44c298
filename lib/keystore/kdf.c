/*
 * kdf.c
 *		From a passphrase to a key: which functions there are, what they may cost,
 *		and the call.
 *
 * Costs come from a file that somebody else may have written, so they are checked
 * before they are used: too low would be weak, too high would take the machine's
 * memory before the passphrase is even looked at.
 */
#include <config.h>

#include "ksi.h"

#define SCRYPT_MIN_LOG2N		10
#define SCRYPT_MAX_LOG2N		24
#define SCRYPT_MAX_R			32
#define MAX_PARALLELISM			16
#define PBKDF2_MIN_READ			1000	/* SP 800-132 section 5.2 */
#define PBKDF2_MIN_NEW			210000
#define PBKDF2_MAX				10000000
#define ARGON2_MAX_PASSES		64
#define ARGON2_MIN_KIB_PER_LANE 8		/* RFC 9106 section 3.1 */
#define MAX_MEMORY				(UINT64_C(2) << 30)	/* bytes, whatever the function */

/* RFC 7914 section 2: V takes 128 * r * N bytes; the rest is B and scratch space. */
#define SCRYPT_MEMORY(log2n, r) (UINT64_C(128) * (r) << (log2n))
#define SCRYPT_SCRATCH			(UINT64_C(1) << 20)

const struct keystore_kdf_params ksi_kdf_default = {
	.kdf = KEYSTORE_KDF_SCRYPT,
	.cost = 17,
	.memory_kib = 0,
	.block_size = 8,
	.parallelism = 1
};

const struct keystore_kdf_params ksi_kdf_default_fips = {
	.kdf = KEYSTORE_KDF_PBKDF2_SHA512,
	.cost = PBKDF2_MIN_NEW,
	.memory_kib = 0,
	.block_size = 0,
	.parallelism = 0
};

/* The argument is what the file says, which need not be a value of the enum. */
const char *
ksi_kdf_name(uint32_t kdf)
{
	switch (kdf)
	{
		case KEYSTORE_KDF_SCRYPT:
			return "scrypt";
		case KEYSTORE_KDF_PBKDF2_SHA512:
			return "PBKDF2-HMAC-SHA512";
		case KEYSTORE_KDF_ARGON2ID:
			return "argon2id";
		default:
			return NULL;
	}
}

/*
 * What is wrong with the parameters, or NULL.  for_new asks more of a slot to be
 * made than of one to be read.  A function that this build does not know is not
 * wrong: it is refused when the slot is used, and other slots still open.
 */
const char *
ksi_kdf_check(const struct keystore_kdf_params *kdf, bool for_new)
{
	switch ((uint32_t) kdf->kdf)
	{
		case KEYSTORE_KDF_SCRYPT:
			if (kdf->cost < SCRYPT_MIN_LOG2N || kdf->cost > SCRYPT_MAX_LOG2N)
				return "scrypt cost must be between 10 and 24";
			if (kdf->block_size < 1 || kdf->block_size > SCRYPT_MAX_R)
				return "scrypt block size must be between 1 and 32";
			if (kdf->parallelism < 1 || kdf->parallelism > MAX_PARALLELISM)
				return "scrypt parallelism must be between 1 and 16";
			if (SCRYPT_MEMORY(kdf->cost, kdf->block_size) > MAX_MEMORY)
				return "scrypt must not need more than 2 GB of memory";
			if (kdf->memory_kib != 0)
				return "scrypt takes no memory parameter";
			return NULL;

		case KEYSTORE_KDF_PBKDF2_SHA512:
			if (for_new && kdf->cost < PBKDF2_MIN_NEW)
				return "PBKDF2 needs 210000 iterations or more";
			if (kdf->cost < PBKDF2_MIN_READ || kdf->cost > PBKDF2_MAX)
				return "PBKDF2 iterations must be between 1000 and 10000000";
			if (kdf->memory_kib != 0 || kdf->block_size != 0 || kdf->parallelism != 0)
				return "PBKDF2 takes no other parameter than its iterations";
			return NULL;

		case KEYSTORE_KDF_ARGON2ID:
			if (kdf->cost < 1 || kdf->cost > ARGON2_MAX_PASSES)
				return "argon2id passes must be between 1 and 64";
			if (kdf->parallelism < 1 || kdf->parallelism > MAX_PARALLELISM)
				return "argon2id lanes must be between 1 and 16";
			if (kdf->memory_kib < ARGON2_MIN_KIB_PER_LANE * kdf->parallelism)
				return "argon2id needs 8 KB of memory or more for each lane";
			if ((uint64_t) kdf->memory_kib * 1024 > MAX_MEMORY)
				return "argon2id must not need more than 2 GB of memory";
			if (kdf->block_size != 0)
				return "argon2id takes no block size";
			return NULL;

		default:
			return for_new ? "unknown key derivation function" : NULL;
	}
}

/* The parameters have passed ksi_kdf_check(). */
enum ksi_crypto
ksi_kdf_derive(const struct keystore_kdf_params *kdf, const char *pass, size_t pass_len,
			   const uint8_t *salt, size_t salt_len, uint8_t *out, size_t out_len)
{
	switch ((uint32_t) kdf->kdf)
	{
		case KEYSTORE_KDF_SCRYPT:
			return ksi_scrypt(pass, pass_len, salt, salt_len, UINT64_C(1) << kdf->cost,
							  kdf->block_size, kdf->parallelism,
							  SCRYPT_MEMORY(kdf->cost, kdf->block_size) + SCRYPT_SCRATCH,
							  out, out_len);
		case KEYSTORE_KDF_PBKDF2_SHA512:
			return ksi_pbkdf2_sha512(pass, pass_len, salt, salt_len, kdf->cost, out, out_len);
		case KEYSTORE_KDF_ARGON2ID:
			return ksi_argon2id(pass, pass_len, salt, salt_len, kdf->cost, kdf->memory_kib,
								kdf->parallelism, out, out_len);
		default:
			return KSI_CRYPTO_UNAVAILABLE;
	}
}
