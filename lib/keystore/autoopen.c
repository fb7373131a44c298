/*
 * autoopen.c
 *		Opening a keystore without a passphrase: to enable, disable, tell and use it.  The file is in aks.c.
 */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "aks.h"

/* ---- enabling and disabling ------------------------------------------------------------ */

/* Seal, open again what was sealed, and only then put it in place. */
static enum keystore_status
enable(keystore *ks, const struct ksi_aks_place *loc, const struct keystore_seal_options *options)
{
	enum keystore_status status;
	struct ksi_auto_open aks;
	struct ksi_secret ksk = {0};
	const char *reason = NULL;
	uint8_t    *buf = malloc(KSI_AUTO_OPEN_MAX);
	size_t		len = 0;

	if (buf == NULL)
		return ksi_nomem(ks);
	status = ksi_aks_seal(ks, loc, options, buf, &len);
	if (status == KEYSTORE_OK)
		status = ksi_aks_check(ks, loc, buf, len, &aks);
	if (status == KEYSTORE_OK)
		status = ksi_aks_unseal(ks, loc, buf, &aks, &ksk, &reason);
	if (status == KEYSTORE_EWRONGKEY && reason != NULL)
		(void) ksi_fail(ks, status, "could not open what was just sealed for \"%s\": %s", loc->name,
						reason);
	if (status == KEYSTORE_OK)
		status = ksi_replace(ks, &loc->place, KEYSTORE_AUTO_OPEN_NAME, buf, len, KSI_OVERWRITE);
	ksi_secret_free(&ksk);
	free(buf);
	return status;
}

enum keystore_status
keystore_auto_open_enable_sealed(keystore *ks, const char *path,
								 const struct keystore_seal_options *options)
{
	const struct keystore_seal_options host = {.kind = ksi_sealer_host.name};
	enum keystore_status status = ksi_need_open(ks);
	struct ksi_aks_place loc = {{-1, NULL, NULL}, NULL, NULL};

	if (status != KEYSTORE_OK)
		return status;
	status = ksi_aks_locate(ks, path, &loc);
	if (status == KEYSTORE_OK)
		status = enable(ks, &loc, options != NULL ? options : &host);
	ksi_aks_leave(&loc);
	return status;
}

enum keystore_status
keystore_auto_open_enable(keystore *ks, const char *path)
{
	return keystore_auto_open_enable_sealed(ks, path, NULL);
}

enum keystore_status
keystore_auto_open_reseal(keystore *ks, const char *path, bool *ret_resealed)
{
	enum keystore_status status = ksi_need_open(ks);
	struct ksi_aks_place loc = {{-1, NULL, NULL}, NULL, NULL};
	struct keystore_seal_options options = {0};
	struct ksi_auto_open aks;
	char		credential[KSI_TEXT_LEN];
	uint8_t    *buf = NULL;

	if (status != KEYSTORE_OK)
		return status;
	status = ksi_aks_locate(ks, path, &loc);
	if (status == KEYSTORE_OK)
		status = ksi_aks_read(ks, &loc, &buf, &aks);
	if (status == KEYSTORE_ENOENT && loc.name != NULL)
	{
		ksi_clear_error(ks);
		*ret_resealed = false;
		status = KEYSTORE_OK;
		goto out;
	}
	if (status != KEYSTORE_OK)
		goto out;
	ksi_sealer_by_number(aks.kind)->get_options(&aks.data, &options, credential);
	status = enable(ks, &loc, &options);
	if (status == KEYSTORE_OK)
		*ret_resealed = true;

out:
	free(buf);
	ksi_aks_leave(&loc);
	return status;
}

enum keystore_status
keystore_auto_open_disable(keystore *ks, const char *path)
{
	enum keystore_status status;
	struct ksi_aks_place loc = {{-1, NULL, NULL}, NULL, NULL};

	ksi_clear_error(ks);
	status = ksi_aks_locate(ks, path, &loc);
	if (status != KEYSTORE_OK)
		goto out;
	if (unlinkat(loc.place.dirfd, KEYSTORE_AUTO_OPEN_NAME, 0) != 0)
	{
		if (errno != ENOENT)
			status = ksi_fail(ks, KEYSTORE_EIO, "could not remove file \"%s\": %m", loc.name);
		goto out;
	}
	/* It must not come back after a crash. */
	if (fsync(loc.place.dirfd) != 0)
		status = ksi_fail(ks, KEYSTORE_EIO, "could not fsync directory of \"%s\": %m", loc.name);

out:
	ksi_aks_leave(&loc);
	return status;
}

/* ---- asking and opening ---------------------------------------------------------------- */

enum keystore_status
keystore_auto_open_status(keystore *ks, const char *path,
						  struct keystore_auto_open_info *ret_info)
{
	enum keystore_status status;
	struct ksi_aks_place loc = {{-1, NULL, NULL}, NULL, NULL};
	struct keystore_auto_open_info info;
	struct ksi_auto_open aks;
	const struct ksi_sealer *sealer;
	const char *reason = NULL;
	struct ksi_secret ksk = {0};

	ksi_clear_error(ks);
	memset(&info, 0, sizeof(info));
	memset(&aks, 0, sizeof(aks));
	status = ksi_aks_locate(ks, path, &loc);
	if (status != KEYSTORE_OK)
		goto out;
	status = ksi_aks_read_and_unseal(ks, &loc, &aks, &ksk, &reason);
	/* Where not even the kind can be read, it is called what it was before there were others. */
	sealer = ksi_sealer_by_number(aks.kind);
	(void) snprintf(info.kind, sizeof(info.kind), "%s",
					sealer != NULL ? sealer->name : ksi_sealer_host.name);
	if (sealer != NULL)
	{
		info.created = aks.created;
		(void) snprintf(info.grade, sizeof(info.grade), "%s", sealer->grade);
		if (sealer->is_valid(&aks.data))
			sealer->describe(&aks.data, info.detail, sizeof(info.detail));
	}
	switch (status)
	{
		case KEYSTORE_OK:
			info.usable = true;
			break;
		case KEYSTORE_ENOENT:
			memset(&info, 0, sizeof(info));
			(void) snprintf(info.kind, sizeof(info.kind), "none");
			break;
		case KEYSTORE_ENOMEM:
		case KEYSTORE_ECRYPTO:
			goto out;			/* says nothing about the file */
		default:
			if (status != KEYSTORE_EWRONGKEY || reason == NULL)
				reason = ks->errmsg;
			(void) snprintf(info.reason, sizeof(info.reason), "%.*s",
							(int) sizeof(info.reason) - 1, reason);
			break;
	}
	status = KEYSTORE_OK;
	ksi_clear_error(ks);
	*ret_info = info;

out:
	ksi_secret_free(&ksk);
	ksi_aks_leave(&loc);
	return status;
}

enum keystore_status
keystore_open_auto(keystore *ks, const char *path)
{
	enum keystore_status status = ksi_need_loaded(ks);
	struct ksi_aks_place loc = {{-1, NULL, NULL}, NULL, NULL};
	struct ksi_auto_open aks;
	const char *reason = NULL;
	struct ksi_secret ksk = {0};

	if (status != KEYSTORE_OK)
		return status;
	status = ksi_aks_locate(ks, path, &loc);
	if (status == KEYSTORE_OK)
		status = ksi_aks_read_and_unseal(ks, &loc, &aks, &ksk, &reason);
	if (status == KEYSTORE_OK)
		status = keystore_open_ksk(ks, ksk.ptr);
	if (status == KEYSTORE_EWRONGKEY && reason != NULL)
	{
		(void) ksi_fail(ks, status,
						"could not open keystore \"%s\": passphrase is wrong, or the auto-open keystore was created by another computer or user",
						ks->where);
		(void) ksi_hint(ks, status,
						"Auto-open keystore \"%s\" cannot be used: %s.  Run \"pgx_keystore --enable-auto-open %s\" on this computer as this user.",
						loc.name, reason, path);
	}
	ksi_secret_free(&ksk);
	ksi_aks_leave(&loc);
	return status;
}
