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
#include "options.h"

#define MAX_PCR		23

/* "0,7" as bits. */
static bool
parse_pcrs(const char *text, uint32_t *ret_pcrs)
{
	const char *p = text;
	uint32_t	pcrs = 0;

	for (;;)
	{
		size_t		len = strcspn(p, ",");
		char		number[8] = "";
		uint32_t	pcr;

		if (len == 0 || len >= sizeof(number))
			break;
		memcpy(number, p, len);
		if (!pgx_parse_uint(number, "--pcrs", 0, MAX_PCR, &pcr))
			return false;
		pcrs |= UINT32_C(1) << pcr;
		p += len;
		if (*p == '\0')
		{
			*ret_pcrs = pcrs;
			return true;
		}
		p++;
	}
	pgx_log_error("invalid value \"%s\" for option --pcrs", text);
	return false;
}

static bool
parse_seal(const struct options *opts, struct keystore_seal_options *ret_seal)
{
	const char *kind = opts->seal != NULL ? opts->seal : "host";

	memset(ret_seal, 0, sizeof(*ret_seal));
	if (strcmp(kind, "host") != 0 && strcmp(kind, "tpm2") != 0 && strcmp(kind, "credential") != 0)
	{
		pgx_log_error("unknown kind of auto-open \"%s\"", kind);
		pgx_log_hint("Known are \"host\", \"tpm2\" and \"credential\".");
		return false;
	}
	if (opts->pcrs != NULL && strcmp(kind, "tpm2") != 0)
	{
		pgx_log_error("option --pcrs can be used with --seal=tpm2 only");
		return false;
	}
	if ((opts->credential != NULL) != (strcmp(kind, "credential") == 0))
	{
		pgx_log_error("options --credential and --seal=credential can be used together only");
		return false;
	}
	ret_seal->kind = kind;
	ret_seal->credential = opts->credential;
	return opts->pcrs == NULL || parse_pcrs(opts->pcrs, &ret_seal->pcrs);
}

static int
enable(keystore *ks, const struct options *opts, const char *path)
{
	struct keystore_seal_options seal;
	enum keystore_status st;
	int			lock = -1;
	int			rc;

	if (!parse_seal(opts, &seal))
		return PGX_EXIT_FAILURE;
	pgx_audit_note("seal", "%s", seal.kind);
	rc = open_with_passphrase(ks, opts->passphrase_file);
	if (rc != PGX_EXIT_OK)
		return rc;
	/* A passphrase change or rotation meanwhile does no harm: the sealed key stays the same. */
	st = keystore_lock(ks, path, LOCK_WAIT_MS, &lock);
	if (st == KEYSTORE_OK)
	{
		st = keystore_auto_open_enable_sealed(ks, path, &seal);
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
		printf("auto-open: enabled (%s)\n", info.kind);
	else
		printf("auto-open: not usable (%s): %s\n", info.kind, info.reason);
	/* What it is worth is no secret to those whom it must not stop. */
	if (info.grade[0] != '\0')
		printf("grade: %s\n", info.grade);
	if (info.detail[0] != '\0')
		printf("bound to: %s\n", info.detail);
	/* What would fail a server's start fails here too. */
	return info.usable ? PGX_EXIT_OK : PGX_EXIT_KEY;
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
