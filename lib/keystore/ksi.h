/*
 * ksi.h
 *		What the files of libkeystore share with each other and with nobody else.
 *
 * Names that cross files inside the library begin with ksi_; the version script
 * keeps them out of the installed library.
 */
#ifndef KSI_H
#define KSI_H

#include <sys/stat.h>
#include <sys/types.h>

#include "keystore.h"

#define KSI_IV_LEN			12		/* AES-256-GCM, the length SP 800-38D recommends */
#define KSI_TAG_LEN			16
#define KSI_DIGEST_LEN		32		/* SHA-256 */
#define KSI_SALT_LEN		32
#define KSI_TEXT_LEN		64		/* labels and origins, NUL-padded on disk */
#define KSI_HOST_SECRET_LEN 32
#define KSI_MACHINE_ID_LEN	32		/* lower-case hexadecimal digits */
#define KSI_IDENTITY_LEN	16		/* says which key it is, and nothing about its bytes */
#define KSI_MAX_FORMER		64		/* KSKs of before a rekey that are remembered */

/* ---- secret.c ------------------------------------------------------------- */

/* Bytes that matter, in pages of their own.  All zero means empty; never copied by assignment. */
struct ksi_secret
{
	uint8_t    *ptr;			/* len bytes, ending where the guard page begins */
	size_t		len;
	void	   *map;			/* the whole mapping, guard pages included */
	size_t		map_len;
	bool		locked;			/* mlock() succeeded ... */
	pid_t		owner;			/* ... in this process; locks do not cross fork() */
};

extern bool ksi_secret_alloc(struct ksi_secret *s, size_t len);
extern void ksi_secret_free(struct ksi_secret *s);
extern void ksi_secret_move(struct ksi_secret *to, struct ksi_secret *from);
extern bool ksi_secret_locked(const struct ksi_secret *s);

/* ---- format.c: layout of the files --------------------------------------- */

#define KSI_MAX_SLOTS		KEYSTORE_MAX_SLOTS
#define KSI_SLOT_RECORD_MAX 2048	/* bytes of one slot, its length field included */

#define KSI_SLOT_AAD_LEN	152 /* the UUID, and the slot up to its IV */

/* Bit of a slot's flags: who does not know the slot's kind must not use the file. */
#define KSI_SLOT_CRITICAL	0x0001

/*
 * Bit of a slot's flags, from version 2 on: the slot's tag does not vouch for its label (the body's
 * does), so that the slot can be named anew without its passphrase.
 */
#define KSI_SLOT_FREE_LABEL	0x0002

/* A slot as it stands in the file; slots of unknown kind are carried along unread. */
struct ksi_slot
{
	size_t		len;
	uint8_t		record[KSI_SLOT_RECORD_MAX];
};

/* Versions of keystore.ks and of the ring: 1 is read, 2 is read and written. */
#define KSI_FORMAT_V1		1
#define KSI_FORMAT_V2		2

/* What a slot of a passphrase or a recovery key says, decoded. */
struct ksi_slot_fields
{
	uint32_t	id;
	uint16_t	kind;
	uint16_t	flags;
	int64_t		created;
	char		label[KSI_TEXT_LEN];
	struct keystore_kdf_params kdf;
	uint8_t		salt[KSI_SALT_LEN];
	uint8_t		iv[KSI_IV_LEN];
	uint8_t		wrapped[KEYSTORE_KEY_LEN];
	uint8_t		tag[KSI_TAG_LEN];
};

struct ksi_header
{
	uint16_t	version;		/* that the bytes have, or 0: not made yet */
	bool		fips;
	uint8_t		uuid[KEYSTORE_UUID_LEN];
	uint8_t		ksk_identity[KSI_IDENTITY_LEN];	/* zero in version 1 */
	uint64_t	generation;
	int64_t		changed;
	size_t		slot_count;
	struct ksi_slot slots[KSI_MAX_SLOTS];
};

/* Where the parts of a file lie. */
struct ksi_layout
{
	size_t		header_len;		/* associated data of the body: bytes 0 to header_len - 1 */
	size_t		iv_off;
	size_t		body_off;
	size_t		body_len;
	size_t		tag_off;
	size_t		digest_off;
	size_t		file_len;
};

/* A master key; lives in a struct ksi_secret. */
struct ksi_key
{
	uint32_t	id;
	uint32_t	state;			/* enum keystore_key_state */
	int64_t		created;
	int64_t		activated;
	int64_t		retired;
	int64_t		compromised;
	int64_t		destroyed;
	char		origin[KSI_TEXT_LEN];
	char		label[KSI_TEXT_LEN];
	uint8_t		key[KEYSTORE_KEY_LEN];
	uint8_t		identity[KSI_IDENTITY_LEN]; /* outlives the key; zero if version 1 destroyed it */
};

/* A KSK of before a rekey. */
struct ksi_former
{
	int64_t		replaced;
	uint8_t		key[KEYSTORE_KEY_LEN];
};

/* What the body holds, decrypted.  All zero means empty. */
struct ksi_history
{
	struct ksi_secret keys;		/* array of struct ksi_key, ascending numbers */
	size_t		key_count;
	struct ksi_secret formers;	/* array of struct ksi_former, oldest first; empty if there is none */
	size_t		former_count;
};

extern void ksi_history_free(struct ksi_history *history);
extern void ksi_history_move(struct ksi_history *to, struct ksi_history *from);

/* Fixed part of a sealed ring; the ciphertext follows. */
struct ksi_ring_header
{
	uint16_t	version;
	uint8_t		ksk_identity[KSI_IDENTITY_LEN];	/* zero in version 1 */
	uint8_t		uuid[KEYSTORE_UUID_LEN];
	uint64_t	generation;
	size_t		body_len;
	size_t		body_off;		/* associated data: bytes 0 to iv_off - 1 */
	size_t		iv_off;
	size_t		tag_off;
	size_t		ring_len;
};

/* Kinds of keystore.aks. */
#define KSI_SEALER_HOST			1
#define KSI_SEALER_CREDENTIAL	2
#define KSI_SEALER_TPM2			3

/* What a kind writes for itself. */
#define KSI_SEAL_DATA_MAX		2048
struct ksi_seal_data
{
	size_t		len;
	uint8_t		bytes[KSI_SEAL_DATA_MAX];
};

/* keystore.aks, decoded. */
struct ksi_auto_open
{
	uint16_t	kind;
	int64_t		created;
	uint8_t		uuid[KEYSTORE_UUID_LEN];
	uint32_t	uid;
	uint8_t		path_digest[KSI_DIGEST_LEN];
	uint8_t		machine[KSI_IDENTITY_LEN];	/* zero for kind host, which has no room for it */
	struct ksi_seal_data data;
	uint8_t		iv[KSI_IV_LEN];
	uint8_t		sealed[KEYSTORE_KEY_LEN];
	uint8_t		tag[KSI_TAG_LEN];
};

#define KSI_AUTO_OPEN_LEN		164 /* the whole file, kind host */
#define KSI_AUTO_OPEN_MAX		(KSI_AUTO_OPEN_LEN + 20 + KSI_SEAL_DATA_MAX)

extern enum keystore_status ksi_format_check_size(keystore *ks, const char *where,
												  const uint8_t *buf, size_t len);
extern enum keystore_status ksi_format_parse(keystore *ks, const char *where, const uint8_t *buf,
											 size_t len, struct ksi_header *ret_header,
											 struct ksi_layout *ret_layout);
extern void ksi_format_layout(const struct ksi_header *header, const struct ksi_history *history,
							  struct ksi_layout *ret_layout);
extern void ksi_format_put_header(const struct ksi_header *header,
								  const struct ksi_layout *layout, uint8_t *buf);
extern bool ksi_format_slot_is_ours(const struct ksi_slot *slot);
extern bool ksi_format_slot_is_fips(const struct ksi_slot *slot);
extern void ksi_format_get_slot(const struct ksi_slot *slot, struct ksi_slot_fields *ret_fields);
extern void ksi_format_put_slot(const struct ksi_slot_fields *fields, struct ksi_slot *ret_slot);
extern void ksi_format_set_slot_label(struct ksi_slot *slot, const char label[KSI_TEXT_LEN]);
extern void ksi_format_slot_aad(const uint8_t uuid[KEYSTORE_UUID_LEN],
								const struct ksi_slot *slot, uint8_t aad[KSI_SLOT_AAD_LEN]);

extern const char *ksi_format_body_len_check(uint16_t version, size_t len);
extern size_t ksi_format_body_len(const struct ksi_history *history);
extern void ksi_format_put_body(const struct ksi_history *history, uint8_t *buf);
extern const char *ksi_format_body_count(uint16_t version, const uint8_t *buf, size_t len,
										 size_t *ret_keys, size_t *ret_formers);
extern const char *ksi_format_get_body(uint16_t version, const uint8_t *buf,
									   const struct ksi_history *history);

extern void ksi_format_ring_layout(const struct ksi_history *history,
								   struct ksi_ring_header *ring);
extern void ksi_format_put_ring(const struct ksi_ring_header *ring, uint8_t *buf);
extern enum keystore_status ksi_format_get_ring(keystore *ks, const uint8_t *buf, size_t len,
												struct ksi_ring_header *ret_ring);

extern size_t ksi_format_auto_open_aad_len(const struct ksi_auto_open *aks);
extern size_t ksi_format_auto_open_len(const struct ksi_auto_open *aks);
extern void ksi_format_put_auto_open(const struct ksi_auto_open *aks, uint8_t *buf);
extern enum keystore_status ksi_format_get_auto_open(keystore *ks, const char *where,
													 const uint8_t *buf, size_t len,
													 struct ksi_auto_open *ret_aks);

/* Big-endian fields. */
extern uint16_t ksi_get16(const uint8_t *p);
extern uint32_t ksi_get32(const uint8_t *p);
extern uint64_t ksi_get64(const uint8_t *p);
extern uint8_t *ksi_put16(uint8_t *p, uint16_t v);
extern uint8_t *ksi_put32(uint8_t *p, uint32_t v);
extern uint8_t *ksi_put64(uint8_t *p, uint64_t v);
extern bool ksi_format_text_is_clean(const uint8_t *p);
extern bool ksi_format_begins_with(const uint8_t *buf, size_t len, const uint8_t magic[8]);

/* ---- the handle ----------------------------------------------------------- */

struct keystore
{
	char		errmsg[1024];
	char		errhint[1024];
	char	   *where;			/* names the source in messages */
	char	   *host_secret_path;	/* NULL means the default */
	char	   *tcti;			/* how to reach the TPM; NULL lets tpm2-tss choose */
	char	   *credential_dir; /* NULL: there is none */

	/*
	 * raw is what the file holds or will hold; every change makes it anew
	 * before anything else, so that it always agrees with the fields below.
	 */
	bool		loaded;
	uint8_t    *raw;
	struct ksi_layout layout;
	struct ksi_header header;
	uint64_t	seen_generation;	/* largest met in rings; the next change goes above it */

	struct ksi_secret ksk;		/* empty while closed, as the history is */
	struct ksi_history history;
	uint32_t	opened_slot;	/* 0 if closed, or opened by the KSK */
	bool		lock_failed;	/* a secret could not be locked */
};

/* error.c */
extern enum keystore_status ksi_fail(keystore *ks, enum keystore_status status, const char *fmt,
									 ...) __attribute__((format(printf, 3, 4)));
extern enum keystore_status ksi_hint(keystore *ks, enum keystore_status status, const char *fmt,
									 ...) __attribute__((format(printf, 3, 4)));
extern enum keystore_status ksi_nomem(keystore *ks);
extern void ksi_clear_error(keystore *ks);
extern void ksi_copy_error(keystore *to, const keystore *from);

/* ---- crypto.c: the only file that knows libcrypto -------------------------- */

enum ksi_crypto
{
	KSI_CRYPTO_OK = 0,
	KSI_CRYPTO_FAILED,			/* libcrypto failed; see ksi_crypto_reason() */
	KSI_CRYPTO_MISMATCH,		/* the tag is not the one */
	KSI_CRYPTO_UNAVAILABLE,		/* no such algorithm in this libcrypto */
	KSI_CRYPTO_NOMEM
};

extern const char *ksi_crypto_reason(void);
extern bool ksi_random(void *buf, size_t len) KEYSTORE_MUST_CHECK;
extern bool ksi_sha256(const void *buf, size_t len,
					   uint8_t digest[KSI_DIGEST_LEN]) KEYSTORE_MUST_CHECK;
extern bool ksi_equal(const void *a, const void *b, size_t len);
extern enum ksi_crypto ksi_hkdf(const uint8_t *ikm, size_t ikm_len, const uint8_t *salt,
								size_t salt_len, const uint8_t *info, size_t info_len,
								uint8_t *out, size_t out_len) KEYSTORE_MUST_CHECK;
extern enum ksi_crypto ksi_gcm_seal(const uint8_t key[KEYSTORE_KEY_LEN],
									const uint8_t iv[KSI_IV_LEN], const uint8_t *aad,
									size_t aad_len, const uint8_t *in, size_t len, uint8_t *out,
									uint8_t tag[KSI_TAG_LEN]) KEYSTORE_MUST_CHECK;
extern enum ksi_crypto ksi_gcm_open(const uint8_t key[KEYSTORE_KEY_LEN],
									const uint8_t iv[KSI_IV_LEN], const uint8_t *aad,
									size_t aad_len, const uint8_t *in, size_t len, uint8_t *out,
									const uint8_t tag[KSI_TAG_LEN]) KEYSTORE_MUST_CHECK;
extern bool ksi_kdf_fetchable(const char *name);
extern enum ksi_crypto ksi_scrypt(const char *pass, size_t pass_len, const uint8_t *salt,
								  size_t salt_len, uint64_t n, uint32_t r, uint32_t p,
								  uint64_t maxmem, uint8_t *out,
								  size_t out_len) KEYSTORE_MUST_CHECK;
extern enum ksi_crypto ksi_pbkdf2_sha512(const char *pass, size_t pass_len, const uint8_t *salt,
										 size_t salt_len, uint64_t iterations, uint8_t *out,
										 size_t out_len) KEYSTORE_MUST_CHECK;
extern enum ksi_crypto ksi_argon2id(const char *pass, size_t pass_len, const uint8_t *salt,
									size_t salt_len, uint32_t passes, uint32_t memory_kib,
									uint32_t lanes, uint8_t *out,
									size_t out_len) KEYSTORE_MUST_CHECK;

/* ---- kdf.c ----------------------------------------------------------------- */

extern const struct keystore_kdf_params ksi_kdf_default;
extern const struct keystore_kdf_params ksi_kdf_default_fips;

extern const char *ksi_kdf_name(uint32_t kdf);	/* NULL if this build does not know it */
extern const char *ksi_kdf_check(const struct keystore_kdf_params *kdf, bool for_new);
extern enum ksi_crypto ksi_kdf_derive(const struct keystore_kdf_params *kdf, const char *pass,
									  size_t pass_len, const uint8_t *salt, size_t salt_len,
									  uint8_t *out, size_t out_len) KEYSTORE_MUST_CHECK;

/* ---- recovery.c ------------------------------------------------------------- */

#define KSI_RECOVERY_LEN	40		/* characters, without what is between the groups */

extern int	ksi_recovery_parse(const char *text, size_t len, char ret_canonical[KSI_RECOVERY_LEN]);
extern bool ksi_recovery_make(char ret_text[KEYSTORE_RECOVERY_STRLEN + 1],
							  char ret_canonical[KSI_RECOVERY_LEN]) KEYSTORE_MUST_CHECK;

/* ---- body.c: the history of master keys, sealed ----------------------------- */

#define KSI_INFO_BODY		"pgx keystore body"
#define KSI_INFO_RING		"pgx keystore ring"
#define KSI_INFO_KEY_IDENTITY "pgx keystore master key identity"
#define KSI_INFO_KSK_IDENTITY "pgx keystore ksk identity"

/* What is sealed and where it lies; the buffer is the caller's. */
struct ksi_sealed
{
	uint16_t	version;
	const uint8_t *uuid;
	const char *info;			/* KSI_INFO_..., so that each use has a key of its own */
	const uint8_t *aad;
	size_t		aad_len;
	uint8_t    *iv;
	uint8_t    *body;
	size_t		body_len;
	uint8_t    *tag;
};

extern enum ksi_crypto ksi_identity(const uint8_t key[KEYSTORE_KEY_LEN],
									const uint8_t uuid[KEYSTORE_UUID_LEN], const char *info,
									uint8_t ret_identity[KSI_IDENTITY_LEN]) KEYSTORE_MUST_CHECK;
extern enum keystore_status ksi_body_seal(keystore *ks, const struct ksi_sealed *sealed,
										  const uint8_t *ksk, const struct ksi_history *history);
extern enum keystore_status ksi_body_open(keystore *ks, const struct ksi_sealed *sealed,
										  const uint8_t *ksk, struct ksi_history *ret_history,
										  const char **ret_reason);
extern enum keystore_status ksi_open_with(keystore *ks, const uint8_t *ksk,
										  struct ksi_history *ret_history,
										  const char **ret_reason);
extern enum keystore_status ksi_commit(keystore *ks, const struct ksi_header *header,
									   struct ksi_history *history);
extern enum keystore_status ksi_commit_rekeyed(keystore *ks, const struct ksi_header *header,
											   struct ksi_history *history,
											   struct ksi_secret *ksk);

/* ---- handle.c, slot.c, keys.c ------------------------------------------------- */

extern struct ksi_key *ksi_keys(const struct ksi_history *history);
extern struct ksi_former *ksi_formers(const struct ksi_history *history);
extern void ksi_take_content(keystore *to, keystore *from);
extern enum keystore_status ksi_need_loaded(keystore *ks);
extern enum keystore_status ksi_need_open(keystore *ks);
extern enum keystore_status ksi_set_where(keystore *ks, const char *where);
extern enum keystore_status ksi_alloc_secret(keystore *ks, struct ksi_secret *s, size_t len);
extern enum keystore_status ksi_check_bytes(keystore *ks, const char *where, const uint8_t *buf,
											size_t len, struct ksi_header *ret_header,
											struct ksi_layout *ret_layout);
extern int64_t ksi_change_time(const keystore *ks);
extern enum keystore_status ksi_next_generation(keystore *ks, uint64_t *ret_generation);
extern enum keystore_status ksi_check_passphrase(keystore *ks, size_t len);

/* What a slot is to be made of; all borrowed. */
struct ksi_new_slot
{
	const uint8_t *uuid;
	const uint8_t *ksk;
	uint32_t	id;
	enum keystore_slot_kind kind;
	const char *label;
	const char *text;			/* passphrase, or recovery key in its canonical form */
	size_t		text_len;
	const struct keystore_kdf_params *kdf;	/* NULL: the default */
	bool		fips;			/* the default is PBKDF2, and nothing else is allowed */
	bool		as_before;		/* kdf was good enough for the slot that this one replaces */
};

extern enum keystore_status ksi_slot_make(keystore *ks, const struct ksi_new_slot *new_slot,
										  struct ksi_slot *ret_slot);
extern enum keystore_status ksi_slot_find(keystore *ks, const char *text, size_t len,
										  uint8_t ret_ksk[KEYSTORE_KEY_LEN], size_t *ret_index);
extern void ksi_slot_info(const struct ksi_slot_fields *fields,
						  struct keystore_slot_info *ret_info);
extern enum keystore_status ksi_kdf_fail(keystore *ks, enum ksi_crypto result,
										 const struct keystore_kdf_params *kdf);
extern enum keystore_status ksi_history_alloc(keystore *ks, struct ksi_history *history,
											  size_t key_count, size_t former_count);
extern enum keystore_status ksi_history_copy(keystore *ks, struct ksi_history *ret_copy);
extern enum keystore_status ksi_key_make(keystore *ks, const uint8_t uuid[KEYSTORE_UUID_LEN],
										 uint32_t id, const char *origin,
										 struct ksi_key *ret_key);
extern void ksi_key_destroy(struct ksi_key *key, int64_t when);
extern enum keystore_status ksi_commit_keys(keystore *ks, struct ksi_history *history,
											uint64_t generation, int64_t changed);
extern enum keystore_status ksi_check_label(keystore *ks, const char *label);

/* ---- merge.c ---------------------------------------------------------------------- */

extern enum keystore_status ksi_unite(keystore *ks, const struct ksi_history *ruling,
									  const struct ksi_history *other, int64_t retired,
									  struct ksi_history *ret_history);
extern bool ksi_has_ksk(const keystore *ks, const uint8_t *ksk);
extern size_t ksi_count_changes(const struct ksi_history *ours, const struct ksi_history *theirs);

/* ---- file.c, replace.c ------------------------------------------------------------------ */

/* A path split where its directory ends, and that directory, opened and checked. */
struct ksi_place
{
	int			dirfd;			/* -1 if not open */
	char	   *prefix;			/* what of the path comes before base: "" or "dir/" */
	const char *base;			/* borrowed from the path */
};

/* What ksi_replace() does with a file that is there already. */
enum ksi_existing
{
	KSI_OVERWRITE,
	KSI_KEEP					/* fail with KEYSTORE_EEXIST */
};

extern ssize_t ksi_read_all(int fd, uint8_t *buf, size_t len);
extern enum keystore_status ksi_check_stat(keystore *ks, const char *prefix, const char *base,
										   const struct stat *st, bool is_dir);
extern enum keystore_status ksi_place_open(keystore *ks, const char *path,
										   struct ksi_place *ret_place);
extern void ksi_place_close(struct ksi_place *place);
extern enum keystore_status ksi_file_read(keystore *ks, const struct ksi_place *place,
										  const char *base, size_t max_len, uint8_t **ret_buf,
										  size_t *ret_len);
extern void ksi_sweep(const struct ksi_place *place, const char *base);
extern enum keystore_status ksi_replace(keystore *ks, const struct ksi_place *place,
										const char *base, const void *buf, size_t len,
										enum ksi_existing existing);

/* ---- envelope.c ----------------------------------------------------------------- */

extern enum keystore_status ksi_envelope_seal(keystore *ks, const struct ksi_header *header,
											  const uint8_t *new_ksk,
											  uint8_t env[KEYSTORE_ENVELOPE_LEN]);
extern enum keystore_status ksi_envelope_open(keystore *ks, const uint8_t *env, size_t len,
											  struct ksi_secret *ret_ksk);
extern enum keystore_status ksi_envelope_follow(keystore *ks, const struct ksi_place *place,
												uint8_t ksk[KEYSTORE_KEY_LEN], bool *ret_followed);

/* ---- backup.c ------------------------------------------------------------------- */

#define KSI_PREV_SUFFIX		".prev"
#define KSI_NEW_SUFFIX		".new." /* and 16 hexadecimal digits: a file being written */
#define KSI_DAMAGED_SUFFIX	".damaged-"	/* and a time stamp: what a repair found */
#define KSI_TIME_STAMP_LEN	16

extern void ksi_time_stamp(int64_t when, char ret_text[KSI_TIME_STAMP_LEN + 1]);
extern enum keystore_status ksi_read_sound(keystore *ks, const char *path, uint8_t **ret_buf,
										   size_t *ret_len, keystore **ret_file);

/* ---- host.c ------------------------------------------------------------------ */

extern enum keystore_status ksi_inherit_paths(keystore *to, const keystore *from);
extern enum keystore_status ksi_machine_id(keystore *ks, char ret_id[KSI_MACHINE_ID_LEN + 1]);
extern enum keystore_status ksi_canonical_dir(keystore *ks, const char *prefix, char **ret_dir);
extern enum keystore_status ksi_host_secret(keystore *ks, const char *keystore_dir, bool create,
											struct ksi_secret *ret_secret);

#endif							/* KSI_H */
