/*
 * fuzz_keytable.c
 *		Any bytes as a key table.  The table lies in the data directory, where others can write.
 *
 * What can be parsed is also opened with the MAC put right, as else no input would get
 * past it, and written out again: the form is canonical, so the bytes must come back.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "keytable_int.h"

#define AT_GENERATION	12
#define AT_UUID			20

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
require(bool condition)
{
	if (!condition)
		abort();
}

/* Open the table under a fixed master key and compare its bytes. */
static void
open_forged(const uint8_t *data, size_t size)
{
	static const uint8_t master_key[TDE_MASTER_KEY_LEN] = {1, 2, 3};
	struct keywrap_keys keys;
	tde_keytable *kt = NULL;
	uint8_t    *buf = malloc(size);
	uint8_t    *out = NULL;
	size_t		len = size - KEYWRAP_MAC_LEN;
	uint64_t	generation;

	require(buf != NULL);
	memcpy(buf, data, size);
	require(keywrap_derive(master_key, buf + AT_UUID, &keys) == TDE_KEYTABLE_OK);
	require(keywrap_mac(&keys, buf, len, buf + len) == TDE_KEYTABLE_OK);
	require(tde_keytable_parse(buf, size, &kt) == TDE_KEYTABLE_OK);

	/* A table with entries is damaged all the same: their tags do not fit. */
	if (tde_keytable_open(kt, master_key) == TDE_KEYTABLE_OK)
	{
		generation = tde_keytable_generation(kt);
		if (tde_keytable_serialize(kt, &out, &len) == TDE_KEYTABLE_OK)
		{
			require(len == size && tde_keytable_generation(kt) == generation + 1);
			require(memcmp(out, buf, AT_GENERATION) == 0);
			require(memcmp(out + AT_UUID, buf + AT_UUID,
						   size - AT_UUID - KEYWRAP_MAC_LEN) == 0);
			free(out);
		}
		else
			require(generation == UINT64_MAX);
	}
	else
		require(tde_keytable_count(kt) > 0);
	tde_keytable_free(&kt);
	free(buf);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	tde_keytable *kt = NULL;
	size_t		len;
	uint8_t		uuid[16];

	if (tde_keytable_parse(data, size, &kt) != TDE_KEYTABLE_OK)
	{
		require(kt == NULL);
		return 0;
	}
	tde_keytable_uuid(kt, uuid);
	tde_keytable_ring(kt, &len);
	require(len <= TDE_KEYTABLE_MAX_RING);
	require(tde_keytable_count(kt) <= TDE_KEYTABLE_MAX_ENTRIES);
	for (size_t i = 0; i < tde_keytable_count(kt); i++)
		require(tde_keytable_entry(kt, i)->kind == TDE_KEY_WAL ||
				tde_keytable_entry(kt, i)->oid != 0);
	tde_keytable_free(&kt);
	open_forged(data, size);
	return 0;
}
