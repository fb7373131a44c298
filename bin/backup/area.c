/*
 * area.c
 *		The backup area as a whole: checked, locked and listed.  See backup.h.
 */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "area_int.h"
#include "file.h"
#include "log.h"
#include "mem.h"

/* ---- checks and the lock ------------------------------------------------------- */

static bool
refuse_area(const char *path, const char *detail)
{
	pgx_log_error("the specified backup storage directory \"%s\" is not correct", path);
	pgx_log_detail("%s", detail);
	return false;
}

bool
pgx_area_check(const char *path)
{
	struct stat st;

	if (path[0] != '/')
		return refuse_area(path, "It is not an absolute path.");
	if (stat(path, &st) != 0)
	{
		char	   *detail = pgx_printf("It could not be examined: %s.", strerror(errno));

		(void) refuse_area(path, detail);
		free(detail);
		return false;
	}
	if (!S_ISDIR(st.st_mode))
		return refuse_area(path, "It is not a directory.");
	if (st.st_uid != geteuid())
		return refuse_area(path, "It belongs to another user.");
	if ((st.st_mode & 077) != 0)
	{
		(void) refuse_area(path, "Other users have access to it.");
		pgx_log_hint("Run: chmod %s %s", "700", path);
		return false;
	}
	return true;
}

/* Say who has the lock, as far as the file tells. */
static void
tell_holder(int fd)
{
	char		text[128];
	ssize_t		n = pread(fd, text, sizeof(text) - 1, 0);
	char	   *blank;

	if (n < 0)
		n = 0;
	text[n] = '\0';
	text[strcspn(text, "\n")] = '\0';
	blank = strchr(text, ' ');
	if (blank != NULL)
		*blank = '\0';
	pgx_log_error("\"%s\" is being executed by another user", blank != NULL ? text : pgx_progname());
	if (blank != NULL)
		pgx_log_detail("Process %s works on the backup storage directory.", blank + 1);
	pgx_log_hint("Retry after the other process terminates.");
}

bool
pgx_area_lock(const char *path, int *ret_fd)
{
	char	   *file = pgx_join(path, PGX_AREA_LOCK_NAME);
	char	   *who = pgx_printf("%s %ld\n", pgx_progname(), (long) getpid());
	bool		ok = false;
	int			fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		pgx_log_error("could not open lock file \"%s\": %m", file);
	else if (flock(fd, LOCK_EX | LOCK_NB) != 0)
	{
		if (errno == EWOULDBLOCK)
			tell_holder(fd);
		else
			pgx_log_error("could not lock file \"%s\": %m", file);
	}
	else if (ftruncate(fd, 0) != 0 || pwrite(fd, who, strlen(who), 0) != (ssize_t) strlen(who))
		pgx_log_error("could not write lock file \"%s\": %m", file);
	else
		ok = true;
	if (ok)
		*ret_fd = fd;
	else if (fd >= 0)
		(void) close(fd);
	free(who);
	free(file);
	return ok;
}

void
pgx_area_unlock(int *fd)
{
	/* The file stays: removing it would let two processes lock two files of one name. */
	if (*fd >= 0)
		(void) close(*fd);
	*fd = -1;
}

/* ---- listing ------------------------------------------------------------------- */

bool
pgx_backup_name_parse(const char *name, size_t len, time_t *ret_when)
{
	static const char form[] = "dddd-dd-dd_dd-dd-dd";
	struct tm	tm;
	char		text[PGX_BACKUP_NAME_LEN + 1];

	if (len != PGX_BACKUP_NAME_LEN)
		return false;
	for (size_t i = 0; i < len; i++)
	{
		if (form[i] == 'd' ? name[i] < '0' || name[i] > '9' : name[i] != form[i])
			return false;
	}
	memcpy(text, name, len);
	text[len] = '\0';
	memset(&tm, 0, sizeof(tm));
	if (strptime(text, "%Y-%m-%d_%H-%M-%S", &tm) == NULL)
		return false;
	tm.tm_isdst = -1;
	if (ret_when != NULL)
		*ret_when = mktime(&tm);
	return true;
}

const char *
pgx_backup_state_text(enum pgx_backup_state state)
{
	switch (state)
	{
		case PGX_BACKUP_COMPLETE:
			return "COMPLETE";
		case PGX_BACKUP_INCOMPLETE:
			return "INCOMPLETE";
		case PGX_BACKUP_DAMAGED:
			return "DAMAGED";
	}
	return "unknown";
}

char *
pgx_backup_path(const struct pgx_backup *backup, const char *relative)
{
	return pgx_join(backup->dir, relative);
}

char *
pgx_backup_tablespace_path(const struct pgx_backup *backup, uint32_t oid)
{
	return pgx_printf("%s/%s/%u", backup->dir, PGX_BACKUP_TABLESPACES, oid);
}

static bool
took_by_copy_command(const struct pgx_backup_info *info, const char *resource)
{
	for (size_t i = 0; i < info->n_resources; i++)
	{
		if (strcmp(info->resources[i], resource) == 0)
			return true;
	}
	return false;
}

static bool
has_part(const struct pgx_backup *backup, const char *relative, char **ret_reason)
{
	char	   *path = pgx_backup_path(backup, relative);
	struct stat st;
	bool		there = stat(path, &st) == 0;

	if (!there)
		*ret_reason = pgx_printf("\"%s\" is missing", relative);
	free(path);
	return there;
}

/* Is there what backup_info.json promises?  Content is for the manifest, or a packed file's tags, to tell. */
static bool
has_parts(const struct pgx_backup *backup, char **ret_reason)
{
	const struct pgx_backup_info *info = &backup->info;

	if (info->keystore_copy != NULL && !has_part(backup, info->keystore_copy, ret_reason))
		return false;
	if (info->packed)
		return has_part(backup, PGX_BACKUP_PACK, ret_reason);
	if (!took_by_copy_command(info, "pg_data") && !has_part(backup, PGX_BACKUP_DATA "/PG_VERSION", ret_reason))
		return false;
	if (info->has_manifest && !has_part(backup, PGX_BACKUP_DATA "/backup_manifest", ret_reason))
		return false;
	for (size_t i = 0; i < info->n_tablespaces; i++)
	{
		char		relative[32];

		snprintf(relative, sizeof(relative), PGX_BACKUP_TABLESPACES "/%u", info->tablespaces[i].oid);
		if (!info->tablespaces[i].by_copy_command && !has_part(backup, relative, ret_reason))
			return false;
	}
	return true;
}

/* Look at what has a backup's name.  False if it has not. */
static bool
examine(const char *area, const char *name, struct pgx_backup *backup, time_t *ret_when)
{
	size_t		len = strlen(name);
	size_t		suffix = strlen(PGX_BACKUP_SUFFIX);
	bool		incomplete = len > suffix && strcmp(name + len - suffix, PGX_BACKUP_SUFFIX) == 0;
	char		err[512] = "";
	struct stat st;

	if (!pgx_backup_name_parse(name, incomplete ? len - suffix : len, ret_when))
		return false;
	memset(backup, 0, sizeof(*backup));
	backup->dir = pgx_join(area, name);
	if (lstat(backup->dir, &st) != 0 || !S_ISDIR(st.st_mode))
	{
		free(backup->dir);
		return false;
	}
	backup->name = pgx_strndup(name, PGX_BACKUP_NAME_LEN);
	if (incomplete)
		backup->state = PGX_BACKUP_INCOMPLETE;
	else if (!pgx_backup_info_read(backup->dir, &backup->info, err, sizeof(err)))
	{
		backup->state = PGX_BACKUP_DAMAGED;
		backup->reason = pgx_strdup(err);
	}
	else if (!has_parts(backup, &backup->reason))
	{
		backup->state = PGX_BACKUP_DAMAGED;
		pgx_backup_info_clear(&backup->info);
	}
	else
	{
		backup->state = PGX_BACKUP_COMPLETE;
		*ret_when = (time_t) backup->info.end_time;
	}
	return true;
}

/* A backup and the time that it is sorted by. */
struct found
{
	struct pgx_backup backup;
	time_t		when;
};

static int
compare_found(const void *a, const void *b)
{
	const struct found *x = a;
	const struct found *y = b;

	if (x->when != y->when)
		return x->when < y->when ? -1 : 1;
	/*
	 * Of the same second: the name of one that was removed is free again, so names do not tell which is newer.
	 * A position in WAL does; one that is not complete has none.
	 */
	if (x->backup.info.end_lsn != y->backup.info.end_lsn)
		return x->backup.info.end_lsn < y->backup.info.end_lsn ? -1 : 1;
	return strcmp(x->backup.name, y->backup.name);
}

bool
pgx_area_list(const char *path, struct pgx_area *ret_area)
{
	char	   *real = realpath(path, NULL);
	DIR		   *d = real != NULL ? opendir(real) : NULL;
	struct dirent *e;
	struct found *found = NULL;
	size_t		n = 0;
	bool		ok;

	memset(ret_area, 0, sizeof(*ret_area));
	if (d == NULL)
	{
		pgx_log_error("could not open directory \"%s\": %m", path);
		free(real);
		return false;
	}
	while (errno = 0, (e = readdir(d)) != NULL)
	{
		found = pgx_realloc(found, (n + 1) * sizeof(*found));
		if (examine(real, e->d_name, &found[n].backup, &found[n].when))
			n++;
	}
	ok = errno == 0;
	if (!ok)
		pgx_log_error("could not read directory \"%s\": %m", path);
	(void) closedir(d);

	if (n > 1)
		qsort(found, n, sizeof(*found), compare_found);
	ret_area->path = real;
	ret_area->count = n;
	ret_area->backups = pgx_alloc((n + 1) * sizeof(*ret_area->backups));
	for (size_t i = 0; i < n; i++)
		ret_area->backups[i] = found[i].backup;
	free(found);
	if (!ok)
		pgx_area_clear(ret_area);
	return ok;
}

void
pgx_area_clear(struct pgx_area *area)
{
	for (size_t i = 0; i < area->count; i++)
	{
		free(area->backups[i].name);
		free(area->backups[i].dir);
		free(area->backups[i].reason);
		pgx_backup_info_clear(&area->backups[i].info);
	}
	free(area->backups);
	free(area->path);
	memset(area, 0, sizeof(*area));
}

/* ---- choosing ------------------------------------------------------------------- */

const struct pgx_backup *
pgx_area_newest(const struct pgx_area *area)
{
	return pgx_area_newest_until(area, 0, 0);
}

const struct pgx_backup *
pgx_area_newest_until(const struct pgx_area *area, int64_t end_time, uint64_t end_lsn)
{
	for (size_t i = area->count; i-- > 0;)
	{
		const struct pgx_backup *backup = &area->backups[i];

		if (backup->state == PGX_BACKUP_COMPLETE &&
			(end_time == 0 || backup->info.end_time <= end_time) &&
			(end_lsn == 0 || backup->info.end_lsn <= end_lsn))
			return backup;
	}
	return NULL;
}

const struct pgx_backup *
pgx_area_find(const struct pgx_area *area, const char *name_or_label)
{
	const struct pgx_backup *labelled = NULL;

	for (size_t i = area->count; i-- > 0;)
	{
		const struct pgx_backup *backup = &area->backups[i];

		if (backup->state != PGX_BACKUP_COMPLETE)
			continue;
		if (strcmp(backup->name, name_or_label) == 0)
			return backup;
		if (labelled == NULL && name_or_label[0] != '\0' &&
			strcmp(backup->info.label, name_or_label) == 0)
			labelled = backup;
	}
	return labelled;
}

/* ---- keys ------------------------------------------------------------------------ */

/* Does what is in the backup or follows it go through the key?  0 if not. */
static int
needs_key(const struct pgx_backup *backup, const char *keystore_uuid, uint32_t id)
{
	const struct pgx_backup_info *info = &backup->info;

	if (backup->state == PGX_BACKUP_INCOMPLETE)
		return 0;
	if (backup->state == PGX_BACKUP_DAMAGED)
		return PGX_KEY_FOR_DATA;	/* nobody can tell, so nobody may destroy */
	if (info->keystore_uuid == NULL)
		return PGX_KEY_FOR_WAL; /* encryption began later, with whichever keystore */
	if (strcmp(info->keystore_uuid, keystore_uuid) != 0)
		return 0;
	for (size_t i = 0; i < info->n_master_keys; i++)
	{
		if (info->master_keys[i] == id)
			return PGX_KEY_FOR_DATA;
	}
	/* Recovery replays every change of the master key that came after. */
	if (info->n_master_keys == 0 || id > info->master_keys[0])
		return PGX_KEY_FOR_WAL;
	return 0;
}

size_t
pgx_area_key_users(const struct pgx_area *area, const char *keystore_uuid, uint32_t id,
				   struct pgx_key_user **ret_users)
{
	struct pgx_key_user *users = pgx_alloc((area->count + 1) * sizeof(*users));
	size_t		n = 0;

	for (size_t i = 0; i < area->count; i++)
	{
		int			need = needs_key(&area->backups[i], keystore_uuid, id);

		if (need == 0)
			continue;
		users[n].backup = &area->backups[i];
		users[n].need = (enum pgx_key_need) need;
		n++;
	}
	*ret_users = users;
	return n;
}
