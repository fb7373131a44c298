/*
 * standby.c
 *		pgx_rcvall --standby: build a standby of a running server and start it.
 *
 * First the keystore, proven to open; then the slot; then the files, through PostgreSQL's own pg_basebackup or from a
 * backup; then the server, until it streams.  If anything fails, what was made is taken away again, and nothing else.
 */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "child.h"
#include "file.h"
#include "log.h"
#include "mem.h"
#include "standby.h"
#include "walprogram.h"

#define MAX_CONF			(16 * 1024 * 1024)
#define START_TIMEOUT		"3600"	/* seconds; replay up to consistency may take long */
#define LOG_TAIL			4096	/* bytes of the log that are shown after a failure */

/* ---- the directories ------------------------------------------------------------------------- */

/* Empty, or not there with a parent that is; nothing is made yet. */
static bool
check_target(const char *dir, bool *ret_existed)
{
	DIR		   *d = opendir(dir);
	struct dirent *e;
	struct stat st;
	char	   *parent;
	bool		ok;

	*ret_existed = d != NULL;
	if (d == NULL && errno != ENOENT)
	{
		pgx_log_error("could not open directory \"%s\": %m", dir);
		return false;
	}
	if (d == NULL)
	{
		parent = pgx_dirname(dir);
		ok = stat(parent, &st) == 0 && S_ISDIR(st.st_mode) && access(parent, W_OK | X_OK) == 0;
		if (!ok)
			pgx_log_error("could not create directory \"%s\": %m", dir);
		free(parent);
		return ok;
	}
	ok = true;
	while (ok && (e = readdir(d)) != NULL)
	{
		ok = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
		if (!ok)
		{
			pgx_log_error("directory \"%s\" is not empty", dir);
			pgx_log_detail("There is \"%s\" in it, for example.", e->d_name);
			pgx_log_hint("Name another directory, or move what is in it to another place and retry.");
		}
	}
	(void) closedir(d);
	if (ok && access(dir, W_OK | X_OK) != 0)
	{
		pgx_log_error("directory \"%s\" is not writable: %m", dir);
		ok = false;
	}
	return ok;
}

static bool
check_targets(struct standby *s)
{
	bool		ok = check_target(s->pgdata, &s->pgdata_existed);

	for (size_t i = 0; ok && i < s->n_tablespaces; i++)
		ok = check_target(s->tablespaces[i].target, &s->tablespaces[i].existed);
	return ok;
}

/* All that is in a directory that was empty, or the directory that was not there. */
static void
empty_target(const char *dir, bool existed)
{
	DIR		   *d;
	struct dirent *e;

	if (!existed)
	{
		(void) pgx_remove_tree(dir);
		return;
	}
	d = opendir(dir);
	while (d != NULL && (e = readdir(d)) != NULL)
	{
		char	   *path = pgx_join(dir, e->d_name);

		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			(void) pgx_remove_tree(path);
		free(path);
	}
	if (d != NULL)
		(void) closedir(d);
}

/* ---- the copy ------------------------------------------------------------------------------ */

static bool
copy_files(struct standby *s)
{
	char	   *program = pgx_postgres_program(s->postgres, "pg_basebackup");
	const char **argv = pgx_alloc((2 * s->n_tablespaces + 20) * sizeof(*argv));
	char	  **maps = pgx_alloc((s->n_tablespaces + 1) * sizeof(*maps));
	size_t		n = 0;
	bool		ok;

	argv[n++] = program;
	argv[n++] = "-D";
	argv[n++] = s->pgdata;
	argv[n++] = "-d";
	argv[n++] = s->opts->from;
	argv[n++] = "-w";
	argv[n++] = "-X";
	argv[n++] = "stream";
	argv[n++] = "-c";
	argv[n++] = "fast";
	if (s->opts->slot != NULL)
	{
		argv[n++] = "-S";
		argv[n++] = s->opts->slot;
	}
	if (s->opts->progress)
		argv[n++] = "-P";
	for (size_t i = 0; i < s->n_tablespaces; i++)
	{
		argv[n++] = "-T";
		argv[n++] = maps[i] = pgx_tablespace_mapping(s->tablespaces[i].location, s->tablespaces[i].target);
	}
	argv[n] = NULL;
	s->filling = true;
	ok = pgx_child_run(argv, -1);
	for (size_t i = 0; i < s->n_tablespaces; i++)
		free(maps[i]);
	free(maps);
	free(argv);
	free(program);
	if (ok)
		printf("Data directory: %s\n", s->pgdata);
	for (size_t i = 0; ok && i < s->n_tablespaces; i++)
		printf("Tablespace: %s in %s\n", s->tablespaces[i].location, s->tablespaces[i].target);
	return ok;
}

/* ---- its configuration --------------------------------------------------------------------- */

/* NAME = 'VALUE', added to the text. */
static char *
add_setting(char *text, const char *name, size_t name_len, const char *value)
{
	char	   *quoted = pgx_alloc(2 * strlen(value) + 1);
	char	   *more;
	size_t		n = 0;

	for (const char *p = value; *p != '\0'; p++)
	{
		if (*p == '\'' || *p == '\\')
			quoted[n++] = *p;
		quoted[n++] = *p;
	}
	more = pgx_printf("%s%.*s = '%s'\n", text, (int) name_len, name, quoted);
	free(quoted);
	free(text);
	return more;
}

/* A parameter's name and its value; nothing that could make another line of it. */
static bool
check_settings(const struct rcvall_options *opts)
{
	for (size_t i = 0; i < opts->n_settings; i++)
	{
		const char *setting = opts->settings[i];
		size_t		len = strspn(setting, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.");

		if (len == 0 || setting[len] != '=' || strpbrk(setting, "\r\n") != NULL)
		{
			pgx_log_error("an invalid value was specified for the option %s", "--set");
			pgx_log_hint("Specify NAME=VALUE.");
			return false;
		}
	}
	return true;
}

static bool
configure(const struct standby *s)
{
	char	   *path = pgx_join(s->pgdata, "postgresql.auto.conf");
	char	   *signal_path = pgx_join(s->pgdata, "standby.signal");
	uint8_t    *there = NULL;
	size_t		len = 0;
	struct stat st;
	bool		ok = stat(path, &st) != 0 || pgx_file_read(path, MAX_CONF, 0, "600", &there, &len);

	if (ok)
	{
		char	   *text = pgx_printf("%s\n# added by %s\n", there != NULL ? (char *) there : "", pgx_progname());

		text = add_setting(text, "primary_conninfo", strlen("primary_conninfo"), s->conninfo);
		if (s->recovery != NULL)
		{
			char	   *command = standby_restore_command(s);

			text = add_setting(text, "restore_command", strlen("restore_command"), command);
			free(command);
		}
		text = add_setting(text, "primary_slot_name", strlen("primary_slot_name"), s->opts->slot != NULL ? s->opts->slot : "");
		if (s->keystore_dir != NULL)
			text = add_setting(text, "pgx_tde.keystore_location", strlen("pgx_tde.keystore_location"), s->keystore_dir);
		for (size_t i = 0; i < s->opts->n_settings; i++)
		{
			size_t		n = strcspn(s->opts->settings[i], "=");

			text = add_setting(text, s->opts->settings[i], n, s->opts->settings[i] + n + 1);
		}
		ok = pgx_write_durable(path, text, strlen(text)) && pgx_write_durable(signal_path, "", 0);
		free(text);
	}
	free(there);
	free(signal_path);
	free(path);
	return ok;
}

/* ---- the server --------------------------------------------------------------------------- */

static void
show_log(const char *path, off_t from)
{
	char		buf[LOG_TAIL + 1];
	int			fd = open(path, O_RDONLY | O_CLOEXEC);
	off_t		end = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
	ssize_t		n;

	if (fd < 0)
		return;
	n = pread(fd, buf, LOG_TAIL, end - from > LOG_TAIL ? end - LOG_TAIL : from);
	if (n > 0)
		(void) fwrite(buf, 1, (size_t) n, stderr);
	(void) close(fd);
}

static bool
start_server(struct standby *s)
{
	char	   *program = pgx_postgres_program(s->postgres, "pg_ctl");
	const char *const argv[] = {program, "-D", s->pgdata, "-p", s->postgres, "-l", s->log_path, "-s", "-w", "-t",
		START_TIMEOUT, "start", NULL};
	bool		ok = s->ks == NULL || pgx_handover_prepare(s->ks, &s->handover_fd) == PGX_EXIT_OK;

	/* A server that needs them would go on with them until its first restart only. */
	standby_forget_passwords();
	(void) unsetenv("PGAPPNAME");	/* nor is it to show under the name of whoever runs this */
	if (ok)
	{
		/* Nothing is open in what the server gets, and it may dump core as before. */
		if (s->ks != NULL)
			keystore_close(s->ks);
		pgx_core_restore(&s->core);
		s->core.changed = false;
		s->starting = true;
		ok = pgx_child_run(argv, -1);
	}
	pgx_handover_end(&s->handover_fd);
	free(program);
	return ok;
}

/* It was our own, minutes old at most, and everything it has is on the primary. */
static void
stop_server(const struct standby *s)
{
	char	   *program = pgx_postgres_program(s->postgres, "pg_ctl");
	char	   *pid_file = pgx_join(s->pgdata, "postmaster.pid");
	const char *const argv[] = {program, "-D", s->pgdata, "-s", "-w", "-m", "immediate", "stop", NULL};
	struct stat st;

	if (s->starting && stat(pid_file, &st) == 0)
	{
		pgx_caught_signal = 0;	/* it has been told; this must be done all the same */
		(void) pgx_child_run(argv, -1);
	}
	free(pid_file);
	free(program);
}

static bool
run_server(struct standby *s)
{
	struct stat st;
	off_t		from = stat(s->log_path, &st) == 0 ? st.st_size : 0;
	bool		ok = standby_begin_wait(s) && start_server(s) && standby_wait(s);

	if (!ok && s->starting && pgx_caught_signal == 0)
	{
		pgx_log_error("the standby did not start as it should");
		pgx_log_detail("The end of its log follows.");
		show_log(s->log_path, from);
	}
	return ok;
}

/* ---- all of it ------------------------------------------------------------------------------ */

static bool
begin(struct standby *s, const struct rcvall_options *opts)
{
	s->opts = opts;
	s->handover_fd = -1;
	if (opts->pgdata == NULL)
	{
		pgx_log_error("the database storage directory and the $PGDATA environment variable have not been specified");
		pgx_log_advice();
		return false;
	}
	s->source = opts->from != NULL ? opts->from : opts->primary_conninfo;
	s->pgdata = pgx_absolute(opts->pgdata);
	s->log_path = opts->log_file != NULL ? pgx_absolute(opts->log_file) : pgx_join(s->pgdata, LOG_NAME);
	s->postgres = pgx_postgres_find();
	/* What an interrupted run left of a backup is put away by the next. */
	return s->postgres != NULL && check_settings(opts) &&
		(opts->from == NULL || check_target(s->pgdata, &s->pgdata_existed));
}

/* Take away what was made, the last first. */
static void
undo(struct standby *s)
{
	stop_server(s);
	if (s->filling)
	{
		empty_target(s->pgdata, s->pgdata_existed);
		for (size_t i = 0; i < s->n_tablespaces; i++)
			empty_target(s->tablespaces[i].target, s->tablespaces[i].existed);
	}
	standby_drop_slot(s);
	standby_remove_keystore(s);
}

static void
end(struct standby *s)
{
	pgx_handover_end(&s->handover_fd);
	standby_end_backup(s);
	keystore_free(&s->ks);
	pgx_core_restore(&s->core);
	for (size_t i = 0; i < s->n_tablespaces; i++)
	{
		free(s->tablespaces[i].location);
		free(s->tablespaces[i].target);
	}
	free(s->tablespaces);
	PQfinish(s->conn);
	free(s->bytes);
	free(s->keystore_dir);
	free(s->keystore_path);
	free(s->conninfo);
	free(s->log_path);
	free(s->postgres);
	free(s->pgdata);
}

int
standby_run(const struct rcvall_options *opts)
{
	struct standby s = {0};
	bool		from_backup = opts->from == NULL;
	int			rc = PGX_EXIT_FAILURE;

	pgx_core_forbid(&s.core);
	if (begin(&s, opts) && standby_connect(&s) && (from_backup ? standby_choose_backup(&s) : check_targets(&s)))
		rc = standby_get_keystore(&s);
	if (rc == PGX_EXIT_OK && from_backup)
		rc = standby_check_backup(&s);
	if (rc == PGX_EXIT_OK)
	{
		pgx_catch_signals();
		rc = standby_place_keystore(&s);
		if (rc == PGX_EXIT_OK)
			rc = standby_make_slot(&s) && (from_backup ? standby_restore(&s) : copy_files(&s)) && configure(&s) &&
				standby_prove_keystore(&s) && run_server(&s) && (!from_backup || standby_finish_backup(&s)) ?
				PGX_EXIT_OK : PGX_EXIT_FAILURE;
		if (rc != PGX_EXIT_OK)
		{
			(void) pgx_interrupted();
			undo(&s);
		}
	}
	if (rc == PGX_EXIT_OK)
		printf("The standby is streaming.\n");
	end(&s);
	return rc;
}
