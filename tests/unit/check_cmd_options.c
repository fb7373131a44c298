/*
 * check_cmd_options.c
 *		Numbers, places, words and quoting of the commands.
 */
#include <config.h>

#include <stdio.h>

#include "cmd_common.h"
#include "options.h"

static const struct
{
	const char *text;
	bool		ok;
	uint32_t	value;
}			numbers[] = {
	{"10", true, 10}, {"24", true, 24}, {"017", true, 17},
	{"9", false, 0}, {"25", false, 0}, {"", false, 0}, {" 12", false, 0}, {"12 ", false, 0},
	{"+12", false, 0}, {"-12", false, 0}, {"12x", false, 0}, {"0x10", false, 0},
	{"4294967308", false, 0},	/* 12 modulo 2^32 */
	{"99999999999999999999999", false, 0},
};

START_TEST(parse_uint)
{
	uint32_t	value = 77;

	ck_assert_int_eq(pgx_parse_uint(numbers[_i].text, "--n", 10, 24, &value), numbers[_i].ok);
	ck_assert_uint_eq(value, numbers[_i].ok ? numbers[_i].value : 77);
}
END_TEST

static const struct
{
	const char *arg;
	enum pgx_place_kind kind;	/* 0: refused */
	const char *name;
	const char *host;
	const char *path;
	const char *err;
}			places[] = {
	{"standby", PGX_PLACE_SERVER, "standby", NULL, NULL, NULL},
	{"standby-2.b", PGX_PLACE_SERVER, "standby-2.b", NULL, NULL, NULL},
	{"/srv/keys", PGX_PLACE_LOCAL, NULL, NULL, "/srv/keys", NULL},
	{"./standby", PGX_PLACE_LOCAL, NULL, NULL, "./standby", NULL},
	{"keys/", PGX_PLACE_LOCAL, NULL, NULL, "keys/", NULL},
	{".", PGX_PLACE_LOCAL, NULL, NULL, ".", NULL},
	{"..", PGX_PLACE_LOCAL, NULL, NULL, "..", NULL},
	{"./a:b", PGX_PLACE_LOCAL, NULL, NULL, "./a:b", NULL},
	{"/a:/b", PGX_PLACE_LOCAL, NULL, NULL, "/a:/b", NULL},
	{"db2:/srv/keys", PGX_PLACE_REMOTE, NULL, "db2", "/srv/keys", NULL},
	{"postgres@db2.example:/srv/k:1", PGX_PLACE_REMOTE, NULL, "postgres@db2.example", "/srv/k:1", NULL},
	{"db2:keys", 0, NULL, NULL, NULL, "directory \"keys\" on host \"db2\" is not an absolute path"},
	{"db2:", 0, NULL, NULL, NULL, "directory \"\" on host \"db2\" is not an absolute path"},
	{"", 0, NULL, NULL, NULL, "a server name, a directory or HOST:DIR is missing"},
	{":/srv", 0, NULL, NULL, NULL, "host name is empty"},
	{"-oProxyCommand=x:/srv", 0, NULL, NULL, NULL,
	"host name \"-oProxyCommand=x\" looks like an option"},
	{"fe80::1:/srv", 0, NULL, NULL, NULL, "host name \"fe80::1\" looks like an IPv6 address, which "
		"cannot be told from HOST:DIR; give it a name in the configuration of ssh"},
	{"[::1]:/srv", 0, NULL, NULL, NULL, "host name \"[::1]\" looks like an IPv6 address, which "
		"cannot be told from HOST:DIR; give it a name in the configuration of ssh"},
	{"db2;id:/srv", 0, NULL, NULL, NULL, "host name \"db2;id\" contains characters that no host name has"},
	{"db 2:/srv", 0, NULL, NULL, NULL, "host name \"db 2\" contains characters that no host name has"},
	{"db\n:/srv", 0, NULL, NULL, NULL, "host name \"db\n\" contains characters that no host name has"},
};

static void
assert_text(const char *got, const char *expected)
{
	if (expected == NULL)
		ck_assert_ptr_null(got);
	else
		ck_assert_str_eq(got, expected);
}

START_TEST(place_parse)
{
	struct pgx_place place;
	char		err[256] = "";
	bool		ok = pgx_place_parse(places[_i].arg, &place, err, sizeof(err));

	ck_assert_int_eq(ok, places[_i].kind != 0);
	if (!ok)
	{
		ck_assert_str_eq(err, places[_i].err);
		return;
	}
	ck_assert_int_eq(place.kind, places[_i].kind);
	assert_text(place.name, places[_i].name);
	assert_text(place.host, places[_i].host);
	assert_text(place.path, places[_i].path);
	pgx_place_clear(&place);
	ck_assert_ptr_null(place.name);
	ck_assert_ptr_null(place.host);
	ck_assert_ptr_null(place.path);
}
END_TEST

/* What a POSIX shell makes of each line is the expectation; nothing is expanded, though. */
static const struct
{
	const char *line;
	int			count;			/* -1: refused */
	const char *words[4];
}			lines[] = {
	{"", 0, {NULL}},
	{" \t ", 0, {NULL}},
	{"-c a=b", 2, {"-c", "a=b"}},
	{"  -c   a=b\n", 2, {"-c", "a=b"}},
	{"-c \"a=b c\" -F", 3, {"-c", "a=b c", "-F"}},
	{"'a \"b' \"c 'd\"", 2, {"a \"b", "c 'd"}},
	{"a'b'\"c\"d", 1, {"abcd"}},
	{"'' x", 2, {"", "x"}},
	{"a\\ b", 1, {"a b"}},
	{"\"a\\\"b\\\\c\\d\"", 1, {"a\"b\\c\\d"}},
	{"'a\\'", 1, {"a\\"}},
	{"a\\", 1, {"a\\"}},
	{"$HOME `id`", 2, {"$HOME", "`id`"}},
	{"\"-D\" \"/data dir\"", 2, {"-D", "/data dir"}},
	{"'open", -1, {NULL}},
	{"a \"open", -1, {NULL}},
	{"a b c d", 4, {"a", "b", "c", "d"}},
};

START_TEST(words_split)
{
	char	  **words = NULL;
	size_t		count = 77;
	bool		ok = pgx_words_split(lines[_i].line, &words, &count);

	ck_assert_int_eq(ok, lines[_i].count >= 0);
	if (!ok)
	{
		ck_assert_ptr_null(words);
		return;
	}
	ck_assert_uint_eq(count, (unsigned) lines[_i].count);
	for (size_t i = 0; i < count; i++)
		ck_assert_str_eq(words[i], lines[_i].words[i]);
	ck_assert_ptr_null(words[count]);
	pgx_words_free(&words);
	ck_assert_ptr_null(words);
	pgx_words_free(&words);		/* harmless */
}
END_TEST

static const char *const awkward[] = {
	"/srv/keys", "", "with blank", "it's", "'", "''a''", "a\\b", "$(id)", "`id`", "-x", "a;b|c&d",
	"new\nline", "\"quoted\"", "*?[x]", "~",
};

/* The quoted text goes through a real shell, which must give it back. */
START_TEST(shell_quote)
{
	char	   *quoted = pgx_shell_quote(awkward[_i]);
	char	   *command = NULL;
	char		back[128];
	size_t		n;
	FILE	   *f;

	ck_assert_int_gt(asprintf(&command, "printf %%s %s", quoted), 0);
	f = popen(command, "r");
	ck_assert_ptr_nonnull(f);
	n = fread(back, 1, sizeof(back) - 1, f);
	back[n] = '\0';
	ck_assert_int_eq(pclose(f), 0);
	ck_assert_str_eq(back, awkward[_i]);
	/* And splitting the words again is the reverse too. */
	char	  **words;
	size_t		count;

	ck_assert(pgx_words_split(quoted, &words, &count));
	ck_assert_uint_eq(count, 1);
	ck_assert_str_eq(words[0], awkward[_i]);
	pgx_words_free(&words);
	free(command);
	free(quoted);
}
END_TEST

int
main(void)
{
	Suite	   *s = suite_create("command options");

	ADD_LOOP_TEST(s, parse_uint, LENGTH_OF(numbers));
	ADD_LOOP_TEST(s, place_parse, LENGTH_OF(places));
	ADD_LOOP_TEST(s, words_split, LENGTH_OF(lines));
	ADD_LOOP_TEST(s, shell_quote, LENGTH_OF(awkward));
	return run_suite(s);
}
