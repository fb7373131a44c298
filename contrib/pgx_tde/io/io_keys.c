/*
 * io_keys.c
 *		The keys in shared memory, and this process's cipher contexts.
 */
#include <config.h>

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "io_internal.h"

/* A context made from version of a slot; stale as soon as the slot has another. */
struct cached_cipher
{
	unsigned	version;
	tde_xts    *xts;
};

static struct cached_cipher ciphers[PGX_IO_MAX_KEYS];

static tde_ctr *wal_cipher;
static unsigned wal_cipher_version;

void *
pgx_io_alloc_shared(size_t size, bool *ret_locked)
{
	void	   *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	if (madvise(p, size, MADV_DONTDUMP) != 0)
	{
		(void) munmap(p, size);
		return NULL;
	}
	*ret_locked = mlock(p, size) == 0;
	return p;
}

int
pgx_io_find_key(enum tde_key_kind kind, uint32_t oid)
{
	unsigned	count = atomic_load_explicit(&pgx_shared->key_count, memory_order_acquire);

	for (unsigned i = 0; i < count; i++)
	{
		const struct pgx_io_key *key = &pgx_shared->keys[i];

		if (key->kind == (uint32_t) kind && key->oid == oid)
			return (int) i;
	}
	return -1;
}

enum tde_algorithm
pgx_io_get_algorithm(enum tde_key_kind kind, uint32_t oid)
{
	int			slot = pgx_io_find_key(kind, oid);

	return slot < 0 ? TDE_NONE : (enum tde_algorithm) pgx_shared->keys[slot].alg;
}

int
pgx_io_set_key(enum tde_key_kind kind, uint32_t oid, enum tde_algorithm alg, const uint8_t *key)
{
	int			slot = pgx_io_find_key(kind, oid);
	unsigned	count = atomic_load(&pgx_shared->key_count);
	size_t		len = kind == TDE_KEY_WAL ? tde_ctr_key_len(alg) : tde_xts_key_len(alg);
	struct pgx_io_key *entry;
	unsigned	version;

	if (slot < 0)
	{
		if (alg == TDE_NONE)
			return 0;
		if (count >= PGX_IO_MAX_KEYS)
			return -1;
		slot = (int) count;
	}
	entry = &pgx_shared->keys[slot];

	/* Most calls repeat what is known; then nobody's context becomes stale. */
	if (slot < (int) count && entry->alg == (uint32_t) alg &&
		CRYPTO_memcmp(entry->key, key, len) == 0)
		return 0;

	version = atomic_load(&entry->version);
	atomic_store(&entry->version, version | 1);
	entry->kind = (uint32_t) kind;
	entry->oid = oid;
	entry->alg = (uint32_t) alg;
	OPENSSL_cleanse(entry->key, sizeof(entry->key));
	if (len > 0)
		memcpy(entry->key, key, len);
	atomic_store_explicit(&entry->version, (version | 1) + 1, memory_order_release);
	if (slot == (int) count)
		atomic_store_explicit(&pgx_shared->key_count, count + 1, memory_order_release);
	if (kind == TDE_KEY_TABLESPACE && alg != TDE_NONE)
		pgx_io_tablespace_keyed(oid, slot);
	return 0;
}

/* Copy a slot's key out as of one version; false while it changes or has none. */
static bool
snapshot_key(int slot, unsigned *ret_version, enum tde_algorithm *ret_alg, uint8_t *ret_key)
{
	struct pgx_io_key *entry = &pgx_shared->keys[slot];
	unsigned	version = atomic_load_explicit(&entry->version, memory_order_acquire);

	if (version == 0 || (version & 1) != 0 || entry->alg == TDE_NONE)
		return false;
	*ret_alg = (enum tde_algorithm) entry->alg;
	memcpy(ret_key, entry->key, TDE_MAX_KEY_LEN);
	*ret_version = version;
	atomic_thread_fence(memory_order_acquire);
	return atomic_load_explicit(&entry->version, memory_order_relaxed) == version;
}

tde_xts *
pgx_io_relation_cipher(int slot)
{
	struct cached_cipher *cached = &ciphers[slot];
	unsigned	version = atomic_load_explicit(&pgx_shared->keys[slot].version, memory_order_acquire);
	enum tde_algorithm alg;
	uint8_t		key[TDE_MAX_KEY_LEN];

	if (cached->xts != NULL && cached->version == version)
		return cached->xts;

	tde_xts_free(&cached->xts);
	if (!snapshot_key(slot, &cached->version, &alg, key))
		errno = ENOKEY;
	else if ((cached->xts = tde_xts_new(alg, key)) == NULL)
		errno = EIO;
	OPENSSL_cleanse(key, sizeof(key));
	return cached->xts;
}

tde_ctr *
pgx_io_wal_cipher(void)
{
	int			slot = pgx_io_find_key(TDE_KEY_WAL, 0);
	enum tde_algorithm alg;
	uint8_t		key[TDE_MAX_KEY_LEN];

	if (slot < 0)
	{
		errno = ENOKEY;
		return NULL;
	}
	if (wal_cipher != NULL &&
		wal_cipher_version == atomic_load_explicit(&pgx_shared->keys[slot].version, memory_order_acquire))
		return wal_cipher;

	tde_ctr_free(&wal_cipher);
	if (!snapshot_key(slot, &wal_cipher_version, &alg, key))
		errno = ENOKEY;
	else if ((wal_cipher = tde_ctr_new(alg, key)) == NULL)
		errno = EIO;
	OPENSSL_cleanse(key, sizeof(key));
	return wal_cipher;
}

int
pgx_io_new_epoch(void)
{
	uint32_t	epoch = 0;

	pgx_shared->last_valid = false;
	while (epoch == 0)
	{
		if (RAND_bytes((unsigned char *) &epoch, sizeof(epoch)) != 1)
			return -1;
	}
	atomic_store(&pgx_shared->wal_epoch, epoch);
	return 0;
}
