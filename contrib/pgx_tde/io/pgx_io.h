/*
 * pgx_io.h
 *		The interface between the I/O layer (a shared object preloaded into
 *		postgres) and the server module.
 *
 * The I/O layer knows files and keys, but nothing of PostgreSQL's headers: what
 * it needs of the server's state it asks through struct pgx_io_server.  The module finds the
 * layer with dlsym(RTLD_DEFAULT, PGX_IO_API_SYMBOL); both are built and
 * installed together, and the version number makes sure of it.
 */
#ifndef PGX_IO_H
#define PGX_IO_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cipher.h"
#include "keytable.h"
#include "wal.h"

#define PGX_IO_API_SYMBOL	"pgx_tde_io_api"
#define PGX_IO_API_VERSION	3

/* A file with this path, relative to the data directory, is encrypted with the self-check key. */
#define PGX_IO_SELF_CHECK_PATH	"pgx_tde/selfcheck"
#define PGX_IO_SELF_CHECK_OID	1	/* no tablespace has this OID */

/* One slot for each entry of the key table, one for temporary files, one for the self-check. */
#define PGX_IO_MAX_KEYS		(TDE_KEYTABLE_MAX_ENTRIES + 2)

enum pgx_io_kind
{
	PGX_IO_NONE = 0,			/* not ours: the call goes straight on */
	PGX_IO_RELATION,			/* 8 KiB pages of a relation in an encrypted tablespace */
	PGX_IO_WAL,					/* a WAL segment */
	PGX_IO_WAL_TEMP,			/* pg_wal/xlogtemp.*: WAL pages or the text of a timeline history */
	PGX_IO_TEMP					/* temporary files and spill files of logical decoding */
};

/* The key of temporary files, beside the kinds of enum tde_key_kind; it is never on disk. */
#define PGX_IO_KEY_TEMP		((enum tde_key_kind) 100)

/* What a path is, by its name alone. */
struct pgx_io_path
{
	enum pgx_io_kind kind;
	uint32_t	tablespace;
	uint32_t	database;
	uint32_t	relation;
	uint32_t	fork;
	uint32_t	segment;
	bool		spill;			/* of PGX_IO_TEMP: a spill file of logical decoding */
};

/*
 * Classify a path as the server passes it to open(): relative to the data
 * directory, or absolute below data_dir (which has no trailing slash).  Pure.
 */
extern void pgx_io_classify(const char *path, const char *data_dir, struct pgx_io_path *ret_path);

/* The same where only WAL counts, in whatever directory. */
extern void pgx_io_classify_wal(const char *path, struct pgx_io_path *ret_path);

/* What is counted apart: the rows of pg_stat_pgx_tde. */
enum pgx_io_counted
{
	PGX_COUNT_RELATION = 0,
	PGX_COUNT_WAL,				/* files of WAL */
	PGX_COUNT_REPLICATION,		/* WAL that a walsender encrypts again for the wire */
	PGX_COUNT_TEMP,
	PGX_COUNT_SPILL,
	PGX_COUNT_KINDS
};

enum pgx_io_direction
{
	PGX_ENCRYPTED = 0,
	PGX_DECRYPTED,
	PGX_DIRECTIONS
};

struct pgx_io_count
{
	atomic_ullong pages[PGX_DIRECTIONS];
	atomic_ullong bytes[PGX_DIRECTIONS];	/* that went through the cipher */
	atomic_ullong nanoseconds[PGX_DIRECTIONS];	/* while timing is on */
	atomic_ullong failures;
};

/*
 * What one process has done.  It alone writes, so adding needs no lock and no locked instruction; others may read
 * at any time.
 */
struct pgx_io_counts
{
	_Alignas(64) struct pgx_io_count of[PGX_COUNT_KINDS];	/* no line of the cache is another process's too */
};

/*
 * A data key.  Only the process that holds the module's lock (or the startup process) writes; anyone reads.  A slot
 * is published by storing its version, odd while it changes, last; 0 means never used.
 */
struct pgx_io_key
{
	atomic_uint version;
	uint32_t	kind;			/* enum tde_key_kind */
	uint32_t	oid;
	uint32_t	alg;			/* enum tde_algorithm; TDE_NONE: the entry was withdrawn */
	uint8_t		key[TDE_MAX_KEY_LEN];
};

#define PGX_MIRROR_PATH		1200	/* directory and name */
#define PGX_MIRROR_COPYING	"copying."	/* begins the name of a file that is not whole yet */

enum pgx_mirror_mode
{
	PGX_MIRROR_OFF = 0,			/* no directory is configured */
	PGX_MIRROR_ON,
	PGX_MIRROR_PAUSED,			/* by SQL */
	PGX_MIRROR_FAILED,			/* by an error */
	PGX_MIRROR_RESTARTING		/* by an error that all processes restart for */
};

/* The second copy of WAL.  What has no atomic type is guarded as the writing of WAL is, or written once. */
struct pgx_io_mirror
{
	char		directory[1024];	/* absolute; set before there are children */
	atomic_uint mode;			/* enum pgx_mirror_mode */
	atomic_uint generation;		/* from 1; a new one whenever the mirror may have missed something */
	atomic_uint caught_up;		/* the generation in which all older segments have been compared */
	atomic_uint asked;			/* how often a segment may have become older without being mirrored */
	atomic_uint answered;		/* up to which of these they have been compared again */

	/* The segment whose mirror is whole up to what was written last, and in which generation; 0: none. */
	char		current[25];
	unsigned	current_generation;

	atomic_ullong bytes;		/* written */
	atomic_ullong syncs;
	atomic_ullong failures;
	atomic_llong changed_at;	/* time of the last change of mode */
	char		failed_operation[16];	/* the last failure */
	char		failed_name[64];
	int			failed_errno;
};

/* In memory shared by postmaster and children, locked and left out of core dumps. */
struct pgx_io_shared
{
	struct pgx_io_mirror mirror;

	/* WAL.  The page last written is guarded by the server's own WALWriteLock. */
	atomic_uint wal_on;			/* new pages are encrypted */
	atomic_uint wal_epoch;		/* of this run, not 0 */
	bool		last_valid;
	uint32_t	last_epoch;
	uint32_t	last_timeline;
	uint64_t	last_address;

	atomic_uint key_count;		/* slots in use */
	struct pgx_io_key keys[PGX_IO_MAX_KEYS];
};

/* What the layer asks of the server; filled in by the module. */
struct pgx_io_server
{
	const char *data_dir;		/* absolute */
	uint16_t	wal_magic;		/* XLOG_PAGE_MAGIC; 0 takes any */
	bool		checksums;		/* the cluster has data checksums */
	const bool *timing;			/* while it is true, time is taken; NULL: never */

	/* True if this process must see and leave the bytes of such a file as they are on disk. */
	bool		(*is_raw) (enum pgx_io_kind kind, int open_flags);

	/* End of WAL inserted so far; called when a WAL page is about to be written. */
	uint64_t	(*insert_end) (void);

	/* End of WAL replayed so far, in the startup process; 0 elsewhere. */
	uint64_t	(*replay_end) (void);

	/*
	 * An encrypted WAL page was read and there is no key.  Does not return in the startup process, which
	 * would take an unreadable page for the end of WAL.
	 */
	void		(*wal_key_missing) (void);

	/* No commit may be acknowledged without the mirror: a failure makes its mode PGX_MIRROR_RESTARTING. */
	bool		(*mirror_is_vital) (void);

	/*
	 * Mirroring of WAL has failed and has stopped.  Called once each time, where WAL is written too; and, with
	 * NULL, by every process that goes on meanwhile though all are to restart: it does not return then.
	 */
	void		(*mirror_failed) (const char *operation, const char *name, int error);
};

struct pgx_io_api
{
	uint32_t	version;		/* PGX_IO_API_VERSION */
	uint32_t	layout;			/* PGX_IO_API_LAYOUT of the layer's build */
	struct pgx_io_shared *shared;	/* NULL if memory could not be mapped */
	bool		shared_is_locked;

	/* Anonymous memory shared with later children, locked if possible, never dumped; NULL if there is none. */
	void	   *(*alloc_shared) (size_t size, bool *ret_locked);

	/* Begin to work: until this call every file is passed through.  server is kept. */
	void		(*start) (const struct pgx_io_server *server);

	/*
	 * Publish a key for this and every other process; TDE_NONE withdraws it.  -1 if all slots are taken.
	 * Files that this process opened before are encrypted from now on; others must not have opened any.
	 */
	int			(*set_key) (enum tde_key_kind kind, uint32_t oid, enum tde_algorithm alg, const uint8_t *key);

	/* Algorithm of a tablespace, TDE_NONE if it is not encrypted. */
	enum tde_algorithm (*get_algorithm) (enum tde_key_kind kind, uint32_t oid);

	/* Forget which page was written last, and draw a new epoch: at start and when children restart after a crash. */
	int			(*new_epoch) (void);

	/*
	 * For the wire.  The header, as it is on this server's disk, of a page that this process has read
	 * lately; false if it is not known.
	 */
	bool		(*wal_header) (uint64_t page_address, struct tde_wal_header *ret_header);

	/* Encrypt bytes of a page, without its trailing zeros being special; see tde_wal_crypt(). */
	int			(*wal_crypt) (const struct tde_wal_header *header, size_t offset, uint8_t *buf, size_t len);

	/*
	 * Where this process counts from now on, and what it has counted before is added there; NULL: in memory of its
	 * own, where nobody sees it.
	 */
	void		(*count_in) (struct pgx_io_counts *counts);

	/* Catching up of the mirror of WAL; see io_mirror_copy.c.  1: copied, 0: nothing to do, -1 with errno set. */
	int			(*mirror_refresh) (const char *name);	/* a file that is not written any more */
	int			(*mirror_begin) (const char *name);	/* the segment being written; nobody may write it now */
	void		(*mirror_fail) (const char *operation, const char *name);	/* errno says why */
};

/*
 * Should somebody change a struct and forget the version: the shapes of what both sides read and write.  Its
 * factors only keep changes of two structs from adding up to none.
 */
#define PGX_IO_API_LAYOUT \
	((uint32_t) (sizeof(struct pgx_io_shared) + 3 * sizeof(struct pgx_io_server) + \
				 5 * sizeof(struct pgx_io_api) + 7 * sizeof(struct pgx_io_counts)))

#endif							/* PGX_IO_H */
