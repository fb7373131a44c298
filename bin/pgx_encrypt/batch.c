/*
 * batch.c
 *		Converting files in batches, so that a run may end anywhere: each into a new file, synced; the directories
 *		synced; the batch noted in the journal; then each new file is renamed into its place.
 *
 * See journal.c for what that makes sure of.
 */
#include <config.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "encrypt.h"
#include "file.h"
#include "log.h"
#include "mem.h"

/* A batch ends with whichever comes first; so much more room is needed, for each worker. */
#define BATCH_FILES		1000
#define BATCH_BYTES		(UINT64_C(1024) * 1024 * 1024)

/* What the workers of a batch share. */
struct batch
{
	const struct conversion *conversion;
	const struct data_file *files;
	size_t		count;
	atomic_size_t next;
	atomic_bool failed;
};

static bool
open_both(const struct data_file *file, const char *new_path, int *ret_fd, int *ret_new_fd)
{
	struct stat st;

	*ret_fd = open(file->path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (*ret_fd < 0 || fstat(*ret_fd, &st) != 0)
	{
		pgx_log_error("could not open file \"%s\": %m", file->path);
		return false;
	}
	*ret_new_fd = open(new_path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (*ret_new_fd < 0 || fchmod(*ret_new_fd, st.st_mode & 0777) != 0)
	{
		pgx_log_error("could not create file \"%s\": %m", new_path);
		return false;
	}
	return true;
}

static bool
make_new_file(const struct conversion *conversion, const struct data_file *file)
{
	char	   *new_path = files_new_path(file->path);
	int			fd = -1;
	int			new_fd = -1;
	bool		ok = open_both(file, new_path, &fd, &new_fd);

	if (ok)
		ok = file->is.kind == PGX_IO_WAL ? convert_wal(conversion, file, fd, new_fd) :
			convert_relation(conversion, file, fd, new_fd);
	if (ok && conversion->cluster->sync && fsync(new_fd) != 0)
	{
		pgx_log_error("could not fsync file \"%s\": %m", new_path);
		ok = false;
	}
	if (fd >= 0)
		(void) close(fd);
	if (new_fd >= 0 && close(new_fd) != 0 && ok)
	{
		pgx_log_error("could not close file \"%s\": %m", new_path);
		ok = false;
	}
	free(new_path);
	return ok;
}

static void *
work(void *arg)
{
	struct batch *batch = arg;
	size_t		i;

	while (!atomic_load(&batch->failed) && !stop_requested() &&
		   (i = atomic_fetch_add(&batch->next, 1)) < batch->count)
	{
		if (!make_new_file(batch->conversion, &batch->files[i]))
			atomic_store(&batch->failed, true);
	}
	return NULL;
}

static bool
run_workers(struct batch *batch, uint32_t jobs)
{
	pthread_t  *threads = pgx_alloc(jobs * sizeof(*threads));
	uint32_t	started = 0;

	/* This thread is one of them. */
	while (started + 1 < jobs && started + 1 < batch->count &&
		   pthread_create(&threads[started], NULL, work, batch) == 0)
		started++;
	(void) work(batch);
	while (started > 0)
		(void) pthread_join(threads[--started], NULL);
	free(threads);
	return !atomic_load(&batch->failed) && !stop_requested();
}

/* Sync each directory that the files are in; files of one directory are next to each other. */
static bool
sync_dirs(const struct cluster *cluster, const struct data_file *files, size_t count)
{
	char	   *last = NULL;
	bool		ok = true;

	for (size_t i = 0; i < count && ok; i++)
	{
		char	   *dir = pgx_dirname(files[i].path);

		if (last == NULL || strcmp(last, dir) != 0)
			ok = disk_sync_dir(cluster, dir);
		free(last);
		last = dir;
	}
	free(last);
	return ok;
}

static bool
put_in_place(const char *path)
{
	char	   *new_path = files_new_path(path);
	bool		ok = rename(new_path, path) == 0;

	if (!ok)
		pgx_log_error("could not rename file \"%s\" to \"%s\": %m", new_path, path);
	free(new_path);
	return ok;
}

static void
remove_new_files(const struct data_file *files, size_t count)
{
	for (size_t i = 0; i < count; i++)
	{
		char	   *new_path = files_new_path(files[i].path);

		/* If it stays, the next run removes it. */
		(void) unlink(new_path);
		free(new_path);
	}
}

static bool
convert_batch(const struct conversion *conversion, struct journal *journal, const struct data_file *files,
			  size_t count, uint32_t jobs)
{
	const struct cluster *cluster = conversion->cluster;
	struct batch batch = {.conversion = conversion,.files = files,.count = count};

	if (!run_workers(&batch, jobs))
	{
		remove_new_files(files, count);
		return false;
	}
	if (!sync_dirs(cluster, files, count) || !journal_note_ready(journal, cluster, files, count))
		return false;
	for (size_t i = 0; i < count; i++)
	{
		if (!put_in_place(files[i].path))
			return false;
	}
	return sync_dirs(cluster, files, count);
}

bool
convert_in_batches(const struct conversion *conversion, struct journal *journal, const struct data_files *files,
				   uint32_t jobs)
{
	size_t		first = 0;

	while (first < files->count)
	{
		size_t		count = 0;
		uint64_t	bytes = 0;

		while (first + count < files->count && count < BATCH_FILES && bytes < jobs * BATCH_BYTES)
			bytes += (uint64_t) files->files[first + count++].size;
		if (!convert_batch(conversion, journal, files->files + first, count, jobs))
			return false;
		first += count;
	}
	return true;
}

bool
convert_leftover(const struct cluster *cluster, const struct journal *journal, struct data_files *files)
{
	for (size_t i = 0; i < files->n_leftover; i++)
	{
		const char *path = files->leftover[i];
		char	   *new_path = files_new_path(path);
		char	   *dir = pgx_dirname(path);
		bool		ok;

		if (journal_is_ready(journal, path))
			ok = put_in_place(path);
		else if (!(ok = unlink(new_path) == 0))
			pgx_log_error("could not remove file \"%s\": %m", new_path);
		ok = ok && disk_sync_dir(cluster, dir);
		free(new_path);
		free(dir);
		if (!ok)
			return false;
	}
	return true;
}
