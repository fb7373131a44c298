/*
 * pack_tar.c
 *		Taking tar archives apart.  See pack_tar.h.
 */
#include <config.h>

#include <string.h>

#include "pack_tar.h"

/* Fields of a header: offset and length in bytes. */
#define NAME_AT			0
#define NAME_LEN		100
#define MODE_AT			100
#define MODE_LEN		8
#define SIZE_AT			124
#define SIZE_LEN		12
#define MTIME_AT		136
#define MTIME_LEN		12
#define CHECKSUM_AT		148
#define CHECKSUM_LEN	8
#define TYPE_AT			156
#define LINK_AT			157
#define LINK_LEN		100
#define MAGIC_AT		257
#define PREFIX_AT		345
#define PREFIX_LEN		155

void
pack_tar_init(struct pack_tar *tar, const struct pack_tar_sink *sink)
{
	memset(tar, 0, sizeof(*tar));
	tar->sink = *sink;
}

/* Octal digits, or base 256 if the first bit is set.  False: something else, or beyond 63 bits. */
static bool
get_number(const uint8_t *field, size_t len, uint64_t *ret_value)
{
	uint64_t	value = 0;
	size_t		i = 0;

	if (field[0] == 0x80)
	{
		for (i = 1; i < len; i++)
		{
			if (value >> 55 != 0)
				return false;
			value = value << 8 | field[i];
		}
		*ret_value = value;
		return true;
	}
	while (i < len && field[i] == ' ')
		i++;
	for (; i < len && field[i] >= '0' && field[i] <= '7'; i++)
	{
		if (value >> 60 != 0)
			return false;
		value = value << 3 | (uint64_t) (field[i] - '0');
	}
	for (; i < len; i++)
		if (field[i] != '\0' && field[i] != ' ')
			return false;
	*ret_value = value;
	return true;
}

/* The sum of the header's bytes, with its own field taken as blanks. */
static bool
checksum_fits(const uint8_t *header)
{
	uint64_t	stored;
	uint64_t	sum = 0;

	for (size_t i = 0; i < PACK_TAR_BLOCK; i++)
		sum += i >= CHECKSUM_AT && i < CHECKSUM_AT + CHECKSUM_LEN ? ' ' : header[i];
	return get_number(header + CHECKSUM_AT, CHECKSUM_LEN, &stored) && stored == sum;
}

static bool
is_zero(const uint8_t *header)
{
	for (size_t i = 0; i < PACK_TAR_BLOCK; i++)
		if (header[i] != 0)
			return false;
	return true;
}

/* The entry's name, without a slash at the end, which directories have, or the "./" of pg_wal/archive_status. */
static bool
get_path(const uint8_t *header, char *ret_path)
{
	size_t		prefix = strnlen((const char *) header + PREFIX_AT, PREFIX_LEN);
	size_t		name = strnlen((const char *) header + NAME_AT, NAME_LEN);
	size_t		len = 0;

	if (prefix > 0)
	{
		memcpy(ret_path, header + PREFIX_AT, prefix);
		len = prefix;
		ret_path[len++] = '/';
	}
	memcpy(ret_path + len, header + NAME_AT, name);
	len += name;
	if (len > 0 && ret_path[len - 1] == '/')
		len--;
	ret_path[len] = '\0';
	if (strncmp(ret_path, "./", 2) == 0)
		memmove(ret_path, ret_path + 2, len - 1);
	return pack_path_is_safe(ret_path);
}

static bool
get_entry(struct pack_tar *tar, struct pack_tar_entry *entry)
{
	const uint8_t *header = tar->header;
	uint64_t	mode;
	uint64_t	mtime;
	size_t		link = strnlen((const char *) header + LINK_AT, LINK_LEN);

	memset(entry, 0, sizeof(*entry));
	if (memcmp(header + MAGIC_AT, "ustar", 5) != 0 || !checksum_fits(header))
		tar->error = "an archive that the server sent is damaged";
	else if (!get_number(header + MODE_AT, MODE_LEN, &mode) ||
			 !get_number(header + SIZE_AT, SIZE_LEN, &entry->size) ||
			 !get_number(header + MTIME_AT, MTIME_LEN, &mtime))
		tar->error = "an archive that the server sent has a header with bad numbers";
	else if (!get_path(header, entry->path))
		tar->error = "an archive that the server sent has a name that is not a plain relative path";
	if (tar->error != NULL)
		return false;

	entry->mode = (uint32_t) mode & 07777;
	entry->mtime = (int64_t) mtime;
	switch (header[TYPE_AT])
	{
		case '0':
		case '\0':
			entry->kind = PACK_FILE;
			return true;
		case '2':
			entry->kind = PACK_LINK;
			memcpy(entry->link, header + LINK_AT, link);
			break;
		case '5':
			entry->kind = PACK_DIRECTORY;
			break;
		default:
			tar->error = "an archive that the server sent has an entry of a kind that is not known";
			return false;
	}
	if (entry->size != 0 || (entry->kind == PACK_LINK && link == 0))
		tar->error = "an archive that the server sent has a bad directory or link";
	return tar->error == NULL;
}

/* The header is complete: begin an entry, or note the end. */
static bool
take_header(struct pack_tar *tar)
{
	struct pack_tar_entry entry;

	tar->have = 0;
	if (is_zero(tar->header))
	{
		tar->ended = true;
		return true;
	}
	if (tar->ended)
	{
		tar->error = "an archive that the server sent goes on after its end";
		return false;
	}
	if (!get_entry(tar, &entry) || !tar->sink.begin(tar->sink.arg, &entry))
		return false;
	tar->content = entry.size;
	tar->padding = (PACK_TAR_BLOCK - entry.size % PACK_TAR_BLOCK) % PACK_TAR_BLOCK;
	return tar->content > 0 || tar->sink.end(tar->sink.arg);
}

bool
pack_tar_feed(struct pack_tar *tar, const uint8_t *data, size_t len)
{
	while (len > 0)
	{
		size_t		n = len;

		if (tar->content > 0)
		{
			if (n > tar->content)
				n = (size_t) tar->content;
			if (!tar->sink.data(tar->sink.arg, data, n))
				return false;
			tar->content -= n;
			if (tar->content == 0 && !tar->sink.end(tar->sink.arg))
				return false;
		}
		else if (tar->padding > 0)
		{
			if (n > tar->padding)
				n = tar->padding;
			tar->padding -= n;
		}
		else
		{
			if (n > PACK_TAR_BLOCK - tar->have)
				n = PACK_TAR_BLOCK - tar->have;
			memcpy(tar->header + tar->have, data, n);
			tar->have += n;
			if (tar->have == PACK_TAR_BLOCK && !take_header(tar))
				return false;
		}
		data += n;
		len -= n;
	}
	return true;
}

bool
pack_tar_finish(struct pack_tar *tar)
{
	if (tar->content == 0 && tar->padding == 0 && tar->have == 0)
		return true;
	tar->error = "an archive that the server sent is cut off";
	return false;
}
