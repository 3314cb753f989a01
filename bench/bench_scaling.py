#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Servers over one image in object storage: what it costs, and that nobody notices when one is replaced.  See
doc/scaling.md.

The storage is s3rver, a real server of the S3 protocol, on this machine.  nbdkit's stats filter, directly above the S3
plugin, counts what is asked of it: each read there is one GET.
"""

import argparse
import hashlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import bench_servers
import nbd
from bench_servers import MIB, SECRET, filter_exists, guest_disk, make_qcow2_luks, run

BUCKET, KEY = "images", "disk.qcow2"
ACCOUNT = "S3RVER"  # the key and the secret that s3rver comes with
RANDOM_READS = 2000
IN_FLIGHT = 4


def arguments():
    parser = argparse.ArgumentParser(description="Many servers over one image in object storage.")
    parser.add_argument("--filter", default="build/.libs/nbdkit-qluks-filter.so", help="the filter that is measured")
    parser.add_argument("--s3rver", default=shutil.which("s3rver"), help="the program (npm install s3rver)")
    parser.add_argument("--directory", default="/var/tmp", help="where images, objects and caches go")
    parser.add_argument("--size", type=int, default=256, help="of the guest disk, in MiB")
    parser.add_argument("--servers", default="1,4,16", help="how many, separated by commas")
    return parser.parse_args()


class Storage:
    def __init__(self, program, directory, image):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        objects = os.path.join(directory, "objects")
        os.mkdir(objects)
        self.process = subprocess.Popen(
            [program, "-d", objects, "-a", "127.0.0.1", "-p", str(self.port), "--configure-bucket", BUCKET],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        while "listening" not in self.process.stdout.readline():
            pass
        self.reads = self.bytes = 0
        threading.Thread(target=self.count, daemon=True).start()
        import boto3  # the S3 plugin needs it as well
        client = boto3.client("s3", endpoint_url=self.url(), aws_access_key_id=ACCOUNT, aws_secret_access_key=ACCOUNT)
        client.upload_file(image, BUCKET, KEY)

    def count(self):
        """Its log has a line for each request, with the size in words."""
        units = {"b": 1, "kb": 1 << 10, "mb": 1 << 20}
        for line in self.process.stdout:
            if found := re.search(r" 206 \d+ms ([\d.]+)([km]?b)", line):
                self.reads += 1
                self.bytes += float(found[1]) * units[found[2]]

    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def parameters(self):
        return ["S3", f"endpoint-url={self.url()}", f"access-key={ACCOUNT}", f"secret-key={ACCOUNT}", f"bucket={BUCKET}",
                f"key={KEY}"]

    def stop(self):
        self.process.kill()
        self.process.wait()


class Server(bench_servers.Server):
    """nbdkit with these filters (the first is nearest to the client) over the object."""

    def __init__(self, options, storage, directory, filters, parameters=()):
        self.dir = tempfile.mkdtemp(dir=directory)
        self.stats = os.path.join(self.dir, "stats")
        path = os.path.join(self.dir, "sock")
        names = [options.filter if f == "qluks" else f for f in filters]
        super().__init__(["env", f"TMPDIR={self.dir}", "nbdkit", "-f", "-r", "-U", path,
                          *(f"--filter={f}" for f in names), "--filter=stats", *storage.parameters(),
                          f"qluks-passphrase={SECRET}", f"statsfile={self.stats}", *parameters], path)

    def replace(self):
        """As a machine that fails, and another one that comes."""
        super().stop()
        super().__init__(self.process.args, self.socket)

    def memory_mib(self):
        with open(f"/proc/{self.process.pid}/smaps_rollup") as f:
            return int(re.search(r"^Pss:\s+(\d+)", f.read(), re.M)[1]) / 1024

    def end(self):
        """When it is asked to: only then it says what it has counted."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        self.log.close()

    def asked(self):
        """(reads, bytes) that reached storage, once the server has ended."""
        reads = size = 0
        with open(self.stats) as f:
            for ops, amount, unit in re.findall(r"^read: (\d+) ops, [\d.]+ s, ([\d.]+) (\w+)", f.read(), re.M):
                reads += int(ops)
                size += float(amount) * {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[unit]
        return reads, size


def read_pieces(h, pieces, done):
    """Each (offset, length), some at a time; done(offset, bytes)."""
    waiting = []
    def finish():
        offset, buffer, cookie = waiting.pop(0)
        while not h.aio_command_completed(cookie):
            h.poll(-1)
        done(offset, buffer.to_bytearray())
    for offset, length in pieces:
        if len(waiting) == IN_FLIGHT:
            finish()
        buffer = nbd.Buffer(length)
        waiting.append((offset, buffer, h.aio_pread(buffer, offset)))
    while waiting:
        finish()


def random_pieces(size):
    rng = random.Random(1)
    return [(rng.randrange(size // 4096) * 4096, 4096) for _ in range(RANDOM_READS)]


# Filters, and the parameters that they need.
CHAINS = [
    (["qluks"], []),
    (["cow", "qluks"], []),
    (["cow", "qluks"], ["cow-on-read=true"]),
    (["qluks", "retry"], []),
    (["qluks", "cache"], ["cache-on-read=true"]),
    (["cache", "qluks"], ["cache-on-read=true"]),
]


def seconds_to_read(h, pieces, disk):
    def check(offset, got):
        if got != disk[offset:offset + len(got)]:
            sys.exit(f"wrong bytes at {offset}")
    start = time.monotonic()
    read_pieces(h, pieces, check)
    return time.monotonic() - start


def read_twice(server, pieces, disk):
    """Seconds of the first and of the second turn, what is asked for each piece and for each byte, and MiB of memory."""
    h = server.connect()
    first = seconds_to_read(h, pieces, disk)
    memory = server.memory_mib()
    second = seconds_to_read(h, pieces, disk)
    h.shutdown()
    server.end()
    reads, asked = server.asked()
    return first, second, reads / (2 * len(pieces)), asked / (2 * sum(length for _, length in pieces)), memory


def first_byte_ms(server, start):
    h = server.connect()
    h.pread(512, 0)
    done = time.monotonic()
    h.shutdown()
    server.end()
    return (done - start) * 1000


def measure_chain(options, storage, directory, chain, disk):
    """A server of its own for each kind of read."""
    def server():
        return Server(options, storage, directory, *chain)
    size = len(disk)
    first_ms = first_byte_ms(start=time.monotonic(), server=server())
    r1, r2, rreads, rbytes, _ = read_twice(server(), random_pieces(size), disk)
    s1, s2, sreads, sbytes, memory = read_twice(server(), [(at, min(MIB, size - at)) for at in range(0, size, MIB)], disk)
    name = " ".join(chain[0] + chain[1])
    print(f"| {name} | {first_ms:.0f} | {RANDOM_READS / r1:.0f} / {RANDOM_READS / r2:.0f} | {rreads:.2f} | {rbytes:.2f} "
          f"| {size / MIB / s1:.0f} / {size / MIB / s2:.0f} | {sreads:.2f} | {sbytes:.3f} | {memory:.0f} |", flush=True)


def copy_whole(server, size, result):
    """All bytes in order, from a server that fails in the middle; reconnects and goes on where it was."""
    digest = hashlib.sha256()
    h, at, reconnected = server.connect(), 0, 0
    while at < size:
        parts = {}
        def done(offset, got):
            parts[offset] = got
            if offset <= size // 2 < offset + len(got) and reconnected == 0:
                server.replace()
        try:
            read_pieces(h, [(o, min(MIB, size - o)) for o in range(at, min(size, at + 8 * MIB), MIB)], done)
        except nbd.Error:
            reconnected += 1
            h = server.connect()
        while at in parts:
            digest.update(parts[at])
            at += len(parts[at])
    h.shutdown()
    result.append((digest.hexdigest(), reconnected, server.memory_mib()))
    server.end()  # by the thread that started it: its end may be the server's


def measure_servers(options, storage, directory, count, disk):
    servers = [Server(options, storage, directory, ["qluks"]) for _ in range(count)]
    reads, asked = storage.reads, storage.bytes
    results = []
    threads = [threading.Thread(target=copy_whole, args=(server, len(disk), results)) for server in servers]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - start
    wrong = sum(digest != hashlib.sha256(disk).hexdigest() for digest, _, _ in results)
    if wrong or len(results) != count:
        sys.exit(f"{count} servers: {wrong} clients got other bytes, {count - len(results)} none")
    reads, asked = storage.reads - reads, storage.bytes - asked
    reconnected = sum(n for _, n, _ in results)
    memory = sum(m for _, _, m in results) / count
    print(f"| {count} | {reconnected} | {count * len(disk) / MIB / seconds:.0f} "
          f"| {reads / (count * len(disk) / MIB):.2f} | {asked / (count * len(disk)):.3f} | {memory:.0f} |", flush=True)


def main():
    options = arguments()
    if not filter_exists(options.filter) or not options.s3rver:
        sys.exit("this needs the filter (make), and s3rver (npm install s3rver; --s3rver PROGRAM)")
    directory = tempfile.mkdtemp(prefix="bench-scaling-", dir=options.directory)
    try:
        raw, image = os.path.join(directory, "raw"), os.path.join(directory, "image.qcow2")
        guest_disk(raw, options.size * MIB)
        make_qcow2_luks(raw, image)
        with open(raw, "rb") as f:
            disk = f.read()
        storage = Storage(options.s3rver, directory, image)
        try:
            print(f"A disk of {options.size} MiB, {os.path.getsize(image) / MIB:.0f} MiB in storage, "
                  f"{IN_FLIGHT} requests at a time.\n")
            print("| chain | first byte, ms | random 4 KiB a second, once / again | GETs a read | bytes a byte "
                  "| copy, MiB/s, once / again | GETs a MiB | bytes a byte | MiB of memory |\n" + "|---|" + "--:|" * 8)
            for chain in CHAINS:
                measure_chain(options, storage, directory, chain, disk)
            print("\n| servers | replaced, clients reconnected | all clients, MiB/s | GETs a MiB | bytes a byte "
                  "| MiB of memory each |\n" + "|" + "--:|" * 6)
            for count in options.servers.split(","):
                measure_servers(options, storage, directory, int(count), disk)
        finally:
            storage.stop()
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
