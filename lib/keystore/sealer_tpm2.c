/*
 * sealer_tpm2.c
 *		Auto-open bound to the TPM of this computer: a random secret that only this TPM
 *		gives out again, on request only while chosen PCRs hold what they held.
 *
 * The secret is a sealed object under a primary key of the owner hierarchy.  The primary key is made
 * from the TPM's seed each time, so nothing stays in the TPM; the sealed object is in keystore.aks.
 * Sessions are salted with the primary key and encrypt parameters, so that the secret is not in
 * clear on the way to or from the chip.  The primary key's name is in the file too: who stands in
 * between cannot put a key of his own there when the file is opened.
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sealer.h"

#define PCR_COUNT			24
#define SECRET_LEN			32

/* The kind's bytes in keystore.aks; what follows the name is what the TPM made of the secret. */
#define DATA_PCRS			0		/* u32, bit n for PCR n of the SHA-256 bank */
#define DATA_NAME			4		/* name of the primary key: algorithm and SHA-256 */
#define NAME_LEN			34
#define DATA_PUBLIC_LEN		38		/* u16 */
#define DATA_PUBLIC			40		/* TPM2B_PUBLIC, then TPM2B_PRIVATE to the end */

static uint32_t
data_pcrs(const struct ksi_seal_data *data)
{
	return ksi_get32(data->bytes + DATA_PCRS);
}

static bool
tpm2_is_valid(const struct ksi_seal_data *data)
{
	return data->len > DATA_PUBLIC && data_pcrs(data) < UINT32_C(1) << PCR_COUNT &&
		ksi_get16(data->bytes + DATA_PUBLIC_LEN) < data->len - DATA_PUBLIC;
}

static void
tpm2_describe(const struct ksi_seal_data *data, char *ret_detail, size_t size)
{
	uint32_t	pcrs = data_pcrs(data);
	size_t		used;

	if (pcrs == 0)
	{
		(void) snprintf(ret_detail, size, "no PCRs");
		return;
	}
	used = (size_t) snprintf(ret_detail, size, "PCRs sha256:");
	for (int i = 0; i < PCR_COUNT && used < size; i++)
	{
		if (pcrs & (UINT32_C(1) << i))
			used += (size_t) snprintf(ret_detail + used, size - used, "%d%s", i,
									  pcrs >> i > 1 ? "," : "");
	}
}

static void
tpm2_get_options(const struct ksi_seal_data *data, struct keystore_seal_options *ret_options,
				 char ret_credential[KSI_TEXT_LEN])
{
	ret_options->kind = ksi_sealer_tpm2.name;
	ret_options->pcrs = data_pcrs(data);
}

#ifdef HAVE_TSS2

#include <tss2/tss2_esys.h>
#include <tss2/tss2_mu.h>
#include <tss2/tss2_rc.h>
#include <tss2/tss2_tctildr.h>

/* A conversation with the TPM; all of it is over, and gone from the TPM, after disconnect(). */
struct tpm
{
	TSS2_TCTI_CONTEXT *tcti;
	ESYS_CONTEXT *esys;
	ESYS_TR		primary;
	ESYS_TR		session;
	ESYS_TR		object;
	uint8_t		name[NAME_LEN];	/* of the primary key */
};

static const TPMT_SYM_DEF session_cipher = {
	.algorithm = TPM2_ALG_AES, .keyBits = {.aes = 128}, .mode = {.aes = TPM2_ALG_CFB}
};

/* The storage key of TCG's EK Credential Profile, template H-3 in all but its unique field: ECC P-256. */
static const TPM2B_PUBLIC primary_template = {
	.publicArea = {
		.type = TPM2_ALG_ECC,
		.nameAlg = TPM2_ALG_SHA256,
		.objectAttributes = TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_RESTRICTED |
		TPMA_OBJECT_DECRYPT | TPMA_OBJECT_NODA | TPMA_OBJECT_FIXEDTPM |
		TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN,
		.parameters.eccDetail = {
			.symmetric = {
				.algorithm = TPM2_ALG_AES, .keyBits = {.aes = 128}, .mode = {.aes = TPM2_ALG_CFB}
			},
			.scheme = {.scheme = TPM2_ALG_NULL},
			.curveID = TPM2_ECC_NIST_P256,
			.kdf = {.scheme = TPM2_ALG_NULL}
		}
	}
};

static enum keystore_status
fail_tpm(keystore *ks, const char *what, TSS2_RC rc)
{
	(void) ksi_fail(ks, KEYSTORE_ESEALER, "could not %s: %s", what, Tss2_RC_Decode(rc));
	return ksi_hint(ks, KEYSTORE_ESEALER,
					"Make sure that this computer has a TPM 2.0, and that this user may use it (often by being in the group \"tss\").");
}

static void
disconnect(struct tpm *tpm)
{
	/* Best effort: what cannot be flushed goes with the connection, or with the next start. */
	if (tpm->session != ESYS_TR_NONE)
		(void) Esys_FlushContext(tpm->esys, tpm->session);
	if (tpm->object != ESYS_TR_NONE)
		(void) Esys_FlushContext(tpm->esys, tpm->object);
	if (tpm->primary != ESYS_TR_NONE)
		(void) Esys_FlushContext(tpm->esys, tpm->primary);
	if (tpm->esys != NULL)
		Esys_Finalize(&tpm->esys);
	if (tpm->tcti != NULL)
		Tss2_TctiLdr_Finalize(&tpm->tcti);
}

/* Connect, and make the primary key.  Whatever the result, disconnect() follows. */
static enum keystore_status
connect_tpm(keystore *ks, struct tpm *tpm)
{
	TPM2B_SENSITIVE_CREATE sensitive = {0};
	TPM2B_DATA	outside = {0};
	TPML_PCR_SELECTION creation_pcrs = {0};
	TPM2B_NAME *name = NULL;
	TSS2_RC		rc;

	memset(tpm, 0, sizeof(*tpm));
	tpm->primary = tpm->session = tpm->object = ESYS_TR_NONE;
	rc = Tss2_TctiLdr_Initialize(ks->tcti, &tpm->tcti);
	if (rc != TSS2_RC_SUCCESS)
		return fail_tpm(ks, "connect to the TPM", rc);
	rc = Esys_Initialize(&tpm->esys, tpm->tcti, NULL);
	if (rc != TSS2_RC_SUCCESS)
		return fail_tpm(ks, "connect to the TPM", rc);
	rc = Esys_CreatePrimary(tpm->esys, ESYS_TR_RH_OWNER, ESYS_TR_PASSWORD, ESYS_TR_NONE,
							ESYS_TR_NONE, &sensitive, &primary_template, &outside,
							&creation_pcrs, &tpm->primary, NULL, NULL, NULL, NULL);
	if (rc != TSS2_RC_SUCCESS)
		return fail_tpm(ks, "create the TPM's storage key", rc);
	rc = Esys_TR_GetName(tpm->esys, tpm->primary, &name);
	if (rc != TSS2_RC_SUCCESS || name->size != NAME_LEN)
	{
		Esys_Free(name);
		return fail_tpm(ks, "read the name of the TPM's storage key", rc);
	}
	memcpy(tpm->name, name->name, NAME_LEN);
	Esys_Free(name);
	return KEYSTORE_OK;
}

/* A session whose parameters are encrypted under a key that only the TPM and we know. */
static TSS2_RC
start_session(struct tpm *tpm, TPM2_SE type)
{
	TSS2_RC		rc;

	if (tpm->session != ESYS_TR_NONE)
		(void) Esys_FlushContext(tpm->esys, tpm->session);
	tpm->session = ESYS_TR_NONE;
	rc = Esys_StartAuthSession(tpm->esys, tpm->primary, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE,
							   ESYS_TR_NONE, NULL, type, &session_cipher, TPM2_ALG_SHA256,
							   &tpm->session);
	if (rc == TSS2_RC_SUCCESS)
		rc = Esys_TRSess_SetAttributes(tpm->esys, tpm->session,
									   TPMA_SESSION_DECRYPT | TPMA_SESSION_ENCRYPT |
									   TPMA_SESSION_CONTINUESESSION, 0xff);
	return rc;
}

/* Let the session's policy be that the PCRs hold what they hold now. */
static TSS2_RC
bind_to_pcrs(struct tpm *tpm, uint32_t pcrs)
{
	TPM2B_DIGEST now = {0};		/* empty: the TPM looks for itself */
	TPML_PCR_SELECTION selection = {
		.count = 1,
		.pcrSelections = {{
				.hash = TPM2_ALG_SHA256,
				.sizeofSelect = PCR_COUNT / 8,
				.pcrSelect = {(BYTE) pcrs, (BYTE) (pcrs >> 8), (BYTE) (pcrs >> 16)}
			}
		}
	};

	return Esys_PolicyPCR(tpm->esys, tpm->session, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &now,
						  &selection);
}

/* The digest of that policy, for the object to be sealed. */
static TSS2_RC
pcr_policy(struct tpm *tpm, uint32_t pcrs, TPM2B_DIGEST *ret_policy)
{
	TPM2B_DIGEST *digest = NULL;
	TSS2_RC		rc = start_session(tpm, TPM2_SE_TRIAL);

	if (rc == TSS2_RC_SUCCESS)
		rc = bind_to_pcrs(tpm, pcrs);
	if (rc == TSS2_RC_SUCCESS)
		rc = Esys_PolicyGetDigest(tpm->esys, tpm->session, ESYS_TR_NONE, ESYS_TR_NONE,
								  ESYS_TR_NONE, &digest);
	if (rc == TSS2_RC_SUCCESS)
		*ret_policy = *digest;
	Esys_Free(digest);
	return rc;
}

/* ---- sealing ---------------------------------------------------------------------------- */

static TSS2_RC
seal(struct tpm *tpm, uint32_t pcrs, const struct ksi_secret *secret,
	 TPM2B_PRIVATE **ret_private, TPM2B_PUBLIC **ret_public)
{
	TPM2B_SENSITIVE_CREATE sensitive = {0};
	TPM2B_DATA	outside = {0};
	TPML_PCR_SELECTION creation_pcrs = {0};
	TPM2B_PUBLIC public = {
		.publicArea = {
			.type = TPM2_ALG_KEYEDHASH,
			.nameAlg = TPM2_ALG_SHA256,
			.objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_NODA,
			.parameters.keyedHashDetail.scheme.scheme = TPM2_ALG_NULL
		}
	};
	TSS2_RC		rc = TSS2_RC_SUCCESS;

	/* With a policy there must be no other way to the secret. */
	if (pcrs == 0)
		public.publicArea.objectAttributes |= TPMA_OBJECT_USERWITHAUTH;
	else
		rc = pcr_policy(tpm, pcrs, &public.publicArea.authPolicy);
	if (rc == TSS2_RC_SUCCESS)
		rc = start_session(tpm, TPM2_SE_HMAC);
	if (rc != TSS2_RC_SUCCESS)
		return rc;
	sensitive.sensitive.data.size = (UINT16) secret->len;
	memcpy(sensitive.sensitive.data.buffer, secret->ptr, secret->len);
	rc = Esys_Create(tpm->esys, tpm->primary, tpm->session, ESYS_TR_NONE, ESYS_TR_NONE, &sensitive,
					 &public, &outside, &creation_pcrs, ret_private, ret_public, NULL, NULL, NULL);
	keystore_wipe(&sensitive, sizeof(sensitive));
	return rc;
}

/* What the TPM made, in the file's form. */
static TSS2_RC
put_data(const struct tpm *tpm, uint32_t pcrs, const TPM2B_PRIVATE *private,
		 const TPM2B_PUBLIC *public, struct ksi_seal_data *ret_data)
{
	size_t		off = DATA_PUBLIC;
	TSS2_RC		rc;

	(void) ksi_put32(ret_data->bytes + DATA_PCRS, pcrs);
	memcpy(ret_data->bytes + DATA_NAME, tpm->name, NAME_LEN);
	rc = Tss2_MU_TPM2B_PUBLIC_Marshal(public, ret_data->bytes, sizeof(ret_data->bytes), &off);
	if (rc != TSS2_RC_SUCCESS)
		return rc;
	(void) ksi_put16(ret_data->bytes + DATA_PUBLIC_LEN, (uint16_t) (off - DATA_PUBLIC));
	rc = Tss2_MU_TPM2B_PRIVATE_Marshal(private, ret_data->bytes, sizeof(ret_data->bytes), &off);
	ret_data->len = off;
	return rc;
}

static enum keystore_status
tpm2_make(keystore *ks, const char *keystore_dir, const struct keystore_seal_options *options,
		  struct ksi_secret *ret_secret, struct ksi_seal_data *ret_data)
{
	enum keystore_status status;
	struct ksi_secret secret = {0};
	struct tpm	tpm;
	TPM2B_PRIVATE *private = NULL;
	TPM2B_PUBLIC *public = NULL;
	TSS2_RC		rc;

	if (options->pcrs >= UINT32_C(1) << PCR_COUNT)
		return ksi_fail(ks, KEYSTORE_EINVAL, "PCRs are numbered from 0 to %d", PCR_COUNT - 1);
	status = connect_tpm(ks, &tpm);
	if (status == KEYSTORE_OK)
		status = ksi_alloc_secret(ks, &secret, SECRET_LEN);
	if (status == KEYSTORE_OK && !ksi_random(secret.ptr, secret.len))
		status = ksi_fail(ks, KEYSTORE_ECRYPTO, "could not generate a random key: %s",
						  ksi_crypto_reason());
	if (status != KEYSTORE_OK)
		goto out;
	rc = seal(&tpm, options->pcrs, &secret, &private, &public);
	if (rc == TSS2_RC_SUCCESS)
		rc = put_data(&tpm, options->pcrs, private, public, ret_data);
	if (rc != TSS2_RC_SUCCESS)
		status = fail_tpm(ks, "seal with the TPM", rc);
	else
		ksi_secret_move(ret_secret, &secret);

out:
	Esys_Free(private);
	Esys_Free(public);
	disconnect(&tpm);
	ksi_secret_free(&secret);
	return status;
}

/* ---- unsealing --------------------------------------------------------------------------- */

/* A response code without the number of the handle, parameter or session that it is about. */
static TSS2_RC
bare(TSS2_RC rc)
{
	return rc & TPM2_RC_FMT1 ? rc & (TPM2_RC_FMT1 | 0x3f) : rc;
}

static enum keystore_status
load(keystore *ks, struct tpm *tpm, const struct ksi_seal_data *data, const char **ret_reason)
{
	TPM2B_PUBLIC public = {0};
	TPM2B_PRIVATE private = {0};
	size_t		public_end = DATA_PUBLIC + ksi_get16(data->bytes + DATA_PUBLIC_LEN);
	size_t		off = DATA_PUBLIC;
	TSS2_RC		rc;

	if (memcmp(data->bytes + DATA_NAME, tpm->name, NAME_LEN) != 0)
	{
		*ret_reason = "it was sealed with another TPM, or the TPM was cleared since";
		return KEYSTORE_EWRONGKEY;
	}
	rc = Tss2_MU_TPM2B_PUBLIC_Unmarshal(data->bytes, public_end, &off, &public);
	if (rc == TSS2_RC_SUCCESS && off == public_end)
		rc = Tss2_MU_TPM2B_PRIVATE_Unmarshal(data->bytes, data->len, &off, &private);
	if (rc != TSS2_RC_SUCCESS || off != data->len)
		return ksi_fail(ks, KEYSTORE_EDAMAGED,
						"auto-open keystore is corrupted: invalid object of the TPM");
	rc = start_session(tpm, TPM2_SE_HMAC);
	if (rc == TSS2_RC_SUCCESS)
		rc = Esys_Load(tpm->esys, tpm->primary, tpm->session, ESYS_TR_NONE, ESYS_TR_NONE, &private,
					   &public, &tpm->object);
	return rc == TSS2_RC_SUCCESS ? KEYSTORE_OK : fail_tpm(ks, "load what the TPM sealed", rc);
}

static enum keystore_status
unseal(keystore *ks, struct tpm *tpm, uint32_t pcrs, struct ksi_secret *ret_secret,
	   const char **ret_reason)
{
	enum keystore_status status;
	TPM2B_SENSITIVE_DATA *data = NULL;
	TSS2_RC		rc;

	rc = start_session(tpm, pcrs == 0 ? TPM2_SE_HMAC : TPM2_SE_POLICY);
	if (rc == TSS2_RC_SUCCESS && pcrs != 0)
		rc = bind_to_pcrs(tpm, pcrs);
	if (rc == TSS2_RC_SUCCESS)
		rc = Esys_Unseal(tpm->esys, tpm->object, tpm->session, ESYS_TR_NONE, ESYS_TR_NONE, &data);
	if (bare(rc) == TPM2_RC_POLICY_FAIL || rc == TPM2_RC_PCR_CHANGED)
	{
		*ret_reason = "the PCRs that it was sealed to have changed";
		return KEYSTORE_EWRONGKEY;
	}
	if (rc != TSS2_RC_SUCCESS)
		return fail_tpm(ks, "unseal with the TPM", rc);
	if (data->size != SECRET_LEN)
		status = ksi_fail(ks, KEYSTORE_EDAMAGED,
						  "auto-open keystore is corrupted: invalid object of the TPM");
	else
		status = ksi_alloc_secret(ks, ret_secret, SECRET_LEN);
	if (status == KEYSTORE_OK)
		memcpy(ret_secret->ptr, data->buffer, SECRET_LEN);
	keystore_wipe(data, sizeof(*data));
	Esys_Free(data);
	return status;
}

static enum keystore_status
tpm2_get(keystore *ks, const char *keystore_dir, const struct ksi_seal_data *data,
		 struct ksi_secret *ret_secret, const char **ret_reason)
{
	enum keystore_status status;
	struct tpm	tpm;

	status = connect_tpm(ks, &tpm);
	if (status == KEYSTORE_OK)
		status = load(ks, &tpm, data, ret_reason);
	if (status == KEYSTORE_OK)
		status = unseal(ks, &tpm, data_pcrs(data), ret_secret, ret_reason);
	disconnect(&tpm);
	return status;
}

#else							/* not HAVE_TSS2 */

static enum keystore_status
tpm2_make(keystore *ks, const char *keystore_dir, const struct keystore_seal_options *options,
		  struct ksi_secret *ret_secret, struct ksi_seal_data *ret_data)
{
	return ksi_sealer_unavailable(ks, ksi_sealer_tpm2.name);
}

static enum keystore_status
tpm2_get(keystore *ks, const char *keystore_dir, const struct ksi_seal_data *data,
		 struct ksi_secret *ret_secret, const char **ret_reason)
{
	return ksi_sealer_unavailable(ks, ksi_sealer_tpm2.name);
}

#endif							/* HAVE_TSS2 */

const struct ksi_sealer ksi_sealer_tpm2 = {
	.number = KSI_SEALER_TPM2,
	.name = "tpm2",
	.grade = "bound to the TPM of this computer, and to the PCRs that were named",
	.info = "pgx auto-open tpm2",
#ifdef HAVE_TSS2
	.available = true,
#else
	.available = false,
#endif
	.secret_max = SECRET_LEN,
	.make = tpm2_make,
	.get = tpm2_get,
	.is_valid = tpm2_is_valid,
	.describe = tpm2_describe,
	.get_options = tpm2_get_options
};
