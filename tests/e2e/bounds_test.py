# SPDX-License-Identifier: BSD-3-Clause
"""What serving may cost at most: memory beside nbdkit's own, time to open, time to stop.  Bounds are generous: they
are there for what grows without one."""

import os
import random
import struct
import threading
import time
import unittest

import nbd

import process_memory
import qluks

PASS = f"qluks-passphrase={qluks.SECRET}"
CONNECTIONS = 4
READ_BYTES_MAX = 4 * qluks.MIB
BUFFERS_MIB = CONNECTIONS * 16 * READ_BYTES_MAX // qluks.MIB  # of nbdkit's 16 threads for each connection
CACHE_MIB = 64  # qluks-cache-size
SECONDS_TO_OPEN = 5  # a header; a key derivation comes on top
SECONDS_TO_STOP = 2


def huge_qcow2(path):
    """64 TiB of clusters of 2 MiB, all L2 tables there and empty: 256 MiB of them, in a file that is one hole."""
    cluster = 2 << 20
    tables = 128
    header = struct.pack(">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, 21, 64 << 40, 0, tables, cluster, 2 * cluster, 1,
                         0, 0, 0, 0, 0, 4, 104)
    with open(path, "wb") as f:
        f.write(header)
        f.seek(cluster)
        f.write(b"".join(struct.pack(">Q", (3 + i) * cluster | 1 << 63) for i in range(tables)))
        f.truncate((3 + tables) * cluster)
    return path


def tables_without_end(path, tables):
    """So many empty L2 tables of 512 bytes, each counted, for a disk of 32 KiB each."""
    cluster = 512
    l1_clusters = -(-tables * 8 // cluster)
    before = 1 + l1_clusters
    # Blocks of 256 counts, which count themselves, and their table.
    blocks = -(-(before + tables) // 255) + 64
    table_clusters = -(-blocks * 8 // cluster)
    first_block = before + tables
    table_at = first_block + blocks
    used = table_at + table_clusters
    assert used <= blocks * 256
    header = struct.pack(">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, 9, tables * 32768, 0, tables, cluster,
                         table_at * cluster, table_clusters, 0, 0, 0, 0, 0, 4, 104)
    with open(path, "wb") as f:
        f.write(header)
        f.seek(cluster)
        f.write(b"".join(struct.pack(">Q", (before + i) * cluster | 1 << 63) for i in range(tables)))
        f.seek(first_block * cluster)
        f.write(b"\0\1" * used)
        f.seek(table_at * cluster)
        f.write(b"".join(struct.pack(">Q", (first_block + i) * cluster) for i in range(blocks)))
        f.truncate((used + 64) * cluster)
    return path


def read_at_random(server, size):
    """As many requests at once as nbdkit has threads, on each connection."""
    def read(seed):
        rng = random.Random(seed)
        with server.connect() as h:
            buffers = []
            for length in (4096, 65536, qluks.MIB, READ_BYTES_MAX):
                for _ in range(32):
                    buffer = nbd.Buffer(min(length, size))
                    buffers.append(buffer)
                    h.aio_pread(buffer, rng.randrange(size - buffer.size() + 1))
                while h.aio_in_flight() > 0:
                    h.poll(-1)
                buffers.clear()

    qluks.in_threads(CONNECTIONS, read)


def walk_extents(server, size):
    step = (4 << 30) - (2 << 20)

    def walk(i):
        with server.connect(extents=True) as h:
            for at in range(i * step, size - step, CONNECTIONS * step):
                qluks.extents(h, at, step, qluks.nbd.CMD_FLAG_REQ_ONE)

    qluks.in_threads(CONNECTIONS, walk)


@unittest.skipIf(qluks.PRELOAD, "sanitizers need memory of their own")
class Memory(qluks.TestCase):
    content = qluks.source_bytes(48 * qluks.MIB)

    def assert_takes(self, most_mib, load, *args):
        """At most that much beside the buffers of the requests, which are nbdkit's."""
        server = self.server("file", *args)
        with server.connect() as h:
            size = h.get_size()
        load(server, size)
        self.assertLess(process_memory.resident_kib_most(server.pid) / 1024, most_mib)
        server.stop()

    def test_reading_luks(self):
        image = self.luks2("image.luks", self.content)
        self.assert_takes(BUFFERS_MIB + 32, read_at_random, image, PASS)

    def test_reading_qcow2(self):
        for cluster in (512, 65536):
            with self.subTest(cluster=cluster):
                image = self.qcow2("image.qcow2", self.content, 3, cluster)
                self.assert_takes(BUFFERS_MIB + 32, read_at_random, image)

    def test_reading_compressed_clusters_of_2_mib(self):
        raw = self.write("src", self.content)
        image = self.path("image.qcow2")
        qluks.run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=2M", raw, image)
        self.assert_takes(BUFFERS_MIB + CACHE_MIB + 96, read_at_random, image)

    def test_writing(self):
        """Sixteen connections, at random, into a disk whose tables do not fit into the cache."""
        for cluster in (65536, 4096):
            image = self.path("image.qcow2")
            qluks.run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"cluster_size={cluster}", image, "64G")
            os.truncate(image, 1 << 30)

            def write_at_random(server, size):
                def write(seed):
                    rng = random.Random(seed)
                    data = rng.randbytes(65536)
                    with server.connect() as h:
                        for i in range(60):
                            h.pwrite(data[:rng.choice([4096, 65536])], rng.randrange(size - 65536) & ~511)
                            if i % 16 == 15:
                                h.flush()

                qluks.in_threads(16, write)

            cache_mib = 8
            self.assert_takes(2 * cache_mib + 64, write_at_random, image, f"qluks-cache-size={cache_mib}M")
            qluks.run("qemu-img", "check", image)

    def test_tables_that_have_to_be_known_for_writing(self):
        """They are counted for all images of a server together; beyond the limit an image is served read-only."""
        directory = self.path("exports")
        os.mkdir(directory)
        image = tables_without_end(self.path("image.qcow2"), 400_000)
        for i in range(12):
            os.link(image, f"{directory}/{i}")
        server = self.server("file", f"dir={directory}")
        held = [server.connect(str(i)) for i in range(12)]
        writable = [not connection.h.is_read_only() for connection in held]
        self.assertTrue(writable[0] and not writable[-1], writable)
        self.assertIn("the tables of all open images have", server.lines("served read-only: ")[0])
        self.assertLess(process_memory.resident_kib_most(server.pid) / 1024, 256 + 64 + 128)
        for connection in held:
            connection.h.shutdown()
        server.wait_until_all_have_left()
        with server.connect("11") as h:
            self.assertFalse(h.is_read_only(), "what the other images took was not given back")
        server.stop()
        too_many = tables_without_end(self.path("too-many.qcow2"), 1_050_000)
        server = self.server("file", too_many)
        with server.connect() as h:
            self.assertTrue(h.is_read_only())
        self.assertRegex(server.lines("served read-only: ")[0], "more than 1048576 L2 tables and refcount blocks")

    def test_tables_of_a_huge_disk(self):
        image = huge_qcow2(self.path("huge.qcow2"))
        for cache_mib in (4, CACHE_MIB):
            # Small pieces that come and go in many threads leave malloc with as much again.
            self.assert_takes(2 * cache_mib + 64, walk_extents, image, f"qluks-cache-size={cache_mib}M")


class Time(qluks.TestCase):
    def test_opening(self):
        content = qluks.source_bytes(qluks.MIB)
        for args in (("file", huge_qcow2(self.path("huge.qcow2"))), ("file", self.luks2("image.luks", content), PASS)):
            server = self.server(*args)
            start = time.monotonic()
            with server.connect():
                self.assertLess(time.monotonic() - start, SECONDS_TO_OPEN)

    def test_opening_for_writing(self):
        """64 TiB: empty, and with a table for each part of it."""
        empty = self.path("empty.qcow2")
        qluks.run("qemu-img", "create", "-q", "-f", "qcow2", empty, "64T")
        os.truncate(empty, 64 * qluks.MIB)
        for image in (empty, tables_without_end(self.path("tables.qcow2"), 1_000_000)):
            server = self.server("file", image)
            start = time.monotonic()
            with server.connect() as h:
                self.assertFalse(h.is_read_only())
                h.pwrite(b"x" * 512, h.get_size() - 512)
                h.flush()
                self.assertLess(time.monotonic() - start, SECONDS_TO_OPEN)
            server.stop()
            qluks.run("qemu-img", "check", image)

    def test_what_a_client_leaves_to_be_written_is_bounded(self):
        """Tables fill a quarter of the cache at the most: 64 slices here, with their refcounts."""
        image = self.path("image.qcow2")
        qluks.run("qemu-img", "create", "-q", "-f", "qcow2", image, "512G")
        os.truncate(image, 256 * qluks.MIB)
        log = self.path("requests")
        server = self.server("file", image, "qluks-cache-size=1M", f"logfile={log}", filters=["log"])
        with server.connect() as h:
            for i in range(300):
                h.pwrite(b"x" * 512, i << 30)
            h.pread(512, 0)
            with open(log) as f:
                written = f.read().count("Write id=")
        server.wait_for(r"qluks: .*finalize|file: close|close$")
        server.stop()
        with open(log) as f:
            at_the_end = f.read().count("Write id=") - written
        self.assertGreater(at_the_end, 0)
        self.assertLess(at_the_end, 64 + 64 // 16 + 64)
        qluks.run("qemu-img", "check", image)

    def test_stopping_while_clients_read(self):
        """nbdkit tells them, and ends when they have left."""
        server = self.server("file", self.luks2("image.luks", qluks.source_bytes(8 * qluks.MIB)), PASS)
        reading = threading.Semaphore(0)

        def read_until_told(_):
            h = server.connect().h
            reading.release()
            try:
                while True:
                    h.pread(qluks.MIB, 12345)
            except nbd.Error:
                pass  # and leave

        clients = threading.Thread(target=qluks.in_threads, args=(8, read_until_told))
        clients.start()
        for _ in range(8):
            reading.acquire()
        start = time.monotonic()
        server.stop()
        self.assertLess(time.monotonic() - start, SECONDS_TO_STOP)
        clients.join()


if __name__ == "__main__":
    qluks.main()
