# SPDX-License-Identifier: BSD-3-Clause
"""Malformed images: each field of a sound image is set to edge values, structures lie on one another, files end early,
compressed clusters are bombs; and what we say is compared with QEMU.

Never looser: what QEMU refuses is refused, but for the exceptions that are listed with their reasons.  What both read
is the same.  What only we refuse has a reason in the list too.  Each image costs at most a second of CPU time and
64 MiB, and a refusal says what is wrong with which value."""

import collections
import os
import struct
import zlib

import qluks

HEAD = 1 << 20

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
# Images that only QEMU refuses, without a word of its own.
LOOSER_NAMES = [
    # QEMU's decoder may be asked for a window of 128 MiB, and gives up above.  Ours uses the cluster itself.
    *(f"window 2^{log}" for log in range(28, 32)),
]
# What we say where only we refuse.
STRICTER = [
    "give it with qluks-backing=",  # nothing that an image names is opened
    "is the file cut short?",  # QEMU takes a header or table that is not there for zeroes, and what it mapped for holes
]
# A refusal: one line, what it is about, and a number or a name in quotes.
REFUSAL = (r"^dump_guest: [ -~]*(qcow2 header: |qcow2 snapshot: |L1 table at |guest offset 0x)"
           r"[ -~]*([0-9]|\"|without an encryption extension)[ -~]*$")


def zstd_block(size, last, kind=1, content=b"\0"):
    """A block that repeats one byte `size` times; kind 0 has all its bytes, 3 does not exist."""
    return (last | kind << 1 | size << 3).to_bytes(3, "little") + content


def zstd_frame(total, window_log=17, content_size=None, flags=0, sizes=None):
    """Of `total` bytes in blocks as large as they may be, or of blocks of those sizes."""
    step = min(1 << window_log, 128 * 1024)
    sizes = sizes or [step] * (total // step) + [total % step] * (total % step != 0)
    sized = content_size is not None
    head = struct.pack("<IBB", 0xFD2FB528, flags | (2 << 6 if sized else 0), window_log - 10 << 3)
    head += struct.pack("<I", content_size) if sized else b""
    return head + b"".join(zstd_block(n, i == len(sizes) - 1) for i, n in enumerate(sizes))


def zstd_streams(cluster):
    """Streams that are, or are not, one cluster."""
    for log in range(10, 32):
        yield f"window 2^{log}", zstd_frame(cluster, log)
        yield f"window 2^{log}, size known", zstd_frame(cluster, log, cluster)
    whole, half = zstd_frame(cluster), zstd_frame(cluster // 2)
    short = whole[:6]  # without its blocks
    skippable = struct.pack("<II", 0x184D2A50, 16) + bytes(16)
    yield "two frames", half + half
    yield "three frames", half + half + half
    yield "skippable frame in front", skippable + whole
    yield "skippable frames only", skippable * 1000
    yield "skippable frame of 4 GiB", struct.pack("<II", 0x184D2A5F, 0xFFFFFFFF) + whole
    yield "frame and junk", whole + b"\xff" * 1000
    yield "empty frames in front", zstd_frame(0, sizes=[0]) * 5000 + whole
    yield "empty blocks in front", zstd_frame(0, sizes=[0] * 10000 + [min(cluster, 128 * 1024)])
    yield "endless", zstd_frame(20000 * 128 * 1024)
    yield "longer by a byte", zstd_frame(cluster + 1)
    yield "shorter by a byte", zstd_frame(cluster - 1)
    yield "no end of frame", whole[:-4] + zstd_block(min(cluster, 128 * 1024), 0)
    yield "size too small", zstd_frame(cluster, content_size=1)
    yield "size too large", zstd_frame(cluster, content_size=0xFFFFFFFF)
    yield "reserved bit", zstd_frame(cluster, flags=8)
    yield "dictionary", zstd_frame(cluster, flags=1)
    yield "checksum missing", zstd_frame(cluster, flags=4)
    yield "checksum wrong", zstd_frame(cluster, flags=4) + b"abcd"
    yield "reserved block", short + zstd_block(cluster // 16, 1, kind=3)
    yield "block of 2 MiB", short + zstd_block((1 << 21) - 1, 1)
    yield "not compressed at all", bytes(range(256)) * 16
    for n in range(min(len(whole), 40)):
        yield f"cut at {n}", whole[:n]


def deflate_streams(cluster):
    def deflate(content, window=12, flush=zlib.Z_FINISH, times=1):
        stream = zlib.compressobj(9, zlib.DEFLATED, -window)
        return b"".join(stream.compress(content) for _ in range(times)) + stream.flush(flush)

    content = bytes(i * i >> 8 & 0xFF for i in range(cluster))
    whole = deflate(content)
    for window in range(9, 16):
        yield f"window 2^{window}", deflate(content, window)
    yield "bomb of 100 MiB", deflate(bytes(1 << 20), times=100)
    yield "endless empty blocks", b"\0\0\0\xff\xff" * 20000
    yield "no end", deflate(content, flush=zlib.Z_SYNC_FLUSH)
    yield "stream and junk", whole + b"\xff" * 1000
    yield "longer by a byte", deflate(content + b"x")
    yield "shorter by a byte", deflate(content[:-1])
    yield "with a header", zlib.compress(content)
    yield "reserved block", b"\x07" * 100
    yield "not compressed at all", bytes(range(256)) * 16
    for n in range(0, len(whole), max(1, len(whole) // 40)):
        yield f"cut at {n}", whole[:n]


class Image:
    """A sound image, and where its tables are."""

    def __init__(self, content):
        self.content = content
        (self.version,) = struct.unpack_from(">I", content, 4)
        (self.cluster_bits,) = struct.unpack_from(">I", content, 20)
        (self.l1,) = struct.unpack_from(">Q", content, 40)
        (entry,) = struct.unpack_from(">Q", content, self.l1)
        self.l2 = entry & 0x00FFFFFFFFFFFE00

        (self.refcounts,) = struct.unpack_from(">Q", content, 48)
        (self.refcount_block,) = struct.unpack_from(">Q", content, self.refcounts)
        self.data = struct.unpack_from(">Q", content, self.l2)[0] & 0x00FFFFFFFFFFFE00

    def with_value(self, offset, width, value, content=None):
        changed = bytearray(content or self.content)
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

    def with_feature_bits(self):
        """Each bit of the three words alone."""
        for name in ("incompatible_features", "compatible_features", "autoclear_features"):
            offset, width = FIELDS_3[name]
            for bit in range(64):
                yield f"{name} bit {bit}", self.with_value(offset, width, 1 << bit)

    def cross_linked(self):
        """Each structure lies where another one is."""
        targets = {"header": 0, "L1": self.l1, "L2": self.l2, "refcount table": self.refcounts,
                   "refcount block": self.refcount_block, "data": self.data}
        pointers = {"L1": 40, "refcount table": 48, "snapshot table": 64, "L2": self.l1, "data": self.l2,
                    "refcount block": self.refcounts}
        for name, at in pointers.items():
            for target, offset in targets.items():
                copied = 1 << 63 if at >= 112 and name != "refcount block" else 0
                changed = self.with_value(at, 8, copied | offset)
                yield f"{name} on {target}", changed
                if name == "snapshot table":
                    yield f"{name} with a snapshot on {target}", self.with_value(60, 4, 1, changed)

    def with_stream(self, stream):
        """The first cluster is compressed."""
        sectors = max(0, (len(stream) + 511) // 512 - 1)
        sector_bits = self.cluster_bits - 8
        sectors = min(sectors, (1 << sector_bits) - 1)
        entry = 1 << 62 | sectors << (62 - sector_bits) | len(self.content)
        return self.with_value(self.l2, 8, entry) + stream + bytes(-len(stream) % 512)

    def with_streams(self, streams):
        return lambda: ((name, self.with_stream(stream)) for name, stream in streams(1 << self.cluster_bits))

    def cut_short(self):
        cluster = 1 << self.cluster_bits
        structures = [0, self.l1, self.l2, self.refcounts, self.refcount_block, self.data]
        near = {at + more for at in structures for more in (0, 1, 7, 8, 9, 16, 511, 512, cluster - 1)}
        for size in near | {71, 72, 100, 103, 104, 111, 112, 113, len(self.content) - cluster, len(self.content) - 1}:
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
        return qluks.dump_bounded("--bytes", HEAD, path)

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
            self.assertRegex(we_say, REFUSAL)
        elif ours is None:
            tally["stricter"] += 1
            self.assertTrue(any(s in we_say for s in STRICTER), f"{name}: only we refuse: {we_say}")
        else:
            tally["looser"] += 1
            self.assertTrue(name in LOOSER_NAMES or any(s in they_say for s in LOOSER),
                            f"{name}: only QEMU refuses: {they_say}")

    def run_all(self, image, *kinds):
        tally = collections.Counter()
        for kind in kinds:
            for name, content in kind():
                with self.subTest(name):
                    self.compare(name, content, tally)
        print(f"{sum(tally.values())} images:", dict(tally))

    def test_version_3(self):
        image = self.sound_image("cluster_size=65536")
        self.run_all(image, image.with_fields, image.with_entries, image.cut_short, image.with_extensions,
                     image.with_feature_bits, image.cross_linked)

    def test_version_2_with_small_clusters(self):
        image = self.sound_image("cluster_size=512", "compat=0.10")
        self.run_all(image, image.with_fields, image.with_entries, image.cut_short, image.cross_linked)

    def test_extended_l2(self):
        image = self.sound_image("cluster_size=16384", "extended_l2=on")
        self.run_all(image, image.with_entries, image.cut_short, image.cross_linked)

    def test_deflate_bombs(self):
        for cluster in ("cluster_size=512", "cluster_size=65536"):
            image = self.sound_image(cluster)
            self.run_all(image, image.with_streams(deflate_streams))

    def test_zstd_bombs(self):
        for cluster in ("cluster_size=1024", "cluster_size=65536", "cluster_size=2M"):
            image = self.sound_image(cluster, "compression_type=zstd")
            self.run_all(image, image.with_streams(zstd_streams))


if __name__ == "__main__":
    qluks.main()
