#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Print sectors.vec, or with the argument "modes" modes.vec: runs of sectors under every cipher spec.

The single blocks are by OpenSSL (python3-cryptography), those of Serpent and Twofish by libgcrypt.  The modes and the
IVs of dm-crypt are written out here from their definitions, one block at a time, and share nothing with the kernels.
"""
import ctypes
import hashlib
import struct
import sys

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

HEAD = """\
# SPDX-License-Identifier: BSD-3-Clause
# Runs of sectors, made by make_sectors.py with %s.
#
# Byte i of the plain text is (7 i + i / 256) mod 256, byte i of the key (29 i + 1) mod 256.  Sector is the number of
# the first sector in units of 512 bytes, Sha256 the digest of the cipher text.
"""

SECTORS = 37
RUNS = (512, 2**32 - 20), (1024, 2**64 - 33), (2048, 7), (4096, 2**32 - 100)


def pattern(size):
    return bytes((i * 7 + (i >> 8)) % 256 for i in range(size))


def openssl(algorithm):
    return lambda key: Cipher(algorithm(key), modes.ECB()).encryptor().update


def libgcrypt(numbers):
    """A cipher by its numbers in gcrypt.h, one for each length of key."""

    def ecb(key):
        gcrypt = ctypes.CDLL("libgcrypt.so.20")
        gcrypt.gcry_check_version(None)
        handle = ctypes.c_void_p()
        assert gcrypt.gcry_cipher_open(ctypes.byref(handle), numbers[len(key)], 1, 0) == 0
        assert gcrypt.gcry_cipher_setkey(handle, key, ctypes.c_size_t(len(key))) == 0

        def encrypt(block):
            out = ctypes.create_string_buffer(16)
            assert gcrypt.gcry_cipher_encrypt(handle, out, ctypes.c_size_t(16), block, ctypes.c_size_t(16)) == 0
            return out.raw

        return encrypt

    return ecb


CIPHERS = {
    "aes": openssl(algorithms.AES),
    "camellia": openssl(algorithms.Camellia),
    "cast5": openssl(algorithms.CAST5),
    "blowfish": openssl(algorithms.Blowfish),
    "des3_ede": openssl(algorithms.TripleDES),
    "serpent": libgcrypt({16: 304, 24: 305, 32: 306}),
    "twofish": libgcrypt({16: 303, 32: 10}),
}


def block_bytes(cipher):
    return 8 if cipher in LONGEST_KEYS else 16


# Of ciphers with blocks of 8 bytes.
LONGEST_KEYS = {"cast5": 16, "blowfish": 56, "des3_ede": 24}


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


def times_x(tweak):
    n = int.from_bytes(tweak, "little") << 1
    if n >> 128:
        n ^= (1 << 128) | 0x87
    return n.to_bytes(16, "little")


def iv_maker(cipher, mode, kind, key, sector_size):
    size = block_bytes(cipher)
    iv_size = 32 if mode == "adiantum" else size
    ecb = CIPHERS.get(cipher)
    name, _, hash = kind.partition(":")
    if name == "essiv":
        essiv = ecb(hashlib.new(hash.replace("-", "_"), key).digest())
        return lambda n: essiv(n.to_bytes(size, "little"))
    if name == "benbi":
        # dm-crypt counts blocks of the mode.
        block = 1 if mode in STREAMS else size
        return lambda n: ((n * (512 // block) + 1) % 2**64).to_bytes(iv_size, "big")
    if name == "eboiv":
        # dm-crypt encrypts a block of zeroes by the mode.
        return lambda n: MODES[mode](cipher, key, (n * sector_size % 2**64).to_bytes(size, "little"), bytes(size))
    return {
        "none": lambda n: None,
        "plain": lambda n: (n % 2**32).to_bytes(iv_size, "little"),
        "plain64": lambda n: n.to_bytes(iv_size, "little"),
        "plain64be": lambda n: n.to_bytes(iv_size, "big"),
        "null": lambda n: bytes(iv_size),
    }[name]


def blocks(cipher, text):
    size = block_bytes(cipher)
    return (text[at : at + size] for at in range(0, len(text), size))


def xts_sector(cipher, key, iv, plain):
    half = len(key) // 2
    encrypt, tweak = CIPHERS[cipher](key[:half]), CIPHERS[cipher](key[half:])(iv)
    text = b""
    for block in blocks(cipher, plain):
        text += xor(encrypt(xor(block, tweak)), tweak)
        tweak = times_x(tweak)
    return text


def cbc_sector(cipher, key, iv, plain):
    encrypt = CIPHERS[cipher](key)
    text = b""
    for block in blocks(cipher, plain):
        iv = encrypt(xor(block, iv))
        text += iv
    return text


def ecb_sector(cipher, key, iv, plain):
    encrypt = CIPHERS[cipher](key)
    return b"".join(encrypt(block) for block in blocks(cipher, plain))


def ctr_sector(cipher, key, iv, plain):
    encrypt, size = CIPHERS[cipher](key), block_bytes(cipher)
    text = b""
    for i, block in enumerate(blocks(cipher, plain)):
        counter = (int.from_bytes(iv, "big") + i) % 256**size
        text += xor(block, encrypt(counter.to_bytes(size, "big")))
    return text


def xctr_sector(cipher, key, iv, plain):
    encrypt = CIPHERS[cipher](key)
    return b"".join(
        xor(block, encrypt(xor(iv, (i + 1).to_bytes(16, "little")))) for i, block in enumerate(blocks(cipher, plain))
    )


def pcbc_sector(cipher, key, iv, plain):
    encrypt = CIPHERS[cipher](key)
    text = b""
    for block in blocks(cipher, plain):
        encrypted = encrypt(xor(block, iv))
        iv = xor(block, encrypted)
        text += encrypted
    return text


def cfb_sector(cipher, key, iv, plain):
    encrypt = CIPHERS[cipher](key)
    text = b""
    for block in blocks(cipher, plain):
        iv = xor(block, encrypt(iv))
        text += iv
    return text


def ofb_sector(cipher, key, iv, plain):
    encrypt = CIPHERS[cipher](key)
    text = b""
    for block in blocks(cipher, plain):
        iv = encrypt(iv)
        text += xor(block, iv)
    return text


def lrw_sector(cipher, key, iv, plain):
    encrypt, tweak_key = CIPHERS[cipher](key[:-16]), int.from_bytes(key[-16:], "big")
    text = b""
    for i, block in enumerate(blocks(cipher, plain)):
        number, tweak = (int.from_bytes(iv, "big") + i) % 2**128, 0
        for bit in reversed(range(128)):
            tweak = tweak << 1 ^ (tweak_key if number >> bit & 1 else 0)
            tweak ^= tweak >> 128 and (1 << 128 | 0x87)
        tweak = tweak.to_bytes(16, "big")
        text += xor(encrypt(xor(block, tweak)), tweak)
    return text


def chacha20(key, nonce, text):
    """With the whole last row of its state, counter and nonce, given."""
    return Cipher(algorithms.ChaCha20(key, nonce), None).encryptor().update(text)


def chacha12(key, row, text):
    """The same with 12 rounds."""
    low, high, *nonce = struct.unpack("<4I", row)
    stream = b""
    while len(stream) < len(text):
        start = [*struct.unpack("<4I", b"expand 32-byte k"), *struct.unpack("<8I", key), low, high, *nonce]
        s = list(start)

        def step(a, b, d, turn):
            s[a] = (s[a] + s[b]) % 2**32
            s[d] ^= s[a]
            s[d] = (s[d] << turn | s[d] >> 32 - turn) % 2**32

        for _ in range(6):
            for diagonal in range(2):
                for i in range(4):
                    a, b, c, d = (4 * row + (i + row * diagonal) % 4 for row in range(4))
                    step(a, b, d, 16), step(c, d, b, 12), step(a, b, d, 8), step(c, d, b, 7)
        stream += struct.pack("<16I", *((x + y) % 2**32 for x, y in zip(s, start)))
        low += 1
    return xor(text, stream)


def xchacha(chacha, key, nonce, text):
    words = struct.unpack("<16I", chacha(key, nonce[:16], bytes(64)))
    start = struct.unpack("<4I", b"expand 32-byte k") + (0,) * 8 + struct.unpack("<4I", nonce[:16])
    subkey = [(words[i] - start[i]) % 2**32 for i in (0, 1, 2, 3, 12, 13, 14, 15)]
    return chacha(struct.pack("<8I", *subkey), bytes(8) + nonce[16:], text)


def poly1305(r, message):
    r = int.from_bytes(r, "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for at in range(0, len(message), 16):
        total = (total + int.from_bytes(message[at : at + 16], "little") + 2**128) * r % (2**130 - 5)
    return total


def nh(key, message):
    words = struct.unpack(f"<{len(message) // 4}I", message)
    sums = [0] * 4
    for at in range(0, len(words), 4):
        for i in range(4):
            m = [(words[at + j] + key[at + 4 * i + j]) % 2**32 for j in range(4)]
            sums[i] += m[0] * m[2] + m[1] * m[3]
    return struct.pack("<4Q", *(s % 2**64 for s in sums))


def adiantum_sector(cipher, key, iv, plain):
    chacha = {"xchacha20,aes": chacha20, "xchacha12,aes": chacha12}[cipher]
    keys = xchacha(chacha, key, b"\1" + bytes(23), bytes(32 + 16 + 16 + 1072))
    nh_key = struct.unpack("<268I", keys[64:])

    def hash(left):
        hashes = b"".join(nh(nh_key, left[at : at + 1024]) for at in range(0, len(left), 1024))
        tweak = (8 * len(left)).to_bytes(16, "little") + iv
        return poly1305(keys[32:48], tweak) + poly1305(keys[48:64], hashes)

    left, right = plain[:-16], int.from_bytes(plain[-16:], "little")
    middle = CIPHERS["aes"](keys[:32])(((right + hash(left)) % 2**128).to_bytes(16, "little"))
    left = xchacha(chacha, key, middle + b"\1" + bytes(7), left)
    return left + ((int.from_bytes(middle, "little") - hash(left)) % 2**128).to_bytes(16, "little")


MODES = {
    "adiantum": adiantum_sector,
    "xts": xts_sector,
    "cbc": cbc_sector,
    "ecb": ecb_sector,
    "ctr": ctr_sector,
    "xctr": xctr_sector,
    "pcbc": pcbc_sector,
    "cfb": cfb_sector,
    "ofb": ofb_sector,
    "lrw": lrw_sector,
}

# Of them the kernel says that their blocks have one byte.
STREAMS = "ctr", "xctr", "cfb", "ofb"


def print_run(cipher, mode, kind, key_bytes, sector_size, first, count):
    key = bytes((i * 29 + 1) % 256 for i in range(key_bytes))
    make_iv = iv_maker(cipher, mode, kind, key, sector_size)
    plain = pattern(count * sector_size)
    digest = hashlib.sha256()
    for i in range(count):
        iv = make_iv((first + i * (sector_size // 512)) % 2**64)
        digest.update(MODES[mode](cipher, key, iv, plain[i * sector_size : (i + 1) * sector_size]))
    print(f"Cipher = {cipher}-{mode}" + ("" if kind == "none" else f"-{kind}"))
    print(f"KeyBytes = {key_bytes}\nSectorSize = {sector_size}\nSector = {first}\nCount = {count}")
    print(f"Sha256 = {digest.hexdigest()}\n")


def print_sectors():
    print(HEAD % "OpenSSL's single-block AES")
    for mode, keys in ("xts", 2), ("cbc", 1):
        for kind in "plain", "plain64", "plain64be", "essiv:sha256":
            for key_bytes in 16 * keys, 24 * keys, 32 * keys:
                for sector_size, first in RUNS:
                    print_run("aes", mode, kind, key_bytes, sector_size, first, SECTORS)


def kinds_of(cipher, mode):
    # A digest that is a key of the cipher.
    essiv = {"cast5": ["essiv:md5"], "des3_ede": []}.get(cipher, ["essiv:sha256"])
    plain = ["plain", "plain64", "plain64be", "null", *essiv]
    blocks = plain + ["benbi", "eboiv"]
    streams = plain + ["benbi"]
    return {"xts": blocks, "cbc": blocks, "pcbc": blocks, "lrw": blocks, "ecb": ["none"]}.get(mode, streams)


def print_modes():
    print(HEAD % "single blocks by OpenSSL and libgcrypt")
    for cipher in "xchacha20,aes", "xchacha12,aes":
        for kind in "plain", "plain64", "plain64be", "null", "benbi":
            print_run(cipher, "adiantum", kind, 32, 512, 2**32 - 2, 4)
            print_run(cipher, "adiantum", kind, 32, 4096, 2**64 - 8, 3)
    for cipher in CIPHERS:
        for mode in "xts", "cbc", "ecb", "ctr", "xctr", "pcbc", "cfb", "ofb", "lrw":
            if cipher in LONGEST_KEYS and mode in ("xts", "xctr", "lrw"):
                continue

            def whole_key(key_bytes):
                return {"xts": 2 * key_bytes, "lrw": key_bytes + 16}.get(mode, key_bytes)

            longest = whole_key(LONGEST_KEYS.get(cipher, 32))
            for kind in kinds_of(cipher, mode):
                print_run(cipher, mode, kind, longest, 512, 2**32 - 2, 4)
                print_run(cipher, mode, kind, longest, 4096, 2**64 - 8, 3)
            for key_bytes in 16, 24:
                if cipher not in LONGEST_KEYS and (cipher, key_bytes) != ("twofish", 24): # libgcrypt has no Twofish-192
                    print_run(cipher, mode, kinds_of(cipher, mode)[-1], whole_key(key_bytes), 512, 1, 2)
    print_run("aes", "cbc", "essiv:md5", 32, 512, 7, 2)
    print_run("serpent", "cbc", "essiv:sha3-256", 32, 512, 7, 2)
    for key_bytes in 5, 8, 10, 11, 15:
        print_run("cast5", "cbc", "plain64", key_bytes, 512, 7, 2)
    for key_bytes in 4, 16, 32:
        print_run("blowfish", "cbc", "plain64", key_bytes, 512, 7, 2)


print_modes() if sys.argv[1:] == ["modes"] else print_sectors()
