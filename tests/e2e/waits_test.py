# SPDX-License-Identifier: BSD-3-Clause
"""Nobody waits for somebody else's image, and the work of one request is bounded whatever an image says."""

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

import qluks

PASS = f"qluks-passphrase={qluks.SECRET}"

# Far below what a server takes that does not keep to it (minutes, or for ever), far above what it should take on a busy machine.
SECONDS = 20
SECONDS_TO_END = 5
HOURS = b"\xee\xee\xee\xee"  # of iterations


class TestCase(qluks.TestCase):
    def exports(self, **images):
        """A folder of images, served as exports of one server."""
        folder = self.path("exports")
        os.mkdir(folder)
        for name, image in images.items():
            shutil.move(image, os.path.join(folder, name))
        return "file", f"dir={folder}"

    def connect_in_background(self, server, export=""):
        """A client that may never get its answer."""
        client = subprocess.Popen(["nbdinfo", "--size", server.uri(export)], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        self.addCleanup(client.wait)
        self.addCleanup(client.kill)
        return client

    def assert_opens_soon(self, server, export):
        done = subprocess.run(["nbdinfo", "--size", server.uri(export)], capture_output=True, timeout=SECONDS)
        self.assertEqual(done.returncode, 0, done.stderr)

    def assert_ends_soon(self, server):
        start = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        self.assertEqual(server.wait_for_end(), 0, server.log())
        self.assertLess(time.monotonic() - start, SECONDS_TO_END)

    def luks1_of_hours(self, name):
        image = self.luks1(name, b"", payload=False)
        with open(image, "r+b") as f:
            f.seek(208 + 4)
            f.write(HOURS)
        return image


class SilentSource(TestCase):
    def test_healthy_server_at_the_address_of_one_that_stopped(self):
        """Its clients get an error after the deadline, and read on once somebody answers there again."""
        content = self.write("base.raw", qluks.source_bytes(qluks.MIB))
        base = self.server("file", content, "qluks-layers=raw", options=["-r"])
        server = self.server("file", self.overlay("over.qcow2", "base", qluks.MIB), f"qluks-backing={base.uri()}",
                             options=["-r"])
        with server.connect() as old:
            first = old.pread(512, 0)
            os.kill(base.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, base.pid, os.WSTOPPED)
            with self.assertRaises(qluks.nbd.Error):
                old.pread(512, 4096)
            self.assertTrue(server.lines("no answer within"))
            base.stop(signal.SIGKILL)
            base.restart("file", content, "qluks-layers=raw")
            self.assertEqual(old.pread(512, 0), first)
            with server.connect() as new:
                self.assertEqual(new.pread(512, 0), first)


class BoundedWork(TestCase):
    def test_block_status_of_a_chain_of_sixty_four(self):
        """Each level is looked at once, not twice for each above it."""
        # Data and holes in turns: what a level asks for ends before what it wanted, down to the base.
        base = self.path("base.raw")
        with open(base, "wb") as f:
            f.truncate(qluks.MIB)
            for offset in range(0, qluks.MIB, 131072):
                f.seek(offset)
                f.write(qluks.source_bytes(65536))
        backing, kind = base, "raw"
        names = []
        for level in range(64):
            backing, kind = self.overlay(f"level{level}.qcow2", backing, qluks.MIB, kind), "qcow2"
            names.insert(0, backing)
        chain = [f"qluks-backing=qcow2:{name}" for name in names[1:]] + [f"qluks-backing=raw:{base}"]
        server = self.server("file", names[0], *chain)
        start = time.monotonic()
        with server.connect(extents=True) as h:
            self.assertEqual(len(qluks.extents(h, 0, qluks.MIB)), 16)
        self.assertLess(time.monotonic() - start, SECONDS)

    def small_clusters(self):
        """512-byte clusters, every other one with data; all L1 entries lead to one L2 table.  A disk of 4 GiB."""
        l1_entries = (4 << 30) // (64 * 512)
        header = struct.pack(">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, 9, 4 << 30, 0, l1_entries, 4096, 512, 1, 0, 0,
                             0, 0, 0, 4, 104)
        data = 4096 + l1_entries * 8
        with open(self.path("small.qcow2"), "wb") as f:
            f.write(header.ljust(1024, b"\0"))
            f.seek(4096)
            f.write(struct.pack(">Q", data) * l1_entries)
            for n in range(64):
                f.write(struct.pack(">Q", (1 << 63 | data + 512) if n % 2 == 0 else 0))
            f.write(bytes(512))
        return self.path("small.qcow2")

    def test_requests_of_four_gibibytes_over_small_clusters(self):
        server = self.server("file", self.small_clusters(), options=["-r"])
        with server.connect(extents=True) as h:
            start = time.monotonic()
            for _ in range(8):
                h.cache((4 << 30) - 512, 0)
                self.assertGreater(len(qluks.extents(h, 0, 1 << 20)), 0)
            self.assertLess(time.monotonic() - start, SECONDS)
            for _ in range(64):
                h.aio_cache((4 << 30) - 512, 0)
            self.assert_ends_soon(server)

    def test_l1_tables_of_all_images_have_one_limit(self):
        """Sparse files, each of whose tables has 32 MiB; the largest that there is."""
        entries = (32 << 20) // 8
        images = [f"image{n}" for n in range(9)]
        for name in images:
            with open(self.path(name), "wb") as f:
                f.write(struct.pack(">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, 16, entries << 29, 0, entries, 1 << 20,
                                    65536, 1, 0, 0, 0, 0, 0, 4, 104))
                f.truncate(40 << 20)
        server = self.server(*self.exports(**{name: self.path(name) for name in images}), options=["-r"])
        with contextlib.ExitStack() as opened:
            for name in images[:-1]:
                opened.enter_context(server.connect(name))
            with self.assertRaises(qluks.nbd.Error):
                server.connect(images[-1])
            self.assertRegex(server.errors()[-1], "L1 table at 0x100000: .*the tables of all open images have 301989888 "
                                                  "bytes, the limit is 268435456: raise qluks-cache-size")
        server.wait_until_all_have_left()
        with server.connect(images[-1]):
            pass


class ChangedUnderUs(TestCase):
    def test_said_once_when_the_next_client_comes(self):
        image = self.path("image.qcow2")
        qluks.run("qemu-img", "create", "-f", "qcow2", image, "1M")
        server = self.server("file", image, options=["-r"])
        with server.connect() as first:
            self.assertEqual(first.pread(512, 0), bytes(512))
            with server.connect():
                self.assertEqual(server.errors(), [])
            qluks.run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 64k", image)
            with server.connect(), server.connect():
                pass
        self.assertEqual(len(server.errors()), 1)
        self.assertIn("was changed by another program while it is served", server.errors()[0])
        server.wait_until_all_have_left()
        with server.connect() as later:
            self.assertEqual(later.pread(512, 0), b"\1" * 512)


class Neighbours(TestCase):
    def test_dear_derivation_holds_up_nobody(self):
        server = self.server(*self.exports(dear=self.luks1_of_hours("dear.luks"), dear2=self.luks1_of_hours("dear2.luks"),
                                           dear3=self.luks1_of_hours("dear3.luks"),
                                           cheap=self.luks1("cheap.luks", bytes(4096))), PASS,
                             "qluks-kdf-time=4000000000")
        for dear in ("dear", "dear2", "dear3"):
            self.connect_in_background(server, dear)
            self.connect_in_background(server, dear)
        server.wait_for("takes at most about")
        self.assert_opens_soon(server, "cheap")
        self.assert_ends_soon(server)

    def test_hanging_program_holds_up_nobody(self):
        slow, quick = self.luks1("slow.luks", bytes(4096)), self.luks1("quick.luks", bytes(4096))
        uuid, started = qluks.luks_uuid(slow), self.path("started")
        os.mkfifo(started)
        server = self.server(*self.exports(slow=slow, quick=quick),
                             f"qluks-key-command=if [ $QLUKS_UUID = {uuid} ]; then echo >{started}; sleep 100000; fi; "
                             f"printf %s '{qluks.SECRET}'", "qluks-kdf-time=100000")
        for _ in range(20):
            self.connect_in_background(server, "slow")
        with open(started) as f:
            f.read()
        self.assert_opens_soon(server, "quick")
        self.assert_ends_soon(server)

    def test_failing_program_runs_once_for_many_clients(self):
        image = self.luks1("image.luks", bytes(4096))
        runs = self.write("runs", b"")
        gate = self.path("gate")
        os.mkfifo(gate)
        server = self.server("file", image, f"qluks-key-command=echo run >>{runs}; read line <{gate}; exit 3")
        clients = [self.connect_in_background(server) for _ in range(8)]
        # They wait for the program, or come within the moment in which its failure is remembered.
        with open(gate, "w") as f:
            f.write("go\n")
        for client in clients:
            self.assertNotEqual(client.wait(60), 0)
        with open(runs) as f:
            self.assertEqual(f.read(), "run\n")
        self.assertIn("it failed with status 3", server.errors()[0])

    def test_program_has_a_time_limit(self):
        image = self.luks1("image.luks", bytes(4096))
        server = self.server("file", image, "qluks-key-command=sleep 100000; true", "qluks-kdf-time=1")
        with self.assertRaises(qluks.nbd.Error):
            server.connect()
        self.assertIn("it was still running after 1 s: raise qluks-kdf-time", server.errors()[0])

    def test_hanging_storage_holds_up_its_own_export_only(self):
        """Cold reads of compressed clusters of 2 MiB, which need memory to fetch and to inflate."""
        content = b"".join(bytes([n % 251]) * 4096 for n in range(16 * 512))
        raw = self.write("raw", content)
        image = self.path("image.qcow2")
        qluks.run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=2M", raw, image)
        control = qluks.FaultControl(self.path("control"))
        plugin = os.path.join(os.environ["QLUKS_BUILD"], ".libs", "faulty_plugin.so")
        server = self.server(plugin, f"file={image}", f"control={control.path}", options=["-r"])
        with server.connect("hung") as hung:
            hung.pread(512, 0)
            control.set(hang=1)
            buffers = [qluks.nbd.Buffer(512) for _ in range(15)]
            for n, buffer in enumerate(buffers):
                hung.aio_pread(buffer, (n + 1) * 2 * qluks.MIB)
            try:
                while control["hanging"] < 3:
                    hung.poll(10)
                with server.connect("other") as other:
                    reader = threading.Thread(target=lambda: self.assert_same(
                        bytes(other.pread(512, 20 * qluks.MIB)), content[20 * qluks.MIB:20 * qluks.MIB + 512]), daemon=True)
                    reader.start()
                    reader.join(SECONDS)
                    self.assertFalse(reader.is_alive(), "the other export waits as well")
            finally:
                control.set(hang=0)

    def test_forty_clients_of_a_mute_server(self):
        path = self.path("mute")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(100)
            server = self.server("file", self.overlay("top.qcow2", "base", "1M"), f"qluks-backing=raw:nbd+unix:///?socket={path}")
            for _ in range(40):
                self.connect_in_background(server)
            accepted = listener.accept()[0]
            self.assert_ends_soon(server)
            accepted.close()


if __name__ == "__main__":
    qluks.main()
