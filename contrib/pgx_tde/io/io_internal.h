/*
 * io_internal.h
 *		What the files of the I/O layer share.
 */
#ifndef IO_INTERNAL_H
#define IO_INTERNAL_H

#include <stdatomic.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#include "pgx_io.h"
#include "page.h"

/* Pages handled in one go; also the size of the bounce buffer. */
#define PGX_IO_BATCH		16
#define PGX_IO_PAGE			8192

/* Descriptors above this are refused for files that must be encrypted. */
#define PGX_IO_MAX_FD		65536

/* State of one open file. */
struct pgx_io_file
{
	uint8_t		kind;			/* enum pgx_io_kind; PGX_IO_NONE for all that is passed through */
	uint8_t		mirror;			/* not 0: what is written goes to the mirror of WAL too */
	uint16_t	slot;			/* key of a relation */
	uint32_t	tablespace;		/* of a relation's file, encrypted or not; 0 otherwise */
	uint32_t	database;
	uint32_t	relation;
	uint8_t		fork;
	uint8_t		counted;		/* enum pgx_io_counted, of a temporary file */
	uint32_t	first_block;	/* of this segment file, within the fork */
	uint64_t	temp_id;		/* of a temporary file */
};

/* The C library's own functions. */
struct pgx_io_libc
{
	int			(*open) (const char *, int,...);
	int			(*close) (int);
	ssize_t		(*read) (int, void *, size_t);
	ssize_t		(*write) (int, const void *, size_t);
	ssize_t		(*pread) (int, void *, size_t, off_t);
	ssize_t		(*pwrite) (int, const void *, size_t, off_t);
	ssize_t		(*preadv) (int, const struct iovec *, int, off_t);
	ssize_t		(*pwritev) (int, const struct iovec *, int, off_t);
	int			(*ftruncate) (int, off_t);
	int			(*fsync) (int);
	int			(*fdatasync) (int);
	int			(*rename) (const char *, const char *);
	int			(*link) (const char *, const char *);
	int			(*unlink) (const char *);
	ssize_t		(*copy_file_range) (int, off_t *, int, off_t *, size_t, unsigned);
};

extern struct pgx_io_libc pgx_libc;
extern const struct pgx_io_server *pgx_server;	/* NULL until start() */
extern struct pgx_io_shared *pgx_shared;
extern struct pgx_io_file pgx_files[PGX_IO_MAX_FD];
extern bool pgx_in_server;		/* false in a program beside the server */
extern uint8_t *pgx_bounce;		/* PGX_IO_BATCH pages, aligned for O_DIRECT */

extern void pgx_io_resolve_libc(void);

/* io_keys.c */
extern int	pgx_io_set_key(enum tde_key_kind kind, uint32_t oid, enum tde_algorithm alg, const uint8_t *key);
extern enum tde_algorithm pgx_io_get_algorithm(enum tde_key_kind kind, uint32_t oid);
extern int	pgx_io_find_key(enum tde_key_kind kind, uint32_t oid);	/* slot, or -1 */
extern tde_xts *pgx_io_relation_cipher(int slot);	/* NULL with errno set */
extern tde_ctr *pgx_io_wal_cipher(void);	/* NULL with errno set */
extern void *pgx_io_alloc_shared(size_t size, bool *ret_locked);
extern int	pgx_io_new_epoch(void);

/* io_file.c */
extern void pgx_io_tablespace_keyed(uint32_t tablespace, int slot);

/* io_stats.c */
extern struct pgx_io_counts *pgx_counts;	/* never NULL */
extern void pgx_count_in(struct pgx_io_counts *counts);

static inline void
pgx_add(atomic_ullong *to, uint64_t n)
{
	atomic_store_explicit(to, atomic_load_explicit(to, memory_order_relaxed) + n, memory_order_relaxed);
}

static inline void
pgx_count_failure(enum pgx_io_counted what)
{
	pgx_add(&pgx_counts->of[what].failures, 1);
}

/* Nanoseconds, for pgx_count(); 0 without looking at the clock unless the server wants times. */
static inline uint64_t
pgx_count_begin(void)
{
	struct timespec now;

	if (pgx_server->timing == NULL || !*pgx_server->timing)
		return 0;
	(void) clock_gettime(CLOCK_MONOTONIC, &now);	/* cannot fail for this clock */
	return (uint64_t) now.tv_sec * UINT64_C(1000000000) + (uint64_t) now.tv_nsec;
}

/* Once for all pages of a call. */
static inline void
pgx_count(enum pgx_io_counted what, enum pgx_io_direction direction, uint64_t pages, uint64_t bytes,
		  uint64_t begin)
{
	struct pgx_io_count *count = &pgx_counts->of[what];

	pgx_add(&count->pages[direction], pages);
	pgx_add(&count->bytes[direction], bytes);
	if (begin != 0)
		pgx_add(&count->nanoseconds[direction], pgx_count_begin() - begin);
}

/* io_mirror_names.c */
extern int	pgx_mirror_rename(const char *from_path, const char *to_path,
							  int (*rename_it) (const char *, const char *));
extern void pgx_mirror_unlinked(const char *path);

/* io_mirror.c; the first is called for every file, the others if pgx_files[fd].mirror is set */
extern void pgx_mirror_opened(int fd, const char *path, int flags);
extern void pgx_mirror_closed(int fd);
extern void pgx_mirror_wrote(int fd, const void *buf, size_t len, off_t off);
extern int	pgx_mirror_sync(int fd, int (*sync) (int));
extern void pgx_mirror_fail(const char *operation, const char *name);

/* io_mirror_copy.c */
extern int	pgx_mirror_refresh(const char *name);
extern int	pgx_mirror_begin(const char *name);

/* io_frontend.c */
extern void pgx_frontend_start(void);
extern bool pgx_frontend_is_ours(const char *path);

/* io_file.c: whole transfers on the raw descriptor. */
extern ssize_t pgx_raw_pread(int fd, void *buf, size_t len, off_t off);
extern ssize_t pgx_raw_pwrite(int fd, const void *buf, size_t len, off_t off);

/* io_relation.c, io_wal.c and io_temp.c: the three ways of reading and writing. */
extern ssize_t pgx_relation_pread(int fd, void *buf, size_t len, off_t off);
extern ssize_t pgx_relation_pwrite(int fd, const void *buf, size_t len, off_t off);
extern ssize_t pgx_wal_pread(int fd, void *buf, size_t len, off_t off);
extern ssize_t pgx_wal_pwrite(int fd, const void *buf, size_t len, off_t off);
extern ssize_t pgx_temp_pread(int fd, void *buf, size_t len, off_t off);
extern ssize_t pgx_temp_pwrite(int fd, const void *buf, size_t len, off_t off);
extern int	pgx_temp_ftruncate(int fd, off_t size);
extern uint64_t pgx_temp_file_id(const char *path);
extern bool pgx_wal_known_header(uint64_t page_address, struct tde_wal_header *ret_header);
extern int	pgx_wal_wire_crypt(const struct tde_wal_header *header, size_t offset, uint8_t *buf, size_t len);

#endif							/* IO_INTERNAL_H */
