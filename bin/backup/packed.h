/*
 * packed.h
 *		A packed backup as one of the area: restoring it to its places, checking it.
 *
 * Between pack.h, which knows a container and nothing of areas, and the commands.
 */
#ifndef PGX_PACKED_H
#define PGX_PACKED_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#include "backup.h"
#include "keystore.h"
#include "pack.h"

/* Where a packed backup is to be restored.  Directories are made, or are there and empty. */
struct pgx_packed_target
{
	const char *data_dir;
	const char *wal_dir;		/* another place for pg_wal, or NULL */
	const struct pgx_pack_tablespace *tablespaces;	/* those that go elsewhere than they were */
	size_t		n_tablespaces;
};

/*
 * Restore, or with to == NULL only read and verify all of it; jobs 0 is 1.  ks is opened, and needs the
 * master key that backup->info.pack_master_key names.  An exit code, after a message.  What a failed restore has written is
 * left to the caller; no server starts from it.
 */
extern int	pgx_packed_restore(const struct pgx_backup *backup, keystore *ks, const struct pgx_packed_target *to,
							   unsigned jobs, bool progress, const volatile sig_atomic_t *cancel);

/* pgx_unpack_keytable() for a backup of the area. */
extern int	pgx_packed_keytable(const struct pgx_backup *backup, keystore *ks, tde_keytable **ret_kt);

/* For pgx_pack_progress: a line as pg_basebackup has it, once a second; arg is a struct pgx_progress_line. */
struct pgx_progress_line
{
	time_t		last;
	bool		shown;
};

extern void pgx_progress_show(void *arg, uint64_t done, uint64_t total);

/* On a terminal, go on to the next line. */
extern void pgx_progress_end(const struct pgx_progress_line *line);

#endif							/* PGX_PACKED_H */
