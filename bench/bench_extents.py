#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""How long a server takes to tell what a large, scattered qcow2 image holds: see bench/README.md.

Every tenth cluster of a disk of 1 TiB is allocated, so that a block status request for 4 GiB has an answer of 13108
extents.  Each server is asked about all of the first 4 GiB again and again; the first answer reads the L2 tables, the
later ones find them in the cache.
"""

import argparse
import os
import statistics
import struct
import subprocess
import tempfile
import time

import nbd

KIB = 1 << 10
GIB = 1 << 30
CLUSTER = 64 * KIB
L2_ENTRIES = CLUSTER // 8
COPIED = 1 << 63
DISK = 1024 * GIB
ASKED = 4 * GIB


def make_image(path):
    """qemu-img makes the image; only its tables are filled in here, as writing every tenth cluster would take hours."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(DISK)], check=True)
    with open(path, "r+b") as image:
        image.seek(36)
        l1_size, l1_offset = struct.unpack(">IQ", image.read(12))
        l2_offset = CLUSTER * (-(-os.path.getsize(path) // CLUSTER))
        data = l2_offset + l1_size * CLUSTER
        image.seek(l1_offset)
        image.write(struct.pack(f">{l1_size}Q", *(COPIED | l2_offset + i * CLUSTER for i in range(l1_size))))
        image.seek(l2_offset)
        for first in range(0, l1_size * L2_ENTRIES, L2_ENTRIES):
            table = [0] * L2_ENTRIES
            for i in range(-first % 10, L2_ENTRIES, 10):
                table[i] = COPIED | data
                data += CLUSTER
            image.write(struct.pack(f">{L2_ENTRIES}Q", *table))
        image.truncate(data)


def extents(client):
    """As many as a server gives for 4 GiB, and how many requests that took."""
    count = requests = at = 0
    while at < ASKED:
        got = []
        client.block_status(min(ASKED - at, 2**32 - CLUSTER), at,
                            lambda context, offset, entries, error: got.extend(entries))
        at += sum(got[::2])
        count += len(got) // 2
        requests += 1
    return count, requests


def measure(command, runs):
    client = nbd.NBD()
    client.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    client.connect_systemd_socket_activation(command)
    times = []
    for _ in range(runs):
        start = time.monotonic()
        count, requests = extents(client)
        times.append(1000 * (time.monotonic() - start))
    client.shutdown()
    return times[0], statistics.median(times[1:]), count, requests


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--filter", default="build/.libs/nbdkit-qluks-filter.so", help="the filter that is measured")
    parser.add_argument("--directory", default="/var/tmp", help="where the image goes: 128 MiB, and 100 GiB of holes")
    parser.add_argument("--runs", type=int, default=11)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        image = os.path.join(directory, "scattered.qcow2")
        make_image(image)
        print(f"{'':10} {'first ms':>9} {'later ms':>9} {'extents':>8} {'requests':>9}")
        for name, command in (
            ("qluks", ["nbdkit", "-f", "--exit-with-parent", "file", image, f"--filter={options.filter}"]),
            ("qemu-nbd", ["qemu-nbd", "-r", "-f", "qcow2", image]),
        ):
            first, later, count, requests = measure(command, options.runs)
            print(f"{name:10} {first:9.1f} {later:9.1f} {count:8} {requests:9}")


if __name__ == "__main__":
    main()
