#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Print sectors.vec: runs of sectors under every cipher spec, by OpenSSL's single-block AES (python3-cryptography).

XTS, CBC and the IVs of dm-crypt are written out here from their definitions, one block at a time, and share nothing
with the kernels.
"""
import hashlib

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

HEAD = """\
# SPDX-License-Identifier: BSD-3-Clause
# Runs of sectors, made by make_sectors.py with OpenSSL's single-block AES.
#
# Byte i of the plain text is (7 i + i / 256) mod 256, byte i of the key (29 i + 1) mod 256.  Sector is the number of
# the first sector in units of 512 bytes, Sha256 the digest of the cipher text.
"""

SECTORS = 37
RUNS = (512, 2**32 - 20), (1024, 2**64 - 33), (2048, 7), (4096, 2**32 - 100)


def pattern(size):
    return bytes((i * 7 + (i >> 8)) % 256 for i in range(size))


def ecb(key):
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update


def xor(a, b):
    return (int.from_bytes(a, "little") ^ int.from_bytes(b, "little")).to_bytes(16, "little")


def times_x(tweak):
    n = int.from_bytes(tweak, "little") << 1
    if n >> 128:
        n ^= (1 << 128) | 0x87
    return n.to_bytes(16, "little")


def iv_maker(kind, key):
    essiv = ecb(hashlib.sha256(key).digest())
    return {
        "plain": lambda n: (n % 2**32).to_bytes(16, "little"),
        "plain64": lambda n: n.to_bytes(16, "little"),
        "plain64be": lambda n: n.to_bytes(16, "big"),
        "essiv:sha256": lambda n: essiv(n.to_bytes(16, "little")),
    }[kind]


def xts_sector(key, iv, plain):
    half = len(key) // 2
    block, tweak = ecb(key[:half]), ecb(key[half:])(iv)
    cipher = b""
    for at in range(0, len(plain), 16):
        cipher += xor(block(xor(plain[at : at + 16], tweak)), tweak)
        tweak = times_x(tweak)
    return cipher


def cbc_sector(key, iv, plain):
    block = ecb(key)
    cipher = b""
    for at in range(0, len(plain), 16):
        iv = block(xor(plain[at : at + 16], iv))
        cipher += iv
    return cipher


def run_digest(sector, key, iv, first, size):
    plain = pattern(SECTORS * size)
    digest = hashlib.sha256()
    for i in range(SECTORS):
        number = (first + i * (size // 512)) % 2**64
        digest.update(sector(key, iv(number), plain[i * size : (i + 1) * size]))
    return digest.hexdigest()


print(HEAD)
for mode, sector, keys in ("xts", xts_sector, 2), ("cbc", cbc_sector, 1):
    for kind in "plain", "plain64", "plain64be", "essiv:sha256":
        for key_bytes in 16 * keys, 24 * keys, 32 * keys:
            key = bytes((i * 29 + 1) % 256 for i in range(key_bytes))
            for size, first in RUNS:
                print(f"Cipher = aes-{mode}-{kind}")
                print(f"KeyBytes = {key_bytes}\nSectorSize = {size}\nSector = {first}\nCount = {SECTORS}")
                print(f"Sha256 = {run_digest(sector, key, iv_maker(kind, key), first, size)}\n")
