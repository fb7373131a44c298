/*
 * check_ks_faults.c
 *		Every call that can fail does so once, the first, the second, the third one,
 *		and the process is killed before and after every step of a replacement.
 *
 * The linker puts the __wrap_ functions between the library and the system.  After
 * each fault: the right status, a handle that still works, no descriptor and no
 * mapping left, and on disk the old keystore or the new one.
 */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <unistd.h>

#include "ks_common.h"

enum call
{
	CALL_NONE,
	CALL_MALLOC,
	CALL_CALLOC,
	CALL_STRDUP,
	CALL_STRNDUP,
	CALL_MMAP,
	CALL_OPENAT,
	CALL_OPEN,
	CALL_FSTAT,
	CALL_READ,
	CALL_WRITE,
	CALL_FSYNC,
	CALL_RENAMEAT,
	CALL_LINKAT,
	CALL_UNLINKAT,
	CALL_FLOCK,
	CALL_RANDOM,
	CALL_CIPHER_FETCH,
	CALL_CIPHER_NEW,
	CALL_ENCRYPT_INIT,
	CALL_ENCRYPT_UPDATE,
	CALL_ENCRYPT_FINAL,
	CALL_DECRYPT_INIT,
	CALL_DECRYPT_UPDATE,
	CALL_CIPHER_CTRL,
	CALL_KDF_FETCH,
	CALL_KDF_NEW,
	CALL_KDF_DERIVE,
	CALL_DIGEST,
	CALL_COUNT
};

static const struct
{
	const char *name;
	int			error;			/* errno of the failure */
	unsigned	statuses;		/* bits of the statuses that it may lead to, besides OK */
}			calls[CALL_COUNT] =
{
	[CALL_MALLOC] = {"malloc", ENOMEM, 1U << KEYSTORE_ENOMEM},
	[CALL_CALLOC] = {"calloc", ENOMEM, 1U << KEYSTORE_ENOMEM},
	[CALL_STRDUP] = {"strdup", ENOMEM, 1U << KEYSTORE_ENOMEM},
	[CALL_STRNDUP] = {"strndup", ENOMEM, 1U << KEYSTORE_ENOMEM},
	[CALL_MMAP] = {"mmap", ENOMEM, 1U << KEYSTORE_ENOMEM},
	[CALL_OPENAT] = {"openat", EMFILE, 1U << KEYSTORE_EIO},
	[CALL_OPEN] = {"open", EMFILE, 1U << KEYSTORE_EIO},
	[CALL_FSTAT] = {"fstat", EIO, 1U << KEYSTORE_EIO},
	[CALL_READ] = {"read", EIO, 1U << KEYSTORE_EIO},
	[CALL_WRITE] = {"write", ENOSPC, 1U << KEYSTORE_EIO},
	[CALL_FSYNC] = {"fsync", EIO, 1U << KEYSTORE_EIO},
	[CALL_RENAMEAT] = {"renameat", EIO, 1U << KEYSTORE_EIO},
	[CALL_LINKAT] = {"linkat", EIO, 1U << KEYSTORE_EIO},
	[CALL_UNLINKAT] = {"unlinkat", EIO, 1U << KEYSTORE_EIO},
	[CALL_FLOCK] = {"flock", ENOLCK, 1U << KEYSTORE_EIO},
	[CALL_RANDOM] = {"RAND_priv_bytes", 0, 1U << KEYSTORE_ECRYPTO},
	[CALL_CIPHER_FETCH] = {"EVP_CIPHER_fetch", 0, 1U << KEYSTORE_ECRYPTO},
	[CALL_CIPHER_NEW] = {"EVP_CIPHER_CTX_new", 0, 1U << KEYSTORE_ECRYPTO},
	[CALL_ENCRYPT_INIT] = {"EVP_EncryptInit_ex2", 0, 1U << KEYSTORE_ECRYPTO},
	[CALL_ENCRYPT_UPDATE] = {"EVP_EncryptUpdate", 0, 1U << KEYSTORE_ECRYPTO},
	[CALL_ENCRYPT_FINAL] = {"EVP_EncryptFinal_ex", 0, 1U << KEYSTORE_ECRYPTO},
	[CALL_DECRYPT_INIT] = {"EVP_DecryptInit_ex2", 0, 1U << KEYSTORE_ECRYPTO},
	[CALL_DECRYPT_UPDATE] = {"EVP_DecryptUpdate", 0, 1U << KEYSTORE_ECRYPTO},
	[CALL_CIPHER_CTRL] = {"EVP_CIPHER_CTX_ctrl", 0, 1U << KEYSTORE_ECRYPTO},
	/* A passphrase's function that cannot be had is a status of its own. */
	[CALL_KDF_FETCH] = {"EVP_KDF_fetch", 0, 1U << KEYSTORE_ECRYPTO | 1U << KEYSTORE_EKDF},
	[CALL_KDF_NEW] = {"EVP_KDF_CTX_new", 0, 1U << KEYSTORE_ECRYPTO},
	[CALL_KDF_DERIVE] = {"EVP_KDF_derive", 0, 1U << KEYSTORE_ECRYPTO},
	[CALL_DIGEST] = {"EVP_Q_digest", 0, 1U << KEYSTORE_ECRYPTO},
};

static enum call failing;		/* this one ... */
static int	fail_at;			/* ... at this count, from 1 */
static int	call_count;
static int	kill_at;			/* die at this step, 0 never; */
static int	step_count;			/* a step is what changes the disk, before and after */
static bool corrupting;			/* writes put down something else than they were given */
static int	mapped;				/* mappings made minus mappings removed */
static char trace[64];			/* w, f, R, L, U: what changed the disk, in order */

static bool
fails(enum call call)
{
	if (failing != call)
		return false;
	if (++call_count != fail_at)
		return false;
	errno = calls[call].error;
	return true;
}

static void
step(char what)
{
	size_t		len = strlen(trace);

	if (what != '\0' && len + 1 < sizeof(trace))
		trace[len] = what;
	if (++step_count == kill_at)
		(void) kill(getpid(), SIGKILL);
}

#define WRAP(ret, name, args) ret __real_##name args; ret __wrap_##name args; ret __wrap_##name args

WRAP(void *, malloc, (size_t size))
{
	return fails(CALL_MALLOC) ? NULL : __real_malloc(size);
}

WRAP(void *, calloc, (size_t n, size_t size))
{
	return fails(CALL_CALLOC) ? NULL : __real_calloc(n, size);
}

WRAP(char *, strdup, (const char *s))
{
	return fails(CALL_STRDUP) ? NULL : __real_strdup(s);
}

WRAP(char *, strndup, (const char *s, size_t n))
{
	return fails(CALL_STRNDUP) ? NULL : __real_strndup(s, n);
}

WRAP(void *, mmap, (void *addr, size_t len, int prot, int flags, int fd, off_t off))
{
	void	   *p;

	if (fails(CALL_MMAP))
		return MAP_FAILED;
	p = __real_mmap(addr, len, prot, flags, fd, off);
	mapped += p != MAP_FAILED;
	return p;
}

WRAP(int, munmap, (void *addr, size_t len))
{
	mapped--;
	return __real_munmap(addr, len);
}

WRAP(int, openat, (int dirfd, const char *path, int flags, ...))
{
	va_list		ap;
	mode_t		mode = 0;
	int			fd;

	if (fails(CALL_OPENAT))
		return -1;
	va_start(ap, flags);
	if (flags & O_CREAT)
		mode = va_arg(ap, mode_t);
	va_end(ap);
	if (!(flags & O_CREAT))
		return __real_openat(dirfd, path, flags);
	step('\0');
	fd = __real_openat(dirfd, path, flags, mode);
	step('\0');
	return fd;
}

WRAP(int, open, (const char *path, int flags, ...))
{
	va_list		ap;
	mode_t		mode = 0;

	if (fails(CALL_OPEN))
		return -1;
	va_start(ap, flags);
	if (flags & O_CREAT)
		mode = va_arg(ap, mode_t);
	va_end(ap);
	return __real_open(path, flags, mode);
}

WRAP(int, fstat, (int fd, struct stat *st))
{
	return fails(CALL_FSTAT) ? -1 : __real_fstat(fd, st);
}

WRAP(ssize_t, read, (int fd, void *buf, size_t len))
{
	return fails(CALL_READ) ? -1 : __real_read(fd, buf, len);
}

/* A full disk takes a part first.  Killed, it leaves a part too. */
WRAP(ssize_t, write, (int fd, const void *buf, size_t len))
{
	ssize_t		n;

	if (failing == CALL_WRITE && call_count + 1 == fail_at && len > 1)
	{
		call_count++;
		fail_at++;
		return __real_write(fd, buf, len / 2);
	}
	if (fails(CALL_WRITE))
		return -1;
	step('\0');
	n = __real_write(fd, buf, len > 1 && kill_at > 0 ? len / 2 : len);
	if (corrupting)
		ck_assert_int_eq(pwrite(fd, "?", 1, 20), 1);
	step('w');
	return n;
}

/* The real one is left out: a process that dies takes nothing of the kernel's with it, and it is slow. */
int			__wrap_fsync(int fd);
int
__wrap_fsync(int fd)
{
	if (fails(CALL_FSYNC))
		return -1;
	step('\0');
	step('f');
	return 0;
}

WRAP(int, renameat, (int olddir, const char *oldname, int newdir, const char *newname))
{
	int			result;

	if (fails(CALL_RENAMEAT))
		return -1;
	step('\0');
	result = __real_renameat(olddir, oldname, newdir, newname);
	step('R');
	return result;
}

WRAP(int, linkat, (int olddir, const char *oldname, int newdir, const char *newname, int flags))
{
	int			result;

	if (fails(CALL_LINKAT))
		return -1;
	step('\0');
	result = __real_linkat(olddir, oldname, newdir, newname, flags);
	step('L');
	return result;
}

WRAP(int, unlinkat, (int dirfd, const char *name, int flags))
{
	int			result;

	if (fails(CALL_UNLINKAT))
		return -1;
	step('\0');
	result = __real_unlinkat(dirfd, name, flags);
	step('U');
	return result;
}

WRAP(int, flock, (int fd, int operation))
{
	return fails(CALL_FLOCK) ? -1 : __real_flock(fd, operation);
}

WRAP(int, RAND_priv_bytes, (unsigned char *buf, int len))
{
	return fails(CALL_RANDOM) ? 0 : __real_RAND_priv_bytes(buf, len);
}

WRAP(EVP_CIPHER *, EVP_CIPHER_fetch, (OSSL_LIB_CTX *ctx, const char *name, const char *properties))
{
	return fails(CALL_CIPHER_FETCH) ? NULL : __real_EVP_CIPHER_fetch(ctx, name, properties);
}

WRAP(EVP_CIPHER_CTX *, EVP_CIPHER_CTX_new, (void))
{
	return fails(CALL_CIPHER_NEW) ? NULL : __real_EVP_CIPHER_CTX_new();
}

WRAP(int, EVP_EncryptInit_ex2, (EVP_CIPHER_CTX *ctx, const EVP_CIPHER *cipher,
								const unsigned char *key, const unsigned char *iv,
								const OSSL_PARAM params[]))
{
	return fails(CALL_ENCRYPT_INIT) ? 0 : __real_EVP_EncryptInit_ex2(ctx, cipher, key, iv, params);
}

WRAP(int, EVP_EncryptUpdate, (EVP_CIPHER_CTX *ctx, unsigned char *out, int *outl,
							  const unsigned char *in, int inl))
{
	return fails(CALL_ENCRYPT_UPDATE) ? 0 : __real_EVP_EncryptUpdate(ctx, out, outl, in, inl);
}

WRAP(int, EVP_EncryptFinal_ex, (EVP_CIPHER_CTX *ctx, unsigned char *out, int *outl))
{
	return fails(CALL_ENCRYPT_FINAL) ? 0 : __real_EVP_EncryptFinal_ex(ctx, out, outl);
}

WRAP(int, EVP_DecryptInit_ex2, (EVP_CIPHER_CTX *ctx, const EVP_CIPHER *cipher,
								const unsigned char *key, const unsigned char *iv,
								const OSSL_PARAM params[]))
{
	return fails(CALL_DECRYPT_INIT) ? 0 : __real_EVP_DecryptInit_ex2(ctx, cipher, key, iv, params);
}

WRAP(int, EVP_DecryptUpdate, (EVP_CIPHER_CTX *ctx, unsigned char *out, int *outl,
							  const unsigned char *in, int inl))
{
	return fails(CALL_DECRYPT_UPDATE) ? 0 : __real_EVP_DecryptUpdate(ctx, out, outl, in, inl);
}

WRAP(int, EVP_CIPHER_CTX_ctrl, (EVP_CIPHER_CTX *ctx, int type, int arg, void *ptr))
{
	return fails(CALL_CIPHER_CTRL) ? 0 : __real_EVP_CIPHER_CTX_ctrl(ctx, type, arg, ptr);
}

WRAP(EVP_KDF *, EVP_KDF_fetch, (OSSL_LIB_CTX *ctx, const char *name, const char *properties))
{
	return fails(CALL_KDF_FETCH) ? NULL : __real_EVP_KDF_fetch(ctx, name, properties);
}

WRAP(EVP_KDF_CTX *, EVP_KDF_CTX_new, (EVP_KDF *kdf))
{
	return fails(CALL_KDF_NEW) ? NULL : __real_EVP_KDF_CTX_new(kdf);
}

WRAP(int, EVP_KDF_derive, (EVP_KDF_CTX *ctx, unsigned char *key, size_t len,
						   const OSSL_PARAM params[]))
{
	return fails(CALL_KDF_DERIVE) ? 0 : __real_EVP_KDF_derive(ctx, key, len, params);
}

WRAP(int, EVP_Q_digest, (OSSL_LIB_CTX *ctx, const char *name, const char *properties,
						 const void *data, size_t len, unsigned char *md, size_t *md_len))
{
	return fails(CALL_DIGEST) ? 0 : __real_EVP_Q_digest(ctx, name, properties, data, len, md, md_len);
}

/* ---- what is tried with every fault ------------------------------------------------- */

static char secret_path[320];
static char backups[320];
static char credential_dir[320];
static uint8_t ring[4096];
static size_t ring_len;
static uint8_t ahead_bytes[8192];
static size_t ahead_len;
static uint8_t envelope[KEYSTORE_ENVELOPE_LEN];

/* A keystore of two generations, open; the older one is stored. */
static keystore *
make(void)
{
	keystore   *ks = ks_make_stored();
	uint32_t	id;

	assert_ok(ks, keystore_set_host_secret_path(ks, secret_path));
	assert_ok(ks, keystore_add_master_key(ks, "test", &id));
	return ks;
}

static enum keystore_status
do_create(keystore *ks)
{
	return keystore_create(ks, PASS, strlen(PASS), &ks_cheap, "test");
}

static enum keystore_status
do_store(keystore *ks)
{
	return keystore_store(ks, ks_path);
}

static enum keystore_status
do_load(keystore *ks)
{
	enum keystore_status status = keystore_load(ks, ks_path);

	return status != KEYSTORE_OK ? status : keystore_open_passphrase(ks, PASS, strlen(PASS));
}

static enum keystore_status
do_add(keystore *ks)
{
	uint32_t	id;

	return keystore_add_master_key(ks, "test", &id);
}

static enum keystore_status
do_change(keystore *ks)
{
	return keystore_change_passphrase(ks, PASS, strlen(PASS), PASS2, strlen(PASS2), &ks_cheap);
}

static enum keystore_status
do_serialize(keystore *ks)
{
	uint8_t    *buf = NULL;
	size_t		len;
	enum keystore_status status = keystore_serialize(ks, &buf, &len);

	free(buf);
	return status;
}

static enum keystore_status
do_export(keystore *ks)
{
	uint8_t    *buf = NULL;
	size_t		len;
	enum keystore_status status = keystore_export_ring(ks, &buf, &len);

	free(buf);
	return status;
}

/* The ring is one key ahead; see prepare_ring(). */
static enum keystore_status
do_import(keystore *ks)
{
	size_t		added;

	return keystore_import_ring(ks, ring, ring_len, &added);
}

static enum keystore_status
do_lock(keystore *ks)
{
	int			fd = -1;
	enum keystore_status status = keystore_lock(ks, ks_path, 0, &fd);

	keystore_unlock(fd);
	return status;
}

static enum keystore_status
do_check(keystore *ks)
{
	return keystore_check_directory(ks, ks_dir);
}

/* The secret is made anew each time. */
static enum keystore_status
do_enable(keystore *ks)
{
	return keystore_auto_open_enable(ks, ks_path);
}

static enum keystore_status
do_open_auto(keystore *ks)
{
	return keystore_open_auto(ks, ks_path);
}

static enum keystore_status
do_disable(keystore *ks)
{
	return keystore_auto_open_disable(ks, ks_path);
}

static enum keystore_status
do_status(keystore *ks)
{
	struct keystore_auto_open_info info;

	return keystore_auto_open_status(ks, ks_path, &info);
}

static enum keystore_status
do_add_passphrase(keystore *ks)
{
	uint32_t	id;

	return keystore_add_passphrase(ks, PASS2, strlen(PASS2), NULL, &ks_cheap, &id);
}

static enum keystore_status
do_add_recovery_key(keystore *ks)
{
	char		text[KEYSTORE_RECOVERY_STRLEN + 1];
	uint32_t	id;

	return keystore_add_recovery_key(ks, "safe", &ks_cheap, text, &id);
}

static enum keystore_status
do_change_slot(keystore *ks)
{
	return keystore_change_slot(ks, 1, PASS2, strlen(PASS2), &ks_cheap);
}

static enum keystore_status
do_remove_slot(keystore *ks)
{
	return keystore_remove_slot(ks, 2);
}

static enum keystore_status
do_set_slot_label(keystore *ks)
{
	return keystore_set_slot_label(ks, 1, "another");
}

static enum keystore_status
do_set_fips(keystore *ks)
{
	return keystore_set_fips(ks, true);
}

static enum keystore_status
do_destroy(keystore *ks)
{
	return keystore_destroy_key(ks, 1);
}

static enum keystore_status
do_compromise(keystore *ks)
{
	return keystore_compromise_key(ks, 1);
}

static enum keystore_status
do_set_key_label(keystore *ks)
{
	return keystore_set_key_label(ks, 1, "the first");
}

static enum keystore_status
do_rekey(keystore *ks)
{
	const struct keystore_passphrase pass = {PASS, strlen(PASS)};
	struct keystore_slot_info dropped[KEYSTORE_MAX_SLOTS];
	uint8_t		out[KEYSTORE_ENVELOPE_LEN];
	size_t		count;

	return keystore_rekey(ks, &pass, 1, out, dropped, &count);
}

/* The file is one rekey ahead; see prepare_rekeyed(). */
static enum keystore_status
do_apply_rekey(keystore *ks)
{
	return keystore_apply_rekey(ks, ahead_bytes, ahead_len, envelope, sizeof(envelope));
}

static enum keystore_status
do_open_rekeyed(keystore *ks)
{
	keystore   *ahead = keystore_new();
	enum keystore_status status;
	uint8_t		ksk[KEYSTORE_KEY_LEN];

	if (ahead == NULL)
		return ksi_nomem(ks);
	status = keystore_load_bytes(ahead, ahead_bytes, ahead_len, "ahead");
	if (status == KEYSTORE_OK)
		status = keystore_get_ksk(ks, ksk);
	if (status == KEYSTORE_OK)
		status = keystore_open_rekeyed(ahead, ksk, envelope, sizeof(envelope));
	if (status != KEYSTORE_OK)
		ksi_copy_error(ks, ahead);
	keystore_free(&ahead);
	return status;
}

/* Merging in what has one key more, through a handle that opens it like this one. */
static enum keystore_status
do_merge(keystore *ks)
{
	keystore   *other = keystore_new();
	enum keystore_status status;
	size_t		added;

	if (other == NULL)
		return ksi_nomem(ks);
	status = keystore_load_bytes(other, ahead_bytes, ahead_len, "ahead");
	if (status == KEYSTORE_OK)
		status = keystore_open_like(other, ks);
	if (status == KEYSTORE_OK)
		status = keystore_merge(ks, other, &added);
	else
		ksi_copy_error(ks, other);
	keystore_free(&other);
	return status;
}

static enum keystore_status
do_backup(keystore *ks)
{
	char		name[1024];

	return keystore_backup(ks, ks_path, backups, name, sizeof(name));
}

static enum keystore_status
do_last_backup(keystore *ks)
{
	struct keystore_backup_info info;

	return keystore_last_backup(ks, ks_path, &info);
}

/* Both generations are sound, so whichever is there in the end, it opens. */
static enum keystore_status
do_repair(keystore *ks)
{
	char		kept[1024];

	return keystore_repair(ks, ks_path, NULL, true, kept, sizeof(kept));
}

static enum keystore_status
do_verify(keystore *ks)
{
	struct keystore_finding findings[8];
	size_t		count;

	return keystore_verify(ks, ks_path, findings, 8, &count);
}

static enum keystore_status
do_enable_credential(keystore *ks)
{
	const struct keystore_seal_options options = {.kind = "credential", .credential = "c"};

	return keystore_auto_open_enable_sealed(ks, ks_path, &options);
}

static enum keystore_status
do_reseal(keystore *ks)
{
	bool		resealed;

	return keystore_auto_open_reseal(ks, ks_path, &resealed);
}

static enum keystore_status
do_set_paths(keystore *ks)
{
	return keystore_set_sealer_paths(ks, "device:/dev/tpm0", credential_dir);
}

/* A keystore that is one step ahead of ks. */
static keystore *
make_ahead(keystore *ks)
{
	keystore   *ahead = keystore_new();
	uint8_t    *buf;
	size_t		len;

	assert_ok(ks, keystore_serialize(ks, &buf, &len));
	assert_ok(ahead, keystore_load_bytes(ahead, buf, len, "ahead"));
	assert_ok(ahead, keystore_open_passphrase(ahead, PASS, strlen(PASS)));
	free(buf);
	return ahead;
}

static void
keep_ahead(keystore *ahead)
{
	uint8_t    *buf;

	assert_ok(ahead, keystore_serialize(ahead, &buf, &ahead_len));
	ck_assert_uint_le(ahead_len, sizeof(ahead_bytes));
	memcpy(ahead_bytes, buf, ahead_len);
	free(buf);
	keystore_free(&ahead);
}

static void
prepare_rekeyed(keystore *ks)
{
	const struct keystore_passphrase pass = {PASS, strlen(PASS)};
	struct keystore_slot_info dropped[KEYSTORE_MAX_SLOTS];
	keystore   *ahead = make_ahead(ks);
	size_t		count;

	assert_ok(ahead, keystore_rekey(ahead, &pass, 1, envelope, dropped, &count));
	keep_ahead(ahead);
}

static void
prepare_other(keystore *ks)
{
	keystore   *ahead = make_ahead(ks);
	uint32_t	id;

	assert_ok(ahead, keystore_add_master_key(ahead, "ahead", &id));
	assert_ok(ahead, keystore_destroy_key(ahead, 1));
	keep_ahead(ahead);
}

static void
prepare_two_slots(keystore *ks)
{
	assert_ok(ks, do_add_passphrase(ks));
}

static void
prepare_pbkdf2(keystore *ks)
{
	const struct keystore_kdf_params pbkdf2 = {KEYSTORE_KDF_PBKDF2_SHA512, 210000, 0, 0, 0};

	assert_ok(ks, keystore_change_slot(ks, 1, PASS, strlen(PASS), &pbkdf2));
}

static void
prepare_prev(keystore *ks)
{
	assert_ok(ks, keystore_store(ks, ks_path));
}

static void
prepare_backup(keystore *ks)
{
	assert_ok(ks, do_backup(ks));
}

static void
prepare_credential(keystore *ks)
{
	char		path[400];

	assert_ok(ks, keystore_set_sealer_paths(ks, NULL, credential_dir));
	snprintf(path, sizeof(path), "%s/c", credential_dir);
	if (!ks_exists(path))
		ks_write_file(path, "0123456789abcdef0123456789abcdef", 32, 0400);
}

static void
prepare_credential_enabled(keystore *ks)
{
	prepare_credential(ks);
	assert_ok(ks, do_enable_credential(ks));
}

static void
prepare_ring(keystore *ks)
{
	keystore   *ahead = keystore_new();
	uint8_t    *buf;
	size_t		len;
	uint32_t	id;

	assert_ok(ks, keystore_serialize(ks, &buf, &len));
	assert_ok(ahead, keystore_load_bytes(ahead, buf, len, "ahead"));
	assert_ok(ahead, keystore_open_passphrase(ahead, PASS, strlen(PASS)));
	free(buf);
	assert_ok(ahead, keystore_add_master_key(ahead, "ahead", &id));
	assert_ok(ahead, keystore_export_ring(ahead, &buf, &ring_len));
	ck_assert_uint_le(ring_len, sizeof(ring));
	memcpy(ring, buf, ring_len);
	free(buf);
	keystore_free(&ahead);
}

static void
prepare_enabled(keystore *ks)
{
	assert_ok(ks, keystore_auto_open_enable(ks, ks_path));
}

static void
prepare_no_secret(keystore *ks)
{
	(void) unlink(secret_path);
}

static const struct
{
	const char *name;
	void		(*prepare) (keystore *ks);
	enum keystore_status (*run) (keystore *ks);
	bool		keeps;			/* a failure leaves the handle's content as it was */
	unsigned	statuses;		/* bits of further statuses that a fault may lead to */
}			scenarios[] =
{
	{"create", NULL, do_create, false, 0},
	{"store", NULL, do_store, true, 0},
	{"load", NULL, do_load, false, 0},
	{"add_master_key", NULL, do_add, true, 0},
	{"change_passphrase", NULL, do_change, true, 0},
	{"serialize", NULL, do_serialize, true, 0},
	{"export_ring", NULL, do_export, true, 0},
	{"import_ring", prepare_ring, do_import, true, 0},
	{"lock", NULL, do_lock, true, 0},
	{"check_directory", NULL, do_check, true, 0},
	{"auto_open_enable", prepare_no_secret, do_enable, true, 0},
	{"auto_open_disable", prepare_enabled, do_disable, true, 0},
	{"auto_open_status", prepare_enabled, do_status, true, 0},
	{"open_auto", prepare_enabled, do_open_auto, true, 0},
	{"add_passphrase", NULL, do_add_passphrase, true, 0},
	{"add_recovery_key", NULL, do_add_recovery_key, true, 0},
	{"change_slot", NULL, do_change_slot, true, 0},
	{"remove_slot", prepare_two_slots, do_remove_slot, true,
	1U << KEYSTORE_ELASTSLOT},
	{"set_slot_label", NULL, do_set_slot_label, true, 0},
	{"set_fips", prepare_pbkdf2, do_set_fips, true, 0},
	{"destroy_key", NULL, do_destroy, true, 0},
	{"compromise_key", NULL, do_compromise, true, 0},
	{"set_key_label", NULL, do_set_key_label, true, 0},
	{"rekey", NULL, do_rekey, true, 0},
	{"apply_rekey", prepare_rekeyed, do_apply_rekey, true, 0},
	{"open_rekeyed", prepare_rekeyed, do_open_rekeyed, true, 0},
	{"open_like and merge", prepare_other, do_merge, true, 0},
	{"backup", NULL, do_backup, true, 0},
	{"last_backup", prepare_backup, do_last_backup, true, 0},
	{"repair", prepare_prev, do_repair, true, 0},
	{"verify", prepare_backup, do_verify, true, 0},
	{"auto_open_enable_sealed", prepare_credential, do_enable_credential, true,
	1U << KEYSTORE_ESEALER},
	{"auto_open_reseal", prepare_credential_enabled, do_reseal, true,
	1U << KEYSTORE_ESEALER},
	{"open_auto by credential", prepare_credential_enabled, do_open_auto, true,
	1U << KEYSTORE_ESEALER},
	{"set_sealer_paths", NULL, do_set_paths, true, 0},
};

#define SCENARIOS ((int) (sizeof(scenarios) / sizeof(scenarios[0])))

/* On disk is generation 1 or 2 of the keystore, and it opens. */
static void
assert_sound(const char *what)
{
	keystore   *ks = keystore_new();
	enum keystore_status status = keystore_load(ks, ks_path);

	if (status == KEYSTORE_OK)
		status = keystore_open_passphrase(ks, PASS, strlen(PASS));
	ck_assert_msg(status == KEYSTORE_OK && keystore_get_generation(ks) >= 1 &&
				  keystore_get_generation(ks) <= 2 &&
				  keystore_key_count(ks) == keystore_get_generation(ks), "%s: %s", what,
				  keystore_errmsg(ks));
	keystore_free(&ks);
}

/* One fault; false if the scenario does not call that often. */
static bool
run_one(int index, enum call call, int at)
{
	keystore   *ks = make();
	uint8_t    *before,
			   *after;
	size_t		before_len,
				after_len;
	enum keystore_status status;
	const char *what;
	int			fds,
				maps;
	bool		reached;

	if (scenarios[index].prepare != NULL)
		scenarios[index].prepare(ks);
	assert_ok(ks, keystore_serialize(ks, &before, &before_len));
	fds = ks_count_fds();
	failing = call;
	fail_at = at;
	call_count = 0;
	maps = mapped;
	status = scenarios[index].run(ks);
	failing = CALL_NONE;
	reached = call_count >= at;
	what = ks_text("%s, failing %s %d: status %d, %s", scenarios[index].name, calls[call].name, at,
				   (int) status, keystore_errmsg(ks));
	ck_assert_msg(status == KEYSTORE_OK ||
				  ((calls[call].statuses | scenarios[index].statuses) & 1U << status) != 0,
				  "%s", what);
	ck_assert_msg(reached || status == KEYSTORE_OK, "%s", what);
	ck_assert_msg((status == KEYSTORE_OK) == (keystore_errmsg(ks)[0] == '\0'), "%s", what);
	ck_assert_msg(ks_count_fds() == fds, "descriptor left: %s", what);
	if (scenarios[index].keeps && status != KEYSTORE_OK)
	{
		ck_assert_msg(keystore_is_open(ks), "closed: %s", what);
		ck_assert_msg(mapped == maps, "mapping left: %s", what);
		assert_ok(ks, keystore_serialize(ks, &after, &after_len));
		ck_assert_msg(after_len == before_len && memcmp(after, before, after_len) == 0,
					  "altered: %s", what);
		free(after);
	}
	assert_sound(what);

	/* The handle still works. */
	ck_assert_msg(status == KEYSTORE_OK || scenarios[index].run(ks) == KEYSTORE_OK,
				  "second try: %s", keystore_errmsg(ks));
	assert_sound(what);
	keystore_free(&ks);
	ck_assert_msg(mapped == 0, "mapping left at the end: %s", what);
	free(before);
	return reached;
}

START_TEST(test_faults)
{
	int			faults = 0;

	for (enum call call = CALL_NONE + 1; call < CALL_COUNT; call++)
	{
		int			at = 1;

		while (run_one(_i, call, at))
			at++;
		faults += at - 1;
		ck_assert_int_lt(at, 200);
	}
	/* Each of them allocates or calls the system at least once. */
	ck_assert_int_gt(faults, 0);
}
END_TEST

/* keystore_new() itself */
START_TEST(test_no_handle)
{
	keystore   *ks;

	failing = CALL_CALLOC;
	fail_at = 1;
	call_count = 0;
	ks = keystore_new();
	failing = CALL_NONE;
	ck_assert_ptr_null(ks);
	ck_assert_str_eq(keystore_errmsg(ks), "out of memory");
}
END_TEST

/* A disk that is full says so, whatever call it says it in. */
START_TEST(test_full_disk)
{
	keystore   *ks = make();

	failing = CALL_WRITE;
	fail_at = 2;				/* the first is the one for the former generation */
	call_count = 0;
	assert_fails(ks, keystore_store(ks, ks_path), KEYSTORE_EIO,
				 ks_text("could not write file \"%s\": No space left on device", ks_path));
	failing = CALL_NONE;
	assert_sound("full disk");
	assert_ok(ks, keystore_store(ks, ks_path));
	keystore_free(&ks);
}
END_TEST

/* A disk that keeps something else than it was given is noticed before the old file is gone. */
START_TEST(test_corrupting_disk)
{
	keystore   *ks = make();
	enum keystore_status status;

	corrupting = true;
	status = keystore_store(ks, ks_path);
	corrupting = false;
	ck_assert_int_eq(status, KEYSTORE_EIO);
	ck_assert(strstr(keystore_errmsg(ks), "does not hold what was written to it") != NULL);
	assert_sound("corrupting disk");
	ck_assert_int_eq(ks_count_files(ks_dir), 1);
	keystore_free(&ks);
}
END_TEST

/* The order that makes it durable: write, fsync, rename, fsync of the directory. */
START_TEST(test_order)
{
	keystore   *ks = ks_make();
	uint32_t	id;

	assert_ok(ks, keystore_set_host_secret_path(ks, secret_path));
	memset(trace, 0, sizeof(trace));
	assert_ok(ks, keystore_store(ks, ks_path));
	ck_assert_str_eq(trace, "wfRf");
	assert_ok(ks, keystore_add_master_key(ks, "test", &id));
	memset(trace, 0, sizeof(trace));
	assert_ok(ks, keystore_store(ks, ks_path));
	ck_assert_str_eq(trace, "wfRfwfRf");

	/* The same again: only that it is on disk is made sure of. */
	memset(trace, 0, sizeof(trace));
	assert_ok(ks, keystore_store(ks, ks_path));
	ck_assert_str_eq(trace, "ff");

	/* The host secret, never replaced, then keystore.aks; its directory's entry first. */
	memset(trace, 0, sizeof(trace));
	assert_ok(ks, keystore_auto_open_enable(ks, ks_path));
	ck_assert_str_eq(trace, "fwfLfUwfRf");
	memset(trace, 0, sizeof(trace));
	assert_ok(ks, keystore_auto_open_disable(ks, ks_path));
	ck_assert_str_eq(trace, "Uf");
	keystore_free(&ks);
}
END_TEST

/* ---- kill -9 ---------------------------------------------------------------------------- */

/* Run one scenario in a child that dies at the n-th step; false if it lives to the end. */
static bool
killed_at(keystore *ks, enum keystore_status (*run) (keystore *ks), int n)
{
	int			status;
	pid_t		pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0)
	{
		step_count = 0;
		kill_at = n;
		_exit(run(ks) == KEYSTORE_OK ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status))
	{
		ck_assert_int_eq(WTERMSIG(status), SIGKILL);
		return true;
	}
	ck_assert_int_eq(status, 0);
	return false;
}

START_TEST(test_killed_store)
{
	keystore   *ks = make();
	uint8_t    *older;
	size_t		older_len;
	int			n = 1;

	older = ks_read_file(ks_path, &older_len);
	while (killed_at(ks, do_store, n))
	{
		keystore   *prev = keystore_new();
		char		prev_path[320];

		assert_sound(ks_text("killed at step %d", n));
		snprintf(prev_path, sizeof(prev_path), "%s.prev", ks_path);
		if (ks_exists(prev_path))
		{
			assert_ok(prev, keystore_load(prev, prev_path));
			ck_assert_uint_eq(keystore_get_generation(prev), 1);
		}

		/* The next writer finishes the work and tidies up. */
		assert_ok(ks, keystore_store(ks, ks_path));
		assert_ok(prev, keystore_load(prev, ks_path));
		ck_assert_uint_eq(keystore_get_generation(prev), 2);
		if (ks_exists(prev_path))
			ck_assert_int_eq(unlink(prev_path), 0);
		ks_write_file(ks_path, older, older_len, 0600);
		keystore_free(&prev);
		n++;
	}
	/* Twice create, write, write the rest, fsync, rename, fsync; before and after each. */
	ck_assert_int_ge(n, 2 * 2 * 5);
	assert_sound("at the end");
	free(older);
	keystore_free(&ks);
}
END_TEST

/* Killed while making the host secret: it is whole or not there, and enabling again works. */
START_TEST(test_killed_enable)
{
	keystore   *ks = make();
	struct keystore_auto_open_info info;
	int			n = 1;

	while (killed_at(ks, do_enable, n))
	{
		if (ks_exists(secret_path))
		{
			struct stat st;

			ck_assert_int_eq(stat(secret_path, &st), 0);
			ck_assert_int_eq(st.st_size, 32);
		}
		assert_ok(ks, keystore_auto_open_status(ks, ks_path, &info));
		ck_assert(info.usable || strcmp(info.kind, "none") == 0);
		assert_ok(ks, keystore_auto_open_enable(ks, ks_path));
		assert_ok(ks, keystore_open_auto(ks, ks_path));
		ck_assert_int_eq(unlink(secret_path), 0);
		assert_ok(ks, keystore_auto_open_disable(ks, ks_path));
		n++;
	}
	ck_assert_int_ge(n, 20);
	/* keystore.ks and keystore.aks: all that dying writers left is gone. */
	ck_assert_int_eq(ks_count_files(ks_dir), 3);
	keystore_free(&ks);
}
END_TEST

/* Names of kept files have a second and a number, and a fast machine repairs more often than there are numbers. */
static void
forget_kept(void)
{
	DIR		   *dir = opendir(ks_dir);
	struct dirent *entry;

	ck_assert_ptr_nonnull(dir);
	while ((entry = readdir(dir)) != NULL)
		if (strstr(entry->d_name, ".damaged-") != NULL)
			ck_assert_int_eq(unlinkat(dirfd(dir), entry->d_name, 0), 0);
	closedir(dir);
}

/* Killed while repairing: what was there and what is put there are never lost, and doing it again works. */
START_TEST(test_killed_repair)
{
	keystore   *ks = make();
	uint8_t    *damaged;
	size_t		len;
	int			n = 1;

	assert_ok(ks, keystore_store(ks, ks_path));
	damaged = ks_read_file(ks_path, &len);
	damaged[len / 2] ^= 1;
	ks_write_file(ks_path, damaged, len, 0600);
	while (killed_at(ks, do_repair, n))
	{
		keystore   *now = keystore_new();
		enum keystore_status status = keystore_load(now, ks_path);

		/* Still damaged, or repaired; and then the damaged one has another name. */
		ck_assert(status == KEYSTORE_EDAMAGED || status == KEYSTORE_OK);
		if (status == KEYSTORE_OK)
			ck_assert_int_ge(ks_count_files(ks_dir), 3);
		assert_ok(ks, do_repair(ks));
		assert_sound(ks_text("repaired after step %d", n));
		forget_kept();
		ks_write_file(ks_path, damaged, len, 0600);
		keystore_free(&now);
		n++;
	}
	ck_assert_int_ge(n, 12);
	assert_sound("at the end");
	free(damaged);
	keystore_free(&ks);
}
END_TEST

/* Killed while backing up: no copy that is not whole, and no word of one that is not there. */
START_TEST(test_killed_backup)
{
	keystore   *ks = make();
	struct keystore_backup_info info;
	int			n = 1;

	while (killed_at(ks, do_backup, n))
	{
		keystore   *copy = keystore_new();

		assert_sound(ks_text("killed at step %d", n));
		assert_ok(ks, keystore_last_backup(ks, ks_path, &info));
		if (info.known)
		{
			assert_ok(copy, keystore_load(copy, info.name));
			assert_ok(copy, keystore_open_passphrase(copy, PASS, strlen(PASS)));
		}
		keystore_free(&copy);
		n++;
	}
	ck_assert_int_ge(n, 20);
	assert_ok(ks, keystore_last_backup(ks, ks_path, &info));
	ck_assert(info.known && info.current);
	keystore_free(&ks);
}
END_TEST

/* The secret's directory is beside the files of the keystore, and counted above. */
static void
setup(void)
{
	ks_setup();
	snprintf(backups, sizeof(backups), "%s.backups", ks_dir);
	snprintf(credential_dir, sizeof(credential_dir), "%s.credentials", ks_dir);
	ck_assert_int_eq(mkdir(backups, 0700), 0);
	ck_assert_int_eq(mkdir(credential_dir, 0700), 0);
	snprintf(secret_path, sizeof(secret_path), "%s/home/secret", ks_dir);
}

static void
teardown(void)
{
	ks_teardown();
	snprintf(ks_dir, sizeof(ks_dir), "%.255s", backups);
	ks_teardown();
	snprintf(ks_dir, sizeof(ks_dir), "%.255s", credential_dir);
	ks_teardown();
}

int
main(void)
{
	Suite	   *suite = suite_create("faults");
	TCase	   *tc = ks_tcase("faults");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, test_faults, 0, SCENARIOS);
	tcase_add_test(tc, test_no_handle);
	tcase_add_test(tc, test_full_disk);
	tcase_add_test(tc, test_corrupting_disk);
	tcase_add_test(tc, test_order);
	suite_add_tcase(suite, tc);

	tc = ks_tcase("kill");
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, test_killed_store);
	tcase_add_test(tc, test_killed_enable);
	tcase_add_test(tc, test_killed_repair);
	tcase_add_test(tc, test_killed_backup);
	suite_add_tcase(suite, tc);
	return ks_run(suite);
}
