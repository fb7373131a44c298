/*
 * mirror_fixture.h
 *		What the tests of the second copy of WAL share: calls that fail on either copy, a memory of what was
 *		synced, and a server that counts what it is told.
 *
 * What was synced is remembered, and so is what a synced directory held.  Whenever the layer says that a sync of WAL
 * was done and still mirrors, what the mirror would hold after a power failure has to be what pg_wal
 * holds.  The layer is linked in, so open() and pwrite() are its own.
 */
#ifndef MIRROR_FIXTURE_H
#define MIRROR_FIXTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "io_internal.h"

#define MAGIC		0xD110
#define PAGE		8192
#define PAGES		4			/* of a segment here */
#define SEGMENT		(PAGES * PAGE)
#define NAME(n)		"00000001000000000000000" #n
#define WAL(n)		"pg_wal/" NAME(n)

enum call
{
	CALL_NONE,
	CALL_OPEN,
	CALL_PREAD,
	CALL_PWRITE,
	CALL_SHORT,					/* a pwrite() of a part, and then none */
	CALL_FTRUNCATE,
	CALL_FSTAT,
	CALL_SYNC,
	CALL_RENAME,
	CALL_UNLINK,
	CALL_KINDS
};

/* One call of one kind fails, on one of the two copies. */
struct fault
{
	enum call	call;
	bool		on_mirror;
	int			at;				/* at this call, from 1 */
	int			error;
	int			calls;			/* of that kind, so far */
	bool		hit;
};

extern struct pgx_io_api *io;
extern struct pgx_io_mirror *mirror;
extern struct pgx_io_libc real;	/* the calls past all this */
extern char mirror_dir[64];

extern struct fault fault;
extern bool aio_works;			/* otherwise io_setup() is refused */
extern bool lose_event;			/* io_getevents() fails */
extern int	submitted;
extern void (*after_link) (void);
extern void (*before_mirror_write) (void);

/* What the server was told, and whether it commits nothing without the mirror. */
extern int	reports;
extern int	reported_errno;
extern bool vital;

/* A data directory with keys and one segment, and a mirror; again in another place; and no more. */
extern void start_all(void);
extern void start_again(void);
extern void remove_all(void);

/* Start mirroring again, as pgx_resume_wal_multiplexing() does. */
extern void resume(void);

/* A file of pg_wal that the layer has not seen. */
extern void make_file(const char *path, char content);

/* Would the mirror's file be the same as pg_wal's after a power failure? */
extern bool is_safe(const char *name);

/*
 * A page of WAL, written and synced as the server does.  0, or the errno of what failed.  That a sync was good
 * is believed only if both copies are.
 */
extern int	commit_page(int fd, const char *name, uint64_t segment, int number);

/* The segment's pages from first on, in a file opened with these flags besides. */
extern int	commit_pages(const char *name, uint64_t segment, int first, int flags);

#endif							/* MIRROR_FIXTURE_H */
