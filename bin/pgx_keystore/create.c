/*
 * create.c
 *		pgx_keystore create and passwd, and what several actions need.
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

#include "actions.h"
#include "file.h"
#include "log.h"
#include "mem.h"
#include "prompt.h"

keystore *
new_handle(void)
{
	keystore   *ks = keystore_new();

	if (ks == NULL)
	{
		pgx_log_error("out of memory");
		exit(PGX_EXIT_FAILURE);
	}
	return ks;
}

bool
check_file_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	if (strcmp(slash != NULL ? slash + 1 : path, KEYSTORE_FILE_NAME) == 0)
		return true;
	pgx_log_error("\"%s\" does not name a file \"%s\"", path, KEYSTORE_FILE_NAME);
	pgx_log_hint("A server looks for \"%s\" in the directory of its pgx_tde.keystore_location; "
				 "give that path.", KEYSTORE_FILE_NAME);
	return false;
}

int
open_with_passphrase(keystore *ks, const char *file)
{
	struct pgx_passphrase pass;
	enum keystore_status st;

	if (!pgx_passphrase_read(file, PGX_PROMPT, NULL, &pass))
		return PGX_EXIT_FAILURE;
	st = keystore_open_passphrase(ks, pass.bytes, pass.len);
	pgx_passphrase_wipe(&pass);
	if (st != KEYSTORE_OK)
		return pgx_log_keystore(ks, st);
	if (!keystore_memory_locked(ks))
		pgx_log_verbose("secrets are in memory that could not be locked (RLIMIT_MEMLOCK)");
	return PGX_EXIT_OK;
}

/* The new entry must be on disk before a keystore in it is called stored. */
static bool
sync_parent(const char *dir)
{
	char	   *parent = pgx_dirname(dir);
	int			fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool		ok = fd >= 0 && fsync(fd) == 0;

	if (!ok)
		pgx_log_error("could not fsync directory \"%s\": %m", parent);
	if (fd >= 0)
		(void) close(fd);
	free(parent);
	return ok;
}

bool
directory_make(const char *dir, bool *ret_made)
{
	char	   *trimmed = pgx_strdup(dir);
	size_t		len = strlen(trimmed);
	bool		ok = false;

	*ret_made = false;
	while (len > 1 && trimmed[len - 1] == '/')
		trimmed[--len] = '\0';
	if (mkdir(trimmed, 0700) == 0)
	{
		*ret_made = true;
		pgx_log_verbose("created directory \"%s\"", trimmed);
		ok = sync_parent(trimmed);
		if (!ok)
			directory_unmake(trimmed);
	}
	else if (errno == EEXIST)
		ok = true;				/* whatever it is, the library checks it */
	else
		pgx_log_error("could not create directory \"%s\": %m", dir);
	free(trimmed);
	return ok;
}

void
directory_unmake(const char *dir)
{
	char	   *lock = pgx_join(dir, KEYSTORE_LOCK_NAME);

	/* Only what we have made can be in it; should there be more, it stays. */
	(void) unlink(lock);
	(void) rmdir(dir);
	free(lock);
}

/* True if there is nothing of that name, not even a broken link. */
static bool
is_absent(const char *path)
{
	struct stat st;

	if (lstat(path, &st) != 0 && errno == ENOENT)
		return true;
	pgx_log_error("file \"%s\" already exists", path);
	pgx_log_hint("To change its passphrase, use \"%s passwd\".  Never delete a keystore that data "
				 "may still need.", pgx_progname());
	return false;
}

static int
create_in(const struct options *opts, const char *dir, const char *path)
{
	struct pgx_passphrase pass;
	keystore   *ks = new_handle();
	enum keystore_status st;
	char		uuid_text[KEYSTORE_UUID_STRLEN + 1];
	uint8_t		uuid[KEYSTORE_UUID_LEN];
	int			lock = -1;
	int			rc = PGX_EXIT_FAILURE;

	memset(&pass, 0, sizeof(pass));
	if ((st = keystore_check_directory(ks, dir)) != KEYSTORE_OK)
	{
		rc = pgx_log_keystore(ks, st);
		goto out;
	}
	if (!is_absent(path) ||
		!pgx_passphrase_read(opts->passphrase_file, PGX_PROMPT_NEW, PGX_PROMPT_AGAIN, &pass))
		goto out;
	if ((st = keystore_lock(ks, path, LOCK_WAIT_MS, &lock)) != KEYSTORE_OK)
	{
		rc = pgx_log_keystore(ks, st);
		goto out;
	}
	if (!is_absent(path))		/* somebody may have made it while we prompted */
		goto out;
	st = keystore_create(ks, pass.bytes, pass.len, opts->kdf, "pgx_keystore");
	if (st == KEYSTORE_OK)
		st = keystore_store(ks, path);
	if (st != KEYSTORE_OK)
	{
		rc = pgx_log_keystore(ks, st);
		goto out;
	}
	keystore_get_uuid(ks, uuid);
	keystore_uuid_text(uuid, uuid_text);
	printf("keystore %s has been created in \"%s\"\n", uuid_text, path);
	rc = PGX_EXIT_OK;

out:
	pgx_passphrase_wipe(&pass);
	if (lock >= 0)
		keystore_unlock(lock);
	keystore_free(&ks);
	return rc;
}

int
action_create(const struct options *opts, int n_args, char **args)
{
	char	   *dir = pgx_dirname(args[0]);
	bool		made = false;
	int			rc = PGX_EXIT_FAILURE;

	if (check_file_name(args[0]) && pgx_outside_cluster(dir) && directory_make(dir, &made))
		rc = create_in(opts, dir, args[0]);
	if (rc != PGX_EXIT_OK && made)
		directory_unmake(dir);
	free(dir);
	return rc;
}

/*
 * The lock is taken after the prompts: a person thinking about a passphrase must
 * not keep a server from rotating its key.  So the file is read again then.
 */
static enum keystore_status
change_locked(keystore *ks, const char *path, const struct pgx_passphrase *old,
			  const struct pgx_passphrase *new, const struct keystore_kdf_params *kdf)
{
	enum keystore_status st;
	int			lock = -1;

	st = keystore_lock(ks, path, LOCK_WAIT_MS, &lock);
	if (st != KEYSTORE_OK)
		return st;
	st = keystore_load(ks, path);
	if (st == KEYSTORE_OK)
		st = keystore_change_passphrase(ks, old->bytes, old->len, new->bytes, new->len, kdf);
	if (st == KEYSTORE_OK)
		st = keystore_store(ks, path);
	keystore_unlock(lock);
	return st;
}

int
action_passwd(const struct options *opts, int n_args, char **args)
{
	const char *path = args[0];
	keystore   *ks = new_handle();
	struct pgx_passphrase old;
	struct pgx_passphrase new;
	enum keystore_status st;
	int			rc = PGX_EXIT_FAILURE;

	memset(&old, 0, sizeof(old));
	memset(&new, 0, sizeof(new));
	if (!check_file_name(path))
		goto out;
	if ((st = keystore_load(ks, path)) != KEYSTORE_OK)
	{
		rc = pgx_log_keystore(ks, st);
		goto out;
	}
	if (!pgx_passphrase_read(opts->passphrase_file, PGX_PROMPT, NULL, &old))
		goto out;
	/* A wrong passphrase is told before a new one is asked for. */
	if ((st = keystore_open_passphrase(ks, old.bytes, old.len)) != KEYSTORE_OK)
	{
		rc = pgx_log_keystore(ks, st);
		goto out;
	}
	if (!pgx_passphrase_read(opts->new_passphrase_file, PGX_PROMPT_NEW, PGX_PROMPT_AGAIN, &new))
		goto out;
	if ((st = change_locked(ks, path, &old, &new, opts->kdf)) != KEYSTORE_OK)
	{
		rc = pgx_log_keystore(ks, st);
		goto out;
	}
	printf("the passphrase of keystore \"%s\" has been changed, generation %" PRIu64 "\n", path,
		   keystore_get_generation(ks));
	rc = PGX_EXIT_OK;

out:
	pgx_passphrase_wipe(&old);
	pgx_passphrase_wipe(&new);
	keystore_free(&ks);
	return rc;
}
