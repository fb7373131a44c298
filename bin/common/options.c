/*
 * options.c
 *		Pieces of command-line handling shared by the commands.  See options.h.
 */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "mem.h"
#include "options.h"

bool
pgx_parse_uint(const char *text, const char *option, uint32_t min, uint32_t max, uint32_t *ret_value)
{
	unsigned long long value;
	char	   *end;

	/* strtoull() takes blanks and signs, and turns "-1" into a huge number; we want digits. */
	if (text[0] < '0' || text[0] > '9')
	{
		pgx_log_error("invalid value \"%s\" for option %s", text, option);
		return false;
	}
	errno = 0;
	value = strtoull(text, &end, 10);
	if (*end != '\0')
	{
		pgx_log_error("invalid value \"%s\" for option %s", text, option);
		return false;
	}
	if (errno != 0 || value < min || value > max)
	{
		pgx_log_error("%s must be in range %u..%u", option, min, max);
		return false;
	}
	*ret_value = (uint32_t) value;
	return true;
}

bool
pgx_host_valid(const char *host, char *err, size_t err_len)
{
	const char *p;

	if (host[0] == '\0')
	{
		snprintf(err, err_len, "host name is empty");
		return false;
	}
	if (host[0] == '-')
	{
		snprintf(err, err_len, "host name \"%s\" looks like an option", host);
		return false;
	}
	for (p = host; *p != '\0'; p++)
	{
		if (*p == ':' || *p == '[' || *p == ']')
		{
			snprintf(err, err_len, "host name \"%s\" looks like an IPv6 address, which cannot be "
					 "told from HOST:DIR; give it a name in the configuration of ssh", host);
			return false;
		}
		if (strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_@", *p) == NULL)
		{
			snprintf(err, err_len, "host name \"%s\" contains characters that no host name has", host);
			return false;
		}
	}
	return true;
}

/* HOST:DIR.  The last colon before any slash divides, so that an IPv6 address is seen whole. */
static bool
remote_parse(const char *arg, struct pgx_place *ret_place, char *err, size_t err_len)
{
	const char *colon = memrchr(arg, ':', strcspn(arg, "/"));
	char	   *host = pgx_strndup(arg, (size_t) (colon - arg));
	bool		ok = false;

	if (!pgx_host_valid(host, err, err_len))
		goto out;
	if (colon[1] != '/')
	{
		snprintf(err, err_len, "directory \"%s\" on host \"%s\" is not an absolute path",
				 colon + 1, host);
		goto out;
	}
	ret_place->kind = PGX_PLACE_REMOTE;
	ret_place->host = host;
	ret_place->path = pgx_strdup(colon + 1);
	host = NULL;
	ok = true;

out:
	free(host);
	return ok;
}

bool
pgx_place_parse(const char *arg, struct pgx_place *ret_place, char *err, size_t err_len)
{
	const char *colon = strchr(arg, ':');
	const char *slash = strchr(arg, '/');

	memset(ret_place, 0, sizeof(*ret_place));
	if (arg[0] == '\0')
	{
		snprintf(err, err_len, "a server name, a directory or HOST:DIR is missing");
		return false;
	}
	if (colon != NULL && (slash == NULL || colon < slash))
		return remote_parse(arg, ret_place, err, err_len);
	if (slash != NULL || strcmp(arg, ".") == 0 || strcmp(arg, "..") == 0)
	{
		ret_place->kind = PGX_PLACE_LOCAL;
		ret_place->path = pgx_strdup(arg);
		return true;
	}
	ret_place->kind = PGX_PLACE_SERVER;
	ret_place->name = pgx_strdup(arg);
	return true;
}

void
pgx_place_clear(struct pgx_place *place)
{
	free(place->name);
	free(place->host);
	free(place->path);
	memset(place, 0, sizeof(*place));
}

/* Copy one word at *line to out, without its quotes; false if a quote is not closed. */
static bool
word_copy(const char **line, char *out)
{
	const char *p = *line;
	char		quote = '\0';

	for (; *p != '\0'; p++)
	{
		if (quote == '\0' && strchr(" \t\r\n", *p) != NULL)
			break;
		if (quote == '\0' && (*p == '\'' || *p == '"'))
			quote = *p;
		else if (quote != '\0' && *p == quote)
			quote = '\0';
		else if (*p == '\\' && quote != '\'')
		{
			/* Within double quotes a backslash quotes only what is special there. */
			if (p[1] == '\0' || (quote == '"' && strchr("\"\\$`", p[1]) == NULL))
				*out++ = *p;
			else
				*out++ = *++p;
		}
		else
			*out++ = *p;
	}
	*out = '\0';
	*line = p;
	return quote == '\0';
}

bool
pgx_words_split(const char *line, char ***ret_words, size_t *ret_count)
{
	char	  **words = pgx_alloc((strlen(line) / 2 + 2) * sizeof(char *));
	size_t		count = 0;

	for (;;)
	{
		line += strspn(line, " \t\r\n");
		if (*line == '\0')
			break;
		words[count] = pgx_alloc(strlen(line) + 1);
		if (!word_copy(&line, words[count++]))
		{
			pgx_words_free(&words);
			return false;
		}
	}
	*ret_words = words;
	*ret_count = count;
	return true;
}

void
pgx_words_free(char ***words)
{
	size_t		i;

	if (*words == NULL)
		return;
	for (i = 0; (*words)[i] != NULL; i++)
		free((*words)[i]);
	free(*words);
	*words = NULL;
}

char *
pgx_shell_quote(const char *text)
{
	char	   *quoted = pgx_alloc(strlen(text) * 4 + 3);
	char	   *out = quoted;

	*out++ = '\'';
	for (; *text != '\0'; text++)
	{
		/* Within single quotes nothing is special but their end. */
		if (*text == '\'')
		{
			memcpy(out, "'\\''", 4);
			out += 4;
		}
		else
			*out++ = *text;
	}
	*out++ = '\'';
	*out = '\0';
	return quoted;
}
