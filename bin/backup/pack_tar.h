/*
 * pack_tar.h
 *		Take apart the tar archives that a server sends in a base backup, while they come.
 *
 * The server writes POSIX ustar headers (IEEE Std 1003.1, pax, "ustar interchange format"), with sizes of
 * 8 GiB and more in base 256 as GNU tar has them.  Files, directories and symbolic links only; anything else,
 * and names that are not plain relative paths, are refused.
 */
#ifndef PACK_TAR_H
#define PACK_TAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pack_format.h"

#define PACK_TAR_BLOCK	512

struct pack_tar_entry
{
	enum pack_file_kind kind;
	uint32_t	mode;
	int64_t		mtime;
	uint64_t	size;
	char		path[PACK_MAX_PATH + 1];
	char		link[PACK_MAX_PATH + 1];
};

/* Where the content goes.  Each returns false to stop, after saying why. */
struct pack_tar_sink
{
	bool		(*begin) (void *arg, const struct pack_tar_entry *entry);
	bool		(*data) (void *arg, const uint8_t *data, size_t len);
	bool		(*end) (void *arg);
	void	   *arg;
};

struct pack_tar
{
	struct pack_tar_sink sink;
	uint8_t		header[PACK_TAR_BLOCK];
	size_t		have;			/* bytes of header */
	uint64_t	content;		/* still to come of the entry */
	size_t		padding;		/* and after it */
	bool		ended;			/* a block of zeros was there */
	const char *error;			/* why the archive is refused; NULL if the sink stopped it */
};

extern void pack_tar_init(struct pack_tar *tar, const struct pack_tar_sink *sink);
extern bool pack_tar_feed(struct pack_tar *tar, const uint8_t *data, size_t len);

/* Nothing more comes: was the archive whole? */
extern bool pack_tar_finish(struct pack_tar *tar);

#endif							/* PACK_TAR_H */
