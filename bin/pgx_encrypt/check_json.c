/*
 * check_json.c
 *		What pgx_encrypt --check has found, as JSON.
 */
#include <config.h>

#include <stdio.h>

#include "check.h"
#include "log.h"

#ifdef HAVE_JANSSON

#include <jansson.h>

bool
check_json_supported(void)
{
	return true;
}

static json_t *
json_pages(const struct tally *pages)
{
	return json_pack("{s:I, s:I, s:I, s:I}",
					 "encrypted", (json_int_t) pages->encrypted, "plain", (json_int_t) pages->plain,
					 "damaged", (json_int_t) pages->damaged, "empty", (json_int_t) pages->empty);
}

/* jansson passes NULL through and fails in the end, but for arrays, whose size tells. */
static json_t *
json_part(const struct checked *part)
{
	const struct tally *files = &part->files;
	json_t	   *noted = json_array();
	json_t	   *root;

	for (size_t i = 0; i < part->n_noted; i++)
		(void) json_array_append_new(noted, json_pack("{s:s, s:o}", "path", part->noted[i].path,
													  "pages", json_pages(&part->noted[i].pages)));
	if (json_array_size(noted) != part->n_noted)
	{
		json_decref(noted);
		noted = NULL;
	}
	root = json_pack("{s:s, s:{s:I, s:I, s:I, s:I, s:I}, s:o, s:o}",
					 "algorithm", tde_algorithm_name(part->alg),
					 "files", "encrypted", (json_int_t) files->encrypted, "plain", (json_int_t) files->plain,
					 "mixed", (json_int_t) files->mixed, "damaged", (json_int_t) files->damaged,
					 "empty", (json_int_t) files->empty,
					 "pages", json_pages(&part->pages), "mixed_or_damaged", noted);
	if (root != NULL && part->oid != 0 &&
		(json_object_set_new(root, "name", json_string(part->name)) != 0 ||
		 json_object_set_new(root, "oid", json_integer((json_int_t) part->oid)) != 0))
	{
		json_decref(root);
		root = NULL;
	}
	return root;
}

bool
check_print_json(const struct check_report *report)
{
	json_t	   *spaces = json_array();
	json_t	   *root;
	bool		ok;

	for (size_t i = 0; i + 1 < report->n_parts; i++)
		(void) json_array_append_new(spaces, json_part(&report->parts[i]));
	ok = json_array_size(spaces) + 1 == report->n_parts;
	root = json_pack("{s:s, s:b, s:b, s:o, s:o}",
					 "data_directory", report->cluster->pgdata, "encrypted", report->all,
					 "conversion_interrupted", report->interrupted,
					 "tablespaces", spaces, "wal", json_part(&report->parts[report->n_parts - 1]));
	ok = ok && root != NULL && json_dumpf(root, stdout, JSON_INDENT(2)) == 0;
	if (ok)
		putchar('\n');
	else
		pgx_log_error("could not make JSON of the result");
	json_decref(root);
	return ok;
}

#else

bool
check_json_supported(void)
{
	pgx_log_error("option --json is not supported by this build");
	pgx_log_hint("Build pgx_encrypt with libjansson.");
	return false;
}

bool
check_print_json(const struct check_report *report)
{
	return false;
}

#endif							/* HAVE_JANSSON */
