/*
 * fuzz_servers.c
 *		Any bytes as a servers file.  It says where keystores are sent, so what is accepted has to
 *		be what the manual page allows.
 *
 * What is accepted is written out again, and has to be accepted and say the same.
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"
#include "options.h"
#include "servers.h"

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
require(bool condition)
{
	if (!condition)
		abort();
}

static bool
same(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* As a text of its own: len bytes and the NUL that the parser is promised, and not one byte more. */
static bool
parse(const char *data, size_t size, struct pgx_servers *ret_servers)
{
	char	   *text = malloc(size + 1);
	char		err[256] = "";
	bool		ok;

	require(text != NULL);
	memcpy(text, data, size);
	text[size] = '\0';
	ok = pgx_servers_parse(text, size, "fuzz", ret_servers, err, sizeof(err));
	free(text);
	if (!ok)
		require(strncmp(err, "file \"fuzz\", line ", 18) == 0);
	return ok;
}

static void
check(const struct pgx_servers *servers, size_t at)
{
	const struct pgx_server *server = &servers->servers[at];
	char		why[512];

	require(server->name[0] != '\0' && strpbrk(server->name, "/:[] \t\r\n") == NULL);
	require(strcmp(server->name, PGX_ALL_STANDBYS) != 0);
	require(pgx_servers_find(servers, server->name) == server);
	require(server->keystore != NULL && server->keystore[0] == '/');
	require(server->host == NULL || pgx_host_valid(server->host, why, sizeof(why)));
	require(server->conninfo == NULL || server->conninfo[0] != '\0');
	require(server->line > (at == 0 ? 0 : servers->servers[at - 1].line));
}

static char *
write_out(const struct pgx_servers *servers)
{
	char	   *text = NULL;
	size_t		len;
	FILE	   *stream = open_memstream(&text, &len);

	require(stream != NULL);
	for (size_t i = 0; i < servers->count; i++)
	{
		const struct pgx_server *server = &servers->servers[i];

		fprintf(stream, "[%s]\nkeystore=%s\n", server->name, server->keystore);
		if (server->host != NULL)
			fprintf(stream, "host=%s\n", server->host);
		if (server->conninfo != NULL)
			fprintf(stream, "conninfo=%s\n", server->conninfo);
	}
	require(fclose(stream) == 0);
	return text;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pgx_servers servers = {0};
	struct pgx_servers again = {0};
	char	   *text;

	if (!parse((const char *) data, size, &servers))
	{
		require(servers.path == NULL && servers.servers == NULL && servers.count == 0);
		return 0;
	}
	for (size_t i = 0; i < servers.count; i++)
		check(&servers, i);

	text = write_out(&servers);
	require(parse(text, strlen(text), &again) && again.count == servers.count);
	for (size_t i = 0; i < servers.count; i++)
	{
		require(same(again.servers[i].name, servers.servers[i].name));
		require(same(again.servers[i].keystore, servers.servers[i].keystore));
		require(same(again.servers[i].host, servers.servers[i].host));
		require(same(again.servers[i].conninfo, servers.servers[i].conninfo));
	}
	free(text);
	pgx_servers_clear(&again);
	pgx_servers_clear(&servers);
	return 0;
}
