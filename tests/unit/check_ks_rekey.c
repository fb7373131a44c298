/*
 * check_ks_rekey.c
 *		A new KSK: who keeps a way in, who follows, and what still opens afterwards.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ks_common.h"

static keystore *
from_bytes(const uint8_t *buf, size_t len)
{
	keystore   *ks = keystore_new();

	ck_assert_ptr_nonnull(ks);
	assert_ok(ks, keystore_load_bytes(ks, buf, len, "K"));
	return ks;
}

/* What another server has: the same bytes, open. */
static keystore *
copy_of(keystore *ks)
{
	keystore   *copy;
	uint8_t    *buf;
	size_t		len;

	assert_ok(ks, keystore_serialize(ks, &buf, &len));
	copy = from_bytes(buf, len);
	assert_ok(copy, keystore_open_like(copy, ks));
	free(buf);
	return copy;
}

struct rekeyed
{
	uint8_t		envelope[KEYSTORE_ENVELOPE_LEN];
	struct keystore_slot_info dropped[KEYSTORE_MAX_SLOTS];
	size_t		dropped_count;
	uint8_t    *buf;
	size_t		len;
};

static void
rekey(keystore *ks, struct rekeyed *r)
{
	const struct keystore_passphrase pass = {PASS, strlen(PASS)};

	assert_ok(ks, keystore_rekey(ks, &pass, 1, r->envelope, r->dropped, &r->dropped_count));
	assert_ok(ks, keystore_serialize(ks, &r->buf, &r->len));
}

static bool
opens(keystore *ks, const char *pass)
{
	keystore   *copy;
	uint8_t    *buf;
	size_t		len;
	bool		result;

	assert_ok(ks, keystore_serialize(ks, &buf, &len));
	copy = from_bytes(buf, len);
	result = keystore_open_passphrase(copy, pass, strlen(pass)) == KEYSTORE_OK;
	free(buf);
	keystore_free(&copy);
	return result;
}

static bool
same_ksk(keystore *a, keystore *b)
{
	uint8_t		x[KEYSTORE_KEY_LEN],
				y[KEYSTORE_KEY_LEN];

	assert_ok(a, keystore_get_ksk(a, x));
	assert_ok(b, keystore_get_ksk(b, y));
	return memcmp(x, y, sizeof(x)) == 0;
}

static bool
same_bytes(keystore *ks, const uint8_t *want, size_t want_len)
{
	uint8_t    *buf;
	size_t		len;
	bool		same;

	assert_ok(ks, keystore_serialize(ks, &buf, &len));
	same = len == want_len && memcmp(buf, want, len) == 0;
	free(buf);
	return same;
}

/* ---- making one ---------------------------------------------------------------------- */

START_TEST(test_rekey)
{
	keystore   *ks = ks_make();
	keystore   *before;
	char		recovery[KEYSTORE_RECOVERY_STRLEN + 1];
	struct keystore_passphrase passphrases[] = {
		{PASS, strlen(PASS)}, {recovery, KEYSTORE_RECOVERY_STRLEN}
	};
	struct keystore_slot_info info;
	uint8_t		envelope[KEYSTORE_ENVELOPE_LEN];
	struct keystore_slot_info dropped[KEYSTORE_MAX_SLOTS];
	size_t		count = 99;
	uint32_t	id = 0;
	uint8_t		key[2][KEYSTORE_KEY_LEN];

	assert_ok(ks, keystore_add_passphrase(ks, PASS2, strlen(PASS2), "the leaver", &ks_cheap, &id));
	assert_ok(ks, keystore_add_recovery_key(ks, "safe", &ks_cheap, recovery, &id));
	before = copy_of(ks);
	assert_ok(ks, keystore_rekey(ks, passphrases, 2, envelope, dropped, &count));
	ck_assert_uint_eq(count, 1);
	ck_assert_uint_eq(dropped[0].id, 2);
	ck_assert_str_eq(dropped[0].label, "the leaver");
	ck_assert_uint_eq(keystore_get_generation(ks), keystore_get_generation(before) + 1);
	ck_assert(!same_ksk(ks, before));
	ck_assert(opens(ks, PASS));
	ck_assert(opens(ks, recovery));
	ck_assert(!opens(ks, PASS2));
	ck_assert_uint_eq(keystore_slot_count(ks), 2);
	assert_ok(ks, keystore_get_slot(ks, 1, &info));
	ck_assert_uint_eq(info.id, 3);
	ck_assert_int_eq(info.kind, KEYSTORE_SLOT_RECOVERY);
	ck_assert_str_eq(info.label, "safe");

	/* Master keys are what they were. */
	assert_ok(ks, keystore_get_master_key(ks, 1, key[0]));
	assert_ok(before, keystore_get_master_key(before, 1, key[1]));
	ck_assert_mem_eq(key[0], key[1], KEYSTORE_KEY_LEN);
	ck_assert_uint_eq(keystore_active_key(ks), 1);
	keystore_free(&before);
	keystore_free(&ks);
}
END_TEST

START_TEST(test_rekey_refused)
{
	keystore   *ks = ks_make();
	const struct keystore_passphrase wrong[] = {{PASS, strlen(PASS)}, {PASS2, strlen(PASS2)}};
	struct rekeyed r = {.dropped_count = 99};
	uint8_t    *before;
	size_t		len;

	assert_ok(ks, keystore_serialize(ks, &before, &len));
	assert_fails(ks, keystore_rekey(ks, wrong, 0, r.envelope, r.dropped, &r.dropped_count),
				 KEYSTORE_EINVAL, "no passphrase was given for the rekeyed keystore");
	assert_fails(ks, keystore_rekey(ks, wrong, 2, r.envelope, r.dropped, &r.dropped_count),
				 KEYSTORE_EPASSPHRASE, "could not open keystore \"keystore.ks\": passphrase is wrong");
	ck_assert_uint_eq(r.dropped_count, 99);
	ck_assert(same_bytes(ks, before, len));
	ck_assert(keystore_is_open(ks));
	free(before);
	keystore_free(&ks);
}
END_TEST

/* The FIPS policy, and a cost below what new slots need, survive. */
START_TEST(test_rekey_keeps_parameters)
{
	keystore   *ks = keystore_new();
	size_t		len;
	uint8_t    *buf = ks_read_data("v1.ks", &len);
	const struct keystore_passphrase pass = {PASS2, strlen(PASS2)};
	struct rekeyed r;
	struct keystore_slot_info info;

	assert_ok(ks, keystore_load_bytes(ks, buf, len, "v1.ks"));
	assert_ok(ks, keystore_open_passphrase(ks, PASS, strlen(PASS)));
	assert_ok(ks, keystore_rekey(ks, &pass, 1, r.envelope, r.dropped, &r.dropped_count));
	ck_assert_uint_eq(r.dropped_count, 2);
	ck_assert_str_eq(r.dropped[1].label, "of a later version");
	assert_ok(ks, keystore_get_slot(ks, 0, &info));
	ck_assert_uint_eq(info.kdf.cost, 1000);
	assert_ok(ks, keystore_set_fips(ks, true));
	assert_ok(ks, keystore_rekey(ks, &pass, 1, r.envelope, r.dropped, &r.dropped_count));
	ck_assert(keystore_get_fips(ks));
	ck_assert(opens(ks, PASS2));
	free(buf);
	keystore_free(&ks);
}
END_TEST

/* ---- following -------------------------------------------------------------------------- */

START_TEST(test_follow)
{
	keystore   *primary = ks_make();
	keystore   *standby = copy_of(primary);
	keystore   *other = ks_make();
	struct rekeyed r;

	rekey(primary, &r);
	assert_ok(standby, keystore_apply_rekey(standby, r.buf, r.len, r.envelope,
											sizeof(r.envelope)));
	ck_assert(same_bytes(standby, r.buf, r.len));
	ck_assert(same_ksk(standby, primary));
	ck_assert(keystore_is_open(standby));

	/* Again, and without the envelope: nothing changes. */
	assert_ok(standby, keystore_apply_rekey(standby, r.buf, r.len, r.envelope,
											sizeof(r.envelope)));
	assert_ok(standby, keystore_apply_rekey(standby, r.buf, r.len, NULL, 0));
	ck_assert(same_bytes(standby, r.buf, r.len));

	assert_fails(other, keystore_apply_rekey(other, r.buf, r.len, r.envelope, sizeof(r.envelope)),
				 KEYSTORE_ECONFLICT, "what is to replace keystore \"keystore.ks\" is another keystore");
	free(r.buf);
	keystore_free(&primary);
	keystore_free(&standby);
	keystore_free(&other);
}
END_TEST

/* A standby that was away for two rekeys and a rotation follows step by step, and any number of times. */
START_TEST(test_follow_chain)
{
	keystore   *primary = ks_make();
	keystore   *standby = copy_of(primary);
	struct rekeyed first,
				second;
	uint32_t	id = 0;
	uint8_t    *rotated;
	size_t		rotated_len;
	size_t		added = 99;

	rekey(primary, &first);
	assert_ok(primary, keystore_add_master_key(primary, "between", &id));
	assert_ok(primary, keystore_serialize(primary, &rotated, &rotated_len));
	rekey(primary, &second);
	assert_fails(standby, keystore_apply_rekey(standby, second.buf, second.len, second.envelope,
											   sizeof(second.envelope)), KEYSTORE_EWRONGKEY,
				 "keystore \"K\" does not have the key that the rekey envelope was made from");
	assert_fails(standby, keystore_apply_rekey(standby, rotated, rotated_len, NULL, 0),
				 KEYSTORE_EWRONGKEY,
				 "could not open keystore \"K\": the key belongs to another keystore, or the keystore was altered");
	for (int again = 0; again < 2; again++)
	{
		assert_ok(standby, keystore_apply_rekey(standby, first.buf, first.len, first.envelope,
												sizeof(first.envelope)));
		assert_ok(standby, keystore_apply_rekey(standby, rotated, rotated_len, NULL, 0));
		assert_ok(standby, keystore_apply_rekey(standby, second.buf, second.len, second.envelope,
												sizeof(second.envelope)));
		ck_assert(same_bytes(standby, second.buf, second.len));
		ck_assert(same_ksk(standby, primary));
	}
	ck_assert_uint_eq(standby->history.former_count, 2);
	assert_ok(standby, keystore_merge(standby, primary, &added));
	ck_assert_uint_eq(added, 0);
	free(first.buf);
	free(second.buf);
	free(rotated);
	keystore_free(&primary);
	keystore_free(&standby);
}
END_TEST

/* A key that only the standby has (it was a primary once) is not lost when it follows. */
START_TEST(test_follow_diverged)
{
	keystore   *primary = ks_make();
	keystore   *standby = copy_of(primary);
	struct keystore_key_info info;
	struct rekeyed r;
	uint32_t	id = 0;
	uint8_t		lost[KEYSTORE_KEY_LEN],
				key[KEYSTORE_KEY_LEN];

	assert_ok(standby, keystore_add_master_key(standby, "of the lost timeline", &id));
	assert_ok(standby, keystore_get_master_key(standby, 2, lost));
	assert_ok(primary, keystore_add_master_key(primary, "of the new one", &id));
	rekey(primary, &r);
	assert_ok(standby, keystore_apply_rekey(standby, r.buf, r.len, r.envelope,
											sizeof(r.envelope)));
	ck_assert(same_ksk(standby, primary));
	ck_assert_uint_eq(keystore_active_key(standby), 2);
	assert_ok(standby, keystore_get_master_key(standby, 3, key));
	ck_assert_mem_eq(key, lost, sizeof(key));
	assert_ok(standby, keystore_get_key_info(standby, 2, &info));
	ck_assert_int_eq(info.state, KEYSTORE_KEY_RETIRED);
	ck_assert(opens(standby, PASS));
	free(r.buf);
	keystore_free(&primary);
	keystore_free(&standby);
}
END_TEST

/* What the standby did by itself, as a primary whose last changes were lost; how many generations that is. */
static const struct
{
	const char *what;
	bool		rekeyed;
	int			rotations;
}			lost_changes[] =
{
	{"a rekey, the same generation", true, 0},
	{"a rekey and more", true, 3},
	{"keys only, later generation", false, 3},
};

/* The side whose rekey comes rules, whatever the generations say; and who follows can do so again. */
START_TEST(test_follow_own_way)
{
	keystore   *primary = ks_make();
	keystore   *standby = copy_of(primary);
	struct rekeyed lost,
				r;
	uint32_t	id = 0;
	uint8_t		key[KEYSTORE_KEY_LEN];

	if (lost_changes[_i].rekeyed)
	{
		rekey(standby, &lost);
		free(lost.buf);
	}
	for (int i = 0; i < lost_changes[_i].rotations; i++)
		assert_ok(standby, keystore_add_master_key(standby, "of the lost timeline", &id));
	assert_ok(primary, keystore_change_passphrase(primary, PASS, strlen(PASS), PASS, strlen(PASS),
												  &ks_cheap));
	assert_ok(standby, keystore_change_passphrase(standby, PASS, strlen(PASS), PASS2,
												  strlen(PASS2), &ks_cheap));
	rekey(primary, &r);
	if (lost_changes[_i].rekeyed && lost_changes[_i].rotations == 0)
		ck_assert_uint_eq(keystore_get_generation(standby), keystore_get_generation(primary));
	for (int again = 0; again < 2; again++)
	{
		assert_ok(standby, keystore_apply_rekey(standby, r.buf, r.len, r.envelope,
												sizeof(r.envelope)));
		ck_assert(same_ksk(standby, primary));
		ck_assert(opens(standby, PASS));
		ck_assert(!opens(standby, PASS2));
		ck_assert_uint_eq(keystore_get_generation(standby), keystore_get_generation(primary));
		ck_assert_uint_eq(keystore_active_key(standby), 1);
		ck_assert_uint_eq(keystore_key_count(standby), 1 + (size_t) lost_changes[_i].rotations);
		if (lost_changes[_i].rotations > 0)
			assert_ok(standby, keystore_get_master_key(standby, id, key));
	}
	ck_assert(lost_changes[_i].rotations > 0 || same_bytes(standby, r.buf, r.len));
	free(r.buf);
	keystore_free(&primary);
	keystore_free(&standby);
}
END_TEST

/* The same where only the lost side was rekeyed: its former key opens what comes, without an envelope. */
START_TEST(test_give_up_rekey)
{
	keystore   *primary = ks_make();
	keystore   *standby = copy_of(primary);
	struct rekeyed lost;
	uint8_t    *buf;
	size_t		len;

	rekey(standby, &lost);
	assert_ok(primary, keystore_change_passphrase(primary, PASS, strlen(PASS), PASS, strlen(PASS),
												  &ks_cheap));
	assert_ok(primary, keystore_serialize(primary, &buf, &len));
	assert_ok(standby, keystore_apply_rekey(standby, buf, len, NULL, 0));
	ck_assert(same_bytes(standby, buf, len));
	ck_assert(same_ksk(standby, primary));

	/* But what is older than a rekey that was followed gives nothing up. */
	free(lost.buf);
	rekey(primary, &lost);
	assert_ok(primary, keystore_apply_rekey(primary, buf, len, NULL, 0));
	ck_assert(same_bytes(primary, lost.buf, lost.len));
	free(lost.buf);
	free(buf);
	keystore_free(&primary);
	keystore_free(&standby);
}
END_TEST

/*
 * The side that was lost has the higher generation.  That the other one changed something under the former KSK, later than the
 * rekey, is proof all the same; what was changed before is none.
 */
START_TEST(test_rekey_lost)
{
	keystore   *lost = ks_make();
	keystore   *kept = copy_of(lost);
	keystore   *before;
	struct rekeyed r;
	uint8_t    *buf;
	size_t		len;
	uint32_t	id;

	assert_ok(lost, keystore_add_master_key(lost, "before", &id));
	before = copy_of(lost);
	rekey(lost, &r);
	for (int i = 0; i < 3; i++)
		assert_ok(lost, keystore_set_slot_label(lost, 1, "lost"));
	ck_assert(!keystore_rekey_lost(lost, kept));
	ck_assert(!keystore_rekey_lost(lost, before));
	ck_assert(!keystore_rekey_lost(lost, lost));

	sleep(2);					/* times are in seconds */
	assert_ok(kept, keystore_set_slot_label(kept, 1, "kept"));
	ck_assert_uint_lt(keystore_get_generation(kept), keystore_get_generation(lost));
	ck_assert(keystore_rekey_lost(lost, kept));
	ck_assert(!keystore_rekey_lost(kept, lost));
	assert_ok(kept, keystore_serialize(kept, &buf, &len));
	assert_ok(lost, keystore_apply_rekey(lost, buf, len, NULL, 0));
	ck_assert(same_ksk(lost, kept));
	ck_assert_uint_eq(keystore_key_count(lost), 2);
	ck_assert_uint_eq(keystore_active_key(lost), 1);
	ck_assert_uint_eq(keystore_get_generation(lost), keystore_get_generation(kept));
	free(buf);
	free(r.buf);
	keystore_close(before);
	ck_assert(!keystore_rekey_lost(lost, before));
	keystore_free(&before);
	keystore_free(&lost);
	keystore_free(&kept);
}
END_TEST

/* A client whose clock is behind the server's makes no change that is earlier than the one before it. */
START_TEST(test_clocks)
{
	keystore   *server = ks_make();
	keystore   *client;
	struct rekeyed r;
	uint32_t	id;
	const int64_t ahead = server->header.changed + 86400;

	server->header.changed = ahead;
	assert_ok(server, keystore_add_master_key(server, "ahead", &id));
	ck_assert_int_eq(server->header.changed, ahead);
	client = copy_of(server);
	rekey(client, &r);
	ck_assert_int_eq(client->header.changed, ahead);
	ck_assert(!keystore_rekey_lost(client, server));
	assert_ok(client, keystore_set_slot_label(client, 1, "label"));
	ck_assert_int_eq(client->header.changed, ahead);
	assert_ok(client, keystore_set_key_label(client, 1, "label"));
	ck_assert_int_eq(client->header.changed, ahead);
	assert_ok(client, keystore_change_passphrase(client, PASS, strlen(PASS), PASS2, strlen(PASS2), &ks_cheap));
	ck_assert_int_eq(client->header.changed, ahead);
	free(r.buf);
	keystore_free(&client);
	keystore_free(&server);
}
END_TEST

START_TEST(test_open_rekeyed)
{
	keystore   *ks = ks_make();
	keystore   *file;
	struct rekeyed r,
				second;
	uint8_t		former[KEYSTORE_KEY_LEN],
				other[KEYSTORE_KEY_LEN] = {1};

	assert_ok(ks, keystore_get_ksk(ks, former));
	rekey(ks, &r);
	rekey(ks, &second);
	file = from_bytes(r.buf, r.len);
	assert_fails(file, keystore_open_rekeyed(file, other, r.envelope, sizeof(r.envelope)), KEYSTORE_EWRONGKEY,
				 "keystore \"K\" does not have the key that the rekey envelope was made from");
	ck_assert_str_eq(keystore_errhint(file), "Copy the keystore from the server that was rekeyed.");
	assert_fails(file, keystore_open_rekeyed(file, former, second.envelope, sizeof(second.envelope)),
				 KEYSTORE_EWRONGKEY,
				 "keystore \"K\" does not have the key that the rekey envelope was made from");
	assert_fails(file, keystore_open_rekeyed(file, former, r.envelope, sizeof(r.envelope) - 1), KEYSTORE_EDAMAGED,
				 "rekey envelope is corrupted: size = 131 bytes, expected size = 132 bytes");
	r.envelope[KEYSTORE_ENVELOPE_LEN - 1] ^= 1;
	assert_fails(file, keystore_open_rekeyed(file, former, r.envelope, sizeof(r.envelope)), KEYSTORE_EDAMAGED,
				 "rekey envelope is corrupted: its content was altered");
	r.envelope[KEYSTORE_ENVELOPE_LEN - 1] ^= 1;
	ck_assert(!keystore_is_open(file));
	assert_ok(file, keystore_open_rekeyed(file, former, r.envelope, sizeof(r.envelope)));
	ck_assert(keystore_is_open(file));
	ck_assert(same_bytes(file, r.buf, r.len));
	keystore_free(&file);

	/* A file of one rekey later is under another key than the envelope's. */
	file = from_bytes(second.buf, second.len);
	assert_fails(file, keystore_open_rekeyed(file, former, r.envelope, sizeof(r.envelope)), KEYSTORE_EWRONGKEY,
				 "could not open keystore \"K\": the key belongs to another keystore, or the keystore was altered");
	keystore_free(&file);
	free(r.buf);
	free(second.buf);
	keystore_free(&ks);
}
END_TEST

/* ---- what still opens ---------------------------------------------------------------------- */

START_TEST(test_older_things_open)
{
	keystore   *ks = ks_make();
	keystore   *before = copy_of(ks);
	keystore   *old;
	struct rekeyed r;
	uint8_t    *ring,
			   *bytes;
	size_t		ring_len,
				len;
	uint32_t	id = 0;
	size_t		added = 99;

	/* A data directory and a file from before two rekeys, with a key that today's keystore lacks. */
	assert_ok(before, keystore_add_master_key(before, "only there", &id));
	assert_ok(before, keystore_export_ring(before, &ring, &ring_len));
	assert_ok(before, keystore_serialize(before, &bytes, &len));
	rekey(ks, &r);
	free(r.buf);
	rekey(ks, &r);
	free(r.buf);

	old = from_bytes(bytes, len);
	assert_ok(old, keystore_open_like(old, ks));
	ck_assert_uint_eq(keystore_key_count(old), 2);
	assert_ok(ks, keystore_merge(ks, old, &added));
	ck_assert_uint_eq(added, 1);
	ck_assert_uint_eq(keystore_key_count(ks), 2);
	assert_ok(ks, keystore_import_ring(ks, ring, ring_len, &added));
	ck_assert_uint_eq(added, 0);
	keystore_free(&old);

	/* And what is newer does not open with what is older, and the message says why. */
	free(ring);
	assert_ok(ks, keystore_export_ring(ks, &ring, &ring_len));
	assert_fails(before, keystore_import_ring(before, ring, ring_len, &added), KEYSTORE_EWRONGKEY,
				 "the key ring was made after keystore \"K\" was rekeyed elsewhere");
	assert_fails(before, keystore_merge(before, ks, &added), KEYSTORE_EWRONGKEY,
				 "keystores \"K\" and \"keystore.ks\" have different keys");
	keystore_close(before);
	assert_fails(ks, keystore_open_like(ks, before), KEYSTORE_EINVAL,
				 "the other keystore is not open");
	free(ring);
	free(bytes);
	keystore_free(&ks);
	keystore_free(&before);
}
END_TEST

/* So many that the first ones are forgotten, never more than the format allows. */
START_TEST(test_many)
{
	keystore   *ks = ks_make();
	keystore   *first = copy_of(ks);
	uint8_t    *bytes;
	size_t		len;
	struct rekeyed r;

	assert_ok(first, keystore_serialize(first, &bytes, &len));
	for (int i = 0; i < KSI_MAX_FORMER + 2; i++)
	{
		rekey(ks, &r);
		free(r.buf);
		ck_assert(opens(ks, PASS));
		keystore_free(&first);
		first = from_bytes(bytes, len);
		assert_status(first, keystore_open_like(first, ks),
					  i < KSI_MAX_FORMER ? KEYSTORE_OK : KEYSTORE_EWRONGKEY);
	}
	ck_assert_uint_eq(ks->history.former_count, KSI_MAX_FORMER);
	free(bytes);
	keystore_free(&first);
	keystore_free(&ks);
}
END_TEST

/* ---- damage --------------------------------------------------------------------------------- */

START_TEST(test_envelope_damage)
{
	keystore   *primary = ks_make();
	keystore   *standby = copy_of(primary);
	uint8_t    *before;
	size_t		len;
	struct rekeyed r;

	rekey(primary, &r);
	assert_ok(standby, keystore_serialize(standby, &before, &len));
	for (size_t i = 0; i < KEYSTORE_ENVELOPE_LEN; i++)
	{
		enum keystore_status status;

		for (int bit = 0; bit < 8; bit++)
		{
			r.envelope[i] ^= (uint8_t) (1 << bit);
			status = keystore_apply_rekey(standby, r.buf, r.len, r.envelope, sizeof(r.envelope));
			ck_assert_msg(status == (i < 8 ? KEYSTORE_EFORMAT : i < 16 ? KEYSTORE_EVERSION :
									 i < 32 ? KEYSTORE_ECONFLICT : i < 40 ? KEYSTORE_EDAMAGED :
									 i < 56 ? KEYSTORE_EWRONGKEY : KEYSTORE_EDAMAGED),
						  "byte %zu: status %d: %s", i, (int) status, keystore_errmsg(standby));
			r.envelope[i] ^= (uint8_t) (1 << bit);
		}
	}
	for (size_t cut = 0; cut < KEYSTORE_ENVELOPE_LEN; cut++)
		assert_status(standby, keystore_apply_rekey(standby, r.buf, r.len, r.envelope, cut),
					  KEYSTORE_EDAMAGED);
	ck_assert(same_bytes(standby, before, len));
	ck_assert(opens(standby, PASS));

	/* The right envelope with another file. */
	assert_fails(standby, keystore_apply_rekey(standby, before, len, r.envelope,
											   sizeof(r.envelope)), KEYSTORE_EWRONGKEY,
				 "could not open keystore \"K\": the key belongs to another keystore, or the keystore was altered");
	assert_status(standby, keystore_apply_rekey(standby, r.buf, r.len - 1, r.envelope,
												sizeof(r.envelope)), KEYSTORE_EDAMAGED);
	free(before);
	free(r.buf);
	keystore_free(&primary);
	keystore_free(&standby);
}
END_TEST

int
main(void)
{
	Suite	   *suite = suite_create("rekey");
	TCase	   *tc = ks_tcase("rekey");

	tcase_add_test(tc, test_rekey);
	tcase_add_test(tc, test_rekey_refused);
	tcase_add_test(tc, test_rekey_keeps_parameters);
	tcase_add_test(tc, test_many);
	suite_add_tcase(suite, tc);
	tc = ks_tcase("follow");
	tcase_add_test(tc, test_follow);
	tcase_add_test(tc, test_follow_chain);
	tcase_add_test(tc, test_follow_diverged);
	tcase_add_loop_test(tc, test_follow_own_way, 0,
						(int) (sizeof(lost_changes) / sizeof(lost_changes[0])));
	tcase_add_test(tc, test_give_up_rekey);
	tcase_add_test(tc, test_rekey_lost);
	tcase_add_test(tc, test_clocks);
	tcase_add_test(tc, test_open_rekeyed);
	tcase_add_test(tc, test_older_things_open);
	tcase_add_test(tc, test_envelope_damage);
	suite_add_tcase(suite, tc);
	return ks_run(suite);
}
