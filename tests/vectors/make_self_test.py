#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Print the known answers of crypto/self_test.cpp, computed with OpenSSL's single-block AES (python3-cryptography).

XTS, CBC and ESSIV are written out here from their standards, one block at a time, and share nothing with the kernels.
"""
import hashlib

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

SECTORS = 37
FIRST = 2**32 - 20  # some sector numbers need the upper half
PLAIN = bytes((i * 7 + (i >> 8)) % 256 for i in range(SECTORS * 512))
KEY = bytes((i * 29 + 1) % 256 for i in range(64))


def encrypt(key, block):
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return encryptor.update(block) + encryptor.finalize()


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


def times_x(tweak):
    n = int.from_bytes(tweak, "little") << 1
    if n >> 128:
        n ^= (1 << 128) | 0x87
    return n.to_bytes(16, "little")


def essiv(key, number):
    return encrypt(hashlib.sha256(key).digest(), number.to_bytes(16, "little"))


def xts_sector(key, number, plain):
    half = len(key) // 2
    tweak = encrypt(key[half:], essiv(key, number))
    cipher = b""
    for at in range(0, len(plain), 16):
        cipher += xor(encrypt(key[:half], xor(plain[at : at + 16], tweak)), tweak)
        tweak = times_x(tweak)
    return cipher


def cbc_sector(key, number, plain):
    block = essiv(key, number)
    cipher = b""
    for at in range(0, len(plain), 16):
        block = encrypt(key, xor(plain[at : at + 16], block))
        cipher += block
    return cipher


for name, sector, factor in ("xts", xts_sector, 2), ("cbc", cbc_sector, 1):
    for key_bytes in 16, 24, 32:
        key = KEY[: key_bytes * factor]
        sectors = (PLAIN[i * 512 : (i + 1) * 512] for i in range(SECTORS))
        cipher = b"".join(sector(key, FIRST + i, s) for i, s in enumerate(sectors))
        print(name, key_bytes * factor, hashlib.sha256(cipher).hexdigest())
