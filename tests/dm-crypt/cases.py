# SPDX-License-Identifier: BSD-3-Clause
"""The volumes of dm-crypt-vm.sh: which are made, whether the filter serves what dm-crypt wrote, and writes as it does.

    cases.py write DIRECTORY [GROUP...]      what the virtual machine needs: cases, pattern, secret, size
    cases.py compare DIRECTORY [GROUP...]    serve each volume of DIRECTORY/volumes and compare; and write what dm-crypt
                                             wrote over something else, which has to give the same cipher text

A group is the name of a function below that makes cases; without one it is all.
"""

import collections
import os
import random
import re
import sys

import qluks

# No block is like another.
PATTERN = random.Random(1).randbytes(qluks.MIB + 4096)

# The header has 2 MiB.  Of each volume the disk holds that, and 2 MiB of the payload from where the pattern starts.
HEADER_MIB = 2
STORED_MIB = 4

COMMON = ["--pbkdf-force-iterations", "1000"]
LUKS1 = ["--type", "luks1", *COMMON, "--align-payload", "4096"]
LUKS2 = ["--type", "luks2", *COMMON, "--pbkdf", "pbkdf2", "--luks2-metadata-size", "16k", "--luks2-keyslots-size", "512k",
         "--offset", "4096"]

IVS = {"xts": ["plain64", "plain", "plain64be", "null", "benbi", "eboiv", "essiv:sha256"],
       "cbc": ["plain64", "plain", "plain64be", "null", "benbi", "eboiv", "essiv:sha256"],
       "ctr": ["plain64", "plain", "plain64be", "null", "benbi", "essiv:sha256"],
       "ecb": [None]}
OLD_MODES = {"pcbc": IVS["cbc"], "cfb": IVS["ctr"], "ofb": IVS["ctr"]}
KEY_BITS = {"xts": [256, 384, 512], "cbc": [128, 192, 256], "ctr": [128, 192, 256], "ecb": [128, 192, 256]}
WIDE_CIPHERS = ["aes", "serpent", "twofish", "camellia"]
LARGE_SECTORS = [1024, 2048, 4096]
ADIANTUM = [f"xchacha20,aes-adiantum-{iv}" for iv in ("plain", "plain64")]

SLOT_OF_ITS_OWN = ("--keyslot-cipher", "aes-xts-plain64", "--keyslot-key-size", "512")

# A pattern that starts before the sector number 2^32 and ends behind it.
AT_2_TIB = (1 << 31) - 512

Case = collections.namedtuple("Case", "version cipher bits sector skip_kib more", defaults=(512, 0, ()))


def name(cipher, mode, iv):
    return f"{cipher}-{mode}" + (f"-{iv}" if iv else "")


def every_iv():
    """Each cipher, mode and IV in both versions."""
    for version in (1, 2):
        for mode, ivs in IVS.items():
            for iv in ivs:
                for cipher in WIDE_CIPHERS:
                    yield Case(version, name(cipher, mode, iv), 256)
                if mode != "xts":
                    # The digest of the essiv has to be a key.
                    yield Case(version, name("cast5", mode, iv and iv.replace("sha256", "md5")), 128)
        for cipher in ADIANTUM:
            yield Case(version, cipher, 256)


def every_key_size():
    for mode, ivs in IVS.items():
        for bits in KEY_BITS[mode]:
            for cipher in WIDE_CIPHERS:
                yield Case(2, name(cipher, mode, ivs[0]), bits)
    yield Case(2, "aes-xts-eboiv", 256, more=SLOT_OF_ITS_OWN)
    for cipher, bits in (("aes", 128), ("aes-plain", 256), ("aes-cbc-essiv:md5", 256), ("aes-xts-essiv:sha256", 512)):
        yield Case(2, cipher, bits)


def every_sector_size():
    for sector in LARGE_SECTORS:
        for mode, ivs in IVS.items():
            for iv in ivs:
                yield Case(2, name("aes", mode, iv), 256, sector)
            for cipher in WIDE_CIPHERS[1:]:
                yield Case(2, name(cipher, mode, ivs[0]), 256, sector)
        yield Case(2, "cast5-cbc-plain64", 128, sector)
        for cipher in ADIANTUM:
            yield Case(2, cipher, 256, sector)


def large_sector_numbers():
    for cipher in ("aes-xts-plain", "aes-xts-plain64", "aes-xts-plain64be", "aes-cbc-essiv:sha256", "aes-cbc-benbi",
                   "aes-cbc-eboiv", "serpent-cbc-plain", *ADIANTUM):
        for sector in (512, 4096):
            yield Case(2, cipher, 256, sector, AT_2_TIB)


def short_blocks():
    """Ciphers whose blocks have 8 bytes; CAST5 is above in every IV."""
    for cipher, bits in (("blowfish", 256), ("des3_ede", 192)):
        for mode in ("cbc", "ctr", "ecb"):
            for iv in IVS[mode]:
                if (cipher, iv) != ("des3_ede", "essiv:sha256"):  # no digest has 192 bits
                    yield Case(2, name(cipher, mode, iv), bits)
        for sector in LARGE_SECTORS:
            yield Case(2, f"{cipher}-cbc-plain64", bits, sector)
        yield Case(1, f"{cipher}-cbc-plain64", bits)
    for cipher, bits in (("blowfish", 128), ("blowfish", 448), ("cast5", 40), ("cast5", 64)):
        yield Case(2, f"{cipher}-cbc-plain64", bits)


def old_modes():
    for mode, ivs in OLD_MODES.items():
        for iv in ivs:
            yield Case(1, name("aes", mode, iv), 256)
        yield Case(2, f"serpent-{mode}-plain64", 256, 4096)
        yield Case(2, f"cast5-{mode}-plain64", 128)


def lrw():
    for version in (1, 2):
        for cipher in WIDE_CIPHERS:
            yield Case(version, f"{cipher}-lrw-benbi", 256)
    for iv in IVS["cbc"]:
        yield Case(2, name("aes", "lrw", iv), 256)
    for bits in (320, 384):
        yield Case(2, "aes-lrw-benbi", bits)
    for sector in LARGE_SECTORS:
        yield Case(2, "aes-lrw-benbi", 256, sector)
        yield Case(2, "aes-lrw-eboiv", 256, sector)
    yield Case(2, "aes-lrw-benbi", 256, 512, AT_2_TIB)
    yield Case(2, "capi:lrw(serpent)-benbi", 384)


def adiantum():
    for cipher in ("xchacha20,aes", "xchacha12,aes"):
        for iv in ("plain64", "plain", "plain64be", "null", "benbi"):
            yield Case(2, f"{cipher}-adiantum-{iv}", 256)
        yield Case(1, f"{cipher}-adiantum-benbi", 256)
        yield Case(2, f"{cipher}-adiantum-benbi", 256, 512, AT_2_TIB)
        for sector in LARGE_SECTORS:
            yield Case(2, f"{cipher}-adiantum-plain64", 256, sector)
            yield Case(2, f"{cipher}-adiantum-benbi", 256, sector)


def kernel_names():
    for version in (1, 2):
        for cipher in ("xts(aes)-plain64", "cbc(serpent)-plain64", "cbc(aes)-essiv:sha256", "essiv(cbc(aes),sha256)-plain64",
                       "adiantum(xchacha20,aes)-plain64", "ecb(aes)-null", "ecb(aes)-plain64"):
            yield Case(version, "capi:" + cipher, 256)


def refused():
    for cipher in WIDE_CIPHERS:
        yield Case(2, f"{cipher}-ctr-eboiv", 256)
    # cryptsetup tries the cipher on a key slot, whatever the slots have, and takes the whole key for its eboiv.
    yield Case(2, "aes-xts-eboiv", 512, more=SLOT_OF_ITS_OWN)


GROUPS = [every_iv, every_key_size, every_sector_size, large_sector_numbers, short_blocks, old_modes, lrw,
          adiantum, refused, kernel_names]


def numbered_cases():
    """{case: (number, the group that named it first)}"""
    cases = {}
    for group in GROUPS:
        for case in group() if group.__name__ in chosen_groups else ():
            cases.setdefault(case, (len(cases), group.__name__))
    return cases


def options(case):
    words = LUKS1 if case.version == 1 else [*LUKS2, "--sector-size", str(case.sector)]
    return [*words, "--cipher", case.cipher, "--key-size", str(case.bits), *case.more]


def size_mib(case):
    return HEADER_MIB + case.skip_kib // 1024 + 2


def write(directory):
    def file(name, content):
        with open(os.path.join(directory, name), "wb") as f:
            f.write(content)

    cases = numbered_cases()
    lines = [" ".join(map(str, [n, n * STORED_MIB, size_mib(case), case.skip_kib, *options(case)]))
             for case, (n, _) in cases.items()]
    file("cases", "\n".join(lines).encode() + b"\n")
    file("pattern", PATTERN)
    file("secret", qluks.SECRET.encode())
    file("size", b"%dM" % (len(cases) * STORED_MIB))


class DmCrypt(qluks.TestCase):
    directory = None

    def setUp(self):
        super().setUp()
        with open(os.path.join(self.directory, "console"), errors="replace") as f:
            self.console = f.read()

    def test_every_volume_is_served_and_written_as_by_dm_crypt(self):
        self.assertIn("qluks: done", self.console)
        print(re.search(r"qluks: (kernel .*)", self.console).group(1).strip())
        results = dict(re.findall(r"qluks: case (\d+) (.*?)\s*$", self.console, re.MULTILINE))
        counts = collections.Counter()
        for case, (number, group) in numbered_cases().items():
            with self.subTest(case=case):
                result = results[str(number)]
                if group == "refused":
                    self.assertRegex(result, "^refused ")
                else:
                    self.assertEqual(result, "written")
                    volume = self.volume(case, number)
                    self.compare(case, volume)
                    self.write_again(case, volume)
                counts[group] += 1
        print(", ".join(f"{group}: {n}" for group, n in counts.items()))

    def volume(self, case, number):
        """The volume as it was: what was stored of it, and holes."""
        path = self.path("volume")
        with open(os.path.join(self.directory, "volumes"), "rb") as stored, open(path, "wb") as f:
            f.truncate(size_mib(case) * qluks.MIB)
            stored.seek(number * STORED_MIB * qluks.MIB)
            f.write(stored.read(HEADER_MIB * qluks.MIB))
            f.seek(case.skip_kib * 1024, os.SEEK_CUR)
            f.write(stored.read(2 * qluks.MIB))
        return path

    def compare(self, case, volume):
        server = self.server("file", volume, f"qluks-passphrase={qluks.SECRET}")
        try:
            with server.connect() as h:
                self.assert_same(h.pread(len(PATTERN), case.skip_kib * 1024), PATTERN)
        except qluks.nbd.Error:
            self.fail(server.errors()[:1])
        finally:
            server.stop()

    def stored(self, case, volume):
        with open(volume, "rb") as f:
            header = f.read(HEADER_MIB * qluks.MIB)
            f.seek(case.skip_kib * 1024, os.SEEK_CUR)
            return header + f.read()

    def write_again(self, case, volume):
        """In pieces of every size, aligned and not.  dm-crypt is as good as a key: the same bytes mean that it reads
        what we write."""
        written_by_kernel = self.stored(case, volume)
        server = self.server("file", volume, f"qluks-passphrase={qluks.SECRET}")
        start = case.skip_kib * 1024
        rng = random.Random(2)
        with server.connect() as h:
            h.pwrite(bytes(len(PATTERN)), start)
            h.flush()
            self.assertNotEqual(self.stored(case, volume), written_by_kernel)
            at = 0
            while at < len(PATTERN):
                piece = PATTERN[at:at + rng.choice((1, 100, 512, 4096, 5000, 70000, 300000))]
                h.pwrite(piece, start + at)
                at += len(piece)
            h.flush()
        server.stop()
        self.assert_same(self.stored(case, volume), written_by_kernel)


if __name__ == "__main__":
    command, directory = sys.argv[1:3]
    chosen_groups = sys.argv[3:] or [group.__name__ for group in GROUPS]
    del sys.argv[1:]
    if command == "write":
        write(directory)
    else:
        DmCrypt.directory = os.path.abspath(directory)
        qluks.main()
