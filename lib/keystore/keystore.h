/*
 * keystore.h
 *		Public interface of libkeystore: the file that holds a cluster's master
 *		encryption keys, and every way of opening, changing and copying it.
 *
 * Conventions, valid for every function unless its comment says otherwise:
 *
 * - A function that can fail returns enum keystore_status.  KEYSTORE_OK is 0.
 *   The sentence for a person is keystore_errmsg(), what to do about it is
 *   keystore_errhint(); both belong to the handle and hold until its next call.
 * - Outputs come last, are named ret_*, and are written only on success.
 * - Sizes are bytes.  Times are seconds since 1970-01-01 00:00:00 UTC.
 * - Inputs are borrowed for the call and never kept.  Secrets that go in are the
 *   caller's to wipe (keystore_wipe()); those that the library holds live in
 *   locked, undumpable memory and are wiped by keystore_free().
 * - A handle belongs to one thread at a time.  After fork() the child has a copy
 *   of everything but the memory lock; a child that does not need the keys frees
 *   the handle.
 * - The library never prints, exits, reads the environment, changes signals,
 *   locale or umask.
 */
#ifndef KEYSTORE_H
#define KEYSTORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define KEYSTORE_MUST_CHECK __attribute__((warn_unused_result))
#else
#define KEYSTORE_MUST_CHECK
#endif

#define KEYSTORE_FILE_NAME			"keystore.ks"
#define KEYSTORE_PREV_NAME			"keystore.ks.prev"
#define KEYSTORE_AUTO_OPEN_NAME		"keystore.aks"
#define KEYSTORE_LOCK_NAME			"keystore.lock"

#define KEYSTORE_UUID_LEN			16	/* bytes */
#define KEYSTORE_UUID_STRLEN		36	/* characters, without the NUL */
#define KEYSTORE_KEY_LEN			32	/* KSK and master keys, bytes */
#define KEYSTORE_PASSPHRASE_MIN		8	/* bytes, not characters */
#define KEYSTORE_PASSPHRASE_MAX		200	/* bytes */
#define KEYSTORE_MAX_FILE_SIZE		(1024 * 1024)	/* larger input is refused unread */
#define KEYSTORE_MAX_MASTER_KEYS	4096

/*
 * Status numbers are part of the interface: never renumbered, never reused.
 */
enum keystore_status
{
	KEYSTORE_OK = 0,
	KEYSTORE_ENOMEM = 1,		/* out of memory */
	KEYSTORE_EINVAL = 2,		/* the caller broke the contract, e.g. a closed handle */
	KEYSTORE_EIO = 3,			/* open, read, write, fsync, rename failed */
	KEYSTORE_ENOENT = 4,		/* no keystore there */
	KEYSTORE_EEXIST = 5,		/* there is one already */
	KEYSTORE_EPERM = 6,			/* unsafe mode, owner or file type */
	KEYSTORE_EFORMAT = 7,		/* not a keystore: wrong magic */
	KEYSTORE_EVERSION = 8,		/* a version, or a critical field, this build does not know */
	KEYSTORE_EDAMAGED = 9,		/* a keystore, but truncated, extended or altered */
	KEYSTORE_EPASSPHRASE = 10,	/* no slot opens with this passphrase */
	KEYSTORE_EPASSLEN = 11,		/* passphrase shorter than 8 or longer than 200 bytes */
	KEYSTORE_EKDF = 12,			/* the slot's KDF is not available in this build */
	KEYSTORE_EWRONGKEY = 13,	/* this KSK, or auto-open file, does not belong to this keystore,
								 * server or user */
	KEYSTORE_ECRYPTO = 14,		/* libcrypto failed; never a wrong passphrase */
	KEYSTORE_EBUSY = 15,		/* another process holds the lock */
	KEYSTORE_ENOKEY = 16,		/* no master key of that id */
	KEYSTORE_ECONFLICT = 17,	/* other UUID, or newer generation, than what would replace it */
	KEYSTORE_ELIMIT = 18		/* too many keys or slots */
};

enum keystore_key_state
{
	KEYSTORE_KEY_ACTIVE = 1,	/* wraps new keys; exactly one */
	KEYSTORE_KEY_RETIRED = 2,	/* opens what it wrapped */
	KEYSTORE_KEY_DESTROYED = 3	/* the bytes are gone, the record stays */
};

enum keystore_kdf
{
	KEYSTORE_KDF_SCRYPT = 1,	/* RFC 7914 */
	KEYSTORE_KDF_PBKDF2_SHA512 = 2,	/* SP 800-132, RFC 8018 */
	KEYSTORE_KDF_ARGON2ID = 3	/* RFC 9106; OpenSSL 3.2 and later */
};

enum keystore_slot_kind
{
	KEYSTORE_SLOT_PASSPHRASE = 1,
	KEYSTORE_SLOT_RECOVERY = 2	/* reserved */
};

/* Cost of a slot.  NULL where a function takes one means the default: scrypt, N = 2^17, r = 8, p = 1. */
struct keystore_kdf_params
{
	enum keystore_kdf kdf;
	uint32_t	cost;			/* scrypt: log2 N, 10 to 24; PBKDF2: iterations, 210000 or more
								 * (1000 or more is read); argon2id: passes */
	uint32_t	memory_kib;		/* argon2id only */
	uint32_t	block_size;		/* scrypt r, 1 to 32 */
	uint32_t	parallelism;	/* scrypt p, argon2id lanes, 1 to 16 */
};

struct keystore_key_info
{
	uint32_t	id;				/* 1, 2, 3, ...; never reused */
	enum keystore_key_state state;
	int64_t		created;
	int64_t		activated;
	int64_t		retired;		/* 0 while active */
	char		origin[64];		/* who made it, e.g. "pgx_keystore", "pgx_set_master_key" */
};

struct keystore_slot_info
{
	uint32_t	id;
	enum keystore_slot_kind kind;
	char		label[64];
	struct keystore_kdf_params kdf;
	int64_t		created;
};

typedef struct keystore keystore;

/* Text of a status, for programs that have no handle.  Never NULL. */
extern const char *keystore_status_name(enum keystore_status status);

/* Version of the library in use, "1.2.3". */
extern const char *keystore_version(void);

/* Wipe a secret in a way that the compiler keeps. */
extern void keystore_wipe(void *p, size_t len);

/* ---- handles ------------------------------------------------------------ */

/* A new, empty, closed handle; NULL only if memory is out. */
extern keystore *keystore_new(void);

/* Wipe and free; sets *ks to NULL.  NULL and a pointer to NULL are fine. */
extern void keystore_free(keystore **ks);

/* What the last failing call on the handle had to say.  NULL means out of memory.  Never NULL, no secret. */
extern const char *keystore_errmsg(const keystore *ks);

/* What the person can do about it, a whole sentence, or "" if nothing is known. */
extern const char *keystore_errhint(const keystore *ks);

/* False if a secret had to be kept in memory that could not be locked (RLIMIT_MEMLOCK). */
extern bool keystore_memory_locked(const keystore *ks);

/* ---- loading: the header is readable by anyone, nothing is opened -------- */

/*
 * Make a new keystore in memory: random UUID and KSK, generation 1, one passphrase
 * slot, one active master key.  It is open.  Nothing is on disk until keystore_store().
 * EPASSLEN, ECRYPTO, ENOMEM.
 */
extern enum keystore_status keystore_create(keystore *ks, const char *passphrase, size_t len,
											const struct keystore_kdf_params *kdf,
											const char *origin) KEYSTORE_MUST_CHECK;

/*
 * Read a keystore file.  path names the file itself.  Refuses a symbolic link, a
 * non-regular file, an owner other than the effective user or root, group or
 * other access bits on the file or on its directory.  Parses the header and
 * checks the structure; opens nothing.  Whatever the handle held is wiped first.
 */
extern enum keystore_status keystore_load(keystore *ks, const char *path) KEYSTORE_MUST_CHECK;

/* The same from memory (a WAL record, a copy on its way); where names the source in messages. */
extern enum keystore_status keystore_load_bytes(keystore *ks, const void *buf, size_t len,
												const char *where) KEYSTORE_MUST_CHECK;

/* ---- opening ------------------------------------------------------------ */

/* Try every passphrase slot.  EPASSPHRASE if none opens; EDAMAGED if a slot opens but the body does not. */
extern enum keystore_status keystore_open_passphrase(keystore *ks, const char *passphrase,
													 size_t len) KEYSTORE_MUST_CHECK;

/* Open with the keystore key itself, KEYSTORE_KEY_LEN bytes.  EWRONGKEY if it is another keystore's. */
extern enum keystore_status keystore_open_ksk(keystore *ks,
											  const uint8_t ksk[KEYSTORE_KEY_LEN]) KEYSTORE_MUST_CHECK;

extern bool keystore_is_open(const keystore *ks);

/* Copy the KSK out, to be handed to a server process; the caller wipes it.  EINVAL if closed. */
extern enum keystore_status keystore_get_ksk(keystore *ks,
											 uint8_t ret_ksk[KEYSTORE_KEY_LEN]) KEYSTORE_MUST_CHECK;

/* Forget KSK and master keys; header fields stay readable. */
extern void keystore_close(keystore *ks);

/* ---- what is in it -------------------------------------------------------- */

/* Header fields; valid after load or create, open or not. */
extern void keystore_get_uuid(const keystore *ks, uint8_t ret_uuid[KEYSTORE_UUID_LEN]);
extern uint64_t keystore_get_generation(const keystore *ks);
extern int64_t keystore_get_changed(const keystore *ks);	/* time of the last change */
extern size_t keystore_slot_count(const keystore *ks);
extern enum keystore_status keystore_get_slot(keystore *ks, size_t index,
											  struct keystore_slot_info *ret_info) KEYSTORE_MUST_CHECK;

/* Lower-case 8-4-4-4-12 text of a UUID. */
extern void keystore_uuid_text(const uint8_t uuid[KEYSTORE_UUID_LEN],
							   char ret_text[KEYSTORE_UUID_STRLEN + 1]);

/* Master keys, oldest first.  Only of an open keystore: the body is encrypted. */
extern size_t keystore_key_count(const keystore *ks);
extern enum keystore_status keystore_get_key_info(keystore *ks, size_t index,
												  struct keystore_key_info *ret_info) KEYSTORE_MUST_CHECK;
extern uint32_t keystore_active_key(const keystore *ks);	/* id, 0 if closed */

/* Copy a master key out; the caller wipes it.  ENOKEY if there is none of that id, or it is destroyed. */
extern enum keystore_status keystore_get_master_key(keystore *ks, uint32_t id,
													uint8_t ret_key[KEYSTORE_KEY_LEN]) KEYSTORE_MUST_CHECK;

/* ---- changing, in memory ---------------------------------------------------
 *
 * Each successful change adds one to the generation.  Nothing is on disk until
 * keystore_store().
 */

/* Add a random master key, make it active, retire the former one.  *ret_id is its id. */
extern enum keystore_status keystore_add_master_key(keystore *ks, const char *origin,
													uint32_t *ret_id) KEYSTORE_MUST_CHECK;

/*
 * Replace the slot that old_passphrase opens by one for new_passphrase; the KSK and
 * so auto-open stay valid.  Works on a closed handle too, and then opens it.
 */
extern enum keystore_status keystore_change_passphrase(keystore *ks,
													   const char *old_passphrase, size_t old_len,
													   const char *new_passphrase, size_t new_len,
													   const struct keystore_kdf_params *kdf) KEYSTORE_MUST_CHECK;

/*
 * Take over master keys that only other has, as retired; both open, same UUID
 * and KSK.  Generation becomes the larger of the two; it is not raised further.
 * *ret_added counts them.  This is how a server keeps every key it ever saw when
 * the keystore of another timeline reaches it.  Where both gave one id to different
 * keys, ks's keeps it and the other gets the next free one.  If nothing changes, the
 * file's bytes stay as they were.
 */
extern enum keystore_status keystore_merge(keystore *ks, keystore *other,
										   size_t *ret_added) KEYSTORE_MUST_CHECK;

/*
 * The key ring: the history of master keys alone, sealed with AES-256-GCM under a
 * key derived from the KSK and bound to the UUID.  No slot is in it, so nothing in
 * it can be guessed.  The data directory carries one, so that an older
 * copy of the keystore still opens a newer copy of the data.  *ret_buf is
 * malloc'ed; the caller frees it.
 */
extern enum keystore_status keystore_export_ring(keystore *ks, uint8_t **ret_buf,
												 size_t *ret_len) KEYSTORE_MUST_CHECK;

/*
 * Take over what the ring has and the keystore has not.  If there was something, the ring rules: its
 * active key is the active one, and where both gave one id to different keys, the ring's keeps it.
 * The generation stays, so that changes still on their way in WAL do not look old; the next change goes
 * above the ring's.  If there was nothing, the file's bytes stay as they were.
 */
extern enum keystore_status keystore_import_ring(keystore *ks, const void *buf, size_t len,
												 size_t *ret_added) KEYSTORE_MUST_CHECK;

/* ---- disk ----------------------------------------------------------------- */

/* The file's bytes as keystore_store() would write them.  *ret_buf is malloc'ed; the caller frees it (ciphertext). */
extern enum keystore_status keystore_serialize(keystore *ks, uint8_t **ret_buf,
											   size_t *ret_len) KEYSTORE_MUST_CHECK;

/*
 * Replace, durably, the file path by the bytes: new file O_EXCL 0600 in the same
 * directory, write, fsync, read again and compare, keep the former file as .prev,
 * rename, fsync the directory.  A reader sees the old file or the new one; so
 * does the next start after a crash at any point.  The directory is checked as in
 * keystore_load().  Does not lock.
 */
extern enum keystore_status keystore_store_bytes(keystore *ks, const char *path, const void *buf,
												 size_t len) KEYSTORE_MUST_CHECK;

/* keystore_serialize() and keystore_store_bytes() in one. */
extern enum keystore_status keystore_store(keystore *ks, const char *path) KEYSTORE_MUST_CHECK;

/*
 * Writers of one keystore take its lock: an fcntl-free flock() on
 * KEYSTORE_LOCK_NAME in the keystore's directory, released by close or
 * death.  wait_ms: how long to try, 0 = once; EBUSY after that.
 * path names the keystore file.  *ret_fd is closed by keystore_unlock().
 */
extern enum keystore_status keystore_lock(keystore *ks, const char *path, unsigned wait_ms,
										  int *ret_fd) KEYSTORE_MUST_CHECK;
extern void keystore_unlock(int fd);

/* Check a keystore directory: a real directory, ours, 0700 or stricter.  The message says the chmod to run. */
extern enum keystore_status keystore_check_directory(keystore *ks, const char *dir) KEYSTORE_MUST_CHECK;

/* ---- auto-open -------------------------------------------------------------
 *
 * keystore.aks, beside the keystore, holds the KSK sealed to this server, so it
 * stays valid over rotations and passphrase changes.  The only sealer of
 * this version is "host": obfuscation, bound to machine-id, user id,
 * the directory's canonical path, the keystore's UUID and a random host secret
 * outside the directory.  Whoever can read all of those can open it.
 */

struct keystore_auto_open_info
{
	char		kind[16];		/* "none" if there is no file, else "host" */
	bool		usable;			/* opens here and now; false if there is no file */
	char		reason[256];	/* why it is not usable, or "" */
};

/*
 * Where the host secret is.  NULL or "" means the default, .pgx/host_secret in
 * the home directory that the user database gives for the effective user.
 * It is made (0600, directory 0700) by keystore_auto_open_enable() alone.
 */
extern enum keystore_status keystore_set_host_secret_path(keystore *ks,
														  const char *path) KEYSTORE_MUST_CHECK;

/* Write keystore.aks beside path; the keystore is open.  An existing one is replaced durably. */
extern enum keystore_status keystore_auto_open_enable(keystore *ks, const char *path) KEYSTORE_MUST_CHECK;

/* Remove it; fine if there is none. */
extern enum keystore_status keystore_auto_open_disable(keystore *ks, const char *path) KEYSTORE_MUST_CHECK;

/* Tell what there is; never opens ks. */
extern enum keystore_status keystore_auto_open_status(keystore *ks, const char *path,
													  struct keystore_auto_open_info *ret_info) KEYSTORE_MUST_CHECK;

/* Open the loaded keystore through keystore.aks.  ENOENT if there is none, EWRONGKEY if it does not open here. */
extern enum keystore_status keystore_open_auto(keystore *ks, const char *path) KEYSTORE_MUST_CHECK;

#ifdef __cplusplus
}
#endif

#endif							/* KEYSTORE_H */
