/*
 * ks_faults.c
 *		The calls that can fail: the linker puts the __wrap_ functions between the library and the system.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <unistd.h>

#include "ks_faults.h"

const struct fault_call fault_calls[CALL_COUNT] =
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

enum call failing;		/* this one ... */
int			fail_at;			/* ... at this count, from 1 */
int			call_count;
static int	kill_at;			/* die at this step, 0 never; */
static int	step_count;			/* a step is what changes the disk, before and after */
bool		corrupting;			/* writes put down something else than they were given */
int			mapped;				/* mappings made minus mappings removed */
char		trace[64];			/* w, f, R, L, U: what changed the disk, in order */

static bool
fails(enum call call)
{
	if (failing != call)
		return false;
	if (++call_count != fail_at)
		return false;
	errno = fault_calls[call].error;
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

/* ---- kill -9 ---------------------------------------------------------------------------- */

bool
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
