/*
 * backup.c
 *		Dated copies of the keystore file, and the note that tells of the last one.
 *
 * The note is beside the keystore and not in it: a backup is no change of the keystore, so it must
 * neither raise the generation nor need a key.  It is plain text, proves nothing, and whoever writes it can
 * claim what he likes; what decides is the digest, so that a claim about other bytes is seen to be old.
 */
#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ksi.h"

#define NOTE_MAGIC			"pgx keystore backup 1\n"
#define NOTE_MAX			8192	/* bytes */
#define NAME_TRIES			100
#define DIGEST_HEX			(2 * KSI_DIGEST_LEN)

static void
to_hex(const uint8_t *digest, char ret_hex[DIGEST_HEX + 1])
{
	for (size_t i = 0; i < KSI_DIGEST_LEN; i++)
		(void) snprintf(ret_hex + 2 * i, 3, "%02x", digest[i]);
}

/* "20260102T030405Z", as it stands in the names of files. */
void
ksi_time_stamp(int64_t when, char ret_text[KSI_TIME_STAMP_LEN + 1])
{
	time_t		t = (time_t) when;
	struct tm	tm;

	memset(ret_text, 0, KSI_TIME_STAMP_LEN + 1);
	if (gmtime_r(&t, &tm) == NULL ||
		strftime(ret_text, KSI_TIME_STAMP_LEN + 1, "%Y%m%dT%H%M%SZ", &tm) == 0)
		(void) snprintf(ret_text, KSI_TIME_STAMP_LEN + 1, "0");
}

/* Read a keystore file for copying: its bytes, a handle that has loaded them, open if ks can open it. */
enum keystore_status
ksi_read_sound(keystore *ks, const char *path, uint8_t **ret_buf, size_t *ret_len,
			   keystore **ret_file)
{
	enum keystore_status status;
	keystore   *file = keystore_new();

	if (file == NULL)
		return ksi_nomem(ks);
	status = keystore_load(file, path);
	if (status == KEYSTORE_OK && keystore_is_open(ks) &&
		memcmp(file->header.uuid, ks->header.uuid, KEYSTORE_UUID_LEN) == 0)
		status = keystore_open_like(file, ks);
	if (status == KEYSTORE_OK && ret_buf != NULL)
		status = keystore_serialize(file, ret_buf, ret_len);
	if (status == KEYSTORE_OK)
		*ret_file = file;
	else
	{
		ksi_copy_error(ks, file);
		keystore_free(&file);
	}
	return status;
}

/* ---- the copy -------------------------------------------------------------------------- */

/* A copy beside the original is lost with it. */
static enum keystore_status
check_elsewhere(keystore *ks, const struct ksi_place *from, const struct ksi_place *to,
				const char *dir)
{
	enum keystore_status status;
	char	   *from_dir = NULL;
	char	   *to_dir = NULL;

	status = ksi_canonical_dir(ks, from->prefix, &from_dir);
	if (status == KEYSTORE_OK)
		status = ksi_canonical_dir(ks, to->prefix, &to_dir);
	if (status == KEYSTORE_OK && strcmp(from_dir, to_dir) == 0)
	{
		(void) ksi_fail(ks, KEYSTORE_EINVAL, "\"%s\" is the directory of the keystore itself", dir);
		status = ksi_hint(ks, KEYSTORE_EINVAL,
						  "Name a directory on another disk, so that the backup is not lost together with the keystore.");
	}
	free(from_dir);
	free(to_dir);
	return status;
}

/* Write the copy under the first name that is free; *ret_path is malloc'ed. */
static enum keystore_status
write_copy(keystore *ks, const struct ksi_place *from, const char *dir,
		   const struct ksi_header *header, const uint8_t *buf, size_t len, int64_t now,
		   char **ret_path)
{
	enum keystore_status status = KEYSTORE_EEXIST;
	char		uuid[KEYSTORE_UUID_STRLEN + 1];
	char		stamp[KSI_TIME_STAMP_LEN + 1];
	size_t		size = strlen(dir) + 128;
	char	   *path = malloc(size);

	if (path == NULL)
		return ksi_nomem(ks);
	keystore_uuid_text(header->uuid, uuid);
	ksi_time_stamp(now, stamp);
	for (int n = 1; status == KEYSTORE_EEXIST && n <= NAME_TRIES; n++)
	{
		struct ksi_place place = {-1, NULL, NULL};
		char		number[16] = "";

		if (n > 1)
			(void) snprintf(number, sizeof(number), "-%d", n);
		(void) snprintf(path, size, "%s/keystore-%s-%s-g%" PRIu64 "%s.ks", dir, uuid, stamp,
						header->generation, number);
		status = ksi_place_open(ks, path, &place);
		if (status == KEYSTORE_OK)
			status = check_elsewhere(ks, from, &place, dir);
		if (status == KEYSTORE_OK)
			status = ksi_replace(ks, &place, place.base, buf, len, KSI_KEEP);
		ksi_place_close(&place);
	}
	if (status == KEYSTORE_OK)
		*ret_path = path;
	else
		free(path);
	return status;
}

/* Is the copy what it should be, read by its name, and does it open if it can? */
static enum keystore_status
check_copy(keystore *ks, const char *path, const uint8_t *buf, size_t len)
{
	enum keystore_status status;
	keystore   *copy = NULL;
	uint8_t    *back = NULL;
	size_t		back_len = 0;

	status = ksi_read_sound(ks, path, &back, &back_len, &copy);
	if (status == KEYSTORE_OK && (back_len != len || memcmp(back, buf, len) != 0))
		status = ksi_fail(ks, KEYSTORE_EIO, "file \"%s\" does not hold what was written to it", path);
	free(back);
	keystore_free(&copy);
	return status;
}

static enum keystore_status
write_note(keystore *ks, const struct ksi_place *place, const struct ksi_header *header,
		   const uint8_t *digest, int64_t now, const char *copy)
{
	enum keystore_status status;
	char		uuid[KEYSTORE_UUID_STRLEN + 1];
	char		hex[DIGEST_HEX + 1];
	char	   *note = malloc(NOTE_MAX);
	int			len;

	if (note == NULL)
		return ksi_nomem(ks);
	keystore_uuid_text(header->uuid, uuid);
	to_hex(digest, hex);
	len = snprintf(note, NOTE_MAX, NOTE_MAGIC "%s %" PRIu64 " %" PRId64 " %s\n%s\n", uuid,
				   header->generation, now, hex, copy);
	if (len < 0 || len >= NOTE_MAX)
		status = ksi_fail(ks, KEYSTORE_EINVAL, "file name \"%s\" is too long", copy);
	else
		status = ksi_replace(ks, place, KEYSTORE_BACKUP_NOTE_NAME, note, (size_t) len,
							 KSI_OVERWRITE);
	free(note);
	return status;
}

enum keystore_status
keystore_backup(keystore *ks, const char *path, const char *dir, char *ret_name, size_t size)
{
	enum keystore_status status;
	struct ksi_place place = {-1, NULL, NULL};
	keystore   *file = NULL;
	uint8_t    *buf = NULL;
	size_t		len = 0;
	char	   *copy = NULL;
	int64_t		now = (int64_t) time(NULL);

	ksi_clear_error(ks);
	status = ksi_place_open(ks, path, &place);
	if (status == KEYSTORE_OK)
		status = ksi_read_sound(ks, path, &buf, &len, &file);
	if (status != KEYSTORE_OK)
		goto out;
	if (strlen(dir) + 128 > size)
	{
		status = ksi_fail(ks, KEYSTORE_EINVAL, "file name \"%s\" is too long", dir);
		goto out;
	}
	status = write_copy(ks, &place, dir, &file->header, buf, len, now, &copy);
	if (status == KEYSTORE_OK)
		status = check_copy(ks, copy, buf, len);
	if (status == KEYSTORE_OK)
		status = write_note(ks, &place, &file->header, buf + file->layout.digest_off, now, copy);
	if (status == KEYSTORE_OK)
		(void) snprintf(ret_name, size, "%s", copy);	/* fits, as was checked above */

out:
	free(copy);
	free(buf);
	keystore_free(&file);
	ksi_place_close(&place);
	return status;
}

/* ---- the note ---------------------------------------------------------------------------- */

/* False if the text is not a note.  The name is everything up to the last line end. */
static bool
parse_note(char *note, size_t len, struct keystore_backup_info *ret_info,
		   char ret_uuid[KEYSTORE_UUID_STRLEN + 1], char ret_hex[DIGEST_HEX + 1])
{
	size_t		magic_len = strlen(NOTE_MAGIC);
	int			used = 0;
	size_t		name_len;

	if (len <= magic_len || memchr(note, '\0', len) != NULL || note[len - 1] != '\n' ||
		memcmp(note, NOTE_MAGIC, magic_len) != 0)
		return false;
	note[len - 1] = '\0';
	if (sscanf(note + magic_len, "%36[0-9a-f-] %" SCNu64 " %" SCNd64 " %64[0-9a-f]%n", ret_uuid,
			   &ret_info->generation, &ret_info->time, ret_hex, &used) != 4 ||
		note[magic_len + (size_t) used] != '\n')
		return false;
	name_len = strlen(note + magic_len + used + 1);
	if (name_len >= sizeof(ret_info->name))
		return false;
	memcpy(ret_info->name, note + magic_len + used + 1, name_len + 1);
	return true;
}

enum keystore_status
keystore_last_backup(keystore *ks, const char *path, struct keystore_backup_info *ret_info)
{
	enum keystore_status status;
	struct ksi_place place = {-1, NULL, NULL};
	struct keystore_backup_info info;
	keystore   *file = NULL;
	uint8_t    *note = NULL;
	size_t		len = 0;
	char		uuid[KEYSTORE_UUID_STRLEN + 1] = "";
	char		own_uuid[KEYSTORE_UUID_STRLEN + 1];
	char		hex[DIGEST_HEX + 1] = "";
	char		own_hex[DIGEST_HEX + 1];

	memset(&info, 0, sizeof(info));
	ksi_clear_error(ks);
	status = ksi_place_open(ks, path, &place);
	if (status == KEYSTORE_OK)
		status = ksi_read_sound(ks, path, NULL, NULL, &file);
	if (status != KEYSTORE_OK)
		goto out;
	status = ksi_file_read(ks, &place, KEYSTORE_BACKUP_NOTE_NAME, NOTE_MAX, &note, &len);
	/* None, or something else of that name: nothing is known. */
	if (status == KEYSTORE_ENOENT || status == KEYSTORE_EFORMAT)
	{
		ksi_clear_error(ks);
		status = KEYSTORE_OK;
	}
	else if (status == KEYSTORE_OK && parse_note((char *) note, len, &info, uuid, hex))
	{
		keystore_uuid_text(file->header.uuid, own_uuid);
		to_hex(file->raw + file->layout.digest_off, own_hex);
		info.known = strcmp(uuid, own_uuid) == 0;
		info.current = info.known && strcmp(hex, own_hex) == 0;
	}
	if (status != KEYSTORE_OK)
		goto out;
	if (!info.known)
		memset(&info, 0, sizeof(info));
	*ret_info = info;

out:
	free(note);
	keystore_free(&file);
	ksi_place_close(&place);
	return status;
}
