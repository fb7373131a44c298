/*
 * convert.c
 *		Converting a cluster: the order in which things happen, so that a run may end anywhere.
 *
 * Encrypting: the journal, then the key table with the new keys, then WAL, then the relation files.  A
 * server without our module finds no checkpoint in encrypted WAL, and one with it
 * refuses because of the journal; so nobody starts on what is half converted.  Decrypting: the journal, the relation
 * files, WAL, then the key table.
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>

#include <openssl/rand.h>

#include "encrypt.h"
#include "log.h"
#include "mem.h"

/* Leave out what is done. */
static uint64_t
drop_ready(const struct journal *journal, struct data_files *files)
{
	uint64_t	bytes = 0;
	size_t		kept = 0;

	for (size_t i = 0; i < files->count; i++)
	{
		if (journal_is_ready(journal, files->files[i].path))
			free(files->files[i].path);
		else
		{
			bytes += (uint64_t) files->files[i].size;
			files->files[kept++] = files->files[i];
		}
	}
	files->count = kept;
	return bytes;
}

/*
 * Segments behind the end of WAL are former ones that wait to be used again, with their old content: they go, and the
 * server makes new ones.  So do files that are being made or restored, which the server would remove.
 */
static bool
remove_recycled(const struct conversion *conversion, struct data_files *wal)
{
	const struct cluster *cluster = conversion->cluster;
	uint64_t	last = (conversion->wal_end - 1) / cluster->segment_size;
	size_t		kept = 0;
	bool		ok = true;

	for (size_t i = 0; i < wal->count; i++)
	{
		uint32_t	timeline;
		uint64_t	segment;

		if (ok && (wal->files[i].is.kind == PGX_IO_WAL_TEMP ||
				   !wal_parse_name(cluster, wal->files[i].path, &timeline, &segment) || segment > last))
		{
			ok = disk_remove(cluster, wal->files[i].path);
			free(wal->files[i].path);
		}
		else
			wal->files[kept++] = wal->files[i];
	}
	wal->count = kept;
	return ok;
}

/* ---- before and after the files ------------------------------------------------------------- */

static bool
is_chosen(const struct journal *journal, uint32_t oid)
{
	for (size_t i = 0; i < journal->n_oids; i++)
	{
		if (journal->oids[i] == oid)
			return true;
	}
	return false;
}

/* Fill the journal from the options.  *ret_any: whether there is anything to do. */
static bool
choose(const struct keys *keys, struct spaces *spaces, const struct convert_options *options,
	   struct journal *journal, bool *ret_any)
{
	bool		has_wal_key = keys_algorithm(keys, TDE_KEY_WAL, 0) != TDE_NONE;
	bool		rest_encrypted = false;

	for (size_t i = 0; i < options->n_tablespaces; i++)
	{
		if (!spaces_select(spaces, options->tablespaces[i]))
			return false;
	}
	journal->decrypt = options->decrypt;
	for (size_t i = 0; i < spaces->count; i++)
	{
		const struct space *space = &spaces->spaces[i];
		bool		wanted = options->tablespaces == NULL || space->selected;
		bool		is_encrypted = space->alg != TDE_NONE;

		if (!wanted || is_encrypted != options->decrypt)
		{
			rest_encrypted = rest_encrypted || is_encrypted;
			continue;
		}
		if (journal->n_oids == TDE_KEYTABLE_MAX_ENTRIES)
		{
			pgx_log_error("there are too many tablespaces");
			return false;
		}
		journal->oids[journal->n_oids] = space->oid;
		journal->algs[journal->n_oids++] = options->decrypt ? space->alg : options->alg;
	}

	/* WAL is encrypted as long as any tablespace is, and after all have been named in the clear it is not. */
	if (options->decrypt)
		journal->wal = has_wal_key && !rest_encrypted;
	else
		journal->wal = journal->n_oids > 0 || !has_wal_key;
	*ret_any = journal->n_oids > 0 || journal->wal;
	return true;
}

/* Encrypting: the keys, on disk before anything is encrypted with them. */
static int
make_keys(struct keys *keys, const struct cluster *cluster, const struct journal *journal)
{
	bool		changed = false;
	int			rc = keys_make_table(keys);

	if (rc != PGX_EXIT_OK)
		return rc;
	if (keys_algorithm(keys, TDE_KEY_WAL, 0) == TDE_NONE)
	{
		if (!keys_add(keys, TDE_KEY_WAL, 0, TDE_AES256))
			return PGX_EXIT_FAILURE;
		changed = true;
	}
	for (size_t i = 0; i < journal->n_oids; i++)
	{
		if (keys_algorithm(keys, TDE_KEY_TABLESPACE, journal->oids[i]) != TDE_NONE)
			continue;			/* from a former run */
		if (!keys_add(keys, TDE_KEY_TABLESPACE, journal->oids[i], journal->algs[i]))
			return PGX_EXIT_FAILURE;
		changed = true;
	}
	return !changed || keys_write_table(keys, cluster) ? PGX_EXIT_OK : PGX_EXIT_FAILURE;
}

/* Decrypting: without the keys, at last. */
static bool
drop_keys(struct keys *keys, const struct cluster *cluster, const struct journal *journal)
{
	if (keys->kt == NULL)
		return true;			/* a former run came so far */
	if (journal->wal)
		return disk_remove(cluster, KEYTABLE_FILE);
	for (size_t i = 0; i < journal->n_oids; i++)
	{
		if (!keys_remove(keys, TDE_KEY_TABLESPACE, journal->oids[i]))
			return false;
	}
	return keys_write_table(keys, cluster);
}

static bool
convert_wal_files(struct conversion *conversion, struct journal *journal, struct data_files *wal, uint32_t jobs)
{
	if (!journal->wal)
		return true;
	return remove_recycled(conversion, wal) && convert_in_batches(conversion, journal, wal, jobs);
}

/* Everything between the journal's first lines and its last one. */
static bool
convert_all_files(struct conversion *conversion, struct journal *journal, const struct spaces *spaces,
				  const struct convert_options *options)
{
	const struct cluster *cluster = conversion->cluster;
	struct data_files relations = {NULL};
	struct data_files wal = {NULL};
	uint64_t	bytes;
	bool		ok = false;

	for (size_t i = 0; i < spaces->count; i++)
	{
		if (is_chosen(journal, spaces->spaces[i].oid) &&
			!files_add_space(&relations, cluster, &spaces->spaces[i]))
			goto out;
	}
	if (journal->wal && !files_add_wal(&wal, cluster))
		goto out;
	if (!convert_leftover(cluster, journal, &relations) || !convert_leftover(cluster, journal, &wal) ||
		!wal_find_end(cluster, conversion->keys, &conversion->wal_end))
		goto out;
	if (!conversion->decrypt && !files_remove_temporary(cluster, spaces))
		goto out;
	bytes = drop_ready(journal, &relations) + drop_ready(journal, &wal);

	progress_start(options->progress, bytes, "converted");
	if (!conversion->decrypt)
		ok = convert_wal_files(conversion, journal, &wal, options->jobs) &&
			convert_in_batches(conversion, journal, &relations, options->jobs);
	else
		ok = convert_in_batches(conversion, journal, &relations, options->jobs) &&
			convert_wal_files(conversion, journal, &wal, options->jobs);
	progress_end();

out:
	files_clear(&relations);
	files_clear(&wal);
	return ok;
}

/* A resumed run does what the first one was asked for. */
static bool
same_task(const struct journal *journal, const struct convert_options *options)
{
	if (journal->decrypt == options->decrypt && options->tablespaces == NULL)
		return true;
	pgx_log_error("the data directory is being %s; that has to be finished first",
				  journal->decrypt ? "decrypted" : "encrypted");
	pgx_log_hint("Run %s with -D%s and without --tablespace.", pgx_progname(),
				 journal->decrypt ? " and --decrypt" : "");
	return false;
}

static int
begin(struct cluster *cluster, struct keys *keys, struct spaces *spaces, const struct convert_options *options,
	  struct journal *journal, bool *ret_any)
{
	bool		resumed = journal_exists();

	*ret_any = true;
	if (!cluster_is_down(cluster))
		return PGX_EXIT_FAILURE;
	if (resumed)
	{
		if (!journal_open(journal, cluster) || !same_task(journal, options))
			return PGX_EXIT_FAILURE;
		pgx_log_verbose("going on with the conversion that was interrupted");
	}
	else
	{
		if (!choose(keys, spaces, options, journal, ret_any))
			return PGX_EXIT_FAILURE;
		if (!*ret_any)
			return PGX_EXIT_OK;
		if (!journal_create(journal, cluster))
			return PGX_EXIT_FAILURE;
	}

	/* From here on no server starts; but one may have, just before.  Nothing is changed yet. */
	if (!resumed && !cluster_is_down(cluster))
	{
		(void) disk_remove(cluster, JOURNAL_FILE);
		return PGX_EXIT_FAILURE;
	}
	return journal->decrypt ? PGX_EXIT_OK : make_keys(keys, cluster, journal);
}

static int
convert_with_journal(struct cluster *cluster, struct keys *keys, struct spaces *spaces,
					 const struct convert_options *options, struct journal *journal)
{
	struct conversion conversion = {.cluster = cluster,.keys = keys};
	bool		any;
	int			rc = begin(cluster, keys, spaces, options, journal, &any);

	if (rc != PGX_EXIT_OK)
		return rc;
	if (!any)
	{
		printf("there is nothing to %s\n", options->decrypt ? "decrypt" : "encrypt");
		return PGX_EXIT_OK;
	}
	conversion.decrypt = journal->decrypt;
	while (conversion.wal_epoch == 0)
	{
		if (RAND_bytes((unsigned char *) &conversion.wal_epoch, sizeof(conversion.wal_epoch)) != 1)
		{
			pgx_log_error("could not draw random bytes");
			return PGX_EXIT_FAILURE;
		}
	}
	if (!journal->finished &&
		(!convert_all_files(&conversion, journal, spaces, options) || !journal_note_finished(journal, cluster)))
	{
		if (stop_requested())
			pgx_log_error("interrupted");
		pgx_log_hint("No server can be started in \"%s\" now; run this command again to go on.", cluster->pgdata);
		return PGX_EXIT_FAILURE;
	}
	if (journal->decrypt && !drop_keys(keys, cluster, journal))
		return PGX_EXIT_FAILURE;
	if (!disk_remove(cluster, JOURNAL_FILE))
		return PGX_EXIT_FAILURE;
	printf("the data directory has been %s\n", journal->decrypt ? "decrypted" : "encrypted");
	return PGX_EXIT_OK;
}

int
convert_cluster(struct cluster *cluster, struct keys *keys, const struct convert_options *options)
{
	struct journal *journal = pgx_alloc(sizeof(*journal));
	struct spaces spaces = {NULL};
	int			rc = PGX_EXIT_FAILURE;

	journal->fd = -1;
	if (cluster_lock(cluster) && spaces_read(&spaces, cluster, keys))
		rc = convert_with_journal(cluster, keys, &spaces, options, journal);
	journal_close(journal);
	free(journal);
	spaces_clear(&spaces);
	return rc;
}
