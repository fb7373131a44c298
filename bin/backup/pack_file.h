/*
 * pack_file.h
 *		A container on disk as a sequence of bytes: sealed on the way out, verified on the way in.
 */
#ifndef PACK_FILE_H
#define PACK_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "keystore.h"
#include "pack.h"

/* ---- writing --------------------------------------------------------------------- */

struct pack_out;

/*
 * Make PATH.partial, which must not exist, with its header: a new data key under the keystore's active master key.
 * An exit code.
 */
extern int	pack_out_create(const char *path, keystore *ks, const uint8_t backup_id[PGX_PACK_ID_LEN],
							struct pack_out **ret_out);

/* Write more.  False after a message. */
extern bool pack_out_write(struct pack_out *out, const uint8_t *data, size_t len);

/* Seal the last chunk, sync, rename to PATH, sync the directory; *ret_size: bytes of the file. */
extern bool pack_out_commit(struct pack_out *out, uint64_t *ret_size);

/* Without a commit the file is removed.  NULLs the caller's pointer. */
extern void pack_out_free(struct pack_out **out);

/* ---- reading --------------------------------------------------------------------- */

struct pack_in;

/* Open the container and its header.  An exit code. */
extern int	pack_in_open(const char *path, keystore *ks, const uint8_t *backup_id, struct pack_in **ret_in);

/* Size of the file, and how far it was read. */
extern uint64_t pack_in_size(const struct pack_in *in);
extern uint64_t pack_in_position(const struct pack_in *in);

/*
 * Read exactly len bytes, every one of them verified.  false with *ret_end: the stream ended, whole, before the
 * first of them.  Otherwise false is a failure, after a message.
 */
extern bool pack_in_read(struct pack_in *in, uint8_t *buf, size_t len, bool *ret_end);
extern void pack_in_free(struct pack_in **in);

#endif							/* PACK_FILE_H */
