#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""The filter against other servers while images are written: see bench/README.md.

In each round every server of an image has one turn on a fresh image: a copy into it, a copy over it, then random writes of
4 KiB.  The ceiling is nbdkit's file plugin without a filter on a raw file.  Ratios are taken within a round, and medians over
the rounds.  With --disk, qcow2 images on a real disk as well: random writes of 4 KiB into an empty image of 16 GiB, flushed
after every 32.
"""

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
import time

from bench_servers import CEILING, GIB, ITERATIONS, MIB, OURS, SECRET, Server, filter_exists, median, run


def arguments():
    parser = argparse.ArgumentParser(description="Compare servers of disk images that are written.")
    parser.add_argument("--filter", default="build/.libs/nbdkit-qluks-filter.so", help="the filter that is measured")
    parser.add_argument("--directory", default="/dev/shm", help="where the images go; memory, so that no disk is measured")
    parser.add_argument("--size", type=int, default=256, help="of the guest disk, in MiB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runtime", type=int, default=3, help="seconds of random writes in a turn")
    parser.add_argument("--disk", help="a directory on a real disk")
    parser.add_argument("--images", default="", help="only these, separated by commas")
    return parser.parse_args()


# Images, empty


def empty_raw(path, size):
    with open(path, "wb") as f:
        f.truncate(size)


def empty_luks(version, *options):
    def make(path, size):
        empty_raw(path, 32 * MIB + size)
        run("cryptsetup", "luksFormat", "-q", "--type", version, "--cipher", "aes-xts-plain64", "--key-size", 512,
            "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", ITERATIONS, "--key-file", "-", *options, path,
            stdin=SECRET.encode())
        dump = run("cryptsetup", "luksDump", path)
        sectors = re.search(r"Payload offset:\s*(\d+)", dump)
        offset = int(sectors.group(1)) * 512 if sectors else int(re.search(r"offset: (\d+) \[bytes\]", dump).group(1))
        os.truncate(path, offset + size)
    return make


def empty_qcow2(*options):
    def make(path, size):
        run("qemu-img", "create", "-f", "qcow2", "--object", f"secret,id=s,data={SECRET}", *options, path, str(size))
    return make


LUKS_INSIDE = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=100"
IMAGES = {
    "raw": empty_raw,
    "luks1": empty_luks("luks1"),
    "luks2-512": empty_luks("luks2", "--sector-size", 512),
    "luks2-4096": empty_luks("luks2", "--sector-size", 4096),
    "qcow2": empty_qcow2(),
    "qcow2+luks": empty_qcow2("-o", LUKS_INSIDE),
}


# Servers


def ours(options, image):
    name = os.path.basename(image)
    secret = [f"qluks-passphrase={SECRET}"] if "luks" in name else []
    grow = [f"qluks-grow={image}"] if "qcow2" in name else []
    layers = ["qluks-layers=raw"] if name == "raw" else []
    return ["nbdkit", "-f", f"--filter={os.path.abspath(options.filter)}", "file", image, *secret, *grow, *layers]


def nbdkit_file(options, image):
    return ["nbdkit", "-f", "file", image]


def nbdkit_luks(options, image):
    return ["nbdkit", "-f", "--filter=luks", "file", image, f"passphrase={SECRET}"]


def qemu_nbd(options, image):
    driver = {"raw": "driver=raw", "luks1": "driver=luks,key-secret=s",
              "qcow2+luks": "driver=qcow2,encrypt.format=luks,encrypt.key-secret=s"}.get(os.path.basename(image),
                                                                                          "driver=qcow2")
    return ["qemu-nbd", "-t", "-e", "16", "--object", f"secret,id=s,data={SECRET}", "--image-opts",
            f"{driver},file.filename={image}"]


def servers_of(name):
    servers = {CEILING: nbdkit_file, OURS: ours}
    if not name.startswith("luks2"):
        servers["qemu-nbd"] = qemu_nbd
    if name == "luks1" and filter_exists("luks"):
        servers["nbdkit luks"] = nbdkit_luks
    return servers


# Measures


def copy_seconds(source, server):
    started = time.monotonic()
    run("nbdcopy", "--flush", source, server.uri)
    return time.monotonic() - started


def random_iops(server, options, *more, size=None):
    printed = run("fio", "--name=random", "--ioengine=nbd", f"--uri={server.uri}", "--rw=randwrite", "--bs=4k",
                  "--iodepth=32", "--norandommap", "--time_based", f"--runtime={options.runtime}",
                  f"--size={size or options.size * MIB}", "--output-format=json", *more)
    return json.loads(printed[printed.index("{"):])["jobs"][0]["write"]["iops"]


def start(name, command, options, directory, size):
    """(server, path of the fresh image)"""
    socket = os.path.join(directory, "socket")
    image = os.path.join(directory, "raw" if command is nbdkit_file else name)
    (empty_raw if command is nbdkit_file else IMAGES[name])(image, size)
    words = command(options, image)
    command = [*words[:2], "-U", socket, *words[2:]] if words[0] == "nbdkit" else [*words, "-k", socket]
    return Server(command, socket), image


def allocating_turn(name, command, options, directory):
    """Random writes into an empty image, flushed now and then: IOPS."""
    size = 16 * GIB
    server, image = start(name, command, options, directory, size)
    try:
        server.connect().shutdown()
        return random_iops(server, options, "--fsync=32", size=size)
    finally:
        server.stop()
        os.unlink(image)


def print_allocating(name, rounds):
    print(f"\n{name}, empty, flushed after every 32 writes\n{'':14} 4k IOPS  / no filter  / qemu-nbd")
    for who in rounds[0]:
        print(f"{who:14} {median([r[who] for r in rounds]):7.0f} {median([r[who] / r[CEILING] for r in rounds]):12.2f}"
              f" {median([r[who] / r['qemu-nbd'] for r in rounds]):11.2f}")
    sys.stdout.flush()


def turn(name, command, options, directory):
    """Everything that one server is asked in one round."""
    size = options.size * MIB
    source = os.path.join(directory, "source")
    server, image = start(name, command, options, directory, size)
    try:
        server.connect().shutdown()
        before = server.cpu_seconds()
        result = {"in": size / copy_seconds(source, server) / 1e6}
        result["over"] = size / copy_seconds(source, server) / 1e6
        result["cpu"] = (server.cpu_seconds() - before) / (2 * size / GIB)
        result["iops"] = random_iops(server, options)
        result["memory"] = server.peak_memory() / MIB
        return result
    finally:
        server.stop()
        os.unlink(image)


def print_table(name, rounds):
    def of(who, what):
        return median([r[who][what] for r in rounds])

    def share(who, what):
        return median([r[who][what] / r[CEILING][what] for r in rounds])

    print(f"\n{name}\n{'':14} in MB/s  share | over MB/s  share | 4k IOPS  share | CPU s/GiB |  MiB")
    for who in rounds[0]:
        print(f"{who:14} {of(who, 'in'):7.0f} {share(who, 'in'):6.2f} | {of(who, 'over'):9.0f} {share(who, 'over'):6.2f} |"
              f" {of(who, 'iops'):7.0f} {share(who, 'iops'):6.2f} | {of(who, 'cpu'):9.2f} | {of(who, 'memory'):4.0f}")
    sys.stdout.flush()


def main():
    options = arguments()
    for program in ("nbdkit", "nbdcopy", "qemu-nbd", "qemu-img", "cryptsetup", "fio"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is not installed")
    names = options.images.split(",") if options.images else list(IMAGES)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=os.path.realpath(options.directory)) as directory:
        with open(os.path.join(directory, "source"), "wb") as f:
            for _ in range(options.size):
                f.write(os.urandom(MIB))
        for name in names:
            servers = servers_of(name)
            print_table(name, [{who: turn(name, command, options, directory) for who, command in servers.items()}
                               for _ in range(options.rounds)])
    if options.disk is None:
        return
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.disk) as directory:
        for name in [name for name in names if name.startswith("qcow2")]:
            servers = servers_of(name)
            print_allocating(name, [{who: allocating_turn(name, command, options, directory)
                                     for who, command in servers.items()} for _ in range(options.rounds)])


if __name__ == "__main__":
    main()
