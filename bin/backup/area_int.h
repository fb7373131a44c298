/*
 * area_int.h
 *		What the files of bin/backup share, beside backup.h.
 */
#ifndef PGX_AREA_INT_H
#define PGX_AREA_INT_H

#include <time.h>

#include "backup.h"

/* Are the len characters a backup's name?  *ret_when: the local time it tells; may be NULL. */
extern bool pgx_backup_name_parse(const char *name, size_t len, time_t *ret_when);

#endif							/* PGX_AREA_INT_H */
