/*
 * ks_scenarios.c
 *		What is tried with every fault: each function of the library that can fail.
 */
#include <config.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ks_faults.h"

/* ---- what is tried with every fault ------------------------------------------------- */

char		secret_path[320];
static char backups[320];
static char credential_dir[320];
static uint8_t ring[4096];
static size_t ring_len;
static uint8_t ahead_bytes[8192];
static size_t ahead_len;
static uint8_t envelope[KEYSTORE_ENVELOPE_LEN];

/*
 * Deriving keys is what takes the time, a hundred times as much under memcheck.  So it is done once a process; and under
 * memcheck (make valgrind), which is about memory, what is on disk is opened by its key and not by its passphrase.
 */
static uint8_t first_bytes[8192];
static size_t first_len;
static uint8_t first_ksk[KEYSTORE_KEY_LEN];

static keystore *
open_bytes(const uint8_t *buf, size_t len)
{
	keystore   *ks = keystore_new();

	assert_ok(ks, keystore_load_bytes(ks, buf, len, "a keystore of before"));
	assert_ok(ks, keystore_open_ksk(ks, first_ksk));
	return ks;
}

/* What is on disk in the beginning. */
static keystore *
make_first(void)
{
	keystore   *ks;
	uint8_t    *buf;

	if (first_len != 0)
		return open_bytes(first_bytes, first_len);
	ks = ks_make();
	assert_ok(ks, keystore_get_ksk(ks, first_ksk));
	assert_ok(ks, keystore_serialize(ks, &buf, &first_len));
	ck_assert_uint_le(first_len, sizeof(first_bytes));
	memcpy(first_bytes, buf, first_len);
	free(buf);
	return ks;
}

/* Backups of one keystore in one second would have one name. */
static void
forget_backups(void)
{
	DIR		   *dir = opendir(backups);
	struct dirent *entry;

	ck_assert_ptr_nonnull(dir);
	while ((entry = readdir(dir)) != NULL)
		if (entry->d_name[0] != '.')
			ck_assert_int_eq(unlinkat(dirfd(dir), entry->d_name, 0), 0);
	closedir(dir);
}

keystore *
make(void)
{
	keystore   *ks = make_first();
	uint32_t	id;

	forget_backups();
	assert_ok(ks, keystore_store(ks, ks_path));
	assert_ok(ks, keystore_set_host_secret_path(ks, secret_path));
	assert_ok(ks, keystore_add_master_key(ks, "test", &id));
	return ks;
}

static enum keystore_status
do_create(keystore *ks)
{
	return keystore_create(ks, PASS, strlen(PASS), &ks_cheap, "test");
}

enum keystore_status
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
enum keystore_status
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
	enum keystore_status status = keystore_rekey(ks, &pass, 1, out, dropped, &count);

	if (status == KEYSTORE_OK)
		memcpy(envelope, out, sizeof(out));
	return status;
}

static enum keystore_status
do_rekey_begin(keystore *ks)
{
	return keystore_rekey_begin(ks, ks_path, envelope, sizeof(envelope));
}

static enum keystore_status
do_rekey_pending(keystore *ks)
{
	uint8_t		found[KEYSTORE_ENVELOPE_LEN];
	bool		pending = false;
	enum keystore_status status = keystore_rekey_pending(ks, ks_path, found, &pending);

	if (status == KEYSTORE_OK && !pending)
	{
		failing = CALL_NONE;	/* or the message could not be made */
		ck_abort_msg("a fault hides that a rekey is pending");
	}
	return status;
}

static enum keystore_status
do_rekey_end(keystore *ks)
{
	return keystore_rekey_end(ks, ks_path);
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

enum keystore_status
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
enum keystore_status
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
	assert_ok(ahead, keystore_open_like(ahead, ks));
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

/* Rekeyed, and not stored. */
static void
prepare_interrupted(keystore *ks)
{
	assert_ok(ks, do_rekey(ks));
	assert_ok(ks, keystore_rekey_begin(ks, ks_path, envelope, sizeof(envelope)));
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
	static uint8_t bytes[8192];
	static size_t len;
	uint8_t    *buf;

	if (len == 0)
	{
		assert_ok(ks, keystore_change_slot(ks, 1, PASS, strlen(PASS), &pbkdf2));
		assert_ok(ks, keystore_serialize(ks, &buf, &len));
		ck_assert_uint_le(len, sizeof(bytes));
		memcpy(bytes, buf, len);
		free(buf);
	}
	assert_ok(ks, keystore_load_bytes(ks, bytes, len, "a keystore of before"));
	assert_ok(ks, keystore_open_ksk(ks, first_ksk));
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
	assert_ok(ahead, keystore_open_like(ahead, ks));
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

const struct scenario scenarios[] =
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
	{"rekey_begin", prepare_rekeyed, do_rekey_begin, true, 0},
	{"rekey_pending", prepare_interrupted, do_rekey_pending, true, 0},
	{"rekey_end", prepare_interrupted, do_rekey_end, true, 0},
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

const int	scenario_count = (int) (sizeof(scenarios) / sizeof(scenarios[0]));

void
assert_sound(const char *what)
{
	keystore   *ks = keystore_new();
	enum keystore_status status = keystore_load(ks, ks_path);

	if (status == KEYSTORE_OK && getenv("PGX_MEMCHECK") != NULL)
		status = keystore_open_ksk(ks, first_ksk);
	else if (status == KEYSTORE_OK)
		status = keystore_open_passphrase(ks, PASS, strlen(PASS));
	ck_assert_msg(status == KEYSTORE_OK && keystore_get_generation(ks) >= 1 &&
				  keystore_get_generation(ks) <= 2 &&
				  keystore_key_count(ks) == keystore_get_generation(ks), "%s: %s", what,
				  keystore_errmsg(ks));
	keystore_free(&ks);
}

/* ---- fixtures ------------------------------------------------------------------------ */

/* The secret's directory is beside the files of the keystore, and counted above. */
void
faults_setup(void)
{
	ks_setup();
	snprintf(backups, sizeof(backups), "%s.backups", ks_dir);
	snprintf(credential_dir, sizeof(credential_dir), "%s.credentials", ks_dir);
	ck_assert_int_eq(mkdir(backups, 0700), 0);
	ck_assert_int_eq(mkdir(credential_dir, 0700), 0);
	snprintf(secret_path, sizeof(secret_path), "%s/home/secret", ks_dir);
}

void
faults_teardown(void)
{
	ks_teardown();
	snprintf(ks_dir, sizeof(ks_dir), "%.255s", backups);
	ks_teardown();
	snprintf(ks_dir, sizeof(ks_dir), "%.255s", credential_dir);
	ks_teardown();
}
