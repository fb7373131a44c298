/*
 * wal_archive.h
 *		Archiving one WAL file, durably: for pgx_walcopy and for the archive module.
 *
 * Knows neither the server nor our messages: the module runs in a server process, the command does not.
 */
#ifndef PGX_WAL_ARCHIVE_H
#define PGX_WAL_ARCHIVE_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Copy the file from to the name to, whose directory exists, as it is (ciphertext stays so).  When it returns true the
 * file and its name are on disk.  A file of that name with the same content is a success; with other content it
 * is an error, and it is never overwritten.  The copy appears under its name in one step; what
 * an interrupted run left under "TO.pgx_tmp" is used again.
 *
 * verify: also check, before, that a segment is one (its size, and the header of each page: address, timeline, order)
 * and, after, read the copy back from the disk and compare.
 *
 * False: err has the reason, without a newline.  Thread-safe; keeps no state.
 */
extern bool pgx_wal_archive(const char *from, const char *to, bool verify, char *err, size_t err_len);

#endif							/* PGX_WAL_ARCHIVE_H */
