/*
 * servers.h
 *		The servers file: one section per server of a group, naming its
 *		keystore directory.  See pgx_servers.conf(5).
 */
#ifndef PGX_SERVERS_H
#define PGX_SERVERS_H

#include <stdbool.h>
#include <stddef.h>

#define PGX_SERVERS_MAX_SIZE	(256 * 1024)	/* bytes of the file */
#define PGX_SERVERS_ENV			"PGX_SERVERS"
#define PGX_ALL_STANDBYS		"all-standbys"	/* names no server, but all except the source of a copy */

struct pgx_server
{
	char	   *name;
	char	   *keystore;		/* directory; an absolute path */
	char	   *host;			/* NULL: this machine */
	char	   *conninfo;		/* NULL: not given */
	int			line;			/* of the section's header */
};

struct pgx_servers
{
	char	   *path;			/* for messages */
	struct pgx_server *servers;
	size_t		count;
};

/*
 * Parse the text, len bytes and a NUL after them.  On false, err says what is wrong, beginning
 * with path and line number.
 */
extern bool pgx_servers_parse(const char *text, size_t len, const char *path,
							  struct pgx_servers *ret_servers, char *err, size_t err_len);

/*
 * Read the file: path if not NULL, else what the environment names, else the one of the
 * installation.  On false the reason has been said.
 */
extern bool pgx_servers_read(const char *path, struct pgx_servers *ret_servers);

/* The server of that name, or NULL after an error message that lists the known ones. */
extern const struct pgx_server *pgx_servers_find(const struct pgx_servers *servers, const char *name);

extern void pgx_servers_clear(struct pgx_servers *servers);

#endif							/* PGX_SERVERS_H */
