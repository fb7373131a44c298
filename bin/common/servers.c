/*
 * servers.c
 *		The servers file.  See servers.h.
 *
 * The parser is strict: a misspelt key would otherwise send a keystore to the
 * wrong place without a word.
 */
#include <config.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "file.h"
#include "log.h"
#include "mem.h"
#include "options.h"
#include "servers.h"

struct parser
{
	const char *path;
	int			line;
	struct pgx_servers *servers;
	char	   *err;
	size_t		err_len;
};

static bool __attribute__((format(printf, 3, 4)))
fail(struct parser *p, int line, const char *fmt,...)
{
	va_list		ap;
	int			n = snprintf(p->err, p->err_len, "file \"%s\", line %d: ", p->path, line);

	if (n > 0 && (size_t) n < p->err_len)
	{
		va_start(ap, fmt);
		vsnprintf(p->err + n, p->err_len - (size_t) n, fmt, ap);
		va_end(ap);
	}
	return false;
}

static const struct pgx_server *
lookup(const struct pgx_servers *servers, const char *name)
{
	size_t		i;

	for (i = 0; i < servers->count; i++)
	{
		if (strcmp(servers->servers[i].name, name) == 0)
			return &servers->servers[i];
	}
	return NULL;
}

/* Names are what --to takes for a server: nothing that reads as a path, HOST:DIR or option. */
static bool
name_valid(const char *name)
{
	return name[0] != '\0' && name[0] != '-' && name[0] != '.' &&
		strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") == strlen(name);
}

static bool
parse_section(struct parser *p, char *line)
{
	size_t		len = strlen(line);
	const struct pgx_server *other;
	struct pgx_server *server;

	if (line[len - 1] != ']')
		return fail(p, p->line, "section name has no closing \"]\"");
	line[len - 1] = '\0';
	line++;
	if (!name_valid(line))
		return fail(p, p->line, "invalid server name \"%s\"", line);
	if (strcmp(line, PGX_ALL_STANDBYS) == 0)
		return fail(p, p->line, "server name \"%s\" is reserved", line);
	other = lookup(p->servers, line);
	if (other != NULL)
		return fail(p, p->line, "server \"%s\" is already defined in line %d", line, other->line);

	p->servers->servers = pgx_realloc(p->servers->servers,
									  (p->servers->count + 1) * sizeof(struct pgx_server));
	server = &p->servers->servers[p->servers->count++];
	memset(server, 0, sizeof(*server));
	server->name = pgx_strdup(line);
	server->line = p->line;
	return true;
}

static bool
parse_setting(struct parser *p, char *line)
{
	struct pgx_server *server;
	char	   *equals = strchr(line, '=');
	char	   *value;
	char	   *end;
	char	  **slot;
	char		why[512];

	if (equals == NULL)
		return fail(p, p->line, "neither a [section] nor a \"key = value\" line");
	value = equals + 1 + strspn(equals + 1, " \t");
	for (end = equals; end > line && strchr(" \t", end[-1]) != NULL; end--)
		continue;
	*end = '\0';
	if (p->servers->count == 0)
		return fail(p, p->line, "key \"%s\" before the first [section]", line);
	server = &p->servers->servers[p->servers->count - 1];

	if (strcmp(line, "keystore") == 0)
		slot = &server->keystore;
	else if (strcmp(line, "host") == 0)
		slot = &server->host;
	else if (strcmp(line, "conninfo") == 0)
		slot = &server->conninfo;
	else
		return fail(p, p->line, "unknown key \"%s\"; known are keystore, host and conninfo", line);
	if (*slot != NULL)
		return fail(p, p->line, "key \"%s\" is given twice for server \"%s\"", line, server->name);
	if (value[0] == '\0')
		return fail(p, p->line, "key \"%s\" has no value", line);
	if (slot == &server->keystore && value[0] != '/')
		return fail(p, p->line, "keystore \"%s\" is not an absolute path", value);
	if (slot == &server->host && !pgx_host_valid(value, why, sizeof(why)))
		return fail(p, p->line, "%s", why);
	*slot = pgx_strdup(value);
	return true;
}

/* Every server must say where its keystore is; checked when its section ends. */
static bool
section_complete(struct parser *p)
{
	const struct pgx_server *server;

	if (p->servers->count == 0)
		return true;
	server = &p->servers->servers[p->servers->count - 1];
	if (server->keystore == NULL)
		return fail(p, server->line, "server \"%s\" has no key \"keystore\"", server->name);
	return true;
}

bool
pgx_servers_parse(const char *text, size_t len, const char *path,
				  struct pgx_servers *ret_servers, char *err, size_t err_len)
{
	struct pgx_servers servers = {NULL, NULL, 0};
	struct parser p = {path, 0, &servers, err, err_len};
	const char *end = text + len;
	bool		ok = true;

	servers.path = pgx_strdup(path);
	while (ok && text < end)
	{
		const char *newline = memchr(text, '\n', (size_t) (end - text));
		size_t		n = (size_t) ((newline != NULL ? newline : end) - text);
		char	   *copy = pgx_strndup(text, n);
		char	   *line = copy + strspn(copy, " \t\r");
		char	   *tail;

		p.line++;
		if (strlen(copy) != n)
			ok = fail(&p, p.line, "zero byte in the text");
		for (tail = line + strlen(line); tail > line && strchr(" \t\r", tail[-1]) != NULL; tail--)
			continue;
		*tail = '\0';
		if (!ok || line[0] == '\0' || line[0] == '#' || line[0] == ';')
			;					/* nothing, or a comment */
		else if (line[0] == '[')
			ok = section_complete(&p) && parse_section(&p, line);
		else
			ok = parse_setting(&p, line);
		free(copy);
		text += n + 1;
	}
	if (ok)
		ok = section_complete(&p);
	if (ok)
		*ret_servers = servers;
	else
		pgx_servers_clear(&servers);
	return ok;
}

bool
pgx_servers_read(const char *path, struct pgx_servers *ret_servers)
{
	uint8_t    *buf = NULL;
	size_t		len = 0;
	char		err[1024];
	bool		ok;

	if (path == NULL)
		path = getenv(PGX_SERVERS_ENV);
	if (path == NULL || path[0] == '\0')
		path = PGX_SERVERS_FILE;
	/* Whoever can write the file decides where keystores go. */
	if (!pgx_file_read(path, PGX_SERVERS_MAX_SIZE, S_IWGRP | S_IWOTH, "go-w", &buf, &len))
	{
		pgx_log_hint("Server names are sections of the servers file; name another one with "
					 "--servers, or give a directory instead of a name.");
		return false;
	}
	ok = pgx_servers_parse((const char *) buf, len, path, ret_servers, err, sizeof(err));
	if (!ok)
		pgx_log_error("%s", err);
	free(buf);
	return ok;
}

const struct pgx_server *
pgx_servers_find(const struct pgx_servers *servers, const char *name)
{
	const struct pgx_server *server = lookup(servers, name);
	char	   *names = NULL;
	size_t		i;

	if (server != NULL)
		return server;
	pgx_log_error("unknown server name \"%s\"", name);
	for (i = 0; i < servers->count; i++)
	{
		char	   *more = pgx_printf("%s%s\"%s\"", names != NULL ? names : "",
									  names != NULL ? ", " : "", servers->servers[i].name);

		free(names);
		names = more;
	}
	if (names != NULL)
		pgx_log_hint("Servers in file \"%s\": %s.  A directory is given with a slash, as in "
					 "\"./%s\".", servers->path, names, name);
	else
		pgx_log_hint("File \"%s\" defines no server.", servers->path);
	free(names);
	return NULL;
}

void
pgx_servers_clear(struct pgx_servers *servers)
{
	size_t		i;

	for (i = 0; i < servers->count; i++)
	{
		free(servers->servers[i].name);
		free(servers->servers[i].keystore);
		free(servers->servers[i].host);
		free(servers->servers[i].conninfo);
	}
	free(servers->servers);
	free(servers->path);
	memset(servers, 0, sizeof(*servers));
}
