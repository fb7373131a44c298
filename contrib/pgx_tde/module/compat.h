/*
 * compat.h
 *		What differs between the major versions of PostgreSQL.
 *
 * Version numbers are compared here and in compat.c, nowhere else.
 */
#ifndef PGX_COMPAT_H
#define PGX_COMPAT_H

#include "access/xlogdefs.h"

#include "wal.h"

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 190000
#error "this version of PostgreSQL is not supported by pgx_tde; use PostgreSQL 15, 16, 17 or 18"
#endif

/* Say so if the server is of another minor version than the one compiled for.  It is not refused; see there. */
extern void pgx_note_server_version(void);

/* FATAL if the server is set to move pages round the C library, where nobody would encrypt them. */
extern void pgx_refuse_bypasses(void);

/*
 * The header, as it is on this server's disk, of a page of WAL that this walsender has not read from a
 * file; false if it cannot be had.
 */
extern bool pgx_learn_wal_header(XLogRecPtr page, struct tde_wal_header *ret_header);

/* In the startup process: shut down if that was asked for. */
extern void pgx_startup_interrupts(void);

#endif							/* PGX_COMPAT_H */
