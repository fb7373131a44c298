/*
 * copy.c
 *		pgx_keystore copy and receive: put a server's keystore into another
 *		server's keystore directory.
 *
 * A copy needs no passphrase, since the file is ciphertext.  What must not happen is that a
 * copy destroys the only keystore that opens somebody's data, so anything but an
 * older state of the same keystore is left alone.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "actions.h"
#include "audit.h"
#include "file.h"
#include "log.h"
#include "mem.h"
#include "options.h"
#include "servers.h"

#define DEFAULT_SOURCE	"primary"

/* Take the bytes and parse them; where names their origin in messages. */
int
parcel_fill(struct parcel *parcel, const char *where)
{
	enum keystore_status st;

	if (parcel->ks == NULL)
		parcel->ks = new_handle();
	st = keystore_load_bytes(parcel->ks, parcel->bytes, parcel->len, where);
	if (st != KEYSTORE_OK)
		return pgx_log_keystore(parcel->ks, st);
	keystore_get_uuid(parcel->ks, parcel->uuid);
	keystore_uuid_text(parcel->uuid, parcel->uuid_text);
	parcel->generation = keystore_get_generation(parcel->ks);
	pgx_audit_keystore(parcel->ks);
	return PGX_EXIT_OK;
}

/*
 * Read a keystore file under the library's rules for modes and owner.  The
 * bytes are read once more by ourselves, since it is those, not what the
 * library makes of them, that must arrive.
 */
int
parcel_read(struct parcel *parcel, const char *path)
{
	enum keystore_status st;

	parcel->ks = new_handle();
	st = keystore_load(parcel->ks, path);
	if (st != KEYSTORE_OK)
		return pgx_log_keystore(parcel->ks, st);
	if (!pgx_file_read(path, KEYSTORE_MAX_FILE_SIZE, S_IRWXG | S_IRWXO, "0600",
					   &parcel->bytes, &parcel->len))
		return PGX_EXIT_FAILURE;
	return parcel_fill(parcel, path);
}

void
parcel_clear(struct parcel *parcel)
{
	free(parcel->bytes);
	keystore_free(&parcel->ks);
	memset(parcel, 0, sizeof(*parcel));
}

/* Is what lies at path these very bytes? */
static bool
holds_bytes(const char *path, const struct parcel *parcel)
{
	uint8_t    *bytes = NULL;
	size_t		len = 0;
	bool		same;

	if (!pgx_file_read(path, KEYSTORE_MAX_FILE_SIZE, S_IRWXG | S_IRWXO, "0600", &bytes, &len))
		return false;
	same = len == parcel->len && memcmp(bytes, parcel->bytes, len) == 0;
	free(bytes);
	return same;
}

static void
hint_force(void)
{
	pgx_log_hint("To replace it all the same, use --force; it is then kept as \"%s\".",
				 KEYSTORE_PREV_NAME);
}

/* May the keystore at path be replaced?  *ret_same: it is the same already. */
static int
check_replaceable(const struct parcel *parcel, const char *path, bool force, bool *ret_same)
{
	keystore   *there = new_handle();
	enum keystore_status st = keystore_load(there, path);
	uint8_t		uuid[KEYSTORE_UUID_LEN];
	char		uuid_text[KEYSTORE_UUID_STRLEN + 1];
	uint64_t	generation;
	int			rc = PGX_EXIT_FAILURE;

	*ret_same = false;
	if (force && (st == KEYSTORE_EDAMAGED || st == KEYSTORE_EFORMAT || st == KEYSTORE_EVERSION))
	{
		rc = PGX_EXIT_OK;
		goto out;
	}
	if (st != KEYSTORE_OK)
	{
		rc = pgx_log_keystore(there, st);
		goto out;
	}
	generation = keystore_get_generation(there);
	keystore_get_uuid(there, uuid);
	keystore_uuid_text(uuid, uuid_text);
	if (memcmp(uuid, parcel->uuid, sizeof(uuid)) == 0)
	{
		*ret_same = generation == parcel->generation && holds_bytes(path, parcel);
		if (force || *ret_same || generation < parcel->generation)
		{
			rc = PGX_EXIT_OK;
			goto out;
		}
		if (generation > parcel->generation)
			pgx_log_error("target keystore \"%s\" is newer than the source", path);
		else
			pgx_log_error("target keystore \"%s\" has the generation of the source, but other contents",
						  path);
		pgx_log_detail("The target has generation %" PRIu64 ", the source %" PRIu64 ".", generation,
					   parcel->generation);
		hint_force();
	}
	else if (force)
		rc = PGX_EXIT_OK;
	else
	{
		pgx_log_error("target \"%s\" is another keystore", path);
		pgx_log_detail("The target has UUID %s, the source %s.", uuid_text, parcel->uuid_text);
		hint_force();
	}

out:
	keystore_free(&there);
	return rc;
}

/* Under the target's lock. */
static int
store_locked(const struct parcel *parcel, const char *path, bool force)
{
	struct stat st_file;
	enum keystore_status st;
	bool		same = false;
	int			rc;

	if (lstat(path, &st_file) == 0)
	{
		rc = check_replaceable(parcel, path, force, &same);
		if (rc != PGX_EXIT_OK)
			return rc;
	}
	else if (errno != ENOENT)
	{
		pgx_log_error("could not stat file \"%s\": %m", path);
		return PGX_EXIT_FAILURE;
	}
	if (same)
	{
		printf("keystore %s generation %" PRIu64 " is already up to date in \"%s\"\n",
			   parcel->uuid_text, parcel->generation, path);
		return PGX_EXIT_OK;
	}
	st = keystore_store_bytes(parcel->ks, path, parcel->bytes, parcel->len);
	if (st != KEYSTORE_OK)
		return pgx_log_keystore(parcel->ks, st);
	if (!holds_bytes(path, parcel))
	{
		pgx_log_error("what is in file \"%s\" is not what was written", path);
		return PGX_EXIT_FAILURE;
	}
	printf("keystore %s generation %" PRIu64 " has been copied to \"%s\"\n", parcel->uuid_text,
		   parcel->generation, path);
	return PGX_EXIT_OK;
}

/* The sealed key of another server is of no use here, so it was not copied; say what is. */
static void
print_next_step(const char *path)
{
	char	   *real = realpath(path, NULL);

	printf("To let that server open it without a passphrase, run there, as the server's user:\n"
		   "    %s --enable-auto-open %s\n", pgx_progname(), real != NULL ? real : path);
	free(real);
}

int
parcel_store(const struct parcel *parcel, const char *dir, bool force)
{
	char	   *path = pgx_join(dir, KEYSTORE_FILE_NAME);
	enum keystore_status st;
	bool		made = false;
	int			lock = -1;
	int			rc = PGX_EXIT_FAILURE;

	if (!pgx_outside_cluster(dir) || !directory_make(dir, &made))
		goto out;
	st = keystore_check_directory(parcel->ks, dir);
	if (st == KEYSTORE_OK)
		st = keystore_lock(parcel->ks, path, LOCK_WAIT_MS, &lock);
	if (st != KEYSTORE_OK)
	{
		rc = pgx_log_keystore(parcel->ks, st);
		goto out;
	}
	rc = store_locked(parcel, path, force);
	keystore_unlock(lock);
	if (rc == PGX_EXIT_OK)
		print_next_step(path);

out:
	if (rc != PGX_EXIT_OK && made)
		directory_unmake(dir);
	free(path);
	return rc;
}

int
action_receive(const struct options *opts, int n_args, char **args)
{
	struct parcel parcel;
	int			rc = PGX_EXIT_FAILURE;

	memset(&parcel, 0, sizeof(parcel));
	pgx_audit_note("to", "%s", args[0]);
	if (pgx_fd_read_all(STDIN_FILENO, "the keystore on standard input", KEYSTORE_MAX_FILE_SIZE,
						&parcel.bytes, &parcel.len))
		rc = parcel_fill(&parcel, "standard input");
	if (rc == PGX_EXIT_OK)
		rc = parcel_store(&parcel, args[0], opts->force);
	parcel_clear(&parcel);
	return rc;
}

static bool
same_inode(const char *a, const char *b)
{
	struct stat st_a;
	struct stat st_b;

	return stat(a, &st_a) == 0 && stat(b, &st_b) == 0 &&
		st_a.st_dev == st_b.st_dev && st_a.st_ino == st_b.st_ino;
}

/* Refuse a copy onto itself, by whatever names the two are reached. */
static bool
check_distinct(const char *source, const char *target_dir)
{
	char	   *source_dir = pgx_dirname(source);
	char	   *target = pgx_join(target_dir, KEYSTORE_FILE_NAME);
	bool		distinct = false;

	if (same_inode(source_dir, target_dir))
		pgx_log_error("source and target are the same directory \"%s\"", target_dir);
	else if (same_inode(source, target))
		pgx_log_error("source and target are the same file \"%s\"", target);
	else
		distinct = true;
	if (!distinct)
		pgx_log_hint("Each server has a keystore directory of its own.");
	free(source_dir);
	free(target);
	return distinct;
}

/* The file to copy, or NULL after a message. */
static char *
resolve_source(const struct pgx_place *place, const struct pgx_servers *servers)
{
	const struct pgx_server *server;
	struct stat st;

	switch (place->kind)
	{
		case PGX_PLACE_LOCAL:
			if (stat(place->path, &st) == 0 && S_ISDIR(st.st_mode))
				return pgx_join(place->path, KEYSTORE_FILE_NAME);
			return pgx_strdup(place->path);
		case PGX_PLACE_SERVER:
			server = pgx_servers_find(servers, place->name);
			if (server == NULL)
				return NULL;
			if (server->host == NULL)
				return pgx_join(server->keystore, KEYSTORE_FILE_NAME);
			pgx_log_error("the keystore of server \"%s\" is on host \"%s\"", server->name, server->host);
			break;
		case PGX_PLACE_REMOTE:
			pgx_log_error("the source is on host \"%s\"", place->host);
			break;
	}
	pgx_log_hint("A keystore is sent, never fetched: run the command on that host, with --from FILE.");
	return NULL;
}

/* Replace a server's name by where its keystore is. */
static bool
resolve_target(struct pgx_place *place, const struct pgx_servers *servers)
{
	const struct pgx_server *server;

	if (place->kind != PGX_PLACE_SERVER)
		return true;
	server = pgx_servers_find(servers, place->name);
	if (server == NULL)
		return false;
	place->path = pgx_strdup(server->keystore);
	place->host = server->host != NULL ? pgx_strdup(server->host) : NULL;
	place->kind = server->host != NULL ? PGX_PLACE_REMOTE : PGX_PLACE_LOCAL;
	return true;
}

static bool
parse_place(const char *option, const char *arg, struct pgx_place *ret_place)
{
	char		why[512];

	if (pgx_place_parse(arg, ret_place, why, sizeof(why)))
		return true;
	pgx_log_error("invalid value for option %s: %s", option, why);
	return false;
}

/* Put the parcel to one target, whose name is resolved. */
static int
copy_to(const struct parcel *parcel, const struct options *opts, const char *source,
		const struct pgx_place *to)
{
	if (to->kind == PGX_PLACE_LOCAL && !check_distinct(source, to->path))
		return PGX_EXIT_FAILURE;
	pgx_log_verbose("copying \"%s\" to \"%s\"%s%s", source, to->path,
					to->host != NULL ? " on host " : "", to->host != NULL ? to->host : "");
	if (to->kind == PGX_PLACE_LOCAL)
		return parcel_store(parcel, to->path, opts->force);
	return parcel_send(parcel, opts, to->host, to->path);
}

/*
 * To every other server of the servers file.  One that cannot be reached does not keep the others from getting
 * theirs; the worst exit code is that of the whole.
 */
static int
copy_to_all(const struct parcel *parcel, const struct options *opts, const char *source,
			const char *source_name, const struct pgx_servers *servers)
{
	size_t		done = 0;
	size_t		failed = 0;
	int			rc = PGX_EXIT_OK;

	for (size_t i = 0; i < servers->count; i++)
	{
		const struct pgx_server *server = &servers->servers[i];
		struct pgx_place to = {
			.kind = server->host != NULL ? PGX_PLACE_REMOTE : PGX_PLACE_LOCAL,
			.host = server->host,.path = server->keystore
		};
		char	   *there = pgx_join(server->keystore, KEYSTORE_FILE_NAME);
		bool		is_source = source_name != NULL ? strcmp(server->name, source_name) == 0 :
			server->host == NULL && same_inode(source, there);
		int			one;

		free(there);
		if (is_source)
			continue;
		one = copy_to(parcel, opts, source, &to);
		if (one == PGX_EXIT_OK)
			done++;
		else
		{
			failed++;
			pgx_log_detail("The keystore was not copied to server \"%s\".", server->name);
			rc = one > rc ? one : rc;
		}
	}
	pgx_audit_note("servers", "%zu", done);
	if (done + failed == 0)
	{
		pgx_log_error("file \"%s\" names no server but the source", servers->path);
		return PGX_EXIT_FAILURE;
	}
	if (failed > 0)
		pgx_log_error("%zu of %zu servers did not get the keystore", failed, done + failed);
	return rc;
}

int
action_copy(const struct options *opts, int n_args, char **args)
{
	const char *from_arg = opts->from != NULL ? opts->from : DEFAULT_SOURCE;
	struct pgx_place from = {0};
	struct pgx_place to = {0};
	struct pgx_servers servers = {NULL, NULL, 0};
	struct parcel parcel;
	bool		to_all = opts->to != NULL && strcmp(opts->to, PGX_ALL_STANDBYS) == 0;
	char	   *source = NULL;
	int			rc = PGX_EXIT_FAILURE;

	memset(&parcel, 0, sizeof(parcel));
	if (opts->to == NULL)
	{
		pgx_log_error("no target is specified");
		pgx_log_hint("Name a server, a directory or HOST:DIR with --to, or \"%s\".", PGX_ALL_STANDBYS);
		goto out;
	}
	pgx_audit_note("to", "%s", opts->to);
	if (!parse_place("--from", from_arg, &from) || !parse_place("--to", opts->to, &to))
		goto out;
	if ((from.kind == PGX_PLACE_SERVER || to.kind == PGX_PLACE_SERVER) &&
		!pgx_servers_read(opts->servers, &servers))
		goto out;
	source = resolve_source(&from, &servers);
	if (source == NULL || (!to_all && !resolve_target(&to, &servers)) ||
		(!to_all && to.kind == PGX_PLACE_LOCAL && !check_distinct(source, to.path)))
		goto out;
	pgx_audit_note("keystore", "%s", source);
	rc = parcel_read(&parcel, source);
	if (rc != PGX_EXIT_OK)
		goto out;
	if (to_all)
		rc = copy_to_all(&parcel, opts, source, from.kind == PGX_PLACE_SERVER ? from.name : NULL,
						 &servers);
	else
		rc = copy_to(&parcel, opts, source, &to);

out:
	parcel_clear(&parcel);
	free(source);
	pgx_servers_clear(&servers);
	pgx_place_clear(&from);
	pgx_place_clear(&to);
	return rc;
}
