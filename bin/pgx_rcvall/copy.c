/*
 * copy.c
 *		The files of a backup that holds them as they were, to where they belong.
 *
 * They are copied as they are, ciphertext, in the order of the backup's manifest, and each is compared with it on the
 * way: what is read once need not be read again.  Then the directories are walked for what the manifest does not
 * have: that is WAL, empty directories, and nothing else.
 */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "child.h"
#include "file.h"
#include "log.h"
#include "manifest_read.h"
#include "mem.h"
#include "rcvall.h"

#define COPY_CHUNK		(16 * 1024 * 1024)
#define COPY_BUFFER		(256 * 1024)	/* stays in the processor's cache between reading, checksum and writing */
#define WRITE_BEHIND	(8 * 1024 * 1024)	/* bytes after which the kernel is told to begin writing */
#define TABLESPACES		"pg_tblspc/"

/* Files of the data directory in a backup that do not go into the new one. */
static const char *const not_restored[] = {
	"backup_manifest", "standby.signal", "recovery.signal", "postmaster.pid", "postmaster.opts", NULL
};

struct copying
{
	const struct recovery *r;
	char	   *data;			/* the backup's data directory */
	char	   *buf;			/* COPY_BUFFER */
	bool		by_manifest;	/* what belongs to the backup has been copied already */
	uint64_t	done;			/* bytes */
	uint64_t	total;
	time_t		shown;			/* when progress was shown last */
};

static void
show_progress(struct copying *c, bool last)
{
	time_t		now = time(NULL);

	if (!c->r->opts->progress || (!last && now == c->shown))
		return;
	c->shown = now;
	fprintf(stderr, "%*" PRIu64 "/%" PRIu64 " kB (%d%%) restored%s", 10, c->done / 1024, c->total / 1024,
			c->total == 0 || c->done >= c->total ? 100 : (int) (c->done * 100 / c->total), last ? "\n" : "\r");
	(void) fflush(stderr);
}

/* ---- one file --------------------------------------------------------------------------- */

/* One piece of a file; how much, 0 at its end, -1 with errno. */
static ssize_t
copy_piece(const struct copying *c, int in, int out, struct pgx_checksum *sum, bool *by_kernel)
{
	ssize_t		n;

	/* What needs no checksum may never come to us. */
	if (*by_kernel)
	{
		n = copy_file_range(in, NULL, out, NULL, COPY_CHUNK, 0);
		if (n >= 0 || !pgx_kernel_copies_not(errno))
			return n;
		*by_kernel = false;		/* between file systems that do not know how; offsets are where they were */
	}
	n = read(in, c->buf, COPY_BUFFER);
	if (n > 0 && sum != NULL && !pgx_checksum_add(sum, c->buf, (size_t) n))
	{
		errno = EIO;
		return -1;
	}
	return n > 0 && !pgx_write_all(out, c->buf, (size_t) n) ? -1 : n;
}

/* *ret_size: how long it was. */
static bool
copy_bytes(struct copying *c, int in, int out, struct pgx_checksum *sum, uint64_t *ret_size)
{
	bool		by_kernel = sum == NULL;
	uint64_t	size = 0;
	uint64_t	started = 0;
	ssize_t		n;

	do
	{
		n = copy_piece(c, in, out, sum, &by_kernel);
		if (n > 0)
			size += (uint64_t) n;
		c->done += n > 0 ? (uint64_t) n : 0;
		/* Keep the disk busy meanwhile; the sync at the end has less to wait for. */
		if (size - started >= WRITE_BEHIND)
		{
			(void) sync_file_range(out, (off_t) started, (off_t) (size - started), SYNC_FILE_RANGE_WRITE);
			started = size;
		}
		show_progress(c, false);
	} while ((n > 0 || (n < 0 && errno == EINTR)) && !pgx_interrupted());
	*ret_size = size;
	return n == 0;
}

static bool
make_parents(const char *path)
{
	char	   *parent = pgx_dirname(path);
	bool		ok = mkdir(parent, 0700) == 0 || errno == EEXIST ||
		(errno == ENOENT && make_parents(parent) && (mkdir(parent, 0700) == 0 || errno == EEXIST));

	free(parent);
	return ok;
}

static int
create_file(const char *path)
{
	const int	flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
	int			fd = open(path, flags, 0600);

	if (fd < 0 && errno == ENOENT && make_parents(path))
		fd = open(path, flags, 0600);
	if (fd < 0)
		pgx_log_error("could not create file \"%s\": %m", path);
	return fd;
}

/* sum: NULL if nothing is known of it. */
static bool
copy_file(struct copying *c, const char *from, const char *to, struct pgx_checksum *sum, uint64_t *ret_size)
{
	int			in = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	int			out = -1;
	bool		ok = false;

	*ret_size = 0;
	if (in < 0)
		pgx_log_error("could not open file \"%s\": %m", from);
	else if ((out = create_file(to)) >= 0)
	{
		ok = copy_bytes(c, in, out, sum, ret_size);
		if (!ok && pgx_caught_signal == 0)
			pgx_log_error("could not copy file \"%s\" to \"%s\": %m", from, to);
	}
	if (out >= 0 && close(out) != 0 && ok)
	{
		pgx_log_error("could not close file \"%s\": %m", to);
		ok = false;
	}
	if (in >= 0)
		(void) close(in);		/* opened for reading only */
	return ok;
}

static bool
is_restored(const char *relative)
{
	for (const char *const *name = not_restored; *name != NULL; name++)
	{
		if (strcmp(*name, relative) == 0)
			return false;
	}
	return true;
}

/* ---- by the manifest ------------------------------------------------------------------------ */

/* Where a file of the manifest is in the backup, and where it goes.  Both are freed by the caller. */
static void
find_places(const struct copying *c, const char *relative, char **ret_from, char **ret_to)
{
	const struct pgx_backup_info *info = &c->r->backup->info;
	size_t		len = strlen(TABLESPACES);

	for (size_t i = 0; strncmp(relative, TABLESPACES, len) == 0 && i < info->n_tablespaces; i++)
	{
		char	   *prefix = pgx_printf(TABLESPACES "%" PRIu32 "/", info->tablespaces[i].oid);
		const char *rest = strncmp(relative, prefix, strlen(prefix)) == 0 ? relative + strlen(prefix) : NULL;
		char	   *dir;

		free(prefix);
		if (rest == NULL)
			continue;
		dir = pgx_backup_tablespace_path(c->r->backup, info->tablespaces[i].oid);
		*ret_from = pgx_join(dir, rest);
		*ret_to = pgx_join(c->r->locations[i], rest);
		free(dir);
		return;
	}
	*ret_from = pgx_join(c->data, relative);
	*ret_to = pgx_join(c->r->pgdata, strcmp(relative, PG_CONTROL) == 0 ? PG_CONTROL_PENDING : relative);
}

static bool
check_copy(const struct pgx_manifest_file *file, uint64_t size, struct pgx_checksum **sum)
{
	bool		matches = pgx_checksum_matches(sum);

	/* As pg_verifybackup: it may have been edited in the backup. */
	if (strcmp(file->path, "postgresql.auto.conf") == 0)
		return true;
	if (size != file->size)
		pgx_log_error("\"%s\" has size %" PRIu64 " on disk but size %" PRIu64 " in the manifest", file->path, size,
					  file->size);
	else if (!matches)
		pgx_log_error("checksum mismatch for file \"%s\"", file->path);
	else
		return true;
	return false;
}

/* *ret_wrong: it is not as the manifest says. */
static bool
copy_listed(struct copying *c, const struct pgx_manifest_file *file, bool *ret_wrong)
{
	struct pgx_checksum *sum;
	char	   *from;
	char	   *to;
	uint64_t	size;
	bool		ok = false;

	if (!is_restored(file->path))
		return true;
	find_places(c, file->path, &from, &to);
	sum = pgx_checksum_new(file);
	if (sum != NULL && access(from, F_OK) != 0 && errno == ENOENT)
	{
		pgx_log_error("\"%s\" is present in the manifest but not on disk", file->path);
		*ret_wrong = true;
	}
	else if (sum != NULL && copy_file(c, from, to, sum, &size))
	{
		ok = check_copy(file, size, &sum);
		*ret_wrong = !ok;
	}
	if (sum != NULL)
		(void) pgx_checksum_matches(&sum);
	free(to);
	free(from);
	return ok;
}

static bool
copy_by_manifest(struct copying *c)
{
	char	   *path = pgx_join(c->data, "backup_manifest");
	struct pgx_manifest *manifest = pgx_manifest_open(path);
	struct pgx_manifest_file file;
	bool		wrong = false;
	int			rc = manifest != NULL ? 1 : -1;

	while (rc == 1)
	{
		rc = pgx_manifest_next(manifest, &file);
		if (rc == 1 && (!copy_listed(c, &file, &wrong) || pgx_interrupted()))
			rc = -1;
	}
	pgx_manifest_close(&manifest);
	free(path);
	if (wrong)
		pgx_log_error("what was restored is not what the manifest of the backup \"%s\" says", c->r->backup->name);
	return rc == 0;
}

/* ---- by the directories ---------------------------------------------------------------------- */

static bool
is_wal(const char *relative)
{
	return relative != NULL && strncmp(relative, "pg_wal/", strlen("pg_wal/")) == 0;
}

/* A file that is found; relative: below the data directory, NULL in a tablespace. */
static bool
copy_found(struct copying *c, const char *from, const char *to, const char *relative)
{
	uint64_t	size;

	/* The directories were empty: what is there came by the manifest. */
	if (c->by_manifest && !is_wal(relative))
	{
		if (access(to, F_OK) == 0)
			return true;
		pgx_log_error("\"%s\" is present on disk but not in the manifest", from);
		pgx_log_error("what was restored is not what the manifest of the backup \"%s\" says", c->r->backup->name);
		return false;
	}
	return copy_file(c, from, to, NULL, &size);
}

static bool copy_tree(struct copying *c, const char *from, const char *to, const char *relative);

static bool
copy_entry(struct copying *c, const char *from, const char *to, const char *relative)
{
	struct stat st;

	if (relative != NULL && !is_restored(relative))
		return true;
	if (lstat(from, &st) != 0)
	{
		pgx_log_error("could not stat \"%s\": %m", from);
		return false;
	}
	if (S_ISDIR(st.st_mode))
		return copy_tree(c, from, to, relative);
	if (S_ISREG(st.st_mode))
		return copy_found(c, from, to, relative);
	return true;				/* a tablespace's link is made anew; nothing else belongs here */
}

static bool
copy_tree(struct copying *c, const char *from, const char *to, const char *relative)
{
	DIR		   *d = opendir(from);
	struct dirent *e;
	bool		ok = true;

	if (d == NULL)
	{
		pgx_log_error("could not open directory \"%s\": %m", from);
		return false;
	}
	if (mkdir(to, 0700) != 0 && errno != EEXIST)
	{
		pgx_log_error("could not create directory \"%s\": %m", to);
		ok = false;
	}
	while (ok && (errno = 0, e = readdir(d)) != NULL)
	{
		char	   *from_path;
		char	   *to_path;
		char	   *relative_path = NULL;

		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		from_path = pgx_join(from, e->d_name);
		if (relative != NULL)
			relative_path = relative[0] == '\0' ? pgx_strdup(e->d_name) : pgx_join(relative, e->d_name);
		if (relative_path != NULL && strcmp(relative_path, PG_CONTROL) == 0)
			to_path = pgx_join(c->r->pgdata, PG_CONTROL_PENDING);
		else
			to_path = pgx_join(to, e->d_name);
		ok = copy_entry(c, from_path, to_path, relative_path) && !pgx_interrupted();
		free(relative_path);
		free(from_path);
		free(to_path);
	}
	if (ok && errno != 0)
	{
		pgx_log_error("could not read directory \"%s\": %m", from);
		ok = false;
	}
	(void) closedir(d);
	return ok;
}

/* ---- all of it --------------------------------------------------------------------------- */

static bool
copy_tablespaces(struct copying *c)
{
	const struct pgx_backup_info *info = &c->r->backup->info;
	bool		ok = true;

	for (size_t i = 0; ok && i < info->n_tablespaces; i++)
	{
		char	   *from = pgx_backup_tablespace_path(c->r->backup, info->tablespaces[i].oid);

		ok = info->tablespaces[i].by_copy_command || copy_tree(c, from, c->r->locations[i], NULL);
		if (!ok)
			pgx_log_error("could not restore the tablespace directory \"%s\"", c->r->locations[i]);
		free(from);
	}
	return ok;
}

bool
copy_backup(const struct recovery *r)
{
	const struct pgx_backup_info *info = &r->backup->info;
	struct copying c = {.r = r,.total = info->size};
	bool		with_data = !took_by_command(r->backup, "pg_data");
	bool		ok = true;

	c.data = pgx_backup_path(r->backup, PGX_BACKUP_DATA);
	c.buf = pgx_alloc(COPY_BUFFER);
	c.by_manifest = info->has_manifest && !r->opts->no_verify;
	if (c.by_manifest)
		ok = copy_by_manifest(&c);
	ok = ok && copy_tablespaces(&c);
	if (ok && with_data)
		ok = copy_tree(&c, c.data, r->pgdata, "");
	if (!ok && with_data)
		pgx_log_error("could not restore the database storage directory \"%s\"", r->pgdata);
	c.total = c.done;			/* the description of the backup and the like are not copied */
	if (ok)
		show_progress(&c, true);
	free(c.buf);
	free(c.data);
	return ok;
}
