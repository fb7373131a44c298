#!/usr/bin/env python3
"""Open a keystore with a passphrase or a recovery key: read_keystore.py FILE < SECRET

Written from keystore.ks(5) alone, and kept short enough to be read beside it.
"""
import hashlib, hmac, struct, sys
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

DIGITS = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'

def hkdf(key, salt, info, length=32):
    prk = hmac.new(salt, key, hashlib.sha256).digest()
    return hmac.new(prk, info + b'\x01', hashlib.sha256).digest()[:length]

def text(b):
    return b.split(b'\0')[0].decode()

def derive(secret, kdf, cost, memory, block, parallel, salt):
    if kdf == 1:
        return hashlib.scrypt(secret, salt=salt, n=1 << cost, r=block, p=parallel, maxmem=1 << 30, dklen=32)
    if kdf == 2:
        return hashlib.pbkdf2_hmac('sha512', secret, salt, cost, 32)
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
    return Argon2id(salt=salt, length=32, iterations=cost, lanes=parallel, memory_cost=memory).derive(secret)

data = open(sys.argv[1], 'rb').read()
secret = sys.stdin.buffer.read().rstrip(b'\n')
typed = secret.decode().upper().translate(str.maketrans('OIL', '011', ' \t-'))
assert data[:8] == b'PGXKS\r\n\x1a' and hashlib.sha256(data[:-32]).digest() == data[-32:]
version, flags, header_len, uuid, generation, changed, body_len, slots = \
    struct.unpack_from('>HHI16sQqII', data, 8)
assert version in (1, 2) and len(data) == header_len + 12 + body_len + 16 + 32
print('uuid', uuid.hex(), 'generation', generation, 'fips', flags & 1)
ksk, at = None, 56 if version == 1 else 72
for _ in range(slots):
    length, number, kind, slot_flags, created, label = struct.unpack_from('>IIHHq64s', data, at)
    slot, at = data[at:at + length], at + length
    print('slot', number, 'kind', kind, 'label', text(label))
    if kind in (1, 2) and ksk is None:
        aad = uuid + (slot[:20] + bytes(64) + slot[84:136] if slot_flags & 2 else slot[:136])
        key = derive(typed.encode() if kind == 2 else secret, *struct.unpack('>IIIII32s', slot[84:136]))
        try:
            ksk = AESGCM(key).decrypt(slot[136:148], slot[148:196], aad)
        except InvalidTag:
            pass
if ksk is None:
    sys.exit('no slot opens')
if version == 2:
    assert hkdf(ksk, uuid, b'pgx keystore ksk identity', 16) == data[56:72]
body = AESGCM(hkdf(ksk, uuid, b'pgx keystore body')).decrypt(data[at:at + 12], data[at + 12:-32], data[:at])
count, size, key_at, origin_at = (struct.unpack_from('>I', body)[0],) + ((128, 96, 32) if version == 1 else (224, 176, 48))
for record in (body[4 + size * i:4 + size * (i + 1)] for i in range(count)):
    number, state = struct.unpack_from('>IH', record)
    key = record[key_at:key_at + 32]
    if version == 2 and state != 3:
        assert record[208:] == hkdf(key, uuid, b'pgx keystore master key identity', 16)
    print('key', number, 'state', state, 'origin', text(record[origin_at:origin_at + 64]), key.hex())
