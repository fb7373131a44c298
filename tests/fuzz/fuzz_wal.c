/*
 * fuzz_wal.c
 *		Any bytes as a page of WAL.  A standby and an archive give us what they have.
 *
 * The input is padded to a page.  If its header is one, the page is decrypted, and encrypted
 * again, which has to give the same bytes; every part of it on its own has to agree with the
 * whole.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "wal.h"

#define MAGIC_15	0xD110

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
require(bool condition)
{
	if (!condition)
		abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t key[32] = {1, 2, 3};
	static tde_ctr *ctr = NULL;
	uint8_t		page[TDE_WAL_PAGE_SIZE] = {0};
	uint8_t		plain[TDE_WAL_PAGE_SIZE];
	uint8_t		part[TDE_WAL_PAGE_SIZE];
	struct tde_wal_header header;
	size_t		used;
	size_t		from;
	size_t		len;

	if (ctr == NULL)
		ctr = tde_ctr_new(TDE_AES256, key);
	require(ctr != NULL);
	memcpy(page, data, size < sizeof(page) ? size : sizeof(page));
	if (!tde_wal_parse(page, MAGIC_15, &header))
		return 0;

	used = tde_wal_used(page);
	require(used % 8 == 0 && used <= TDE_WAL_PAGE_SIZE);
	memcpy(plain, page, sizeof(page));
	require(tde_wal_page_decrypt(ctr, &header, plain) == 0);
	require(memcmp(plain, page, header.header_len) == 0);
	require(memcmp(plain + used, page + used, sizeof(page) - used) == 0);

	/* A part of the page, chosen by the input. */
	from = used > 0 ? (size_t) page[used / 2] * 31 % (used + 1) : 0;
	len = used > from ? (size_t) page[used - 1] * 37 % (used - from + 1) : 0;
	require(tde_wal_crypt(ctr, &header, from, page + from, part, len) == 0);
	require(memcmp(part, plain + from, len) == 0);

	if (header.epoch != 0 && used >= header.header_len)
	{
		memcpy(part, plain, sizeof(page));
		require(tde_wal_page_encrypt(ctr, &header, used, part, part) == 0);
		require(memcmp(part, page, sizeof(page)) == 0);
	}
	return 0;
}
