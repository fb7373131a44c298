/*
 * io_wal.c
 *		Reading and writing WAL files.
 *
 * A page keeps the epoch that it has on disk for as long as it is rewritten, over
 * a restart too: rewriting flushed bytes differently would lose committed
 * records when the write is torn.  A new page takes the epoch of this run.
 */
#include <config.h>

#include <errno.h>
#include <string.h>

#include "io_internal.h"

/* A read of ours on the server's descriptor, which may have been opened with O_DIRECT. */
#define DIRECT_ALIGN	4096

/* Headers of pages that this process read lately: a walsender's message is at most 16 pages long. */
#define KNOWN_HEADERS	64
static struct tde_wal_header known[KNOWN_HEADERS];

static void
remember_header(const struct tde_wal_header *header)
{
	known[(header->address / PGX_IO_PAGE) % KNOWN_HEADERS] = *header;
}

bool
pgx_wal_known_header(uint64_t page_address, struct tde_wal_header *ret_header)
{
	const struct tde_wal_header *header = &known[(page_address / PGX_IO_PAGE) % KNOWN_HEADERS];

	if (header->header_len == 0 || header->address != page_address)
		return false;
	*ret_header = *header;
	return true;
}

int
pgx_wal_wire_crypt(const struct tde_wal_header *header, size_t offset, uint8_t *buf, size_t len)
{
	uint64_t	begin;
	tde_ctr    *ctr;

	/* A page in the clear is sent in the clear; there may be no key at all yet. */
	if (header->epoch == 0)
		return 0;
	ctr = pgx_io_wal_cipher();
	begin = pgx_count_begin();
	if (ctr == NULL || tde_wal_crypt(ctr, header, offset, buf, buf, len) != 0)
	{
		pgx_count_failure(PGX_COUNT_REPLICATION);
		return -1;
	}
	pgx_count(PGX_COUNT_REPLICATION, PGX_ENCRYPTED, 1, len, begin);
	return 0;
}

/* The magic that a page has to have. */
static uint16_t
wal_magic(const uint8_t *page)
{
	uint16_t	magic = pgx_server->wal_magic;

	if (magic == 0)
		memcpy(&magic, page, sizeof(magic));
	return magic;
}

/* Decrypt one page in place, if it is an encrypted page at all. */
static int
decrypt_page(uint8_t *page)
{
	struct tde_wal_header header;
	uint64_t	begin;
	size_t		used;
	tde_ctr    *ctr;

	if (!tde_wal_parse(page, wal_magic(page), &header))
		return 0;
	remember_header(&header);
	if (header.epoch == 0)
		return 0;
	ctr = pgx_io_wal_cipher();
	if (ctr == NULL)
	{
		pgx_count_failure(PGX_COUNT_WAL);
		pgx_server->wal_key_missing();
		return -1;
	}
	begin = pgx_count_begin();
	used = tde_wal_used(page);
	if (tde_wal_page_decrypt(ctr, &header, page) != 0)
	{
		pgx_count_failure(PGX_COUNT_WAL);
		errno = EIO;
		return -1;
	}
	pgx_count(PGX_COUNT_WAL, PGX_DECRYPTED, 1, used > header.header_len ? used - header.header_len : 0, begin);
	return 0;
}

/*
 * Read any range.  What is not made of whole pages goes through the bounce buffer,
 * since where a page's trailing zeros begin can be seen on the whole page only.
 */
ssize_t
pgx_wal_pread(int fd, void *buf, size_t len, off_t off)
{
	uint8_t    *to = buf;
	size_t		done = 0;

	while (done < len)
	{
		off_t		at = off + (off_t) done;
		size_t		skip = (size_t) (at % PGX_IO_PAGE);
		size_t		want = len - done;
		bool		direct = skip == 0 && want >= PGX_IO_PAGE;
		uint8_t    *pages = direct ? to + done : pgx_bounce;
		size_t		span;
		ssize_t		got;

		if (direct)
			span = want - want % PGX_IO_PAGE;
		else
		{
			if (want > PGX_IO_PAGE - skip)
				want = PGX_IO_PAGE - skip;
			span = PGX_IO_PAGE;
		}
		got = pgx_raw_pread(fd, pages, span, at - (off_t) skip);
		if (got < 0)
			return done > 0 ? (ssize_t) done : -1;

		/* A file that ends inside a page: treat the rest as the zeros it would be. */
		if (got % PGX_IO_PAGE != 0 && !direct)
			memset(pages + got, 0, span - (size_t) got);
		else if (direct)
			got -= got % PGX_IO_PAGE;

		for (size_t i = 0; i < span && (ssize_t) i < got; i += PGX_IO_PAGE)
		{
			if (decrypt_page(pages + i) != 0)
				return -1;
		}
		if (direct)
		{
			done += (size_t) got;
			if (got == 0)
				break;
			continue;
		}
		if (got <= (ssize_t) skip)
			break;
		if (want > (size_t) got - skip)
			want = (size_t) got - skip;
		memcpy(to + done, pages + skip, want);
		done += want;
		if (got < (ssize_t) span)
			break;
	}
	return (ssize_t) done;
}

/* The epoch of the page that is on disk at off now; 0 and false if another page, or none, is there. */
static bool
epoch_on_disk(int fd, off_t off, const struct tde_wal_header *header, uint32_t *ret_epoch)
{
	static uint8_t block[DIRECT_ALIGN] __attribute__((aligned(DIRECT_ALIGN)));
	struct tde_wal_header there;

	if (pgx_raw_pread(fd, block, sizeof(block), off) != (ssize_t) sizeof(block))
		return false;
	if (!tde_wal_parse(block, pgx_server->wal_magic, &there) ||
		there.address != header->address || there.timeline != header->timeline)
		return false;
	*ret_epoch = there.epoch;
	return true;
}

/*
 * Under which epoch a page goes to disk.  Only the first page of a write can have been written
 * before: the server writes WAL in order and begins with the page it left off at.
 */
static uint32_t
choose_epoch(int fd, off_t off, bool first, const struct tde_wal_header *header)
{
	const struct pgx_io_shared *shared = pgx_shared;
	uint32_t	epoch;

	if (shared->last_valid && shared->last_timeline == header->timeline)
	{
		if (shared->last_address == header->address)
			return shared->last_epoch;
		if (shared->last_address + PGX_IO_PAGE == header->address)
			first = false;
	}
	if (first && epoch_on_disk(fd, off, header, &epoch))
		return epoch;
	return atomic_load(&pgx_shared->wal_epoch);
}

/* How much of a segment's page the server has promised: nothing past the end of what is inserted. */
static size_t
promised_len(const struct tde_wal_header *header, uint64_t insert_end)
{
	if (insert_end >= header->address + PGX_IO_PAGE)
		return PGX_IO_PAGE;
	if (insert_end <= header->address + header->header_len)
		return header->header_len;
	return (size_t) (insert_end - header->address);
}

/*
 * A page that is copied to a new timeline's file, under this run's epoch.  Its trailing zeros stay plain, or
 * they would publish the keystream of records to come; but zeros that belong
 * to replayed records do not, or a write torn later could not be read.
 */
static size_t
copied_len(const struct tde_wal_header *header, const uint8_t *page)
{
	size_t		used = tde_wal_used(page);
	uint64_t	replay_end = pgx_server->replay_end();

	if (replay_end > header->address)
	{
		size_t		replayed = promised_len(header, replay_end);

		if (used < replayed)
			used = replayed;
	}
	return used < header->header_len ? header->header_len : used;
}

/*
 * Encrypt a page of the server's into out, as it is to be written at off.  -1 with errno set.  Others may be inserting
 * behind insert_end, but a page's header that is looked at here does not change any more.
 */
static int
encrypt_page(int fd, off_t off, bool first, uint64_t insert_end, const uint8_t *page, uint8_t *out)
{
	bool		temp = pgx_files[fd].kind == PGX_IO_WAL_TEMP;
	struct tde_wal_header header;
	size_t		valid_len;
	uint64_t	begin;
	tde_ctr    *ctr;

	if (!tde_wal_parse(page, pgx_server->wal_magic, &header))
	{
		/* The rest of a switched segment is zero.  Anything else could only be data in the clear. */
		memcpy(out, page, PGX_IO_PAGE);
		if (temp || tde_page_is_zero(out))
			return 0;
		pgx_count_failure(PGX_COUNT_WAL);
		errno = EINVAL;
		return -1;
	}
	if (temp)
	{
		header.epoch = atomic_load(&pgx_shared->wal_epoch);
		valid_len = copied_len(&header, page);
	}
	else
	{
		header.epoch = choose_epoch(fd, off, first, &header);
		pgx_shared->last_valid = false;
		pgx_shared->last_epoch = header.epoch;
		pgx_shared->last_timeline = header.timeline;
		pgx_shared->last_address = header.address;
		pgx_shared->last_valid = true;
		valid_len = promised_len(&header, insert_end);
	}
	if (header.epoch == 0)
	{
		/* The page was begun in the clear, before encryption was switched on. */
		memcpy(out, page, PGX_IO_PAGE);
		tde_wal_set_epoch(out, 0);
		return 0;
	}
	ctr = pgx_io_wal_cipher();
	begin = pgx_count_begin();
	if (ctr == NULL || tde_wal_page_encrypt(ctr, &header, valid_len, page, out) != 0)
	{
		pgx_count_failure(PGX_COUNT_WAL);
		if (ctr != NULL)
			errno = EIO;
		return -1;
	}
	pgx_count(PGX_COUNT_WAL, PGX_ENCRYPTED, 1, valid_len - header.header_len, begin);
	return 0;
}

/* As the caller's bytes are, to both places. */
static ssize_t
write_plain(int fd, const void *buf, size_t len, off_t off)
{
	ssize_t		put = pgx_libc.pwrite(fd, buf, len, off);

	if (put > 0 && pgx_files[fd].mirror != 0)
		pgx_mirror_wrote(fd, buf, (size_t) put, off);
	return put;
}

ssize_t
pgx_wal_pwrite(int fd, const void *buf, size_t len, off_t off)
{
	const uint8_t *from = buf;
	uint64_t	insert_end;
	size_t		done = 0;

	if (atomic_load_explicit(&pgx_shared->wal_on, memory_order_acquire) == 0)
		return write_plain(fd, buf, len, off);
	if (len % PGX_IO_PAGE != 0 || off % PGX_IO_PAGE != 0)
	{
		/* A timeline's history, or the last byte of a file that is to be long enough. */
		if (pgx_files[fd].kind == PGX_IO_WAL_TEMP)
			return pgx_libc.pwrite(fd, buf, len, off);
		pgx_count_failure(PGX_COUNT_WAL);
		errno = EINVAL;
		return -1;
	}

	/* Before they are read: bytes inserted after this moment are not promised yet. */
	insert_end = pgx_files[fd].kind == PGX_IO_WAL ? pgx_server->insert_end() : 0;
	while (done < len)
	{
		size_t		batch = len - done;
		ssize_t		put;

		if (batch > PGX_IO_BATCH * PGX_IO_PAGE)
			batch = PGX_IO_BATCH * PGX_IO_PAGE;
		for (size_t i = 0; i < batch; i += PGX_IO_PAGE)
		{
			if (encrypt_page(fd, off + (off_t) (done + i), done + i == 0, insert_end,
							 from + done + i, pgx_bounce + i) != 0)
				return -1;
		}
		put = pgx_raw_pwrite(fd, pgx_bounce, batch, off + (off_t) done);
		if (put > 0 && pgx_files[fd].mirror != 0)
			pgx_mirror_wrote(fd, pgx_bounce, (size_t) put, off + (off_t) done);
		if (put > 0)
			done += (size_t) (put - put % PGX_IO_PAGE);
		if (put < (ssize_t) batch)
		{
			/* Which epoch the page at the cut has is for the disk to say. */
			pgx_shared->last_valid = false;
			return done > 0 ? (ssize_t) done : -1;
		}
	}
	return (ssize_t) done;
}
