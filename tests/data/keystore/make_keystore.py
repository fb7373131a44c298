#!/usr/bin/env python3
"""Compute v1.ks, v1.ring and the v2 files, the known answers of libkeystore.

Written from keystore.ks(5) alone and with nothing but Python's own library, AES
and GCM included, so that the C code is not checked against itself.  Every input is
fixed: the files come out the same each time.

    python3 make_keystore.py DIRECTORY

The files are never edited and never made anew for the same format version:
every later release must open them.
"""
import hashlib
import hmac
import os
import struct
import sys

# ---- AES-256 (FIPS 197), encryption only, byte by byte ----------------------


def gf_mul(a, b):
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = (a << 1) ^ (0x11b if a & 0x80 else 0)
        b >>= 1
    return product


def make_sbox():
    sbox = []
    for x in range(256):
        inverse = next((y for y in range(1, 256) if gf_mul(x, y) == 1), 0)
        s = 0x63
        for shift in range(5):
            s ^= ((inverse << shift) | (inverse >> (8 - shift))) & 0xff
        sbox.append(s)
    return sbox


SBOX = make_sbox()
ROUNDS = 14


def expand_key(key):
    words = [list(key[i:i + 4]) for i in range(0, 32, 4)]
    rcon = 1
    for i in range(8, 4 * (ROUNDS + 1)):
        word = list(words[i - 1])
        if i % 8 == 0:
            word = [SBOX[b] for b in word[1:] + word[:1]]
            word[0] ^= rcon
            rcon = gf_mul(rcon, 2)
        elif i % 8 == 4:
            word = [SBOX[b] for b in word]
        words.append([a ^ b for a, b in zip(word, words[i - 8])])
    return [sum(words[4 * r:4 * r + 4], []) for r in range(ROUNDS + 1)]


def aes_block(round_keys, block):
    state = [a ^ b for a, b in zip(block, round_keys[0])]
    for r in range(1, ROUNDS + 1):
        state = [SBOX[b] for b in state]
        state = [state[(i + 4 * (i % 4)) % 16] for i in range(16)]
        if r < ROUNDS:
            mixed = []
            for c in range(0, 16, 4):
                col = state[c:c + 4]
                for i in range(4):
                    mixed.append(gf_mul(col[i], 2) ^ gf_mul(col[(i + 1) % 4], 3) ^
                                 col[(i + 2) % 4] ^ col[(i + 3) % 4])
            state = mixed
        state = [a ^ b for a, b in zip(state, round_keys[r])]
    return bytes(state)


# ---- GCM (NIST SP 800-38D) with a 12-byte IV ---------------------------------


def ghash_mul(x, y):
    z = 0
    for i in range(127, -1, -1):
        if (x >> i) & 1:
            z ^= y
        y = (y >> 1) ^ (0xe1 << 120 if y & 1 else 0)
    return z


def ghash(h, aad, ciphertext):
    def padded(data):
        return data + bytes(-len(data) % 16)
    data = padded(aad) + padded(ciphertext)
    data += struct.pack('>QQ', 8 * len(aad), 8 * len(ciphertext))
    y = 0
    for i in range(0, len(data), 16):
        y = ghash_mul(y ^ int.from_bytes(data[i:i + 16], 'big'), h)
    return y


def gcm_crypt(round_keys, iv, data):
    out = b''
    for i in range(0, len(data), 16):
        stream = aes_block(round_keys, iv + struct.pack('>I', 2 + i // 16))
        out += bytes(a ^ b for a, b in zip(data[i:i + 16], stream))
    return out


def gcm_tag(round_keys, iv, aad, ciphertext):
    h = int.from_bytes(aes_block(round_keys, bytes(16)), 'big')
    mask = int.from_bytes(aes_block(round_keys, iv + b'\0\0\0\1'), 'big')
    return (ghash(h, aad, ciphertext) ^ mask).to_bytes(16, 'big')


def gcm_seal(key, iv, aad, plaintext):
    round_keys = expand_key(key)
    ciphertext = gcm_crypt(round_keys, iv, plaintext)
    return ciphertext, gcm_tag(round_keys, iv, aad, ciphertext)


def gcm_open(key, iv, aad, ciphertext, tag):
    round_keys = expand_key(key)
    if not hmac.compare_digest(gcm_tag(round_keys, iv, aad, ciphertext), tag):
        raise ValueError('tag does not match')
    return gcm_crypt(round_keys, iv, ciphertext)


def hkdf(ikm, salt, info, length=32):
    """RFC 5869 with SHA-256."""
    prk = hmac.new(salt, ikm, hashlib.sha256).digest()
    out = block = b''
    counter = 1
    while len(out) < length:
        block = hmac.new(prk, block + info + bytes([counter]), hashlib.sha256).digest()
        out += block
        counter += 1
    return out[:length]


# ---- the files ----------------------------------------------------------------

UUID = bytes.fromhex('00112233445546778899aabbccddeeff')
KSK = bytes(range(0x40, 0x60))
GENERATION = 7
CHANGED = 1700000300


def text(s):
    return s.encode().ljust(64, b'\0')


def slot_start(length, number, kind, flags, created, label):
    return struct.pack('>IIHHq', length, number, kind, flags, created) + text(label)


def passphrase_slot(number, label, passphrase, kdf, cost, block_size, parallelism):
    salt = bytes((17 * number + i) & 0xff for i in range(32))
    iv = bytes((99 * number + i) & 0xff for i in range(12))
    if kdf == 1:
        key = hashlib.scrypt(passphrase, salt=salt, n=1 << cost, r=block_size,
                             p=parallelism, maxmem=1 << 26, dklen=32)
    else:
        key = hashlib.pbkdf2_hmac('sha512', passphrase, salt, cost, 32)
    start = slot_start(196, number, 1, 1, 1700000000 + number, label)
    start += struct.pack('>IIIII', kdf, cost, 0, block_size, parallelism) + salt
    wrapped, tag = gcm_seal(key, iv, UUID + start, KSK)
    return start + iv + wrapped + tag


def key_record(number, state, created, activated, retired, origin, key):
    return struct.pack('>IHHqqq', number, state, 0, created, activated, retired) + text(origin) + key


KEYS = [
    key_record(1, 3, 1700000000, 1700000000, 1700000100, 'recipe', bytes(32)),
    key_record(2, 2, 1700000100, 1700000100, 1700000200, 'recipe', bytes(range(0x80, 0xa0))),
    key_record(5, 1, 1700000200, 1700000200, 0, 'recipe, third', bytes(range(0xc0, 0xe0))),
]


def body(keys):
    return struct.pack('>I', len(keys)) + b''.join(keys)


def keystore():
    # A slot of a kind that no version knows, not critical: it is carried along.
    foreign = slot_start(100, 9, 0x7777, 0, 1700000009, 'of a later version') + b'opaque to us....'
    slots = [
        passphrase_slot(1, 'passphrase', b'correct horse', 1, 10, 8, 1),
        foreign,
        passphrase_slot(4, 'by PBKDF2', b'battery staple', 2, 1000, 0, 0),
    ]
    plaintext = body(KEYS)
    header_len = 56 + sum(len(s) for s in slots)
    header = b'PGXKS\r\n\x1a' + struct.pack('>HHI', 1, 0, header_len) + UUID
    header += struct.pack('>QqII', GENERATION, CHANGED, len(plaintext), len(slots))
    header += b''.join(slots)
    iv = bytes(range(0x10, 0x1c))
    ciphertext, tag = gcm_seal(hkdf(KSK, UUID, b'pgx keystore body'), iv, header, plaintext)
    data = header + iv + ciphertext + tag
    return data + hashlib.sha256(data).digest()


def ring():
    # One key more than the keystore has, and a later generation.
    later = key_record(6, 1, 1700000400, 1700000400, 0, 'ring', bytes(range(0xe0, 0x100)))
    third = key_record(5, 2, 1700000200, 1700000200, 1700000400, 'recipe, third',
                       bytes(range(0xc0, 0xe0)))
    plaintext = body([KEYS[0], KEYS[1], third, later])
    start = b'PGXKR\r\n\x1a' + struct.pack('>HHI', 1, 0, len(plaintext)) + UUID
    start += struct.pack('>Q', 9)
    iv = bytes(range(0x30, 0x3c))
    ciphertext, tag = gcm_seal(hkdf(KSK, UUID, b'pgx keystore ring'), iv, start, plaintext)
    return start + iv + ciphertext + tag


# ---- version 2 ------------------------------------------------------------------

DIGITS = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'
FORMER_KSK = bytes(range(0x20, 0x40))


def identity(key, what):
    return hkdf(key, UUID, b'pgx keystore ' + what + b' identity', 16)


def gf32_times_x(v):
    return (v << 1) ^ (0x25 if v & 0x10 else 0)


def recovery_key():
    """Of 32 values that are fixed here and random elsewhere: the text to be typed."""
    groups = []
    for g in range(8):
        values = [(7 * g + 5 * i + 3) % 32 for i in range(4)]
        check = 0
        for v in reversed(values):
            check = gf32_times_x(check ^ v)
        groups.append(''.join(DIGITS[v] for v in values + [check ^ (g + 1)]))
    return '-'.join(groups)


def slot_v2(number, kind, label, secret, kdf, cost, memory, block_size, parallelism):
    salt = bytes((13 * number + i) & 0xff for i in range(32))
    iv = bytes((77 * number + i) & 0xff for i in range(12))
    if kdf == 1:
        key = hashlib.scrypt(secret, salt=salt, n=1 << cost, r=block_size, p=parallelism,
                             maxmem=1 << 26, dklen=32)
    elif kdf == 2:
        key = hashlib.pbkdf2_hmac('sha512', secret, salt, cost, 32)
    else:
        # Not in Python's own library; from version 44 on.
        from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
        key = Argon2id(salt=salt, length=32, iterations=cost, lanes=parallelism,
                       memory_cost=memory).derive(secret)
    start = slot_start(196, number, kind, 3, 1800000000 + number, label)
    rest = struct.pack('>IIIII', kdf, cost, memory, block_size, parallelism) + salt
    wrapped, tag = gcm_seal(key, iv, UUID + start[:20] + bytes(64) + rest, KSK)
    return start + rest + iv + wrapped + tag


def key_v2(number, state, created, retired, compromised, destroyed, origin, label, key):
    gone = bytes(32) if state == 3 else key
    return struct.pack('>IHHqqqqq', number, state, 0, created, created, retired, compromised,
                       destroyed) + text(origin) + text(label) + gone + \
        identity(key, b'master key')


def body_v2():
    keys = [
        key_v2(1, 3, 1800000000, 1800000100, 0, 1800000500, 'recipe', '', bytes(range(0x60, 0x80))),
        key_v2(2, 4, 1800000100, 1800000200, 1800000400, 0, 'recipe', 'leaked',
               bytes(range(0x80, 0xa0))),
        key_v2(3, 2, 1800000200, 1800000300, 0, 0, 'recipe', '', bytes(range(0xa0, 0xc0))),
        key_v2(7, 1, 1800000300, 0, 0, 0, 'recipe, last', 'r\u00e9sum\u00e9', bytes(range(0xc0, 0xe0))),
    ]
    return struct.pack('>I', len(keys)) + b''.join(keys) + \
        struct.pack('>Iq', 1, 1800000050) + FORMER_KSK


def keystore_v2(slots, flags):
    plaintext = body_v2()
    header_len = 72 + sum(len(s) for s in slots)
    header = b'PGXKS\r\n\x1a' + struct.pack('>HHI', 2, flags, header_len) + UUID
    header += struct.pack('>QqII', 11, 1800000600, len(plaintext), len(slots))
    header += identity(KSK, b'ksk') + b''.join(slots)
    iv = bytes(range(0x50, 0x5c))
    ciphertext, tag = gcm_seal(hkdf(KSK, UUID, b'pgx keystore body'), iv, header, plaintext)
    data = header + iv + ciphertext + tag
    return data + hashlib.sha256(data).digest()


def ring_v2():
    plaintext = body_v2()
    start = b'PGXKR\r\n\x1a' + struct.pack('>HHI', 2, 0, len(plaintext)) + UUID
    start += struct.pack('>Q', 11) + identity(KSK, b'ksk')
    iv = bytes(range(0x70, 0x7c))
    ciphertext, tag = gcm_seal(hkdf(KSK, UUID, b'pgx keystore ring'), iv, start, plaintext)
    return start + iv + ciphertext + tag


def envelope():
    start = b'PGXKE\r\n\x1a' + struct.pack('>HHI', 1, 0, 0) + UUID + struct.pack('>Q', 11)
    start += identity(FORMER_KSK, b'ksk') + identity(KSK, b'ksk')
    iv = bytes(range(0x90, 0x9c))
    sealed, tag = gcm_seal(hkdf(FORMER_KSK, UUID, b'pgx keystore rekey'), iv, start, KSK)
    return start + iv + sealed + tag


def files_v2():
    compact = recovery_key().replace('-', '').encode()
    scrypt = slot_v2(1, 1, 'first custodian', b'correct horse', 1, 10, 0, 8, 1)
    pbkdf2 = slot_v2(2, 1, 'second custodian', b'battery staple', 2, 1000, 0, 0, 0)
    recovery = slot_v2(5, 2, 'safe', compact, 2, 1000, 0, 0, 0)
    argon2id = slot_v2(6, 1, 'third custodian', b'glass marble', 3, 1, 64, 0, 1)
    return [
        ('v2.ks', keystore_v2([scrypt, pbkdf2, recovery], 0)),
        ('v2-fips.ks', keystore_v2([pbkdf2, recovery], 1)),
        ('v2-argon2id.ks', keystore_v2([argon2id, scrypt], 0)),
        ('v2.ring', ring_v2()),
        ('v2.envelope', envelope()),
        ('v2.recovery', recovery_key().encode() + b'\n'),
    ]


def self_check():
    # FIPS 197 appendix C.3; GCM specification (McGrew and Viega) test case 16.
    key = bytes(range(32))
    assert aes_block(expand_key(key), bytes.fromhex('00112233445566778899aabbccddeeff')).hex() == \
        '8ea2b7ca516745bfeafc49904b496089'
    key = bytes.fromhex('feffe9928665731c6d6a8f9467308308' * 2)
    plaintext = bytes.fromhex(
        'd9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72'
        '1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39')
    aad = bytes.fromhex('feedfacedeadbeeffeedfacedeadbeefabaddad2')
    iv = bytes.fromhex('cafebabefacedbaddecaf888')
    ciphertext, tag = gcm_seal(key, iv, aad, plaintext)
    assert tag.hex() == '76fc6ece0f4e1768cddf8853bb2d551b'
    assert gcm_open(key, iv, aad, ciphertext, tag) == plaintext


def main():
    self_check()
    for name, data in [('v1.ks', keystore()), ('v1.ring', ring())] + files_v2():
        with open(os.path.join(sys.argv[1], name), 'wb') as f:
            f.write(data)


if __name__ == '__main__':
    main()
