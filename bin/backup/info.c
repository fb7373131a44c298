/*
 * info.c
 *		backup_info.json: what a backup says about itself.  See pgx_backup(5).
 */
#include <config.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <jansson.h>

#include "backup.h"
#include "file.h"
#include "log.h"
#include "mem.h"

/* What reading needs at every step. */
struct reader
{
	bool		ok;
	char	   *err;
	size_t		err_len;
};

static void __attribute__((format(printf, 2, 3)))
bad(struct reader *r, const char *fmt,...)
{
	va_list		args;

	if (!r->ok)
		return;					/* the first reason is the one to tell */
	r->ok = false;
	va_start(args, fmt);
	vsnprintf(r->err, r->err_len, fmt, args);
	va_end(args);
}

/* ---- reading ------------------------------------------------------------------- */

static char *
get_string(struct reader *r, json_t *from, const char *name)
{
	json_t	   *value = json_object_get(from, name);

	if (!json_is_string(value))
	{
		bad(r, "member \"%s\" is missing or not a string", name);
		return pgx_strdup("");
	}
	return pgx_strdup(json_string_value(value));
}

/* NULL where JSON has null or nothing. */
static char *
get_optional(struct reader *r, json_t *from, const char *name)
{
	json_t	   *value = json_object_get(from, name);

	return value == NULL || json_is_null(value) ? NULL : get_string(r, from, name);
}

static uint64_t
get_number(struct reader *r, json_t *from, const char *name, uint64_t min, uint64_t max)
{
	json_t	   *value = json_object_get(from, name);

	if (!json_is_integer(value) || json_integer_value(value) < 0 ||
		(uint64_t) json_integer_value(value) < min || (uint64_t) json_integer_value(value) > max)
	{
		bad(r, "member \"%s\" is missing or out of range", name);
		return min;
	}
	return (uint64_t) json_integer_value(value);
}

static bool
get_bool(struct reader *r, json_t *from, const char *name)
{
	json_t	   *value = json_object_get(from, name);

	if (!json_is_boolean(value))
		bad(r, "member \"%s\" is missing or not a boolean", name);
	return json_is_true(value);
}

static uint64_t
get_lsn(struct reader *r, json_t *from, const char *name)
{
	char	   *text = get_string(r, from, name);
	uint64_t	lsn = 0;

	if (!pgx_lsn_parse(text, &lsn))
		bad(r, "member \"%s\" is not an LSN", name);
	free(text);
	return lsn;
}

/* "2026-11-24T08:13:00Z" */
static int64_t
get_time(struct reader *r, json_t *from, const char *name)
{
	char	   *text = get_string(r, from, name);
	struct tm	tm;
	const char *end;
	int64_t		when = 0;

	memset(&tm, 0, sizeof(tm));
	end = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &tm);
	if (end == NULL || *end != '\0')
		bad(r, "member \"%s\" is not a time", name);
	else
		when = (int64_t) timegm(&tm);
	free(text);
	return when;
}

/* A path that stays inside the backup. */
static char *
check_inside(struct reader *r, char *path, const char *name)
{
	if (path != NULL && (path[0] == '/' || path[0] == '\0' || strcmp(path, "..") == 0 ||
						 strncmp(path, "../", 3) == 0 || strstr(path, "/../") != NULL ||
						 (strlen(path) >= 3 && strcmp(path + strlen(path) - 3, "/..") == 0)))
		bad(r, "member \"%s\" names a file outside the backup", name);
	return path;
}

static json_t *
get_array(struct reader *r, json_t *from, const char *name)
{
	json_t	   *value = json_object_get(from, name);

	if (!json_is_array(value))
		bad(r, "member \"%s\" is missing or not an array", name);
	return value;				/* jansson's array functions take a NULL for an empty one */
}

static void
read_tablespaces(struct reader *r, json_t *root, struct pgx_backup_info *info)
{
	json_t	   *array = get_array(r, root, "tablespaces");

	info->tablespaces = pgx_alloc((json_array_size(array) + 1) * sizeof(*info->tablespaces));
	for (size_t i = 0; i < json_array_size(array); i++)
	{
		json_t	   *item = json_array_get(array, i);
		struct pgx_backup_tablespace *ts = &info->tablespaces[info->n_tablespaces++];

		ts->oid = (uint32_t) get_number(r, item, "oid", 1, UINT32_MAX);
		ts->name = get_string(r, item, "name");
		ts->location = get_string(r, item, "location");
		ts->algorithm = get_string(r, item, "algorithm");
		ts->by_copy_command = get_bool(r, item, "by_copy_command");
	}
}

static void
read_confs(struct reader *r, json_t *root, struct pgx_backup_info *info)
{
	json_t	   *array = get_array(r, root, "configuration_files");

	info->confs = pgx_alloc((json_array_size(array) + 1) * sizeof(*info->confs));
	for (size_t i = 0; i < json_array_size(array); i++)
	{
		json_t	   *item = json_array_get(array, i);
		struct pgx_backup_conf *conf = &info->confs[info->n_confs++];

		conf->parameter = get_string(r, item, "parameter");
		conf->path = get_string(r, item, "path");
		conf->file = check_inside(r, get_string(r, item, "file"), "file");
	}
}

static void
read_copy_command(struct reader *r, json_t *root, struct pgx_backup_info *info)
{
	json_t	   *copy = json_object_get(root, "copy_command");
	json_t	   *array;

	if (copy == NULL || json_is_null(copy))
		return;
	info->copy_info_file = check_inside(r, get_string(r, copy, "info_file"), "info_file");
	array = get_array(r, copy, "resources");
	info->resources = pgx_alloc((json_array_size(array) + 1) * sizeof(*info->resources));
	for (size_t i = 0; i < json_array_size(array); i++)
	{
		const char *name = json_string_value(json_array_get(array, i));

		if (name == NULL)
			bad(r, "member \"resources\" has something that is not a string");
		else
			info->resources[info->n_resources++] = pgx_strdup(name);
	}
}

/* 32 hexadecimal digits. */
static void
get_pack_id(struct reader *r, json_t *pack, struct pgx_backup_info *info)
{
	char	   *text = get_string(r, pack, "id");

	if (strlen(text) != 2 * PGX_BACKUP_PACK_ID_LEN ||
		strspn(text, "0123456789abcdef") != 2 * PGX_BACKUP_PACK_ID_LEN)
		bad(r, "member \"%s\" is not a packed file's id", "id");
	else
	{
		for (size_t i = 0; i < PGX_BACKUP_PACK_ID_LEN; i++)
		{
			char		digits[3] = {text[2 * i], text[2 * i + 1], '\0'};

			info->pack_id[i] = (uint8_t) strtoul(digits, NULL, 16);
		}
	}
	free(text);
}

static void
read_packed(struct reader *r, json_t *root, struct pgx_backup_info *info)
{
	json_t	   *pack = json_object_get(root, "packed");

	if (pack == NULL || json_is_null(pack))
		return;
	info->packed = true;
	get_pack_id(r, pack, info);
	info->pack_master_key = (uint32_t) get_number(r, pack, "master_key", 1, UINT32_MAX);
	info->pack_data_size = get_number(r, pack, "data_size", 0, INT64_MAX);
}

static void
read_keystore(struct reader *r, json_t *root, struct pgx_backup_info *info)
{
	json_t	   *ks = json_object_get(root, "keystore");
	json_t	   *array;

	if (ks == NULL || json_is_null(ks))
		return;
	info->keystore_uuid = get_string(r, ks, "uuid");
	info->keystore_location = get_optional(r, ks, "location");
	info->keystore_generation = get_number(r, ks, "generation", 0, INT64_MAX);
	info->keystore_copy = check_inside(r, get_optional(r, ks, "copy"), "copy");
	array = get_array(r, ks, "master_keys");
	info->master_keys = pgx_alloc((json_array_size(array) + 1) * sizeof(*info->master_keys));
	for (size_t i = 0; i < json_array_size(array); i++)
	{
		json_t	   *id = json_array_get(array, i);

		if (!json_is_integer(id) || json_integer_value(id) < 1 || json_integer_value(id) > UINT32_MAX ||
			(i > 0 && json_integer_value(id) <= (json_int_t) info->master_keys[i - 1]))
			bad(r, "member \"master_keys\" is not an ascending list of numbers");
		else
			info->master_keys[info->n_master_keys++] = (uint32_t) json_integer_value(id);
	}
}

static void
read_wal_range(struct reader *r, json_t *root, struct pgx_backup_info *info)
{
	json_t	   *wal = json_object_get(root, "wal");

	info->start_timeline = (uint32_t) get_number(r, wal, "start_timeline", 1, UINT32_MAX);
	info->end_timeline = (uint32_t) get_number(r, wal, "end_timeline", 1, UINT32_MAX);
	info->start_lsn = get_lsn(r, wal, "start_lsn");
	info->end_lsn = get_lsn(r, wal, "end_lsn");
	info->wal_segment_size = (uint32_t) get_number(r, wal, "segment_size", 1024 * 1024, 1024 * 1024 * 1024);
	info->archive_complete = get_bool(r, wal, "archive_complete");
	if ((info->wal_segment_size & (info->wal_segment_size - 1)) != 0)
		bad(r, "member \"segment_size\" is not a power of two");
	if (info->end_lsn < info->start_lsn || info->end_timeline < info->start_timeline)
		bad(r, "the WAL range ends before it begins");
}

static void
read_all(struct reader *r, json_t *root, struct pgx_backup_info *info)
{
	char	   *status = get_string(r, root, "status");

	if (strcmp(status, "COMPLETE") != 0)
		bad(r, "status is \"%s\"", status);
	free(status);
	info->label = get_string(r, root, "label");
	info->tool = get_string(r, root, "tool");
	info->method = get_string(r, root, "method");
	info->compression = get_string(r, root, "compression");
	info->system_identifier = get_string(r, root, "system_identifier");
	info->server_version = (uint32_t) get_number(r, root, "server_version", 90000, 990000);
	info->data_checksums = get_bool(r, root, "data_checksums");
	info->from_standby = get_bool(r, root, "from_standby");
	info->has_manifest = get_bool(r, root, "has_manifest");
	info->start_time = get_time(r, root, "start_time");
	info->end_time = get_time(r, root, "end_time");
	info->size = get_number(r, root, "size", 0, INT64_MAX);
	info->data_directory = get_string(r, root, "data_directory");
	info->wal_directory = get_optional(r, root, "wal_directory");
	info->online_wal_directory = get_optional(r, root, "online_wal_directory");
	read_wal_range(r, root, info);
	read_tablespaces(r, root, info);
	read_confs(r, root, info);
	read_packed(r, root, info);
	read_copy_command(r, root, info);
	read_keystore(r, root, info);
}

bool
pgx_backup_info_read(const char *dir, struct pgx_backup_info *ret_info, char *err, size_t err_len)
{
	struct reader r = {true, err, err_len};
	struct pgx_backup_info info;
	char	   *path = pgx_join(dir, PGX_BACKUP_INFO_NAME);
	json_error_t json_err;
	json_t	   *root = NULL;
	json_int_t	format;
	FILE	   *f = fopen(path, "re");

	memset(&info, 0, sizeof(info));
	if (f == NULL)
	{
		bad(&r, "could not open file \"%s\": %s", PGX_BACKUP_INFO_NAME, strerror(errno));
		goto out;
	}
	root = json_loadf(f, JSON_REJECT_DUPLICATES, &json_err);
	if (root == NULL)
	{
		bad(&r, "file \"%s\" is not valid: line %d: %s", PGX_BACKUP_INFO_NAME, json_err.line, json_err.text);
		goto out;
	}
	format = json_integer_value(json_object_get(root, "format"));
	if (format != PGX_BACKUP_INFO_FORMAT)
		bad(&r, "file \"%s\" has format %lld, which this version does not know", PGX_BACKUP_INFO_NAME,
			(long long) format);
	else
		read_all(&r, root, &info);

out:
	if (r.ok)
		*ret_info = info;
	else
		pgx_backup_info_clear(&info);
	if (f != NULL)
		(void) fclose(f);
	json_decref(root);
	free(path);
	return r.ok;
}

void
pgx_backup_info_clear(struct pgx_backup_info *info)
{
	for (size_t i = 0; i < info->n_tablespaces; i++)
	{
		free(info->tablespaces[i].name);
		free(info->tablespaces[i].location);
		free(info->tablespaces[i].algorithm);
	}
	for (size_t i = 0; i < info->n_confs; i++)
	{
		free(info->confs[i].parameter);
		free(info->confs[i].path);
		free(info->confs[i].file);
	}
	for (size_t i = 0; i < info->n_resources; i++)
		free(info->resources[i]);
	free(info->tablespaces);
	free(info->confs);
	free(info->resources);
	free(info->label);
	free(info->tool);
	free(info->method);
	free(info->compression);
	free(info->system_identifier);
	free(info->data_directory);
	free(info->wal_directory);
	free(info->online_wal_directory);
	free(info->copy_info_file);
	free(info->keystore_uuid);
	free(info->keystore_location);
	free(info->keystore_copy);
	free(info->master_keys);
	memset(info, 0, sizeof(*info));
}
