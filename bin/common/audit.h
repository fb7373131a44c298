/*
 * audit.h
 *		One line in the system's log for each key event, whether it succeeded or not.
 *
 * A line says who (user, login and sudo user, terminal), what (event), on which keystore (file or server,
 * UUID, generation), which key or slot, and the outcome; never a passphrase, a key or a length of one.  It
 * goes to syslog(3) under the facility LOG_AUTHPRIV, which is the journal where systemd runs, and if asked
 * for to a file too.  One event per process: a command does one thing.
 */
#ifndef PGX_AUDIT_H
#define PGX_AUDIT_H

#include <stdbool.h>

#include "keystore.h"

/* The file's name in the environment, where no option gives one. */
#define PGX_AUDIT_FILE_ENV	"PGX_AUDIT_FILE"

/*
 * From here on a line will be written.  event: a word, static.  file: append the line to it too; NULL or "":
 * none.  It is opened now, so that nothing is done that could not be recorded; false, with
 * the reason said, if it cannot be.
 */
extern bool pgx_audit_begin(const char *event, const char *file);

/* It is this event, more exactly; NULL: it turned out to be none, and no line is written. */
extern void pgx_audit_event(const char *event);

/* Add name=value to the line; a name that was noted before gets the new value.  name: a word, static. */
extern void pgx_audit_note(const char *name, const char *fmt,...) __attribute__((format(printf, 2, 3)));

/* Note UUID and generation of a loaded keystore. */
extern void pgx_audit_keystore(const keystore *ks);

/*
 * Write the line.  exit_code: 0 is success, everything else failure, whose reason is the last error
 * that was logged.  Returns the exit code, or a failure if the file did not take the line.  Without
 * pgx_audit_begin() it only returns the exit code.
 */
extern int	pgx_audit_end(int exit_code);

#endif							/* PGX_AUDIT_H */
