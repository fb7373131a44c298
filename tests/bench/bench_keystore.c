/*
 * bench_keystore.c
 *		What opening a keystore costs beside its key derivation, and what automatic opening costs.
 *
 * The derivation alone is libcrypto's, called without libkeystore.  It and the opening by passphrase
 * are run in turns, in changing order, and each pair gives one difference; printed are medians.  CPU time is
 * printed too, since on a machine that does something else the time on the wall is mostly that.  And all is done
 * once more with the cheapest derivation that there is, where the difference is not lost in its noise.
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <openssl/evp.h>
#include <unistd.h>

#include "keystore.h"

#define ROUNDS		101
#define DEFAULT_ROUNDS	15
#define DEFAULT_COST	17		/* log2 of scrypt's N */
#define CHEAP_COST		10
#define MANY_KEYS	200

static const char passphrase[] = "how long does it take";
static char dir[] = "/tmp/bench_keystore.XXXXXX";
static char path[sizeof(dir) + 32];
static char secret[sizeof(dir) + 32];
static uint32_t cost_now;

struct cost
{
	double		wall;			/* milliseconds */
	double		cpu;
};

static void
die(const char *what, keystore *ks)
{
	fprintf(stderr, "bench_keystore: %s%s%s\n", what, ks != NULL ? ": " : "",
			ks != NULL ? keystore_errmsg(ks) : "");
	exit(1);
}

static void
check(keystore *ks, enum keystore_status status, const char *what)
{
	if (status != KEYSTORE_OK)
		die(what, ks);
}

static keystore *
new_handle(void)
{
	keystore   *ks = keystore_new();

	if (ks == NULL)
		die("out of memory", NULL);
	check(ks, keystore_set_host_secret_path(ks, secret), "could not set the path of the host secret");
	return ks;
}

/* A keystore with this many master keys, and automatic opening. */
static void
make(int keys)
{
	keystore   *ks = new_handle();
	const struct keystore_kdf_params cheap = {KEYSTORE_KDF_SCRYPT, CHEAP_COST, 0, 8, 1};
	const struct keystore_kdf_params *kdf = cost_now == DEFAULT_COST ? NULL : &cheap;
	uint32_t	id;

	check(ks, keystore_create(ks, passphrase, strlen(passphrase), kdf, "bench"), "could not create");
	for (int i = 1; i < keys; i++)
		check(ks, keystore_add_master_key(ks, "bench", &id), "could not add a key");
	check(ks, keystore_store(ks, path), "could not store");
	check(ks, keystore_auto_open_enable(ks, path), "could not enable automatic opening");
	keystore_free(&ks);
}

/* r = 8, p = 1, as the default has it. */
static void
run_kdf(void)
{
	unsigned char key[32];

	if (EVP_PBE_scrypt(passphrase, strlen(passphrase), (const unsigned char *) "0123456789abcdef", 16,
					   UINT64_C(1) << cost_now, 8, 1, 256 << 20, key, sizeof(key)) != 1)
		die("scrypt failed", NULL);
}

static void
run_passphrase(void)
{
	keystore   *ks = new_handle();

	check(ks, keystore_load(ks, path), "could not load");
	check(ks, keystore_open_passphrase(ks, passphrase, strlen(passphrase)), "could not open");
	keystore_free(&ks);
}

static void
run_auto(void)
{
	keystore   *ks = new_handle();

	check(ks, keystore_load(ks, path), "could not load");
	check(ks, keystore_open_auto(ks, path), "could not open automatically");
	keystore_free(&ks);
}

static double
now_ms(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (double) ts.tv_sec * 1e3 + (double) ts.tv_nsec / 1e6;
}

static struct cost
measure(void (*run) (void))
{
	double		wall = now_ms(CLOCK_MONOTONIC);
	double		cpu = now_ms(CLOCK_PROCESS_CPUTIME_ID);

	run();
	return (struct cost) {now_ms(CLOCK_MONOTONIC) - wall, now_ms(CLOCK_PROCESS_CPUTIME_ID) - cpu};
}

static int
by_value(const void *a, const void *b)
{
	const double x = *(const double *) a;
	const double y = *(const double *) b;

	return (x > y) - (x < y);
}

static void
print_medians(const char *what, const struct cost *costs, int n)
{
	double		wall[ROUNDS];
	double		cpu[ROUNDS];

	for (int i = 0; i < n; i++)
	{
		wall[i] = costs[i].wall;
		cpu[i] = costs[i].cpu;
	}
	qsort(wall, (size_t) n, sizeof(*wall), by_value);
	qsort(cpu, (size_t) n, sizeof(*cpu), by_value);
	printf("| %-44s | %9.2f | %9.2f |\n", what, wall[n / 2], cpu[n / 2]);
	fflush(stdout);
}

/* The keystore's parameters must be those that run_kdf() has, or the differences say nothing. */
static void
check_parameters(void)
{
	keystore   *ks = new_handle();
	struct keystore_slot_info info;

	check(ks, keystore_load(ks, path), "could not load");
	check(ks, keystore_get_slot(ks, 0, &info), "could not read the slot");
	if (info.kdf.kdf != KEYSTORE_KDF_SCRYPT || info.kdf.cost != cost_now || info.kdf.block_size != 8 ||
		info.kdf.parallelism != 1)
		die("the keystore has other parameters than are measured", NULL);
	keystore_free(&ks);
}

static void
bench(int keys, uint32_t cost, int rounds)
{
	struct cost kdf[ROUNDS];
	struct cost opening[ROUNDS];
	struct cost more[ROUNDS];
	struct cost automatic[ROUNDS];
	char		title[64];

	cost_now = cost;
	make(keys);
	check_parameters();
	for (int i = 0; i < rounds; i++)
	{
		if (i % 2 == 0)
			kdf[i] = measure(run_kdf);
		opening[i] = measure(run_passphrase);
		if (i % 2 != 0)
			kdf[i] = measure(run_kdf);
		more[i] = (struct cost) {opening[i].wall - kdf[i].wall, opening[i].cpu - kdf[i].cpu};
	}
	for (int i = 0; i < ROUNDS; i++)
		automatic[i] = measure(run_auto);
	snprintf(title, sizeof(title), "%d master key%s, scrypt N=2^%u alone", keys, keys == 1 ? "" : "s", cost);
	print_medians(title, kdf, rounds);
	print_medians("opened by passphrase", opening, rounds);
	print_medians("the difference, pair by pair (at most 5)", more, rounds);
	print_medians("opened automatically (at most 10)", automatic, ROUNDS);
}

int
main(void)
{
	static const char *const names[] = {"keystore.ks", "keystore.ks.prev", "keystore.ks.lock", "keystore.aks"};
	char		secret_dir[sizeof(dir) + 16];

	umask(077);
	if (mkdtemp(dir) == NULL)
		die("could not create a directory", NULL);
	snprintf(path, sizeof(path), "%s/keystore.ks", dir);
	snprintf(secret, sizeof(secret), "%s.secret/host", dir);
	snprintf(secret_dir, sizeof(secret_dir), "%s.secret", dir);
	if (mkdir(secret_dir, 0700) != 0)
		die("could not create a directory", NULL);
	printf("| %-44s | %9s | %9s |\n", "median", "ms", "ms of CPU");
	printf("|----------------------------------------------|-----------|-----------|\n");
	bench(1, DEFAULT_COST, DEFAULT_ROUNDS);
	bench(1, CHEAP_COST, ROUNDS);
	bench(MANY_KEYS, CHEAP_COST, ROUNDS);

	(void) unlink(secret);
	(void) rmdir(secret_dir);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		(void) unlink(path);
	}
	return rmdir(dir) == 0 ? 0 : 1;
}
