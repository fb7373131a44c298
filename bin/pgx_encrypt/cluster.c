/*
 * cluster.c
 *		What has to be known of a data directory before it is converted.
 *
 * The control file is read by the server's own pg_controldata, which knows its form and checks it.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "encrypt.h"
#include "file.h"
#include "log.h"
#include "mem.h"
#include "run.h"

#define BLOCK_SIZE			"8192"
#define SEGMENT_BLOCKS		"131072"
#define CONTROL_TRIES		5

/* What pg_controldata says behind a label; NULL if it does not.  The caller frees it. */
static char *
value_of(const char *text, const char *label)
{
	size_t		len = strlen(label);

	while (text != NULL)
	{
		if (strncmp(text, label, len) == 0)
		{
			text += len;
			text += strspn(text, " ");
			return pgx_strndup(text, strcspn(text, "\n"));
		}
		text = strchr(text, '\n');
		text = text == NULL ? NULL : text + 1;
	}
	return NULL;
}

static bool
number_of(const char *text, const char *label, uint32_t *ret)
{
	char	   *value = value_of(text, label);
	char	   *end = NULL;
	unsigned long number = 0;
	bool		ok;

	errno = 0;
	if (value != NULL)
		number = strtoul(value, &end, 10);
	ok = value != NULL && end != value && *end == '\0' && errno == 0 && number <= UINT32_MAX;
	if (ok)
		*ret = (uint32_t) number;
	else
		pgx_log_error("could not find \"%s\" in what pg_controldata says", label);
	free(value);
	return ok;
}

static bool
is_value(const char *text, const char *label, const char *wanted)
{
	char	   *value = value_of(text, label);
	bool		same = value != NULL && strcmp(value, wanted) == 0;

	if (!same)
		pgx_log_error("data directory has \"%s %s\", but only %s is supported", label,
					  value != NULL ? value : "?", wanted);
	free(value);
	return same;
}

static bool
parse_control(struct cluster *cluster, const char *text)
{
	uint32_t	checksum_version;
	uint32_t	high;
	uint32_t	low;
	char	   *location = value_of(text, "Latest checkpoint location:");
	bool		ok;

	ok = location != NULL && sscanf(location, "%" SCNx32 "/%" SCNx32, &high, &low) == 2;
	free(location);
	if (!ok)
	{
		pgx_log_error("could not find the latest checkpoint in what pg_controldata says");
		return false;
	}
	if (!is_value(text, "Database block size:", BLOCK_SIZE) ||
		!is_value(text, "WAL block size:", BLOCK_SIZE) ||
		!is_value(text, "Blocks per segment of large relation:", SEGMENT_BLOCKS) ||
		!number_of(text, "Catalog version number:", &cluster->catalog_version) ||
		!number_of(text, "Latest checkpoint's TimeLineID:", &cluster->timeline) ||
		!number_of(text, "Bytes per WAL segment:", &cluster->segment_size) ||
		!number_of(text, "Data page checksum version:", &checksum_version))
		return false;
	cluster->checkpoint = (uint64_t) high << 32 | low;
	cluster->checksums = checksum_version != 0;
	free(cluster->state);
	cluster->state = value_of(text, "Database cluster state:");
	if (cluster->state == NULL || cluster->segment_size < TDE_PAGE_SIZE)
	{
		pgx_log_error("could not understand what pg_controldata says");
		return false;
	}
	return true;
}

/* A damaged file, and one of another version, fail its checksum; pg_controldata goes on all the same. */
static bool
checksum_failed(const struct pgx_run *run)
{
	return strstr(run->out, "WARNING") != NULL || strstr(run->err, "warning") != NULL;
}

/* While a server is writing the file, --check may read a part of the new one: look again. */
static bool
run_controldata(struct pgx_run *run, const char *const *argv)
{
	struct timespec pause = {0, 10000000};

	for (int try = 1;; try++)
	{
		memset(run, 0, sizeof(*run));
		run->argv = argv;
		run->capture_out = true;
		run->capture_err = true;
		if (!pgx_run_wait(run))
			return false;
		if (run->exit_code != 0 || !checksum_failed(run) || try == CONTROL_TRIES)
			return true;
		pgx_run_clear(run);
		(void) nanosleep(&pause, NULL);
	}
}

static bool
read_control(struct cluster *cluster)
{
	char	   *program = pgx_join(cluster->bindir, "pg_controldata");
	const char *argv[] = {"env", "LC_ALL=C", program, "-D", cluster->pgdata, NULL};
	struct pgx_run run;
	bool		ok = false;

	if (!run_controldata(&run, argv))
		goto out;
	if (run.exit_code != 0 || checksum_failed(&run))
	{
		pgx_log_error("could not read the control file of data directory \"%s\"", cluster->pgdata);
		pgx_log_detail("\"%s\" said: %s", program,
					   run.err[0] != '\0' ? run.err : "the checksum does not match");
		pgx_log_hint("Put the directory of the programs of this cluster's server version first in PATH.");
		goto out;
	}
	ok = parse_control(cluster, run.out);

out:
	pgx_run_clear(&run);
	free(program);
	return ok;
}

bool
cluster_open(struct cluster *cluster, const char *pgdata, const char *bindir)
{
	struct stat st;

	cluster->sync = true;
	cluster->lock_fd = -1;
	cluster->bindir = pgx_strdup(bindir);
	cluster->pgdata = realpath(pgdata, NULL);
	if (cluster->pgdata == NULL || chdir(cluster->pgdata) != 0 || stat(".", &st) != 0)
	{
		pgx_log_error("could not access directory \"%s\": %m", pgdata);
		return false;
	}
	if (access("PG_VERSION", F_OK) != 0 || access("global", F_OK) != 0)
	{
		pgx_log_error("\"%s\" is not a data directory of PostgreSQL", pgdata);
		return false;
	}
	if (st.st_uid != geteuid())
	{
		pgx_log_error("data directory \"%s\" belongs to another user", pgdata);
		pgx_log_hint("Run this command as the user who runs the server.");
		return false;
	}
	cluster->dir_mode = st.st_mode & 0750;
	cluster->file_mode = st.st_mode & 0640;
	return read_control(cluster);
}

/* Only one conversion at a time.  The lock is held until this process ends. */
bool
cluster_lock(struct cluster *cluster)
{
	cluster->lock_fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (cluster->lock_fd >= 0 && flock(cluster->lock_fd, LOCK_EX | LOCK_NB) == 0)
		return true;
	if (cluster->lock_fd >= 0 && errno == EWOULDBLOCK)
		pgx_log_error("another conversion of data directory \"%s\" is running", cluster->pgdata);
	else
		pgx_log_error("could not lock directory \"%s\": %m", cluster->pgdata);
	return false;
}

/* A server that was started meanwhile is seen by its lock file before it changes anything. */
static bool
server_runs(const struct cluster *cluster)
{
	FILE	   *f = fopen("postmaster.pid", "re");
	long		pid = 0;
	bool		runs;

	if (f == NULL)
		return false;
	if (fscanf(f, "%ld", &pid) != 1)
		pid = 0;
	(void) fclose(f);
	if (pid < 0)
		pid = -pid;				/* a single-user server */
	runs = pid > 0 && (pid_t) pid != getpid() && (pid_t) pid != getppid() &&
		(kill((pid_t) pid, 0) == 0 || errno == EPERM);
	if (runs)
	{
		pgx_log_error("a server is running in data directory \"%s\" (PID %ld)", cluster->pgdata, pid);
		pgx_log_hint("Stop it with \"pg_ctl -D %s stop\".", cluster->pgdata);
	}
	return runs;
}

bool
cluster_is_down(struct cluster *cluster)
{
	static const char *const signals[] = {"standby.signal", "recovery.signal", "backup_label"};

	if (server_runs(cluster) || !read_control(cluster))
		return false;
	if (strcmp(cluster->state, "shut down in recovery") == 0)
	{
		pgx_log_error("data directory \"%s\" is that of a standby", cluster->pgdata);
		pgx_log_hint("Convert the primary, and make the standby again from a new base backup.");
		return false;
	}
	if (strcmp(cluster->state, "shut down") != 0)
	{
		pgx_log_error("the server in \"%s\" was not shut down cleanly: it is \"%s\"",
					  cluster->pgdata, cluster->state);
		pgx_log_hint("Start it, and stop it with \"pg_ctl -D %s stop\".", cluster->pgdata);
		return false;
	}
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
	{
		if (access(signals[i], F_OK) == 0)
		{
			pgx_log_error("data directory \"%s\" has a file \"%s\": recovery is to come", cluster->pgdata,
						  signals[i]);
			pgx_log_hint("Start the server, let recovery end, and stop it.");
			return false;
		}
	}
	return true;
}

void
cluster_clear(struct cluster *cluster)
{
	free(cluster->pgdata);
	free(cluster->bindir);
	free(cluster->state);
	if (cluster->lock_fd >= 0)
		(void) close(cluster->lock_fd);
	memset(cluster, 0, sizeof(*cluster));
}
