/*
 * pack_out.c
 *		Writing a container.  See pack_file.h.
 *
 * The file is written under another name and gets its own when the last chunk is sealed and everything is on disk; so
 * what has the name is whole, as long as nobody changed it, and that the chunks tell.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "file.h"
#include "log.h"
#include "mem.h"
#include "pack_file.h"
#include "prompt.h"
#include "stream.h"

#define BATCH			16		/* sealed chunks per write */
#define BATCH_LEN		(BATCH * TDE_STREAM_SEALED_CHUNK)
#define WRITE_BEHIND	(16 * 1024 * 1024)	/* bytes after which the kernel is told to begin writing */

struct pack_out
{
	char	   *path;
	char	   *partial;
	int			fd;
	bool		created;		/* the partial file is there, and ours */
	tde_stream *stream;
	uint8_t		plain[TDE_STREAM_CHUNK];
	size_t		plain_len;
	uint8_t		sealed[BATCH_LEN];
	size_t		sealed_len;
	uint64_t	size;			/* bytes written */
	uint64_t	started;		/* of which the kernel was told */
};

static bool
write_all(struct pack_out *out, const uint8_t *buf, size_t len)
{
	if (!pgx_write_all(out->fd, buf, len))
	{
		pgx_log_error("could not write file \"%s\": %m", out->partial);
		return false;
	}
	out->size += len;

	/* Keep the disk busy meanwhile; the sync at the end has less to wait for. */
	if (out->size - out->started >= WRITE_BEHIND)
	{
		(void) sync_file_range(out->fd, (off_t) out->started, (off_t) (out->size - out->started),
							   SYNC_FILE_RANGE_WRITE);
		out->started = out->size;
	}
	return true;
}

/* Draw a data key and write the header; an exit code. */
static int
write_header(struct pack_out *out, keystore *ks, const uint8_t *backup_id)
{
	uint8_t		master_key[KEYSTORE_KEY_LEN] = {0};
	uint8_t		data_key[TDE_STREAM_KEY_LEN] = {0};
	uint8_t		header[TDE_STREAM_HEADER_LEN];
	struct tde_stream_info info = {.content = TDE_STREAM_BACKUP};
	enum tde_stream_status status;
	enum keystore_status st;
	int			rc = PGX_EXIT_FAILURE;

	pgx_secret_lock(master_key, sizeof(master_key));
	pgx_secret_lock(data_key, sizeof(data_key));
	keystore_get_uuid(ks, info.keystore_uuid);
	info.master_key_id = keystore_active_key(ks);
	memcpy(info.backup_id, backup_id, TDE_STREAM_ID_LEN);
	st = keystore_get_master_key(ks, info.master_key_id, master_key);
	if (st != KEYSTORE_OK)
	{
		rc = pgx_log_keystore(ks, st);
		goto out;
	}
	if (RAND_priv_bytes(data_key, sizeof(data_key)) != 1)
	{
		pgx_log_error("could not generate a random data key");
		goto out;
	}
	status = tde_stream_create(&info, data_key, master_key, header, &out->stream);
	if (status != TDE_STREAM_OK)
		pgx_log_error("file \"%s\" %s", out->partial, tde_stream_status_text(status));
	else if (write_all(out, header, sizeof(header)))
		rc = PGX_EXIT_OK;

out:
	keystore_wipe(master_key, sizeof(master_key));
	keystore_wipe(data_key, sizeof(data_key));
	return rc;
}

int
pack_out_create(const char *path, keystore *ks, const uint8_t backup_id[PGX_PACK_ID_LEN],
				struct pack_out **ret_out)
{
	struct pack_out *out = pgx_alloc(sizeof(*out));
	int			rc = PGX_EXIT_FAILURE;

	out->path = pgx_strdup(path);
	out->partial = pgx_printf("%s%s", path, PGX_PACK_SUFFIX);
	out->fd = -1;
	if (access(path, F_OK) == 0)
	{
		pgx_log_error("file \"%s\" already exists", path);
		goto out;
	}
	out->fd = open(out->partial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (out->fd < 0)
	{
		pgx_log_error("could not create file \"%s\": %m", out->partial);
		goto out;
	}
	out->created = true;
	rc = write_header(out, ks, backup_id);
	if (rc != PGX_EXIT_OK)
		goto out;
	*ret_out = out;
	out = NULL;

out:
	pack_out_free(&out);
	return rc;
}

/* Seal what has gathered as one chunk; write when there are enough, or at the end. */
static bool
seal_chunk(struct pack_out *out, bool last)
{
	enum tde_stream_status status = tde_stream_seal(out->stream, out->plain, out->plain_len, last,
													out->sealed + out->sealed_len);

	if (status != TDE_STREAM_OK)
	{
		pgx_log_error("file \"%s\" %s", out->partial, tde_stream_status_text(status));
		return false;
	}
	out->sealed_len += out->plain_len + TDE_STREAM_TAG_LEN;
	out->plain_len = 0;
	if (!last && out->sealed_len < BATCH_LEN)
		return true;
	if (!write_all(out, out->sealed, out->sealed_len))
		return false;
	out->sealed_len = 0;
	return true;
}

bool
pack_out_write(struct pack_out *out, const uint8_t *data, size_t len)
{
	while (len > 0)
	{
		size_t		n = TDE_STREAM_CHUNK - out->plain_len;

		/* A full chunk is kept until more comes: the last one has to be sealed as that. */
		if (n == 0)
		{
			if (!seal_chunk(out, false))
				return false;
			continue;
		}
		if (n > len)
			n = len;
		memcpy(out->plain + out->plain_len, data, n);
		out->plain_len += n;
		data += n;
		len -= n;
	}
	return true;
}

static bool
sync_directory_of(const char *path)
{
	char	   *dir = pgx_dirname(path);
	int			fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool		ok = fd >= 0 && fsync(fd) == 0;

	if (!ok)
		pgx_log_error("could not sync directory \"%s\": %m", dir);
	if (fd >= 0)
		(void) close(fd);
	free(dir);
	return ok;
}

bool
pack_out_commit(struct pack_out *out, uint64_t *ret_size)
{
	if (!seal_chunk(out, true))
		return false;
	if (fsync(out->fd) != 0)
	{
		pgx_log_error("could not sync file \"%s\": %m", out->partial);
		return false;
	}
	if (rename(out->partial, out->path) != 0)
	{
		pgx_log_error("could not rename file \"%s\" to \"%s\": %m", out->partial, out->path);
		return false;
	}
	out->created = false;
	if (!sync_directory_of(out->path))
		return false;
	*ret_size = out->size;
	return true;
}

void
pack_out_free(struct pack_out **out_p)
{
	struct pack_out *out = *out_p;

	if (out == NULL)
		return;
	if (out->fd >= 0)
		(void) close(out->fd);
	if (out->created && unlink(out->partial) != 0)
		pgx_log_warning("could not remove file \"%s\": %m", out->partial);
	tde_stream_free(&out->stream);
	free(out->path);
	free(out->partial);
	OPENSSL_cleanse(out->plain, sizeof(out->plain));
	free(out);
	*out_p = NULL;
}
