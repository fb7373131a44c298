/*
 * info_write.c
 *		backup_info.json as it is written, and as it is shown.  See pgx_backup(5).
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#include "backup.h"
#include "file.h"
#include "log.h"
#include "mem.h"

static json_t *
json_time(int64_t when)
{
	char		buf[32];
	time_t		t = (time_t) when;
	struct tm	tm;

	if (gmtime_r(&t, &tm) == NULL || strftime(buf, sizeof(buf), "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		return NULL;
	return json_string(buf);
}

static json_t *
json_lsn(uint64_t lsn)
{
	char		text[PGX_LSN_STRLEN + 1];

	pgx_lsn_text(lsn, text);
	return json_string(text);
}

/* jansson passes a NULL through and fails in the end, so that one check is enough. */
static json_t *
json_tablespaces(const struct pgx_backup_info *info)
{
	json_t	   *array = json_array();

	for (size_t i = 0; i < info->n_tablespaces; i++)
	{
		const struct pgx_backup_tablespace *ts = &info->tablespaces[i];

		if (json_array_append_new(array, json_pack("{s:I, s:s, s:s, s:s, s:b}",
												   "oid", (json_int_t) ts->oid, "name", ts->name,
												   "location", ts->location, "algorithm", ts->algorithm,
												   "by_copy_command", ts->by_copy_command)) != 0)
			goto fail;
	}
	return array;

fail:
	json_decref(array);
	return NULL;
}

static json_t *
json_confs(const struct pgx_backup_info *info)
{
	json_t	   *array = json_array();

	for (size_t i = 0; i < info->n_confs; i++)
	{
		const struct pgx_backup_conf *conf = &info->confs[i];

		if (json_array_append_new(array, json_pack("{s:s, s:s, s:s}", "parameter", conf->parameter,
												   "path", conf->path, "file", conf->file)) != 0)
			goto fail;
	}
	return array;

fail:
	json_decref(array);
	return NULL;
}

static json_t *
json_copy_command(const struct pgx_backup_info *info)
{
	json_t	   *array;

	if (info->copy_info_file == NULL)
		return json_null();
	array = json_array();
	for (size_t i = 0; i < info->n_resources; i++)
	{
		if (json_array_append_new(array, json_string(info->resources[i])) != 0)
		{
			json_decref(array);
			return NULL;
		}
	}
	return json_pack("{s:s, s:o}", "info_file", info->copy_info_file, "resources", array);
}

static json_t *
json_packed(const struct pgx_backup_info *info)
{
	char		id[2 * PGX_BACKUP_PACK_ID_LEN + 1];

	if (!info->packed)
		return json_null();
	for (size_t i = 0; i < PGX_BACKUP_PACK_ID_LEN; i++)
		snprintf(id + 2 * i, 3, "%02x", info->pack_id[i]);
	return json_pack("{s:s, s:I, s:I}", "id", id, "master_key", (json_int_t) info->pack_master_key,
					 "data_size", (json_int_t) info->pack_data_size);
}

static json_t *
json_keystore(const struct pgx_backup_info *info)
{
	json_t	   *array;

	if (info->keystore_uuid == NULL)
		return json_null();
	array = json_array();
	for (size_t i = 0; i < info->n_master_keys; i++)
	{
		if (json_array_append_new(array, json_integer((json_int_t) info->master_keys[i])) != 0)
		{
			json_decref(array);
			return NULL;
		}
	}
	return json_pack("{s:s, s:s?, s:I, s:s?, s:o}", "uuid", info->keystore_uuid,
					 "location", info->keystore_location,
					 "generation", (json_int_t) info->keystore_generation,
					 "copy", info->keystore_copy, "master_keys", array);
}

static json_t *
json_wal(const struct pgx_backup_info *info)
{
	return json_pack("{s:I, s:I, s:o, s:o, s:I, s:b}",
					 "start_timeline", (json_int_t) info->start_timeline,
					 "end_timeline", (json_int_t) info->end_timeline,
					 "start_lsn", json_lsn(info->start_lsn), "end_lsn", json_lsn(info->end_lsn),
					 "segment_size", (json_int_t) info->wal_segment_size,
					 "archive_complete", info->archive_complete);
}

/* NULL if memory is out, or if a string is not UTF-8. */
static json_t *
json_info(const struct pgx_backup_info *info)
{
	return json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:b, s:b, s:b, s:o, s:o, s:I, s:s, s:s?,"
					 " s:s?, s:o, s:o, s:o, s:o, s:o, s:o}",
					 "format", PGX_BACKUP_INFO_FORMAT, "status", "COMPLETE", "label", info->label,
					 "tool", info->tool, "method", info->method, "compression", info->compression,
					 "system_identifier", info->system_identifier,
					 "server_version", (json_int_t) info->server_version,
					 "data_checksums", info->data_checksums, "from_standby", info->from_standby,
					 "has_manifest", info->has_manifest,
					 "start_time", json_time(info->start_time), "end_time", json_time(info->end_time),
					 "size", (json_int_t) info->size, "data_directory", info->data_directory,
					 "wal_directory", info->wal_directory,
					 "online_wal_directory", info->online_wal_directory, "wal", json_wal(info),
					 "tablespaces", json_tablespaces(info), "configuration_files", json_confs(info),
					 "packed", json_packed(info), "copy_command", json_copy_command(info),
					 "keystore", json_keystore(info));
}

bool
pgx_backup_info_write(const char *dir, const struct pgx_backup_info *info)
{
	json_t	   *root = json_info(info);
	char	   *text = root != NULL ? json_dumps(root, JSON_INDENT(2)) : NULL;
	char	   *path = pgx_join(dir, PGX_BACKUP_INFO_NAME);
	bool		ok = false;

	if (text == NULL)
		pgx_log_error("could not make \"%s\": a name in it is not valid UTF-8, or memory is out", path);
	else
	{
		char	   *with_newline = pgx_printf("%s\n", text);

		ok = pgx_write_durable(path, with_newline, strlen(with_newline));
		free(with_newline);
	}
	free(path);
	free(text);
	json_decref(root);
	return ok;
}

char *
pgx_backup_json(const struct pgx_backup *backup)
{
	json_t	   *root;
	char	   *text;
	char	   *result;

	if (backup->state == PGX_BACKUP_COMPLETE)
		root = json_info(&backup->info);
	else
		root = json_pack("{s:s, s:s?}", "status", pgx_backup_state_text(backup->state),
						 "reason", backup->reason);
	(void) json_object_set_new(root, "name", json_string(backup->name));
	(void) json_object_set_new(root, "directory", json_string(backup->dir));
	text = json_dumps(root, JSON_INDENT(2));
	result = pgx_strdup(text != NULL ? text : "null");
	free(text);
	json_decref(root);
	return result;
}
