/*
 * prompt.c
 *		Reading passphrases.  See prompt.h.
 *
 * The terminal part must leave the terminal as it was whatever ends it, and
 * must not lose a signal: handlers only note what came; once the echo is back, each
 * signal is sent again under its former disposition.  While the echo is off, signals
 * are let in only inside ppoll(): one that came just before a read() would be noted,
 * and the read would wait for a line all the same.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "file.h"
#include "log.h"
#include "prompt.h"

/* What can end or stop the process while the echo is off. */
static const int caught_signals[] = {
	SIGALRM, SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU
};
#define N_CAUGHT (sizeof(caught_signals) / sizeof(caught_signals[0]))

static volatile sig_atomic_t signal_seen[N_CAUGHT];

enum line_result
{
	LINE_OK,
	LINE_EOF,
	LINE_FAILED,				/* errno says why */
	LINE_INTERRUPTED
};

static void
note_signal(int signo)
{
	size_t		i;

	for (i = 0; i < N_CAUGHT; i++)
	{
		if (caught_signals[i] == signo)
			signal_seen[i] = 1;
	}
}

static bool
any_signal_seen(void)
{
	size_t		i;

	for (i = 0; i < N_CAUGHT; i++)
	{
		if (signal_seen[i])
			return true;
	}
	return false;
}

/* Wait for input with the signals of wait_mask let in (NULL: do not wait); false: errno. */
static bool
wait_for_input(int fd, const sigset_t *wait_mask)
{
	struct pollfd poller = {.fd = fd, .events = POLLIN};

	return wait_mask == NULL || ppoll(&poller, 1, NULL, wait_mask) >= 0;
}

/*
 * Pages of their own, since a passphrase is there for as long as the command works: they are kept out of core
 * dumps, which the stack is not.
 */
bool
pgx_passphrase_alloc(struct pgx_passphrase *pass)
{
	void	   *p = mmap(NULL, PGX_PASSPHRASE_BUF, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	pass->len = 0;
	pass->bytes = p != MAP_FAILED ? p : NULL;
	if (pass->bytes == NULL)
	{
		pgx_log_error("out of memory");
		return false;
	}
	(void) madvise(p, PGX_PASSPHRASE_BUF, MADV_DONTDUMP);
	pgx_secret_lock(p, PGX_PASSPHRASE_BUF);
	return true;
}

/*
 * Read one line, byte by byte so that what follows it stays for the next reader
 * of the descriptor.  The rest of an overlong line is read and dropped.
 */
static enum line_result
read_line(int fd, const sigset_t *wait_mask, struct pgx_passphrase *pass)
{
	size_t		len = 0;
	bool		any = false;
	char		c = '\0';

	for (;;)
	{
		ssize_t		n = wait_for_input(fd, wait_mask) ? read(fd, &c, 1) : -1;

		if (n < 0 && errno == EINTR && !any_signal_seen())
			continue;
		if (n < 0)
			return any_signal_seen() ? LINE_INTERRUPTED : LINE_FAILED;
		if (any_signal_seen())
			return LINE_INTERRUPTED;
		if (n == 0 && !any)
			return LINE_EOF;
		if (n == 0 || c == '\n')
			break;
		any = true;
		if (len < PGX_PASSPHRASE_BUF)
			pass->bytes[len++] = c;
	}
	c = '\0';
	/* A file from another system may end its lines with CR LF. */
	if (len > 0 && len < PGX_PASSPHRASE_BUF && pass->bytes[len - 1] == '\r')
		len--;
	pass->len = len;
	return LINE_OK;
}

bool
pgx_prompt_interactive(void)
{
	return isatty(STDIN_FILENO) == 1;
}

static bool
write_text(int fd, const char *text)
{
	size_t		left = strlen(text);

	while (left > 0)
	{
		ssize_t		n = write(fd, text, left);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return false;
		text += n;
		left -= (size_t) n;
	}
	return true;
}

/* Prompt on the terminal once; echo is off while the line is read. */
static enum line_result
ask_once(int in, int out, const char *prompt, struct pgx_passphrase *pass)
{
	struct sigaction act;
	struct sigaction old_act[N_CAUGHT];
	struct termios old_mode;
	struct termios mode;
	sigset_t	held;
	sigset_t	old_mask;
	enum line_result result = LINE_FAILED;
	int			save_errno;
	size_t		i;

	memset(&act, 0, sizeof(act));
	sigemptyset(&act.sa_mask);
	act.sa_handler = note_signal;	/* no SA_RESTART: the read must return */
	sigemptyset(&held);
	for (i = 0; i < N_CAUGHT; i++)
	{
		signal_seen[i] = 0;
		(void) sigaction(caught_signals[i], &act, &old_act[i]);
		/* The two of terminal access interrupt the calls that cause them; held back, they would not. */
		if (caught_signals[i] != SIGTTIN && caught_signals[i] != SIGTTOU)
			sigaddset(&held, caught_signals[i]);
	}
	(void) sigprocmask(SIG_BLOCK, &held, &old_mask);

	if (tcgetattr(in, &old_mode) == 0)
	{
		mode = old_mode;
		mode.c_lflag &= ~(tcflag_t) (ECHO | ECHONL);
		if (tcsetattr(in, TCSAFLUSH, &mode) == 0)
		{
			if (write_text(out, prompt))
				result = read_line(in, &old_mask, pass);
			save_errno = errno;
			/* The user's return key was not echoed; a failed restore has no better end than trying. */
			(void) write_text(out, "\n");
			while (tcsetattr(in, TCSAFLUSH, &old_mode) != 0 && errno == EINTR)
				continue;
			errno = save_errno;
		}
		else if (any_signal_seen())
			result = LINE_INTERRUPTED;
	}

	save_errno = errno;
	/* What is still held back is noted now, while the handlers are in place. */
	(void) sigprocmask(SIG_SETMASK, &old_mask, NULL);
	for (i = 0; i < N_CAUGHT; i++)
		(void) sigaction(caught_signals[i], &old_act[i], NULL);
	for (i = 0; i < N_CAUGHT; i++)
	{
		if (signal_seen[i])
			(void) kill(getpid(), caught_signals[i]);
	}
	errno = save_errno;
	return result;
}

/*
 * Ask on the controlling terminal, or on standard input if that is a terminal
 * but not the controlling one.  After a stop and continue, ask again.
 */
static enum line_result
ask(const char *prompt, struct pgx_passphrase *pass)
{
	enum line_result result;
	int			tty = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);

	do
	{
		if (tty >= 0)
			result = ask_once(tty, tty, prompt, pass);
		else
			result = ask_once(STDIN_FILENO, STDERR_FILENO, prompt, pass);
	} while (result == LINE_INTERRUPTED);
	if (tty >= 0)
		(void) close(tty);
	return result;
}

static bool
from_terminal(const char *prompt, const char *again, struct pgx_passphrase *pass)
{
	struct pgx_passphrase second;
	enum line_result result;
	bool		ok = false;

	if (!pgx_passphrase_alloc(&second))
		return false;
	result = ask(prompt, pass);
	if (result == LINE_OK && again != NULL)
		result = ask(again, &second);
	if (result == LINE_EOF)
	{
		pgx_log_error("no passphrase was entered");
		goto out;
	}
	if (result != LINE_OK)
	{
		pgx_log_error("could not read the passphrase from the terminal: %m");
		goto out;
	}
	if (again != NULL &&
		(pass->len != second.len || memcmp(pass->bytes, second.bytes, pass->len) != 0))
	{
		pgx_log_error("the two passphrases are not the same");
		goto out;
	}
	ok = true;

out:
	pgx_passphrase_wipe(&second);
	return ok;
}

static bool
from_stdin(struct pgx_passphrase *pass)
{
	memset((void *) signal_seen, 0, sizeof(signal_seen));
	switch (read_line(STDIN_FILENO, NULL, pass))
	{
		case LINE_OK:
			return true;
		case LINE_EOF:
			pgx_log_error("could not read the passphrase: end of file on standard input");
			break;
		default:
			pgx_log_error("could not read the passphrase from standard input: %m");
			break;
	}
	pgx_log_hint("Run the command on a terminal, or write the passphrase to its standard input as "
				 "one line.");
	return false;
}

static bool
from_file(const char *file, struct pgx_passphrase *pass)
{
	uint8_t    *buf = NULL;
	size_t		size = 0;
	size_t		len;

	if (!pgx_file_read(file, 4096, S_IRWXG | S_IRWXO, "0600", &buf, &size))
		return false;
	pgx_secret_lock(buf, size);
	len = 0;
	while (len < size && buf[len] != '\n')
		len++;
	if (len > 0 && buf[len - 1] == '\r')
		len--;
	pass->len = len < PGX_PASSPHRASE_BUF ? len : PGX_PASSPHRASE_BUF;
	memcpy(pass->bytes, buf, pass->len);
	keystore_wipe(buf, size);
	free(buf);
	return true;
}

bool
pgx_passphrase_read(const char *file, const char *prompt, const char *again,
					struct pgx_passphrase *ret_passphrase)
{
	bool		ok;

	if (!pgx_passphrase_alloc(ret_passphrase))
		return false;
	if (file != NULL)
		ok = from_file(file, ret_passphrase);
	else if (pgx_prompt_interactive())
		ok = from_terminal(prompt, again, ret_passphrase);
	else
		ok = from_stdin(ret_passphrase);

	/* SQL could never give such a passphrase again. */
	if (ok && memchr(ret_passphrase->bytes, '\0', ret_passphrase->len) != NULL)
	{
		pgx_log_error("the passphrase contains a zero byte");
		ok = false;
	}
	if (!ok)
		pgx_passphrase_wipe(ret_passphrase);
	return ok;
}

bool
pgx_passphrase_read_more(const char *prompt, struct pgx_passphrase *ret_passphrase, bool *ret_got)
{
	enum line_result result;

	if (!pgx_passphrase_alloc(ret_passphrase))
		return false;
	if (pgx_prompt_interactive())
		result = ask(prompt, ret_passphrase);
	else
	{
		memset((void *) signal_seen, 0, sizeof(signal_seen));
		result = read_line(STDIN_FILENO, NULL, ret_passphrase);
	}
	if (result != LINE_OK && result != LINE_EOF)
	{
		pgx_log_error("could not read the passphrase: %m");
		return false;
	}
	*ret_got = result == LINE_OK && ret_passphrase->len > 0;
	return true;
}

void
pgx_secret_lock(void *p, size_t len)
{
	if (len > 0)
		(void) mlock(p, len);
}

void
pgx_passphrase_wipe(struct pgx_passphrase *passphrase)
{
	if (passphrase->bytes != NULL)
	{
		keystore_wipe(passphrase->bytes, PGX_PASSPHRASE_BUF);
		(void) munmap(passphrase->bytes, PGX_PASSPHRASE_BUF);
	}
	passphrase->bytes = NULL;
	passphrase->len = 0;
}
