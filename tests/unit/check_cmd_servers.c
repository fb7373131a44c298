/*
 * check_cmd_servers.c
 *		The parser of the servers file.
 */
#include <config.h>

#include "cmd_common.h"
#include "servers.h"

static const char good[] =
"# a group of three\n"
"[primary]\n"
"keystore = /srv/keys/primary\n"
"conninfo = host=db1 port=5432 options='-c x=y'\n"
"\n"
"; another comment\n"
"  [standby-1]  \r\n"
"\tkeystore=/srv/keys/standby 1\t\r\n"
"[far.away]\n"
"host = postgres@db3.example\n"
"keystore = /srv/keys/far";	/* no newline at the end */

START_TEST(parse_good)
{
	struct pgx_servers servers;
	const struct pgx_server *server;
	char		err[256] = "";

	ck_assert(pgx_servers_parse(good, strlen(good), "s.conf", &servers, err, sizeof(err)));
	ck_assert_uint_eq(servers.count, 3);
	ck_assert_str_eq(servers.path, "s.conf");

	server = pgx_servers_find(&servers, "primary");
	ck_assert_ptr_nonnull(server);
	ck_assert_str_eq(server->keystore, "/srv/keys/primary");
	ck_assert_str_eq(server->conninfo, "host=db1 port=5432 options='-c x=y'");
	ck_assert_ptr_null(server->host);
	ck_assert_int_eq(server->line, 2);

	server = pgx_servers_find(&servers, "standby-1");
	ck_assert_ptr_nonnull(server);
	ck_assert_str_eq(server->keystore, "/srv/keys/standby 1");
	ck_assert_ptr_null(server->conninfo);

	server = pgx_servers_find(&servers, "far.away");
	ck_assert_ptr_nonnull(server);
	ck_assert_str_eq(server->host, "postgres@db3.example");
	ck_assert_str_eq(server->keystore, "/srv/keys/far");

	ck_assert_ptr_null(pgx_servers_find(&servers, "Primary"));
	ck_assert_ptr_null(pgx_servers_find(&servers, ""));
	pgx_servers_clear(&servers);
	ck_assert_uint_eq(servers.count, 0);
	pgx_servers_clear(&servers);	/* harmless */
}
END_TEST

START_TEST(parse_empty)
{
	struct pgx_servers servers;
	char		err[256] = "";

	ck_assert(pgx_servers_parse("", 0, "s.conf", &servers, err, sizeof(err)));
	ck_assert_uint_eq(servers.count, 0);
	pgx_servers_clear(&servers);
}
END_TEST

#define K	"keystore = /k\n"

static const struct
{
	const char *text;
	const char *err;
}			bad[] = {
	{"keystore = /k\n", "line 1: key \"keystore\" before the first [section]"},
	{"[a]\n", "line 1: server \"a\" has no key \"keystore\""},
	{"\n[a]\nhost = h\n[b]\n" K, "line 2: server \"a\" has no key \"keystore\""},
	{"[a]\n" K "[a]\n" K, "line 3: server \"a\" is already defined in line 1"},
	{"[a]\n" K "keystore = /l\n", "line 3: key \"keystore\" is given twice for server \"a\""},
	{"[a]\n" K "hots = h\n", "line 3: unknown key \"hots\"; known are keystore, host and conninfo"},
	{"[a]\n" K "Host = h\n", "line 3: unknown key \"Host\"; known are keystore, host and conninfo"},
	{"[a]\n" K "= h\n", "line 3: unknown key \"\"; known are keystore, host and conninfo"},
	{"[a]\n" K "host =\n", "line 3: key \"host\" has no value"},
	{"[a]\n" K "host = \t\n", "line 3: key \"host\" has no value"},
	{"[a]\nkeystore = k\n", "line 2: keystore \"k\" is not an absolute path"},
	{"[a]\n" K "host = -v\n", "line 3: host name \"-v\" looks like an option"},
	{"[a]\n" K "host = a b\n", "line 3: host name \"a b\" contains characters that no host name has"},
	{"[a]\n" K "host\n", "line 3: neither a [section] nor a \"key = value\" line"},
	{"[a\n" K, "line 1: section name has no closing \"]\""},
	{"[a] # x\n" K, "line 1: section name has no closing \"]\""},
	{"[]\n" K, "line 1: invalid server name \"\""},
	{"[-a]\n" K, "line 1: invalid server name \"-a\""},
	{"[.]\n" K, "line 1: invalid server name \".\""},
	{"[a/b]\n" K, "line 1: invalid server name \"a/b\""},
	{"[a:b]\n" K, "line 1: invalid server name \"a:b\""},
	{"[a b]\n" K, "line 1: invalid server name \"a b\""},
	{"[", "line 1: section name has no closing \"]\""},
};

START_TEST(parse_bad)
{
	struct pgx_servers servers = {NULL, NULL, 77};
	char		expected[256];
	char		err[256] = "";

	snprintf(expected, sizeof(expected), "file \"s.conf\", %s", bad[_i].err);
	ck_assert(!pgx_servers_parse(bad[_i].text, strlen(bad[_i].text), "s.conf", &servers, err,
								 sizeof(err)));
	ck_assert_str_eq(err, expected);
	ck_assert_uint_eq(servers.count, 77);	/* outputs are written on success only */
}
END_TEST

START_TEST(parse_zero_byte)
{
	static const char text[] = "[a]\nkeystore = /k\0x\n";
	struct pgx_servers servers;
	char		err[256] = "";

	ck_assert(!pgx_servers_parse(text, sizeof(text) - 1, "s.conf", &servers, err, sizeof(err)));
	ck_assert_str_eq(err, "file \"s.conf\", line 2: zero byte in the text");
}
END_TEST

/* An error text that does not fit is cut, not overrun. */
START_TEST(short_error_buffer)
{
	struct pgx_servers servers;
	char		err[12];

	memset(err, 'x', sizeof(err));
	ck_assert(!pgx_servers_parse("x\n", 2, "a/long/path", &servers, err, sizeof(err) - 1));
	ck_assert_str_eq(err, "file \"a/lo");
	ck_assert_int_eq(err[sizeof(err) - 1], 'x');
}
END_TEST

int
main(void)
{
	Suite	   *s = suite_create("servers file");

	ADD_TEST(s, parse_good);
	ADD_TEST(s, parse_empty);
	ADD_LOOP_TEST(s, parse_bad, LENGTH_OF(bad));
	ADD_TEST(s, parse_zero_byte);
	ADD_TEST(s, short_error_buffer);
	return run_suite(s);
}
