/*
 * stream.c
 *		Sealing and opening of a stream, chunk by chunk.  See stream.h.
 *
 * Two keys are derived for a stream from the backup's data key, with the stream's random id as
 * the salt, and the nonce's first bytes too.  So the chunk counter can start at zero in each stream, and no nonce meets a
 * key twice, however many streams a data key has (SP 800-38D, 8.2.1, deterministic construction).
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include "hkdf.h"
#include "stream.h"

#define MAGIC			"PGXSTRM\0"
#define MAGIC_LEN		8
#define FORMAT_VERSION	1
#define CIPHER			1		/* AES-256-GCM, chunks of 64 KiB, keys by HKDF-SHA256 */

/* Where things are in the header. */
#define AT_VERSION		8
#define AT_LENGTH		12
#define AT_CONTENT		16
#define AT_CIPHER		20
#define AT_UUID			24
#define AT_MASTER_KEY	40
#define AT_NUMBER		44
#define AT_BACKUP_ID	48
#define AT_STREAM_ID	64
#define AT_WRAP_NONCE	80		/* bytes before this are associated data of the wrapping */
#define AT_WRAPPED		92
#define AT_WRAP_TAG		124

#define UUID_LEN		16
#define NONCE_LEN		12
#define NONCE_PREFIX	7

#define INFO_WRAP		"pgx backup wrap"
#define INFO_KEY		"pgx stream key"
#define INFO_NONCE		"pgx stream nonce"

struct tde_stream
{
	EVP_CIPHER_CTX *ctx;		/* holds the chunks' key */
	uint8_t		header[TDE_STREAM_HEADER_LEN];
	uint8_t		prefix[NONCE_PREFIX];
	uint64_t	count;			/* chunks done */
	bool		ended;			/* by the last chunk, or by a failure */
};

static void
put_u32(uint8_t *to, uint32_t value)
{
	to[0] = (uint8_t) (value >> 24);
	to[1] = (uint8_t) (value >> 16);
	to[2] = (uint8_t) (value >> 8);
	to[3] = (uint8_t) value;
}

static uint32_t
get_u32(const uint8_t *from)
{
	return (uint32_t) from[0] << 24 | (uint32_t) from[1] << 16 | (uint32_t) from[2] << 8 | from[3];
}

/* ---- AES-256-GCM ----------------------------------------------------------- */

static EVP_CIPHER_CTX *
gcm_new(const uint8_t *key, int enc)
{
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();

	if (cipher == NULL || ctx == NULL || EVP_CipherInit_ex2(ctx, cipher, key, NULL, enc, NULL) != 1)
	{
		EVP_CIPHER_CTX_free(ctx);
		ctx = NULL;
	}
	EVP_CIPHER_free(cipher);
	return ctx;
}

/* Everything but the tag; the direction and the key are in the context. */
static int
gcm_run(EVP_CIPHER_CTX *ctx, const uint8_t *nonce, const uint8_t *aad, size_t aad_len,
		const uint8_t *in, size_t len, uint8_t *out)
{
	int			out_len = 0;

	if (EVP_CipherInit_ex2(ctx, NULL, NULL, nonce, -1, NULL) != 1 ||
		EVP_CipherUpdate(ctx, NULL, &out_len, aad, (int) aad_len) != 1)
		return -1;
	if (len > 0 &&
		(EVP_CipherUpdate(ctx, out, &out_len, in, (int) len) != 1 || (size_t) out_len != len))
		return -1;
	return 0;
}

static enum tde_stream_status
gcm_seal(EVP_CIPHER_CTX *ctx, const uint8_t *nonce, const uint8_t *aad, size_t aad_len,
		 const uint8_t *in, size_t len, uint8_t *out, uint8_t *tag)
{
	uint8_t		none[16];
	int			final_len = 0;

	if (gcm_run(ctx, nonce, aad, aad_len, in, len, out) != 0 ||
		EVP_CipherFinal_ex(ctx, none, &final_len) != 1 || final_len != 0 ||
		EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TDE_STREAM_TAG_LEN, tag) != 1)
		return TDE_STREAM_ECRYPTO;
	return TDE_STREAM_OK;
}

/* EDAMAGED if the tag does not fit; out is wiped then. */
static enum tde_stream_status
gcm_open(EVP_CIPHER_CTX *ctx, const uint8_t *nonce, const uint8_t *aad, size_t aad_len,
		 const uint8_t *in, size_t len, const uint8_t *tag, uint8_t *out)
{
	uint8_t		expected[TDE_STREAM_TAG_LEN];
	uint8_t		none[16];
	int			final_len = 0;
	enum tde_stream_status status = TDE_STREAM_ECRYPTO;

	/* The tag may lie where out is written to. */
	memcpy(expected, tag, sizeof(expected));
	if (gcm_run(ctx, nonce, aad, aad_len, in, len, out) != 0 ||
		EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TDE_STREAM_TAG_LEN, expected) != 1)
		goto out;

	/* This call compares the tags.  A wrong one is no failure of libcrypto. */
	(void) ERR_set_mark();
	status = EVP_CipherFinal_ex(ctx, none, &final_len) == 1 && final_len == 0 ?
		TDE_STREAM_OK : TDE_STREAM_EDAMAGED;
	(void) ERR_pop_to_mark();

out:
	if (status != TDE_STREAM_OK && len > 0)
		OPENSSL_cleanse(out, len);
	return status;
}

/* ---- header ---------------------------------------------------------------- */

/* The key that wraps data keys: the master key itself encrypts nothing. */
static EVP_CIPHER_CTX *
wrapping_new(const uint8_t *header, const uint8_t *master_key, int enc)
{
	uint8_t		key[TDE_STREAM_KEY_LEN];
	EVP_CIPHER_CTX *ctx = NULL;

	if (tde_hkdf(master_key, TDE_STREAM_KEY_LEN, header + AT_UUID, UUID_LEN, INFO_WRAP,
				 key, sizeof(key)) == 0)
		ctx = gcm_new(key, enc);
	OPENSSL_cleanse(key, sizeof(key));
	return ctx;
}

static enum tde_stream_status
wrap_data_key(uint8_t *header, const uint8_t *data_key, const uint8_t *master_key)
{
	EVP_CIPHER_CTX *ctx = wrapping_new(header, master_key, 1);
	enum tde_stream_status status = TDE_STREAM_ECRYPTO;

	if (ctx != NULL && RAND_bytes(header + AT_WRAP_NONCE, NONCE_LEN) == 1)
		status = gcm_seal(ctx, header + AT_WRAP_NONCE, header, AT_WRAP_NONCE, data_key,
						  TDE_STREAM_KEY_LEN, header + AT_WRAPPED, header + AT_WRAP_TAG);
	EVP_CIPHER_CTX_free(ctx);
	return status;
}

static enum tde_stream_status
unwrap_data_key(const uint8_t *header, const uint8_t *master_key, uint8_t *ret_data_key)
{
	EVP_CIPHER_CTX *ctx = wrapping_new(header, master_key, 0);
	enum tde_stream_status status = TDE_STREAM_ECRYPTO;

	if (ctx != NULL)
		status = gcm_open(ctx, header + AT_WRAP_NONCE, header, AT_WRAP_NONCE, header + AT_WRAPPED,
						  TDE_STREAM_KEY_LEN, header + AT_WRAP_TAG, ret_data_key);
	EVP_CIPHER_CTX_free(ctx);
	return status == TDE_STREAM_EDAMAGED ? TDE_STREAM_EKEY : status;
}

/* A stream whose header and data key are known. */
static enum tde_stream_status
stream_new(const uint8_t *header, const uint8_t *data_key, int enc, tde_stream **ret_stream)
{
	tde_stream *stream = calloc(1, sizeof(*stream));
	uint8_t		key[TDE_STREAM_KEY_LEN] = {0};
	enum tde_stream_status status = TDE_STREAM_ECRYPTO;

	if (stream == NULL)
		return TDE_STREAM_ENOMEM;
	memcpy(stream->header, header, TDE_STREAM_HEADER_LEN);
	if (tde_hkdf(data_key, TDE_STREAM_KEY_LEN, header + AT_STREAM_ID, TDE_STREAM_ID_LEN, INFO_KEY,
				 key, sizeof(key)) != 0 ||
		tde_hkdf(data_key, TDE_STREAM_KEY_LEN, header + AT_STREAM_ID, TDE_STREAM_ID_LEN, INFO_NONCE,
				 stream->prefix, NONCE_PREFIX) != 0)
		goto out;
	stream->ctx = gcm_new(key, enc);
	if (stream->ctx == NULL)
		goto out;
	*ret_stream = stream;
	stream = NULL;
	status = TDE_STREAM_OK;

out:
	OPENSSL_cleanse(key, sizeof(key));
	tde_stream_free(&stream);
	return status;
}

enum tde_stream_status
tde_stream_create(const struct tde_stream_info *info, const uint8_t data_key[TDE_STREAM_KEY_LEN],
				  const uint8_t master_key[TDE_STREAM_KEY_LEN],
				  uint8_t ret_header[TDE_STREAM_HEADER_LEN], tde_stream **ret_stream)
{
	uint8_t		header[TDE_STREAM_HEADER_LEN] = {0};
	enum tde_stream_status status;

	memcpy(header, MAGIC, MAGIC_LEN);
	put_u32(header + AT_VERSION, FORMAT_VERSION);
	put_u32(header + AT_LENGTH, TDE_STREAM_HEADER_LEN);
	put_u32(header + AT_CONTENT, info->content);
	put_u32(header + AT_CIPHER, CIPHER);
	memcpy(header + AT_UUID, info->keystore_uuid, UUID_LEN);
	put_u32(header + AT_MASTER_KEY, info->master_key_id);
	put_u32(header + AT_NUMBER, info->number);
	memcpy(header + AT_BACKUP_ID, info->backup_id, TDE_STREAM_ID_LEN);
	if (RAND_bytes(header + AT_STREAM_ID, TDE_STREAM_ID_LEN) != 1)
		return TDE_STREAM_ECRYPTO;
	status = wrap_data_key(header, data_key, master_key);
	if (status == TDE_STREAM_OK)
		status = stream_new(header, data_key, 1, ret_stream);
	if (status == TDE_STREAM_OK)
		memcpy(ret_header, header, TDE_STREAM_HEADER_LEN);
	return status;
}

enum tde_stream_status
tde_stream_parse(const uint8_t *buf, size_t len, struct tde_stream_info *ret_info)
{
	if (len < MAGIC_LEN || memcmp(buf, MAGIC, MAGIC_LEN) != 0)
		return TDE_STREAM_EFORMAT;
	if (len < AT_LENGTH)
		return TDE_STREAM_EDAMAGED;
	if (get_u32(buf + AT_VERSION) != FORMAT_VERSION)
		return TDE_STREAM_EVERSION;
	if (len < TDE_STREAM_HEADER_LEN || get_u32(buf + AT_LENGTH) != TDE_STREAM_HEADER_LEN)
		return TDE_STREAM_EDAMAGED;
	if (get_u32(buf + AT_CONTENT) != TDE_STREAM_BACKUP || get_u32(buf + AT_CIPHER) != CIPHER)
		return TDE_STREAM_EVERSION;

	ret_info->content = TDE_STREAM_BACKUP;
	memcpy(ret_info->keystore_uuid, buf + AT_UUID, UUID_LEN);
	ret_info->master_key_id = get_u32(buf + AT_MASTER_KEY);
	ret_info->number = get_u32(buf + AT_NUMBER);
	memcpy(ret_info->backup_id, buf + AT_BACKUP_ID, TDE_STREAM_ID_LEN);
	memcpy(ret_info->stream_id, buf + AT_STREAM_ID, TDE_STREAM_ID_LEN);
	return TDE_STREAM_OK;
}

enum tde_stream_status
tde_stream_open(const uint8_t header[TDE_STREAM_HEADER_LEN],
				const uint8_t master_key[TDE_STREAM_KEY_LEN], tde_stream **ret_stream)
{
	uint8_t		data_key[TDE_STREAM_KEY_LEN] = {0};
	struct tde_stream_info info;
	enum tde_stream_status status = tde_stream_parse(header, TDE_STREAM_HEADER_LEN, &info);

	if (status == TDE_STREAM_OK)
		status = unwrap_data_key(header, master_key, data_key);
	if (status == TDE_STREAM_OK)
		status = stream_new(header, data_key, 0, ret_stream);
	OPENSSL_cleanse(data_key, sizeof(data_key));
	return status;
}

void
tde_stream_free(tde_stream **stream)
{
	if (*stream == NULL)
		return;
	EVP_CIPHER_CTX_free((*stream)->ctx);
	OPENSSL_cleanse(*stream, sizeof(**stream));
	free(*stream);
	*stream = NULL;
}

/* ---- chunks ----------------------------------------------------------------- */

/*
 * Can the next chunk have this length?  An empty last chunk after others is refused, so that there is one
 * way only to cut given bytes into chunks.
 */
static enum tde_stream_status
check_chunk(const tde_stream *stream, size_t len, bool last)
{
	if (stream->ended || len > TDE_STREAM_CHUNK ||
		(!last && len < TDE_STREAM_CHUNK) || (last && len == 0 && stream->count > 0))
		return TDE_STREAM_EINVAL;
	if (stream->count > UINT32_MAX)
		return TDE_STREAM_EFULL;
	return TDE_STREAM_OK;
}

static void
make_nonce(const tde_stream *stream, bool last, uint8_t nonce[NONCE_LEN])
{
	memcpy(nonce, stream->prefix, NONCE_PREFIX);
	put_u32(nonce + NONCE_PREFIX, (uint32_t) stream->count);
	nonce[NONCE_LEN - 1] = last ? 1 : 0;
}

enum tde_stream_status
tde_stream_seal(tde_stream *stream, const uint8_t *in, size_t len, bool last, uint8_t *out)
{
	uint8_t		nonce[NONCE_LEN];
	enum tde_stream_status status = check_chunk(stream, len, last);

	if (status == TDE_STREAM_OK)
	{
		make_nonce(stream, last, nonce);
		status = gcm_seal(stream->ctx, nonce, stream->header, TDE_STREAM_HEADER_LEN,
						  in, len, out, out + len);
		stream->count++;
	}
	if (status != TDE_STREAM_OK || last)
		stream->ended = true;
	return status;
}

enum tde_stream_status
tde_stream_next(tde_stream *stream, const uint8_t *in, size_t len, bool last, uint8_t *out)
{
	uint8_t		nonce[NONCE_LEN];
	enum tde_stream_status status = TDE_STREAM_EDAMAGED;

	if (stream->ended)
		return TDE_STREAM_EINVAL;

	/* A length that no chunk has comes from the file, and so is damage. */
	if (len >= TDE_STREAM_TAG_LEN &&
		check_chunk(stream, len - TDE_STREAM_TAG_LEN, last) == TDE_STREAM_OK)
	{
		len -= TDE_STREAM_TAG_LEN;
		make_nonce(stream, last, nonce);
		status = gcm_open(stream->ctx, nonce, stream->header, TDE_STREAM_HEADER_LEN,
						  in, len, in + len, out);
		stream->count++;
	}
	if (status != TDE_STREAM_OK || last)
		stream->ended = true;
	return status;
}

const char *
tde_stream_status_text(enum tde_stream_status status)
{
	switch (status)
	{
		case TDE_STREAM_OK:
			return "is in order";
		case TDE_STREAM_ENOMEM:
			return "needs more memory than there is";
		case TDE_STREAM_EFORMAT:
			return "is not a sealed stream";
		case TDE_STREAM_EVERSION:
			return "has a version that this program does not know";
		case TDE_STREAM_EDAMAGED:
			return "is damaged, cut off, or put together from pieces of others";
		case TDE_STREAM_EKEY:
			return "does not open with this master key, or its header was altered";
		case TDE_STREAM_ECRYPTO:
			return "could not be processed: libcrypto failed";
		case TDE_STREAM_EINVAL:
			return "was used out of order";
		case TDE_STREAM_EFULL:
			return "is full";
	}
	return "has an unknown status";
}
