/*
 * role.c
 *		What depends on the kind of server process: who sees file contents as they
 *		are on disk, and how WAL leaves on the wire.
 *
 * | process                   | relation files        | WAL files                        |
 * |---------------------------|-----------------------|----------------------------------|
 * | backends, workers, writers| decrypt, encrypt      | decrypt, encrypt                 |
 * | startup                   | decrypt, encrypt      | decrypt, encrypt                 |
 * | walsender, base backup    | as on disk            | as on disk, but its writes       |
 * | walsender otherwise       | decrypt, encrypt      | decrypt, then the wire; encrypt  |
 * | walreceiver, archiver     | -                     | as on disk                       |
 */
#include "pgx_postgres.h"

#include <fcntl.h>
#include <unistd.h>

/* Only PQcommMethods is used of libpq.h; the headers of GSSAPI are not needed for that. */
#undef ENABLE_GSS

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "libpq/libpq.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "replication/slot.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/bufmgr.h"
#include "utils/memutils.h"

#include "compat.h"
#include "pgx_tde.h"

/* 'w', start of the data, end of WAL, time: what comes before the WAL in a streaming message. */
#define WAL_MESSAGE_HEADER	25

static const PQcommMethods *server_methods;
static PQcommMethods wire_methods;

static bool
is_raw(enum pgx_io_kind kind, int open_flags)
{
	bool		read_only = (open_flags & O_ACCMODE) == O_RDONLY;

	pgx_count_this_process();	/* here, since no process works on a file before it opens one */
	switch (MyBackendType)
	{
		case B_WAL_RECEIVER:
		case B_ARCHIVER:
			return kind != PGX_IO_RELATION;
		case B_WAL_SENDER:
			/* A base backup copies files; the walsender's own writes are the server's all the same. */
			return read_only && MyWalSnd != NULL && MyWalSnd->state == WALSNDSTATE_BACKUP;
		default:
			return false;
	}
}

static uint64_t
insert_end(void)
{
	return GetXLogInsertRecPtr();
}

static uint64_t
replay_end(void)
{
	return MyBackendType == B_STARTUP ? GetXLogReplayRecPtr(NULL) : 0;
}

static void
wal_key_missing(void)
{
	if (MyBackendType == B_STARTUP)
		pgx_error_closed(FATAL, "decrypt WAL");
}

void
pgx_start_io_layer(void)
{
	static struct pgx_io_server server;

	server.data_dir = DataDir;
	server.wal_magic = XLOG_PAGE_MAGIC;
	server.checksums = DataChecksumsEnabled();
	server.timing = &track_io_timing;
	server.is_raw = is_raw;
	server.insert_end = insert_end;
	server.replay_end = replay_end;
	server.wal_key_missing = wal_key_missing;
	server.mirror_is_vital = pgx_mirror_is_vital;
	server.mirror_failed = pgx_mirror_failed;
	pgx_io->start(&server);
}

/* The header of a page as it is on this server's disk, by whatever way it is known. */
static bool
header_on_disk(XLogRecPtr page, struct tde_wal_header *ret_header)
{
	static struct tde_wal_header last;	/* messages go on where the one before ended */

	if (last.header_len == 0 || last.address != page)
	{
		if (!pgx_io->wal_header(page, &last) && !pgx_learn_wal_header(page, &last))
		{
			last.header_len = 0;
			return false;
		}
	}
	*ret_header = last;
	return true;
}

/*
 * Encrypt the WAL of a streaming message in place, each page under the epoch that it has on this server's disk:
 * so ciphertext is the same here, on the wire, in the archive and on every standby.
 */
static void
encrypt_message(char *data, size_t len, XLogRecPtr lsn)
{
	while (len > 0)
	{
		uint64_t	page = lsn - lsn % XLOG_BLCKSZ;
		size_t		offset = lsn % XLOG_BLCKSZ;
		size_t		n = Min(len, XLOG_BLCKSZ - offset);
		struct tde_wal_header header;

		/* The zero rest of a switched segment has no header and stays as it is. */
		if (offset == 0 && n >= TDE_WAL_SHORT_HEADER &&
			!tde_wal_parse((uint8_t *) data, XLOG_PAGE_MAGIC, &header))
			;
		else if (!header_on_disk(page, &header))
			ereport(FATAL,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not encrypt WAL at %X/%X for replication: the header of its page is not known",
							LSN_FORMAT_ARGS(lsn))));
		else
		{
			/* Taken from the buffers, the page does not say which epoch it has. */
			if (offset == 0 && n >= TDE_WAL_SHORT_HEADER)
				tde_wal_set_epoch((uint8_t *) data, header.epoch);
			if (pgx_io->wal_crypt(&header, offset, (uint8_t *) data, n) != 0)
				ereport(FATAL,
						(errcode(ERRCODE_INTERNAL_ERROR),
						 errmsg("could not encrypt WAL at %X/%X for replication",
								LSN_FORMAT_ARGS(lsn))));
		}
		data += n;
		lsn += n;
		len -= n;
	}
}

/*
 * Logical decoding sends the same kind of message with what its output plugin wrote, and always
 * from a logical slot; a physical stream has a physical slot or none.
 */
static bool
streams_decoded_changes(void)
{
	return MyReplicationSlot != NULL && SlotIsLogical(MyReplicationSlot);
}

static void
wire_putmessage_noblock(char msgtype, const char *s, size_t len)
{
	static char *copy;
	static size_t copy_size;
	uint64		start;

	if (!am_walsender || msgtype != 'd' || len <= WAL_MESSAGE_HEADER || s[0] != 'w' ||
		streams_decoded_changes())
	{
		server_methods->putmessage_noblock(msgtype, s, len);
		return;
	}
	if (copy_size < len)
	{
		if (copy != NULL)
			pfree(copy);
		copy = NULL;
		copy_size = 0;
		copy = MemoryContextAlloc(TopMemoryContext, len);
		copy_size = len;
	}
	memcpy(copy, s, len);
	memcpy(&start, s + 1, sizeof(start));
	encrypt_message(copy + WAL_MESSAGE_HEADER, len - WAL_MESSAGE_HEADER, pg_ntoh64(start));
	server_methods->putmessage_noblock(msgtype, copy, len);
}

void
pgx_install_wire(void)
{
	server_methods = PqCommMethods;
	wire_methods = *PqCommMethods;
	wire_methods.putmessage_noblock = wire_putmessage_noblock;
	PqCommMethods = &wire_methods;
}
