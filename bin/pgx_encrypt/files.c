/*
 * files.c
 *		The tablespaces of a cluster, and their relation files.
 *
 * Whether a file is a relation's, and so encrypted, is decided by the same function as in the server.
 */
#include <config.h>

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "encrypt.h"
#include "file.h"
#include "log.h"
#include "mem.h"

/* What is called for each entry of a directory, in the order of names. */
typedef bool (*entry_function) (const char *path, const char *name, const struct stat *st, void *arg);

static int
by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

/* After stat() has failed.  A link to nothing is not gone: it is a tablespace that is lost.  errno stays. */
static bool
is_gone(const char *path)
{
	int			save_errno = errno;
	struct stat st;
	bool		gone = errno == ENOENT && lstat(path, &st) != 0 && errno == ENOENT;

	errno = save_errno;
	return gone;
}

/*
 * Symbolic links are followed: pg_wal and tablespaces are such.  What is removed meanwhile, by a server that
 * --check lets run, is passed over; the directory itself if may_be_gone.
 */
static bool
each_entry(const char *dir, bool may_be_gone, entry_function function, void *arg)
{
	struct dirent **entries = NULL;
	int			count = scandir(dir, &entries, NULL, by_name);
	bool		ok = true;

	if (count < 0 && errno == ENOENT && may_be_gone)
		return true;
	if (count < 0)
	{
		pgx_log_error("could not read directory \"%s\": %m", dir);
		return false;
	}
	for (int i = 0; i < count; i++)
	{
		const char *name = entries[i]->d_name;
		char	   *path;
		struct stat st;

		if (ok && strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
		{
			path = pgx_join(dir, name);
			if (stat(path, &st) == 0)
				ok = function(path, name, &st, arg);
			else if (!is_gone(path))
			{
				pgx_log_error("could not stat file \"%s\": %m", path);
				ok = false;
			}
			free(path);
		}
		free(entries[i]);
	}
	free(entries);
	return ok;
}

static bool
is_number(const char *name)
{
	return name[0] != '\0' && name[strspn(name, "0123456789")] == '\0';
}

/* ---- tablespaces ---------------------------------------------------------------------------- */

struct spaces_args
{
	struct spaces *spaces;
	const struct cluster *cluster;
	const struct keys *keys;
	char		version[64];	/* the folder of this cluster in a tablespace's directory */
};

static void
add_space(struct spaces_args *args, uint32_t oid, const char *name, const char *dir)
{
	struct spaces *spaces = args->spaces;
	struct space *space;

	spaces->spaces = pgx_realloc(spaces->spaces, (spaces->count + 1) * sizeof(*spaces->spaces));
	space = &spaces->spaces[spaces->count++];
	memset(space, 0, sizeof(*space));
	space->oid = oid;
	space->name = pgx_strdup(name);
	space->dir = pgx_strdup(dir);
	space->alg = keys_algorithm(args->keys, TDE_KEY_TABLESPACE, oid);
}

static bool
add_link(const char *path, const char *name, const struct stat *st, void *arg)
{
	struct spaces_args *args = arg;
	char	   *target;
	char	   *dir;

	if (!is_number(name) || !S_ISDIR(st->st_mode))
		return true;
	target = realpath(path, NULL);
	dir = pgx_join(path, args->version);
	add_space(args, (uint32_t) strtoul(name, NULL, 10), target != NULL ? target : path, dir);
	free(target);
	free(dir);
	return true;
}

bool
spaces_read(struct spaces *spaces, const struct cluster *cluster, const struct keys *keys)
{
	struct spaces_args args = {.spaces = spaces,.cluster = cluster,.keys = keys};
	FILE	   *f = fopen("PG_VERSION", "re");
	int			major = 0;

	if (f == NULL || fscanf(f, "%d", &major) != 1)
	{
		pgx_log_error("could not read file \"PG_VERSION\": %m");
		if (f != NULL)
			(void) fclose(f);
		return false;
	}
	(void) fclose(f);
	snprintf(args.version, sizeof(args.version), "PG_%d_%u", major, cluster->catalog_version);
	add_space(&args, PGX_DEFAULT_TABLESPACE, "pg_default", "base");
	add_space(&args, PGX_GLOBAL_TABLESPACE, "pg_global", "global");
	return each_entry("pg_tblspc", false, add_link, &args);
}

bool
spaces_select(struct spaces *spaces, const char *what)
{
	char	   *real = strchr(what, '/') != NULL ? realpath(what, NULL) : NULL;
	bool		found = false;

	for (size_t i = 0; i < spaces->count && !found; i++)
	{
		struct space *space = &spaces->spaces[i];
		char		oid[16];

		snprintf(oid, sizeof(oid), "%u", space->oid);
		found = strcmp(what, oid) == 0 || strcmp(what, space->name) == 0 ||
			(real != NULL && strcmp(real, space->name) == 0);
		space->selected = space->selected || found;
	}
	free(real);
	if (!found)
	{
		pgx_log_error("tablespace \"%s\" does not exist in this data directory", what);
		pgx_log_hint("Give \"pg_default\", \"pg_global\", the tablespace's OID or its directory: the "
					 "names of others are in the catalogs, which only a server reads.");
	}
	return found;
}

void
spaces_clear(struct spaces *spaces)
{
	for (size_t i = 0; i < spaces->count; i++)
	{
		free(spaces->spaces[i].name);
		free(spaces->spaces[i].dir);
	}
	free(spaces->spaces);
	memset(spaces, 0, sizeof(*spaces));
}

/* ---- files ------------------------------------------------------------------------------------ */

struct files_args
{
	struct data_files *files;
	const struct cluster *cluster;
	bool		below;			/* in a tablespace: databases' folders are next */
};

char *
files_new_path(const char *path)
{
	char	   *dir = pgx_dirname(path);
	const char *slash = strrchr(path, '/');
	char	   *new_path = pgx_printf("%s/" NEW_PREFIX "%s", dir, slash == NULL ? path : slash + 1);

	free(dir);
	return new_path;
}

static void
add_file(struct data_files *files, const char *path, const struct pgx_io_path *is, off_t size)
{
	struct data_file *file;

	if (files->count == files->capacity)
	{
		files->capacity = files->capacity == 0 ? 1024 : 2 * files->capacity;
		files->files = pgx_realloc(files->files, files->capacity * sizeof(*files->files));
	}
	file = &files->files[files->count++];
	file->path = pgx_strdup(path);
	file->is = *is;
	file->size = size;
}

/* The new version of a file, from a run that was interrupted. */
static void
add_leftover(struct data_files *files, const char *path, const char *name)
{
	char	   *dir = pgx_dirname(path);

	files->leftover = pgx_realloc(files->leftover, (files->n_leftover + 1) * sizeof(*files->leftover));
	files->leftover[files->n_leftover++] = pgx_join(dir, name + strlen(NEW_PREFIX));
	free(dir);
}

static bool
visit(const char *path, const char *name, const struct stat *st, void *arg)
{
	struct files_args *args = arg;
	struct pgx_io_path is;

	if (S_ISDIR(st->st_mode))
	{
		struct files_args inner = *args;

		inner.below = false;
		/* Temporary files are in folders with other names, and are the business of files_remove_temporary(). */
		return !args->below || !is_number(name) || each_entry(path, true, visit, &inner);
	}
	if (!S_ISREG(st->st_mode))
		return true;
	if (strncmp(name, NEW_PREFIX, strlen(NEW_PREFIX)) == 0)
	{
		add_leftover(args->files, path, name);
		return true;
	}
	pgx_io_classify(path, args->cluster->pgdata, &is);
	if (is.kind == PGX_IO_RELATION || is.kind == PGX_IO_WAL || is.kind == PGX_IO_WAL_TEMP)
		add_file(args->files, path, &is, st->st_size);
	else
		pgx_log_verbose("file \"%s\" is not a relation and stays as it is", path);
	return true;
}

bool
files_add_space(struct data_files *files, const struct cluster *cluster, const struct space *space)
{
	struct files_args args = {.files = files,.cluster = cluster,.below = space->oid != PGX_GLOBAL_TABLESPACE};

	return each_entry(space->dir, false, visit, &args);
}

bool
files_add_wal(struct data_files *files, const struct cluster *cluster)
{
	struct files_args args = {.files = files,.cluster = cluster};

	return each_entry("pg_wal", false, visit, &args);
}

void
files_clear(struct data_files *files)
{
	for (size_t i = 0; i < files->count; i++)
		free(files->files[i].path);
	for (size_t i = 0; i < files->n_leftover; i++)
		free(files->leftover[i]);
	free(files->files);
	free(files->leftover);
	memset(files, 0, sizeof(*files));
}

/* ---- what the server deletes at its start -------------------------------------------------------- */

static bool
remove_entry(const char *path, const char *name, const struct stat *st, void *arg)
{
	if (S_ISDIR(st->st_mode))
	{
		if (!each_entry(path, false, remove_entry, arg))
			return false;
		if (rmdir(path) == 0)
			return true;
	}
	else if (unlink(path) == 0)
		return true;
	pgx_log_error("could not remove \"%s\": %m", path);
	return false;
}

/* DIR/pgsql_tmp, but only if it is the server's. */
static bool
remove_below(const char *dir)
{
	char	   *path = pgx_join(dir, "pgsql_tmp");
	struct stat st;
	bool		ok = true;

	if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
		ok = each_entry(path, false, remove_entry, NULL);
	free(path);
	return ok;
}

static bool
remove_spill_file(const char *path, const char *name, const struct stat *st, void *arg)
{
	const struct cluster *cluster = arg;
	struct pgx_io_path is;

	if (S_ISDIR(st->st_mode))
		return each_entry(path, false, remove_spill_file, arg);
	pgx_io_classify(path, cluster->pgdata, &is);
	return is.kind != PGX_IO_TEMP || remove_entry(path, name, st, NULL);
}

bool
files_remove_temporary(const struct cluster *cluster, const struct spaces *spaces)
{
	for (size_t i = 0; i < spaces->count; i++)
	{
		if (!remove_below(spaces->spaces[i].dir))
			return false;
	}
	return each_entry("pg_replslot", false, remove_spill_file, (void *) (uintptr_t) cluster);
}
