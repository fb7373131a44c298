/*
 * unpack_files.h
 *		The directories and files that a packed backup is restored into.
 *
 * For one thread at a time.  Nothing that is there is overwritten.
 */
#ifndef UNPACK_FILES_H
#define UNPACK_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pack.h"
#include "pack_format.h"

struct unpack_files;

/* Make the data directory, or see that it is empty.  NULL after a message; what is borrowed is opts. */
extern struct unpack_files *unpack_files_new(const struct pgx_unpack_options *opts);

/* The same for a tablespace, in the place that the options say. */
extern bool unpack_files_tablespace(struct unpack_files *files, const struct pack_tablespace *tablespace);

/* Begin a file, or make a directory or link.  The one before is closed. */
extern bool unpack_files_begin(struct unpack_files *files, const struct pack_file *file);
extern bool unpack_files_write(struct unpack_files *files, uint64_t offset, const uint8_t *data, size_t len);

/* All is there: sync everything, and give the control file its name. */
extern bool unpack_files_commit(struct unpack_files *files);
extern void unpack_files_free(struct unpack_files **files);

#endif							/* UNPACK_FILES_H */
