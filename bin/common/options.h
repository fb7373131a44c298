/*
 * options.h
 *		Pieces of command-line handling shared by the commands.
 */
#ifndef PGX_OPTIONS_H
#define PGX_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A whole number between min and max, all of text; otherwise says what is wrong
 * with the option of that name and returns false.
 */
extern bool pgx_parse_uint(const char *text, const char *option, uint32_t min, uint32_t max,
						   uint32_t *ret_value);

/* What --to and --from can name. */
enum pgx_place_kind
{
	PGX_PLACE_SERVER = 1,		/* a section of the servers file */
	PGX_PLACE_LOCAL = 2,		/* a directory or file of this machine */
	PGX_PLACE_REMOTE = 3		/* HOST:DIR */
};

struct pgx_place
{
	enum pgx_place_kind kind;
	char	   *name;			/* server name, else NULL */
	char	   *host;			/* REMOTE only */
	char	   *path;			/* LOCAL and REMOTE */
};

/*
 * Tell what an argument names: with a ':' before any '/' it is HOST:DIR; with a
 * '/', or as "." or "..", a path; else a server.  On false, err says why it is none of them.
 */
extern bool pgx_place_parse(const char *arg, struct pgx_place *ret_place, char *err, size_t err_len);
extern void pgx_place_clear(struct pgx_place *place);

/* A host name that ssh cannot take for an option or for anything but a host. */
extern bool pgx_host_valid(const char *host, char *err, size_t err_len);

/*
 * Split a line into words the way a shell does for plain text: blanks separate,
 * single quotes, double quotes and backslashes quote.  Nothing is expanded.  *ret_words
 * ends with NULL and is freed by pgx_words_free().  False: a quote is not closed.
 */
extern bool pgx_words_split(const char *line, char ***ret_words, size_t *ret_count);
extern void pgx_words_free(char ***words);

/* The text quoted for a POSIX shell; the caller frees it. */
extern char *pgx_shell_quote(const char *text);

#endif							/* PGX_OPTIONS_H */
