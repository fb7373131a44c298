/*
 * handle.c
 *		The handle: made, filled from a file or from nothing, opened, closed, asked.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ksi.h"

keystore *
keystore_new(void)
{
	return calloc(1, sizeof(keystore));
}

/* Back to the state after keystore_new(); texts and the paths of the sealers stay. */
static void
forget(keystore *ks)
{
	keystore_close(ks);
	free(ks->raw);
	ks->raw = NULL;
	ks->loaded = false;
	ks->seen_generation = 0;
	memset(&ks->layout, 0, sizeof(ks->layout));
	memset(&ks->header, 0, sizeof(ks->header));
}

void
keystore_free(keystore **ks)
{
	if (ks == NULL || *ks == NULL)
		return;
	forget(*ks);
	free((*ks)->where);
	free((*ks)->host_secret_path);
	free((*ks)->tcti);
	free((*ks)->credential_dir);
	free(*ks);
	*ks = NULL;
}

const char *
keystore_version(void)
{
	return PACKAGE_VERSION;
}

enum keystore_status
ksi_alloc_secret(keystore *ks, struct ksi_secret *s, size_t len)
{
	if (!ksi_secret_alloc(s, len))
		return ksi_nomem(ks);
	if (!s->locked)
		ks->lock_failed = true;
	return KEYSTORE_OK;
}

bool
keystore_memory_locked(const keystore *ks)
{
	return !ks->lock_failed && ksi_secret_locked(&ks->ksk) &&
		ksi_secret_locked(&ks->history.keys) && ksi_secret_locked(&ks->history.formers);
}

enum keystore_status
ksi_need_loaded(keystore *ks)
{
	ksi_clear_error(ks);
	return ks->loaded ? KEYSTORE_OK : ksi_fail(ks, KEYSTORE_EINVAL, "no keystore is loaded");
}

enum keystore_status
ksi_need_open(keystore *ks)
{
	enum keystore_status status = ksi_need_loaded(ks);

	if (status == KEYSTORE_OK && !keystore_is_open(ks))
		status = ksi_fail(ks, KEYSTORE_EINVAL, "keystore \"%s\" is not open", ks->where);
	return status;
}

enum keystore_status
ksi_set_where(keystore *ks, const char *where)
{
	char	   *copy = strdup(where);

	if (copy == NULL)
		return ksi_nomem(ks);
	free(ks->where);
	ks->where = copy;
	return KEYSTORE_OK;
}

/*
 * When a change is made: never before the one that it follows, whatever the clocks say of those who made them.  A rekey is
 * told from a change that it did not know by that; see keystore_rekey_lost().
 */
int64_t
ksi_change_time(const keystore *ks)
{
	int64_t		now = (int64_t) time(NULL);

	return now < ks->header.changed ? ks->header.changed : now;
}

/* Each change is one more, and more than whatever was seen in a ring. */
enum keystore_status
ksi_next_generation(keystore *ks, uint64_t *ret_generation)
{
	uint64_t	last = ks->header.generation;

	if (last < ks->seen_generation)
		last = ks->seen_generation;
	if (last == UINT64_MAX)
		return ksi_fail(ks, KEYSTORE_ELIMIT, "keystore \"%s\" has no generation left", ks->where);
	*ret_generation = last + 1;
	return KEYSTORE_OK;
}

/* ---- create and load ------------------------------------------------------- */

/* Random UUID of version 4, RFC 9562 section 5.4. */
static bool
make_uuid(uint8_t uuid[KEYSTORE_UUID_LEN])
{
	if (!ksi_random(uuid, KEYSTORE_UUID_LEN))
		return false;
	uuid[6] = (uint8_t) ((uuid[6] & 0x0f) | 0x40);
	uuid[8] = (uint8_t) ((uuid[8] & 0x3f) | 0x80);
	return true;
}

enum keystore_status
keystore_create(keystore *ks, const char *passphrase, size_t len,
				const struct keystore_kdf_params *kdf, const char *origin)
{
	enum keystore_status status;
	struct ksi_header *header = NULL;
	struct ksi_history history = {0};

	ksi_clear_error(ks);
	forget(ks);
	status = ksi_check_passphrase(ks, len);
	if (status != KEYSTORE_OK)
		goto out;
	status = ksi_set_where(ks, KEYSTORE_FILE_NAME);
	if (status != KEYSTORE_OK)
		goto out;
	header = calloc(1, sizeof(*header));
	if (header == NULL)
	{
		status = ksi_nomem(ks);
		goto out;
	}

	status = ksi_alloc_secret(ks, &ks->ksk, KEYSTORE_KEY_LEN);
	if (status != KEYSTORE_OK)
		goto out;
	if (!make_uuid(header->uuid) || !ksi_random(ks->ksk.ptr, ks->ksk.len))
	{
		status = ksi_fail(ks, KEYSTORE_ECRYPTO, "could not generate a random key: %s",
						  ksi_crypto_reason());
		goto out;
	}
	status = ksi_history_alloc(ks, &history, 1, 0);
	if (status != KEYSTORE_OK)
		goto out;
	status = ksi_key_make(ks, header->uuid, 1, origin, ksi_keys(&history));
	if (status != KEYSTORE_OK)
		goto out;
	status = ksi_slot_make(ks, &(struct ksi_new_slot){
		.uuid = header->uuid, .ksk = ks->ksk.ptr, .id = 1, .kind = KEYSTORE_SLOT_PASSPHRASE,
		.label = "passphrase", .text = passphrase, .text_len = len, .kdf = kdf
	}, &header->slots[0]);
	if (status != KEYSTORE_OK)
		goto out;
	header->slot_count = 1;
	header->generation = 1;
	header->changed = (int64_t) time(NULL);
	status = ksi_commit(ks, header, &history);
	if (status == KEYSTORE_OK)
		ks->opened_slot = 1;

out:
	if (status != KEYSTORE_OK)
		forget(ks);
	ksi_history_free(&history);
	free(header);
	return status;
}

/* All that can be checked of a file's bytes without a key. */
enum keystore_status
ksi_check_bytes(keystore *ks, const char *where, const uint8_t *buf, size_t len,
				struct ksi_header *ret_header, struct ksi_layout *ret_layout)
{
	enum keystore_status status;
	uint8_t		digest[KSI_DIGEST_LEN];

	status = ksi_format_check_size(ks, where, buf, len);
	if (status != KEYSTORE_OK)
		return status;
	if (!ksi_sha256(buf, len - KSI_DIGEST_LEN, digest))
		return ksi_fail(ks, KEYSTORE_ECRYPTO, "could not compute the checksum of \"%s\": %s",
						where, ksi_crypto_reason());
	if (!ksi_equal(digest, buf + len - KSI_DIGEST_LEN, KSI_DIGEST_LEN))
		return ksi_fail(ks, KEYSTORE_EDAMAGED, "keystore \"%s\" is corrupted: invalid checksum",
						where);
	return ksi_format_parse(ks, where, buf, len, ret_header, ret_layout);
}

/* Take the bytes over; buf is malloc'ed and belongs to the handle on success. */
static enum keystore_status
adopt(keystore *ks, uint8_t *buf, size_t len, const char *where)
{
	enum keystore_status status;

	status = ksi_set_where(ks, where);
	if (status == KEYSTORE_OK)
		status = ksi_check_bytes(ks, where, buf, len, &ks->header, &ks->layout);
	if (status != KEYSTORE_OK)
	{
		forget(ks);
		return status;
	}
	ks->raw = buf;
	ks->loaded = true;
	return KEYSTORE_OK;
}

enum keystore_status
keystore_load(keystore *ks, const char *path)
{
	enum keystore_status status;
	struct ksi_place place = {-1, NULL, NULL};
	uint8_t    *buf = NULL;
	size_t		len = 0;

	ksi_clear_error(ks);
	forget(ks);
	status = ksi_place_open(ks, path, &place);
	if (status != KEYSTORE_OK)
		goto out;
	status = ksi_file_read(ks, &place, place.base, KEYSTORE_MAX_FILE_SIZE, &buf, &len);
	if (status == KEYSTORE_ENOENT)
	{
		(void) ksi_fail(ks, status, "keystore \"%s\" does not exist", path);
		(void) ksi_hint(ks, status,
						"Make sure that the location is correct.  If it is, create the keystore, or copy it from another server.");
	}
	if (status != KEYSTORE_OK)
		goto out;
	status = adopt(ks, buf, len, path);
	if (status == KEYSTORE_OK)
		buf = NULL;
	/* Of a copy under another name nobody can say what it is a copy of. */
	else if ((status == KEYSTORE_EDAMAGED || status == KEYSTORE_EFORMAT) &&
			 strcmp(place.base, KEYSTORE_FILE_NAME) == 0)
		(void) ksi_hint(ks, status,
						"Run \"pgx_keystore repair %s\", which takes \"%s\" or a backup, "
						"or copy the keystore from another server.", path, KEYSTORE_PREV_NAME);

out:
	free(buf);
	ksi_place_close(&place);
	return status;
}

enum keystore_status
keystore_load_bytes(keystore *ks, const void *buf, size_t len, const char *where)
{
	enum keystore_status status;
	uint8_t    *copy;

	ksi_clear_error(ks);
	forget(ks);
	if (len > KEYSTORE_MAX_FILE_SIZE)
		return ksi_fail(ks, KEYSTORE_EFORMAT, "file \"%s\" is not a keystore", where);
	copy = malloc(len > 0 ? len : 1);
	if (copy == NULL)
		return ksi_nomem(ks);
	if (len > 0)
		memcpy(copy, buf, len);
	status = adopt(ks, copy, len, where);
	if (status != KEYSTORE_OK)
		free(copy);
	return status;
}

/* Hand over what from holds, open; where and the texts stay.  from is empty afterwards. */
void
ksi_take_content(keystore *to, keystore *from)
{
	free(to->raw);
	to->raw = from->raw;
	from->raw = NULL;
	to->layout = from->layout;
	to->header = from->header;
	ksi_secret_move(&to->ksk, &from->ksk);
	ksi_history_move(&to->history, &from->history);
	to->opened_slot = 0;
	forget(from);
}

enum keystore_status
keystore_serialize(keystore *ks, uint8_t **ret_buf, size_t *ret_len)
{
	enum keystore_status status = ksi_need_loaded(ks);
	uint8_t    *copy;

	if (status != KEYSTORE_OK)
		return status;
	copy = malloc(ks->layout.file_len);
	if (copy == NULL)
		return ksi_nomem(ks);
	memcpy(copy, ks->raw, ks->layout.file_len);
	*ret_buf = copy;
	*ret_len = ks->layout.file_len;
	return KEYSTORE_OK;
}

/* ---- open and close ---------------------------------------------------------- */

enum keystore_status
keystore_open_ksk(keystore *ks, const uint8_t ksk[KEYSTORE_KEY_LEN])
{
	enum keystore_status status = ksi_need_loaded(ks);
	struct ksi_secret own = {0};
	struct ksi_history history = {0};
	const char *reason = NULL;

	if (status != KEYSTORE_OK)
		return status;
	/* The caller's bytes may be the handle's own, so copy before anything is freed. */
	status = ksi_alloc_secret(ks, &own, KEYSTORE_KEY_LEN);
	if (status != KEYSTORE_OK)
		goto out;
	memcpy(own.ptr, ksk, KEYSTORE_KEY_LEN);
	status = ksi_open_with(ks, own.ptr, &history, &reason);
	if (status == KEYSTORE_EDAMAGED && reason != NULL)
		(void) ksi_fail(ks, status, "keystore \"%s\" is corrupted: %s", ks->where, reason);
	else if (status == KEYSTORE_EDAMAGED)
		status = ksi_fail(ks, KEYSTORE_EWRONGKEY,
						  "could not open keystore \"%s\": the key belongs to another keystore, or the keystore was altered",
						  ks->where);
	if (status != KEYSTORE_OK)
		goto out;
	ksi_secret_move(&ks->ksk, &own);
	ksi_history_move(&ks->history, &history);
	ks->opened_slot = 0;

out:
	ksi_secret_free(&own);
	ksi_history_free(&history);
	return status;
}

/* A holder that is not open has no key to try, which is the caller's mistake. */
enum keystore_status
keystore_open_like(keystore *ks, keystore *holder)
{
	enum keystore_status status = ksi_need_loaded(ks);

	if (status != KEYSTORE_OK)
		return status;
	if (!keystore_is_open(holder))
		return ksi_fail(ks, KEYSTORE_EINVAL, "the other keystore is not open");
	status = keystore_open_ksk(ks, holder->ksk.ptr);
	for (size_t i = holder->history.former_count; status == KEYSTORE_EWRONGKEY && i > 0; i--)
		status = keystore_open_ksk(ks, ksi_formers(&holder->history)[i - 1].key);
	if (status == KEYSTORE_OK)
		ksi_clear_error(ks);
	return status;
}

uint32_t
keystore_opened_slot(const keystore *ks)
{
	return ks->opened_slot;
}

bool
keystore_is_open(const keystore *ks)
{
	return ks->ksk.map != NULL;
}

enum keystore_status
keystore_get_ksk(keystore *ks, uint8_t ret_ksk[KEYSTORE_KEY_LEN])
{
	enum keystore_status status = ksi_need_open(ks);

	if (status == KEYSTORE_OK)
		memcpy(ret_ksk, ks->ksk.ptr, KEYSTORE_KEY_LEN);
	return status;
}

void
keystore_close(keystore *ks)
{
	ksi_secret_free(&ks->ksk);
	ksi_history_free(&ks->history);
	ks->opened_slot = 0;
}

/* ---- header fields -------------------------------------------------------------- */

void
keystore_get_uuid(const keystore *ks, uint8_t ret_uuid[KEYSTORE_UUID_LEN])
{
	memcpy(ret_uuid, ks->header.uuid, KEYSTORE_UUID_LEN);
}

uint64_t
keystore_get_generation(const keystore *ks)
{
	return ks->header.generation;
}

int64_t
keystore_get_changed(const keystore *ks)
{
	return ks->header.changed;
}

size_t
keystore_slot_count(const keystore *ks)
{
	return ks->header.slot_count;
}

bool
keystore_get_fips(const keystore *ks)
{
	return ks->header.fips;
}

enum keystore_status
keystore_get_slot(keystore *ks, size_t index, struct keystore_slot_info *ret_info)
{
	enum keystore_status status = ksi_need_loaded(ks);
	struct ksi_slot_fields fields;

	if (status != KEYSTORE_OK)
		return status;
	if (index >= ks->header.slot_count)
		return ksi_fail(ks, KEYSTORE_EINVAL, "keystore \"%s\" has no slot %zu", ks->where, index);
	ksi_format_get_slot(&ks->header.slots[index], &fields);
	ksi_slot_info(&fields, ret_info);
	return KEYSTORE_OK;
}

void
keystore_uuid_text(const uint8_t uuid[KEYSTORE_UUID_LEN], char ret_text[KEYSTORE_UUID_STRLEN + 1])
{
	static const char digits[] = "0123456789abcdef";
	char	   *p = ret_text;

	for (size_t i = 0; i < KEYSTORE_UUID_LEN; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		*p++ = digits[uuid[i] >> 4];
		*p++ = digits[uuid[i] & 0x0f];
	}
	*p = '\0';
}
