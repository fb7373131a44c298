/*
 * info.c
 *		pgx_keystore info: what a keystore says about itself.
 *
 * Everything but the list of master keys is in the clear in the header, so no
 * passphrase is needed for it.  No key material is ever printed.
 */
#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#ifdef HAVE_JANSSON
#include <jansson.h>
#endif

#include "actions.h"
#include "audit.h"
#include "file.h"
#include "log.h"

struct facts
{
	const char *path;
	char		uuid[KEYSTORE_UUID_STRLEN + 1];
	uint64_t	generation;
	int64_t		changed;
	unsigned	file_mode;
	unsigned	dir_mode;
	struct keystore_auto_open_info auto_open;
	struct keystore_backup_info backup;
	bool		fips;
	struct keystore_slot_info *slots;
	size_t		n_slots;
	struct keystore_key_info *keys; /* NULL if not asked for */
	size_t		n_keys;
};

static bool
collect_modes(const char *path, struct facts *facts)
{
	char	   *dir = pgx_dirname(path);
	struct stat file_st;
	struct stat dir_st;
	bool		ok;

	ok = stat(path, &file_st) == 0 && stat(dir, &dir_st) == 0;
	if (ok)
	{
		facts->file_mode = file_st.st_mode & 07777;
		facts->dir_mode = dir_st.st_mode & 07777;
	}
	else
		pgx_log_error("could not stat keystore \"%s\": %m", path);
	free(dir);
	return ok;
}

static enum keystore_status
collect(keystore *ks, const char *path, struct facts *facts)
{
	uint8_t		uuid[KEYSTORE_UUID_LEN];
	enum keystore_status st;
	size_t		i;

	facts->path = path;
	keystore_get_uuid(ks, uuid);
	keystore_uuid_text(uuid, facts->uuid);
	facts->generation = keystore_get_generation(ks);
	facts->changed = keystore_get_changed(ks);
	facts->fips = keystore_get_fips(ks);
	st = keystore_auto_open_status(ks, path, &facts->auto_open);
	if (st == KEYSTORE_OK)
		st = keystore_last_backup(ks, path, &facts->backup);

	facts->n_slots = keystore_slot_count(ks);
	facts->slots = calloc(facts->n_slots + 1, sizeof(*facts->slots));
	if (facts->slots == NULL)
		return KEYSTORE_ENOMEM;
	for (i = 0; st == KEYSTORE_OK && i < facts->n_slots; i++)
		st = keystore_get_slot(ks, i, &facts->slots[i]);

	if (!keystore_is_open(ks))
		return st;
	facts->n_keys = keystore_key_count(ks);
	facts->keys = calloc(facts->n_keys + 1, sizeof(*facts->keys));
	if (facts->keys == NULL)
		return KEYSTORE_ENOMEM;
	for (i = 0; st == KEYSTORE_OK && i < facts->n_keys; i++)
		st = keystore_get_key_info(ks, i, &facts->keys[i]);
	return st;
}

static void
print_text(const struct facts *facts)
{
	char		when[3][TIME_TEXT_LEN];
	size_t		i;

	printf("Keystore:       %s\n", facts->path);
	printf("UUID:           %s\n", facts->uuid);
	printf("Generation:     %" PRIu64 "\n", facts->generation);
	printf("Last change:    %s\n", time_text(facts->changed, when[0]));
	printf("File mode:      %04o\n", facts->file_mode);
	printf("Directory mode: %04o\n", facts->dir_mode);
	if (strcmp(facts->auto_open.kind, "none") == 0)
		printf("Auto-open:      not enabled\n");
	else if (facts->auto_open.usable)
		printf("Auto-open:      enabled (%s)\n", facts->auto_open.kind);
	else
		printf("Auto-open:      not usable (%s): %s\n", facts->auto_open.kind, facts->auto_open.reason);
	if (!facts->backup.known)
		printf("Last backup:    never\n");
	else
		printf("Last backup:    %s, generation %" PRIu64 "%s\n", time_text(facts->backup.time, when[0]),
			   facts->backup.generation,
			   facts->backup.current ? "" : "; not backed up since the last change");
	if (facts->fips)
		printf("Policy:         FIPS, PBKDF2 only\n");
	for (i = 0; i < facts->n_slots; i++)
	{
		const struct keystore_slot_info *slot = &facts->slots[i];

		printf("Slot %u:         %s, ", slot->id, slot_kind_name(slot->kind));
		print_kdf(&slot->kdf);
		printf(", created %s", time_text(slot->created, when[0]));
		if (slot->label[0] != '\0')
			printf(", label \"%s\"", slot->label);
		putchar('\n');
	}
	for (i = 0; i < facts->n_keys; i++)
	{
		const struct keystore_key_info *key = &facts->keys[i];

		printf("Master key %u:   %s, created %s, activated %s, retired %s, by %s\n", key->id,
			   key_state_name(key->state), time_text(key->created, when[0]),
			   time_text(key->activated, when[1]),
			   time_text(key->retired, when[2]), key->origin);
	}
}

#ifdef HAVE_JANSSON

/* NULL where there is no time. */
static json_t *
json_time(int64_t when)
{
	char		buf[TIME_TEXT_LEN];

	return when == 0 ? json_null() : json_string(time_text(when, buf));
}

static json_t *
json_slot(const struct keystore_slot_info *slot)
{
	return json_pack("{s:i, s:s, s:s, s:{s:s, s:i, s:i, s:i, s:i}, s:o}",
					 "id", (int) slot->id, "kind", slot_kind_name(slot->kind), "label", slot->label,
					 "kdf", "name", kdf_name(slot->kdf.kdf), "cost", (int) slot->kdf.cost,
					 "memory_kib", (int) slot->kdf.memory_kib,
					 "block_size", (int) slot->kdf.block_size,
					 "parallelism", (int) slot->kdf.parallelism,
					 "created", json_time(slot->created));
}

static json_t *
json_key(const struct keystore_key_info *key)
{
	return json_pack("{s:i, s:s, s:o, s:o, s:o, s:s}",
					 "id", (int) key->id, "state", key_state_name(key->state),
					 "created", json_time(key->created), "activated", json_time(key->activated),
					 "retired", json_time(key->retired), "origin", key->origin);
}

static int
print_json(const struct facts *facts)
{
	json_t	   *slots = json_array();
	json_t	   *keys = json_array();
	json_t	   *root = NULL;
	char		file_mode[8];
	char		dir_mode[8];
	int			rc = PGX_EXIT_FAILURE;
	size_t		i;

	/* Octal is how modes are known; JSON has no octal numbers. */
	snprintf(file_mode, sizeof(file_mode), "%04o", facts->file_mode);
	snprintf(dir_mode, sizeof(dir_mode), "%04o", facts->dir_mode);
	/* jansson passes NULL through and fails in the end, so one check is enough. */
	for (i = 0; i < facts->n_slots; i++)
		(void) json_array_append_new(slots, json_slot(&facts->slots[i]));
	for (i = 0; i < facts->n_keys; i++)
		(void) json_array_append_new(keys, json_key(&facts->keys[i]));
	root = json_pack("{s:s, s:s, s:I, s:o, s:{s:s, s:s}, s:{s:s, s:b, s:s, s:s}, s:b, s:o, s:b}",
					 "keystore", facts->path, "uuid", facts->uuid,
					 "generation", (json_int_t) facts->generation,
					 "changed", json_time(facts->changed),
					 "modes", "file", file_mode, "directory", dir_mode,
					 "auto_open", "kind", facts->auto_open.kind, "usable", facts->auto_open.usable,
					 "reason", facts->auto_open.reason, "grade", facts->auto_open.grade,
					 "fips", facts->fips,
					 "last_backup", facts->backup.known ? json_time(facts->backup.time) : json_null(),
					 "backup_current", facts->backup.current);
	if (root == NULL || slots == NULL || keys == NULL ||
		json_array_size(slots) != facts->n_slots || json_array_size(keys) != facts->n_keys ||
		json_object_set(root, "slots", slots) != 0 ||
		(facts->keys != NULL && json_object_set(root, "master_keys", keys) != 0) ||
		json_dumpf(root, stdout, JSON_INDENT(2)) != 0)
	{
		pgx_log_error("could not make JSON of the result");
		goto out;
	}
	putchar('\n');
	rc = PGX_EXIT_OK;

out:
	json_decref(root);
	json_decref(slots);
	json_decref(keys);
	return rc;
}

#endif							/* HAVE_JANSSON */

int
action_info(const struct options *opts, int n_args, char **args)
{
	keystore   *ks = NULL;
	struct facts facts;
	enum keystore_status st;
	int			rc = PGX_EXIT_FAILURE;

	memset(&facts, 0, sizeof(facts));
	if (!opts->open)
		pgx_audit_event(NULL);
	if (!json_supported(opts))
		return PGX_EXIT_FAILURE;
	ks = new_handle();
	rc = load_keystore(ks, opts, args[0]);
	if (rc == PGX_EXIT_OK && opts->open)
		rc = open_with_passphrase(ks, opts->passphrase_file);
	if (rc != PGX_EXIT_OK)
		goto out;
	rc = PGX_EXIT_FAILURE;
	if (!collect_modes(args[0], &facts))
		goto out;
	if ((st = collect(ks, args[0], &facts)) != KEYSTORE_OK)
	{
		rc = pgx_log_keystore(ks, st);
		goto out;
	}
#ifdef HAVE_JANSSON
	if (opts->json)
	{
		rc = print_json(&facts);
		goto out;
	}
#endif
	print_text(&facts);
	rc = PGX_EXIT_OK;

out:
	free(facts.slots);
	free(facts.keys);
	keystore_free(&ks);
	return rc;
}
