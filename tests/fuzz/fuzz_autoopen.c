/*
 * fuzz_autoopen.c
 *		Any bytes as an auto-open keystore: parsed, asked of its kind, and laid out again, which
 *		must give the same bytes.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "sealer.h"

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
require(bool condition)
{
	if (!condition)
		abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	keystore   *ks = keystore_new();
	struct ksi_auto_open aks;
	const struct ksi_sealer *sealer;
	struct keystore_seal_options options = {0};
	char		detail[128];
	char		credential[KSI_TEXT_LEN];
	uint8_t    *again;

	require(ks != NULL);
	if (ksi_format_get_auto_open(ks, "fuzz", data, size, &aks) != KEYSTORE_OK)
	{
		require(keystore_errmsg(ks)[0] != '\0');
		goto out;
	}
	require(ksi_format_auto_open_len(&aks) == size && size <= KSI_AUTO_OPEN_MAX);
	again = calloc(1, size);
	require(again != NULL);
	ksi_format_put_auto_open(&aks, again);
	require(memcmp(again, data, size - KSI_DIGEST_LEN) == 0);
	free(again);

	sealer = ksi_sealer_by_number(aks.kind);
	require(sealer != NULL);
	if (!sealer->is_valid(&aks.data))
		goto out;
	sealer->describe(&aks.data, detail, sizeof(detail));
	require(strlen(detail) < sizeof(detail));
	sealer->get_options(&aks.data, &options, credential);
	require(options.kind == sealer->name);
	if (options.credential != NULL)
		require(strlen(options.credential) < KSI_TEXT_LEN && strchr(options.credential, '/') == NULL);

out:
	keystore_free(&ks);
	return 0;
}
