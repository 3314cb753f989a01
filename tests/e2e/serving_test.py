# SPDX-License-Identifier: BSD-3-Clause
"""How a client sees an export: sparseness, odd requests, many connections, many exports, requests that go down."""

import os
import re
import struct
import threading

import qluks

PASS = f"qluks-passphrase={qluks.SECRET}"


def qemu_img_map(image, *options):
    """qemu-img's view: [(offset, length, kind)], neighbours of one kind joined."""
    import json
    entries = json.loads(qluks.run("qemu-img", "map", "--output=json", *options, image).stdout)
    return joined((e["start"], e["length"], kind_of(e)) for e in entries)


def kind_of(entry):
    if entry["data"]:
        return "data"
    return "zero" if "offset" in entry else "hole,zero"


def joined(entries):
    result = []
    for at, length, kind in entries:
        if result and result[-1][2] == kind:
            result[-1] = (result[-1][0], result[-1][1] + length, kind)
        else:
            result.append((at, length, kind))
    return result


class Sparseness(qluks.TestCase):
    def assert_extents(self, image, expected, *args):
        with self.server("file", image, *args).connect(extents=True) as h:
            self.assertEqual(qluks.extents(h, 0, h.get_size()), expected)
            # Piece by piece the answer is the same.
            pieces = []
            at = 0
            while at < h.get_size():
                pieces += qluks.extents(h, at, h.get_size() - at, qluks.nbd.CMD_FLAG_REQ_ONE)[:1]
                at += pieces[-1][1]
            self.assertEqual(joined(pieces), expected)

    def test_qcow2_tells_what_qemu_tells(self):
        content = qluks.source_bytes(6 * qluks.MIB)
        for cluster in (512, 4096, 65536, 2 << 20):
            with self.subTest(cluster=cluster):
                image = self.qcow2("image.qcow2", content, 3, cluster)
                qluks.run("qemu-io", "-c", "write -z 256k 640k", "-c", "write -zu 2M 1M", image)
                self.assert_extents(image, qemu_img_map(image))

    def test_encrypted_qcow2_is_as_sparse(self):
        content = bytes(qluks.MIB) + os.urandom(qluks.MIB) + bytes(4 * qluks.MIB)
        image = self.qcow2_luks("image.qcow2", content)
        self.assert_extents(image, [(0, qluks.MIB, "hole,zero"), (qluks.MIB, qluks.MIB, "data"),
                                    (2 * qluks.MIB, 4 * qluks.MIB, "hole,zero")], PASS)

    def test_hole_under_raw_luks_is_data(self):
        content = qluks.source_bytes(qluks.MIB)
        image = self.luks2("image.luks", content)
        os.truncate(image, os.path.getsize(image) + (4 << 20))
        with self.server("file", image, PASS).connect(extents=True) as h:
            self.assertEqual(qluks.extents(h, 0, h.get_size()), [(0, h.get_size(), "data")])

    def test_empty_terabyte_is_one_extent(self):
        image = self.path("image.qcow2")
        qluks.run("qemu-img", "create", "-f", "qcow2", image, "1T")
        length = (1 << 32) - 65536
        with self.server("file", image).connect(extents=True) as h:
            self.assertEqual(qluks.extents(h, 0, length), [(0, length, "hole,zero")])
            self.assertEqual(qluks.extents(h, (1 << 40) - length, length), [((1 << 40) - length, length, "hole,zero")])


class Requests(qluks.TestCase):
    """64 KiB clusters; the source has data at both ends of the requests."""

    content = os.urandom(3 * qluks.MIB)

    def images(self):
        yield self.qcow2("plain.qcow2", self.content), []
        yield self.qcow2_luks("encrypted.qcow2", self.content), [PASS]
        yield self.luks2("512.luks", self.content), [PASS]
        yield self.luks2("4096.luks", self.content, "--sector-size", "4096"), [PASS]

    def test_any_offset_and_length(self):
        for image, args in self.images():
            with self.server("file", image, *args).connect() as h:
                for at in (0, 1, 511, 512, 4095, 65535, 65536, 65537, qluks.MIB - 1):
                    for n in (1, 2, 511, 512, 513, 4096, 4097, 65536, 65537, 300001, qluks.MIB + 1):
                        self.assert_same(bytes(h.pread(n, at)), self.content[at:at + n])
                size = h.get_size()
                self.assertEqual(bytes(h.pread(1, size - 1)), self.content[-1:])

    def test_few_reads_go_down(self):
        for image, args in self.images():
            with self.subTest(image=os.path.basename(image)):
                server = self.server("file", image, *args, options=["-D", "qluks.next=1"])
                with server.connect() as h:
                    h.pread(512, 2 * qluks.MIB)  # the tables are in the cache now
                    lengths = []
                    for offset in (qluks.MIB, qluks.MIB + 1):
                        mark = len(server.lines("qluks: next read"))
                        h.pread(qluks.MIB, offset)
                        reads = server.lines("qluks: next read")[mark:]
                        lengths.append([int(re.search(r"length=(\d+)", line).group(1)) for line in reads])
                self.assertEqual(lengths[0], [qluks.MIB])
                self.assertEqual(len(lengths[1]), 1, "one at an odd offset")
                self.assertLess(lengths[1][0] - qluks.MIB, 65536)
                server.stop()

    def test_cache_requests_are_taken(self):
        for image, args in self.images():
            with self.server("file", image, *args).connect() as h:
                if h.can_cache():
                    h.cache(qluks.MIB, 4096)

    def test_read_only_export_is_safe_for_many_connections(self):
        for image, args in self.images():
            with self.server("file", image, *args, options=["-r"]).connect() as h:
                self.assertTrue(h.is_read_only())
                self.assertTrue(h.can_multi_conn())
                self.assertEqual(h.get_block_size(qluks.nbd.SIZE_MINIMUM), 1)


class Connections(qluks.TestCase):
    def test_sixteen_connections_cost_one_derivation(self):
        content = qluks.source_bytes(qluks.MIB)
        image = self.luks2("image.luks", content, pbkdf=qluks.cheap_argon2("argon2id"))
        server = self.server("file", image, PASS)
        handles = [None] * 16

        def connect(i):
            handles[i] = server.connect().h

        threads = [threading.Thread(target=connect, args=(i,)) for i in range(16)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        for h in handles:
            self.assert_same(qluks.read_all(h), content)
            h.shutdown()
        with server.connect("another-name") as h:
            self.assert_same(qluks.read_all(h), content)
        self.assertEqual(len(server.lines("qluks: .*key slot 0 .*opened|opened key slot 0")), 1, server.log())

    def test_refusal_is_remembered(self):
        image = self.luks2("image.luks", qluks.source_bytes(qluks.MIB))
        server = self.server("file", image, "qluks-passphrase=wrong")
        for _ in range(3):
            with self.assertRaises(qluks.nbd.Error):
                server.connect()
        self.assertEqual(len(server.lines("qluks: deriving|derivation")), 1, server.log())

    def test_each_export_is_itself(self):
        exports = os.path.join(self.dir, "exports")
        os.mkdir(exports)
        contents = {}
        for i, make in enumerate((self.luks1, self.luks2, self.qcow2, self.qcow2_luks)):
            name = f"image{i}"
            contents[name] = qluks.source_bytes(qluks.MIB, seed=i)
            os.rename(make("image", contents[name]), os.path.join(exports, name))
        with open(os.path.join(exports, "junk"), "wb") as f:
            f.write(os.urandom(65536))
        server = self.server("file", f"dir={exports}", PASS)
        for _ in range(2):
            for name, content in contents.items():
                with server.connect(name) as h:
                    self.assert_same(qluks.read_all(h), content)
            with self.assertRaises(qluks.nbd.Error):
                server.connect("junk")

    def test_image_that_changes_between_clients_is_read_afresh(self):
        exports = os.path.join(self.dir, "exports")
        os.mkdir(exports)
        server = self.server("file", f"dir={exports}")
        for seed in (1, 2):
            content = qluks.source_bytes(qluks.MIB, seed)
            os.rename(self.qcow2("image", content), os.path.join(exports, "image"))
            with server.connect("image") as h:
                self.assert_same(qluks.read_all(h), content)
            server.wait_until_all_have_left()


class Refusals(qluks.TestCase):
    def refused(self, image, pattern, *args):
        server = self.server("file", image, *args)
        with self.assertRaises(qluks.nbd.Error):
            server.connect()
        self.assertRegex(server.errors()[0], pattern)
        # The server is well: it answers the next client, with the same refusal.
        with self.assertRaises(qluks.nbd.Error):
            server.connect()
        server.stop()

    def patched(self, image, *patches):
        with open(image, "r+b") as f:
            for offset, value in patches:
                f.seek(offset)
                f.write(value)
        return image

    def test_unknown_incompatible_bit_by_its_name(self):
        content = qluks.source_bytes(qluks.MIB)
        self.refused(self.patched(self.qcow2("a", content), (72, struct.pack(">Q", 1 << 40))),
                     "incompatible.*40")
        # The name comes from the image's own feature name table: its first record becomes bit 40.
        image = self.qcow2("b", content)
        with open(image, "rb") as f:
            table = f.read().index(b"dirty bit") - 2
        self.refused(self.patched(image, (72, struct.pack(">Q", 1 << 40)), (table, bytes([0, 40]))), "dirty bit")

    def test_what_an_image_names_is_refused_without_its_parameter(self):
        base = self.qcow2("base", qluks.source_bytes(qluks.MIB))
        overlay = self.path("overlay")
        qluks.run("qemu-img", "create", "-f", "qcow2", "-b", base, "-F", "qcow2", overlay)
        self.refused(overlay, "backing")
        external = self.path("external")
        qluks.run("qemu-img", "create", "-f", "qcow2", "-o", f"data_file={self.path('data')}", external, "1M")
        self.refused(external, "data.file")

    def test_truncated_images(self):
        content = qluks.source_bytes(qluks.MIB)
        image = self.qcow2("a", content)
        os.truncate(image, 50)
        self.refused(image, "qcow2")
        image = self.luks2("b", content)
        os.truncate(image, 30000)
        self.refused(image, "LUKS", PASS)
        image = self.luks1("c", content)
        os.truncate(image, 4096)
        self.refused(image, "LUKS|key slot|payload", PASS)

    def test_luks2_requirement_by_its_name(self):
        image = self.luks2("image.luks", qluks.source_bytes(qluks.MIB))
        header = self.path("json")
        with open(image, "r+b") as f:
            for at in (0, 16384):
                qluks.patch_luks2_json(f, at, b'"config":{', b'"config":{"requirements":{"mandatory":["from-the-future"]},')
        self.refused(image, "from-the-future", PASS)


if __name__ == "__main__":
    qluks.main()
