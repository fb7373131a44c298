/*
 * fuzz_stream.c
 *		Any bytes as a sealed stream.  Restoring a backup reads what lies on a disk that others
 *		can write to.
 *
 * Whatever comes, nothing may be accepted as whole but what was sealed: only the known stream itself ends
 * well.  The second half of the work is done by sealing the input and opening it again with one byte, chosen by the
 * input, changed or not.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "stream.h"

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
require(bool condition)
{
	if (!condition)
		abort();
}

static enum tde_stream_status
read_all(const uint8_t *key, const uint8_t *data, size_t size)
{
	static uint8_t out[TDE_STREAM_CHUNK];
	tde_stream *stream = NULL;
	struct tde_stream_info info;
	enum tde_stream_status status = tde_stream_parse(data, size, &info);
	size_t		at = TDE_STREAM_HEADER_LEN;
	bool		last = false;

	if (status == TDE_STREAM_OK)
		status = tde_stream_open(data, key, &stream);
	while (status == TDE_STREAM_OK && !last)
	{
		size_t		n = size - at < TDE_STREAM_SEALED_CHUNK ? size - at : TDE_STREAM_SEALED_CHUNK;

		last = at + n == size;
		status = tde_stream_next(stream, data + at, n, last, out);
		at += n;
	}
	tde_stream_free(&stream);
	return status;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t		key[TDE_STREAM_KEY_LEN];
	struct tde_stream_info info = {.content = TDE_STREAM_BACKUP};
	uint8_t    *sealed;
	size_t		len;
	tde_stream *stream = NULL;

	/* The master key of tests/data/tde/stream_v1, which is among the seeds. */
	for (size_t i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t) (0x40 + i);
	(void) read_all(key, data, size);

	/* As one chunk: what was sealed comes back, and not if anything of it changed. */
	if (size < 5 || size - 5 > TDE_STREAM_CHUNK)
		return 0;
	len = TDE_STREAM_HEADER_LEN + size - 5 + TDE_STREAM_TAG_LEN;
	sealed = malloc(len);
	require(sealed != NULL);
	require(tde_stream_create(&info, key, key, sealed, &stream) == TDE_STREAM_OK);
	require(tde_stream_seal(stream, data + 5, size - 5, true, sealed + TDE_STREAM_HEADER_LEN) ==
			TDE_STREAM_OK);
	tde_stream_free(&stream);
	sealed[((size_t) data[0] << 24 | (size_t) data[1] << 16 | (size_t) data[2] << 8 | data[3]) % len] ^=
		data[4];
	require((read_all(key, sealed, len) == TDE_STREAM_OK) == (data[4] == 0));
	free(sealed);
	return 0;
}
