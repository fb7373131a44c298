/*
 * backup.h
 *		The backup area: its layout, its backups, and what each of them needs.
 *
 * A convenience library for the commands that make, restore or ask for backups; pgx_backup(5) describes the
 * same to people.  The area is the directory that pgx_tde.backup_destination names:
 *
 *		YYYY-MM-DD_hh-mm-ss/			a complete backup, named by the local time of its begin
 *			backup_info.json			what it is; written last
 *			data/						the data directory, with backup_manifest (plain pg_basebackup output)
 *			tablespaces/OID/			each tablespace's location
 *			data.pgxpack				with --compress: both of these in one sealed file, pgx_backup_stream(5)
 *			conf/						configuration files, also those from outside the data directory
 *			keystore/keystore.ks		copy of the keystore as it was after the copying (ciphertext)
 *			wal/						segments from begin to end, where data/pg_wal does not have them
 *			backup_label, tablespace_map	with method "copy_command": to be put into the restored data directory
 *			keytable					with method "copy_command": the key table that the command copied, so that WAL can be read
 *			copy_info					with method "copy_command": the copy command's own file
 *		YYYY-MM-DD_hh-mm-ss.incomplete/	one that is being made or removed, or that died on the way
 *		archived_wal/					what pgx_walcopy archives
 *		online_wal/						mirrored WAL
 *		pgx_backup.lock					lock of whoever works on the area
 *
 * A backup is built under its incomplete name and gets its own by one rename, after everything in it is
 * synced.  Removing one begins with the rename back.  So what has the plain name is whole.
 *
 * All functions say on standard error what went wrong (log.h) before they return false, unless they
 * take err.  Memory is the caller's, to be freed with the function named *_clear.  No threads; a forked child
 * must not use an area its parent has locked, except by inheriting the lock on purpose.
 */
#ifndef PGX_BACKUP_H
#define PGX_BACKUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "keystore.h"

#define PGX_AREA_ARCHIVED_WAL	"archived_wal"
#define PGX_AREA_ONLINE_WAL		"online_wal"
#define PGX_AREA_LOCK_NAME		"pgx_backup.lock"

#define PGX_BACKUP_INFO_NAME	"backup_info.json"
#define PGX_BACKUP_DATA			"data"
#define PGX_BACKUP_TABLESPACES	"tablespaces"
#define PGX_BACKUP_CONF			"conf"
#define PGX_BACKUP_KEYSTORE		"keystore"
#define PGX_BACKUP_WAL			"wal"
#define PGX_BACKUP_KEYTABLE		"keytable"
#define PGX_BACKUP_PACK			"data.pgxpack"
#define PGX_BACKUP_PACK_ID_LEN	16
#define PGX_BACKUP_MARKER		"INCOMPLETE"	/* in a directory whose content may go */
#define PGX_RESTORE_MARKER		"pgx_rcvall.incomplete" /* in a data directory that is being recovered */
#define PGX_BACKUP_SUFFIX		".incomplete"
#define PGX_BACKUP_INFO_FORMAT	1

#define PGX_BACKUP_NAME_LEN		19	/* YYYY-MM-DD_hh-mm-ss */

/* Room for a WAL file's name, 24 hexadecimal digits, and for an LSN as text. */
#define PGX_WAL_NAME_LEN		24
#define PGX_LSN_STRLEN			17

/* ---- one backup ------------------------------------------------------------ */

struct pgx_backup_tablespace
{
	uint32_t	oid;
	char	   *name;
	char	   *location;		/* on the server that was backed up; absolute */
	char	   *algorithm;		/* "none", "AES128" or "AES256" */
	bool		by_copy_command;	/* then nothing of it is in the backup's directory */
};

/*
 * A configuration file; file is relative to the backup's directory.  One whose file is not below data/ is put back to
 * path when the backup is restored, even where path is in the data directory: it is newer than the data
 * (pgx_dmpall --config-only).
 */
struct pgx_backup_conf
{
	char	   *parameter;		/* "config_file", "hba_file", "ident_file", "auto_conf" or "include" */
	char	   *path;			/* on the server that was backed up; absolute */
	char	   *file;
};

/* What backup_info.json says.  Strings are never NULL unless it says so. */
struct pgx_backup_info
{
	char	   *label;			/* --label, or "" */
	char	   *tool;			/* program and version that wrote it */
	char	   *method;			/* "pg_basebackup", "packed" or "copy_command" */
	char	   *compression;	/* "none", "zstd" or "lz4" */
	char	   *system_identifier;	/* of the server, decimal */
	uint32_t	server_version; /* as server_version_num */
	uint32_t	wal_segment_size;	/* bytes */
	bool		data_checksums;
	bool		from_standby;
	bool		has_manifest;	/* data/backup_manifest is there, or in the packed file */

	int64_t		start_time;		/* seconds since 1970, UTC */
	int64_t		end_time;
	uint32_t	start_timeline;
	uint32_t	end_timeline;
	uint64_t	start_lsn;		/* recovery starts here */
	uint64_t	end_lsn;		/* and is consistent here; a target must not be earlier */
	uint64_t	size;			/* bytes in the backup's directory */
	bool		archive_complete;	/* the server had archived WAL up to end_lsn */

	char	   *data_directory; /* on the server that was backed up */
	char	   *wal_directory;	/* pg_wal's place if that was a symbolic link, else NULL */
	char	   *online_wal_directory;	/* where WAL was mirrored, else NULL */
	struct pgx_backup_tablespace *tablespaces;
	size_t		n_tablespaces;
	struct pgx_backup_conf *confs;
	size_t		n_confs;

	/* With method "packed": data and tablespaces are in one sealed file, see pack.h. */
	bool		packed;
	uint8_t		pack_id[PGX_BACKUP_PACK_ID_LEN];	/* what that file must say of itself */
	uint32_t	pack_master_key;	/* whose data key it has; among master_keys too */
	uint64_t	pack_data_size; /* bytes of all files in it */

	/* With a copy command: what it took ("pg_data", tablespace names), and its own file, else NULL. */
	char	  **resources;
	size_t		n_resources;
	char	   *copy_info_file; /* relative to the backup's directory */

	/* Keys.  A server without a keystore: keystore_uuid is NULL, n_master_keys 0. */
	char	   *keystore_uuid;	/* text of the UUID */
	char	   *keystore_location;	/* directory on the server that was backed up, or NULL */
	char	   *keystore_copy;	/* relative to the backup's directory; NULL if none was kept */
	uint64_t	keystore_generation;	/* after the copying; that of the copy if there is one */
	uint32_t   *master_keys;	/* ids that data, WAL from start_lsn to end_lsn and a packed file need, ascending */
	size_t		n_master_keys;
};

enum pgx_backup_state
{
	PGX_BACKUP_COMPLETE = 1,
	PGX_BACKUP_INCOMPLETE = 2,	/* being made or removed, or left over */
	PGX_BACKUP_DAMAGED = 3		/* has a complete one's name, but not what belongs to it */
};

struct pgx_backup
{
	char	   *name;			/* PGX_BACKUP_NAME_LEN characters, without the suffix */
	char	   *dir;			/* absolute */
	enum pgx_backup_state state;
	char	   *reason;			/* why it is DAMAGED, else NULL */
	struct pgx_backup_info info;	/* of a COMPLETE one */
};

/* "COMPLETE", "INCOMPLETE", "DAMAGED" */
extern const char *pgx_backup_state_text(enum pgx_backup_state state);

/*
 * Read DIR/backup_info.json and check everything in it.  False: err has the reason.  The file holds nothing
 * secret; unknown members are ignored, an unknown format is refused.
 */
extern bool pgx_backup_info_read(const char *dir, struct pgx_backup_info *ret_info,
								 char *err, size_t err_len);

/* Write it durably: new file, fsync, rename, fsync of the directory. */
extern bool pgx_backup_info_write(const char *dir, const struct pgx_backup_info *info);

/* The same as JSON text without a newline at the end, for --json; name and dir are added to it. */
extern char *pgx_backup_json(const struct pgx_backup *backup);

extern void pgx_backup_info_clear(struct pgx_backup_info *info);

/* ---- the area --------------------------------------------------------------- */

struct pgx_area
{
	char	   *path;			/* absolute, links resolved */
	struct pgx_backup *backups; /* oldest first, by end_time; what is not COMPLETE comes by name */
	size_t		count;
};

/*
 * Is this a directory that can be an area: absolute path, a directory, ours, nobody else can
 * write or read it?  Texts are those of Fujitsu Enterprise Postgres where it has them.
 */
extern bool pgx_area_check(const char *path);

/*
 * Take the area's lock, once, without waiting.  Whoever has it is named in the message.  The lock goes with the
 * last descriptor of this open file: a child that inherits *ret_fd (it is close-on-exec) keeps it.
 */
extern bool pgx_area_lock(const char *path, int *ret_fd);
extern void pgx_area_unlock(int *fd);

/* List the backups.  Other names are ignored; a damaged backup is listed, with its reason. */
extern bool pgx_area_list(const char *path, struct pgx_area *ret_area);
extern void pgx_area_clear(struct pgx_area *area);

/* The newest COMPLETE one that fits; NULL if there is none.  No message. */
extern const struct pgx_backup *pgx_area_newest(const struct pgx_area *area);

/* The same, whose end is not after a time (seconds since 1970) or an LSN; 0: does not matter. */
extern const struct pgx_backup *pgx_area_newest_until(const struct pgx_area *area, int64_t end_time,
													  uint64_t end_lsn);

/* The COMPLETE one of that name or, if there is no such name, the newest of that label; NULL if there is none. */
extern const struct pgx_backup *pgx_area_find(const struct pgx_area *area, const char *name_or_label);

/* Path of something in a backup: PGX_BACKUP_DATA and so on, or a relative path from its info.  The caller frees it. */
extern char *pgx_backup_path(const struct pgx_backup *backup, const char *relative);
extern char *pgx_backup_tablespace_path(const struct pgx_backup *backup, uint32_t oid);

/* ---- making and removing; the caller has the lock ------------------------------- */

/*
 * Make the directory of a new backup under its incomplete name, with the marker in it, durably.  *ret_name: its name
 * from the local time now, or the next free second.  *ret_dir: the directory.  The caller frees both.
 */
extern bool pgx_area_begin(const char *path, char **ret_name, char **ret_dir);

/* All is synced and backup_info.json is written: give it its own name. */
extern bool pgx_area_commit(const char *path, const char *name);

/* Remove a backup, whatever its state.  Only what has the form of ours is touched. */
extern bool pgx_area_remove(const char *path, const char *name);

/* Remove what earlier runs left: incomplete backups that are ours.  *ret_count: how many; may be NULL. */
extern bool pgx_area_remove_leftovers(const char *path, size_t *ret_count);

/*
 * Keep the newest keep COMPLETE backups (at least 1), remove older ones, then archived WAL that none of those
 * kept needs: segments before the first one's start, never a history file.  Counts may be NULL.
 */
extern bool pgx_area_retain(const char *path, unsigned keep, size_t *ret_backups, size_t *ret_segments);

/* ---- keys -------------------------------------------------------------------------- */

enum pgx_key_need
{
	PGX_KEY_FOR_DATA = 1,		/* the backup itself has data or WAL under the key */
	PGX_KEY_FOR_WAL = 2			/* recovery from the backup to a later time goes through the key */
};

struct pgx_key_user
{
	const struct pgx_backup *backup;	/* of the area */
	enum pgx_key_need need;
};

/*
 * Which COMPLETE backups need master key id of the keystore with this UUID (text)?  Oldest first.  Also those whose
 * need cannot be ruled out: a DAMAGED backup counts as PGX_KEY_FOR_DATA.  *ret_users is freed by the caller.
 */
extern size_t pgx_area_key_users(const struct pgx_area *area, const char *keystore_uuid, uint32_t id,
								 struct pgx_key_user **ret_users);

/* ---- WAL names ------------------------------------------------------------------------ */

/* "0000000100000000000000A5" of the segment that contains an LSN. */
extern void pgx_wal_name(uint32_t timeline, uint64_t lsn, uint32_t segment_size,
						 char ret_name[PGX_WAL_NAME_LEN + 1]);

/* Is it a segment's name (24 digits and nothing else)?  Gives timeline and first LSN; both may be NULL. */
extern bool pgx_wal_name_parse(const char *name, uint32_t segment_size, uint32_t *ret_timeline,
							   uint64_t *ret_lsn);

/* "16/B374D848"; false if it is anything else. */
extern bool pgx_lsn_parse(const char *text, uint64_t *ret_lsn);
extern void pgx_lsn_text(uint64_t lsn, char ret_text[PGX_LSN_STRLEN + 1]);

/* ---- pg_basebackup --------------------------------------------------------------- */

/* Read the WAL range of DATA/backup_manifest: timelines and LSNs of info are set. */
extern bool pgx_manifest_wal_range(const char *data, struct pgx_backup_info *info);

/* OLD=NEW for its option -T: an equals sign in a name is escaped.  The caller frees it. */
extern char *pgx_tablespace_mapping(const char *old_dir, const char *new_dir);

/* Let DATA/pg_tblspc's links lead to ../../tablespaces/OID, so that the backup may be moved as a whole. */
extern bool pgx_relink_tablespaces(const char *data);

/* Does a directory have every segment, whole, from start_lsn to end_lsn? */
extern bool pgx_wal_is_complete(const char *dir, const struct pgx_backup_info *info);

/* ---- files ------------------------------------------------------------------------------- */

/* Sync a file or directory; a tree with everything in it (symbolic links are not followed). */
extern bool pgx_sync_path(const char *path);
extern bool pgx_sync_tree(const char *path, uint64_t *ret_size);

/*
 * Sync trees that were filled just now: where the kernel tells of failures in that, by syncing their file systems as a
 * whole, which is one wait instead of one for each file.
 */
extern bool pgx_sync_trees(const char *const *dirs, size_t n);

/* Remove a tree without following symbolic links.  Fine if it is not there. */
extern bool pgx_remove_tree(const char *path);

/* Write a new file (it must not exist, 0600) or replace one durably. */
extern bool pgx_write_new(const char *path, const void *buf, size_t len);
extern bool pgx_write_durable(const char *path, const void *buf, size_t len);

/*
 * Copy the rest of one open file to another, through the kernel alone where it can: between file systems of two kinds it
 * cannot.  Says nothing; errno is set.  pgx_kernel_copies_not(errno): is that why copy_file_range() failed?
 */
extern bool pgx_copy_rest(int in, int out);
extern bool pgx_kernel_copies_not(int err);

/* Copy a regular file to a name that does not exist, with its mode less what others may, and sync it. */
extern bool pgx_copy_file(const char *from, const char *to);
extern bool pgx_copy_open_file(int in, const char *from, const char *to, unsigned mode);

/* mkdir 0700 and sync of the parent; fine if the directory is there. */
extern bool pgx_make_directory(const char *path);

#endif							/* PGX_BACKUP_H */
