/*
 * io_common.h
 *		What the unit tests of the I/O layer on real files share: a data directory with keys, and a server
 *		that answers what it is set to.  The layer is linked in, so open() and pwrite() are its own.
 */
#ifndef IO_COMMON_H
#define IO_COMMON_H

#include <check.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "page.h"
#include "pgx_io.h"

#define MAGIC		0xD110
#define PAGE		8192
#define SEGMENT		"pg_wal/000000010000000000000001"
#define SEGMENT_LSN	0x1000000UL
#define TABLESPACE	16385
#define RELATION	"pg_tblspc/16385/PG_15_202209061/5/16400"

extern struct pgx_io_api *io;
extern struct pgx_io_server server;

/* What the server answers, and how often it was told that the key of WAL is missing. */
extern uint64_t end_of_wal;
extern uint64_t end_of_replay;
extern bool raw_process;
extern int	missing_keys;

/* What is on disk, past the layer. */
extern void read_disk(const char *path, off_t off, uint8_t *buf, size_t len);

/* Pages of relations, each with the size and layout version that PostgreSQL's have. */
extern void make_pages(uint8_t *pages, size_t n);

/* A WAL page of records 'x' up to used bytes, as it is in the server's buffers. */
extern void make_wal_page(uint8_t *page, uint64_t address, size_t used);
extern uint32_t epoch_of(const uint8_t *page);
extern int	open_segment(void);

/* Run a test case whose tests each have a data directory of their own; the program's exit status. */
extern int	io_run(const char *name, TCase *tcase);

#endif							/* IO_COMMON_H */
