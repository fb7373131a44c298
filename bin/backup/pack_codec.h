/*
 * pack_codec.h
 *		Compression of blocks, by libzstd and liblz4.
 *
 * A codec belongs to one thread.
 */
#ifndef PACK_CODEC_H
#define PACK_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pack.h"

struct pack_codec;

/* NULL if memory is out.  For reading, whatever a block's codec is: PGX_PACK_NONE, 0. */
extern struct pack_codec *pack_codec_new(enum pgx_pack_codec codec, int level);
extern void pack_codec_free(struct pack_codec **codec);	/* NULLs the caller's pointer */

/* Room that the stored form of a whole block needs at most, whatever the codec. */
extern size_t pack_codec_bound(void);

/*
 * Compress len bytes; the stored form has *ret_len bytes and is in *ret_codec, PGX_PACK_NONE where
 * compressing made it no smaller.  False if the library failed.
 */
extern bool pack_compress(struct pack_codec *codec, const uint8_t *in, size_t len,
						  uint8_t *out, size_t *ret_len, enum pgx_pack_codec *ret_codec);

/* False if the bytes do not give exactly raw_len bytes, or if the build is without the library. */
extern bool pack_decompress(struct pack_codec *codec, enum pgx_pack_codec kind, const uint8_t *in,
							size_t len, uint8_t *out, size_t raw_len);

/* Does this build know it? */
extern bool pack_codec_available(enum pgx_pack_codec codec);

#endif							/* PACK_CODEC_H */
