/*
 * check_tde_faults.c
 *		lib/tde when memory runs out or libcrypto fails, at every single call.
 *
 * The program is linked with --wrap for each function below.  A job is run with the first call
 * failing, then with the second, and so on until it succeeds.  Each time the status must be right,
 * the table as it was, and nothing secret in memory that was freed.  Leaks are for valgrind and
 * the sanitizers to see.
 */
#include <config.h>

#include <malloc.h>
#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#else
#define VALGRIND_MAKE_MEM_DEFINED(p, len) ((void) 0)
#endif

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/rand.h>

#include "cipher.h"
#include "keytable.h"
#include "page.h"
#include "tde_common.h"
#include "wal.h"

#define KNOWN_LEN	372

/*
 * What must not be left behind: the middle of tablespace 16386's key, which counts up from 64.  Its
 * first half is in the master key too, whose copies in libcrypto are not ours.
 */
#define SECRET_AT		32
#define SECRET_FIRST	(64 + SECRET_AT)

/* How many calls may still succeed; negative: all of them. */
static int	calls_left = -1;
static bool failed_in_libcrypto;

/* Freed memory must not hold these 16 bytes; all zero until a test sets them. */
static uint8_t secret[16];
static bool secret_freed;

static bool
fails(bool libcrypto)
{
	if (calls_left < 0)
		return false;
	if (calls_left > 0)
	{
		calls_left--;
		return false;
	}
	calls_left = -1;
	failed_in_libcrypto = libcrypto;
	return true;
}

#define WRAP(type, name, params, args, libcrypto, failure) \
	extern type __real_##name params; \
	extern type __wrap_##name params; \
	type \
	__wrap_##name params \
	{ \
		return fails(libcrypto) ? (failure) : __real_##name args; \
	}

WRAP(void *, malloc, (size_t size), (size), false, NULL)
WRAP(void *, calloc, (size_t n, size_t size), (n, size), false, NULL)
WRAP(int, RAND_bytes, (unsigned char *buf, int len), (buf, len), true, 0)
WRAP(int, RAND_priv_bytes, (unsigned char *buf, int len), (buf, len), true, 0)
WRAP(EVP_CIPHER *, EVP_CIPHER_fetch, (OSSL_LIB_CTX *c, const char *a, const char *p), (c, a, p),
	 true, NULL)
WRAP(EVP_CIPHER_CTX *, EVP_CIPHER_CTX_new, (void), (), true, NULL)
WRAP(int, EVP_CipherInit_ex2, (EVP_CIPHER_CTX *c, const EVP_CIPHER *e, const unsigned char *k,
							   const unsigned char *i, int enc, const OSSL_PARAM *p),
	 (c, e, k, i, enc, p), true, 0)
WRAP(int, EVP_CipherUpdate, (EVP_CIPHER_CTX *c, unsigned char *o, int *ol,
							 const unsigned char *i, int il),
	 (c, o, ol, i, il), true, 0)
WRAP(int, EVP_CIPHER_CTX_ctrl, (EVP_CIPHER_CTX *c, int t, int a, void *p), (c, t, a, p), true, -1)
WRAP(EVP_KDF *, EVP_KDF_fetch, (OSSL_LIB_CTX *c, const char *a, const char *p), (c, a, p),
	 true, NULL)
WRAP(EVP_KDF_CTX *, EVP_KDF_CTX_new, (EVP_KDF *k), (k), true, NULL)
WRAP(int, EVP_KDF_derive, (EVP_KDF_CTX *c, unsigned char *k, size_t l, const OSSL_PARAM p[]),
	 (c, k, l, p), true, -1)
WRAP(unsigned char *, HMAC, (const EVP_MD *m, const void *k, int kl, const unsigned char *d,
							 size_t n, unsigned char *o, unsigned int *ol),
	 (m, k, kl, d, n, o, ol), true, NULL)

extern void __real_free(void *p);
extern void __wrap_free(void *p);

void
__wrap_free(void *p)
{
	if (p != NULL && secret[0] != 0)
	{
		size_t		len = malloc_usable_size(p);

		/* Whatever lies there, never written to or not, is what we want to see. */
		(void) VALGRIND_MAKE_MEM_DEFINED(p, len);
		if (memmem(p, len, secret, sizeof(secret)) != NULL)
			secret_freed = true;
	}
	__real_free(p);
}

static void
known_table(uint8_t buf[KNOWN_LEN], uint8_t master_key[TDE_MASTER_KEY_LEN])
{
	ck_assert_uint_eq(read_data("keys_v1", buf, KNOWN_LEN), KNOWN_LEN);
	count_up(master_key, TDE_MASTER_KEY_LEN, 0x40);
	count_up(secret, sizeof(secret), SECRET_FIRST);
}

/* The status that the failed call has to lead to. */
static enum tde_keytable_status
expected_status(void)
{
	return failed_in_libcrypto ? TDE_KEYTABLE_ECRYPTO : TDE_KEYTABLE_ENOMEM;
}

START_TEST(wiped_when_freed)
{
	uint8_t		buf[KNOWN_LEN];
	uint8_t		master_key[TDE_MASTER_KEY_LEN];
	tde_keytable *kt = NULL;
	volatile uint8_t *copy;

	/* The check itself has to work; volatile, or the compiler drops what is freed at once. */
	known_table(buf, master_key);
	copy = calloc(1, 100);
	for (size_t i = 0; i < sizeof(secret); i++)
		copy[50 + i] = secret[i];
	free((void *) copy);
	ck_assert(secret_freed);
	secret_freed = false;

	ck_assert_int_eq(tde_keytable_parse(buf, KNOWN_LEN, &kt), TDE_KEYTABLE_OK);
	ck_assert_int_eq(tde_keytable_open(kt, master_key), TDE_KEYTABLE_OK);
	for (uint32_t oid = 1; oid < 100; oid++)
		ck_assert_int_eq(tde_keytable_add(kt, TDE_KEY_TABLESPACE, oid, TDE_AES128),
						 TDE_KEYTABLE_OK);
	ck_assert_int_eq(tde_keytable_remove(kt, TDE_KEY_TABLESPACE, 50), TDE_KEYTABLE_OK);
	ck_assert_int_eq(tde_keytable_rewrap(kt, 9, master_key), TDE_KEYTABLE_OK);
	tde_keytable_free(&kt);
	ck_assert(!secret_freed);
}
END_TEST

START_TEST(parse_and_open)
{
	uint8_t		buf[KNOWN_LEN];
	uint8_t		master_key[TDE_MASTER_KEY_LEN];
	enum tde_keytable_status status = TDE_KEYTABLE_ENOMEM;
	int			faults = 0;
	int			call = 0;

	known_table(buf, master_key);
	for (; status != TDE_KEYTABLE_OK; call++)
	{
		tde_keytable *kt = NULL;
		size_t		len;

		calls_left = call;
		status = tde_keytable_parse(buf, KNOWN_LEN, &kt);
		if (status == TDE_KEYTABLE_OK)
			status = tde_keytable_open(kt, master_key);
		if (calls_left < 0)
		{
			/* The fault has passed, so Check can allocate again. */
			faults++;
			ck_assert_int_eq(status, expected_status());
			if (kt != NULL)
			{
				/* It is locked as before, and the same key opens it. */
				ck_assert_ptr_null(tde_keytable_key(kt, 0, &len));
				ck_assert_int_eq(tde_keytable_open(kt, master_key), TDE_KEYTABLE_OK);
				ck_assert_mem_eq(tde_keytable_key(kt, 2, &len) + SECRET_AT, secret, 16);
			}
		}
		calls_left = -1;
		tde_keytable_free(&kt);
	}
	ck_assert(!secret_freed);

	/* 5 allocations, 5 calls for the derivation, 1 for the MAC, 6 for each of the three keys. */
	ck_assert_int_eq(faults, 30);
}
END_TEST

/* Each job is done on an open table, and leaves it as it was if it fails. */
static enum tde_keytable_status
job_add(tde_keytable *kt)
{
	return tde_keytable_add(kt, TDE_KEY_TABLESPACE, 5, TDE_AES256);
}

static enum tde_keytable_status
job_replace(tde_keytable *kt)
{
	return tde_keytable_add(kt, TDE_KEY_WAL, 0, TDE_AES128);
}

static enum tde_keytable_status
job_rewrap(tde_keytable *kt)
{
	uint8_t		master_key[TDE_MASTER_KEY_LEN] = {1};

	return tde_keytable_rewrap(kt, 77, master_key);
}

static enum tde_keytable_status
job_set_keystore(tde_keytable *kt)
{
	return tde_keytable_set_keystore(kt, 99, "another ring", 12);
}

static enum tde_keytable_status
job_serialize(tde_keytable *kt)
{
	uint8_t    *out = NULL;
	size_t		len;
	enum tde_keytable_status status = tde_keytable_serialize(kt, &out, &len);

	free(out);
	return status;
}

static const struct
{
	const char *name;
	enum tde_keytable_status (*job) (tde_keytable *kt);
	int			faults;
} jobs[] = {
	{"add", job_add, 9},
	{"replace", job_replace, 8},
	{"rewrap", job_rewrap, 28},
	{"set keystore", job_set_keystore, 1},
	{"serialize", job_serialize, 2},
};

START_TEST(job_fails_clean)
{
	uint8_t		buf[KNOWN_LEN];
	uint8_t		master_key[TDE_MASTER_KEY_LEN];
	tde_keytable *kt = NULL;
	uint8_t    *before = NULL;
	size_t		len;
	int			faults = 0;

	known_table(buf, master_key);
	for (;; faults++)
	{
		enum tde_keytable_status status;
		uint8_t    *after = NULL;
		bool		done;

		ck_assert_int_eq(tde_keytable_parse(buf, KNOWN_LEN, &kt), TDE_KEYTABLE_OK);
		ck_assert_int_eq(tde_keytable_open(kt, master_key), TDE_KEYTABLE_OK);
		calls_left = faults;
		status = jobs[_i].job(kt);
		done = calls_left >= 0;
		calls_left = -1;
		if (done)
			break;
		ck_assert_int_eq(status, expected_status());

		/* Generation 6 of the table that was read, byte for byte. */
		ck_assert_int_eq(tde_keytable_serialize(kt, &after, &len), TDE_KEYTABLE_OK);
		ck_assert_uint_eq(tde_keytable_generation(kt), 6);
		if (before == NULL)
		{
			ck_assert_uint_eq(len, KNOWN_LEN);
			ck_assert_mem_eq(after + 20, buf + 20, KNOWN_LEN - 20 - 32);
			before = after;
			after = NULL;
		}
		else
			ck_assert_mem_eq(after, before, KNOWN_LEN);
		free(after);
		tde_keytable_free(&kt);
	}
	ck_assert_int_eq(faults, jobs[_i].faults);
	ck_assert(!secret_freed);
	free(before);
	tde_keytable_free(&kt);
}
END_TEST

START_TEST(new_table_fails)
{
	uint8_t		uuid[16] = {0};

	calls_left = 0;
	ck_assert_ptr_null(tde_keytable_new(uuid));
	ck_assert(!failed_in_libcrypto);
}
END_TEST

START_TEST(contexts_fail_clean)
{
	uint8_t		key[TDE_MAX_KEY_LEN];
	tde_xts    *xts = NULL;
	tde_ctr    *ctr = NULL;
	int			faults = 0;

	count_up(key, sizeof(key), 0);
	while (xts == NULL)
	{
		calls_left = faults++;
		xts = tde_xts_new(TDE_AES256, key);
	}
	calls_left = -1;
	/* Two more where the faster implementation is compared with libcrypto. */
	ck_assert_int_eq(faults - 1, tde_xts_is_fast(xts) ? 9 : 7);
	tde_xts_free(&xts);
	faults = 0;
	while (ctr == NULL)
	{
		calls_left = faults++;
		ctr = tde_ctr_new(TDE_AES256, key);
	}
	calls_left = -1;
	ck_assert_int_eq(faults - 1, tde_ctr_is_fast(ctr) ? 6 : 4);
	tde_ctr_free(&ctr);
}
END_TEST

/*
 * A page that could not be transformed must not be taken for one that was; and no call allocates.
 */
START_TEST(transforms_fail)
{
	struct tde_page_id id = {1, 2, 0, 3};
	struct tde_wal_header header = {1, 1, 0x2000, 24};
	uint8_t		key[TDE_MAX_KEY_LEN];
	uint8_t		page[PAGE_LEN];
	uint8_t		out[PAGE_LEN];
	int			result;
	int			left;
	tde_xts    *xts;
	tde_ctr    *ctr;

	count_up(key, sizeof(key), 0);
	fill(page, sizeof(page), 1);
	xts = tde_xts_new(TDE_AES256, key);
	tde_xts_set_slow(xts);
	ctr = tde_ctr_new(TDE_AES256, key);
	tde_ctr_set_slow(ctr);

	/* Check is linked with the same wrappers: look at a result after the last fault has passed. */
	for (int call = 0; call < 2; call++)
	{
		int			results[4];

		calls_left = call;
		results[0] = tde_page_encrypt(xts, &id, true, page, out);
		calls_left = call;
		results[1] = tde_page_decrypt(xts, &id, true, out);
		calls_left = call;
		results[2] = tde_wal_page_encrypt(ctr, &header, PAGE_LEN, page, page);
		calls_left = call;
		results[3] = tde_wal_page_decrypt(ctr, &header, page);
		ck_assert_int_eq(calls_left, -1);
		ck_assert(failed_in_libcrypto);
		ck_assert_int_eq(results[0], TDE_PAGE_FAILED);
		ck_assert_int_eq(results[1], TDE_PAGE_FAILED);
		ck_assert_int_eq(results[2], -1);
		ck_assert_int_eq(results[3], -1);
	}

	/* Two calls of libcrypto a page, no more; a third where WAL begins inside an AES block. */
	calls_left = 3;
	result = tde_page_encrypt(xts, &id, true, page, out);
	left = calls_left;
	calls_left = -1;
	ck_assert_int_eq(result, TDE_PAGE_OK);
	ck_assert_int_eq(left, 1);
	calls_left = 4;
	result = tde_wal_page_decrypt(ctr, &header, page);
	left = calls_left;
	calls_left = -1;
	ck_assert_int_eq(result, 0);
	ck_assert_int_eq(left, 1);
	tde_xts_free(&xts);
	tde_ctr_free(&ctr);
}
END_TEST

int
main(void)
{
	Suite	   *s = suite_create("tde faults");

	ADD_TEST(s, wiped_when_freed);
	ADD_TEST(s, parse_and_open);
	ADD_LOOP_TEST(s, job_fails_clean, LENGTH_OF(jobs));
	ADD_TEST(s, new_table_fails);
	ADD_TEST(s, contexts_fail_clean);
	ADD_TEST(s, transforms_fail);
	return run_suite(s);
}
