#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Eight tenants in one server, one of them hostile: what do the other seven notice?  See bench/README.md.

In each round every hostile way has one turn, on a server of its own, and so has a turn without any.  In a turn the
hostile clients are at work first; then the seven volumes are unlocked one after the other, and then copied all at once.
Ratios are taken to the turn without a hostile tenant of the same round, and medians over the rounds.
"""

import argparse
import contextlib
import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time

import nbd
from bench_servers import MIB, SECRET, filter_exists, make_qcow2_luks, median, run

TENANTS = [f"tenant{n}" for n in range(7)]
FOREIGN = 256
OTHER_SECRET = "another secret"


def arguments():
    parser = argparse.ArgumentParser(description="Seven tenants beside a hostile one.")
    parser.add_argument("--filter", default="build/.libs/nbdkit-qluks-filter.so", help="the filter that is measured")
    parser.add_argument("--directory", default="/dev/shm", help="where the images go; memory: no disk is measured")
    parser.add_argument("--size", type=int, default=256, help="of each tenant's disk, in MiB")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


# Images of the hostile tenant


def qcow2_header(cluster_bits, size, l1_entries, l1_offset):
    return struct.pack(">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, cluster_bits, size, 0, l1_entries, l1_offset,
                       1 << cluster_bits, 1, 0, 0, 0, 0, 0, 4, 104)


def make_shared_l2(path):
    """A disk of 4 GiB in clusters of 512 bytes; all L1 entries lead to one L2 table."""
    entries = (4 << 30) // (64 * 512)
    data = 4096 + entries * 8
    with open(path, "wb") as f:
        f.write(qcow2_header(9, 4 << 30, entries, 4096).ljust(4096, b"\0"))
        f.write(struct.pack(">Q", data) * entries)
        for n in range(64):
            f.write(struct.pack(">Q", (1 << 63 | data + 512) if n % 2 == 0 else 0))
        f.write(bytes(512))


def make_large_l1(path):
    """A sparse file with the largest L1 table that there is."""
    entries = (32 << 20) // 8
    with open(path, "wb") as f:
        f.write(qcow2_header(16, entries << 29, entries, 1 << 20))
        f.truncate(40 << 20)


def make_header(path, secret, iterations=1000):
    """A LUKS1 volume, and what its header is to say of its first slot's iterations."""
    with open(path, "wb") as f:
        f.truncate(4 * MIB)
    run("cryptsetup", "luksFormat", "-q", "--type", "luks1", "--pbkdf-force-iterations", 1000, "--key-file", "-", path,
        stdin=secret.encode())
    with open(path, "r+b") as f:
        f.seek(208 + 4)
        f.write(struct.pack(">I", iterations))


def make_foreign(folder):
    first = os.path.join(folder, "foreign0")
    make_header(first, OTHER_SECRET)
    with open(first, "rb") as f:
        content = bytearray(f.read())
    for n in range(1, FOREIGN):
        content[168:168 + 36] = f"{n:08x}-0000-4000-8000-000000000000".encode()
        with open(os.path.join(folder, f"foreign{n}"), "wb") as f:
            f.write(content)


def make_images(directory, size):
    folder = os.path.join(directory, "exports")
    os.mkdir(folder)
    raw = os.path.join(directory, "raw")
    with open(raw, "wb") as f:
        for _ in range(size):
            f.write(os.urandom(MIB))
    for tenant in TENANTS:
        make_qcow2_luks(raw, os.path.join(folder, tenant))
    os.unlink(raw)
    make_shared_l2(os.path.join(folder, "shared-l2"))
    for n in range(9):
        make_large_l1(os.path.join(folder, f"large-l1-{n}"))
    for n in range(3):
        make_header(os.path.join(folder, f"dear{n}"), OTHER_SECRET, iterations=200_000_000)
    make_foreign(folder)
    backing, kind = os.path.join(directory, "base"), "raw"
    run("qemu-img", "create", "-f", "raw", backing, "64M")
    for level in range(63, -1, -1):
        path = os.path.join(folder if level == 0 else directory, f"chain{level}")
        run("qemu-img", "create", "-f", "qcow2", "-b", backing, "-F", kind, path)
        backing, kind = path, "qcow2"
    return folder


# Servers


class Process:
    """An nbdkit in the foreground."""

    def __init__(self, directory, name, *args):
        self.socket = os.path.join(directory, name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)
        self.process = subprocess.Popen(["nbdkit", "-f", "-r", "-U", self.socket, *args], stderr=subprocess.DEVNULL)
        while not os.path.exists(self.socket):
            if self.process.poll() is not None:
                sys.exit(f"nbdkit {args} has ended")
            time.sleep(0.01)

    def uri(self, export=""):
        return f"nbd+unix:///{export}?socket={self.socket}"

    def stop(self):
        self.process.kill()
        self.process.wait()


class Hostile:
    """Threads that do something again and again, whatever comes of it, until they are told to end."""

    def __init__(self, server, ways):
        self.server, self.ended = server, False
        acts = [act for way in ways for act in WAYS[way]]
        self.threads = [threading.Thread(target=self.go_on, args=(act,), daemon=True) for act in acts]
        for thread in self.threads:
            thread.start()

    def go_on(self, act):
        n = 0
        while not self.ended:
            with contextlib.suppress(nbd.Error):
                h = nbd.NBD()
                h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
                act(h, self.server, n)
            n += 1


def connects_to(pattern, count):
    """To one of the images after the other."""
    def act(h, server, n):
        h.connect_uri(server.uri(pattern.format(n % count)))
    return act


def asks(h, server, export):
    h.connect_uri(server.uri(export))
    return lambda *_: 0


def block_status(export, length):
    def act(h, server, _):
        callback = asks(h, server, export)
        for _ in range(16):
            h.block_status(length, 0, callback)
    return act


def caches(h, server, _):
    h.connect_uri(server.uri("shared-l2"))
    for _ in range(16):
        h.cache((4 << 30) - 512, 0)


WAYS = {
    "none": [],
    "block status of a chain of 64": [block_status("chain0", 64 * MIB)],
    "CACHE over a shared L2": [caches],
    "block status over a shared L2": [block_status("shared-l2", (4 << 30) - 512)],
    "200 million iterations": [connects_to("dear{}", 3)] * 3,
    "a key command that sleeps": [connects_to("foreign{}", FOREIGN)] * 4,
    "large L1 tables": [connects_to("large-l1-{}", 9)] * 2,
}
ALL = "all of these"


def turn(directory, filter_path, folder, way):
    server = Process(directory, "server.sock", f"--filter={filter_path}", "file", f"dir={folder}",
                     f"qluks-backing-dir={directory}", f"qluks-passphrase={SECRET}",
                     "qluks-key-command=sleep 1; printf wrong", "qluks-kdf-time=100000")
    hostile = Hostile(server, [w for w in WAYS if way in (w, ALL)])
    time.sleep(1)  # they are at work
    try:
        start = time.monotonic()
        for tenant in TENANTS:
            run("nbdinfo", "--size", server.uri(tenant))
        unlock = (time.monotonic() - start) / len(TENANTS)
        start = time.monotonic()
        copies = [subprocess.Popen(["nbdcopy", server.uri(tenant), "null:"]) for tenant in TENANTS]
        if any(copy.wait() for copy in copies):
            sys.exit(f"{way}: a copy has failed")
        return unlock, time.monotonic() - start
    finally:
        hostile.ended = True
        server.stop()
        for thread in hostile.threads:
            thread.join()


def main():
    options = arguments()
    if not filter_exists(os.path.abspath(options.filter)):
        sys.exit(f"no filter {options.filter}: build it first")
    turns = [*WAYS, ALL]
    unlocks, copies = {way: [] for way in turns}, {way: [] for way in turns}
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        folder = make_images(directory, options.size)
        for _ in range(options.rounds):
            of_round = {way: turn(directory, os.path.abspath(options.filter), folder, way) for way in turns}
            for way, (unlock, copy) in of_round.items():
                unlocks[way].append(unlock / of_round["none"][0])
                copies[way].append(of_round["none"][1] / copy)
            print(json.dumps(of_round), flush=True)
    print(f"\n{'the eighth tenant':34}{'throughput':>12}{'unlock':>9}")
    for way in turns:
        print(f"{way:34}{median(copies[way]):11.2f}x{median(unlocks[way]):8.2f}x")


if __name__ == "__main__":
    main()
