/*
 * encrypt.h
 *		Converting a whole cluster in place, for pgx_encrypt and for initdb.
 *
 * The working directory is the data directory, as it is the server's, so all paths are those that
 * the I/O layer sees; its own function tells which files are relations.  Unless it says
 * otherwise, a function that returns false, or a code of log.h other than 0, has said why.
 */
#ifndef PGX_ENCRYPT_H
#define PGX_ENCRYPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "cipher.h"
#include "keystore.h"
#include "keytable.h"
#include "page.h"
#include "pgx_io.h"

#define PGX_DEFAULT_TABLESPACE	1663
#define PGX_GLOBAL_TABLESPACE	1664

#define PGX_TDE_DIR			"pgx_tde"
#define KEYTABLE_FILE		PGX_TDE_DIR "/keys"
#define JOURNAL_FILE		PGX_TDE_DIR "/conversion"

/*
 * A converted file until it takes the original's place.  The server and its tools pass over names
 * with this beginning wherever they meet them.
 */
#define NEW_PREFIX			"pgsql_tmp.pgx."

/* ---- cluster.c: what is known of the data directory ------------------------------------ */

struct cluster
{
	char	   *pgdata;			/* absolute, no symbolic link in it */
	char	   *bindir;			/* of the server's programs */
	bool		sync;			/* false: leave it to the operating system what reaches the disk when */
	mode_t		file_mode;		/* of files that are made, as the data directory's owner chose */
	mode_t		dir_mode;
	int			lock_fd;		/* -1: not locked */
	/* from pg_control */
	bool		checksums;
	uint32_t	catalog_version;
	uint32_t	timeline;
	uint32_t	segment_size;	/* of WAL, bytes */
	uint64_t	checkpoint;		/* LSN of the shutdown checkpoint */
	char	   *state;			/* "shut down" and so on */
};

/*
 * Go to the data directory and read pg_control by the server's own pg_controldata.  The data directory
 * must be ours, and of a server that was built as we need it.
 */
extern bool cluster_open(struct cluster *cluster, const char *pgdata, const char *bindir);

/* Keep other runs out until this process ends or clears the struct. */
extern bool cluster_lock(struct cluster *cluster);

/* Read pg_control again; false after a message unless the server was shut down cleanly and is not running. */
extern bool cluster_is_down(struct cluster *cluster);
extern void cluster_clear(struct cluster *cluster);

/* ---- disk.c: files that survive a crash ------------------------------------------------- */

extern bool disk_sync_dir(const struct cluster *cluster, const char *dir);

/* Replace a file by the bytes: after a crash there is the old one or the new one. */
extern bool disk_replace(const struct cluster *cluster, const char *path, const void *buf, size_t len);
extern bool disk_remove(const struct cluster *cluster, const char *path);
extern bool disk_make_dir(const struct cluster *cluster, const char *path);

/* ---- keys.c -------------------------------------------------------------------------------- */

struct keys
{
	keystore   *ks;				/* opened */
	tde_keytable *kt;			/* opened; NULL if the data directory has none */
};

/* Open an existing keystore: by its auto-open file if passphrase_file is NULL and that works, else by a passphrase. */
extern int	keys_open(struct keys *keys, const char *path, const char *passphrase_file, const char *host_secret);
extern bool keys_table_exists(void);

/* Read the data directory's key table into keys, if there is one. */
extern int	keys_read_table(struct keys *keys);

/* An empty table if there is none, bound to the keystore's active master key. */
extern int	keys_make_table(struct keys *keys);

/* Algorithm of an entry, TDE_NONE without one. */
extern enum tde_algorithm keys_algorithm(const struct keys *keys, enum tde_key_kind kind, uint32_t oid);
extern const uint8_t *keys_key(const struct keys *keys, enum tde_key_kind kind, uint32_t oid);
extern bool keys_add(struct keys *keys, enum tde_key_kind kind, uint32_t oid, enum tde_algorithm alg);
extern bool keys_remove(struct keys *keys, enum tde_key_kind kind, uint32_t oid);
extern bool keys_write_table(struct keys *keys, const struct cluster *cluster);
extern void keys_clear(struct keys *keys);

/* ---- files.c: what there is to convert ------------------------------------------------------ */

struct space
{
	uint32_t	oid;
	char	   *name;			/* for messages: pg_default, pg_global or the directory */
	char	   *dir;			/* below which its files are; no link is resolved */
	enum tde_algorithm alg;		/* key table's; TDE_NONE: plain */
	bool		selected;
};

struct spaces
{
	struct space *spaces;
	size_t		count;
};

struct data_file
{
	char	   *path;			/* relative to the data directory */
	struct pgx_io_path is;		/* PGX_IO_RELATION, PGX_IO_WAL or PGX_IO_WAL_TEMP */
	off_t		size;
};

struct data_files
{
	struct data_file *files;	/* in the order of their paths */
	size_t		count;
	size_t		capacity;
	char	  **leftover;		/* NEW_PREFIX files, by their original's path */
	size_t		n_leftover;
};

/* pg_global, pg_default and what is below pg_tblspc. */
extern bool spaces_read(struct spaces *spaces, const struct cluster *cluster, const struct keys *keys);

/* Select by OID, name or directory. */
extern bool spaces_select(struct spaces *spaces, const char *what);
extern void spaces_clear(struct spaces *spaces);

/* Add the relation files of a tablespace, or the segments in pg_wal. */
extern bool files_add_space(struct data_files *files, const struct cluster *cluster, const struct space *space);
extern bool files_add_wal(struct data_files *files, const struct cluster *cluster);
extern void files_clear(struct data_files *files);

/* Path of the new file beside path; the caller frees it. */
extern char *files_new_path(const char *path);

/* Remove what the server itself deletes when it starts, and what may hold plaintext: temporary and spill files. */
extern bool files_remove_temporary(const struct cluster *cluster, const struct spaces *spaces);

/* ---- journal.c: what is being converted, and how far ------------------------------------------ */

struct journal
{
	int			fd;
	bool		decrypt;
	bool		wal;			/* WAL is converted too */
	bool		finished;		/* all files are; what remains is the key table */
	uint32_t	oids[TDE_KEYTABLE_MAX_ENTRIES];
	enum tde_algorithm algs[TDE_KEYTABLE_MAX_ENTRIES];
	size_t		n_oids;
	char	  **ready;			/* files whose new version was complete; sorted */
	size_t		n_ready;
};

extern bool journal_exists(void);
extern bool journal_create(struct journal *journal, const struct cluster *cluster);
extern bool journal_open(struct journal *journal, const struct cluster *cluster);

/* Note that the new versions of these files are complete and on disk. */
extern bool journal_note_ready(struct journal *journal, const struct cluster *cluster,
							   const struct data_file *files, size_t count);
extern bool journal_note_finished(struct journal *journal, const struct cluster *cluster);
extern bool journal_is_ready(const struct journal *journal, const char *path);
extern void journal_close(struct journal *journal);

/* ---- page.c, wal.c: one file ------------------------------------------------------------------ */

enum page_look
{
	PAGE_EMPTY,					/* zeros */
	PAGE_PLAIN,
	PAGE_ENCRYPTED,
	PAGE_EITHER,				/* by chance it looks like both; the rest of its file tells */
	PAGE_DAMAGED				/* no page of PostgreSQL, neither as it is nor decrypted */
};

/* xts may be NULL: without a key nothing can be told to be encrypted. */
extern enum page_look page_look(tde_xts *xts, const struct tde_page_id *id, const uint8_t *page);

/* Where WAL ends: after the shutdown checkpoint. */
extern bool wal_find_end(const struct cluster *cluster, const struct keys *keys, uint64_t *ret_end);

struct conversion
{
	const struct cluster *cluster;
	const struct keys *keys;
	bool		decrypt;
	uint64_t	wal_end;
	uint32_t	wal_epoch;		/* of pages that are encrypted now */
};

/* Make the new version of a file at new_fd from fd.  Silent false if a stop is requested meanwhile. */
extern bool convert_relation(const struct conversion *conversion, const struct data_file *file, int fd,
							 int new_fd);
extern bool convert_wal(const struct conversion *conversion, const struct data_file *file, int fd,
						int new_fd);

/* Timeline and number from a segment's name; false for RECOVERYXLOG, which has none. */
extern bool wal_parse_name(const struct cluster *cluster, const char *path, uint32_t *ret_timeline,
						   uint64_t *ret_segment);

/* ---- batch.c: many files ---------------------------------------------------------------------- */

/* Convert these files; false if any failed or a stop is requested.  jobs threads work at once. */
extern bool convert_in_batches(const struct conversion *conversion, struct journal *journal,
							   const struct data_files *files, uint32_t jobs);

/* New files that another run has left: those of files that the journal calls ready take their place. */
extern bool convert_leftover(const struct cluster *cluster, const struct journal *journal, struct data_files *files);

/* ---- progress.c --------------------------------------------------------------------------------- */

/* done: what is done with the bytes, in the past tense. */
extern void progress_start(bool show, uint64_t total, const char *done);
extern void progress_add(uint64_t bytes);
extern void progress_end(void);

/* After SIGINT, SIGTERM or SIGHUP workers stop at the next occasion. */
extern void stop_on_signals(void);
extern bool stop_requested(void);

/* ---- convert.c ------------------------------------------------------------------------------------- */

struct convert_options
{
	bool		decrypt;
	enum tde_algorithm alg;
	const char *const *tablespaces; /* NULL: all */
	size_t		n_tablespaces;
	uint32_t	jobs;
	bool		progress;
};

/* Convert, or go on where a former run left off.  Keys are open; an exit code. */
extern int	convert_cluster(struct cluster *cluster, struct keys *keys, const struct convert_options *options);

/* ---- check.c --------------------------------------------------------------------------------------- */

/* Report, on standard output, what is encrypted; PGX_EXIT_OK if everything is.  A server may be running. */
extern int	check_cluster(const struct cluster *cluster, const struct keys *keys,
						  const struct convert_options *options, bool json);

#endif							/* PGX_ENCRYPT_H */
