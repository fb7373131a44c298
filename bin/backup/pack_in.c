/*
 * pack_in.c
 *		Reading a container.  See pack_file.h.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "log.h"
#include "mem.h"
#include "pack_file.h"
#include "prompt.h"
#include "stream.h"

#define BATCH			16		/* sealed chunks per read */
#define BATCH_LEN		(BATCH * TDE_STREAM_SEALED_CHUNK)

struct pack_in
{
	char	   *path;
	int			fd;
	tde_stream *stream;
	uint64_t	size;
	uint64_t	position;
	uint8_t		sealed[BATCH_LEN + 1];	/* one byte more tells whether a chunk is the last */
	size_t		sealed_at;
	size_t		sealed_len;
	bool		eof;
	uint8_t		plain[TDE_STREAM_CHUNK];
	size_t		plain_at;
	size_t		plain_len;
	bool		whole;			/* the last chunk was verified */
};

/* Read until len bytes or the end of the file are there; the number, or -1 after a message. */
static ssize_t
read_some(struct pack_in *in, uint8_t *buf, size_t len)
{
	size_t		have = 0;

	while (have < len)
	{
		ssize_t		n = read(in->fd, buf + have, len - have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
		{
			pgx_log_error("could not read file \"%s\": %m", in->path);
			return -1;
		}
		if (n == 0)
			break;
		have += (size_t) n;
	}
	in->position += have;
	return (ssize_t) have;
}

static int
say_damaged(const char *path, enum tde_stream_status status)
{
	pgx_log_error("file \"%s\" %s", path, tde_stream_status_text(status));
	if (status == TDE_STREAM_EDAMAGED)
		pgx_log_hint("Nothing that was read from it may be used; restore from another backup.");
	return status == TDE_STREAM_EKEY ? PGX_EXIT_KEY : PGX_EXIT_FAILURE;
}

/* Open the file; -1 after a message. */
static int
open_container(const char *path, uint64_t *ret_size)
{
	int			fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0)
		pgx_log_error("could not open file \"%s\": %m", path);
	else if (!S_ISREG(st.st_mode))
		pgx_log_error("\"%s\" is not a regular file", path);
	else
	{
		(void) posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
		*ret_size = (uint64_t) st.st_size;
		return fd;
	}
	if (fd >= 0)
		(void) close(fd);
	return -1;
}

/* Read the header; an exit code. */
static int
read_header(struct pack_in *in, uint8_t header[TDE_STREAM_HEADER_LEN], struct tde_stream_info *ret_info)
{
	ssize_t		n = read_some(in, header, TDE_STREAM_HEADER_LEN);
	enum tde_stream_status status;

	if (n < 0)
		return PGX_EXIT_FAILURE;
	status = tde_stream_parse(header, (size_t) n, ret_info);
	return status == TDE_STREAM_OK ? PGX_EXIT_OK : say_damaged(in->path, status);
}

bool
pgx_pack_info_read(const char *path, struct pgx_pack_info *ret_info)
{
	struct pack_in *in = pgx_alloc(sizeof(*in));
	uint8_t		header[TDE_STREAM_HEADER_LEN];
	struct tde_stream_info info;
	bool		ok = false;

	in->path = pgx_strdup(path);
	in->fd = open_container(path, &in->size);
	if (in->fd >= 0 && read_header(in, header, &info) == PGX_EXIT_OK)
	{
		memcpy(ret_info->backup_id, info.backup_id, PGX_PACK_ID_LEN);
		memcpy(ret_info->keystore_uuid, info.keystore_uuid, KEYSTORE_UUID_LEN);
		ret_info->master_key_id = info.master_key_id;
		ok = true;
	}
	pack_in_free(&in);
	return ok;
}

/* Is it the container that is wanted, and the keystore that it wants?  An exit code. */
static int
check_ids(const char *path, const struct tde_stream_info *info, keystore *ks, const uint8_t *backup_id)
{
	uint8_t		uuid[KEYSTORE_UUID_LEN];

	keystore_get_uuid(ks, uuid);
	if (memcmp(uuid, info->keystore_uuid, KEYSTORE_UUID_LEN) != 0)
	{
		pgx_log_error("the keystore does not belong to file \"%s\"", path);
		pgx_log_hint("Use the keystore of the server that was backed up, or the copy in the backup.");
		return PGX_EXIT_KEY;
	}
	if ((backup_id != NULL && memcmp(backup_id, info->backup_id, PGX_PACK_ID_LEN) != 0) ||
		info->number != 0)
	{
		pgx_log_error("file \"%s\" belongs to another backup", path);
		return PGX_EXIT_FAILURE;
	}
	return PGX_EXIT_OK;
}

int
pack_in_open(const char *path, keystore *ks, const uint8_t *backup_id, struct pack_in **ret_in)
{
	struct pack_in *in = pgx_alloc(sizeof(*in));
	uint8_t		header[TDE_STREAM_HEADER_LEN];
	uint8_t		master_key[KEYSTORE_KEY_LEN] = {0};
	struct tde_stream_info info;
	enum tde_stream_status status;
	enum keystore_status st;
	int			rc = PGX_EXIT_FAILURE;

	pgx_secret_lock(master_key, sizeof(master_key));
	in->path = pgx_strdup(path);
	in->fd = open_container(path, &in->size);
	if (in->fd < 0)
		goto out;
	rc = read_header(in, header, &info);
	if (rc == PGX_EXIT_OK)
		rc = check_ids(path, &info, ks, backup_id);
	if (rc != PGX_EXIT_OK)
		goto out;
	st = keystore_get_master_key(ks, info.master_key_id, master_key);
	if (st != KEYSTORE_OK)
	{
		rc = pgx_log_keystore(ks, st);
		pgx_log_detail("File \"%s\" needs master key %u.", path, info.master_key_id);
		goto out;
	}
	status = tde_stream_open(header, master_key, &in->stream);
	if (status != TDE_STREAM_OK)
	{
		rc = say_damaged(path, status);
		goto out;
	}
	*ret_in = in;
	in = NULL;

out:
	keystore_wipe(master_key, sizeof(master_key));
	pack_in_free(&in);
	return rc;
}

uint64_t
pack_in_size(const struct pack_in *in)
{
	return in->size;
}

uint64_t
pack_in_position(const struct pack_in *in)
{
	return in->position;
}

/* Have the next chunk's bytes, and one more if there is one, in memory. */
static bool
fill(struct pack_in *in)
{
	size_t		have = in->sealed_len - in->sealed_at;
	ssize_t		n;

	if (in->eof || have > TDE_STREAM_SEALED_CHUNK)
		return true;
	memmove(in->sealed, in->sealed + in->sealed_at, have);
	in->sealed_at = 0;
	n = read_some(in, in->sealed + have, sizeof(in->sealed) - have);
	if (n < 0)
		return false;
	in->sealed_len = have + (size_t) n;
	in->eof = in->sealed_len < sizeof(in->sealed);
	return true;
}

static bool
next_chunk(struct pack_in *in)
{
	size_t		have;
	size_t		n;
	enum tde_stream_status status;

	if (!fill(in))
		return false;
	have = in->sealed_len - in->sealed_at;
	n = have < TDE_STREAM_SEALED_CHUNK ? have : TDE_STREAM_SEALED_CHUNK;
	in->whole = in->eof && n == have;
	status = tde_stream_next(in->stream, in->sealed + in->sealed_at, n, in->whole, in->plain);
	if (status != TDE_STREAM_OK)
	{
		in->whole = false;
		(void) say_damaged(in->path, status);
		return false;
	}
	in->sealed_at += n;
	in->plain_at = 0;
	in->plain_len = n - TDE_STREAM_TAG_LEN;
	return true;
}

bool
pack_in_read(struct pack_in *in, uint8_t *buf, size_t len, bool *ret_end)
{
	bool		begun = false;

	*ret_end = false;
	while (len > 0)
	{
		size_t		n = in->plain_len - in->plain_at;

		if (n == 0)
		{
			if (in->whole && !begun)
			{
				*ret_end = true;
				return false;
			}
			if (in->whole)
			{
				(void) say_damaged(in->path, TDE_STREAM_EDAMAGED);
				return false;
			}
			if (!next_chunk(in))
				return false;
			continue;
		}
		if (n > len)
			n = len;
		memcpy(buf, in->plain + in->plain_at, n);
		in->plain_at += n;
		buf += n;
		len -= n;
		begun = true;
	}
	return true;
}

void
pack_in_free(struct pack_in **in_p)
{
	struct pack_in *in = *in_p;

	if (in == NULL)
		return;
	if (in->fd >= 0)
		(void) close(in->fd);
	tde_stream_free(&in->stream);
	free(in->path);
	OPENSSL_cleanse(in->plain, sizeof(in->plain));
	free(in);
	*in_p = NULL;
}
