/*
 * cipher.c
 *		AES-XTS and AES-CTR through libcrypto, with the key schedule kept; by
 *		instructions of the processor where those are faster and give the same.
 *
 * A server transforms every page it reads or writes, so nothing here allocates, fetches
 * or expands a key per call: that is done once, when the context is made, and a call changes
 * only the tweak or the counter.  If libcrypto fails, its reason stays in its error queue
 * for the caller, who alone knows what was being attempted.
 */
#include <config.h>

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "cipher.h"
#include "cipher_int.h"
#include "aes_vaes.h"

#define AES_BLOCK_LEN		16	/* bytes */

/* SP 800-38E: a data unit of XTS has at most 2^20 AES blocks, and at least one. */
#define XTS_MAX_LEN			((size_t) AES_BLOCK_LEN << 20)

static const struct
{
	enum tde_algorithm alg;
	const char *name;
	size_t		key_len;		/* of one AES key */
	const char *xts;			/* libcrypto's names */
	const char *ctr;
} algorithms[] = {
	{TDE_NONE, "none", 0, NULL, NULL},
	{TDE_AES128, "AES128", 16, "AES-128-XTS", "AES-128-CTR"},
	{TDE_AES256, "AES256", 32, "AES-256-XTS", "AES-256-CTR"},
};

#define ALGORITHM_COUNT		(sizeof(algorithms) / sizeof(algorithms[0]))

/* What the two implementations of a mode are compared with: two steps of the faster one, and one block. */
#define SAMPLE_LEN			(33 * AES_BLOCK_LEN)

/*
 * XTS runs AES in both directions.  Turning one context round would expand the key again, so there
 * are two.
 */
struct tde_xts
{
	EVP_CIPHER_CTX *encrypt;
	EVP_CIPHER_CTX *decrypt;
	bool		fast;			/* use vaes for whole blocks */
	struct xts_vaes vaes;
};

struct tde_ctr
{
	EVP_CIPHER_CTX *ctx;
	bool		fast;			/* use vaes */
	struct ctr_vaes vaes;
};

size_t
tde_ctr_key_len(enum tde_algorithm alg)
{
	for (size_t i = 0; i < ALGORITHM_COUNT; i++)
		if (algorithms[i].alg == alg)
			return algorithms[i].key_len;
	return 0;
}

size_t
tde_xts_key_len(enum tde_algorithm alg)
{
	return 2 * tde_ctr_key_len(alg);
}

/* NULL for a number that is not in the enum: it may come from a file. */
const char *
tde_algorithm_name(enum tde_algorithm alg)
{
	for (size_t i = 0; i < ALGORITHM_COUNT; i++)
		if (algorithms[i].alg == alg)
			return algorithms[i].name;
	return NULL;
}

int
tde_algorithm_parse(const char *name, enum tde_algorithm *ret_alg)
{
	for (size_t i = 0; i < ALGORITHM_COUNT; i++)
	{
		if (strcasecmp(algorithms[i].name, name) == 0)
		{
			*ret_alg = algorithms[i].alg;
			return 0;
		}
	}
	return -1;
}

/*
 * Make a context with its key expanded and no IV yet.  The context keeps its own reference to the
 * fetched cipher, so the one made here is given back.
 */
static EVP_CIPHER_CTX *
context_new(const char *cipher_name, const uint8_t *key, int enc)
{
	EVP_CIPHER *cipher = NULL;
	EVP_CIPHER_CTX *ctx = NULL;
	EVP_CIPHER_CTX *result = NULL;

	cipher = EVP_CIPHER_fetch(NULL, cipher_name, NULL);
	if (cipher == NULL)
		goto out;
	ctx = EVP_CIPHER_CTX_new();
	if (ctx == NULL)
		goto out;
	if (EVP_CipherInit_ex2(ctx, cipher, key, NULL, enc, NULL) != 1)
		goto out;
	result = ctx;
	ctx = NULL;

out:
	EVP_CIPHER_CTX_free(ctx);
	EVP_CIPHER_free(cipher);
	return result;
}

/* Give the context a new IV, then run it; the direction (-1) and the key stay as they are. */
static int
context_run(EVP_CIPHER_CTX *ctx, const uint8_t iv[AES_BLOCK_LEN], const uint8_t *in, uint8_t *out,
			size_t len)
{
	int			out_len = 0;

	if (EVP_CipherInit_ex2(ctx, NULL, NULL, iv, -1, NULL) != 1)
		return -1;
	if (EVP_CipherUpdate(ctx, out, &out_len, in, (int) len) != 1 || (size_t) out_len != len)
		return -1;
	return 0;
}

/*
 * May libcrypto be passed by?  Where it has been told to be in FIPS mode, cryptography is its business
 * alone.
 */
static bool
may_accelerate(void)
{
	return aes_vaes_supported() && EVP_default_properties_is_fips_enabled(NULL) == 0;
}

static void
make_sample(uint8_t sample[SAMPLE_LEN])
{
	for (size_t i = 0; i < SAMPLE_LEN; i++)
		sample[i] = (uint8_t) (i * 151 >> 3);
}

/* Set the faster implementation up, and use it if it does with this key what libcrypto does. */
static int
accelerate_xts(tde_xts *xts, const uint8_t *key, size_t half)
{
	uint8_t		tweak[AES_BLOCK_LEN];
	uint8_t		sample[SAMPLE_LEN];
	uint8_t		theirs[SAMPLE_LEN];
	uint8_t		ours[SAMPLE_LEN];

	if (!may_accelerate())
		return 0;
	make_sample(sample);
	memset(tweak, 0xA5, sizeof(tweak));
	if (context_run(xts->encrypt, tweak, sample, theirs, SAMPLE_LEN) != 0)
		return -1;
	xts_vaes_init(&xts->vaes, key, half);
	xts_vaes_crypt(&xts->vaes, true, tweak, sample, ours, SAMPLE_LEN);
	xts->fast = memcmp(ours, theirs, SAMPLE_LEN) == 0;
	xts_vaes_crypt(&xts->vaes, false, tweak, ours, ours, SAMPLE_LEN);
	xts->fast = xts->fast && memcmp(ours, sample, SAMPLE_LEN) == 0;
	return 0;
}

/* The same; the counter is one that is carried over all its bytes. */
static int
accelerate_ctr(tde_ctr *ctr, const uint8_t *key, size_t len)
{
	uint8_t		counter[AES_BLOCK_LEN];
	uint8_t		sample[SAMPLE_LEN];
	uint8_t		theirs[SAMPLE_LEN];
	uint8_t		ours[SAMPLE_LEN];

	if (!may_accelerate())
		return 0;
	make_sample(sample);
	memset(counter, 0xFF, sizeof(counter));
	if (context_run(ctr->ctx, counter, sample, theirs, SAMPLE_LEN) != 0)
		return -1;
	ctr_vaes_init(&ctr->vaes, key, len);
	ctr_vaes_crypt(&ctr->vaes, counter, 0, sample, ours, SAMPLE_LEN);
	ctr->fast = memcmp(ours, theirs, SAMPLE_LEN) == 0;
	return 0;
}

tde_xts *
tde_xts_new(enum tde_algorithm alg, const uint8_t *key)
{
	size_t		half = tde_ctr_key_len(alg);
	const char *name = NULL;
	tde_xts    *xts = NULL;

	for (size_t i = 0; i < ALGORITHM_COUNT; i++)
		if (algorithms[i].alg == alg)
			name = algorithms[i].xts;
	if (name == NULL)
		return NULL;

	/*
	 * With equal halves XTS is open to an attack, and FIPS 140-2 IG A.9 forbids them.  libcrypto
	 * refuses them for encryption, but for decryption in FIPS mode only.
	 */
	if (CRYPTO_memcmp(key, key + half, half) == 0)
		return NULL;

	xts = calloc(1, sizeof(*xts));
	if (xts == NULL)
		return NULL;
	xts->encrypt = context_new(name, key, 1);
	xts->decrypt = context_new(name, key, 0);
	if (xts->encrypt == NULL || xts->decrypt == NULL || accelerate_xts(xts, key, half) != 0)
		tde_xts_free(&xts);
	return xts;
}

bool
tde_xts_is_fast(const tde_xts *xts)
{
	return xts->fast;
}

const struct xts_vaes *
tde_xts_vaes(const tde_xts *xts)
{
	return xts->fast ? &xts->vaes : NULL;
}

void
tde_xts_set_slow(tde_xts *xts)
{
	xts->fast = false;
}

/* Key schedules are in the contexts too, and libcrypto wipes those when it frees them. */
void
tde_xts_free(tde_xts **xts)
{
	if (*xts == NULL)
		return;
	EVP_CIPHER_CTX_free((*xts)->encrypt);
	EVP_CIPHER_CTX_free((*xts)->decrypt);
	OPENSSL_cleanse(*xts, sizeof(**xts));
	free(*xts);
	*xts = NULL;
}

int
tde_xts_encrypt(tde_xts *xts, const uint8_t tweak[16], const uint8_t *in, uint8_t *out, size_t len)
{
	if (len < AES_BLOCK_LEN || len > XTS_MAX_LEN)
		return -1;
	if (xts->fast && len % AES_BLOCK_LEN == 0)
	{
		xts_vaes_crypt(&xts->vaes, true, tweak, in, out, len);
		return 0;
	}
	return context_run(xts->encrypt, tweak, in, out, len);
}

int
tde_xts_decrypt(tde_xts *xts, const uint8_t tweak[16], const uint8_t *in, uint8_t *out, size_t len)
{
	if (len < AES_BLOCK_LEN || len > XTS_MAX_LEN)
		return -1;
	if (xts->fast && len % AES_BLOCK_LEN == 0)
	{
		xts_vaes_crypt(&xts->vaes, false, tweak, in, out, len);
		return 0;
	}
	return context_run(xts->decrypt, tweak, in, out, len);
}

tde_ctr *
tde_ctr_new(enum tde_algorithm alg, const uint8_t *key)
{
	const char *name = NULL;
	tde_ctr    *ctr = NULL;

	for (size_t i = 0; i < ALGORITHM_COUNT; i++)
		if (algorithms[i].alg == alg)
			name = algorithms[i].ctr;
	if (name == NULL)
		return NULL;

	ctr = calloc(1, sizeof(*ctr));
	if (ctr == NULL)
		return NULL;
	ctr->ctx = context_new(name, key, 1);
	if (ctr->ctx == NULL || accelerate_ctr(ctr, key, tde_ctr_key_len(alg)) != 0)
		tde_ctr_free(&ctr);
	return ctr;
}

bool
tde_ctr_is_fast(const tde_ctr *ctr)
{
	return ctr->fast;
}

void
tde_ctr_set_slow(tde_ctr *ctr)
{
	ctr->fast = false;
}

void
tde_ctr_free(tde_ctr **ctr)
{
	if (*ctr == NULL)
		return;
	EVP_CIPHER_CTX_free((*ctr)->ctx);
	OPENSSL_cleanse(*ctr, sizeof(**ctr));
	free(*ctr);
	*ctr = NULL;
}

int
tde_ctr_crypt(tde_ctr *ctr, const uint8_t counter[16], size_t skip, const uint8_t *in, uint8_t *out,
			  size_t len)
{
	static const uint8_t zeros[AES_BLOCK_LEN];
	uint8_t		passed[AES_BLOCK_LEN];
	int			out_len = 0;
	int			result = -1;

	if (skip >= AES_BLOCK_LEN || len > INT_MAX)
		return -1;
	if (ctr->fast)
	{
		ctr_vaes_crypt(&ctr->vaes, counter, skip, in, out, len);
		return 0;
	}
	if (skip == 0)
		return context_run(ctr->ctx, counter, in, out, len);

	/* libcrypto has no way to start inside a block, so run it over the bytes to be skipped. */
	if (context_run(ctr->ctx, counter, zeros, passed, skip) == 0 &&
		EVP_CipherUpdate(ctr->ctx, out, &out_len, in, (int) len) == 1 && (size_t) out_len == len)
		result = 0;

	/* This is keystream, and what it hides is on disk. */
	OPENSSL_cleanse(passed, sizeof(passed));
	return result;
}
