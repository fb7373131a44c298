/*
 * replace.c
 *		Files replaced so that a crash at any point leaves the old one or the new one.
 *
 * What is in the files is not known here, except that keystore_store_bytes() stores keystores only.
 */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "ksi.h"

#define NAME_TRIES			100

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
