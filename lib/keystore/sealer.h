/*
 * sealer.h
 *		What autoopen.c asks of a kind of auto-open: a secret, and the same secret again.
 *
 * The keystore key is encrypted under a key made from that secret, the machine-id, the user, the
 * directory and the keystore's UUID, the same way for all kinds.  A kind only knows where its
 * secret comes from; what it needs to find it again goes into keystore.aks, as bytes of its own.
 */
#ifndef KSI_SEALER_H
#define KSI_SEALER_H

#include "ksi.h"

struct ksi_sealer
{
	uint16_t	number;			/* in keystore.aks */
	const char *name;
	const char *grade;			/* what it is worth, in words */
	const char *info;			/* for HKDF, so that no kind opens another's file */
	bool		available;		/* in this build */
	size_t		secret_max;		/* bytes of the secret, at most */

	/* A secret for a new file, and what to write there.  options are this kind's, checked. */
	enum keystore_status (*make) (keystore *ks, const char *keystore_dir,
								  const struct keystore_seal_options *options,
								  struct ksi_secret *ret_secret, struct ksi_seal_data *ret_data);

	/*
	 * The secret again.  KEYSTORE_EWRONGKEY comes without a message: *ret_reason says why the file
	 * is not for this place.
	 */
	enum keystore_status (*get) (keystore *ks, const char *keystore_dir,
								 const struct ksi_seal_data *data, struct ksi_secret *ret_secret,
								 const char **ret_reason);

	/* Are the bytes this kind's?  They come from a file that others may have written. */
	bool		(*is_valid) (const struct ksi_seal_data *data);

	/* A detail for people, and the options to make such a file again; data is valid. */
	void		(*describe) (const struct ksi_seal_data *data, char *ret_detail, size_t size);
	void		(*get_options) (const struct ksi_seal_data *data,
								struct keystore_seal_options *ret_options,
								char ret_credential[KSI_TEXT_LEN]);
};

extern const struct ksi_sealer ksi_sealer_host;
extern const struct ksi_sealer ksi_sealer_credential;
extern const struct ksi_sealer ksi_sealer_tpm2;

extern enum keystore_status ksi_sealer_unavailable(keystore *ks, const char *kind);
extern const struct ksi_sealer *ksi_sealer_by_name(const char *name);
extern const struct ksi_sealer *ksi_sealer_by_number(uint16_t number);

#endif							/* KSI_SEALER_H */
