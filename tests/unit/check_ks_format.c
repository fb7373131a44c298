/*
 * check_ks_format.c
 *		The file's bytes: a file computed elsewhere opens, a damaged one never does.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "ks_common.h"

/* Offsets of keystore.ks(5), for a file with one passphrase slot and one key. */
#define FMT_VERSION		8
#define FLAGS			10
#define HEADER_LEN		12
#define UUID			16
#define GENERATION		32
#define CHANGED			40
#define BODY_LEN		48
#define SLOT_COUNT		52
#define KSK_IDENTITY	56
#define SLOT			72
#define SLOT_V1			56
#define SLOT_KIND		(SLOT + 8)
#define SLOT_FLAGS		(SLOT + 10)
#define SLOT_LABEL		(SLOT + 20)
#define SLOT_KDF		(SLOT + 84)
#define SLOT_COST		(SLOT + 88)
#define SLOT_SALT		(SLOT + 104)
#define SLOT_WRAPPED	(SLOT + 148)
#define BODY_IV			(SLOT + 196)
#define BODY			(BODY_IV + 12)
#define BODY_LENGTH		(4 + 224 + 4)
#define BODY_TAG		(BODY + BODY_LENGTH)
#define DIGEST			(BODY_TAG + 16)
#define FILE_LEN		(DIGEST + 32)

/* ---- a file computed by tests/data/keystore/make_keystore.py -------------------- */

START_TEST(test_known_file)
{
	static const char *const passphrases[] = {"correct horse", "battery staple"};
	keystore   *ks = keystore_new();
	size_t		len;
	uint8_t    *buf = ks_read_data("v1.ks", &len);
	uint8_t    *back;
	size_t		back_len;
	uint8_t		uuid[KEYSTORE_UUID_LEN];
	char		text[KEYSTORE_UUID_STRLEN + 1];
	uint8_t		key[KEYSTORE_KEY_LEN];
	struct keystore_key_info info;
	struct keystore_slot_info slot;

	assert_ok(ks, keystore_load_bytes(ks, buf, len, "v1.ks"));
	ck_assert(!keystore_is_open(ks));
	keystore_get_uuid(ks, uuid);
	keystore_uuid_text(uuid, text);
	ck_assert_str_eq(text, "00112233-4455-4677-8899-aabbccddeeff");
	ck_assert_uint_eq(keystore_get_generation(ks), 7);
	ck_assert_int_eq(keystore_get_changed(ks), 1700000300);

	ck_assert_uint_eq(keystore_slot_count(ks), 3);
	assert_ok(ks, keystore_get_slot(ks, 0, &slot));
	ck_assert_uint_eq(slot.id, 1);
	ck_assert_int_eq(slot.kind, KEYSTORE_SLOT_PASSPHRASE);
	ck_assert_str_eq(slot.label, "passphrase");
	ck_assert_int_eq(slot.kdf.kdf, KEYSTORE_KDF_SCRYPT);
	ck_assert_uint_eq(slot.kdf.cost, 10);
	ck_assert_uint_eq(slot.kdf.block_size, 8);
	ck_assert_uint_eq(slot.kdf.parallelism, 1);
	ck_assert_int_eq(slot.created, 1700000001);
	assert_ok(ks, keystore_get_slot(ks, 1, &slot));
	ck_assert_uint_eq(slot.id, 9);
	ck_assert_int_eq((int) slot.kind, 0x7777);
	ck_assert_str_eq(slot.label, "of a later version");
	assert_ok(ks, keystore_get_slot(ks, 2, &slot));
	ck_assert_uint_eq(slot.id, 4);
	ck_assert_int_eq(slot.kdf.kdf, KEYSTORE_KDF_PBKDF2_SHA512);
	ck_assert_uint_eq(slot.kdf.cost, 1000);

	for (int i = 0; i < 2; i++)
	{
		keystore_close(ks);
		assert_ok(ks, keystore_open_passphrase(ks, passphrases[i], strlen(passphrases[i])));
		ck_assert_uint_eq(keystore_key_count(ks), 3);
		ck_assert_uint_eq(keystore_active_key(ks), 5);
		assert_ok(ks, keystore_get_ksk(ks, key));
		for (int j = 0; j < KEYSTORE_KEY_LEN; j++)
			ck_assert_uint_eq(key[j], 0x40 + j);
		assert_ok(ks, keystore_get_master_key(ks, 5, key));
		for (int j = 0; j < KEYSTORE_KEY_LEN; j++)
			ck_assert_uint_eq(key[j], 0xc0 + j);
		assert_ok(ks, keystore_get_master_key(ks, 2, key));
		ck_assert_uint_eq(key[0], 0x80);
		assert_fails(ks, keystore_get_master_key(ks, 1, key), KEYSTORE_ENOKEY,
					 "could not open keystore \"v1.ks\": necessary master encryption key does not exist in the keystore");
	}
	assert_ok(ks, keystore_get_key_info(ks, 0, &info));
	ck_assert_int_eq(info.state, KEYSTORE_KEY_DESTROYED);
	ck_assert_int_eq(info.retired, 1700000100);
	assert_ok(ks, keystore_get_key_info(ks, 2, &info));
	ck_assert_uint_eq(info.id, 5);
	ck_assert_int_eq(info.state, KEYSTORE_KEY_ACTIVE);
	ck_assert_int_eq(info.created, 1700000200);
	ck_assert_int_eq(info.activated, 1700000200);
	ck_assert_int_eq(info.retired, 0);
	ck_assert_str_eq(info.origin, "recipe, third");

	/* Opened or not, what was loaded is stored again byte for byte. */
	assert_ok(ks, keystore_serialize(ks, &back, &back_len));
	ck_assert_uint_eq(back_len, len);
	ck_assert_mem_eq(back, buf, len);
	free(back);
	free(buf);
	keystore_free(&ks);
}
END_TEST

/* A slot that we cannot read survives our changes, in its place. */
START_TEST(test_unknown_slot_is_kept)
{
	keystore   *ks = keystore_new();
	size_t		len;
	uint8_t    *buf = ks_read_data("v1.ks", &len);
	uint8_t    *changed;
	size_t		changed_len;
	uint32_t	id;

	assert_ok(ks, keystore_load_bytes(ks, buf, len, "v1.ks"));
	assert_ok(ks, keystore_open_passphrase(ks, PASS, strlen(PASS)));
	assert_ok(ks, keystore_add_master_key(ks, "test", &id));
	ck_assert_uint_eq(id, 6);
	assert_ok(ks, keystore_serialize(ks, &changed, &changed_len));
	/* Of version 2 now, with one key more, and the slots are what they were. */
	ck_assert_uint_eq(changed_len, len + 16 + (4 * 224 + 4) - 3 * 128);
	ck_assert_mem_eq(changed + SLOT, buf + SLOT_V1, 196 + 100 + 196);
	assert_ok(ks, keystore_load_bytes(ks, changed, changed_len, "v1.ks"));
	assert_ok(ks, keystore_open_passphrase(ks, PASS2, strlen(PASS2)));
	ck_assert_uint_eq(keystore_key_count(ks), 4);
	free(changed);
	free(buf);
	keystore_free(&ks);
}
END_TEST

START_TEST(test_known_ring)
{
	keystore   *ks = keystore_new();
	size_t		len,
				ring_len;
	uint8_t    *buf = ks_read_data("v1.ks", &len);
	uint8_t    *ring = ks_read_data("v1.ring", &ring_len);
	uint8_t		key[KEYSTORE_KEY_LEN];
	size_t		added = 99;

	assert_ok(ks, keystore_load_bytes(ks, buf, len, "v1.ks"));
	assert_ok(ks, keystore_open_passphrase(ks, PASS, strlen(PASS)));
	assert_ok(ks, keystore_import_ring(ks, ring, ring_len, &added));
	ck_assert_uint_eq(added, 1);
	ck_assert_uint_eq(keystore_active_key(ks), 6);
	assert_ok(ks, keystore_get_master_key(ks, 6, key));
	ck_assert_uint_eq(key[31], 0xff);
	free(buf);
	free(ring);
	keystore_free(&ks);
}
END_TEST

/* ---- the damage table -------------------------------------------------------------- */

struct damage
{
	const char *name;
	size_t		offset;
	const char *bytes;			/* what is put there */
	size_t		count;
	bool		redigest;		/* by one who knows the format */
	enum keystore_status status;	/* of load, else of open */
	const char *message;
};

#define CORRUPTED(what) "keystore \"K\" is corrupted: " what
#define WRONG			"could not open keystore \"K\": passphrase is wrong"
#define ALTERED			CORRUPTED("its content was altered")
#define BYTES(s)		s, sizeof(s) - 1

static const struct damage damages[] = {
	{"magic", 0, BYTES("X"), true, KEYSTORE_EFORMAT, "file \"K\" is not a keystore"},
	{"magic's line end", 5, BYTES("\n\n"), true, KEYSTORE_EFORMAT, "file \"K\" is not a keystore"},
	{"version, by accident", FMT_VERSION, BYTES("\0\3"), false, KEYSTORE_EDAMAGED,
	CORRUPTED("invalid checksum")},
	{"version", FMT_VERSION, BYTES("\0\3"), true, KEYSTORE_EVERSION,
	"keystore \"K\" has format version 3, but only versions 1 and 2 are supported"},
	{"version zero", FMT_VERSION, BYTES("\0\0"), true, KEYSTORE_EVERSION,
	"keystore \"K\" has format version 0, but only versions 1 and 2 are supported"},
	{"older version", FMT_VERSION, BYTES("\0\1"), true, KEYSTORE_EDAMAGED,
	CORRUPTED("invalid length of the body")},
	{"flags", FLAGS, BYTES("\0\2"), true, KEYSTORE_EVERSION,
	"keystore \"K\" has flags that this version does not support"},
	{"FIPS policy over scrypt", FLAGS, BYTES("\0\1"), true, KEYSTORE_EDAMAGED,
	CORRUPTED("its FIPS policy forbids slot 1")},
	{"identity of the KSK", KSK_IDENTITY, BYTES("\0\0\0\0"), true, KEYSTORE_EDAMAGED, ALTERED},
	{"header length", HEADER_LEN, BYTES("\0\0\1\x0d"), true, KEYSTORE_EDAMAGED,
	CORRUPTED("size = 560 bytes, expected size = 561 bytes")},
	{"huge lengths", HEADER_LEN, BYTES("\xff\xff\xff\xff"), true, KEYSTORE_EDAMAGED,
	CORRUPTED("size = 560 bytes, expected size = 4294967587 bytes")},
	{"body length", BODY_LEN, BYTES("\0\0\0\xe9"), true, KEYSTORE_EDAMAGED,
	CORRUPTED("size = 560 bytes, expected size = 561 bytes")},
	{"generation", GENERATION, BYTES("\0\0\0\0\0\0\0\2"), true, KEYSTORE_EDAMAGED, ALTERED},
	{"time of change", CHANGED, BYTES("\0\1"), true, KEYSTORE_EDAMAGED, ALTERED},
	{"UUID", UUID, BYTES("\0\0\0\0"), true, KEYSTORE_EPASSPHRASE, WRONG},
	{"no slot", SLOT_COUNT, BYTES("\0\0\0\0"), true, KEYSTORE_EDAMAGED,
	CORRUPTED("invalid number of slots: 0")},
	{"one slot too many", SLOT_COUNT, BYTES("\0\0\0\2"), true, KEYSTORE_EDAMAGED,
	CORRUPTED("invalid length of a slot")},
	{"17 slots", SLOT_COUNT, BYTES("\0\0\0\x11"), true, KEYSTORE_EDAMAGED,
	CORRUPTED("invalid number of slots: 17")},
	{"slot length zero", SLOT, BYTES("\0\0\0\0"), true, KEYSTORE_EDAMAGED,
	CORRUPTED("invalid length of a slot")},
	{"slot length short", SLOT, BYTES("\0\0\0\xc3"), true, KEYSTORE_EDAMAGED,
	CORRUPTED("invalid length of slot 1")},
	{"slot length over the header's end", SLOT, BYTES("\0\0\0\xc5"), true, KEYSTORE_EDAMAGED,
	CORRUPTED("invalid length of a slot")},
	{"slot length huge", SLOT, BYTES("\xff\xff\xff\xff"), true, KEYSTORE_EDAMAGED,
	CORRUPTED("invalid length of a slot")},
	{"slot number zero", SLOT + 4, BYTES("\0\0\0\0"), true, KEYSTORE_EDAMAGED,
	CORRUPTED("slot number is zero")},
	{"slot number", SLOT + 4, BYTES("\0\0\0\2"), true, KEYSTORE_EPASSPHRASE, WRONG},
	{"unknown critical kind", SLOT_KIND, BYTES("\0\x09"), true, KEYSTORE_EVERSION,
	"keystore \"K\" has a slot of kind 9, which this version does not support"},
	{"unknown kind", SLOT_KIND, BYTES("\0\x09\0\0"), true, KEYSTORE_EPASSPHRASE, WRONG},
	{"unknown slot flag", SLOT_FLAGS, BYTES("\x80\1"), true, KEYSTORE_EVERSION,
	"keystore \"K\" has flags in slot 1 that this version does not support"},
	{"not critical", SLOT_FLAGS, BYTES("\0\0"), true, KEYSTORE_EPASSPHRASE, WRONG},
	{"label bound to the slot", SLOT_FLAGS, BYTES("\0\1"), true, KEYSTORE_EPASSPHRASE, WRONG},
	{"passphrase slot as recovery slot", SLOT_KIND, BYTES("\0\2"), true, KEYSTORE_EPASSPHRASE, WRONG},
	{"slot's time", SLOT + 12, BYTES("\1"), true, KEYSTORE_EPASSPHRASE, WRONG},
	{"label", SLOT_LABEL, BYTES("P"), true, KEYSTORE_EDAMAGED, ALTERED},
	{"label with control character", SLOT_LABEL, BYTES("\x1b[2J"), true, KEYSTORE_EDAMAGED,
	CORRUPTED("invalid label of slot 1")},
	{"label with something after its end", SLOT_LABEL + 63, BYTES("x"), true, KEYSTORE_EDAMAGED,
	CORRUPTED("invalid label of slot 1")},
	{"unknown KDF", SLOT_KDF, BYTES("\0\0\0\x4d"), true, KEYSTORE_EKDF,
	"passphrase-based key derivation failed: function number 77 is not known"},
	{"another KDF", SLOT_KDF, BYTES("\0\0\0\2"), true, KEYSTORE_EDAMAGED,
	CORRUPTED("slot 1: PBKDF2 iterations must be between 1000 and 10000000")},
	{"cost too low", SLOT_COST, BYTES("\0\0\0\x09"), true, KEYSTORE_EDAMAGED,
	CORRUPTED("slot 1: scrypt cost must be between 10 and 24")},
	{"cost too high", SLOT_COST, BYTES("\0\0\0\x19"), true, KEYSTORE_EDAMAGED,
	CORRUPTED("slot 1: scrypt cost must be between 10 and 24")},
	{"memory too much", SLOT_COST, BYTES("\0\0\0\x18"), true, KEYSTORE_EDAMAGED,
	CORRUPTED("slot 1: scrypt must not need more than 2 GB of memory")},
	{"cost", SLOT_COST, BYTES("\0\0\0\x0b"), true, KEYSTORE_EPASSPHRASE, WRONG},
	{"salt", SLOT_SALT, BYTES("\0\0\0\0"), true, KEYSTORE_EPASSPHRASE, WRONG},
	{"slot's IV", SLOT_SALT + 32, BYTES("\0\0\0\0"), true, KEYSTORE_EPASSPHRASE, WRONG},
	{"wrapped key", SLOT_WRAPPED, BYTES("\0\0\0\0"), true, KEYSTORE_EPASSPHRASE, WRONG},
	{"slot's tag", SLOT_WRAPPED + 32, BYTES("\0\0\0\0"), true, KEYSTORE_EPASSPHRASE, WRONG},
	{"salt, by accident", SLOT_SALT, BYTES("\0\0\0\0"), false, KEYSTORE_EDAMAGED,
	CORRUPTED("invalid checksum")},
	{"body's IV", BODY_IV, BYTES("\0\0\0\0"), true, KEYSTORE_EDAMAGED, ALTERED},
	{"body", BODY + 100, BYTES("\0\0\0\0"), true, KEYSTORE_EDAMAGED, ALTERED},
	{"body's tag", BODY_TAG, BYTES("\0\0\0\0"), true, KEYSTORE_EDAMAGED, ALTERED},
	{"checksum", DIGEST, BYTES("\0\0\0\0"), false, KEYSTORE_EDAMAGED,
	CORRUPTED("invalid checksum")},
};

#define DAMAGES ((int) (sizeof(damages) / sizeof(damages[0])))

/* Load, then open with the right passphrase: what a server does. */
static enum keystore_status
load_and_open(keystore *ks, const uint8_t *buf, size_t len)
{
	enum keystore_status status = keystore_load_bytes(ks, buf, len, "K");

	if (status == KEYSTORE_OK)
		status = keystore_open_passphrase(ks, PASS, strlen(PASS));
	return status;
}

static uint8_t *
make_bytes(size_t *ret_len)
{
	keystore   *ks = ks_make();
	uint8_t    *buf;

	assert_ok(ks, keystore_serialize(ks, &buf, ret_len));
	ck_assert_uint_eq(*ret_len, FILE_LEN);
	assert_ok(ks, load_and_open(ks, buf, *ret_len));
	keystore_free(&ks);
	return buf;
}

START_TEST(test_damage)
{
	const struct damage *d = &damages[_i];
	keystore   *ks = keystore_new();
	size_t		len;
	uint8_t    *buf = make_bytes(&len);
	enum keystore_status status;

	memcpy(buf + d->offset, d->bytes, d->count);
	if (d->redigest)
		ks_redigest(buf, len);
	status = load_and_open(ks, buf, len);
	ck_assert_msg(status == d->status && strcmp(keystore_errmsg(ks), d->message) == 0,
				  "%s: status %d, wanted %d: %s", d->name, (int) status, (int) d->status,
				  keystore_errmsg(ks));
	ck_assert(!keystore_is_open(ks));
	free(buf);
	keystore_free(&ks);
}
END_TEST

/* Every bit of every byte that accident may turn over. */
START_TEST(test_flip_every_byte)
{
	keystore   *ks = keystore_new();
	size_t		len;
	uint8_t    *buf = make_bytes(&len);

	for (size_t i = 0; i < len; i++)
	{
		for (int bit = 0; bit < 8; bit++)
		{
			enum keystore_status status;

			buf[i] ^= (uint8_t) (1 << bit);
			status = keystore_load_bytes(ks, buf, len, "K");
			ck_assert_msg(status == (i < 8 ? KEYSTORE_EFORMAT : KEYSTORE_EDAMAGED),
						  "byte %zu, bit %d: status %d", i, bit, (int) status);
			buf[i] ^= (uint8_t) (1 << bit);
		}
	}
	assert_ok(ks, load_and_open(ks, buf, len));
	free(buf);
	keystore_free(&ks);
}
END_TEST

/* And one who puts the checksum right afterwards: the file loads at times, but never opens. */
START_TEST(test_alter_every_byte)
{
	keystore   *ks = keystore_new();
	size_t		len;
	uint8_t    *buf = make_bytes(&len);

	for (size_t i = 0; i < len - KSI_DIGEST_LEN; i++)
	{
		enum keystore_status status;

		buf[i] ^= 1;
		ks_redigest(buf, len);
		status = load_and_open(ks, buf, len);
		ck_assert_msg(status == KEYSTORE_EFORMAT || status == KEYSTORE_EVERSION ||
					  status == KEYSTORE_EDAMAGED || status == KEYSTORE_EPASSPHRASE ||
					  status == KEYSTORE_EKDF, "byte %zu: status %d", i, (int) status);
		ck_assert(!keystore_is_open(ks));
		/* After the slots there is nothing that a passphrase has to do with. */
		if (i >= BODY_IV)
			ck_assert_int_eq(status, KEYSTORE_EDAMAGED);
		buf[i] ^= 1;
	}
	free(buf);
	keystore_free(&ks);
}
END_TEST

START_TEST(test_truncate_at_every_length)
{
	keystore   *ks = keystore_new();
	size_t		len;
	uint8_t    *buf = make_bytes(&len);

	for (size_t cut = 0; cut < len; cut++)
	{
		uint8_t    *shorter = malloc(cut + 1);

		/* A buffer of its own, so that a sanitizer sees a read past the end. */
		ck_assert_ptr_nonnull(shorter);
		memcpy(shorter, buf, cut);
		assert_status(ks, keystore_load_bytes(ks, shorter, cut, "K"), KEYSTORE_EDAMAGED);
		if (cut >= KSI_DIGEST_LEN + 10)
		{
			ks_redigest(shorter, cut);
			ck_assert_int_ne(keystore_load_bytes(ks, shorter, cut, "K"), KEYSTORE_OK);
		}
		free(shorter);
	}
	assert_fails(ks, keystore_load_bytes(ks, buf, 0, "K"), KEYSTORE_EDAMAGED,
				 CORRUPTED("size = 0 bytes, expected size = 116 bytes or more"));
	assert_fails(ks, keystore_load_bytes(ks, buf, len - 1, "K"), KEYSTORE_EDAMAGED,
				 CORRUPTED("size = 559 bytes, expected size = 560 bytes"));
	free(buf);
	keystore_free(&ks);
}
END_TEST

START_TEST(test_extend)
{
	keystore   *ks = keystore_new();
	size_t		len;
	uint8_t    *buf = make_bytes(&len);
	uint8_t    *longer = calloc(1, len + 300);

	ck_assert_ptr_nonnull(longer);
	memcpy(longer, buf, len);
	for (size_t extra = 1; extra < 300; extra++)
	{
		assert_status(ks, keystore_load_bytes(ks, longer, len + extra, "K"), KEYSTORE_EDAMAGED);
		ck_assert_str_eq(keystore_errmsg(ks),
						 ks_text(CORRUPTED("size = %zu bytes, expected size = 560 bytes"),
								 len + extra));
	}
	free(longer);
	free(buf);
	keystore_free(&ks);
}
END_TEST

/* Two slots change places: each is sound, the header as a whole is not. */
START_TEST(test_swap_slots)
{
	keystore   *ks = keystore_new();
	size_t		len;
	uint8_t    *buf = ks_read_data("v1.ks", &len);
	uint8_t		first[196];

	memcpy(first, buf + SLOT_V1, 196);
	memcpy(buf + SLOT_V1, buf + SLOT_V1 + 196 + 100, 196);
	memcpy(buf + SLOT_V1 + 196 + 100, first, 196);
	ks_redigest(buf, len);
	assert_fails(ks, load_and_open(ks, buf, len), KEYSTORE_EDAMAGED, ALTERED);

	/* And one slot twice. */
	memcpy(buf + SLOT_V1 + 196 + 100, buf + SLOT_V1, 196);
	ks_redigest(buf, len);
	assert_fails(ks, load_and_open(ks, buf, len), KEYSTORE_EDAMAGED,
				 CORRUPTED("slot 4 occurs twice"));
	free(buf);
	keystore_free(&ks);
}
END_TEST

/* The header goes on after its last slot: as long as the body is shorter, the sum is right. */
START_TEST(test_slack_after_slots)
{
	keystore   *ks = keystore_new();
	size_t		len;
	uint8_t    *buf = ks_read_data("v1.ks", &len);

	(void) ksi_put32(buf + HEADER_LEN, SLOT_V1 + 196 + 100 + 196 + 128);
	(void) ksi_put32(buf + BODY_LEN, 4 + 2 * 128);
	ks_redigest(buf, len);
	assert_fails(ks, keystore_load_bytes(ks, buf, len, "K"), KEYSTORE_EDAMAGED,
				 CORRUPTED("invalid length of the header"));
	free(buf);
	keystore_free(&ks);
}
END_TEST

/* ---- sealed with the right key, and wrong all the same ------------------------------- */

static const struct
{
	const char *name;
	struct ksi_key keys[2];
	const char *message;
}			bad_bodies[] =
{
	{"two active", {{.id = 1, .state = 1}, {.id = 2, .state = 1}},
	CORRUPTED("not exactly one key is active")},
	{"none active", {{.id = 1, .state = 2}, {.id = 2, .state = 2}},
	CORRUPTED("not exactly one key is active")},
	{"same number", {{.id = 1, .state = 2}, {.id = 1, .state = 1}},
	CORRUPTED("keys are not in ascending order")},
	{"descending", {{.id = 2, .state = 2}, {.id = 1, .state = 1}},
	CORRUPTED("keys are not in ascending order")},
	{"number zero", {{.id = 0, .state = 2}, {.id = 1, .state = 1}},
	CORRUPTED("keys are not in ascending order")},
	{"state zero", {{.id = 1, .state = 0}, {.id = 2, .state = 1}},
	CORRUPTED("unknown key state")},
	{"state 5", {{.id = 1, .state = 5}, {.id = 2, .state = 1}},
	CORRUPTED("unknown key state")},
	{"destroyed, but there", {{.id = 1, .state = 3, .key = "x"}, {.id = 2, .state = 1}},
	CORRUPTED("a destroyed key has bytes")},
	{"label", {{.id = 1, .state = 2, .label = "\x7f"}, {.id = 2, .state = 1}},
	CORRUPTED("invalid label of a key")},
	{"origin", {{.id = 1, .state = 2, .origin = "a\nb"}, {.id = 2, .state = 1}},
	CORRUPTED("invalid origin of a key")},
};

START_TEST(test_bad_body)
{
	keystore   *ks = ks_make();
	keystore   *other = keystore_new();
	struct ksi_header *header = malloc(sizeof(*header));
	struct ksi_history history = {0};
	uint8_t    *buf;
	size_t		len;

	ck_assert_ptr_nonnull(header);
	*header = ks->header;
	assert_ok(ks, ksi_history_alloc(ks, &history, 2, 0));
	memcpy(history.keys.ptr, bad_bodies[_i].keys, sizeof(bad_bodies[_i].keys));
	assert_ok(ks, ksi_commit(ks, header, &history));
	assert_ok(ks, keystore_serialize(ks, &buf, &len));
	assert_fails(other, load_and_open(other, buf, len), KEYSTORE_EDAMAGED, bad_bodies[_i].message);
	ck_assert(!keystore_is_open(other));
	free(header);
	free(buf);
	keystore_free(&ks);
	keystore_free(&other);
}
END_TEST

/* ---- a file with one of everything --------------------------------------------------- */

/* Slots of two functions, a recovery key, keys in all states, a former KSK. */
START_TEST(test_alter_all_kinds)
{
	keystore   *ks = keystore_new();
	size_t		len;
	uint8_t    *good = ks_read_data("v2.ks", &len);
	uint8_t    *buf = malloc(len + 1);

	ck_assert_ptr_nonnull(buf);
	for (size_t i = 0; i < len; i++)
	{
		enum keystore_status status;

		memcpy(buf, good, len);
		buf[i] ^= 0x04;
		ck_assert_int_eq(keystore_load_bytes(ks, buf, len, "K"),
						 i < 8 ? KEYSTORE_EFORMAT : KEYSTORE_EDAMAGED);
		if (i >= len - KSI_DIGEST_LEN)
			continue;
		ks_redigest(buf, len);
		status = load_and_open(ks, buf, len);
		ck_assert_msg(status == KEYSTORE_EFORMAT || status == KEYSTORE_EVERSION ||
					  status == KEYSTORE_EDAMAGED || status == KEYSTORE_EPASSPHRASE ||
					  status == KEYSTORE_EKDF, "byte %zu: status %d", i, (int) status);
		ck_assert(!keystore_is_open(ks));
		/* Other custodians' slots are none of this one's, and yet the body vouches for them. */
		if (i >= SLOT + 196 && status == KEYSTORE_EPASSPHRASE)
			ck_abort_msg("byte %zu: wrong passphrase", i);
	}
	for (size_t cut = 0; cut < len; cut++)
	{
		memcpy(buf, good, cut);
		assert_status(ks, keystore_load_bytes(ks, buf, cut, "K"), KEYSTORE_EDAMAGED);
		if (cut < KSI_DIGEST_LEN + 10)
			continue;
		ks_redigest(buf, cut);
		ck_assert_int_ne(keystore_load_bytes(ks, buf, cut, "K"), KEYSTORE_OK);
	}

	/* The recovery slot and a passphrase's change places. */
	memcpy(buf, good, len);
	memcpy(buf + SLOT, good + SLOT + 2 * 196, 196);
	memcpy(buf + SLOT + 2 * 196, good + SLOT, 196);
	ks_redigest(buf, len);
	assert_fails(ks, load_and_open(ks, buf, len), KEYSTORE_EDAMAGED, ALTERED);
	free(good);
	free(buf);
	keystore_free(&ks);
}
END_TEST

/* Offsets in the plaintext of a body with two keys and one former KSK. */
#define KEY(i)			(4 + 224 * (i))
#define FORMERS			KEY(2)

static const struct
{
	const char *name;
	size_t		offset;
	const char *bytes;
	size_t		count;
	const char *message;		/* NULL: it opens */
}			limits[] =
{
	{"nothing", 0, BYTES(""), NULL},
	{"no key", 0, BYTES("\0\0\0\0"), CORRUPTED("invalid number of keys")},
	{"one key less", 0, BYTES("\0\0\0\1"), CORRUPTED("invalid number of keys")},
	{"one key more", 0, BYTES("\0\0\0\3"), CORRUPTED("invalid number of keys")},
	{"4097 keys", 0, BYTES("\0\0\x10\1"), CORRUPTED("invalid number of keys")},
	{"all keys", 0, BYTES("\xff\xff\xff\xff"), CORRUPTED("invalid number of keys")},
	{"highest number", KEY(1), BYTES("\xff\xff\xff\xff"), NULL},
	{"number zero", KEY(0), BYTES("\0\0\0\0"), CORRUPTED("keys are not in ascending order")},
	{"state zero", KEY(0) + 4, BYTES("\0\0"), CORRUPTED("unknown key state")},
	{"compromised", KEY(0) + 4, BYTES("\0\4"), NULL},
	{"state 5", KEY(0) + 4, BYTES("\0\5"), CORRUPTED("unknown key state")},
	{"highest state", KEY(0) + 4, BYTES("\xff\xff"), CORRUPTED("unknown key state")},
	{"destroyed with its bytes", KEY(0) + 4, BYTES("\0\3"), CORRUPTED("a destroyed key has bytes")},
	{"flags", KEY(0) + 6, BYTES("\0\1"), CORRUPTED("unknown key flags")},
	{"last time", KEY(0) + 8, BYTES("\x7f\xff\xff\xff\xff\xff\xff\xff"), NULL},
	{"first time", KEY(0) + 8, BYTES("\x80\0\0\0\0\0\0\0"), NULL},
	{"origin without end", KEY(0) + 48,
	BYTES("1234567890123456789012345678901234567890123456789012345678901234"),
	CORRUPTED("invalid origin of a key")},
	{"label without end", KEY(0) + 112,
	BYTES("1234567890123456789012345678901234567890123456789012345678901234"),
	CORRUPTED("invalid label of a key")},
	{"other identity", KEY(0) + 208, BYTES("\xff\xff\xff\xff"), NULL},
	{"no former", FORMERS, BYTES("\0\0\0\0"), CORRUPTED("invalid number of keys")},
	{"one former more", FORMERS, BYTES("\0\0\0\2"), CORRUPTED("invalid number of keys")},
	{"65 formers", FORMERS, BYTES("\0\0\0\x41"), CORRUPTED("invalid number of former keystore keys")},
	{"all formers", FORMERS, BYTES("\xff\xff\xff\xff"),
	CORRUPTED("invalid number of former keystore keys")},
};

/* Each field of the history at its limits, sealed with the right key. */
START_TEST(test_limits)
{
	keystore   *ks = ks_make();
	keystore   *other = keystore_new();
	const struct keystore_passphrase pass = {PASS, strlen(PASS)};
	struct keystore_slot_info dropped[KEYSTORE_MAX_SLOTS];
	uint8_t		envelope[KEYSTORE_ENVELOPE_LEN];
	uint8_t		key[KEYSTORE_KEY_LEN];
	uint8_t    *plain,
			   *buf;
	size_t		len,
				count;
	uint32_t	id;
	enum keystore_status status;

	assert_ok(ks, keystore_add_master_key(ks, "test", &id));
	assert_ok(ks, keystore_rekey(ks, &pass, 1, envelope, dropped, &count));
	assert_ok(ks, keystore_serialize(ks, &buf, &len));
	ck_assert_uint_eq(ks->layout.body_len, FORMERS + 4 + 40);
	plain = malloc(ks->layout.body_len);
	ck_assert_ptr_nonnull(plain);
	ck_assert_int_eq(ksi_hkdf(ks->ksk.ptr, KEYSTORE_KEY_LEN, ks->header.uuid, KEYSTORE_UUID_LEN,
							  (const uint8_t *) KSI_INFO_BODY, strlen(KSI_INFO_BODY), key,
							  sizeof(key)), KSI_CRYPTO_OK);
	ck_assert_int_eq(ksi_gcm_open(key, buf + ks->layout.iv_off, buf, ks->layout.header_len,
								  buf + ks->layout.body_off, ks->layout.body_len, plain,
								  buf + ks->layout.tag_off), KSI_CRYPTO_OK);
	memcpy(plain + limits[_i].offset, limits[_i].bytes, limits[_i].count);
	ck_assert_int_eq(ksi_gcm_seal(key, buf + ks->layout.iv_off, buf, ks->layout.header_len, plain,
								  ks->layout.body_len, buf + ks->layout.body_off,
								  buf + ks->layout.tag_off), KSI_CRYPTO_OK);
	ks_redigest(buf, len);
	status = load_and_open(other, buf, len);
	if (limits[_i].message == NULL)
		ck_assert_msg(status == KEYSTORE_OK, "%s: %s", limits[_i].name, keystore_errmsg(other));
	else
	{
		ck_assert_msg(status == KEYSTORE_EDAMAGED, "%s: status %d", limits[_i].name, (int) status);
		ck_assert_str_eq(keystore_errmsg(other), limits[_i].message);
	}
	free(plain);
	free(buf);
	keystore_free(&ks);
	keystore_free(&other);
}
END_TEST

START_TEST(test_too_large)
{
	keystore   *ks = keystore_new();
	uint8_t    *buf = calloc(1, KEYSTORE_MAX_FILE_SIZE + 1);

	assert_fails(ks, keystore_load_bytes(ks, buf, KEYSTORE_MAX_FILE_SIZE + 1, "K"),
				 KEYSTORE_EFORMAT, "file \"K\" is not a keystore");
	free(buf);
	keystore_free(&ks);
}
END_TEST

/* ---- keystore.aks ---------------------------------------------------------------------- */

START_TEST(test_auto_open_damage)
{
	keystore   *ks = keystore_new();
	struct ksi_auto_open aks = {.kind = KSI_SEALER_HOST, .created = 5, .uid = 7, .uuid = "0123456789abcde"};
	struct ksi_auto_open back;
	uint8_t		buf[KSI_AUTO_OPEN_LEN + 1] = {0};

	ksi_format_put_auto_open(&aks, buf);
	assert_ok(ks, ksi_format_get_auto_open(ks, "A", buf, KSI_AUTO_OPEN_LEN, &back));
	ck_assert_uint_eq(back.uid, 7);
	ck_assert_int_eq(back.created, 5);
	ck_assert_mem_eq(back.uuid, aks.uuid, KEYSTORE_UUID_LEN);
	for (size_t len = 0; len <= KSI_AUTO_OPEN_LEN + 1; len++)
	{
		if (len == KSI_AUTO_OPEN_LEN)
			continue;
		assert_fails(ks, ksi_format_get_auto_open(ks, "A", buf, len, &back), KEYSTORE_EDAMAGED,
					 ks_text("auto-open keystore \"A\" is corrupted: size = %zu bytes, expected size = 164 bytes",
							 len));
	}
	buf[9] = 2;
	assert_fails(ks, ksi_format_get_auto_open(ks, "A", buf, KSI_AUTO_OPEN_LEN, &back),
				 KEYSTORE_EVERSION,
				 "auto-open keystore \"A\" has version 2 and kind 1, which this version does not support");
	buf[0] = 'p';
	assert_fails(ks, ksi_format_get_auto_open(ks, "A", buf, KSI_AUTO_OPEN_LEN, &back),
				 KEYSTORE_EFORMAT, "file \"A\" is not an auto-open keystore");
	keystore_free(&ks);
}
END_TEST

int
main(void)
{
	Suite	   *suite = suite_create("format");
	TCase	   *tc = ks_tcase("known");

	tcase_add_test(tc, test_known_file);
	tcase_add_test(tc, test_unknown_slot_is_kept);
	tcase_add_test(tc, test_known_ring);
	suite_add_tcase(suite, tc);

	tc = ks_tcase("damage");
	tcase_add_loop_test(tc, test_damage, 0, DAMAGES);
	tcase_add_test(tc, test_flip_every_byte);
	tcase_add_test(tc, test_alter_every_byte);
	tcase_add_test(tc, test_truncate_at_every_length);
	tcase_add_test(tc, test_extend);
	tcase_add_test(tc, test_swap_slots);
	tcase_add_test(tc, test_slack_after_slots);
	tcase_add_loop_test(tc, test_bad_body, 0, (int) (sizeof(bad_bodies) / sizeof(bad_bodies[0])));
	tcase_add_test(tc, test_alter_all_kinds);
	tcase_add_loop_test(tc, test_limits, 0, (int) (sizeof(limits) / sizeof(limits[0])));
	tcase_add_test(tc, test_too_large);
	tcase_add_test(tc, test_auto_open_damage);
	suite_add_tcase(suite, tc);
	return ks_run(suite);
}
