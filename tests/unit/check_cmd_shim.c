/*
 * check_cmd_shim.c
 *		How the pg_ctl shim reads a command line.
 *
 * What counts as an option, a value or the mode must agree with the real pg_ctl; tests/t/006_pg_ctl.pl
 * compares the two programs, this one looks at each part.
 */
#include <config.h>

#include "../../bin/pg_ctl/shim.h"
#include "cmd_common.h"

#define MAX_WORDS	10

static const struct
{
	const char *words[MAX_WORDS];	/* after argv[0] */
	bool		passphrase;
	const char *file;
	const char *mode;
	const char *pgdata;
	const char *exec_path;
	const char *options;
	bool		rejected;
	const char *left[MAX_WORDS];	/* what the real pg_ctl gets */
}			cases[] = {
	/* before and after the mode */
	{{"--keystore-passphrase", "start"}, true, NULL, "start", NULL, NULL, NULL, false, {"start"}},
	{{"start", "--keystore-passphrase"}, true, NULL, "start", NULL, NULL, NULL, false, {"start"}},
	{{"-D", "d", "--keystore-passphrase", "-w", "restart", "-l", "f"},
		true, NULL, "restart", "d", NULL, NULL, false, {"-D", "d", "-w", "restart", "-l", "f"}},
	{{"--keystore-passphrase", "start", "--keystore-passphrase"}, true, NULL, "start", NULL, NULL,
		NULL, false, {"start"}},
	/* with a file, in both forms */
	{{"--keystore-passphrase-file", "pw", "start"}, true, "pw", "start", NULL, NULL, NULL, false, {"start"}},
	{{"start", "--keystore-passphrase-file=pw", "-s"}, true, "pw", "start", NULL, NULL, NULL, false,
		{"start", "-s"}},
	{{"--keystore-passphrase-file", "start", "start"}, true, "start", "start", NULL, NULL, NULL, false,
		{"start"}},
	{{"--keystore-passphrase-file=start", "start"}, true, "start", "start", NULL, NULL, NULL, false,
		{"start"}},
	/* nothing of ours: nothing changed */
	{{"-D", "d", "status"}, false, NULL, "status", "d", NULL, NULL, false, {"-D", "d", "status"}},
	{{"stop", "-mfast", "-Dd", "-t", "5"}, false, NULL, "stop", "d", NULL, NULL, false,
		{"stop", "-mfast", "-Dd", "-t", "5"}},
	{{NULL}, false, NULL, NULL, NULL, NULL, NULL, false, {NULL}},
	/* a value that reads like our option is a value */
	{{"-l", "--keystore-passphrase", "start"}, false, NULL, "start", NULL, NULL, NULL, false,
		{"-l", "--keystore-passphrase", "start"}},
	{{"-o", "--keystore-passphrase", "start"}, false, NULL, "start", NULL, NULL,
		"--keystore-passphrase", false, {"-o", "--keystore-passphrase", "start"}},
	{{"--log", "start", "--keystore-passphrase", "stop"}, true, NULL, "stop", NULL, NULL, NULL, false,
		{"--log", "start", "stop"}},
	/* options of the real pg_ctl that take a value */
	{{"-N", "start", "-P", "start", "-U", "start", "-e", "start", "-S", "auto"}, false, NULL, NULL, NULL,
		NULL, NULL, false, {"-N", "start", "-P", "start", "-U", "start", "-e", "start", "-S", "auto"}},
	{{"-cswW", "start"}, false, NULL, "start", NULL, NULL, NULL, false, {"-cswW", "start"}},
	{{"-sDd", "start", "--pgdata=e", "-p", "/x"}, false, NULL, "start", "e", "/x", NULL, false,
		{"-sDd", "start", "--pgdata=e", "-p", "/x"}},
	{{"--pgd", "d", "start"}, false, NULL, "start", "d", NULL, NULL, false, {"--pgd", "d", "start"}},
	/* -o adds up */
	{{"-o", "-F", "start", "--options=-c a=b"}, false, NULL, "start", NULL, NULL, "-F -c a=b", false,
		{"-o", "-F", "start", "--options=-c a=b"}},
	/* "kill" takes two words more */
	{{"kill", "TERM", "123"}, false, NULL, "kill", NULL, NULL, NULL, false, {"kill", "TERM", "123"}},
	{{"kill", "HUP", "1", "start"}, false, NULL, "kill", NULL, NULL, NULL, true,
		{"kill", "HUP", "1", "start"}},
	/* what the real pg_ctl refuses is left to it */
	{{"--keystore-passphrase", "start", "stop"}, true, NULL, "start", NULL, NULL, NULL, true,
		{"start", "stop"}},
	{{"--keystore-passphrase", "--nonsense", "start"}, true, NULL, "start", NULL, NULL, NULL, true,
		{"--nonsense", "start"}},
	{{"--keystore", "start"}, false, NULL, "start", NULL, NULL, NULL, true, {"--keystore", "start"}},
	{{"-x", "start"}, false, NULL, "start", NULL, NULL, NULL, true, {"-x", "start"}},
	{{"start", "--version"}, false, NULL, "start", NULL, NULL, NULL, true, {"start", "--version"}},
	{{"start", "-D"}, false, NULL, "start", NULL, NULL, NULL, true, {"start", "-D"}},
	/* "--" may stand before the mode; glibc then refuses options after it, in the real one too */
	{{"--keystore-passphrase", "--", "start"}, true, NULL, "start", NULL, NULL, NULL, false,
		{"--", "start"}},
	{{"--", "start", "--keystore-passphrase"}, true, NULL, "start", NULL, NULL, NULL, true,
		{"--", "start"}},
};

static void
assert_text(const char *got, const char *expected)
{
	if (expected == NULL)
		ck_assert_ptr_null(got);
	else
	{
		ck_assert_ptr_nonnull(got);
		ck_assert_str_eq(got, expected);
	}
}

static int
fill_argv(const char *const *words, char **argv)
{
	int			argc = 0;

	argv[argc++] = strdup("pg_ctl");
	for (int i = 0; i < MAX_WORDS && words[i] != NULL; i++)
		argv[argc++] = strdup(words[i]);
	argv[argc] = NULL;
	return argc;
}

START_TEST(parse)
{
	char	   *argv[MAX_WORDS + 2];
	char	   *before[MAX_WORDS + 2];
	int			argc = fill_argv(cases[_i].words, argv);
	struct shim_args args;
	char		err[256] = "";
	int			n;

	memcpy(before, argv, sizeof(argv[0]) * (size_t) (argc + 1));
	ck_assert_msg(shim_args_parse(argc, argv, &args, err, sizeof(err)), "%s", err);
	ck_assert_mem_eq(before, argv, sizeof(argv[0]) * (size_t) (argc + 1));
	ck_assert_int_eq(args.keystore_passphrase, cases[_i].passphrase);
	assert_text(args.passphrase_file, cases[_i].file);
	assert_text(args.mode, cases[_i].mode);
	assert_text(args.pgdata, cases[_i].pgdata);
	assert_text(args.exec_path, cases[_i].exec_path);
	assert_text(args.options, cases[_i].options);
	ck_assert_int_eq(args.rejected, cases[_i].rejected);
	for (n = 0; n < MAX_WORDS && cases[_i].left[n] != NULL; n++)
		assert_text(args.argv[n + 1], cases[_i].left[n]);
	ck_assert_int_eq(args.argc, n + 1);
	ck_assert_ptr_null(args.argv[args.argc]);
	shim_args_clear(&args);
	while (argc > 0)
		free(argv[--argc]);
}
END_TEST

static const struct
{
	const char *words[MAX_WORDS];
	const char *err;
}			misuses[] = {
	{{"--keystore-passphrase=secret", "start"},
	"option --keystore-passphrase takes no value: others could see it in the process list"},
	{{"start", "--keystore-passphrase="},
	"option --keystore-passphrase takes no value: others could see it in the process list"},
	{{"start", "--keystore-passphrase-file"},
	"option --keystore-passphrase-file requires a file name"},
};

START_TEST(misuse)
{
	char	   *argv[MAX_WORDS + 2];
	int			argc = fill_argv(misuses[_i].words, argv);
	struct shim_args args;
	char		err[256] = "";

	ck_assert(!shim_args_parse(argc, argv, &args, err, sizeof(err)));
	ck_assert_str_eq(err, misuses[_i].err);
	while (argc > 0)
		free(argv[--argc]);
}
END_TEST

int
main(void)
{
	Suite	   *s = suite_create("pg_ctl shim");

	ADD_LOOP_TEST(s, parse, LENGTH_OF(cases));
	ADD_LOOP_TEST(s, misuse, LENGTH_OF(misuses));
	return run_suite(s);
}
