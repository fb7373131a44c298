/*
 * repair.c
 *		Put a sound keystore in place of a damaged or missing one.  Whatever was there is
 *		kept: what looks damaged today may be all that is left tomorrow.
 */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ksi.h"

#define NAME_TRIES			10000

/* Give what is there another name too.  *ret_kept is malloc'ed, and NULL if there is nothing. */
static enum keystore_status
keep_aside(keystore *ks, const struct ksi_place *place, char **ret_kept)
{
	char		stamp[KSI_TIME_STAMP_LEN + 1];
	size_t		size = strlen(place->base) + 64;
	char	   *name = malloc(size);

	if (name == NULL)
		return ksi_nomem(ks);
	ksi_time_stamp((int64_t) time(NULL), stamp);
	errno = EEXIST;
	for (int n = 1; n <= NAME_TRIES; n++)
	{
		char		number[16] = "";

		if (n > 1)
			(void) snprintf(number, sizeof(number), "-%d", n);
		(void) snprintf(name, size, "%s" KSI_DAMAGED_SUFFIX "%s%s", place->base, stamp, number);
		if (linkat(place->dirfd, place->base, place->dirfd, name, 0) == 0)
		{
			if (fsync(place->dirfd) != 0)
				break;
			*ret_kept = name;
			return KEYSTORE_OK;
		}
		if (errno == ENOENT)
		{
			free(name);
			*ret_kept = NULL;
			return KEYSTORE_OK;
		}
		if (errno != EEXIST)
			break;
	}
	(void) ksi_fail(ks, KEYSTORE_EIO, "could not keep file \"%s%s\" as \"%s%s\": %m", place->prefix,
					place->base, place->prefix, name);
	free(name);
	return KEYSTORE_EIO;
}

/*
 * May source replace what is there?  A sound keystore that is newer, or another one, only by force.
 * *ret_same: it holds the very same bytes.
 */
static enum keystore_status
check_current(keystore *ks, const char *path, const char *from, keystore *source, bool force,
			  bool *ret_same)
{
	enum keystore_status status;
	keystore   *current = keystore_new();

	if (current == NULL)
		return ksi_nomem(ks);
	*ret_same = false;
	status = keystore_load(current, path);
	switch (status)
	{
		case KEYSTORE_OK:
			break;
		case KEYSTORE_ENOENT:
		case KEYSTORE_EFORMAT:
		case KEYSTORE_EDAMAGED:
			status = KEYSTORE_OK;
			goto out;
		default:
			/* Not known to be damaged: a wrong mode, or a later version. */
			ksi_copy_error(ks, current);
			goto out;
	}
	*ret_same = current->layout.file_len == source->layout.file_len &&
		memcmp(current->raw, source->raw, source->layout.file_len) == 0;
	if (*ret_same || force)
		goto out;
	if (memcmp(current->header.uuid, source->header.uuid, KEYSTORE_UUID_LEN) != 0)
	{
		(void) ksi_fail(ks, KEYSTORE_ECONFLICT, "\"%s\" and \"%s\" are not copies of the same keystore",
						path, from);
		status = ksi_hint(ks, KEYSTORE_ECONFLICT, "Make sure that this is the right backup.");
	}
	else if (current->header.generation >= source->header.generation)
	{
		(void) ksi_fail(ks, KEYSTORE_ECONFLICT,
						"keystore \"%s\" is sound and has generation %llu, \"%s\" has generation %llu",
						path, (unsigned long long) current->header.generation, from,
						(unsigned long long) source->header.generation);
		status = ksi_hint(ks, KEYSTORE_ECONFLICT,
						  "An older keystore may lack master encryption keys that data needs.");
	}

out:
	keystore_free(&current);
	return status;
}

/* ks, if it is open, tells whose keystore it should be. */
static enum keystore_status
check_source(keystore *ks, const char *from, keystore *source, bool force)
{
	if (!keystore_is_open(ks) || force ||
		memcmp(ks->header.uuid, source->header.uuid, KEYSTORE_UUID_LEN) == 0)
		return KEYSTORE_OK;
	return ksi_fail(ks, KEYSTORE_ECONFLICT, "\"%s\" and \"%s\" are not copies of the same keystore",
					ks->where, from);
}

enum keystore_status
keystore_repair(keystore *ks, const char *path, const char *from, bool force, char *ret_kept,
				size_t size)
{
	enum keystore_status status;
	struct ksi_place place = {-1, NULL, NULL};
	keystore   *source = NULL;
	uint8_t    *buf = NULL;
	size_t		len = 0;
	char	   *prev = NULL;
	char	   *kept = NULL;
	bool		same = false;

	ksi_clear_error(ks);
	if (from == NULL)
	{
		size_t		prev_size = strlen(path) + sizeof(KSI_PREV_SUFFIX);

		prev = malloc(prev_size);
		if (prev == NULL)
			return ksi_nomem(ks);
		(void) snprintf(prev, prev_size, "%s" KSI_PREV_SUFFIX, path);
		from = prev;
	}
	if (size < strlen(path) + 64)
	{
		status = ksi_fail(ks, KEYSTORE_EINVAL, "file name \"%s\" is too long", path);
		goto out;
	}
	status = ksi_place_open(ks, path, &place);
	if (status == KEYSTORE_OK)
		status = ksi_read_sound(ks, from, &buf, &len, &source);
	if (status == KEYSTORE_OK)
		status = check_source(ks, from, source, force);
	if (status == KEYSTORE_OK)
		status = check_current(ks, path, from, source, force, &same);
	if (status == KEYSTORE_OK && !same)
		status = keep_aside(ks, &place, &kept);
	if (status == KEYSTORE_OK && !same)
		status = ksi_replace(ks, &place, place.base, buf, len, KSI_OVERWRITE);
	if (status == KEYSTORE_OK)
		(void) snprintf(ret_kept, size, "%s%s", kept != NULL ? place.prefix : "",
						kept != NULL ? kept : "");

out:
	free(kept);
	free(prev);
	free(buf);
	keystore_free(&source);
	ksi_place_close(&place);
	return status;
}
