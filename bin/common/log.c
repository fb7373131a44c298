/*
 * log.c
 *		Messages of the commands, and their exit codes.  See log.h.
 */
#include <config.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "log.h"

static const char *progname = "pgx";
static bool log_verbose = false;

/* The audit line of a failure quotes it. */
static char last_error[512];

void
pgx_log_init(const char *argv0)
{
	const char *slash;

	if (argv0 == NULL || argv0[0] == '\0')
		return;
	slash = strrchr(argv0, '/');
	progname = slash != NULL && slash[1] != '\0' ? slash + 1 : argv0;
}

const char *
pgx_progname(void)
{
	return progname;
}

void
pgx_log_set_verbose(bool verbose)
{
	log_verbose = verbose;
}

static void __attribute__((format(printf, 2, 0)))
emit(const char *kind, const char *fmt, va_list ap)
{
	int			save_errno = errno;

	/* Results already printed come before what is said about them. */
	(void) fflush(stdout);
	fprintf(stderr, "%s: %s: ", progname, kind);
	errno = save_errno;
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	errno = save_errno;
}

#define EMIT(kind) \
	do { \
		va_list		ap_; \
		va_start(ap_, fmt); \
		emit(kind, fmt, ap_); \
		va_end(ap_); \
	} while (0)

void
pgx_log_error(const char *fmt,...)
{
	int			save_errno = errno;
	va_list		ap;

	va_start(ap, fmt);
	(void) vsnprintf(last_error, sizeof(last_error), fmt, ap);
	va_end(ap);
	errno = save_errno;
	EMIT("error");
}

const char *
pgx_log_last_error(void)
{
	return last_error;
}

void
pgx_log_warning(const char *fmt,...)
{
	EMIT("warning");
}

void
pgx_log_detail(const char *fmt,...)
{
	EMIT("detail");
}

void
pgx_log_hint(const char *fmt,...)
{
	EMIT("hint");
}

void
pgx_log_verbose(const char *fmt,...)
{
	if (log_verbose)
		EMIT("info");
}

void
pgx_log_advice(void)
{
	pgx_log_hint("Try \"%s --help\" for more information.", progname);
}

int
pgx_exit_code(enum keystore_status status)
{
	switch (status)
	{
		case KEYSTORE_OK:
			return PGX_EXIT_OK;
		case KEYSTORE_EPASSPHRASE:
		case KEYSTORE_EWRONGKEY:
		case KEYSTORE_EKDF:
		case KEYSTORE_ENOKEY:
			return PGX_EXIT_KEY;
		default:
			return PGX_EXIT_FAILURE;
	}
}

int
pgx_log_keystore(const keystore *ks, enum keystore_status status)
{
	const char *hint = keystore_errhint(ks);

	pgx_log_error("%s", keystore_errmsg(ks));
	if (hint != NULL && hint[0] != '\0')
		pgx_log_hint("%s", hint);
	return pgx_exit_code(status);
}

int
pgx_finish_output(int exit_code)
{
	if (fflush(stdout) != 0 || ferror(stdout))
	{
		pgx_log_error("could not write to standard output: %m");
		return exit_code == PGX_EXIT_OK ? PGX_EXIT_FAILURE : exit_code;
	}
	return exit_code;
}
