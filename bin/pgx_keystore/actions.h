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

struct text_list
{
	const char **items;
	size_t		count;
};

/* As given; who uses an option checks it. */
struct options
{
	const char *from;
	const char *to;
	const char *servers;
	const char *ssh;
	struct text_list ssh_options;
	const char *remote_command;
	const char *passphrase_file;
	const char *new_passphrase_file;
	const char *host_secret;
	const char *pgdata;
	struct text_list wal_directories;
	const char *kdf_name;
	const char *kdf_cost;
	const char *kdf_time;
	const char *dbname;
	const char *label;
	const char *slot;
	const char *key_id;
	const char *length;
	const char *format;
	const char *purpose;
	const char *timeout;
	const char *seal;
	const char *pcrs;
	const char *tpm2_device;
	const char *credential;
	const char *audit_file;
	struct text_list backups;
	bool		fips;
	bool		force;
	bool		force_terminal;
	bool		json;
	bool		master_key;
	bool		open;
	bool		to_stdout;
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
extern int	action_open(const struct options *opts, int n_args, char **args);
extern int	action_receive(const struct options *opts, int n_args, char **args);

extern int	action_status(const struct options *opts, int n_args, char **args);
extern int	action_compare(const struct options *opts, int n_args, char **args);
extern int	action_slot(const struct options *opts, int n_args, char **args);
extern int	action_recovery_key(const struct options *opts, int n_args, char **args);
extern int	action_benchmark(const struct options *opts, int n_args, char **args);
extern int	action_keys(const struct options *opts, int n_args, char **args);
extern int	action_rotate(const struct options *opts, int n_args, char **args);
extern int	action_rekey(const struct options *opts, int n_args, char **args);
extern int	action_destroy(const struct options *opts, int n_args, char **args);
extern int	action_backup(const struct options *opts, int n_args, char **args);
extern int	action_verify(const struct options *opts, int n_args, char **args);
extern int	action_repair(const struct options *opts, int n_args, char **args);
extern int	action_get_key(const struct options *opts, int n_args, char **args);

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

/* Read a keystore file into a parcel; an exit code. */
extern int	parcel_read(struct parcel *parcel, const char *path);
extern int	parcel_fill(struct parcel *parcel, const char *where);	/* the bytes are there already */
extern void parcel_clear(struct parcel *parcel);

/* A new handle; ends the program if memory is out. */
extern keystore *new_handle(void);

/* The file must bear the name under which a server looks for it. */
extern bool check_file_name(const char *path);

/*
 * Load the keystore with what the options say about auto-open set; an exit code.  Notes it for the
 * audit line.
 */
extern int	load_keystore(keystore *ks, const struct options *opts, const char *path);

/* Open the loaded keystore through keystore.aks where that works, else with the passphrase; an exit code. */
extern int	open_keystore(keystore *ks, const struct options *opts, const char *path);

/*
 * The KDF that the options ask for, *ret_kdf NULL for the library's default; params has room for it.  False after a
 * message.
 */
extern bool choose_kdf(const struct options *opts, struct keystore_kdf_params *params,
					   const struct keystore_kdf_params **ret_kdf);

/* The part of that which costs nothing: are the options in order?  False after a message. */
extern bool check_kdf_options(const struct options *opts);

/* "scrypt N=2^17 r=8 p=1" */
extern void print_kdf(const struct keystore_kdf_params *kdf);

/* The number that --slot gives; false after a message, also if it is missing. */
extern bool parse_slot(const struct options *opts, uint32_t *ret_slot);

/* ISO 8601 in UTC, so that two servers' outputs compare; "-" for no time.  Returns buf. */
#define TIME_TEXT_LEN	32
extern const char *time_text(int64_t when, char buf[TIME_TEXT_LEN]);

/* Words for what the library numbers. */
extern const char *kdf_name(enum keystore_kdf kdf);
extern const char *slot_kind_name(enum keystore_slot_kind kind);
extern const char *key_state_name(enum keystore_key_state state);

/* Refuse --json where there is no library for it. */
extern bool json_supported(const struct options *opts);

/* Read a passphrase and open the loaded keystore with it; an exit code. */
extern int	open_with_passphrase(keystore *ks, const char *file);

/*
 * Make a keystore directory, 0700, if it is not there.  *ret_made tells whether
 * directory_unmake() has something to undo after a later failure.
 */
extern bool directory_make(const char *dir, bool *ret_made);
extern void directory_unmake(const char *dir);

#endif							/* PGX_ACTIONS_H */
