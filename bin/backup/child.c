/*
 * child.c
 *		Programs that work on the backup area for us.  See child.h.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "log.h"

volatile sig_atomic_t pgx_caught_signal;
static volatile sig_atomic_t running_child;

static const int caught[] = {SIGINT, SIGTERM, SIGHUP};

#define N_CAUGHT	(sizeof(caught) / sizeof(caught[0]))

static void
on_signal(int signo)
{
	int			save_errno = errno;

	pgx_caught_signal = signo;
	if (running_child > 0)
		(void) kill((pid_t) running_child, SIGTERM);
	errno = save_errno;
}

void
pgx_catch_signals(void)
{
	struct sigaction action;

	memset(&action, 0, sizeof(action));
	sigemptyset(&action.sa_mask);
	action.sa_handler = SIG_IGN;
	(void) sigaction(SIGPIPE, &action, NULL);
	action.sa_handler = on_signal;
	for (size_t i = 0; i < N_CAUGHT; i++)
		(void) sigaction(caught[i], &action, NULL);
}

bool
pgx_interrupted(void)
{
	static bool said = false;

	if (pgx_caught_signal == 0)
		return false;
	if (!said)
		pgx_log_error("interrupted by signal %d (%s)", (int) pgx_caught_signal,
					  strsignal((int) pgx_caught_signal));
	said = true;
	return true;
}

/* In the child: only async-signal-safe calls until the program is there. */
static void __attribute__((noreturn))
become(const char *const *argv, int keep_fd, pid_t parent, const sigset_t *mask)
{
	struct sigaction action;
	int			null;

	memset(&action, 0, sizeof(action));
	sigemptyset(&action.sa_mask);
	action.sa_handler = SIG_DFL;
	(void) sigaction(SIGPIPE, &action, NULL);
	for (size_t i = 0; i < N_CAUGHT; i++)
		(void) sigaction(caught[i], &action, NULL);
	(void) prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(127);				/* we were too late to be told */
	null = open("/dev/null", O_RDONLY);
	if (null >= 0)
		(void) dup2(null, STDIN_FILENO);
	if (null > STDIN_FILENO)
		(void) close(null);
	if (keep_fd >= 0)
		(void) fcntl(keep_fd, F_SETFD, 0);
	(void) sigprocmask(SIG_SETMASK, mask, NULL);
	(void) execv(argv[0], (char *const *) (uintptr_t) argv);
	_exit(errno == ENOENT ? 127 : 126);
}

bool
pgx_child_run(const char *const *argv, int keep_fd)
{
	sigset_t	all;
	sigset_t	before;
	pid_t		parent = getpid();
	pid_t		pid;
	int			status = 0;

	/* A signal between the test and the fork would find no child to go on to. */
	sigfillset(&all);
	(void) sigprocmask(SIG_BLOCK, &all, &before);
	if (pgx_caught_signal != 0)
	{
		(void) sigprocmask(SIG_SETMASK, &before, NULL);
		return !pgx_interrupted();
	}
	pid = fork();
	if (pid == 0)
		become(argv, keep_fd, parent, &before);
	if (pid > 0)
		running_child = pid;
	(void) sigprocmask(SIG_SETMASK, &before, NULL);
	if (pid < 0)
	{
		pgx_log_error("could not start program \"%s\": %m", argv[0]);
		return false;
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	running_child = 0;

	if (pgx_interrupted())
		return false;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return true;
	if (WIFSIGNALED(status))
		pgx_log_error("program \"%s\" was ended by signal %d", argv[0], WTERMSIG(status));
	else if (WEXITSTATUS(status) == 127 || WEXITSTATUS(status) == 126)
		pgx_log_error("could not run program \"%s\"", argv[0]);
	else
		pgx_log_error("program \"%s\" failed with exit code %d", argv[0], WEXITSTATUS(status));
	return false;
}
