/*
 * check.c
 *		pgx_encrypt --check: what is encrypted, page by page.
 *
 * Nothing is taken from the key table's word: each page is looked at, and a page counts as encrypted only
 * if the tablespace's key makes a page of it.
 *
 * The server may be running.  How a page looks depends on its first bytes alone, so a page that is being written
 * looks like the one before or the one after; should those bytes be torn, the page is read again.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "file.h"
#include "log.h"
#include "mem.h"
#include "wal.h"

/* How often in all, and after how many nanoseconds, a page that looks damaged is read again. */
#define LOOKS_AGAIN		100
#define LOOK_PAUSE_NS	10000000

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
		case PAGE_EITHER:
			break;				/* the caller knows, at the end of the file */
		case PAGE_DAMAGED:
			pages->damaged++;
			break;
	}
}

static void
count_file(struct checked *part, const struct tally *pages, const char *path)
{
	struct tally *files = &part->files;
	bool		mixed = pages->plain > 0 && pages->encrypted > 0;

	if (mixed)
		files->mixed++;
	else if (pages->plain > 0)
		files->plain++;
	else if (pages->encrypted > 0)
		files->encrypted++;
	else if (pages->damaged == 0)
		files->empty++;
	if (pages->damaged > 0)
		files->damaged++;
	if (mixed || pages->damaged > 0)
	{
		part->noted = pgx_realloc(part->noted, (part->n_noted + 1) * sizeof(*part->noted));
		part->noted[part->n_noted].path = pgx_strdup(path);
		part->noted[part->n_noted++].pages = *pages;
	}
	part->pages.encrypted += pages->encrypted;
	part->pages.plain += pages->plain;
	part->pages.damaged += pages->damaged;
	part->pages.empty += pages->empty;
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

/* Look at one page; false at the end of the file, and with errno set if it cannot be read. */
static bool
look_at(const struct data_file *file, tde_xts *xts, int fd, uint32_t number, int *again, enum page_look *ret_look)
{
	struct tde_page_id id = {file->is.database, file->is.relation, file->is.fork,
	file->is.segment * TDE_SEGMENT_PAGES + number};
	struct timespec pause = {0, LOOK_PAUSE_NS};
	uint8_t		page[TDE_PAGE_SIZE];

	for (;;)
	{
		ssize_t		got;

		errno = 0;
		got = pread(fd, page, sizeof(page), (off_t) number * TDE_PAGE_SIZE);
		if (got < 0 && errno == EINTR)
			continue;
		if (got != (ssize_t) sizeof(page))
			return false;
		*ret_look = file->is.kind == PGX_IO_RELATION ? page_look(xts, &id, page) : wal_look(page);
		if (*ret_look != PAGE_DAMAGED || *again == 0)
			return true;
		(*again)--;
		(void) nanosleep(&pause, NULL);
	}
}

static bool
check_file(const struct data_file *file, tde_xts *xts, int *again, struct checked *part)
{
	struct tally pages = {0};
	enum page_look look;
	uint64_t	either = 0;
	int			fd = open(file->path, O_RDONLY | O_CLOEXEC);
	bool		ok;

	if (fd < 0 && errno == ENOENT)
		return true;			/* removed since the directory was read */
	for (uint32_t number = 0; fd >= 0 && !stop_requested(); number++)
	{
		if (!look_at(file, xts, fd, number, again, &look))
			break;
		count_page(&pages, look);
		either += look == PAGE_EITHER;
		progress_add(TDE_PAGE_SIZE);
	}
	ok = fd >= 0 && errno == 0;
	if (!ok && !stop_requested())
		pgx_log_error("could not read file \"%s\": %m", file->path);
	if (fd >= 0)
		(void) close(fd);
	if (!ok || stop_requested())
		return false;
	if (pages.plain > 0 && pages.encrypted == 0)
		pages.plain += either;
	else
		pages.encrypted += either;
	count_file(part, &pages, file->path);
	return true;
}

static bool
check_part(const struct keys *keys, int *again, struct checked *part)
{
	const uint8_t *key = part->oid == 0 ? NULL : keys_key(keys, TDE_KEY_TABLESPACE, part->oid);
	tde_xts    *xts = key == NULL ? NULL : tde_xts_new(part->alg, key);
	bool		ok = key == NULL || xts != NULL;

	if (!ok)
		pgx_log_error("could not prepare decryption: libcrypto failed");
	for (size_t i = 0; i < part->list.count && ok; i++)
		ok = check_file(&part->list.files[i], xts, again, part);
	tde_xts_free(&xts);
	return ok;
}

/* Encrypted by the key table, and in fact. */
static bool
is_good(const struct checked *part)
{
	return part->alg != TDE_NONE && part->files.plain == 0 && part->files.mixed == 0 && part->files.damaged == 0;
}

static void
print_part(const struct checked *part)
{
	const struct tally *files = &part->files;

	for (size_t i = 0; i < part->n_noted; i++)
	{
		const struct noted_file *file = &part->noted[i];

		if (file->pages.plain > 0 && file->pages.encrypted > 0)
			printf("file \"%s\" is mixed: %" PRIu64 " pages encrypted, %" PRIu64 " plain\n", file->path,
				   file->pages.encrypted, file->pages.plain);
		if (file->pages.damaged > 0)
			printf("file \"%s\" has %" PRIu64 " pages that are damaged, or encrypted with another key\n",
				   file->path, file->pages.damaged);
	}
	printf("%s: %s; files: %" PRIu64 " encrypted, %" PRIu64 " plain, %" PRIu64 " mixed, %" PRIu64
		   " damaged, %" PRIu64 " empty\n", part->name, tde_algorithm_name(part->alg), files->encrypted,
		   files->plain, files->mixed, files->damaged, files->empty);
}

/* All that is to be looked at: the tablespaces selected, and WAL. */
static bool
list_parts(struct check_report *report, const struct keys *keys, const struct spaces *spaces,
		   const struct convert_options *options, uint64_t *ret_bytes)
{
	struct checked *part;
	bool		ok = true;

	report->parts = pgx_realloc(NULL, (spaces->count + 1) * sizeof(*report->parts));
	memset(report->parts, 0, (spaces->count + 1) * sizeof(*report->parts));
	for (size_t i = 0; i < spaces->count && ok; i++)
	{
		const struct space *space = &spaces->spaces[i];

		if (options->tablespaces != NULL && !space->selected)
			continue;
		part = &report->parts[report->n_parts++];
		part->name = space->name;
		part->oid = space->oid;
		part->alg = space->alg;
		ok = files_add_space(&part->list, report->cluster, space);
	}
	part = &report->parts[report->n_parts++];
	part->name = "pg_wal";
	part->alg = keys_algorithm(keys, TDE_KEY_WAL, 0);
	ok = ok && files_add_wal(&part->list, report->cluster);

	*ret_bytes = 0;
	for (size_t i = 0; i < report->n_parts; i++)
	{
		for (size_t f = 0; f < report->parts[i].list.count; f++)
			*ret_bytes += (uint64_t) report->parts[i].list.files[f].size;
	}
	return ok;
}

static void
clear_report(struct check_report *report)
{
	for (size_t i = 0; i < report->n_parts; i++)
	{
		struct checked *part = &report->parts[i];

		for (size_t f = 0; f < part->n_noted; f++)
			free(part->noted[f].path);
		free(part->noted);
		files_clear(&part->list);
	}
	free(report->parts);
}

/* A running server may have got a tablespace, or a key, that is not in the table as it was read. */
static void
warn_of_change(const struct keys *keys)
{
	struct keys now = {.ks = keys->ks};
	bool		changed = keys_table_exists() != (keys->kt != NULL);

	if (!changed && keys->kt != NULL)
		changed = keys_read_table(&now) != PGX_EXIT_OK ||
			tde_keytable_generation(now.kt) != tde_keytable_generation(keys->kt);
	tde_keytable_free(&now.kt);
	if (!changed)
		return;
	pgx_log_warning("the keys in file \"%s\" have changed meanwhile", KEYTABLE_FILE);
	pgx_log_hint("Run the command again; what is new may have been taken for plain or damaged.");
}

int
check_cluster(const struct cluster *cluster, const struct keys *keys, const struct convert_options *options,
			  bool json)
{
	struct check_report report = {.cluster = cluster,.all = true};
	struct spaces spaces = {NULL};
	uint64_t	bytes;
	int			again = LOOKS_AGAIN;
	bool		ok;

	if (json && !check_json_supported())
		return PGX_EXIT_FAILURE;
	ok = spaces_read(&spaces, cluster, keys);
	for (size_t i = 0; i < options->n_tablespaces && ok; i++)
		ok = spaces_select(&spaces, options->tablespaces[i]);
	ok = ok && list_parts(&report, keys, &spaces, options, &bytes);
	if (ok)
		progress_start(options->progress, bytes, "checked");
	for (size_t i = 0; i < report.n_parts && ok; i++)
	{
		ok = check_part(keys, &again, &report.parts[i]);
		report.all = report.all && is_good(&report.parts[i]);
		if (ok && !json)
			print_part(&report.parts[i]);
	}
	progress_end();
	report.interrupted = journal_exists();
	report.all = report.all && !report.interrupted;
	if (ok && json)
		ok = check_print_json(&report);
	else if (ok)
	{
		if (report.interrupted)
			printf("a conversion has been interrupted\n");
		printf(report.all ? "everything is encrypted\n" : "not everything is encrypted\n");
	}
	if (ok && !report.all)
		warn_of_change(keys);
	clear_report(&report);
	spaces_clear(&spaces);
	return ok && report.all ? PGX_EXIT_OK : PGX_EXIT_FAILURE;
}
