/*
 * check_backup_manifest.c
 *		The backup manifest as it is read, file by file: what is valid, and each kind of damage; and the checksums
 *		that it has.
 */
#include <config.h>

#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "backup.h"
#include "cmd_common.h"
#include "crc32c.h"
#include "log.h"
#include "manifest_read.h"
#include "mem.h"

/* ---- CRC-32C ------------------------------------------------------------------------------- */

/* RFC 3720, appendix B.4, and the check value of "123456789". */
static const struct
{
	int			kind;			/* 0: zeros, 1: ones, 2: ascending, 3: descending, 4: text */
	uint32_t	crc;
}			crcs[] = {
	{0, 0x8A9136AA}, {1, 0x62A8AB43}, {2, 0x46DD794E}, {3, 0x113FDB5C}, {4, 0xE3069283},
};

START_TEST(crc32c_known)
{
	uint8_t		buf[32];
	size_t		len = sizeof(buf);

	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t) (crcs[_i].kind == 0 ? 0 : crcs[_i].kind == 1 ? 0xFF : crcs[_i].kind == 2 ? i : 31 - i);
	if (crcs[_i].kind == 4)
	{
		len = 9;
		memcpy(buf, "123456789", len);
	}
	ck_assert_uint_eq(PGX_CRC32C_END(pgx_crc32c(PGX_CRC32C_BEGIN, buf, len)), crcs[_i].crc);
	ck_assert_uint_eq(PGX_CRC32C_END(pgx_crc32c_portable(PGX_CRC32C_BEGIN, buf, len)), crcs[_i].crc);
}
END_TEST

/* In whatever pieces it comes, at whatever address. */
START_TEST(crc32c_pieces)
{
	uint8_t		buf[1000];
	uint32_t	whole;

	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t) (i * 7 + i / 13);
	whole = pgx_crc32c_portable(PGX_CRC32C_BEGIN, buf, sizeof(buf));
	for (size_t cut = 0; cut <= sizeof(buf); cut += 37)
		ck_assert_uint_eq(pgx_crc32c(pgx_crc32c(PGX_CRC32C_BEGIN, buf, cut), buf + cut, sizeof(buf) - cut), whole);
}
END_TEST

/* ---- the manifest ---------------------------------------------------------------------------- */

static char manifest_path[64];

#define HEAD	"{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": ["
#define ENTRY	"{ \"Path\": \"base/1/2\", \"Size\": 9, \"Last-Modified\": \"2026-01-01 00:00:00 GMT\", " \
				"\"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"839206e3\" }"
#define TAIL	"],\n\"WAL-Ranges\": [\n{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000100\" }\n],\n"

/* Text, and below it the line with its checksum. */
static void
write_manifest(const char *text, const char *checksum)
{
	uint8_t		hash[EVP_MAX_MD_SIZE];
	unsigned	len = 0;
	char		hex[2 * EVP_MAX_MD_SIZE + 1] = "";
	char	   *whole;

	ck_assert_int_eq(EVP_Digest(text, strlen(text), hash, &len, EVP_sha256(), NULL), 1);
	for (unsigned i = 0; i < len; i++)
		snprintf(hex + 2 * i, 3, "%02x", hash[i]);
	whole = pgx_printf("%s\"Manifest-Checksum\": \"%s\"}\n", text, checksum != NULL ? checksum : hex);
	snprintf(manifest_path, sizeof(manifest_path), "check_manifest.%d", (int) getpid());
	(void) unlink(manifest_path);
	ck_assert(pgx_write_new(manifest_path, whole, strlen(whole)));
	free(whole);
}

/* What reading all of it comes to: how many files, or -1; and, at most len, the messages. */
static int
read_manifest(char *ret_messages, size_t len)
{
	char	   *name = pgx_printf("%s.err", manifest_path);
	int			saved = dup(STDERR_FILENO);
	struct pgx_manifest *manifest;
	struct pgx_manifest_file file;
	int			count = -1;
	int			rc;
	size_t		n;
	FILE	   *f;

	ck_assert_ptr_nonnull(freopen(name, "w", stderr));
	manifest = pgx_manifest_open(manifest_path);
	if (manifest != NULL)
	{
		count = 0;
		while ((rc = pgx_manifest_next(manifest, &file)) == 1)
			count++;
		if (rc < 0)
			count = -1;
	}
	pgx_manifest_close(&manifest);
	(void) fflush(stderr);
	ck_assert_int_ge(dup2(saved, STDERR_FILENO), 0);
	(void) close(saved);
	f = fopen(name, "r");
	ck_assert_ptr_nonnull(f);
	n = fread(ret_messages, 1, len - 1, f);
	ret_messages[n] = '\0';
	(void) fclose(f);
	(void) unlink(name);
	(void) unlink(manifest_path);
	free(name);
	return count;
}

static const struct
{
	const char *name;
	const char *text;
	const char *checksum;		/* instead of the right one */
	int			count;
	const char *message;
}			manifests[] = {
	{"no file", HEAD TAIL, NULL, 0, ""},
	{"one file", HEAD "\n" ENTRY "\n" TAIL, NULL, 1, ""},
	{"two files", HEAD "\n" ENTRY ",\n" ENTRY "\n" TAIL, NULL, 2, ""},
	{"version 2", "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": 7,\n\"Files\": [" ENTRY TAIL, NULL, 1, ""},
	{"encoded path", HEAD "{ \"Encoded-Path\": \"62ff\", \"Size\": 0 }" TAIL, NULL, 1, ""},
	{"another version", "{ \"PostgreSQL-Backup-Manifest-Version\": 3,\n\"Files\": [" TAIL, NULL, -1, "its version is not known"},
	{"changed", HEAD "\n" ENTRY "\n" TAIL, "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff", -1,
	"its checksum does not match"},
	{"short checksum", HEAD TAIL, "0011", -1, "it has no checksum"},
	{"no list", "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n", NULL, -1, "it has no list of files"},
	{"list ends early", HEAD "\n" ENTRY ",\n", NULL, -1, "its list of files is damaged"},
	{"comma missing", HEAD ENTRY ENTRY TAIL, NULL, -1, "its list of files is damaged"},
	{"comma first", HEAD "," ENTRY TAIL, NULL, -1, "its list of files is damaged"},
	{"comma last", HEAD ENTRY "," TAIL, NULL, -1, "its list of files is damaged"},
	{"two commas", HEAD ENTRY ",," ENTRY TAIL, NULL, -1, "its list of files is damaged"},
	{"parent directory", HEAD "{ \"Path\": \"base/../../x\", \"Size\": 0 }" TAIL, NULL, -1, "is not understood"},
	{"whole path", HEAD "{ \"Path\": \"/etc/passwd\", \"Size\": 0 }" TAIL, NULL, -1, "is not understood"},
	{"empty path", HEAD "{ \"Path\": \"\", \"Size\": 0 }" TAIL, NULL, -1, "is not understood"},
	{"empty part", HEAD "{ \"Path\": \"a//b\", \"Size\": 0 }" TAIL, NULL, -1, "is not understood"},
	{"NUL in a path", HEAD "{ \"Encoded-Path\": \"6200ff\", \"Size\": 0 }" TAIL, NULL, -1, "is not understood"},
	{"no path", HEAD "{ \"Size\": 0 }" TAIL, NULL, -1, "is not understood"},
	{"negative size", HEAD "{ \"Path\": \"a\", \"Size\": -1 }" TAIL, NULL, -1, "is not understood"},
	{"no size", HEAD "{ \"Path\": \"a\" }" TAIL, NULL, -1, "is not understood"},
	{"algorithm without checksum", HEAD "{ \"Path\": \"a\", \"Size\": 1, \"Checksum-Algorithm\": \"SHA256\" }" TAIL, NULL,
	-1, "is not understood"},
	{"checksum without algorithm", HEAD "{ \"Path\": \"a\", \"Size\": 1, \"Checksum\": \"00\" }" TAIL, NULL, -1,
	"is not understood"},
	{"unknown algorithm", HEAD "{ \"Path\": \"a\", \"Size\": 1, \"Checksum-Algorithm\": \"MD5\", \"Checksum\": \"00\" }" TAIL, NULL,
	-1, "is not understood"},
	{"checksum of another length", HEAD "{ \"Path\": \"a\", \"Size\": 1, \"Checksum-Algorithm\": \"SHA256\", \"Checksum\": "
	"\"839206e3\" }" TAIL, NULL, -1, "is not understood"},
	{"entry is cut", HEAD "{ \"Path\": \"a\",\n", NULL, -1, "is not understood"},
};

START_TEST(manifest)
{
	char		messages[1024];
	int			count;

	write_manifest(manifests[_i].text, manifests[_i].checksum);
	count = read_manifest(messages, sizeof(messages));
	ck_assert_msg(count == manifests[_i].count, "%s: %d files; %s", manifests[_i].name, count, messages);
	ck_assert_msg(strstr(messages, manifests[_i].message) != NULL && (count < 0 || messages[0] == '\0'), "%s: %s",
				  manifests[_i].name, messages);
}
END_TEST

/* Wherever it is cut, that is noticed. */
START_TEST(manifest_truncated)
{
	char		messages[1024];
	struct stat st;

	write_manifest(HEAD "\n" ENTRY "\n" TAIL, NULL);
	ck_assert_int_eq(stat(manifest_path, &st), 0);
	for (off_t len = 0; len < st.st_size; len++)
	{
		write_manifest(HEAD "\n" ENTRY "\n" TAIL, NULL);
		ck_assert_int_eq(truncate(manifest_path, len), 0);
		ck_assert_int_eq(read_manifest(messages, sizeof(messages)), -1);
		ck_assert_ptr_nonnull(strstr(messages, "is not valid"));
	}
	write_manifest(HEAD "\n" ENTRY "\n" TAIL, NULL);
	ck_assert_int_eq(read_manifest(messages, sizeof(messages)), 1);
}
END_TEST

/* ---- checksum of a file ----------------------------------------------------------------------- */

static const struct
{
	const char *entry;
	const char *content;
	bool		matches;
}			sums[] = {
	{ENTRY, "123456789", true},
	{ENTRY, "123456780", false},
	{"{ \"Path\": \"a\", \"Size\": 3 }", "abc", true},
	{"{ \"Path\": \"a\", \"Size\": 3, \"Checksum-Algorithm\": \"SHA256\", \"Checksum\": "
	"\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\" }", "abc", true},
	{"{ \"Path\": \"a\", \"Size\": 3, \"Checksum-Algorithm\": \"SHA256\", \"Checksum\": "
	"\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\" }", "abd", false},
};

START_TEST(checksum)
{
	char	   *text = pgx_printf(HEAD "%s" TAIL, sums[_i].entry);
	struct pgx_manifest *m;
	struct pgx_manifest_file file;
	struct pgx_checksum *sum;

	write_manifest(text, NULL);
	m = pgx_manifest_open(manifest_path);
	ck_assert_ptr_nonnull(m);
	ck_assert_int_eq(pgx_manifest_next(m, &file), 1);
	ck_assert_uint_eq(file.size, strlen(sums[_i].content));
	sum = pgx_checksum_new(&file);
	ck_assert_ptr_nonnull(sum);
	for (const char *p = sums[_i].content; *p != '\0'; p++)
		ck_assert(pgx_checksum_add(sum, p, 1));
	ck_assert(pgx_checksum_matches(&sum) == sums[_i].matches);
	ck_assert_ptr_null(sum);
	pgx_manifest_close(&m);
	(void) unlink(manifest_path);
	free(text);
}
END_TEST

int
main(int argc, char **argv)
{
	Suite	   *s = suite_create("backup_manifest");

	(void) argc;
	pgx_log_init(argv[0]);
	ADD_LOOP_TEST(s, crc32c_known, LENGTH_OF(crcs));
	ADD_TEST(s, crc32c_pieces);
	ADD_LOOP_TEST(s, manifest, LENGTH_OF(manifests));
	ADD_TEST(s, manifest_truncated);
	ADD_LOOP_TEST(s, checksum, LENGTH_OF(sums));
	return run_suite(s);
}
