# SPDX-License-Identifier: BSD-3-Clause
"""Clients that do not behave.  The server lives, others are not disturbed, and whatever is answered is right."""

import os
import random
import re
import resource
import shutil
import struct
import tempfile

import nbd

import process_memory
import qluks
import raw_nbd
from raw_nbd import CMD_BLOCK_STATUS, CMD_CACHE, CMD_READ, CMD_WRITE, CMD_WRITE_ZEROES, EINVAL, ENOMEM, EPERM

PASS = f"qluks-passphrase={qluks.SECRET}"
GIB = 1 << 30
REQUEST_BYTES_MAX = 64 * qluks.MIB  # nbdkit's
LENGTH_MAX = (1 << 32) - 1
NBDKIT_ABORTS = r"nbdkit: .*connections\.c:\d+: raw_send_socket: Assertion `sock >= 0' failed\."


IMAGES = tempfile.TemporaryDirectory(prefix="qluks-images-")


class TestCase(qluks.TestCase):
    content = qluks.source_bytes(3 * qluks.MIB + 512)

    def client(self, server):
        client = raw_nbd.Client(f"{server.dir}/sock")
        self.addCleanup(client.socket.close)
        return client

    def assert_well(self, server, content=None):
        """It serves who comes next, and nothing that it said is a bug."""
        content = self.content if content is None else content
        with server.connect() as h:
            for at in (0, 777, len(content) - 5000):
                self.assert_same(bytes(h.pread(5000, at)), content[at:at + 5000])
        self.assertEqual(server.lines("internal error"), [])

    def image(self, make, *args):
        """Made once for all tests: they only read."""
        name = "-".join(str(arg) for arg in (make.__name__, *args))
        if not os.path.exists(os.path.join(IMAGES.name, name)):
            os.rename(make("image", self.content, *args), os.path.join(IMAGES.name, name))
        return os.path.join(IMAGES.name, name)

    def luks_server(self, options=(), **kwargs):
        """Read-only: what clients send at random would change the image."""
        return self.server("file", self.image(self.luks2), PASS, options=["-r", *options], **kwargs)

    def read_only(self, *args):
        return self.server("file", *args, options=["-r"])

    def servers(self):
        return (make() for make in self.makers())

    def makers(self):
        return [self.luks_server,
                lambda: self.read_only(self.image(self.qcow2)),
                lambda: self.read_only(self.image(self.qcow2, 3, 512)),
                lambda: self.read_only(self.image(self.qcow2_luks), PASS)]

    def outlives(self, make_server, use):
        """The server lives after `use`, and ends as it should.  nbdkit 1.32 has a race of its own, with no filter as
        well: one thread ends the output of a connection whose client has gone while another is about to use it.  If
        that is what has ended it, and it says nothing else, another one is tried."""
        for _ in range(20):
            server = make_server()
            try:
                use(server)
                server.stop()
                return
            except (raw_nbd.Closed, OSError, nbd.Error, qluks.BadEnd):
                said = server.lines("Assertion|Sanitizer|runtime error:|internal error")
                if not said or not all(re.fullmatch(NBDKIT_ABORTS, line) for line in said):
                    raise
                server.pid = None
        self.skipTest(f"20 servers have ended with nbdkit's own \"{said[0]}\"")


class Requests(TestCase):
    def expected(self, size, offset, length):
        if length == 0 or offset + length > size:
            return EINVAL
        return ENOMEM if length > REQUEST_BYTES_MAX else 0

    def ranges(self, size):
        lengths = (0, 1, 511, 512, 513, 65536, 65537, size - 1, size, size + 1, REQUEST_BYTES_MAX,
                   REQUEST_BYTES_MAX + 1, LENGTH_MAX)
        offsets = (0, 1, 511, 512, 65535, 65536, size - 512, size - 1, size, size + 1, 1 << 32, (1 << 63) - 1, 1 << 63,
                   (1 << 64) - 512, (1 << 64) - 1)
        return [(offset, length) for offset in offsets for length in lengths]

    def test_reads_of_any_range(self):
        for server in self.servers():
            for structured in (False, True):
                with self.client(server) as client:
                    size = client.go(structured=structured)
                    self.assertEqual(size, len(self.content))
                    for offset, length in self.ranges(size):
                        error, data = client.ask(CMD_READ, offset, length)
                        self.assertEqual(error, self.expected(size, offset, length), (offset, length))
                        if error == 0:
                            self.assert_same(data, self.content[offset:offset + length])
            self.assert_well(server)

    def test_extents_of_any_range(self):
        for server in self.servers():
            with self.client(server) as client:
                size = client.go()
                for offset, length in self.ranges(size):
                    for flags in (0, raw_nbd.FLAG_REQ_ONE):
                        error, extents = client.ask(CMD_BLOCK_STATUS, offset, length, flags)
                        if length == 0 or offset + length > size:
                            self.assertEqual(error, EINVAL, (offset, length))
                            continue
                        self.assertEqual(error, 0, (offset, length))
                        self.assert_extents(extents, offset, length, only_one=flags != 0)
            self.assert_well(server)

    def assert_extents(self, extents, offset, length, only_one):
        self.assertTrue(1 <= len(extents) <= (1 if only_one else length), extents)
        self.assertTrue(all(n > 0 for n, _ in extents), extents)
        total = sum(n for n, _ in extents)
        self.assertLessEqual(total, length)
        if not only_one:
            self.assertEqual(total, length)
        for n, kind in extents:
            if kind & 2:  # zero
                self.assertEqual(self.content[offset:offset + n].count(0), n)
            offset += n

    def test_extents_as_long_as_they_can_be(self):
        """nbdkit 1.32 aborts when it is told of more than was asked for."""
        empty = self.path("empty.qcow2")
        qluks.run("qemu-img", "create", "-f", "qcow2", empty, "9G")
        sparse = self.luks2("sparse.luks", self.content)
        os.truncate(sparse, 9 * GIB)
        huge = self.path("huge.qcow2")
        qluks.run("qemu-img", "create", "-f", "qcow2", "-o", "cluster_size=2M", huge, "64T")
        for args in (("file", empty), ("file", sparse, PASS), ("file", huge), ("memory", "9G", "qluks-layers=raw")):
            server = self.server(*args)
            with self.client(server) as client:
                size = client.go()
                for length in (LENGTH_MAX, LENGTH_MAX - 1, 1 << 31, (1 << 32) - 512, (1 << 32) - 4096):
                    for offset in (0, 1, 513, 2 * qluks.MIB + 1, size - LENGTH_MAX - 1, size - length):
                        for flags in (0, raw_nbd.FLAG_REQ_ONE):
                            error, extents = client.ask(CMD_BLOCK_STATUS, offset, length, flags)
                            self.assertEqual(error, 0)
                            self.assertTrue(0 < sum(n for n, _ in extents) <= length, extents)
            server.stop()

    def test_every_command_and_flag(self):
        """What a read-only export takes, and that nothing else is taken."""
        for server in (self.luks_server(), self.read_only(self.image(self.qcow2))):
            for command in (*range(12), 0x7fff, 0xffff):
                for flags in (0, *(1 << bit for bit in range(16)), 0xffff):
                    self.ask_once(server, command, flags)
            self.assert_well(server)

    def ask_once(self, server, command, flags):
        """On a connection of its own: the server may end it, or may think that more is to come."""
        client = self.client(server)
        client.go()
        if command == raw_nbd.CMD_DISC:
            # With the flag for a payload, nbdkit 1.42 waits for 512 bytes first.
            client.send(raw_nbd.request(command, 0, 512, flags=flags))
            client.end_sending()
            self.assertTrue(client.is_closed())
            return
        payload = bytes(512) if command == CMD_WRITE else b""
        try:
            error, data = client.ask(command, 0, 512, flags, payload)
        except raw_nbd.Closed:
            return
        finally:
            client.socket.close()
        if command == CMD_READ and error == 0:
            self.assert_same(data, self.content[:512])
        if command in (CMD_WRITE, raw_nbd.CMD_TRIM, CMD_WRITE_ZEROES):
            self.assertIn(error, (EPERM, EINVAL))
        if command not in (CMD_READ, raw_nbd.CMD_FLUSH, CMD_CACHE, CMD_BLOCK_STATUS):
            self.assertNotEqual(error, 0, (command, flags))

    def test_cache_of_any_range(self):
        server = self.read_only(self.image(self.qcow2))
        with self.client(server) as client:
            size = client.go()
            for offset, length in self.ranges(size):
                error, _ = client.ask(CMD_CACHE, offset, length)
                self.assertEqual(error, EINVAL if length == 0 or offset + length > size else 0, (offset, length))
        self.assert_well(server)

    def test_libnbd_without_its_own_checks(self):
        for server in self.servers():
            with server.connect(extents=True) as h:
                h.set_strict_mode(0)
                size = h.get_size()
                for call in (lambda: h.pread(0, 0), lambda: h.pread(1, size), lambda: h.pread(2, size - 1),
                             lambda: h.pwrite(b"x", 0), lambda: h.zero(1, 0), lambda: h.trim(1, 0),
                             lambda: h.zero(LENGTH_MAX, 0), lambda: h.pwrite(b"x", size),
                             lambda: h.block_status(LENGTH_MAX, 1 << 62, lambda *a: 0)):
                    with self.assertRaises(nbd.Error):
                        call()
                self.assert_same(bytes(h.pread(512, 0, nbd.CMD_FLAG_DF)), self.content[:512])
            self.assert_well(server)


class Handshakes(TestCase):
    def end(self, client, data):
        """Send this as the last thing, and wait for the server to end the connection as well."""
        try:
            client.send(data)
            client.socket.shutdown(raw_nbd.socket.SHUT_WR)
        except (raw_nbd.Closed, OSError):
            pass  # it has heard enough
        self.assertTrue(client.is_closed())

    def test_options_that_are_wrong(self):
        server = self.luks_server()
        for number in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x7fffffff, 0xffffffff):
            for data in (b"", b"\0", bytes(4), bytes(6), b"\xff" * 6, raw_nbd.lengthened(b"x" * 4096) + bytes(2),
                         b"\xff\xff\xff\xff" + b"x" * 100, raw_nbd.lengthened(b"") + b"\xff\xff", bytes(1000)):
                with self.client(server) as client:
                    client.greet()
                    self.end(client, raw_nbd.IHAVEOPT + struct.pack(">II", number, len(data)) + data)
        self.assert_well(server)
        self.assertEqual(len(server.lines("opened after")), 1)

    def test_lengths_and_magic_that_are_wrong(self):
        server = self.luks_server()
        for data in (bytes(100), os.urandom(1000), raw_nbd.IHAVEOPT + struct.pack(">II", 7, 0xffffffff),
                     b"IHAVEOPX" + struct.pack(">II", 7, 6) + bytes(6), b"NBDMAGIC" * 8):
            for flags in (0, 1, 2, 3, 4, 0xffffffff):
                with self.client(server) as client:
                    client.greet(flags)
                    self.end(client, data)
        self.assert_well(server)

    def test_leaving_in_the_middle(self):
        """After each byte of a handshake and of the first request."""
        export = raw_nbd.lengthened(b"")
        whole = struct.pack(">I", 3)
        whole += raw_nbd.IHAVEOPT + struct.pack(">II", raw_nbd.OPT_STRUCTURED_REPLY, 0)
        whole += raw_nbd.IHAVEOPT + struct.pack(">II", raw_nbd.OPT_GO, len(export) + 2) + export + bytes(2)
        whole += raw_nbd.request(CMD_READ, 0, 65536)
        server = self.luks_server()
        for sent in range(len(whole) + 1):
            with self.client(server) as client:
                client.send(whole[:sent])
        self.assert_well(server)
        self.assertEqual(len(server.lines("opened after")), 1)

    def test_a_thousand_half_open_connections(self):
        """They cost what they cost nbdkit by itself, and no key derivation."""
        server = self.luks_server(preexec_fn=allow_many_files)
        allow_many_files()
        before = process_memory.resident_kib(server.pid)
        held = [self.client(server) for _ in range(1000)]
        for i, client in enumerate(held):
            client.greet() if i % 2 else client.receive(18)
        grown = process_memory.resident_kib(server.pid) - before
        if not qluks.PRELOAD:  # sanitizers need memory for each thread
            self.assertLess(grown, 64 << 10, "KiB")
        self.assertEqual(server.lines("derivation"), [])
        self.assert_well(server)
        self.assertEqual(len(server.lines("opened after 1 derivation")), 1)


class Connections(TestCase):
    def test_sixty_four_at_once(self):
        server = self.luks_server()

        def read(seed):
            rng = random.Random(seed)
            with server.connect() as h:
                for _ in range(20):
                    at = rng.randrange(len(self.content))
                    n = min(rng.randrange(1, 100000), len(self.content) - at)
                    self.assert_same(bytes(h.pread(n, at)), self.content[at:at + n])

        qluks.in_threads(64, read)
        self.assertEqual(len(server.lines("opened after")), 1)

    def test_exports_that_come_and_go(self):
        """Many clients on several names of each image, over one key ring and a cache that holds next to nothing."""
        exports = self.path("exports")
        os.mkdir(exports)
        for image in (self.image(self.luks2), self.image(self.qcow2, 3, 512), self.image(self.qcow2_luks)):
            for copy in "abc":
                os.link(image, os.path.join(exports, copy + os.path.basename(image)))
        server = self.server("file", f"dir={exports}", PASS, "qluks-cache-size=64K")

        def come_and_go(seed):
            rng = random.Random(seed)
            for _ in range(12):
                with server.connect(rng.choice(os.listdir(exports)), extents=True) as h:
                    at = rng.randrange(len(self.content) - 70000)
                    self.assert_same(bytes(h.pread(70000, at)), self.content[at:at + 70000])
                    qluks.extents(h, at, 70000)

        qluks.in_threads(8, come_and_go)
        self.assertEqual(len(server.lines("opened after")), 2)  # two headers
        server.stop()

    def test_bad_magic_ends_one_connection_only(self):
        for server in self.servers():
            other = self.client(server)
            size = other.go()
            with self.client(server) as client:
                client.go()
                client.send(raw_nbd.request(CMD_READ, 0, 512, magic=0x12345678))
                self.assertTrue(client.is_closed())
            error, data = other.ask(CMD_READ, size - 512, 512)
            self.assertEqual((error, data), (0, self.content[-512:]))
            self.assert_well(server)

    def test_leaving_with_requests_under_way(self):
        for make_server in self.makers():
            self.outlives(make_server, self.leave_with_requests)

    def leave_with_requests(self, server):
        with self.client(server) as other:
            other.go()
            for requests in (1, 16, 200):
                with self.client(server) as client:
                    client.go()
                    client.send(b"".join(raw_nbd.request(CMD_READ, i * 4099, qluks.MIB) for i in range(requests)))
                    client.send(b"\x25\x60")  # and a piece of one more
                    if requests == 1:
                        client.receive(16)  # the reply has begun
            error, data = other.ask(CMD_READ, 4099, qluks.MIB)
            self.assertEqual(error, 0)
            self.assert_same(data, self.content[4099:4099 + qluks.MIB])
        self.assert_well(server)

    def test_noise_instead_of_requests(self):
        rng = random.Random(1)
        for _ in range(10):
            self.outlives(self.luks_server, lambda server: self.make_noise(server, rng))

    def make_noise(self, server, rng):
        for _ in range(10):
            with self.client(server) as client:
                client.go()
                self.send_noise(client, rng)
        self.assert_well(server)

    def send_noise(self, client, rng):
        try:
            for _ in range(20):
                command = rng.choice((0, 1, 3, 4, 5, 6, 7, rng.getrandbits(16)))
                offset = rng.choice((0, rng.getrandbits(22), rng.getrandbits(64)))
                length = rng.choice((0, 1, 512, rng.getrandbits(16)))
                client.send(raw_nbd.request(command, offset, length, flags=rng.choice((0, 0, rng.getrandbits(16)))))
            client.send(rng.randbytes(100))
        except raw_nbd.Closed:
            pass


class Writers(TestCase):
    """Of an image that is theirs to change.  It stays one that QEMU likes, and holds what was acknowledged."""

    CLUSTER = 65536

    def writable_images(self):
        content = self.content
        room = 16 * qluks.MIB
        for name, make, args in (("luks2", self.luks2, [PASS]), ("qcow2", self.qcow2, []),
                                 ("small", lambda *a: self.qcow2(*a, 3, 512), []),
                                 ("crypt", self.qcow2_luks, [PASS])):
            image = make(name, content)
            if name != "luks2":
                os.truncate(image, os.path.getsize(image) + room)
            yield image, args

    def check(self, image, args):
        if not image.endswith("luks2"):
            crypt = ",encrypt.format=luks,encrypt.key-secret=s" if args else ""
            done = qluks.run("qemu-img", "check", *qluks.qemu_secret(), "--image-opts",
                             f"driver=qcow2,file.filename={image}{crypt}", check=False)
            self.assertEqual(done.returncode, 0, done.stdout.decode() + done.stderr.decode())

    def commands(self):
        fua, no_hole, fast = raw_nbd.FLAG_FUA, raw_nbd.FLAG_NO_HOLE, raw_nbd.FLAG_FAST_ZERO
        yield from ((CMD_WRITE, 0), (CMD_WRITE, fua), (raw_nbd.CMD_TRIM, 0), (raw_nbd.CMD_TRIM, fua))
        yield from ((CMD_WRITE_ZEROES, flags) for flags in (0, fua, no_hole, fast, no_hole | fast, fua | no_hole | fast))

    def ask_and_follow(self, client, model, command, flags, offset, length, is_luks):
        """One request, and what it does to the model.  What is trimmed of a LUKS volume decrypts to noise."""
        data = os.urandom(length) if command == CMD_WRITE else b""
        error, _ = client.ask(command, offset, length, flags, data)
        if length == 0 or offset + length > len(model):
            self.assertIn(error, (EINVAL, raw_nbd.ENOSPC), (command, flags, offset, length))
        elif flags & raw_nbd.FLAG_FAST_ZERO and error != 0:
            self.assertIn(error, (raw_nbd.ENOTSUP, EINVAL))  # not offered at all by LUKS
        elif error == 0:
            if command == raw_nbd.CMD_TRIM:
                now = client.ask(CMD_READ, offset, length)[1]
                self.assertTrue(is_luks or all(b in (0, old) for b, old in zip(now, model[offset:offset + length])))
                data = now
            model[offset:offset + length] = data if data else bytes(length)
        else:
            self.assertIn((command, error), ((raw_nbd.CMD_TRIM, EINVAL), (raw_nbd.CMD_TRIM, raw_nbd.ENOTSUP)))

    def test_changes_of_any_range(self):
        c = self.CLUSTER
        for image, args in self.writable_images():
            is_luks = image.endswith("luks2")
            server = self.server("file", image, *args, "qluks-discard=true")
            model = bytearray(self.content)
            size = len(model)
            with self.client(server) as client:
                self.assertEqual(client.go(), size)
                for command, flags in self.commands():
                    for offset in (0, 1, 511, c - 1, c, size - 512, size - 1, size, 1 << 63, (1 << 64) - 1):
                        for length in (0, 1, 513, c, 2 * c + 1):
                            self.ask_and_follow(client, model, command, flags, offset, length, is_luks)
                for command, flags in self.commands():
                    if command != CMD_WRITE:
                        for length in (size, size + 1, 1 << 31, LENGTH_MAX):
                            self.ask_and_follow(client, model, command, flags, 0, length, is_luks)
            self.assert_well(server, bytes(model))
            server.stop()
            self.check(image, args)

    def test_every_command_and_flag(self):
        for image, args in self.writable_images():
            server = self.server("file", image, *args)
            for command in (*range(12), 0x7fff, 0xffff):
                for flags in (0, *(1 << bit for bit in range(16)), 0xffff):
                    with self.client(server) as client:
                        client.go()
                        client.send(raw_nbd.request(command, 4096, 512, flags=flags) +
                                    (bytes(512) if command == CMD_WRITE else b""))
                        client.end_sending()
                        self.assertTrue(client.is_closed())
            with server.connect() as h:
                self.assert_same(bytes(h.pread(4096, 0)), self.content[:4096])
            self.assertEqual(server.lines("internal error"), [])
            server.stop()
            self.check(image, args)

    def test_four_gib_at_once(self):
        """Zeroes, fast zeroes and trim of a disk that is larger than that, with something in it here and there."""
        for cluster in (65536, 4096):
            image = self.path("large.qcow2")
            qluks.run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"cluster_size={cluster}", image, "9G")
            os.truncate(image, 64 * qluks.MIB)
            server = self.server("file", image)
            with self.client(server) as client:
                client.go()
                for command, flags in self.commands():
                    if command == CMD_WRITE:
                        continue
                    for at in (0, GIB, 4 * GIB - 512, 4 * GIB):
                        self.assertEqual(client.ask(CMD_WRITE, at, 512, 0, b"x" * 512)[0], 0)
                    error, _ = client.ask(command, 512, LENGTH_MAX - 511, flags)
                    self.assertIn(error, (0, raw_nbd.ENOTSUP), (command, flags))
                    if error == 0:
                        got = client.ask(CMD_READ, GIB, 512)[1]
                        self.assertEqual(got, bytes(512))
                    self.assertEqual(client.ask(CMD_READ, 4 * GIB, 512)[1], b"x" * 512)
            server.stop()
            self.check(image, [])

    def test_flush_storm(self):
        """Sixteen connections send flushes and writes by the hundred before they look at a reply."""
        for image, args in self.writable_images():
            server = self.server("file", image, *args)

            def storm(number):
                with self.client(server) as client:
                    client.go()
                    requests = []
                    for i in range(100):
                        requests.append(raw_nbd.request(raw_nbd.CMD_FLUSH, 0, 0, 3 * i))
                        requests.append(raw_nbd.request(CMD_WRITE, number * 4096, 4096, 3 * i + 1, raw_nbd.FLAG_FUA * (i % 2)) +
                                        bytes([number + 1]) * 4096)
                        requests.append(raw_nbd.request(raw_nbd.CMD_TRIM, (20 + number) * self.CLUSTER, self.CLUSTER, 3 * i + 2))
                    client.send(b"".join(requests))
                    answered = {client.reply()[0] for _ in range(len(requests))}
                    self.assertEqual(len(answered), len(requests))

            qluks.in_threads(16, storm)
            with server.connect() as h:
                for number in range(16):
                    self.assertEqual(bytes(h.pread(4096, number * 4096)), bytes([number + 1]) * 4096)
            server.stop()
            self.check(image, args)

    def test_sixty_four_in_one_cluster_that_leave_in_the_middle(self):
        for image, args in self.writable_images():
            copy = image + "-" + os.path.basename(image)

            def fresh_server():
                shutil.copyfile(image, copy)
                return self.server("file", copy, *args)

            self.outlives(fresh_server, self.write_and_leave)
            self.check(copy, args)
            server = self.read_only(copy, *args)
            with server.connect() as h:
                found = bytes(h.pread(self.CLUSTER, 30 * self.CLUSTER))
            server.stop()
            for sector in range(0, self.CLUSTER, 512):
                self.assertEqual(len(set(found[sector:sector + 512])), 1, sector)

    def write_and_leave(self, server):
        """Each writes blocks of its own byte, over what is there and where nothing is, and waits for few replies."""
        at = 30 * self.CLUSTER

        def write(number):
            with self.client(server) as client:
                client.go()
                for i in range(24):
                    client.send(raw_nbd.request(CMD_WRITE, at + i % 16 * 4096, 4096, i, raw_nbd.FLAG_FUA * (i % 5 == 0)) +
                                bytes([number + 1]) * 4096)
                    if i == 3:
                        client.send(raw_nbd.request(raw_nbd.CMD_TRIM, at, self.CLUSTER, 100))
                for _ in range(number % 8):
                    client.reply()
                client.send(raw_nbd.request(CMD_WRITE, at, 4096) + b"half of it")

        with server.connect() as h:
            h.zero(2 * self.CLUSTER, at)
        qluks.in_threads(64, write)
        self.assertEqual(server.lines("internal error"), [])


class Tls(TestCase):
    KEY = "alice:" + "7e" * 32

    def test_over_tls(self):
        psk = self.write("psk", self.KEY.encode() + b"\n")
        server = self.luks_server(options=["--tls=require", f"--tls-psk={psk}"])
        h = nbd.NBD()
        if not h.supports_tls():
            self.skipTest("libnbd is built without TLS")
        h.set_tls(nbd.TLS_REQUIRE)
        h.set_tls_psk_file(psk)
        h.set_tls_username("alice")
        h.connect_unix(f"{server.dir}/sock")
        for data in (b"", b"\x16\x03\x01", os.urandom(500), bytes(5000)):
            with self.client(server) as client:
                client.greet()
                client.option(raw_nbd.OPT_STARTTLS)
                client.send(data)
        with self.client(server) as client:
            client.greet()
            self.assertNotEqual(client.option(raw_nbd.OPT_GO, bytes(6))[-1][0], raw_nbd.REP_ACK)
        self.assert_same(qluks.read_all(h), self.content)
        h.shutdown()
        self.assertEqual(len(server.lines("opened after")), 1)


def allow_many_files():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    qluks.main()
