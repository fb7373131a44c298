/*
 * secret.c
 *		Memory for keys: pages of its own between two guard pages, locked, left
 *		out of core dumps, wiped before it is given back.
 *
 * It must not know what the bytes mean, and it never fails because memory could
 * not be locked: that is remembered for keystore_memory_locked().
 */
#include <config.h>

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ksi.h"

/*
 * The bytes are put at the end of their pages, so that reading or writing one
 * too many hits the guard page and the process dies by signal instead of
 * showing a key.
 */
bool
ksi_secret_alloc(struct ksi_secret *s, size_t len)
{
	size_t		page = (size_t) sysconf(_SC_PAGESIZE);
	size_t		data;
	uint8_t    *map;

	memset(s, 0, sizeof(*s));
	if (len == 0 || len > SIZE_MAX - 3 * page)
		return false;
	data = (len + page - 1) / page * page;

	map = mmap(NULL, data + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED)
		return false;
	if (mprotect(map + page, data, PROT_READ | PROT_WRITE) != 0)
	{
		(void) munmap(map, data + 2 * page);
		return false;
	}

	/* A kernel without MADV_DONTDUMP is older than any that PostgreSQL 15 runs on. */
	(void) madvise(map + page, data, MADV_DONTDUMP);
	s->locked = mlock(map + page, data) == 0;
	s->owner = getpid();
	s->map = map;
	s->map_len = data + 2 * page;
	s->ptr = map + page + data - len;
	s->len = len;
	return true;
}

void
ksi_secret_free(struct ksi_secret *s)
{
	if (s->map != NULL)
	{
		keystore_wipe(s->ptr, s->len);
		(void) munmap(s->map, s->map_len);	/* unlocks too; fails only on a bad address */
	}
	memset(s, 0, sizeof(*s));
}

/* Hand over what from holds; what to held is wiped. */
void
ksi_secret_move(struct ksi_secret *to, struct ksi_secret *from)
{
	ksi_secret_free(to);
	memcpy(to, from, sizeof(*to));
	memset(from, 0, sizeof(*from));
}

/* In a forked child the copy is there but the lock is not. */
bool
ksi_secret_locked(const struct ksi_secret *s)
{
	return s->map == NULL || (s->locked && s->owner == getpid());
}
