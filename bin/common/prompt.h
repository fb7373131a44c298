/*
 * prompt.h
 *		Where a passphrase comes from: a terminal, standard input or a file.
 *		Never a command-line argument and never the environment.
 */
#ifndef PGX_PROMPT_H
#define PGX_PROMPT_H

#include <stdbool.h>
#include <stddef.h>

#include "keystore.h"

/* Room enough to see that a line is longer than any passphrase may be. */
#define PGX_PASSPHRASE_BUF	(KEYSTORE_PASSPHRASE_MAX + 64)

#define PGX_PROMPT			"Enter the passphrase: "
#define PGX_PROMPT_NEW		"Enter the new passphrase: "
#define PGX_PROMPT_AGAIN	"Enter the new passphrase again: "

struct pgx_passphrase
{
	size_t		len;			/* may exceed KEYSTORE_PASSPHRASE_MAX; the library refuses it */
	char	   *bytes;			/* PGX_PASSPHRASE_BUF of them, locked and kept out of core dumps */
};

/* True if a person is there to be asked, and so to be asked again. */
extern bool pgx_prompt_interactive(void);

/* Room for what is not read but made: a recovery key.  On false the reason has been said. */
extern bool pgx_passphrase_alloc(struct pgx_passphrase *ret_passphrase);

/*
 * Read a passphrase: the first line of file if that is not NULL; from the
 * terminal, with the echo off, if standard input is one; else the next line of
 * standard input.  again: a second prompt for a new passphrase, asked on a terminal only, or
 * NULL.  On false the reason has been said.  The caller wipes *ret_passphrase.
 */
extern bool pgx_passphrase_read(const char *file, const char *prompt, const char *again,
								struct pgx_passphrase *ret_passphrase);

/*
 * Read one more passphrase, from the terminal or standard input, of an unknown number: an empty one, or the end
 * of the input, is the end of them, and *ret_got is false.  On false the reason has been said.
 */
extern bool pgx_passphrase_read_more(const char *prompt, struct pgx_passphrase *ret_passphrase,
									 bool *ret_got);

/*
 * Try to keep the pages of a secret out of swap.  Failing is no error: the
 * process is short-lived, and RLIMIT_MEMLOCK may be 0.
 */
extern void pgx_secret_lock(void *p, size_t len);

/* Wipe it. */
extern void pgx_passphrase_wipe(struct pgx_passphrase *passphrase);

#endif							/* PGX_PROMPT_H */
