# SPDX-License-Identifier: BSD-3-Clause
"""Every secret that unlocking a volume computes, computed once more: derived key, volume key, round keys."""

import base64
import ctypes
import hashlib
import json
import os
import re

import qluks


def aes_round_keys(key):
    """FIPS 197, section 5.2."""
    sbox = aes_sbox()
    words = [key[i:i + 4] for i in range(0, len(key), 4)]
    n = len(words)
    rcon = 1
    for i in range(n, 4 * (n + 7)):
        word = words[-1]
        if i % n == 0:
            word = bytes(sbox[b] for b in word[1:] + word[:1])
            word = bytes([word[0] ^ rcon]) + word[1:]
            rcon = rcon << 1 ^ (0x11b if rcon & 0x80 else 0)
        elif n > 6 and i % n == 4:
            word = bytes(sbox[b] for b in word)
        words.append(bytes(a ^ b for a, b in zip(words[i - n], word)))
    return [b"".join(words[i:i + 4]) for i in range(0, len(words), 4)]


def aes_sbox():
    sbox = [0] * 256
    p = q = 1
    while True:
        p = (p ^ p << 1 ^ (0x11b if p & 0x80 else 0)) & 0xff  # times 3
        q ^= q << 1
        q ^= q << 2
        q ^= q << 4
        q = (q & 0xff) ^ (0x09 if q & 0x80 else 0)  # divided by 3
        x = q ^ rotl8(q, 1) ^ rotl8(q, 2) ^ rotl8(q, 3) ^ rotl8(q, 4)
        sbox[p] = x ^ 0x63
        if p == 1:
            break
    sbox[0] = 0x63
    return sbox


def rotl8(x, n):
    return (x << n | x >> (8 - n)) & 0xff


def pbkdf2(hash, secret, salt, iterations, key_bytes):
    """hashlib's names have underscores where LUKS has hyphens, and it calls BLAKE2b's longest digest just so."""
    name = hash.replace("blake2b-512", "blake2b").replace("-", "_")
    return hashlib.pbkdf2_hmac(name, secret, salt, iterations, key_bytes)


def argon2(kdf, secret, key_bytes):
    library = ctypes.CDLL("libargon2.so.1")
    salt = base64.b64decode(kdf["salt"])
    key = ctypes.create_string_buffer(key_bytes)
    function = getattr(library, kdf["type"] + "_hash_raw")
    status = function(kdf["time"], kdf["memory"], kdf["cpus"], secret, ctypes.c_size_t(len(secret)), salt,
                      ctypes.c_size_t(len(salt)), key, ctypes.c_size_t(key_bytes))
    assert status == 0, status
    return key.raw


def derived_key(image, secret, hash="sha256"):
    """What the KDF of key slot 0 makes of the secret; the hash is LUKS1's."""
    with open(image, "rb") as f:
        version = f.read(8)[7]
    if version == 1:
        text = qluks.run("cryptsetup", "luksDump", image).stdout.decode()
        slot = text[text.index("Key Slot 0"):]
        iterations = int(re.search(r"Iterations:\s+(\d+)", slot).group(1))
        salt = bytes.fromhex(re.search(r"Salt:((?:\s+[0-9a-f]{2}){32})", slot).group(1))
        bits = int(re.search(r"MK bits:\s+(\d+)", text).group(1))
        return pbkdf2(hash, secret, salt, iterations, bits // 8)
    slot = json.loads(qluks.run("cryptsetup", "luksDump", "--dump-json-metadata", image).stdout)["keyslots"]["0"]
    kdf, key_bytes = slot["kdf"], slot["area"]["key_size"]
    if kdf["type"] == "pbkdf2":
        return pbkdf2(kdf["hash"], secret, base64.b64decode(kdf["salt"]), kdf["iterations"], key_bytes)
    return argon2(kdf, secret, key_bytes)


def volume_key(test, image, secret):
    path = test.path("volume-key")
    qluks.run("cryptsetup", "luksDump", "--dump-volume-key", "-q", "--volume-key-file", path, "--key-file",
              test.secret_file(secret), image)
    with open(path, "rb") as f:
        key = f.read()
    os.unlink(path)
    return key


def in_blocks(name, secret):
    """Pieces as short as an AES block, so that half a copy is found as well."""
    return {f"{name} from byte {at}": secret[at:at + 16] for at in range(0, len(secret) - 15, 16)}


def aes_schedules(cipher, key):
    """First and last round key of every AES key that the cipher expands; the first is a piece of the key itself."""
    keys = {"data": key}
    if "-xts-" in cipher:
        keys = {"data": key[:len(key) // 2], "tweak": key[len(key) // 2:]}
    if "essiv:" in cipher:
        keys["essiv"] = hashlib.new(cipher[cipher.index("essiv:") + 6:], key).digest()
    last = {}
    for name, aes_key in keys.items():
        last[f"last round key of the {name} key"] = aes_round_keys(aes_key)[-1]
    if "essiv" in keys:
        last["first round key of the essiv key"] = keys["essiv"][:16]
    return last
