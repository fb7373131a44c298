/*
 * preload.c
 *		Getting the I/O layer into the server, and proof that it works there.
 *
 * Every launcher (pg_ctl, systemd, pg_ctlcluster, Patroni, a container) starts plain
 * "postgres".  When it reaches shared_preload_libraries, it executes itself once
 * more with the I/O layer in LD_PRELOAD.  The process id stays, so that
 * postmaster.pid and whoever waits for the server notice nothing.
 */
#include "pgx_postgres.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/guc.h"

#include "page.h"
#include "pgx_tde.h"

#define GUARD_ENV	"PGX_TDE_IO_GUARD"
#define IO_LAYER	"pgx_tde_io.so"

/* This process's argument vector as the kernel has it; palloc'ed. */
static char **
command_line(void)
{
	StringInfoData buf;
	char	   *p;
	char	  **argv;
	int			argc = 0;
	int			fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
	char		chunk[1024];
	ssize_t		n;

	initStringInfo(&buf);
	while (fd >= 0 && (n = read(fd, chunk, sizeof(chunk))) > 0)
		appendBinaryStringInfo(&buf, chunk, (int) n);
	if (fd < 0 || n < 0 || buf.len == 0)
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("could not read file \"/proc/self/cmdline\": %m")));
	close(fd);

	for (int i = 0; i < buf.len; i++)
	{
		if (buf.data[i] == '\0')
			argc++;
	}
	argv = palloc0(sizeof(char *) * (argc + 1));
	p = buf.data;
	for (int i = 0; i < argc; i++, p += strlen(p) + 1)
		argv[i] = p;
	return argv;
}

/* The options of postgres; a colon follows those that take an argument. */
#define SERVER_OPTIONS	"B:bc:C:D:d:EeFf:h:ijk:lN:nOPp:r:S:sTt:v:W:-:"

/* Is this "postgres -C NAME", which loads libraries only to print a setting? */
bool
pgx_only_prints_setting(void)
{
	char	  **argv = command_line();

	if (argv[1] != NULL && strcmp(argv[1], "--single") == 0)
		return false;			/* there, -C means nothing */
	for (int i = 1; argv[i] != NULL && argv[i][0] == '-'; i++)
	{
		for (const char *p = argv[i] + 1; *p != '\0'; p++)
		{
			const char *option = strchr(SERVER_OPTIONS, *p);

			if (*p == 'C')
				return true;
			if (option == NULL || option[1] != ':')
				continue;
			/* The argument is the rest of this word, or the next one. */
			if (p[1] == '\0' && argv[i + 1] != NULL)
				i++;
			break;
		}
	}
	return false;
}

/*
 * The working directory is the data directory by now, so what was relative to the former one is
 * replaced by what the server made of it.
 */
static void
make_arguments_absolute(char **argv)
{
	char	   *config_dir = pstrdup(ConfigFileName);

	get_parent_directory(config_dir);
	argv[0] = my_exec_path;
	for (int i = 1; argv[i] != NULL; i++)
	{
		char	   *value;

		if (strcmp(argv[i], "-D") == 0 && argv[i + 1] != NULL)
		{
			i++;
			if (!is_absolute_path(argv[i]))
				argv[i] = config_dir;
		}
		else if (strncmp(argv[i], "-D", 2) == 0 && argv[i][2] != '\0' && !is_absolute_path(argv[i] + 2))
			argv[i] = psprintf("-D%s", config_dir);
		else if ((value = strstr(argv[i], "config_file=")) != NULL)
		{
			value += strlen("config_file=");
			if (!is_absolute_path(value))
				argv[i] = psprintf("%.*s%s", (int) (value - argv[i]), argv[i], ConfigFileName);
		}
	}
	if (getenv("PGDATA") != NULL && !is_absolute_path(getenv("PGDATA")))
		setenv("PGDATA", config_dir, 1);
}

static void
execute_again(const char *library)
{
	char	  **argv = command_line();
	const char *others = getenv("LD_PRELOAD");

	if (access(library, R_OK) != 0)
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("could not access the I/O layer \"%s\": %m", library),
				 errhint("Install pgx_tde again, or take it out of shared_preload_libraries if no data is encrypted.")));
	make_arguments_absolute(argv);
	setenv(GUARD_ENV, "1", 1);
	setenv("LD_PRELOAD", others == NULL || others[0] == '\0' ? library :
		   psprintf("%s:%s", library, others), 1);
	execv("/proc/self/exe", argv);
	ereport(FATAL,
			(errcode_for_file_access(),
			 errmsg("could not execute \"%s\" again with the I/O layer: %m", my_exec_path)));
}

void
pgx_load_io_layer(void)
{
	bool		second_time = getenv(GUARD_ENV) != NULL;
	char	   *library = psprintf("%s/%s", pkglib_path, IO_LAYER);

	pgx_io = dlsym(RTLD_DEFAULT, PGX_IO_API_SYMBOL);
	if (pgx_io == NULL)
	{
		if (second_time)
			ereport(FATAL,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the I/O layer \"%s\" could not be loaded into the server", library),
					 errhint("Look for a message of the dynamic linker in the server log or on the terminal.")));
		execute_again(library);
	}
	unsetenv(GUARD_ENV);

	/* Executed through /proc/self/exe it is "exe" to ps, top, pgrep and whoever watches processes by name. */
	if (second_time && last_dir_separator(my_exec_path) != NULL)
		(void) prctl(PR_SET_NAME, last_dir_separator(my_exec_path) + 1);
	if (pgx_io->version != PGX_IO_API_VERSION)
		ereport(FATAL,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the I/O layer has interface version %u, but the module needs %u",
						pgx_io->version, PGX_IO_API_VERSION),
				 errhint("Install both from the same version of pgx_tde.")));
	if (pgx_io->layout != PGX_IO_API_LAYOUT)
		ereport(FATAL,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the I/O layer \"%s\" and the module are of different builds", library),
				 errhint("Install both from the same build of pgx_tde.")));
}

/* In a child of its own: write a page as the server does, and look at what came to disk. */
static int
self_check_child(void)
{
	PGAlignedBlock page;
	PGAlignedBlock disk;
	File		file;
	int			fd;
	bool		good;

	InitFileAccess();
	memset(page.data, 'p', BLCKSZ);
	file = PathNameOpenFile(PGX_IO_SELF_CHECK_PATH, O_RDWR | O_CREAT | O_TRUNC | PG_BINARY);
	if (file < 0 || FileWrite(file, page.data, BLCKSZ, 0, 0) != BLCKSZ)
		return 2;
	fd = (int) syscall(SYS_openat, AT_FDCWD, PGX_IO_SELF_CHECK_PATH, O_RDONLY);
	if (fd < 0 || syscall(SYS_pread64, fd, disk.data, BLCKSZ, (off_t) 0) != BLCKSZ)
		return 2;

	/* Everything but the page's first bytes must differ in about all places; one equal run of eight is too much. */
	good = true;
	for (int i = TDE_PAGE_CLEAR; i < BLCKSZ; i += 8)
		good = good && memcmp(disk.data + i, page.data + i, 8) != 0;
	if (!good)
		return 3;
	memset(disk.data, 0, BLCKSZ);
	if (FileRead(file, disk.data, BLCKSZ, 0, 0) != BLCKSZ)
		return 2;
	return memcmp(disk.data + TDE_PAGE_CLEAR, page.data + TDE_PAGE_CLEAR,
				  BLCKSZ - TDE_PAGE_CLEAR) == 0 ? 0 : 4;
}

/*
 * Prove, before the server accepts anything, that pages written by the server's own functions are
 * encrypted.  The files of this process are not set up for FileWrite() yet, so a
 * child does it.
 */
void
pgx_self_check(void)
{
	uint8		key[TDE_MAX_KEY_LEN];
	pid_t		child;
	int			status = -1;

	if (MakePGDirectory(PGX_TDE_DIR) < 0 && errno != EEXIST)
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("could not create directory \"%s\": %m", PGX_TDE_DIR)));
	if (!pg_strong_random(key, sizeof(key)) ||
		pgx_io->set_key(TDE_KEY_TABLESPACE, PGX_IO_SELF_CHECK_OID, TDE_AES256, key) != 0)
		ereport(FATAL,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not make a key for the self-check of the I/O layer")));
	explicit_bzero(key, sizeof(key));

	child = fork();
	if (child == 0)
		_exit(self_check_child());
	while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	unlink(PGX_IO_SELF_CHECK_PATH);
	(void) pgx_io->set_key(TDE_KEY_TABLESPACE, PGX_IO_SELF_CHECK_OID, TDE_NONE, NULL);
	if (child < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
		ereport(FATAL,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("self-check of the I/O layer failed"),
				 errdetail(WIFEXITED(status) && WEXITSTATUS(status) == 3 ?
						   "A page that the server wrote came to disk in plaintext." :
						   "A page could not be written encrypted and read back in file \"%s\".",
						   PGX_IO_SELF_CHECK_PATH),
				 errhint("Make sure that the data directory is writable and that nothing else intercepts file access; otherwise report this.")));
}
