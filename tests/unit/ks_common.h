/*
 * ks_common.h
 *		What the unit tests of libkeystore share.
 */
#ifndef KS_COMMON_H
#define KS_COMMON_H

#include <check.h>

#include "ksi.h"

#define PASS			"correct horse"
#define PASS2			"battery staple"

/* Cheapest parameters that the library accepts: the tests are not about the cost. */
extern const struct keystore_kdf_params ks_cheap;

/* A directory per test, 0700, removed afterwards; set by the fixture. */
extern char ks_dir[256];
extern char ks_path[300];		/* keystore.ks in it */

extern void ks_setup(void);		/* checked fixtures: they run in the test's own process */
extern void ks_teardown(void);

/* The same with the keystore one directory down, for what lies outside of its directory; ks_top is the upper one. */
extern char ks_top[256];
extern void ks_setup_below(void);
extern void ks_teardown_below(void);

/* The status and the whole text, or the test fails. */
#define assert_status(ks, call, want) \
	do { \
		enum keystore_status got_ = (call); \
		ck_assert_msg(got_ == (want), "%s: status %d, wanted %d: %s", #call, (int) got_, \
					  (int) (want), keystore_errmsg(ks)); \
	} while (0)
#define assert_ok(ks, call)		assert_status(ks, call, KEYSTORE_OK)
#define assert_fails(ks, call, want, text) \
	do { \
		assert_status(ks, call, want); \
		ck_assert_str_eq(keystore_errmsg(ks), text); \
	} while (0)

/* An open keystore with one key; not on disk. */
extern keystore *ks_make(void);

/* The same, stored at ks_path. */
extern keystore *ks_make_stored(void);

/* The same, and it opens by itself on this host, whose secret is at secret_path. */
extern keystore *ks_make_enabled(const char *secret_path);

extern void ks_write_file(const char *path, const void *buf, size_t len, int mode);
extern uint8_t *ks_read_file(const char *path, size_t *ret_len);	/* to be freed */
extern uint8_t *ks_read_data(const char *name, size_t *ret_len);	/* of tests/data/keystore */
extern bool ks_exists(const char *path);
extern int	ks_count_files(const char *dir);	/* without . and .. */
extern int	ks_count_fds(void);

/* A text made from a format; lives until the second next call. */
extern const char *ks_text(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Put the right digest at the end, as one who alters a file would. */
extern void ks_redigest(uint8_t *buf, size_t len);

/* A test case with time enough for a slow and busy machine. */
extern TCase *ks_tcase(const char *name);

/* Run the suite with TAP on standard output. */
extern int	ks_run(Suite *suite);

#endif							/* KS_COMMON_H */
