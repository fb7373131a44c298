/*
 * pgx_postgres.h
 *		First header of every file of the module: ours and PostgreSQL's configuration
 *		both define PACKAGE_*, and the server's is the one that counts here.
 */
#ifndef PGX_POSTGRES_H
#define PGX_POSTGRES_H

#include <config.h>
#undef PACKAGE_BUGREPORT
#undef PACKAGE_NAME
#undef PACKAGE_STRING
#undef PACKAGE_TARNAME
#undef PACKAGE_URL
#undef PACKAGE_VERSION

#include "postgres.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"				/* was part of postgres.h before */
#endif

/* Messages of this module are known by it: none has anything of a statement's text. */
#define PGX_TEXTDOMAIN	"pgx_tde"
#undef TEXTDOMAIN
#define TEXTDOMAIN	PGX_TEXTDOMAIN

#endif							/* PGX_POSTGRES_H */
