/*
 * sealer.c
 *		The kinds of auto-open that there are, and the two that need no library.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sealer.h"

#define CREDENTIAL_MIN		32		/* bytes */
#define CREDENTIAL_MAX		4096

static const struct ksi_sealer *const sealers[] = {
	&ksi_sealer_host, &ksi_sealer_credential, &ksi_sealer_tpm2
};

#define SEALERS				(sizeof(sealers) / sizeof(sealers[0]))

const struct ksi_sealer *
ksi_sealer_by_name(const char *name)
{
	for (size_t i = 0; i < SEALERS; i++)
	{
		if (strcmp(sealers[i]->name, name) == 0)
			return sealers[i];
	}
	return NULL;
}

const struct ksi_sealer *
ksi_sealer_by_number(uint16_t number)
{
	for (size_t i = 0; i < SEALERS; i++)
	{
		if (sealers[i]->number == number)
			return sealers[i];
	}
	return NULL;
}

bool
keystore_sealer_available(const char *kind)
{
	const struct ksi_sealer *sealer = ksi_sealer_by_name(kind);

	return sealer != NULL && sealer->available;
}

const char *
keystore_sealer_grade(const char *kind)
{
	const struct ksi_sealer *sealer = ksi_sealer_by_name(kind);

	return sealer != NULL ? sealer->grade : "";
}

static bool
copy_path(const char *path, char **ret_copy)
{
	*ret_copy = NULL;
	if (path != NULL && path[0] != '\0')
		*ret_copy = strdup(path);
	return *ret_copy != NULL || path == NULL || path[0] == '\0';
}

enum keystore_status
keystore_set_sealer_paths(keystore *ks, const char *tcti, const char *credential_dir)
{
	char	   *tcti_copy = NULL;
	char	   *dir_copy = NULL;

	ksi_clear_error(ks);
	if (!copy_path(tcti, &tcti_copy) || !copy_path(credential_dir, &dir_copy))
	{
		free(tcti_copy);
		return ksi_nomem(ks);
	}
	free(ks->tcti);
	free(ks->credential_dir);
	ks->tcti = tcti_copy;
	ks->credential_dir = dir_copy;
	return KEYSTORE_OK;
}

enum keystore_status
ksi_sealer_unavailable(keystore *ks, const char *kind)
{
	(void) ksi_fail(ks, KEYSTORE_EUNSUPPORTED, "auto-open of kind \"%s\" is not supported by this build",
					kind);
	return ksi_hint(ks, KEYSTORE_EUNSUPPORTED,
					"Build with the library that it needs, or use another kind.");
}

/* For a handle that works for another one. */
enum keystore_status
ksi_inherit_paths(keystore *to, const keystore *from)
{
	enum keystore_status status = keystore_set_host_secret_path(to, from->host_secret_path);

	if (status == KEYSTORE_OK)
		status = keystore_set_sealer_paths(to, from->tcti, from->credential_dir);
	return status;
}

/* ---- host: a random file of the user's ------------------------------------------------ */

static enum keystore_status
host_make(keystore *ks, const char *keystore_dir, const struct keystore_seal_options *options,
		  struct ksi_secret *ret_secret, struct ksi_seal_data *ret_data)
{
	ret_data->len = 0;
	return ksi_host_secret(ks, keystore_dir, true, ret_secret);
}

/* A secret that is gone is for the user as if the file came from elsewhere. */
static enum keystore_status
host_get(keystore *ks, const char *keystore_dir, const struct ksi_seal_data *data,
		 struct ksi_secret *ret_secret, const char **ret_reason)
{
	enum keystore_status status = ksi_host_secret(ks, keystore_dir, false, ret_secret);

	*ret_reason = "it was created on another computer, or the host secret was replaced";
	if (status == KEYSTORE_ENOENT)
	{
		*ret_reason = "the host secret does not exist";
		status = KEYSTORE_EWRONGKEY;
	}
	return status;
}

static bool
host_is_valid(const struct ksi_seal_data *data)
{
	return data->len == 0;
}

static void
host_describe(const struct ksi_seal_data *data, char *ret_detail, size_t size)
{
	ret_detail[0] = '\0';
}

static void
host_get_options(const struct ksi_seal_data *data, struct keystore_seal_options *ret_options,
				 char ret_credential[KSI_TEXT_LEN])
{
	ret_options->kind = ksi_sealer_host.name;
}

const struct ksi_sealer ksi_sealer_host = {
	.number = KSI_SEALER_HOST,
	.name = "host",
	.grade = "obfuscation: opens for whoever can read the files of this user on this computer",
	.info = "pgx auto-open host",
	.available = true,
	.secret_max = KSI_HOST_SECRET_LEN,
	.make = host_make,
	.get = host_get,
	.is_valid = host_is_valid,
	.describe = host_describe,
	.get_options = host_get_options
};

/* ---- credential: a file that the service manager hands over -------------------------- */

/* A name that stays in its directory, and that a message can show. */
static bool
is_credential_name(const char *name, size_t len)
{
	if (len == 0 || len > KEYSTORE_LABEL_MAX || name[0] == '.')
		return false;
	for (size_t i = 0; i < len; i++)
	{
		if ((unsigned char) name[i] <= 0x20 || (unsigned char) name[i] >= 0x7f || name[i] == '/')
			return false;
	}
	return true;
}

static enum keystore_status
fail_credential(keystore *ks, const char *name, const char *what)
{
	(void) ksi_fail(ks, KEYSTORE_ESEALER, "credential \"%s\" cannot be used: %s", name, what);
	return ksi_hint(ks, KEYSTORE_ESEALER,
					"Have the service manager pass it, for example with \"LoadCredentialEncrypted=%s\" in the unit.",
					name);
}

/*
 * Read it whole.  Modes are the service manager's affair (systemd gives group bits where it uses
 * access control lists), but a credential for everybody is none.
 */
static enum keystore_status
read_credential(keystore *ks, const char *name, struct ksi_secret *ret_secret)
{
	enum keystore_status status = KEYSTORE_OK;
	struct ksi_secret whole = {0};
	struct stat st;
	int			dirfd = -1;
	int			fd = -1;
	ssize_t		got;

	if (ks->credential_dir == NULL)
		return fail_credential(ks, name, "this process was given no credentials");
	dirfd = open(ks->credential_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dirfd >= 0)
		fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
	{
		status = fail_credential(ks, name, errno == ENOENT ? "it does not exist" :
								 "it could not be opened");
		goto out;
	}
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || (st.st_mode & (S_IRWXO | S_IWGRP)) != 0)
	{
		status = fail_credential(ks, name, "it is not a regular file, or others can read it");
		goto out;
	}
	if (st.st_size < CREDENTIAL_MIN || st.st_size > CREDENTIAL_MAX)
	{
		status = fail_credential(ks, name, "it must have 32 to 4096 bytes");
		goto out;
	}
	status = ksi_alloc_secret(ks, &whole, (size_t) st.st_size);
	if (status != KEYSTORE_OK)
		goto out;
	got = ksi_read_all(fd, whole.ptr, whole.len);
	if (got != (ssize_t) whole.len)
		status = fail_credential(ks, name, "it could not be read");
	else
		ksi_secret_move(ret_secret, &whole);

out:
	ksi_secret_free(&whole);
	if (fd >= 0)
		(void) close(fd);
	if (dirfd >= 0)
		(void) close(dirfd);
	return status;
}

static enum keystore_status
credential_make(keystore *ks, const char *keystore_dir,
				const struct keystore_seal_options *options, struct ksi_secret *ret_secret,
				struct ksi_seal_data *ret_data)
{
	const char *name = options->credential != NULL ? options->credential : "";

	if (!is_credential_name(name, strlen(name)))
		return ksi_fail(ks, KEYSTORE_EINVAL, "\"%s\" is not a name for a credential", name);
	ret_data->len = strlen(name);
	memcpy(ret_data->bytes, name, ret_data->len);
	return read_credential(ks, name, ret_secret);
}

static void
credential_name(const struct ksi_seal_data *data, char ret_name[KSI_TEXT_LEN])
{
	memcpy(ret_name, data->bytes, data->len);
	ret_name[data->len] = '\0';
}

static enum keystore_status
credential_get(keystore *ks, const char *keystore_dir, const struct ksi_seal_data *data,
			   struct ksi_secret *ret_secret, const char **ret_reason)
{
	char		name[KSI_TEXT_LEN];

	credential_name(data, name);
	*ret_reason = "the credential is not the one that it was sealed with";
	return read_credential(ks, name, ret_secret);
}

static bool
credential_is_valid(const struct ksi_seal_data *data)
{
	return is_credential_name((const char *) data->bytes, data->len);
}

static void
credential_describe(const struct ksi_seal_data *data, char *ret_detail, size_t size)
{
	char		name[KSI_TEXT_LEN];

	credential_name(data, name);
	(void) snprintf(ret_detail, size, "credential %s", name);
}

static void
credential_get_options(const struct ksi_seal_data *data,
					   struct keystore_seal_options *ret_options,
					   char ret_credential[KSI_TEXT_LEN])
{
	credential_name(data, ret_credential);
	ret_options->kind = ksi_sealer_credential.name;
	ret_options->credential = ret_credential;
}

const struct ksi_sealer ksi_sealer_credential = {
	.number = KSI_SEALER_CREDENTIAL,
	.name = "credential",
	.grade = "as good as the protection of the credential",
	.info = "pgx auto-open credential",
	.available = true,
	.secret_max = CREDENTIAL_MAX,
	.make = credential_make,
	.get = credential_get,
	.is_valid = credential_is_valid,
	.describe = credential_describe,
	.get_options = credential_get_options
};
