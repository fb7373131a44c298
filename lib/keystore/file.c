/*
 * file.c
 *		Files on disk: opened with suspicion, replaced so that a crash at any point
 *		leaves the old one or the new one, locked against other writers.
 *
 * Everything happens relative to one open directory, so that what was checked and
 * what is used cannot differ.  What is in the files is not known here, except
 * that keystore_store_bytes() stores keystores only.
 */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "ksi.h"

#define LOCK_POLL_NS		10000000
#define NAME_TRIES			100

/* ---- looking before opening -------------------------------------------------------- */

static const char *
user_name(uid_t uid, char *buf, size_t size)
{
	struct passwd pw;
	struct passwd *found = NULL;
	char		space[4096];

	if (getpwuid_r(uid, &pw, space, sizeof(space), &found) == 0 && found != NULL)
		(void) snprintf(buf, size, "%s", found->pw_name);
	else
		(void) snprintf(buf, size, "%lu", (unsigned long) uid);
	return buf;
}

/*
 * Whoever can write a keystore, or the directory it is in, can replace it; whoever
 * can read it can guess passphrases at leisure.  So: ours or root's, and
 * nothing for group and others.
 */
enum keystore_status
ksi_check_stat(keystore *ks, const char *prefix, const char *base, const struct stat *st,
			   bool is_dir)
{
	const char *what = is_dir ? "directory" : "file";
	char		name[64];

	if (is_dir ? !S_ISDIR(st->st_mode) : !S_ISREG(st->st_mode))
		return ksi_fail(ks, KEYSTORE_EPERM, "\"%s%s\" is not a %s", prefix, base,
						is_dir ? "directory" : "regular file");
	if (st->st_uid != geteuid() && st->st_uid != 0)
	{
		(void) ksi_fail(ks, KEYSTORE_EPERM, "%s \"%s%s\" has the wrong owner", what, prefix, base);
		return ksi_hint(ks, KEYSTORE_EPERM,
						"Run this as the owner, or run \"chown %s %s%s\" as root.",
						user_name(geteuid(), name, sizeof(name)), prefix, base);
	}
	if ((st->st_mode & (S_IRWXG | S_IRWXO)) != 0)
	{
		(void) ksi_fail(ks, KEYSTORE_EPERM,
						"%s \"%s%s\" has group or other access (mode %04o)", what, prefix, base,
						(unsigned) (st->st_mode & 07777));
		return ksi_hint(ks, KEYSTORE_EPERM, "Run \"chmod %s %s%s\".",
						is_dir ? "700" : "600", prefix, base);
	}
	return KEYSTORE_OK;
}

static enum keystore_status
open_dir(keystore *ks, const char *dir, int *ret_fd)
{
	enum keystore_status status;
	struct stat st;
	int			fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
	{
		int			save_errno = errno;

		if (save_errno == ENOENT)
		{
			(void) ksi_fail(ks, KEYSTORE_ENOENT, "directory \"%s\" does not exist", dir);
			return ksi_hint(ks, KEYSTORE_ENOENT,
							"Make sure that the location is correct, or run \"mkdir -m 700 %s\".",
							dir);
		}
		if (lstat(dir, &st) == 0 && S_ISLNK(st.st_mode))
		{
			(void) ksi_fail(ks, KEYSTORE_EPERM, "directory \"%s\" is a symbolic link", dir);
			return ksi_hint(ks, KEYSTORE_EPERM, "Name the directory that the link points to.");
		}
		if (save_errno == ENOTDIR)
			return ksi_fail(ks, KEYSTORE_EPERM, "\"%s\" is not a directory", dir);
		errno = save_errno;
		return ksi_fail(ks, KEYSTORE_EIO, "could not open directory \"%s\": %m", dir);
	}
	if (fstat(fd, &st) != 0)
		status = ksi_fail(ks, KEYSTORE_EIO, "could not stat directory \"%s\": %m", dir);
	else
		status = ksi_check_stat(ks, dir, "", &st, true);
	if (status == KEYSTORE_OK)
		*ret_fd = fd;
	else
		(void) close(fd);
	return status;
}

/* A trailing slash would make open() follow a symbolic link. */
static char *
without_slashes(const char *dir, size_t len)
{
	while (len > 1 && dir[len - 1] == '/')
		len--;
	return len > 0 ? strndup(dir, len) : strdup(".");
}

enum keystore_status
keystore_check_directory(keystore *ks, const char *dir)
{
	enum keystore_status status;
	char	   *name = without_slashes(dir, strlen(dir));
	int			fd;

	ksi_clear_error(ks);
	if (name == NULL)
		return ksi_nomem(ks);
	status = open_dir(ks, name, &fd);
	if (status == KEYSTORE_OK)
		(void) close(fd);
	free(name);
	return status;
}

/* *ret_place is to be closed whatever the result. */
enum keystore_status
ksi_place_open(keystore *ks, const char *path, struct ksi_place *ret_place)
{
	enum keystore_status status;
	const char *slash = strrchr(path, '/');
	const char *base = slash != NULL ? slash + 1 : path;
	char	   *dir = NULL;

	ret_place->dirfd = -1;
	ret_place->base = base;
	ret_place->prefix = strndup(path, (size_t) (base - path));
	dir = without_slashes(path, (size_t) (base - path));
	if (ret_place->prefix == NULL || dir == NULL)
		status = ksi_nomem(ks);
	else if (base[0] == '\0' || strcmp(base, ".") == 0 || strcmp(base, "..") == 0)
		status = ksi_fail(ks, KEYSTORE_EPERM, "\"%s\" is not a regular file", path);
	else
		status = open_dir(ks, dir, &ret_place->dirfd);
	free(dir);
	return status;
}

void
ksi_place_close(struct ksi_place *place)
{
	if (place->dirfd >= 0)
		(void) close(place->dirfd);
	place->dirfd = -1;
	free(place->prefix);
	place->prefix = NULL;
}

/* ---- reading --------------------------------------------------------------------- */

/* Read up to len bytes; less means end of file.  -1 with errno set if reading fails. */
ssize_t
ksi_read_all(int fd, uint8_t *buf, size_t len)
{
	size_t		done = 0;

	while (done < len)
	{
		ssize_t		n = read(fd, buf + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		done += (size_t) n;
	}
	return (ssize_t) done;
}

/* Read a file of ours, whole.  KEYSTORE_ENOENT if it is not there. */
enum keystore_status
ksi_file_read(keystore *ks, const struct ksi_place *place, const char *base, size_t max_len,
			  uint8_t **ret_buf, size_t *ret_len)
{
	enum keystore_status status;
	uint8_t    *buf = NULL;
	ssize_t		got;
	struct stat st;
	int			fd;

	/* O_NONBLOCK: a FIFO in place of the file must not make us wait for a writer. */
	fd = openat(place->dirfd, base, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
	{
		if (errno == ENOENT)
			return ksi_fail(ks, KEYSTORE_ENOENT, "file \"%s%s\" does not exist", place->prefix,
							base);
		if (errno == ELOOP)
			return ksi_fail(ks, KEYSTORE_EPERM, "file \"%s%s\" is a symbolic link",
							place->prefix, base);
		return ksi_fail(ks, KEYSTORE_EIO, "could not open file \"%s%s\": %m", place->prefix,
						base);
	}
	if (fstat(fd, &st) != 0)
	{
		status = ksi_fail(ks, KEYSTORE_EIO, "could not stat file \"%s%s\": %m", place->prefix,
						  base);
		goto out;
	}
	status = ksi_check_stat(ks, place->prefix, base, &st, false);
	if (status != KEYSTORE_OK)
		goto out;
	if (st.st_size > (off_t) max_len)
	{
		status = ksi_fail(ks, KEYSTORE_EFORMAT,
						  "file \"%s%s\" is not a keystore: size = %lld bytes, at most %zu bytes are possible",
						  place->prefix, base, (long long) st.st_size, max_len);
		goto out;
	}
	buf = malloc((size_t) st.st_size + 1);
	if (buf == NULL)
	{
		status = ksi_nomem(ks);
		goto out;
	}
	got = ksi_read_all(fd, buf, (size_t) st.st_size);
	if (got < 0)
	{
		status = ksi_fail(ks, KEYSTORE_EIO, "could not read file \"%s%s\": %m", place->prefix,
						  base);
		goto out;
	}
	*ret_buf = buf;
	buf = NULL;
	*ret_len = (size_t) got;

out:
	free(buf);
	(void) close(fd);
	return status;
}

/* ---- replacing ---------------------------------------------------------------------- */

static bool
is_new_file_of(const char *name, const char *base)
{
	size_t		len = strlen(base);

	return strncmp(name, base, len) == 0 &&
		strncmp(name + len, KSI_NEW_SUFFIX, strlen(KSI_NEW_SUFFIX)) == 0;
}

/*
 * Remove what writers that died have left.  A living one holds a lock on its file.
 * Best effort: nothing depends on it but tidiness.
 */
void
ksi_sweep(const struct ksi_place *place, const char *base)
{
	int			fd = openat(place->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR		   *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;

	if (dir == NULL)
	{
		if (fd >= 0)
			(void) close(fd);
		return;
	}
	while ((entry = readdir(dir)) != NULL)
	{
		int			left;

		if (!is_new_file_of(entry->d_name, base))
			continue;
		left = openat(place->dirfd, entry->d_name,
					  O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
		if (left < 0)
			continue;
		if (flock(left, LOCK_EX | LOCK_NB) == 0)
			(void) unlinkat(place->dirfd, entry->d_name, 0);
		(void) close(left);
	}
	(void) closedir(dir);
}

/*
 * Create a file of a name of its own, and lock it for ksi_sweep().  Another writer's
 * ksi_sweep() may take it in the moment between; then try the next name.
 */
static enum keystore_status
create_new(keystore *ks, const struct ksi_place *place, const char *base, char *name, size_t size,
		   int *ret_fd)
{
	errno = EEXIST;				/* what the last of too many tries failed with */
	for (int i = 0; i < NAME_TRIES; i++)
	{
		uint64_t	random;
		struct stat st;
		int			fd;

		if (!ksi_random(&random, sizeof(random)))
			return ksi_fail(ks, KEYSTORE_ECRYPTO, "could not generate a random file name: %s",
							ksi_crypto_reason());
		if ((size_t) snprintf(name, size, "%s" KSI_NEW_SUFFIX "%016llx", base,
							  (unsigned long long) random) >= size)
			return ksi_fail(ks, KEYSTORE_EINVAL, "file name \"%s\" is too long", base);
		fd = openat(place->dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
					S_IRUSR | S_IWUSR);
		if (fd < 0 && errno == EEXIST)
			continue;
		if (fd < 0)
			break;

		/* Where there is no flock() there is no ksi_sweep() either, so its failure does not matter. */
		(void) flock(fd, LOCK_EX);
		if (fchmod(fd, S_IRUSR | S_IWUSR) == 0 && fstat(fd, &st) == 0 && st.st_nlink > 0)
		{
			*ret_fd = fd;
			return KEYSTORE_OK;
		}
		(void) unlinkat(place->dirfd, name, 0);
		(void) close(fd);
	}
	return ksi_fail(ks, KEYSTORE_EIO, "could not create file \"%s%s\": %m", place->prefix, base);
}

static bool
write_all(int fd, const uint8_t *buf, size_t len)
{
	while (len > 0)
	{
		ssize_t		n = write(fd, buf, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
		{
			if (n == 0)
				errno = ENOSPC;
			return false;
		}
		buf += n;
		len -= (size_t) n;
	}
	return true;
}

/* Is what the file system gives back what was written? */
static enum keystore_status
verify(keystore *ks, const struct ksi_place *place, const char *name, const void *buf,
	   size_t len)
{
	enum keystore_status status;
	uint8_t    *back = NULL;
	size_t		back_len = 0;

	status = ksi_file_read(ks, place, name, len + 1, &back, &back_len);
	if (status == KEYSTORE_OK && (back_len != len || memcmp(back, buf, len) != 0))
		status = ksi_fail(ks, KEYSTORE_EIO, "file \"%s%s\" does not hold what was written to it",
						  place->prefix, name);
	free(back);
	return status;
}

/*
 * Put the bytes in place of the file, durably.  On any failure before the rename
 * the former file is untouched and the new one gone; if only the last fsync of
 * the directory fails, the new file is in place but may not survive a crash.
 */
enum keystore_status
ksi_replace(keystore *ks, const struct ksi_place *place, const char *base, const void *buf,
			size_t len, enum ksi_existing existing)
{
	enum keystore_status status;
	char		name[256];
	bool		created = true;
	int			fd = -1;

	ksi_sweep(place, base);
	status = create_new(ks, place, base, name, sizeof(name), &fd);
	if (status != KEYSTORE_OK)
		return status;
	if (!write_all(fd, buf, len))
	{
		status = ksi_fail(ks, KEYSTORE_EIO, "could not write file \"%s%s\": %m", place->prefix,
						  base);
		goto out;
	}
	if (fsync(fd) != 0)
	{
		status = ksi_fail(ks, KEYSTORE_EIO, "could not fsync file \"%s%s\": %m", place->prefix,
						  base);
		goto out;
	}
	status = verify(ks, place, name, buf, len);
	if (status != KEYSTORE_OK)
		goto out;
	if (existing == KSI_KEEP)
	{
		/* link() fails if the name is taken; the temporary name is removed below. */
		if (linkat(place->dirfd, name, place->dirfd, base, 0) != 0)
		{
			status = ksi_fail(ks, errno == EEXIST ? KEYSTORE_EEXIST : KEYSTORE_EIO,
							  "could not create file \"%s%s\": %m", place->prefix, base);
			goto out;
		}
	}
	else
	{
		if (renameat(place->dirfd, name, place->dirfd, base) != 0)
		{
			status = ksi_fail(ks, KEYSTORE_EIO, "could not rename file \"%s%s\" to \"%s%s\": %m",
							  place->prefix, name, place->prefix, base);
			goto out;
		}
		created = false;
	}
	if (fsync(place->dirfd) != 0)
		status = ksi_fail(ks, KEYSTORE_EIO, "could not fsync directory of \"%s%s\": %m",
						  place->prefix, base);

out:
	if (created)
		(void) unlinkat(place->dirfd, name, 0);
	(void) close(fd);
	return status;
}

/* The bytes are there already; make sure that they also survive a crash. */
static enum keystore_status
sync_existing(keystore *ks, const struct ksi_place *place)
{
	enum keystore_status status = KEYSTORE_OK;
	int			fd = openat(place->dirfd, place->base, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0 || fsync(fd) != 0 || fsync(place->dirfd) != 0)
		status = ksi_fail(ks, KEYSTORE_EIO, "could not fsync file \"%s%s\": %m", place->prefix,
						  place->base);
	if (fd >= 0)
		(void) close(fd);
	return status;
}

/* Keep the former file as .prev, unless it is damaged: then what .prev holds is better. */
static enum keystore_status
keep_former(keystore *ks, const struct ksi_place *place, const uint8_t *former, size_t len,
			struct ksi_header *scratch)
{
	struct ksi_layout layout;
	char		name[256];

	if (ksi_check_bytes(ks, place->base, former, len, scratch, &layout) != KEYSTORE_OK)
	{
		ksi_clear_error(ks);
		return KEYSTORE_OK;
	}
	if ((size_t) snprintf(name, sizeof(name), "%s" KSI_PREV_SUFFIX, place->base) >= sizeof(name))
		return ksi_fail(ks, KEYSTORE_EINVAL, "file name \"%s\" is too long", place->base);
	return ksi_replace(ks, place, name, former, len, KSI_OVERWRITE);
}

enum keystore_status
keystore_store_bytes(keystore *ks, const char *path, const void *buf, size_t len)
{
	enum keystore_status status;
	struct ksi_place place = {-1, NULL, NULL};
	struct ksi_header *scratch = NULL;
	struct ksi_layout layout;
	uint8_t    *former = NULL;
	size_t		former_len = 0;

	ksi_clear_error(ks);
	scratch = malloc(sizeof(*scratch));
	if (scratch == NULL)
		return ksi_nomem(ks);
	status = ksi_check_bytes(ks, path, buf, len, scratch, &layout);
	if (status != KEYSTORE_OK)
		goto out;
	status = ksi_place_open(ks, path, &place);
	if (status != KEYSTORE_OK)
		goto out;

	/* Something too large to be a keystore has nothing worth keeping. */
	status = ksi_file_read(ks, &place, place.base, KEYSTORE_MAX_FILE_SIZE, &former, &former_len);
	if (status != KEYSTORE_OK && status != KEYSTORE_ENOENT && status != KEYSTORE_EFORMAT)
		goto out;
	ksi_clear_error(ks);
	if (former != NULL && former_len == len && memcmp(former, buf, len) == 0)
	{
		status = sync_existing(ks, &place);
		goto out;
	}
	status = KEYSTORE_OK;
	if (former != NULL)
		status = keep_former(ks, &place, former, former_len, scratch);
	if (status == KEYSTORE_OK)
		status = ksi_replace(ks, &place, place.base, buf, len, KSI_OVERWRITE);

out:
	free(former);
	free(scratch);
	ksi_place_close(&place);
	return status;
}

enum keystore_status
keystore_store(keystore *ks, const char *path)
{
	enum keystore_status status = ksi_need_loaded(ks);

	if (status == KEYSTORE_OK)
		status = keystore_store_bytes(ks, path, ks->raw, ks->layout.file_len);
	/* The file is in place; that messages then still name the former one is no failure. */
	if (status == KEYSTORE_OK && ksi_set_where(ks, path) != KEYSTORE_OK)
		ksi_clear_error(ks);
	return status;
}

/* ---- locking ----------------------------------------------------------------------------- */

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
