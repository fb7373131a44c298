/*
 * pack_pipe.h
 *		Work in three stages: the caller makes jobs, several threads work on them side by side, and
 *		one more thread takes the results in the order in which the jobs were made.
 *
 * The number of jobs under way, and so the memory, is fixed.  What a job holds is plaintext at one
 * end or the other: its buffers are kept out of core dumps and wiped at the end.
 */
#ifndef PACK_PIPE_H
#define PACK_PIPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pack_job
{
	uint8_t    *in;
	size_t		in_len;
	uint8_t    *out;
	size_t		out_len;
	uint32_t	codec;			/* of the compressed side */
	size_t		raw_len;		/* of the other side */
};

/* Each says what went wrong before it returns false; nothing more is begun then. */
typedef bool (*pack_work) (void *worker, struct pack_job *job);
typedef bool (*pack_consume) (void *arg, struct pack_job *job);

struct pack_pipe;

/*
 * Start n workers, each with its own of the n pointers in workers, and the consumer.  in_size and out_size are
 * the bytes of a job's buffers.  NULL after a message.
 */
extern struct pack_pipe *pack_pipe_start(unsigned n, void *const *workers, pack_work work,
										 pack_consume consume, void *arg,
										 size_t in_size, size_t out_size);

/* A job to be filled, waiting for one if need be; NULL if a stage has failed. */
extern struct pack_job *pack_pipe_get(struct pack_pipe *pipe);

/* Give it back, filled. */
extern void pack_pipe_put(struct pack_pipe *pipe, struct pack_job *job);

/*
 * Wait until all jobs went through, end the threads, free everything; false if a stage failed.  give_up: do
 * not wait for what has not begun.  NULLs the caller's pointer; fine if that is NULL, and then true.
 */
extern bool pack_pipe_finish(struct pack_pipe **pipe, bool give_up);

#endif							/* PACK_PIPE_H */
