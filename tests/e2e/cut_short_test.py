# SPDX-License-Identifier: BSD-3-Clause
"""Bytes that are not there: files that were cut short before, as by an interrupted download, or while they are in use.

What is lost is an error that says so, or, in a plain image and as in QEMU, zeroes with a warning; it is never noise, and
never a hole that a client would not even read."""

import os
import random
import re
import struct

import qluks

PASS = f"qluks-passphrase={qluks.SECRET}"
MIB = qluks.MIB
CUT = r"[0-9]+ bytes at offset [0-9]+ go past the end, which is at [0-9]+: is the file cut short\?"


def copy_one_by_one(server, path):
    """A client that gives up with requests on their way ends nbdkit 1.32 (an assertion of its own)."""
    return qluks.run("nbdcopy", "--synchronous", server.uri(), path, check=False)


class Downloads(qluks.TestCase):
    def serve_cut(self, image, end, *args):
        cut = self.path("cut")
        with open(image, "rb") as whole, open(cut, "wb") as f:
            f.write(whole.read(end))
        return self.server("file", cut, *args)

    def refusal_of_cut(self, image, end, *args):
        server = self.serve_cut(image, end, *args)
        with self.assertRaises(qluks.nbd.Error):
            server.connect()
        return server.errors()[-1]

    def assert_copy_fails(self, server):
        self.assertNotEqual(copy_one_by_one(server, self.path("copy.raw")).returncode, 0)

    def test_encrypted_qcow2(self):
        content = os.urandom(4 * MIB + 1536)
        image = self.qcow2_luks("image.qcow2", content)
        size = os.path.getsize(image)
        # The last cluster is there in whole, although the disk ends in its fourth sector.
        self.assert_serves(content, "file", image, PASS)
        with self.serve_cut(image, size - 65536 + 1536, PASS).connect() as h:
            self.assert_same(qluks.read_all(h), content)
        for lost in (65536 - 1024, 65536, 65536 + 512, MIB):
            server = self.serve_cut(image, size - lost, PASS)
            with server.connect() as h:
                self.assert_same(bytes(h.pread(MIB, 0)), content[:MIB])
                with self.assertRaises(qluks.nbd.Error) as e:
                    qluks.read_all(h, 65536)
                self.assertEqual(e.exception.errno, "EIO")
            self.assertRegex(server.errors()[-1], "^guest offset 0x[0-9a-f]+: encrypted cluster: " + CUT)
            self.assert_copy_fails(server)

    def test_each_sector_of_an_encrypted_cluster_that_is_cut(self):
        content = os.urandom(MIB)
        image = self.qcow2_luks("image.qcow2", content)
        with self.serve_cut(image, os.path.getsize(image) - 32768, PASS).connect() as h:
            for at in range(MIB - 65536, MIB, 512):
                if at < MIB - 32768:
                    self.assert_same(bytes(h.pread(512, at)), content[at:at + 512])
                    continue
                with self.assertRaises(qluks.nbd.Error):
                    h.pread(512, at)

    def test_encrypted_qcow2_without_its_header(self):
        image = self.qcow2_luks("image.qcow2", os.urandom(MIB))
        with open(image, "rb") as f:
            head = f.read(65536)
        at = head.index(struct.pack(">I", 0x0537BE77)) + 8
        (luks_header,) = struct.unpack_from(">Q", head, at)
        self.assertRegex(self.refusal_of_cut(image, luks_header, PASS), "encryption header: " + CUT)
        self.assertRegex(self.refusal_of_cut(image, luks_header + 100, PASS), CUT)
        self.assertRegex(self.refusal_of_cut(image, luks_header + 8192, PASS),
                         "key material of key slot 0: .*" + CUT)

    def test_plain_qcow2_reads_as_in_qemu_with_one_warning(self):
        content = os.urandom(2 * MIB)
        image = self.qcow2("image.qcow2", content)
        lost = 5 * 65536 - 1000
        server = self.serve_cut(image, os.path.getsize(image) - lost)
        with server.connect() as h:
            for _ in range(3):
                got = qluks.read_all(h, 4096)
        raw = self.path("expected.raw")
        qluks.run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", self.path("cut"), raw)
        with open(raw, "rb") as f:
            self.assert_same(got, f.read())
        warnings = [line for line in server.errors() if "cut short" in line]
        self.assertEqual(len(warnings), 1, warnings)
        self.assertRegex(warnings[0], "^warning: qcow2: guest offset 0x[0-9a-f]+: " + CUT)

    def test_tables(self):
        """An L1 table behind the end, up to where an offset may point, of the disk and of its backing file."""
        image = self.qcow2("image.qcow2", os.urandom(MIB))
        with open(image, "rb") as f:
            sound = f.read()
        overlay = self.overlay("top.qcow2", "image.qcow2", MIB, "qcow2")
        for offset in (len(sound) + 65535 & ~65535, 1 << 40, (1 << 63) - 65536):
            self.write("image.qcow2", sound[:40] + struct.pack(">Q", offset) + sound[48:])
            for args in (("file", image), ("file", overlay, f"qluks-backing={image}")):
                server = self.server(*args)
                with self.assertRaises(qluks.nbd.Error):
                    server.connect()
                self.assertRegex(server.errors()[-1], f"L1 table at {offset:#x}: " + CUT)

    def test_backing_file_of_which_tables_are_lost(self):
        base = self.qcow2("base.qcow2", os.urandom(MIB))
        overlay = self.overlay("top.qcow2", base, MIB, "qcow2")
        with open(base, "rb") as f:
            (l1,) = struct.unpack_from(">Q", f.read(48), 40)
            f.seek(l1)
            l2 = struct.unpack(">Q", f.read(8))[0] & 0x00FFFFFFFFFFFE00
        os.truncate(base, l2 + 8 * 8)
        server = self.server("file", overlay, f"qluks-backing={base}")
        self.assert_copy_fails(server)

    def test_luks_in_a_qcow2(self):
        """What a plain image may read as zeroes becomes noise when it is decrypted."""
        content = os.urandom(MIB)
        image = self.path("outer.qcow2")
        qluks.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", self.luks1("inner.luks", content), image)
        server = self.serve_cut(image, os.path.getsize(image) - 65536, PASS)
        self.assert_copy_fails(server)
        self.assertTrue(any(re.search(CUT, line) for line in server.errors()), server.errors())

    def test_luks(self):
        for name, image, end in (("luks1", self.luks1("1.luks", bytes(MIB)), 600),
                                 ("luks1", self.path("1.luks"), 100000),
                                 ("luks2", self.luks2("2.luks", bytes(MIB)), 20000),
                                 ("luks2", self.path("2.luks"), 1 << 20)):
            with self.subTest(name=name, end=end):
                said = self.refusal_of_cut(image, end, PASS)
                self.assertIn("is the file cut short?", said)
                self.assertIn(str(end // 512 if end == 100000 else end), said)


class InUse(qluks.TestCase):
    """A client is told of no hole where there is nothing any more: it would copy zeroes without a read."""

    content = os.urandom(8 * MIB)

    def cut_under(self, server, changed):
        copy = self.path("copy.raw")
        qluks.run("nbdcopy", server.uri(), copy)
        with open(copy, "rb") as f:
            self.assert_same(f.read(), self.content)
        with server.connect(extents=True) as h:
            os.truncate(changed, 3 * MIB)
            for at in (0, 2 * MIB, 3 * MIB, 7 * MIB):
                try:
                    told = qluks.extents(h, at, len(self.content) - at)
                except qluks.nbd.Error:
                    continue
                for start, length, kind in told:
                    self.assertTrue(kind == "data" or start + length <= 3 * MIB, told)

    def assert_copy_fails(self, server, changed):
        self.cut_under(server, changed)
        self.assertNotEqual(copy_one_by_one(server, self.path("copy.raw")).returncode, 0)

    def test_backing_file(self):
        base = self.write("base.raw", self.content)
        top = self.overlay("top.qcow2", base, len(self.content))
        self.assert_copy_fails(self.server("file", top, f"qluks-backing={base}"), base)

    def test_backing_file_on_a_server(self):
        base = self.write("base.raw", self.content)
        top = self.overlay("top.qcow2", base, len(self.content))
        remote = self.server("file", base, "qluks-layers=raw")
        self.assert_copy_fails(self.server("file", top, f"qluks-backing={remote.uri()}"), base)

    def test_container_as_it_is(self):
        image = self.write("image.raw", self.content)
        self.cut_under(self.server("file", image, "qluks-layers=raw"), image)


class Written(qluks.TestCase):
    """Another program cuts or changes the container while it is written.  What fails is told, and nobody else is harmed."""

    SIZE = 4 * MIB
    REQUESTS = 60

    def image(self, kind):
        content = qluks.source_bytes(self.SIZE)
        path = self.path(f"exports/{kind}")
        if kind == "luks1":
            os.rename(self.luks1("volume", content), path)
        else:
            os.rename({"qcow2": self.qcow2, "qcow2+luks": self.qcow2_luks}[kind]("volume", content), path)
        return path

    def use(self, h, rng):
        """Requests of every kind, any of which may fail; how each did that failed."""
        failed = []
        for _ in range(self.REQUESTS):
            offset = rng.randrange(self.SIZE // 512) * 512
            length = min(rng.choice((512, 4096, 65536, 300 * 1024)), self.SIZE - offset)
            try:
                rng.choice((lambda: h.pwrite(rng.randbytes(length), offset), lambda: h.zero(length, offset),
                            lambda: h.trim(length, offset) if h.can_trim() else None, lambda: h.pread(length, offset), h.flush))()
            except qluks.nbd.Error as e:
                failed.append(e.errno)
        return failed

    def check(self, kind, harm):
        """harm(image, its size) in the middle of writing."""
        rng = random.Random(kind)
        image = self.image(kind)
        size = os.path.getsize(image)
        server = self.server("file", f"dir={self.path('exports')}", PASS)
        with server.connect("other") as other:
            other.pwrite(b"\1" * 4096, 0)
            with server.connect(kind) as h:
                # What zeroes and trims free is not to be had again before the next flush, and the file does not grow.
                self.assertLessEqual(set(self.use(h, rng)), {"ENOSPC"})
                harm(image, size)
                failed = set(self.use(h, rng))
                self.assertLessEqual(failed, {"EIO", "ENOSPC", "ESHUTDOWN"})
                other.pwrite(b"\2" * 4096, 4096)
                other.flush()
            self.assert_same(bytes(other.pread(8192, 0)), b"\1" * 4096 + b"\2" * 4096)
        server.wait_until_all_have_left()
        server.stop()
        self.assertLessEqual(os.path.getsize(image), size)
        os.unlink(image)
        return failed

    def test_container_harmed_in_the_middle(self):
        os.mkdir(self.path("exports"))
        os.rename(self.qcow2("volume", qluks.source_bytes(MIB)), self.path("exports/other"))

        def overwritten(share):
            def harm(image, size):
                with open(image, "r+b") as f:
                    f.seek(int(size * share) // 65536 * 65536)
                    f.write(os.urandom(4 * 65536))
            return harm

        for kind in "qcow2", "qcow2+luks", "luks1":
            with self.subTest(kind):
                failed = self.check(kind, lambda image, size: os.truncate(image, size // 2))
                # Plain clusters read as zeroes; a write to a volume behind the cut makes the file as long as it was.
                if kind == "qcow2+luks":
                    self.assertIn("EIO", failed)
                self.check(kind, lambda image, size: os.truncate(image, 0))
                for share in 0, 0.05, 0.5:  # header and tables, tables or key slots, data
                    self.check(kind, overwritten(share))


class Compared(qluks.TestCase):
    def test_export_is_the_same_as_its_copy(self):
        """QEMU takes a hole that is not zero for zeroes, so a payload has none."""
        image = self.luks2("image.luks", qluks.source_bytes(4 * MIB))
        os.truncate(image, os.path.getsize(image) + 8 * MIB)
        with open(image, "r+b") as f:
            os.truncate(image, qluks.LUKS2_PAYLOAD_OFFSET + 3 * MIB)
            os.truncate(image, qluks.LUKS2_PAYLOAD_OFFSET + 12 * MIB)
        server = self.server("file", image, PASS)
        copy = self.path("copy.raw")
        qluks.run("nbdcopy", server.uri(), copy)
        qluks.run("qemu-img", "compare", "-f", "raw", "-F", "raw", server.uri(), copy)
        converted = self.path("converted.raw")
        qluks.run("qemu-img", "convert", "-f", "raw", "-O", "raw", server.uri(), converted)
        qluks.run("cmp", copy, converted)


if __name__ == "__main__":
    qluks.main()
