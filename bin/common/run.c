/*
 * run.c
 *		Run another program by its argument vector.  See run.h.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"
#include "mem.h"
#include "run.h"

extern char **environ;

/* More than this of a program's output is read and dropped. */
#define MAX_CAPTURE		(64 * 1024)

enum
{
	STREAM_IN, STREAM_OUT, STREAM_ERR, N_STREAMS
};

struct streams
{
	int			ours[N_STREAMS];	/* -1 if not piped, or closed */
	int			theirs[N_STREAMS];
};

static void
close_fd(int *fd)
{
	if (*fd >= 0)
		(void) close(*fd);
	*fd = -1;
}

static bool
streams_open(const struct pgx_run *run, struct streams *s)
{
	bool		piped[N_STREAMS];
	int			i;

	piped[STREAM_IN] = run->input != NULL;
	piped[STREAM_OUT] = run->capture_out;
	piped[STREAM_ERR] = run->capture_err;
	for (i = 0; i < N_STREAMS; i++)
	{
		int			fds[2];

		if (!piped[i])
			continue;
		if (pipe2(fds, O_CLOEXEC) != 0)
		{
			pgx_log_error("could not create a pipe: %m");
			return false;
		}
		s->ours[i] = i == STREAM_IN ? fds[1] : fds[0];
		s->theirs[i] = i == STREAM_IN ? fds[0] : fds[1];
		/* Our ends never block, so that two full pipes cannot wait for each other. */
		(void) fcntl(s->ours[i], F_SETFL, O_NONBLOCK);
	}
	return true;
}

static bool
start(const struct pgx_run *run, const struct streams *s, pid_t *ret_pid)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t	defaults;
	int			rc;
	int			i;

	(void) posix_spawn_file_actions_init(&actions);
	(void) posix_spawnattr_init(&attr);
	/* We ignore SIGPIPE while we feed the child; it must not inherit that. */
	sigemptyset(&defaults);
	sigaddset(&defaults, SIGPIPE);
	(void) posix_spawnattr_setsigdefault(&attr, &defaults);
	(void) posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF);

	rc = 0;
	if (s->theirs[STREAM_IN] < 0 && !run->inherit_in)
		rc = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	for (i = 0; rc == 0 && i < N_STREAMS; i++)
	{
		if (s->theirs[i] >= 0)
			rc = posix_spawn_file_actions_adddup2(&actions, s->theirs[i], i);
	}
	if (rc == 0)
		rc = posix_spawnp(ret_pid, run->argv[0], &actions, &attr,
						  (char *const *) (uintptr_t) run->argv, environ);
	(void) posix_spawn_file_actions_destroy(&actions);
	(void) posix_spawnattr_destroy(&attr);
	if (rc != 0)
	{
		errno = rc;
		pgx_log_error("could not run program \"%s\": %m", run->argv[0]);
		return false;
	}
	return true;
}

static void
feed(struct pgx_run *run, struct streams *s, size_t *done)
{
	ssize_t		n = write(s->ours[STREAM_IN], (const char *) run->input + *done,
						  run->input_len - *done);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n > 0)
		*done += (size_t) n;
	if (n < 0 || *done == run->input_len)
		close_fd(&s->ours[STREAM_IN]);
}

static void
drain(int *fd, char *text, size_t *len)
{
	char		scrap[4096];
	ssize_t		n;

	n = read(*fd, scrap, sizeof(scrap));
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0)
	{
		close_fd(fd);
		return;
	}
	if ((size_t) n > MAX_CAPTURE - *len)
		n = (ssize_t) (MAX_CAPTURE - *len);
	memcpy(text + *len, scrap, (size_t) n);
	*len += (size_t) n;
}

static void
exchange(struct pgx_run *run, struct streams *s)
{
	size_t		done = 0;
	size_t		out_len = 0;
	size_t		err_len = 0;

	if (run->input != NULL && run->input_len == 0)
		close_fd(&s->ours[STREAM_IN]);
	for (;;)
	{
		struct pollfd fds[N_STREAMS];
		int			i;
		int			open_count = 0;

		for (i = 0; i < N_STREAMS; i++)
		{
			fds[i].fd = s->ours[i]; /* poll() skips -1 */
			fds[i].events = i == STREAM_IN ? POLLOUT : POLLIN;
			fds[i].revents = 0;
			open_count += s->ours[i] >= 0;
		}
		if (open_count == 0)
			return;
		if (poll(fds, N_STREAMS, -1) < 0)
			continue;			/* EINTR; nothing else is possible with these arguments */
		if (fds[STREAM_IN].revents != 0)
			feed(run, s, &done);
		if (fds[STREAM_OUT].revents != 0)
			drain(&s->ours[STREAM_OUT], run->out, &out_len);
		if (fds[STREAM_ERR].revents != 0)
			drain(&s->ours[STREAM_ERR], run->err, &err_len);
	}
}

bool
pgx_run_wait(struct pgx_run *run)
{
	struct streams s = {{-1, -1, -1}, {-1, -1, -1}};
	struct sigaction ignore;
	struct sigaction old;
	bool		ok = false;
	int			status = 0;
	pid_t		pid = 0;
	int			i;

	run->exit_code = -1;
	run->signo = 0;
	run->out = run->capture_out ? pgx_alloc(MAX_CAPTURE + 1) : NULL;
	run->err = run->capture_err ? pgx_alloc(MAX_CAPTURE + 1) : NULL;

	memset(&ignore, 0, sizeof(ignore));
	sigemptyset(&ignore.sa_mask);
	ignore.sa_handler = SIG_IGN;
	(void) sigaction(SIGPIPE, &ignore, &old);

	if (!streams_open(run, &s) || !start(run, &s, &pid))
		goto out;
	for (i = 0; i < N_STREAMS; i++)
		close_fd(&s.theirs[i]);
	exchange(run, &s);
	while (waitpid(pid, &status, 0) < 0)
	{
		if (errno != EINTR)
		{
			pgx_log_error("could not wait for program \"%s\": %m", run->argv[0]);
			goto out;
		}
	}
	if (WIFEXITED(status))
		run->exit_code = WEXITSTATUS(status);
	else
		run->signo = WTERMSIG(status);
	ok = true;

out:
	for (i = 0; i < N_STREAMS; i++)
	{
		close_fd(&s.theirs[i]);
		close_fd(&s.ours[i]);
	}
	(void) sigaction(SIGPIPE, &old, NULL);
	return ok;
}

void
pgx_run_clear(struct pgx_run *run)
{
	free(run->out);
	free(run->err);
	run->out = NULL;
	run->err = NULL;
}
