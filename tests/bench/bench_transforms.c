/*
 * bench_transforms.c
 *		Nanoseconds a page for each transform of lib/tde.
 *
 * Each is run over a set of pages larger than the inner caches of the CPU, as a scan does, in
 * several rounds; the median and the best round are printed.  Run it on a machine that does
 * nothing else.
 */
#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "page.h"
#include "wal.h"

#define PAGES		512			/* 4 MiB */
#define ROUNDS		41

struct job
{
	tde_xts    *xts;
	tde_ctr    *ctr;
	uint8_t    *from;			/* PAGES pages */
	uint8_t    *to;
	uint32_t	sum;			/* so that no result is dropped */
};

static void
die(const char *what)
{
	fprintf(stderr, "bench_transforms: %s\n", what);
	exit(1);
}

static void
run_copy(struct job *job, uint32_t block)
{
	memcpy(job->to + (size_t) block * TDE_PAGE_SIZE, job->from + (size_t) block * TDE_PAGE_SIZE,
		   TDE_PAGE_SIZE);
}

static void
run_checksum(struct job *job, uint32_t block)
{
	job->sum += tde_page_checksum(job->from + (size_t) block * TDE_PAGE_SIZE, block);
}

static void
encrypt(struct job *job, uint32_t block, bool checksums)
{
	struct tde_page_id id = {16384, 16385, 0, block};

	if (tde_page_encrypt(job->xts, &id, checksums, job->from + (size_t) block * TDE_PAGE_SIZE,
						 job->to + (size_t) block * TDE_PAGE_SIZE) != TDE_PAGE_OK)
		die("could not encrypt a page");
}

static void
decrypt(struct job *job, uint32_t block, bool checksums)
{
	struct tde_page_id id = {16384, 16385, 0, block};

	/* After the first round the checksum does not fit any more, which costs the same. */
	if (tde_page_decrypt(job->xts, &id, checksums,
						 job->to + (size_t) block * TDE_PAGE_SIZE) == TDE_PAGE_FAILED)
		die("could not decrypt a page");
}

static void
run_encrypt(struct job *job, uint32_t block)
{
	encrypt(job, block, false);
}

static void
run_encrypt_sum(struct job *job, uint32_t block)
{
	encrypt(job, block, true);
}

static void
run_decrypt(struct job *job, uint32_t block)
{
	decrypt(job, block, false);
}

static void
run_decrypt_sum(struct job *job, uint32_t block)
{
	decrypt(job, block, true);
}

static void
run_zero(struct job *job, uint32_t block)
{
	struct tde_page_id id = {16384, 16385, 0, block};
	static const uint8_t zeros[TDE_PAGE_SIZE];

	if (tde_page_encrypt(job->xts, &id, true, zeros, job->to + (size_t) block * TDE_PAGE_SIZE) != TDE_PAGE_ZERO)
		die("could not see that a page is zero");
}

static void
run_wal(struct job *job, uint32_t block)
{
	struct tde_wal_header header = {
		1, 1, (uint64_t) block * TDE_WAL_PAGE_SIZE, TDE_WAL_SHORT_HEADER
	};

	if (tde_wal_page_encrypt(job->ctr, &header, TDE_WAL_PAGE_SIZE,
							 job->from + (size_t) block * TDE_WAL_PAGE_SIZE,
							 job->to + (size_t) block * TDE_WAL_PAGE_SIZE) != 0)
		die("could not encrypt a page of WAL");
}

static int
compare(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

static void
measure(const char *name, struct job *job, void (*run) (struct job *job, uint32_t block))
{
	double		ns[ROUNDS];

	for (int round = 0; round < ROUNDS; round++)
	{
		struct timespec start;
		struct timespec end;

		clock_gettime(CLOCK_MONOTONIC, &start);
		for (uint32_t block = 0; block < PAGES; block++)
			run(job, block);
		clock_gettime(CLOCK_MONOTONIC, &end);
		ns[round] = ((double) (end.tv_sec - start.tv_sec) * 1e9 +
					 (double) (end.tv_nsec - start.tv_nsec)) / PAGES;
	}
	qsort(ns, ROUNDS, sizeof(ns[0]), compare);
	printf("%-36s %8.0f %8.0f\n", name, ns[ROUNDS / 2], ns[0]);
}

int
main(void)
{
	uint8_t		key[TDE_MAX_KEY_LEN];
	struct job	job = {0};
	static const struct
	{
		enum tde_algorithm alg;
		const char *name;
	} algs[] = {{TDE_AES128, "AES128"}, {TDE_AES256, "AES256"}};

	for (size_t i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t) i;
	job.from = malloc((size_t) PAGES * TDE_PAGE_SIZE);
	job.to = calloc(PAGES, TDE_PAGE_SIZE);
	if (job.from == NULL || job.to == NULL)
		die("out of memory");
	for (size_t i = 0; i < (size_t) PAGES * TDE_PAGE_SIZE; i++)
		job.from[i] = (uint8_t) (i * 2654435761u >> 13);

	printf("%-36s %8s %8s\n", "ns per page of 8 KiB", "median", "best");
	measure("copy", &job, run_copy);
	measure("page checksum", &job, run_checksum);
	for (size_t i = 0; i < 2; i++)
	{
		char		name[64];

		job.xts = tde_xts_new(algs[i].alg, key);
		job.ctr = tde_ctr_new(algs[i].alg, key);
		if (job.xts == NULL || job.ctr == NULL)
			die("could not make a cipher context");
		snprintf(name, sizeof(name), "%s page encrypt", algs[i].name);
		measure(name, &job, run_encrypt);
		snprintf(name, sizeof(name), "%s page decrypt", algs[i].name);
		measure(name, &job, run_decrypt);
		snprintf(name, sizeof(name), "%s page encrypt, checksums on", algs[i].name);
		measure(name, &job, run_encrypt_sum);
		snprintf(name, sizeof(name), "%s page decrypt, checksums on", algs[i].name);
		measure(name, &job, run_decrypt_sum);
		snprintf(name, sizeof(name), "%s WAL page", algs[i].name);
		measure(name, &job, run_wal);
		if (tde_xts_is_fast(job.xts))
		{
			tde_xts_set_slow(job.xts);
			snprintf(name, sizeof(name), "%s page encrypt, libcrypto", algs[i].name);
			measure(name, &job, run_encrypt);
			snprintf(name, sizeof(name), "%s page decrypt, libcrypto", algs[i].name);
			measure(name, &job, run_decrypt);
		}
		if (tde_ctr_is_fast(job.ctr))
		{
			tde_ctr_set_slow(job.ctr);
			snprintf(name, sizeof(name), "%s WAL page, libcrypto", algs[i].name);
			measure(name, &job, run_wal);
		}
		if (i == 0)
			measure("page of zeros", &job, run_zero);
		tde_xts_free(&job.xts);
		tde_ctr_free(&job.ctr);
	}
	fprintf(stderr, "(sum of checksums: %" PRIu32 ")\n", job.sum);
	free(job.from);
	free(job.to);
	return 0;
}
