/*
 * aks.h
 *		keystore.aks as a file: read, sealed and unsealed, for autoopen.c.
 */
#ifndef AKS_H
#define AKS_H

#include "sealer.h"

/* Where keystore.aks is, and how it is called in messages. */
struct ksi_aks_place
{
	struct ksi_place place;
	char	   *name;
	char	   *dir;			/* canonical */
};

extern enum keystore_status ksi_aks_locate(keystore *ks, const char *path,
										   struct ksi_aks_place *ret_loc);
extern void ksi_aks_leave(struct ksi_aks_place *loc);
extern enum keystore_status ksi_aks_seal(keystore *ks, const struct ksi_aks_place *loc,
										 const struct keystore_seal_options *options,
										 uint8_t *buf, size_t *ret_len);
extern enum keystore_status ksi_aks_check(keystore *ks, const struct ksi_aks_place *loc,
										  const uint8_t *buf, size_t len,
										  struct ksi_auto_open *ret_aks);
extern enum keystore_status ksi_aks_read(keystore *ks, const struct ksi_aks_place *loc,
										 uint8_t **ret_buf, struct ksi_auto_open *ret_aks);
extern enum keystore_status ksi_aks_unseal(keystore *ks, const struct ksi_aks_place *loc,
										   const uint8_t *buf, const struct ksi_auto_open *aks,
										   struct ksi_secret *ret_ksk, const char **ret_reason);
extern enum keystore_status ksi_aks_read_and_unseal(keystore *ks, const struct ksi_aks_place *loc,
													struct ksi_auto_open *ret_aks,
													struct ksi_secret *ret_ksk,
													const char **ret_reason);

#endif							/* AKS_H */
