/*
 * unpack.c
 *		Restoring a packed backup.  See pack.h.
 *
 * The calling thread reads and verifies chunks and puts blocks together; workers decompress and encrypt
 * pages again; one thread takes the records in order and writes files.  What has not been verified is
 * never decompressed.  Whether it all belongs to a whole backup is known after the last chunk, and until then
 * the control file has another name.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "mem.h"
#include "pack.h"
#include "pack_codec.h"
#include "pack_file.h"
#include "pack_format.h"
#include "pack_keys.h"
#include "pack_pipe.h"
#include "unpack_files.h"

struct worker
{
	struct unpacker *unpacker;
	struct pack_codec *codec;
	struct pack_ciphers *ciphers;
};

struct unpacker
{
	const struct pgx_unpack_options *opts;
	struct pack_in *in;
	struct unpack_files *files; /* NULL: verify only */
	tde_keytable *kt;			/* from the first block, which is looked at before there are threads */
	struct worker *workers;
	void	  **worker_args;
	struct pack_pipe *pipe;

	/* Of the consumer. */
	struct pack_file file;		/* the one that the last extent was of */
	uint64_t	position;		/* in it */
	uint64_t	extents;
	uint64_t	bytes;
	bool		ended;			/* the last record was seen */
};

static bool
say_inconsistent(const struct unpacker *unpacker)
{
	pgx_log_error("file \"%s\" does not hold what a packed backup is made of", unpacker->opts->path);
	pgx_log_hint("It was sealed so: the program that made it was at fault.  Restore from another backup.");
	return false;
}

/* ---- workers ------------------------------------------------------------------------ */

/* Decompress a job's block. */
static bool
decompress(const struct unpacker *unpacker, struct pack_codec *codec, struct pack_job *job)
{
	enum pgx_pack_codec kind = (enum pgx_pack_codec) job->codec;

	if (!pack_codec_available(kind))
	{
		pgx_log_error("this build does not support compression by %s", pgx_pack_codec_name(kind));
		return false;
	}
	if (!pack_decompress(codec, kind, job->in, job->in_len, job->out, job->raw_len))
		return say_inconsistent(unpacker);
	job->out_len = job->raw_len;
	return true;
}

static bool
work(void *arg, struct pack_job *job)
{
	struct worker *worker = arg;
	struct pack_record rec;
	enum pack_next next;
	size_t		at = 0;

	if (!decompress(worker->unpacker, worker->codec, job))
		return false;
	while ((next = pack_next_record(job->out, job->out_len, &at, &rec)) == PACK_NEXT_RECORD)
		if (rec.type == PACK_EXTENT && rec.file.transform == PACK_PAGES &&
			!pack_encrypt_pages(worker->ciphers, &rec))
			return false;
	return next == PACK_NEXT_NONE || say_inconsistent(worker->unpacker);
}

/* ---- consumer ------------------------------------------------------------------------ */

/* Is the file that came so far complete? */
static bool
file_is_whole(const struct unpacker *unpacker)
{
	return unpacker->position == unpacker->file.size;
}

/* An extent begins a file, when the one before is complete, or goes on where the last one ended. */
static bool
take_extent(struct unpacker *unpacker, const struct pack_record *rec)
{
	bool		begins = rec->offset == 0;

	if (begins ? !file_is_whole(unpacker) :
		(rec->offset != unpacker->position || rec->file.archive != unpacker->file.archive ||
		 rec->file.kind != PACK_FILE || strcmp(rec->file.path, unpacker->file.path) != 0))
		return say_inconsistent(unpacker);
	unpacker->file = rec->file;
	unpacker->position = rec->offset + rec->len;
	unpacker->extents++;
	unpacker->bytes += rec->len;
	if (unpacker->files == NULL)
		return true;
	if (begins && !unpack_files_begin(unpacker->files, &rec->file))
		return false;
	return rec->len == 0 || unpack_files_write(unpacker->files, rec->offset, rec->data, rec->len);
}

static bool
take_record(struct unpacker *unpacker, const struct pack_record *rec)
{
	if (unpacker->ended)
		return say_inconsistent(unpacker);
	switch (rec->type)
	{
		case PACK_KEYTABLE:
			return true;
		case PACK_TABLESPACE:
			return unpacker->files == NULL ||
				unpack_files_tablespace(unpacker->files, &rec->tablespace);
		case PACK_EXTENT:
			return take_extent(unpacker, rec);
		case PACK_END:
			unpacker->ended = true;
			return (rec->end.extents == unpacker->extents && rec->end.bytes == unpacker->bytes &&
					file_is_whole(unpacker)) || say_inconsistent(unpacker);
	}
	return say_inconsistent(unpacker);
}

static bool
consume(void *arg, struct pack_job *job)
{
	struct unpacker *unpacker = arg;
	struct pack_record rec;
	size_t		at = 0;

	while (pack_next_record(job->out, job->out_len, &at, &rec) == PACK_NEXT_RECORD)
		if (!take_record(unpacker, &rec))
			return false;
	return true;
}

/* ---- reading ---------------------------------------------------------------------------- */

/* The next block into a job.  *ret_end: there is none. */
static bool
read_block(struct unpacker *unpacker, struct pack_job *job, bool *ret_end)
{
	uint8_t		bytes[PACK_BLOCK_HEADER];
	struct pack_block_header header;

	if (!pack_in_read(unpacker->in, bytes, sizeof(bytes), ret_end))
		return false;
	if (!pack_get_block_header(bytes, pack_codec_bound(), &header))
		return say_inconsistent(unpacker);
	job->codec = header.codec;
	job->raw_len = header.raw_len;
	job->in_len = header.stored_len;
	return pack_in_read(unpacker->in, job->in, job->in_len, ret_end) ||
		(*ret_end ? say_inconsistent(unpacker) : false);
}

/*
 * The key table is the first record, if there is one.  The first block is decompressed here, on the caller's
 * time, and once more by a worker; an exit code.
 */
static int
take_keytable(struct unpacker *unpacker, const struct pack_job *first)
{
	struct pack_job job = *first;
	struct pack_codec *codec = pack_codec_new(PGX_PACK_NONE, 0);
	struct pack_record rec;
	size_t		at = 0;
	int			rc = PGX_EXIT_FAILURE;

	job.out = pgx_alloc(PACK_BLOCK_SIZE);
	if (codec == NULL)
		pgx_log_error("out of memory");
	else if (decompress(unpacker, codec, &job))
	{
		rc = PGX_EXIT_OK;
		if (pack_next_record(job.out, job.out_len, &at, &rec) == PACK_NEXT_RECORD &&
			rec.type == PACK_KEYTABLE)
			rc = pack_keytable_open(unpacker->opts->ks, rec.data, rec.len, unpacker->opts->path,
									&unpacker->kt);
	}
	keystore_wipe(job.out, PACK_BLOCK_SIZE);
	free(job.out);
	pack_codec_free(&codec);
	return rc;
}

static bool
start_pipe(struct unpacker *unpacker)
{
	unsigned	n = unpacker->opts->jobs;

	unpacker->workers = pgx_alloc(n * sizeof(*unpacker->workers));
	unpacker->worker_args = pgx_alloc(n * sizeof(*unpacker->worker_args));
	for (unsigned i = 0; i < n; i++)
	{
		struct worker *worker = &unpacker->workers[i];

		worker->unpacker = unpacker;
		worker->codec = pack_codec_new(PGX_PACK_NONE, 0);
		worker->ciphers = pack_ciphers_new(unpacker->kt);
		unpacker->worker_args[i] = worker;
		if (worker->codec == NULL)
		{
			pgx_log_error("out of memory");
			return false;
		}
	}
	unpacker->pipe = pack_pipe_start(n, unpacker->worker_args, work, consume, unpacker,
									 pack_codec_bound(), PACK_BLOCK_SIZE);
	return unpacker->pipe != NULL;
}

static bool
is_canceled(const struct unpacker *unpacker)
{
	const struct pgx_unpack_options *opts = unpacker->opts;

	if (opts->progress != NULL)
		opts->progress(opts->progress_arg, pack_in_position(unpacker->in), pack_in_size(unpacker->in));
	if (opts->cancel == NULL || *opts->cancel == 0)
		return false;
	pgx_log_error("canceled");
	return true;
}

/* Read to the end of the stream; true if all of it was good. */
static bool
read_blocks(struct unpacker *unpacker, const struct pack_job *first)
{
	struct pack_job *job = pack_pipe_get(unpacker->pipe);
	bool		end = false;

	if (job == NULL)
		return false;
	memcpy(job->in, first->in, first->in_len);
	job->in_len = first->in_len;
	job->codec = first->codec;
	job->raw_len = first->raw_len;
	for (;;)
	{
		pack_pipe_put(unpacker->pipe, job);
		if (is_canceled(unpacker))
			return false;
		job = pack_pipe_get(unpacker->pipe);
		if (job == NULL)
			return false;
		if (!read_block(unpacker, job, &end))
			return end;
	}
}

/* The first block, whose buffer is the caller's, and the key table from it; an exit code. */
static int
begin(struct unpacker *unpacker, struct pack_job *first)
{
	bool		end = false;

	if (read_block(unpacker, first, &end))
		return take_keytable(unpacker, first);
	if (end)
		(void) say_inconsistent(unpacker);
	return PGX_EXIT_FAILURE;
}

/* An exit code. */
static int
run(struct unpacker *unpacker)
{
	struct pack_job first = {0};
	bool		ok;
	int			rc;

	first.in = pgx_alloc(pack_codec_bound());
	rc = begin(unpacker, &first);
	if (rc != PGX_EXIT_OK)
		goto out;
	rc = PGX_EXIT_FAILURE;
	ok = start_pipe(unpacker) && read_blocks(unpacker, &first);
	if (!pack_pipe_finish(&unpacker->pipe, !ok) || !ok)
		goto out;
	if (!unpacker->ended)
	{
		(void) say_inconsistent(unpacker);
		goto out;
	}
	if (unpacker->files == NULL || unpack_files_commit(unpacker->files))
		rc = PGX_EXIT_OK;

out:
	keystore_wipe(first.in, pack_codec_bound());
	free(first.in);
	return rc;
}

int
pgx_unpack(const struct pgx_unpack_options *opts)
{
	struct unpacker unpacker = {.opts = opts};
	int			rc = pack_in_open(opts->path, opts->ks, opts->backup_id, &unpacker.in);

	if (rc == PGX_EXIT_OK && !opts->verify_only)
	{
		unpacker.files = unpack_files_new(opts);
		if (unpacker.files == NULL)
			rc = PGX_EXIT_FAILURE;
	}
	if (rc == PGX_EXIT_OK)
		rc = run(&unpacker);

	for (unsigned i = 0; unpacker.workers != NULL && i < opts->jobs; i++)
	{
		pack_codec_free(&unpacker.workers[i].codec);
		pack_ciphers_free(&unpacker.workers[i].ciphers);
	}
	free(unpacker.workers);
	free(unpacker.worker_args);
	tde_keytable_free(&unpacker.kt);
	unpack_files_free(&unpacker.files);
	pack_in_free(&unpacker.in);
	return rc;
}

int
pgx_unpack_keytable(const char *path, keystore *ks, const uint8_t *backup_id, tde_keytable **ret_kt)
{
	const struct pgx_unpack_options opts = {.path = path,.ks = ks};
	struct unpacker unpacker = {.opts = &opts};
	struct pack_job first = {0};
	int			rc = pack_in_open(path, ks, backup_id, &unpacker.in);

	if (rc != PGX_EXIT_OK)
		return rc;
	first.in = pgx_alloc(pack_codec_bound());
	rc = begin(&unpacker, &first);
	keystore_wipe(first.in, pack_codec_bound());
	free(first.in);
	pack_in_free(&unpacker.in);
	if (rc == PGX_EXIT_OK)
		*ret_kt = unpacker.kt;
	else
		tde_keytable_free(&unpacker.kt);
	return rc;
}
