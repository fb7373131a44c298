/*
 * status.c
 *		pgx_keystore status: the keystores of all servers in one table, and where they drift
 *		apart.
 */
#include <config.h>

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#ifdef HAVE_JANSSON
#include <jansson.h>
#endif

#include "actions.h"
#include "file.h"
#include "fleet.h"
#include "log.h"
#include "mem.h"
#include "options.h"

#define DEFAULT_TIMEOUT_S	10
#define MAX_TIMEOUT_S		3600

/* What is wrong, in whole sentences without the period. */
struct findings
{
	char	  **texts;
	size_t		count;
};

static void __attribute__((format(printf, 2, 3)))
find(struct findings *findings, const char *fmt,...)
{
	va_list		ap;
	char	   *text = NULL;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = pgx_strdup("out of memory");
	va_end(ap);
	findings->texts = pgx_realloc(findings->texts, (findings->count + 1) * sizeof(char *));
	findings->texts[findings->count++] = text;
}

/*
 * A server that has no conninfo cannot be asked; if its keystore is on this host, the file tells at
 * least which keystore it is, and of which generation.
 */
static void
look_at_file(struct fleet_row *row)
{
	char	   *path;
	keystore   *ks;
	uint8_t		uuid[KEYSTORE_UUID_LEN];

	if (row->server->conninfo != NULL || row->server->host != NULL)
		return;
	path = pgx_join(row->server->keystore, KEYSTORE_FILE_NAME);
	ks = new_handle();
	free(row->error);
	if (keystore_load(ks, path) == KEYSTORE_OK)
	{
		row->uuid = pgx_alloc(KEYSTORE_UUID_STRLEN + 1);
		keystore_get_uuid(ks, uuid);
		keystore_uuid_text(uuid, row->uuid);
		row->generation = pgx_printf("%" PRIu64, keystore_get_generation(ks));
		row->error = pgx_strdup("no conninfo, only the file was looked at");
	}
	else
		row->error = pgx_printf("no conninfo, and %s", keystore_errmsg(ks));
	keystore_free(&ks);
	free(path);
}

/* Was it only not to be asked, and the file was in order? */
static bool
file_only(const struct fleet_row *row)
{
	return row->server->conninfo == NULL && row->uuid != NULL;
}

/* Whom the others are compared with: the primary, else whoever has the highest generation. */
static const struct fleet_row *
reference(const struct fleet_row *rows, size_t count)
{
	const struct fleet_row *best = NULL;

	for (size_t i = 0; i < count; i++)
	{
		if (rows[i].role != NULL && strcmp(rows[i].role, "primary") == 0 && rows[i].uuid != NULL)
			return &rows[i];
		if (rows[i].uuid != NULL && rows[i].generation != NULL &&
			(best == NULL || strtoull(rows[i].generation, NULL, 10) > strtoull(best->generation, NULL, 10)))
			best = &rows[i];
	}
	return best;
}

static void
compare_with(const struct fleet_row *row, const struct fleet_row *ref, struct findings *findings)
{
	const char *name = row->server->name;
	const char *ref_name = ref->server->name;

	if (row == ref || row->uuid == NULL)
		return;
	if (strcmp(row->uuid, ref->uuid) != 0)
	{
		find(findings, "server \"%s\" has keystore %s, but \"%s\" has %s", name, row->uuid, ref_name,
			 ref->uuid);
		return;
	}
	if (row->generation != NULL && ref->generation != NULL &&
		strcmp(row->generation, ref->generation) != 0)
		find(findings, "server \"%s\" has generation %s of the keystore, but \"%s\" has %s", name,
			 row->generation, ref_name, ref->generation);
	if (row->active_key != NULL && ref->active_key != NULL &&
		strcmp(row->active_key, ref->active_key) != 0)
		find(findings, "server \"%s\" has active master key %s, but \"%s\" has %s", name,
			 row->active_key, ref_name, ref->active_key);
}

static void
judge(const struct fleet_row *rows, size_t count, struct findings *findings)
{
	const struct fleet_row *ref = reference(rows, count);
	const struct fleet_row *primary = NULL;

	for (size_t i = 0; i < count; i++)
	{
		const struct fleet_row *row = &rows[i];
		const char *name = row->server->name;

		if (row->error != NULL && !file_only(row))
			find(findings, row->reachable ? "server \"%s\" could not tell: %s" :
				 "server \"%s\" could not be asked: %s", name, row->error);
		if (row->state != NULL && strcmp(row->state, "open") != 0)
			find(findings, "the keystore of server \"%s\" is closed", name);
		if (row->auto_open != NULL && strstr(row->auto_open, "not usable") != NULL)
			find(findings, "auto-open of server \"%s\" would not work at its next start", name);
		if (row->role != NULL && strcmp(row->role, "primary") == 0)
		{
			if (primary != NULL)
				find(findings, "servers \"%s\" and \"%s\" are both primaries", primary->server->name, name);
			else
				primary = row;
		}
		if (ref != NULL)
			compare_with(row, ref, findings);
	}
}

/* ---- as a table ------------------------------------------------------------------- */

/* "3d 4h", "12m"; "-" if it is not known. */
static char *
age_text(const char *epoch)
{
	long long	age;

	if (epoch == NULL)
		return pgx_strdup("-");
	age = (long long) time(NULL) - strtoll(epoch, NULL, 10);
	if (age < 0)
		age = 0;				/* clocks differ */
	if (age < 60)
		return pgx_printf("%llds", age);
	if (age < 60 * 60)
		return pgx_printf("%lldm", age / 60);
	if (age < 24 * 60 * 60)
		return pgx_printf("%lldh %lldm", age / 3600, age / 60 % 60);
	return pgx_printf("%lldd %lldh", age / 86400, age / 3600 % 24);
}

static char *
backup_text(const struct fleet_row *row)
{
	char	   *age;
	char	   *text;

	if (!row->has_backup_column)
		return pgx_strdup("-");
	if (row->last_backup == NULL)
		return pgx_strdup("never");
	age = age_text(row->last_backup);
	text = pgx_printf("%s%s", age, row->backup_current ? "" : " (changed since)");
	free(age);
	return text;
}

enum
{
	COL_SERVER, COL_ROLE, COL_UUID, COL_GENERATION, COL_KEY, COL_STATE, COL_OPENED_BY, COL_AUTO_OPEN,
	COL_ROTATED, COL_BACKUP, COL_ANSWER, N_COLS
};

static const char *const titles[N_COLS] = {
	"SERVER", "ROLE", "UUID", "GENERATION", "KEY", "STATE", "OPENED BY", "AUTO-OPEN", "ROTATED",
	"BACKUP", "ANSWER"
};

static void
print_table(const struct fleet_row *rows, size_t count)
{
	char	   *(*cells)[N_COLS] = pgx_alloc((count + 1) * sizeof(*cells));
	size_t		widths[N_COLS] = {0};
	size_t		i;
	int			c;

	for (c = 0; c < N_COLS; c++)
		cells[0][c] = pgx_strdup(titles[c]);
	for (i = 0; i < count; i++)
	{
		const struct fleet_row *row = &rows[i];
		const char *texts[N_COLS] = {
			[COL_SERVER] = row->server->name,[COL_ROLE] = row->role,[COL_UUID] = row->uuid,
			[COL_GENERATION] = row->generation,[COL_KEY] = row->active_key,[COL_STATE] = row->state,
			[COL_OPENED_BY] = row->opened_by,[COL_AUTO_OPEN] = row->auto_open,
			[COL_ANSWER] = row->error != NULL ? row->error : "ok"
		};

		for (c = 0; c < N_COLS; c++)
			cells[i + 1][c] = c == COL_ROTATED ? age_text(row->last_rotation) :
				c == COL_BACKUP ? backup_text(row) : pgx_strdup(texts[c] != NULL ? texts[c] : "-");
	}
	for (i = 0; i <= count; i++)
	{
		for (c = 0; c < N_COLS; c++)
			widths[c] = strlen(cells[i][c]) > widths[c] ? strlen(cells[i][c]) : widths[c];
	}
	for (i = 0; i <= count; i++)
	{
		/* No blanks at the end of a line. */
		for (c = 0; c < N_COLS - 1; c++)
			printf("%-*s  ", (int) widths[c], cells[i][c]);
		printf("%s\n", cells[i][N_COLS - 1]);
		for (c = 0; c < N_COLS; c++)
			free(cells[i][c]);
	}
	free(cells);
}

/* ---- as JSON ---------------------------------------------------------------------- */

#ifdef HAVE_JANSSON

static json_t *
json_text(const char *text)
{
	return text != NULL ? json_string(text) : json_null();
}

static json_t *
json_number(const char *text)
{
	return text != NULL ? json_integer(strtoll(text, NULL, 10)) : json_null();
}

static json_t *
json_epoch(const char *epoch)
{
	char		buf[TIME_TEXT_LEN];

	return epoch != NULL ? json_string(time_text(strtoll(epoch, NULL, 10), buf)) : json_null();
}

static json_t *
json_row(const struct fleet_row *row)
{
	return json_pack("{s:s, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
					 "server", row->server->name, "reachable", row->reachable,
					 "error", json_text(row->error), "role", json_text(row->role),
					 "uuid", json_text(row->uuid), "generation", json_number(row->generation),
					 "active_master_key", json_number(row->active_key),
					 "status", json_text(row->state), "opened_by", json_text(row->opened_by),
					 "auto_open", json_text(row->auto_open),
					 "last_rotation", json_epoch(row->last_rotation),
					 "last_backup", json_epoch(row->last_backup),
					 "backup_current",
					 row->has_backup_column ? json_boolean(row->backup_current) : json_null());
}

static bool
print_json(const struct fleet_row *rows, size_t count, const struct findings *findings)
{
	json_t	   *servers = json_array();
	json_t	   *drift = json_array();
	json_t	   *root;
	bool		ok;
	size_t		i;

	for (i = 0; i < count; i++)
		(void) json_array_append_new(servers, json_row(&rows[i]));
	for (i = 0; i < findings->count; i++)
		(void) json_array_append_new(drift, json_string(findings->texts[i]));
	/* jansson passes NULL through and fails in the end, so one check is enough. */
	ok = json_array_size(servers) == count && json_array_size(drift) == findings->count;
	root = json_pack("{s:o, s:o}", "servers", servers, "drift", drift);
	ok = ok && root != NULL && json_dumpf(root, stdout, JSON_INDENT(2)) == 0;
	if (ok)
		putchar('\n');
	else
		pgx_log_error("could not make JSON of the result");
	json_decref(root);
	return ok;
}

#endif							/* HAVE_JANSSON */

int
action_status(const struct options *opts, int n_args, char **args)
{
	struct pgx_servers servers = {NULL, NULL, 0};
	struct findings findings = {NULL, 0};
	struct fleet_row *rows = NULL;
	uint32_t	timeout = DEFAULT_TIMEOUT_S;
	int			rc = PGX_EXIT_FAILURE;
	size_t		i;

	if (!json_supported(opts) ||
		(opts->timeout != NULL &&
		 !pgx_parse_uint(opts->timeout, "--timeout", 1, MAX_TIMEOUT_S, &timeout)) ||
		!pgx_servers_read(opts->servers, &servers))
		goto out;
	if (servers.count == 0)
	{
		pgx_log_error("file \"%s\" defines no server", servers.path);
		goto out;
	}
	rows = fleet_ask(&servers, (int) timeout * 1000);
	for (i = 0; i < servers.count; i++)
		look_at_file(&rows[i]);
	judge(rows, servers.count, &findings);
	rc = findings.count == 0 ? PGX_EXIT_OK : PGX_EXIT_FAILURE;
#ifdef HAVE_JANSSON
	if (opts->json)
	{
		if (!print_json(rows, servers.count, &findings))
			rc = PGX_EXIT_FAILURE;
		goto out;
	}
#endif
	print_table(rows, servers.count);
	for (i = 0; i < findings.count; i++)
		printf("drift: %s\n", findings.texts[i]);

out:
	for (i = 0; i < findings.count; i++)
		free(findings.texts[i]);
	free(findings.texts);
	fleet_clear(&rows, servers.count);
	pgx_servers_clear(&servers);
	return rc;
}
