/*
 * check_ks_file.c
 *		Files: what is refused, what replacing leaves behind, locks, and readers beside a writer.
 */
#include <config.h>

#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ks_common.h"

#define NOBODY 65534

START_TEST(test_store_and_load)
{
	keystore   *ks = ks_make();
	keystore   *back = keystore_new();
	struct stat st;
	uint32_t	id;
	char		prev[320];

	assert_ok(ks, keystore_store(ks, ks_path));
	ck_assert_int_eq(ks_count_files(ks_dir), 1);
	ck_assert_int_eq(lstat(ks_path, &st), 0);
	ck_assert_int_eq(st.st_mode & 07777, 0600);

	assert_ok(ks, keystore_add_master_key(ks, "test", &id));
	assert_ok(ks, keystore_store(ks, ks_path));
	ck_assert_int_eq(ks_count_files(ks_dir), 2);
	assert_ok(back, keystore_load(back, ks_path));
	ck_assert_uint_eq(keystore_get_generation(back), 2);
	assert_ok(back, keystore_open_passphrase(back, PASS, strlen(PASS)));
	ck_assert_uint_eq(keystore_key_count(back), 2);

	/* The generation before is still there. */
	snprintf(prev, sizeof(prev), "%s/%s", ks_dir, KEYSTORE_PREV_NAME);
	ck_assert_int_eq(lstat(prev, &st), 0);
	ck_assert_int_eq(st.st_mode & 07777, 0600);
	assert_ok(back, keystore_load(back, prev));
	ck_assert_uint_eq(keystore_get_generation(back), 1);

	/* Storing the same bytes again does not push it out. */
	assert_ok(ks, keystore_store(ks, ks_path));
	assert_ok(back, keystore_load(back, prev));
	ck_assert_uint_eq(keystore_get_generation(back), 1);
	ck_assert_int_eq(ks_count_files(ks_dir), 2);
	keystore_free(&ks);
	keystore_free(&back);
}
END_TEST

/* Whatever the umask: 0600. */
START_TEST(test_umask)
{
	static const mode_t masks[] = {0, 0777, 0277};

	for (size_t i = 0; i < sizeof(masks) / sizeof(masks[0]); i++)
	{
		keystore   *ks = ks_make();
		struct stat st;

		umask(masks[i]);
		assert_ok(ks, keystore_store(ks, ks_path));
		ck_assert_int_eq(lstat(ks_path, &st), 0);
		ck_assert_int_eq(st.st_mode & 07777, 0600);
		ck_assert_int_eq(umask(masks[i]), masks[i]);
		keystore_free(&ks);
	}
}
END_TEST

START_TEST(test_relative_path)
{
	keystore   *ks = ks_make();
	int			fd;

	ck_assert_int_eq(chdir(ks_dir), 0);
	assert_ok(ks, keystore_store(ks, "keystore.ks"));
	assert_ok(ks, keystore_load(ks, "./keystore.ks"));
	assert_ok(ks, keystore_lock(ks, "keystore.ks", 0, &fd));
	keystore_unlock(fd);
	assert_ok(ks, keystore_check_directory(ks, "."));
	assert_ok(ks, keystore_check_directory(ks, ks_text("%s///", ks_dir)));
	keystore_free(&ks);
}
END_TEST

/* Only a keystore is stored as one. */
START_TEST(test_store_refuses_junk)
{
	keystore   *ks = ks_make_stored();
	uint8_t    *before,
			   *bytes;
	size_t		before_len,
				len;

	before = ks_read_file(ks_path, &before_len);
	assert_fails(ks, keystore_store_bytes(ks, ks_path, "junk", 4), KEYSTORE_EFORMAT,
				 ks_text("file \"%s\" is not a keystore", ks_path));
	assert_ok(ks, keystore_serialize(ks, &bytes, &len));
	bytes[100] ^= 1;
	assert_fails(ks, keystore_store_bytes(ks, ks_path, bytes, len), KEYSTORE_EDAMAGED,
				 ks_text("keystore \"%s\" is corrupted: invalid checksum", ks_path));
	free(bytes);
	bytes = ks_read_file(ks_path, &len);
	ck_assert_uint_eq(len, before_len);
	ck_assert_mem_eq(bytes, before, len);
	ck_assert_int_eq(ks_count_files(ks_dir), 1);
	free(bytes);
	free(before);
	keystore_free(&ks);
}
END_TEST

/* A damaged file is replaced, but does not take the place of a sound former one. */
START_TEST(test_damaged_is_not_kept)
{
	keystore   *ks = ks_make_stored();
	keystore   *back = keystore_new();
	uint32_t	id;

	assert_ok(ks, keystore_add_master_key(ks, "test", &id));
	assert_ok(ks, keystore_store(ks, ks_path));
	ks_write_file(ks_path, "PGXKS\r\n\x1a damaged", 16, 0600);
	assert_ok(ks, keystore_add_master_key(ks, "test", &id));
	assert_ok(ks, keystore_store(ks, ks_path));
	assert_ok(back, keystore_load(back, ks_text("%s.prev", ks_path)));
	ck_assert_uint_eq(keystore_get_generation(back), 1);
	assert_ok(back, keystore_load(back, ks_path));
	ck_assert_uint_eq(keystore_get_generation(back), 3);
	keystore_free(&ks);
	keystore_free(&back);
}
END_TEST

START_TEST(test_missing)
{
	keystore   *ks = keystore_new();
	int			fd = -1;

	assert_fails(ks, keystore_load(ks, ks_path), KEYSTORE_ENOENT,
				 ks_text("keystore \"%s\" does not exist", ks_path));
	ck_assert_str_eq(keystore_errhint(ks),
					 "Make sure that the location is correct.  If it is, create the keystore, or copy it from another server.");
	assert_fails(ks, keystore_load(ks, ks_text("%s/no/keystore.ks", ks_dir)), KEYSTORE_ENOENT,
				 ks_text("directory \"%s/no\" does not exist", ks_dir));
	assert_fails(ks, keystore_check_directory(ks, ks_text("%s/no/", ks_dir)), KEYSTORE_ENOENT,
				 ks_text("directory \"%s/no\" does not exist", ks_dir));
	assert_status(ks, keystore_lock(ks, ks_text("%s/no/keystore.ks", ks_dir), 0, &fd),
				  KEYSTORE_ENOENT);
	ck_assert_int_eq(fd, -1);
	assert_fails(ks, keystore_load(ks, ks_text("%s/", ks_dir)), KEYSTORE_EPERM,
				 ks_text("\"%s/\" is not a regular file", ks_dir));
	keystore_free(&ks);
}
END_TEST

/* ---- what is refused, and the command that the hint gives ----------------------- */

static void
make_symlink(void)
{
	char		target[320];

	snprintf(target, sizeof(target), "%s.target", ks_path);
	ck_assert_int_eq(rename(ks_path, target), 0);
	ck_assert_int_eq(symlink(target, ks_path), 0);
}

static void
make_directory(void)
{
	ck_assert_int_eq(unlink(ks_path), 0);
	ck_assert_int_eq(mkdir(ks_path, 0700), 0);
}

static void
make_fifo(void)
{
	ck_assert_int_eq(unlink(ks_path), 0);
	ck_assert_int_eq(mkfifo(ks_path, 0600), 0);
}

static void
make_too_large(void)
{
	ck_assert_int_eq(truncate(ks_path, KEYSTORE_MAX_FILE_SIZE + 1), 0);
}

static void
group_read(void)
{
	ck_assert_int_eq(chmod(ks_path, 0640), 0);
}

static void
other_write(void)
{
	ck_assert_int_eq(chmod(ks_path, 0602), 0);
}

static void
group_dir(void)
{
	ck_assert_int_eq(chmod(ks_dir, 0750), 0);
}

static void
other_dir(void)
{
	ck_assert_int_eq(chmod(ks_dir, 0701), 0);
}

/* "%s" in texts is the path, "%d" its directory; stored is the status of storing over it. */
static const struct
{
	const char *name;
	void		(*mutilate) (void);
	enum keystore_status load;
	enum keystore_status store;
	const char *message;
	const char *hint;
}			refusals[] =
{
	{"symbolic link", make_symlink, KEYSTORE_EPERM, KEYSTORE_EPERM,
	"file \"%s\" is a symbolic link", ""},
	{"directory", make_directory, KEYSTORE_EPERM, KEYSTORE_EPERM,
	"\"%s\" is not a regular file", ""},
	{"FIFO", make_fifo, KEYSTORE_EPERM, KEYSTORE_EPERM, "\"%s\" is not a regular file", ""},
	{"too large", make_too_large, KEYSTORE_EFORMAT, KEYSTORE_OK,
	"file \"%s\" is not a keystore: size = 1048577 bytes, at most 1048576 bytes are possible", ""},
	{"group may read", group_read, KEYSTORE_EPERM, KEYSTORE_EPERM,
	"file \"%s\" has group or other access (mode 0640)", "Run \"chmod 600 %s\"."},
	{"others may write", other_write, KEYSTORE_EPERM, KEYSTORE_EPERM,
	"file \"%s\" has group or other access (mode 0602)", "Run \"chmod 600 %s\"."},
	{"directory's group", group_dir, KEYSTORE_EPERM, KEYSTORE_EPERM,
	"directory \"%d\" has group or other access (mode 0750)", "Run \"chmod 700 %d\"."},
	{"directory's others", other_dir, KEYSTORE_EPERM, KEYSTORE_EPERM,
	"directory \"%d\" has group or other access (mode 0701)", "Run \"chmod 700 %d\"."},
};

static void
fill_in(const char *text, char *out, size_t size)
{
	const char *mark = strchr(text, '%');

	if (mark == NULL)
		snprintf(out, size, "%s", text);
	else
		snprintf(out, size, "%.*s%s%s", (int) (mark - text), text,
				 mark[1] == 's' ? ks_path : ks_dir, mark + 2);
}

START_TEST(test_refused)
{
	keystore   *ks = ks_make_stored();
	keystore   *back = keystore_new();
	char		message[1024];
	char		hint[1024];
	uint32_t	id;

	fill_in(refusals[_i].message, message, sizeof(message));
	fill_in(refusals[_i].hint, hint, sizeof(hint));
	assert_ok(ks, keystore_add_master_key(ks, "test", &id));
	refusals[_i].mutilate();
	assert_fails(back, keystore_load(back, ks_path), refusals[_i].load, message);
	ck_assert_str_eq(keystore_errhint(back), hint);
	assert_status(ks, keystore_store(ks, ks_path), refusals[_i].store);
	if (refusals[_i].store != KEYSTORE_OK)
	{
		ck_assert_str_eq(keystore_errmsg(ks), message);
		ck_assert(!ks_exists(ks_text("%s.prev", ks_path)));
	}
	keystore_free(&ks);
	keystore_free(&back);
}
END_TEST

START_TEST(test_symlinked_directory)
{
	keystore   *ks = ks_make_stored();
	char		link_name[320];
	char		path[640];
	int			fd;

	snprintf(link_name, sizeof(link_name), "%s/link", ks_dir);
	snprintf(path, sizeof(path), "%s/keystore.ks", link_name);
	ck_assert_int_eq(symlink(ks_dir, link_name), 0);
	assert_fails(ks, keystore_check_directory(ks, link_name), KEYSTORE_EPERM,
				 ks_text("directory \"%s\" is a symbolic link", link_name));
	/* A slash at the end must not make it one. */
	assert_fails(ks, keystore_check_directory(ks, ks_text("%s/", link_name)), KEYSTORE_EPERM,
				 ks_text("directory \"%s\" is a symbolic link", link_name));
	assert_status(ks, keystore_load(ks, path), KEYSTORE_EPERM);
	assert_status(ks, keystore_lock(ks, path, 0, &fd), KEYSTORE_EPERM);
	assert_fails(ks, keystore_check_directory(ks, ks_path), KEYSTORE_EPERM,
				 ks_text("\"%s\" is not a directory", ks_path));
	keystore_free(&ks);
}
END_TEST

/* Only root can give files away, so these two run for root alone. */
START_TEST(test_wrong_owner)
{
	keystore   *ks = ks_make_stored();

	ck_assert_int_eq(chown(ks_path, NOBODY, (gid_t) -1), 0);
	assert_fails(ks, keystore_load(ks, ks_path), KEYSTORE_EPERM,
				 ks_text("file \"%s\" has the wrong owner", ks_path));
	ck_assert_str_eq(keystore_errhint(ks),
					 ks_text("Run this as the owner, or run \"chown root %s\" as root.", ks_path));
	ck_assert_int_eq(chown(ks_dir, NOBODY, (gid_t) -1), 0);
	assert_fails(ks, keystore_load(ks, ks_path), KEYSTORE_EPERM,
				 ks_text("directory \"%s\" has the wrong owner", ks_dir));
	assert_status(ks, keystore_check_directory(ks, ks_dir), KEYSTORE_EPERM);
	keystore_free(&ks);
}
END_TEST

START_TEST(test_as_other_user)
{
	keystore   *ks = ks_make_stored();
	const struct passwd *pw = getpwuid(NOBODY);

	/* Root's file in our own directory is fine, if the mode lets us; here it does not. */
	ck_assert_ptr_nonnull(pw);
	ck_assert_int_eq(chown(ks_dir, NOBODY, (gid_t) -1), 0);
	ck_assert_int_eq(setuid(NOBODY), 0);
	assert_fails(ks, keystore_load(ks, ks_path), KEYSTORE_EIO,
				 ks_text("could not open file \"%s\": Permission denied", ks_path));
	keystore_free(&ks);
}
END_TEST

/* ---- no room ------------------------------------------------------------------------ */

/* The file system, or a limit, cuts the new file short: the old one stays, whole. */
START_TEST(test_no_room)
{
	keystore   *ks = ks_make_stored();
	keystore   *back = keystore_new();
	const struct rlimit limit = {100, 100};
	uint32_t	id;

	assert_ok(ks, keystore_add_master_key(ks, "test", &id));
	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	assert_fails(ks, keystore_store(ks, ks_path), KEYSTORE_EIO,
				 ks_text("could not write file \"%s.prev\": File too large", ks_path));
	ck_assert_int_eq(ks_count_files(ks_dir), 1);
	assert_ok(back, keystore_load(back, ks_path));
	ck_assert_uint_eq(keystore_get_generation(back), 1);
	ck_assert_int_eq(unlink(ks_path), 0);
	assert_fails(ks, keystore_store(ks, ks_path), KEYSTORE_EIO,
				 ks_text("could not write file \"%s\": File too large", ks_path));
	ck_assert_int_eq(ks_count_files(ks_dir), 0);
	keystore_free(&ks);
	keystore_free(&back);
}
END_TEST

/* What writers that died have left is gone after the next one; what is no such file stays. */
START_TEST(test_leftovers)
{
	keystore   *ks = ks_make_stored();
	char		left[400];
	char		other[400];
	uint32_t	id;

	snprintf(left, sizeof(left), "%s.new.0123456789abcdef", ks_path);
	snprintf(other, sizeof(other), "%s/keystore.ks.newer", ks_dir);
	ks_write_file(left, "half a key", 10, 0600);
	ks_write_file(other, "mine", 4, 0600);
	assert_ok(ks, keystore_add_master_key(ks, "test", &id));
	assert_ok(ks, keystore_store(ks, ks_path));
	ck_assert(!ks_exists(left));
	ck_assert(ks_exists(other));
	keystore_free(&ks);
}
END_TEST

/* ---- locks ------------------------------------------------------------------------------ */

static int64_t
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

START_TEST(test_lock)
{
	keystore   *ks = keystore_new();
	int			ready[2];
	int			fd = -1;
	int			status;
	int64_t		start;
	struct stat st;
	char		c;
	pid_t		pid;

	ck_assert_int_eq(pipe(ready), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0)
	{
		if (keystore_lock(ks, ks_path, 0, &fd) != KEYSTORE_OK || write(ready[1], "x", 1) != 1)
			_exit(1);
		pause();
		_exit(2);
	}
	ck_assert_int_eq(read(ready[0], &c, 1), 1);
	assert_fails(ks, keystore_lock(ks, ks_path, 0, &fd), KEYSTORE_EBUSY,
				 ks_text("keystore \"%s\" is being changed by another process", ks_path));
	ck_assert_str_eq(keystore_errhint(ks), "Try again when it has finished.");
	start = now_ms();
	assert_status(ks, keystore_lock(ks, ks_path, 200, &fd), KEYSTORE_EBUSY);
	ck_assert_int_ge(now_ms() - start, 200);
	ck_assert_int_eq(fd, -1);

	/* Death releases it. */
	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_ok(ks, keystore_lock(ks, ks_path, 0, &fd));
	ck_assert_int_ge(fd, 0);
	ck_assert_int_ne(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
	ck_assert_int_eq(stat(ks_text("%s/%s", ks_dir, KEYSTORE_LOCK_NAME), &st), 0);
	ck_assert_int_eq(st.st_mode & 077, 0);
	keystore_unlock(fd);
	assert_ok(ks, keystore_lock(ks, ks_path, 0, &fd));
	keystore_unlock(fd);
	keystore_unlock(-1);
	keystore_free(&ks);
}
END_TEST

/* A waiter gets it as soon as it is free. */
START_TEST(test_lock_waits)
{
	keystore   *ks = keystore_new();
	int			ready[2];
	int			fd = -1;
	char		c;
	pid_t		pid;

	ck_assert_int_eq(pipe(ready), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0)
	{
		if (keystore_lock(ks, ks_path, 0, &fd) != KEYSTORE_OK || write(ready[1], "x", 1) != 1)
			_exit(1);
		usleep(300000);
		keystore_unlock(fd);
		_exit(0);
	}
	ck_assert_int_eq(read(ready[0], &c, 1), 1);
	assert_ok(ks, keystore_lock(ks, ks_path, 10000, &fd));
	keystore_unlock(fd);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	keystore_free(&ks);
}
END_TEST

START_TEST(test_lock_unsafe)
{
	keystore   *ks = keystore_new();
	char		name[320];
	int			fd;

	snprintf(name, sizeof(name), "%s/%s", ks_dir, KEYSTORE_LOCK_NAME);
	ck_assert_int_eq(mkfifo(name, 0600), 0);
	assert_fails(ks, keystore_lock(ks, ks_path, 0, &fd), KEYSTORE_EPERM,
				 ks_text("\"%s\" is not a regular file", name));
	ck_assert_int_eq(unlink(name), 0);
	ck_assert_int_eq(symlink("elsewhere", name), 0);
	assert_fails(ks, keystore_lock(ks, ks_path, 0, &fd), KEYSTORE_EIO,
				 ks_text("could not open file \"%s\": Too many levels of symbolic links", name));
	keystore_free(&ks);
}
END_TEST

/* ---- side by side ------------------------------------------------------------------------- */

#define WRITES 60

/* Two writers that do not even lock, and a reader: it sees one whole file or the other, always. */
START_TEST(test_reader_and_writers)
{
	keystore   *ks = ks_make_stored();
	keystore   *reader = keystore_new();
	pid_t		pids[2];
	int			running = 2;
	int			reads = 0;
	uint64_t	seen = 0;

	for (int i = 0; i < 2; i++)
	{
		pids[i] = fork();
		ck_assert_int_ge(pids[i], 0);
		if (pids[i] == 0)
		{
			for (int j = 0; j < WRITES; j++)
			{
				uint32_t	id;

				/* Of different lengths, so that a mixture would not go unnoticed. */
				if (keystore_add_master_key(ks, "test", &id) != KEYSTORE_OK ||
					keystore_store(ks, ks_path) != KEYSTORE_OK)
				{
					fprintf(stderr, "writer: %s\n", keystore_errmsg(ks));
					_exit(1);
				}
			}
			_exit(0);
		}
	}
	while (running > 0)
	{
		int			status;
		pid_t		pid = waitpid(-1, &status, WNOHANG);

		if (pid > 0)
		{
			ck_assert_int_eq(status, 0);
			running--;
		}
		assert_ok(reader, keystore_load(reader, ks_path));
		reads++;
		if (keystore_get_generation(reader) > seen)
			seen = keystore_get_generation(reader);
	}
	ck_assert_int_gt(reads, 10);
	ck_assert_uint_eq(seen, WRITES + 1);
	assert_ok(reader, keystore_open_passphrase(reader, PASS, strlen(PASS)));
	ck_assert_int_eq(ks_count_files(ks_dir), 2);
	keystore_free(&ks);
	keystore_free(&reader);
}
END_TEST

#define CHANGES 20
#define READERS 50

/* One change under the lock: what every command does. */
static enum keystore_status
change(keystore *ks, const char *origin)
{
	enum keystore_status status;
	uint32_t	id;
	int			lock = -1;

	status = keystore_lock(ks, ks_path, 120000, &lock);
	if (status == KEYSTORE_OK)
		status = keystore_load(ks, ks_path);
	if (status == KEYSTORE_OK)
		status = keystore_open_passphrase(ks, PASS, strlen(PASS));
	if (status == KEYSTORE_OK)
		status = keystore_add_master_key(ks, origin, &id);
	if (status == KEYSTORE_OK)
		status = keystore_store(ks, ks_path);
	keystore_unlock(lock);
	return status;
}

/* Reads until the pipe tells that the writers are through.  Not one torn read, never back in time. */
static int
read_until_closed(int fd)
{
	keystore   *ks = keystore_new();
	uint64_t	seen = 0;
	char		c;

	do
	{
		enum keystore_status status = keystore_load(ks, ks_path);

		if (status != KEYSTORE_OK || keystore_get_generation(ks) < seen)
		{
			fprintf(stderr, "reader: status %d: %s\n", (int) status, keystore_errmsg(ks));
			return 1;
		}
		seen = keystore_get_generation(ks);
	} while (read(fd, &c, 1) < 0);
	keystore_free(&ks);
	return 0;
}

/* Two writers that lock, and 50 readers: no change is lost, no read is torn. */
START_TEST(test_no_lost_change)
{
	keystore   *ks = ks_make_stored();
	pid_t		writers[2];
	pid_t		readers[READERS];
	/* Fifty under memcheck (make valgrind) would keep a writer from the lock for longer than it waits. */
	const int	n_readers = getenv("PGX_MEMCHECK") != NULL ? READERS / 10 : READERS;
	int			fds[2];
	int			status;
	size_t		of_writer[2] = {0, 0};

	ck_assert_int_eq(pipe2(fds, O_NONBLOCK | O_CLOEXEC), 0);
	for (int i = 0; i < n_readers; i++)
	{
		readers[i] = fork();
		ck_assert_int_ge(readers[i], 0);
		if (readers[i] == 0)
		{
			close(fds[1]);
			_exit(read_until_closed(fds[0]));
		}
	}
	for (int i = 0; i < 2; i++)
	{
		writers[i] = fork();
		ck_assert_int_ge(writers[i], 0);
		if (writers[i] == 0)
		{
			close(fds[1]);
			for (int j = 0; j < CHANGES; j++)
			{
				if (change(ks, i == 0 ? "first" : "second") != KEYSTORE_OK)
				{
					fprintf(stderr, "writer: %s\n", keystore_errmsg(ks));
					_exit(1);
				}
			}
			_exit(0);
		}
	}
	for (int i = 0; i < 2; i++)
	{
		ck_assert_int_eq(waitpid(writers[i], &status, 0), writers[i]);
		ck_assert_int_eq(status, 0);
	}
	close(fds[1]);
	for (int i = 0; i < n_readers; i++)
	{
		ck_assert_int_eq(waitpid(readers[i], &status, 0), readers[i]);
		ck_assert_int_eq(status, 0);
	}
	close(fds[0]);

	assert_ok(ks, keystore_load(ks, ks_path));
	assert_ok(ks, keystore_open_passphrase(ks, PASS, strlen(PASS)));
	ck_assert_uint_eq(keystore_get_generation(ks), 1 + 2 * CHANGES);
	ck_assert_uint_eq(keystore_key_count(ks), 1 + 2 * CHANGES);
	for (size_t i = 0; i < keystore_key_count(ks); i++)
	{
		struct keystore_key_info info;

		assert_ok(ks, keystore_get_key_info(ks, i, &info));
		of_writer[0] += strcmp(info.origin, "first") == 0;
		of_writer[1] += strcmp(info.origin, "second") == 0;
	}
	ck_assert_uint_eq(of_writer[0], CHANGES);
	ck_assert_uint_eq(of_writer[1], CHANGES);
	keystore_free(&ks);
}
END_TEST

int
main(void)
{
	Suite	   *suite = suite_create("file");
	TCase	   *tc = ks_tcase("store");

	tcase_add_checked_fixture(tc, ks_setup, ks_teardown);
	tcase_add_test(tc, test_store_and_load);
	tcase_add_test(tc, test_umask);
	tcase_add_test(tc, test_relative_path);
	tcase_add_test(tc, test_store_refuses_junk);
	tcase_add_test(tc, test_damaged_is_not_kept);
	tcase_add_test(tc, test_no_room);
	tcase_add_test(tc, test_leftovers);
	suite_add_tcase(suite, tc);

	tc = ks_tcase("refused");
	tcase_add_checked_fixture(tc, ks_setup, ks_teardown);
	tcase_add_test(tc, test_missing);
	tcase_add_loop_test(tc, test_refused, 0, (int) (sizeof(refusals) / sizeof(refusals[0])));
	tcase_add_test(tc, test_symlinked_directory);
	if (geteuid() == 0)
	{
		tcase_add_test(tc, test_wrong_owner);
		tcase_add_test(tc, test_as_other_user);
	}
	suite_add_tcase(suite, tc);

	tc = ks_tcase("together");
	tcase_add_checked_fixture(tc, ks_setup, ks_teardown);
	tcase_add_test(tc, test_lock);
	tcase_add_test(tc, test_lock_waits);
	tcase_add_test(tc, test_lock_unsafe);
	tcase_add_test(tc, test_reader_and_writers);
	tcase_add_test(tc, test_no_lost_change);
	suite_add_tcase(suite, tc);
	return ks_run(suite);
}
