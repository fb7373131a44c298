/*
 * pack_file.c
 *		A container on disk.  See pack_file.h.
 *
 * The file is written under another name and gets its own when the last chunk is sealed and
 * everything is on disk; so what has the name is whole, as long as nobody changed it, and that the
 * chunks tell.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "file.h"
#include "log.h"
#include "mem.h"
#include "pack_file.h"
#include "prompt.h"
#include "stream.h"

#define BATCH			16		/* sealed chunks per read or write */
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

/* ---- writing --------------------------------------------------------------------- */

static bool
write_all(struct pack_out *out, const uint8_t *buf, size_t len)
{
	while (len > 0)
	{
		ssize_t		n = write(out->fd, buf, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
		{
			if (n == 0)
				errno = ENOSPC;
			pgx_log_error("could not write file \"%s\": %m", out->partial);
			return false;
		}
		buf += n;
		len -= (size_t) n;
		out->size += (uint64_t) n;
	}

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

/* ---- reading --------------------------------------------------------------------- */

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
