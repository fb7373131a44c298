/*
 * rekey.c
 *		A new keystore key (KSK), and how those who have the old one follow.
 *
 * For the case that somebody has, or may have, a passphrase and a copy of the file: after a rekey that
 * copy opens no later one.  The master keys stay as they are.  What carries the new KSK to other
 * servers is the envelope: whoever has the old KSK and the envelope has the new KSK.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "ksi.h"

/* ---- making one ------------------------------------------------------------------------- */

/* Which passphrase opens which slot: choice[slot] is its index, or -1.  Each opens one. */
static enum keystore_status
match_slots(keystore *ks, const struct keystore_passphrase *passphrases, size_t count,
			int choice[KSI_MAX_SLOTS])
{
	enum keystore_status status = KEYSTORE_OK;
	struct ksi_secret ksk = {0};

	for (size_t i = 0; i < KSI_MAX_SLOTS; i++)
		choice[i] = -1;
	status = ksi_alloc_secret(ks, &ksk, KEYSTORE_KEY_LEN);
	for (size_t i = 0; status == KEYSTORE_OK && i < count; i++)
	{
		size_t		index = 0;

		status = ksi_check_passphrase(ks, passphrases[i].len);
		if (status == KEYSTORE_OK)
			status = ksi_slot_find(ks, passphrases[i].text, passphrases[i].len, ksk.ptr, &index);
		if (status == KEYSTORE_OK && !ksi_equal(ksk.ptr, ks->ksk.ptr, KEYSTORE_KEY_LEN))
			status = ksi_fail(ks, KEYSTORE_EDAMAGED,
							  "keystore \"%s\" is corrupted: its content was altered", ks->where);
		if (status == KEYSTORE_OK)
			choice[index] = (int) i;
	}
	ksi_secret_free(&ksk);
	return status;
}

/* The slots anew under the new KSK, without those that no passphrase was given for. */
static enum keystore_status
make_slots(keystore *ks, struct ksi_header *header, const uint8_t *new_ksk,
		   const struct keystore_passphrase *passphrases, const int choice[KSI_MAX_SLOTS],
		   struct keystore_slot_info *ret_dropped, size_t *ret_dropped_count)
{
	enum keystore_status status = KEYSTORE_OK;
	size_t		kept = 0;
	size_t		dropped = 0;

	for (size_t i = 0; status == KEYSTORE_OK && i < ks->header.slot_count; i++)
	{
		const struct keystore_passphrase *pass;
		struct ksi_slot_fields fields;
		char		canonical[KSI_RECOVERY_LEN];
		bool		recovery;

		ksi_format_get_slot(&ks->header.slots[i], &fields);
		if (choice[i] < 0)
		{
			ksi_slot_info(&fields, &ret_dropped[dropped++]);
			continue;
		}
		pass = &passphrases[choice[i]];
		recovery = fields.kind == KEYSTORE_SLOT_RECOVERY;
		if (recovery)
			(void) ksi_recovery_parse(pass->text, pass->len, canonical);	/* it opened the slot */
		status = ksi_slot_make(ks, &(struct ksi_new_slot){
			.uuid = header->uuid, .ksk = new_ksk, .id = fields.id,
			.kind = (enum keystore_slot_kind) fields.kind, .label = fields.label,
			.text = recovery ? canonical : pass->text,
			.text_len = recovery ? sizeof(canonical) : pass->len, .kdf = &fields.kdf,
			.fips = header->fips, .as_before = true
		}, &header->slots[kept++]);
		keystore_wipe(canonical, sizeof(canonical));
	}
	header->slot_count = kept;
	*ret_dropped_count = dropped;
	return status;
}

/* The history with one former KSK more; the oldest goes if there are too many. */
static enum keystore_status
add_former(keystore *ks, int64_t now, struct ksi_history *ret_history)
{
	const struct ksi_history *own = &ks->history;
	size_t		keep = own->former_count < KSI_MAX_FORMER ? own->former_count : KSI_MAX_FORMER - 1;
	enum keystore_status status;

	status = ksi_history_alloc(ks, ret_history, own->key_count, keep + 1);
	if (status != KEYSTORE_OK)
		return status;
	memcpy(ret_history->keys.ptr, own->keys.ptr, own->keys.len);
	if (keep > 0)
		memcpy(ksi_formers(ret_history), ksi_formers(own) + (own->former_count - keep),
			   keep * sizeof(struct ksi_former));
	ksi_formers(ret_history)[keep].replaced = now;
	memcpy(ksi_formers(ret_history)[keep].key, ks->ksk.ptr, KEYSTORE_KEY_LEN);
	return KEYSTORE_OK;
}

enum keystore_status
keystore_rekey(keystore *ks, const struct keystore_passphrase *passphrases, size_t count,
			   uint8_t ret_envelope[KEYSTORE_ENVELOPE_LEN], struct keystore_slot_info *ret_dropped,
			   size_t *ret_dropped_count)
{
	enum keystore_status status = ksi_need_open(ks);
	struct ksi_header *header = NULL;
	struct keystore_slot_info *dropped = NULL;
	struct ksi_history history = {0};
	struct ksi_secret ksk = {0};
	uint8_t		envelope[KEYSTORE_ENVELOPE_LEN];
	int			choice[KSI_MAX_SLOTS];
	size_t		dropped_count = 0;

	if (status == KEYSTORE_OK && count == 0)
		status = ksi_fail(ks, KEYSTORE_EINVAL, "no passphrase was given for the rekeyed keystore");
	if (status != KEYSTORE_OK)
		return status;
	header = malloc(sizeof(*header));
	dropped = calloc(KSI_MAX_SLOTS, sizeof(*dropped));
	if (header == NULL || dropped == NULL)
	{
		status = ksi_nomem(ks);
		goto out;
	}
	*header = ks->header;
	header->changed = ksi_change_time(ks);
	status = match_slots(ks, passphrases, count, choice);
	if (status == KEYSTORE_OK)
		status = ksi_next_generation(ks, &header->generation);
	if (status == KEYSTORE_OK)
		status = ksi_alloc_secret(ks, &ksk, KEYSTORE_KEY_LEN);
	if (status == KEYSTORE_OK && !ksi_random(ksk.ptr, ksk.len))
		status = ksi_fail(ks, KEYSTORE_ECRYPTO, "could not generate a random key: %s",
						  ksi_crypto_reason());
	if (status == KEYSTORE_OK)
		status = make_slots(ks, header, ksk.ptr, passphrases, choice, dropped, &dropped_count);
	if (status == KEYSTORE_OK)
		status = ksi_envelope_seal(ks, header, ksk.ptr, envelope);
	if (status == KEYSTORE_OK)
		status = add_former(ks, header->changed, &history);
	if (status == KEYSTORE_OK)
		status = ksi_commit_rekeyed(ks, header, &history, &ksk);
	if (status != KEYSTORE_OK)
		goto out;
	memcpy(ret_envelope, envelope, sizeof(envelope));
	memcpy(ret_dropped, dropped, dropped_count * sizeof(*dropped));
	*ret_dropped_count = dropped_count;

out:
	ksi_history_free(&history);
	ksi_secret_free(&ksk);
	free(dropped);
	free(header);
	return status;
}

/* ---- following ------------------------------------------------------------------------- */

/* Open what came, with what ks has or with what the envelope says.  *ret_ksk is its KSK. */
static enum keystore_status
open_theirs(keystore *ks, keystore *theirs, const void *envelope, size_t envelope_len)
{
	enum keystore_status status;
	struct ksi_secret ksk = {0};

	if (envelope == NULL)
		status = keystore_open_like(theirs, ks);
	else
	{
		status = ksi_envelope_open(ks, envelope, envelope_len, &ksk);
		if (status != KEYSTORE_OK)
			goto out;
		status = keystore_open_ksk(theirs, ksk.ptr);
	}
	if (status != KEYSTORE_OK)
		ksi_copy_error(ks, theirs);

out:
	ksi_secret_free(&ksk);
	return status;
}

/* When the KSK was replaced that theirs is under; 0 if it is not a former one of ks. */
static int64_t
replaced_at(const keystore *ks, const keystore *theirs)
{
	for (size_t i = ks->history.former_count; i > 0; i--)
	{
		const struct ksi_former *former = &ksi_formers(&ks->history)[i - 1];

		if (ksi_equal(former->key, theirs->ksk.ptr, KEYSTORE_KEY_LEN))
			return former->replaced;
	}
	return 0;
}

/*
 * On one line of history nothing under a KSK is newer than the rekey that replaced it, neither by generation nor by time:
 * no change is earlier than the one before it, see ksi_change_time().
 */
bool
keystore_rekey_lost(keystore *ks, keystore *other)
{
	int64_t		replaced;

	if (!keystore_is_open(ks) || !keystore_is_open(other))
		return false;
	replaced = replaced_at(ks, other);
	return replaced != 0 && (other->header.generation >= ks->header.generation ||
							 other->header.changed > replaced);
}

/*
 * Does theirs come after ks?  By its generation; but not only.  Who has followed a file has its KSK, and a rekey raises
 * the generation.  If that does not hold, then ks went its own way, with a change that was lost in a
 * failover, and what came is from the side that lives on.
 */
static bool
rules_over(keystore *theirs, keystore *ks)
{
	if (theirs->header.generation == ks->header.generation)
		return !ksi_equal(theirs->ksk.ptr, ks->ksk.ptr, KEYSTORE_KEY_LEN);
	return theirs->header.generation > ks->header.generation || !ksi_has_ksk(ks, theirs->ksk.ptr) ||
		keystore_rekey_lost(ks, theirs);
}

/* Become theirs, with what only ks had. */
static enum keystore_status
adopt(keystore *ks, keystore *theirs)
{
	enum keystore_status status;
	struct ksi_history history = {0};

	/* Nothing of ours to keep: then exactly the bytes that came. */
	if (ksi_count_changes(&theirs->history, &ks->history) == 0)
	{
		ksi_take_content(ks, theirs);
		return KEYSTORE_OK;
	}
	status = ksi_unite(ks, &theirs->history, &ks->history, ks->header.changed, &history);
	if (status == KEYSTORE_OK)
		status = ksi_commit_rekeyed(ks, &theirs->header, &history, &theirs->ksk);
	if (status == KEYSTORE_OK)
		ks->opened_slot = 0;
	ksi_history_free(&history);
	return status;
}

enum keystore_status
keystore_apply_rekey(keystore *ks, const void *buf, size_t len, const void *envelope,
					 size_t envelope_len)
{
	enum keystore_status status = ksi_need_open(ks);
	keystore   *theirs = NULL;
	size_t		added;

	if (status != KEYSTORE_OK)
		return status;
	theirs = keystore_new();
	if (theirs == NULL)
		return ksi_nomem(ks);
	status = keystore_load_bytes(theirs, buf, len, ks->where);
	if (status != KEYSTORE_OK)
	{
		ksi_copy_error(ks, theirs);
		goto out;
	}
	if (memcmp(ks->header.uuid, theirs->header.uuid, KEYSTORE_UUID_LEN) != 0)
	{
		status = ksi_fail(ks, KEYSTORE_ECONFLICT,
						  "what is to replace keystore \"%s\" is another keystore", ks->where);
		goto out;
	}
	status = open_theirs(ks, theirs, envelope, envelope_len);
	if (status != KEYSTORE_OK)
		goto out;
	if (rules_over(theirs, ks))
		status = adopt(ks, theirs);
	else
		status = keystore_merge(ks, theirs, &added);

out:
	keystore_free(&theirs);
	return status;
}
