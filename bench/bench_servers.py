#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""The filter against other servers of the same images, as clients see them: see bench/README.md.

Everybody serves the same files from the page cache.  In each round every server of an image has one turn: it is
started, opened, copied, read at random and stopped.  Ratios are taken within a round, and medians over the rounds.
"""

import argparse
import http.server
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import inflate_alone
import nbd

MIB = 1 << 20
GIB = 1 << 30
SECRET = "correct horse"
LUKS2_PAYLOAD_OFFSET = 16 * MIB
ITERATIONS = "100000"  # of PBKDF2, in every header that cryptsetup makes
TICKS = os.sysconf("SC_CLK_TCK")
CEILING = "nbdkit file"
OURS = "qluks"


def arguments():
    parser = argparse.ArgumentParser(description="Compare servers of disk images.")
    parser.add_argument("--filter", default="build/.libs/nbdkit-qluks-filter.so", help="the filter that is measured")
    parser.add_argument("--directory", default="/var/tmp", help="where the images go; they should fit into memory")
    parser.add_argument("--size", type=int, default=1024, help="of the guest disk, in MiB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runtime", type=int, default=3, help="seconds of random reads in a turn")
    parser.add_argument("--images", default="", help="only these, separated by commas")
    parser.add_argument("--chroot", help="a root directory with other versions of nbdkit and qemu-nbd, measured as "
                        "well; --directory must lie in it")
    return parser.parse_args()


def run(*command, stdin=None):
    for _ in range(20):
        done = subprocess.run([str(c) for c in command], input=stdin, capture_output=True)
        # qemu-img times PBKDF2 to choose its iterations, and gives up when the clock is too coarse: then again.
        if b"Unable to get accurate CPU usage" not in done.stderr:
            break
    if done.returncode != 0:
        sys.exit(f"{command} failed with {done.returncode}:\n{done.stderr.decode(errors='replace')}")
    return done.stdout.decode(errors="replace")


def median(values):
    return statistics.median(values) if values else None


# Images


def guest_disk(path, size):
    """Every 64 KiB has text, records and noise, so that every cluster compresses, to about the half."""
    rng = random.Random(1)
    words = [bytes(rng.choices(b"etaoinshrdlucmfw", k=rng.randint(2, 9))) for _ in range(4000)]
    pieces = []
    for n in range(256):
        text = b" ".join(rng.choices(words, k=8000))[:32 * 1024]
        records = b"".join(rng.randint(0, 5000).to_bytes(8, "little") for _ in range(1536))
        pieces.append((text + records).ljust(44 * 1024, b"\0") + rng.randbytes(20 * 1024))
    with open(path, "wb") as f:
        for _ in range(size // (64 * 1024)):
            f.write(rng.choice(pieces))


def make_qcow2(raw, path, *options):
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, raw, path)


def make_luks1(raw, path):
    with open(path, "wb") as f:
        f.truncate(4 * MIB + os.path.getsize(raw))
    run("cryptsetup", "luksFormat", "-q", "--type", "luks1", "--cipher", "aes-xts-plain64", "--key-size", 512,
        "--pbkdf-force-iterations", ITERATIONS, "--key-file", "-", path, stdin=SECRET.encode())
    dump = run("cryptsetup", "luksDump", path)
    os.truncate(path, int(re.search(r"Payload offset:\s*(\d+)", dump).group(1)) * 512 + os.path.getsize(raw))
    run("qemu-img", "convert", "--object", f"secret,id=s,data={SECRET}", "-n", "-f", "raw", raw,
        "--target-image-opts", f"driver=luks,file.filename={path},key-secret=s")


def make_luks2(raw, path, sector):
    shutil.copyfile(raw, path)
    os.truncate(path, os.path.getsize(raw) + 2 * LUKS2_PAYLOAD_OFFSET)
    run("cryptsetup", "reencrypt", "--encrypt", "--type", "luks2", "--force-offline-reencrypt", "-q",
        "--reduce-device-size", "32M", "--sector-size", sector, "--pbkdf", "pbkdf2",
        "--pbkdf-force-iterations", ITERATIONS, "--key-file", "-", path, stdin=SECRET.encode())
    os.truncate(path, os.path.getsize(raw) + LUKS2_PAYLOAD_OFFSET)


def make_qcow2_luks(raw, path):
    make_qcow2(raw, path, "--object", f"secret,id=s,data={SECRET}", "-o",
               "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=100")


def into_page_cache(path):
    """cryptsetup writes around it."""
    with open(path, "rb", buffering=0) as f:
        while f.read(MIB):
            pass


IMAGES = {
    "raw": None,  # the guest disk itself
    "qcow2": make_qcow2,
    "zlib": lambda raw, path: make_qcow2(raw, path, "-c"),
    "zlib 2M": lambda raw, path: make_qcow2(raw, path, "-c", "-o", "cluster_size=2M"),
    "zstd": lambda raw, path: make_qcow2(raw, path, "-c", "-o", "compression_type=zstd"),
    "luks1": make_luks1,
    "luks2-512": lambda raw, path: make_luks2(raw, path, 512),
    "luks2-4096": lambda raw, path: make_luks2(raw, path, 4096),
    "qcow2+luks": make_qcow2_luks,
}


# Servers


def nbdkit_command(arguments_of):
    def command(options, image, socket):
        return ["nbdkit", "-f", "-r", "-U", socket, *arguments_of(options, image)]
    return command


def ours(options, image):
    secret = [f"qluks-passphrase={SECRET}"] if "luks" in image else []
    layers = ["qluks-layers=raw"] if image.endswith("/raw") else []
    return [f"--filter={os.path.abspath(options.filter)}", "file", image, *secret, *layers]


def nbdkit_luks(options, image):
    return ["--filter=luks", "file", image, f"passphrase={SECRET}"]


def qemu_nbd(options, image, socket):
    name = os.path.basename(image)
    image_options = {"raw": "driver=raw", "luks1": "driver=luks,key-secret=s",
                     "qcow2+luks": "driver=qcow2,encrypt.format=luks,encrypt.key-secret=s"}.get(name, "driver=qcow2")
    return ["qemu-nbd", "-r", "-t", "-e", "16", "-k", socket, "--object", f"secret,id=s,data={SECRET}",
            "--image-opts", f"{image_options},file.filename={image}"]


def in_chroot(command):
    """The same command, where the directory of the images has another name."""
    def wrapped(options, image, socket):
        root = os.path.realpath(options.chroot)
        return ["chroot", root, *(word.replace(root + "/", "/") for word in command(options, image, socket))]
    return wrapped


class Skip(Exception):
    pass


def filter_exists(name, root="/"):
    enter = [] if root == "/" else ["chroot", root]
    done = subprocess.run([*enter, "nbdkit", f"--filter={name}", "null", "--version"], capture_output=True)
    return done.returncode == 0


def servers_of(name, options):
    """{server: command} for one image, and why others are not there."""
    servers = {CEILING: nbdkit_command(lambda options, image: ["file", image]), OURS: nbdkit_command(ours)}
    skipped = []
    qcow2 = name in ("qcow2", "zlib", "zlib 2M", "zstd", "qcow2+luks")
    if name.startswith("luks2"):
        skipped.append("qemu-nbd, nbdkit luks: they have no LUKS2")
    else:
        servers["qemu-nbd"] = qemu_nbd
        if options.chroot:
            servers["qemu-nbd (chroot)"] = in_chroot(qemu_nbd)
    if name == "luks1":
        servers["nbdkit luks"] = nbdkit_command(nbdkit_luks)
    if qcow2 and name != "qcow2+luks":
        decoder = nbdkit_command(lambda options, image: ["--filter=qcow2dec", "file", image])
        if filter_exists("qcow2dec"):
            servers["qcow2dec"] = decoder
        elif options.chroot and filter_exists("qcow2dec", options.chroot):
            servers["qcow2dec (chroot)"] = in_chroot(decoder)
        else:
            skipped.append("qcow2dec: this nbdkit has no such filter, which came with version 1.44")
    return servers, skipped


class Server:
    def __init__(self, command, socket):
        self.socket = socket
        self.uri = f"nbd+unix:///?socket={socket}"
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self.log)

    def connect(self):
        """A connection as soon as there can be one."""
        while True:
            handle = nbd.NBD()
            try:
                handle.connect_uri(self.uri)
                return handle
            except nbd.Error:
                if self.process.poll() is not None:
                    self.log.seek(0)
                    sys.exit(f"{self.process.args} ended:\n{self.log.read().decode(errors='replace')}")
                time.sleep(0.002)

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as f:
            fields = f.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def peak_memory(self):
        with open(f"/proc/{self.process.pid}/status") as f:
            return int(re.search(r"VmHWM:\s*(\d+)", f.read()).group(1)) * 1024

    def stop(self):
        self.process.kill()  # a server that is asked waits for its clients
        self.process.wait()
        self.log.close()
        if os.path.exists(self.socket):
            os.unlink(self.socket)


# Measures


def copy_seconds(server, *options):
    started = time.monotonic()
    run("nbdcopy", *options, server.uri, "null:")
    return time.monotonic() - started


def random_iops(server, options):
    printed = run("fio", "--name=random", "--ioengine=nbd", f"--uri={server.uri}", "--rw=randread", "--bs=4k",
                  "--iodepth=32", "--norandommap", "--time_based", f"--runtime={options.runtime}",
                  f"--size={options.size}M", "--output-format=json")
    return json.loads(printed[printed.index("{"):])["jobs"][0]["read"]["iops"]  # the engine prints a line before


def turn(command, options, image, socket):
    """Everything that one server is asked in one round."""
    gib = options.size * MIB / GIB
    started = time.monotonic()
    server = Server(command(options, image, socket), socket)
    try:
        connection = server.connect()
        connection.pread(512, 0)
        result = {"open": time.monotonic() - started}
        connection.shutdown()
        before = server.cpu_seconds()
        result["speed"] = options.size * MIB / copy_seconds(server) / 1e6
        result["cpu"] = (server.cpu_seconds() - before) / gib
        result["iops"] = random_iops(server, options)
        copy_seconds(server, "--connections=16")
        result["memory"] = server.peak_memory() / MIB
        return result
    finally:
        server.stop()


def measure(name, options, directory):
    raw = os.path.join(directory, "raw")
    image = os.path.join(directory, name)
    if image != raw:
        IMAGES[name](raw, image)
    into_page_cache(image)
    servers, skipped = servers_of(name, options)
    rounds = []
    for _ in range(options.rounds):
        rounds.append({who: turn(command, options, raw if who == CEILING else image,
                                 os.path.join(directory, "socket")) for who, command in servers.items()})
    print_table(name, rounds, skipped)
    if name.startswith(("zlib", "zstd")):
        library, alone = inflate_alone.seconds_per_gib(image)
        ours_spent = median([r[OURS]["cpu"] for r in rounds])
        print(f"  {library} alone: {alone:.2f} CPU s/GiB, {100 * alone / ours_spent:.0f} % of ours", flush=True)
    if image != raw:
        os.unlink(image)


def print_table(name, rounds, skipped):
    def of(who, what):
        return median([r[who][what] for r in rounds])

    def ratio(who, other, what):
        return median([r[who][what] / r[other][what] for r in rounds if r[other][what] > 0]) or float("nan")

    print(f"\n{name}\n{'':20}   MB/s  share  ours | CPU s/GiB  ours |  4k IOPS  share  ours | open ms | MiB  above")
    for who in rounds[0]:
        print(f"{who:20} {of(who, 'speed'):6.0f} {ratio(who, CEILING, 'speed'):6.2f} {ratio(OURS, who, 'speed'):5.2f} |"
              f" {of(who, 'cpu'):9.2f} {ratio(OURS, who, 'cpu'):5.2f} |"
              f" {of(who, 'iops'):8.0f} {ratio(who, CEILING, 'iops'):6.2f} {ratio(OURS, who, 'iops'):5.2f} |"
              f" {of(who, 'open') * 1e3:7.0f} | {of(who, 'memory'):3.0f} {of(who, 'memory') - of(CEILING, 'memory'):6.0f}")
    for why in skipped:
        print(f"  without {why}")
    sys.stdout.flush()


# How many requests a web server gets


class RangeHandler(http.server.BaseHTTPRequestHandler):
    """Serves one file in parts and counts them."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # a reply in one piece: else each costs a delayed acknowledgement
    path_served = None
    requests = 0

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(os.path.getsize(self.path_served)))
        self.end_headers()

    def do_GET(self):
        first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups())
        with open(self.path_served, "rb") as f:
            f.seek(first)
            body = f.read(last + 1 - first)
        RangeHandler.requests += 1
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{os.path.getsize(self.path_served)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def count_requests(name, options, directory):
    raw = os.path.join(directory, "raw")
    image = os.path.join(directory, name)
    IMAGES[name](raw, image)
    RangeHandler.path_served = image
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), RangeHandler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    contestants = {OURS: ours}
    if name == "luks1":
        contestants["nbdkit luks"] = nbdkit_luks
    for who, plugin_of in contestants.items():
        below = [f"http://127.0.0.1:{web.server_port}/" if word == image else "curl" if word == "file" else word
                 for word in plugin_of(options, image)]
        socket = os.path.join(directory, "socket")
        server = Server(["nbdkit", "-f", "-r", "-U", socket, *below], socket)
        try:
            counts = [RangeHandler.requests]
            connection = server.connect()
            counts.append(RangeHandler.requests)
            takes_any_offset = connection.get_block_size(nbd.SIZE_MINIMUM) <= 1
            for offset in (0, 8 * MIB, *((8 * MIB + 12345,) if takes_any_offset else ())):
                connection.pread(MIB, offset)
                counts.append(RangeHandler.requests)
            connection.shutdown()
        finally:
            server.stop()
        print(f"{name:12} {who:12}" + "".join(f"{after - before:8}" for before, after in zip(counts, counts[1:])))
    web.shutdown()
    os.unlink(image)


def main():
    options = arguments()
    for program in ("nbdkit", "nbdcopy", "qemu-nbd", "qemu-img", "cryptsetup", "fio"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is not installed")
    names = options.images.split(",") if options.images else list(IMAGES)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=os.path.realpath(options.directory)) as directory:
        guest_disk(os.path.join(directory, "raw"), options.size * MIB)
        for name in names:
            measure(name, options, directory)
        print("\nrequests to a web server below the curl plugin\n"
              "                              open  first  second  unaligned read of 1 MiB")
        for name in ("qcow2", "zlib", "luks1", "luks2-512", "qcow2+luks"):
            if name in names:
                count_requests(name, options, directory)


if __name__ == "__main__":
    main()
