/*
 * crc32c.h
 *		CRC-32C (Castagnoli), which backup manifests have for each file.  RFC 3720, appendix B.4.
 */
#ifndef PGX_CRC32C_H
#define PGX_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Begin with PGX_CRC32C_BEGIN, go on as often as wanted; PGX_CRC32C_END() of the last result is the checksum. */
#define PGX_CRC32C_BEGIN	UINT32_C(0xFFFFFFFF)
#define PGX_CRC32C_END(crc)	((crc) ^ UINT32_C(0xFFFFFFFF))

extern uint32_t pgx_crc32c(uint32_t crc, const void *buf, size_t len);

/* The one for machines without the instruction; the same result. */
extern uint32_t pgx_crc32c_portable(uint32_t crc, const void *buf, size_t len);

#endif							/* PGX_CRC32C_H */
