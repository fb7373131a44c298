/*
 * log.h
 *		What the commands say to a person.
 *
 * Results go to standard output by printf; everything here goes to standard
 * error, in PostgreSQL's form: "prog: error: could not ...", "prog: detail: ...",
 * "prog: hint: ...".  errno is kept, so %m works and a caller can go on using it.
 */
#ifndef PGX_LOG_H
#define PGX_LOG_H

#include <stdbool.h>

#include "keystore.h"

/* Exit codes of every command. */
enum pgx_exit
{
	PGX_EXIT_OK = 0,
	PGX_EXIT_FAILURE = 1,		/* failed, or bad usage */
	PGX_EXIT_KEY = 2			/* the passphrase is wrong, or the key is not usable */
};

extern void pgx_log_init(const char *argv0);
extern const char *pgx_progname(void);
extern void pgx_log_set_verbose(bool verbose);

extern void pgx_log_error(const char *fmt,...) __attribute__((format(printf, 1, 2)));
extern void pgx_log_warning(const char *fmt,...) __attribute__((format(printf, 1, 2)));
extern void pgx_log_detail(const char *fmt,...) __attribute__((format(printf, 1, 2)));
extern void pgx_log_hint(const char *fmt,...) __attribute__((format(printf, 1, 2)));
extern void pgx_log_verbose(const char *fmt,...) __attribute__((format(printf, 1, 2)));

/* The last text that went through pgx_log_error(), perhaps shortened; "" if there was none. */
extern const char *pgx_log_last_error(void);

/* "Try "prog --help" for more information." */
extern void pgx_log_advice(void);

/* Say what a call on the handle failed with and what to do; the exit code that goes with it. */
extern int	pgx_log_keystore(const keystore *ks, enum keystore_status status);

/* The exit code for a status. */
extern int	pgx_exit_code(enum keystore_status status);

/* Flush standard output; a result that did not reach its reader is a failure. */
extern int	pgx_finish_output(int exit_code);

#endif							/* PGX_LOG_H */
