/*
 * stream.h
 *		A sequence of bytes sealed for storage: what is changed, cut off, put in another order or
 *		taken from another stream is noticed before it is used.
 *
 * AES-256-GCM (SP 800-38D) in chunks, as the STREAM construction of Hoang, Reyhanitabar, Rogaway
 * and Vizar ("Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance", CRYPTO 2015)
 * has it: the nonce of a chunk is 7 bytes of the stream's own | the chunk's number (u32) | 1 in the last
 * chunk, else 0; the whole header is associated data of each chunk.  The chunks' key comes by
 * HKDF-SHA256 (RFC 5869) from the data key, with the stream's random id as the salt.  The data key is
 * in the header, wrapped under a master key of the keystore.  Bytes: pgx_backup_stream(5).
 *
 * As in cipher.h: buffers only, no globals, one thread at a time per object.
 */
#ifndef TDE_STREAM_H
#define TDE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TDE_STREAM_HEADER_LEN	140 /* bytes */
#define TDE_STREAM_CHUNK		65536	/* bytes of plaintext in every chunk but the last */
#define TDE_STREAM_TAG_LEN		16	/* after each chunk's ciphertext */
#define TDE_STREAM_SEALED_CHUNK	(TDE_STREAM_CHUNK + TDE_STREAM_TAG_LEN)
#define TDE_STREAM_KEY_LEN		32	/* data key and master key */
#define TDE_STREAM_ID_LEN		16

enum tde_stream_status
{
	TDE_STREAM_OK = 0,
	TDE_STREAM_ENOMEM = 1,
	TDE_STREAM_EFORMAT = 2,		/* not a stream: wrong magic, or too short for a header */
	TDE_STREAM_EVERSION = 3,	/* a version, content or cipher this build does not know */
	TDE_STREAM_EDAMAGED = 4,	/* altered, cut off, extended, out of order, or of another stream */
	TDE_STREAM_EKEY = 5,		/* this master key does not open the header, or the header was altered */
	TDE_STREAM_ECRYPTO = 6,		/* libcrypto failed */
	TDE_STREAM_EINVAL = 7,		/* a chunk of a length it cannot have, or one after the last */
	TDE_STREAM_EFULL = 8		/* 2^32 chunks are there already */
};

/* What the bytes inside are.  Numbers are on disk. */
enum tde_stream_content
{
	TDE_STREAM_BACKUP = 1		/* blocks of a packed base backup */
};

/* What the header says in the clear.  Authenticated: reliable once tde_stream_open() succeeded. */
struct tde_stream_info
{
	enum tde_stream_content content;
	uint8_t		keystore_uuid[16];
	uint32_t	master_key_id;	/* that wraps the data key */
	uint32_t	number;			/* of this stream in the backup, from 0 */
	uint8_t		backup_id[TDE_STREAM_ID_LEN];	/* the same in all streams of a backup */
	uint8_t		stream_id[TDE_STREAM_ID_LEN];	/* random; drawn by tde_stream_create() */
};

typedef struct tde_stream tde_stream;

/*
 * Begin a stream: header, TDE_STREAM_HEADER_LEN bytes, into ret_header; info->stream_id is ignored.
 * data_key is random, the same for all streams of a backup, and the caller wipes both keys.
 */
extern enum tde_stream_status
			tde_stream_create(const struct tde_stream_info *info,
							  const uint8_t data_key[TDE_STREAM_KEY_LEN],
							  const uint8_t master_key[TDE_STREAM_KEY_LEN],
							  uint8_t ret_header[TDE_STREAM_HEADER_LEN], tde_stream **ret_stream);

/*
 * Seal the next chunk: len bytes of in become len + TDE_STREAM_TAG_LEN bytes of out; in == out is
 * fine.  len is TDE_STREAM_CHUNK; in the last chunk 1 to TDE_STREAM_CHUNK, or 0 if it is the first one
 * too.  After the last chunk, or a failure, nothing more can be sealed (EINVAL).
 */
extern enum tde_stream_status tde_stream_seal(tde_stream *stream, const uint8_t *in, size_t len,
											  bool last, uint8_t *out);

/* Read a header without any key, from len bytes. */
extern enum tde_stream_status tde_stream_parse(const uint8_t *buf, size_t len,
											   struct tde_stream_info *ret_info);

/* Begin to read: a header, TDE_STREAM_HEADER_LEN bytes, and the master key that it names. */
extern enum tde_stream_status
			tde_stream_open(const uint8_t header[TDE_STREAM_HEADER_LEN],
							const uint8_t master_key[TDE_STREAM_KEY_LEN], tde_stream **ret_stream);

/*
 * Open the next chunk: len bytes of in, tag included, become len - TDE_STREAM_TAG_LEN bytes of out,
 * which may be in.  last: nothing follows these bytes, and so they must be the last chunk; a reader
 * knows that only by looking one byte ahead.  Until the call with last has succeeded the
 * stream is not whole, however much of it was good.  After a failure out is wiped and nothing
 * more can be opened.
 */
extern enum tde_stream_status tde_stream_next(tde_stream *stream, const uint8_t *in, size_t len,
											  bool last, uint8_t *out);

/* Wipes; NULLs the caller's pointer. */
extern void tde_stream_free(tde_stream **stream);

/* One sentence fragment for a message, e.g. "is damaged". */
extern const char *tde_stream_status_text(enum tde_stream_status status);

#endif							/* TDE_STREAM_H */
