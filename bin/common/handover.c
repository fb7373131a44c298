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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "handover.h"
#include "keystore.h"
#include "log.h"
#include "prompt.h"

/* On a terminal; a script gets one. */
#define MAX_TRIES	3

_Static_assert(PGX_HANDOVER_MAGIC_LEN + KEYSTORE_UUID_LEN + KEYSTORE_KEY_LEN == PGX_HANDOVER_LEN,
			   "the parts make the message");

int
pgx_keystore_ask(keystore *ks, const char *passphrase_file)
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
		n = write(fds[1], message, PGX_HANDOVER_LEN);
	while (n < 0 && errno == EINTR);
	(void) close(fds[1]);

	/* The shell that pg_ctl uses redirects 0 to 2; without O_CLOEXEC, so that it is inherited. */
	if (n == PGX_HANDOVER_LEN)
		fd = fcntl(fds[0], F_DUPFD, 3);
	if (fd < 0)
		pgx_log_error("could not write to a pipe: %m");
	(void) close(fds[0]);
	*ret_fd = fd;
	return fd >= 0;
}

int
pgx_handover_message(keystore *ks, unsigned char ret_message[PGX_HANDOVER_LEN])
{
	enum keystore_status st;

	memset(ret_message, 0, PGX_HANDOVER_LEN);
	pgx_secret_lock(ret_message, PGX_HANDOVER_LEN);
	memcpy(ret_message, PGX_HANDOVER_MAGIC, PGX_HANDOVER_MAGIC_LEN);
	keystore_get_uuid(ks, ret_message + PGX_HANDOVER_MAGIC_LEN);
	st = keystore_get_ksk(ks, ret_message + PGX_HANDOVER_MAGIC_LEN + KEYSTORE_UUID_LEN);
	return st == KEYSTORE_OK ? PGX_EXIT_OK : pgx_log_keystore(ks, st);
}

int
pgx_handover_prepare(keystore *ks, int *ret_fd)
{
	unsigned char message[PGX_HANDOVER_LEN];
	char		number[16];
	int			fd = -1;
	int			rc = pgx_handover_message(ks, message);

	if (rc != PGX_EXIT_OK)
		goto out;
	rc = PGX_EXIT_FAILURE;
	if (!fill_pipe(message, &fd))
		goto out;
	snprintf(number, sizeof(number), "%d", fd);
	if (setenv(PGX_HANDOVER_ENV, number, 1) != 0)
	{
		pgx_log_error("out of memory");
		(void) close(fd);
		goto out;
	}
	*ret_fd = fd;
	rc = PGX_EXIT_OK;

out:
	keystore_wipe(message, sizeof(message));
	return rc;
}

void
pgx_handover_end(int *fd)
{
	if (*fd < 0)
		return;
	(void) unsetenv(PGX_HANDOVER_ENV);
	(void) close(*fd);
	*fd = -1;
}

void
pgx_core_forbid(struct pgx_core_policy *ret_saved)
{
	struct rlimit none;

	ret_saved->changed = getrlimit(RLIMIT_CORE, &ret_saved->limit) == 0;
	if (!ret_saved->changed)
		return;
	none = ret_saved->limit;
	none.rlim_cur = 0;			/* the hard limit could not be raised again */
	(void) setrlimit(RLIMIT_CORE, &none);
	ret_saved->dumpable = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);
	(void) prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

void
pgx_core_restore(const struct pgx_core_policy *saved)
{
	if (!saved->changed)
		return;
	(void) setrlimit(RLIMIT_CORE, &saved->limit);
	if (saved->dumpable == 1)
		(void) prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}
