/*
 * bench_sync.c
 *		What a second copy of WAL costs a commit, without the server: 8 KiB written and
 *		synced to one file, and to two in the ways that were considered.
 *
 * Which way is next is drawn for each write, so whatever else the machine does falls on all of them alike.
 */
#include <config.h>

#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE		8192
#define PAGES		2048		/* of each file: 16 MiB, as a segment has */
#define ROUNDS		2000

enum way
{
	ONE, IN_TURN, HEAD_START, TOGETHER, WAYS
};

static const char *const names[WAYS] = {
	"one file", "two, in turn", "two, in turn, sync_file_range()", "two, asynchronous I/O"
};

static double micros[WAYS][ROUNDS];
static int	counts[WAYS];

static void __attribute__((noreturn))
die(const char *what)
{
	perror(what);
	exit(1);
}

static double
now(void)
{
	struct timespec ts;

	(void) clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double) ts.tv_sec * 1e6 + (double) ts.tv_nsec / 1e3;
}

static int
compare(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

/* A file whose blocks are all written, as those of a segment are. */
static int
make_file(const char *dir, const char *name)
{
	char		path[4096];
	char		page[PAGE];
	int			fd;

	memset(page, 0, sizeof(page));
	(void) snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		die(path);
	(void) unlink(path);
	for (int i = 0; i < PAGES; i++)
	{
		if (pwrite(fd, page, PAGE, (off_t) i * PAGE) != PAGE)
			die(path);
	}
	if (fsync(fd) != 0)
		die(path);
	return fd;
}

static void
write_and_sync(enum way way, aio_context_t aio, int one, int two, const char *page, off_t off)
{
	struct iocb request;
	struct iocb *requests[1] = {&request};
	struct io_event event;

	if (pwrite(one, page, PAGE, off) != PAGE || (way != ONE && pwrite(two, page, PAGE, off) != PAGE))
		die("pwrite");
	if (way == HEAD_START && sync_file_range(two, 0, 0, SYNC_FILE_RANGE_WRITE) != 0)
		die("sync_file_range");
	if (way == TOGETHER)
	{
		memset(&request, 0, sizeof(request));
		request.aio_fildes = (uint32_t) two;
		request.aio_lio_opcode = IOCB_CMD_FDSYNC;
		if (syscall(SYS_io_submit, aio, 1, requests) != 1)
			die("io_submit");
	}
	if (fdatasync(one) != 0 || ((way == IN_TURN || way == HEAD_START) && fdatasync(two) != 0))
		die("fdatasync");
	if (way == TOGETHER && (syscall(SYS_io_getevents, aio, 1, 1, &event, NULL) != 1 || event.res != 0))
		die("io_getevents");
}

int
main(int argc, char **argv)
{
	const char *dir = argc > 1 ? argv[1] : ".";
	const char *other = argc > 2 ? argv[2] : dir;
	int			one = make_file(dir, "bench_sync.1");
	int			two = make_file(other, "bench_sync.2");
	aio_context_t aio = 0;
	char		page[PAGE];

	if (syscall(SYS_io_setup, 1, &aio) != 0)
		die("io_setup");
	memset(page, 0, sizeof(page));
	for (int i = 0; i < ROUNDS; i++)
	{
		for (int turn = 0; turn < WAYS; turn++)
		{
			int			way = (turn + rand()) % WAYS;	/* or what is slow at regular times would fall on one way */
			double		begin = now();

			page[0]++;
			write_and_sync((enum way) way, aio, one, two, page, (off_t) (i % PAGES) * PAGE);
			if (counts[way] < ROUNDS)
				micros[way][counts[way]++] = now() - begin;
		}
	}
	printf("%-32s %10s %10s %8s\n", "", "median us", "p90 us", "ratio");
	for (int way = 0; way < WAYS; way++)
	{
		qsort(micros[way], (size_t) counts[way], sizeof(double), compare);
		printf("%-32s %10.0f %10.0f %8.2f\n", names[way], micros[way][counts[way] / 2],
			   micros[way][counts[way] * 9 / 10], micros[way][counts[way] / 2] / micros[ONE][counts[ONE] / 2]);
	}
	return 0;
}
