/*
 * replay.c
 *		The server that replays WAL: started, watched and stopped.
 *
 * Everything it needs for recovery is on its command line, so that nothing of it is left in its configuration.
 * Nobody can connect meanwhile, and it archives nothing: what is to be archived waits for the server's own start.
 * If we die, the kernel tells it to stop.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "child.h"
#include "file.h"
#include "log.h"
#include "mem.h"
#include "options.h"
#include "rcvall.h"

#define MAX_ARGS		120
#define POLL_US			10000
#define STATUS_LINE		8		/* of postmaster.pid */
#define LOG_LINES_SHOWN 15
#define SHOWN_LINE_LEN	512

/* ---- its command line ----------------------------------------------------------------- */

struct arguments
{
	char	   *argv[MAX_ARGS];
	size_t		n;
};

/* "-c NAME=VALUE" */
static void __attribute__((format(printf, 2, 3)))
set(struct arguments *args, const char *fmt,...)
{
	char		text[2 * PATH_MAX];
	va_list		ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	args->argv[args->n++] = pgx_strdup("-c");
	args->argv[args->n++] = pgx_strdup(text);
}

/* A shell word in which a percent sign is just that. */
char *
command_word(const char *text)
{
	char	   *doubled = pgx_alloc(2 * strlen(text) + 1);
	char	   *quoted;
	size_t		n = 0;

	for (const char *p = text; *p != '\0'; p++)
	{
		if (*p == '%')
			doubled[n++] = '%';
		doubled[n++] = *p;
	}
	quoted = pgx_shell_quote(doubled);
	free(doubled);
	return quoted;
}

/* This program itself fetches WAL: it tells "not there" from "not readable", which must not end recovery. */
static bool
set_restore_command(struct arguments *args, const struct recovery *r)
{
	char		self[PATH_MAX];
	ssize_t		len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char	   *program;
	char	   *area;

	if (len < 0)
	{
		pgx_log_error("could not find out the path of this program: %m");
		return false;
	}
	self[len] = '\0';
	program = command_word(self);
	area = command_word(r->area);
	set(args, "restore_command=%s --fetch-wal -B %s \"%%f\" \"%%p\"", program, area);
	free(area);
	free(program);
	return true;
}

static void
set_target(struct arguments *args, const struct recovery *r)
{
	static const char *const targets[] = {"", "_time", "_name", "_xid", "_lsn"};
	const char *timeline = r->opts->target_timeline;

	/* What the configuration has from an earlier recovery; and two targets are refused even for a moment. */
	for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++)
		set(args, "recovery_target%s=", targets[i]);
	set(args, "recovery_target_timeline=%s", timeline != NULL ? timeline : "latest");
	set(args, "recovery_target_action=promote");
	set(args, "recovery_target_inclusive=on");
	if (r->opts->target_time != NULL)
	{
		time_t		when = (time_t) (r->target_time / 1000000);
		struct tm	tm;
		char		text[32] = "";

		if (gmtime_r(&when, &tm) != NULL)
			(void) strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm);
		set(args, "recovery_target_time=%s.%06d+00", text, (int) (r->target_time % 1000000));
	}
	if (r->opts->target_name != NULL)
		set(args, "recovery_target_name=%s", r->opts->target_name);
	if (r->opts->target_xid != NULL)
		set(args, "recovery_target_xid=%s", r->opts->target_xid);
	if (r->opts->target_lsn != NULL)
		set(args, "recovery_target_lsn=%s", r->opts->target_lsn);
}

static void
set_configuration_files(struct arguments *args, const struct recovery *r)
{
	static const char *const parameters[] = {"config_file", "hba_file", "ident_file"};

	if (!r->same_place)
		return;
	for (size_t i = 0; i < sizeof(parameters) / sizeof(parameters[0]); i++)
	{
		char	   *path = external_configuration(r, parameters[i]);

		if (path != NULL)
			set(args, "%s=%s", parameters[i], path);
		free(path);
	}
}

static bool
make_arguments(struct arguments *args, const struct recovery *r, const char *socket_dir)
{
	args->argv[args->n++] = pgx_strdup(r->postgres);
	args->argv[args->n++] = pgx_strdup("-D");
	args->argv[args->n++] = pgx_strdup(r->pgdata);
	set_configuration_files(args, r);
	set(args, "data_directory=%s", r->pgdata);

	/* Alone: nobody connects, nothing is sent, nothing runs that is not needed. */
	set(args, "listen_addresses=");
	set(args, "unix_socket_directories=%s", socket_dir);
	set(args, "ssl=off");
	set(args, "hot_standby=off");
	set(args, "autovacuum=off");
	set(args, "max_logical_replication_workers=0");
	set(args, "archive_command=");
	if (r->backup->info.server_version >= 150000)
		set(args, "archive_library=");
	set(args, "pgx_tde.backup_destination=");
	set(args, "pgx_tde.online_wal_directory=");	/* what is there is read, not written */
	if (r->opts->keystore_location != NULL)
	{
		char	   *dir = pgx_absolute(r->opts->keystore_location);

		set(args, "pgx_tde.keystore_location=%s", dir);
		free(dir);
	}

	/* A log that we can read. */
	set(args, "logging_collector=off");
	set(args, "log_destination=stderr");
	set(args, "log_line_prefix=");
	set(args, "log_min_messages=warning");
	set(args, "lc_messages=C");

	/* All of it has been synced just now: asking the file system once more is enough, not each file. */
	set(args, "recovery_init_sync_method=syncfs");
	set(args, "recovery_end_command=");
	set(args, "archive_cleanup_command=");
	set(args, "recovery_min_apply_delay=0");
	if (!set_restore_command(args, r))
		return false;
	set_target(args, r);
	return true;
}

/* ---- starting and stopping ----------------------------------------------------------------- */

static int
open_log(struct recovery *r)
{
	int			fd;

	r->log_path = r->opts->log_file != NULL ? pgx_absolute(r->opts->log_file) : pgx_join(r->pgdata, LOG_NAME);
	fd = open(r->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0)
		pgx_log_error("could not open log file \"%s\": %m", r->log_path);
	return fd;
}

/* In the child: only async-signal-safe calls until the server is there. */
static void __attribute__((noreturn))
become_server(const struct arguments *args, const struct recovery *r, int log_fd, pid_t parent)
{
	struct sigaction action;
	sigset_t	none;
	int			null;

	memset(&action, 0, sizeof(action));
	sigemptyset(&action.sa_mask);
	action.sa_handler = SIG_DFL;
	for (int i = 1; i < 32; i++)
		(void) sigaction(i, &action, NULL);
	(void) setsid();			/* what a terminal sends to us is for us */
	(void) prctl(PR_SET_PDEATHSIG, SIGINT);
	if (getppid() != parent)
		_exit(127);
	null = open("/dev/null", O_RDONLY);
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(log_fd, STDOUT_FILENO) < 0 ||
		dup2(log_fd, STDERR_FILENO) < 0)
		_exit(126);
	pgx_core_restore(&r->core);
	sigemptyset(&none);
	(void) sigprocmask(SIG_SETMASK, &none, NULL);
	(void) execv(args->argv[0], args->argv);
	_exit(errno == ENOENT ? 127 : 126);
}

/* Has it come to its normal running, which is when recovery has ended? */
static bool
is_ready(const struct recovery *r)
{
	char	   *path = pgx_join(r->pgdata, "postmaster.pid");
	FILE	   *f = fopen(path, "re");
	char		line[PATH_MAX] = "";
	int			n = 0;

	free(path);
	if (f == NULL)
		return false;
	while (n < STATUS_LINE && fgets(line, sizeof(line), f) != NULL)
		n++;
	(void) fclose(f);
	return n == STATUS_LINE && strncmp(line, "ready", 5) == 0;
}

/* Wait for its end, or until it is ready; true in the latter case.  *ret_gone: it has ended. */
static bool
wait_until_ready(const struct recovery *r, pid_t pid, bool *ret_gone)
{
	int			status;

	*ret_gone = false;
	for (;;)
	{
		pid_t		done = waitpid(pid, &status, WNOHANG);

		if (done == pid)
		{
			*ret_gone = true;
			return false;
		}
		if (pgx_interrupted())
			return false;
		if (is_ready(r))
			return true;
		(void) usleep(POLL_US);
	}
}

/* A fast shutdown; true if it ended as it should. */
static bool
stop_server(pid_t pid)
{
	int			status = 0;

	(void) kill(pid, SIGINT);
	while (waitpid(pid, &status, 0) < 0)
	{
		if (errno != EINTR)
			return false;
	}
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* ---- its log ------------------------------------------------------------------------------- */

/* The text between two marks of a line; NULL if they are not there.  The caller frees it. */
static char *
between(const char *line, const char *before, const char *end)
{
	const char *start = strstr(line, before);

	if (start == NULL)
		return NULL;
	start += strlen(before);
	return pgx_strndup(start, strcspn(start, end));
}

static void
take(char **field, char *value)
{
	if (value == NULL)
		return;
	free(*field);
	*field = value;
}

/* The last lines of the log, where the reason is. */
static void
show_log(char lines[LOG_LINES_SHOWN][SHOWN_LINE_LEN], unsigned long n)
{
	for (unsigned long i = n > LOG_LINES_SHOWN ? n - LOG_LINES_SHOWN : 0; i < n; i++)
		fputs(lines[i % LOG_LINES_SHOWN], stderr);
}

/* What it tells of recovery; if that failed, show the end of it. */
static void
read_log(struct recovery *r, off_t from, bool failed)
{
	static char lines[LOG_LINES_SHOWN][SHOWN_LINE_LEN];
	unsigned long n = 0;
	FILE	   *f = fopen(r->log_path, "re");

	if (f == NULL || fseeko(f, from, SEEK_SET) != 0)
	{
		pgx_log_warning("could not read log file \"%s\": %m", r->log_path);
		if (f != NULL)
			(void) fclose(f);
		return;
	}
	while (fgets(lines[n % LOG_LINES_SHOWN], SHOWN_LINE_LEN, f) != NULL)
	{
		const char *line = lines[n++ % LOG_LINES_SHOWN];
		char	   *timeline = between(line, "selected new timeline ID: ", "\n");

		take(&r->last_lsn, between(line, "redo done at ", " \n"));
		take(&r->last_time, between(line, "last completed transaction was at log time ", "\n"));
		if (timeline != NULL)
			r->timeline = (uint32_t) strtoul(timeline, NULL, 10);
		free(timeline);
	}
	(void) fclose(f);
	if (failed)
		show_log(lines, n);
}

/* ---- all of it ----------------------------------------------------------------------------- */

static pid_t
start_server(const struct arguments *args, const struct recovery *r, int log_fd)
{
	pid_t		parent = getpid();
	pid_t		pid = fork();

	if (pid == 0)
		become_server(args, r, log_fd, parent);
	if (pid < 0)
		pgx_log_error("could not start program \"%s\": %m", r->postgres);
	return pid;
}

/* Start it, wait, stop it; its socket is in a directory of its own. */
static bool
run_server(struct recovery *r, const char *socket_dir)
{
	struct arguments args = {.n = 0};
	int			log_fd = open_log(r);
	off_t		log_begin = log_fd >= 0 ? lseek(log_fd, 0, SEEK_END) : 0;
	bool		gone = false;
	bool		ready = false;
	bool		ok = false;
	pid_t		pid = -1;

	if (log_fd < 0 || !make_arguments(&args, r, socket_dir))
		goto out;
	if (r->ks != NULL && r->opts->keystore_passphrase &&
		pgx_handover_prepare(r->ks, &r->handover_fd) != PGX_EXIT_OK)
		goto out;
	pid = start_server(&args, r, log_fd);
	pgx_handover_end(&r->handover_fd);
	if (pid < 0)
		goto out;
	ready = wait_until_ready(r, pid, &gone);
	ok = (gone || stop_server(pid)) && ready;
	if (!ok && pgx_caught_signal == 0)
		pgx_log_error("an error occurred during recovery");
	read_log(r, log_begin, !ok && pgx_caught_signal == 0);
	if (!ok && pgx_caught_signal == 0)
		pgx_log_hint("Remove the cause, which the end of log file \"%s\" tells, and run the command again.",
					 r->log_path);

out:
	for (size_t i = 0; i < args.n; i++)
		free(args.argv[i]);
	if (log_fd >= 0)
		(void) close(log_fd);
	return ok;
}

bool
replay(struct recovery *r)
{
	const char *tmp = getenv("TMPDIR");
	char	   *dir = pgx_printf("%s/pgx_rcvall.XXXXXX", tmp != NULL && tmp[0] == '/' && strlen(tmp) < 60 ? tmp : "/tmp");
	bool		ok = false;

	if (mkdtemp(dir) == NULL)
		pgx_log_error("could not create directory \"%s\": %m", dir);
	else
	{
		ok = run_server(r, dir);
		(void) pgx_remove_tree(dir);
	}
	free(dir);
	return ok;
}
