/*
 * slots.c
 *		pgx_keystore slot, passwd and recovery-key: who can open a keystore.
 */
#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef HAVE_JANSSON
#include <jansson.h>
#endif

#include "audit.h"
#include "file.h"
#include "log.h"
#include "options.h"
#include "prompt.h"
#include "target.h"

/* What a change is to do, and what came of it. */
struct slot_change
{
	uint32_t	slot;
	const char *label;
	const struct keystore_kdf_params *kdf;
	struct pgx_passphrase new;	/* or a recovery key, until it is shown */
};

_Static_assert(KEYSTORE_RECOVERY_STRLEN < PGX_PASSPHRASE_BUF, "a recovery key has the room of a passphrase");

bool
parse_slot(const struct options *opts, uint32_t *ret_slot)
{
	if (opts->slot != NULL)
		return pgx_parse_uint(opts->slot, "--slot", 1, UINT32_MAX, ret_slot);
	pgx_log_error("no slot is specified");
	pgx_log_hint("Use --slot with the number of a slot, as \"%s slot list\" shows it.", pgx_progname());
	return false;
}

/* ---- list ---------------------------------------------------------------------------- */

static void
print_slot(const struct keystore_slot_info *slot)
{
	char		when[TIME_TEXT_LEN];

	printf("%4u  %-10s  %-20s  %s  ", slot->id, slot_kind_name(slot->kind), time_text(slot->created, when),
		   keystore_kdf_available(slot->kdf.kdf) ? " " : "!");
	print_kdf(&slot->kdf);
	printf("  %s\n", slot->label[0] != '\0' ? slot->label : "-");
}

#ifdef HAVE_JANSSON
static json_t *
json_slot(const struct keystore_slot_info *slot)
{
	char		when[TIME_TEXT_LEN];

	return json_pack("{s:i, s:s, s:s, s:s, s:{s:s, s:I, s:I, s:I, s:I, s:b}}",
					 "id", (int) slot->id, "kind", slot_kind_name(slot->kind), "label", slot->label,
					 "created", time_text(slot->created, when), "kdf",
					 "name", kdf_name(slot->kdf.kdf), "cost", (json_int_t) slot->kdf.cost,
					 "memory_kib", (json_int_t) slot->kdf.memory_kib,
					 "block_size", (json_int_t) slot->kdf.block_size,
					 "parallelism", (json_int_t) slot->kdf.parallelism,
					 "available", keystore_kdf_available(slot->kdf.kdf));
}
#endif

/* What is in the header, so no passphrase is needed. */
static int
list(struct target *target, const struct options *opts, keystore *ks)
{
	size_t		count;
	enum keystore_status st;
	int			rc = target_load(target, opts, ks);
#ifdef HAVE_JANSSON
	json_t	   *all = opts->json ? json_array() : NULL;
#endif

	if (rc != PGX_EXIT_OK)
		goto out;
	if (!opts->json)
		printf("SLOT  KIND        CREATED                  KDF  LABEL\n");
	count = keystore_slot_count(ks);
	for (size_t i = 0; rc == PGX_EXIT_OK && i < count; i++)
	{
		struct keystore_slot_info slot;

		st = keystore_get_slot(ks, i, &slot);
		if (st != KEYSTORE_OK)
			rc = pgx_log_keystore(ks, st);
#ifdef HAVE_JANSSON
		else if (opts->json)
			(void) json_array_append_new(all, json_slot(&slot));
#endif
		else
			print_slot(&slot);
	}
#ifdef HAVE_JANSSON
	if (opts->json && rc == PGX_EXIT_OK)
	{
		if (json_array_size(all) == count && json_dumpf(all, stdout, JSON_INDENT(2)) == 0)
			putchar('\n');
		else
		{
			pgx_log_error("could not make JSON of the result");
			rc = PGX_EXIT_FAILURE;
		}
	}
#endif

out:
#ifdef HAVE_JANSSON
	json_decref(all);
#endif
	return rc;
}

/* ---- changes --------------------------------------------------------------------------- */

static int
done(keystore *ks, enum keystore_status st)
{
	return st == KEYSTORE_OK ? PGX_EXIT_OK : pgx_log_keystore(ks, st);
}

static int
apply_add(keystore *ks, void *arg)
{
	struct slot_change *c = arg;

	return done(ks, keystore_add_passphrase(ks, c->new.bytes, c->new.len, c->label, c->kdf, &c->slot));
}

static int
apply_recovery_key(keystore *ks, void *arg)
{
	struct slot_change *c = arg;

	return done(ks, keystore_add_recovery_key(ks, c->label, c->kdf, c->new.bytes, &c->slot));
}

static int
apply_change(keystore *ks, void *arg)
{
	struct slot_change *c = arg;

	return done(ks, keystore_change_slot(ks, c->slot, c->new.bytes, c->new.len, c->kdf));
}

static int
apply_remove(keystore *ks, void *arg)
{
	struct slot_change *c = arg;

	return done(ks, keystore_remove_slot(ks, c->slot));
}

static int
apply_label(keystore *ks, void *arg)
{
	struct slot_change *c = arg;

	return done(ks, keystore_set_slot_label(ks, c->slot, c->label));
}

/* Load and open with a passphrase or recovery key, which is asked for first. */
static int
open_target(struct target *target, const struct options *opts, keystore *ks)
{
	int			rc = target_load(target, opts, ks);

	return rc == PGX_EXIT_OK ? open_with_passphrase(ks, opts->passphrase_file) : rc;
}

static int
read_new(const struct options *opts, struct slot_change *c)
{
	return pgx_passphrase_read(opts->new_passphrase_file, PGX_PROMPT_NEW, PGX_PROMPT_AGAIN, &c->new) ?
		PGX_EXIT_OK : PGX_EXIT_FAILURE;
}

static int
slot_add(struct target *target, const struct options *opts, keystore *ks)
{
	struct slot_change c = {.label = opts->label};
	struct keystore_kdf_params params;
	int			rc = PGX_EXIT_FAILURE;

	if (!choose_kdf(opts, &params, &c.kdf))
		return rc;
	rc = open_target(target, opts, ks);
	if (rc == PGX_EXIT_OK)
		rc = read_new(opts, &c);
	if (rc == PGX_EXIT_OK)
		rc = target_change(target, opts, ks, apply_add, &c);
	pgx_passphrase_wipe(&c.new);
	if (rc != PGX_EXIT_OK)
		return rc;
	pgx_audit_note("slot", "%u", c.slot);
	printf("slot %u has been added to %s, generation %" PRIu64 "\n", c.slot, target->name,
		   keystore_get_generation(ks));
	return rc;
}

static int
slot_change(struct target *target, const struct options *opts, keystore *ks)
{
	struct slot_change c = {0};
	struct keystore_kdf_params params;
	int			rc = PGX_EXIT_FAILURE;

	if (!parse_slot(opts, &c.slot) || !choose_kdf(opts, &params, &c.kdf))
		return rc;
	pgx_audit_note("slot", "%u", c.slot);
	rc = open_target(target, opts, ks);
	if (rc == PGX_EXIT_OK)
		rc = read_new(opts, &c);
	if (rc == PGX_EXIT_OK)
		rc = target_change(target, opts, ks, apply_change, &c);
	pgx_passphrase_wipe(&c.new);
	if (rc == PGX_EXIT_OK)
		printf("the passphrase of slot %u of %s has been changed, generation %" PRIu64 "\n", c.slot,
			   target->name, keystore_get_generation(ks));
	return rc;
}

static int
slot_remove(struct target *target, const struct options *opts, keystore *ks)
{
	struct slot_change c = {0};
	int			rc = PGX_EXIT_FAILURE;

	if (!parse_slot(opts, &c.slot))
		return rc;
	pgx_audit_note("slot", "%u", c.slot);
	rc = open_target(target, opts, ks);
	if (rc == PGX_EXIT_OK)
		rc = target_change(target, opts, ks, apply_remove, &c);
	if (rc != PGX_EXIT_OK)
		return rc;
	printf("slot %u has been removed from %s, generation %" PRIu64 "\n", c.slot, target->name,
		   keystore_get_generation(ks));
	return rc;
}

static int
slot_label(struct target *target, const struct options *opts, keystore *ks)
{
	struct slot_change c = {.label = opts->label};
	int			rc = PGX_EXIT_FAILURE;

	if (!parse_slot(opts, &c.slot))
		return rc;
	if (c.label == NULL)
	{
		pgx_log_error("no label is specified");
		pgx_log_hint("Use --label.");
		return rc;
	}
	pgx_audit_note("slot", "%u", c.slot);
	rc = open_target(target, opts, ks);
	if (rc == PGX_EXIT_OK)
		rc = target_change(target, opts, ks, apply_label, &c);
	if (rc == PGX_EXIT_OK)
		printf("slot %u of %s is now labelled \"%s\", generation %" PRIu64 "\n", c.slot, target->name,
			   c.label, keystore_get_generation(ks));
	return rc;
}

struct slot_operation
{
	const char *name;
	int			(*run) (struct target *target, const struct options *opts, keystore *ks);
	const char *event;			/* NULL: it changes nothing */
};

static const struct slot_operation operations[] = {
	{"list", list, NULL},
	{"add", slot_add, "add-slot"},
	{"change", slot_change, "change-passphrase"},
	{"remove", slot_remove, "remove-slot"},
	{"label", slot_label, "label-slot"},
};

static int
run_operation(const struct slot_operation *op, const struct options *opts, int n_args, char **args)
{
	struct target target;
	keystore   *ks = new_handle();
	int			rc;

	pgx_audit_event(op->event);
	if (opts->label != NULL)
		pgx_audit_note("label", "%s", opts->label);
	rc = target_begin(&target, opts, n_args, args, op->event != NULL);
	if (rc == PGX_EXIT_OK)
		rc = op->run(&target, opts, ks);
	keystore_free(&ks);
	target_end(&target);
	return rc;
}

int
action_slot(const struct options *opts, int n_args, char **args)
{
	if (!json_supported(opts))
		return PGX_EXIT_FAILURE;
	for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++)
	{
		if (strcmp(args[0], operations[i].name) == 0)
			return run_operation(&operations[i], opts, n_args - 1, args + 1);
	}
	pgx_audit_event(NULL);
	pgx_log_error("unknown operation \"slot %s\"", args[0]);
	pgx_log_hint("Known are \"list\", \"add\", \"change\", \"remove\" and \"label\".");
	return PGX_EXIT_FAILURE;
}

/* ---- passwd: the slot that the passphrase opens ------------------------------------------ */

static bool
is_recovery_slot(keystore *ks, uint32_t id)
{
	for (size_t i = 0; i < keystore_slot_count(ks); i++)
	{
		struct keystore_slot_info slot;

		if (keystore_get_slot(ks, i, &slot) == KEYSTORE_OK && slot.id == id)
			return slot.kind == KEYSTORE_SLOT_RECOVERY;
	}
	return false;
}

static int
change_own(struct target *target, const struct options *opts, keystore *ks)
{
	struct slot_change c = {0};
	struct keystore_kdf_params params;
	int			rc = PGX_EXIT_FAILURE;

	if (!choose_kdf(opts, &params, &c.kdf))
		return rc;
	/* A wrong passphrase is told before a new one is asked for. */
	rc = open_target(target, opts, ks);
	if (rc != PGX_EXIT_OK)
		return rc;
	c.slot = keystore_opened_slot(ks);
	pgx_audit_note("slot", "%u", c.slot);
	if (is_recovery_slot(ks, c.slot))
	{
		pgx_log_error("a recovery key cannot be changed");
		pgx_log_hint("To give a custodian a new passphrase, use \"%s slot change --slot ID\" or \"%s slot add\".",
					 pgx_progname(), pgx_progname());
		return PGX_EXIT_FAILURE;
	}
	rc = read_new(opts, &c);
	if (rc == PGX_EXIT_OK)
		rc = target_change(target, opts, ks, apply_change, &c);
	pgx_passphrase_wipe(&c.new);
	if (rc == PGX_EXIT_OK)
		printf("the passphrase of %s has been changed, generation %" PRIu64 "\n", target->name,
			   keystore_get_generation(ks));
	return rc;
}

int
action_passwd(const struct options *opts, int n_args, char **args)
{
	static const struct slot_operation op = {"passwd", change_own, "change-passphrase"};

	return run_operation(&op, opts, n_args, args);
}

/* ---- recovery-key ------------------------------------------------------------------------ */

static bool
show_recovery_key(const struct slot_change *c, bool alone)
{
	static const char after[] = "\n\nWrite it down, and keep it apart from the keystore.  It is not shown again.\n";
	char		before[64];
	int			len = snprintf(before, sizeof(before), "Recovery key of slot %u:\n\n    ", c->slot);

	if (alone)
		return pgx_write_out(c->new.bytes, strlen(c->new.bytes)) && pgx_write_out("\n", 1);
	return pgx_write_out(before, (size_t) len) && pgx_write_out(c->new.bytes, strlen(c->new.bytes)) &&
		pgx_write_out(after, sizeof(after) - 1);
}

static int
add_recovery_key(struct target *target, const struct options *opts, keystore *ks)
{
	struct slot_change c = {.label = opts->label};
	struct keystore_kdf_params params;
	int			rc = PGX_EXIT_FAILURE;

	if (isatty(STDOUT_FILENO) != 1 && !opts->to_stdout)
	{
		pgx_log_error("the recovery key is shown on a terminal only");
		pgx_log_hint("To have it on standard output all the same, use --stdout, and see to where that goes.");
		return rc;
	}
	if (!choose_kdf(opts, &params, &c.kdf))
		return rc;
	if (!pgx_passphrase_alloc(&c.new))
		return rc;
	rc = open_target(target, opts, ks);
	if (rc == PGX_EXIT_OK)
		rc = target_change(target, opts, ks, apply_recovery_key, &c);
	if (rc == PGX_EXIT_OK)
	{
		/* Only now: a key that was shown is in the keystore. */
		pgx_audit_note("slot", "%u", c.slot);
		if (!show_recovery_key(&c, opts->to_stdout))
		{
			rc = PGX_EXIT_FAILURE;
			pgx_log_hint("Remove slot %u, whose recovery key nobody knows.", c.slot);
		}
	}
	pgx_passphrase_wipe(&c.new);
	return rc;
}

int
action_recovery_key(const struct options *opts, int n_args, char **args)
{
	static const struct slot_operation op = {"add", add_recovery_key, "add-recovery-key"};

	if (strcmp(args[0], op.name) == 0)
		return run_operation(&op, opts, n_args - 1, args + 1);
	pgx_audit_event(NULL);
	pgx_log_error("unknown operation \"recovery-key %s\"", args[0]);
	pgx_log_hint("Known is \"add\"; to remove one, use \"%s slot remove\".", pgx_progname());
	return PGX_EXIT_FAILURE;
}
