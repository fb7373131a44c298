/*
 * compare.c
 *		pgx_keystore compare: what differs between two copies of a keystore.
 *
 * The header tells without a passphrase whether two files are of one keystore, which of them is newer, and
 * whether the same slots are in both; opened, the histories of master keys are compared too.
 */
#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "actions.h"
#include "audit.h"
#include "connect.h"
#include "file.h"
#include "log.h"
#include "mem.h"
#include "options.h"
#include "servers.h"

struct side
{
	const char *arg;
	struct parcel parcel;
};

/* From a running server by its conninfo, where the file is on another host. */
static int
fetch(struct parcel *parcel, const struct pgx_server *server)
{
	PGconn	   *conn;
	char	   *where;
	int			rc = PGX_EXIT_FAILURE;

	if (server->conninfo == NULL)
	{
		pgx_log_error("the keystore of server \"%s\" is on host \"%s\"", server->name, server->host);
		pgx_log_hint("Give the server a conninfo in the servers file, so that it can be asked for it.");
		return PGX_EXIT_FAILURE;
	}
	conn = pgx_connect(server->conninfo);
	if (conn == NULL)
		return PGX_EXIT_FAILURE;
	where = pgx_printf("keystore of server %s", server->name);
	if (pgx_fetch_keystore(conn, &parcel->bytes, &parcel->len))
		rc = parcel_fill(parcel, where);
	free(where);
	PQfinish(conn);
	return rc;
}

static int
load_side(struct side *side, const struct options *opts)
{
	struct pgx_servers servers = {NULL, NULL, 0};
	const struct pgx_server *server;
	struct pgx_place place;
	struct stat st;
	char		why[512];
	char	   *path = NULL;
	int			rc = PGX_EXIT_FAILURE;

	if (!pgx_place_parse(side->arg, &place, why, sizeof(why)))
	{
		pgx_log_error("invalid argument: %s", why);
		return rc;
	}
	if (place.kind == PGX_PLACE_REMOTE)
		pgx_log_error("\"%s\" is on another host; name a server of the servers file that has a conninfo",
					  side->arg);
	else if (place.kind == PGX_PLACE_LOCAL)
		path = stat(place.path, &st) == 0 && S_ISDIR(st.st_mode) ?
			pgx_join(place.path, KEYSTORE_FILE_NAME) : pgx_strdup(place.path);
	else if (pgx_servers_read(opts->servers, &servers) &&
			 (server = pgx_servers_find(&servers, place.name)) != NULL)
	{
		if (server->host != NULL)
			rc = fetch(&side->parcel, server);
		else
			path = pgx_join(server->keystore, KEYSTORE_FILE_NAME);
	}
	if (path != NULL)
		rc = parcel_read(&side->parcel, path);
	free(path);
	pgx_servers_clear(&servers);
	pgx_place_clear(&place);
	return rc;
}

static bool
get_slot(keystore *ks, uint32_t id, struct keystore_slot_info *ret_slot)
{
	for (size_t i = 0; i < keystore_slot_count(ks); i++)
	{
		if (keystore_get_slot(ks, i, ret_slot) == KEYSTORE_OK && ret_slot->id == id)
			return true;
	}
	return false;
}

static bool
get_key(keystore *ks, uint32_t id, struct keystore_key_info *ret_key)
{
	for (size_t i = 0; i < keystore_key_count(ks); i++)
	{
		if (keystore_get_key_info(ks, i, ret_key) == KEYSTORE_OK && ret_key->id == id)
			return true;
	}
	return false;
}

static bool
same_slot(const struct keystore_slot_info *a, const struct keystore_slot_info *b)
{
	return a->kind == b->kind && a->created == b->created && strcmp(a->label, b->label) == 0 &&
		a->kdf.kdf == b->kdf.kdf && a->kdf.cost == b->kdf.cost &&
		a->kdf.memory_kib == b->kdf.memory_kib && a->kdf.block_size == b->kdf.block_size &&
		a->kdf.parallelism == b->kdf.parallelism;
}

/* Print the slots of one that the other has not, or not the same.  both: say also what differs. */
static void
compare_slots(struct side *one, struct side *other, bool both)
{
	for (size_t i = 0; i < keystore_slot_count(one->parcel.ks); i++)
	{
		struct keystore_slot_info a;
		struct keystore_slot_info b;

		if (keystore_get_slot(one->parcel.ks, i, &a) != KEYSTORE_OK)
			continue;
		if (!get_slot(other->parcel.ks, a.id, &b))
			printf("slot %u (%s, label \"%s\") is only in %s\n", a.id, slot_kind_name(a.kind), a.label,
				   one->arg);
		else if (both && !same_slot(&a, &b))
			printf("slot %u differs\n", a.id);
	}
}

static bool
same_key(struct side *one, struct side *other, uint32_t id)
{
	uint8_t		a[KEYSTORE_KEY_LEN];
	uint8_t		b[KEYSTORE_KEY_LEN];
	bool		same = keystore_get_master_key(one->parcel.ks, id, a) == KEYSTORE_OK &&
		keystore_get_master_key(other->parcel.ks, id, b) == KEYSTORE_OK &&
		memcmp(a, b, sizeof(a)) == 0;

	keystore_wipe(a, sizeof(a));
	keystore_wipe(b, sizeof(b));
	return same;
}

static void
compare_keys(struct side *one, struct side *other, bool both)
{
	for (size_t i = 0; i < keystore_key_count(one->parcel.ks); i++)
	{
		struct keystore_key_info a;
		struct keystore_key_info b;

		if (keystore_get_key_info(one->parcel.ks, i, &a) != KEYSTORE_OK)
			continue;
		if (!get_key(other->parcel.ks, a.id, &b))
			printf("master key %u (%s) is only in %s\n", a.id, key_state_name(a.state), one->arg);
		else if (both && a.state != b.state)
			printf("master key %u is %s in %s, but %s in %s\n", a.id, key_state_name(a.state), one->arg,
				   key_state_name(b.state), other->arg);
		else if (both && a.state != KEYSTORE_KEY_DESTROYED && !same_key(one, other, a.id))
			printf("master key %u is another key in %s than in %s\n", a.id, one->arg, other->arg);
	}
}

/* Open both: a passphrase is asked for once, since the second mostly opens with the first one's key. */
static int
open_both(struct side *a, struct side *b, const struct options *opts)
{
	uint8_t		ksk[KEYSTORE_KEY_LEN];
	enum keystore_status st;
	int			rc = open_with_passphrase(a->parcel.ks, opts->passphrase_file);

	if (rc != PGX_EXIT_OK)
		return rc;
	st = keystore_get_ksk(a->parcel.ks, ksk);
	if (st == KEYSTORE_OK)
		st = keystore_open_ksk(b->parcel.ks, ksk);
	keystore_wipe(ksk, sizeof(ksk));
	return st == KEYSTORE_OK ? PGX_EXIT_OK : pgx_log_keystore(b->parcel.ks, st);
}

static int
compare(struct side *a, struct side *b, const struct options *opts)
{
	bool		same_bytes = a->parcel.len == b->parcel.len &&
		memcmp(a->parcel.bytes, b->parcel.bytes, a->parcel.len) == 0;
	int			rc;

	if (memcmp(a->parcel.uuid, b->parcel.uuid, KEYSTORE_UUID_LEN) != 0)
	{
		printf("different keystores: %s is %s, %s is %s\n", a->arg, a->parcel.uuid_text, b->arg,
			   b->parcel.uuid_text);
		return PGX_EXIT_FAILURE;
	}
	if (same_bytes)
	{
		printf("the same: keystore %s, generation %" PRIu64 "\n", a->parcel.uuid_text,
			   a->parcel.generation);
		return PGX_EXIT_OK;
	}
	if (opts->open && (rc = open_both(a, b, opts)) != PGX_EXIT_OK)
		return rc;
	if (a->parcel.generation == b->parcel.generation)
		printf("other contents under the same generation %" PRIu64 "\n", a->parcel.generation);
	else
		printf("%s is older: generation %" PRIu64 ", but %s has %" PRIu64 "\n",
			   a->parcel.generation < b->parcel.generation ? a->arg : b->arg,
			   a->parcel.generation < b->parcel.generation ? a->parcel.generation : b->parcel.generation,
			   a->parcel.generation < b->parcel.generation ? b->arg : a->arg,
			   a->parcel.generation < b->parcel.generation ? b->parcel.generation : a->parcel.generation);
	compare_slots(a, b, true);
	compare_slots(b, a, false);
	if (opts->open)
	{
		compare_keys(a, b, true);
		compare_keys(b, a, false);
	}
	return PGX_EXIT_FAILURE;
}

int
action_compare(const struct options *opts, int n_args, char **args)
{
	struct side sides[2];
	int			rc;

	memset(sides, 0, sizeof(sides));
	sides[0].arg = args[0];
	sides[1].arg = args[1];
	if (!opts->open)
		pgx_audit_event(NULL);
	rc = load_side(&sides[0], opts);
	if (rc == PGX_EXIT_OK)
		rc = load_side(&sides[1], opts);
	if (rc == PGX_EXIT_OK)
		rc = compare(&sides[0], &sides[1], opts);
	parcel_clear(&sides[0].parcel);
	parcel_clear(&sides[1].parcel);
	return rc;
}
