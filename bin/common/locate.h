/*
 * locate.h
 *		Where PostgreSQL's programs are.
 */
#ifndef PGX_LOCATE_H
#define PGX_LOCATE_H

#include <stdbool.h>
#include <sys/stat.h>

/* An executable regular file; *ret_st describes it. */
extern bool pgx_is_program(const char *path, struct stat *ret_st);

/*
 * The next program of that name in path (a list as in PATH) that is not this program itself, else the one in
 * bindir.  The caller frees it.  NULL, with the reason said, if there is none.
 */
extern char *pgx_find_real_program(const char *name, const char *path, const char *bindir);

/*
 * The program of that name beside another one, symbolic links resolved.  What is found in PATH may be a
 * distribution's wrapper, with nothing beside it; then it is the one in bindir.  The caller frees it.
 */
extern char *pgx_find_beside(const char *program, const char *name, const char *bindir);

#endif							/* PGX_LOCATE_H */
