/*
 * handover.c
 *		Open the keystore, and put its key where the server finds it.
 *
 * The key goes into a pipe whose read end the server inherits.  The pipe holds the
 * whole message, so nobody has to wait for anybody; what was read is gone; and if nobody reads it, it
 * goes with the last process that has the descriptor.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "keystore.h"
#include "log.h"
#include "prompt.h"
#include "shim.h"

/* On a terminal; a script gets one. */
#define MAX_TRIES	3

_Static_assert(HANDOVER_MAGIC_LEN + KEYSTORE_UUID_LEN + KEYSTORE_KEY_LEN == HANDOVER_LEN,
			   "the parts make the message");

static int
open_keystore(keystore *ks, const char *passphrase_file)
{
	struct pgx_passphrase pass;
	enum keystore_status st;
	int			rc = PGX_EXIT_FAILURE;
	int			tries = passphrase_file == NULL && pgx_prompt_interactive() ? MAX_TRIES : 1;

	while (tries-- > 0)
	{
		if (!pgx_passphrase_read(passphrase_file, PGX_PROMPT, NULL, &pass))
			return PGX_EXIT_FAILURE;
		st = keystore_open_passphrase(ks, pass.bytes, pass.len);
		pgx_passphrase_wipe(&pass);
		if (st == KEYSTORE_OK)
			return PGX_EXIT_OK;
		rc = pgx_log_keystore(ks, st);
		/* Another passphrase helps only where the passphrase was the trouble. */
		if (st != KEYSTORE_EPASSPHRASE && st != KEYSTORE_EPASSLEN)
			break;
	}
	return rc;
}

static bool
fill_pipe(const unsigned char *message, int *ret_fd)
{
	int			fds[2] = {-1, -1};
	int			fd = -1;
	ssize_t		n = -1;

	if (pipe2(fds, O_CLOEXEC) != 0)
	{
		pgx_log_error("could not create a pipe: %m");
		return false;
	}
	do
		n = write(fds[1], message, HANDOVER_LEN);
	while (n < 0 && errno == EINTR);
	(void) close(fds[1]);

	/* The shell that pg_ctl uses redirects 0 to 2; without O_CLOEXEC, so that it is inherited. */
	if (n == HANDOVER_LEN)
		fd = fcntl(fds[0], F_DUPFD, 3);
	if (fd < 0)
		pgx_log_error("could not write to a pipe: %m");
	(void) close(fds[0]);
	*ret_fd = fd;
	return fd >= 0;
}

int
handover_prepare(const char *keystore_path, const char *passphrase_file, int *ret_fd)
{
	keystore   *ks = keystore_new();
	unsigned char message[HANDOVER_LEN];
	enum keystore_status st;
	int			rc = PGX_EXIT_FAILURE;

	memset(message, 0, sizeof(message));
	pgx_secret_lock(message, sizeof(message));
	if (ks == NULL)
	{
		pgx_log_error("out of memory");
		goto out;
	}
	if ((st = keystore_load(ks, keystore_path)) != KEYSTORE_OK)
	{
		rc = pgx_log_keystore(ks, st);
		goto out;
	}
	rc = open_keystore(ks, passphrase_file);
	if (rc != PGX_EXIT_OK)
		goto out;
	memcpy(message, HANDOVER_MAGIC, HANDOVER_MAGIC_LEN);
	keystore_get_uuid(ks, message + HANDOVER_MAGIC_LEN);
	if ((st = keystore_get_ksk(ks, message + HANDOVER_MAGIC_LEN + KEYSTORE_UUID_LEN)) != KEYSTORE_OK)
	{
		rc = pgx_log_keystore(ks, st);
		goto out;
	}
	rc = fill_pipe(message, ret_fd) ? PGX_EXIT_OK : PGX_EXIT_FAILURE;

out:
	keystore_wipe(message, sizeof(message));
	keystore_free(&ks);
	return rc;
}
