/*
 * io_init.c
 *		Coming into a process, and the table of functions for the module.
 *
 * In anything but postgres (the shell of an archive command, say) the layer
 * does nothing at all, unless "pgx_keystore exec" started the program; see
 * io_frontend.c.  In postgres it takes itself out of LD_PRELOAD, so that the
 * server's children programs do not inherit it, and waits for the module.
 */
#include <config.h>

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "io_internal.h"
#include "walkey.h"

const struct pgx_io_server *pgx_server;
struct pgx_io_shared *pgx_shared;
uint8_t    *pgx_bounce;
bool		pgx_in_server;

extern struct pgx_io_api pgx_tde_io_api;

/* Remove this object's own path from LD_PRELOAD and leave the rest as it was. */
static void
leave_preload_list(void)
{
	const char *list = getenv("LD_PRELOAD");
	Dl_info		self;
	char	   *rest;
	char	   *to;

	if (list == NULL || dladdr(&pgx_tde_io_api, &self) == 0 || self.dli_fname == NULL)
		return;
	rest = malloc(strlen(list) + 1);
	if (rest == NULL)
		return;
	to = rest;
	while (*list != '\0')
	{
		size_t		len = strcspn(list, ": ");

		if (len > 0 && !(strlen(self.dli_fname) == len && strncmp(list, self.dli_fname, len) == 0))
		{
			if (to != rest)
				*to++ = ':';
			memcpy(to, list, len);
			to += len;
		}
		list += len;
		list += strspn(list, ": ");
	}
	*to = '\0';
	if (rest[0] == '\0')
		unsetenv("LD_PRELOAD");
	else
		setenv("LD_PRELOAD", rest, 1);
	free(rest);
}

static void
start(const struct pgx_io_server *server)
{
	pgx_server = server;
}

struct pgx_io_api pgx_tde_io_api = {
	.version = PGX_IO_API_VERSION,
	.layout = PGX_IO_API_LAYOUT,
	.alloc_shared = pgx_io_alloc_shared,
	.start = start,
	.set_key = pgx_io_set_key,
	.get_algorithm = pgx_io_get_algorithm,
	.new_epoch = pgx_io_new_epoch,
	.wal_header = pgx_wal_known_header,
	.wal_crypt = pgx_wal_wire_crypt,
	.count_in = pgx_count_in,
	.mirror_refresh = pgx_mirror_refresh,
	.mirror_begin = pgx_mirror_begin,
	.mirror_fail = pgx_mirror_fail,
};

__attribute__((constructor))
static void
pgx_io_constructor(void)
{
	void	   *bounce;

	pgx_io_resolve_libc();
	pgx_in_server = dlsym(RTLD_DEFAULT, "MyBackendType") != NULL;
	if (!pgx_in_server && getenv(TDE_WALKEY_ENV) == NULL)
		return;
	if (posix_memalign(&bounce, 4096, PGX_IO_BATCH * PGX_IO_PAGE) != 0)
		return;
	pgx_bounce = bounce;

	/* The module refuses to go on if this is missing. */
	pgx_shared = pgx_io_alloc_shared(sizeof(*pgx_shared), &pgx_tde_io_api.shared_is_locked);
	pgx_tde_io_api.shared = pgx_shared;
	if (!pgx_in_server)
	{
		pgx_frontend_start();
		return;
	}
	leave_preload_list();

	/* pg_rewind starts a server; that gets its keys in its own way. */
	unsetenv(TDE_WALKEY_ENV);
	unsetenv(TDE_WALKEY_DIRS_ENV);
}
