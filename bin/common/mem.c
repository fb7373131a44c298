/*
 * mem.c
 *		Allocation for the commands.  See mem.h.
 */
#include <config.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "mem.h"

static void *
checked(void *p)
{
	if (p == NULL)
	{
		pgx_log_error("out of memory");
		exit(EXIT_FAILURE);
	}
	return p;
}

void *
pgx_alloc(size_t size)
{
	return checked(calloc(1, size > 0 ? size : 1));
}

void *
pgx_realloc(void *p, size_t size)
{
	return checked(realloc(p, size > 0 ? size : 1));
}

char *
pgx_strdup(const char *s)
{
	return checked(strdup(s));
}

char *
pgx_strndup(const char *s, size_t len)
{
	return checked(strndup(s, len));
}

char *
pgx_printf(const char *fmt,...)
{
	va_list		ap;
	char	   *text = NULL;
	int			n;

	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	return checked(n < 0 ? NULL : text);
}
