/*
 * progress.c
 *		How far a long run is, and whether it is to stop.
 */
#include <config.h>

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "encrypt.h"

#define MIB		(1024 * 1024)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool shown;
static uint64_t total_bytes;
static uint64_t done_bytes;
static const char *what;
static time_t last_report;
static atomic_bool stop;

static void
report(bool last)
{
	/* As pg_checksums has it: one line that is written again, or lines where nobody looks. */
	fprintf(stderr, "%" PRIu64 "/%" PRIu64 " MB (%d%%) %s%s", done_bytes / MIB, total_bytes / MIB,
			total_bytes == 0 ? 100 : (int) (done_bytes * 100 / total_bytes), what,
			isatty(STDERR_FILENO) && !last ? "\r" : "\n");
	(void) fflush(stderr);
}

void
progress_start(bool show, uint64_t total, const char *done)
{
	shown = show;
	total_bytes = total;
	done_bytes = 0;
	what = done;
	last_report = time(NULL);
}

void
progress_add(uint64_t bytes)
{
	time_t		now;

	(void) pthread_mutex_lock(&lock);
	done_bytes += bytes;
	now = time(NULL);
	if (shown && now != last_report)
	{
		last_report = now;
		report(false);
	}
	(void) pthread_mutex_unlock(&lock);
}

void
progress_end(void)
{
	if (shown)
		report(true);
	shown = false;
}

bool
stop_requested(void)
{
	return atomic_load(&stop);
}

static void
on_signal(int signo)
{
	atomic_store(&stop, true);
}

void
stop_on_signals(void)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
	struct sigaction action;

	memset(&action, 0, sizeof(action));
	action.sa_handler = on_signal;
	action.sa_flags = SA_RESTART;
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		(void) sigaction(signals[i], &action, NULL);
}
