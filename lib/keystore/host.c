/*
 * host.c
 *		What this computer and this user have that others have not: the machine-id,
 *		and a random secret in the user's home directory.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ksi.h"

#define DEFAULT_DIR			".pgx"
#define DEFAULT_NAME		"host_secret"

/* machine-id(5): readable by all, written by root.  D-Bus had the same number first. */
static const char *const machine_id_files[] = {"/etc/machine-id", "/var/lib/dbus/machine-id"};

/* False if the file is not there or holds no ID ("uninitialized" during the first boot). */
static bool
read_machine_id(const char *path, char ret_id[KSI_MACHINE_ID_LEN + 1])
{
	char		buf[KSI_MACHINE_ID_LEN + 1];
	int			fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	ssize_t		n;

	if (fd < 0)
		return false;
	n = read(fd, buf, sizeof(buf));
	(void) close(fd);
	if (n < KSI_MACHINE_ID_LEN || (n > KSI_MACHINE_ID_LEN && buf[KSI_MACHINE_ID_LEN] != '\n'))
		return false;
	for (int i = 0; i < KSI_MACHINE_ID_LEN; i++)
	{
		if (!((buf[i] >= '0' && buf[i] <= '9') || (buf[i] >= 'a' && buf[i] <= 'f')))
			return false;
	}
	memcpy(ret_id, buf, KSI_MACHINE_ID_LEN);
	ret_id[KSI_MACHINE_ID_LEN] = '\0';
	return true;
}

enum keystore_status
ksi_machine_id(keystore *ks, char ret_id[KSI_MACHINE_ID_LEN + 1])
{
	for (size_t i = 0; i < sizeof(machine_id_files) / sizeof(machine_id_files[0]); i++)
	{
		if (read_machine_id(machine_id_files[i], ret_id))
			return KEYSTORE_OK;
	}
	(void) ksi_fail(ks, KEYSTORE_EIO, "this computer has no machine ID in \"%s\"",
					machine_id_files[0]);
	return ksi_hint(ks, KEYSTORE_EIO,
					"Run \"systemd-machine-id-setup\" as root, or open the keystore with the passphrase.");
}

/* The directory that a path begins with, without symbolic links and "..". */
enum keystore_status
ksi_canonical_dir(keystore *ks, const char *prefix, char **ret_dir)
{
	char	   *dir = realpath(prefix[0] != '\0' ? prefix : ".", NULL);

	if (dir == NULL)
		return ksi_fail(ks, KEYSTORE_EIO, "could not resolve directory \"%s\": %m", prefix);
	*ret_dir = dir;
	return KEYSTORE_OK;
}

enum keystore_status
keystore_set_host_secret_path(keystore *ks, const char *path)
{
	char	   *copy = NULL;

	ksi_clear_error(ks);
	if (path != NULL && path[0] != '\0')
	{
		copy = strdup(path);
		if (copy == NULL)
			return ksi_nomem(ks);
	}
	free(ks->host_secret_path);
	ks->host_secret_path = copy;
	return KEYSTORE_OK;
}

/*
 * Where the secret is.  The home directory comes from the user database, not from
 * the environment: a service and a login shell of the same user must agree.
 */
static enum keystore_status
secret_path(keystore *ks, char **ret_path)
{
	struct passwd pw;
	struct passwd *found = NULL;
	char		space[4096];
	size_t		size;
	char	   *path;

	if (ks->host_secret_path != NULL)
	{
		path = strdup(ks->host_secret_path);
		if (path == NULL)
			return ksi_nomem(ks);
		*ret_path = path;
		return KEYSTORE_OK;
	}
	if (getpwuid_r(geteuid(), &pw, space, sizeof(space), &found) != 0 || found == NULL ||
		found->pw_dir[0] != '/')
	{
		(void) ksi_fail(ks, KEYSTORE_EIO, "user %lu has no home directory",
						(unsigned long) geteuid());
		return ksi_hint(ks, KEYSTORE_EIO, "Say where the host secret is to be kept.");
	}
	size = strlen(found->pw_dir) + sizeof("/" DEFAULT_DIR "/" DEFAULT_NAME);
	path = malloc(size);
	if (path == NULL)
		return ksi_nomem(ks);
	(void) snprintf(path, size, "%s/" DEFAULT_DIR "/" DEFAULT_NAME, found->pw_dir);
	*ret_path = path;
	return KEYSTORE_OK;
}

/* Make the directory that path is in, if it is missing; its parent is not ours to make. */
static enum keystore_status
make_directory(keystore *ks, const char *path)
{
	enum keystore_status status = KEYSTORE_OK;
	const char *slash = strrchr(path, '/');
	char	   *dir = NULL;
	char	   *parent_end;
	int			fd = -1;

	if (slash == NULL || slash == path)
		return KEYSTORE_OK;
	dir = strndup(path, (size_t) (slash - path));
	if (dir == NULL)
		return ksi_nomem(ks);
	if (mkdir(dir, S_IRWXU) != 0)
	{
		if (errno != EEXIST)
			status = ksi_fail(ks, KEYSTORE_EIO, "could not create directory \"%s\": %m", dir);
		goto out;
	}
	/* The entry in the parent must survive a crash, or the secret is gone with it. */
	parent_end = strrchr(dir, '/');
	if (parent_end != NULL)
		parent_end[parent_end == dir ? 1 : 0] = '\0';
	fd = open(parent_end != NULL ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) != 0)
		status = ksi_fail(ks, KEYSTORE_EIO, "could not fsync the directory above \"%s\": %m", path);

out:
	if (fd >= 0)
		(void) close(fd);
	free(dir);
	return status;
}

/* A secret beside the file that it seals would be copied with it. */
static enum keystore_status
check_apart(keystore *ks, const struct ksi_place *place, const char *path,
			const char *keystore_dir)
{
	enum keystore_status status;
	char	   *dir = NULL;

	status = ksi_canonical_dir(ks, place->prefix, &dir);
	if (status == KEYSTORE_OK && strcmp(dir, keystore_dir) == 0)
	{
		(void) ksi_fail(ks, KEYSTORE_EINVAL,
						"host secret \"%s\" is in the directory of the keystore", path);
		status = ksi_hint(ks, KEYSTORE_EINVAL,
						  "Keep it in another directory, so that it is not copied along with the keystore.");
	}
	free(dir);
	return status;
}

/* Write a new random secret; that another process has just done so is fine. */
static enum keystore_status
make_secret(keystore *ks, const struct ksi_place *place)
{
	enum keystore_status status;
	uint8_t		secret[KSI_HOST_SECRET_LEN];

	if (!ksi_random(secret, sizeof(secret)))
		return ksi_fail(ks, KEYSTORE_ECRYPTO, "could not generate a random key: %s",
						ksi_crypto_reason());
	status = ksi_replace(ks, place, place->base, secret, sizeof(secret), KSI_KEEP);
	keystore_wipe(secret, sizeof(secret));
	return status == KEYSTORE_EEXIST ? KEYSTORE_OK : status;
}

/*
 * Read the host secret; make it if it is missing and create says so.
 * keystore_dir is canonical.  KEYSTORE_ENOENT if it is not there.
 */
enum keystore_status
ksi_host_secret(keystore *ks, const char *keystore_dir, bool create,
				struct ksi_secret *ret_secret)
{
	enum keystore_status status;
	struct ksi_place place = {-1, NULL, NULL};
	char	   *path = NULL;
	uint8_t    *buf = NULL;
	size_t		len = 0;

	status = secret_path(ks, &path);
	if (status == KEYSTORE_OK && create)
		status = make_directory(ks, path);
	if (status == KEYSTORE_OK)
		status = ksi_place_open(ks, path, &place);
	if (status == KEYSTORE_OK)
		status = check_apart(ks, &place, path, keystore_dir);
	if (status != KEYSTORE_OK)
		goto out;

	status = ksi_file_read(ks, &place, place.base, KEYSTORE_MAX_FILE_SIZE, &buf, &len);
	if (status == KEYSTORE_ENOENT && create)
	{
		status = make_secret(ks, &place);
		if (status == KEYSTORE_OK)
			status = ksi_file_read(ks, &place, place.base, KEYSTORE_MAX_FILE_SIZE, &buf, &len);
	}
	if (status == KEYSTORE_ENOENT)
		(void) ksi_fail(ks, status, "host secret \"%s\" does not exist", path);
	if (status != KEYSTORE_OK)
		goto out;
	if (len != KSI_HOST_SECRET_LEN)
	{
		status = ksi_fail(ks, KEYSTORE_EDAMAGED,
						  "host secret \"%s\" is corrupted: size = %zu bytes, expected size = %d bytes",
						  path, len, KSI_HOST_SECRET_LEN);
		goto out;
	}
	status = ksi_alloc_secret(ks, ret_secret, KSI_HOST_SECRET_LEN);
	if (status == KEYSTORE_OK)
		memcpy(ret_secret->ptr, buf, KSI_HOST_SECRET_LEN);

out:
	keystore_wipe(buf, len);
	free(buf);
	free(path);
	ksi_place_close(&place);
	return status;
}
