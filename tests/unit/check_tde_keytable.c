/*
 * check_tde_keytable.c
 *		The key table: one file computed by hand, what can be done with a table, and every
 *		kind of damage.
 */
#include <config.h>

#include "keytable.h"
#include "keytable_int.h"
#include "tde_common.h"

#define KNOWN_FILE		"keys_v1"
#define KNOWN_LEN		372		/* bytes */
#define KNOWN_RING		"the keystore's key ring, opaque here"

/* Where things are in keys_v1; pgx_tde_keys(5). */
#define AT_VERSION		8
#define AT_GENERATION	12
#define AT_UUID			20
#define AT_COUNT		48
#define AT_ENTRY_1		52		/* WAL, AES256: 72 bytes */
#define AT_ENTRY_2		124		/* tablespace 16385, AES128: 72 bytes */
#define AT_ENTRY_3		196		/* tablespace 16386, AES256: 104 bytes */
#define AT_RING_LEN		300
#define AT_MAC			340

static const uint8_t some_uuid[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

/* The master key of keys_v1. */
static const uint8_t *
known_master_key(void)
{
	static uint8_t key[TDE_MASTER_KEY_LEN];

	count_up(key, sizeof(key), 0x40);
	return key;
}

static const uint8_t *
other_master_key(void)
{
	static uint8_t key[TDE_MASTER_KEY_LEN];

	count_up(key, sizeof(key), 0x41);
	return key;
}

static void
read_known(uint8_t buf[KNOWN_LEN])
{
	uint8_t		larger[KNOWN_LEN + 1];

	ck_assert_uint_eq(read_data(KNOWN_FILE, larger, sizeof(larger)), KNOWN_LEN);
	memcpy(buf, larger, KNOWN_LEN);
}

/* Put the MAC right again, as only one who has the master key can: what then? */
static void
forge_mac(uint8_t *buf, size_t len)
{
	struct keywrap_keys keys;

	ck_assert_int_eq(keywrap_derive(known_master_key(), buf + AT_UUID, &keys), TDE_KEYTABLE_OK);
	ck_assert_int_eq(keywrap_mac(&keys, buf, len - 32, buf + len - 32), TDE_KEYTABLE_OK);
}

/* Parse and, if that works, open; the first status that is not OK. */
static enum tde_keytable_status
try_file(const uint8_t *buf, size_t len)
{
	tde_keytable *kt = NULL;
	enum tde_keytable_status status = tde_keytable_parse(buf, len, &kt);

	if (status != TDE_KEYTABLE_OK)
	{
		ck_assert_ptr_null(kt);
		return status;
	}
	status = tde_keytable_open(kt, known_master_key());
	for (size_t i = 0; i < tde_keytable_count(kt); i++)
	{
		size_t		key_len;

		ck_assert_int_eq(tde_keytable_key(kt, i, &key_len) != NULL, status == TDE_KEYTABLE_OK);
	}
	tde_keytable_free(&kt);
	return status;
}

static tde_keytable *
new_table(void)
{
	tde_keytable *kt = tde_keytable_new(some_uuid);

	ck_assert_ptr_nonnull(kt);
	ck_assert_int_eq(tde_keytable_rewrap(kt, 1, known_master_key()), TDE_KEYTABLE_OK);
	return kt;
}

START_TEST(known_answer)
{
	static const struct tde_key_entry expected[] = {
		{TDE_KEY_WAL, 0, TDE_AES256},
		{TDE_KEY_TABLESPACE, 16385, TDE_AES128},
		{TDE_KEY_TABLESPACE, 16386, TDE_AES256},
	};
	static const size_t key_lens[] = {32, 32, 64};
	uint8_t		buf[KNOWN_LEN];
	uint8_t		uuid[16];
	uint8_t		expected_uuid[16];
	uint8_t		key[128];
	size_t		len;
	size_t		at = 0;
	tde_keytable *kt = NULL;

	read_known(buf);
	ck_assert_int_eq(tde_keytable_parse(buf, KNOWN_LEN, &kt), TDE_KEYTABLE_OK);
	memset(buf, 0, sizeof(buf));	/* it may be freed by now */

	/* What needs no key. */
	count_up(expected_uuid, 16, 0xA0);
	tde_keytable_uuid(kt, uuid);
	ck_assert_mem_eq(uuid, expected_uuid, 16);
	ck_assert_uint_eq(tde_keytable_generation(kt), 5);
	ck_assert_uint_eq(tde_keytable_keystore_generation(kt), 7);
	ck_assert_uint_eq(tde_keytable_master_key_id(kt), 3);
	ck_assert_mem_eq(tde_keytable_ring(kt, &len), KNOWN_RING, strlen(KNOWN_RING));
	ck_assert_uint_eq(len, strlen(KNOWN_RING));
	ck_assert_uint_eq(tde_keytable_count(kt), 3);
	ck_assert_ptr_null(tde_keytable_entry(kt, 3));
	ck_assert_ptr_null(tde_keytable_key(kt, 0, &len));

	ck_assert_int_eq(tde_keytable_open(kt, other_master_key()), TDE_KEYTABLE_EDAMAGED);
	ck_assert_ptr_null(tde_keytable_key(kt, 0, &len));
	ck_assert_int_eq(tde_keytable_open(kt, known_master_key()), TDE_KEYTABLE_OK);
	count_up(key, sizeof(key), 0);
	for (size_t i = 0; i < 3; i++)
	{
		ck_assert_int_eq(tde_keytable_entry(kt, i)->kind, expected[i].kind);
		ck_assert_uint_eq(tde_keytable_entry(kt, i)->oid, expected[i].oid);
		ck_assert_int_eq(tde_keytable_entry(kt, i)->alg, expected[i].alg);
		ck_assert_mem_eq(tde_keytable_key(kt, i, &len), key + at, key_lens[i]);
		ck_assert_uint_eq(len, key_lens[i]);
		at += len;
	}
	ck_assert_ptr_null(tde_keytable_key(kt, 3, &len));

	/* Opened once more it says whether the key fits. */
	ck_assert_int_eq(tde_keytable_open(kt, known_master_key()), TDE_KEYTABLE_OK);
	ck_assert_int_eq(tde_keytable_open(kt, other_master_key()), TDE_KEYTABLE_EDAMAGED);
	ck_assert_ptr_nonnull(tde_keytable_key(kt, 0, &len));
	tde_keytable_free(&kt);
	ck_assert_ptr_null(kt);
}
END_TEST

/* Written out, a table that was not changed differs by its generation and its MAC. */
START_TEST(serialize_is_canonical)
{
	uint8_t		buf[KNOWN_LEN];
	uint8_t    *out = NULL;
	size_t		len;
	tde_keytable *kt = NULL;

	read_known(buf);
	ck_assert_int_eq(tde_keytable_parse(buf, KNOWN_LEN, &kt), TDE_KEYTABLE_OK);
	ck_assert_int_eq(tde_keytable_open(kt, known_master_key()), TDE_KEYTABLE_OK);
	ck_assert_int_eq(tde_keytable_serialize(kt, &out, &len), TDE_KEYTABLE_OK);
	ck_assert_uint_eq(len, KNOWN_LEN);
	ck_assert_uint_eq(tde_keytable_generation(kt), 6);
	buf[AT_GENERATION + 7] = 6;
	forge_mac(buf, KNOWN_LEN);
	ck_assert_mem_eq(out, buf, KNOWN_LEN);
	ck_assert_int_eq(try_file(out, len), TDE_KEYTABLE_OK);
	free(out);
	tde_keytable_free(&kt);
}
END_TEST

START_TEST(flip_every_bit)
{
	uint8_t		buf[KNOWN_LEN];

	read_known(buf);
	for (size_t i = 0; i < KNOWN_LEN; i++)
	{
		enum tde_keytable_status expected = i < AT_VERSION ? TDE_KEYTABLE_EFORMAT :
			i < AT_GENERATION ? TDE_KEYTABLE_EVERSION : TDE_KEYTABLE_EDAMAGED;

		for (int bit = 0; bit < 8; bit++)
		{
			buf[i] ^= (uint8_t) (1 << bit);
			ck_assert_msg(try_file(buf, KNOWN_LEN) == expected, "byte %zu, bit %d", i, bit);
			buf[i] ^= (uint8_t) (1 << bit);
		}
	}
	ck_assert_int_eq(try_file(buf, KNOWN_LEN), TDE_KEYTABLE_OK);
}
END_TEST

/* In memory of exactly that length, so that a sanitizer or valgrind sees a read past it. */
START_TEST(every_length)
{
	uint8_t		known[KNOWN_LEN];

	read_known(known);
	for (size_t len = 0; len < KNOWN_LEN + 40; len++)
	{
		uint8_t    *buf = calloc(len > 0 ? len : 1, 1);

		memcpy(buf, known, len < KNOWN_LEN ? len : KNOWN_LEN);
		ck_assert_msg(try_file(buf, len) ==
					  (len == KNOWN_LEN ? TDE_KEYTABLE_OK : TDE_KEYTABLE_EDAMAGED),
					  "length %zu", len);
		free(buf);
	}
}
END_TEST

/*
 * Damage with the MAC put right.  Half of it is found without a key; the rest by unwrapping, since
 * a wrapped key is bound to its place.
 */
static void
swap_entries(uint8_t *buf)
{
	uint8_t		first[72];

	/* The same length, and so all that follows stays where it is. */
	memcpy(first, buf + AT_ENTRY_1, 72);
	memcpy(buf + AT_ENTRY_1, buf + AT_ENTRY_2, 72);
	memcpy(buf + AT_ENTRY_2, first, 72);
}

static void
swap_wrapped_keys(uint8_t *buf)
{
	uint8_t		first[60];

	memcpy(first, buf + AT_ENTRY_1 + 12, 60);
	memcpy(buf + AT_ENTRY_1 + 12, buf + AT_ENTRY_2 + 12, 60);
	memcpy(buf + AT_ENTRY_2 + 12, first, 60);
}

static void
change_oid(uint8_t *buf)
{
	buf[AT_ENTRY_2 + 7] ^= 1;
}

static void
repeat_oid(uint8_t *buf)
{
	memcpy(buf + AT_ENTRY_3 + 4, buf + AT_ENTRY_2 + 4, 4);
}

static void
other_uuid(uint8_t *buf)
{
	buf[AT_UUID] ^= 1;
}

static void
generation_zero(uint8_t *buf)
{
	memset(buf + AT_GENERATION, 0, 8);
}

static void
wal_with_oid(uint8_t *buf)
{
	buf[AT_ENTRY_1 + 7] = 1;
}

static void
tablespace_without_oid(uint8_t *buf)
{
	memset(buf + AT_ENTRY_2 + 4, 0, 4);
}

static void
algorithm_none(uint8_t *buf)
{
	buf[AT_ENTRY_1 + 11] = TDE_NONE;
}

static void
algorithm_unknown(uint8_t *buf)
{
	buf[AT_ENTRY_1 + 11] = 3;
}

static void
kind_unknown(uint8_t *buf)
{
	buf[AT_ENTRY_3 + 3] = 3;
}

static void
one_entry_less(uint8_t *buf)
{
	buf[AT_COUNT + 3]--;
}

static void
many_entries(uint8_t *buf)
{
	memset(buf + AT_COUNT, 0xFF, 4);
}

static void
longer_ring(uint8_t *buf)
{
	buf[AT_RING_LEN + 3]++;
}

static void
huge_ring(uint8_t *buf)
{
	memset(buf + AT_RING_LEN, 0xFF, 4);
}

static const struct
{
	const char *name;
	void		(*mutilate) (uint8_t *buf);
	enum tde_keytable_status parse;
	enum tde_keytable_status open;
} forged[] = {
	{"swap entries", swap_entries, TDE_KEYTABLE_EDAMAGED, 0},
	{"swap wrapped keys", swap_wrapped_keys, TDE_KEYTABLE_OK, TDE_KEYTABLE_EDAMAGED},
	{"change oid", change_oid, TDE_KEYTABLE_OK, TDE_KEYTABLE_EDAMAGED},
	{"repeat oid", repeat_oid, TDE_KEYTABLE_EDAMAGED, 0},
	{"other uuid", other_uuid, TDE_KEYTABLE_OK, TDE_KEYTABLE_EDAMAGED},
	{"generation zero", generation_zero, TDE_KEYTABLE_EDAMAGED, 0},
	{"wal with oid", wal_with_oid, TDE_KEYTABLE_EDAMAGED, 0},
	{"tablespace without oid", tablespace_without_oid, TDE_KEYTABLE_EDAMAGED, 0},
	{"algorithm none", algorithm_none, TDE_KEYTABLE_EDAMAGED, 0},
	{"algorithm unknown", algorithm_unknown, TDE_KEYTABLE_EDAMAGED, 0},
	{"kind unknown", kind_unknown, TDE_KEYTABLE_EDAMAGED, 0},
	{"one entry less", one_entry_less, TDE_KEYTABLE_EDAMAGED, 0},
	{"many entries", many_entries, TDE_KEYTABLE_EDAMAGED, 0},
	{"longer ring", longer_ring, TDE_KEYTABLE_EDAMAGED, 0},
	{"huge ring", huge_ring, TDE_KEYTABLE_EDAMAGED, 0},
};

START_TEST(forged_file)
{
	uint8_t		buf[KNOWN_LEN];
	tde_keytable *kt = NULL;

	read_known(buf);
	forged[_i].mutilate(buf);
	forge_mac(buf, KNOWN_LEN);
	ck_assert_msg(tde_keytable_parse(buf, KNOWN_LEN, &kt) == forged[_i].parse,
				  "%s", forged[_i].name);
	if (kt != NULL)
		ck_assert_msg(tde_keytable_open(kt, known_master_key()) == forged[_i].open,
					  "%s", forged[_i].name);
	tde_keytable_free(&kt);
}
END_TEST

START_TEST(state_rules)
{
	uint8_t		buf[KNOWN_LEN];
	uint8_t    *out = NULL;
	size_t		len;
	tde_keytable *kt = tde_keytable_new(some_uuid);

	/* New: no master key yet, so nothing can be wrapped. */
	ck_assert_uint_eq(tde_keytable_generation(kt), 0);
	ck_assert_uint_eq(tde_keytable_master_key_id(kt), 0);
	ck_assert_uint_eq(tde_keytable_count(kt), 0);
	ck_assert_int_eq(tde_keytable_open(kt, known_master_key()), TDE_KEYTABLE_ECLOSED);
	ck_assert_int_eq(tde_keytable_add(kt, TDE_KEY_WAL, 0, TDE_AES256), TDE_KEYTABLE_ECLOSED);
	ck_assert_int_eq(tde_keytable_remove(kt, TDE_KEY_WAL, 0), TDE_KEYTABLE_ENOENT);
	ck_assert_int_eq(tde_keytable_serialize(kt, &out, &len), TDE_KEYTABLE_ECLOSED);
	ck_assert_int_eq(tde_keytable_set_keystore(kt, 1, "ring", 4), TDE_KEYTABLE_OK);
	tde_keytable_free(&kt);

	/* Parsed: must stay as it is until the MAC has been checked. */
	read_known(buf);
	ck_assert_int_eq(tde_keytable_parse(buf, KNOWN_LEN, &kt), TDE_KEYTABLE_OK);
	ck_assert_int_eq(tde_keytable_rewrap(kt, 4, known_master_key()), TDE_KEYTABLE_ECLOSED);
	ck_assert_int_eq(tde_keytable_add(kt, TDE_KEY_TABLESPACE, 1, TDE_AES256), TDE_KEYTABLE_ECLOSED);
	ck_assert_int_eq(tde_keytable_remove(kt, TDE_KEY_WAL, 0), TDE_KEYTABLE_ECLOSED);
	ck_assert_int_eq(tde_keytable_set_keystore(kt, 8, NULL, 0), TDE_KEYTABLE_ECLOSED);
	ck_assert_int_eq(tde_keytable_serialize(kt, &out, &len), TDE_KEYTABLE_ECLOSED);
	ck_assert_ptr_null(out);
	ck_assert_int_eq(tde_keytable_open(kt, known_master_key()), TDE_KEYTABLE_OK);
	tde_keytable_free(&kt);
	tde_keytable_free(&kt);		/* freeing nothing is allowed */
}
END_TEST

START_TEST(add_and_remove)
{
	uint8_t		first[64];
	size_t		len;
	tde_keytable *kt = new_table();

	ck_assert_int_eq(tde_keytable_add(kt, TDE_KEY_TABLESPACE, 30, TDE_AES256), TDE_KEYTABLE_OK);
	ck_assert_int_eq(tde_keytable_add(kt, TDE_KEY_TABLESPACE, 10, TDE_AES128), TDE_KEYTABLE_OK);
	ck_assert_int_eq(tde_keytable_add(kt, TDE_KEY_WAL, 0, TDE_AES128), TDE_KEYTABLE_OK);
	ck_assert_int_eq(tde_keytable_add(kt, TDE_KEY_TABLESPACE, 20, TDE_AES256), TDE_KEYTABLE_OK);
	ck_assert_uint_eq(tde_keytable_count(kt), 4);
	ck_assert_int_eq(tde_keytable_entry(kt, 0)->kind, TDE_KEY_WAL);
	for (uint32_t i = 1; i < 4; i++)
		ck_assert_uint_eq(tde_keytable_entry(kt, i)->oid, 10 * i);
	tde_keytable_key(kt, 0, &len);
	ck_assert_uint_eq(len, 16);
	tde_keytable_key(kt, 1, &len);
	ck_assert_uint_eq(len, 32);
	memcpy(first, tde_keytable_key(kt, 3, &len), 64);
	ck_assert_uint_eq(len, 64);
	ck_assert_mem_ne(first, tde_keytable_key(kt, 2, &len), 64);
	ck_assert_mem_ne(first, first + 32, 32);

	/* Once more: the old key gives way to a fresh one, of the new length. */
	ck_assert_int_eq(tde_keytable_add(kt, TDE_KEY_TABLESPACE, 30, TDE_AES128), TDE_KEYTABLE_OK);
	ck_assert_uint_eq(tde_keytable_count(kt), 4);
	ck_assert_int_eq(tde_keytable_entry(kt, 3)->alg, TDE_AES128);
	ck_assert_mem_ne(first, tde_keytable_key(kt, 3, &len), 32);
	ck_assert_uint_eq(len, 32);

	ck_assert_int_eq(tde_keytable_remove(kt, TDE_KEY_TABLESPACE, 11), TDE_KEYTABLE_ENOENT);
	ck_assert_int_eq(tde_keytable_remove(kt, TDE_KEY_TABLESPACE, 10), TDE_KEYTABLE_OK);
	ck_assert_int_eq(tde_keytable_remove(kt, TDE_KEY_TABLESPACE, 10), TDE_KEYTABLE_ENOENT);
	ck_assert_uint_eq(tde_keytable_count(kt), 3);
	ck_assert_uint_eq(tde_keytable_entry(kt, 1)->oid, 20);
	ck_assert_ptr_null(tde_keytable_entry(kt, 3));
	tde_keytable_free(&kt);
}
END_TEST

START_TEST(add_refuses)
{
	static const struct tde_key_entry wrong[] = {
		{TDE_KEY_WAL, 1, TDE_AES256},
		{TDE_KEY_WAL, 0, TDE_NONE},
		{TDE_KEY_TABLESPACE, 0, TDE_AES256},
		{TDE_KEY_TABLESPACE, 5, TDE_NONE},
		{TDE_KEY_TABLESPACE, 5, (enum tde_algorithm) 3},
		{(enum tde_key_kind) 3, 5, TDE_AES256},
		{(enum tde_key_kind) 0, 0, TDE_AES256},
	};
	tde_keytable *kt = new_table();

	for (size_t i = 0; i < LENGTH_OF(wrong); i++)
		ck_assert_int_eq(tde_keytable_add(kt, wrong[i].kind, wrong[i].oid, wrong[i].alg),
						 TDE_KEYTABLE_EINVAL);
	ck_assert_uint_eq(tde_keytable_count(kt), 0);
	tde_keytable_free(&kt);
}
END_TEST

START_TEST(rewrap)
{
	uint8_t		buf[KNOWN_LEN];
	uint8_t		key[64];
	uint8_t    *out = NULL;
	size_t		len;
	tde_keytable *kt = NULL;

	read_known(buf);
	ck_assert_int_eq(tde_keytable_parse(buf, KNOWN_LEN, &kt), TDE_KEYTABLE_OK);
	ck_assert_int_eq(tde_keytable_open(kt, known_master_key()), TDE_KEYTABLE_OK);
	ck_assert_int_eq(tde_keytable_rewrap(kt, 4, other_master_key()), TDE_KEYTABLE_OK);
	ck_assert_uint_eq(tde_keytable_master_key_id(kt), 4);
	ck_assert_int_eq(tde_keytable_serialize(kt, &out, &len), TDE_KEYTABLE_OK);
	tde_keytable_free(&kt);
	ck_assert_uint_eq(len, KNOWN_LEN);
	ck_assert_mem_ne(out + AT_ENTRY_1 + 12, buf + AT_ENTRY_1 + 12, 12);
	ck_assert_mem_ne(out + AT_ENTRY_1 + 24, buf + AT_ENTRY_1 + 24, 32);

	ck_assert_int_eq(tde_keytable_parse(out, len, &kt), TDE_KEYTABLE_OK);
	ck_assert_int_eq(tde_keytable_open(kt, known_master_key()), TDE_KEYTABLE_EDAMAGED);
	ck_assert_int_eq(tde_keytable_open(kt, other_master_key()), TDE_KEYTABLE_OK);
	count_up(key, sizeof(key), 64);
	ck_assert_mem_eq(tde_keytable_key(kt, 2, &len), key, 64);
	free(out);
	tde_keytable_free(&kt);
}
END_TEST

/* As full as it can be, it still is a file that can be read. */
START_TEST(most_entries)
{
	uint8_t    *ring = malloc(TDE_KEYTABLE_MAX_RING + 1);
	uint8_t    *out = NULL;
	uint8_t		key[64];
	size_t		len;
	tde_keytable *kt = new_table();

	fill(ring, TDE_KEYTABLE_MAX_RING + 1, 1);
	for (uint32_t oid = TDE_KEYTABLE_MAX_ENTRIES; oid >= 1; oid--)
		ck_assert_int_eq(tde_keytable_add(kt, TDE_KEY_TABLESPACE, oid, TDE_AES256),
						 TDE_KEYTABLE_OK);
	ck_assert_int_eq(tde_keytable_add(kt, TDE_KEY_WAL, 0, TDE_AES256), TDE_KEYTABLE_EFULL);
	ck_assert_int_eq(tde_keytable_add(kt, TDE_KEY_TABLESPACE, 7, TDE_AES256), TDE_KEYTABLE_OK);
	ck_assert_int_eq(tde_keytable_set_keystore(kt, 9, ring, TDE_KEYTABLE_MAX_RING + 1),
					 TDE_KEYTABLE_EFULL);
	ck_assert_int_eq(tde_keytable_set_keystore(kt, 9, ring, TDE_KEYTABLE_MAX_RING),
					 TDE_KEYTABLE_OK);
	memcpy(key, tde_keytable_key(kt, 2345, &len), 64);
	ck_assert_int_eq(tde_keytable_serialize(kt, &out, &len), TDE_KEYTABLE_OK);
	ck_assert_uint_le(len, TDE_KEYTABLE_MAX_SIZE);
	tde_keytable_free(&kt);

	ck_assert_int_eq(tde_keytable_parse(out, len, &kt), TDE_KEYTABLE_OK);
	ck_assert_int_eq(tde_keytable_open(kt, known_master_key()), TDE_KEYTABLE_OK);
	ck_assert_uint_eq(tde_keytable_count(kt), TDE_KEYTABLE_MAX_ENTRIES);
	ck_assert_mem_eq(tde_keytable_key(kt, 2345, &len), key, 64);
	ck_assert_mem_eq(tde_keytable_ring(kt, &len), ring, TDE_KEYTABLE_MAX_RING);
	ck_assert_uint_eq(len, TDE_KEYTABLE_MAX_RING);

	/* And empty again. */
	ck_assert_int_eq(tde_keytable_set_keystore(kt, 10, NULL, 0), TDE_KEYTABLE_OK);
	tde_keytable_ring(kt, &len);
	ck_assert_uint_eq(len, 0);
	free(out);
	free(ring);
	tde_keytable_free(&kt);
}
END_TEST

START_TEST(last_generation)
{
	uint8_t		buf[KNOWN_LEN];
	uint8_t    *out = NULL;
	size_t		len;
	tde_keytable *kt = NULL;

	read_known(buf);
	memset(buf + AT_GENERATION, 0xFF, 8);
	forge_mac(buf, KNOWN_LEN);
	ck_assert_int_eq(tde_keytable_parse(buf, KNOWN_LEN, &kt), TDE_KEYTABLE_OK);
	ck_assert_int_eq(tde_keytable_open(kt, known_master_key()), TDE_KEYTABLE_OK);
	ck_assert_int_eq(tde_keytable_serialize(kt, &out, &len), TDE_KEYTABLE_EFULL);
	ck_assert_uint_eq(tde_keytable_generation(kt), UINT64_MAX);
	tde_keytable_free(&kt);
}
END_TEST

static const struct
{
	enum tde_keytable_status status;
	const char *text;
} texts[] = {
	{TDE_KEYTABLE_OK, "is intact"},
	{TDE_KEYTABLE_ENOMEM, "could not be processed: out of memory"},
	{TDE_KEYTABLE_EFORMAT, "is not a key table"},
	{TDE_KEYTABLE_EVERSION, "has a format version that is not supported"},
	{TDE_KEYTABLE_EDAMAGED, "is damaged"},
	{TDE_KEYTABLE_ECRYPTO, "could not be processed: encryption or decryption failed"},
	{TDE_KEYTABLE_EFULL, "is full"},
	{TDE_KEYTABLE_ENOENT, "has no such entry"},
	{TDE_KEYTABLE_ECLOSED, "has not been opened with its master key"},
	{TDE_KEYTABLE_EINVAL, "cannot hold a key of that kind"},
	{(enum tde_keytable_status) 99, "could not be processed: unknown status"},
};

START_TEST(status_text)
{
	ck_assert_str_eq(tde_keytable_status_text(texts[_i].status), texts[_i].text);
}
END_TEST

int
main(void)
{
	Suite	   *s = suite_create("tde keytable");

	ADD_TEST(s, known_answer);
	ADD_TEST(s, serialize_is_canonical);
	ADD_TEST(s, flip_every_bit);
	ADD_TEST(s, every_length);
	ADD_LOOP_TEST(s, forged_file, LENGTH_OF(forged));
	ADD_TEST(s, state_rules);
	ADD_TEST(s, add_and_remove);
	ADD_TEST(s, add_refuses);
	ADD_TEST(s, rewrap);
	ADD_TEST(s, most_entries);
	ADD_TEST(s, last_generation);
	ADD_LOOP_TEST(s, status_text, LENGTH_OF(texts));
	return run_suite(s);
}
