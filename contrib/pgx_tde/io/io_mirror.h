/*
 * io_mirror.h
 *		What the files about the mirror of WAL share.
 */
#ifndef IO_MIRROR_H
#define IO_MIRROR_H

#include "io_internal.h"

#define PGX_WAL_NAME_LEN	24	/* of a segment: hexadecimal digits */

enum pgx_wal_file
{
	PGX_WAL_OTHER = 0,
	PGX_WAL_SEGMENT,
	PGX_WAL_PARTIAL,			/* the last segment of a former timeline */
	PGX_WAL_HISTORY,
	PGX_WAL_TEMP				/* a segment or a history in the making */
};

/* io_mirror_names.c */
extern enum pgx_wal_file pgx_wal_file_kind(const char *name);
extern const char *pgx_name_in_wal(const char *path);	/* NULL if the path leads elsewhere */

/* io_mirror.c */
extern bool pgx_mirror_is_on(void);
extern void pgx_mirror_path(const char *name, char *ret_path, size_t size);

/* io_mirror_copy.c; 0, or -1 with errno set */
extern int	pgx_mirror_sync_directory(void);
extern int	pgx_mirror_copy_into(const char *name, int to);
extern int	pgx_mirror_copy_whole(const char *from, const char *to);

#endif							/* IO_MIRROR_H */
