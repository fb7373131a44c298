/*
 * journal.c
 *		What is being converted, and how far.
 *
 * A text file in the data directory, there as long as a conversion is not finished; the server module
 * refuses to start while it is.  Its first lines say what is done to which tablespaces.  Then come lines
 * "ready PATH": the new version of that file is complete and on disk, under its temporary name or, once
 * renamed, in the original's place.  So a file that is named here is converted if there is no temporary one,
 * and is converted by renaming if there is; a file that is not named here is not, whatever
 * else is found.  Nothing depends on inode numbers or times, so a data directory may be copied in between.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "encrypt.h"
#include "file.h"
#include "log.h"
#include "mem.h"

#define FIRST_LINE		"pgx_encrypt conversion 1\n"

bool
journal_exists(void)
{
	return access(JOURNAL_FILE, F_OK) == 0;
}

static int
compare(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

static bool
open_to_append(struct journal *journal)
{
	journal->fd = open(JOURNAL_FILE, O_RDWR | O_APPEND | O_NOFOLLOW | O_CLOEXEC);
	if (journal->fd < 0)
		pgx_log_error("could not open file \"%s\": %m", JOURNAL_FILE);
	return journal->fd >= 0;
}

bool
journal_create(struct journal *journal, const struct cluster *cluster)
{
	char	   *text = pgx_printf("%s%s\n%s", FIRST_LINE, journal->decrypt ? "decrypt" : "encrypt",
								  journal->wal ? "wal\n" : "");
	bool		ok;

	for (size_t i = 0; i < journal->n_oids; i++)
	{
		char	   *more = pgx_printf("%stablespace %u %s\n", text, journal->oids[i],
									  tde_algorithm_name(journal->algs[i]));

		free(text);
		text = more;
	}
	ok = disk_make_dir(cluster, PGX_TDE_DIR) && disk_replace(cluster, JOURNAL_FILE, text, strlen(text)) &&
		open_to_append(journal);
	free(text);
	return ok;
}

/* One whole line; false if it is not understood. */
static bool
read_line(struct journal *journal, char *line)
{
	char		alg[16];
	uint32_t	oid;

	if (strncmp(line, "ready ", 6) == 0)
	{
		/* Doubling from time to time: there may be very many. */
		if ((journal->n_ready & (journal->n_ready - 1)) == 0)
			journal->ready = pgx_realloc(journal->ready,
										 (journal->n_ready == 0 ? 1 : 2 * journal->n_ready) *
										 sizeof(*journal->ready));
		journal->ready[journal->n_ready++] = pgx_strdup(line + 6);
		return true;
	}
	if (strcmp(line, "encrypt") == 0)
		return true;
	if (strcmp(line, "decrypt") == 0)
		return journal->decrypt = true;
	if (strcmp(line, "wal") == 0)
		return journal->wal = true;
	if (strcmp(line, "finished") == 0)
		return journal->finished = true;
	if (sscanf(line, "tablespace %" SCNu32 " %15s", &oid, alg) != 2 ||
		journal->n_oids == TDE_KEYTABLE_MAX_ENTRIES ||
		tde_algorithm_parse(alg, &journal->algs[journal->n_oids]) != 0)
		return false;
	journal->oids[journal->n_oids++] = oid;
	return true;
}

bool
journal_open(struct journal *journal, const struct cluster *cluster)
{
	FILE	   *f;
	char	   *line = NULL;
	size_t		size = 0;
	ssize_t		len;
	off_t		whole = 0;		/* bytes of whole lines */
	bool		ok;

	if (!open_to_append(journal))
		return false;
	f = fopen(JOURNAL_FILE, "re");
	ok = f != NULL && getline(&line, &size, f) > 0 && strcmp(line, FIRST_LINE) == 0;
	whole = (off_t) strlen(FIRST_LINE);
	while (ok && (len = getline(&line, &size, f)) > 0 && line[len - 1] == '\n')
	{
		whole += len;
		line[len - 1] = '\0';
		ok = read_line(journal, line);
	}
	free(line);
	if (f != NULL)
		(void) fclose(f);
	if (!ok)
	{
		pgx_log_error("file \"%s\" is damaged, or of another version of pgx_encrypt", JOURNAL_FILE);
		return false;
	}
	/* The last line may have been cut off; the file in it was not renamed then. */
	if (ftruncate(journal->fd, whole) != 0)
	{
		pgx_log_error("could not truncate file \"%s\": %m", JOURNAL_FILE);
		return false;
	}
	qsort(journal->ready, journal->n_ready, sizeof(*journal->ready), compare);
	return true;
}

static bool
append(const struct journal *journal, const struct cluster *cluster, const char *text, size_t len)
{
	if (!pgx_write_all(journal->fd, text, len))
	{
		pgx_log_error("could not write file \"%s\": %m", JOURNAL_FILE);
		return false;
	}
	if (cluster->sync && fsync(journal->fd) != 0)
	{
		pgx_log_error("could not fsync file \"%s\": %m", JOURNAL_FILE);
		return false;
	}
	return true;
}

bool
journal_note_ready(struct journal *journal, const struct cluster *cluster, const struct data_file *files,
				   size_t count)
{
	size_t		len = 0;
	char	   *text;
	char	   *to;
	bool		ok;

	for (size_t i = 0; i < count; i++)
		len += strlen(files[i].path) + 7;
	text = pgx_alloc(len + 1);
	to = text;
	for (size_t i = 0; i < count; i++)
		to += sprintf(to, "ready %s\n", files[i].path);
	ok = append(journal, cluster, text, len);
	free(text);
	return ok;
}

bool
journal_note_finished(struct journal *journal, const struct cluster *cluster)
{
	static const char text[] = "finished\n";

	journal->finished = true;
	return append(journal, cluster, text, strlen(text));
}

bool
journal_is_ready(const struct journal *journal, const char *path)
{
	return journal->n_ready > 0 &&
		bsearch(&path, journal->ready, journal->n_ready, sizeof(*journal->ready), compare) != NULL;
}

void
journal_close(struct journal *journal)
{
	for (size_t i = 0; i < journal->n_ready; i++)
		free(journal->ready[i]);
	free(journal->ready);
	if (journal->fd >= 0)
		(void) close(journal->fd);
	memset(journal, 0, sizeof(*journal));
	journal->fd = -1;
}
