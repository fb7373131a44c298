/*
 * standby_backup.c
 *		A standby from a backup: the files come from the backup area, not from the server that it will follow.
 *
 * Choosing, checking and restoring are recovery's.  What differs: the keystore is the primary's, the server replays as
 * a standby, from the archive first and then over the connection, and whatever fails, nothing is left.
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "log.h"
#include "mem.h"
#include "standby.h"

/* It would replay another server's WAL, or rather refuse to, after everything had been copied. */
static bool
check_same_server(struct standby *s)
{
	const char *backup = s->recovery->backup->info.system_identifier;
	char	   *primary = standby_system_identifier(s);
	bool		ok = primary != NULL && strcmp(primary, backup) == 0;

	if (primary != NULL && !ok)
	{
		pgx_log_error("the backup \"%s\" is not of the primary", s->recovery->backup->name);
		pgx_log_detail("It is of the server with system identifier %s, the primary's is %s.", backup, primary);
	}
	free(primary);
	return ok;
}

static void
take_locations(struct standby *s)
{
	const struct recovery *r = s->recovery;

	s->n_tablespaces = r->backup->info.n_tablespaces;
	s->tablespaces = pgx_alloc((s->n_tablespaces + 1) * sizeof(*s->tablespaces));
	for (size_t i = 0; i < s->n_tablespaces; i++)
	{
		s->tablespaces[i].location = pgx_strdup(r->backup->info.tablespaces[i].location);
		s->tablespaces[i].target = pgx_strdup(r->locations[i]);
		s->tablespaces[i].existed = true;	/* recovery insists on that */
	}
}

bool
standby_choose_backup(struct standby *s)
{
	struct recovery *r = pgx_alloc(sizeof(*r));
	bool		leftover;
	struct stat st;

	s->recovery = r;
	if (!recovery_begin(r, s->opts) || !check_same_server(s) || !choose_locations(r) ||
		!target_check(r, &leftover) || !check_chain(r))
		return false;
	s->pgdata_existed = stat(s->pgdata, &st) == 0;
	take_locations(s);
	return true;
}

/* The keystore is the primary's, and open.  An exit code. */
int
standby_check_backup(struct standby *s)
{
	struct recovery *r = s->recovery;
	const char *needed = r->backup->info.keystore_uuid;
	char		text[KEYSTORE_UUID_STRLEN + 1] = "";
	uint8_t		uuid[KEYSTORE_UUID_LEN];
	tde_keytable *kt = NULL;
	int			rc;

	if (s->ks != NULL)
	{
		keystore_get_uuid(s->ks, uuid);
		keystore_uuid_text(uuid, text);
	}
	if (needed != NULL && strcmp(needed, text) != 0)
	{
		pgx_log_error("the keystore of the primary does not belong to the backup \"%s\"", r->backup->name);
		pgx_log_detail("The backup needs keystore %s.", needed);
		return PGX_EXIT_FAILURE;
	}
	if (s->ks == NULL)
		return PGX_EXIT_OK;
	r->ks = s->ks;
	rc = open_keytable(r, &kt);
	tde_keytable_free(&kt);
	return rc;
}

bool
standby_restore(struct standby *s)
{
	struct recovery *r = s->recovery;

	if (!target_prepare(r))
	{
		if (!s->pgdata_existed)
			(void) rmdir(s->pgdata);	/* if it is empty */
		return false;
	}
	/* From here on the directories are ours: recovery has seen that nobody else has put anything into them. */
	s->filling = true;
	if (!restore_files(r))
		return false;
	printf("Backup: %s\nData directory: %s\n", r->backup->dir, s->pgdata);
	for (size_t i = 0; i < s->n_tablespaces; i++)
		printf("Tablespace: %s in %s\n", s->tablespaces[i].location, s->tablespaces[i].target);
	return true;
}

/*
 * WAL between the backup and what the primary still has is in the archive.  Not in the mirror: the primary is writing
 * that, and what it writes comes over the connection.
 */
char *
standby_restore_command(const struct standby *s)
{
	char	   *dir = pgx_printf("%s/%s", s->recovery->area, PGX_AREA_ARCHIVED_WAL);
	char	   *word = command_word(dir);
	char	   *command = pgx_printf("test -f %s/\"%%f\" && cp %s/\"%%f\" \"%%p\"", word, word);

	free(word);
	free(dir);
	return command;
}

/* It streams: the data directory is a server's, not ours any more. */
bool
standby_finish_backup(struct standby *s)
{
	return target_unmark(s->recovery);
}

void
standby_end_backup(struct standby *s)
{
	if (s->recovery == NULL)
		return;
	s->recovery->ks = NULL;		/* ours */
	recovery_end(s->recovery);
	free(s->recovery);
	s->recovery = NULL;
}
