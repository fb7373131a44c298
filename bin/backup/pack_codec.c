/*
 * pack_codec.c
 *		Compression of blocks.  See pack_codec.h.
 *
 * zstd's context is kept from block to block, since making one costs as much as a small block.  No
 * checksum of the codec's own is stored: the stream around it is authenticated.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#ifdef HAVE_LIBLZ4
#include <lz4.h>
#include <lz4hc.h>
#endif
#ifdef HAVE_LIBZSTD
#include <zstd.h>
#endif

#include "log.h"
#include "options.h"
#include "pack_codec.h"
#include "pack_format.h"

/* Levels as the codecs' own programs have them; 3 is zstd's default, 1 the fast form of LZ4. */
static const struct
{
	enum pgx_pack_codec codec;
	const char *name;
	const char *package;
	bool		available;
	uint32_t	min_level;
	uint32_t	max_level;
	int			default_level;
} codecs[] = {
	{PGX_PACK_NONE, "none", NULL, true, 0, 0, 0},
#ifdef HAVE_LIBZSTD
	{PGX_PACK_ZSTD, "zstd", "libzstd-dev", true, 1, 19, 3},
#else
	{PGX_PACK_ZSTD, "zstd", "libzstd-dev", false, 1, 19, 3},
#endif
#ifdef HAVE_LIBLZ4
	{PGX_PACK_LZ4, "lz4", "liblz4-dev", true, 1, 12, 1},
#else
	{PGX_PACK_LZ4, "lz4", "liblz4-dev", false, 1, 12, 1},
#endif
};

#define CODEC_COUNT		(sizeof(codecs) / sizeof(codecs[0]))
#define LZ4_FAST_LEVELS	2		/* from 3 on it is the HC form, as in the program lz4 */

struct pack_codec
{
	enum pgx_pack_codec kind;
	int			level;
#ifdef HAVE_LIBZSTD
	ZSTD_CCtx  *cctx;
	ZSTD_DCtx  *dctx;
#endif
};

const char *
pgx_pack_codec_name(enum pgx_pack_codec codec)
{
	for (size_t i = 0; i < CODEC_COUNT; i++)
		if (codecs[i].codec == codec)
			return codecs[i].name;
	return NULL;
}

bool
pack_codec_available(enum pgx_pack_codec codec)
{
	for (size_t i = 0; i < CODEC_COUNT; i++)
		if (codecs[i].codec == codec)
			return codecs[i].available;
	return false;
}

bool
pgx_pack_parse_codec(const char *text, enum pgx_pack_codec *ret_codec, int *ret_level)
{
	size_t		len = strcspn(text, ":");

	for (size_t i = 0; i < CODEC_COUNT; i++)
	{
		uint32_t	level = (uint32_t) codecs[i].default_level;

		if (strlen(codecs[i].name) != len || strncmp(codecs[i].name, text, len) != 0)
			continue;
		if (!codecs[i].available)
		{
			pgx_log_error("this build does not support compression by %s", codecs[i].name);
			pgx_log_hint("Install the package %s and build again.", codecs[i].package);
			return false;
		}
		if (text[len] == ':' &&
			!pgx_parse_uint(text + len + 1, "--compress", codecs[i].min_level, codecs[i].max_level, &level))
			return false;
		*ret_codec = codecs[i].codec;
		*ret_level = (int) level;
		return true;
	}
	pgx_log_error("invalid value \"%s\" for option %s", text, "--compress");
	pgx_log_hint("Use zstd, lz4 or none, with \":\" and a level if wanted.");
	return false;
}

struct pack_codec *
pack_codec_new(enum pgx_pack_codec kind, int level)
{
	struct pack_codec *codec = calloc(1, sizeof(*codec));

	if (codec == NULL)
		return NULL;
	codec->kind = kind;
	codec->level = level;
#ifdef HAVE_LIBZSTD
	if (kind == PGX_PACK_ZSTD)
		codec->cctx = ZSTD_createCCtx();
	if (kind == PGX_PACK_NONE)
		codec->dctx = ZSTD_createDCtx();
	if (codec->cctx == NULL && codec->dctx == NULL && kind != PGX_PACK_LZ4)
		pack_codec_free(&codec);
#endif
	return codec;
}

void
pack_codec_free(struct pack_codec **codec)
{
	if (*codec == NULL)
		return;
#ifdef HAVE_LIBZSTD
	ZSTD_freeCCtx((*codec)->cctx);
	ZSTD_freeDCtx((*codec)->dctx);
#endif
	free(*codec);
	*codec = NULL;
}

size_t
pack_codec_bound(void)
{
	size_t		bound = PACK_BLOCK_SIZE;

#ifdef HAVE_LIBZSTD
	if (ZSTD_compressBound(PACK_BLOCK_SIZE) > bound)
		bound = ZSTD_compressBound(PACK_BLOCK_SIZE);
#endif
#ifdef HAVE_LIBLZ4
	if ((size_t) LZ4_compressBound(PACK_BLOCK_SIZE) > bound)
		bound = (size_t) LZ4_compressBound(PACK_BLOCK_SIZE);
#endif
	return bound;
}

bool
pack_compress(struct pack_codec *codec, const uint8_t *in, size_t len, uint8_t *out, size_t *ret_len,
			  enum pgx_pack_codec *ret_codec)
{
	size_t		out_len = 0;

#ifdef HAVE_LIBZSTD
	if (codec->kind == PGX_PACK_ZSTD)
	{
		out_len = ZSTD_compressCCtx(codec->cctx, out, pack_codec_bound(), in, len, codec->level);
		if (ZSTD_isError(out_len))
			return false;
	}
#endif
#ifdef HAVE_LIBLZ4
	if (codec->kind == PGX_PACK_LZ4)
	{
		int			n = codec->level <= LZ4_FAST_LEVELS ?
			LZ4_compress_default((const char *) in, (char *) out, (int) len, (int) pack_codec_bound()) :
			LZ4_compress_HC((const char *) in, (char *) out, (int) len, (int) pack_codec_bound(),
							codec->level);

		if (n <= 0)
			return false;
		out_len = (size_t) n;
	}
#endif
	*ret_codec = codec->kind;
	if (out_len == 0 || out_len >= len)
	{
		memcpy(out, in, len);
		out_len = len;
		*ret_codec = PGX_PACK_NONE;
	}
	*ret_len = out_len;
	return true;
}

bool
pack_decompress(struct pack_codec *codec, enum pgx_pack_codec kind, const uint8_t *in, size_t len,
				uint8_t *out, size_t raw_len)
{
	switch (kind)
	{
		case PGX_PACK_NONE:
			if (len != raw_len)
				return false;
			memcpy(out, in, len);
			return true;
		case PGX_PACK_ZSTD:
#ifdef HAVE_LIBZSTD
			return ZSTD_decompressDCtx(codec->dctx, out, raw_len, in, len) == raw_len;
#else
			return false;
#endif
		case PGX_PACK_LZ4:
#ifdef HAVE_LIBLZ4
			return LZ4_decompress_safe((const char *) in, (char *) out, (int) len, (int) raw_len) ==
				(int) raw_len;
#else
			return false;
#endif
	}
	return false;
}
