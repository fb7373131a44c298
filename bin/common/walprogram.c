/*
 * walprogram.c
 *		Programs of PostgreSQL that see decrypted WAL.  See walprogram.h.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "file.h"
#include "log.h"
#include "mem.h"
#include "prompt.h"
#include "walkey.h"
#include "walprogram.h"

#define IO_LAYER		"pgx_tde_io.so"
#define PRELOAD_ENV		"LD_PRELOAD"

char *
pgx_postgres_find(void)
{
	const char *path = getenv("PATH");
	char	   *found = NULL;

	while (found == NULL && path != NULL && *path != '\0')
	{
		size_t		len = strcspn(path, ":");
		char	   *dir = len == 0 ? pgx_strdup(".") : pgx_strndup(path, len);

		found = pgx_join(dir, "postgres");
		if (access(found, X_OK) != 0)
		{
			free(found);
			found = NULL;
		}
		free(dir);
		path += len;
		path += *path == ':';
	}
	return found != NULL ? found : pgx_join(PG_BINDIR, "postgres");
}

/* The I/O layer of the installation that postgres belongs to; NULL after a message. */
static char *
find_layer(const char *postgres)
{
	char	   *resolved = realpath(postgres, NULL);
	char	   *bindir = pgx_dirname(resolved != NULL ? resolved : postgres);
	char	   *layer = pgx_printf("%s/../lib/%s", bindir, IO_LAYER);

	if (access(layer, R_OK) != 0)
	{
		free(layer);
		layer = pgx_join(PG_PKGLIBDIR, IO_LAYER);
	}
	if (access(layer, R_OK) != 0)
	{
		pgx_log_error("could not access the I/O layer \"%s\": %m", layer);
		pgx_log_hint("Install the server module of pgx-tde for this server.");
		free(layer);
		layer = NULL;
	}
	free(resolved);
	free(bindir);
	return layer;
}

char *
pgx_postgres_program(const char *postgres, const char *name)
{
	char	   *bindir = pgx_dirname(postgres);
	char	   *program = pgx_join(bindir, name);

	free(bindir);
	return program;
}

/* Read and parse it; its keys stay wrapped.  NULL after a message. */
static tde_keytable *
read_keytable(const char *path)
{
	tde_keytable *kt = NULL;
	uint8_t    *bytes = NULL;
	size_t		len = 0;
	enum tde_keytable_status status;

	if (!pgx_file_read(path, TDE_KEYTABLE_MAX_SIZE, 0, "600", &bytes, &len))
		return NULL;
	status = tde_keytable_parse(bytes, len, &kt);
	free(bytes);
	if (status != TDE_KEYTABLE_OK)
		pgx_log_error("key table \"%s\" %s", path, tde_keytable_status_text(status));
	return kt;
}

/* ENOENT: the keystore has no key of that number. */
static enum tde_keytable_status
try_master_key(keystore *ks, tde_keytable *kt)
{
	uint8_t		master_key[KEYSTORE_KEY_LEN];
	enum tde_keytable_status status;

	if (keystore_get_master_key(ks, tde_keytable_master_key_id(kt), master_key) != KEYSTORE_OK)
		return TDE_KEYTABLE_ENOENT;
	status = tde_keytable_open(kt, master_key);
	keystore_wipe(master_key, sizeof(master_key));
	return status;
}

int
pgx_keytable_open(keystore *ks, const char *path, tde_keytable **ret_kt)
{
	tde_keytable *kt = read_keytable(path);
	uint8_t		ks_uuid[KEYSTORE_UUID_LEN];
	uint8_t		kt_uuid[KEYSTORE_UUID_LEN];
	const uint8_t *ring;
	size_t		ring_len;
	size_t		added;
	enum tde_keytable_status status;

	*ret_kt = kt;
	if (kt == NULL)
		return PGX_EXIT_FAILURE;
	keystore_get_uuid(ks, ks_uuid);
	tde_keytable_uuid(kt, kt_uuid);
	if (memcmp(ks_uuid, kt_uuid, KEYSTORE_UUID_LEN) != 0)
	{
		pgx_log_error("the keystore does not belong to the data directory of \"%s\"", path);
		pgx_log_hint("Copy the keystore of this replication group with \"pgx_keystore copy\".");
		return PGX_EXIT_KEY;
	}
	status = try_master_key(ks, kt);
	ring = tde_keytable_ring(kt, &ring_len);
	if ((status == TDE_KEYTABLE_ENOENT || status == TDE_KEYTABLE_EDAMAGED) && ring_len > 0 &&
		keystore_import_ring(ks, ring, ring_len, &added) == KEYSTORE_OK && added > 0)
		status = try_master_key(ks, kt);
	if (status == TDE_KEYTABLE_ENOENT)
	{
		pgx_log_error("master key %u, which key table \"%s\" needs, does not exist in the keystore",
					  tde_keytable_master_key_id(kt), path);
		return PGX_EXIT_KEY;
	}
	if (status != TDE_KEYTABLE_OK)
	{
		pgx_log_error("key table \"%s\" %s", path, tde_keytable_status_text(status));
		return PGX_EXIT_FAILURE;
	}
	return PGX_EXIT_OK;
}

/* Lay the WAL key out as the I/O layer reads it; false if WAL is not encrypted. */
static bool
make_message(const tde_keytable *kt, uint8_t message[TDE_WALKEY_LEN])
{
	for (size_t i = 0; i < tde_keytable_count(kt); i++)
	{
		const struct tde_key_entry *entry = tde_keytable_entry(kt, i);
		const uint8_t *key;
		size_t		len;

		if (entry->kind != TDE_KEY_WAL)
			continue;
		key = tde_keytable_key(kt, i, &len);
		if (key == NULL || len > TDE_WALKEY_LEN - 9)
			return false;
		memset(message, 0, TDE_WALKEY_LEN);
		memcpy(message, TDE_WALKEY_MAGIC, 8);
		message[8] = (uint8_t) entry->alg;
		memcpy(message + 9, key, len);
		return true;
	}
	return false;
}

bool
pgx_keytable_has_wal(const tde_keytable *kt)
{
	for (size_t i = 0; i < tde_keytable_count(kt); i++)
	{
		if (tde_keytable_entry(kt, i)->kind == TDE_KEY_WAL)
			return true;
	}
	return false;
}

/*
 * Put the key into a memory file.  Its descriptor is inherited, by the programs that the program
 * starts too: pg_verifybackup has pg_waldump do a part of its work.  -1 after a message.
 */
static int
make_key_file(const uint8_t *message)
{
	int			fd = memfd_create("pgx_wal_key", MFD_ALLOW_SEALING);

	if (fd < 0 || write(fd, message, TDE_WALKEY_LEN) != TDE_WALKEY_LEN ||
		fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) != 0)
	{
		pgx_log_error("could not write a memory file: %m");
		if (fd >= 0)
			(void) close(fd);
		fd = -1;
	}
	return fd;
}

/* The layer comes first, since it must see what other preloaded libraries do. */
static bool
set_variables(const char *layer, const char *const *dirs, size_t n_dirs, int fd)
{
	const char *others = getenv(PRELOAD_ENV);
	char	   *list = pgx_strdup("");
	char	   *preload = others != NULL && others[0] != '\0' ?
		pgx_printf("%s:%s", layer, others) : pgx_strdup(layer);
	char	   *number = pgx_printf("%d", fd);
	bool		ok;

	for (size_t i = 0; i < n_dirs; i++)
	{
		char	   *more = pgx_printf("%s%s%s", list, i > 0 ? ":" : "", dirs[i]);

		free(list);
		list = more;
	}
	ok = setenv(TDE_WALKEY_DIRS_ENV, list, 1) == 0 && setenv(PRELOAD_ENV, preload, 1) == 0 &&
		setenv(TDE_WALKEY_ENV, number, 1) == 0;
	if (!ok)
		pgx_log_error("out of memory");
	free(list);
	free(preload);
	free(number);
	return ok;
}

bool
pgx_wal_environment_set(const tde_keytable *kt, const char *postgres, const char *const *dirs,
						size_t n_dirs, int *ret_fd)
{
	uint8_t		message[TDE_WALKEY_LEN];
	char	   *layer = find_layer(postgres);
	int			fd = -1;
	bool		ok = false;

	pgx_secret_lock(message, sizeof(message));
	if (layer == NULL)
		goto out;
	if (!make_message(kt, message))
	{
		pgx_log_error("WAL is not encrypted");
		goto out;
	}
	fd = make_key_file(message);
	ok = fd >= 0 && set_variables(layer, dirs, n_dirs, fd);

out:
	if (ok)
		*ret_fd = fd;
	else if (fd >= 0)
		(void) close(fd);
	keystore_wipe(message, sizeof(message));
	free(layer);
	return ok;
}

/* What stood in LD_PRELOAD before us stays there. */
static void
shorten_preload(void)
{
	const char *list = getenv(PRELOAD_ENV);
	const char *colon = list != NULL ? strchr(list, ':') : NULL;
	char	   *rest = colon != NULL ? pgx_strdup(colon + 1) : NULL;

	if (rest != NULL)
		(void) setenv(PRELOAD_ENV, rest, 1);
	else
		(void) unsetenv(PRELOAD_ENV);
	free(rest);
}

void
pgx_wal_environment_end(int *fd)
{
	if (*fd < 0)
		return;
	(void) close(*fd);
	*fd = -1;
	(void) unsetenv(TDE_WALKEY_ENV);
	(void) unsetenv(TDE_WALKEY_DIRS_ENV);
	shorten_preload();
}
