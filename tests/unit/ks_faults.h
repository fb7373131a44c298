/*
 * ks_faults.h
 *		Faults put between the library and the system, and what is tried with them.
 */
#ifndef KS_FAULTS_H
#define KS_FAULTS_H

#include "ks_common.h"

enum call
{
	CALL_NONE,
	CALL_MALLOC,
	CALL_CALLOC,
	CALL_STRDUP,
	CALL_STRNDUP,
	CALL_MMAP,
	CALL_OPENAT,
	CALL_OPEN,
	CALL_FSTAT,
	CALL_READ,
	CALL_WRITE,
	CALL_FSYNC,
	CALL_RENAMEAT,
	CALL_LINKAT,
	CALL_UNLINKAT,
	CALL_FLOCK,
	CALL_RANDOM,
	CALL_CIPHER_FETCH,
	CALL_CIPHER_NEW,
	CALL_ENCRYPT_INIT,
	CALL_ENCRYPT_UPDATE,
	CALL_ENCRYPT_FINAL,
	CALL_DECRYPT_INIT,
	CALL_DECRYPT_UPDATE,
	CALL_CIPHER_CTRL,
	CALL_KDF_FETCH,
	CALL_KDF_NEW,
	CALL_KDF_DERIVE,
	CALL_DIGEST,
	CALL_COUNT
};

/* What may fail, and how. */
struct fault_call
{
	const char *name;
	int			error;			/* errno of the failure */
	unsigned	statuses;		/* bits of the statuses that it may lead to, besides OK */
};
extern const struct fault_call fault_calls[CALL_COUNT];

extern enum call failing;		/* this one ... */
extern int	fail_at;			/* ... at this count, from 1 */
extern int	call_count;
extern bool corrupting;			/* writes put down something else than they were given */
extern int	mapped;				/* mappings made minus mappings removed */
extern char trace[64];			/* w, f, R, L, U: what changed the disk, in order */

/* Run something in a child that dies at the n-th step, before or after what changes the disk; false if it lives to the end. */
extern bool killed_at(keystore *ks, enum keystore_status (*run) (keystore *ks), int n);

/* ---- what is tried -------------------------------------------------------------------- */

struct scenario
{
	const char *name;
	void		(*prepare) (keystore *ks);
	enum keystore_status (*run) (keystore *ks);
	bool		keeps;			/* a failure leaves the handle's content as it was */
	unsigned	statuses;		/* bits of further statuses that a fault may lead to */
};
extern const struct scenario scenarios[];
extern const int scenario_count;

extern char secret_path[320];

/* Checked fixtures: directories for the keystore, its backups and credentials. */
extern void faults_setup(void);
extern void faults_teardown(void);

/* A keystore of two generations, open; the older one is stored. */
extern keystore *make(void);

extern enum keystore_status do_store(keystore *ks);
extern enum keystore_status do_enable(keystore *ks);
extern enum keystore_status do_repair(keystore *ks);
extern enum keystore_status do_backup(keystore *ks);

/* On disk is generation 1 or 2 of the keystore, and it opens. */
extern void assert_sound(const char *what);

#endif							/* KS_FAULTS_H */
