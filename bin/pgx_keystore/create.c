/*
 * create.c
 *		pgx_keystore create, and making the directory of a keystore.
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
#include "audit.h"
#include "file.h"
#include "log.h"
#include "mem.h"
#include "prompt.h"

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
	struct keystore_kdf_params params;
	const struct keystore_kdf_params *kdf;
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
	if (!choose_kdf(opts, &params, &kdf) || !is_absent(path) ||
		!pgx_passphrase_read(opts->passphrase_file, PGX_PROMPT_NEW, PGX_PROMPT_AGAIN, &pass))
		goto out;
	if ((st = keystore_lock(ks, path, LOCK_WAIT_MS, &lock)) != KEYSTORE_OK)
	{
		rc = pgx_log_keystore(ks, st);
		goto out;
	}
	if (!is_absent(path))		/* somebody may have made it while we prompted */
		goto out;
	st = keystore_create(ks, pass.bytes, pass.len, kdf, "pgx_keystore");
	if (st == KEYSTORE_OK && opts->fips)
		st = keystore_set_fips(ks, true);
	if (st == KEYSTORE_OK && opts->label != NULL)
		st = keystore_set_slot_label(ks, keystore_opened_slot(ks), opts->label);
	if (st == KEYSTORE_OK)
		st = keystore_store(ks, path);
	if (st != KEYSTORE_OK)
	{
		rc = pgx_log_keystore(ks, st);
		goto out;
	}
	pgx_audit_keystore(ks);
	pgx_audit_note("key", "%u", keystore_active_key(ks));
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

	pgx_audit_note("keystore", "%s", args[0]);
	if (check_file_name(args[0]) && pgx_outside_cluster(dir) && directory_make(dir, &made))
		rc = create_in(opts, dir, args[0]);
	if (rc != PGX_EXIT_OK && made)
		directory_unmake(dir);
	free(dir);
	return rc;
}
