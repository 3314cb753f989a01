# SPDX-License-Identifier: BSD-3-Clause
"""What qcow2 has beyond plain clusters, through nbdkit: compression, extended L2, snapshots, backing and data files."""

import os
import subprocess

import qluks

CONTENT = qluks.source_bytes(3 * qluks.MIB + 4096)
PASS = f"qluks-passphrase={qluks.SECRET}"


class Clusters(qluks.TestCase):
    def test_compressed(self):
        for kind in ("zlib", "zstd"):
            for cluster in (4096, 65536, 2 << 20):
                with self.subTest(kind=kind, cluster=cluster):
                    image = self.path("image.qcow2")
                    qluks.run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o",
                              f"compression_type={kind},cluster_size={cluster}", self.write("src", CONTENT), image)
                    self.assert_serves(CONTENT, "file", image)

    def test_extended_l2(self):
        image = self.qcow2("image.qcow2", CONTENT, 3, 65536, "extended_l2=on")
        qluks.run("qemu-io", "-c", "write -z 2k 14k", "-c", "write -zu 1M 6k", "-c", "discard 1088k 64k", image)
        raw = self.path("expected.raw")
        qluks.run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw)
        with open(raw, "rb") as f:
            self.assert_serves(f.read(), "file", image)

    def test_legacy_aes_with_a_warning(self):
        image = self.path("image.qcow2")
        qluks.run("qemu-img", "convert", *qluks.qemu_secret(), "-f", "raw", "-O", "qcow2", "-o",
                  "encrypt.format=aes,encrypt.key-secret=s", self.write("src", CONTENT), image)
        server = self.assert_serves(CONTENT, "file", image, PASS)
        self.assertRegex(server.errors()[0], "^warning: .*weak")


class Snapshots(qluks.TestCase):
    def test_each_snapshot_with_its_own_size(self):
        for encrypted in (False, True):
            make = self.qcow2_luks if encrypted else self.qcow2
            args = [PASS] if encrypted else []
            image = make("image.qcow2", CONTENT)
            spec = f"driver=qcow2,file.filename={image}"
            if encrypted:
                spec += ",encrypt.format=luks,encrypt.key-secret=s"
            qluks.run("qemu-img", "snapshot", *qluks.qemu_secret(), "--image-opts", "-c", "first", spec)
            if not encrypted:
                qluks.run("qemu-img", "resize", image, "5M")
            qluks.run("qemu-io", *qluks.qemu_secret(), "--image-opts", spec, "-c", "write -P 7 0 1M")
            for name in ("first", "1"):
                self.assert_serves(CONTENT, "file", image, f"qluks-snapshot={name}", *args)
            now = bytes([7]) * qluks.MIB + CONTENT[qluks.MIB:]
            self.assert_serves(now if encrypted else now.ljust(5 * qluks.MIB, b"\0"), "file", image, *args)
            server = self.server("file", image, "qluks-snapshot=second", *args)
            with self.assertRaises(qluks.nbd.Error):
                server.connect()
            self.assertRegex(server.errors()[0], "first")

    def test_snapshot_of_what_has_none(self):
        image = self.luks2("image.luks", CONTENT)
        server = self.server("file", image, "qluks-snapshot=first", PASS)
        with self.assertRaises(qluks.nbd.Error):
            server.connect()
        self.assertIn("no qcow2 layer", server.errors()[0])
        self.assertIn("no qcow2 layer", self.refusal("file", image, "qluks-snapshot=a", "qluks-layers=luks")[0])


class Chains(qluks.TestCase):
    """base.raw ◀ middle.qcow2 (shorter, encrypted) ◀ top.qcow2 (longer)"""

    def make_chain(self):
        images = os.path.join(self.dir, "images")
        os.makedirs(os.path.join(images, "sub"))
        base = os.path.join(images, "sub", "base.raw")
        with open(base, "wb") as f:
            f.write(CONTENT)
        middle = os.path.join(images, "sub", "middle.qcow2")
        qluks.qemu_img_luks("create", *qluks.qemu_secret(), "-f", "qcow2", "-b", "base.raw", "-F", "raw", "-o",
                            "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", middle, "2M")
        spec = f"driver=qcow2,file.filename={middle},encrypt.format=luks,encrypt.key-secret=s"
        qluks.run("qemu-io", *qluks.qemu_secret(), "--image-opts", spec, "-c", "write -P 5 100k 200k")
        top = os.path.join(images, "top.qcow2")
        qluks.run("qemu-img", "create", "-f", "qcow2", "-u", "-b", "sub/middle.qcow2", "-F", "qcow2", top, "4M")
        qluks.run("qemu-io", "-c", "write -P 6 1M 64k", "json:" + '{"driver":"qcow2","file":{"driver":"file",'
                  f'"filename":"{top}"' + '},"backing":null}')
        expected = bytearray(CONTENT[:2 * qluks.MIB].ljust(4 * qluks.MIB, b"\0"))
        expected[100 << 10:300 << 10] = bytes([5]) * (200 << 10)
        expected[1 << 20:(1 << 20) + 65536] = bytes([6]) * 65536
        return images, top, middle, base, bytes(expected)

    def test_listed_or_followed_inside_of_a_directory(self):
        images, top, middle, base, expected = self.make_chain()
        self.assert_serves(expected, "file", top, PASS, f"qluks-backing={middle}", f"qluks-backing={base}")
        self.assert_serves(expected, "file", top, PASS, f"qluks-backing=qcow2:{middle}", f"qluks-backing=raw:{base}")
        self.assert_serves(expected, "file", top, PASS, f"qluks-backing-dir={images}")

    def test_wrong_lists(self):
        images, top, middle, base, _ = self.make_chain()
        for pattern, args in (("qluks-backing", []),
                              ("backing file 1 .*backing", [f"qluks-backing={middle}"]),
                              ("3 times.*has 2|not a qcow2", [f"qluks-backing={f}" for f in (middle, base, base)]),
                              ("magic|not a qcow2", [f"qluks-backing=qcow2:{base}", f"qluks-backing={base}"])):
            with self.subTest(args=args):
                server = self.server("file", top, PASS, *args)
                with self.assertRaises(qluks.nbd.Error):
                    server.connect()
                self.assertRegex(server.errors()[0], pattern)
        self.assertIn("No such file", self.refusal("file", top, "qluks-backing=/nonexistent/base")[0])
        self.assertIn("exclude each other", self.refusal("file", top, f"qluks-backing={middle}",
                                                         f"qluks-backing-dir={images}")[0])

    def test_backing_without_a_recorded_format_needs_the_prefix(self):
        base = self.write("base.raw", CONTENT)
        top = self.overlay("top.qcow2", base, len(CONTENT))
        with open(top, "r+b") as f:  # the extension that holds the format becomes one that nobody knows
            at = f.read(4096).index(bytes.fromhex("e2792aca"))
            f.seek(at)
            f.write(b"none")
        server = self.server("file", top, f"qluks-backing={base}")
        with self.assertRaises(qluks.nbd.Error):
            server.connect()
        self.assertRegex(server.errors()[0], "does not record its format.*raw:")
        self.assert_serves(CONTENT, "file", top, f"qluks-backing=raw:{base}")

    def test_luks_volume_as_backing_file(self):
        base = self.luks2("base.luks", CONTENT)
        top = self.overlay("top.qcow2", base, len(CONTENT))
        self.assert_serves(CONTENT, "file", top, f"qluks-backing=luks:{base}", PASS)

    def test_file_that_is_its_own_backing_is_refused(self):
        images = os.path.join(self.dir, "images")
        os.mkdir(images)
        loop = os.path.join(images, "loop.qcow2")
        qluks.run("qemu-img", "create", "-f", "qcow2", "-u", "-b", "loop.qcow2", "-F", "qcow2", loop, "1M")
        server = self.server("file", loop, f"qluks-backing-dir={images}")
        with self.assertRaises(qluks.nbd.Error):
            server.connect()
        self.assertRegex(server.errors()[0], "comes back to")

    def test_nothing_that_an_image_names_is_opened(self):
        """Under strace: whatever name stands in an image, no open() of it, nor of anything outside of the directory."""
        qluks.requires_or_skip(self, "strace")
        if qluks.PRELOAD:
            self.skipTest("nbdkit --run does not end with libasan preloaded")
        images = os.path.join(self.dir, "images")
        os.mkdir(images)
        secret = self.write("secret.raw", CONTENT)
        os.symlink(secret, os.path.join(images, "link"))
        os.symlink("..", os.path.join(images, "up"))
        names = ["/etc/passwd", 'json:{"driver":"file","filename":"/etc/passwd"}', "nbd:localhost:10809",
                 "file:/etc/passwd", "../secret.raw", "sub/../../secret.raw", "up/secret.raw", "link", secret]
        for i, name in enumerate(names):
            for option in ("backing", "data"):
                image = os.path.join(images, f"{option}{i}.qcow2")
                if option == "backing":
                    qluks.run("qemu-img", "create", "-f", "qcow2", "-u", "-b", name, "-F", "raw", image, "1M")
                else:
                    # qemu-img would create the file: make one with a name as long and put the other in its place.
                    placeholder = "x" * len(name)
                    qluks.run("sh", "-c", 'cd "$1" && qemu-img create -q -f qcow2 -o data_file="$2" "$3" 1M', "sh",
                              self.dir, placeholder, image)
                    with open(image, "r+b") as f:
                        content = f.read()
                        f.seek(0)
                        f.write(content.replace(placeholder.encode(), name.encode()))
        trace = self.path("trace")
        for args in ([], [f"qluks-backing-dir={images}"]):
            script = ""
            for image in sorted(os.listdir(images)):
                if image.endswith(".qcow2"):
                    script += f'nbdinfo "$(echo "$uri" | sed "s,///,///{image},")" && exit 9; '
            done = subprocess.run(["strace", "-f", "-qq", "-e", "trace=open,openat,openat2", "-o", trace, "nbdkit",
                                   "-U", "-", f"--filter={qluks.FILTER}", "file", f"dir={images}", *args,
                                   "--run", script + "exit 7"], capture_output=True, env=qluks.environment())
            self.assertEqual(done.returncode, 7, done.stderr.decode())
            with open(trace) as f:
                opened = [line for line in f if " = -1 " not in line]
            for line in opened:
                self.assertNotIn("secret.raw", line)
                self.assertNotRegex(line, r'nbdkit.*"/etc/passwd"')
                self.assertNotIn("json:", line)
            errors = qluks.error_lines(done.stderr.decode())
            self.assertGreaterEqual(len(errors), 2 * len(names))

    def test_l1_tables_of_a_chain_have_a_limit(self):
        """Each of the largest that there is, 32 MiB in a file that takes no room."""
        base = self.write("base.raw", CONTENT)
        top = self.overlay("top.qcow2", base, 1 << 51, "qcow2")
        chain = []
        for i in range(5):
            chain.append(f"qluks-backing=qcow2:{self.path(f'{i}.qcow2')}")
            qluks.run("cp", "--sparse=always", top, self.path(f"{i}.qcow2"))
        server = self.server("file", top, *chain[:4], f"qluks-backing=raw:{base}")
        with server.connect() as h:
            self.assert_same(bytes(h.pread(4096, 0)), CONTENT[:4096])
        server = self.server("file", top, *chain, f"qluks-backing=raw:{base}")
        with self.assertRaises(qluks.nbd.Error):
            server.connect()
        self.assertRegex(server.errors()[0], "L1 tables of the backing files have 167772160 bytes.* 134217728$")


class DataFiles(qluks.TestCase):
    def test_external_data_file(self):
        for raw in ("on", "off"):
            data = self.path("data")
            image = self.qcow2("image.qcow2", CONTENT, 3, 65536, f"data_file={data}", f"data_file_raw={raw}")
            self.assert_serves(CONTENT, "file", image, f"qluks-data-file={data}")
            self.assert_serves(CONTENT, "file", image, f"qluks-backing-dir={self.dir}")
        data = self.path("data-luks")
        image = self.qcow2_luks("image.qcow2", CONTENT, 3, 65536, f"data_file={data}")
        self.assert_serves(CONTENT, "file", image, f"qluks-data-file={data}", PASS)
        plain = self.qcow2("plain.qcow2", CONTENT)
        server = self.server("file", plain, f"qluks-data-file={data}")
        with self.assertRaises(qluks.nbd.Error):
            server.connect()


class NbdUris(qluks.TestCase):
    def remote(self, path, *args, **kwargs):
        """Another nbdkit, which serves the file as it is."""
        return self.server("file", path, "qluks-layers=raw", *args, **kwargs)

    def test_backing_file_and_header_on_another_server(self):
        base = self.write("base.raw", CONTENT)
        top = self.overlay("top.qcow2", base, len(CONTENT))
        remote = self.remote(base)
        self.assert_serves(CONTENT, "file", top, f"qluks-backing={remote.uri()}")

        header = self.path("header")
        payload = self.luks2("payload", CONTENT, header=header)
        remote_header = self.remote(header)
        self.assert_serves(CONTENT, "file", payload, PASS, f"qluks-header={remote_header.uri()}")
        self.assertIn("nonexistent", self.refusal("file", payload, PASS,
                                                  "qluks-header=nbd+unix:///?socket=/nonexistent/sock")[0])

    def test_server_that_takes_only_whole_blocks_of_its_size(self):
        base = self.write("base.raw", CONTENT)
        remote = self.remote(base, "blocksize-minimum=4096", "blocksize-maximum=65536", "blocksize-error-policy=error",
                             options=["--filter=blocksize-policy"])
        top = self.overlay("top.qcow2", base, len(CONTENT))
        server = self.assert_serves(CONTENT, "file", top, f"qluks-backing={remote.uri()}")
        with server.connect(extents=True) as h:
            for offset, length in ((1, 1), (4095, 2), (511, 3 * qluks.MIB), (len(CONTENT) - 1, 1)):
                self.assert_same(bytes(h.pread(length, offset)), CONTENT[offset:offset + length])
                self.assertEqual(qluks.extents(h, offset, length), [(offset, length, "data")])

    def test_holes_are_those_of_the_server(self):
        base = self.path("base.raw")
        with open(base, "wb") as f:
            f.truncate(6 << 30)
            for offset in (qluks.MIB, 5 << 30):
                f.seek(offset)
                f.write(CONTENT[:65536])
        remote = self.remote(base)
        server = self.server("file", self.overlay("top.qcow2", base, 7 << 30), f"qluks-backing={remote.uri()}")
        with server.connect(extents=True) as h:
            self.assertEqual(qluks.extents(h, 512, 4 * qluks.MIB),
                             [(512, qluks.MIB - 512, "hole,zero"), (qluks.MIB, 65536, "data"),
                              (qluks.MIB + 65536, 3 * qluks.MIB + 512 - 65536, "hole,zero")])
            self.assertEqual(qluks.extents(h, 4 << 30, 3 << 30),
                             [(4 << 30, 1 << 30, "hole,zero"), (5 << 30, 65536, "data"),
                              ((5 << 30) + 65536, (2 << 30) - 65536, "hole,zero")])

    def test_server_without_block_status_has_data_everywhere(self):
        base = self.write("base.raw", bytes(len(CONTENT)))
        remote = self.remote(base, options=["--no-sr"])
        server = self.server("file", self.overlay("top.qcow2", base, len(CONTENT)), f"qluks-backing={remote.uri()}")
        with server.connect(extents=True) as h:
            self.assertEqual(qluks.extents(h, 0, len(CONTENT)), [(0, len(CONTENT), "data")])

    def test_lost_connection_is_an_error_and_comes_back(self):
        base = self.write("base.raw", CONTENT)
        top = self.overlay("top.qcow2", base, len(CONTENT))
        remote = self.remote(base)
        with self.server("file", top, f"qluks-backing={remote.uri()}").connect() as h:
            self.assert_same(bytes(h.pread(4096, 0)), CONTENT[:4096])
            remote.stop(qluks.signal.SIGKILL)
            with self.assertRaises(qluks.nbd.Error) as e:
                h.pread(4096, 0)
            self.assertEqual(e.exception.errno, "EIO")
            # A server waits for its clients when it is told to end, and this client stays.
            self.addCleanup(remote.restart("file", base, "qluks-layers=raw").stop, qluks.signal.SIGKILL)
            self.assert_same(bytes(h.pread(4096, 65536)), CONTENT[65536:65536 + 4096])


if __name__ == "__main__":
    qluks.main()
