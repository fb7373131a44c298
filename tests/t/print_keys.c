/*
 * print_keys.c
 *		For tests alone, never installed: print in hexadecimal every key of a keystore,
 *		and of a key table if one is given, so that a test can look for them where they must not be.
 *
 * Usage: print_keys KEYSTORE [KEYTABLE]; the passphrase is the first line of standard input.
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "keystore.h"
#include "keytable.h"

static void
print_key(const char *kind, unsigned number, const uint8_t *key, size_t len)
{
	printf("%s%u ", kind, number);
	for (size_t i = 0; i < len; i++)
		printf("%02x", key[i]);
	putchar('\n');
}

static void
check(keystore *ks, enum keystore_status status)
{
	if (status == KEYSTORE_OK)
		return;
	fprintf(stderr, "print_keys: %s\n", keystore_errmsg(ks));
	exit(1);
}

static void
check_table(enum tde_keytable_status status)
{
	if (status == TDE_KEYTABLE_OK)
		return;
	fprintf(stderr, "print_keys: the key table %s\n", tde_keytable_status_text(status));
	exit(1);
}

static void
print_keystore(keystore *ks)
{
	uint8_t		key[KEYSTORE_KEY_LEN];
	struct keystore_key_info info;

	check(ks, keystore_get_ksk(ks, key));
	print_key("ksk", 0, key, sizeof(key));
	for (size_t i = 0; i < keystore_key_count(ks); i++)
	{
		check(ks, keystore_get_key_info(ks, i, &info));
		check(ks, keystore_get_master_key(ks, info.id, key));
		print_key("master", info.id, key, sizeof(key));
	}
}

static void
print_table(keystore *ks, const char *path)
{
	static uint8_t buf[TDE_KEYTABLE_MAX_SIZE];
	uint8_t		key[KEYSTORE_KEY_LEN];
	tde_keytable *kt = NULL;
	FILE	   *f = fopen(path, "rb");
	size_t		len;

	if (f == NULL)
	{
		perror(path);
		exit(1);
	}
	len = fread(buf, 1, sizeof(buf), f);
	(void) fclose(f);
	check_table(tde_keytable_parse(buf, len, &kt));
	check(ks, keystore_get_master_key(ks, tde_keytable_master_key_id(kt), key));
	check_table(tde_keytable_open(kt, key));
	for (size_t i = 0; i < tde_keytable_count(kt); i++)
	{
		const uint8_t *data_key = tde_keytable_key(kt, i, &len);

		if (data_key != NULL)
			print_key("data", tde_keytable_entry(kt, i)->oid, data_key, len);
	}
	tde_keytable_free(&kt);
}

int
main(int argc, char **argv)
{
	char		passphrase[KEYSTORE_PASSPHRASE_MAX + 2];	/* newline and NUL */
	keystore   *ks = keystore_new();

	if (argc < 2 || argc > 3 || ks == NULL || fgets(passphrase, sizeof(passphrase), stdin) == NULL)
	{
		fprintf(stderr, "usage: print_keys KEYSTORE [KEYTABLE] <PASSPHRASE\n");
		return 1;
	}
	passphrase[strcspn(passphrase, "\n")] = '\0';
	check(ks, keystore_load(ks, argv[1]));
	check(ks, keystore_open_passphrase(ks, passphrase, strlen(passphrase)));
	print_keystore(ks);
	if (argc == 3)
		print_table(ks, argv[2]);
	keystore_free(&ks);
	return 0;
}
