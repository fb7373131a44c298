/*
 * manifest_read.c
 *		Reading a backup manifest, file by file.  See manifest_read.h.
 */
#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "crc32c.h"
#include "log.h"
#include "manifest_read.h"
#include "mem.h"

#define HASH_LEN		32		/* of the manifest itself: SHA-256 */
#define MAX_HEAD		4096	/* what stands before the list of files */
#define MAX_LAST_LINE	256		/* "Manifest-Checksum": and 64 digits */
#define READ_LEN		(256 * 1024)

struct pgx_manifest
{
	char	   *path;
	FILE	   *f;
	char	   *file_path;		/* of the file that was returned last */
	bool		begun;
	bool		ended;
};

static bool
say_invalid(const struct pgx_manifest *manifest, const char *why)
{
	pgx_log_error("backup manifest \"%s\" is not valid: %s", manifest->path, why);
	return false;
}

static bool
from_hex(const char *text, uint8_t *ret_bytes, size_t max, size_t *ret_len)
{
	size_t		len = strlen(text);

	if (len % 2 != 0 || len / 2 > max || strspn(text, "0123456789abcdefABCDEF") != len)
		return false;
	for (size_t i = 0; i < len / 2; i++)
	{
		const char	digits[3] = {text[2 * i], text[2 * i + 1], '\0'};

		ret_bytes[i] = (uint8_t) strtoul(digits, NULL, 16);
	}
	*ret_len = len / 2;
	return true;
}

/* ---- the manifest's own checksum ------------------------------------------------------------ */

/* The last line has the checksum of all before it.  *ret_covered: how many bytes that is. */
static bool
read_last_line(const struct pgx_manifest *manifest, uint8_t ret_hash[HASH_LEN], uint64_t *ret_covered)
{
	char		tail[MAX_LAST_LINE + 1];
	struct stat st;
	size_t		want;
	char	   *line;
	json_t	   *root;
	char	   *text;
	size_t		len = 0;
	bool		ok;

	if (fstat(fileno(manifest->f), &st) != 0)
		return say_invalid(manifest, strerror(errno));
	want = st.st_size < MAX_LAST_LINE ? (size_t) st.st_size : MAX_LAST_LINE;
	if (pread(fileno(manifest->f), tail, want, st.st_size - (off_t) want) != (ssize_t) want)
		return say_invalid(manifest, "its end could not be read");
	tail[want] = '\0';
	if (want < 2 || tail[want - 1] != '\n')
		return say_invalid(manifest, "it is truncated");
	tail[want - 1] = '\0';
	line = strrchr(tail, '\n');
	if (line == NULL)
		return say_invalid(manifest, "its last line is too long");
	line++;
	*ret_covered = (uint64_t) st.st_size - strlen(line) - 1;
	/* It is the end of an object. */
	text = pgx_printf("{%s", line);
	root = json_loads(text, 0, NULL);
	free(text);
	line = (char *) (uintptr_t) json_string_value(json_object_get(root, "Manifest-Checksum"));
	ok = line != NULL && from_hex(line, ret_hash, HASH_LEN, &len) && len == HASH_LEN;
	json_decref(root);
	return ok || say_invalid(manifest, "it has no checksum");
}

static bool
verify_self(const struct pgx_manifest *manifest)
{
	uint8_t		expected[HASH_LEN];
	uint8_t		hash[HASH_LEN];
	uint8_t    *buf = pgx_alloc(READ_LEN);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	uint64_t	covered;
	uint64_t	at = 0;
	bool		ok = read_last_line(manifest, expected, &covered);

	if (ok && (ctx == NULL || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1))
		ok = say_invalid(manifest, "could not compute its checksum");
	while (ok && at < covered)
	{
		size_t		want = covered - at < READ_LEN ? (size_t) (covered - at) : READ_LEN;
		ssize_t		n = pread(fileno(manifest->f), buf, want, (off_t) at);

		ok = n > 0 && EVP_DigestUpdate(ctx, buf, (size_t) n) == 1;
		if (!ok)
			(void) say_invalid(manifest, "it could not be read");
		at += ok ? (uint64_t) n : 0;
	}
	if (ok && (EVP_DigestFinal_ex(ctx, hash, NULL) != 1 || CRYPTO_memcmp(hash, expected, HASH_LEN) != 0))
		ok = say_invalid(manifest, "its checksum does not match");
	EVP_MD_CTX_free(ctx);
	free(buf);
	return ok;
}

/* ---- its files -------------------------------------------------------------------------------- */

/* Up to the bracket that begins the list: with that and the object closed, it can be parsed by itself. */
static bool
read_head(struct pgx_manifest *manifest)
{
	char		head[MAX_HEAD + 3];
	size_t		len = 0;
	int			c = 0;
	json_t	   *root;
	json_int_t	version;
	bool		ok;

	while (len < MAX_HEAD && c != '[' && (c = getc(manifest->f)) != EOF)
		head[len++] = (char) c;
	if (c != '[')
		return say_invalid(manifest, "it has no list of files");
	memcpy(head + len, "]}", 3);
	root = json_loads(head, 0, NULL);
	version = json_integer_value(json_object_get(root, "PostgreSQL-Backup-Manifest-Version"));
	ok = json_is_array(json_object_get(root, "Files"));
	json_decref(root);
	if (!ok)
		return say_invalid(manifest, "it has no list of files");
	return version == 1 || version == 2 || say_invalid(manifest, "its version is not known");
}

struct pgx_manifest *
pgx_manifest_open(const char *path)
{
	struct pgx_manifest *manifest = pgx_alloc(sizeof(*manifest));

	manifest->path = pgx_strdup(path);
	manifest->f = fopen(path, "re");
	if (manifest->f == NULL)
		pgx_log_error("could not open file \"%s\": %m", path);
	if (manifest->f == NULL || !verify_self(manifest) || !read_head(manifest))
		pgx_manifest_close(&manifest);
	return manifest;
}

/* Relative, and below the directory that it is relative to. */
static bool
is_safe(const char *path)
{
	if (path[0] == '\0' || path[0] == '/')
		return false;
	for (const char *part = path; part != NULL; part = strchr(part, '/'))
	{
		size_t		len;

		part += *part == '/';
		len = strcspn(part, "/");
		if (len == 0 || (len == 1 && part[0] == '.') || (len == 2 && strncmp(part, "..", 2) == 0))
			return false;
	}
	return true;
}

/* "Path", or "Encoded-Path" in hexadecimal where it is not UTF-8. */
static bool
take_path(struct pgx_manifest *manifest, json_t *entry)
{
	const char *plain = json_string_value(json_object_get(entry, "Path"));
	const char *encoded = json_string_value(json_object_get(entry, "Encoded-Path"));
	size_t		len = 0;

	free(manifest->file_path);
	manifest->file_path = NULL;
	if (plain != NULL)
		manifest->file_path = pgx_strdup(plain);
	else if (encoded != NULL)
	{
		manifest->file_path = pgx_alloc(strlen(encoded) / 2 + 1);
		if (!from_hex(encoded, (uint8_t *) manifest->file_path, strlen(encoded) / 2, &len) ||
			strlen(manifest->file_path) != len)
			return false;
	}
	return manifest->file_path != NULL && is_safe(manifest->file_path);
}

static bool
take_checksum(json_t *entry, struct pgx_manifest_file *file)
{
	const char *algorithm = json_string_value(json_object_get(entry, "Checksum-Algorithm"));
	const char *text = json_string_value(json_object_get(entry, "Checksum"));
	static const struct
	{
		const char *name;
		size_t		len;
	}			known[] = {{"CRC32C", 4}, {"SHA224", 28}, {"SHA256", 32}, {"SHA384", 48}, {"SHA512", 64}};

	file->kind = PGX_CHECKSUM_NONE;
	if (algorithm == NULL || strcasecmp(algorithm, "NONE") == 0)
		return text == NULL;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
	{
		if (strcasecmp(algorithm, known[i].name) != 0)
			continue;
		file->kind = i == 0 ? PGX_CHECKSUM_CRC32C : PGX_CHECKSUM_SHA;
		snprintf(file->algorithm, sizeof(file->algorithm), "%s", known[i].name);
		return text != NULL && from_hex(text, file->checksum, sizeof(file->checksum), &file->checksum_len) &&
			file->checksum_len == known[i].len;
	}
	return false;
}

static int
take_entry(struct pgx_manifest *manifest, json_t *entry, struct pgx_manifest_file *ret_file)
{
	json_t	   *size = json_object_get(entry, "Size");
	struct pgx_manifest_file file = {0};

	if (!take_path(manifest, entry) || !take_checksum(entry, &file) || !json_is_integer(size) ||
		json_integer_value(size) < 0)
	{
		(void) say_invalid(manifest, "an entry of its list of files is not understood");
		return -1;
	}
	file.path = manifest->file_path;
	file.size = (uint64_t) json_integer_value(size);
	*ret_file = file;
	return 1;
}

int
pgx_manifest_next(struct pgx_manifest *manifest, struct pgx_manifest_file *ret_file)
{
	int			c;
	bool		comma = false;
	json_t	   *entry;
	int			rc;

	if (manifest->ended)
		return 0;
	while ((c = getc(manifest->f)) != EOF && (isspace(c) || (c == ',' && manifest->begun && !comma)))
		comma |= c == ',';
	if (c == ']' && !comma)
	{
		manifest->ended = true;
		return 0;
	}
	if (c != '{' || comma != manifest->begun || ungetc(c, manifest->f) == EOF)
	{
		(void) say_invalid(manifest, "its list of files is damaged");
		return -1;
	}
	manifest->begun = true;
	/* With this flag it reads one value and leaves the rest of the file alone. */
	entry = json_loadf(manifest->f, JSON_DISABLE_EOF_CHECK, NULL);
	rc = take_entry(manifest, entry, ret_file);
	json_decref(entry);
	return rc;
}

void
pgx_manifest_close(struct pgx_manifest **manifest_p)
{
	struct pgx_manifest *manifest = *manifest_p;

	if (manifest == NULL)
		return;
	if (manifest->f != NULL)
		(void) fclose(manifest->f); /* opened for reading only */
	free(manifest->file_path);
	free(manifest->path);
	free(manifest);
	*manifest_p = NULL;
}

/* ---- checksum of one file ----------------------------------------------------------------- */

struct pgx_checksum
{
	struct pgx_manifest_file file;	/* its path is not used */
	uint32_t	crc;
	EVP_MD_CTX *ctx;
};

struct pgx_checksum *
pgx_checksum_new(const struct pgx_manifest_file *file)
{
	struct pgx_checksum *sum = pgx_alloc(sizeof(*sum));
	const EVP_MD *md;

	sum->file = *file;
	sum->crc = PGX_CRC32C_BEGIN;
	if (file->kind != PGX_CHECKSUM_SHA)
		return sum;
	md = EVP_get_digestbyname(file->algorithm);
	sum->ctx = EVP_MD_CTX_new();
	if (md == NULL || sum->ctx == NULL || EVP_DigestInit_ex(sum->ctx, md, NULL) != 1)
	{
		pgx_log_error("could not compute a checksum by %s", file->algorithm);
		EVP_MD_CTX_free(sum->ctx);
		free(sum);
		return NULL;
	}
	return sum;
}

bool
pgx_checksum_add(struct pgx_checksum *sum, const void *buf, size_t len)
{
	if (sum->file.kind == PGX_CHECKSUM_CRC32C)
		sum->crc = pgx_crc32c(sum->crc, buf, len);
	return sum->file.kind != PGX_CHECKSUM_SHA || EVP_DigestUpdate(sum->ctx, buf, len) == 1;
}

bool
pgx_checksum_matches(struct pgx_checksum **sum_p)
{
	struct pgx_checksum *sum = *sum_p;
	uint8_t		result[EVP_MAX_MD_SIZE];
	unsigned	len = sizeof(sum->crc);
	bool		ok = true;

	if (sum->file.kind == PGX_CHECKSUM_SHA)
		ok = EVP_DigestFinal_ex(sum->ctx, result, &len) == 1;
	else
	{
		/* The server writes it as its bytes lie in memory. */
		sum->crc = PGX_CRC32C_END(sum->crc);
		memcpy(result, &sum->crc, sizeof(sum->crc));
	}
	ok = ok && (sum->file.kind == PGX_CHECKSUM_NONE ||
				(len == sum->file.checksum_len && memcmp(result, sum->file.checksum, len) == 0));
	EVP_MD_CTX_free(sum->ctx);
	free(sum);
	*sum_p = NULL;
	return ok;
}
