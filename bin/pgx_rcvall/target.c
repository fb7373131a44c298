/*
 * target.c
 *		The directories that are filled: empty, ours, and nobody else's meanwhile.
 *
 * Nothing is deleted that this program did not put there.  So a directory must be empty; and before its first byte, a
 * marker in the data directory says which directories were, so that what an interrupted run left can be told and put
 * away by the next.
 */
#include <config.h>

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "file.h"
#include "log.h"
#include "mem.h"
#include "rcvall.h"

#define MARKER_HEAD		"pgx_rcvall 1\n"
#define MARKER_ENTRY	"tablespace "
#define MAX_MARKER		(1024 * 1024)

/* How long a server that an interrupted run had started may take to stop. */
#define WAIT_FOR_STOP_S	10

static char *
marker_path(const struct recovery *r)
{
	return pgx_join(r->pgdata, MARKER_NAME);
}

/* The marker's text, or NULL if there is no valid one. */
static char *
read_marker(const struct recovery *r)
{
	char	   *path = marker_path(r);
	uint8_t    *bytes = NULL;
	struct stat st;
	size_t		len;

	if (lstat(path, &st) == 0 && pgx_file_read(path, MAX_MARKER, 077, "600", &bytes, &len) &&
		strncmp((char *) bytes, MARKER_HEAD, strlen(MARKER_HEAD)) != 0)
	{
		free(bytes);
		bytes = NULL;
	}
	free(path);
	return (char *) bytes;
}

/* Call what for each tablespace's directory that the marker names, until one returns false. */
static bool
for_each_marked(const char *marker, bool (*what) (const char *dir, void *arg), void *arg)
{
	const char *line = marker;
	bool		ok = true;

	while (ok && line != NULL && *line != '\0')
	{
		size_t		len = strcspn(line, "\n");

		if (strncmp(line, MARKER_ENTRY, strlen(MARKER_ENTRY)) == 0)
		{
			char	   *dir = pgx_strndup(line + strlen(MARKER_ENTRY), len - strlen(MARKER_ENTRY));

			ok = what(dir, arg);
			free(dir);
		}
		line += len;
		line += *line == '\n';
	}
	return ok;
}

static bool
is_other(const char *dir, void *arg)
{
	return strcmp(dir, arg) != 0;
}

static bool
is_marked(const char *marker, const char *dir)
{
	char	   *copy = pgx_strdup(dir);
	bool		marked = marker != NULL && !for_each_marked(marker, is_other, copy);

	free(copy);
	return marked;
}

/* "PG_15_202209061": what a server makes in a tablespace's directory, and so do we. */
static bool
is_version_directory(const char *name)
{
	return strncmp(name, "PG_", 3) == 0 && isdigit((unsigned char) name[3]);
}

/* Is there anything in the directory?  ours: what this program put into a tablespace's does not count. */
static bool
check_empty(const char *dir, bool ours)
{
	DIR		   *d = opendir(dir);
	struct dirent *e;
	char	   *found = NULL;

	if (d == NULL)
	{
		pgx_log_error("could not open directory \"%s\": %m", dir);
		return false;
	}
	while (found == NULL && (e = readdir(d)) != NULL)
	{
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
			strcmp(e->d_name, MARKER_NAME ".tmp") != 0 &&	/* a run that died when it wrote its marker */
			!(ours && is_version_directory(e->d_name)))
			found = pgx_strdup(e->d_name);
	}
	(void) closedir(d);
	if (found != NULL)
	{
		pgx_log_error("directory \"%s\" is not empty", dir);
		pgx_log_detail("There is \"%s\" in it, for example.", found);
		pgx_log_hint("Move what is in it to another place and retry.");
	}
	free(found);
	return found == NULL;
}

/* ---- a running server ------------------------------------------------------------- */

/* Is a server of this data directory alive? */
static bool
is_running(const char *pgdata)
{
	char	   *path = pgx_join(pgdata, "postmaster.pid");
	FILE	   *f = fopen(path, "re");
	long		pid = 0;
	char	   *cwd;
	struct stat there;
	struct stat ours;
	bool		running = false;

	free(path);
	if (f == NULL)
		return false;
	if (fscanf(f, "%ld", &pid) == 1 && pid > 0 && kill((pid_t) pid, 0) == 0)
	{
		/* The number may be another process's by now; a server works in its data directory. */
		cwd = pgx_printf("/proc/%ld/cwd", pid);
		running = stat(cwd, &there) != 0 || stat(pgdata, &ours) != 0 ||
			(there.st_dev == ours.st_dev && there.st_ino == ours.st_ino);
		free(cwd);
	}
	(void) fclose(f);
	return running;
}

static bool
check_stopped(const char *pgdata, bool leftover)
{
	time_t		begin = time(NULL);

	while (is_running(pgdata))
	{
		/* The server of a run that was killed is told to stop by the kernel, and does so by itself. */
		if (leftover && time(NULL) - begin < WAIT_FOR_STOP_S)
		{
			(void) usleep(100000);
			continue;
		}
		pgx_log_error("the server is running");
		pgx_log_detail("Its data directory is \"%s\".", pgdata);
		pgx_log_hint("Please stop the server and retry.");
		return false;
	}
	return true;
}

/* ---- checks ------------------------------------------------------------------------- */

/* The path with links resolved as far as it exists. */
static char *
resolve(const char *path)
{
	char	   *real = realpath(path, NULL);
	char	   *parent;
	char	   *real_parent;

	if (real != NULL)
		return real;
	parent = pgx_dirname(path);
	real_parent = realpath(parent, NULL);
	if (real_parent != NULL)
		real = pgx_join(real_parent, strrchr(path, '/') + 1);
	free(real_parent);
	free(parent);
	return real != NULL ? real : pgx_strdup(path);
}

static bool
contains(const char *outer, const char *inner)
{
	size_t		len = strlen(outer);

	return strncmp(outer, inner, len) == 0 && (inner[len] == '/' || inner[len] == '\0');
}

static bool
check_apart(const struct recovery *r, const char *dir)
{
	char	   *area = resolve(r->area);
	char	   *real = resolve(dir);
	bool		ok = !contains(area, real) && !contains(real, area);

	if (!ok)
		pgx_log_error("directory \"%s\" and the backup storage directory \"%s\" overlap", dir, r->area);
	free(real);
	free(area);
	return ok;
}

/* A directory of ours? */
static bool
check_owner(const char *dir, const struct stat *st)
{
	if (!S_ISDIR(st->st_mode))
		pgx_log_error("\"%s\" is not a directory", dir);
	else if (st->st_uid != geteuid())
		pgx_log_error("directory \"%s\" belongs to another user", dir);
	else
		return true;
	return false;
}

static bool
check_pgdata(const struct recovery *r, const char *marker)
{
	struct stat st;
	char	   *parent;
	bool		ok;

	if (!check_apart(r, r->pgdata))
		return false;
	if (stat(r->pgdata, &st) == 0)
		return check_owner(r->pgdata, &st) && check_stopped(r->pgdata, marker != NULL) &&
			(marker != NULL || check_empty(r->pgdata, false));
	parent = pgx_dirname(r->pgdata);
	ok = errno == ENOENT && stat(parent, &st) == 0 && S_ISDIR(st.st_mode);
	free(parent);
	if (!ok)
	{
		pgx_log_error("the specified database storage directory is not correct");
		pgx_log_detail("\"%s\" does not exist and could not be created.", r->pgdata);
	}
	return ok;
}

static bool
check_tablespace(const struct recovery *r, size_t i, const char *marker)
{
	const char *dir = r->locations[i];
	struct stat st;

	if (stat(dir, &st) != 0)
	{
		pgx_log_error("the directory \"%s\" for the tablespace with OID \"%u\" does not exist", dir,
					  r->backup->info.tablespaces[i].oid);
		pgx_log_hint("Create an empty directory that belongs to the server's user and retry, or use --tablespace-mapping.");
		return false;
	}
	return check_apart(r, dir) && check_owner(dir, &st) && check_empty(dir, is_marked(marker, dir));
}

bool
target_check(struct recovery *r, bool *ret_leftover)
{
	char	   *marker = read_marker(r);
	bool		ok = check_pgdata(r, marker);

	for (size_t i = 0; ok && i < r->backup->info.n_tablespaces; i++)
		ok = check_tablespace(r, i, marker);
	*ret_leftover = marker != NULL;
	free(marker);
	return ok;
}

/* ---- filling, and the end of it -------------------------------------------------------- */

static bool
clear_tablespace(const char *dir, void *arg)
{
	DIR		   *d = opendir(dir);
	struct dirent *e;
	bool		ok = true;

	(void) arg;
	while (ok && d != NULL && (e = readdir(d)) != NULL)
	{
		char	   *path = pgx_join(dir, e->d_name);

		if (is_version_directory(e->d_name))
			ok = pgx_remove_tree(path);
		free(path);
	}
	if (d != NULL)
		(void) closedir(d);
	return ok;
}

/* Everything in the data directory but the marker. */
static bool
clear_pgdata(const struct recovery *r)
{
	DIR		   *d = opendir(r->pgdata);
	struct dirent *e;
	bool		ok = d != NULL;

	if (d == NULL)
		pgx_log_error("could not open directory \"%s\": %m", r->pgdata);
	while (ok && (e = readdir(d)) != NULL)
	{
		char	   *path = pgx_join(r->pgdata, e->d_name);

		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && strcmp(e->d_name, MARKER_NAME) != 0)
			ok = pgx_remove_tree(path);
		free(path);
	}
	if (d != NULL)
		(void) closedir(d);
	return ok;
}

/* Put away what an interrupted run left; the marker goes last, since it tells what is to go. */
static bool
clear_leftover(const struct recovery *r)
{
	char	   *marker = read_marker(r);
	bool		ok;

	if (marker == NULL)
		return true;
	pgx_log_verbose("removing what an interrupted recovery left in \"%s\"", r->pgdata);
	ok = for_each_marked(marker, clear_tablespace, NULL) && clear_pgdata(r);
	free(marker);
	return ok;
}

bool
target_mark(const struct recovery *r)
{
	char	   *path = marker_path(r);
	char	   *text = pgx_printf("%sbackup %s\n", MARKER_HEAD, r->backup->dir);
	bool		ok;

	for (size_t i = 0; i < r->backup->info.n_tablespaces; i++)
	{
		char	   *more = pgx_printf("%s%s%s\n", text, MARKER_ENTRY, r->locations[i]);

		free(text);
		text = more;
	}
	ok = pgx_write_durable(path, text, strlen(text));
	free(text);
	free(path);
	return ok;
}

bool
target_prepare(struct recovery *r)
{
	bool		leftover;

	if (mkdir(r->pgdata, 0700) != 0 && errno != EEXIST)
	{
		pgx_log_error("could not create directory \"%s\": %m", r->pgdata);
		return false;
	}
	r->pgdata_fd = open(r->pgdata, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r->pgdata_fd < 0 || flock(r->pgdata_fd, LOCK_EX | LOCK_NB) != 0)
	{
		if (r->pgdata_fd >= 0 && errno == EWOULDBLOCK)
		{
			pgx_log_error("\"%s\" is being executed by another user", pgx_progname());
			pgx_log_hint("Retry after the other process terminates.");
		}
		else
			pgx_log_error("could not lock directory \"%s\": %m", r->pgdata);
		return false;
	}
	/* Now that nobody else of us is there, once more. */
	if (!target_check(r, &leftover) || !clear_leftover(r))
		return false;
	if (chmod(r->pgdata, 0700) != 0)
	{
		pgx_log_error("could not set permissions of directory \"%s\": %m", r->pgdata);
		return false;
	}
	return target_mark(r);
}

static bool
remove_ours(const struct recovery *r, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++)
	{
		char	   *path = pgx_join(r->pgdata, names[i]);
		bool		ok = unlink(path) == 0 || errno == ENOENT;

		if (!ok)
			pgx_log_error("could not remove file \"%s\": %m", path);
		free(path);
		if (!ok)
			return false;
	}
	return pgx_sync_path(r->pgdata);
}

/* The data directory is a server's from now on. */
bool
target_finish(const struct recovery *r)
{
	static const char *const ours[] = {"postmaster.opts", LOG_NAME, MARKER_NAME};

	return remove_ours(r, ours, sizeof(ours) / sizeof(ours[0]));
}

bool
target_unmark(const struct recovery *r)
{
	static const char *const ours[] = {MARKER_NAME};

	return remove_ours(r, ours, sizeof(ours) / sizeof(ours[0]));
}
