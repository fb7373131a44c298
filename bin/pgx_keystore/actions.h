/*
 * actions.h
 *		The actions of pgx_keystore, and the options they are given.
 */
#ifndef PGX_ACTIONS_H
#define PGX_ACTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "keystore.h"

/* How long to wait for another writer of a keystore. */
#define LOCK_WAIT_MS	10000

struct options
{
	const char *from;
	const char *to;
	const char *servers;
	const char *ssh;
	const char **ssh_options;
	size_t		n_ssh_options;
	const char *remote_command;
	const char *passphrase_file;
	const char *new_passphrase_file;
	const char *host_secret;
	const char *pgdata;
	const char **wal_directories;
	size_t		n_wal_directories;
	const struct keystore_kdf_params *kdf;	/* NULL: the library's default */
	bool		force;
	bool		json;
	bool		open;
	bool		verbose;
};

/* Each returns an exit code of log.h.  args has what the action table promises. */
extern int	action_create(const struct options *opts, int n_args, char **args);
extern int	action_passwd(const struct options *opts, int n_args, char **args);
extern int	action_info(const struct options *opts, int n_args, char **args);
extern int	action_enable_auto_open(const struct options *opts, int n_args, char **args);
extern int	action_auto_open(const struct options *opts, int n_args, char **args);
extern int	action_copy(const struct options *opts, int n_args, char **args);
extern int	action_exec(const struct options *opts, int n_args, char **args);
extern int	action_receive(const struct options *opts, int n_args, char **args);

/* ---- shared by the actions ------------------------------------------------ */

/* A keystore as it travels: its bytes, and a closed handle made from them. */
struct parcel
{
	uint8_t    *bytes;
	size_t		len;
	keystore   *ks;
	uint8_t		uuid[KEYSTORE_UUID_LEN];
	char		uuid_text[KEYSTORE_UUID_STRLEN + 1];
	uint64_t	generation;
};

/* Put the parcel into a directory under all the rules of copy; prints the result line. */
extern int	parcel_store(const struct parcel *parcel, const char *dir, bool force);

/* Send it to "pgx_keystore receive" on another host. */
extern int	parcel_send(const struct parcel *parcel, const struct options *opts, const char *host,
						const char *dir);

/* A new handle; ends the program if memory is out. */
extern keystore *new_handle(void);

/* The file must bear the name under which a server looks for it. */
extern bool check_file_name(const char *path);

/* Read a passphrase and open the loaded keystore with it; an exit code. */
extern int	open_with_passphrase(keystore *ks, const char *file);

/*
 * Make a keystore directory, 0700, if it is not there.  *ret_made tells whether
 * directory_unmake() has something to undo after a later failure.
 */
extern bool directory_make(const char *dir, bool *ret_made);
extern void directory_unmake(const char *dir);

#endif							/* PGX_ACTIONS_H */
