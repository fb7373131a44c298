/*
 * pack.h
 *		Compressed backups: a base backup in one sealed file, pgx_backup_stream(5).
 *
 * pgx_pack() takes a base backup from a running server by the replication protocol (BASE_BACKUP, as
 * pg_basebackup does) and writes it, while it comes, into one file: pages of encrypted relations are
 * decrypted, everything is compressed in blocks by several threads, and the result is encrypted
 * again and authenticated in 64 KiB chunks (lib/tde/stream.h).  pgx_unpack() is the reverse: it encrypts each page again
 * under the key it had, so that what it writes equals, byte for byte, what the server sent.
 *
 * Plaintext is in memory only; the amount of memory depends on the number of jobs, not on the server's size.
 * Both say on standard error what went wrong and return an exit code of log.h: PGX_EXIT_KEY where a key does
 * not fit.  Both start threads and end them before they return; not to be called from two threads at once.
 */
#ifndef PGX_PACK_H
#define PGX_PACK_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backup.h"
#include "keystore.h"
#include "keytable.h"

#define PGX_PACK_NAME		PGX_BACKUP_PACK /* in a backup's directory, instead of data/ and tablespaces/ */
#define PGX_PACK_SUFFIX		".partial"	/* while it is being written */
#define PGX_PACK_MAX_JOBS	64
#define PGX_PACK_ID_LEN		PGX_BACKUP_PACK_ID_LEN

/* Numbers are on disk. */
enum pgx_pack_codec
{
	PGX_PACK_NONE = 0,
	PGX_PACK_ZSTD = 1,
	PGX_PACK_LZ4 = 2
};

/*
 * Parse the value of --compress: "zstd", "lz4", "none", with ":LEVEL" if wanted.  False, with the reason said, if
 * it is none of them, if the level is out of range, or if the build is without that library.
 */
extern bool pgx_pack_parse_codec(const char *text, enum pgx_pack_codec *ret_codec, int *ret_level);
extern const char *pgx_pack_codec_name(enum pgx_pack_codec codec);

/* Called now and then by the thread that called pgx_pack() or pgx_unpack(); total 0: not known. */
typedef void (*pgx_pack_progress) (void *arg, uint64_t done, uint64_t total);

struct pgx_pack_tablespace
{
	uint32_t	oid;
	char	   *location;
};

struct pgx_pack_options
{
	const char *conninfo;		/* connection string or URI; replication is added here */
	const char *label;			/* NULL: "pgx_dmpall" */
	bool		checkpoint_fast;
	bool		wal;			/* put WAL from begin to end into the backup's pg_wal */
	const char *manifest;		/* "yes" if NULL; "no", "force-encode" */
	const char *data_dir;		/* the server's: its pgx_tde/keys is read.  NULL: no key table, nothing is
								 * decrypted */
	keystore   *ks;				/* opened */
	const char *path;			/* the file to make; it must not exist */
	enum pgx_pack_codec codec;
	int			level;
	unsigned	jobs;			/* threads that compress; 1 to PGX_PACK_MAX_JOBS */
	pgx_pack_progress progress;	/* NULL: none */
	void	   *progress_arg;
	const volatile sig_atomic_t *cancel;	/* not 0: give up; NULL: never */
};

struct pgx_pack_result
{
	uint8_t		backup_id[PGX_PACK_ID_LEN]; /* note it in backup_info.json */
	uint32_t	master_key_id;	/* that wraps the data key */
	uint32_t	start_timeline;
	uint32_t	end_timeline;
	uint64_t	start_lsn;
	uint64_t	end_lsn;
	uint64_t	raw_size;		/* bytes of all files */
	uint64_t	packed_size;	/* bytes of the container */
	struct pgx_pack_tablespace *tablespaces;
	size_t		n_tablespaces;
};

/* Make the container, fsynced.  If it fails, no file is left.  *ret_result is cleared by the caller, on success only. */
extern int	pgx_pack(const struct pgx_pack_options *opts, struct pgx_pack_result *ret_result);
extern void pgx_pack_result_clear(struct pgx_pack_result *result);

/* What a container says of itself without a key; nothing of it is proved before pgx_unpack(). */
struct pgx_pack_info
{
	uint8_t		backup_id[PGX_PACK_ID_LEN];
	uint8_t		keystore_uuid[KEYSTORE_UUID_LEN];
	uint32_t	master_key_id;
};

extern bool pgx_pack_info_read(const char *path, struct pgx_pack_info *ret_info);

struct pgx_unpack_options
{
	const char *path;			/* the container */
	keystore   *ks;				/* opened */
	const uint8_t *backup_id;	/* that it must have, from backup_info.json; NULL: any */
	bool		verify_only;	/* read and check all of it, write nothing */
	const char *data_dir;		/* made if it does not exist, else it must be empty, but for PGX_RESTORE_MARKER */
	const char *wal_dir;		/* where pg_wal is to lie and a link to be made, or NULL */
	const struct pgx_pack_tablespace *tablespaces;	/* other places of tablespaces; the rest goes where it
													 * was; made, or empty, as data_dir */
	size_t		n_tablespaces;
	unsigned	jobs;
	bool		no_sync;		/* do not wait for the disk; for tests */
	pgx_pack_progress progress;
	void	   *progress_arg;
	const volatile sig_atomic_t *cancel;
};

/*
 * Restore.  global/pg_control gets its name after the last chunk was verified and everything is synced; until then
 * no server starts from what is there.  After a failure what was written is left to the caller, who
 * knows which directories were there before.
 */
extern int	pgx_unpack(const struct pgx_unpack_options *opts);

/*
 * Does the opened keystore open this container, and the key table in it?  Reads the begin only.  An exit code, with the
 * reason said.  *ret_kt: the table, to be freed by tde_keytable_free(); NULL if there is none.  Master keys
 * from its ring are then known to ks.
 */
extern int	pgx_unpack_keytable(const char *path, keystore *ks, const uint8_t *backup_id,
								tde_keytable **ret_kt);

#endif							/* PGX_PACK_H */
