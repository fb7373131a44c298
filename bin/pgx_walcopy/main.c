/*
 * main.c
 *		pgx_walcopy: archive a WAL file; for archive_command.
 */
#include <config.h>

#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "log.h"
#include "wal_archive.h"

static int
print_help(void)
{
	printf("%s archives a WAL file: durably, as it is, and never over another one.\n\n"
		   "Usage:\n  %s [OPTION]... SOURCE DESTINATION\n\n"
		   "In postgresql.conf:\n"
		   "  archive_command = 'pgx_walcopy \"%%p\" \"/backup_destination/archived_wal/%%f\"'\n\n"
		   "Options:\n"
		   "  -v, --verbose                    say what is done\n"
		   "      --verify                     check the segment's pages, and read the copy back\n"
		   "  -V, --version                    show the version, then exit\n"
		   "  -?, --help                       show this help, then exit\n\n"
		   "Exit status: 0 archived, or it was already; 1 failed.\n", pgx_progname(), pgx_progname());
	return pgx_finish_output(PGX_EXIT_OK);
}

static int
print_version(void)
{
	printf("%s (pgx-tde) %s\n", pgx_progname(), PACKAGE_VERSION);
	return pgx_finish_output(PGX_EXIT_OK);
}

int
main(int argc, char **argv)
{
	enum
	{
		OPT_VERIFY = 256, OPT_HELP
	};
	static const struct option long_options[] = {
		{"verbose", no_argument, NULL, 'v'},
		{"verify", no_argument, NULL, OPT_VERIFY},
		{"version", no_argument, NULL, 'V'},
		{"help", no_argument, NULL, OPT_HELP},
		{NULL, 0, NULL, 0}
	};
	bool		verify = false;
	char		err[1024];
	int			c;

	pgx_log_init(argv[0]);
	(void) umask(077);
	if (argc > 1 && strcmp(argv[1], "-?") == 0)
		return print_help();
	while ((c = getopt_long(argc, argv, "vV", long_options, NULL)) != -1)
	{
		switch (c)
		{
			case 'v':
				pgx_log_set_verbose(true);
				break;
			case OPT_VERIFY:
				verify = true;
				break;
			case 'V':
				return print_version();
			case OPT_HELP:
				return print_help();
			default:
				pgx_log_advice();	/* getopt_long() has said what is wrong */
				return PGX_EXIT_FAILURE;
		}
	}
	if (argc - optind != 2)
	{
		pgx_log_error(argc - optind < 2 ? "too few command-line arguments" : "too many command-line arguments");
		pgx_log_advice();
		return PGX_EXIT_FAILURE;
	}
	if (!pgx_wal_archive(argv[optind], argv[optind + 1], verify, err, sizeof(err)))
	{
		pgx_log_error("%s", err);
		return PGX_EXIT_FAILURE;
	}
	pgx_log_verbose("\"%s\" is archived as \"%s\"", argv[optind], argv[optind + 1]);
	return PGX_EXIT_OK;
}
