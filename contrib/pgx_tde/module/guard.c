/*
 * guard.c
 *		A look at the tablespaces before the server starts: is there encrypted data
 *		that the key table knows nothing of?
 *
 * With an older key table, put back from somewhere, a tablespace that was created later would look like one that
 * is not encrypted, and new pages would go there in plaintext.  What is on disk says
 * otherwise: every page that the server initialised has its size and layout version at a
 * fixed place, which encryption hides.
 */
#include "pgx_postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "catalog/pg_tablespace_d.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "storage/bufpage.h"
#include "storage/fd.h"

#include "page.h"
#include "pgx_tde.h"

#define TABLESPACES		"pg_tblspc"
#define BACKUP_LABEL	"backup_label"

typedef enum PageKind
{
	PAGE_UNKNOWN,				/* no page, or one that is all zero */
	PAGE_PLAIN,
	PAGE_HIDDEN
} PageKind;

/* What the first page of a relation's file is. */
static PageKind
first_page(const char *path)
{
	PGAlignedBlock page;
	PageHeader	header;
	int			fd = OpenTransientFile(path, O_RDONLY | PG_BINARY);
	ssize_t		got = 0;

	if (fd >= 0)
	{
		got = read(fd, page.data, BLCKSZ);
		CloseTransientFile(fd);
	}
	if (got != BLCKSZ || tde_page_is_zero((uint8_t *) page.data))
		return PAGE_UNKNOWN;
	header = (PageHeader) page.data;
	return PageGetPageSize(page.data) == BLCKSZ &&
		PageGetPageLayoutVersion(page.data) == PG_PAGE_LAYOUT_VERSION &&
		header->pd_special <= BLCKSZ && header->pd_special == MAXALIGN(header->pd_special) ?
		PAGE_PLAIN : PAGE_HIDDEN;
}

/*
 * The same of a folder with relation files.  One that is plain is enough, so that a damaged page is not taken for an
 * encrypted one.
 */
static PageKind
database_pages(const char *dir)
{
	DIR		   *handle = AllocateDir(dir);
	struct dirent *entry;
	PageKind	kind = PAGE_UNKNOWN;

	while (kind != PAGE_PLAIN && handle != NULL &&
		   (entry = ReadDirExtended(handle, dir, LOG)) != NULL)
	{
		char		path[MAXPGPATH * 2];
		PageKind	found;

		/* Relations have numbers for names; what else begins with a digit does not exist here. */
		if (entry->d_name[0] < '0' || entry->d_name[0] > '9')
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
		found = first_page(path);
		if (found != PAGE_UNKNOWN)
			kind = found;
	}
	FreeDir(handle);
	return kind;
}

/* Of a folder with those of databases. */
static PageKind
databases_pages(const char *dir)
{
	DIR		   *handle = AllocateDir(dir);
	struct dirent *entry;
	PageKind	kind = PAGE_UNKNOWN;

	while (kind == PAGE_UNKNOWN && handle != NULL &&
		   (entry = ReadDirExtended(handle, dir, LOG)) != NULL)
	{
		char		path[MAXPGPATH * 2];

		if (entry->d_name[0] < '0' || entry->d_name[0] > '9')
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
		kind = database_pages(path);
	}
	FreeDir(handle);
	return kind;
}

/* Of a tablespace; it may have folders of several major versions. */
static PageKind
tablespace_pages(const char *tablespace)
{
	char		dir[MAXPGPATH];

	snprintf(dir, sizeof(dir), TABLESPACES "/%s/%s", tablespace, TABLESPACE_VERSION_DIRECTORY);
	return databases_pages(dir);
}

static void
refuse_hidden(Oid oid)
{
	ereport(FATAL,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("tablespace %u holds encrypted data, but key table \"%s\" has no key for it",
					oid, PGX_KEYTABLE_FILE),
			 errdetail("The key table is older than the tablespace, or of another server."),
			 errhint("Restore the file from a backup of this data directory that was made later, or from another server of its replication group.")));
}

static bool
has_key(Oid oid)
{
	return pgx_io->get_algorithm(TDE_KEY_TABLESPACE, oid) != TDE_NONE;
}

/*
 * pg_upgrade copies or links the files of relations into another data directory, which does not have their keys; or
 * plain ones into one where they are taken for encrypted.  Nobody would notice until they are read.
 */
static void
refuse_upgrade(void)
{
	ereport(FATAL,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("pg_upgrade cannot be used with an encrypted data directory"),
			 errdetail("It copies relation files to where their keys are not."),
			 errhint("Decrypt it with pgx_encrypt --decrypt and encrypt the new one, or use pg_dump or logical replication.")));
}

/*
 * To be called when the keys of the key table have been published.  A server that is to recover from a backup is
 * not looked at: the table may have been copied before the tablespace was created, and WAL brings the key.
 */
void
pgx_check_tablespaces(void)
{
	DIR		   *handle;
	struct dirent *entry;

	if (IsBinaryUpgrade && (has_key(GLOBALTABLESPACE_OID) || has_key(DEFAULTTABLESPACE_OID)))
		refuse_upgrade();
	if (access(BACKUP_LABEL, F_OK) == 0 && !IsBinaryUpgrade)
		return;
	/* Those of a cluster that is encrypted as a whole. */
	if (!has_key(GLOBALTABLESPACE_OID) && database_pages("global") == PAGE_HIDDEN)
		refuse_hidden(GLOBALTABLESPACE_OID);
	if (!has_key(DEFAULTTABLESPACE_OID) && databases_pages("base") == PAGE_HIDDEN)
		refuse_hidden(DEFAULTTABLESPACE_OID);
	handle = AllocateDir(TABLESPACES);
	while (handle != NULL && (entry = ReadDirExtended(handle, TABLESPACES, LOG)) != NULL)
	{
		Oid			oid = (Oid) strtoul(entry->d_name, NULL, 10);

		if (IsBinaryUpgrade && oid != InvalidOid && has_key(oid))
			refuse_upgrade();
		if (oid != InvalidOid && !has_key(oid) && tablespace_pages(entry->d_name) == PAGE_HIDDEN)
			refuse_hidden(oid);
	}
	FreeDir(handle);
}
