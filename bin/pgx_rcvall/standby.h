/*
 * standby.h
 *		What the files of pgx_rcvall --standby share.
 */
#ifndef PGX_STANDBY_H
#define PGX_STANDBY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libpq-fe.h>

#include "rcvall.h"

struct standby_tablespace
{
	char	   *location;		/* on the server that is copied */
	char	   *target;			/* here */
	bool		existed;		/* as an empty directory */
};

struct standby
{
	const struct rcvall_options *opts;
	const char *source;			/* --from, or with -B --primary-conninfo: what we connect with */
	struct recovery *recovery;	/* with -B: of the backup; else NULL */
	char	   *pgdata;			/* absolute */
	char	   *postgres;
	char	   *conninfo;		/* what the standby will follow */
	char	   *log_path;
	PGconn	   *conn;			/* to the server that is copied */
	struct standby_tablespace *tablespaces;
	size_t		n_tablespaces;

	char	   *keystore_dir;	/* NULL: that server has no keystore */
	char	   *keystore_path;
	uint8_t    *bytes;			/* the keystore file */
	size_t		n_bytes;
	keystore   *ks;
	struct pgx_core_policy core;
	int			handover_fd;

	/* What has been made, and is to go if something fails. */
	bool		made_keystore_dir;
	bool		made_keystore;
	bool		made_auto_open;
	bool		made_slot;
	bool		pgdata_existed;
	bool		filling;		/* the data directory and the tablespaces' */
	bool		starting;
};

/* standby_keystore.c: get it, and prove that it can be opened (an exit code); put it in its place; take it away */
extern int	standby_get_keystore(struct standby *s);
extern int	standby_place_keystore(struct standby *s);
extern bool standby_prove_keystore(struct standby *s);
extern void standby_remove_keystore(struct standby *s);

/* standby_backup.c: the files from a backup; each of these returns false, or an exit code, after a message */
extern bool standby_choose_backup(struct standby *s);	/* connected already */
extern int	standby_check_backup(struct standby *s);	/* the keystore is open */
extern bool standby_restore(struct standby *s);
extern char *standby_restore_command(const struct standby *s);
extern bool standby_finish_backup(struct standby *s);
extern void standby_end_backup(struct standby *s);

/*
 * standby_conninfo.c: the connection strings in the options are good; what to connect with, and what the standby is to
 * follow, both freed by the caller; does that work for it?
 */
extern bool standby_check_conninfo(const struct rcvall_options *opts);
extern char *standby_source_conninfo(const char *conninfo);
extern char *standby_conninfo_of(PGconn *conn);
extern bool standby_check_connection(struct standby *s);
extern void standby_forget_passwords(void); /* in our environment */

/* standby_primary.c: the server that is copied */
extern bool standby_connect(struct standby *s);
extern bool standby_check_slot(struct standby *s);
extern bool standby_make_slot(struct standby *s);
extern void standby_drop_slot(struct standby *s);
extern char *standby_system_identifier(struct standby *s);
extern char *standby_keystore_uuid(struct standby *s);	/* NULL: it does not tell */
extern bool standby_begin_wait(struct standby *s);	/* before the start */
extern bool standby_wait(struct standby *s);

#endif							/* PGX_STANDBY_H */
