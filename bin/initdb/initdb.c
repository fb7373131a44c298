/*
 * initdb.c
 *		An initdb that knows --encrypt, in front of PostgreSQL's own.
 *
 * Without our options it becomes the real one.  With --encrypt it has the real one make a cluster, tells
 * the new server's configuration about the module and the keystore, and converts the cluster as
 * pgx_encrypt does: relation files and WAL are encrypted before the server starts for the first time.  What was
 * made is removed again if anything fails.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "args.h"
#include "encrypt.h"
#include "file.h"
#include "locate.h"
#include "log.h"
#include "mem.h"
#include "prompt.h"
#include "run.h"
#include "server.h"

#define LOCK_WAIT_MS	10000
#define KEYSTORE_ORIGIN	"initdb"

/* What has to be undone after a failure. */
struct made
{
	bool		location;		/* the keystore's directory */
	bool		keystore;
	bool		pgdata;			/* the real initdb has made a cluster */
	bool		pgdata_dir;		/* and its directory */
	bool		waldir_dir;
};

static void
forbid_core(void)
{
	const struct rlimit no_core = {0, 0};

	/* Lowering one's own limit and dropping a permission cannot fail. */
	(void) setrlimit(RLIMIT_CORE, &no_core);
	(void) prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

static int
become_real(const char *real, const struct initdb_args *args)
{
	/* initdb finds postgres by its own path, so it must be told where it really is. */
	args->argv[0] = pgx_strdup(real);
	(void) execv(real, args->argv);
	pgx_log_error("could not run program \"%s\": %m", real);
	return PGX_EXIT_FAILURE;
}

static int
show_help(const char *real)
{
	const char *argv[] = {real, "--help", NULL};
	struct pgx_run run;

	memset(&run, 0, sizeof(run));
	run.argv = argv;
	if (!pgx_run_wait(&run))
		return PGX_EXIT_FAILURE;
	pgx_run_clear(&run);
	printf("\nOptions for a cluster that is encrypted as a whole:\n"
		   "      --encrypt[=AES128|AES256]\n"
		   "                            encrypt all relation files and WAL (default: AES256)\n"
		   "      --keystore-location=DIR\n"
		   "                            directory of the keystore; the keystore is created if there is none\n"
		   "      --keystore-passphrase ask for the keystore's passphrase; without a terminal, read it from\n"
		   "                            standard input\n"
		   "      --keystore-passphrase-file=FILE\n"
		   "                            read the passphrase from the first line of a file\n");
	return pgx_finish_output(run.exit_code < 0 ? PGX_EXIT_FAILURE : run.exit_code);
}

/* ---- the keystore -------------------------------------------------------------------------- */

static bool
exists(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

static bool
make_location(const char *dir, struct made *made)
{
	if (mkdir(dir, 0700) == 0)
		made->location = true;
	else if (errno != EEXIST)
	{
		pgx_log_error("could not create directory \"%s\": %m", dir);
		return false;
	}
	return true;
}

/* A keystore in memory; it is stored when there is a cluster for it. */
static int
create_keystore(struct keys *keys, const char *file)
{
	struct pgx_passphrase pass;
	enum keystore_status st;

	keys->ks = keystore_new();
	if (keys->ks == NULL)
	{
		pgx_log_error("out of memory");
		return PGX_EXIT_FAILURE;
	}
	if (!pgx_passphrase_read(file, PGX_PROMPT_NEW, PGX_PROMPT_AGAIN, &pass))
		return PGX_EXIT_FAILURE;
	st = keystore_create(keys->ks, pass.bytes, pass.len, NULL, KEYSTORE_ORIGIN);
	pgx_passphrase_wipe(&pass);
	return st == KEYSTORE_OK ? PGX_EXIT_OK : pgx_log_keystore(keys->ks, st);
}

/* Open what is there, or make a new one if a passphrase is offered. */
static int
prepare_keystore(struct keys *keys, const struct initdb_args *args, const char *path)
{
	if (exists(path))
		return keys_open(keys, path, args->passphrase_file, NULL);
	if (args->keystore_passphrase)
		return create_keystore(keys, args->passphrase_file);
	pgx_log_error("keystore \"%s\" does not exist", path);
	pgx_log_hint("Give --keystore-passphrase to create it.");
	return PGX_EXIT_FAILURE;
}

static int
store_keystore(struct keys *keys, const char *location, const char *path, struct made *made)
{
	enum keystore_status st;
	int			lock = -1;

	if (!make_location(location, made))
		return PGX_EXIT_FAILURE;
	st = keystore_lock(keys->ks, path, LOCK_WAIT_MS, &lock);
	if (st == KEYSTORE_OK && exists(path))
	{
		pgx_log_error("file \"%s\" has been made by somebody else meanwhile", path);
		keystore_unlock(lock);
		return PGX_EXIT_FAILURE;
	}
	if (st == KEYSTORE_OK)
	{
		made->keystore = true;
		st = keystore_store(keys->ks, path);
	}
	if (lock >= 0)
		keystore_unlock(lock);
	return st == KEYSTORE_OK ? PGX_EXIT_OK : pgx_log_keystore(keys->ks, st);
}

/* ---- the configuration ----------------------------------------------------------------------- */

/* A value for postgresql.conf: in single quotes. */
static char *
conf_quote(const char *value)
{
	char	   *quoted = pgx_alloc(2 * strlen(value) + 3);
	char	   *to = quoted;

	*to++ = '\'';
	for (; *value != '\0'; value++)
	{
		if (*value == '\'' || *value == '\\')
			*to++ = *value;
		*to++ = *value;
	}
	*to++ = '\'';
	*to = '\0';
	return quoted;
}

/* In the data directory.  Libraries that the user's own options name are kept. */
static bool
write_settings(const struct cluster *cluster, const char *postgres, const char *location)
{
	bool		failed;
	char	   *others = pgx_server_setting(postgres, cluster->pgdata, NULL, 0, "shared_preload_libraries", &failed);
	char	   *libraries = others == NULL || others[0] == '\0' ? pgx_strdup("pgx_tde") :
		pgx_printf("%s, pgx_tde", others);
	char	   *quoted_libraries = conf_quote(libraries);
	char	   *quoted_location = conf_quote(location);
	char	   *text = pgx_printf("\n# Added by initdb --encrypt: the server needs both to read its data.\n"
								  "shared_preload_libraries = %s\npgx_tde.keystore_location = %s\n",
								  quoted_libraries, quoted_location);
	int			fd = failed ? -1 : open("postgresql.conf", O_WRONLY | O_APPEND | O_CLOEXEC);
	bool		ok;

	ok = fd >= 0 && pgx_write_all(fd, text, strlen(text)) && (!cluster->sync || fsync(fd) == 0);
	if (!ok && !failed)
		pgx_log_error("could not write file \"%s/postgresql.conf\": %m", cluster->pgdata);
	if (fd >= 0)
		(void) close(fd);
	free(others);
	free(libraries);
	free(quoted_libraries);
	free(quoted_location);
	free(text);
	return ok;
}

/* ---- undoing ------------------------------------------------------------------------------------ */

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	/* Level 0 is the directory itself, which may not be ours to remove. */
	if (ftw->level > 0 && remove(path) != 0)
		pgx_log_warning("could not remove \"%s\": %m", path);
	return 0;
}

static void
empty_directory(const char *dir, bool and_itself)
{
	(void) nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	if (and_itself && rmdir(dir) != 0)
		pgx_log_warning("could not remove directory \"%s\": %m", dir);
}

static void
undo(const struct made *made, const struct initdb_args *args, const char *pgdata, const char *waldir,
	 const char *location)
{
	static const char *const names[] = {KEYSTORE_FILE_NAME, KEYSTORE_PREV_NAME, KEYSTORE_LOCK_NAME};

	if (args->no_clean && made->pgdata)
	{
		pgx_log_warning("the unfinished cluster in \"%s\" and its keystore are not removed at user's request", pgdata);
		return;
	}
	if (made->pgdata)
		empty_directory(pgdata, made->pgdata_dir);
	if (made->pgdata && waldir != NULL)
		empty_directory(waldir, made->waldir_dir);
	for (size_t i = 0; made->keystore && i < sizeof(names) / sizeof(names[0]); i++)
	{
		char	   *path = pgx_join(location, names[i]);

		(void) unlink(path);
		free(path);
	}
	if (made->location)
		(void) rmdir(location);
}

/* ---- all of it ----------------------------------------------------------------------------------- */

/* The real initdb, with its input and output; its closing advice would not be right for an encrypted server. */
static int
run_real(const char *real, const struct initdb_args *args)
{
	struct pgx_run run;
	int			argc = args->argc;

	memset(&run, 0, sizeof(run));
	run.inherit_in = true;
	args->argv[0] = pgx_strdup(real);
	if (!args->no_instructions)
		args->argv[argc++] = pgx_strdup("--no-instructions");
	args->argv[argc] = NULL;
	run.argv = (const char *const *) args->argv;
	(void) fflush(stdout);
	if (!pgx_run_wait(&run))
		return PGX_EXIT_FAILURE;
	pgx_run_clear(&run);
	return run.exit_code < 0 ? PGX_EXIT_FAILURE : run.exit_code;
}

static int
convert_new_cluster(const struct initdb_args *args, struct keys *keys, const char *pgdata, const char *postgres,
					const char *location)
{
	struct cluster cluster = {NULL};
	struct convert_options options = {.alg = args->alg,.jobs = 1};
	char	   *bindir = pgx_dirname(postgres);
	int			rc = PGX_EXIT_FAILURE;

	cluster.lock_fd = -1;
	if (cluster_open(&cluster, pgdata, bindir))
	{
		cluster.sync = !args->no_sync;
		stop_on_signals();
		if (write_settings(&cluster, postgres, location))
			rc = convert_cluster(&cluster, keys, &options);
	}
	cluster_clear(&cluster);
	free(bindir);
	return rc;
}

static void
print_instructions(const struct initdb_args *args, const char *pgdata, const char *location)
{
	if (args->no_instructions)
		return;
	printf("\nSuccess. You can now start the database server, which asks for the passphrase, using:\n\n"
		   "    pg_ctl -D %s -l logfile --keystore-passphrase start\n\n"
		   "The keystore is \"%s/%s\".  Keep a copy of it: without it nobody can read the data.\n", pgdata,
		   location, KEYSTORE_FILE_NAME);
}

static bool
refuse_location(const char *location, const char *pgdata, const char *waldir)
{
	size_t		len = strlen(pgdata);

	if (!pgx_outside_cluster(location))
		return true;
	/* The data directory may not exist yet. */
	if ((strncmp(location, pgdata, len) == 0 && (location[len] == '/' || location[len] == '\0')) ||
		(waldir != NULL && strcmp(location, waldir) == 0))
	{
		pgx_log_error("keystore directory \"%s\" is inside the data directory \"%s\"", location, pgdata);
		pgx_log_hint("Keep the keystore apart from what it protects, so that no backup of the data carries it.");
		return true;
	}
	return false;
}

static int
make_encrypted(const struct initdb_args *args, const char *real)
{
	const char *given = args->pgdata != NULL ? args->pgdata : getenv("PGDATA");
	char	   *pgdata = pgx_absolute(given);
	char	   *waldir = args->waldir != NULL ? pgx_absolute(args->waldir) : NULL;
	char	   *location = pgx_absolute(args->keystore_location);
	char	   *path = pgx_join(location, KEYSTORE_FILE_NAME);
	char	   *postgres = pgx_find_beside(real, "postgres", PG_BINDIR);
	struct keys keys = {NULL};
	struct made made = {false};
	bool		had_pgdata = exists(pgdata);
	bool		had_waldir = waldir != NULL && exists(waldir);
	bool		had_keystore = exists(path);
	int			rc = PGX_EXIT_FAILURE;

	if (refuse_location(location, pgdata, waldir))
		goto out;
	rc = prepare_keystore(&keys, args, path);
	if (rc == PGX_EXIT_OK)
		rc = run_real(real, args);	/* which removes what it made if it fails */
	if (rc != PGX_EXIT_OK)
		goto out;
	made.pgdata = true;
	made.pgdata_dir = !had_pgdata;
	made.waldir_dir = !had_waldir;
	if (!had_keystore)
		rc = store_keystore(&keys, location, path, &made);
	if (rc == PGX_EXIT_OK)
		rc = convert_new_cluster(args, &keys, pgdata, postgres, location);
	if (rc == PGX_EXIT_OK)
		print_instructions(args, pgdata, location);

out:
	if (rc != PGX_EXIT_OK)
		undo(&made, args, pgdata, waldir, location);
	keys_clear(&keys);
	free(pgdata);
	free(waldir);
	free(location);
	free(path);
	free(postgres);
	return rc;
}

int
main(int argc, char **argv)
{
	struct initdb_args args;
	char	   *real = NULL;
	char		why[256];
	int			rc = PGX_EXIT_FAILURE;

	pgx_log_init(argv[0]);
	memset(&args, 0, sizeof(args));
	if (!initdb_args_parse(argc, argv, &args, why, sizeof(why)))
	{
		pgx_log_error("%s", why);
		pgx_log_advice();
		goto out;
	}
	real = pgx_find_real_program("initdb", getenv("PATH"), PG_BINDIR);
	if (real == NULL)
		goto out;
	if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-?") == 0))
		rc = show_help(real);
	/* Root, or no directory: the real one says what is wrong, and nobody is asked for anything. */
	else if (!args.encrypt || geteuid() == 0 || (args.pgdata == NULL && getenv("PGDATA") == NULL))
		rc = become_real(real, &args);
	else
	{
		forbid_core();
		rc = pgx_finish_output(make_encrypted(&args, real));
	}

out:
	initdb_args_clear(&args);
	free(real);
	return rc;
}
