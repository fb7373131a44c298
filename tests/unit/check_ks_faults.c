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

/* ---- what is tried with every fault ------------------------------------------------- */

static char secret_path[320];
static uint8_t ring[4096];
static size_t ring_len;

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
}			scenarios[] =
{
	{"create", NULL, do_create, false},
	{"store", NULL, do_store, true},
	{"load", NULL, do_load, false},
	{"add_master_key", NULL, do_add, true},
	{"change_passphrase", NULL, do_change, true},
	{"serialize", NULL, do_serialize, true},
	{"export_ring", NULL, do_export, true},
	{"import_ring", prepare_ring, do_import, true},
	{"lock", NULL, do_lock, true},
	{"check_directory", NULL, do_check, true},
	{"auto_open_enable", prepare_no_secret, do_enable, true},
	{"auto_open_disable", prepare_enabled, do_disable, true},
	{"auto_open_status", prepare_enabled, do_status, true},
	{"open_auto", prepare_enabled, do_open_auto, true},
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
				  (calls[call].statuses & 1U << status) != 0, "%s", what);
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
		ck_assert_int_lt(at, 100);
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

/* The secret's directory is beside the files of the keystore, and counted above. */
static void
setup(void)
{
	ks_setup();
	snprintf(secret_path, sizeof(secret_path), "%s/home/secret", ks_dir);
}

int
main(void)
{
	Suite	   *suite = suite_create("faults");
	TCase	   *tc = ks_tcase("faults");

	tcase_add_checked_fixture(tc, setup, ks_teardown);
	tcase_add_loop_test(tc, test_faults, 0, SCENARIOS);
	tcase_add_test(tc, test_no_handle);
	tcase_add_test(tc, test_full_disk);
	tcase_add_test(tc, test_corrupting_disk);
	tcase_add_test(tc, test_order);
	suite_add_tcase(suite, tc);

	tc = ks_tcase("kill");
	tcase_add_checked_fixture(tc, setup, ks_teardown);
	tcase_add_test(tc, test_killed_store);
	tcase_add_test(tc, test_killed_enable);
	suite_add_tcase(suite, tc);
	return ks_run(suite);
}
