/*
 * child.h
 *		Programs that work on the backup area for us, and being interrupted meanwhile.
 *
 * Beside bin/common/run.h: these may run for hours, so a signal to us goes on to them, they do not outlive us,
 * and they can hold the area's lock for as long as they write to it.
 */
#ifndef PGX_CHILD_H
#define PGX_CHILD_H

#include <signal.h>
#include <stdbool.h>

/*
 * Catch SIGINT, SIGTERM and SIGHUP from now on: they set a flag, and the child that is running gets SIGTERM.
 * Call once, before the first change.  SIGPIPE is ignored, here and not in children.
 */
extern void pgx_catch_signals(void);

/* Not 0: that signal came.  The second form says so, once, and returns true. */
extern volatile sig_atomic_t pgx_caught_signal;
extern bool pgx_interrupted(void);

/*
 * Run a program to its end with our standard streams; standard input is /dev/null.  argv[0] is a path.  keep_fd: a
 * close-on-exec descriptor that the child is to inherit (the area's lock), or -1.  If we die, so does the child.
 * True if it exited with 0; otherwise what became of it has been said.
 */
extern bool pgx_child_run(const char *const *argv, int keep_fd);

#endif							/* PGX_CHILD_H */
