/*
 * mirror.h
 *		What the files about the mirrored WAL share.
 */
#ifndef PGX_MIRROR_H
#define PGX_MIRROR_H

/* pgx_tde.on_wal_multiplexing_failure */
enum
{
	PGX_MIRROR_PAUSE,
	PGX_MIRROR_RESTART
};

extern char *pgx_online_wal_directory;
extern int	pgx_on_mirror_failure;

extern bool pgx_mirror_is_configured(void);
extern void pgx_mirror_recheck(void);
extern void pgx_register_mirror_worker(void);

#endif							/* PGX_MIRROR_H */
