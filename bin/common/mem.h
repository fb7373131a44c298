/*
 * mem.h
 *		Allocation for the commands: a command that is out of memory says so and ends.
 *
 * Nothing secret is allocated through these.
 */
#ifndef PGX_MEM_H
#define PGX_MEM_H

#include <stddef.h>

extern void *pgx_alloc(size_t size);	/* zeroed */
extern void *pgx_realloc(void *p, size_t size);
extern char *pgx_strdup(const char *s);
extern char *pgx_strndup(const char *s, size_t len);
extern char *pgx_printf(const char *fmt,...) __attribute__((format(printf, 1, 2)));

#endif							/* PGX_MEM_H */
