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
#define KEYSTORE_REKEY_NAME			"keystore.rekey"	/* while a rekey is being stored */
#define KEYSTORE_BACKUP_NOTE_NAME	"keystore.backup"	/* what was last backed up */

#define KEYSTORE_UUID_LEN			16	/* bytes */
#define KEYSTORE_UUID_STRLEN		36	/* characters, without the NUL */
#define KEYSTORE_KEY_LEN			32	/* KSK and master keys, bytes */
#define KEYSTORE_PASSPHRASE_MIN		8	/* bytes, not characters */
#define KEYSTORE_PASSPHRASE_MAX		200	/* bytes */
#define KEYSTORE_MAX_FILE_SIZE		(1024 * 1024)	/* larger input is refused unread */
#define KEYSTORE_MAX_MASTER_KEYS	4096
#define KEYSTORE_MAX_SLOTS			16
#define KEYSTORE_LABEL_MAX			63	/* bytes of UTF-8 without control characters */
#define KEYSTORE_RECOVERY_STRLEN	47	/* characters of a recovery key, without the NUL */
#define KEYSTORE_RECOVERY_GROUPS	8
#define KEYSTORE_ENVELOPE_LEN		132	/* bytes; a new KSK under the old one */
#define KEYSTORE_PURPOSE_MAX		128	/* bytes, for keystore_derive_key() */
#define KEYSTORE_DERIVED_MIN		16	/* bytes */
#define KEYSTORE_DERIVED_MAX		64	/* bytes */
#define KEYSTORE_KDF_TARGET_MIN		10	/* ms, for keystore_kdf_calibrate() */
#define KEYSTORE_KDF_TARGET_MAX		60000	/* ms */

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
	KEYSTORE_ELIMIT = 18,		/* too many keys or slots */
	KEYSTORE_ELASTSLOT = 19,	/* the last way in cannot be removed */
	KEYSTORE_EPOLICY = 20,		/* the keystore's FIPS policy forbids it */
	KEYSTORE_EUNSUPPORTED = 21, /* this build has no such sealer */
	KEYSTORE_ESEALER = 22,		/* TPM or credential is not reachable, or refuses */
	KEYSTORE_ENOSLOT = 23		/* no slot of that number */
};

enum keystore_key_state
{
	KEYSTORE_KEY_ACTIVE = 1,	/* wraps new keys; exactly one */
	KEYSTORE_KEY_RETIRED = 2,	/* opens what it wrapped */
	KEYSTORE_KEY_DESTROYED = 3, /* the bytes are gone, the record stays */
	KEYSTORE_KEY_COMPROMISED = 4	/* opens what it wrapped, and somebody else may too */
};

/* SP 800-57 part 1 section 7 calls them active, deactivated, destroyed, compromised. */

enum keystore_kdf
{
	KEYSTORE_KDF_SCRYPT = 1,	/* RFC 7914 */
	KEYSTORE_KDF_PBKDF2_SHA512 = 2,	/* SP 800-132, RFC 8018 */
	KEYSTORE_KDF_ARGON2ID = 3	/* RFC 9106; OpenSSL 3.2 and later */
};

enum keystore_slot_kind
{
	KEYSTORE_SLOT_PASSPHRASE = 1,
	KEYSTORE_SLOT_RECOVERY = 2	/* opened by a recovery key, which the library made */
};

/*
 * Cost of a slot.  NULL where a function takes one means the default: scrypt, N = 2^17, r = 8,
 * p = 1.
 */
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
	char		label[64];		/* what a person calls it, or "" */
	int64_t		compromised;	/* 0 unless it was declared so */
	int64_t		destroyed;		/* 0 unless it is; 0 too if a file of version 1 told no time */
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

/* A passphrase or a recovery key among several. */
struct keystore_passphrase
{
	const char *text;
	size_t		len;
};

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

/*
 * What the last failing call on the handle had to say.  NULL means out of memory.  Never NULL, no
 * secret.
 */
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

/*
 * Try every slot.  The text may be a recovery key: case, spaces and dashes do not matter, O is read
 * as 0, I and L as 1.  EPASSPHRASE if none opens (the message tells a wrong passphrase, a wrong
 * recovery key, and a group of a recovery key that is mistyped); EKDF if none opens and one could
 * not be tried, because its KDF is not in this build; EDAMAGED if a slot opens but the body does
 * not.
 */
extern enum keystore_status keystore_open_passphrase(keystore *ks, const char *passphrase,
													 size_t len) KEYSTORE_MUST_CHECK;

/*
 * Open with the keystore key itself, KEYSTORE_KEY_LEN bytes.  EWRONGKEY if it is another
 * keystore's.
 */
extern enum keystore_status keystore_open_ksk(keystore *ks,
											  const uint8_t ksk[KEYSTORE_KEY_LEN]) KEYSTORE_MUST_CHECK;

/*
 * Open ks with what the open keystore holder has: its KSK, or one that it had before a rekey.  For
 * files that were written before one.  EWRONGKEY if neither opens it.
 */
extern enum keystore_status keystore_open_like(keystore *ks, keystore *holder) KEYSTORE_MUST_CHECK;

extern bool keystore_is_open(const keystore *ks);

/* The slot that opened it, or that keystore_create() made; 0 if it is closed or a KSK opened it. */
extern uint32_t keystore_opened_slot(const keystore *ks);

/*
 * Is the text a recovery key?  0: no, treat it as a passphrase.  -1: yes, and every group is sound.
 * Else: it looks like one, and the group of this number, from 1, is mistyped.
 */
extern int keystore_recovery_check(const char *text, size_t len);

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

extern bool keystore_get_fips(const keystore *ks);	/* see keystore_set_fips() */

/* Lower-case 8-4-4-4-12 text of a UUID. */
extern void keystore_uuid_text(const uint8_t uuid[KEYSTORE_UUID_LEN],
							   char ret_text[KEYSTORE_UUID_STRLEN + 1]);

/* Master keys, oldest first.  Only of an open keystore: the body is encrypted. */
extern size_t keystore_key_count(const keystore *ks);
extern enum keystore_status keystore_get_key_info(keystore *ks, size_t index,
												  struct keystore_key_info *ret_info) KEYSTORE_MUST_CHECK;
extern uint32_t keystore_active_key(const keystore *ks);	/* id, 0 if closed */

/*
 * Copy a master key out; the caller wipes it.  ENOKEY if there is none of that id, or it is
 * destroyed.
 */
extern enum keystore_status keystore_get_master_key(keystore *ks, uint32_t id,
													uint8_t ret_key[KEYSTORE_KEY_LEN]) KEYSTORE_MUST_CHECK;

/*
 * A key of len bytes (KEYSTORE_DERIVED_MIN to _MAX) for another program, by HKDF-SHA256 (RFC 5869) from a
 * master key, the keystore's UUID as salt, and the purpose, 1 to KEYSTORE_PURPOSE_MAX bytes.  The same
 * arguments always give the same key; from it nothing follows about the master key or another purpose's.
 * ret_key has room for len bytes; the caller wipes it.  EINVAL, ENOKEY, ECRYPTO, ENOMEM.
 */
extern enum keystore_status keystore_derive_key(keystore *ks, uint32_t id, const char *purpose,
												uint8_t *ret_key, size_t len) KEYSTORE_MUST_CHECK;

/* ---- changing, in memory ---------------------------------------------------
 *
 * Each successful change adds one to the generation.  Nothing is on disk until
 * keystore_store().
 */

/* Add a random master key, make it active, retire the former one.  *ret_id is its id. */
extern enum keystore_status keystore_add_master_key(keystore *ks, const char *origin,
													uint32_t *ret_id) KEYSTORE_MUST_CHECK;

/* Name a key, for people; "" or NULL takes the name away.  ENOKEY, EINVAL. */
extern enum keystore_status keystore_set_key_label(keystore *ks, uint32_t id,
												   const char *label) KEYSTORE_MUST_CHECK;

/*
 * Destroy a retired or compromised key: its bytes go, a tombstone stays, here, in the ring, and
 * through keystore_merge() and keystore_import_ring(), so that it never comes back.  What only this
 * key opens is lost for good; whether there is such a thing is for the caller to find out. EINVAL
 * for the active key; fine if it is destroyed already.
 */
extern enum keystore_status keystore_destroy_key(keystore *ks, uint32_t id) KEYSTORE_MUST_CHECK;

/*
 * Declare that others may have a key that is not active.  It still opens what it wrapped.  EINVAL,
 * ENOKEY.
 */
extern enum keystore_status keystore_compromise_key(keystore *ks, uint32_t id) KEYSTORE_MUST_CHECK;

/* ---- slots: one for each custodian, and one for the safe --------------------
 * ks is open for all of them.  label is UTF-8, up to KEYSTORE_LABEL_MAX bytes, without control
 * characters, and no two slots have the same; NULL lets the library choose one.  kdf NULL means the
 * default: scrypt with N = 2^17, r = 8, p = 1, or PBKDF2 with 210000 iterations where
 * keystore_get_fips() is true. EEXIST: the label is taken.  ELIMIT: KEYSTORE_MAX_SLOTS.  EPOLICY:
 * not PBKDF2 under the FIPS policy. EKDF: not in this build.
 */
extern enum keystore_status keystore_add_passphrase(keystore *ks, const char *passphrase, size_t len,
													const char *label,
													const struct keystore_kdf_params *kdf,
													uint32_t *ret_slot_id) KEYSTORE_MUST_CHECK;

/*
 * Make a recovery key of 160 random bits: eight groups of five characters, dashes between them, the
 * fifth of each a checksum that also knows the group's place.  It is shown once and kept
 * nowhere; the caller wipes ret_text.
 */
extern enum keystore_status keystore_add_recovery_key(keystore *ks, const char *label,
													  const struct keystore_kdf_params *kdf,
													  char ret_text[KEYSTORE_RECOVERY_STRLEN + 1],
													  uint32_t *ret_slot_id) KEYSTORE_MUST_CHECK;

/*
 * Another passphrase for the slot id, whose number and label stay.  The old one is not asked for:
 * whoever opened the keystore may do this.  EINVAL for a recovery slot.  ENOSLOT.
 */
extern enum keystore_status keystore_change_slot(keystore *ks, uint32_t id, const char *passphrase,
												 size_t len,
												 const struct keystore_kdf_params *kdf) KEYSTORE_MUST_CHECK;

/* ELASTSLOT if no other slot is left whose KDF this build has.  ENOSLOT. */
extern enum keystore_status keystore_remove_slot(keystore *ks, uint32_t id) KEYSTORE_MUST_CHECK;
extern enum keystore_status keystore_set_slot_label(keystore *ks, uint32_t id,
													const char *label) KEYSTORE_MUST_CHECK;

/*
 * The FIPS policy of the file, in its authenticated header: every slot is PBKDF2, and nothing else
 * can be added.  A file that says so and holds anything else does not load (EDAMAGED).  Turning it
 * on where another slot is: EPOLICY, and the message names the slot.
 */
extern enum keystore_status keystore_set_fips(keystore *ks, bool fips) KEYSTORE_MUST_CHECK;

/* ---- key derivation -------------------------------------------------------- */

/* "scrypt", "PBKDF2-HMAC-SHA512", "argon2id", or NULL. */
extern const char *keystore_kdf_name(enum keystore_kdf kdf);

/*
 * Does the libcrypto in use offer it?  argon2id needs OpenSSL 3.2; a FIPS provider has PBKDF2
 * alone.
 */
extern bool keystore_kdf_available(enum keystore_kdf kdf);

/*
 * How long one derivation takes here, in microseconds.  EKDF, EINVAL (parameters out of bounds),
 * ENOMEM, ECRYPTO.
 */
extern enum keystore_status keystore_kdf_measure(const struct keystore_kdf_params *kdf,
												 uint64_t *ret_us) KEYSTORE_MUST_CHECK;

/*
 * The strongest parameters that take about target_ms on this machine, but never weaker than what a
 * new slot needs: scrypt N = 2^15 or more, PBKDF2 210000 iterations, argon2id 19 MiB; and never
 * more than 1 GiB of memory.  Takes a few times target_ms.  EKDF, EINVAL (target out of bounds),
 * ENOMEM, ECRYPTO.
 */
extern enum keystore_status keystore_kdf_calibrate(enum keystore_kdf kdf, unsigned target_ms,
												   struct keystore_kdf_params *ret_params) KEYSTORE_MUST_CHECK;

/* ---- rekey: a new KSK ------------------------------------------------------- */

/*
 * Replace the KSK of an open keystore, for the case that a passphrase and an old copy of the file
 * are in wrong hands.  Master keys stay (that is what keystore_add_master_key() is for).  Each of
 * the given passphrases or recovery keys keeps the slot that it opens; every other slot is gone,
 * and listed in ret_dropped (room for KEYSTORE_MAX_SLOTS).  EPASSPHRASE if one of them opens no
 * slot: then nothing is changed. EINVAL if none is given.
 * ret_envelope carries the new KSK to who has the old one, AES-256-GCM under a key made from it.
 * It goes to the standbys with the new file, and nowhere else: whoever has the old KSK can open it.
 * The former KSK is kept in the encrypted body, so that rings and files from before the rekey still
 * open (keystore_open_like(), keystore_import_ring()).  Auto-open files of the old KSK do not open
 * any more; keystore_auto_open_reseal() makes them anew.  See keystore_rekey_begin() for storing it.
 */
extern enum keystore_status keystore_rekey(keystore *ks,
										   const struct keystore_passphrase *passphrases, size_t count,
										   uint8_t ret_envelope[KEYSTORE_ENVELOPE_LEN],
										   struct keystore_slot_info *ret_dropped,
										   size_t *ret_dropped_count) KEYSTORE_MUST_CHECK;

/*
 * Follow a rekey made elsewhere.  ks is this server's own keystore, open; buf is the new file.
 * Afterwards ks holds the new one, open, with the keys that only this server had as retired, ready
 * for keystore_store(). Can be repeated: if ks has followed already, it only takes over keys that
 * it lacks, or stays as it is.  If ks was rekeyed in a way of its own, whether before or after that
 * generation, it gives that up.  EWRONGKEY: the envelope was made from a KSK that ks does not have.
 * ECONFLICT: another keystore.
 */
extern enum keystore_status keystore_apply_rekey(keystore *ks, const void *buf, size_t len,
												 const void *envelope, size_t envelope_len) KEYSTORE_MUST_CHECK;

/*
 * Is other, open, proof that the rekey which made ks what it is was lost in a failover?  It is under a KSK that ks had
 * before, and newer than the rekey: by its generation, or by the time when it was changed.  ks is to follow it then, with
 * keystore_apply_rekey() and no envelope.
 */
extern bool keystore_rekey_lost(keystore *ks, keystore *other) KEYSTORE_MUST_CHECK;

/*
 * Open ks, a file from after a rekey, for who has only the KSK of before and the envelope: a server
 * that was running when somebody put the rekeyed file in its place.  EWRONGKEY: the envelope was not
 * made from that KSK, or the file is under yet another one.
 */
extern enum keystore_status keystore_open_rekeyed(keystore *ks,
												  const uint8_t former_ksk[KEYSTORE_KEY_LEN],
												  const void *envelope,
												  size_t envelope_len) KEYSTORE_MUST_CHECK;

/*
 * Storing a rekeyed keystore takes more than one step: the file, auto-open, the news to other servers.
 * begin() leaves the envelope beside path, in the file KEYSTORE_REKEY_NAME, before the first of them, and
 * end() takes it away after the last (fine if there is none).  Whatever happens between: auto-open still opens,
 * and pending() has the envelope for who goes on, if the open keystore ks is the one that it leads to.
 */
extern enum keystore_status keystore_rekey_begin(keystore *ks, const char *path, const void *envelope,
												 size_t envelope_len) KEYSTORE_MUST_CHECK;
extern enum keystore_status keystore_rekey_pending(keystore *ks, const char *path,
												   uint8_t ret_envelope[KEYSTORE_ENVELOPE_LEN],
												   bool *ret_pending) KEYSTORE_MUST_CHECK;
extern enum keystore_status keystore_rekey_end(keystore *ks, const char *path) KEYSTORE_MUST_CHECK;

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
 * Tombstones are taken over too: a key that either side destroyed is destroyed.  ECONFLICT if that
 * would be ks's active key.  other may be under a KSK that ks had before a rekey.
 * *ret_added counts keys and tombstones.  This is how a server keeps every key it ever saw when
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
 * Take over what the ring has and the keystore has not.  If there was something, the ring rules:
 * its active key is the active one, and where both gave one id to different keys, the ring's keeps
 * it. The generation stays, so that changes still on their way in WAL do not look old; the next
 * change goes above the ring's.  If there was nothing, the file's bytes stay as they were.
 */
extern enum keystore_status keystore_import_ring(keystore *ks, const void *buf, size_t len,
												 size_t *ret_added) KEYSTORE_MUST_CHECK;

/*
 * Whose ring is it, and of which generation?  Needs no key and proves nothing.  EFORMAT, EVERSION,
 * EDAMAGED.
 */
extern enum keystore_status keystore_ring_info(keystore *ks, const void *buf, size_t len,
											   uint8_t ret_uuid[KEYSTORE_UUID_LEN],
											   uint64_t *ret_generation) KEYSTORE_MUST_CHECK;

/* ---- disk ----------------------------------------------------------------- */

/*
 * The file's bytes as keystore_store() would write them.  *ret_buf is malloc'ed; the caller frees
 * it (ciphertext).
 */
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

/*
 * Check a keystore directory: a real directory, ours, 0700 or stricter.  The message says the chmod
 * to run.
 */
extern enum keystore_status keystore_check_directory(keystore *ks, const char *dir) KEYSTORE_MUST_CHECK;

/* ---- verify, backup, repair -------------------------------------------------- */

enum keystore_severity
{
	KEYSTORE_NOTE = 0,			/* worth knowing */
	KEYSTORE_WARNING = 1,		/* works today, may not tomorrow */
	KEYSTORE_ERROR = 2			/* damaged, unsafe, or does not open */
};

struct keystore_finding
{
	enum keystore_severity severity;
	enum keystore_status status;	/* of an error; else KEYSTORE_OK */
	char		text[512];		/* a sentence without period, as keystore_errmsg() */
	char		hint[512];		/* what to do, or "" */
};

/*
 * Examine the keystore path and what lies beside it: permissions, structure, checksum, slots and
 * their KDFs, .prev, auto-open, last backup.  If ks is open with this keystore's KSK, the body too,
 * the history, and what .prev and keystore.aks hold.  ks itself is not changed.  Findings, worst
 * first, up to max; *ret_count is how many were written.  OK whatever was found; a failure means
 * that it could not look (ENOMEM, ECRYPTO).
 */
extern enum keystore_status keystore_verify(keystore *ks, const char *path,
											struct keystore_finding *ret_findings, size_t max,
											size_t *ret_count) KEYSTORE_MUST_CHECK;

/*
 * Copy the keystore file path into the directory dir under a name of its own, keystore-UUID-TIME-
 * gGENERATION.ks; never overwrites, is synced, read back and compared; if ks is open with its KSK,
 * the copy is opened too. dir is checked as a keystore's directory is, and is another one (EINVAL).
 * Then a note beside the keystore, KEYSTORE_BACKUP_NOTE_NAME, says so.  ret_name has room for size
 * bytes of the new file's path (EINVAL if it is too short).
 */
extern enum keystore_status keystore_backup(keystore *ks, const char *path, const char *dir,
											char *ret_name, size_t size) KEYSTORE_MUST_CHECK;

struct keystore_backup_info
{
	bool		known;			/* there is a note of this keystore's UUID */
	bool		current;		/* it is of exactly the bytes that the file has now */
	int64_t		time;
	uint64_t	generation;
	char		name[1024];		/* path of the copy, as it was when it was made */
};

/* What the note beside path says.  It is not authenticated: it informs and proves nothing. */
extern enum keystore_status keystore_last_backup(keystore *ks, const char *path,
												 struct keystore_backup_info *ret_info) KEYSTORE_MUST_CHECK;

/*
 * Put a sound file in place of path: from, or path.prev if from is NULL.  What was there is kept as
 * path.damaged-TIME, whose name goes to ret_kept (size bytes; "" if there was nothing).  If ks is
 * open, what is put in place must open with its KSK.  ECONFLICT: path is sound, and not older than
 * from; force puts from in place all the same, and a file of another UUID.  from is checked as in
 * keystore_load().
 */
extern enum keystore_status keystore_repair(keystore *ks, const char *path, const char *from, bool force,
											char *ret_kept, size_t size) KEYSTORE_MUST_CHECK;

/* ---- auto-open -------------------------------------------------------------
 *
 * keystore.aks, beside the keystore, holds the KSK sealed to this server, so it stays valid over
 * rotations and passphrase changes, but not over a rekey.  Every kind is bound to machine-id, user
 * id, the directory's canonical path and the keystore's UUID, and to:
 *
 * "host"        a random host secret outside the directory.  Obfuscation: whoever can read all of
 *               that can open it.
 * "credential"  32 or more random bytes in a file that the service manager hands over, such as
 *               systemd's $CREDENTIALS_DIRECTORY/NAME.  As good as the credential's own protection.
 * "tpm2"        a secret that only this computer's TPM gives out, if PCRs were named only while they
 *               hold what they held.  Bound to the hardware.
 */

struct keystore_auto_open_info
{
	char		kind[16];		/* "none" if there is no file, else "host", "credential", "tpm2" */
	bool		usable;			/* opens here and now; false if there is no file */
	char		reason[256];	/* why it is not usable, or "" */
	char		grade[128];		/* what it is worth, for people; "" if there is none */
	char		detail[128];	/* "PCRs sha256:0,7", "credential pgx-keystore", or "" */
	int64_t		created;
};

/* What a new auto-open file is to be sealed with.  NULL instead means kind "host". */
struct keystore_seal_options
{
	const char *kind;			/* "host", "credential", "tpm2" */
	uint32_t	pcrs;			/* tpm2: bit n for PCR n of the sha256 bank, 0 to 23 */
	const char *credential;		/* credential: its name, a file name, up to 63 bytes */
};

/* Is the kind in this build?  Whether there is a TPM is another question. */
extern bool keystore_sealer_available(const char *kind);

/* What a kind is worth, in words for people; "" for an unknown one.  Never NULL. */
extern const char *keystore_sealer_grade(const char *kind);

/*
 * Where the TPM and the credentials are, for all auto-open functions of the handle.  tcti as in
 * Tss2_TctiLdr_Initialize(3), e.g. "device:/dev/tpmrm0"; NULL or "" lets tpm2-tss choose.
 * credential_dir is what systemd puts in $CREDENTIALS_DIRECTORY; NULL or "" means there is none.
 */
extern enum keystore_status keystore_set_sealer_paths(keystore *ks, const char *tcti,
													  const char *credential_dir) KEYSTORE_MUST_CHECK;

/*
 * Where the host secret is.  NULL or "" means the default, .pgx/host_secret in
 * the home directory that the user database gives for the effective user.
 * It is made (0600, directory 0700) by keystore_auto_open_enable() alone.
 */
extern enum keystore_status keystore_set_host_secret_path(keystore *ks,
														  const char *path) KEYSTORE_MUST_CHECK;

/*
 * Write keystore.aks of kind "host" beside path; the keystore is open.  An existing one is replaced
 * durably.
 */
extern enum keystore_status keystore_auto_open_enable(keystore *ks, const char *path) KEYSTORE_MUST_CHECK;

/* The same of any kind.  It is opened again before it is put in place.  EUNSUPPORTED, ESEALER. */
extern enum keystore_status keystore_auto_open_enable_sealed(keystore *ks, const char *path,
															 const struct keystore_seal_options *options) KEYSTORE_MUST_CHECK;

/*
 * Seal the KSK anew, in the kind that keystore.aks has, to what PCRs hold now: after a rekey, or an
 * update that changed them.  Fine if there is none; *ret_resealed tells.
 */
extern enum keystore_status keystore_auto_open_reseal(keystore *ks, const char *path,
													  bool *ret_resealed) KEYSTORE_MUST_CHECK;

/* Remove it; fine if there is none. */
extern enum keystore_status keystore_auto_open_disable(keystore *ks, const char *path) KEYSTORE_MUST_CHECK;

/* Tell what there is; never opens ks. */
extern enum keystore_status keystore_auto_open_status(keystore *ks, const char *path,
													  struct keystore_auto_open_info *ret_info) KEYSTORE_MUST_CHECK;

/*
 * Open the loaded keystore through keystore.aks.  ENOENT if there is none, EWRONGKEY if it does not
 * open here.
 */
extern enum keystore_status keystore_open_auto(keystore *ks, const char *path) KEYSTORE_MUST_CHECK;

#ifdef __cplusplus
}
#endif

#endif							/* KEYSTORE_H */
