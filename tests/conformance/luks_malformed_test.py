# SPDX-License-Identifier: BSD-3-Clause
"""Malformed LUKS volumes: fields, JSON and ciphers of sound volumes are changed, and what we say is compared with
cryptsetup and, for LUKS1, with QEMU.

Never looser: what we open cryptsetup opens, and QEMU if it is LUKS1 that it knows.  What only we refuse has a reason
in the list.  Each volume costs at most a second of CPU time and 64 MiB, also if it asks for hours of key derivation or
gigabytes of memory; a refusal says what is wrong with which value."""

import collections
import copy
import hashlib
import json
import os
import struct

import qluks

EDGES = [0, 1, 2, 7, 8, 16, 511, 512, 4095, 4096, 65536, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]
HUGE = ["0", "1", "511", "512", "4096", "-1", "+1", " 1", "1 ", "0x10", "1e3", "", "dynamic", "9223372036854775808",
        "18446744073709551104", "18446744073709551615", "18446744073709551616", "9" * 100]

# Served, as dm-crypt takes them with a key of 512 bits; all others must be refused.
SERVED = ["aes-xts-plain", "aes-xts-plain64", "aes-xts-plain64be", "aes-xts-benbi", "aes-xts-null",
          "aes-xts-essiv:sha256", "serpent-xts-plain64", "twofish-xts-plain64", "camellia-xts-plain64"]
# A payload's cipher by the kernel's name: cryptsetup asks dm-crypt even for the key slot of LUKS1, so that it can be
# asked in dm-crypt-vm.sh only.
BY_KERNEL = "capi:xts(aes)-plain64"
REFUSED = ["null", "cipher_null", "cipher_null-ecb", "cipher_null-cbc-plain", "null-ecb", "NULL",
           "capi:ecb(cipher_null)-plain", "capi:cipher_null-ecb", "aes", "aes-generic",
           "aes-", "-", "--", "", " ", "aes-xts", "aes-xts-", "aes--plain64", "-xts-plain64",
           "aes-xts-plain64-", "aes-xts-plain64 ", " aes-xts-plain64", "aes-xts-plain65", "aes-xts-random",
           "aes-xts-lmk", "aes-xts-tcw", "aes-xts-elephant", "aes-xts-essiv", "aes-xts-essiv:",
           "aes-xts-essiv:md0", "aes-xts-essiv:sha512", "aes-xts-plain64:sha256", "aes:1-xts-plain64",
           "aes:64-xts-plain64", "aes-gcm-random", "aes-ccm-plain64", "aes-xyz-plain64", "rot13-xts-plain64",
           "des-xts-plain64", "aria-xts-plain64", "sm4-xts-plain64", "AES-XTS-PLAIN64", "aes-XTS-plain64",
           "aes_xts_plain64", "aes-xts-plain64\n", "aes-xts-plain64\0", "aes-xts-plain64/../../etc/passwd",
           "a" * 31, "%s%n", "xchacha20,aes-adiantum-plain64"]

# A refusal: one line, what it is about, and a number or a name in quotes.
REFUSAL = r"^dump_guest: [ -~]*LUKS[ -~]*([0-9]|\")[ -~]*$"

# What we say where only we refuse.
STRICTER = [
    "the limit is",  # a key derivation that would take too long, or too much memory
    "appears twice",  # json-c takes the last one of two members; readers disagree
    "more than 65536 values",
    "is not supported",  # integrity, reencryption and segments of other types
    "null cipher", "not a null cipher", "capi:",  # data in plain text, and key slots by the kernel's names
    "cipher", "mode", "IV",  # that dm-crypt alone has; it is not asked for the data when a passphrase is tested
    "is none of 512",  # dm-crypt refuses it as well, later
    "is not a multiple of the sector's",  # so too
    "key_size",  # of another cipher than the slot's; so too
    "behind the device",  # the data is not looked at when a passphrase is tested
    "less than one sector",
    "hash name does not end", "cipher name does not end", "cipher mode does not end",  # as QEMU
    "overlaps the header",  # a detached header is named by a parameter
    "is not a number below 32",
    "JSON: bytes other than NUL follow", "JSON: the first byte", "JSON: a NUL",
    "does not hold the key material",  # cryptsetup reads on behind the area
    "stripes", "iterations is 0", "syntax error",
    "is not between 0 and 4294967295", "not an integer",  # json-c makes a number of anything
    "digests.0", "digest 0:",  # cryptsetup 2.6 takes any passphrase for right when it cannot compute the digest
]
# What QEMU says where cryptsetup and we open.
QEMU_ALONE = [
    "(active/disable) is corrupted", "iteration count is zero",  # cryptsetup leaves such a slot alone
    "are overlapping in the header",  # by its own rounding up to 4 KiB; the bytes themselves do not meet
]


# Others take memory, locked, and time by the field that says how much: they get this, and then they refuse.
LIMITS = ["prlimit", f"--as={512 << 20}", "--cpu=5"]


class Volume:
    """The bytes of a small volume up to its payload, and how large it is."""

    def __init__(self, path):
        self.size = os.path.getsize(path)
        with open(path, "rb") as f:
            self.head = f.read(min(self.size, 24 << 20))

    def write(self, path, head, size=None):
        with open(path, "wb") as f:
            f.write(head[:size])
            f.truncate(self.size if size is None else size)


class Luks2(Volume):
    def __init__(self, path):
        super().__init__(path)
        (self.hdr_size,) = struct.unpack_from(">Q", self.head, 8)
        self.json = json.loads(self.head[4096:self.hdr_size].rstrip(b"\0"))

    def with_text(self, text):
        """Both copies with that JSON area."""
        return self.with_header(lambda copy: copy.__setitem__(
            slice(4096, None), text.ljust(self.hdr_size - 4096, b"\0")[:self.hdr_size - 4096]))

    def with_header(self, change, repair=True):
        head = bytearray(self.head)
        for at in (0, self.hdr_size):
            one = head[at:at + self.hdr_size]
            change(one)
            if repair:
                one[448:512] = bytes(64)
                one[448:480] = hashlib.sha256(one).digest()
            head[at:at + self.hdr_size] = one
        return bytes(head)

    def with_json(self, change):
        changed = copy.deepcopy(self.json)
        change(changed)
        return self.with_text(json.dumps(changed, separators=(",", ":")).encode())

    def with_member(self, path, value):
        def change(root):
            *way, last = path.split("/")
            for name in way:
                root = root[name]
            root[last] = value
        return self.with_json(change)


class Malformed(qluks.TestCase):
    def setUp(self):
        super().setUp()
        self.tally = collections.Counter()
        self.secret_file()

    def tearDown(self):
        print(f"{sum(self.tally.values())} volumes:", dict(self.tally))

    def cryptsetup(self, path):
        done = qluks.run(*LIMITS, "cryptsetup", "open", "--test-passphrase", "--disable-locks", "--key-file",
                         self.path("secret"), path, check=False)
        return done.returncode == 0, done.stderr.decode(errors="replace").strip()

    def qemu(self, path):
        done = qluks.run(*LIMITS, "qemu-io", "-r", "--object", f"secret,id=s,file={self.path('secret')}",
                         "-c", "read 0 512", "--image-opts", f"driver=luks,key-secret=s,file.filename={path}",
                         check=False)
        said = (done.stdout + done.stderr).decode(errors="replace")
        return done.returncode == 0 and "rror" not in said and "an't open" not in said, said.strip()

    def ours(self, path):
        content, said = qluks.dump_bounded("--luks", "--passphrase", qluks.SECRET, "--bytes", 4096, path)
        return content is not None, said

    def judge(self, name, volume, head, size=None, others=("cryptsetup",)):
        with self.subTest(name):
            path = self.path("malformed.luks")
            volume.write(path, head, size)
            opened, we_say = self.ours(path)
            verdicts = {}
            for other in others:
                if opened or other == "cryptsetup":
                    verdicts[other] = getattr(self, other)(path)
            if opened:
                for other, (theirs, they_say) in verdicts.items():
                    alone = other == "qemu" and any(s in they_say for s in QEMU_ALONE)
                    self.assertTrue(theirs or alone, f"we open it: {other}: {they_say}")
                self.tally["opened by all"] += 1
                return True
            self.assertRegex(we_say, REFUSAL)
            if verdicts["cryptsetup"][0]:
                self.tally["stricter"] += 1
                self.assertTrue(any(s in we_say for s in STRICTER), f"only we refuse: {we_say}")
            else:
                self.tally["refused by both"] += 1
            return False

    def judge_iterations(self, name, volume, head, value, others=("cryptsetup",)):
        """Others would work on as long as they are told to."""
        if not isinstance(value, int) or value <= 65536:
            self.judge(name, volume, head, others=others)
        elif value >= (1 << 31) - 1:
            self.judge_alone(name, volume, head, REFUSAL)

    def judge_alone(self, name, volume, head, said):
        with self.subTest(name):
            path = self.path("malformed.luks")
            volume.write(path, head)
            opened, we_say = self.ours(path)
            self.assertFalse(opened)
            self.assertRegex(we_say, said)
            self.tally["refused before any work"] += 1

    def small(self, version, *options):
        """With the payload only as far as a few sectors."""
        path = self.path("sound.luks")
        with open(path, "wb") as f:
            f.truncate(64 << 20)
        qluks.luks_format(path, version, "--cipher", "aes-xts-plain64", "--key-size", "512", *qluks.CHEAP_PBKDF2,
                          *options)
        return path


class Luks1Fields(Malformed):
    OTHERS = ("cryptsetup", "qemu")

    def volume(self):
        path = self.path("sound.luks")
        with open(path, "wb") as f:
            f.truncate(64 << 20)
        qluks.luks_format(path, "luks1", "--cipher", "aes-xts-plain64", "--key-size", "512", "--pbkdf-force-iterations",
                          "1000")
        os.truncate(path, qluks.luks_payload_offset(path) + 65536)
        return Volume(path)

    def change(self, volume, offset, content):
        head = bytearray(volume.head)
        head[offset:offset + len(content)] = content
        return bytes(head)

    def test_numbers(self):
        volume = self.volume()
        self.assertTrue(self.judge("unchanged", volume, volume.head, others=self.OTHERS))
        for value in [0, 1, 2, 3, 255, 256, 65535]:
            self.judge(f"version={value}", volume, self.change(volume, 6, struct.pack(">H", value)), others=self.OTHERS)
        fields = {"payload_offset": 104, "key_bytes": 108, "digest_iterations": 164}
        for slot in (0, 1, 7):
            for i, name in enumerate(("active", "iterations")):
                fields[f"slot {slot} {name}"] = 208 + 48 * slot + 4 * i
            for i, name in enumerate(("offset", "stripes")):
                fields[f"slot {slot} {name}"] = 208 + 48 * slot + 40 + 4 * i
        for name, offset in fields.items():
            for value in EDGES + [32, 63, 64, 65, 128, 1000, 4000, 4001, 0xDEAD, 0x00AC71F3]:
                head = self.change(volume, offset, struct.pack(">I", value))
                if name in ("digest_iterations", "slot 0 iterations"):  # other slots are not in use
                    self.judge_iterations(f"{name}={value}", volume, head, value, self.OTHERS)
                else:
                    self.judge(f"{name}={value}", volume, head, others=self.OTHERS)

    def test_strings(self):
        volume = self.volume()
        hashes = ["", "md5", "sha0", "sha1", "SHA256", "sha256 ", "sha512", "crc32", "stribog256", "a" * 32, "\xff" * 8]
        for text in hashes:
            self.judge(f"hash={text!r}", volume, self.change(volume, 72, text.encode("latin1").ljust(32, b"\0")))
        opened = set()
        for text in SERVED + REFUSED:
            name, _, mode = text.partition("-")
            head = self.change(volume, 8, name.encode().ljust(32, b"\0")[:32] + mode.encode().ljust(32, b"\0")[:32])
            if self.judge(f"cipher={text!r}", volume, head):
                opened.add(text)
        # The slot is encrypted by the same cipher: another one opens nothing.  One is the same but for its IV's width.
        self.assertEqual(opened, {"aes-xts-plain64", "aes-xts-plain", "aes-xts-plain64\0"})
        name, _, mode = BY_KERNEL.partition("-")
        head = self.change(volume, 8, name.encode().ljust(32, b"\0") + mode.encode().ljust(32, b"\0"))
        self.assertTrue(self.judge(BY_KERNEL, volume, head, others=()))

    def test_cut_short(self):
        volume = self.volume()
        for size in [*range(0, 1100, 37), 4095, 4096, 4097, 100000, 1 << 20, volume.size - 65537, volume.size - 65536,
                     volume.size - 65535, volume.size - 65536 + 511, volume.size - 65536 + 512, volume.size - 1]:
            self.judge(f"size={size}", volume, volume.head, size, others=self.OTHERS)


class Luks2Fields(Malformed):
    def volume(self, *options):
        path = self.small("luks2", *options)
        os.truncate(path, (16 << 20) + 65536)
        return Luks2(path)

    def test_binary_header(self):
        volume = self.volume()
        self.assertTrue(self.judge("unchanged", volume, volume.head))
        for name, offset, width in [("version", 6, 2), ("hdr_size", 8, 8), ("seqid", 16, 8), ("hdr_offset", 256, 8)]:
            for value in EDGES + [3, 12288, 16384, 32768, 1 << 22, 1 << 23, (1 << 64) - 1]:
                content = (value & (1 << 8 * width) - 1).to_bytes(width, "big")

                def change(one):
                    one[offset:offset + width] = content
                for repair in (True, False):
                    self.judge(f"{name}={value}, repaired={repair}", volume, volume.with_header(change, repair))
        for name in ("sha256", "SHA256", "sha1", "sha512", "md5", "crc32c", "", "x" * 32):
            def rename(one):
                one[72:104] = name.encode().ljust(32, b"\0")
            self.judge(f"checksum_alg={name!r}", volume, volume.with_header(rename))

    def test_numbers_in_json(self):
        volume = self.volume()
        numbers = {"keyslots/0": ["key_size", "priority"], "keyslots/0/area": ["key_size"],
                   "keyslots/0/af": ["stripes"], "keyslots/0/kdf": ["iterations"], "digests/0": ["iterations"],
                   "segments/0": ["sector_size"]}
        for path, names in numbers.items():
            for name in names:
                for value in [-1, *EDGES, 32, 64, 128, 1024, 2048, 1 << 32, 1 << 63, 1 << 64, 10**30, 0.5, "512", None,
                              True, [], {}]:
                    head = volume.with_member(f"{path}/{name}", value)
                    if name == "iterations":
                        self.judge_iterations(f"{path}/{name}={value}", volume, head, value)
                    else:
                        self.judge(f"{path}/{name}={value}", volume, head)
        texts = {"keyslots/0/area": ["offset", "size"], "segments/0": ["offset", "size", "iv_tweak"],
                 "config": ["json_size", "keyslots_size"]}
        for path, names in texts.items():
            for name in names:
                for value in [*HUGE, 512, None, []]:
                    self.judge(f"{path}/{name}={value!r:.40}", volume, volume.with_member(f"{path}/{name}", value))

    def test_missing_members(self):
        volume = self.volume()

        def paths(node, path=""):
            for name, value in node.items():
                yield path + name
                if isinstance(value, dict):
                    yield from paths(value, f"{path}{name}/")
        for path in paths(volume.json):
            def remove(root):
                *way, last = path.split("/")
                for name in way:
                    root = root[name]
                del root[last]
            self.judge(f"without {path}", volume, volume.with_json(remove))
            for value in (None, "", "x", [], {}, 1, ["9"]):
                self.judge(f"{path}={value!r}", volume, volume.with_member(path, value))

    def test_wrong_passphrase_where_no_digest_can_be_computed(self):
        """cryptsetup 2.6 opens some of these with any passphrase."""
        volume = self.volume()
        path = self.path("malformed.luks")
        for member in ("hash", "digest", "salt"):
            for value in ("", "x", 1, None, "AAAA"):
                with self.subTest(member=member, value=value):
                    volume.write(path, volume.with_member(f"digests/0/{member}", value))
                    content, said = qluks.dump_bounded("--luks", "--passphrase", "wrong", "--bytes", 4096, path)
                    self.assertIsNone(content)
                    self.assertRegex(said, "digest")
                    self.tally["refused with a wrong passphrase"] += 1

    def test_ciphers(self):
        """Only the list opens; a key slot's cipher is that of its key material, so another one opens nothing."""
        volume = self.volume()
        names = [*SERVED, BY_KERNEL, *REFUSED]
        opened = {s for s in names
                  if self.judge(f"segment {s!r}", volume, volume.with_member("segments/0/encryption", s))}
        self.assertEqual(opened, {*SERVED, BY_KERNEL})
        opened = {s for s in names
                  if self.judge(f"area {s!r}", volume, volume.with_member("keyslots/0/area/encryption", s))}
        self.assertEqual(opened, {"aes-xts-plain", "aes-xts-plain64"})

    def test_key_derivation_bombs(self):
        volume = self.volume()
        salt = volume.json["keyslots"]["0"]["kdf"]["salt"]
        cheap = {"type": "argon2id", "time": 1, "memory": 32, "cpus": 1, "salt": salt}
        largest = (1 << 31) - 1
        bombs = [{"type": "pbkdf2", "hash": hash, "iterations": largest, "salt": salt}
                 for hash in ("sha1", "sha256", "sha512")]
        bombs += [cheap | {"type": kind, name: value} for kind in ("argon2i", "argon2id")
                  for name, value in [("time", largest), ("memory", largest), ("memory", 4 << 20), ("cpus", largest)]]
        bombs += [cheap | {"time": 1 << 20, "memory": 1 << 20}, cheap | {"time": 100000, "memory": 8 << 9, "cpus": 512},
                  cheap | {"memory": 0}, cheap | {"memory": 7}, cheap | {"time": 0}, cheap | {"cpus": 0}]
        for kdf in bombs:
            head = volume.with_member("keyslots/0/kdf", kdf)
            self.judge_alone(str(kdf), volume, head, "the limit is|no key slot opens")
        # Each is cheap by itself: thirty-two of them are not.
        for iterations in (50_000_000, largest):
            head = volume.with_json(lambda root: self.fill_slots(root, iterations))
            self.judge_alone(f"32 of {iterations}", volume, head, "the limit is 60 s")

    def fill_slots(self, root, iterations):
        slot = root["keyslots"]["0"]
        for number in range(1, 32):
            other = copy.deepcopy(slot)
            other["area"]["offset"] = str(int(slot["area"]["offset"]) + number * int(slot["area"]["size"]))
            other["kdf"]["iterations"] = iterations
            root["keyslots"][str(number)] = other
            root["digests"]["0"]["keyslots"].append(str(number))

    def test_json_bombs(self):
        """Also with the largest area, of 4 MiB."""
        for options in ([], ["--luks2-metadata-size", "4m", "--luks2-keyslots-size", "1m", "--offset", str(32 << 11)]):
            volume = self.volume(*options)
            text = json.dumps(volume.json).encode()
            room = volume.hdr_size - 4096

            def member(content):
                """The sound text with one more member that fills the area."""
                return text[:-1] + b',"x":' + content + b"}"
            free = room - len(text) - 20
            bombs = {f"nested {n} deep": member(b"[" * n + b"]" * n)
                     for n in (1, 14, 15, 16, 17, 31, 32, 33, 1000, free // 2 - 9)}
            bombs |= {f"objects nested {n} deep": member(b'{"a":' * n + b"1" + b"}" * n)
                      for n in (10, 16, 32, 100, free // 7)}
            bombs |= {
                "open brackets": b"{" + b"[" * (room - 2), "open braces": b'{"a":' * (room // 5 - 1),
                "only braces": b"{" * (room - 1), "values": member(b"[" + b"0," * (free // 2 - 9) + b"0]"),
                "members": member(b"{" + b",".join(b'"%d":0' % i for i in range(free // 12)) + b"}"),
                "same members": member(b"{" + b",".join([b'"a":0'] * (free // 7)) + b"}"),
                "long string": member(b'"' + b"a" * (free - 9) + b'"'),
                "long name": member(b'{"' + b"a" * (free - 19) + b'":1}'),
                "long number": member(b"9" * (free - 9)), "long fraction": member(b"0." + b"9" * (free - 9)),
                "large exponent": member(b"1e999999999"), "small exponent": member(b"1e-999999999"),
                "escapes": member(b'"' + b"\\u0041" * (free // 6 - 9) + b'"'),
                "lone surrogate": member(b'"\\ud800"'), "NUL by escape": member(b'"\\u0000"'),
                "bad UTF-8": member(b'"\xff\xfe"'), "comment": member(b"/* */1"), "trailing comma": text[:-1] + b",}",
                "white space": b"{" + b" " * (free - 9) + text[1:], "tokens": text.replace(
                    b'"tokens": {}', b'"tokens":{' + b",".join(
                        b'"%d":{"type":"x","keyslots":[]}' % i for i in range(32)) + b"}"),
                "token 32": text.replace(b'"tokens": {}', b'"tokens":{"32":{"type":"x","keyslots":[]}}'),
                "no end": (text[:-1] + b" ").ljust(room, b" "), "byte order mark": b"\xef\xbb\xbf" + text}
            for name, content in bombs.items():
                self.judge(f"{name}, area of {room}", volume, volume.with_text(content))

    def test_cut_short(self):
        volume = self.volume()
        near = {at + more for at in (0, 4096, 16384, 20480, 32768, 16 << 20)
                for more in (-1, 0, 1, 7, 8, 511, 512, 513)}
        for size in sorted({n for n in near if n >= 0} | {100000, 1 << 20, volume.size - 1}):
            self.judge(f"size={size}", volume, volume.head, size)
        for at in (0, 16384):  # one copy alone
            head = bytearray(volume.head)
            head[at:at + 16384] = bytes(16384)
            self.assertTrue(self.judge(f"no copy at {at}", volume, bytes(head)))


if __name__ == "__main__":
    qluks.main()
