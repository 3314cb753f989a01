# SPDX-License-Identifier: BSD-3-Clause
"""Partitions of disks that sfdisk has made, compared with nbdkit's own partition filter; and layers in any order."""

import os
import re
import struct
import subprocess
import zlib

import qluks

PASS = f"qluks-passphrase={qluks.SECRET}"
SECTOR = 512
GPT = "label: gpt\nstart=2048,size=4096\nstart=8192,size=16384\n-\nstart=30000,size=1001\n"
MBR = "label: dos\nstart=63,size=1000\nstart=2048,size=4096\nstart=8192,size=10000\n"
LOGICAL = ("label: dos\nstart=63,size=1000\nstart=2048,size=30000,type=5\nstart=2112,size=4096\nstart=8192,size=6000\n"
           "start=16384,size=1001\n")


def content_of(path):
    with open(path, "rb") as f:
        return f.read()


def rows(dump):
    """What `sfdisk --dump` lists: {number: (start, size, type)}."""
    found = {}
    for line in dump.splitlines():
        if m := re.match(r"\S*?(\d+) : start= *(\d+), size= *(\d+), type=([^,]+)", line):
            found[int(m[1])] = (int(m[2]), int(m[3]), m[4])
    return found


def gpt_of_4096(sectors, partitions):
    """Both copies, for a disk whose sectors have 4096 bytes: sfdisk makes them on such disks only."""
    def copy(lba, other, entries_lba, entries):
        header = struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, lba, other, 6, sectors - 6, bytes(16),
                             entries_lba, 128, 128, zlib.crc32(entries))
        return header[:16] + struct.pack("<I", zlib.crc32(header)) + header[20:]

    entries = bytearray(128 * 128)
    for number, (start, size) in partitions.items():
        struct.pack_into("<16s16sQQ", entries, 128 * (number - 1), b"\x11" * 16, bytes([number] * 16), start,
                         start + size - 1)
    mbr = bytearray(512)
    struct.pack_into("<B3sB3sII", mbr, 446, 0, b"", 0xEE, b"", 1, sectors - 1)
    mbr[510:] = b"\x55\xaa"
    return {0: mbr, 1: copy(1, sectors - 1, 2, entries), 2: entries, sectors - 5: entries,
            sectors - 1: copy(sectors - 1, 1, sectors - 5, entries)}


class TestCase(qluks.TestCase):
    def disk(self, name, script, size=32 * qluks.MIB):
        """A disk of bytes that differ everywhere, partitioned."""
        path = self.write(name, qluks.source_bytes(size))
        with open(path, "r+b") as f:
            f.write(bytes(qluks.MIB))
        qluks.run("sfdisk", "-q", path, stdin=script.encode())
        return path

    def partitions(self, path):
        return rows(qluks.run("sfdisk", "--dump", path).stdout.decode())

    def as_qcow2(self, path):
        qluks.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", path, path + ".qcow2")
        return path + ".qcow2"

    def put(self, disk, volume, at):
        with open(volume, "rb") as source, open(disk, "r+b") as f:
            f.seek(at)
            f.write(source.read())
        return disk

    def refused(self, pattern, *args):
        server = self.server(*args)
        with self.assertRaises(qluks.nbd.Error):
            server.connect()
        self.assertRegex(server.errors()[0], pattern)
        return server


class Tables(TestCase):
    def by_partition_filter(self, path, number, *more):
        copy = self.path("filter.raw")
        qluks.run("nbdkit", "-U", "-", "-r", "--filter=partition", "file", path, f"partition={number}", *more, "--run",
                  f'nbdcopy "$uri" {copy}')
        return content_of(copy)

    def assert_same_partitions(self, disk, numbers):
        self.assertEqual(list(self.partitions(disk)), numbers)
        for number, (_, size, kind) in self.partitions(disk).items():
            with self.subTest(number=number):
                if kind == "5":
                    self.refused("extended partition: those inside of it count from 5", "file", disk,
                                 f"qluks-layers=partition:{number}")
                    continue
                expected = self.by_partition_filter(disk, number)
                self.assertEqual(len(expected), size * SECTOR)
                self.assert_serves(expected, "file", disk, f"qluks-layers=partition:{number}")
        self.assert_serves(expected, "file", self.as_qcow2(disk), f"qluks-layers=qcow2,partition:{number}")

    def test_gpt(self):
        self.assert_same_partitions(self.disk("disk", GPT.replace("-\n", "")), [1, 2, 3])

    def test_mbr(self):
        self.assert_same_partitions(self.disk("disk", MBR), [1, 2, 3])

    def test_logical_partitions(self):
        self.assert_same_partitions(self.disk("disk", LOGICAL), [1, 2, 5, 6, 7])

    def test_numbers_with_gaps(self):
        disk = self.disk("disk", "label: gpt\n2 : start=2048,size=100\n9 : start=3000,size=100\n")
        self.assert_same_partitions(disk, [2, 9])
        self.refused("there is no partition 3: the GPT has 2, 9", "file", disk, "qluks-layers=partition:3")

    def test_deleted_logical_partitions(self):
        disk = self.disk("disk", LOGICAL)
        qluks.run("sfdisk", "-q", "--delete", disk, "6")
        self.assert_same_partitions(disk, [1, 2, 5, 6])

    def test_either_copy_of_a_gpt(self):
        disk = self.disk("disk", GPT.replace("-\n", ""))
        expected = self.by_partition_filter(disk, 2)
        with open(disk, "r+b") as f:
            f.seek(SECTOR + 40)
            f.write(b"damage")
        server = self.assert_serves(expected, "file", disk, "qluks-layers=partition:2")
        self.assertRegex(server.errors()[0], r"warning: the first GPT .* cannot be used.*header_crc32 0x")
        with open(disk, "r+b") as f:
            f.seek(-SECTOR, os.SEEK_END)
            f.write(bytes(SECTOR))
        self.refused("GPT header at byte 512: header_crc32 0x", "file", disk, "qluks-layers=partition:2")

    def test_sectors_of_4096_bytes(self):
        content = qluks.source_bytes(8 * qluks.MIB)
        disk = self.write("disk", content)
        with open(disk, "r+b") as f:
            for lba, sector in gpt_of_4096(2048, {1: (6, 10), 4: (100, 1000)}).items():
                f.seek(lba * 4096)
                f.write(sector)
        for number, start, size in ((1, 6, 10), (4, 100, 1000)):
            expected = content[start * 4096:(start + size) * 4096]
            if b"partition-sectorsize" in qluks.run("nbdkit", "--filter=partition", "null", "--help").stdout:
                self.assert_same(self.by_partition_filter(disk, number, "partition-sectorsize=4k"), expected)
            else:
                print("the partition filter of this nbdkit knows no sectors of 4096 bytes: compared with the source only")
            self.assert_serves(expected, "file", disk, f"qluks-layers=partition:{number}")

    def test_partition_behind_the_disk(self):
        disk = self.disk("disk", MBR)
        os.truncate(disk, 10 * qluks.MIB // 2)
        self.refused(r"^partition 3: it ends at byte 9314304, behind the disk, which has 5242880 bytes", "file", disk,
                     "qluks-layers=partition:3")
        with self.server("file", disk, "qluks-layers=partition:2").connect() as h:
            self.assertEqual(h.get_size(), 4096 * SECTOR)

    def test_disk_without_a_table(self):
        self.refused("there is no partition 1: the disk has no partition table", "memory", "1M",
                     "qluks-layers=partition:1")


class Layers(TestCase):
    content = qluks.source_bytes(3 * qluks.MIB)

    def in_partition(self, volume, name="disk", script="label: gpt\n3 : start=2048,size={size}\n"):
        """A disk with that file as its partition."""
        size = -(-os.path.getsize(volume) // SECTOR)
        disk = self.disk(name, script.format(size=size), size * SECTOR + 3 * qluks.MIB)
        return self.put(disk, volume, qluks.MIB)

    def test_luks_in_a_partition(self):
        disk = self.in_partition(self.luks2("volume", self.content))
        cases = ((disk, "", "partition 3, LUKS2 aes-xts-plain64 512-bit"),
                 (self.as_qcow2(disk), "qcow2,", "qcow2 v3, partition 3, LUKS2 aes-xts-plain64 512-bit"))
        for image, below, description in cases:
            server = self.assert_serves(self.content, "file", image, PASS, f"qluks-layers={below}partition:3,luks")
            self.assert_describes(description, server)

    def test_every_order(self):
        luks = self.luks1("luks", self.content)
        inner = self.qcow2("inner", self.content)
        qcow2_in_luks = self.luks1("outer", content_of(inner))
        twice = self.luks1("twice", content_of(luks))
        disk = self.in_partition(luks, "disk")
        cases = [("luks,qcow2", qcow2_in_luks),
                 ("luks,luks", twice),
                 ("partition:3,luks,luks", self.in_partition(twice, "a")),
                 ("partition:3,qcow2", self.in_partition(inner, "b")),
                 ("qcow2,partition:3,luks,qcow2", self.as_qcow2(self.in_partition(qcow2_in_luks, "c"))),
                 ("luks,partition:3,luks", self.luks1("d", content_of(disk))),
                 ("partition:3,partition:3,luks", self.in_partition(disk, "e"))]
        for layers, image in cases:
            with self.subTest(layers=layers):
                self.assert_serves(self.content, "file", image, PASS, f"qluks-layers={layers}")

    def test_eight_layers(self):
        image = self.qcow2("0", self.content)
        for i in range(1, 8):
            image = self.qcow2(str(i), content_of(image))
        self.assert_serves(self.content, "file", image, "qluks-layers=" + ",".join(["qcow2"] * 8))

    def test_every_secret_is_tried_on_each_volume(self):
        inner = self.luks1("inner", self.content)
        other = self.write("other", b"another secret")
        outer = self.luks1("outer", content_of(inner))
        qluks.run("cryptsetup", "luksChangeKey", "-q", *qluks.CHEAP_PBKDF2, "--key-file", self.secret_file(), outer, other)
        self.assert_serves(self.content, "file", outer, PASS, f"qluks-key-file={other}", "qluks-layers=luks,luks")
        server = self.refused(r"^layer 2 \(luks\): ", "file", outer, f"qluks-key-file={other}", "qluks-layers=luks,luks")
        self.assertRegex(server.errors()[0], "no key slot opens")

    def test_detached_header(self):
        header = self.path("header")
        disk = self.in_partition(self.luks2("payload", self.content, header=header))
        self.assert_serves(self.content, "file", self.as_qcow2(disk), PASS, f"qluks-header={header}",
                           "qluks-layers=qcow2,partition:3,luks")

    def test_snapshot(self):
        image = self.as_qcow2(self.in_partition(self.luks2("volume", self.content)))
        qluks.run("qemu-img", "snapshot", "-c", "before", image)
        qluks.run("qemu-io", "-c", f"write -P 0 {qluks.MIB} {qluks.MIB}", image)
        layers = "qluks-layers=qcow2,partition:3,luks"
        self.refused("LUKS", "file", image, PASS, layers)
        self.assert_serves(self.content, "file", image, PASS, layers, "qluks-snapshot=before")

    def test_parameters_of_a_qcow2_are_for_the_lowest(self):
        base = self.path("base.qcow2")
        upper = self.overlay("upper", "/nonexistent", len(self.content))
        disk = self.in_partition(upper)
        qluks.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, base)
        top = self.overlay("top", base, os.path.getsize(disk), "qcow2")
        self.refused(r"^layer 3 \(qcow2\): qcow2 header: the image has a backing file .* only the lowest qcow2 layer",
                     "file", top, f"qluks-backing={base}", "qluks-layers=qcow2,partition:3,qcow2")

    def test_extents_and_single_reads(self):
        disk = self.in_partition(self.qcow2_luks("inner", self.content))
        image = self.as_qcow2(disk)
        with self.server("file", image, "qluks-layers=qcow2,partition:3").connect(extents=True) as h, \
                self.server("file", image, "qluks-layers=qcow2").connect(extents=True) as whole:
            shifted = [(at + qluks.MIB, n, kind) for at, n, kind in qluks.extents(h, 0, h.get_size())]
            self.assertEqual(shifted, qluks.extents(whole, qluks.MIB, h.get_size()))
        volume = self.in_partition(self.luks2("volume", os.urandom(3 * qluks.MIB)), "volume-disk")
        for image, layers in ((volume, "partition:3,luks"), (self.as_qcow2(volume), "qcow2,partition:3,luks")):
            server = self.server("file", image, PASS, f"qluks-layers={layers}", options=["-D", "qluks.next=1"])
            with server.connect(extents=True) as h:
                h.pread(512, 2 * qluks.MIB)  # the tables are in the cache now
                mark = len(server.lines("qluks: next"))
                h.pread(qluks.MIB, qluks.MIB)
                requests = server.lines("qluks: next")[mark:]
                self.assertEqual(len(requests), 1, requests)
                self.assertIn(f"length={qluks.MIB}", requests[0])
                if h.can_cache():
                    h.cache(qluks.MIB, 0)
                self.assertEqual({kind for _, _, kind in qluks.extents(h, 0, h.get_size())} & {"zero", "hole,zero"}, set())

    def test_writes_go_through(self):
        disk = self.in_partition(self.luks2("volume", self.content))
        changed = self.content[:12345] + b"x" * 1000 + self.content[13345:]
        for image, below in ((disk, ""), (self.as_qcow2(disk), "qcow2,")):
            args = ("file", image, PASS, f"qluks-layers={below}partition:3,luks")
            server = self.server(*args)
            with server.connect() as h:
                h.pwrite(b"x" * 1000, 12345, qluks.nbd.CMD_FLAG_FUA)
            server.stop()
            self.assert_serves(changed, *args)
        qluks.run("qemu-img", "check", "-f", "qcow2", image)
        self.assertEqual(list(self.partitions(disk)), [3])


class Messages(TestCase):
    def two_volumes(self):
        """LUKS in the partitions 2 and 5 of an MBR, a third partition without."""
        volume = self.luks2("volume", qluks.source_bytes(qluks.MIB))
        size = os.path.getsize(volume)
        disk = self.disk("disk", f"label: dos\nstart=63,size=1000\nstart=2048,size={size // SECTOR}\n"
                         f"start={2048 + size // SECTOR},type=5\nstart={4096 + size // SECTOR},size={size // SECTOR}\n",
                         2 * size + 4 * qluks.MIB)
        self.put(disk, volume, 2048 * SECTOR)
        return self.put(disk, volume, 4096 * SECTOR + size)

    def test_refusal_says_what_to_type(self):
        disk = self.two_volumes()
        server = self.refused("^the image is neither qcow2 nor LUKS, but partitions 2 and 5 of its MBR hold LUKS: to open "
                              "one, say qluks-layers=partition:2,luks or qluks-layers=partition:5,luks$", "file", disk, PASS)
        for layers in re.findall(r"qluks-layers=\S+", server.errors()[0]):
            self.server("file", disk, PASS, layers).connect().h.shutdown()

    def test_qcow2_that_is_served_as_it_is_warns_once(self):
        disk = self.as_qcow2(self.two_volumes())
        server = self.server("file", disk, PASS)
        for _ in range(3):
            with server.connect() as h:
                self.assertEqual(h.get_export_description(), "qcow2 v3")
        warnings = [e for e in server.errors() if "hold LUKS" in e]
        self.assertEqual(warnings, ['warning: export "": a secret is given, but nothing is decrypted: partitions 2 and 5 of '
                                    "its MBR hold LUKS: to open one, say qluks-layers=qcow2,partition:2,luks or "
                                    "qluks-layers=qcow2,partition:5,luks"])
        for args in ((), (PASS, "qluks-layers=qcow2")):  # as it was meant
            server = self.server("file", disk, *args)
            server.connect().h.shutdown()
            self.assertEqual([e for e in server.errors() if "LUKS" in e], [])

    def test_disk_without_luks(self):
        disk = self.disk("disk", MBR)
        self.refused("^the image is neither qcow2 nor LUKS, and none of the 3 partitions of its MBR holds LUKS: .*"
                     "qluks-layers=raw", "file", disk, PASS)
        self.refused("^the image is neither qcow2 nor LUKS: .*qluks-layers=raw", "memory", "1M", PASS)

    def test_few_partitions_are_looked_at(self):
        script = "label: gpt\ntable-length: 512\n" + "".join(f"start={2048 + i},size=1\n" for i in range(300))
        disk = self.disk("disk", script)
        server = self.server("file", disk, PASS, options=["-D", "qluks.next=1"])
        with self.assertRaises(qluks.nbd.Error):
            server.connect()
        self.assertIn("none of the 300 partitions of its GPT holds LUKS (not all were looked at)", server.errors()[0])
        partitions = server.lines("qluks: next read.*length=8$")
        self.assertLess(len(partitions), 2 * 150)  # libnbd may ask twice


class Twice(TestCase):
    def test_filter_twice_is_refused_at_start(self):
        image = self.qcow2("image.qcow2", qluks.source_bytes(qluks.MIB))
        for args, filters, layers in ((["partition=3"], ["partition", qluks.FILTER], "qcow2,partition:3,luks"),
                                      ([], ["partition", qluks.FILTER], "qcow2,partition:N,luks"),
                                      ([], [qluks.FILTER], "qcow2,partition:N,luks")):
            errors = self.refusal("file", image, PASS, *args, filters=filters)
            self.assertEqual(len(errors), 1)
            self.assertIn(f"say qluks-layers={layers} ", errors[0])

    def test_partition_filter_above_is_no_second_one(self):
        disk = self.disk("disk", MBR)
        copy = self.path("copy.raw")
        command = ["nbdkit", "-U", "-", "-r", "--filter=partition", f"--filter={qluks.FILTER}", "file", self.as_qcow2(disk),
                   "partition=2", "--run", f'nbdcopy "$uri" {copy}']
        subprocess.run(command, check=True, env=qluks.environment())
        self.assertEqual(os.path.getsize(copy), 4096 * SECTOR)


if __name__ == "__main__":
    qluks.requires("sfdisk")
    qluks.main()
