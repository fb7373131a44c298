/*
 * running.c
 *		Which running server, if any, works on a keystore.  See server.h.
 *
 * A postmaster's working directory is its data directory, whose postmaster.pid has its process id.  Its
 * arguments are still in /proc, so its configuration can be asked as it was at its start.
 *
 * To ask is to run the process's program once more, so only processes of our own user are asked: anybody else's
 * could have made itself look like a server.  It would not be a server that works on files that are ours.
 */
#include <config.h>

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "mem.h"
#include "run.h"
#include "server.h"

#define MAX_CMDLINE		(64 * 1024)

/* It is ours, and the first line of postmaster.pid in its working directory is its own number. */
static bool
is_postmaster(const char *pid)
{
	char	   *path = pgx_printf("/proc/%s", pid);
	char		line[32];
	struct stat st;
	FILE	   *f;
	bool		yes = stat(path, &st) == 0 && st.st_uid == geteuid();

	free(path);
	if (!yes)
		return false;
	path = pgx_printf("/proc/%s/cwd/postmaster.pid", pid);
	f = fopen(path, "re");
	free(path);
	if (f == NULL)
		return false;
	yes = fgets(line, sizeof(line), f) != NULL;
	(void) fclose(f);
	if (!yes)
		return false;
	line[strcspn(line, "\r\n")] = '\0';
	return strcmp(line, pid) == 0;
}

static char *
read_link(const char *pid, const char *what)
{
	char	   *path = pgx_printf("/proc/%s/%s", pid, what);
	char	   *target = realpath(path, NULL);

	free(path);
	return target;
}

/* The arguments after the program's name, NULL at the end; *ret_buf holds their text. */
static char **
read_arguments(const char *pid, char **ret_buf, size_t *ret_count)
{
	char	   *path = pgx_printf("/proc/%s/cmdline", pid);
	char	   *buf = pgx_alloc(MAX_CMDLINE + 1);
	char	  **words = pgx_alloc((MAX_CMDLINE / 2 + 1) * sizeof(char *));
	int			fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t		len = fd >= 0 ? read(fd, buf, MAX_CMDLINE) : -1;
	size_t		n = 0;

	for (ssize_t i = (ssize_t) strlen(buf) + 1; i < len; i += (ssize_t) strlen(buf + i) + 1)
		words[n++] = buf + i;
	if (fd >= 0)
		(void) close(fd);
	free(path);
	*ret_buf = buf;
	*ret_count = n;
	return words;
}

/*
 * Where the server with these arguments has its keystore; NULL if it has none.  What it would say to
 * being asked while it ends is nobody's business, so errors are not shown.
 */
static char *
ask_location(const char *postgres, const char *pgdata, char *const *words, size_t n_words)
{
	const char **argv = pgx_alloc((n_words + 6) * sizeof(*argv));
	struct pgx_run run;
	char	   *location = NULL;
	size_t		n = 0;

	argv[n++] = postgres;
	argv[n++] = "-D";
	argv[n++] = pgdata;
	for (size_t i = 0; i < n_words; i++)
		argv[n++] = words[i];
	argv[n++] = "-C";
	argv[n++] = "pgx_tde.keystore_location";
	argv[n] = NULL;
	memset(&run, 0, sizeof(run));
	run.argv = argv;
	run.capture_out = true;
	run.capture_err = true;
	if (access(postgres, X_OK) == 0 && pgx_run_wait(&run) && run.exit_code == 0)
	{
		run.out[strcspn(run.out, "\n")] = '\0';
		/* A relative place counts from the data directory. */
		if (run.out[0] == '/')
			location = pgx_strdup(run.out);
		else if (run.out[0] != '\0')
			location = pgx_printf("%s/%s", pgdata, run.out);
	}
	pgx_run_clear(&run);
	free(argv);
	return location;
}

/* Does the server with this process id have its keystore there? */
static bool
uses_directory(const char *pid, const char *pgdata, const struct stat *dir)
{
	char	   *postgres = read_link(pid, "exe");
	char	   *buf = NULL;
	char	  **words = NULL;
	char	   *location = NULL;
	size_t		count;
	struct stat st;
	bool		uses;

	if (postgres == NULL)
		return false;
	words = read_arguments(pid, &buf, &count);
	location = ask_location(postgres, pgdata, words, count);
	uses = location != NULL && stat(location, &st) == 0 && st.st_dev == dir->st_dev &&
		st.st_ino == dir->st_ino;
	free(location);
	free(words);
	free(buf);
	free(postgres);
	return uses;
}

char *
pgx_server_using_keystore(const char *keystore_dir)
{
	DIR		   *proc = opendir("/proc");
	struct dirent *e;
	struct stat dir;
	char	   *found = NULL;

	if (proc == NULL || stat(keystore_dir, &dir) != 0)
		goto out;
	while (found == NULL && (e = readdir(proc)) != NULL)
	{
		char	   *pgdata;

		if (!isdigit((unsigned char) e->d_name[0]) || !is_postmaster(e->d_name))
			continue;
		pgdata = read_link(e->d_name, "cwd");
		if (pgdata != NULL && uses_directory(e->d_name, pgdata, &dir))
			found = pgdata;
		else
			free(pgdata);
	}

out:
	if (proc != NULL)
		(void) closedir(proc);
	return found;
}
