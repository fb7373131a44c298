/*
 * waiting.c
 *		pgx_tde.on_closed_keystore = wait: a server that must read encrypted WAL and
 *		has no key waits for "pgx_keystore open -D DATADIR".
 *
 * The postmaster waits before it has children, so nothing is read or written meanwhile; the
 * startup process of a standby waits at the record that turned encryption on.
 *
 * The key comes through a socket in the data directory, from a process of the same user, and nothing of it
 * comes into a file.  One conversation, a packet each: the server says where its keystore is, the
 * client sends the message that pg_ctl puts into a pipe too, the server answers with 'Y' or 'N'
 * and, in lines, a message and a hint.
 */
#include "pgx_postgres.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/ps_status.h"

#include "compat.h"
#include "pgx_tde.h"

/* A client has its key ready when it connects, so it is fast. */
#define CLIENT_TIMEOUT_MS	5000

/* The startup process looks this often for a shutdown, and whether a session has opened the keystore. */
#define STARTUP_NAP_MS		200

int			pgx_on_closed_keystore = PGX_ON_CLOSED_FAIL;

static const struct config_enum_entry closed_options[] = {
	{"fail", PGX_ON_CLOSED_FAIL, false},
	{"wait", PGX_ON_CLOSED_WAIT, false},
	{NULL, 0, false}
};

void
pgx_define_waiting(void)
{
	DefineCustomEnumVariable("pgx_tde.on_closed_keystore",
							 "What happens when encrypted WAL must be read and the keystore is closed.",
							 "\"fail\" stops the server; \"wait\" lets it wait for \"pgx_keystore open\".",
							 &pgx_on_closed_keystore, PGX_ON_CLOSED_FAIL, closed_options,
							 PGC_POSTMASTER, 0, NULL, NULL, NULL);
}

static void
socket_failed(const char *what)
{
	ereport(FATAL,
			(errcode_for_socket_access(),
			 errmsg("could not %s socket \"%s/%s\": %m", what, DataDir, PGX_OPEN_SOCKET),
			 errhint("To start without waiting, open the keystore at the start: see \"pg_ctl --keystore-passphrase\".")));
}

/* What an earlier server left is in the way.  The working directory is the data directory: the path is short. */
static int
listen_for_key(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX,.sun_path = PGX_OPEN_SOCKET};
	int			fd;
	mode_t		mask;
	bool		bound;

	if (MakePGDirectory(PGX_TDE_DIR) < 0 && errno != EEXIST)
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("could not create directory \"%s\": %m", PGX_TDE_DIR)));
	if (unlink(PGX_OPEN_SOCKET) != 0 && errno != ENOENT)
		socket_failed("remove old");
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		socket_failed("create");
	mask = umask(S_IXUSR | S_IRWXG | S_IRWXO);
	bound = bind(fd, (struct sockaddr *) &address, sizeof(address)) == 0;
	umask(mask);
	if (!bound || listen(fd, 4) != 0)
		socket_failed("listen on");
	return fd;
}

/* Does the other end belong to this server's user?  Root has no business here: it has no keystore of its own. */
static bool
is_own_user(int fd)
{
	struct ucred peer;
	socklen_t	len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.uid == geteuid())
		return true;
	ereport(LOG,
			(errmsg("another user tried to open the keystore"),
			 errdetail("Only the server's own user can.")));
	return false;
}

static void
answer(int fd, char verdict, const char *message, const char *hint)
{
	char	   *text = psprintf("%c%s\n%s", verdict, message, hint != NULL ? hint : "");

	/* Who is gone does not want to know. */
	(void) send(fd, text, strlen(text), MSG_NOSIGNAL);
}

/* Open with the key that came.  Whatever is wrong is said here and there, and the server goes on waiting. */
static void
try_key(int fd, const uint8 *message, size_t len)
{
	MemoryContext outer;
	MemoryContext inner;

	if (len != PGX_HANDOVER_LEN || memcmp(message, PGX_HANDOVER_MAGIC, 8) != 0)
	{
		answer(fd, 'N', "the server did not understand the request",
			   "Use the pgx_keystore that was installed together with this version of pgx_tde.");
		return;
	}
	outer = pgx_enter();
	inner = CurrentMemoryContext;
	PG_TRY();
	{
		pgx_open_with_key(message + 8, message + 8 + KEYSTORE_UUID_LEN);
		answer(fd, 'Y', "", NULL);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(inner);
		error = CopyErrorData();
		EmitErrorReport();
		FlushErrorState();
		answer(fd, 'N', error->message, error->hint);
		FreeErrorData(error);
	}
	PG_END_TRY();
	pgx_leave(outer);
}

/* Talk to one client; interrupt: a descriptor that ends the conversation when it can be read, or -1. */
static void
serve(int listener, int interrupt)
{
	uint8		message[PGX_HANDOVER_LEN + 1];
	const char *path = pgx_keystore_path();
	int			fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct pollfd wait_for[2] = {{.fd = fd,.events = POLLIN}, {.fd = interrupt,.events = POLLIN}};
	ssize_t		got = -1;

	if (fd < 0)
		return;
	if (is_own_user(fd) && send(fd, path, strlen(path), MSG_NOSIGNAL) > 0 &&
		poll(wait_for, 2, CLIENT_TIMEOUT_MS) > 0 && wait_for[1].revents == 0)
		got = recv(fd, message, sizeof(message), 0);
	/* Nothing: it wanted to know the path only. */
	if (got > 0)
		try_key(fd, message, (size_t) got);
	explicit_bzero(message, sizeof(message));
	close(fd);
}

static void
say_waiting(void)
{
	ereport(LOG,
			(errmsg("waiting for the keystore to be opened"),
			 errdetail("Encrypted WAL must be read, and keystore \"%s\" is closed.", pgx_keystore_path()),
			 errhint("Run \"pgx_keystore open -D %s\" as the server's user, or stop the server with \"pg_ctl stop -D %s\".",
					 DataDir, DataDir)));
}

/* The postmaster's signals are blocked at this time, or handled by setting flags that nobody looks at yet. */
static int
take_over_signals(sigset_t *ret_former)
{
	sigset_t	set;
	int			fd;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGQUIT);
	sigprocmask(SIG_BLOCK, &set, ret_former);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		ereport(FATAL,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 errmsg("could not wait for signals: %m")));
	return fd;
}

static void
stop_waiting(int listener)
{
	close(listener);
	(void) unlink(PGX_OPEN_SOCKET);
}

static void
wait_in_postmaster(void)
{
	int			listener = listen_for_key();
	sigset_t	former;
	int			signals = take_over_signals(&former);
	struct pollfd wait_for[2] = {{.fd = listener,.events = POLLIN}, {.fd = signals,.events = POLLIN}};

	say_waiting();
	while (pgx_state->opened_by == PGX_CLOSED)
	{
		if (poll(wait_for, 2, -1) < 0)
			continue;
		if (wait_for[1].revents != 0)
		{
			stop_waiting(listener);
			ereport(LOG,
					(errmsg("received shutdown request while waiting for the keystore to be opened")));
			proc_exit(0);
		}
		if (wait_for[0].revents != 0)
			serve(listener, signals);
	}
	close(signals);
	sigprocmask(SIG_SETMASK, &former, NULL);
	stop_waiting(listener);
}

/* Sessions of a hot standby may be there meanwhile, and one of them may call pgx_open_keystore(). */
static void
wait_in_recovery(void)
{
	int			listener = listen_for_key();
	struct pollfd wait_for = {.fd = listener,.events = POLLIN};

	say_waiting();
	set_ps_display("waiting for the keystore to be opened");
	for (;;)
	{
		bool		closed;

		LWLockAcquire(pgx_lock(), LW_SHARED);
		closed = pgx_state->opened_by == PGX_CLOSED;
		LWLockRelease(pgx_lock());
		if (!closed)
			break;
		pgx_startup_interrupts();
		if (poll(&wait_for, 1, STARTUP_NAP_MS) > 0)
			serve(listener, -1);
	}
	stop_waiting(listener);
}

/* Returns when the keystore is open; false at once if the server is not to wait. */
bool
pgx_wait_for_open(void)
{
	if (pgx_on_closed_keystore != PGX_ON_CLOSED_WAIT || !pgx_location_is_set())
		return false;
	if (IsUnderPostmaster)
		wait_in_recovery();
	else
		wait_in_postmaster();
	return true;
}
