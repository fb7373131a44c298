/*
 * keys.c
 *		The history of master keys: asked, grown, and what can happen to a key in its
 *		life.  How two histories become one is merge.c's.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ksi.h"

/* ---- what is in it --------------------------------------------------------------- */

size_t
keystore_key_count(const keystore *ks)
{
	return ks->history.key_count;
}

enum keystore_status
keystore_get_key_info(keystore *ks, size_t index, struct keystore_key_info *ret_info)
{
	enum keystore_status status = ksi_need_open(ks);
	const struct ksi_key *key;

	if (status != KEYSTORE_OK)
		return status;
	if (index >= ks->history.key_count)
		return ksi_fail(ks, KEYSTORE_ENOKEY, "keystore \"%s\" has only %zu master encryption keys",
						ks->where, ks->history.key_count);
	key = &ksi_keys(&ks->history)[index];
	memset(ret_info, 0, sizeof(*ret_info));
	ret_info->id = key->id;
	ret_info->state = (enum keystore_key_state) key->state;
	ret_info->created = key->created;
	ret_info->activated = key->activated;
	ret_info->retired = key->retired;
	ret_info->compromised = key->compromised;
	ret_info->destroyed = key->destroyed;
	memcpy(ret_info->origin, key->origin, sizeof(ret_info->origin));
	memcpy(ret_info->label, key->label, sizeof(ret_info->label));
	return KEYSTORE_OK;
}

uint32_t
keystore_active_key(const keystore *ks)
{
	for (size_t i = 0; i < ks->history.key_count; i++)
	{
		if (ksi_keys(&ks->history)[i].state == KEYSTORE_KEY_ACTIVE)
			return ksi_keys(&ks->history)[i].id;
	}
	return 0;
}

static struct ksi_key *
find_key(const struct ksi_history *history, uint32_t id)
{
	for (size_t i = 0; i < history->key_count; i++)
	{
		if (ksi_keys(history)[i].id == id)
			return &ksi_keys(history)[i];
	}
	return NULL;
}

enum keystore_status
keystore_get_master_key(keystore *ks, uint32_t id, uint8_t ret_key[KEYSTORE_KEY_LEN])
{
	enum keystore_status status = ksi_need_open(ks);
	const struct ksi_key *key;

	if (status != KEYSTORE_OK)
		return status;
	key = find_key(&ks->history, id);
	if (key != NULL && key->state != KEYSTORE_KEY_DESTROYED)
	{
		memcpy(ret_key, key->key, KEYSTORE_KEY_LEN);
		return KEYSTORE_OK;
	}
	(void) ksi_fail(ks, KEYSTORE_ENOKEY,
					"could not open keystore \"%s\": necessary master encryption key does not exist in the keystore",
					ks->where);
	if (key != NULL)
		return ksi_hint(ks, KEYSTORE_ENOKEY,
						"Key %u was destroyed.  Only a backup of the keystore from before that can open this data.",
						id);
	return ksi_hint(ks, KEYSTORE_ENOKEY,
					"The keystore is older than the data.  Copy the keystore from a server that has key %u.",
					id);
}

/* ---- a new key --------------------------------------------------------------------- */

/* A random key, active as of now. */
enum keystore_status
ksi_key_make(keystore *ks, const uint8_t uuid[KEYSTORE_UUID_LEN], uint32_t id, const char *origin,
			 struct ksi_key *ret_key)
{
	size_t		len = origin != NULL ? strlen(origin) : 0;

	if (len >= KSI_TEXT_LEN)
		return ksi_fail(ks, KEYSTORE_EINVAL, "origin of a master encryption key is too long");
	for (size_t i = 0; i < len; i++)
	{
		/* The format refuses what it could not read back. */
		if ((unsigned char) origin[i] < 0x20 || origin[i] == 0x7f)
			return ksi_fail(ks, KEYSTORE_EINVAL,
							"origin of a master encryption key holds a control character");
	}
	memset(ret_key, 0, sizeof(*ret_key));
	if (!ksi_random(ret_key->key, KEYSTORE_KEY_LEN) ||
		ksi_identity(ret_key->key, uuid, KSI_INFO_KEY_IDENTITY,
					 ret_key->identity) != KSI_CRYPTO_OK)
		return ksi_fail(ks, KEYSTORE_ECRYPTO, "could not generate a random key: %s",
						ksi_crypto_reason());
	ret_key->id = id;
	ret_key->state = KEYSTORE_KEY_ACTIVE;
	ret_key->created = ret_key->activated = (int64_t) time(NULL);
	if (len > 0)
		memcpy(ret_key->origin, origin, len);
	return KEYSTORE_OK;
}

/* Commit a new history under the given generation. */
enum keystore_status
ksi_commit_keys(keystore *ks, struct ksi_history *history, uint64_t generation, int64_t changed)
{
	enum keystore_status status;
	struct ksi_header *header = malloc(sizeof(*header));

	if (header == NULL)
		return ksi_nomem(ks);
	*header = ks->header;
	header->generation = generation;
	header->changed = changed;
	status = ksi_commit(ks, header, history);
	free(header);
	return status;
}

enum keystore_status
keystore_add_master_key(keystore *ks, const char *origin, uint32_t *ret_id)
{
	enum keystore_status status = ksi_need_open(ks);
	size_t		count = ks->history.key_count;
	struct ksi_history history = {0};
	struct ksi_key *made;
	uint64_t	generation = 0;

	if (status != KEYSTORE_OK)
		return status;
	status = ksi_history_alloc(ks, &history, count + 1, ks->history.former_count);
	if (status != KEYSTORE_OK)
		goto out;
	memcpy(history.keys.ptr, ks->history.keys.ptr, ks->history.keys.len);
	if (history.former_count > 0)
		memcpy(history.formers.ptr, ks->history.formers.ptr, history.formers.len);
	made = &ksi_keys(&history)[count];

	/* Destroyed keys leave their records, so the last number is the highest ever given. */
	if (made[-1].id == UINT32_MAX)
	{
		status = ksi_fail(ks, KEYSTORE_ELIMIT, "keystore \"%s\" has no key number left",
						  ks->where);
		goto out;
	}
	status = ksi_key_make(ks, ks->header.uuid, made[-1].id + 1, origin, made);
	if (status != KEYSTORE_OK)
		goto out;
	for (struct ksi_key *key = ksi_keys(&history); key < made; key++)
	{
		if (key->state == KEYSTORE_KEY_ACTIVE)
		{
			key->state = KEYSTORE_KEY_RETIRED;
			key->retired = made->activated;
		}
	}
	status = ksi_next_generation(ks, &generation);
	if (status == KEYSTORE_OK)
		status = ksi_commit_keys(ks, &history, generation, ksi_change_time(ks));
	if (status == KEYSTORE_OK)
		*ret_id = keystore_active_key(ks);

out:
	ksi_history_free(&history);
	return status;
}

/* ---- the rest of its life ---------------------------------------------------------- */

/* A copy of the history in which the key id is to be changed. */
static enum keystore_status
copy_for_change(keystore *ks, uint32_t id, struct ksi_history *ret_history,
				struct ksi_key **ret_key)
{
	enum keystore_status status = ksi_need_open(ks);

	if (status == KEYSTORE_OK && find_key(&ks->history, id) == NULL)
		status = ksi_fail(ks, KEYSTORE_ENOKEY, "keystore \"%s\" has no master encryption key %u",
						  ks->where, id);
	if (status == KEYSTORE_OK)
		status = ksi_history_copy(ks, ret_history);
	if (status == KEYSTORE_OK)
		*ret_key = find_key(ret_history, id);
	return status;
}

static enum keystore_status
commit_change(keystore *ks, struct ksi_history *history)
{
	uint64_t	generation = 0;
	enum keystore_status status = ksi_next_generation(ks, &generation);

	if (status == KEYSTORE_OK)
		status = ksi_commit_keys(ks, history, generation, ksi_change_time(ks));
	return status;
}

static enum keystore_status
fail_active(keystore *ks, uint32_t id, const char *what)
{
	(void) ksi_fail(ks, KEYSTORE_EINVAL, "master encryption key %u of keystore \"%s\" is active and cannot be %s",
					id, ks->where, what);
	return ksi_hint(ks, KEYSTORE_EINVAL, "Add a new master encryption key first.");
}

enum keystore_status
keystore_destroy_key(keystore *ks, uint32_t id)
{
	enum keystore_status status;
	struct ksi_history history = {0};
	struct ksi_key *key = NULL;

	status = copy_for_change(ks, id, &history, &key);
	if (status != KEYSTORE_OK || key->state == KEYSTORE_KEY_DESTROYED)
		goto out;
	if (key->state == KEYSTORE_KEY_ACTIVE)
	{
		status = fail_active(ks, id, "destroyed");
		goto out;
	}
	ksi_key_destroy(key, (int64_t) time(NULL));
	status = commit_change(ks, &history);

out:
	ksi_history_free(&history);
	return status;
}

/* The bytes go; what they were called, when, and what tells the key from others stays. */
void
ksi_key_destroy(struct ksi_key *key, int64_t when)
{
	key->state = KEYSTORE_KEY_DESTROYED;
	key->destroyed = when;
	keystore_wipe(key->key, KEYSTORE_KEY_LEN);
}

enum keystore_status
keystore_compromise_key(keystore *ks, uint32_t id)
{
	enum keystore_status status;
	struct ksi_history history = {0};
	struct ksi_key *key = NULL;

	status = copy_for_change(ks, id, &history, &key);
	if (status != KEYSTORE_OK || key->state == KEYSTORE_KEY_COMPROMISED)
		goto out;
	if (key->state == KEYSTORE_KEY_ACTIVE)
		status = fail_active(ks, id, "declared compromised");
	else if (key->state == KEYSTORE_KEY_DESTROYED)
		status = ksi_fail(ks, KEYSTORE_EINVAL,
						  "master encryption key %u of keystore \"%s\" is destroyed", id, ks->where);
	if (status != KEYSTORE_OK)
		goto out;
	key->state = KEYSTORE_KEY_COMPROMISED;
	key->compromised = (int64_t) time(NULL);
	status = commit_change(ks, &history);

out:
	ksi_history_free(&history);
	return status;
}

enum keystore_status
keystore_set_key_label(keystore *ks, uint32_t id, const char *label)
{
	enum keystore_status status;
	struct ksi_history history = {0};
	struct ksi_key *key = NULL;

	status = copy_for_change(ks, id, &history, &key);
	if (status == KEYSTORE_OK && label != NULL)
		status = ksi_check_label(ks, label);
	if (status != KEYSTORE_OK)
		goto out;
	memset(key->label, 0, sizeof(key->label));
	if (label != NULL)
		memcpy(key->label, label, strlen(label));
	status = commit_change(ks, &history);

out:
	ksi_history_free(&history);
	return status;
}
