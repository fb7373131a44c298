/*
 * open.c
 *		What the actions of pgx_keystore share: loading and opening a keystore, the
 *		choice of a KDF, and words for what the library numbers.
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "actions.h"
#include "audit.h"
#include "log.h"
#include "prompt.h"

keystore *
new_handle(void)
{
	keystore   *ks = keystore_new();

	if (ks == NULL)
	{
		pgx_log_error("out of memory");
		exit(PGX_EXIT_FAILURE);
	}
	return ks;
}

bool
check_file_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	if (strcmp(slash != NULL ? slash + 1 : path, KEYSTORE_FILE_NAME) == 0)
		return true;
	pgx_log_error("\"%s\" does not name a file \"%s\"", path, KEYSTORE_FILE_NAME);
	pgx_log_hint("A server looks for \"%s\" in the directory of its pgx_tde.keystore_location; "
				 "give that path.", KEYSTORE_FILE_NAME);
	return false;
}

int
open_with_passphrase(keystore *ks, const char *file)
{
	struct pgx_passphrase pass;
	enum keystore_status st;

	if (!pgx_passphrase_read(file, PGX_PROMPT, NULL, &pass))
		return PGX_EXIT_FAILURE;
	st = keystore_open_passphrase(ks, pass.bytes, pass.len);
	pgx_passphrase_wipe(&pass);
	if (st != KEYSTORE_OK)
		return pgx_log_keystore(ks, st);
	if (!keystore_memory_locked(ks))
		pgx_log_verbose("secrets are in memory that could not be locked (RLIMIT_MEMLOCK)");
	return PGX_EXIT_OK;
}

int
load_keystore(keystore *ks, const struct options *opts, const char *path)
{
	enum keystore_status st = KEYSTORE_OK;

	pgx_audit_note("keystore", "%s", path);
	if (opts->host_secret != NULL)
		st = keystore_set_host_secret_path(ks, opts->host_secret);
	/* The library reads no environment; the service manager tells us there where credentials are. */
	if (st == KEYSTORE_OK)
		st = keystore_set_sealer_paths(ks, opts->tpm2_device, getenv("CREDENTIALS_DIRECTORY"));
	if (st == KEYSTORE_OK)
		st = keystore_load(ks, path);
	if (st != KEYSTORE_OK)
		return pgx_log_keystore(ks, st);
	pgx_audit_keystore(ks);
	return PGX_EXIT_OK;
}

int
open_keystore(keystore *ks, const struct options *opts, const char *path)
{
	if (opts->passphrase_file == NULL && keystore_open_auto(ks, path) == KEYSTORE_OK)
	{
		pgx_audit_note("opened_by", "auto-open");
		return PGX_EXIT_OK;
	}
	return open_with_passphrase(ks, opts->passphrase_file);
}

const char *
time_text(int64_t when, char buf[TIME_TEXT_LEN])
{
	time_t		t = (time_t) when;
	struct tm	tm;

	if (when == 0 || gmtime_r(&t, &tm) == NULL ||
		strftime(buf, TIME_TEXT_LEN, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		(void) strcpy(buf, "-");
	return buf;
}

const char *
kdf_name(enum keystore_kdf kdf)
{
	switch (kdf)
	{
		case KEYSTORE_KDF_SCRYPT:
			return "scrypt";
		case KEYSTORE_KDF_PBKDF2_SHA512:
			return "pbkdf2-sha512";
		case KEYSTORE_KDF_ARGON2ID:
			return "argon2id";
	}
	return "unknown";
}

const char *
slot_kind_name(enum keystore_slot_kind kind)
{
	switch (kind)
	{
		case KEYSTORE_SLOT_PASSPHRASE:
			return "passphrase";
		case KEYSTORE_SLOT_RECOVERY:
			return "recovery";
	}
	return "unknown";
}

const char *
key_state_name(enum keystore_key_state state)
{
	switch (state)
	{
		case KEYSTORE_KEY_ACTIVE:
			return "active";
		case KEYSTORE_KEY_RETIRED:
			return "retired";
		case KEYSTORE_KEY_DESTROYED:
			return "destroyed";
		case KEYSTORE_KEY_COMPROMISED:
			return "compromised";
	}
	return "unknown";
}

bool
json_supported(const struct options *opts)
{
#ifndef HAVE_JANSSON
	if (opts->json)
	{
		pgx_log_error("option --json is not supported by this build");
		pgx_log_hint("Build with libjansson, or leave the option out.");
		return false;
	}
#endif
	(void) opts;
	return true;
}
