/*
 * pack_format.h
 *		What is inside a packed backup's stream: blocks, and the records in them.
 *
 * Bytes: pgx_backup_stream(5).  Works on buffers only, so that it can be tested and fuzzed alone.
 * A block stands alone: it is decompressed and its records are understood without any other, which is what
 * lets several threads work.  A file that does not fit into a block is continued by another extent
 * in the next.
 */
#ifndef PACK_FORMAT_H
#define PACK_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PACK_BLOCK_SIZE		(4 * 1024 * 1024)	/* bytes of records in a block, at most */
#define PACK_BLOCK_HEADER	12	/* codec, length of the records, length as stored; u32 each */
#define PACK_RECORD_HEADER	8	/* type, length of what follows; u32 each */
#define PACK_MAX_PATH		1023	/* bytes */
#define PACK_PAGE			8192

/* Numbers are on disk. */
enum pack_record_type
{
	PACK_KEYTABLE = 1,			/* the server's key table, as it is in pgx_tde/keys */
	PACK_TABLESPACE = 2,		/* OID and location of a tablespace */
	PACK_EXTENT = 3,			/* a file, or a part of it */
	PACK_END = 4				/* the last record */
};

enum pack_file_kind
{
	PACK_FILE = 1,
	PACK_DIRECTORY = 2,
	PACK_LINK = 3
};

enum pack_transform
{
	PACK_RAW = 0,				/* as the server has it on disk */
	PACK_PAGES = 1				/* whole pages were decrypted with the tablespace's key */
};

/* What is said of a file in each of its extents. */
struct pack_file
{
	uint32_t	archive;		/* 0: the data directory; else the tablespace's OID */
	enum pack_file_kind kind;
	enum pack_transform transform;
	uint32_t	mode;
	int64_t		mtime;			/* seconds since 1970 */
	uint64_t	size;			/* of the whole file */
	/* For PACK_PAGES, else 0. */
	uint32_t	tablespace;		/* whose key */
	uint32_t	database;
	uint32_t	relation;
	uint32_t	fork;
	uint32_t	first_block;	/* of the file, within the fork */
	char		path[PACK_MAX_PATH + 1];	/* relative to the archive's directory */
	char		link[PACK_MAX_PATH + 1];	/* target of a PACK_LINK, else "" */
};

struct pack_tablespace
{
	uint32_t	oid;
	char		location[PACK_MAX_PATH + 1];
};

/* What the last record says. */
struct pack_end
{
	uint64_t	extents;		/* in the whole backup */
	uint64_t	bytes;			/* of all their data */
	uint64_t	start_lsn;
	uint64_t	end_lsn;
	uint32_t	start_timeline;
	uint32_t	end_timeline;
};

struct pack_record
{
	enum pack_record_type type;
	struct pack_file file;		/* EXTENT */
	uint64_t	offset;			/* EXTENT: of data in the file */
	struct pack_tablespace tablespace;	/* TABLESPACE */
	struct pack_end end;		/* END */
	uint8_t    *data;			/* EXTENT, KEYTABLE: borrowed from the block */
	size_t		len;
};

/* ---- blocks ------------------------------------------------------------------ */

struct pack_block_header
{
	uint32_t	codec;
	uint32_t	raw_len;
	uint32_t	stored_len;
};

extern void pack_put_block_header(uint8_t to[PACK_BLOCK_HEADER], const struct pack_block_header *header);

/* False if it is out of range: longer than max_stored or PACK_BLOCK_SIZE, empty, or of an unknown codec. */
extern bool pack_get_block_header(const uint8_t from[PACK_BLOCK_HEADER], size_t max_stored,
								  struct pack_block_header *ret_header);

/* ---- writing records ------------------------------------------------------------ */

/* A block that is being filled.  buf has PACK_BLOCK_SIZE bytes. */
struct pack_writer
{
	uint8_t    *buf;
	size_t		len;
	size_t		extent;			/* where the open extent's record begins, if extent_open */
	size_t		limit;			/* where its data ends at the latest: after whole pages */
	bool		extent_open;
};

extern void pack_writer_init(struct pack_writer *writer, uint8_t *buf);

/* Each returns false, and writes nothing, if there is no room.  None while an extent is open. */
extern bool pack_put_keytable(struct pack_writer *writer, const uint8_t *bytes, size_t len);
extern bool pack_put_tablespace(struct pack_writer *writer, const struct pack_tablespace *tablespace);
extern bool pack_put_end(struct pack_writer *writer, const struct pack_end *end);

/* Begin an extent.  False too if not even one page would fit after it. */
extern bool pack_begin_extent(struct pack_writer *writer, const struct pack_file *file, uint64_t offset);

/* How many bytes the open extent still takes; all of it is a multiple of PACK_PAGE. */
extern size_t pack_extent_room(const struct pack_writer *writer);
extern void pack_add_data(struct pack_writer *writer, const uint8_t *data, size_t len);
extern void pack_end_extent(struct pack_writer *writer);

/* ---- reading records -------------------------------------------------------------- */

enum pack_next
{
	PACK_NEXT_DAMAGED = -1,		/* these bytes are no record */
	PACK_NEXT_NONE = 0,			/* the block ends here */
	PACK_NEXT_RECORD = 1
};

/* The record at *at, which moves on.  Everything in it is in range, and paths are safe to be used below a directory. */
extern enum pack_next pack_next_record(uint8_t *block, size_t len, size_t *at, struct pack_record *ret_record);

/* Relative, made of plain names, not empty, no longer than PACK_MAX_PATH. */
extern bool pack_path_is_safe(const char *path);

#endif							/* PACK_FORMAT_H */
