/*
 * rotate.c
 *		pgx_keystore keys, rotate and rekey: the life of master keys, and a new keystore key.
 */
#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef HAVE_JANSSON
#include <jansson.h>
#endif

#include "audit.h"
#include "connect.h"
#include "log.h"
#include "mem.h"
#include "prompt.h"
#include "target.h"

#define PROMPT_MORE		"Enter the passphrase of another slot to keep, or nothing: "

/* ---- keys ------------------------------------------------------------------------------ */

static void
print_key(const struct keystore_key_info *key)
{
	char		when[3][TIME_TEXT_LEN];

	printf("%4u  %-11s  %-20s  %-20s  %-20s  %-20s  %s\n", key->id, key_state_name(key->state),
		   time_text(key->created, when[0]), time_text(key->activated, when[1]),
		   time_text(key->retired, when[2]), key->origin, key->label[0] != '\0' ? key->label : "-");
}

#ifdef HAVE_JANSSON
static json_t *
json_time(int64_t when)
{
	char		buf[TIME_TEXT_LEN];

	return when == 0 ? json_null() : json_string(time_text(when, buf));
}

static json_t *
json_key(const struct keystore_key_info *key)
{
	return json_pack("{s:I, s:s, s:o, s:o, s:o, s:o, s:o, s:s, s:s}",
					 "id", (json_int_t) key->id, "state", key_state_name(key->state),
					 "created", json_time(key->created), "activated", json_time(key->activated),
					 "retired", json_time(key->retired), "compromised", json_time(key->compromised),
					 "destroyed", json_time(key->destroyed), "origin", key->origin, "label", key->label);
}
#endif

static int
print_keys(keystore *ks, const struct options *opts)
{
	size_t		count = keystore_key_count(ks);
	int			rc = PGX_EXIT_OK;
#ifdef HAVE_JANSSON
	json_t	   *all = json_array();
#endif

	if (!opts->json)
		printf("  ID  STATE        CREATED               ACTIVATED             RETIRED               ORIGIN"
			   "                LABEL\n");
	for (size_t i = 0; rc == PGX_EXIT_OK && i < count; i++)
	{
		struct keystore_key_info key;
		enum keystore_status st = keystore_get_key_info(ks, i, &key);

		if (st != KEYSTORE_OK)
			rc = pgx_log_keystore(ks, st);
#ifdef HAVE_JANSSON
		else if (opts->json)
			(void) json_array_append_new(all, json_key(&key));
#endif
		else
			print_key(&key);
	}
#ifdef HAVE_JANSSON
	if (rc == PGX_EXIT_OK && opts->json)
	{
		if (json_array_size(all) == count && json_dumpf(all, stdout, JSON_INDENT(2)) == 0)
			putchar('\n');
		else
		{
			pgx_log_error("could not make JSON of the result");
			rc = PGX_EXIT_FAILURE;
		}
	}
	json_decref(all);
#endif
	return rc;
}

/* Auto-open is for files: what a server's keystore.aks is bound to is that server's. */
static int
load_and_open(struct target *target, const struct options *opts, keystore *ks)
{
	int			rc = target_load(target, opts, ks);

	if (rc != PGX_EXIT_OK)
		return rc;
	return target->path != NULL ? open_keystore(ks, opts, target->path) :
		open_with_passphrase(ks, opts->passphrase_file);
}

int
action_keys(const struct options *opts, int n_args, char **args)
{
	struct target target;
	keystore   *ks = new_handle();
	int			rc = PGX_EXIT_FAILURE;

	memset(&target, 0, sizeof(target));
	if (json_supported(opts))
		rc = target_begin(&target, opts, n_args, args, false);
	if (rc == PGX_EXIT_OK)
		rc = load_and_open(&target, opts, ks);
	if (rc == PGX_EXIT_OK)
		rc = print_keys(ks, opts);
	keystore_free(&ks);
	target_end(&target);
	return rc;
}

/* ---- rotate ------------------------------------------------------------------------------ */

static int
apply_rotate(keystore *ks, void *arg)
{
	enum keystore_status st = keystore_add_master_key(ks, "pgx_keystore", arg);

	return st == KEYSTORE_OK ? PGX_EXIT_OK : pgx_log_keystore(ks, st);
}

/*
 * The server makes the key itself, wraps its data keys under it, and logs both for its standbys.  It needs no passphrase
 * while its keystore is open.
 */
static int
rotate_on_server(struct target *target, const struct options *opts, keystore *ks)
{
	PGresult   *res = PQexec(target->conn, "SELECT pg_catalog.pgx_set_master_key()");
	bool		ok = PQresultStatus(res) == PGRES_TUPLES_OK;
	int			rc;

	if (!ok)
		pgx_log_result(target->conn, res, "could not rotate the master encryption key");
	PQclear(res);
	if (!ok)
		return PGX_EXIT_FAILURE;
	rc = target_load(target, opts, ks);
	if (rc == PGX_EXIT_OK)
		printf("a new master encryption key has been set on %s, generation %" PRIu64 "\n", target->name,
			   keystore_get_generation(ks));
	return rc;
}

static int
rotate_file(struct target *target, const struct options *opts, keystore *ks)
{
	uint32_t	id = 0;
	int			rc = load_and_open(target, opts, ks);

	if (rc == PGX_EXIT_OK)
		rc = target_change(target, opts, ks, apply_rotate, &id);
	if (rc != PGX_EXIT_OK)
		return rc;
	pgx_audit_note("key", "%u", id);
	printf("master key %u is the active one of %s, generation %" PRIu64 "\n", id, target->name,
		   keystore_get_generation(ks));
	printf("The data keys of a server come under it with its next change of the keystore; until then they need the "
		   "former one.\n");
	return rc;
}

int
action_rotate(const struct options *opts, int n_args, char **args)
{
	struct target target;
	keystore   *ks = new_handle();
	int			rc = target_begin(&target, opts, n_args, args, true);

	if (rc == PGX_EXIT_OK)
		rc = target.path != NULL ? rotate_file(&target, opts, ks) : rotate_on_server(&target, opts, ks);
	keystore_free(&ks);
	target_end(&target);
	return rc;
}

/* ---- rekey --------------------------------------------------------------------------------- */

/* All passphrases that are to keep their slots. */
struct rekey
{
	struct target *target;
	struct pgx_passphrase *passphrases;	/* KEYSTORE_MAX_SLOTS of them */
	size_t		count;
	bool		force;
	struct keystore_slot_info dropped[KEYSTORE_MAX_SLOTS];
	size_t		n_dropped;
};

static int
read_passphrases(struct rekey *r, const struct options *opts)
{
	bool		got = true;

	if (!pgx_passphrase_read(opts->passphrase_file, PGX_PROMPT, NULL, &r->passphrases[0]))
		return PGX_EXIT_FAILURE;
	for (r->count = 1; got && r->count < KEYSTORE_MAX_SLOTS; r->count += got)
	{
		if (!pgx_passphrase_read_more(PROMPT_MORE, &r->passphrases[r->count], &got))
			return PGX_EXIT_FAILURE;
	}
	return PGX_EXIT_OK;
}

static int
refuse_dropped(const struct rekey *r)
{
	if (r->n_dropped == 0 || r->force)
		return PGX_EXIT_OK;
	pgx_log_error("%zu slots would be lost, since their passphrases were not given", r->n_dropped);
	for (size_t i = 0; i < r->n_dropped; i++)
		pgx_log_detail("Slot %u, %s, label \"%s\".", r->dropped[i].id, slot_kind_name(r->dropped[i].kind),
					   r->dropped[i].label);
	pgx_log_hint("Give every passphrase that is to be kept, or remove the slots with --force.");
	return PGX_EXIT_FAILURE;
}

static int
apply_rekey(keystore *ks, void *arg)
{
	struct rekey *r = arg;
	struct keystore_passphrase list[KEYSTORE_MAX_SLOTS];
	enum keystore_status st;

	for (size_t i = 0; i < r->count; i++)
		list[i] = (struct keystore_passphrase)
	{
		r->passphrases[i].bytes, r->passphrases[i].len
	};
	st = keystore_rekey(ks, list, r->count, r->target->envelope, r->dropped, &r->n_dropped);
	keystore_wipe(list, sizeof(list));
	if (st != KEYSTORE_OK)
		return pgx_log_keystore(ks, st);
	r->target->rekeyed = true;
	return refuse_dropped(r);
}

static int
rekey(struct rekey *r, const struct options *opts, keystore *ks)
{
	struct target *target = r->target;
	enum keystore_status st;
	int			rc = target_load(target, opts, ks);

	if (rc == PGX_EXIT_OK)
		rc = read_passphrases(r, opts);
	if (rc != PGX_EXIT_OK)
		return rc;
	st = keystore_open_passphrase(ks, r->passphrases[0].bytes, r->passphrases[0].len);
	if (st != KEYSTORE_OK)
		return pgx_log_keystore(ks, st);
	rc = target_change(target, opts, ks, apply_rekey, r);
	if (rc != PGX_EXIT_OK)
		return rc;
	pgx_audit_note("slots_removed", "%zu", r->n_dropped);
	printf("%s has a new keystore key, generation %" PRIu64 "\n", target->name, keystore_get_generation(ks));
	for (size_t i = 0; i < r->n_dropped; i++)
		printf("slot %u (%s, label \"%s\") has been removed\n", r->dropped[i].id,
			   slot_kind_name(r->dropped[i].kind), r->dropped[i].label);
	return rc;
}

/* A file's auto-open was bound to the former key.  A server sees to its own. */
static int
reseal(const struct target *target, keystore *ks)
{
	bool		resealed = false;
	enum keystore_status st;

	if (target->path == NULL)
		return PGX_EXIT_OK;
	st = keystore_auto_open_reseal(ks, target->path, &resealed);
	if (st != KEYSTORE_OK)
	{
		int			rc = pgx_log_keystore(ks, st);

		pgx_log_hint("The keystore has its new key, but does not open by itself; run \"%s auto-open enable\".",
					 pgx_progname());
		return rc;
	}
	if (resealed)
		printf("automatic opening has been enabled anew\n");
	st = keystore_rekey_end(ks, target->path);
	return st == KEYSTORE_OK ? PGX_EXIT_OK : pgx_log_keystore(ks, st);
}

int
action_rekey(const struct options *opts, int n_args, char **args)
{
	struct target target;
	struct rekey r = {.target = &target,.force = opts->force};
	keystore   *ks = new_handle();
	int			rc;

	r.passphrases = pgx_alloc(KEYSTORE_MAX_SLOTS * sizeof(*r.passphrases));
	rc = target_begin(&target, opts, n_args, args, true);
	if (rc == PGX_EXIT_OK)
		rc = rekey(&r, opts, ks);
	if (rc == PGX_EXIT_OK)
		rc = reseal(&target, ks);
	for (size_t i = 0; i < KEYSTORE_MAX_SLOTS; i++)
		pgx_passphrase_wipe(&r.passphrases[i]);
	free(r.passphrases);
	keystore_free(&ks);
	target_end(&target);
	return rc;
}
