#!/usr/bin/env python3
"""Compute the known answers of lib/tde from the standards and the format pages.

Nothing here shares code with lib/tde or uses a cryptographic library: AES (FIPS 197), XTS (IEEE 1619),
CTR (SP 800-38A) and GCM (SP 800-38D) are written out below, slowly and plainly; only SHA-256 and HMAC come
from Python's standard library.  The layouts are those of pgx_tde_formats(5) and pgx_tde_keys(5).

Usage: make_known_answers.py DIRECTORY
The directory holds heap.page, fsm.page, wal_long.page, wal_short.page, wal_tail.page, which make_pages.sh
takes from a server; the answers are written beside them.
"""
import hashlib
import hmac
import struct
import sys
from pathlib import Path

PAGE = 8192

# ---- AES ------------------------------------------------------------------------------


def xtime(a):
    a <<= 1
    return (a ^ 0x11B) if a & 0x100 else a


def gf8(a, b):
    result = 0
    while b:
        if b & 1:
            result ^= a
        a = xtime(a)
        b >>= 1
    return result


def make_sbox():
    sbox = []
    for value in range(256):
        inverse = next((c for c in range(256) if gf8(value, c) == 1), 0)
        out = 0
        for shift in range(5):
            out ^= ((inverse << shift) | (inverse >> (8 - shift))) & 0xFF
        sbox.append(out ^ 0x63)
    return sbox


SBOX = make_sbox()
MUL2 = [gf8(a, 2) for a in range(256)]
MUL3 = [gf8(a, 3) for a in range(256)]


class Aes:
    """Encryption only: every mode used here needs no more, but for XTS we keep to encrypting."""

    def __init__(self, key):
        words = [list(key[i:i + 4]) for i in range(0, len(key), 4)]
        nk = len(words)
        self.rounds = nk + 6
        rcon = 1
        for i in range(nk, 4 * (self.rounds + 1)):
            t = list(words[i - 1])
            if i % nk == 0:
                t = [SBOX[b] for b in t[1:] + t[:1]]
                t[0] ^= rcon
                rcon = xtime(rcon)
            elif nk > 6 and i % nk == 4:
                t = [SBOX[b] for b in t]
            words.append([a ^ b for a, b in zip(words[i - nk], t)])
        self.keys = [sum(words[4 * r:4 * r + 4], []) for r in range(self.rounds + 1)]

    def encrypt(self, block):
        s = [a ^ b for a, b in zip(block, self.keys[0])]
        for r in range(1, self.rounds + 1):
            s = [SBOX[b] for b in s]
            s = [s[(i + 4 * (i % 4)) % 16] for i in range(16)]
            if r < self.rounds:
                mixed = []
                for c in range(0, 16, 4):
                    a, b, d, e = s[c:c + 4]
                    mixed += [MUL2[a] ^ MUL3[b] ^ d ^ e, a ^ MUL2[b] ^ MUL3[d] ^ e,
                              a ^ b ^ MUL2[d] ^ MUL3[e], MUL3[a] ^ b ^ d ^ MUL2[e]]
                s = mixed
            s = [a ^ b for a, b in zip(s, self.keys[r])]
        return bytes(s)


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


# ---- modes ----------------------------------------------------------------------------


def xts_encrypt(key, tweak, data):
    half = len(key) // 2
    data_key, tweak_key = Aes(key[:half]), Aes(key[half:])
    t = int.from_bytes(tweak_key.encrypt(tweak), "little")
    out = b""
    for i in range(0, len(data), 16):
        mask = t.to_bytes(16, "little")
        out += xor(data_key.encrypt(xor(data[i:i + 16], mask)), mask)
        t <<= 1
        if t >> 128:
            t = (t & (1 << 128) - 1) ^ 0x87
    return out


def ctr_block(aes, counter):
    return aes.encrypt((counter & (1 << 128) - 1).to_bytes(16, "big"))


def gf128(a, b):
    result = 0
    for i in range(127, -1, -1):
        if b >> i & 1:
            result ^= a
        a = (a >> 1) ^ (0xE1 << 120) if a & 1 else a >> 1
    return result


def gcm_encrypt(key, nonce, aad, data):
    aes = Aes(key)
    h = int.from_bytes(aes.encrypt(bytes(16)), "big")
    start = int.from_bytes(nonce + b"\0\0\0\1", "big")
    out = b"".join(xor(data[i:i + 16], ctr_block(aes, start + 1 + i // 16))
                   for i in range(0, len(data), 16))
    y = 0
    padded = aad + bytes(-len(aad) % 16) + out + bytes(-len(out) % 16)
    padded += struct.pack(">QQ", 8 * len(aad), 8 * len(out))
    for i in range(0, len(padded), 16):
        y = gf128(y ^ int.from_bytes(padded[i:i + 16], "big"), h)
    return out, xor(y.to_bytes(16, "big"), ctr_block(aes, start))


def hkdf(secret, salt, info):
    """HKDF-SHA256 (RFC 5869), 32 bytes: one block of output."""
    prk = hmac.new(salt, secret, hashlib.sha256).digest()
    return hmac.new(prk, info + b"\x01", hashlib.sha256).digest()


def self_test():
    """FIPS 197 appendix C, IEEE 1619 vector 2 (first block) and the GCM specification's test case 14."""
    plain = bytes.fromhex("00112233445566778899aabbccddeeff")
    assert Aes(bytes(range(16))).encrypt(plain).hex() == "69c4e0d86a7b0430d8cdb78070b4c55a"
    assert Aes(bytes(range(32))).encrypt(plain).hex() == "8ea2b7ca516745bfeafc49904b496089"
    out = xts_encrypt(b"\x11" * 16 + b"\x22" * 16, b"\x33" * 5 + bytes(11), b"\x44" * 32)
    assert out.hex() == "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0"
    out, tag = gcm_encrypt(bytes(32), bytes(12), b"", bytes(16))
    assert out.hex() == "cea7403d4d606b6e074ec5d3baf39d18"
    assert tag.hex() == "d0d1c8a799996bf0265b98b5d48ab919"


# ---- what lib/tde makes of them -------------------------------------------------------

COLUMN_START = [
    0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
    0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
    0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
    0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756]


def checksum(page, block):
    words = struct.unpack("<2048I", page[:8] + b"\0\0" + page[10:]) + (0,) * 64
    sums = list(COLUMN_START)
    for i, word in enumerate(words):
        t = sums[i % 32] ^ word
        sums[i % 32] = (t * 16777619 & 0xFFFFFFFF) ^ t >> 17
    folded = block
    for s in sums:
        folded ^= s
    return folded % 65535 + 1


def stored_checksum(page):
    return struct.unpack_from("<H", page, 8)[0]


def page_encrypt(key, page_id, page, checksums):
    out = page[:16] + xts_encrypt(key, struct.pack(">4I", *page_id), page[16:])
    if checksums:
        out = out[:8] + struct.pack("<H", checksum(out, page_id[3])) + out[10:]
    return out


def wal_encrypt(key, epoch, page, valid_len):
    _, info, timeline, address = struct.unpack_from("<HHIQ", page)
    header_len = 40 if info & 2 else 24
    aes = Aes(key)
    out = bytearray(page[:valid_len]) + bytes(PAGE - valid_len)
    for i in range(header_len, valid_len):
        lsn = address + i
        if i == header_len or lsn % 16 == 0:
            stream = ctr_block(aes, epoch << 96 | timeline << 64 | lsn // 16)
        out[i] ^= stream[lsn % 16]
    out[20:24] = struct.pack(">I", epoch)
    return bytes(out)


def key_table(master_key):
    uuid = bytes(range(0xA0, 0xB0))
    wrap_key = hkdf(master_key, uuid, b"pgx keytable wrap")
    entries = b""
    for kind, oid, alg, key in ((1, 0, 2, bytes(range(32))),
                                (2, 16385, 1, bytes(range(32, 64))),
                                (2, 16386, 2, bytes(range(64, 128)))):
        nonce = hashlib.sha256(b"nonce %d %d" % (kind, oid)).digest()[:12]
        ids = struct.pack(">III", kind, oid, alg)
        wrapped, tag = gcm_encrypt(wrap_key, nonce, uuid + ids, key)
        entries += ids + nonce + wrapped + tag
    ring = b"the keystore's key ring, opaque here"
    body = b"PGXKEYS\0" + struct.pack(">IQ", 1, 5) + uuid + struct.pack(">QII", 7, 3, 3)
    body += entries + struct.pack(">I", len(ring)) + ring
    return body + hmac.new(hkdf(master_key, uuid, b"pgx keytable mac"), body, hashlib.sha256).digest()


def stream(master_key):
    """A sealed stream of two chunks, pgx_backup_stream(5); a writer draws ids, nonce and data key at random."""
    uuid = bytes(range(0xA0, 0xB0))
    backup_id, stream_id = bytes(range(0x10, 0x20)), bytes(range(0x20, 0x30))
    data_key = bytes(range(0x80, 0xA0))
    head = b"PGXSTRM\0" + struct.pack(">IIII", 1, 140, 1, 1) + uuid + struct.pack(">II", 3, 2)
    head += backup_id + stream_id
    nonce = bytes(range(0x30, 0x3C))
    wrapped, tag = gcm_encrypt(hkdf(master_key, uuid, b"pgx backup wrap"), nonce, head, data_key)
    head += nonce + wrapped + tag
    key = hkdf(data_key, stream_id, b"pgx stream key")
    prefix = hkdf(data_key, stream_id, b"pgx stream nonce")[:7]
    plain = bytes((i * 7 + (i >> 8)) & 0xFF for i in range(65536 + 100))
    out = head
    for number, (chunk, last) in enumerate(((plain[:65536], 0), (plain[65536:], 1))):
        out += b"".join(gcm_encrypt(key, prefix + struct.pack(">IB", number, last), head, chunk))
    return out


def main(folder):
    self_test()
    key = bytes(range(64))
    heap = (folder / "heap.page").read_bytes()
    fsm = (folder / "fsm.page").read_bytes()
    # make_pages.sh takes block 0 of pg_class's main fork and block 2 of its free space map
    assert stored_checksum(heap) == checksum(heap, 0), "heap.page: not the server's checksum"
    assert stored_checksum(fsm) == checksum(fsm, 2), "fsm.page: not the server's checksum"

    answers = {
        "heap_128": page_encrypt(key[:32], (5, 1259, 0, 0), heap, False),
        "heap_256": page_encrypt(key, (5, 1259, 0, 0), heap, False),
        "heap_256_sum": page_encrypt(key, (5, 1259, 0, 0), heap, True),
        "fsm_128_sum": page_encrypt(key[:32], (0x01020304, 0xFFFFFFFF, 1, 2), fsm, True),
        "wal_long_128": wal_encrypt(key[:16], 1, (folder / "wal_long.page").read_bytes(), PAGE),
        "wal_short_256": wal_encrypt(key[:32], 0xFEDCBA98, (folder / "wal_short.page").read_bytes(), PAGE),
    }
    tail = (folder / "wal_tail.page").read_bytes()
    used = len(tail.rstrip(b"\0")) + 7 & ~7
    answers["wal_tail_256"] = wal_encrypt(key[:32], 2, tail, used)
    for name, data in answers.items():
        (folder / (name + ".page")).write_bytes(data)
    (folder / "keys_v1").write_bytes(key_table(bytes(range(0x40, 0x60))))
    (folder / "stream_v1").write_bytes(stream(bytes(range(0x40, 0x60))))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
