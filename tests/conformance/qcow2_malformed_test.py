# SPDX-License-Identifier: BSD-3-Clause
"""Malformed images: each field of a sound image is set to edge values, and what we say is compared with QEMU.

Never looser: what QEMU refuses is refused, but for the exceptions that are listed with their reasons.  What both read
is the same.  What only we refuse has a reason in the list too."""

import collections
import os
import struct
import subprocess
import time

import qluks

DUMP = os.environ["QLUKS_DUMP_GUEST"]
HEAD = 1 << 20
SECONDS_MAX = 5  # of a machine that has other work as well; most take milliseconds
MEMORY_MAX = 64 << 20

FIELDS = {"version": (4, 4), "backing_file_offset": (8, 8), "backing_file_size": (16, 4), "cluster_bits": (20, 4),
          "size": (24, 8), "crypt_method": (32, 4), "l1_size": (36, 4), "l1_table_offset": (40, 8),
          "refcount_table_offset": (48, 8), "refcount_table_clusters": (56, 4), "nb_snapshots": (60, 4),
          "snapshots_offset": (64, 8)}
FIELDS_3 = {"incompatible_features": (72, 8), "compatible_features": (80, 8), "autoclear_features": (88, 8),
            "refcount_order": (96, 4), "header_length": (100, 4), "compression_type": (104, 1)}
ANY = [0, 1, 2, 3, 4, 7, 8, 9, 21, 22, 63, 64, 103, 104, 105, 112, 120, 255, 256, 511, 512, 513, 1023, 1024, 4095, 4096,
       65535, 65536, 65537, (1 << 20) + 512, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]
WIDE = [1 << bit for bit in range(32, 64)] + [(1 << 63) - 512, (1 << 64) - 512, (1 << 64) - 1, 0x5A0000000200]

# What QEMU says where only QEMU refuses.
LOOSER = [
    "snapshot table entry",  # we read the table only when a snapshot is asked for
    "Could not read L1 table",  # at the last byte that an offset can say QEMU cannot ask; for us no file goes so far
]
# What we say where only we refuse.
STRICTER = [
    "give it with qluks-backing=",  # nothing that an image names is opened
]


class Image:
    """A sound image, and where its tables are."""

    def __init__(self, content):
        self.content = content
        (self.version,) = struct.unpack_from(">I", content, 4)
        (self.cluster_bits,) = struct.unpack_from(">I", content, 20)
        (self.l1,) = struct.unpack_from(">Q", content, 40)
        (entry,) = struct.unpack_from(">Q", content, self.l1)
        self.l2 = entry & 0x00FFFFFFFFFFFE00

    def with_value(self, offset, width, value):
        changed = bytearray(self.content)
        changed[offset:offset + width] = value.to_bytes(width, "big")
        return bytes(changed)

    def with_fields(self):
        fields = FIELDS | (FIELDS_3 if self.version == 3 else {})
        for name, (offset, width) in fields.items():
            for value in ANY + (WIDE if width == 8 else []):
                if value < 1 << (8 * width):
                    yield f"{name}={value:#x}", self.with_value(offset, width, value)

    def with_entries(self):
        """L1 and L2 entries: single bits, and places before, at and behind the end of the file."""
        end = len(self.content)
        values = [0, (1 << 64) - 1, end, end - 512, end + 512, self.l1, self.l2] + [1 << bit for bit in range(64)]
        for name, offset in [("l1", self.l1), ("l2", self.l2), ("l2+1", self.l2 + 8)]:
            for value in values:
                yield f"{name}={value:#x}", self.with_value(offset, 8, value)

    def cut_short(self):
        cluster = 1 << self.cluster_bits
        for size in {0, 1, 4, 71, 72, 100, 103, 104, 111, 112, 113, cluster, self.l1, self.l1 + 1, self.l1 + 8, self.l2,
                     self.l2 + 7, self.l2 + 8, len(self.content) - cluster, len(self.content) - 1}:
            yield f"size of file {size}", self.content[:size]

    def with_extensions(self):
        start = struct.unpack_from(">I", self.content, 100)[0]
        for magic in (0, 0xE2792ACA, 0x6803F857, 0x0537BE77, 0x23852875, 0x44415441, 0x12345678):
            for length in (0, 1, 8, 15, 16, 17, 24, 48, 100, 65536, 0x7FFFFFFF, 0xFFFFFFF8, 0xFFFFFFFF):
                changed = bytearray(self.content)
                struct.pack_into(">II", changed, start, magic, length)
                changed[start + 8:start + 64] = bytes(56)
                yield f"extension {magic:#x} of {length}", bytes(changed)


class Malformed(qluks.TestCase):
    def sound_image(self, *options):
        path = self.path("sound.qcow2")
        qluks.run("qemu-img", "create", "-f", "qcow2", "-o", ",".join(options), path, "1M")
        qluks.run("qemu-io", "-c", "write -P 1 0 70k", "-c", "write -z 128k 64k", "-c", "write -P 2 512k 100k", path)
        with open(path, "rb") as f:
            return Image(f.read())

    def ours(self, path):
        """What we read (None if we refuse) and what we say, within the bounds of time and memory."""
        started = time.monotonic()
        with open(self.path("ours.raw"), "w+b") as out, open(self.path("ours.log"), "w+b") as err:
            child = subprocess.Popen([DUMP, "--bytes", str(HEAD), path], stdout=out, stderr=err)
            _, status, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0), err.seek(0)
            content, said = out.read(), err.read().decode()
        self.assertIn(child.returncode, (0, 1), said)
        self.assertLess(time.monotonic() - started, SECONDS_MAX)
        if not qluks.PRELOAD:  # sanitizers have memory of their own
            self.assertLess(used.ru_maxrss * 1024, MEMORY_MAX)
        return content if child.returncode == 0 else None, said.splitlines()[-1]

    def qemu(self, path):
        raw = self.path("head.raw")
        if os.path.exists(raw):
            os.unlink(raw)
        done = qluks.run("qemu-img", "dd", "-f", "qcow2", "-O", "raw", f"bs={HEAD}", "count=1", f"if={path}",
                         f"of={raw}", check=False)
        if done.returncode != 0:
            return None, done.stderr.decode().strip()
        with open(raw, "rb") as f:
            return f.read(), ""

    def compare(self, name, content, tally):
        path = self.write("malformed.qcow2", content)
        (ours, we_say), (theirs, they_say) = self.ours(path), self.qemu(path)
        if ours is not None and theirs is not None:
            tally["read by both"] += 1
            self.assert_same(ours, theirs)
        elif ours is None and theirs is None:
            tally["refused by both"] += 1
            self.assertRegex(we_say, r"^dump_guest: [ -~]+$")
        elif ours is None:
            tally["stricter"] += 1
            self.assertTrue(any(s in we_say for s in STRICTER), f"{name}: only we refuse: {we_say}")
        else:
            tally["looser"] += 1
            self.assertTrue(any(s in they_say for s in LOOSER), f"{name}: only QEMU refuses: {they_say}")

    def run_all(self, image, *kinds):
        tally = collections.Counter()
        for kind in kinds:
            for name, content in kind():
                with self.subTest(name):
                    self.compare(name, content, tally)
        print(f"{sum(tally.values())} images:", dict(tally))

    def test_version_3(self):
        image = self.sound_image("cluster_size=65536")
        self.run_all(image, image.with_fields, image.with_entries, image.cut_short, image.with_extensions)

    def test_version_2_with_small_clusters(self):
        image = self.sound_image("cluster_size=512", "compat=0.10")
        self.run_all(image, image.with_fields, image.with_entries, image.cut_short)

    def test_extended_l2(self):
        image = self.sound_image("cluster_size=16384", "extended_l2=on")
        self.run_all(image, image.with_entries)


if __name__ == "__main__":
    qluks.main()
