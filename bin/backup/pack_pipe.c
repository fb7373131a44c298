/*
 * pack_pipe.c
 *		Three stages of work in threads.  See pack_pipe.h.
 *
 * Job number s lies in slot s modulo the number of slots, and goes round: free, filled, being worked on, done,
 * free.  One mutex guards the states and the counters; buffers belong to whoever the state says.
 */
#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <openssl/crypto.h>

#include "log.h"
#include "mem.h"
#include "pack_pipe.h"

/* One job that the caller fills and one that the consumer takes, beside those of the workers. */
#define MORE_SLOTS		2

enum state
{
	STATE_FREE = 0,
	STATE_FILLED,
	STATE_WORKING,
	STATE_DONE
};

struct slot
{
	struct pack_job job;
	enum state	state;
};

struct worker
{
	struct pack_pipe *pipe;
	void	   *arg;
	pthread_t	thread;
	bool		started;
};

struct pack_pipe
{
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	unsigned	n_slots;
	struct slot *slots;
	unsigned	n_workers;
	struct worker *workers;
	struct worker consumer;
	pack_work	work;
	pack_consume consume;
	size_t		in_size;
	size_t		out_size;
	uint64_t	put;			/* jobs that the caller has filled */
	uint64_t	begun;			/* that a worker has taken */
	uint64_t	consumed;
	bool		ended;			/* no more will be put */
	bool		failed;
};

static struct slot *
slot_of(struct pack_pipe *pipe, uint64_t number)
{
	return &pipe->slots[number % pipe->n_slots];
}

static void
lock(struct pack_pipe *pipe)
{
	(void) pthread_mutex_lock(&pipe->mutex);
}

/* Say that something changed, to all: who waits for what is not kept apart. */
static void
unlock_and_tell(struct pack_pipe *pipe)
{
	(void) pthread_cond_broadcast(&pipe->changed);
	(void) pthread_mutex_unlock(&pipe->mutex);
}

static void
wait_change(struct pack_pipe *pipe)
{
	(void) pthread_cond_wait(&pipe->changed, &pipe->mutex);
}

static void *
run_worker(void *arg)
{
	struct worker *self = arg;
	struct pack_pipe *pipe = self->pipe;

	lock(pipe);
	for (;;)
	{
		struct slot *slot;
		bool		ok;

		while (!pipe->failed && pipe->begun == pipe->put && !pipe->ended)
			wait_change(pipe);
		if (pipe->failed || pipe->begun == pipe->put)
			break;
		slot = slot_of(pipe, pipe->begun++);
		slot->state = STATE_WORKING;
		unlock_and_tell(pipe);
		ok = pipe->work(self->arg, &slot->job);
		lock(pipe);
		slot->state = STATE_DONE;
		if (!ok)
			pipe->failed = true;
		(void) pthread_cond_broadcast(&pipe->changed);
	}
	unlock_and_tell(pipe);
	return NULL;
}

static void *
run_consumer(void *arg)
{
	struct worker *self = arg;
	struct pack_pipe *pipe = self->pipe;

	lock(pipe);
	for (;;)
	{
		struct slot *slot = slot_of(pipe, pipe->consumed);
		bool		ok;

		while (!pipe->failed && slot->state != STATE_DONE &&
			   !(pipe->ended && pipe->consumed == pipe->put))
			wait_change(pipe);
		if (pipe->failed || slot->state != STATE_DONE)
			break;
		(void) pthread_mutex_unlock(&pipe->mutex);
		ok = pipe->consume(self->arg, &slot->job);
		lock(pipe);
		pipe->consumed++;
		slot->state = STATE_FREE;
		if (!ok)
			pipe->failed = true;
		(void) pthread_cond_broadcast(&pipe->changed);
	}
	unlock_and_tell(pipe);
	return NULL;
}

/* Signals are the calling thread's business. */
static bool
start_thread(struct worker *worker, struct pack_pipe *pipe, void *arg, void *(*run) (void *))
{
	sigset_t	all;
	sigset_t	before;
	int			err;

	worker->pipe = pipe;
	worker->arg = arg;
	(void) sigfillset(&all);
	(void) pthread_sigmask(SIG_BLOCK, &all, &before);
	err = pthread_create(&worker->thread, NULL, run, worker);
	(void) pthread_sigmask(SIG_SETMASK, &before, NULL);
	worker->started = err == 0;
	if (err != 0)
	{
		errno = err;
		pgx_log_error("could not start a thread: %m");
	}
	return worker->started;
}

static uint8_t *
buffer_new(size_t size)
{
	void	   *buf = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (buf == MAP_FAILED)
	{
		pgx_log_error("out of memory");
		return NULL;
	}
	(void) madvise(buf, size, MADV_DONTDUMP);
	return buf;
}

static void
buffer_free(uint8_t *buf, size_t size)
{
	if (buf == NULL)
		return;
	OPENSSL_cleanse(buf, size);
	(void) munmap(buf, size);
}

struct pack_pipe *
pack_pipe_start(unsigned n, void *const *workers, pack_work work, pack_consume consume, void *arg,
				size_t in_size, size_t out_size)
{
	struct pack_pipe *pipe = pgx_alloc(sizeof(*pipe));
	bool		ok = true;

	(void) pthread_mutex_init(&pipe->mutex, NULL);
	(void) pthread_cond_init(&pipe->changed, NULL);
	pipe->n_slots = n + MORE_SLOTS;
	pipe->slots = pgx_alloc(pipe->n_slots * sizeof(*pipe->slots));
	pipe->n_workers = n;
	pipe->workers = pgx_alloc(n * sizeof(*pipe->workers));
	pipe->work = work;
	pipe->consume = consume;
	pipe->in_size = in_size;
	pipe->out_size = out_size;
	for (unsigned i = 0; ok && i < pipe->n_slots; i++)
	{
		pipe->slots[i].job.in = buffer_new(in_size);
		pipe->slots[i].job.out = buffer_new(out_size);
		ok = pipe->slots[i].job.in != NULL && pipe->slots[i].job.out != NULL;
	}
	ok = ok && start_thread(&pipe->consumer, pipe, arg, run_consumer);
	for (unsigned i = 0; ok && i < n; i++)
		ok = start_thread(&pipe->workers[i], pipe, workers[i], run_worker);
	if (!ok)
		(void) pack_pipe_finish(&pipe, true);
	return pipe;
}

struct pack_job *
pack_pipe_get(struct pack_pipe *pipe)
{
	struct slot *slot = slot_of(pipe, pipe->put);
	bool		failed;

	lock(pipe);
	while (!pipe->failed && slot->state != STATE_FREE)
		wait_change(pipe);
	failed = pipe->failed;
	(void) pthread_mutex_unlock(&pipe->mutex);
	return failed ? NULL : &slot->job;
}

void
pack_pipe_put(struct pack_pipe *pipe, struct pack_job *job)
{
	lock(pipe);
	slot_of(pipe, pipe->put)->state = STATE_FILLED;
	pipe->put++;
	unlock_and_tell(pipe);
}

bool
pack_pipe_finish(struct pack_pipe **pipe_p, bool give_up)
{
	struct pack_pipe *pipe = *pipe_p;
	bool		ok;

	if (pipe == NULL)
		return true;
	lock(pipe);
	pipe->ended = true;
	if (give_up)
		pipe->failed = true;
	unlock_and_tell(pipe);
	for (unsigned i = 0; i < pipe->n_workers; i++)
		if (pipe->workers[i].started)
			(void) pthread_join(pipe->workers[i].thread, NULL);
	if (pipe->consumer.started)
		(void) pthread_join(pipe->consumer.thread, NULL);
	ok = !pipe->failed;

	for (unsigned i = 0; i < pipe->n_slots; i++)
	{
		buffer_free(pipe->slots[i].job.in, pipe->in_size);
		buffer_free(pipe->slots[i].job.out, pipe->out_size);
	}
	(void) pthread_cond_destroy(&pipe->changed);
	(void) pthread_mutex_destroy(&pipe->mutex);
	free(pipe->slots);
	free(pipe->workers);
	free(pipe);
	*pipe_p = NULL;
	return ok;
}
