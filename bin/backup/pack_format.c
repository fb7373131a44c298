/*
 * pack_format.c
 *		Blocks and records of a packed backup.  See pack_format.h.
 */
#include <config.h>

#include <string.h>

#include "pack.h"
#include "pack_format.h"

/* Lengths of what comes before the strings. */
#define EXTENT_FIXED		60
#define TABLESPACE_FIXED	4
#define END_LEN				40

/* ---- numbers and strings -------------------------------------------------------- */

static uint8_t *
put_u16(uint8_t *to, uint32_t value)
{
	to[0] = (uint8_t) (value >> 8);
	to[1] = (uint8_t) value;
	return to + 2;
}

static uint8_t *
put_u32(uint8_t *to, uint32_t value)
{
	return put_u16(put_u16(to, value >> 16), value & 0xFFFF);
}

static uint8_t *
put_u64(uint8_t *to, uint64_t value)
{
	return put_u32(put_u32(to, (uint32_t) (value >> 32)), (uint32_t) value);
}

static uint8_t *
put_text(uint8_t *to, const char *text)
{
	size_t		len = strlen(text);

	to = put_u16(to, (uint32_t) len);
	memcpy(to, text, len);
	return to + len;
}

/* What is left of a record; ok becomes false where something is missing, and then all reads give 0. */
struct input
{
	const uint8_t *p;
	size_t		left;
	bool		ok;
};

static uint64_t
get(struct input *in, size_t n)
{
	uint64_t	value = 0;

	if (in->left < n)
		in->ok = false;
	if (!in->ok)
		return 0;
	for (size_t i = 0; i < n; i++)
		value = value << 8 | in->p[i];
	in->p += n;
	in->left -= n;
	return value;
}

/* A string without a NUL in it. */
static void
get_text(struct input *in, char ret_text[PACK_MAX_PATH + 1])
{
	size_t		len = (size_t) get(in, 2);

	if (len > PACK_MAX_PATH || len > in->left || (len > 0 && memchr(in->p, '\0', len) != NULL))
		in->ok = false;
	if (!in->ok)
		len = 0;
	memcpy(ret_text, in->p, len);
	ret_text[len] = '\0';
	in->p += len;
	in->left -= len;
}

/* ---- blocks ------------------------------------------------------------------ */

void
pack_put_block_header(uint8_t to[PACK_BLOCK_HEADER], const struct pack_block_header *header)
{
	put_u32(put_u32(put_u32(to, header->codec), header->raw_len), header->stored_len);
}

bool
pack_get_block_header(const uint8_t from[PACK_BLOCK_HEADER], size_t max_stored,
					  struct pack_block_header *ret_header)
{
	struct input in = {from, PACK_BLOCK_HEADER, true};

	ret_header->codec = (uint32_t) get(&in, 4);
	ret_header->raw_len = (uint32_t) get(&in, 4);
	ret_header->stored_len = (uint32_t) get(&in, 4);
	return ret_header->codec <= PGX_PACK_LZ4 &&
		ret_header->raw_len > 0 && ret_header->raw_len <= PACK_BLOCK_SIZE &&
		ret_header->stored_len > 0 && ret_header->stored_len <= max_stored &&
		(ret_header->codec != PGX_PACK_NONE || ret_header->raw_len == ret_header->stored_len);
}

/* ---- writing records ------------------------------------------------------------ */

void
pack_writer_init(struct pack_writer *writer, uint8_t *buf)
{
	memset(writer, 0, sizeof(*writer));
	writer->buf = buf;
}

/* Begin a record of len bytes; NULL if there is no room. */
static uint8_t *
begin_record(struct pack_writer *writer, enum pack_record_type type, size_t len)
{
	uint8_t    *to = writer->buf + writer->len;

	if (writer->extent_open || len > PACK_BLOCK_SIZE ||
		PACK_BLOCK_SIZE - writer->len < PACK_RECORD_HEADER + len)
		return NULL;
	writer->len += PACK_RECORD_HEADER + len;
	return put_u32(put_u32(to, type), (uint32_t) len);
}

bool
pack_put_keytable(struct pack_writer *writer, const uint8_t *bytes, size_t len)
{
	uint8_t    *to = begin_record(writer, PACK_KEYTABLE, len);

	if (to == NULL)
		return false;
	memcpy(to, bytes, len);
	return true;
}

bool
pack_put_tablespace(struct pack_writer *writer, const struct pack_tablespace *tablespace)
{
	uint8_t    *to = begin_record(writer, PACK_TABLESPACE,
								  TABLESPACE_FIXED + 2 + strlen(tablespace->location));

	if (to == NULL)
		return false;
	put_text(put_u32(to, tablespace->oid), tablespace->location);
	return true;
}

bool
pack_put_end(struct pack_writer *writer, const struct pack_end *end)
{
	uint8_t    *to = begin_record(writer, PACK_END, END_LEN);

	if (to == NULL)
		return false;
	to = put_u64(put_u64(to, end->extents), end->bytes);
	to = put_u32(put_u64(to, end->start_lsn), end->start_timeline);
	put_u32(put_u64(to, end->end_lsn), end->end_timeline);
	return true;
}

bool
pack_begin_extent(struct pack_writer *writer, const struct pack_file *file, uint64_t offset)
{
	size_t		len = EXTENT_FIXED + 2 + strlen(file->path) + 2 + strlen(file->link);
	size_t		begin = writer->len;
	uint8_t    *to;

	if (PACK_BLOCK_SIZE - writer->len < PACK_RECORD_HEADER + len + PACK_PAGE)
		return false;
	to = begin_record(writer, PACK_EXTENT, len);
	if (to == NULL)
		return false;
	to = put_u32(put_u32(to, file->archive), file->kind);
	to = put_u32(put_u32(to, file->transform), file->mode);
	to = put_u64(put_u64(to, (uint64_t) file->mtime), file->size);
	to = put_u64(to, offset);
	to = put_u32(put_u32(to, file->tablespace), file->database);
	to = put_u32(put_u32(to, file->relation), file->fork);
	to = put_u32(to, file->first_block);
	put_text(put_text(to, file->path), file->link);
	writer->extent = begin;
	writer->extent_open = true;
	writer->limit = writer->len + (PACK_BLOCK_SIZE - writer->len) / PACK_PAGE * PACK_PAGE;
	return true;
}

size_t
pack_extent_room(const struct pack_writer *writer)
{
	return writer->limit - writer->len;
}

void
pack_add_data(struct pack_writer *writer, const uint8_t *data, size_t len)
{
	memcpy(writer->buf + writer->len, data, len);
	writer->len += len;
}

void
pack_end_extent(struct pack_writer *writer)
{
	put_u32(writer->buf + writer->extent + 4,
			(uint32_t) (writer->len - writer->extent - PACK_RECORD_HEADER));
	writer->extent_open = false;
}

/* ---- reading records -------------------------------------------------------------- */

bool
pack_path_is_safe(const char *path)
{
	const char *p = path;

	if (strlen(path) > PACK_MAX_PATH)
		return false;
	for (;;)
	{
		size_t		len = strcspn(p, "/");

		if (len == 0 || (len == 1 && p[0] == '.') || (len == 2 && p[0] == '.' && p[1] == '.'))
			return false;
		if (p[len] == '\0')
			return true;
		p += len + 1;
	}
}

static bool
get_extent(struct input *in, uint8_t *payload, size_t payload_len, struct pack_record *rec)
{
	struct pack_file *file = &rec->file;

	file->archive = (uint32_t) get(in, 4);
	file->kind = (enum pack_file_kind) get(in, 4);
	file->transform = (enum pack_transform) get(in, 4);
	file->mode = (uint32_t) get(in, 4);
	file->mtime = (int64_t) get(in, 8);
	file->size = get(in, 8);
	rec->offset = get(in, 8);
	file->tablespace = (uint32_t) get(in, 4);
	file->database = (uint32_t) get(in, 4);
	file->relation = (uint32_t) get(in, 4);
	file->fork = (uint32_t) get(in, 4);
	file->first_block = (uint32_t) get(in, 4);
	get_text(in, file->path);
	get_text(in, file->link);
	if (!in->ok)
		return false;
	rec->data = payload + (payload_len - in->left);
	rec->len = in->left;

	if (!pack_path_is_safe(file->path) || (file->mode & ~07777u) != 0 ||
		file->size > INT64_MAX || rec->offset > file->size || rec->len > file->size - rec->offset)
		return false;
	switch (file->kind)
	{
		case PACK_FILE:
			if (file->link[0] != '\0')
				return false;
			break;
		case PACK_DIRECTORY:
			if (file->link[0] != '\0' || file->size != 0)
				return false;
			break;
		case PACK_LINK:
			if (file->link[0] == '\0' || file->size != 0)
				return false;
			break;
		default:
			return false;
	}
	if (file->transform == PACK_RAW)
		return true;

	/* Whole pages, but for what the file itself has less at its end; block numbers that exist. */
	return file->transform == PACK_PAGES && file->kind == PACK_FILE && rec->offset % PACK_PAGE == 0 &&
		(rec->len % PACK_PAGE == 0 || rec->offset + rec->len == file->size) &&
		file->size / PACK_PAGE <= UINT32_MAX - file->first_block;
}

enum pack_next
pack_next_record(uint8_t *block, size_t len, size_t *at, struct pack_record *ret_record)
{
	struct input in = {block + *at, len - *at, true};
	uint8_t    *payload = block + *at + PACK_RECORD_HEADER;
	size_t		payload_len;

	if (*at == len)
		return PACK_NEXT_NONE;
	memset(ret_record, 0, offsetof(struct pack_record, file.path));
	ret_record->type = (enum pack_record_type) get(&in, 4);
	payload_len = (size_t) get(&in, 4);
	if (!in.ok || payload_len > in.left)
		return PACK_NEXT_DAMAGED;
	in.left = payload_len;
	*at += PACK_RECORD_HEADER + payload_len;
	ret_record->data = payload;
	ret_record->len = payload_len;

	switch (ret_record->type)
	{
		case PACK_KEYTABLE:
			return PACK_NEXT_RECORD;
		case PACK_TABLESPACE:
			ret_record->tablespace.oid = (uint32_t) get(&in, 4);
			get_text(&in, ret_record->tablespace.location);
			if (ret_record->tablespace.oid == 0 || ret_record->tablespace.location[0] != '/')
				in.ok = false;
			break;
		case PACK_EXTENT:
			return get_extent(&in, payload, payload_len, ret_record) ? PACK_NEXT_RECORD : PACK_NEXT_DAMAGED;
		case PACK_END:
			ret_record->end.extents = get(&in, 8);
			ret_record->end.bytes = get(&in, 8);
			ret_record->end.start_lsn = get(&in, 8);
			ret_record->end.start_timeline = (uint32_t) get(&in, 4);
			ret_record->end.end_lsn = get(&in, 8);
			ret_record->end.end_timeline = (uint32_t) get(&in, 4);
			break;
		default:
			return PACK_NEXT_DAMAGED;
	}
	return in.ok && in.left == 0 ? PACK_NEXT_RECORD : PACK_NEXT_DAMAGED;
}
