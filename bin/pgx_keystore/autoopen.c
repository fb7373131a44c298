/*
 * autoopen.c
 *		pgx_keystore auto-open, and --enable-auto-open.
 */
#include <config.h>

#include <stdio.h>
#include <string.h>

#include "actions.h"
#include "audit.h"
#include "log.h"

static int
enable(keystore *ks, const struct options *opts, const char *path)
{
	enum keystore_status st;
	int			lock = -1;
	int			rc;

	rc = open_with_passphrase(ks, opts->passphrase_file);
	if (rc != PGX_EXIT_OK)
		return rc;
	/* A passphrase change or rotation meanwhile does no harm: the sealed key stays the same. */
	st = keystore_lock(ks, path, LOCK_WAIT_MS, &lock);
	if (st == KEYSTORE_OK)
	{
		st = keystore_auto_open_enable(ks, path);
		keystore_unlock(lock);
	}
	if (st != KEYSTORE_OK)
		return pgx_log_keystore(ks, st);
	printf("Automatic opening of the keystore is now enabled\n");
	return PGX_EXIT_OK;
}

static int
disable(keystore *ks, const char *path)
{
	enum keystore_status st;
	int			lock = -1;

	st = keystore_lock(ks, path, LOCK_WAIT_MS, &lock);
	if (st == KEYSTORE_OK)
	{
		st = keystore_auto_open_disable(ks, path);
		keystore_unlock(lock);
	}
	if (st != KEYSTORE_OK)
		return pgx_log_keystore(ks, st);
	printf("Automatic opening of the keystore is now disabled\n");
	return PGX_EXIT_OK;
}

static int
status(keystore *ks, const char *path)
{
	struct keystore_auto_open_info info;
	enum keystore_status st;

	st = keystore_auto_open_status(ks, path, &info);
	if (st != KEYSTORE_OK)
		return pgx_log_keystore(ks, st);
	if (strcmp(info.kind, "none") == 0)
	{
		printf("auto-open: not enabled\n");
		return PGX_EXIT_OK;
	}
	if (info.usable)
	{
		printf("auto-open: enabled (%s)\n", info.kind);
		return PGX_EXIT_OK;
	}
	/* What would fail a server's start fails here too. */
	printf("auto-open: not usable (%s): %s\n", info.kind, info.reason);
	return PGX_EXIT_KEY;
}

int
action_enable_auto_open(const struct options *opts, int n_args, char **args)
{
	keystore   *ks = new_handle();
	int			rc = PGX_EXIT_FAILURE;

	if (check_file_name(args[0]))
		rc = load_keystore(ks, opts, args[0]);
	if (rc == PGX_EXIT_OK)
		rc = enable(ks, opts, args[0]);
	keystore_free(&ks);
	return rc;
}

int
action_auto_open(const struct options *opts, int n_args, char **args)
{
	const char *what = args[0];
	const char *path = args[1];
	keystore   *ks = NULL;
	int			rc = PGX_EXIT_FAILURE;

	if (strcmp(what, "enable") == 0)
	{
		pgx_audit_event("enable-auto-open");
		return action_enable_auto_open(opts, 1, args + 1);
	}
	pgx_audit_event(strcmp(what, "disable") == 0 ? "disable-auto-open" : NULL);
	if (strcmp(what, "disable") != 0 && strcmp(what, "status") != 0)
	{
		pgx_log_error("unknown operation \"auto-open %s\"", what);
		pgx_log_hint("Known are \"enable\", \"disable\" and \"status\".");
		return PGX_EXIT_FAILURE;
	}
	ks = new_handle();
	if (check_file_name(path))
		rc = load_keystore(ks, opts, path);
	if (rc == PGX_EXIT_OK)
		rc = strcmp(what, "disable") == 0 ? disable(ks, path) : status(ks, path);
	keystore_free(&ks);
	return rc;
}
