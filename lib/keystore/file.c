/*
 * file.c
 *		Files on disk, opened with suspicion and read.
 *
 * Everything happens relative to one open directory, so that what was checked and
 * what is used cannot differ.  What is in the files is not known here.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ksi.h"

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
