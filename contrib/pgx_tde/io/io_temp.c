/*
 * io_temp.c
 *		Temporary files (sorts, hashes, tuplestores) and spill files of logical
 *		decoding.  They are written and read at any offset and in any length.
 *
 * A file is made of units of PGX_IO_PAGE bytes, the last one as long as the file
 * has it, so that its size is what the server expects.  A unit is encrypted as a whole with
 * AES-XTS under a key that is drawn at each start of the server, which deletes such
 * files then; the tweak is a hash of the path and the number of the unit.  Writing a part of a
 * unit means reading, merging and writing it.  XTS takes 16 bytes or more:
 * a shorter last unit is hidden with a block that depends on its length too.
 * A unit of zeros is zeros on disk, as holes are.
 */
#include <config.h>

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "io_internal.h"

#define UNIT			PGX_IO_PAGE
#define XTS_MIN			16
#define SHORT_UNIT_BIT	(UINT64_C(1) << 63)	/* in the tweak: not a unit's own number */

static uint8_t unit_buf[UNIT];

uint64_t
pgx_temp_file_id(const char *path)
{
	uint8_t		digest[EVP_MAX_MD_SIZE];
	uint64_t	id = 0;

	/* Without a digest all files would share their tweaks: weaker, but never plaintext. */
	if (EVP_Digest(path, strlen(path), digest, NULL, EVP_sha256(), NULL) == 1)
		memcpy(&id, digest, sizeof(id));
	return id;
}

static void
make_tweak(const struct pgx_io_file *file, uint64_t unit, uint8_t tweak[16])
{
	memcpy(tweak, &file->temp_id, 8);
	memcpy(tweak + 8, &unit, 8);
}

static bool
is_zero(const uint8_t *buf, size_t len)
{
	return buf[0] == 0 && memcmp(buf, buf + 1, len - 1) == 0;
}

/* Hide or show a unit of less than XTS_MIN bytes. */
static int
crypt_short(const struct pgx_io_file *file, tde_xts *xts, uint64_t unit, uint8_t *buf, size_t len)
{
	uint8_t		tweak[16];
	uint8_t		block[XTS_MIN] = {0};
	int			result;

	make_tweak(file, unit | SHORT_UNIT_BIT, tweak);
	block[0] = (uint8_t) len;
	result = tde_xts_encrypt(xts, tweak, block, block, sizeof(block));
	for (size_t i = 0; i < len && result == 0; i++)
		buf[i] ^= block[i];
	OPENSSL_cleanse(block, sizeof(block));
	return result;
}

/* Encrypt or decrypt a unit that is len bytes long; short ones in place only.  -1 with errno set. */
static int
crypt_unit(const struct pgx_io_file *file, uint64_t unit, const uint8_t *in, uint8_t *out, size_t len, bool encrypt)
{
	enum pgx_io_counted what = (enum pgx_io_counted) file->counted;
	tde_xts    *xts = pgx_io_relation_cipher(file->slot);
	uint8_t		tweak[16];
	uint64_t	begin;
	int			result;

	if (xts == NULL)
	{
		pgx_count_failure(what);
		return -1;
	}
	if (len == 0 || (len >= XTS_MIN && is_zero(in, len)))
	{
		if (in != out)
			memcpy(out, in, len);
		return 0;
	}
	begin = pgx_count_begin();
	make_tweak(file, unit, tweak);
	if (len < XTS_MIN)
		result = crypt_short(file, xts, unit, out, len);
	else if (encrypt)
		result = tde_xts_encrypt(xts, tweak, in, out, len);
	else
		result = tde_xts_decrypt(xts, tweak, in, out, len);
	if (result != 0)
	{
		pgx_count_failure(what);
		errno = EIO;
		return -1;
	}
	pgx_count(what, encrypt ? PGX_ENCRYPTED : PGX_DECRYPTED, 1, len, begin);
	return 0;
}

/* Read and decrypt what there is of a unit; its length, or -1 with errno set. */
static ssize_t
read_unit(int fd, uint64_t unit, uint8_t *buf)
{
	ssize_t		got = pgx_raw_pread(fd, buf, UNIT, (off_t) (unit * UNIT));

	if (got > 0 && crypt_unit(&pgx_files[fd], unit, buf, buf, (size_t) got, false) != 0)
		return -1;
	return got;
}

/* Encrypt buf, which may be unit_buf, and write it as the unit's content. */
static int
write_unit(int fd, uint64_t unit, const uint8_t *buf, size_t len)
{
	if (crypt_unit(&pgx_files[fd], unit, buf, unit_buf, len, true) != 0)
		return -1;
	return pgx_raw_pwrite(fd, unit_buf, len, (off_t) (unit * UNIT)) == (ssize_t) len ? 0 : -1;
}

ssize_t
pgx_temp_pread(int fd, void *buf, size_t len, off_t off)
{
	uint8_t    *to = buf;
	size_t		done = 0;

	while (done < len)
	{
		uint64_t	at = (uint64_t) off + done;
		uint64_t	unit = at / UNIT;
		size_t		skip = (size_t) (at % UNIT);
		size_t		want = len - done < UNIT - skip ? len - done : UNIT - skip;
		bool		direct = want == UNIT;
		ssize_t		got = read_unit(fd, unit, direct ? to + done : unit_buf);

		if (got < 0)
			return done > 0 ? (ssize_t) done : -1;
		if (got <= (ssize_t) skip)
			break;
		if (want > (size_t) got - skip)
			want = (size_t) got - skip;
		if (!direct)
			memcpy(to + done, unit_buf + skip, want);
		done += want;
		if (got < UNIT)
			break;
	}
	return (ssize_t) done;
}

/* Give the last unit of a file another length: it is encrypted as a whole, so its bytes change. */
static int
resize_last_unit(int fd, uint64_t unit, size_t new_len)
{
	ssize_t		got = read_unit(fd, unit, unit_buf);

	if (got < 0)
		return -1;
	if ((size_t) got < new_len)
		memset(unit_buf + got, 0, new_len - (size_t) got);
	return write_unit(fd, unit, unit_buf, new_len);
}

ssize_t
pgx_temp_pwrite(int fd, const void *buf, size_t len, off_t off)
{
	const uint8_t *from = buf;
	size_t		done = 0;
	struct stat st;

	if (fstat(fd, &st) != 0)
		return -1;
	/* A hole begins after a last unit that is not full: fill it up with zeros first. */
	if (st.st_size % UNIT != 0 && off / UNIT > st.st_size / UNIT &&
		resize_last_unit(fd, (uint64_t) (st.st_size / UNIT), UNIT) != 0)
		return -1;

	while (done < len)
	{
		uint64_t	at = (uint64_t) off + done;
		uint64_t	unit = at / UNIT;
		size_t		skip = (size_t) (at % UNIT);
		size_t		n = len - done < UNIT - skip ? len - done : UNIT - skip;
		const uint8_t *whole = from + done;
		size_t		unit_len = n;

		if (n < UNIT)
		{
			ssize_t		there = read_unit(fd, unit, unit_buf);

			if (there < 0)
				return done > 0 ? (ssize_t) done : -1;
			if ((size_t) there < skip)
				memset(unit_buf + there, 0, skip - (size_t) there);
			unit_len = skip + n > (size_t) there ? skip + n : (size_t) there;
			memcpy(unit_buf + skip, from + done, n);
			whole = unit_buf;
		}
		if (write_unit(fd, unit, whole, unit_len) != 0)
			return done > 0 ? (ssize_t) done : -1;
		done += n;
	}
	return (ssize_t) done;
}

int
pgx_temp_ftruncate(int fd, off_t size)
{
	uint64_t	unit = (uint64_t) size / UNIT;
	size_t		rest = (size_t) (size % UNIT);
	struct stat st;

	if (fstat(fd, &st) != 0)
		return -1;
	if (size > st.st_size && st.st_size % UNIT != 0 &&
		resize_last_unit(fd, (uint64_t) (st.st_size / UNIT),
						 size / UNIT > st.st_size / UNIT ? UNIT : rest) != 0)
		return -1;
	if (size < st.st_size && rest != 0 && resize_last_unit(fd, unit, rest) != 0)
		return -1;
	return pgx_libc.ftruncate(fd, size);
}
