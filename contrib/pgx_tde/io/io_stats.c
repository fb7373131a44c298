/*
 * io_stats.c
 *		Where a process counts what it encrypts and decrypts.
 *
 * The module gives each process a place of its own in the server's shared memory as soon as
 * it can; until then, and in programs beside the server, it is one that nobody else sees.
 */
#include <config.h>

#include "io_internal.h"

static struct pgx_io_counts own;

struct pgx_io_counts *pgx_counts = &own;

static void
move_count(atomic_ullong *from, atomic_ullong *to)
{
	pgx_add(to, atomic_load_explicit(from, memory_order_relaxed));
	atomic_store_explicit(from, 0, memory_order_relaxed);
}

void
pgx_count_in(struct pgx_io_counts *counts)
{
	pgx_counts = counts != NULL ? counts : &own;
	for (int what = 0; counts != NULL && what < PGX_COUNT_KINDS; what++)
	{
		struct pgx_io_count *from = &own.of[what];
		struct pgx_io_count *to = &counts->of[what];

		for (int direction = 0; direction < PGX_DIRECTIONS; direction++)
		{
			move_count(&from->pages[direction], &to->pages[direction]);
			move_count(&from->bytes[direction], &to->bytes[direction]);
			move_count(&from->nanoseconds[direction], &to->nanoseconds[direction]);
		}
		move_count(&from->failures, &to->failures);
	}
}
