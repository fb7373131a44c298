/*
 * io_frontend.c
 *		The I/O layer in a program beside the server that parses WAL: pg_waldump,
 *		pg_rewind, pg_verifybackup.
 *
 * "pgx_keystore exec" starts the program with the layer, the WAL key in a
 * memory file, and the directories whose segments are to be decrypted.  Only
 * reading is changed, and only of WAL segments there: pg_rewind copies files
 * from elsewhere, and those must stay as they are.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "io_internal.h"
#include "walkey.h"

#define MAX_DIRECTORIES 16

static struct
{
	dev_t		device;
	ino_t		inode;
} directories[MAX_DIRECTORIES];
static int	directory_count;

static bool
is_raw(enum pgx_io_kind kind, int open_flags)
{
	return kind != PGX_IO_WAL || (open_flags & O_ACCMODE) != O_RDONLY;
}

static uint64_t
no_position(void)
{
	return 0;
}

static void
wal_key_missing(void)
{
}

static const struct pgx_io_server frontend = {
	.data_dir = "",
	.wal_magic = 0,				/* any: the program's version knows which it wants */
	.is_raw = is_raw,
	.insert_end = no_position,
	.replay_end = no_position,
	.wal_key_missing = wal_key_missing,
};

/* Is the file in one of the directories? */
bool
pgx_frontend_is_ours(const char *path)
{
	const char *slash = strrchr(path, '/');
	char		dir[4096];
	struct stat st;
	size_t		len = slash == NULL ? 1 : (size_t) (slash - path);

	if (len >= sizeof(dir))
		return false;
	memcpy(dir, slash == NULL ? "." : path, len);
	dir[len] = '\0';
	if (stat(len == 0 ? "/" : dir, &st) != 0)
		return false;
	for (int i = 0; i < directory_count; i++)
	{
		if (directories[i].device == st.st_dev && directories[i].inode == st.st_ino)
			return true;
	}
	return false;
}

static void
note_directories(const char *list)
{
	char	   *copy = strdup(list);
	char	   *rest = NULL;

	if (copy == NULL)
		return;
	for (char *dir = strtok_r(copy, ":", &rest); dir != NULL; dir = strtok_r(NULL, ":", &rest))
	{
		struct stat st;

		if (directory_count == MAX_DIRECTORIES || stat(dir, &st) != 0)
			continue;
		directories[directory_count].device = st.st_dev;
		directories[directory_count].inode = st.st_ino;
		directory_count++;
	}
	free(copy);
}

/*
 * Begin to work if the environment says so.  The environment and the memory file stay: pg_verifybackup
 * has pg_waldump do a part of its work.
 */
void
pgx_frontend_start(void)
{
	const char *fd_text = getenv(TDE_WALKEY_ENV);
	const char *dirs = getenv(TDE_WALKEY_DIRS_ENV);
	uint8_t		message[TDE_WALKEY_LEN];
	bool		good;

	if (fd_text == NULL || dirs == NULL)
		return;
	good = pgx_libc.pread(atoi(fd_text), message, sizeof(message), 0) == (ssize_t) sizeof(message) &&
		memcmp(message, TDE_WALKEY_MAGIC, 8) == 0 && pgx_shared != NULL && pgx_bounce != NULL &&
		(message[8] == TDE_AES128 || message[8] == TDE_AES256) &&
		pgx_io_set_key(TDE_KEY_WAL, 0, (enum tde_algorithm) message[8], message + 9) == 0;
	OPENSSL_cleanse(message, sizeof(message));
	if (!good)
		return;
	note_directories(dirs);
	pgx_server = &frontend;
}
