/*
 * rcvall.h
 *		What the files of pgx_rcvall share.
 */
#ifndef PGX_RCVALL_H
#define PGX_RCVALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backup.h"
#include "handover.h"
#include "keytable.h"

/* --tablespace-mapping OLD=NEW */
struct rcvall_mapping
{
	char	   *old;			/* the location on the server that was backed up */
	char	   *new;			/* absolute */
};

/* The command line.  Strings are the program's arguments unless it says so. */
struct rcvall_options
{
	const char *pgdata;			/* -D, or $PGDATA */
	const char *area;			/* -B; NULL: pgx_tde.backup_destination of -D */
	const char *backup;			/* --backup: name or label */
	const char *copy_command;	/* -Y */
	const char *passphrase_file;
	uint32_t	jobs;			/* threads that decompress; 0: one */
	const char *log_file;		/* --log: the recovery server's */
	const char *keystore_location;	/* NULL: as configured */
	struct rcvall_mapping *mappings;	/* allocated */
	size_t		n_mappings;

	/* Where recovery ends; at most one of the first four. */
	const char *target_time;
	const char *target_name;
	const char *target_xid;
	const char *target_lsn;
	const char *target_timeline;	/* NULL: "latest" */

	bool		list;			/* -l */
	bool		view_copying;	/* --view-results-of-copying */
	bool		check;
	bool		fetch_wal;
	bool		dry_run;
	bool		no_verify;
	bool		keystore_passphrase;	/* ask for it, or read it from passphrase_file */
	bool		progress;
	bool		json;
	bool		verbose;

	/* --standby, and what only it takes */
	bool		standby;
	const char *from;			/* connection string of the server to copy with pg_basebackup */
	const char *primary_conninfo;	/* with -B: what the standby will follow */
	const char *keystore;		/* FILE, DIR or HOST:DIR to copy the keystore from; NULL: over SQL */
	const char *ssh;			/* program that reaches HOST; NULL: "ssh" */
	const char **ssh_options;	/* arguments for it; allocated */
	size_t		n_ssh_options;
	const char *slot;
	bool		create_slot;
	bool		auto_open;
	const char **settings;		/* NAME=VALUE for its configuration; allocated */
	size_t		n_settings;
};

/* The backup area: of -B, or what the configuration in -D says; checked.  NULL after a message; the caller frees it. */
extern char *find_area(const struct rcvall_options *opts);

/* list.c; each returns an exit code */
extern int	list_backups(const struct rcvall_options *opts);
extern int	view_copying(const struct rcvall_options *opts);

/* standby.c: build a standby; returns an exit code */
extern int	standby_run(const struct rcvall_options *opts);

/* ---- WAL: wal.c ---------------------------------------------------------------- */

/* A part of the history that leads to the timeline of recovery, newest first. */
struct wal_timeline
{
	uint32_t	id;
	uint64_t	begin;			/* where it left its parent; 0 for the first */
};

/* What WAL there is from a backup on. */
struct wal_chain
{
	struct wal_timeline *timelines;
	size_t		n_timelines;
	uint64_t	end;			/* first LSN whose segment is missing */
	size_t		n_segments;
	char		missing[PGX_WAL_NAME_LEN + 1];	/* that segment, if there are later ones; else "" */
};

/* restore_command: find a file in the area and copy it.  An exit code: 0, 1 (there is none) or FETCH_BROKEN. */
#define FETCH_BROKEN	255		/* makes the server give up instead of ending recovery here */
extern int	fetch_wal(const char *area, const char *name, const char *to);

/*
 * Follow WAL from the backup's begin: on each segment, is it there, whole, and of this server?  False after a message,
 * which names it.  A segment that is missing between others is not an error here, but noted.
 */
extern bool wal_chain_follow(const char *area, const struct pgx_backup *backup, const char *target_timeline,
							 struct wal_chain *ret_chain);
/* Archive what only the mirror has in full; false after warnings. */
extern bool wal_chain_archive(const char *area, const struct pgx_backup *backup, const struct wal_chain *chain);

/* From where on the chain's segments are files, not in a packed backup; its end if none is. */
extern uint64_t wal_chain_readable(const char *area, const struct pgx_backup *backup, const struct wal_chain *chain);
extern void wal_chain_clear(struct wal_chain *chain);

/* Make links to all segments of the chain in a directory, all under the newest timeline's names. */
extern bool wal_chain_link(const char *area, const struct pgx_backup *backup, const struct wal_chain *chain,
						   const char *dir);

/* ---- recovery: one run ------------------------------------------------------------- */

struct recovery
{
	const struct rcvall_options *opts;
	char	   *area;
	struct pgx_area list;
	const struct pgx_backup *backup;
	char	   *pgdata;			/* absolute */
	char	   *postgres;
	char	  **locations;		/* where each of the backup's tablespaces goes */
	bool		same_place;		/* pgdata is that of the server that was backed up */
	int			area_fd;		/* locks */
	int			pgdata_fd;
	struct wal_chain chain;
	int64_t		target_time;	/* microseconds since 1970 */
	uint64_t	target_lsn;

	char	   *keystore_path;	/* NULL: the server that was backed up had none */
	keystore   *ks;				/* loaded; open if it could be opened here */
	bool		use_keystore_copy;	/* the keystore is lost; the backup's copy takes its place */
	int			handover_fd;
	struct pgx_core_policy core;

	/* What recovery came to. */
	char	   *log_path;
	char	   *last_lsn;		/* NULL: nothing was replayed */
	char	   *last_time;		/* NULL: no transaction was */
	uint32_t	timeline;
	double		files_seconds;	/* what restoring files took, and what replaying WAL */
	double		replay_seconds;
};

/* recover.c: the whole of it; an exit code */
extern int	recover(const struct rcvall_options *opts);
extern bool recovery_begin(struct recovery *r, const struct rcvall_options *opts);
extern void recovery_end(struct recovery *r);

/* check.c: do backup, WAL and keystore fit together?  An exit code. */
extern int	check_backup(const struct rcvall_options *opts);

/* plan.c: what can be found out and refused before anything is touched */
extern bool choose_backup(struct recovery *r);
extern bool check_target_time(struct recovery *r);
extern bool check_versions(const struct recovery *r);
extern bool choose_locations(struct recovery *r);
extern bool check_chain(struct recovery *r);
extern bool took_by_command(const struct pgx_backup *backup, const char *resource);

/* keys.c */
extern char *configured(const struct recovery *r, const char *guc);
extern bool choose_keystore(struct recovery *r);
extern int	open_keystore(struct recovery *r);
extern bool has_keytable(const struct recovery *r);
extern int	open_keytable(const struct recovery *r, tde_keytable **ret_kt);
extern bool place_keystore(const struct recovery *r);

/* search.c: points of recovery that only WAL can tell */
extern int	search_target(struct recovery *r);

/*
 * Have pg_waldump read the chain, decrypted if the keystore is open, with further options; what gets each line.
 * *ret_stopped: the LSN at which it could read no more; 0 if that cannot be told.  An exit code.
 */
extern int	wal_read(const struct recovery *r, const struct wal_chain *chain, const char *const *options,
					 void (*what) (const char *line, void *arg), void *arg, uint64_t *ret_stopped);

/* target.c: the directories that will be filled */
extern bool target_check(struct recovery *r, bool *ret_leftover);
extern bool target_prepare(struct recovery *r);
extern bool target_mark(const struct recovery *r);
extern bool target_finish(const struct recovery *r);
extern bool target_unmark(const struct recovery *r);	/* the marker alone */

/* restore.c: the files; copy.c: of a backup that holds them as they were */
extern bool restore_files(struct recovery *r);
extern bool copy_backup(const struct recovery *r);

/* The control file has the second name until everything is on disk. */
#define PG_CONTROL			"global/pg_control"
#define PG_CONTROL_PENDING	"global/pg_control.pgx_rcvall"

/* conf.c: the configuration files */
extern bool restore_configuration(struct recovery *r);
extern char *external_configuration(const struct recovery *r, const char *parameter);

/* mirror.c: make the place of the mirrored WAL free for the recovered server; only warns */
extern void mirror_put_aside(const struct recovery *r);

/* replay.c: the server that replays WAL */
extern bool replay(struct recovery *r);
/* A word for restore_command: quoted for the shell, percent signs doubled.  The caller frees it. */
extern char *command_word(const char *text);

#define MARKER_NAME		PGX_RESTORE_MARKER
#define LOG_NAME		"pgx_rcvall.log"

#endif							/* PGX_RCVALL_H */
