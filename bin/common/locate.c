/*
 * locate.c
 *		Where PostgreSQL's programs are.  See locate.h.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file.h"
#include "locate.h"
#include "log.h"
#include "mem.h"

bool
pgx_is_program(const char *path, struct stat *ret_st)
{
	return stat(path, ret_st) == 0 && S_ISREG(ret_st->st_mode) && access(path, X_OK) == 0;
}

static bool
is_self(const struct stat *st)
{
	struct stat self;

	return stat("/proc/self/exe", &self) == 0 && self.st_dev == st->st_dev &&
		self.st_ino == st->st_ino;
}

/*
 * Only what comes in PATH after the last place where this program is found is
 * looked at.  So a second copy of the shim in PATH (another file, which is not "itself") passes
 * on to the real one instead of back to the first.
 */
char *
pgx_find_real_program(const char *name, const char *path, const char *bindir)
{
	char	   *found = NULL;
	char	   *candidate;
	struct stat st;

	while (path != NULL && *path != '\0')
	{
		size_t		len = strcspn(path, ":");
		char	   *dir = len == 0 ? pgx_strdup(".") : pgx_strndup(path, len);

		candidate = pgx_join(dir, name);
		free(dir);
		if (pgx_is_program(candidate, &st) && is_self(&st))
		{
			free(found);
			found = NULL;
		}
		else if (found == NULL && pgx_is_program(candidate, &st))
		{
			found = candidate;
			candidate = NULL;
		}
		free(candidate);
		path += len;
		path += *path == ':';
	}
	if (found == NULL)
	{
		candidate = pgx_join(bindir, name);
		if (pgx_is_program(candidate, &st) && !is_self(&st))
			found = candidate;
		else
			free(candidate);
	}
	if (found == NULL)
	{
		pgx_log_error("could not find PostgreSQL's own %s in PATH or in \"%s\"", name, bindir);
		pgx_log_hint("Put the directory of PostgreSQL's programs into PATH.");
	}
	return found;
}

char *
pgx_find_beside(const char *program, const char *name, const char *bindir)
{
	char	   *resolved = realpath(program, NULL);
	char	   *dir = pgx_dirname(resolved != NULL ? resolved : program);
	char	   *found = pgx_join(dir, name);
	struct stat st;

	if (!pgx_is_program(found, &st))
	{
		free(found);
		found = pgx_join(bindir, name);
	}
	free(resolved);
	free(dir);
	return found;
}
