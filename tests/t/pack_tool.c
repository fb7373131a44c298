/*
 * pack_tool.c
 *		Make, check and restore packed backups without the commands around it, for tests and
 *		measurements.
 *
 * pack_tool pack KEYSTORE PASSPHRASE_FILE DATA_DIR CONNINFO CONTAINER CODEC JOBS
 * pack_tool unpack KEYSTORE PASSPHRASE_FILE CONTAINER DATA_DIR JOBS [OID=DIR ...]
 * pack_tool verify KEYSTORE PASSPHRASE_FILE CONTAINER JOBS [BACKUP_ID]
 *
 * pack puts WAL into the backup and prints the backup's id; the exit codes are those of the commands.
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "keystore.h"
#include "log.h"
#include "pack.h"
#include "prompt.h"

#define MAX_TABLESPACES	16

static int
open_keystore(const char *path, const char *passphrase_file, keystore **ret_ks)
{
	struct pgx_passphrase passphrase = {0};
	enum keystore_status st;

	*ret_ks = keystore_new();
	if (*ret_ks == NULL)
		return PGX_EXIT_FAILURE;
	st = keystore_load(*ret_ks, path);
	if (st == KEYSTORE_OK && !pgx_passphrase_read(passphrase_file, PGX_PROMPT, NULL, &passphrase))
		return PGX_EXIT_FAILURE;
	if (st == KEYSTORE_OK)
		st = keystore_open_passphrase(*ret_ks, passphrase.bytes, passphrase.len);
	pgx_passphrase_wipe(&passphrase);
	return st == KEYSTORE_OK ? PGX_EXIT_OK : pgx_log_keystore(*ret_ks, st);
}

static int
run_pack(keystore *ks, char **args)
{
	struct pgx_pack_options opts = {
		.data_dir = args[0][0] != '\0' ? args[0] : NULL,.conninfo = args[1],.path = args[2],
		.jobs = (unsigned) atoi(args[4]),.ks = ks,.checkpoint_fast = true,.wal = true
	};
	struct pgx_pack_result result;
	int			rc;

	if (!pgx_pack_parse_codec(args[3], &opts.codec, &opts.level))
		return PGX_EXIT_FAILURE;
	rc = pgx_pack(&opts, &result);
	if (rc != PGX_EXIT_OK)
		return rc;
	for (size_t i = 0; i < PGX_PACK_ID_LEN; i++)
		printf("%02x", result.backup_id[i]);
	printf("\n%llu %llu\n", (unsigned long long) result.raw_size, (unsigned long long) result.packed_size);
	pgx_pack_result_clear(&result);
	return PGX_EXIT_OK;
}

static int
run_unpack(keystore *ks, int n_args, char **args)
{
	struct pgx_pack_tablespace tablespaces[MAX_TABLESPACES];
	struct pgx_unpack_options opts = {
		.ks = ks,.path = args[0],.data_dir = args[1],.jobs = (unsigned) atoi(args[2]),
		.tablespaces = tablespaces
	};

	for (int i = 3; i < n_args && opts.n_tablespaces < MAX_TABLESPACES; i++)
	{
		char	   *location;

		tablespaces[opts.n_tablespaces].oid = (uint32_t) strtoul(args[i], &location, 10);
		tablespaces[opts.n_tablespaces++].location = location + 1;
	}
	return pgx_unpack(&opts);
}

static int
run_verify(keystore *ks, int n_args, char **args)
{
	uint8_t		id[PGX_PACK_ID_LEN];
	struct pgx_unpack_options opts = {
		.ks = ks,.path = args[0],.jobs = (unsigned) atoi(args[1]),.verify_only = true
	};

	if (n_args > 2)
	{
		for (size_t i = 0; i < PGX_PACK_ID_LEN; i++)
		{
			unsigned	byte = 0;

			(void) sscanf(args[2] + 2 * i, "%2x", &byte);
			id[i] = (uint8_t) byte;
		}
		opts.backup_id = id;
	}
	return pgx_unpack(&opts);
}

/*
 * Peak memory in kB, from the last reset on: opening the keystore takes more than anything after it.  getrusage()
 * will not do, since its peak includes that of the program that started this one.
 */
static void
reset_peak(void)
{
	FILE	   *f = fopen("/proc/self/clear_refs", "w");

	if (f != NULL)
	{
		fputs("5", f);
		(void) fclose(f);
	}
}

static void
print_peak(void)
{
	FILE	   *f = fopen("/proc/self/status", "r");
	char		line[256];

	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
	{
		long		kb;

		if (sscanf(line, "VmHWM: %ld kB", &kb) == 1)
			fprintf(stderr, "peak %ld kB\n", kb);
	}
	if (f != NULL)
		(void) fclose(f);
}

int
main(int argc, char **argv)
{
	keystore   *ks = NULL;
	int			rc = PGX_EXIT_FAILURE;

	pgx_log_init(argv[0]);
	if (argc < 6)
	{
		pgx_log_error("see the head of the source for usage");
		return PGX_EXIT_FAILURE;
	}
	rc = open_keystore(argv[2], argv[3], &ks);
	reset_peak();
	if (rc == PGX_EXIT_OK && strcmp(argv[1], "pack") == 0 && argc == 9)
		rc = run_pack(ks, argv + 4);
	else if (rc == PGX_EXIT_OK && strcmp(argv[1], "unpack") == 0 && argc >= 7)
		rc = run_unpack(ks, argc - 4, argv + 4);
	else if (rc == PGX_EXIT_OK && strcmp(argv[1], "verify") == 0)
		rc = run_verify(ks, argc - 4, argv + 4);
	keystore_free(&ks);
	print_peak();
	return rc;
}
