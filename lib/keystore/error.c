/*
 * error.c
 *		Statuses, and the sentences that go with them.
 *
 * Texts live in the handle and are never allocated, so that being out of memory
 * can be told too.  No secret, and no length of one, goes into them.
 */
#include <config.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "ksi.h"

static const struct
{
	enum keystore_status status;
	const char *text;
}			status_table[] =
{
	{KEYSTORE_OK, "success"},
	{KEYSTORE_ENOMEM, "out of memory"},
	{KEYSTORE_EINVAL, "invalid call"},
	{KEYSTORE_EIO, "file operation failed"},
	{KEYSTORE_ENOENT, "keystore does not exist"},
	{KEYSTORE_EEXIST, "keystore already exists"},
	{KEYSTORE_EPERM, "unsafe permissions, owner or file type"},
	{KEYSTORE_EFORMAT, "file is not a keystore"},
	{KEYSTORE_EVERSION, "unknown keystore format version"},
	{KEYSTORE_EDAMAGED, "keystore is corrupted"},
	{KEYSTORE_EPASSPHRASE, "passphrase is wrong"},
	{KEYSTORE_EPASSLEN, "passphrase is too short or too long"},
	{KEYSTORE_EKDF, "passphrase-based key derivation function is not available"},
	{KEYSTORE_EWRONGKEY, "key does not belong to this keystore, computer or user"},
	{KEYSTORE_ECRYPTO, "cryptographic operation failed"},
	{KEYSTORE_EBUSY, "keystore is locked by another process"},
	{KEYSTORE_ENOKEY, "master encryption key does not exist"},
	{KEYSTORE_ECONFLICT, "keystore conflicts with another one"},
	{KEYSTORE_ELIMIT, "too many keys or slots"},
	{KEYSTORE_ELASTSLOT, "the last way to open a keystore cannot be removed"},
	{KEYSTORE_EPOLICY, "the keystore's FIPS policy forbids it"},
	{KEYSTORE_EUNSUPPORTED, "this kind of auto-open is not supported by this build"},
	{KEYSTORE_ESEALER, "TPM or credential is not available"},
	{KEYSTORE_ENOSLOT, "slot does not exist"},
};

const char *
keystore_status_name(enum keystore_status status)
{
	for (size_t i = 0; i < sizeof(status_table) / sizeof(status_table[0]); i++)
	{
		if (status_table[i].status == status)
			return status_table[i].text;
	}
	return "unknown status";
}

const char *
keystore_errmsg(const keystore *ks)
{
	return ks == NULL ? keystore_status_name(KEYSTORE_ENOMEM) : ks->errmsg;
}

const char *
keystore_errhint(const keystore *ks)
{
	return ks == NULL ? "" : ks->errhint;
}

void
ksi_clear_error(keystore *ks)
{
	ks->errmsg[0] = '\0';
	ks->errhint[0] = '\0';
}

/* What a handle for a while had to say is said by the caller's. */
void
ksi_copy_error(keystore *to, const keystore *from)
{
	memcpy(to->errmsg, from->errmsg, sizeof(to->errmsg));
	memcpy(to->errhint, from->errhint, sizeof(to->errhint));
}

/*
 * Set the message, drop the hint, and return the status, so that failing is one
 * statement.  errno is put back before formatting: %m in fmt means the error
 * that the caller just met.
 */
enum keystore_status
ksi_fail(keystore *ks, enum keystore_status status, const char *fmt, ...)
{
	int			save_errno = errno;
	va_list		ap;

	ks->errhint[0] = '\0';
	va_start(ap, fmt);
	errno = save_errno;
	(void) vsnprintf(ks->errmsg, sizeof(ks->errmsg), fmt, ap);	/* cut off if too long */
	va_end(ap);
	errno = save_errno;
	return status;
}

/* Add a hint to the message that ksi_fail() set; returns its status. */
enum keystore_status
ksi_hint(keystore *ks, enum keystore_status status, const char *fmt, ...)
{
	va_list		ap;

	va_start(ap, fmt);
	(void) vsnprintf(ks->errhint, sizeof(ks->errhint), fmt, ap);
	va_end(ap);
	return status;
}

enum keystore_status
ksi_nomem(keystore *ks)
{
	return ksi_fail(ks, KEYSTORE_ENOMEM, "out of memory");
}
