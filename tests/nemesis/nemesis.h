/*
 * nemesis.h
 *		What the nemesis inside the server and the one who pulls the plug agree on.
 *
 * The directory that PGX_NEMESIS names holds "control" and a log for each
 * process of the server.  A log is a sequence of records, in the order of that
 * process; seq orders the records of all of them.
 */
#ifndef NEMESIS_H
#define NEMESIS_H

#include <stdint.h>

#define NEMESIS_ENV			"PGX_NEMESIS"
#define NEMESIS_SECTOR		512	/* what a disk writes as a whole, bytes */

enum nemesis_event
{
	NEMESIS_WRITE = 1,			/* offset and length; the bytes that were there before follow */
	NEMESIS_SYNC = 2,			/* every write that began before seq is on disk */
	NEMESIS_TRUNCATE = 3,		/* to offset: what was beyond is gone for good */
	NEMESIS_CREATE = 4			/* a new, empty file under a number that another may have had */
};

struct nemesis_record
{
	uint64_t	seq;
	uint64_t	device;
	uint64_t	inode;
	uint64_t	offset;
	uint32_t	length;			/* of a write, bytes */
	uint32_t	event;			/* enum nemesis_event */
};

/* Mapped by every process; the test changes the odds while the server runs. */
struct nemesis_control
{
	uint64_t	seq;
	uint64_t	faults;			/* how many were injected */
	uint32_t	seed;
	/* Odds, in a million, for each call on a file of a relation or of WAL. */
	uint32_t	short_read;
	uint32_t	short_write;
	uint32_t	read_error;		/* EIO */
	uint32_t	write_error;	/* EIO */
	uint32_t	no_space;		/* ENOSPC */
};

#endif							/* NEMESIS_H */
