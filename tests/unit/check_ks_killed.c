/*
 * check_ks_killed.c
 *		kill -9 before and after every step of a replacement, of a backup and of a repair: on disk is the old file or the
 *		new one, and who comes next finishes the work.
 */
#include <config.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ks_faults.h"

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

/* A rekey of a file, as pgx_keystore makes it. */
static enum keystore_status
rekey_file(keystore *ks)
{
	const struct keystore_passphrase pass = {PASS, strlen(PASS)};
	struct keystore_slot_info dropped[KEYSTORE_MAX_SLOTS];
	uint8_t		envelope[KEYSTORE_ENVELOPE_LEN];
	size_t		count;
	bool		resealed;
	enum keystore_status status = keystore_rekey(ks, &pass, 1, envelope, dropped, &count);

	if (status == KEYSTORE_OK)
		status = keystore_rekey_begin(ks, ks_path, envelope, sizeof(envelope));
	if (status == KEYSTORE_OK)
		status = keystore_store(ks, ks_path);
	if (status == KEYSTORE_OK)
		status = keystore_auto_open_reseal(ks, ks_path, &resealed);
	return status == KEYSTORE_OK ? keystore_rekey_end(ks, ks_path) : status;
}

/* Killed while rekeying: whatever is on disk opens by its passphrase, and by itself. */
START_TEST(test_killed_rekey)
{
	keystore   *ks = make();
	uint64_t	generation = keystore_get_generation(ks);
	int			n = 1;

	assert_ok(ks, keystore_store(ks, ks_path));
	assert_ok(ks, keystore_auto_open_enable(ks, ks_path));
	while (killed_at(ks, rekey_file, n))
	{
		keystore   *now = keystore_new();

		assert_ok(now, keystore_set_host_secret_path(now, secret_path));
		assert_ok(now, keystore_load(now, ks_path));
		assert_ok(now, keystore_open_passphrase(now, PASS, strlen(PASS)));
		assert_ok(now, keystore_open_auto(now, ks_path));
		ck_assert_uint_ge(keystore_get_generation(now), generation);
		ck_assert_uint_le(keystore_get_generation(now), generation + 1);

		/* Whoever comes next begins with what is there; everything else is as it was. */
		assert_ok(ks, keystore_store(ks, ks_path));
		assert_ok(ks, keystore_auto_open_enable(ks, ks_path));
		keystore_free(&now);
		n++;
	}
	ck_assert_int_ge(n, 40);
	keystore_free(&ks);
}
END_TEST

int
main(void)
{
	Suite	   *suite = suite_create("killed");
	TCase	   *tc = ks_tcase("killed");

	tcase_add_checked_fixture(tc, faults_setup, faults_teardown);
	tcase_add_test(tc, test_killed_store);
	tcase_add_test(tc, test_killed_enable);
	tcase_add_test(tc, test_killed_repair);
	tcase_add_test(tc, test_killed_backup);
	tcase_add_test(tc, test_killed_rekey);
	suite_add_tcase(suite, tc);
	return ks_run(suite);
}
