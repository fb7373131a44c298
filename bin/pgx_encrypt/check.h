/*
 * check.h
 *		What pgx_encrypt --check finds, between finding and printing it.
 */
#ifndef PGX_ENCRYPT_CHECK_H
#define PGX_ENCRYPT_CHECK_H

#include "encrypt.h"

/* Pages of one file, or files or pages of one tablespace. */
struct tally
{
	uint64_t	encrypted;
	uint64_t	plain;
	uint64_t	mixed;			/* files only */
	uint64_t	damaged;
	uint64_t	empty;
};

/* A file that is neither the one nor the other, or not whole. */
struct noted_file
{
	char	   *path;
	struct tally pages;
};

/* A tablespace, or WAL. */
struct checked
{
	const char *name;			/* the tablespace's own */
	uint32_t	oid;			/* 0: WAL */
	enum tde_algorithm alg;
	struct data_files list;
	struct tally files;
	struct tally pages;
	struct noted_file *noted;
	size_t		n_noted;
};

struct check_report
{
	const struct cluster *cluster;
	struct checked *parts;		/* WAL is the last one */
	size_t		n_parts;
	bool		interrupted;	/* there is a conversion that has not ended */
	bool		all;			/* everything is encrypted */
};

/* check_json.c: false after a message, also where this was built without JSON. */
extern bool check_json_supported(void);
extern bool check_print_json(const struct check_report *report);

#endif							/* PGX_ENCRYPT_CHECK_H */
