/*
 * page.c
 *		A page of a relation file on its way between the server and the disk.
 */
#include <config.h>

#include <string.h>

#include "checksum_int.h"
#include "cipher_int.h"
#include "page.h"
#include "page_vaes.h"

#define PD_PAGESIZE_VERSION_OFFSET	18	/* u16 in the machine's byte order: size and layout version in one */
#define PAGE_LAYOUT_VERSION		4
#define ZERO_CHUNK			64	/* bytes looked at before the first decision */

static void
put_u32(uint8_t *to, uint32_t value)
{
	to[0] = (uint8_t) (value >> 24);
	to[1] = (uint8_t) (value >> 16);
	to[2] = (uint8_t) (value >> 8);
	to[3] = (uint8_t) value;
}

/*
 * Only what stays the same when the page is copied to another server or tablespace may be in the
 * tweak.
 */
static void
make_tweak(const struct tde_page_id *id, uint8_t tweak[16])
{
	put_u32(tweak, id->database);
	put_u32(tweak + 4, id->relation);
	put_u32(tweak + 8, id->fork);
	put_u32(tweak + 12, id->block);
}

static uint16_t
get_checksum(const uint8_t *page)
{
	uint16_t	checksum;

	memcpy(&checksum, page + PD_CHECKSUM_OFFSET, sizeof(checksum));
	return checksum;
}

static void
set_checksum(uint8_t *page, uint16_t checksum)
{
	memcpy(page + PD_CHECKSUM_OFFSET, &checksum, sizeof(checksum));
}

/* Not zero: a checksum never is, and a reader could take it to mean that there is none. */
static uint16_t
wrong_checksum(uint16_t right)
{
	return (right ^ 1) != 0 ? right ^ 1 : right + 2;
}

bool
tde_page_is_zero(const uint8_t *page)
{
	uint64_t	words[ZERO_CHUNK / sizeof(uint64_t)];
	uint64_t	any = 0;

	/* Nearly every page differs from zero in its first bytes. */
	memcpy(words, page, ZERO_CHUNK);
	for (size_t w = 0; w < ZERO_CHUNK / sizeof(uint64_t); w++)
		any |= words[w];
	/* The rest is like its beginning if it is like itself one chunk on; memcmp() is made for speed. */
	return any == 0 && memcmp(page, page + ZERO_CHUNK, TDE_PAGE_SIZE - ZERO_CHUNK) == 0;
}

/* Can the page be one of zeros? */
static bool
starts_with_zeros(const uint8_t *page)
{
	static const uint8_t zeros[TDE_PAGE_CLEAR];

	return memcmp(page, zeros, TDE_PAGE_CLEAR) == 0;
}

enum tde_page_result
tde_page_encrypt(tde_xts *xts, const struct tde_page_id *id, bool checksums,
				 const uint8_t *in, uint8_t *out)
{
	uint8_t		tweak[16];
	const uint8_t *from = in;
	const struct xts_vaes *vaes;

	/*
	 * Another process may set hint bits in the caller's buffer at any time.  That is harmless where each byte is
	 * read once, but a page read twice could get a checksum that does not fit its bytes.  Our own
	 * XTS reads once; libcrypto promises nothing.
	 */
	memcpy(out, in, TDE_PAGE_CLEAR);
	if (starts_with_zeros(out) || !tde_xts_is_fast(xts))
	{
		memcpy(out + TDE_PAGE_CLEAR, in + TDE_PAGE_CLEAR, TDE_PAGE_SIZE - TDE_PAGE_CLEAR);
		if (tde_page_is_zero(out))
			return TDE_PAGE_ZERO;
		from = out;
	}

	make_tweak(id, tweak);
	vaes = tde_xts_vaes(xts);
	if (vaes != NULL && checksums)
	{
		set_checksum(out, checksum_of(page_vaes_encrypt(vaes, tweak, from, out), id->block));
		return TDE_PAGE_OK;
	}
	if (tde_xts_encrypt(xts, tweak, from + TDE_PAGE_CLEAR, out + TDE_PAGE_CLEAR,
						TDE_PAGE_SIZE - TDE_PAGE_CLEAR) != 0)
		return TDE_PAGE_FAILED;
	if (checksums)
		set_checksum(out, tde_page_checksum(out, id->block));
	return TDE_PAGE_OK;
}

enum tde_page_result
tde_page_encrypt_verified(tde_xts *xts, const struct tde_page_id *id, bool checksums,
						  const uint8_t *in, uint8_t *out)
{
	bool		intact = !checksums || tde_page_is_zero(in) ||
		get_checksum(in) == tde_page_checksum(in, id->block);
	enum tde_page_result result = tde_page_encrypt(xts, id, checksums, in, out);

	if (intact || result != TDE_PAGE_OK)
		return result;
	set_checksum(out, wrong_checksum(get_checksum(out)));
	return TDE_PAGE_CHECKSUM;
}

static int
decrypt_body(tde_xts *xts, const uint8_t tweak[16], uint8_t *page)
{
	return tde_xts_decrypt(xts, tweak, page + TDE_PAGE_CLEAR, page + TDE_PAGE_CLEAR,
						   TDE_PAGE_SIZE - TDE_PAGE_CLEAR);
}

/* The same, with: was the checksum in the page right for the ciphertext, and what is it for the plaintext? */
static int
decrypt_summed(tde_xts *xts, const uint8_t tweak[16], uint32_t block, uint8_t *page, bool *ret_intact,
			   uint16_t *ret_checksum)
{
	const struct xts_vaes *vaes = tde_xts_vaes(xts);
	uint32_t	before;
	uint32_t	after;

	if (vaes != NULL)
	{
		page_vaes_decrypt(vaes, tweak, page, &before, &after);
		*ret_intact = get_checksum(page) == checksum_of(before, block);
		*ret_checksum = checksum_of(after, block);
		return 0;
	}
	*ret_intact = get_checksum(page) == tde_page_checksum(page, block);
	if (decrypt_body(xts, tweak, page) != 0)
		return -1;
	*ret_checksum = tde_page_checksum(page, block);
	return 0;
}

enum tde_page_result
tde_page_decrypt(tde_xts *xts, const struct tde_page_id *id, bool checksums, uint8_t *page)
{
	uint8_t		tweak[16];
	bool		intact;
	uint16_t	checksum;

	if (tde_page_is_zero(page))
		return TDE_PAGE_ZERO;
	make_tweak(id, tweak);
	if (!checksums)
		return decrypt_body(xts, tweak, page) == 0 ? TDE_PAGE_OK : TDE_PAGE_FAILED;
	if (decrypt_summed(xts, tweak, id->block, page, &intact, &checksum) != 0)
		return TDE_PAGE_FAILED;

	/*
	 * The server must find the damage by its own check, and act on it as it is set to.
	 * Leaving the disk's value would agree with the plaintext once in 65535 pages.
	 */
	set_checksum(page, intact ? checksum : wrong_checksum(checksum));
	return intact ? TDE_PAGE_OK : TDE_PAGE_CHECKSUM;
}

enum tde_page_result
tde_page_decrypt_verified(tde_xts *xts, const struct tde_page_id *id, bool checksums, uint8_t *page)
{
	enum tde_page_result result = tde_page_decrypt(xts, id, checksums, page);
	uint16_t	layout;

	memcpy(&layout, page + PD_PAGESIZE_VERSION_OFFSET, sizeof(layout));
	if (result != TDE_PAGE_OK || !checksums || layout == (TDE_PAGE_SIZE | PAGE_LAYOUT_VERSION))
		return result;
	set_checksum(page, wrong_checksum(get_checksum(page)));
	return TDE_PAGE_CHECKSUM;
}
