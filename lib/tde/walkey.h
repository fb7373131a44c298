/*
 * walkey.h
 *		How "pgx_keystore exec" hands the WAL key to the I/O layer in a program
 *		beside the server.
 *
 * An environment variable names a descriptor from which the layer reads, at offset 0: magic (8 bytes),
 * algorithm (one byte, enum tde_algorithm), key (32 bytes; AES-128 uses the first 16). Another holds the
 * directories, separated by colons, whose segments are to be decrypted.
 */
#ifndef TDE_WALKEY_H
#define TDE_WALKEY_H

#define TDE_WALKEY_ENV		"PGX_TDE_WAL_KEY_FD"
#define TDE_WALKEY_DIRS_ENV	"PGX_TDE_WAL_DIRS"
#define TDE_WALKEY_MAGIC	"PGXWAL01"
#define TDE_WALKEY_LEN		(8 + 1 + 32)

#endif							/* TDE_WALKEY_H */
