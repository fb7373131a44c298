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

/* --tablespace-mapping OLD=NEW */
struct rcvall_mapping
{
	char	   *old;			/* the location on the server that was backed up, or the tablespace's name */
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
	const char *log_file;		/* --log: the recovery server's */
	struct rcvall_mapping *mappings;	/* allocated */
	size_t		n_mappings;
	bool		list;			/* -l */
	bool		view_copying;	/* --view-results-of-copying */
	bool		keystore_passphrase;	/* ask for it, or read it from passphrase_file */
	bool		progress;
	bool		json;
	bool		verbose;

	/* --standby, and what only it takes */
	bool		standby;
	const char *from;			/* connection string of the server to copy with pg_basebackup */
	const char *primary_conninfo;	/* with -B: what the standby will follow */
	const char *keystore;		/* FILE, DIR or HOST:DIR to copy the keystore from; NULL: over SQL */
	const char *slot;
	bool		create_slot;
	bool		auto_open;
};

/* The backup area: of -B, or what the configuration in -D says; checked.  NULL after a message; the caller frees it. */
extern char *find_area(const struct rcvall_options *opts);

/* list.c; each returns an exit code */
extern int	list_backups(const struct rcvall_options *opts);
extern int	view_copying(const struct rcvall_options *opts);

/* standby.c: build a standby; returns an exit code */
extern int	standby_run(const struct rcvall_options *opts);

#endif							/* PGX_RCVALL_H */
