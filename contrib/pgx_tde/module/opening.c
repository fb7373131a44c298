/*
 * opening.c
 *		Opening the keystore at server start: through the pipe from pg_ctl, the
 *		passphrase command, or the auto-open file, in this order.
 *
 * This is the last moment to stop: data that is encrypted and cannot be read
 * must not be recovered, and a server that cannot encrypt must not write.
 */
#include "pgx_postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "pgx_tde.h"

/* Remember an opened keystore for this server. */
void
pgx_note_open(keystore *ks, PgxOpenedBy by)
{
	enum keystore_status status = keystore_get_ksk(ks, pgx_state->ksk);

	if (status != KEYSTORE_OK)
		pgx_report_keystore(ERROR, ks, status);
	keystore_get_uuid(ks, pgx_state->uuid);
	pgx_state->generation = keystore_get_generation(ks);
	pgx_state->active_key = keystore_active_key(ks);
	if (by != PGX_CLOSED)
		pgx_state->opened_by = by;
}

/* As a word for the audit line. */
static const char *
opening_method(PgxOpenedBy by)
{
	switch (by)
	{
		case PGX_OPENED_BY_PG_CTL:
			return "pg_ctl";
		case PGX_OPENED_BY_COMMAND:
			return "command";
		case PGX_OPENED_BY_AUTO_OPEN:
			return "auto-open";
		case PGX_OPENED_BY_PGX_KEYSTORE:
			return "pgx_keystore";
		default:
			return NULL;
	}
}

/* Take the descriptor out of the environment, whether it will be used or not; -1 if there is none. */
static int
handover_descriptor(void)
{
	const char *text = getenv(PGX_HANDOVER_ENV);
	struct stat st;
	char	   *end;
	long		fd;

	if (text == NULL)
		return -1;
	errno = 0;
	fd = strtol(text, &end, 10);
	if (errno != 0 || *end != '\0' || fd < 3 || fd > INT_MAX ||
		fstat((int) fd, &st) != 0 || !S_ISFIFO(st.st_mode))
		fd = -1;
	unsetenv(PGX_HANDOVER_ENV);
	if (fd < 0)
		ereport(FATAL,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("environment variable %s does not name a pipe", PGX_HANDOVER_ENV),
				 errhint("The variable is for \"pg_ctl --keystore-passphrase\" only; start the server without it.")));
	return (int) fd;
}

static bool
open_through_pipe(keystore *ks, int fd)
{
	uint8		message[PGX_HANDOVER_LEN];
	uint8		uuid[KEYSTORE_UUID_LEN];
	size_t		got = 0;
	ssize_t		n;
	enum keystore_status status;
	bool		matches;

	if (fd < 0)
		return false;

	/* Never hang: what pg_ctl had to say is in the pipe already. */
	(void) fcntl(fd, F_SETFL, O_NONBLOCK);
	while (got < sizeof(message) && (n = read(fd, message + got, sizeof(message) - got)) > 0)
		got += n;
	keystore_get_uuid(ks, uuid);
	matches = got == sizeof(message) && memcmp(message, PGX_HANDOVER_MAGIC, 8) == 0;
	status = KEYSTORE_EWRONGKEY;
	if (matches && memcmp(message + 8, uuid, KEYSTORE_UUID_LEN) == 0)
		status = keystore_open_ksk(ks, message + 8 + KEYSTORE_UUID_LEN);
	explicit_bzero(message, sizeof(message));
	if (!matches)
		ereport(FATAL,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("pg_ctl did not hand over the key of the keystore"),
				 errhint("Use the pg_ctl that was installed together with this version of pgx_tde.")));
	if (status != KEYSTORE_OK)
	{
		pgx_audit("open", opening_method(PGX_OPENED_BY_PG_CTL), "the key that pg_ctl handed over is another keystore's");
		ereport(FATAL,
				(errcode(ERRCODE_INVALID_PASSWORD),
				 errmsg("the key that pg_ctl handed over does not open keystore \"%s\"", pgx_keystore_path()),
				 errhint("Start the server again with \"pg_ctl --keystore-passphrase start\".")));
	}
	return true;
}

/* Replace %p by the prompt and %% by %, as ssl_passphrase_command has it. */
static char *
expand_command(const char *command, const char *prompt)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (const char *p = command; *p != '\0'; p++)
	{
		if (p[0] == '%' && p[1] == 'p')
			appendStringInfoString(&buf, prompt);
		else if (p[0] == '%' && p[1] == '%')
			appendStringInfoChar(&buf, '%');
		else
		{
			appendStringInfoChar(&buf, p[0]);
			continue;
		}
		p++;
	}
	return buf.data;
}

static bool
open_by_command(keystore *ks)
{
	char	   *command;
	char		line[KEYSTORE_PASSPHRASE_MAX + 2];	/* newline and NUL */
	size_t		len;
	FILE	   *pipe;
	enum keystore_status status;
	int			rc;
	bool		got_line;

	if (pgx_keystore_passphrase_command == NULL || pgx_keystore_passphrase_command[0] == '\0')
		return false;
	command = expand_command(pgx_keystore_passphrase_command, "Enter the passphrase: ");
	fflush(NULL);
	pipe = OpenPipeStream(command, "r");
	if (pipe == NULL)
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("could not execute command \"%s\": %m", command)));
	setvbuf(pipe, NULL, _IONBF, 0);	/* no second copy of the passphrase */
	got_line = fgets(line, sizeof(line), pipe) != NULL;
	rc = ClosePipeStream(pipe);
	len = got_line ? strcspn(line, "\r\n") : 0;
	if (rc != 0 || len == 0)
	{
		explicit_bzero(line, sizeof(line));
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("could not get the passphrase of the keystore from command \"%s\"", command),
				 rc != 0 ? errdetail_internal("%s", wait_result_to_str(rc)) :
				 errdetail("The command printed nothing.")));
	}
	status = keystore_open_passphrase(ks, line, len);
	explicit_bzero(line, sizeof(line));
	if (status != KEYSTORE_OK)
	{
		pgx_audit("open", opening_method(PGX_OPENED_BY_COMMAND), keystore_errmsg(ks));
		pgx_report_keystore(FATAL, ks, status);
	}
	return true;
}

static bool
open_automatically(keystore *ks)
{
	enum keystore_status status = keystore_open_auto(ks, pgx_keystore_path());

	if (status == KEYSTORE_OK)
		return true;
	if (status != KEYSTORE_ENOENT)
	{
		pgx_audit("open", opening_method(PGX_OPENED_BY_AUTO_OPEN), keystore_errmsg(ks));
		pgx_report_keystore(WARNING, ks, status);
	}
	return false;
}

static PgxOpenedBy
open_somehow(keystore *ks, int pipe)
{
	if (open_through_pipe(ks, pipe))
		return PGX_OPENED_BY_PG_CTL;
	if (open_by_command(ks))
		return PGX_OPENED_BY_COMMAND;
	if (open_automatically(ks))
		return PGX_OPENED_BY_AUTO_OPEN;
	return PGX_CLOSED;
}

static void
refuse_closed(void)
{
	ereport(FATAL,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("could not encrypt or decrypt data because the keystore is not open"),
			 errdetail("The data directory is encrypted, and so is its WAL."),
			 errhint("Start the server with \"pg_ctl --keystore-passphrase start\", or set pgx_tde.keystore_passphrase_command, or run \"pgx_keystore --enable-auto-open %s\" as the server's user, or let it wait with pgx_tde.on_closed_keystore.",
					 pgx_keystore_path())));
}

/*
 * pgx_encrypt notes in a file what it is converting.  With some files encrypted and some not there is no data
 * directory that a server could work in.
 */
static void
refuse_half_converted(void)
{
	struct stat st;

	if (lstat(PGX_CONVERSION_FILE, &st) != 0)
		return;
	ereport(FATAL,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("data directory \"%s\" has not been encrypted or decrypted to the end", DataDir),
			 errdetail("File \"%s\" exists.", PGX_CONVERSION_FILE),
			 errhint("Run \"pgx_encrypt -D %s\", with --decrypt if it was being decrypted, to go on where it was interrupted.",
					 DataDir)));
}

/* Unwrap the keys of the data directory, if it has a key table, and work with them. */
static void
use_keys(tde_keytable *kt, keystore *ks)
{
	if (kt == NULL)
		return;
	pgx_open_keytable(kt, ks);
	pgx_publish_keys(kt);
	if (!IsUnderPostmaster)
		pgx_check_tablespaces();
	atomic_store(&pgx_io->shared->wal_on, 1);
}

/*
 * Open the keystore for a server that waits, with the key that was sent.  The file may have been replaced since the
 * start, by a newer copy for instance.
 */
void
pgx_open_with_key(const uint8 *uuid, const uint8 *ksk)
{
	keystore   *ks = pgx_new_keystore();
	enum keystore_status status = keystore_load(ks, pgx_keystore_path());
	uint8		own_uuid[KEYSTORE_UUID_LEN];

	if (status == KEYSTORE_OK)
	{
		keystore_get_uuid(ks, own_uuid);
		status = memcmp(uuid, own_uuid, KEYSTORE_UUID_LEN) != 0 ? KEYSTORE_EWRONGKEY :
			keystore_open_ksk(ks, ksk);
	}
	if (status != KEYSTORE_OK)
		pgx_audit("open", opening_method(PGX_OPENED_BY_PGX_KEYSTORE),
				  status == KEYSTORE_EWRONGKEY ? "the key that was sent is another keystore's" : keystore_errmsg(ks));
	if (status == KEYSTORE_EWRONGKEY)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PASSWORD),
				 errmsg("the key that was sent does not open keystore \"%s\"", pgx_keystore_path()),
				 errhint("Run \"pgx_keystore open -D %s\" again.", DataDir)));
	if (status != KEYSTORE_OK)
		pgx_report_keystore(ERROR, ks, status);
	use_keys(pgx_read_keytable(), ks);

	/* The postmaster is alone, and has no lock yet. */
	if (IsUnderPostmaster)
		LWLockAcquire(pgx_lock(), LW_EXCLUSIVE);
	pgx_note_open(ks, PGX_OPENED_BY_PGX_KEYSTORE);
	if (IsUnderPostmaster)
		LWLockRelease(pgx_lock());
	pgx_audit("open", opening_method(PGX_OPENED_BY_PGX_KEYSTORE), NULL);
	ereport(LOG, (errmsg("keystore has been opened")));
}

static void
open_at_start(int pipe)
{
	tde_keytable *kt = pgx_read_keytable();
	keystore   *ks;
	enum keystore_status status;
	PgxOpenedBy by;

	if (!pgx_location_is_set() && kt == NULL)
		return;
	ks = pgx_new_keystore();
	(void) pgx_keystore_path();	/* complains if it is not set */
	pgx_check_location(FATAL);

	status = keystore_load(ks, pgx_keystore_path());
	if (status == KEYSTORE_ENOENT && kt == NULL)
		return;					/* pgx_set_master_key() will make it */
	if (status != KEYSTORE_OK)
		pgx_report_keystore(FATAL, ks, status);

	by = open_somehow(ks, pipe);
	if (by == PGX_CLOSED)
	{
		if (kt != NULL && !pgx_wait_for_open())
			refuse_closed();
		return;
	}
	use_keys(kt, ks);
	pgx_note_open(ks, by);
	pgx_audit("open", opening_method(by), NULL);
	ereport(LOG,
			(errmsg(by == PGX_OPENED_BY_AUTO_OPEN ? "auto-open keystore has been opened" :
					"keystore has been opened")));
}

/*
 * Temporary files are encrypted on every server that has a place for a keystore, open or not.  The
 * server deletes them when it starts, so their key lives as long as the server.
 */
static void
make_temporary_key(void)
{
	uint8		key[TDE_MAX_KEY_LEN];
	bool		made = pg_strong_random(key, sizeof(key)) &&
		pgx_io->set_key(PGX_IO_KEY_TEMP, 0, TDE_AES256, key) == 0;

	explicit_bzero(key, sizeof(key));
	if (!made)
		ereport(FATAL,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not make a key for temporary files")));
}

void
pgx_open_at_start(void)
{
	MemoryContext outer = pgx_enter();
	int			pipe = handover_descriptor();

	refuse_half_converted();
	open_at_start(pipe);
	if (pgx_location_is_set())
		make_temporary_key();
	if (pipe >= 0)
		close(pipe);
	pgx_leave(outer);

	/*
	 * Recovery that reads ahead would meet pages encrypted with a key whose record it has not replayed yet, and
	 * take them for the end of WAL.  With the key at hand from the start that cannot happen.
	 */
	if (atomic_load(&pgx_io->shared->wal_on) == 0)
		SetConfigOption("recovery_prefetch", "off", PGC_POSTMASTER, PGC_S_OVERRIDE);
}
