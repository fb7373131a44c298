/*
 * standby_keystore.c
 *		The keystore of a new standby: a copy in this server's own directory.
 *
 * It comes first.  A base backup may take hours, and nobody is to learn after it that it cannot be opened.
 */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "connect.h"
#include "file.h"
#include "log.h"
#include "mem.h"
#include "options.h"
#include "run.h"
#include "server.h"
#include "standby.h"
#include "walprogram.h"

#define LOCK_WAIT_MS	10000

/* Base64 with its newlines, as base64(1) writes it. */
static bool
decode(struct standby *s, char *text)
{
	size_t		n = 0;
	int			len;

	for (const char *p = text; *p != '\0'; p++)
	{
		if (*p != '\n' && *p != '\r')
			text[n++] = *p;
	}
	if (n == 0 || n % 4 != 0)
		return false;
	s->bytes = pgx_alloc(n);
	len = EVP_DecodeBlock(s->bytes, (const unsigned char *) text, (int) n);
	if (len < 0)
		return false;
	/* It counts the padding as bytes. */
	s->n_bytes = (size_t) len - (text[n - 1] == '=') - (text[n - 2] == '=');
	return true;
}

/* Through ssh, which asks what it has to ask on the terminal by itself. */
static bool
fetch_by_ssh(struct standby *s, const struct pgx_place *place)
{
	char	   *path = pgx_join(place->path, KEYSTORE_FILE_NAME);
	char	   *quoted = pgx_shell_quote(path);
	const struct rcvall_options *opts = s->opts;
	const char *const command[] = {"--", place->host, "base64", "--", quoted, NULL};
	const char **argv = pgx_alloc((1 + opts->n_ssh_options) * sizeof(*argv) + sizeof(command));
	struct pgx_run run = {.argv = argv,.capture_out = true};
	bool		ok;

	argv[0] = opts->ssh != NULL ? opts->ssh : "ssh";
	for (size_t i = 0; i < opts->n_ssh_options; i++)
		argv[1 + i] = opts->ssh_options[i];
	memcpy(argv + 1 + opts->n_ssh_options, command, sizeof(command));
	ok = pgx_run_wait(&run);

	if (ok && (run.exit_code != 0 || !decode(s, run.out)))
	{
		pgx_log_error("could not fetch the keystore \"%s\" from host \"%s\"", path, place->host);
		ok = false;
	}
	pgx_run_clear(&run);
	free(argv);
	free(quoted);
	free(path);
	return ok;
}

static bool
fetch_from_place(struct standby *s)
{
	struct pgx_place place = {0};
	char		why[512];
	struct stat st;
	char	   *path;
	bool		ok;

	if (!pgx_place_parse(s->opts->keystore, &place, why, sizeof(why)))
	{
		pgx_log_error("invalid value for option %s: %s", "--keystore", why);
		return false;
	}
	if (place.kind == PGX_PLACE_SERVER)
	{
		pgx_log_error("invalid value for option %s: \"%s\" is neither a path nor HOST:DIR", "--keystore",
					  s->opts->keystore);
		ok = false;
	}
	else if (place.kind == PGX_PLACE_REMOTE)
		ok = fetch_by_ssh(s, &place);
	else
	{
		path = stat(place.path, &st) == 0 && S_ISDIR(st.st_mode) ? pgx_join(place.path, KEYSTORE_FILE_NAME) :
			pgx_strdup(place.path);
		ok = pgx_file_read(path, KEYSTORE_MAX_FILE_SIZE, S_IRWXG | S_IRWXO, "0600", &s->bytes, &s->n_bytes);
		free(path);
	}
	pgx_place_clear(&place);
	return ok;
}

/* Nobody else's directory, and what is in it is the same keystore, to the byte: then it is used as it is. */
static bool
check_directory(struct standby *s)
{
	char	   *user;
	struct stat st;
	uint8_t    *there = NULL;
	size_t		len = 0;
	bool		same;

	if (!pgx_outside_cluster(s->keystore_dir))
		return false;
	user = pgx_server_using_keystore(s->keystore_dir);
	if (user != NULL)
	{
		pgx_log_error("keystore directory \"%s\" is in use by the server in \"%s\"", s->keystore_dir, user);
		pgx_log_hint("Each server has a keystore directory of its own.");
		free(user);
		return false;
	}
	if (lstat(s->keystore_path, &st) != 0 && errno == ENOENT)
		return true;
	if (!pgx_file_read(s->keystore_path, KEYSTORE_MAX_FILE_SIZE, S_IRWXG | S_IRWXO, "0600", &there, &len))
		return false;
	same = len == s->n_bytes && memcmp(there, s->bytes, len) == 0;
	free(there);
	if (!same)
	{
		pgx_log_error("there is another keystore in \"%s\"", s->keystore_path);
		pgx_log_detail("It is not the file that the primary has now.");
		pgx_log_hint("Name another directory with --keystore-location, or bring it up to date with \"pgx_keystore copy\".");
	}
	return same;
}

/* One that somebody named may be another cluster's. */
static bool
check_uuid(struct standby *s)
{
	char	   *primary = standby_keystore_uuid(s);
	char		text[KEYSTORE_UUID_STRLEN + 1];
	uint8_t		uuid[KEYSTORE_UUID_LEN];
	bool		ok;

	keystore_get_uuid(s->ks, uuid);
	keystore_uuid_text(uuid, text);
	ok = primary == NULL || strcmp(primary, text) == 0;
	if (!ok)
	{
		pgx_log_error("the keystore is not that of the primary");
		pgx_log_detail("It has UUID %s, that of the primary %s.", text, primary);
	}
	free(primary);
	return ok;
}

int
standby_get_keystore(struct standby *s)
{
	enum keystore_status st;

	if (s->keystore_dir == NULL)
		return PGX_EXIT_OK;
	s->ks = keystore_new();
	if (s->ks == NULL)
	{
		pgx_log_error("out of memory");
		return PGX_EXIT_FAILURE;
	}
	if (!(s->opts->keystore != NULL ? fetch_from_place(s) : pgx_fetch_keystore(s->conn, &s->bytes, &s->n_bytes)))
		return PGX_EXIT_FAILURE;
	st = keystore_load_bytes(s->ks, s->bytes, s->n_bytes,
							 s->opts->keystore != NULL ? s->opts->keystore : "the keystore of the primary");
	if (st != KEYSTORE_OK)
		return pgx_log_keystore(s->ks, st);
	if (!check_uuid(s) || !check_directory(s))
		return PGX_EXIT_FAILURE;
	if (s->opts->keystore_passphrase)
		return pgx_keystore_ask(s->ks, s->opts->passphrase_file);
	if (keystore_open_auto(s->ks, s->keystore_path) == KEYSTORE_OK)
		return PGX_EXIT_OK;
	pgx_log_error("the keystore is not open");
	pgx_log_hint("Use option --keystore-passphrase.");
	return PGX_EXIT_KEY;
}

/* Store it as it came; and seal its key for this machine, if asked for. */
static int
store(struct standby *s)
{
	enum keystore_status st = keystore_check_directory(s->ks, s->keystore_dir);
	struct keystore_auto_open_info info;
	struct stat there;
	int			lock = -1;

	if (st == KEYSTORE_OK)
		st = keystore_lock(s->ks, s->keystore_path, LOCK_WAIT_MS, &lock);
	if (st == KEYSTORE_OK && lstat(s->keystore_path, &there) != 0)
	{
		s->made_keystore = true;
		st = keystore_store_bytes(s->ks, s->keystore_path, s->bytes, s->n_bytes);
	}
	if (st == KEYSTORE_OK && s->opts->auto_open)
	{
		st = keystore_auto_open_status(s->ks, s->keystore_path, &info);
		if (st == KEYSTORE_OK && strcmp(info.kind, "none") == 0)
		{
			s->made_auto_open = true;
			st = keystore_auto_open_enable(s->ks, s->keystore_path);
		}
		else if (st == KEYSTORE_OK && !info.usable)
		{
			pgx_log_error("automatic opening is enabled for \"%s\" but not usable: %s", s->keystore_path,
						  info.reason);
			keystore_unlock(lock);
			return PGX_EXIT_KEY;
		}
	}
	if (lock >= 0)
		keystore_unlock(lock);
	return st == KEYSTORE_OK ? PGX_EXIT_OK : pgx_log_keystore(s->ks, st);
}

int
standby_place_keystore(struct standby *s)
{
	int			rc;

	if (s->keystore_dir == NULL)
		return PGX_EXIT_OK;
	if (mkdir(s->keystore_dir, 0700) == 0)
		s->made_keystore_dir = true;
	else if (errno != EEXIST)
	{
		pgx_log_error("could not create directory \"%s\": %m", s->keystore_dir);
		return PGX_EXIT_FAILURE;
	}
	rc = store(s);
	if (rc == PGX_EXIT_OK)
	{
		printf("Keystore: %s\n", s->keystore_path);
		if (s->opts->auto_open)
			printf("Automatic opening: enabled\n");
	}
	return rc;
}

/* Does it fit the data?  The key table has keys that it must unwrap. */
bool
standby_prove_keystore(struct standby *s)
{
	char	   *path = pgx_join(s->pgdata, PGX_KEYTABLE);
	tde_keytable *kt = NULL;
	struct stat st;
	bool		ok = true;

	if (stat(path, &st) == 0)
	{
		ok = s->ks != NULL && pgx_keytable_open(s->ks, path, &kt) == PGX_EXIT_OK;
		if (s->ks == NULL)
			pgx_log_error("the data is encrypted, but there is no keystore");
		else if (!ok)
			pgx_log_detail("The keystore does not fit the data of the primary.");
	}
	tde_keytable_free(&kt);
	free(path);
	return ok;
}

static void
remove_file(const char *dir, const char *name)
{
	char	   *path = pgx_join(dir, name);

	if (unlink(path) != 0 && errno != ENOENT)
		pgx_log_warning("could not remove file \"%s\": %m", path);
	free(path);
}

void
standby_remove_keystore(struct standby *s)
{
	if (s->made_auto_open)
		remove_file(s->keystore_dir, KEYSTORE_AUTO_OPEN_NAME);
	if (s->made_keystore)
	{
		/* The server may have replaced it by the newer one that came with WAL. */
		remove_file(s->keystore_dir, KEYSTORE_FILE_NAME);
		remove_file(s->keystore_dir, KEYSTORE_PREV_NAME);
	}
	if (s->made_keystore_dir)
	{
		remove_file(s->keystore_dir, KEYSTORE_LOCK_NAME);
		(void) rmdir(s->keystore_dir);	/* if there is more in it, it stays */
	}
}
