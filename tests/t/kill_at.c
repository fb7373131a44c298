/*
 * kill_at.c
 *		A shared object that kills pgx_encrypt at a chosen call by which it changes the disk.
 *
 * $KILL_AT is the number of that call, counted from 1: it does not happen, or if it is a write, half of it does;
 * the process is gone by SIGKILL.  With 0 nothing happens to it.  Each call is noted in the file $KILL_AT_LOG as
 * "NUMBER NAME PATH".  Other programs are left alone.
 */
#include <config.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PROGRAM		"pgx_encrypt"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long kill_at = -1;		/* -1: not our program */
static long calls;
static int	log_fd = -1;

__attribute__((constructor))
static void
kill_at_constructor(void)
{
	const char *number = getenv("KILL_AT");
	const char *path = getenv("KILL_AT_LOG");

	if (strcmp(program_invocation_short_name, PROGRAM) != 0)
		return;
	if (number == NULL || path == NULL)
		abort();				/* a test that kills nobody would prove nothing */
	log_fd = (int) syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (log_fd < 0)
		abort();
	kill_at = atol(number);
}

static void
die(void)
{
	(void) kill(getpid(), SIGKILL);
	for (;;)
		(void) pause();
}

/* Whether the call is the one.  The lock is kept then, so that nothing happens after it. */
static int
is_last(const char *name, const char *path)
{
	char		line[4096];
	int			len;

	if (kill_at < 0)
		return 0;
	(void) pthread_mutex_lock(&lock);
	len = snprintf(line, sizeof(line), "%ld %s %s\n", ++calls, name, path);
	if (syscall(SYS_write, log_fd, line, (size_t) len) != len)
		abort();
	if (calls == kill_at)
		return 1;
	(void) pthread_mutex_unlock(&lock);
	return 0;
}

static int
is_last_fd(const char *name, int fd)
{
	char		link[64];
	char		path[2048] = "";
	ssize_t		len;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	len = readlink(link, path, sizeof(path) - 1);
	path[len < 0 ? 0 : len] = '\0';
	/* What is said to the user is not on disk. */
	return path[0] == '/' && strncmp(path, "/dev/", 5) != 0 && fd > STDERR_FILENO && is_last(name, path);
}

int
open(const char *path, int flags,...)
{
	mode_t		mode = 0;
	va_list		args;

	if (flags & O_CREAT)
	{
		va_start(args, flags);
		mode = va_arg(args, mode_t);
		va_end(args);
		if (is_last("open", path))
			die();
	}
	return (int) syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

ssize_t
write(int fd, const void *buf, size_t len)
{
	if (is_last_fd("write", fd))
	{
		if (syscall(SYS_write, fd, buf, len / 2) < 0)
			abort();
		die();
	}
	return syscall(SYS_write, fd, buf, len);
}

int
fsync(int fd)
{
	if (is_last_fd("fsync", fd))
		die();
	return (int) syscall(SYS_fsync, fd);
}

int
ftruncate(int fd, off_t len)
{
	if (is_last_fd("ftruncate", fd))
		die();
	return (int) syscall(SYS_ftruncate, fd, len);
}

int
rename(const char *from, const char *to)
{
	if (is_last("rename", to))
		die();
	return (int) syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int
unlink(const char *path)
{
	if (is_last("unlink", path))
		die();
	return (int) syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int
rmdir(const char *path)
{
	if (is_last("rmdir", path))
		die();
	return (int) syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
}

int
mkdir(const char *path, mode_t mode)
{
	if (is_last("mkdir", path))
		die();
	return (int) syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}
