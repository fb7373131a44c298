/*
 * kdf.c
 *		The choice of a key derivation function by options, and pgx_keystore benchmark.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef HAVE_JANSSON
#include <jansson.h>
#endif

#include "actions.h"
#include "log.h"
#include "options.h"

#define DEFAULT_BENCHMARK_MS	1000

struct kdf_option
{
	const char *name;			/* as in --kdf */
	uint32_t	min_cost;
	uint32_t	max_cost;
	struct keystore_kdf_params defaults;
};

/* scrypt: RFC 7914 and the format's bounds.  argon2id: RFC 9106 section 4, second choice.  PBKDF2: the format's. */
static const struct kdf_option kdf_options[] = {
	{"scrypt", 10, 24, {.kdf = KEYSTORE_KDF_SCRYPT,.cost = 17,.block_size = 8,.parallelism = 1}},
	{"argon2id", 1, 1000, {.kdf = KEYSTORE_KDF_ARGON2ID,.cost = 3,.memory_kib = 65536,.parallelism = 4}},
	{"pbkdf2", 210000, 100000000, {.kdf = KEYSTORE_KDF_PBKDF2_SHA512,.cost = 210000}},
};

#define N_KDFS	(sizeof(kdf_options) / sizeof(kdf_options[0]))

/* "1s", "0.5s" is not taken, "500ms". */
static bool
parse_time(const char *text, unsigned *ret_ms)
{
	unsigned long value;
	char	   *end;

	errno = 0;
	value = text[0] >= '0' && text[0] <= '9' ? strtoul(text, &end, 10) : 0;
	if (value == 0 || errno != 0 || value > KEYSTORE_KDF_TARGET_MAX ||
		(strcmp(end, "s") != 0 && strcmp(end, "ms") != 0))
	{
		pgx_log_error("invalid value \"%s\" for option --kdf-time", text);
		pgx_log_hint("A time is a whole number and a unit, as \"1s\" or \"500ms\".");
		return false;
	}
	if (strcmp(end, "s") == 0)
		value *= 1000;
	if (value < KEYSTORE_KDF_TARGET_MIN || value > KEYSTORE_KDF_TARGET_MAX)
	{
		pgx_log_error("--kdf-time must be in range %dms..%ds", KEYSTORE_KDF_TARGET_MIN,
					  KEYSTORE_KDF_TARGET_MAX / 1000);
		return false;
	}
	*ret_ms = (unsigned) value;
	return true;
}

static const struct kdf_option *
find_kdf(const struct options *opts)
{
	const char *name = opts->kdf_name != NULL ? opts->kdf_name : opts->fips ? "pbkdf2" : "scrypt";

	for (size_t i = 0; i < N_KDFS; i++)
	{
		if (strcmp(kdf_options[i].name, name) != 0)
			continue;
		if (opts->fips && kdf_options[i].defaults.kdf != KEYSTORE_KDF_PBKDF2_SHA512)
		{
			pgx_log_error("key derivation \"%s\" cannot be used with --fips", name);
			pgx_log_hint("SP 800-132 knows PBKDF2 alone; use --kdf=pbkdf2 or leave --kdf out.");
			return NULL;
		}
		return &kdf_options[i];
	}
	pgx_log_error("unknown key derivation \"%s\"", name);
	pgx_log_hint("Known are \"scrypt\", \"argon2id\" and \"pbkdf2\".");
	return NULL;
}

bool
check_kdf_options(const struct options *opts)
{
	const struct kdf_option *kdf = find_kdf(opts);
	uint32_t	cost;
	unsigned	ms;

	if (kdf == NULL)
		return false;
	if (opts->kdf_cost != NULL && opts->kdf_time != NULL)
	{
		pgx_log_error("options --kdf-cost and --kdf-time cannot be used together");
		return false;
	}
	if (opts->kdf_time != NULL && !parse_time(opts->kdf_time, &ms))
		return false;
	return opts->kdf_cost == NULL ||
		pgx_parse_uint(opts->kdf_cost, "--kdf-cost", kdf->min_cost, kdf->max_cost, &cost);
}

bool
choose_kdf(const struct options *opts, struct keystore_kdf_params *params,
		   const struct keystore_kdf_params **ret_kdf)
{
	const struct kdf_option *kdf = find_kdf(opts);
	enum keystore_status st;
	unsigned	ms = 0;

	*ret_kdf = NULL;
	if (kdf == NULL || !check_kdf_options(opts))
		return false;
	if (opts->kdf_name == NULL && opts->kdf_cost == NULL && opts->kdf_time == NULL && !opts->fips)
		return true;
	*params = kdf->defaults;
	*ret_kdf = params;
	if (!keystore_kdf_available(params->kdf))
	{
		pgx_log_error("key derivation \"%s\" is not available", kdf->name);
		pgx_log_hint("The OpenSSL library in use does not offer it; argon2id needs version 3.2.");
		return false;
	}
	if (opts->kdf_cost != NULL)
		return pgx_parse_uint(opts->kdf_cost, "--kdf-cost", kdf->min_cost, kdf->max_cost, &params->cost);
	if (opts->kdf_time == NULL)
		return true;
	if (!parse_time(opts->kdf_time, &ms))
		return false;
	st = keystore_kdf_calibrate(params->kdf, ms, params);
	if (st == KEYSTORE_OK)
		return true;
	pgx_log_error("could not measure key derivation \"%s\": %s", kdf->name, keystore_status_name(st));
	return false;
}

/* ---- benchmark ---------------------------------------------------------------------- */

struct measure
{
	const struct kdf_option *kdf;
	bool		available;
	uint64_t	default_us;		/* with the default parameters */
	struct keystore_kdf_params chosen;	/* for the time asked for */
	uint64_t	chosen_us;
};

static bool
measure(const struct kdf_option *kdf, unsigned ms, struct measure *ret)
{
	enum keystore_status st;

	ret->kdf = kdf;
	ret->available = keystore_kdf_available(kdf->defaults.kdf);
	if (!ret->available)
		return true;
	st = keystore_kdf_measure(&kdf->defaults, &ret->default_us);
	if (st == KEYSTORE_OK)
		st = keystore_kdf_calibrate(kdf->defaults.kdf, ms, &ret->chosen);
	if (st == KEYSTORE_OK)
		st = keystore_kdf_measure(&ret->chosen, &ret->chosen_us);
	if (st == KEYSTORE_OK)
		return true;
	pgx_log_error("could not measure key derivation \"%s\": %s", kdf->name, keystore_status_name(st));
	return false;
}

void
print_kdf(const struct keystore_kdf_params *kdf)
{
	switch (kdf->kdf)
	{
		case KEYSTORE_KDF_SCRYPT:
			printf("scrypt N=2^%u r=%u p=%u", kdf->cost, kdf->block_size, kdf->parallelism);
			return;
		case KEYSTORE_KDF_PBKDF2_SHA512:
			printf("pbkdf2-sha512 iterations=%u", kdf->cost);
			return;
		case KEYSTORE_KDF_ARGON2ID:
			printf("argon2id passes=%u memory=%u kB lanes=%u", kdf->cost, kdf->memory_kib,
				   kdf->parallelism);
			return;
	}
	printf("unknown");
}

static void
print_measure(const struct measure *m, unsigned ms)
{
	if (!m->available)
	{
		printf("%s: not available in this OpenSSL library\n", m->kdf->name);
		return;
	}
	print_kdf(&m->kdf->defaults);
	printf(": %.0f ms (default)\n", (double) m->default_us / 1000);
	print_kdf(&m->chosen);
	printf(": %.0f ms (--kdf=%s --kdf-time=%ums)\n", (double) m->chosen_us / 1000, m->kdf->name, ms);
}

#ifdef HAVE_JANSSON
static json_t *
json_measure(const struct measure *m)
{
	if (!m->available)
		return json_pack("{s:s, s:b}", "kdf", m->kdf->name, "available", 0);
	return json_pack("{s:s, s:b, s:I, s:{s:I, s:I, s:I, s:I, s:I}}", "kdf", m->kdf->name, "available", 1,
					 "default_us", (json_int_t) m->default_us, "calibrated",
					 "cost", (json_int_t) m->chosen.cost, "memory_kib", (json_int_t) m->chosen.memory_kib,
					 "block_size", (json_int_t) m->chosen.block_size,
					 "parallelism", (json_int_t) m->chosen.parallelism, "us", (json_int_t) m->chosen_us);
}

static bool
print_json(const struct measure *measures)
{
	json_t	   *list = json_array();
	bool		ok;

	for (size_t i = 0; i < N_KDFS; i++)
		(void) json_array_append_new(list, json_measure(&measures[i]));
	ok = json_array_size(list) == N_KDFS && json_dumpf(list, stdout, JSON_INDENT(2)) == 0;
	if (ok)
		putchar('\n');
	else
		pgx_log_error("could not make JSON of the result");
	json_decref(list);
	return ok;
}
#endif

int
action_benchmark(const struct options *opts, int n_args, char **args)
{
	struct measure measures[N_KDFS];
	unsigned	ms = DEFAULT_BENCHMARK_MS;

	memset(measures, 0, sizeof(measures));
	if (!json_supported(opts) || (opts->kdf_time != NULL && !parse_time(opts->kdf_time, &ms)))
		return PGX_EXIT_FAILURE;
	for (size_t i = 0; i < N_KDFS; i++)
	{
		if (!measure(&kdf_options[i], ms, &measures[i]))
			return PGX_EXIT_FAILURE;
		if (!opts->json)
			print_measure(&measures[i], ms);
	}
#ifdef HAVE_JANSSON
	if (opts->json)
		return print_json(measures) ? PGX_EXIT_OK : PGX_EXIT_FAILURE;
#endif
	return PGX_EXIT_OK;
}
