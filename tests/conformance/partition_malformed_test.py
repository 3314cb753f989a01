# SPDX-License-Identifier: BSD-3-Clause
"""Malformed partition tables: each field of a sound table is set to edge values, with checksums that fit and without,
and disks end early.

What is served is what the sound disk has there, or what nbdkit's partition filter serves; logical partitions are
counted as Linux does, which the filter does not where a table is odd.  A refusal says what it is about, with a number,
and each disk costs at most a second of CPU time and 64 MiB."""

import collections
import os
import struct
import zlib

import qluks

SECTORS = 8192
SECTOR = 512
VALUES = [0, 1, 2, 5, 34, 64, 91, 93, 127, 129, 256, 513, 4096, SECTORS - 1, SECTORS, 8192 * 128, 1 << 31, (1 << 32) - 1]
WIDE = [1 << 32, 1 << 54, (1 << 55) - 1, 1 << 55, 1 << 63, (1 << 64) - 2, (1 << 64) - 1]
HEADER = {"header_size": (12, 4), "header_crc32": (16, 4), "my_lba": (24, 8), "alternate_lba": (32, 8),
          "first_usable_lba": (40, 8), "last_usable_lba": (48, 8), "partition_entry_lba": (72, 8),
          "number_of_partition_entries": (80, 4), "size_of_partition_entry": (84, 4),
          "partition_entry_array_crc32": (88, 4)}
ENTRY = {"starting_lba": (32, 8), "ending_lba": (40, 8), "type": (0, 8)}
MBR_ENTRY = {"boot_indicator": (0, 1), "os_type": (4, 1), "starting_lba": (8, 4), "size_in_lba": (12, 4)}

# A refusal: what it is about, and a number.
REFUSAL = (r"^dump_guest: [ -~]*(GPT header at byte \d+: |partition \d+: |MBR: the chain|there is no partition \d+: |"
           r"the MBR says that there is a GPT)[ -~]*$")
def edges(width):
    return [v for v in VALUES + (WIDE if width == 8 else []) if v < 1 << (8 * width)]


def patched(content, offset, width, value):
    changed = bytearray(content)
    changed[offset:offset + width] = value.to_bytes(width, "little")
    return changed


def by_linux(disk, number):
    """A logical partition as the kernel finds it; None if there is none on the disk."""
    def entries(sector):
        at = sector * SECTOR + 446
        return [struct.unpack_from("<4xB3xII", disk, at + 16 * i) for i in range(4)]

    extended = (5, 15, 0x85)
    found = []
    for kind, first, size in entries(0):
        ebr = first if kind in extended and size else None
        while ebr is not None and ebr < SECTORS and len(found) < 100:
            if disk[ebr * SECTOR + 510:ebr * SECTOR + 512] != b"\x55\xaa":
                break
            for i, (inner, start, length) in enumerate(entries(ebr)):
                inside = ebr + start >= first and ebr + start + length <= first + size
                if length and inner not in extended and (i < 2 or inside):
                    found.append((ebr + start, length))
            links = [start for inner, start, length in entries(ebr) if inner in extended and length]
            ebr = first + links[0] if links else None
    start, length = found[number - 5] if number - 5 < len(found) else (0, 0)
    return disk[start * SECTOR:(start + length) * SECTOR] if 0 < length and start + length <= SECTORS else None


class Malformed(qluks.TestCase):
    def sound_disk(self, script):
        path = self.write("sound", bytes(qluks.source_bytes(SECTORS * SECTOR)))
        with open(path, "r+b") as f:
            f.write(bytes(64 * SECTOR))
        qluks.run("sfdisk", "-q", path, stdin=script.encode())
        with open(path, "rb") as f:
            return f.read()

    def by_partition_filter(self, path, number):
        copy = self.path("filter.raw")
        if os.path.exists(copy):
            os.unlink(copy)
        done = qluks.run("nbdkit", "-U", "-", "-r", "--filter=partition", "file", path, f"partition={number}", "--run",
                         f'nbdcopy "$uri" {copy}', check=False)
        if done.returncode != 0:
            return None
        with open(copy, "rb") as f:
            return f.read()

    def compare(self, name, content, number, tally, expected):
        """`expected`: what is read if we read it; else it is asked of the filter."""
        path = self.write("malformed", content)
        ours, we_say = qluks.dump_bounded("--partition", number, path)
        if ours is None:
            tally["refused"] += 1
            self.assertRegex(we_say, REFUSAL)
        elif ours == expected:
            tally["the same as ever"] += 1
        else:
            tally["another partition"] += 1
            theirs = self.by_partition_filter(path, number) if number <= 4 else by_linux(content, number)
            if theirs is None:
                tally["of which the filter refuses"] += 1
            else:
                self.assert_same(ours, theirs)

    def run_all(self, number, expected, disks):
        tally = collections.Counter()
        for name, content in disks:
            with self.subTest(name):
                self.compare(name, content, number, tally, expected)
        print(f"{tally['refused'] + tally['the same as ever'] + tally['another partition']} disks:", dict(tally))
        return tally

    def gpt(self):
        return self.sound_disk("label: gpt\nstart=2048,size=64\nstart=4096,size=100\n"), 2, (4096, 100)

    def sealed(self, content):
        """With checksums that fit, in both copies, where that can be."""
        changed = bytearray(content)
        for lba in (1, SECTORS - 1):
            at = lba * SECTOR
            size, = struct.unpack_from("<I", changed, at + 12)
            entries, count, length = struct.unpack_from("<QII", changed, at + 72)
            array = changed[entries * SECTOR:entries * SECTOR + count * length]
            struct.pack_into("<I", changed, at + 88, zlib.crc32(array))
            struct.pack_into("<I", changed, at + 16, 0)
            struct.pack_into("<I", changed, at + 16, zlib.crc32(changed[at:at + min(size, SECTOR)]))
        return changed

    def test_one_copy_of_a_gpt(self):
        content, number, (start, size) = self.gpt()
        expected = content[start * SECTOR:(start + size) * SECTOR]

        def disks():
            for lba in (1, SECTORS - 1):
                for field, (offset, width) in HEADER.items():
                    for value in edges(width):
                        yield f"{field} of copy at {lba} = {value:#x}", patched(content, lba * SECTOR + offset, width, value)
            for lba in (2, SECTORS - 33):
                for field, (offset, width) in ENTRY.items():
                    yield f"{field} of entry at {lba}", patched(content, lba * SECTOR + 128 + offset, width, 77)

        tally = self.run_all(number, expected, disks())
        self.assertEqual(set(tally), {"the same as ever"})  # by the other copy

    def test_both_copies_of_a_gpt(self):
        content, number, (start, size) = self.gpt()
        expected = content[start * SECTOR:(start + size) * SECTOR]

        def disks():
            for field, (offset, width) in HEADER.items():
                if "crc32" in field:
                    continue
                for value in edges(width):
                    changed = content
                    for lba in (1, SECTORS - 1):
                        changed = patched(changed, lba * SECTOR + offset, width, value)
                    yield f"{field} = {value:#x}", self.sealed(changed) if value < 1 << 20 else changed
            for field, (offset, width) in ENTRY.items():
                for value in edges(width):
                    changed = content
                    for lba in (2, SECTORS - 33):
                        changed = patched(changed, lba * SECTOR + 128 + offset, width, value)
                    yield f"entry's {field} = {value:#x}", self.sealed(changed)

        self.run_all(number, expected, disks())

    def test_primary_partitions(self):
        content = self.sound_disk("label: dos\nstart=2048,size=64\nstart=4096,size=100\n")

        def disks():
            for field, (offset, width) in MBR_ENTRY.items():
                for value in edges(width) + ([5, 15, 0x83, 0x85, 0xEE] if width == 1 else []):
                    yield f"{field} = {value:#x}", patched(content, 446 + 16 + offset, width, value)

        self.run_all(2, content[4096 * SECTOR:4196 * SECTOR], disks())

    def test_logical_partitions(self):
        content = self.sound_disk("label: dos\nstart=2048,size=6000,type=5\nstart=2112,size=64\nstart=4096,size=100\n")
        start, = struct.unpack_from("<I", content, 2048 * SECTOR + 446 + 16 + 8)
        second = 2048 + start

        def disks():
            for at in (0, 2048, second):
                for entry in range(4):
                    for field, (offset, width) in MBR_ENTRY.items():
                        values = edges(width) if entry < 2 else [5, 100, SECTORS]
                        for value in (v for v in values if v < 1 << (8 * width)):
                            yield (f"{field} of entry {entry} at {at} = {value:#x}",
                                   patched(content, at * SECTOR + 446 + 16 * entry + offset, width, value))
            for at in (0, 2048, second):
                yield f"no signature at {at}", patched(content, at * SECTOR + 510, 2, 0)
            for link in (0, second - 2048, start + 1, SECTORS, (1 << 32) - 1):
                loop = patched(content, second * SECTOR + 446 + 16 + 4, 1, 5)
                loop = patched(loop, second * SECTOR + 446 + 16 + 12, 4, 1)
                yield f"third link to {link}", patched(loop, second * SECTOR + 446 + 16 + 8, 4, link)

        self.run_all(6, content[4096 * SECTOR:4196 * SECTOR], disks())

    def test_disks_that_end_early(self):
        for script in ("label: gpt\nstart=2048,size=64\n", "label: dos\nstart=2048,size=64\n"):
            content = self.sound_disk(script)
            sizes = {0, 1, 511, 512, 513, 1023, 1024, 4096, 4607, 4608, 34 * SECTOR, 2112 * SECTOR - 1, 2112 * SECTOR}
            tally = self.run_all(1, content[2048 * SECTOR:2112 * SECTOR],
                                 ((f"{size} bytes", content[:size]) for size in sorted(sizes)))
            self.assertEqual(tally["the same as ever"], 1)


if __name__ == "__main__":
    qluks.requires("sfdisk")
    qluks.main()
