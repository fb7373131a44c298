/*
 * main.c
 *		pgx_encrypt: encrypt, decrypt or check a whole cluster while its server is down.
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "encrypt.h"
#include "file.h"
#include "locate.h"
#include "log.h"
#include "mem.h"
#include "option_table.h"
#include "options.h"
#include "server.h"

#define MAX_JOBS	256
#define MODULE		"pgx_tde"

enum
{
	OPT_PGDATA, OPT_ALGORITHM, OPT_TABLESPACE, OPT_CHECK, OPT_JSON, OPT_DECRYPT, OPT_JOBS, OPT_PROGRESS, OPT_NO_SYNC,
	OPT_PASSPHRASE_FILE, OPT_HOST_SECRET, OPT_VERBOSE, OPT_VERSION, OPT_HELP, N_OPTS
};

static const struct pgx_option option_defs[N_OPTS] = {
	[OPT_PGDATA] = {"pgdata", 'D', "DATADIR", "data directory of the server, which must be down"},
	[OPT_ALGORITHM] = {"algorithm", 0, "AES128|AES256", "encrypt with this algorithm (default: AES256)"},
	[OPT_TABLESPACE] = {"tablespace", 0, "NAME|OID|DIR", "only this tablespace; may be given several times"},
	[OPT_CHECK] = {"check", 'c', NULL, "report what is encrypted, change nothing"},
	[OPT_JSON] = {"json", 0, NULL, "with --check: report as JSON"},
	[OPT_DECRYPT] = {"decrypt", 0, NULL, "decrypt instead"},
	[OPT_JOBS] = {"jobs", 'j', "N", "convert so many files at the same time (default: 1)"},
	[OPT_PROGRESS] = {"progress", 'P', NULL, "show progress information"},
	[OPT_NO_SYNC] = {"no-sync", 'N', NULL, "do not wait for changes to be written safely to disk"},
	[OPT_PASSPHRASE_FILE] = {"passphrase-file", 0, "FILE", "read the passphrase from the first line of a file"},
	[OPT_HOST_SECRET] = {"host-secret", 0, "FILE", "secret of this host that auto-open is bound to"},
	[OPT_VERBOSE] = {"verbose", 'v', NULL, "say more about what is done"},
	[OPT_VERSION] = {"version", 'V', NULL, "show the version, then exit"},
	[OPT_HELP] = {"help", '?', NULL, "show this help, then exit"},
};

struct command_line
{
	const char *pgdata;
	char	   *passphrase_file;
	char	   *host_secret;
	const char **tablespaces;
	bool		check;
	bool		json;
	bool		no_sync;
	bool		algorithm_given;
	bool		help;
	bool		version;
	struct convert_options convert;
};

static void
print_help(void)
{
	printf("%s encrypts, decrypts or checks all data of a PostgreSQL server that is down.\n\n"
		   "Usage:\n"
		   "  %s [OPTION]... -D DATADIR\n"
		   "\nOptions:\n", pgx_progname(), pgx_progname());
	pgx_print_options(option_defs, N_OPTS, 28);
	printf("\nThe passphrase of the keystore is asked for on the terminal; without a terminal it is a\n"
		   "line of standard input.  An interrupted run is continued by the same command.\n"
		   "Exit status: 0 done, 1 failed or not everything is encrypted, 2 passphrase wrong or key\n"
		   "not usable.\n");
}

static bool
store_option(struct command_line *cl, int opt, const char *arg)
{
	switch (opt)
	{
		case OPT_PGDATA:
			cl->pgdata = arg;
			break;
		case OPT_ALGORITHM:
			cl->algorithm_given = true;
			if (tde_algorithm_parse(arg, &cl->convert.alg) == 0 && cl->convert.alg != TDE_NONE)
				break;
			pgx_log_error("invalid value \"%s\" for option --algorithm", arg);
			pgx_log_hint("Known are \"AES128\" and \"AES256\".");
			return false;
		case OPT_TABLESPACE:
			cl->tablespaces = pgx_realloc(cl->tablespaces,
										  (cl->convert.n_tablespaces + 1) * sizeof(*cl->tablespaces));
			cl->tablespaces[cl->convert.n_tablespaces++] = arg;
			cl->convert.tablespaces = cl->tablespaces;
			break;
		case OPT_CHECK:
			cl->check = true;
			break;
		case OPT_JSON:
			cl->json = true;
			break;
		case OPT_DECRYPT:
			cl->convert.decrypt = true;
			break;
		case OPT_JOBS:
			return pgx_parse_uint(arg, "--jobs", 1, MAX_JOBS, &cl->convert.jobs);
		case OPT_PROGRESS:
			cl->convert.progress = true;
			break;
		case OPT_NO_SYNC:
			cl->no_sync = true;
			break;
		case OPT_PASSPHRASE_FILE:
			free(cl->passphrase_file);
			cl->passphrase_file = pgx_absolute(arg);
			break;
		case OPT_HOST_SECRET:
			free(cl->host_secret);
			cl->host_secret = pgx_absolute(arg);
			break;
		case OPT_VERBOSE:
			pgx_log_set_verbose(true);
			break;
		case OPT_VERSION:
			cl->version = true;
			break;
		case OPT_HELP:
			cl->help = true;
			break;
	}
	return true;
}

/* Nothing after a question for help or the version counts, as with PostgreSQL's commands. */
static bool
parse_options(int argc, char **argv, struct command_line *cl)
{
	int			opt;

	while (!cl->help && !cl->version &&
		   (opt = pgx_next_option(argc, argv, option_defs, N_OPTS)) != PGX_OPTIONS_END)
	{
		if (opt == PGX_OPTIONS_WRONG || !store_option(cl, opt, optarg))
			return false;
	}
	return true;
}

static bool
check_usage(struct command_line *cl, int argc, char **argv)
{
	if (optind < argc && cl->pgdata == NULL)
		cl->pgdata = argv[optind++];
	if (optind < argc)
		pgx_log_error("too many command-line arguments (first is \"%s\")", argv[optind]);
	else if (cl->check && cl->convert.decrypt)
		pgx_log_error("options --check and --decrypt cannot be used together");
	else if (cl->json && !cl->check)
		pgx_log_error("option --json can be used with --check only");
	else if (cl->algorithm_given && (cl->check || cl->convert.decrypt))
		pgx_log_error("option --algorithm can be used for encrypting only");
	else if (cl->pgdata == NULL && (cl->pgdata = getenv("PGDATA")) == NULL)
		pgx_log_error("no data directory specified");
	else
		return true;
	pgx_log_advice();
	return false;
}

/*
 * The data directory that the server would use when it is started with -D DIR: where DIR holds the configuration
 * only, as on Debian, the configuration says.  NULL after a message; the caller frees it.
 */
static char *
find_data_directory(const char *postgres, const char *dir)
{
	char	   *conf = pgx_join(dir, "postgresql.conf");
	char	   *data = NULL;
	bool		failed;

	if (access(conf, F_OK) != 0)
		data = pgx_strdup(dir);
	else if ((data = pgx_server_setting(postgres, dir, NULL, 0, "data_directory", &failed)) == NULL && !failed)
		pgx_log_error("could not find the data directory of the server in \"%s\"", dir);
	free(conf);
	return data;
}

/* Is the module in a comma-separated list, whatever its directory? */
static bool
lists_module(const char *list)
{
	const char *p = list;
	size_t		len = strlen(MODULE);

	while ((p = strstr(p, MODULE)) != NULL)
	{
		bool		begins = p == list || strchr(" ,\"/", p[-1]) != NULL;

		if (begins && (p[len] == '\0' || strchr(" ,\"", p[len]) != NULL))
			return true;
		p += len;
	}
	return false;
}

/* A server that does not load the module could not be started on encrypted data. */
static bool
module_is_configured(const char *postgres, const char *pgdata)
{
	bool		failed;
	char	   *list = pgx_server_setting(postgres, pgdata, NULL, 0, "shared_preload_libraries", &failed);
	bool		listed = list != NULL && lists_module(list);

	free(list);
	if (!failed && !listed)
	{
		pgx_log_error("the server in \"%s\" does not load " MODULE, pgdata);
		pgx_log_hint("Add " MODULE " to shared_preload_libraries in postgresql.conf, or the server could not be "
					 "started any more.");
	}
	return listed;
}

/* Everything is plain where there is no key table, and then --check needs no keystore. */
static int
open_keys(const struct command_line *cl, const char *postgres, const char *confdir, struct keys *keys)
{
	char	   *location;
	char	   *path;
	int			rc;

	if (cl->check && !keys_table_exists())
		return PGX_EXIT_OK;
	if (!cl->check && !cl->convert.decrypt && !module_is_configured(postgres, confdir))
		return PGX_EXIT_FAILURE;
	location = pgx_server_keystore_location(postgres, confdir, NULL, 0);
	if (location == NULL)
		return PGX_EXIT_FAILURE;
	path = pgx_join(location, KEYSTORE_FILE_NAME);
	rc = pgx_outside_cluster(location) ?
		keys_open(keys, path, cl->passphrase_file, cl->host_secret) : PGX_EXIT_FAILURE;
	if (rc == PGX_EXIT_OK)
		rc = keys_read_table(keys);
	free(location);
	free(path);
	return rc;
}

static int
run(const struct command_line *cl)
{
	char	   *found = pgx_find_real_program("postgres", getenv("PATH"), PG_BINDIR);
	char	   *postgres = found == NULL ? NULL : pgx_find_beside(found, "postgres", PG_BINDIR);
	char	   *bindir = postgres == NULL ? NULL : pgx_dirname(postgres);
	char	   *confdir = pgx_absolute(cl->pgdata);
	char	   *pgdata = postgres == NULL ? NULL : find_data_directory(postgres, confdir);
	struct cluster cluster = {NULL};
	struct keys keys = {NULL};
	int			rc = PGX_EXIT_FAILURE;

	cluster.lock_fd = -1;
	if (pgdata == NULL || !cluster_open(&cluster, pgdata, bindir))
		goto out;
	cluster.sync = !cl->no_sync;
	/* Before anyone is asked for a passphrase.  Looking is harmless: see check.c. */
	if (!cl->check && !cluster_is_down(&cluster))
		goto out;
	rc = open_keys(cl, postgres, confdir, &keys);
	if (rc != PGX_EXIT_OK)
		goto out;
	stop_on_signals();
	rc = cl->check ? check_cluster(&cluster, &keys, &cl->convert, cl->json) :
		convert_cluster(&cluster, &keys, &cl->convert);

out:
	keys_clear(&keys);
	cluster_clear(&cluster);
	free(found);
	free(postgres);
	free(bindir);
	free(confdir);
	free(pgdata);
	return rc;
}

/* No core dump and no debugger of the same user. */
static void
harden(void)
{
	const struct rlimit no_core = {0, 0};

	(void) umask(077);
	/* Lowering one's own limit and dropping a permission cannot fail. */
	(void) setrlimit(RLIMIT_CORE, &no_core);
	(void) prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

int
main(int argc, char **argv)
{
	struct command_line cl;
	int			rc = PGX_EXIT_FAILURE;

	pgx_log_init(argv[0]);
	harden();
	memset(&cl, 0, sizeof(cl));
	cl.convert.alg = TDE_AES256;
	cl.convert.jobs = 1;

	if (!parse_options(argc, argv, &cl))
		goto out;
	if (cl.help)
	{
		print_help();
		rc = pgx_finish_output(PGX_EXIT_OK);
	}
	else if (cl.version)
	{
		printf("%s (pgx-tde) %s\n", pgx_progname(), PACKAGE_VERSION);
		rc = pgx_finish_output(PGX_EXIT_OK);
	}
	else if (check_usage(&cl, argc, argv))
		rc = pgx_finish_output(run(&cl));

out:
	free(cl.passphrase_file);
	free(cl.host_secret);
	free(cl.tablespaces);
	return rc;
}
