/*
 * ks_common.c
 *		What the unit tests of libkeystore share.
 */
#include <config.h>

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ks_common.h"

const struct keystore_kdf_params ks_cheap = {KEYSTORE_KDF_SCRYPT, 10, 0, 8, 1};

char		ks_dir[256];
char		ks_path[300];
char		ks_top[256];

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

void
ks_setup(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(ks_dir, sizeof(ks_dir), "%s/check_ks_XXXXXX", tmp != NULL ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(ks_dir));
	snprintf(ks_path, sizeof(ks_path), "%s/%s", ks_dir, KEYSTORE_FILE_NAME);
}

void
ks_teardown(void)
{
	(void) nftw(ks_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void
ks_setup_below(void)
{
	ks_setup();
	memcpy(ks_top, ks_dir, sizeof(ks_top));
	ck_assert_int_lt(snprintf(ks_dir, sizeof(ks_dir), "%.200s/keystore", ks_top), 256);
	ck_assert_int_eq(mkdir(ks_dir, 0700), 0);
	snprintf(ks_path, sizeof(ks_path), "%s/%s", ks_dir, KEYSTORE_FILE_NAME);
}

void
ks_teardown_below(void)
{
	memcpy(ks_dir, ks_top, sizeof(ks_dir));
	ks_teardown();
}

keystore *
ks_make(void)
{
	keystore   *ks = keystore_new();

	ck_assert_ptr_nonnull(ks);
	assert_ok(ks, keystore_create(ks, PASS, strlen(PASS), &ks_cheap, "test"));
	return ks;
}

keystore *
ks_make_stored(void)
{
	keystore   *ks = ks_make();

	assert_ok(ks, keystore_store(ks, ks_path));
	return ks;
}

keystore *
ks_make_enabled(const char *secret_path)
{
	keystore   *ks = ks_make_stored();

	assert_ok(ks, keystore_set_host_secret_path(ks, secret_path));
	assert_ok(ks, keystore_auto_open_enable(ks, ks_path));
	return ks;
}

void
ks_write_file(const char *path, const void *buf, size_t len, int mode)
{
	int			fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	ck_assert_msg(fd >= 0, "could not create \"%s\"", path);
	ck_assert_int_eq(fchmod(fd, (mode_t) mode), 0);
	ck_assert_int_eq(write(fd, buf, len), (ssize_t) len);
	ck_assert_int_eq(close(fd), 0);
}

uint8_t *
ks_read_file(const char *path, size_t *ret_len)
{
	struct stat st;
	int			fd = open(path, O_RDONLY);
	uint8_t    *buf;

	ck_assert_msg(fd >= 0 && fstat(fd, &st) == 0, "could not open \"%s\"", path);
	buf = malloc((size_t) st.st_size + 1);
	ck_assert_ptr_nonnull(buf);
	ck_assert_int_eq(read(fd, buf, (size_t) st.st_size), (ssize_t) st.st_size);
	ck_assert_int_eq(close(fd), 0);
	*ret_len = (size_t) st.st_size;
	return buf;
}

uint8_t *
ks_read_data(const char *name, size_t *ret_len)
{
	char		path[1024];

	snprintf(path, sizeof(path), "%s/keystore/%s", TEST_DATA, name);
	return ks_read_file(path, ret_len);
}

bool
ks_exists(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

int
ks_count_files(const char *path)
{
	DIR		   *dir = opendir(path);
	struct dirent *entry;
	int			count = 0;

	ck_assert_msg(dir != NULL, "could not open directory \"%s\"", path);
	while ((entry = readdir(dir)) != NULL)
		count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	closedir(dir);
	return count;
}

int
ks_count_fds(void)
{
	return ks_count_files("/proc/self/fd") - 1;	/* not the one that lists them */
}

const char *
ks_text(const char *fmt, ...)
{
	static char buf[2][2048];
	static int	turn;
	va_list		ap;

	turn = !turn;
	va_start(ap, fmt);
	(void) vsnprintf(buf[turn], sizeof(buf[turn]), fmt, ap);
	va_end(ap);
	return buf[turn];
}

void
ks_redigest(uint8_t *buf, size_t len)
{
	ck_assert(ksi_sha256(buf, len - KSI_DIGEST_LEN, buf + len - KSI_DIGEST_LEN));
}

TCase *
ks_tcase(const char *name)
{
	TCase	   *tc = tcase_create(name);

	tcase_set_timeout(tc, 300);
	return tc;
}

int
ks_run(Suite *suite)
{
	SRunner    *runner = srunner_create(suite);
	int			failed;

	srunner_set_tap(runner, "-");
	srunner_run_all(runner, CK_SILENT);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
