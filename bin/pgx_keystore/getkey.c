/*
 * getkey.c
 *		pgx_keystore get-key: a key for another program's key command.
 *
 * By default it is derived from a master key and the purpose, so the master key stays in the
 * keystore, and each program has a key of its own.  The number of the master key must be given: with
 * the active one by default, a rotation would change the key of data that another program has encrypted.
 */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "actions.h"
#include "audit.h"
#include "file.h"
#include "log.h"
#include "options.h"
#include "prompt.h"

#define DEFAULT_LENGTH	32

/* Two digits a byte, or four characters for three; and the newline and NUL. */
#define MAX_TEXT		(2 * KEYSTORE_DERIVED_MAX + 2)

enum format
{
	FORMAT_HEX, FORMAT_BASE64, FORMAT_RAW
};

struct request
{
	uint32_t	key_id;
	uint32_t	length;
	enum format format;
};

static bool
parse_format(const char *text, enum format *ret_format)
{
	if (text == NULL || strcmp(text, "hex") == 0)
		*ret_format = FORMAT_HEX;
	else if (strcmp(text, "base64") == 0)
		*ret_format = FORMAT_BASE64;
	else if (strcmp(text, "raw") == 0)
		*ret_format = FORMAT_RAW;
	else
	{
		pgx_log_error("unknown format \"%s\"", text);
		pgx_log_hint("Known are \"hex\", \"base64\" and \"raw\".");
		return false;
	}
	return true;
}

static bool
parse_request(const struct options *opts, struct request *ret_request)
{
	ret_request->length = DEFAULT_LENGTH;
	if ((opts->purpose == NULL) != opts->master_key)
	{
		if (opts->master_key)
			pgx_log_error("options --purpose and --master-key cannot be used together");
		else
			pgx_log_error("no purpose is specified");
		pgx_log_hint("Use --purpose with a text that says what the key is for, such as the name of the program "
					 "and of the cluster.");
		return false;
	}
	if (opts->key_id == NULL)
	{
		pgx_log_error("no master key is specified");
		pgx_log_hint("Use --key-id with the number of a master key, as \"%s info --open\" lists them, and keep it, "
					 "since another master key gives another key.", pgx_progname());
		return false;
	}
	if (opts->master_key && opts->length != NULL)
	{
		pgx_log_error("options --length and --master-key cannot be used together");
		return false;
	}
	return pgx_parse_uint(opts->key_id, "--key-id", 1, UINT32_MAX, &ret_request->key_id) &&
		(opts->length == NULL ||
		 pgx_parse_uint(opts->length, "--length", KEYSTORE_DERIVED_MIN, KEYSTORE_DERIVED_MAX,
						&ret_request->length)) &&
		parse_format(opts->format, &ret_request->format);
}

/* Lay the key out as it is to be printed. */
static size_t
format_key(const uint8_t *key, size_t len, enum format format, unsigned char out[MAX_TEXT])
{
	static const char digits[] = "0123456789abcdef";
	size_t		n = 0;

	switch (format)
	{
		case FORMAT_RAW:
			memcpy(out, key, len);
			return len;
		case FORMAT_BASE64:
			n = (size_t) EVP_EncodeBlock(out, key, (int) len);
			break;
		case FORMAT_HEX:
			for (size_t i = 0; i < len; i++)
			{
				out[n++] = (unsigned char) digits[key[i] >> 4];
				out[n++] = (unsigned char) digits[key[i] & 15];
			}
			break;
	}
	out[n++] = '\n';
	return n;
}

static int
give_out(keystore *ks, const struct options *opts, const struct request *request)
{
	uint8_t		key[KEYSTORE_DERIVED_MAX];
	unsigned char text[MAX_TEXT];
	enum keystore_status st;
	int			rc = PGX_EXIT_FAILURE;
	size_t		len;

	pgx_secret_lock(key, sizeof(key));
	pgx_secret_lock(text, sizeof(text));
	if (opts->master_key)
		st = keystore_get_master_key(ks, request->key_id, key);
	else
		st = keystore_derive_key(ks, request->key_id, opts->purpose, key, request->length);
	if (st != KEYSTORE_OK)
		rc = pgx_log_keystore(ks, st);
	else
	{
		len = format_key(key, opts->master_key ? KEYSTORE_KEY_LEN : request->length, request->format, text);
		if (pgx_write_out(text, len))
			rc = PGX_EXIT_OK;
	}
	keystore_wipe(key, sizeof(key));
	keystore_wipe(text, sizeof(text));
	return rc;
}

int
action_get_key(const struct options *opts, int n_args, char **args)
{
	struct request request = {0};
	keystore   *ks = NULL;
	int			rc = PGX_EXIT_FAILURE;

	if (!parse_request(opts, &request))
		return rc;
	if (isatty(STDOUT_FILENO) == 1 && !opts->force_terminal)
	{
		pgx_log_error("the key is not written to a terminal");
		pgx_log_hint("Let another program read it through a pipe, or use --force-terminal.");
		return rc;
	}
	pgx_audit_note("key", "%u", request.key_id);
	if (opts->master_key)
		pgx_audit_event("export-master-key");
	else
		pgx_audit_note("purpose", "%s", opts->purpose);
	ks = new_handle();
	rc = load_keystore(ks, opts, args[0]);
	if (rc == PGX_EXIT_OK)
		rc = open_keystore(ks, opts, args[0]);
	if (rc == PGX_EXIT_OK)
		rc = give_out(ks, opts, &request);
	keystore_free(&ks);
	return rc;
}
