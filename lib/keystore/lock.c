/*
 * lock.c
 *		The lock that keeps other writers of a keystore out.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "ksi.h"

#define LOCK_POLL_NS		10000000

static int64_t
now_ms(void)
{
	struct timespec ts;

	(void) clock_gettime(CLOCK_MONOTONIC, &ts);	/* cannot fail with this clock */
	return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* flock() with a time limit: there is none in the system, so ask again and again. */
static enum keystore_status
take_lock(keystore *ks, const char *path, int fd, unsigned wait_ms)
{
	const struct timespec pause = {0, LOCK_POLL_NS};
	int64_t		deadline = now_ms() + wait_ms;

	while (flock(fd, LOCK_EX | LOCK_NB) != 0)
	{
		if (errno == EINTR)
			continue;
		if (errno != EWOULDBLOCK)
			return ksi_fail(ks, KEYSTORE_EIO, "could not lock keystore \"%s\": %m", path);
		if (now_ms() >= deadline)
		{
			(void) ksi_fail(ks, KEYSTORE_EBUSY, "keystore \"%s\" is being changed by another process",
							path);
			return ksi_hint(ks, KEYSTORE_EBUSY, "Try again when it has finished.");
		}
		(void) nanosleep(&pause, NULL);	/* woken early is fine */
	}
	return KEYSTORE_OK;
}

enum keystore_status
keystore_lock(keystore *ks, const char *path, unsigned wait_ms, int *ret_fd)
{
	enum keystore_status status;
	struct ksi_place place = {-1, NULL, NULL};
	struct stat st;
	int			fd = -1;

	ksi_clear_error(ks);
	status = ksi_place_open(ks, path, &place);
	if (status != KEYSTORE_OK)
		goto out;
	fd = openat(place.dirfd, KEYSTORE_LOCK_NAME,
				O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, S_IRUSR | S_IWUSR);
	if (fd < 0 || fstat(fd, &st) != 0)
	{
		status = ksi_fail(ks, KEYSTORE_EIO, "could not open file \"%s%s\": %m", place.prefix,
						  KEYSTORE_LOCK_NAME);
		goto out;
	}
	status = ksi_check_stat(ks, place.prefix, KEYSTORE_LOCK_NAME, &st, false);
	if (status == KEYSTORE_OK)
		status = take_lock(ks, path, fd, wait_ms);
	if (status == KEYSTORE_OK)
	{
		*ret_fd = fd;
		fd = -1;
	}

out:
	if (fd >= 0)
		(void) close(fd);
	ksi_place_close(&place);
	return status;
}

void
keystore_unlock(int fd)
{
	if (fd >= 0)
		(void) close(fd);
}
