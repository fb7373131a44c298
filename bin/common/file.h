/*
 * file.h
 *		Reading small files, writing out secrets, and checks on where a keystore may lie.
 */
#ifndef PGX_FILE_H
#define PGX_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Read all of a regular file of at most max bytes.  A symbolic link is not followed.  bad_mode: file
 * mode bits of which none may be set, hint_mode: the octal mode the hint tells to set.  The owner must be
 * the effective user or root.  *ret_buf has a NUL after its last byte and is freed by the
 * caller.  On false the reason has been said.
 */
extern bool pgx_file_read(const char *path, size_t max, unsigned bad_mode, const char *hint_mode,
						  uint8_t **ret_buf, size_t *ret_len);

/* Read until the end of a descriptor, at most max bytes; what names it in messages. */
extern bool pgx_fd_read_all(int fd, const char *what, size_t max, uint8_t **ret_buf, size_t *ret_len);

/* Write all of it; says nothing, errno is set: ENOSPC too where write() takes no byte and names no reason. */
extern bool pgx_write_all(int fd, const void *buf, size_t len);

/*
 * Write all of it to standard output, straight from where it lies: functions that format keep a copy in a buffer
 * of their own, which nobody wipes.  On false the reason has been said.
 */
extern bool pgx_write_out(const void *bytes, size_t len);

/*
 * Is this directory, existing or not, inside a data directory or a tablespace
 * of PostgreSQL?  Says so and returns false if it is.
 */
extern bool pgx_outside_cluster(const char *dir);

/* Directory part and joined path; the caller frees both. */
extern char *pgx_dirname(const char *path);
extern char *pgx_join(const char *dir, const char *name);

/* The path from the root, for a program that is going to another directory; the caller frees it. */
extern char *pgx_absolute(const char *path);

#endif							/* PGX_FILE_H */
