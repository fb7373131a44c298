/*
 * audit.c
 *		One line for each key event.  See audit.h.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "audit.h"
#include "log.h"
#include "mem.h"

#define MAX_NOTES		16

/* Where syslog(3) of the C library sends to. */
#define SYSLOG_SOCKET	"/dev/log"

/* What the kernel says of a process that no login led to. */
#define NO_LOGIN_UID	UINT32_MAX

struct note
{
	const char *name;
	char	   *value;
};

/* As the log is the process's, so is its one event. */
static struct
{
	const char *event;			/* NULL: none begun */
	const char *path;
	int			fd;				/* of the file, -1: none */
	struct note notes[MAX_NOTES];
	size_t		n_notes;
}			audit = {.fd = -1};

void
pgx_audit_note(const char *name, const char *fmt,...)
{
	struct note *note = NULL;
	va_list		ap;
	char	   *value = NULL;
	size_t		i;

	for (i = 0; i < audit.n_notes && note == NULL; i++)
	{
		if (strcmp(audit.notes[i].name, name) == 0)
			note = &audit.notes[i];
	}
	if (note == NULL && audit.n_notes < MAX_NOTES)
		note = &audit.notes[audit.n_notes++];
	va_start(ap, fmt);
	if (note == NULL || vasprintf(&value, fmt, ap) < 0)
		value = NULL;
	va_end(ap);
	if (note == NULL)
		return;
	free(note->value);
	note->name = name;
	note->value = value;
}

void
pgx_audit_keystore(const keystore *ks)
{
	uint8_t		uuid[KEYSTORE_UUID_LEN];
	char		text[KEYSTORE_UUID_STRLEN + 1];

	keystore_get_uuid(ks, uuid);
	keystore_uuid_text(uuid, text);
	pgx_audit_note("uuid", "%s", text);
	pgx_audit_note("generation", "%" PRIu64, keystore_get_generation(ks));
}

/* Whom the kernel remembers as the one who logged in, over su and sudo; not to be forged by the user. */
static void
note_login(void)
{
	FILE	   *f = fopen("/proc/self/loginuid", "re");
	uint32_t	uid = NO_LOGIN_UID;
	struct passwd *pw;

	if (f == NULL)
		return;
	if (fscanf(f, "%" SCNu32, &uid) != 1)
		uid = NO_LOGIN_UID;
	(void) fclose(f);
	if (uid == NO_LOGIN_UID)
		return;
	pw = getpwuid(uid);
	if (pw != NULL)
		pgx_audit_note("login", "%s", pw->pw_name);
	else
		pgx_audit_note("login", "%" PRIu32, uid);
}

static void
note_who(void)
{
	struct passwd *pw = getpwuid(geteuid());
	const char *tty = isatty(STDIN_FILENO) == 1 ? ttyname(STDIN_FILENO) : NULL;
	const char *sudo = getenv("SUDO_USER");

	pgx_audit_note("uid", "%u", (unsigned) getuid());
	if (pw != NULL)
		pgx_audit_note("user", "%s", pw->pw_name);
	note_login();
	if (sudo != NULL && sudo[0] != '\0')
		pgx_audit_note("sudo_user", "%s", sudo);
	if (tty != NULL)
		pgx_audit_note("tty", "%s", tty);
}

bool
pgx_audit_begin(const char *event, const char *file)
{
	struct stat st;

	audit.event = event;
	note_who();
	if (file == NULL || file[0] == '\0')
		return true;
	audit.path = file;
	audit.fd = open(file, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
	if (audit.fd >= 0 && fstat(audit.fd, &st) == 0 && S_ISREG(st.st_mode))
		return true;
	if (audit.fd >= 0)
		pgx_log_error("audit file \"%s\" is not a regular file", file);
	else
		pgx_log_error("could not open audit file \"%s\": %m", file);
	pgx_log_hint("Nothing was done, since it could not be recorded.");
	audit.event = NULL;
	return false;
}

void
pgx_audit_event(const char *event)
{
	if (audit.event != NULL)
		audit.event = event;
}

/*
 * Append name="value" so that no value can end its quotes or the line, whatever a file's name holds.
 * Plain words need no quotes.
 */
static void
append(char **line, const char *name, const char *value)
{
	static const char plain[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:@+";
	char	   *quoted = pgx_alloc(4 * strlen(value) + 3);
	char	   *out = quoted;
	const char *p;
	char	   *more;

	if (value[0] != '\0' && value[strspn(value, plain)] == '\0')
		strcpy(quoted, value);
	else
	{
		*out++ = '"';
		for (p = value; *p != '\0'; p++)
		{
			if (*p == '"' || *p == '\\')
				*out++ = '\\';
			if ((unsigned char) *p < 0x20 || *p == 0x7f)
				out += sprintf(out, "\\x%02x", (unsigned char) *p);
			else
				*out++ = *p;
		}
		*out++ = '"';
		*out = '\0';
	}
	more = pgx_printf("%s %s=%s", *line, name, quoted);
	free(quoted);
	free(*line);
	*line = more;
}

/* The same line with time, host and process, which a syslog daemon adds by itself. */
static bool
append_to_file(const char *line)
{
	char		host[256] = "-";
	char		when[32] = "-";
	time_t		now = time(NULL);
	struct tm	tm;
	char	   *text;
	size_t		len;
	ssize_t		n;

	(void) gethostname(host, sizeof(host) - 1);
	if (gmtime_r(&now, &tm) != NULL)
		(void) strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
	text = pgx_printf("%s %s %s[%ld]: %s\n", when, host, pgx_progname(), (long) getpid(), line);
	len = strlen(text);
	do
		n = write(audit.fd, text, len);
	while (n < 0 && errno == EINTR);
	free(text);
	/* One write of an appended line is whole or an error of the disk; either way it must be there now. */
	if (n == (ssize_t) len && fsync(audit.fd) == 0)
		return true;
	pgx_log_error("could not write audit file \"%s\": %m", audit.path);
	return false;
}

int
pgx_audit_end(int exit_code)
{
	bool		done = exit_code == PGX_EXIT_OK;
	char	   *line;
	size_t		i;

	if (audit.event == NULL)
		goto out;
	line = pgx_printf("event=%s outcome=%s", audit.event, done ? "success" : "failure");
	for (i = 0; i < audit.n_notes; i++)
	{
		if (audit.notes[i].value != NULL)
			append(&line, audit.notes[i].name, audit.notes[i].value);
	}
	if (!done)
		append(&line, "reason", pgx_log_last_error());

	openlog(pgx_progname(), LOG_PID | LOG_NDELAY, LOG_AUTHPRIV);
	syslog(done ? LOG_NOTICE : LOG_WARNING, "%s", line);
	closelog();
	if (access(SYSLOG_SOCKET, F_OK) != 0)
		pgx_log_verbose("there is no system log at \"%s\" to record the event", SYSLOG_SOCKET);
	if (audit.fd >= 0 && !append_to_file(line) && done)
	{
		pgx_log_detail("What was to be done has been done, but it is not recorded there.");
		exit_code = PGX_EXIT_FAILURE;
	}
	free(line);

out:
	for (i = 0; i < audit.n_notes; i++)
		free(audit.notes[i].value);
	audit.n_notes = 0;
	audit.event = NULL;
	if (audit.fd >= 0)
		(void) close(audit.fd);
	audit.fd = -1;
	return exit_code;
}
