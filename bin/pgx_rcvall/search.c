/*
 * search.c
 *		Points of recovery that only WAL can tell: a restore point's name, a transaction.
 *
 * The server would find out too, but only after everything has been restored and all of WAL replayed.  pg_waldump
 * reads it, decrypted if need be: it gets the key of WAL and no other.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "file.h"
#include "log.h"
#include "mem.h"
#include "rcvall.h"
#include "walprogram.h"

#define MAX_LINE	8192

/* ---- pg_waldump ----------------------------------------------------------------------- */

/* Run it with its output to what, a line each; its messages go to err_path.  False after a message. */
static bool
run_waldump(const char *const *argv, const char *err_path, void (*what) (const char *line, void *arg), void *arg)
{
	int			fds[2];
	int			status;
	char	   *line = pgx_alloc(MAX_LINE);
	FILE	   *f;
	pid_t		pid;

	if (pipe2(fds, O_CLOEXEC) != 0)
	{
		pgx_log_error("could not create a pipe: %m");
		free(line);
		return false;
	}
	pid = fork();
	if (pid == 0)
	{
		int			err = open(err_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

		if (err >= 0 && dup2(fds[1], STDOUT_FILENO) >= 0 && dup2(err, STDERR_FILENO) >= 0)
			(void) execv(argv[0], (char *const *) (uintptr_t) argv);
		_exit(127);
	}
	(void) close(fds[1]);
	f = pid > 0 ? fdopen(fds[0], "r") : NULL;
	if (f == NULL)
		pgx_log_error("could not start program \"%s\": %m", argv[0]);
	while (f != NULL && fgets(line, MAX_LINE, f) != NULL)
		what(line, arg);
	if (f != NULL)
		(void) fclose(f);
	else
		(void) close(fds[0]);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	free(line);
	if (f != NULL && pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 127)
	{
		pgx_log_error("could not run program \"%s\"", argv[0]);
		return false;
	}
	return f != NULL && !pgx_interrupted();
}

/*
 * Where did it stop?  "... error in WAL record at 0/3000148: ...", or "could not find file
 * "000000010000000000000004"", or no complaint at all.  0: cannot be told.
 */
static uint64_t
stopped_at(const char *err_path, const struct wal_chain *chain, uint32_t segment_size)
{
	uint8_t    *bytes = NULL;
	size_t		len;
	uint64_t	lsn = 0;
	const char *p;
	int			fd = open(err_path, O_RDONLY | O_CLOEXEC);

	if (fd >= 0 && pgx_fd_read_all(fd, err_path, 64 * 1024, &bytes, &len))
	{
		if (len == 0)
			lsn = chain->end;
		else if ((p = strstr((char *) bytes, "error in WAL record at ")) != NULL)
		{
			char		text[PGX_LSN_STRLEN + 1];

			p += strlen("error in WAL record at ");
			snprintf(text, sizeof(text), "%.*s", (int) strcspn(p, ":\n"), p);
			(void) pgx_lsn_parse(text, &lsn);
		}
		else if ((p = strstr((char *) bytes, "could not find file \"")) != NULL)
		{
			char		name[PGX_WAL_NAME_LEN + 1];

			snprintf(name, sizeof(name), "%s", p + strlen("could not find file \""));
			(void) pgx_wal_name_parse(name, segment_size, NULL, &lsn);
		}
	}
	if (fd >= 0)
		(void) close(fd);
	free(bytes);
	return lsn;
}

int
wal_read(const struct recovery *r, const struct wal_chain *chain, const char *const *options,
		 void (*what) (const char *line, void *arg), void *arg, uint64_t *ret_stopped)
{
	const struct pgx_backup_info *info = &r->backup->info;
	char	   *dir = pgx_strdup("/tmp/pgx_rcvall.XXXXXX");
	char	   *err_path = NULL;
	char	   *program = pgx_postgres_program(r->postgres, "pg_waldump");
	char	   *timeline = pgx_printf("%u", chain->timelines[0].id);
	const char *argv[24] = {program, "-p", dir, "-t", timeline, "-s", NULL};
	const char *const dirs[] = {dir};
	char		start[PGX_LSN_STRLEN + 1];
	tde_keytable *kt = NULL;
	uint64_t	begin = wal_chain_readable(r->area, r->backup, chain);
	size_t		n = 6;
	int			key_fd = -1;
	int			rc = PGX_EXIT_FAILURE;

	if (mkdtemp(dir) == NULL)
	{
		pgx_log_error("could not create directory \"%s\": %m", dir);
		free(dir);
		dir = NULL;
		goto out;
	}
	err_path = pgx_join(dir, "errors");
	if (begin == chain->end)
	{
		*ret_stopped = begin;	/* all of it is in a packed file, and ends with the backup */
		rc = PGX_EXIT_OK;
		goto out;
	}
	pgx_lsn_text(begin, start);
	argv[n++] = start;
	while (*options != NULL)
		argv[n++] = *options++;
	argv[n] = NULL;
	if (!wal_chain_link(r->area, r->backup, chain, dir))
		goto out;
	rc = r->ks != NULL && keystore_is_open(r->ks) ? open_keytable(r, &kt) : PGX_EXIT_OK;
	if (rc != PGX_EXIT_OK)
		goto out;
	if (kt != NULL && pgx_keytable_has_wal(kt) && !pgx_wal_environment_set(kt, r->postgres, dirs, 1, &key_fd))
		rc = PGX_EXIT_FAILURE;
	else if (!run_waldump(argv, err_path, what, arg))
		rc = PGX_EXIT_FAILURE;
	else
		*ret_stopped = stopped_at(err_path, chain, info->wal_segment_size);

out:
	pgx_wal_environment_end(&key_fd);
	tde_keytable_free(&kt);
	if (dir != NULL)
		(void) pgx_remove_tree(dir);
	free(err_path);
	free(dir);
	free(program);
	free(timeline);
	return rc;
}

/* ---- what is looked for ------------------------------------------------------------------- */

struct search
{
	char	   *name;			/* "desc: RESTORE_POINT name\n", or NULL */
	bool		xid;
	uint64_t	min_lsn;
	bool		found;
	bool		too_early;		/* found, but before the backup is consistent */
};

static void
look_at(const char *line, void *arg)
{
	struct search *search = arg;
	const char *lsn = strstr(line, " lsn: ");
	char		text[PGX_LSN_STRLEN + 1];
	uint64_t	at;

	if (lsn == NULL)
		return;
	lsn += strlen(" lsn: ");
	snprintf(text, sizeof(text), "%.*s", (int) strcspn(lsn, ","), lsn);
	if (!pgx_lsn_parse(text, &at))
		return;
	if (search->name != NULL ? strstr(line, search->name) == NULL :
		strstr(line, "desc: COMMIT") == NULL && strstr(line, "desc: ABORT") == NULL)
		return;
	if (at >= search->min_lsn)
		search->found = true;
	else
		search->too_early = true;
}

/* 1: it is in WAL after the backup; 0: it is not; -1: cannot be told, or a failure, *ret_rc. */
static int
search_from(struct recovery *r, struct search *search, int *ret_rc)
{
	const char *const name_options[] = {"-r", "XLOG", NULL};
	const char *const xid_options[] = {"-r", "Transaction", "-x", r->opts->target_xid, NULL};
	struct wal_chain chain = {0};
	uint64_t	stopped = 0;

	*ret_rc = PGX_EXIT_OK;
	search->found = false;
	search->min_lsn = r->backup->info.end_lsn;
	if (!wal_chain_follow(r->area, r->backup, r->opts->target_timeline, &chain))
	{
		*ret_rc = PGX_EXIT_FAILURE;
		return -1;
	}
	*ret_rc = wal_read(r, &chain, search->name != NULL ? name_options : xid_options, look_at, search, &stopped);
	/* Definitely not there only if all of it could be read; the last segment may be empty from somewhere on. */
	if (*ret_rc == PGX_EXIT_OK && !search->found && stopped + r->backup->info.wal_segment_size < chain.end)
	{
		wal_chain_clear(&chain);
		return -1;
	}
	wal_chain_clear(&chain);
	return *ret_rc != PGX_EXIT_OK ? -1 : search->found ? 1 : 0;
}

static int
refuse(const struct recovery *r, const struct search *search)
{
	if (search->too_early)
	{
		pgx_log_error("the requested recovery point is earlier than the date and time that the backup finished");
		pgx_log_hint("Specify a later one; \"%s -l\" lists the backups.", pgx_progname());
		return PGX_EXIT_FAILURE;
	}
	if (search->name != NULL)
		pgx_log_error("restore point \"%s\" does not exist", r->opts->target_name);
	else
		pgx_log_error("transaction %s does not exist", r->opts->target_xid);
	pgx_log_detail("It is not in WAL from the backup on.");
	return PGX_EXIT_FAILURE;
}

/*
 * Find the newest backup from which the point can be reached.  Unless one was named, that is any of the complete ones.
 * An exit code; OK too if it cannot be told, for then the server will.
 */
int
search_target(struct recovery *r)
{
	const struct pgx_backup *first = r->backup;
	struct search search = {.xid = r->opts->target_xid != NULL};
	int			rc = PGX_EXIT_OK;
	int			there = 0;

	if (r->opts->target_name == NULL && r->opts->target_xid == NULL)
		return PGX_EXIT_OK;
	if (r->opts->target_name != NULL)
		search.name = pgx_printf("desc: RESTORE_POINT %s\n", r->opts->target_name);
	for (size_t i = r->list.count; there == 0 && i-- > 0;)
	{
		const struct pgx_backup *backup = &r->list.backups[i];

		if (backup->state != PGX_BACKUP_COMPLETE || (r->opts->backup != NULL && backup != first))
			continue;
		r->backup = backup;
		pgx_log_verbose("looking into WAL from the backup \"%s\" on", backup->name);
		there = search_from(r, &search, &rc);
	}
	if (there == 0)
		rc = refuse(r, &search);
	else if (there < 0 && rc == PGX_EXIT_OK)
	{
		pgx_log_verbose("whether the point of recovery is in WAL cannot be told without replaying it");
		r->backup = first;
	}
	free(search.name);
	return rc;
}
