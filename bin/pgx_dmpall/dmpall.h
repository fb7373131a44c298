/*
 * dmpall.h
 *		What the files of pgx_dmpall share.
 */
#ifndef PGX_DMPALL_H
#define PGX_DMPALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libpq-fe.h>

#include "backup.h"
#include "keystore.h"
#include "pack.h"

struct options
{
	const char *pgdata;			/* -D, or $PGDATA */
	const char *conninfo;		/* -d; NULL: what postmaster.pid says */
	const char *copy_command;	/* -Y */
	const char *copy_list;		/* -P */
	const char *checkpoint;		/* "fast" or "spread" */
	const char *label;
	const char *passphrase_file;	/* of the keystore; NULL: auto-open, or ask */
	const char *host_secret;
	uint32_t	jobs;
	enum pgx_pack_codec codec;
	int			level;
	uint32_t	keep;
	uint32_t	retry;
	uint32_t	archive_timeout;	/* seconds; 0: no limit */
	bool		compress;		/* make a packed backup */
	bool		ask_passphrase; /* even if the keystore could open by itself */
	bool		exclude_copy_cluster;
	bool		progress;
	bool		json;
	bool		from_standby;
	bool		config_only;
	bool		no_keystore_copy;
	bool		no_archive;
	bool		no_verify;
	bool		verbose;
};

/* The server, and what it says of itself. */
struct source
{
	PGconn	   *conn;
	char	   *conninfo;		/* of this connection, for pg_basebackup; no password in it */
	char	   *bindir;			/* where the server's own programs are */
	char	   *data_directory;
	char	   *config_file;
	char	   *hba_file;
	char	   *ident_file;
	char	   *destination;	/* pgx_tde.backup_destination; NULL if not set */
	char	   *keystore_location;	/* NULL if not set */
	char	   *online_wal_directory;	/* NULL if WAL is not mirrored */
	char	   *archive_mode;
	char	   *system_identifier;
	uint32_t	version;
	uint32_t	wal_segment_size;
	bool		checksums;
	bool		in_recovery;
	struct pgx_backup_tablespace *tablespaces;
	size_t		n_tablespaces;
};

/* A backup in the making. */
struct run
{
	const struct options *opts;
	struct source *source;
	int			lock_fd;
	keystore   *ks;				/* opened, for --compress; else NULL */
	int			exit_code;		/* if it fails */
	char	   *name;
	char	   *dir;			/* under its incomplete name */
	struct pgx_backup_info info;
};

/* options.c: -1: go on, else the exit code; then, does what was given make sense? */
extern int	parse_options(int argc, char **argv, struct options *opts);
extern bool check_options(struct options *opts);

/* source.c */
extern bool source_connect(const struct options *opts, struct source *source);
extern bool source_read_tablespaces(struct source *source);
extern void source_close(struct source *source);

/* Run a query that gives rows; NULL after a message.  The caller clears it. */
extern PGresult *source_query(struct source *source, const char *sql, int n_params, const char *const *params);

/* basebackup.c: the files of the cluster, through pg_basebackup */
extern bool take_base_backup(struct run *run);
extern bool verify_base_backup(const struct run *run);

/* Have a copying done, and again if it fails, as often as --retry allows. */
extern bool copy_with_retries(struct run *run, bool (*copy) (struct run *run));

/* packed.c: the same in one sealed file.  The keystore is opened before, and closed by close_keystore(). */
extern bool open_keystore(struct run *run);
extern void close_keystore(struct run *run);
extern bool take_packed_backup(struct run *run);
extern bool verify_packed_backup(struct run *run);

/* copy_command.c: the same where the user's command copies some or all of it */
extern bool take_by_copy_command(struct run *run, const struct pgx_backup *previous);

/* lowlevel.c: a copy of a directory of a running server */
extern bool copy_live_directory(const char *from, const char *to, bool cluster);

/* conf.c: configuration files */
extern bool take_configuration(struct source *source, const char *dir, const char *sub,
							   struct pgx_backup_info *info);

/* keys.c: the keystore, and the keys that the backup needs */
struct key_range
{
	uint32_t	first;			/* id of the lowest master key seen; 0: none */
	uint32_t	last;
	char		uuid[KEYSTORE_UUID_STRLEN + 1];	/* "" if there was no key table */
};
extern bool note_keytable(const char *data, struct key_range *range);
extern void note_master_key(uint32_t id, struct key_range *range);
extern bool keep_keytable(struct run *run, const char *pgdata);
extern bool take_keystore(struct run *run, const struct key_range *range);

/* archive.c */
extern bool wait_for_archive(struct run *run);

#endif							/* PGX_DMPALL_H */
