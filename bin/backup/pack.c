/*
 * pack.c
 *		Making a packed backup.  See pack.h.
 *
 * The calling thread receives archives and puts their files into blocks; workers decrypt pages and
 * compress; one thread seals and writes.  Nothing of that is on disk before it is sealed.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/rand.h>

#include "file.h"
#include "log.h"
#include "mem.h"
#include "pack.h"
#include "pack_codec.h"
#include "pack_file.h"
#include "pack_format.h"
#include "pack_keys.h"
#include "pack_pipe.h"
#include "pack_source.h"
#include "pack_tar.h"

#define KEYTABLE_FILE	"pgx_tde/keys"
#define MANIFEST_FILE	"backup_manifest"
#define MANIFEST_MODE	0600
#define MANIFEST_PART	(1024 * 1024)	/* bytes of it that are kept in memory */

struct worker
{
	struct pack_codec *codec;
	struct pack_ciphers *ciphers;
};

struct packer
{
	const struct pgx_pack_options *opts;
	struct pgx_pack_result *result;
	struct pack_out *out;
	tde_keytable *kt;			/* NULL: nothing is encrypted */
	struct worker *workers;
	void	  **worker_args;
	struct pack_pipe *pipe;

	/* The block that is being filled; job is NULL if there is none. */
	struct pack_job *job;
	struct pack_writer writer;

	/* Where we are in what comes. */
	uint32_t	archive;
	struct pack_tar tar;
	struct pack_file file;
	uint64_t	offset;			/* in the file */
	struct pack_end end;
	int			rc;				/* why a callback gave up */

	/* Part of the manifest: it comes without a size, so it goes on in extents of a growing file. */
	bool		in_manifest;
	uint8_t    *manifest;
	size_t		manifest_len;
};

/* ---- workers and consumer ---------------------------------------------------------- */

static bool
work(void *arg, struct pack_job *job)
{
	struct worker *worker = arg;
	struct pack_record rec;
	enum pgx_pack_codec codec;
	size_t		at = 0;

	while (pack_next_record(job->in, job->in_len, &at, &rec) == PACK_NEXT_RECORD)
		if (rec.type == PACK_EXTENT && rec.file.transform == PACK_PAGES &&
			!pack_decrypt_pages(worker->ciphers, &rec))
			return false;
	if (!pack_compress(worker->codec, job->in, job->in_len, job->out, &job->out_len, &codec))
	{
		pgx_log_error("could not compress a block of the backup");
		return false;
	}
	job->codec = codec;
	job->raw_len = job->in_len;
	return true;
}

static bool
consume(void *arg, struct pack_job *job)
{
	struct packer *packer = arg;
	uint8_t		bytes[PACK_BLOCK_HEADER];
	const struct pack_block_header header = {
		.codec = job->codec,.raw_len = (uint32_t) job->raw_len,.stored_len = (uint32_t) job->out_len
	};

	pack_put_block_header(bytes, &header);
	return pack_out_write(packer->out, bytes, sizeof(bytes)) &&
		pack_out_write(packer->out, job->out, job->out_len);
}

static bool
start_pipe(struct packer *packer)
{
	unsigned	n = packer->opts->jobs;

	packer->workers = pgx_alloc(n * sizeof(*packer->workers));
	packer->worker_args = pgx_alloc(n * sizeof(*packer->worker_args));
	for (unsigned i = 0; i < n; i++)
	{
		packer->workers[i].codec = pack_codec_new(packer->opts->codec, packer->opts->level);
		packer->workers[i].ciphers = pack_ciphers_new(packer->kt);
		packer->worker_args[i] = &packer->workers[i];
		if (packer->workers[i].codec == NULL)
		{
			pgx_log_error("out of memory");
			return false;
		}
	}
	packer->pipe = pack_pipe_start(n, packer->worker_args, work, consume, packer, PACK_BLOCK_SIZE,
								   pack_codec_bound());
	return packer->pipe != NULL;
}

/* ---- filling blocks ------------------------------------------------------------------ */

static bool
begin_block(struct packer *packer)
{
	packer->job = pack_pipe_get(packer->pipe);
	if (packer->job == NULL)
		return false;
	pack_writer_init(&packer->writer, packer->job->in);
	return true;
}

static void
end_block(struct packer *packer)
{
	if (packer->job == NULL)
		return;
	packer->job->in_len = packer->writer.len;
	if (packer->job->in_len > 0)
		pack_pipe_put(packer->pipe, packer->job);
	packer->job = NULL;
}

/* Try once in what is left of the block, and once in a new one. */
#define IN_BLOCK(packer, put) \
	(((packer)->job != NULL && (put)) || (end_block(packer), begin_block(packer) && (put)))

static bool
begin_extent(struct packer *packer)
{
	packer->end.extents++;
	return IN_BLOCK(packer, pack_begin_extent(&packer->writer, &packer->file, packer->offset));
}

static bool
add_data(struct packer *packer, const uint8_t *data, size_t len)
{
	packer->end.bytes += len;
	while (len > 0)
	{
		size_t		n = pack_extent_room(&packer->writer);

		if (n == 0)
		{
			pack_end_extent(&packer->writer);
			if (!begin_extent(packer))
				return false;
			continue;
		}
		if (n > len)
			n = len;
		pack_add_data(&packer->writer, data, n);
		packer->offset += n;
		data += n;
		len -= n;
	}
	return true;
}

/* ---- files out of archives -------------------------------------------------------------- */

static bool
entry_begin(void *arg, const struct pack_tar_entry *entry)
{
	struct packer *packer = arg;
	struct pack_file *file = &packer->file;

	memset(file, 0, sizeof(*file));
	file->archive = packer->archive;
	file->kind = entry->kind;
	file->mode = entry->mode;
	file->mtime = entry->mtime;
	file->size = entry->size;
	memcpy(file->path, entry->path, sizeof(file->path));
	memcpy(file->link, entry->link, sizeof(file->link));
	pack_classify(packer->kt, file);
	packer->offset = 0;
	return begin_extent(packer);
}

static bool
entry_data(void *arg, const uint8_t *data, size_t len)
{
	return add_data(arg, data, len);
}

static bool
entry_end(void *arg)
{
	struct packer *packer = arg;

	pack_end_extent(&packer->writer);
	return true;
}

static bool
receive_archive(void *arg, uint32_t archive)
{
	struct packer *packer = arg;
	const struct pack_tar_sink sink = {entry_begin, entry_data, entry_end, packer};

	packer->archive = archive;
	packer->in_manifest = false;
	pack_tar_init(&packer->tar, &sink);
	return true;
}

/* What was kept becomes the next extent of the manifest. */
static bool
flush_manifest(struct packer *packer)
{
	size_t		len = packer->manifest_len;

	packer->file.size = packer->offset + len;
	packer->manifest_len = 0;
	if (!begin_extent(packer) || !add_data(packer, packer->manifest, len))
		return false;
	pack_end_extent(&packer->writer);
	return true;
}

static bool
keep_manifest(struct packer *packer, const uint8_t *data, size_t len)
{
	while (len > 0)
	{
		size_t		n = MANIFEST_PART - packer->manifest_len;

		if (n == 0)
		{
			if (!flush_manifest(packer))
				return false;
			continue;
		}
		if (n > len)
			n = len;
		memcpy(packer->manifest + packer->manifest_len, data, n);
		packer->manifest_len += n;
		data += n;
		len -= n;
	}
	return true;
}

static bool
receive_data(void *arg, const uint8_t *data, size_t len)
{
	struct packer *packer = arg;

	if (packer->in_manifest)
		return keep_manifest(packer, data, len);
	if (pack_tar_feed(&packer->tar, data, len))
		return true;
	if (packer->tar.error != NULL)
		pgx_log_error("%s", packer->tar.error);
	return false;
}

static bool
receive_archive_end(void *arg)
{
	struct packer *packer = arg;

	if (pack_tar_finish(&packer->tar))
		return true;
	pgx_log_error("%s", packer->tar.error);
	return false;
}

/* The manifest is one more file of the data directory, where pg_verifybackup looks for it. */
static bool
receive_manifest(void *arg)
{
	struct packer *packer = arg;
	struct pack_file *file = &packer->file;

	memset(file, 0, sizeof(*file));
	file->kind = PACK_FILE;
	file->mode = MANIFEST_MODE;
	strcpy(file->path, MANIFEST_FILE);
	packer->offset = 0;
	packer->manifest = pgx_realloc(packer->manifest, MANIFEST_PART);
	packer->manifest_len = 0;
	packer->in_manifest = true;
	return true;
}

static bool
receive_manifest_end(void *arg)
{
	return flush_manifest(arg);
}

/* ---- begin and end ------------------------------------------------------------------------ */

/* The key table now has the key of every tablespace that the server will send. */
static int
take_keytable(struct packer *packer, uint8_t **ret_bytes, size_t *ret_len)
{
	char	   *path;
	int			rc = PGX_EXIT_OK;

	if (packer->opts->data_dir == NULL)
		return PGX_EXIT_OK;
	path = pgx_join(packer->opts->data_dir, KEYTABLE_FILE);
	if (access(path, F_OK) == 0)
	{
		rc = pack_keytable_read(path, ret_bytes, ret_len);
		if (rc == PGX_EXIT_OK)
			rc = pack_keytable_open(packer->opts->ks, *ret_bytes, *ret_len, path, &packer->kt);
	}
	free(path);
	return rc;
}

static bool
receive_begin(void *arg, const struct pgx_pack_result *result, uint64_t total)
{
	struct packer *packer = arg;
	uint8_t    *bytes = NULL;
	size_t		len = 0;
	bool		ok;

	packer->rc = take_keytable(packer, &bytes, &len);
	ok = packer->rc == PGX_EXIT_OK && start_pipe(packer);
	if (ok && bytes != NULL)
		ok = IN_BLOCK(packer, pack_put_keytable(&packer->writer, bytes, len));
	free(bytes);
	for (size_t i = 0; ok && i < result->n_tablespaces; i++)
	{
		struct pack_tablespace tablespace = {.oid = result->tablespaces[i].oid};

		strcpy(tablespace.location, result->tablespaces[i].location);
		ok = IN_BLOCK(packer, pack_put_tablespace(&packer->writer, &tablespace));
	}
	if (ok && packer->opts->progress != NULL)
		packer->opts->progress(packer->opts->progress_arg, 0, total);
	return ok;
}

static bool
write_end(struct packer *packer)
{
	const struct pgx_pack_result *result = packer->result;

	packer->end.start_lsn = result->start_lsn;
	packer->end.start_timeline = result->start_timeline;
	packer->end.end_lsn = result->end_lsn;
	packer->end.end_timeline = result->end_timeline;
	if (!IN_BLOCK(packer, pack_put_end(&packer->writer, &packer->end)))
		return false;
	end_block(packer);
	return true;
}

/* Take the backup and write all of it; an exit code. */
static int
run(struct packer *packer)
{
	const struct pack_receiver receiver = {
		receive_begin, receive_archive, receive_data, receive_archive_end, receive_manifest,
		receive_manifest_end, packer
	};
	int			rc = pack_source_run(packer->opts, &receiver, packer->result);

	if (packer->rc != PGX_EXIT_OK)
		rc = packer->rc;
	if (rc == PGX_EXIT_OK && !write_end(packer))
		rc = PGX_EXIT_FAILURE;

	/* The workers are waited for in any case: they use what the caller frees next. */
	if (!pack_pipe_finish(&packer->pipe, rc != PGX_EXIT_OK) && rc == PGX_EXIT_OK)
		rc = PGX_EXIT_FAILURE;
	packer->result->raw_size = packer->end.bytes;
	if (rc == PGX_EXIT_OK && !pack_out_commit(packer->out, &packer->result->packed_size))
		rc = PGX_EXIT_FAILURE;
	return rc;
}

int
pgx_pack(const struct pgx_pack_options *opts, struct pgx_pack_result *ret_result)
{
	struct pgx_pack_result result = {0};
	struct packer packer = {.opts = opts,.result = &result};
	int			rc = PGX_EXIT_FAILURE;

	if (RAND_bytes(result.backup_id, sizeof(result.backup_id)) != 1)
	{
		pgx_log_error("could not generate the backup's id");
		return PGX_EXIT_FAILURE;
	}
	result.master_key_id = keystore_active_key(opts->ks);
	rc = pack_out_create(opts->path, opts->ks, result.backup_id, &packer.out);
	if (rc == PGX_EXIT_OK)
		rc = run(&packer);

	for (unsigned i = 0; packer.workers != NULL && i < opts->jobs; i++)
	{
		pack_codec_free(&packer.workers[i].codec);
		pack_ciphers_free(&packer.workers[i].ciphers);
	}
	free(packer.workers);
	free(packer.worker_args);
	free(packer.manifest);
	tde_keytable_free(&packer.kt);
	pack_out_free(&packer.out);
	if (rc == PGX_EXIT_OK)
		*ret_result = result;
	else
		pgx_pack_result_clear(&result);
	return rc;
}

void
pgx_pack_result_clear(struct pgx_pack_result *result)
{
	for (size_t i = 0; i < result->n_tablespaces; i++)
		free(result->tablespaces[i].location);
	free(result->tablespaces);
	memset(result, 0, sizeof(*result));
}
