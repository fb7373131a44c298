/*
 * restore.c
 *		The files of the cluster: from the backup, or by the user's copy command, to where they belong.
 *
 * They are copied as they are, ciphertext.  pg_control comes last, so that no server starts on a copy that is not
 * whole; then everything is read again and compared with the backup's manifest.
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
#include "mem.h"
#include "packed.h"
#include "rcvall.h"
#include "walprogram.h"

#define COPY_CHUNK		(16 * 1024 * 1024)
#define COPY_BUFFER		(1024 * 1024)
#define PG_CONTROL		"global/pg_control"

/* Files of the data directory in a backup that do not go into the new one. */
static const char *const not_restored[] = {
	"backup_manifest", "standby.signal", "recovery.signal", "postmaster.pid", "postmaster.opts", PG_CONTROL, NULL
};

struct copying
{
	const struct recovery *r;
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

/* ---- copying --------------------------------------------------------------------------- */

/* Without the kernel's help: between file systems that do not know how. */
static ssize_t
copy_piece(int in, int out, char *buf)
{
	ssize_t		n = read(in, buf, COPY_BUFFER);
	ssize_t		done = 0;

	while (done < n)
	{
		ssize_t		put = write(out, buf + done, (size_t) (n - done));

		if (put < 0 && errno == EINTR)
			continue;
		if (put == 0)
			errno = ENOSPC;
		if (put <= 0)
			return -1;
		done += put;
	}
	return n;
}

static bool
copy_bytes(struct copying *c, int in, int out)
{
	char	   *buf = NULL;
	ssize_t		n;

	do
	{
		n = buf == NULL ? copy_file_range(in, NULL, out, NULL, COPY_CHUNK, 0) : copy_piece(in, out, buf);
		if (n < 0 && buf == NULL && (errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP))
		{
			buf = pgx_alloc(COPY_BUFFER);
			n = 1;				/* offsets are where they were */
			continue;
		}
		if (n > 0)
			c->done += (uint64_t) n;
		show_progress(c, false);
	} while ((n > 0 && !pgx_interrupted()) || (n < 0 && errno == EINTR && !pgx_interrupted()));
	free(buf);
	return n == 0;
}

static bool
copy_file(struct copying *c, const char *from, const char *to)
{
	int			in = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	int			out = -1;
	bool		ok = false;

	if (in < 0)
		pgx_log_error("could not open file \"%s\": %m", from);
	else if ((out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600)) < 0)
		pgx_log_error("could not create file \"%s\": %m", to);
	else
	{
		ok = copy_bytes(c, in, out);
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

static bool copy_tree(struct copying *c, const char *from, const char *to, const char *relative);

/* relative: below the data directory; NULL in a tablespace. */
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
		return copy_file(c, from, to);
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
		to_path = pgx_join(to, e->d_name);
		if (relative != NULL)
			relative_path = relative[0] == '\0' ? pgx_strdup(e->d_name) : pgx_join(relative, e->d_name);
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

static bool
copy_backup(struct recovery *r)
{
	const struct pgx_backup_info *info = &r->backup->info;
	struct copying c = {.r = r,.total = info->size};
	char	   *data = pgx_backup_path(r->backup, PGX_BACKUP_DATA);
	char	   *control = pgx_join(data, PG_CONTROL);
	char	   *to_control = pgx_join(r->pgdata, PG_CONTROL);
	bool		with_data = !took_by_command(r->backup, "pg_data");
	bool		ok = true;

	for (size_t i = 0; ok && i < info->n_tablespaces; i++)
	{
		char	   *from = pgx_backup_tablespace_path(r->backup, info->tablespaces[i].oid);

		ok = info->tablespaces[i].by_copy_command || copy_tree(&c, from, r->locations[i], NULL);
		if (!ok)
			pgx_log_error("could not restore the tablespace directory \"%s\"", r->locations[i]);
		free(from);
	}
	if (ok && with_data)
	{
		ok = copy_tree(&c, data, r->pgdata, "") && copy_file(&c, control, to_control);
		if (!ok)
			pgx_log_error("could not restore the database storage directory \"%s\"", r->pgdata);
	}
	c.total = c.done;			/* the description of the backup and the like are not copied */
	if (ok)
		show_progress(&c, true);
	free(to_control);
	free(control);
	free(data);
	return ok;
}

/* ---- the copy command --------------------------------------------------------------------- */

/* What a running server keeps in these, or keeps to itself, is not restored. */
static const char *const emptied[] = {
	"pg_wal", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans",
	NULL
};

static bool
put_file(const struct recovery *r, const char *name, const char *to)
{
	char	   *from = pgx_backup_path(r->backup, name);
	char	   *path = pgx_join(r->pgdata, to);
	bool		ok = pgx_remove_tree(path) && pgx_copy_file(from, path);

	free(path);
	free(from);
	return ok;
}

/* The segments from begin to end of the backup, beside the data. */
static bool
put_wal(const struct recovery *r)
{
	char	   *dir = pgx_backup_path(r->backup, PGX_BACKUP_WAL);
	DIR		   *d = opendir(dir);
	struct dirent *e;
	bool		ok = d != NULL;

	if (d == NULL)
		pgx_log_error("could not open directory \"%s\": %m", dir);
	while (ok && (e = readdir(d)) != NULL)
	{
		char	   *from;
		char	   *to;

		if (!pgx_wal_name_parse(e->d_name, r->backup->info.wal_segment_size, NULL, NULL))
			continue;
		from = pgx_printf("%s/%s", PGX_BACKUP_WAL, e->d_name);
		to = pgx_printf("pg_wal/%s", e->d_name);
		ok = put_file(r, from, to);
		free(to);
		free(from);
	}
	if (d != NULL)
		(void) closedir(d);
	free(dir);
	if (!ok)
		pgx_log_error("could not replace the contents of the pg_wal directory");
	return ok;
}

static bool
tidy_data(const struct recovery *r)
{
	static const char *const removed[] = {
		"postmaster.pid", "postmaster.opts", "standby.signal", "recovery.signal", "tablespace_map", NULL
	};
	char	   *status = pgx_join(r->pgdata, "pg_wal/archive_status");
	bool		ok = true;

	for (const char *const *name = removed; ok && *name != NULL; name++)
	{
		char	   *path = pgx_join(r->pgdata, *name);

		ok = pgx_remove_tree(path);
		free(path);
	}
	for (const char *const *name = emptied; ok && *name != NULL; name++)
	{
		char	   *path = pgx_join(r->pgdata, *name);

		ok = pgx_remove_tree(path) && pgx_make_directory(path);
		free(path);
	}
	ok = ok && pgx_make_directory(status);
	free(status);
	return ok && put_file(r, "backup_label", "backup_label") && put_wal(r);
}

/* "restore INFO TARGETS": the resources are those of the backup; its directories are there and empty. */
static bool
call_copy_command(const struct recovery *r)
{
	char	   *info = pgx_backup_path(r->backup, r->backup->info.copy_info_file);
	char	   *targets = pgx_printf("%s/%s", r->area, "pgx_rcvall.targets");
	char	   *text = pgx_strdup("");
	const char *const argv[] = {r->opts->copy_command, "restore", info, targets, NULL};
	bool		ok;

	for (size_t i = 0; i < r->backup->info.n_resources; i++)
	{
		char	   *more = pgx_printf("%s%s\n", text, r->backup->info.resources[i]);

		free(text);
		text = more;
	}
	ok = pgx_write_durable(targets, text, strlen(text));
	if (ok && setenv("PGDATA", r->pgdata, 1) != 0)
	{
		pgx_log_error("could not set an environment variable: %m");
		ok = false;
	}
	ok = ok && pgx_child_run(argv, -1);
	(void) unlink(targets);
	free(text);
	free(targets);
	free(info);
	return ok;
}

/* ---- a packed backup ---------------------------------------------------------------------- */

/* It verifies itself, and its pg_control comes last too. */
static bool
unpack(const struct recovery *r)
{
	const struct pgx_backup_info *info = &r->backup->info;
	struct pgx_pack_tablespace *places = pgx_alloc((info->n_tablespaces + 1) * sizeof(*places));
	struct pgx_packed_target to = {.data_dir = r->pgdata,.tablespaces = places,.n_tablespaces = info->n_tablespaces};
	int			rc;

	for (size_t i = 0; i < info->n_tablespaces; i++)
	{
		places[i].oid = info->tablespaces[i].oid;
		places[i].location = r->locations[i];
	}
	rc = pgx_packed_restore(r->backup, r->ks, &to, r->opts->jobs, r->opts->progress, &pgx_caught_signal);
	if (rc != PGX_EXIT_OK)
		pgx_log_error("could not restore the database storage directory \"%s\"", r->pgdata);
	free(places);
	return rc == PGX_EXIT_OK;
}

/* Files that only the server that was backed up had a use for. */
static bool
tidy_unpacked(const struct recovery *r)
{
	static const char *const removed[] = {"standby.signal", "recovery.signal", "backup_manifest", NULL};
	bool		ok = true;

	for (const char *const *name = removed; ok && *name != NULL; name++)
	{
		char	   *path = pgx_join(r->pgdata, *name);

		ok = pgx_remove_tree(path);
		free(path);
	}
	return ok;
}

/* ---- all of it --------------------------------------------------------------------------- */

static bool
make_links(const struct recovery *r)
{
	bool		ok = true;

	for (size_t i = 0; ok && i < r->backup->info.n_tablespaces; i++)
	{
		char	   *link = pgx_printf("%s/pg_tblspc/%u", r->pgdata, r->backup->info.tablespaces[i].oid);

		if ((unlink(link) != 0 && errno != ENOENT) || symlink(r->locations[i], link) != 0)
		{
			pgx_log_error("could not create symbolic link \"%s\": %m", link);
			ok = false;
		}
		free(link);
	}
	return ok;
}

/*
 * Read everything back and compare it with the backup's manifest.  Without -n, pg_verifybackup would also have WAL
 * parsed, which needs the key.
 */
static bool
verify(const struct recovery *r)
{
	char	   *program = pgx_postgres_program(r->postgres, "pg_verifybackup");
	char	   *manifest = pgx_backup_path(r->backup, PGX_BACKUP_DATA "/backup_manifest");
	const char *const argv[] = {
		program, "-n", "-q", "-m", manifest, "-i", MARKER_NAME, "-i", LOG_NAME, "-i", "standby.signal", r->pgdata, NULL
	};
	bool		ok = pgx_child_run(argv, -1);

	if (!ok && pgx_caught_signal == 0)
		pgx_log_error("what was restored is not what the manifest of the backup \"%s\" says", r->backup->name);
	free(manifest);
	free(program);
	return ok;
}

static bool
sync_all(const struct recovery *r)
{
	bool		ok = pgx_sync_tree(r->pgdata, NULL);

	for (size_t i = 0; ok && i < r->backup->info.n_tablespaces; i++)
		ok = pgx_sync_tree(r->locations[i], NULL);
	return ok;
}

bool
restore_files(struct recovery *r)
{
	const struct pgx_backup_info *info = &r->backup->info;
	bool		by_command = info->n_resources > 0;
	char	   *signal_file = pgx_join(r->pgdata, "recovery.signal");
	bool		ok = true;

	if (by_command)
		ok = call_copy_command(r) && target_mark(r);	/* the command may have taken the marker away */
	if (info->packed)
		ok = ok && unpack(r) && tidy_unpacked(r);
	else
		ok = ok && copy_backup(r);
	ok = ok && make_links(r);
	if (ok && info->has_manifest && !info->packed && !r->opts->no_verify)
	{
		pgx_log_verbose("verifying what was restored");
		ok = verify(r);
	}
	if (ok && by_command)
		ok = tidy_data(r);
	if (ok && chmod(r->pgdata, 0700) != 0)
	{
		pgx_log_error("could not set permissions of directory \"%s\": %m", r->pgdata);
		ok = false;
	}
	if (ok && info->wal_directory != NULL)
		pgx_log_warning("\"pg_wal\" was a symbolic link to \"%s\" and is a directory now", info->wal_directory);
	ok = ok && restore_configuration(r) && sync_all(r) && !pgx_interrupted();
	/* Only now may a server be started here, and then it recovers. */
	ok = ok && pgx_write_durable(signal_file, "", 0);
	free(signal_file);
	return ok;
}
