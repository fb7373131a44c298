/*
 * core_at.c
 *		A shared object that writes down, from inside our commands, what a core dump of them would hold.
 *
 * That is every writable mapping, but not those that are kept out of core dumps (MADV_DONTDUMP).  A real one cannot be
 * had: the commands forbid them, and to be looked at.  It is done where something secret has just been used: after each
 * key derivation, before a file is renamed, before another program is executed, and at the end.  Files are
 * $CORE_AT/PROGRAM.PID.NUMBER.WHERE.
 */
#include <config.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_DERIVATIONS		6
#define MAX_MAPS			1024

struct map
{
	uintptr_t	from;
	uintptr_t	to;
	int			wanted;
};

static const char *const programs[] = {
	"pgx_keystore", "pgx_dmpall", "pgx_rcvall", "pgx_encrypt", "pg_ctl", "initdb"
};
static const char *dir;			/* NULL: not our program */
static int	derivations;
static int	dumps;

__attribute__((constructor))
static void
core_at_constructor(void)
{
	for (size_t i = 0; i < sizeof(programs) / sizeof(programs[0]); i++)
	{
		if (strcmp(program_invocation_short_name, programs[i]) == 0)
			dir = getenv("CORE_AT");
	}
}

/* The mappings first, all of them: writing makes none, and must not meet one that has changed. */
static size_t
read_maps(struct map *maps)
{
	static char line[4096];
	FILE	   *f = fopen("/proc/self/smaps", "re");
	size_t		n = 0;

	if (f == NULL)
		abort();				/* a test that sees nothing would prove nothing */
	while (fgets(line, sizeof(line), f) != NULL)
	{
		unsigned long from;
		unsigned long to;
		char		rights[5];

		if (sscanf(line, "%lx-%lx %4s", &from, &to, rights) == 3)
		{
			if (n == MAX_MAPS)
				abort();
			maps[n++] = (struct map) {from, to, rights[0] == 'r' && rights[1] == 'w'};
		}
		else if (n > 0 && strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " dd") != NULL)
			maps[n - 1].wanted = 0;
	}
	fclose(f);
	return n;
}

static void
dump(const char *where)
{
	static struct map maps[MAX_MAPS];
	char		path[4096];
	size_t		n;
	int			fd;
	int			save_errno = errno;

	if (dir == NULL)
		return;
	snprintf(path, sizeof(path), "%s/%s.%d.%03d.%s", dir, program_invocation_short_name, (int) getpid(), ++dumps,
			 where);
	n = read_maps(maps);
	fd = (int) syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		abort();
	for (size_t i = 0; i < n; i++)
	{
		uintptr_t	at = maps[i].from;

		while (maps[i].wanted && at < maps[i].to)
		{
			long		done = syscall(SYS_write, fd, (const void *) at, maps[i].to - at);

			if (done <= 0)
				break;
			at += (uintptr_t) done;
		}
	}
	(void) syscall(SYS_close, fd);
	errno = save_errno;
}

#define REAL(name) \
	static __typeof__(&name) real; \
	if (real == NULL) \
		*(void **) &real = dlsym(RTLD_NEXT, #name)

extern void EVP_KDF_CTX_free(void *ctx);
extern int	EVP_KDF_derive(void *ctx, unsigned char *key, size_t len, const void *params);

/* scrypt derives by PBKDF2 inside, while its own context has the passphrase. */
static int	depth;

int
EVP_KDF_derive(void *ctx, unsigned char *key, size_t len, const void *params)
{
	int			result;
	REAL(EVP_KDF_derive);

	depth++;
	result = real(ctx, key, len, params);
	depth--;
	return result;
}

/* A passphrase, or a key that others are derived from, was in there. */
void
EVP_KDF_CTX_free(void *ctx)
{
	REAL(EVP_KDF_CTX_free);

	real(ctx);
	if (ctx != NULL && dir != NULL && depth == 0 && derivations++ < MAX_DERIVATIONS)
		dump("derived");
}

int
renameat(int from_dir, const char *from, int to_dir, const char *to)
{
	REAL(renameat);

	dump("rename");
	return real(from_dir, from, to_dir, to);
}

int
execv(const char *path, char *const argv[])
{
	REAL(execv);

	dump("exec");
	return real(path, argv);
}

int
execvp(const char *file, char *const argv[])
{
	REAL(execvp);

	dump("exec");
	return real(file, argv);
}

__attribute__((destructor))
static void
core_at_destructor(void)
{
	dump("end");
}
