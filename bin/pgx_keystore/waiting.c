/*
 * waiting.c
 *		pgx_keystore open: give the key to a server that waits for it
 *		(pgx_tde.on_closed_keystore = wait).
 *
 * The server names its keystore, since only it knows its settings; the passphrase is asked for and
 * checked here, and the keystore's key goes through a socket in the data directory, to a
 * process of the same user and to nobody else.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "actions.h"
#include "handover.h"
#include "log.h"
#include "prompt.h"

#define OPEN_SOCKET		"pgx_tde/open.sock" /* contrib/pgx_tde/module/pgx_tde.h */

/* The server reads the key table with it; recovery comes later. */
#define ANSWER_TIMEOUT_S	60

static bool
is_own_user(int fd)
{
	struct ucred peer;
	socklen_t	len = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.uid == geteuid();
}

/* Connect, and read the path of the server's keystore.  -1 after a message. */
static int
reach_server(const char *pgdata, char ret_path[PATH_MAX])
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct timeval timeout = {.tv_sec = ANSWER_TIMEOUT_S};
	int			dir = open(pgdata, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int			fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	ssize_t		got = -1;

	if (dir < 0 || fd < 0)
	{
		pgx_log_error("could not open directory \"%s\": %m", pgdata);
		goto out;
	}
	/* The path of a socket has room for 107 bytes, that of a data directory may be longer. */
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", dir, OPEN_SOCKET);
	(void) setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	if (connect(fd, (struct sockaddr *) &address, sizeof(address)) != 0)
	{
		if (errno == ENOENT || errno == ECONNREFUSED)
		{
			pgx_log_error("no server in \"%s\" is waiting for its keystore", pgdata);
			pgx_log_hint("A server waits if pgx_tde.on_closed_keystore is \"wait\" and nothing else opens the "
						 "keystore when it starts.");
		}
		else
			pgx_log_error("could not connect to the server in \"%s\": %m", pgdata);
		goto out;
	}
	if (!is_own_user(fd))
	{
		pgx_log_error("the server in \"%s\" runs as another user", pgdata);
		pgx_log_hint("Run %s as the server's user.", pgx_progname());
		goto out;
	}
	got = recv(fd, ret_path, PATH_MAX - 1, 0);
	if (got <= 0)
		pgx_log_error("the server in \"%s\" does not answer", pgdata);
	else
		ret_path[got] = '\0';

out:
	if (dir >= 0)
		(void) close(dir);
	if (got <= 0 && fd >= 0)
	{
		(void) close(fd);
		fd = -1;
	}
	return fd;
}

/* What the server said to the key; an exit code. */
static int
read_answer(int fd, const char *pgdata)
{
	char		text[4096];
	ssize_t		got = recv(fd, text, sizeof(text) - 1, 0);
	char	   *hint;

	if (got <= 0)
	{
		pgx_log_error("the server in \"%s\" ended", pgdata);
		pgx_log_hint("Look into the server log.");
		return PGX_EXIT_FAILURE;
	}
	text[got] = '\0';
	if (text[0] == 'Y')
		return PGX_EXIT_OK;
	hint = strchr(text, '\n');
	if (hint != NULL)
		*hint++ = '\0';
	pgx_log_error("the server could not open its keystore: %s", text + 1);
	if (hint != NULL && *hint != '\0')
		pgx_log_hint("%s", hint);
	return PGX_EXIT_KEY;
}

static int
send_key(keystore *ks, const char *pgdata)
{
	unsigned char message[PGX_HANDOVER_LEN];
	char		path[PATH_MAX];
	int			fd = -1;
	int			rc = pgx_handover_message(ks, message);

	if (rc != PGX_EXIT_OK)
		goto out;
	rc = PGX_EXIT_FAILURE;
	fd = reach_server(pgdata, path);
	if (fd < 0)
		goto out;
	if (send(fd, message, sizeof(message), MSG_NOSIGNAL) != (ssize_t) sizeof(message))
		pgx_log_error("could not send the key to the server in \"%s\": %m", pgdata);
	else
		rc = read_answer(fd, pgdata);

out:
	keystore_wipe(message, sizeof(message));
	if (fd >= 0)
		(void) close(fd);
	return rc;
}

int
action_open(const struct options *opts, int n_args, char **args)
{
	keystore   *ks = NULL;
	char		path[PATH_MAX];
	int			fd;
	int			rc;

	(void) n_args;
	(void) args;
	if (opts->pgdata == NULL)
	{
		pgx_log_error("no data directory is specified");
		pgx_log_hint("Use option -D.");
		return PGX_EXIT_FAILURE;
	}
	/* Only to ask; while a person types, others may be faster. */
	fd = reach_server(opts->pgdata, path);
	if (fd < 0)
		return PGX_EXIT_FAILURE;
	(void) close(fd);

	ks = new_handle();
	rc = load_keystore(ks, opts, path);
	if (rc == PGX_EXIT_OK)
		rc = pgx_keystore_ask(ks, opts->passphrase_file);
	if (rc == PGX_EXIT_OK)
		rc = send_key(ks, opts->pgdata);
	keystore_free(&ks);
	if (rc == PGX_EXIT_OK)
		printf("the server in \"%s\" has opened its keystore\n", opts->pgdata);
	return rc;
}
