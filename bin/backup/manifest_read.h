/*
 * manifest_read.h
 *		Reading a backup manifest, file by file.
 *
 * One file's line at a time: what a manifest needs in memory does not grow with the cluster.
 */
#ifndef PGX_MANIFEST_READ_H
#define PGX_MANIFEST_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pgx_manifest;

enum pgx_checksum_kind
{
	PGX_CHECKSUM_NONE = 0,
	PGX_CHECKSUM_CRC32C,
	PGX_CHECKSUM_SHA			/* one of OpenSSL's; see algorithm */
};

#define PGX_CHECKSUM_MAX_LEN	64

struct pgx_manifest_file
{
	char	   *path;			/* relative to the data directory, without ".."; the reader's, until the next one */
	uint64_t	size;
	enum pgx_checksum_kind kind;
	char		algorithm[8];	/* "SHA256" */
	uint8_t		checksum[PGX_CHECKSUM_MAX_LEN];	/* as its bytes lie in the manifest */
	size_t		checksum_len;
};

/*
 * Open a manifest and verify its own checksum, which covers all of it; NULL after a message.  What it says cannot be
 * trusted more than the directory that it is in: the checksum finds accidents.
 */
extern struct pgx_manifest *pgx_manifest_open(const char *path);

/* The next file: 1; 0: there is none; -1 after a message. */
extern int	pgx_manifest_next(struct pgx_manifest *manifest, struct pgx_manifest_file *ret_file);

extern void pgx_manifest_close(struct pgx_manifest **manifest);

/* ---- checksum of one file ----------------------------------------------------------------- */

struct pgx_checksum;

/* NULL after a message.  Then the file's bytes in order; at the end, is it as the manifest says?  That frees it. */
extern struct pgx_checksum *pgx_checksum_new(const struct pgx_manifest_file *file);
extern bool pgx_checksum_add(struct pgx_checksum *sum, const void *buf, size_t len);
extern bool pgx_checksum_matches(struct pgx_checksum **sum);

#endif							/* PGX_MANIFEST_READ_H */
