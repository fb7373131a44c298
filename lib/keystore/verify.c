/*
 * verify.c
 *		Everything that can be found out about a keystore and what lies beside it, as a
 *		list of findings.
 *
 * It looks and never changes anything.  What it says of a file that it could not open is what the
 * opening function said, so that there is one text for one trouble.
 */
#include <config.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ksi.h"

/* SP 800-57 part 1 section 5.3.6: a key that wraps keys is used for two years at most. */
#define CRYPTOPERIOD_DAYS	730
#define SECONDS_A_DAY		86400

/* Below these a slot is easier to guess than what the library makes by default. */
#define SCRYPT_WEAK_LOG2	17		/* log2 of N times p, with r = 8 */
#define ARGON2_WEAK_KIB		(2 * 19 * 1024)	/* memory times passes */

/* The list as it grows. */
struct report
{
	struct keystore_finding *findings;
	size_t		max;
	size_t		count;
};

/* Room for one more of this severity, worst first; NULL if only worse ones fit. */
static struct keystore_finding *
insert(struct report *report, enum keystore_severity severity)
{
	size_t		pos = report->count;

	while (pos > 0 && report->findings[pos - 1].severity < severity)
		pos--;
	if (pos == report->max)
		return NULL;
	if (report->count < report->max)
		report->count++;
	memmove(&report->findings[pos + 1], &report->findings[pos],
			(report->count - 1 - pos) * sizeof(report->findings[0]));
	memset(&report->findings[pos], 0, sizeof(report->findings[0]));
	report->findings[pos].severity = severity;
	return &report->findings[pos];
}

static void add(struct report *report, enum keystore_severity severity, const char *hint,
				const char *fmt, ...) __attribute__((format(printf, 4, 5)));

static void
add(struct report *report, enum keystore_severity severity, const char *hint, const char *fmt, ...)
{
	struct keystore_finding *finding = insert(report, severity);
	va_list		ap;

	if (finding == NULL)
		return;
	va_start(ap, fmt);
	(void) vsnprintf(finding->text, sizeof(finding->text), fmt, ap);	/* cut off if too long */
	va_end(ap);
	(void) snprintf(finding->hint, sizeof(finding->hint), "%s", hint);
}

/* What a handle had to say.  ENOMEM and ECRYPTO are no findings: they say nothing about the file. */
static bool
add_failure(struct report *report, enum keystore_severity severity, const keystore *ks,
			enum keystore_status status)
{
	struct keystore_finding *finding;

	if (status == KEYSTORE_ENOMEM || status == KEYSTORE_ECRYPTO)
		return false;
	finding = insert(report, severity);
	if (finding != NULL)
	{
		finding->status = status;
		(void) snprintf(finding->text, sizeof(finding->text), "%.*s",
						(int) sizeof(finding->text) - 1, ks->errmsg);
		(void) snprintf(finding->hint, sizeof(finding->hint), "%.*s",
						(int) sizeof(finding->hint) - 1, ks->errhint);
	}
	return true;
}

/* ---- slots ----------------------------------------------------------------------------- */

static bool
is_weak(const struct keystore_kdf_params *kdf)
{
	uint32_t	log2p = 0;

	switch ((uint32_t) kdf->kdf)
	{
		case KEYSTORE_KDF_SCRYPT:
			while ((UINT32_C(2) << log2p) <= kdf->parallelism)
				log2p++;
			return kdf->cost + log2p < SCRYPT_WEAK_LOG2 || kdf->block_size < 8;
		case KEYSTORE_KDF_ARGON2ID:
			return (uint64_t) kdf->memory_kib * kdf->cost < ARGON2_WEAK_KIB;
		default:
			return ksi_kdf_check(kdf, true) != NULL;
	}
}

static void
examine_slots(struct report *report, const keystore *file)
{
	size_t		ways = 0;
	bool		recovery = false;

	for (size_t i = 0; i < file->header.slot_count; i++)
	{
		struct ksi_slot_fields slot;
		const char *name;

		ksi_format_get_slot(&file->header.slots[i], &slot);
		if (!ksi_format_slot_is_ours(&file->header.slots[i]))
		{
			add(report, KEYSTORE_WARNING, "Use the version that wrote the keystore, or a later one.",
				"slot %u (\"%s\") is of kind %u, which this version does not support", slot.id,
				slot.label, slot.kind);
			continue;
		}
		name = ksi_kdf_name((uint32_t) slot.kdf.kdf);
		if (!keystore_kdf_available(slot.kdf.kdf))
		{
			add(report, KEYSTORE_WARNING, "Change its passphrase where the slot opens.",
				"slot %u (\"%s\") needs %s, which is not available here", slot.id, slot.label,
				name != NULL ? name : "a key derivation function of a later version");
			continue;
		}
		ways++;
		if (slot.kind == KEYSTORE_SLOT_RECOVERY)
			recovery = true;
		else if (is_weak(&slot.kdf))	/* a recovery key is too long to be guessed at any cost */
			add(report, KEYSTORE_WARNING, "Change its passphrase, if need be to the same one.",
				"slot %u (\"%s\") is cheaper to guess than a new one would be", slot.id,
				slot.label);
	}
	if (ways == 0)
		add(report, KEYSTORE_ERROR, "Use a libcrypto that provides the functions.",
			"no slot can be opened with this build");
	if (!recovery)
		add(report, KEYSTORE_NOTE, "Add one and keep it in a safe place.",
			"there is no recovery key");
}

/* ---- the content --------------------------------------------------------------------------- */

static void
examine_keys(struct report *report, keystore *file)
{
	int64_t		now = (int64_t) time(NULL);

	for (size_t i = 0; i < file->history.key_count; i++)
	{
		const struct ksi_key *key = &ksi_keys(&file->history)[i];

		if (key->state == KEYSTORE_KEY_COMPROMISED)
			add(report, KEYSTORE_WARNING,
				"Encrypt anew what it protects, then destroy the key.",
				"master encryption key %u is compromised", key->id);
		if (key->created > now + SECONDS_A_DAY)
			add(report, KEYSTORE_NOTE, "Check the clocks of the servers.",
				"master encryption key %u was created in the future", key->id);
		if (key->state == KEYSTORE_KEY_ACTIVE &&
			(now - key->activated) / SECONDS_A_DAY > CRYPTOPERIOD_DAYS)
			add(report, KEYSTORE_WARNING, "Rotate the master encryption key.",
				"the active master encryption key is %lld days old",
				(long long) ((now - key->activated) / SECONDS_A_DAY));
	}
}

/* Open the file with what ks has, and look at the history. */
static enum keystore_status
examine_content(struct report *report, keystore *ks, keystore *file)
{
	enum keystore_status status;

	if (!keystore_is_open(ks) ||
		memcmp(ks->header.uuid, file->header.uuid, KEYSTORE_UUID_LEN) != 0)
	{
		add(report, KEYSTORE_NOTE, "", "the content was not examined, since no key for it was given");
		return KEYSTORE_OK;
	}
	status = keystore_open_like(file, ks);
	if (status == KEYSTORE_OK)
		examine_keys(report, file);
	else if (!add_failure(report, KEYSTORE_ERROR, file, status))
		return status;
	return KEYSTORE_OK;
}

/* ---- what lies beside it --------------------------------------------------------------------- */

static enum keystore_status
examine_prev(struct report *report, keystore *file, const char *path)
{
	enum keystore_status status;
	size_t		size = strlen(path) + sizeof(KSI_PREV_SUFFIX);
	char	   *name = malloc(size);
	keystore   *prev = keystore_new();

	if (name == NULL || prev == NULL)
	{
		status = KEYSTORE_ENOMEM;
		goto out;
	}
	(void) snprintf(name, size, "%s" KSI_PREV_SUFFIX, path);
	status = keystore_load(prev, name);
	if (status == KEYSTORE_ENOENT)
	{
		status = KEYSTORE_OK;
		goto out;
	}
	if (status == KEYSTORE_OK && keystore_is_open(file) &&
		memcmp(prev->header.uuid, file->header.uuid, KEYSTORE_UUID_LEN) == 0)
	{
		/* The one before a rekey opens too; the one after it, with an old keystore put back, does not. */
		status = keystore_open_like(prev, file);
	}
	if (status != KEYSTORE_OK)
	{
		if (add_failure(report, KEYSTORE_WARNING, prev, status))
			status = KEYSTORE_OK;
		if (!prev->loaded)
			goto out;
	}
	if (memcmp(prev->header.uuid, file->header.uuid, KEYSTORE_UUID_LEN) != 0)
		add(report, KEYSTORE_WARNING, "", "\"%s\" is of another keystore", name);
	else if (prev->header.generation > file->header.generation)
		add(report, KEYSTORE_WARNING,
			"Compare with the other servers; a newer keystore opens older data, but not the other way round.",
			"\"%s\" has generation %llu, newer than the keystore's %llu: an older keystore seems to have been put back",
			name, (unsigned long long) prev->header.generation,
			(unsigned long long) file->header.generation);

out:
	free(name);
	keystore_free(&prev);
	return status;
}

static enum keystore_status
examine_auto_open(struct report *report, keystore *file, const char *path)
{
	struct keystore_auto_open_info info;
	enum keystore_status status = keystore_auto_open_status(file, path, &info);

	if (status != KEYSTORE_OK)
		return add_failure(report, KEYSTORE_WARNING, file, status) ? KEYSTORE_OK : status;
	if (strcmp(info.kind, "none") == 0)
		return KEYSTORE_OK;
	if (info.usable)
		add(report, KEYSTORE_NOTE, "", "auto-open is enabled: %s, which is %s", info.kind, info.grade);
	else
		add(report, KEYSTORE_WARNING, "Enable it again, or disable it.",
			"auto-open is enabled but cannot be used: %s", info.reason);
	return KEYSTORE_OK;
}

static enum keystore_status
examine_backup(struct report *report, keystore *file, const char *path)
{
	struct keystore_backup_info info;
	enum keystore_status status = keystore_last_backup(file, path, &info);

	if (status != KEYSTORE_OK)
		return add_failure(report, KEYSTORE_WARNING, file, status) ? KEYSTORE_OK : status;
	if (!info.known)
		add(report, KEYSTORE_WARNING, "Back it up.", "the keystore was never backed up");
	else if (!info.current)
		add(report, KEYSTORE_WARNING, "Back it up.",
			"the keystore was not backed up since its last change");
	return KEYSTORE_OK;
}

/* Files that a writer that died left, and those that a repair put aside. */
static void
examine_leftovers(struct report *report, const struct ksi_place *place)
{
	int			fd = openat(place->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR		   *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;
	size_t		len = strlen(place->base);

	if (dir == NULL)
	{
		if (fd >= 0)
			(void) close(fd);
		return;
	}
	while ((entry = readdir(dir)) != NULL)
	{
		const char *rest = entry->d_name + len;

		if (strncmp(entry->d_name, place->base, len) != 0)
			continue;
		if (strncmp(rest, KSI_DAMAGED_SUFFIX, strlen(KSI_DAMAGED_SUFFIX)) == 0)
			add(report, KEYSTORE_NOTE, "Remove it when nobody needs it any more.",
				"\"%s%s\" is what a repair found in place of the keystore", place->prefix,
				entry->d_name);
		if (strncmp(rest, KSI_NEW_SUFFIX, strlen(KSI_NEW_SUFFIX)) == 0)
			add(report, KEYSTORE_NOTE, "The next change removes it.",
				"\"%s%s\" was left by a program that was interrupted, or is being written",
				place->prefix, entry->d_name);
	}
	(void) closedir(dir);
}

/* ---- all of it ------------------------------------------------------------------------------- */

enum keystore_status
keystore_verify(keystore *ks, const char *path, struct keystore_finding *ret_findings, size_t max,
				size_t *ret_count)
{
	enum keystore_status status;
	struct ksi_place place = {-1, NULL, NULL};
	struct report report = {ret_findings, max, 0};
	keystore   *file = keystore_new();

	ksi_clear_error(ks);
	if (file == NULL)
		return ksi_nomem(ks);
	status = ksi_inherit_paths(file, ks);
	if (status != KEYSTORE_OK)
		goto out;
	status = ksi_place_open(file, path, &place);
	if (status == KEYSTORE_OK)
		status = keystore_load(file, path);
	if (status != KEYSTORE_OK)
	{
		if (add_failure(&report, KEYSTORE_ERROR, file, status))
			status = KEYSTORE_OK;
	}
	else
	{
		examine_slots(&report, file);
		status = examine_content(&report, ks, file);
		if (status == KEYSTORE_OK)
			status = examine_prev(&report, file, path);
		if (status == KEYSTORE_OK)
			status = examine_auto_open(&report, file, path);
		if (status == KEYSTORE_OK)
			status = examine_backup(&report, file, path);
	}
	if (status == KEYSTORE_OK && place.dirfd >= 0)
		examine_leftovers(&report, &place);

out:
	if (status == KEYSTORE_OK)
		*ret_count = report.count;
	else
		(void) ksi_fail(ks, status, "%s", keystore_status_name(status));
	ksi_place_close(&place);
	keystore_free(&file);
	return status;
}
