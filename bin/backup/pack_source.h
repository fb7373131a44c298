/*
 * pack_source.h
 *		A base backup as it comes from a server: the replication command BASE_BACKUP of PostgreSQL 15
 *		and later ("Streaming Replication Protocol" in its manual).
 */
#ifndef PACK_SOURCE_H
#define PACK_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pack.h"

struct pack_source;

/* Where the backup goes.  Each returns false to stop, after saying why. */
struct pack_receiver
{
	/* The copying begins.  The positions and tablespaces are in the result already. */
	bool		(*begin) (void *arg, const struct pgx_pack_result *result, uint64_t total);
	/* A tar archive begins: 0 for the data directory, else a tablespace's OID. */
	bool		(*archive) (void *arg, uint32_t archive);
	/* Bytes of it, or of the manifest. */
	bool		(*data) (void *arg, const uint8_t *data, size_t len);
	/* What came since archive() or manifest() is over. */
	bool		(*archive_end) (void *arg);
	bool		(*manifest) (void *arg);
	bool		(*manifest_end) (void *arg);
	void	   *arg;
};

/* Run the command from begin to end; fills positions and tablespaces of the result.  An exit code. */
extern int	pack_source_run(const struct pgx_pack_options *opts, const struct pack_receiver *receiver,
							struct pgx_pack_result *result);

#endif							/* PACK_SOURCE_H */
