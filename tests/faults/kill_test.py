# SPDX-License-Identifier: BSD-3-Clause
"""nbdkit is killed (SIGKILL) while clients write: QEMU finds the image without errors, and in it each block as it was
when it was last flushed, or as it was written since; the lock is gone, and the next server takes the image as it is.

QLUKS_KILLS says how often each image goes through that."""

import os
import random
import signal
import struct
import threading

import nbd
import qluks

KILLS = int(os.environ.get("QLUKS_KILLS", "6"))
SIZE = 8 * qluks.MIB
BLOCK = 4096
CLIENTS = 3
LEAKS = 3  # of qemu-img check: clusters that nobody uses, and nothing else
PASS = f"qluks-passphrase={qluks.SECRET}"


def content(block, turn):
    """What no other block and no other turn has; nothing for turn 0."""
    return struct.pack("<QQ", block, turn) * (BLOCK // 16) if turn else bytes(BLOCK)


class Blocks:
    """Which turns each block may show: the one that was flushed last, and those written since."""

    def __init__(self):
        self.turns = {block: [0] for block in range(SIZE // BLOCK)}
        self.turn = 0
        self.lock = threading.Lock()

    def begin(self, block):
        with self.lock:
            self.turn += 1
            self.turns[block].append(self.turn)
            return self.turn

    def snapshot(self):
        with self.lock:
            return {block: turns[-1] for block, turns in self.turns.items()}

    def flushed(self, snapshot, mine):
        """What was answered before the flush began is stable, where this client is the one that writes."""
        with self.lock:
            for block in mine:
                turns = self.turns[block]
                self.turns[block] = turns[turns.index(snapshot[block]):]

    def check(self, test, disk):
        for block, turns in self.turns.items():
            got = disk[block * BLOCK:(block + 1) * BLOCK]
            turn = struct.unpack_from("<QQ", got)[1]
            test.assertIn(turn, turns, f"block {block}")
            test.assert_same(got, content(block, turn))
            self.turns[block] = [turn]


class Killed(qluks.TestCase):
    def write_until_killed(self, server, blocks, seed):
        """Each client has the blocks of its own remainder; one of them sends the signal between two requests."""
        rng = random.Random(seed)
        killer, requests = rng.randrange(CLIENTS), rng.randrange(1, 150)

        def client(i):
            mine = range(i, SIZE // BLOCK, CLIENTS)
            rng = random.Random(seed * CLIENTS + i)
            with_trim = rng.randrange(2)
            try:
                h = qluks.Connection(server.uri(), False).h
                for n in range(10**6):
                    if i == killer and n == requests:
                        os.kill(server.pid, signal.SIGKILL)
                    block = rng.choice(mine)
                    if rng.randrange(12) == 0:
                        before = blocks.snapshot()
                        h.flush()
                        blocks.flushed(before, mine)
                    elif with_trim and rng.randrange(6) == 0:
                        with blocks.lock:
                            blocks.turns[block].append(0)
                        h.zero(BLOCK, block * BLOCK)
                    else:
                        h.pwrite(content(block, blocks.begin(block)), block * BLOCK)
            except nbd.Error:
                pass  # the server has gone

        qluks.in_threads(CLIENTS, client)
        self.assertEqual(server.wait_for_end(), -signal.SIGKILL)

    def run_kills(self, image, server_options, image_options, seed):
        blocks = Blocks()
        options = ["--image-opts", image_options + image]
        if "luks" in image_options:
            options = [*qluks.qemu_secret(), *options]
        for n in range(KILLS):
            with self.subTest(kill=n):
                server = self.server("file", image, *server_options, f"qluks-grow={image}")
                self.write_until_killed(server, blocks, seed * 1000 + n)
                # Opens it for writing, so nobody has a lock.
                qluks.run("qemu-io", *options, "-c", "quit")
                checked = qluks.run("qemu-img", "check", *self.container(image), check=False)
                self.assertIn(checked.returncode, (0, LEAKS), checked.stdout.decode() + checked.stderr.decode())
                qluks.run("qemu-img", "convert", *options, "-O", "raw", self.path("disk.raw"))
                with open(self.path("disk.raw"), "rb") as f:
                    blocks.check(self, f.read())
        self.assert_serves_on(image, server_options, blocks)

    def container(self, image):
        if self.encrypted:
            return [*qluks.qemu_secret(), "--image-opts",
                    f"driver=qcow2,encrypt.format=luks,encrypt.key-secret=s,file.driver=file,file.filename={image}"]
        return ["-f", "qcow2", image]

    def assert_serves_on(self, image, server_options, blocks):
        """After the last kill a server ends in peace: the tail is cut, and nothing is lost."""
        server = self.server("file", image, *server_options, f"qluks-grow={image}")
        with server.connect() as h:
            h.pwrite(content(0, blocks.begin(0)), 0)
            h.flush()
            last = blocks.snapshot()[0]
            self.assert_same(h.pread(BLOCK, 0), content(0, last))
        server.stop()
        self.assertLess(os.path.getsize(image), 4 * SIZE)
        qluks.run("qemu-img", "check", "-r", "leaks", *self.container(image))
        qluks.run("qemu-img", "check", *self.container(image))

    encrypted = False

    def test_qcow2(self):
        image = self.path("plain.qcow2")
        qluks.run("qemu-img", "create", "-q", "-f", "qcow2", image, SIZE)
        self.run_kills(image, [], "driver=qcow2,file.driver=file,file.filename=", 1)

    def test_qcow2_with_small_clusters_and_narrow_refcounts(self):
        image = self.path("small.qcow2")
        qluks.run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4096,refcount_bits=1", image, SIZE)
        self.run_kills(image, [], "driver=qcow2,file.driver=file,file.filename=", 2)

    def test_qcow2_with_luks(self):
        self.encrypted = True
        image = self.path("luks.qcow2")
        qluks.qemu_img_luks("create", "-q", *qluks.qemu_secret(), "-f", "qcow2", "-o",
                            "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", image, SIZE)
        options = "driver=qcow2,encrypt.format=luks,encrypt.key-secret=s,file.driver=file,file.filename="
        # What was never written reads as zeroes there as well.
        self.run_kills(image, [PASS], options, 3)

    def test_luks_in_the_guest_disk_of_a_qcow2(self):
        image = self.qcow2("outer.qcow2", self.volume())
        options = "driver=luks,key-secret=s,file.driver=qcow2,file.file.driver=file,file.file.filename="
        self.run_kills(image, ["qluks-layers=qcow2,luks", PASS], options, 4)

    def volume(self):
        with open(self.luks1("volume", bytes(SIZE)), "rb") as f:
            return f.read()


qluks.main()
