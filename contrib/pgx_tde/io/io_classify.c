/*
 * io_classify.c
 *		Which files are ours, by their names.
 *
 * The server opens its files by paths relative to the data directory, its
 * working directory; a few callers put the data directory in front.
 */
#include <config.h>

#include <ctype.h>
#include <string.h>

#include "pgx_io.h"

#define DEFAULT_TABLESPACE_OID	1663
#define GLOBAL_TABLESPACE_OID	1664
#define WAL_NAME_LEN			24	/* hexadecimal digits: timeline, and twice the segment */

/* Parse decimal digits that fit into 32 bits; false, and *p unmoved, otherwise. */
static bool
parse_u32(const char **p, uint32_t *ret)
{
	const char *s = *p;
	uint64_t	value = 0;

	if (!isdigit((unsigned char) *s))
		return false;
	while (isdigit((unsigned char) *s))
	{
		value = value * 10 + (uint64_t) (*s++ - '0');
		if (value > UINT32_MAX)
			return false;
	}
	*p = s;
	*ret = (uint32_t) value;
	return true;
}

static bool
skip(const char **p, const char *prefix)
{
	size_t		len = strlen(prefix);

	if (strncmp(*p, prefix, len) != 0)
		return false;
	*p += len;
	return true;
}

/* The last component of a relation's path: [tBACKEND_]NUMBER[_fsm|_vm|_init][.SEGMENT]. */
static bool
parse_relation_name(const char *p, struct pgx_io_path *path)
{
	uint32_t	backend;

	if (*p == 't')
	{
		p++;
		if (!parse_u32(&p, &backend) || !skip(&p, "_"))
			return false;
	}
	if (!parse_u32(&p, &path->relation))
		return false;
	path->fork = 0;
	if (skip(&p, "_fsm"))
		path->fork = 1;
	else if (skip(&p, "_vm"))
		path->fork = 2;
	else if (skip(&p, "_init"))
		path->fork = 3;
	path->segment = 0;
	if (skip(&p, ".") && !parse_u32(&p, &path->segment))
		return false;
	if (*p != '\0' || path->segment > UINT32_MAX / 131072)
		return false;
	path->kind = PGX_IO_RELATION;
	return true;
}

/* DATABASE/RELATION, or pgsql_tmp/ and anything below it. */
static void
parse_database_dir(const char *p, struct pgx_io_path *path)
{
	if (strncmp(p, "pgsql_tmp/", 10) == 0)
		path->kind = PGX_IO_TEMP;
	else if (parse_u32(&p, &path->database) && skip(&p, "/"))
		parse_relation_name(p, path);
}

/* pg_replslot/SLOT/xid-*.spill */
static bool
is_spill_file(const char *p)
{
	const char *name = strchr(p, '/');
	size_t		len = strlen(p);

	return name != NULL && strncmp(name, "/xid-", 5) == 0 && len > 6 &&
		strcmp(p + len - 6, ".spill") == 0;
}

static enum pgx_io_kind
classify_wal_name(const char *name)
{
	size_t		digits = strspn(name, "0123456789ABCDEF");

	if (strncmp(name, "xlogtemp.", 9) == 0)
		return PGX_IO_WAL_TEMP;
	if (strcmp(name, "RECOVERYXLOG") == 0)
		return PGX_IO_WAL;
	if (digits == WAL_NAME_LEN &&
		(name[digits] == '\0' || strcmp(name + digits, ".partial") == 0))
		return PGX_IO_WAL;
	return PGX_IO_NONE;
}

void
pgx_io_classify_wal(const char *path, struct pgx_io_path *ret_path)
{
	const char *slash = strrchr(path, '/');

	memset(ret_path, 0, sizeof(*ret_path));
	ret_path->kind = classify_wal_name(slash == NULL ? path : slash + 1);
}

void
pgx_io_classify(const char *path, const char *data_dir, struct pgx_io_path *ret_path)
{
	const char *p = path;

	memset(ret_path, 0, sizeof(*ret_path));
	if (*p == '/')
	{
		if (!skip(&p, data_dir) || *p != '/')
			return;
	}
	while (*p == '/' || (p[0] == '.' && p[1] == '/'))
		p++;

	if (skip(&p, "base/"))
	{
		ret_path->tablespace = DEFAULT_TABLESPACE_OID;
		parse_database_dir(p, ret_path);
	}
	else if (skip(&p, "global/"))
	{
		ret_path->tablespace = GLOBAL_TABLESPACE_OID;
		parse_relation_name(p, ret_path);
	}
	else if (skip(&p, "pg_tblspc/"))
	{
		/* pg_tblspc/OID/PG_15_202209061/DATABASE/RELATION */
		if (!parse_u32(&p, &ret_path->tablespace) || !skip(&p, "/PG_"))
			return;
		p += strcspn(p, "/");
		if (skip(&p, "/"))
			parse_database_dir(p, ret_path);
	}
	else if (skip(&p, "pg_wal/"))
		ret_path->kind = classify_wal_name(p);
	else if (skip(&p, "pg_replslot/"))
	{
		ret_path->spill = is_spill_file(p);
		ret_path->kind = ret_path->spill ? PGX_IO_TEMP : PGX_IO_NONE;
	}
	else if (strcmp(p, PGX_IO_SELF_CHECK_PATH) == 0)
	{
		ret_path->kind = PGX_IO_RELATION;
		ret_path->tablespace = PGX_IO_SELF_CHECK_OID;
	}
}
