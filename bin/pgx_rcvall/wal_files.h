/*
 * wal_files.h
 *		Files of WAL, one at a time.
 */
#ifndef PGX_WAL_FILES_H
#define PGX_WAL_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backup.h"

/* A file's path in one of the places of an area, best first; the caller frees it. */
extern char *wal_place_path(const char *area, size_t place, const char *name);

/*
 * Does a file begin with the page that belongs there?  In a mirror, as in pg_wal, there are also files that are
 * only there to become a later segment: zero, or with the content of a former one.
 */
extern bool wal_is_begun(const char *path, uint64_t lsn);

/* Where a segment is: in the area, or in the backup.  NULL if nowhere.  The caller frees it. */
extern char *wal_find_segment(const char *area, const struct pgx_backup *backup, const char *name);

/* Is the file what its name says, and of the server that was backed up?  False after a message. */
extern bool wal_check_segment(const char *path, uint64_t lsn, const struct pgx_backup_info *info);

#endif							/* PGX_WAL_FILES_H */
