/*
 * fleet.h
 *		Asking every server of the servers file about its keystore, side by side.
 */
#ifndef PGX_FLEET_H
#define PGX_FLEET_H

#include <stdbool.h>
#include <stdint.h>

#include "servers.h"

/* What one server said.  Texts are NULL where it said nothing. */
struct fleet_row
{
	const struct pgx_server *server;
	bool		reachable;		/* it answered the question */
	bool		has_module;		/* and pgx_tde is at work there */
	char	   *error;			/* why not, one line; else NULL */
	char	   *role;			/* "primary", "standby" */
	char	   *state;			/* "open", "closed" */
	char	   *opened_by;
	char	   *uuid;
	char	   *generation;		/* decimal */
	char	   *active_key;		/* decimal */
	char	   *auto_open;
	char	   *last_rotation;	/* seconds since 1970, decimal */
	char	   *last_backup;	/* the same */
	bool		has_backup_column;	/* the server's module tells of backups */
	bool		backup_current; /* the last backup is of what the keystore is now */
};

/*
 * Ask all servers at once and wait until each has answered, failed, or timeout_ms have passed.  Rows
 * are in the order of the file; the caller gives them to fleet_clear().
 */
extern struct fleet_row *fleet_ask(const struct pgx_servers *servers, int timeout_ms);
extern void fleet_clear(struct fleet_row **rows, size_t count);

#endif							/* PGX_FLEET_H */
