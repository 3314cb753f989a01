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
        self.assert_takes(BUFFERS_MIB + CACHE_MIB + 64, read_at_random, image)

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
