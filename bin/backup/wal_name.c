/*
 * wal_name.c
 *		Names of WAL segments and the text form of LSNs.  See backup.h.
 *
 * The server's macros for this are in headers that a program outside cannot include; the
 * names themselves are documented and have not changed since version 9.3.
 */
#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup.h"

/* A segment's name has the number of 4 GiB units and of the segment within one. */
#define XLOG_ID_BYTES	UINT64_C(0x100000000)

void
pgx_wal_name(uint32_t timeline, uint64_t lsn, uint32_t segment_size, char ret_name[PGX_WAL_NAME_LEN + 1])
{
	snprintf(ret_name, PGX_WAL_NAME_LEN + 1, "%08" PRIX32 "%08" PRIX32 "%08" PRIX32, timeline,
			 (uint32_t) (lsn / XLOG_ID_BYTES), (uint32_t) (lsn % XLOG_ID_BYTES / segment_size));
}

bool
pgx_wal_name_parse(const char *name, uint32_t segment_size, uint32_t *ret_timeline, uint64_t *ret_lsn)
{
	uint32_t	part[3];

	if (strlen(name) != PGX_WAL_NAME_LEN ||
		strspn(name, "0123456789ABCDEF") != PGX_WAL_NAME_LEN)
		return false;
	for (int i = 0; i < 3; i++)
	{
		char		digits[9];

		memcpy(digits, name + 8 * i, 8);
		digits[8] = '\0';
		part[i] = (uint32_t) strtoul(digits, NULL, 16);
	}
	if (part[2] >= XLOG_ID_BYTES / segment_size)
		return false;			/* no segment of this size has that number */
	if (ret_timeline != NULL)
		*ret_timeline = part[0];
	if (ret_lsn != NULL)
		*ret_lsn = part[1] * XLOG_ID_BYTES + (uint64_t) part[2] * segment_size;
	return true;
}

bool
pgx_lsn_parse(const char *text, uint64_t *ret_lsn)
{
	size_t		high = strspn(text, "0123456789abcdefABCDEF");
	size_t		low;

	if (high < 1 || high > 8 || text[high] != '/')
		return false;
	low = strspn(text + high + 1, "0123456789abcdefABCDEF");
	if (low < 1 || low > 8 || text[high + 1 + low] != '\0')
		return false;
	*ret_lsn = strtoull(text, NULL, 16) << 32 | strtoull(text + high + 1, NULL, 16);
	return true;
}

void
pgx_lsn_text(uint64_t lsn, char ret_text[PGX_LSN_STRLEN + 1])
{
	snprintf(ret_text, PGX_LSN_STRLEN + 1, "%" PRIX32 "/%" PRIX32, (uint32_t) (lsn >> 32), (uint32_t) lsn);
}
