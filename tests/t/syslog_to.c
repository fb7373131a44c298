/*
 * syslog_to.c
 *		A shared object that writes to $SYSLOG_TO what a command sends to the system's log: facility and level, and the line.
 */
#include <config.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <syslog.h>

static int	facility = LOG_USER;

void
openlog(const char *ident, int option, int new_facility)
{
	(void) ident;
	(void) option;
	facility = new_facility;
}

static void
record(int priority, const char *format, va_list args)
{
	FILE	   *f = fopen(getenv("SYSLOG_TO"), "ae");

	if (f == NULL)
		abort();				/* a test that sees nothing would prove nothing */
	fprintf(f, "%s %d ", facility == LOG_AUTHPRIV ? "authpriv" : "?", LOG_PRI(priority));
	vfprintf(f, format, args);
	fprintf(f, "\n");
	fclose(f);
}

void
syslog(int priority, const char *format, ...)
{
	va_list		args;

	va_start(args, format);
	record(priority, format, args);
	va_end(args);
}

void		__syslog_chk(int priority, int flag, const char *format, ...);

void
__syslog_chk(int priority, int flag, const char *format, ...)
{
	va_list		args;

	(void) flag;
	va_start(args, format);
	record(priority, format, args);
	va_end(args);
}
