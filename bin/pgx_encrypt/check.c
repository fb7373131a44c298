/*
 * check.c
 *		pgx_encrypt --check: what is encrypted, page by page.
 *
 * Nothing is taken from the key table's word: each page is looked at, and a page counts as encrypted only
 * if the tablespace's key makes a page of it.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "encrypt.h"
#include "log.h"
#include "wal.h"

/* Pages of one file, or files of one tablespace. */
struct tally
{
	uint64_t	encrypted;
	uint64_t	plain;
	uint64_t	mixed;			/* files only */
	uint64_t	damaged;
	uint64_t	empty;
};

static void
count_page(struct tally *pages, enum page_look look)
{
	switch (look)
	{
		case PAGE_EMPTY:
			pages->empty++;
			break;
		case PAGE_PLAIN:
			pages->plain++;
			break;
		case PAGE_ENCRYPTED:
			pages->encrypted++;
			break;
		case PAGE_DAMAGED:
			pages->damaged++;
			break;
	}
}

static void
count_file(struct tally *files, const struct tally *pages, const char *path)
{
	if (pages->plain > 0 && pages->encrypted > 0)
	{
		files->mixed++;
		printf("file \"%s\" is mixed: %" PRIu64 " pages encrypted, %" PRIu64 " plain\n", path,
			   pages->encrypted, pages->plain);
	}
	else if (pages->plain > 0)
		files->plain++;
	else if (pages->encrypted > 0)
		files->encrypted++;
	else if (pages->damaged == 0)
		files->empty++;
	if (pages->damaged > 0)
	{
		files->damaged++;
		printf("file \"%s\" has %" PRIu64 " pages that are damaged, or encrypted with another key\n", path,
			   pages->damaged);
	}
}

/* How a page of WAL looks: its header says it.  Pages of recycled segments count as what they are. */
static enum page_look
wal_look(const uint8_t *page)
{
	struct tde_wal_header header;
	uint16_t	magic;

	if (tde_page_is_zero(page))
		return PAGE_EMPTY;
	memcpy(&magic, page, sizeof(magic));
	if (!tde_wal_parse(page, magic, &header))
		return PAGE_DAMAGED;
	return header.epoch != 0 ? PAGE_ENCRYPTED : PAGE_PLAIN;
}

static bool
check_file(const struct data_file *file, tde_xts *xts, struct tally *files)
{
	struct tde_page_id id = {file->is.database, file->is.relation, file->is.fork,
	file->is.segment * TDE_SEGMENT_PAGES};
	struct tally pages = {0};
	uint8_t		page[TDE_PAGE_SIZE];
	int			fd = open(file->path, O_RDONLY | O_CLOEXEC);
	ssize_t		got = -1;

	while (fd >= 0 && !stop_requested() && (got = read(fd, page, sizeof(page))) == (ssize_t) sizeof(page))
	{
		count_page(&pages, file->is.kind == PGX_IO_RELATION ? page_look(xts, &id, page) : wal_look(page));
		id.block++;
		progress_add(sizeof(page));
	}
	if (fd < 0 || got < 0)
		pgx_log_error("could not read file \"%s\": %m", file->path);
	else
		count_file(files, &pages, file->path);
	if (fd >= 0)
		(void) close(fd);
	return fd >= 0 && got >= 0 && !stop_requested();
}

static bool
check_files(const struct data_files *list, tde_xts *xts, struct tally *files)
{
	for (size_t i = 0; i < list->count; i++)
	{
		if (!check_file(&list->files[i], xts, files))
			return false;
	}
	return true;
}

static void
print_tally(const char *name, const char *alg, const struct tally *files)
{
	printf("%s: %s; files: %" PRIu64 " encrypted, %" PRIu64 " plain, %" PRIu64 " mixed, %" PRIu64
		   " damaged, %" PRIu64 " empty\n", name, alg, files->encrypted, files->plain, files->mixed,
		   files->damaged, files->empty);
}

/* Encrypted by the key table, and in fact. */
static bool
is_good(enum tde_algorithm alg, const struct tally *files)
{
	return alg != TDE_NONE && files->plain == 0 && files->mixed == 0 && files->damaged == 0;
}

static bool
check_space(const struct cluster *cluster, const struct keys *keys, const struct space *space, bool *all)
{
	const uint8_t *key = keys_key(keys, TDE_KEY_TABLESPACE, space->oid);
	tde_xts    *xts = key == NULL ? NULL : tde_xts_new(space->alg, key);
	struct data_files list = {NULL};
	struct tally files = {0};
	bool		ok;

	if (key != NULL && xts == NULL)
	{
		pgx_log_error("could not prepare decryption: libcrypto failed");
		return false;
	}
	ok = files_add_space(&list, cluster, space) && check_files(&list, xts, &files);
	if (ok)
	{
		print_tally(space->name, tde_algorithm_name(space->alg), &files);
		*all = *all && is_good(space->alg, &files);
	}
	files_clear(&list);
	tde_xts_free(&xts);
	return ok;
}

static bool
check_wal(const struct cluster *cluster, const struct keys *keys, bool *all)
{
	enum tde_algorithm alg = keys_algorithm(keys, TDE_KEY_WAL, 0);
	struct data_files list = {NULL};
	struct tally files = {0};
	bool		ok = files_add_wal(&list, cluster) && check_files(&list, NULL, &files);

	if (ok)
	{
		print_tally("pg_wal", tde_algorithm_name(alg), &files);
		*all = *all && is_good(alg, &files);
	}
	files_clear(&list);
	return ok;
}

int
check_cluster(const struct cluster *cluster, const struct keys *keys, const struct convert_options *options)
{
	struct spaces spaces = {NULL};
	bool		all = true;
	bool		ok;

	ok = spaces_read(&spaces, cluster, keys);
	for (size_t i = 0; i < options->n_tablespaces && ok; i++)
		ok = spaces_select(&spaces, options->tablespaces[i]);
	progress_start(false, 0);
	for (size_t i = 0; i < spaces.count && ok; i++)
	{
		if (options->tablespaces == NULL || spaces.spaces[i].selected)
			ok = check_space(cluster, keys, &spaces.spaces[i], &all);
	}
	if (ok)
		ok = check_wal(cluster, keys, &all);
	if (ok && journal_exists())
	{
		printf("a conversion has been interrupted\n");
		all = false;
	}
	if (ok)
		printf(all ? "everything is encrypted\n" : "not everything is encrypted\n");
	spaces_clear(&spaces);
	return ok && all ? PGX_EXIT_OK : PGX_EXIT_FAILURE;
}
