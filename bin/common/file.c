/*
 * file.c
 *		Reading small files, and checks on where a keystore may lie.  See file.h.
 */
#include <config.h>

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "log.h"
#include "mem.h"

bool
pgx_fd_read_all(int fd, const char *what, size_t max, uint8_t **ret_buf, size_t *ret_len)
{
	/* One byte more than allowed shows that there is more; one for the NUL. */
	uint8_t    *buf = pgx_alloc(max + 2);
	size_t		len = 0;

	for (;;)
	{
		ssize_t		n = read(fd, buf + len, max + 1 - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
		{
			pgx_log_error("could not read %s: %m", what);
			free(buf);
			return false;
		}
		len += (size_t) n;
		if (n == 0 || len > max)
			break;
	}
	if (len > max)
	{
		pgx_log_error("%s is larger than %zu bytes", what, max);
		free(buf);
		return false;
	}
	buf[len] = '\0';
	*ret_buf = buf;
	*ret_len = len;
	return true;
}

bool
pgx_write_all(int fd, const void *buf, size_t len)
{
	const char *next = buf;

	while (len > 0)
	{
		ssize_t		n = write(fd, next, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n == 0)
			errno = ENOSPC;
		if (n <= 0)
			return false;
		next += n;
		len -= (size_t) n;
	}
	return true;
}

bool
pgx_write_out(const void *bytes, size_t len)
{
	if (pgx_write_all(STDOUT_FILENO, bytes, len))
		return true;
	pgx_log_error("could not write to standard output: %m");
	return false;
}

/* Checks are made on the open descriptor, so that the file cannot be changed for another in between. */
static bool
file_acceptable(int fd, const char *path, unsigned bad_mode, const char *hint_mode)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
	{
		pgx_log_error("could not stat file \"%s\": %m", path);
		return false;
	}
	if (!S_ISREG(st.st_mode))
	{
		pgx_log_error("\"%s\" is not a regular file", path);
		return false;
	}
	if (st.st_uid != geteuid() && st.st_uid != 0)
	{
		pgx_log_error("file \"%s\" belongs to another user", path);
		pgx_log_hint("The owner must be the user who runs this command, or root.");
		return false;
	}
	if ((st.st_mode & bad_mode) != 0)
	{
		pgx_log_error("file \"%s\" has permissions %04o, which let others at it", path,
					  (unsigned) (st.st_mode & 07777));
		pgx_log_hint("Run: chmod %s %s", hint_mode, path);
		return false;
	}
	return true;
}

bool
pgx_file_read(const char *path, size_t max, unsigned bad_mode, const char *hint_mode,
			  uint8_t **ret_buf, size_t *ret_len)
{
	char	   *what = pgx_printf("file \"%s\"", path);
	bool		ok = false;
	int			fd;

	/* O_NONBLOCK: opening a FIFO must not hang; it is refused a moment later. */
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
	{
		if (errno == ELOOP)
			pgx_log_error("file \"%s\" is a symbolic link", path);
		else
			pgx_log_error("could not open file \"%s\": %m", path);
		goto out;
	}
	ok = file_acceptable(fd, path, bad_mode, hint_mode) &&
		pgx_fd_read_all(fd, what, max, ret_buf, ret_len);

out:
	if (fd >= 0)
		(void) close(fd);		/* nothing was written */
	free(what);
	return ok;
}

char *
pgx_dirname(const char *path)
{
	const char *slash = strrchr(path, '/');

	if (slash == NULL)
		return pgx_strdup(".");
	while (slash > path && slash[-1] == '/')
		slash--;
	return slash == path ? pgx_strdup("/") : pgx_strndup(path, (size_t) (slash - path));
}

char *
pgx_join(const char *dir, const char *name)
{
	size_t		len = strlen(dir);

	while (len > 1 && dir[len - 1] == '/')
		len--;
	if (len == 1 && dir[0] == '/')
		return pgx_printf("/%s", name);
	return pgx_printf("%.*s/%s", (int) len, dir, name);
}

char *
pgx_absolute(const char *path)
{
	char	   *cwd = path[0] == '/' ? NULL : getcwd(NULL, 0);
	char	   *absolute = cwd == NULL ? pgx_strdup(path) : pgx_join(cwd, path);

	free(cwd);
	return absolute;
}

/* PG_VERSION alone is also in each database's folder; global/ is where the control file lives. */
static bool
is_data_directory(const char *dir)
{
	struct stat st;
	char	   *version = pgx_join(dir, "PG_VERSION");
	char	   *global = pgx_join(dir, "global");
	bool		yes;

	yes = stat(version, &st) == 0 && S_ISREG(st.st_mode) &&
		stat(global, &st) == 0 && S_ISDIR(st.st_mode);
	free(version);
	free(global);
	return yes;
}

/* "PG_15_202209061": what a server makes in a tablespace's location. */
static bool
is_tablespace_version(const char *name)
{
	if (strncmp(name, "PG_", 3) != 0 || !isdigit((unsigned char) name[3]))
		return false;
	name += 3;
	name += strspn(name, "0123456789");
	return *name == '_' && isdigit((unsigned char) name[1]) &&
		name[1 + strspn(name + 1, "0123456789")] == '\0';
}

static bool
is_tablespace(const char *dir)
{
	DIR		   *d = opendir(dir);
	struct dirent *e;
	bool		yes = false;

	/* What we cannot look into is not ours, and so is not a tablespace of our server. */
	if (d == NULL)
		return false;
	while (!yes && (e = readdir(d)) != NULL)
		yes = is_tablespace_version(e->d_name);
	(void) closedir(d);
	return yes;
}

bool
pgx_outside_cluster(const char *dir)
{
	char	   *real = realpath(dir, NULL);
	bool		outside = true;

	/* Not there yet: then it is the parent that says where it will be. */
	if (real == NULL)
	{
		size_t		len = strlen(dir);
		char	   *trimmed;
		char	   *parent;

		while (len > 1 && dir[len - 1] == '/')
			len--;
		trimmed = pgx_strndup(dir, len);
		parent = pgx_dirname(trimmed);
		real = realpath(parent, NULL);
		free(trimmed);
		free(parent);
	}
	if (real == NULL)
		return true;			/* what does not exist is refused by whoever uses it */

	for (;;)
	{
		bool		data = is_data_directory(real);
		char	   *slash;

		if (data || is_tablespace(real))
		{
			pgx_log_error("keystore directory \"%s\" is inside %s \"%s\"", dir,
						  data ? "the data directory" : "a tablespace directory", real);
			pgx_log_hint("Keep the keystore apart from what it protects, so that no backup of the "
						 "data carries it.");
			outside = false;
			break;
		}
		slash = strrchr(real, '/');
		if (slash == NULL || slash == real)
			break;
		*slash = '\0';
	}
	free(real);
	return outside;
}
