/*
 * check_tde_stream.c
 *		Sealed streams: one computed by other means, and everything that an attacker with the
 *		files but without the key can do to them.
 */
#include <config.h>

#include <openssl/rand.h>

#include "stream.h"
#include "tde_common.h"

#define KNOWN_FILE		"stream_v1"
#define KNOWN_PLAIN		(TDE_STREAM_CHUNK + 100)
#define KNOWN_LEN		(TDE_STREAM_HEADER_LEN + KNOWN_PLAIN + 2 * TDE_STREAM_TAG_LEN)

/* Where things are in the header; pgx_backup_stream(5). */
#define AT_VERSION		8
#define AT_LENGTH		12
#define AT_CONTENT		16
#define AT_UUID			24

/* What the next calls of RAND_bytes give, or the real thing. */
static const uint8_t *random_bytes;
static bool random_fails;

extern int	__real_RAND_bytes(unsigned char *buf, int num);
extern int	__wrap_RAND_bytes(unsigned char *buf, int num);

int
__wrap_RAND_bytes(unsigned char *buf, int num)
{
	if (random_fails)
		return 0;
	if (random_bytes == NULL)
		return __real_RAND_bytes(buf, num);
	memcpy(buf, random_bytes, (size_t) num);
	random_bytes += num;
	return 1;
}

static const uint8_t *
known_key(uint8_t first)
{
	static uint8_t keys[2][TDE_STREAM_KEY_LEN];
	static int	turn;

	turn = !turn;
	count_up(keys[turn], TDE_STREAM_KEY_LEN, first);
	return keys[turn];
}

#define MASTER_KEY		known_key(0x40)
#define DATA_KEY		known_key(0x80)

static void
known_plain(uint8_t *buf)
{
	for (size_t i = 0; i < KNOWN_PLAIN; i++)
		buf[i] = (uint8_t) (i * 7 + (i >> 8));
}

static void
known_info(struct tde_stream_info *info)
{
	memset(info, 0, sizeof(*info));
	info->content = TDE_STREAM_BACKUP;
	count_up(info->keystore_uuid, 16, 0xA0);
	info->master_key_id = 3;
	info->number = 2;
	count_up(info->backup_id, 16, 0x10);
	count_up(info->stream_id, 16, 0x20);
}

static uint8_t *
read_known(void)
{
	uint8_t    *buf = malloc(KNOWN_LEN + 1);

	ck_assert_uint_eq(read_data(KNOWN_FILE, buf, KNOWN_LEN + 1), KNOWN_LEN);
	return buf;
}

/*
 * Read a file's bytes as a reader does, chunk by chunk with a look ahead.  The first status that is
 * not OK.  *ret_plain is malloc'ed, and what was accepted before a failure counts in *ret_len.
 */
static enum tde_stream_status
read_stream(const uint8_t *buf, size_t len, uint8_t **ret_plain, size_t *ret_len)
{
	tde_stream *stream = NULL;
	struct tde_stream_info info;
	enum tde_stream_status status = tde_stream_parse(buf, len, &info);
	size_t		at = TDE_STREAM_HEADER_LEN;

	*ret_plain = calloc(1, len + 1);
	*ret_len = 0;
	if (status == TDE_STREAM_OK)
		status = tde_stream_open(buf, MASTER_KEY, &stream);
	while (status == TDE_STREAM_OK)
	{
		size_t		n = len - at < TDE_STREAM_SEALED_CHUNK ? len - at : TDE_STREAM_SEALED_CHUNK;
		bool		last = at + n == len;

		/* In memory of exactly that length: a sanitizer or valgrind sees a read past it. */
		uint8_t    *chunk = malloc(n > 0 ? n : 1);

		memcpy(chunk, buf + at, n);
		status = tde_stream_next(stream, chunk, n, last, *ret_plain + *ret_len);
		free(chunk);
		if (status == TDE_STREAM_OK)
			*ret_len += n - TDE_STREAM_TAG_LEN;
		at += n;
		if (status == TDE_STREAM_OK && last)
			break;
	}
	if (stream != NULL && status != TDE_STREAM_OK)
	{
		uint8_t		none[TDE_STREAM_TAG_LEN] = {0};

		/* There is no way on after a failure. */
		ck_assert_int_eq(tde_stream_next(stream, none, sizeof(none), true, none),
						 TDE_STREAM_EINVAL);
	}
	tde_stream_free(&stream);
	ck_assert_ptr_null(stream);
	return status;
}

static enum tde_stream_status
try_stream(const uint8_t *buf, size_t len)
{
	uint8_t    *plain;
	size_t		plain_len;
	enum tde_stream_status status = read_stream(buf, len, &plain, &plain_len);

	free(plain);
	return status;
}

/* Seal len bytes in memory; the caller frees. */
static uint8_t *
write_stream(const struct tde_stream_info *info, const uint8_t *plain, size_t len, size_t *ret_len)
{
	uint8_t    *buf = malloc(TDE_STREAM_HEADER_LEN + len + (len / TDE_STREAM_CHUNK + 1) * TDE_STREAM_TAG_LEN);
	tde_stream *stream = NULL;
	size_t		done = 0;
	size_t		at = TDE_STREAM_HEADER_LEN;
	bool		last;

	ck_assert_int_eq(tde_stream_create(info, DATA_KEY, MASTER_KEY, buf, &stream), TDE_STREAM_OK);
	do
	{
		size_t		n = len - done < TDE_STREAM_CHUNK ? len - done : TDE_STREAM_CHUNK;

		last = done + n == len;
		ck_assert_int_eq(tde_stream_seal(stream, plain + done, n, last, buf + at), TDE_STREAM_OK);
		done += n;
		at += n + TDE_STREAM_TAG_LEN;
	} while (!last);
	tde_stream_free(&stream);
	*ret_len = at;
	return buf;
}

START_TEST(known_answer)
{
	uint8_t    *known = read_known();
	uint8_t		plain[KNOWN_PLAIN];
	uint8_t    *got;
	size_t		len;
	struct tde_stream_info info;
	struct tde_stream_info expected;

	known_plain(plain);
	known_info(&expected);
	ck_assert_int_eq(tde_stream_parse(known, KNOWN_LEN, &info), TDE_STREAM_OK);
	ck_assert_mem_eq(&info, &expected, sizeof(info));
	ck_assert_int_eq(read_stream(known, KNOWN_LEN, &got, &len), TDE_STREAM_OK);
	ck_assert_uint_eq(len, KNOWN_PLAIN);
	ck_assert_mem_eq(got, plain, KNOWN_PLAIN);
	free(got);

	/* Writing, with the random bytes of the known one: stream id, then the nonce of the wrapping. */
	random_bytes = known + 64;
	got = write_stream(&expected, plain, KNOWN_PLAIN, &len);
	random_bytes = NULL;
	ck_assert_uint_eq(len, KNOWN_LEN);
	ck_assert_mem_eq(got, known, KNOWN_LEN);
	free(got);
	free(known);
}
END_TEST

/* Lengths around the chunk's, there and back; nothing of the writer's is the same twice. */
START_TEST(lengths)
{
	static const size_t lens[] = {
		0, 1, 15, 16, 17, TDE_STREAM_CHUNK - 1, TDE_STREAM_CHUNK, TDE_STREAM_CHUNK + 1,
		3 * TDE_STREAM_CHUNK, 3 * TDE_STREAM_CHUNK + 12345
	};
	size_t		len = lens[_i];
	uint8_t    *plain = calloc(1, len + 1);
	struct tde_stream_info info;
	uint8_t    *one;
	uint8_t    *two;
	uint8_t    *got;
	size_t		one_len;
	size_t		two_len;
	size_t		got_len;

	fill(plain, len, (uint32_t) len);
	known_info(&info);
	one = write_stream(&info, plain, len, &one_len);
	two = write_stream(&info, plain, len, &two_len);
	ck_assert_uint_eq(one_len, two_len);
	ck_assert_uint_eq(one_len, TDE_STREAM_HEADER_LEN + len +
					  TDE_STREAM_TAG_LEN * (len == 0 ? 1 : (len + TDE_STREAM_CHUNK - 1) / TDE_STREAM_CHUNK));
	ck_assert(memcmp(one + 64, two + 64, 16) != 0);
	ck_assert(memcmp(one + TDE_STREAM_HEADER_LEN, two + TDE_STREAM_HEADER_LEN, 16) != 0);
	ck_assert_int_eq(read_stream(one, one_len, &got, &got_len), TDE_STREAM_OK);
	ck_assert_uint_eq(got_len, len);
	ck_assert_mem_eq(got, plain, len);
	free(got);

	/* The one's body under the other's header. */
	memcpy(one, two, TDE_STREAM_HEADER_LEN);
	ck_assert_int_eq(try_stream(one, one_len), TDE_STREAM_EDAMAGED);
	free(one);
	free(two);
	free(plain);
}
END_TEST

static enum tde_stream_status
expected_flip(size_t at)
{
	if (at < AT_VERSION)
		return TDE_STREAM_EFORMAT;
	if (at < AT_LENGTH || (at >= AT_CONTENT && at < AT_UUID))
		return TDE_STREAM_EVERSION;
	if (at < AT_CONTENT || at >= TDE_STREAM_HEADER_LEN)
		return TDE_STREAM_EDAMAGED;
	return TDE_STREAM_EKEY;
}

/* Every bit of the header, the tags and the last chunk; of the long chunk each byte once. */
START_TEST(flip_every_byte)
{
	uint8_t    *buf = read_known();

	for (size_t i = 0; i < KNOWN_LEN; i++)
	{
		bool		middle = i >= TDE_STREAM_HEADER_LEN && i < TDE_STREAM_HEADER_LEN + TDE_STREAM_CHUNK;

		/* Under memcheck each takes a hundred times as long; its errors are not in the bits. */
		if (middle && getenv("PGX_MEMCHECK") != NULL && i % 331 != 0)
			continue;
		for (int bit = middle ? (int) (i % 8) : 0; bit < 8; bit++)
		{
			buf[i] ^= (uint8_t) (1 << bit);
			ck_assert_msg(try_stream(buf, KNOWN_LEN) == expected_flip(i), "byte %zu, bit %d", i, bit);
			buf[i] ^= (uint8_t) (1 << bit);
			if (middle)
				break;
		}
	}
	ck_assert_int_eq(try_stream(buf, KNOWN_LEN), TDE_STREAM_OK);
	free(buf);
}
END_TEST

/* Cut off at every byte; what was accepted before is a true beginning. */
START_TEST(every_truncation)
{
	uint8_t    *buf = read_known();
	uint8_t		plain[KNOWN_PLAIN];

	known_plain(plain);
	for (size_t len = 0; len < KNOWN_LEN; len++)
	{
		uint8_t    *got;
		size_t		got_len;
		enum tde_stream_status expected = len < AT_VERSION ? TDE_STREAM_EFORMAT : TDE_STREAM_EDAMAGED;

		/* In the middle of the long chunk every length is the same case: some will do. */
		if (len > TDE_STREAM_HEADER_LEN + 100 && len < TDE_STREAM_HEADER_LEN + TDE_STREAM_CHUNK - 100 &&
			len % 331 != 0)
			continue;
		ck_assert_msg(read_stream(buf, len, &got, &got_len) == expected, "length %zu", len);
		ck_assert_uint_le(got_len, KNOWN_PLAIN);
		ck_assert_mem_eq(got, plain, got_len);
		free(got);
	}
	free(buf);
}
END_TEST

START_TEST(every_extension)
{
	uint8_t    *known = read_known();
	uint8_t    *buf = calloc(1, KNOWN_LEN + 2 * TDE_STREAM_SEALED_CHUNK);

	for (size_t more = 1; more <= 2 * TDE_STREAM_SEALED_CHUNK; more += more < 200 ? 1 : 4093)
	{
		memcpy(buf, known, KNOWN_LEN);
		ck_assert_msg(try_stream(buf, KNOWN_LEN + more) == TDE_STREAM_EDAMAGED, "%zu more", more);
	}

	/* A second whole stream after the first. */
	memcpy(buf + KNOWN_LEN, known, KNOWN_LEN);
	ck_assert_int_eq(try_stream(buf, 2 * KNOWN_LEN), TDE_STREAM_EDAMAGED);
	free(buf);
	free(known);
}
END_TEST

/*
 * Chunks moved about.  one and two are streams of four whole chunks under the same keys: of the same backup, or of
 * different ones.
 */
#define SPLICE_CHUNKS	4

static void
swap(uint8_t *a, uint8_t *b, size_t len)
{
	for (size_t i = 0; i < len; i++)
	{
		uint8_t		t = a[i];

		a[i] = b[i];
		b[i] = t;
	}
}

#define CHUNK_OF(buf, n)	((buf) + TDE_STREAM_HEADER_LEN + (size_t) (n) * TDE_STREAM_SEALED_CHUNK)

static void
swap_neighbours(uint8_t *one, uint8_t *two, size_t *len)
{
	swap(CHUNK_OF(one, 1), CHUNK_OF(one, 2), TDE_STREAM_SEALED_CHUNK);
}

static void
swap_with_last(uint8_t *one, uint8_t *two, size_t *len)
{
	swap(CHUNK_OF(one, 0), CHUNK_OF(one, 3), TDE_STREAM_SEALED_CHUNK);
}

static void
repeat_chunk(uint8_t *one, uint8_t *two, size_t *len)
{
	memcpy(CHUNK_OF(one, 2), CHUNK_OF(one, 1), TDE_STREAM_SEALED_CHUNK);
}

static void
leave_out_chunk(uint8_t *one, uint8_t *two, size_t *len)
{
	memmove(CHUNK_OF(one, 1), CHUNK_OF(one, 2), 2 * (size_t) TDE_STREAM_SEALED_CHUNK);
	*len -= TDE_STREAM_SEALED_CHUNK;
}

/* At a chunk's boundary: each chunk is good, but none is the last. */
static void
leave_out_last(uint8_t *one, uint8_t *two, size_t *len)
{
	*len -= TDE_STREAM_SEALED_CHUNK;
}

/* The last chunk right after the first. */
static void
end_early(uint8_t *one, uint8_t *two, size_t *len)
{
	memcpy(CHUNK_OF(one, 1), CHUNK_OF(one, 3), TDE_STREAM_SEALED_CHUNK);
	*len -= 2 * TDE_STREAM_SEALED_CHUNK;
}

static void
go_on_after_last(uint8_t *one, uint8_t *two, size_t *len)
{
	memcpy(CHUNK_OF(one, 4), CHUNK_OF(one, 0), TDE_STREAM_SEALED_CHUNK);
	*len += TDE_STREAM_SEALED_CHUNK;
}

static void
take_chunk_of_other(uint8_t *one, uint8_t *two, size_t *len)
{
	memcpy(CHUNK_OF(one, 1), CHUNK_OF(two, 1), TDE_STREAM_SEALED_CHUNK);
}

static void
take_end_of_other(uint8_t *one, uint8_t *two, size_t *len)
{
	memcpy(CHUNK_OF(one, 2), CHUNK_OF(two, 2), 2 * (size_t) TDE_STREAM_SEALED_CHUNK);
}

static void
take_header_of_other(uint8_t *one, uint8_t *two, size_t *len)
{
	memcpy(one, two, TDE_STREAM_HEADER_LEN);
}

/* The wrapped data key is the same one, but bound to its own header. */
static void
take_wrapping_of_other(uint8_t *one, uint8_t *two, size_t *len)
{
	memcpy(one + 80, two + 80, 60);
}

static void
swap_tags(uint8_t *one, uint8_t *two, size_t *len)
{
	swap(CHUNK_OF(one, 1) + TDE_STREAM_CHUNK, CHUNK_OF(one, 2) + TDE_STREAM_CHUNK, TDE_STREAM_TAG_LEN);
}

static const struct
{
	const char *name;
	void		(*mutilate) (uint8_t *one, uint8_t *two, size_t *len);
	enum tde_stream_status status;
	size_t		accepted;		/* chunks */
} splices[] = {
	{"neighbours swapped", swap_neighbours, TDE_STREAM_EDAMAGED, 1},
	{"first and last swapped", swap_with_last, TDE_STREAM_EDAMAGED, 0},
	{"a chunk twice", repeat_chunk, TDE_STREAM_EDAMAGED, 2},
	{"a chunk left out", leave_out_chunk, TDE_STREAM_EDAMAGED, 1},
	{"the last chunk left out", leave_out_last, TDE_STREAM_EDAMAGED, 2},
	{"the last chunk too early", end_early, TDE_STREAM_EDAMAGED, 1},
	{"a chunk after the last", go_on_after_last, TDE_STREAM_EDAMAGED, 3},
	{"another stream's chunk", take_chunk_of_other, TDE_STREAM_EDAMAGED, 1},
	{"another stream's end", take_end_of_other, TDE_STREAM_EDAMAGED, 2},
	{"another stream's header", take_header_of_other, TDE_STREAM_EDAMAGED, 0},
	{"another stream's wrapping", take_wrapping_of_other, TDE_STREAM_EKEY, 0},
	{"tags swapped", swap_tags, TDE_STREAM_EDAMAGED, 1},
};

/* Twice: the other stream is of the same backup, and of another one under the same master key. */
START_TEST(splice)
{
	size_t		plain_len = SPLICE_CHUNKS * (size_t) TDE_STREAM_CHUNK;
	uint8_t    *plain = malloc(plain_len);

	fill(plain, plain_len, 1);
	for (int other_backup = 0; other_backup < 2; other_backup++)
	{
		struct tde_stream_info info;
		uint8_t    *one;
		uint8_t    *two;
		uint8_t    *got;
		size_t		len;
		size_t		got_len;

		known_info(&info);
		one = write_stream(&info, plain, plain_len, &len);
		info.number++;
		if (other_backup)
			info.backup_id[0] ^= 1;
		two = write_stream(&info, plain, plain_len, &len);
		one = realloc(one, len + TDE_STREAM_SEALED_CHUNK);
		ck_assert_int_eq(try_stream(one, len), TDE_STREAM_OK);
		splices[_i].mutilate(one, two, &len);
		ck_assert_msg(read_stream(one, len, &got, &got_len) == splices[_i].status, "%s", splices[_i].name);
		ck_assert_msg(got_len == splices[_i].accepted * TDE_STREAM_CHUNK, "%s: %zu bytes accepted",
					  splices[_i].name, got_len);
		ck_assert_mem_eq(got, plain, got_len);
		free(got);
		free(one);
		free(two);
	}
	free(plain);
}
END_TEST

/* What a caller must not do, and cannot. */
START_TEST(misuse)
{
	struct tde_stream_info info;
	uint8_t		header[TDE_STREAM_HEADER_LEN];
	uint8_t    *buf = calloc(1, 2 * TDE_STREAM_SEALED_CHUNK);
	static const struct
	{
		size_t		len;
		bool		last;
	}			bad[] = {
		{0, false}, {TDE_STREAM_CHUNK - 1, false}, {TDE_STREAM_CHUNK + 1, false}, {TDE_STREAM_CHUNK + 1, true},
	};

	known_info(&info);
	for (size_t i = 0; i < LENGTH_OF(bad); i++)
	{
		tde_stream *stream = NULL;

		ck_assert_int_eq(tde_stream_create(&info, DATA_KEY, MASTER_KEY, header, &stream), TDE_STREAM_OK);
		ck_assert_int_eq(tde_stream_seal(stream, buf, bad[i].len, bad[i].last, buf), TDE_STREAM_EINVAL);
		ck_assert_int_eq(tde_stream_seal(stream, buf, 1, true, buf), TDE_STREAM_EINVAL);
		tde_stream_free(&stream);
	}
	{
		tde_stream *stream = NULL;

		/* Nothing after the last; and no empty one at the end of something. */
		ck_assert_int_eq(tde_stream_create(&info, DATA_KEY, MASTER_KEY, header, &stream), TDE_STREAM_OK);
		ck_assert_int_eq(tde_stream_seal(stream, buf, 5, true, buf), TDE_STREAM_OK);
		ck_assert_int_eq(tde_stream_seal(stream, buf, 5, true, buf), TDE_STREAM_EINVAL);
		tde_stream_free(&stream);
		ck_assert_int_eq(tde_stream_create(&info, DATA_KEY, MASTER_KEY, header, &stream), TDE_STREAM_OK);
		ck_assert_int_eq(tde_stream_seal(stream, buf, TDE_STREAM_CHUNK, false, buf), TDE_STREAM_OK);
		ck_assert_int_eq(tde_stream_seal(stream, buf, 0, true, buf), TDE_STREAM_EINVAL);
		tde_stream_free(&stream);
	}
	tde_stream_free(&(tde_stream *) {NULL});
	free(buf);
}
END_TEST

START_TEST(other_master_key)
{
	uint8_t    *known = read_known();
	uint8_t    *got;
	tde_stream *stream = NULL;
	size_t		len;

	ck_assert_int_eq(tde_stream_open(known, known_key(0x41), &stream), TDE_STREAM_EKEY);
	ck_assert_ptr_null(stream);
	ck_assert_int_eq(read_stream(known, KNOWN_LEN, &got, &len), TDE_STREAM_OK);
	free(got);
	free(known);
}
END_TEST

/* A chunk that does not verify leaves nothing of its plaintext in the caller's buffer. */
START_TEST(nothing_of_a_bad_chunk)
{
	uint8_t    *known = read_known();
	uint8_t    *out = malloc(TDE_STREAM_CHUNK);
	uint8_t    *zeros = calloc(1, TDE_STREAM_CHUNK);
	tde_stream *stream = NULL;

	memset(out, 0x55, TDE_STREAM_CHUNK);
	ck_assert_int_eq(tde_stream_open(known, MASTER_KEY, &stream), TDE_STREAM_OK);
	known[TDE_STREAM_HEADER_LEN + 30000] ^= 1;
	ck_assert_int_eq(tde_stream_next(stream, known + TDE_STREAM_HEADER_LEN, TDE_STREAM_SEALED_CHUNK, false, out),
					 TDE_STREAM_EDAMAGED);
	ck_assert_mem_eq(out, zeros, TDE_STREAM_CHUNK);
	tde_stream_free(&stream);
	free(known);
	free(out);
	free(zeros);
}
END_TEST

START_TEST(without_random_bytes)
{
	struct tde_stream_info info;
	uint8_t		header[TDE_STREAM_HEADER_LEN];
	tde_stream *stream = NULL;

	known_info(&info);
	random_fails = true;
	ck_assert_int_eq(tde_stream_create(&info, DATA_KEY, MASTER_KEY, header, &stream), TDE_STREAM_ECRYPTO);
	ck_assert_ptr_null(stream);
}
END_TEST

START_TEST(status_texts)
{
	for (int i = TDE_STREAM_OK; i <= TDE_STREAM_EFULL; i++)
	{
		ck_assert_str_ne(tde_stream_status_text(i), "has an unknown status");
		for (int j = 0; j < i; j++)
			ck_assert_str_ne(tde_stream_status_text(i), tde_stream_status_text(j));
	}
	ck_assert_str_eq(tde_stream_status_text(TDE_STREAM_EFULL + 1), "has an unknown status");
}
END_TEST

int
main(void)
{
	Suite	   *suite = suite_create("tde_stream");

	ADD_TEST(suite, known_answer);
	ADD_LOOP_TEST(suite, lengths, 10);
	ADD_TEST(suite, flip_every_byte);
	ADD_TEST(suite, every_truncation);
	ADD_TEST(suite, every_extension);
	ADD_LOOP_TEST(suite, splice, LENGTH_OF(splices));
	ADD_TEST(suite, misuse);
	ADD_TEST(suite, other_master_key);
	ADD_TEST(suite, nothing_of_a_bad_chunk);
	ADD_TEST(suite, without_random_bytes);
	ADD_TEST(suite, status_texts);
	return run_suite(suite);
}
