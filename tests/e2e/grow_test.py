# SPDX-License-Identifier: BSD-3-Clause
"""qluks-grow: the file that is served has room while it is written, and is locked as QEMU locks images.  So is the
external data file."""

import os
import signal
import subprocess

import nbd
import qluks

SIZE = 64 * qluks.MIB
CLUSTER = 65536


class TestCase(qluks.TestCase):
    def empty(self, *options, size=SIZE):
        image = self.path("image.qcow2")
        opts = ["-o", ",".join(options)] if options else []
        create = ["-q", "-f", "qcow2", *opts, image, str(size)]
        if any("encrypt" in o for o in options):
            qluks.qemu_img_luks("create", *qluks.qemu_secret(), *create)
        else:
            qluks.run("qemu-img", "create", *create)
        return image

    def serve(self, image, *args, **kwargs):
        return self.server("file", image, f"qluks-grow={image}", *args, **kwargs)

    def check(self, *image):
        done = qluks.run("qemu-img", "check", *image, check=False)
        self.assertEqual(done.returncode, 0, (done.stdout + done.stderr).decode())


class Room(TestCase):
    def test_disk_copied_into_a_fresh_encrypted_image(self):
        content = qluks.source_bytes(8 * qluks.MIB) + bytes(SIZE - 8 * qluks.MIB)
        raw = self.write("source.raw", content)
        image = self.empty("encrypt.format=luks", "encrypt.key-secret=s", "encrypt.iter-time=10")
        old = os.path.getsize(image)
        server = self.serve(image, f"qluks-passphrase={qluks.SECRET}")
        qluks.run("nbdcopy", "--flush", raw, server.uri())
        server.stop()
        self.assertGreater(os.path.getsize(image), old)
        self.assertLess(os.path.getsize(image), old + 10 * qluks.MIB)
        opts = f"driver=qcow2,file.filename={image},encrypt.format=luks,encrypt.key-secret=s"
        self.check(*qluks.qemu_secret(), "--image-opts", opts)
        qluks.run("qemu-img", "compare", *qluks.qemu_secret(), "--image-opts", opts,
                  f"driver=raw,file.filename={raw}")

    def test_every_cluster_can_be_written(self):
        for options in (["cluster_size=512", "refcount_bits=64"], ["cluster_size=2M"], ["cluster_size=4096"],
                        ["extended_l2=on"]):
            with self.subTest(options=options):
                image = self.empty(*options, size=24 * qluks.MIB)
                for fill in (b"\1", b"\2"):
                    server = self.serve(image)
                    with server.connect() as h:
                        for offset in range(0, 24 * qluks.MIB, qluks.MIB):
                            h.pwrite(fill * qluks.MIB, offset)
                        h.flush()
                    server.stop()
                    self.check("-f", "qcow2", image)
                    # All of it is written again, over what a snapshot has.
                    qluks.run("qemu-img", "snapshot", "-c", "s", image)

    def test_nothing_is_left_of_a_client_that_wrote_nothing(self):
        image = self.empty()
        before = open_and_read(image)
        before += bytes(-len(before) % CLUSTER)  # qemu-img leaves the last cluster short
        server = self.serve(image)
        with server.connect() as h, server.connect() as other:
            self.assertGreater(os.path.getsize(image), SIZE)
            h.pread(512, 0)
            other.flush()
        server.stop()
        self.assert_same(open_and_read(image), before)

    def test_tail_that_a_crash_left(self):
        image = self.empty()
        server = self.serve(image)
        with server.connect() as h:
            h.pwrite(b"x" * CLUSTER, 0)
            h.flush()
            length = os.path.getsize(image)
            os.kill(server.pid, signal.SIGKILL)
            server.wait_for_end()
            server.pid = None
        self.assertEqual(os.path.getsize(image), length)
        self.check("-f", "qcow2", image)
        server = self.serve(image)
        with server.connect() as h:
            self.assertLess(os.path.getsize(image), length + 2 * qluks.MIB)
            self.assert_same(bytes(h.pread(CLUSTER, 0)), b"x" * CLUSTER)
        server.stop()
        self.assertLess(os.path.getsize(image), 2 * qluks.MIB)

    def test_file_that_is_not_the_container(self):
        image = self.empty()
        other = self.path("other.qcow2")
        qluks.run("cp", image, other)
        old = os.path.getsize(other)
        server = self.server("file", image, f"qluks-grow={other}")
        with self.assertRaises(nbd.Error):
            server.connect().__enter__()
        lines = server.lines("is not what the plugin serves")
        self.assertRegex(lines[0], rf"it has \d+ bytes, and what the plugin serves has {os.path.getsize(image)} bytes")
        self.assertEqual(os.path.getsize(other), old)
        server.stop()

    def test_file_that_is_no_qcow2(self):
        raw = self.write("plain.raw", bytes(qluks.MIB))
        server = self.server("file", raw, f"qluks-grow={raw}", "qluks-layers=raw")
        with self.assertRaises(nbd.Error):
            server.connect().__enter__()
        self.assertTrue(server.lines("qluks-grow: .*magic"))
        self.assertEqual(os.path.getsize(raw), qluks.MIB)
        server.stop()


def open_and_read(path):
    with open(path, "rb") as f:
        return f.read()


class Qemu:
    """qemu-io with an image open."""

    def __init__(self, image, *options):
        self.process = subprocess.Popen(["qemu-io", *options, image], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.tell("read 0 512")  # it is open when it answers

    def tell(self, command):
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()
        while b"ops;" not in self.process.stdout.readline():
            pass

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.communicate(b"quit\n")


class Locks(TestCase):
    def qemu_says(self, image, *options):
        done = qluks.run("qemu-io", *options, "-c", "read 0 512", image, check=False)
        return done.returncode, (done.stdout + done.stderr).decode()

    def test_qemu_does_not_write_what_is_served(self):
        image = self.empty()
        server = self.serve(image)
        with server.connect() as h:
            h.pwrite(b"x" * 512, 0)
            status, said = self.qemu_says(image)
            self.assertNotEqual(status, 0)
            self.assertIn('Failed to get "write" lock', said)
            status, said = self.qemu_says(image, "-r")
            self.assertNotEqual(status, 0)
        server.stop()
        self.assertEqual(self.qemu_says(image)[0], 0)

    def test_read_only_takes_the_read_side(self):
        image = self.empty()
        server = self.serve(image, options=["-r"])
        with server.connect() as h:
            h.pread(512, 0)
            self.assertEqual(self.qemu_says(image, "-r")[0], 0)
            status, said = self.qemu_says(image)
            self.assertNotEqual(status, 0)
            self.assertIn('lock', said)
        server.stop()

    def test_what_qemu_writes_is_served_read_only(self):
        image = self.empty()
        old = os.path.getsize(image)
        server = self.serve(image)
        with Qemu(image) as qemu:
            with server.connect() as h:
                self.assertTrue(h.is_read_only())
                qemu.tell("write 0 64k")
            self.assertRegex(server.lines("served read-only")[0], r"image.qcow2 is locked: another program .*\"write\"")
            self.assertLess(os.path.getsize(image), old + qluks.MIB)
        server.wait_until_all_have_left()
        with server.connect() as h:
            self.assertFalse(h.is_read_only())
            h.pwrite(b"x" * 512, 0)
        server.stop()
        self.check("-f", "qcow2", image)

    def test_what_qemu_reads_is_served_read_only(self):
        image = self.empty()
        server = self.serve(image)
        with Qemu(image, "-r"), server.connect() as h:
            self.assertTrue(h.is_read_only())
        server.stop()


class DataFileLocks(TestCase):
    """Without qluks-grow: the container is the plugin's, the data file ours."""

    def setUp(self):
        super().setUp()
        self.data = self.path("data.raw")
        self.image = self.empty(f"data_file={self.data}", "preallocation=metadata")
        self.served = self.server("file", self.image, f"qluks-data-file={self.data}")

    def test_qemu_does_not_write_what_is_served(self):
        for _ in range(2):
            with self.served.connect() as h:
                h.pwrite(b"x" * 512, 0)
                done = qluks.run("qemu-io", "-c", "write 0 512", self.image, check=False)
                self.assertNotEqual(done.returncode, 0)
                self.assertRegex((done.stdout + done.stderr).decode(), r"Failed to get .* lock")
            self.served.wait_until_all_have_left()
            qluks.run("qemu-io", "-c", "write 4k 512", self.image)
        self.served.stop()
        self.check("-f", "qcow2", self.image)

    def test_what_qemu_writes_is_served_read_only(self):
        with Qemu(self.image) as qemu:
            with self.served.connect() as h:
                self.assertTrue(h.is_read_only())
                qemu.tell("write 0 64k")
            self.assertRegex(self.served.lines("not written to")[0],
                             r"data.raw is locked: another program uses \"write\"")
            self.served.wait_until_all_have_left()
        with self.served.connect() as h:
            self.assertFalse(h.is_read_only())
            h.pwrite(b"x" * 512, 0)
        self.served.stop()
        self.check("-f", "qcow2", self.image)


if __name__ == "__main__":
    qluks.main()
