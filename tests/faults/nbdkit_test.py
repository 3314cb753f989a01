# SPDX-License-Identifier: BSD-3-Clause
"""Failing storage and failing memory below and inside of the filter, in a real nbdkit.

A plugin of our own fails its n-th call, for every n, or lies; a preloaded library fails the n-th allocation of the
filter.  The client gets the error or the right bytes, the server lives, and what has passed leaves nothing behind."""

import errno
import itertools
import os
import unittest

import nbd
import qluks

BUILD = os.environ["QLUKS_BUILD"]
FAULTY = os.path.join(BUILD, ".libs", "faulty_plugin.so")
FAILING_NEW = os.path.join(BUILD, ".libs", "failing_new.so")
LONG = os.environ.get("QLUKS_LONG") == "yes"
PASS = f"qluks-passphrase={qluks.SECRET}"
CONTENT = qluks.source_bytes(300 * 1024)
RANGES = [(0, len(CONTENT)), (1, 5000), (len(CONTENT) // 3, 70000), (len(CONTENT) - 1, 1)]

points = 0


class Faults(qluks.TestCase):
    def setUp(self):
        super().setUp()
        self.control = qluks.FaultControl(self.path("control"))

    def faulty_server(self, image, *args, **kwargs):
        return self.server(FAULTY, f"file={image}", f"control={self.control.path}", *args, **kwargs)

    def faulty_uri(self, image):
        """What lies beside an image, from a server that fails with the other one."""
        return self.faulty_server(image, "qluks-layers=raw").uri()

    # Images by qemu-img and cryptsetup: (name, parameters).  All hold CONTENT.

    def compressed(self, name, *options, content=CONTENT):
        path = self.path(name)
        qluks.run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", ",".join(options),
                  self.write("src", content), path)
        return path

    def with_snapshot(self):
        path = self.qcow2("snapshot.qcow2", CONTENT, 3, 4096)
        qluks.run("qemu-img", "snapshot", "-c", "s", path)
        qluks.run("qemu-io", "-c", "write -P 1 0 100k", path)
        return path

    def legacy_aes(self):
        path = self.path("aes.qcow2")
        qluks.run("qemu-img", "convert", *qluks.qemu_secret(), "-f", "raw", "-O", "qcow2", "-o",
                  "encrypt.format=aes,encrypt.key-secret=s", self.write("src", CONTENT), path)
        return path

    def overlay(self):
        """The content is in the backing file, and one cluster of it above as well."""
        base, top = self.write("base.raw", CONTENT), self.path("top.qcow2")
        cluster = self.write("cluster", CONTENT[65536:131072])
        qluks.run("qemu-img", "create", "-f", "qcow2", "-b", base, "-F", "raw", top)
        qluks.run("qemu-io", "-c", f"write -s {cluster} 64k 64k", top)
        return top, f"qluks-backing=raw:{self.faulty_uri(base)}"

    def with_data_file(self):
        data = self.path("data.raw")
        path = self.qcow2("external.qcow2", CONTENT, 3, 65536, f"data_file={data}")
        return path, f"qluks-data-file={self.faulty_uri(data)}"

    def detached(self):
        header = self.path("header")
        path = self.luks2("payload", CONTENT, header=header)
        return path, f"qluks-header={header}", PASS

    def luks_in_qcow2(self):
        path = self.path("luks-in.qcow2")
        qluks.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", self.luks1("inner.luks", CONTENT), path)
        return path, PASS

    def qcow2_in_luks(self):
        with open(self.qcow2("inner.qcow2", CONTENT, 3, 4096), "rb") as f:
            path = self.luks2("outer.luks", f.read())
        return path, PASS, "qluks-layers=luks,qcow2"

    def images(self):
        yield "qcow2", self.qcow2("plain.qcow2", CONTENT, 3, 4096)
        yield "qcow2 v2", self.qcow2("v2.qcow2", CONTENT, 2, 512)
        yield "extended L2", self.qcow2("extended.qcow2", CONTENT, 3, 65536, "extended_l2=on")
        yield "zlib", self.compressed("zlib.qcow2", "cluster_size=16k")
        yield "zstd", self.compressed("zstd.qcow2", "compression_type=zstd")
        yield "snapshot", self.with_snapshot(), "qluks-snapshot=s"
        yield "AES", self.legacy_aes(), PASS
        yield "qcow2 with LUKS", self.qcow2_luks("luks.qcow2", CONTENT), PASS
        yield "LUKS1", self.luks1("luks1", CONTENT), PASS
        yield "LUKS2", self.luks2("luks2", CONTENT), PASS
        yield "LUKS2, large sectors", self.luks2("luks2-4096", CONTENT, "--sector-size", "4096"), PASS
        yield "detached header", *self.detached()
        yield "LUKS in qcow2", *self.luks_in_qcow2()
        yield "qcow2 in LUKS", *self.qcow2_in_luks()
        yield "backing file by NBD", *self.overlay()
        yield "data file by NBD", *self.with_data_file()

    # One client: connects, reads, asks for extents.  A failure that does not last is tried again.

    def use(self, server, kinds, hits, always, errors):
        def tried(step):
            try:
                return step()
            except nbd.Error as e:
                self.assertGreater(hits(), 0, e)
                if step is not connect:  # which has no error number
                    self.assertIn(e.errnum, errors, e)
            return None if always else step()

        def connect():
            return qluks.Connection(server.uri(), extents=True).h

        h = tried(connect)
        if h is None:
            return
        for offset, length in RANGES:
            got = tried(lambda: h.pread(length, offset))
            if got is not None:
                self.assert_same(bytes(got), CONTENT[offset:offset + length])
        found = tried(lambda: qluks.extents(h, 0, len(CONTENT)))
        if found is not None and kinds is not None:
            self.assertEqual(found, kinds[:len(found)])
        h.shutdown()

    def for_each_point(self, server, control, name, modes, errors, before=None):
        """Fail each call in each mode; how many there are."""
        global points
        control.disarm()
        with server.connect(extents=True) as h:
            kinds = qluks.extents(h, 0, len(CONTENT))
        counted = 0
        for always, error in modes:
            n = 0
            while True:
                n += 1
                if before:
                    before()
                control.arm(n, always, error)
                with self.subTest(name, call=n, always=always, error=error):
                    self.use(server, kinds, lambda: control["hits"], always, {error, *errors} - {0})
                if control["hits"] == 0:
                    break
            counted += n - 1
        control.disarm()
        self.use(server, kinds, lambda: 0, False, set())
        self.assertTrue(server.is_alive())
        points += counted
        print(f"{name:24} {counted:5} points ({points} in all)")


class FailingStorage(Faults):
    def test_each_call_of_the_plugin(self):
        modes = [(False, errno.EIO), (True, errno.EIO), (False, errno.ENOSPC)]
        for name, image, *args in self.images():
            server = self.faulty_server(image, *args)
            # libnbd has EIO for all that goes wrong beside the image.
            self.for_each_point(server, self.control, name, modes, {errno.EIO} if "NBD" in name else set())
            server.stop()


class FailingWrites(Faults):
    """A client that writes while the n-th call of the plugin fails."""

    def targets(self):
        room = 4 * qluks.MIB
        for name, image, options in (("qcow2, written", self.qcow2("w.qcow2", CONTENT, 3, 4096), ""),
                                     ("qcow2 with LUKS, written", self.qcow2_luks("wl.qcow2", CONTENT), "luks"),
                                     ("LUKS2, written", self.luks2("w.luks", CONTENT), None)):
            if options is not None:
                os.truncate(image, os.path.getsize(image) + room)
            yield name, image, options

    def write_all(self, server, always):
        """[bytes that the disk may hold], for each of its bytes; None if it could not be opened."""
        try:
            h = server.connect().h
        except nbd.Error:
            if always:
                return [CONTENT]
            h = server.connect().h
        if h.is_read_only():  # what is needed for writing could not be read
            h.shutdown()
            return [CONTENT]
        now, known = bytearray(CONTENT), [CONTENT]
        for offset, length in ((100, 5000), (65536, 70000), (4096, 4096), (len(CONTENT) - 700, 700)):
            data = os.urandom(length)
            try:
                h.pwrite(data, offset)
            except nbd.Error as e:
                self.assertIn(e.errnum, (errno.EIO, errno.ENOSPC), e)
                self.assertGreater(self.control["hits"], 0)
            now[offset:offset + length] = data
            known.append(bytes(now))
            try:
                h.flush()
                if self.control["hits"] == 0:
                    known = [bytes(now)]
            except nbd.Error as e:
                self.assertIn(e.errnum, (errno.EIO, errno.ENOSPC), e)
        h.shutdown()
        return known

    def content_of(self, image, crypt):
        server = self.server("file", image, PASS, options=["-r"])
        with server.connect() as h:
            content = qluks.read_all(h)
        server.stop()
        if crypt is not None:
            opts = f"driver=qcow2,file.filename={image}" + (",encrypt.format=luks,encrypt.key-secret=s" if crypt else "")
            done = qluks.run("qemu-img", "check", *qluks.qemu_secret(), "--image-opts", opts, check=False)
            self.assertIn(done.returncode, (0, 3), done.stdout.decode())
        return content

    def one_point(self, pristine, image, crypt, n, always, error):
        """How many calls have failed."""
        with open(image, "r+b") as f:
            f.write(pristine)
        self.control.disarm()
        server = self.server(FAULTY, f"writable={image}", f"control={self.control.path}", PASS)
        self.control.arm(n, always, error)
        known = self.write_all(server, always)
        hits = self.control["hits"]
        self.assertTrue(server.is_alive())
        server.stop()
        self.control.disarm()
        found = self.content_of(image, crypt)
        for at in range(0, len(found), 512):
            self.assertTrue(any(k[at:at + 512] == found[at:at + 512] for k in known), f"sector at {at}")
        return hits

    def test_each_call_of_the_plugin(self):
        global points
        for name, image, crypt in self.targets():
            with open(image, "rb") as f:
                pristine = f.read()
            counted = 0
            for always, error in ((False, errno.EIO), (True, errno.EIO), (False, errno.ENOSPC)):
                for n in itertools.count(1, 1 if LONG else 3):
                    with self.subTest(name, call=n, always=always, error=error):
                        if self.one_point(pristine, image, crypt, n, always, error) == 0:
                            break
                    counted += 1
            points += counted
            print(f"{name:24} {counted:5} points ({points} in all)")


class LyingStorage(Faults):
    """Two images of one file size; each read comes from either, or has a bit flipped."""

    SEEDS = 3000 if LONG else 60

    def pairs(self):
        longer = CONTENT + bytes(65536)
        yield "qcow2", self.qcow2("a.qcow2", CONTENT, 3, 4096), self.qcow2("b.qcow2", longer, 2, 65536)
        yield ("qcow2, compressed", self.compressed("a.qcow2", "cluster_size=4k"),
               self.compressed("b.qcow2", "compression_type=zstd,cluster_size=64k", content=longer))
        yield "LUKS1", self.luks1("a", CONTENT), self.luks1("b", longer, cipher="aes-cbc-essiv:sha256", key_bits=256)
        yield "LUKS2", self.luks2("a", CONTENT), self.luks2("b", longer, "--key-size", "256")
        yield "LUKS and qcow2", self.luks1("a", CONTENT), self.qcow2("b", longer)
        yield ("qcow2, backing file", self.empty_overlay("a", 1), self.empty_overlay("b", 2),
               f"qluks-backing-dir={self.dir}")

    def empty_overlay(self, name, mib):
        """Of that size, and full of that byte."""
        self.write(f"{name}.raw", bytes([mib]) * mib * qluks.MIB)
        path = self.path(f"{name}.qcow2")
        qluks.run("qemu-img", "create", "-f", "qcow2", "-b", f"{name}.raw", "-F", "raw", path)
        return path

    def seen(self, h):
        """What tells one image from the other.  While the storage lies, only data from a backing file is sound."""
        start = bytes(h.pread(1, 0)) if h.get_size() % qluks.MIB == 0 else None
        return h.get_size(), h.get_export_description(), start

    def identity(self, image, size, *args):
        self.control.set(lie=0, size=size)
        server = self.faulty_server(image, PASS, *args)
        with server.connect() as h:
            found = self.seen(h)
        server.stop()
        return found

    def test_no_image_is_made_of_two(self):
        global points
        for name, a, b, *args in self.pairs():
            size = max(os.path.getsize(a), os.path.getsize(b))
            known = {self.identity(a, size, *args), self.identity(b, size, *args)}
            self.assertEqual(len(known), 2)
            server = self.faulty_server(a, f"other={b}", PASS, *args)
            opened = 0
            for lie in (1, 2, 3):
                for seed in range(self.SEEDS):
                    self.control.set(lie=lie, seed=seed, calls=0)
                    with self.subTest(name, lie=lie, seed=seed):
                        opened += self.look_around(server, known if lie == 2 else None)
                    points += 1
            self.control.set(lie=0)
            server.connect().h.shutdown()
            server.stop()
            print(f"{name:24} opened {opened} times of {3 * self.SEEDS} ({points} points in all)")

    def look_around(self, server, known):
        try:
            h = server.connect(extents=True).h
        except nbd.Error:
            return 0
        if known:
            self.assertIn(self.seen(h), known)
        for step in (lambda: h.pread(min(100000, h.get_size()), 0), lambda: h.pread(1, h.get_size() - 1),
                     lambda: qluks.extents(h, 0, min(h.get_size(), len(CONTENT)))):
            try:
                step()
            except nbd.Error as e:
                self.assertEqual(e.errnum, errno.EIO)
        h.shutdown()
        return 1


@unittest.skipIf(qluks.PRELOAD, "sanitizers replace operator new themselves")
class FailingMemory(Faults):
    """operator new of the filter, while it serves and while it starts."""

    def env(self):
        return {"LD_PRELOAD": FAILING_NEW, "QLUKS_FAILING_NEW": self.memory.path}

    def setUp(self):
        super().setUp()
        self.memory = qluks.FaultControl(self.path("memory"))

    def other_volume(self, image):
        """Another UUID each time, so that the key is derived again."""
        number = 0

        def rename():
            nonlocal number
            number += 1
            with open(image, "r+b") as f:
                f.seek(168)
                f.write(b"%036d" % number)
        return rename

    def test_each_allocation_of_a_connection(self):
        luks1 = self.luks1("luks1", CONTENT)
        overlay = self.overlay()
        for name, before, *args in [
                ("qcow2, zlib", None, "file", self.compressed("zlib.qcow2", "cluster_size=16k")),
                ("qcow2, extended L2", None, "file", self.qcow2("e.qcow2", CONTENT, 3, 65536, "extended_l2=on")),
                ("LUKS1", self.other_volume(luks1), "file", luks1, PASS),
                ("LUKS2", None, "file", self.luks2("luks2", CONTENT), PASS),
                ("key command", self.other_volume(luks1), "file", luks1,
                 f"qluks-key-command=printf '%s' '{qluks.SECRET}'"),
                ("backing file by NBD", None, "file", overlay[0], overlay[1])]:
            server = self.server(*args, env=self.env())
            self.for_each_point(server, self.memory, name, [(False, 0), (True, 0)], {errno.ENOMEM}, before)
            server.stop()

    def test_each_allocation_at_start(self):
        global points
        header = self.path("header")
        payload = self.luks2("payload", CONTENT, header=header)
        top = self.path("top.qcow2")
        qluks.run("qemu-img", "create", "-f", "qcow2", "-b", payload, "-F", "raw", top)
        commands = [["file", payload, f"qluks-header={header}", PASS, f"qluks-key-file={self.secret_file()}"],
                    ["file", top, f"qluks-backing=raw:{payload}", "qluks-layers=qcow2", "qluks-cache-size=1M",
                     "qluks-key-command=true"]]
        for args in commands:
            # A start takes tens of milliseconds: "make check" takes a sample, another one for each mode.
            step = 1 if LONG else 3
            for always in (False, True):
                for n in itertools.count(1 + always % step, step):
                    self.memory.arm(n, always)
                    points += 1
                    if self.start_once(args) == 0:
                        break
        print(f"{'start':24} ({points} points in all)")

    def start_once(self, args):
        """Starts, or is refused in words; never by a signal.  How many allocations have failed."""
        try:
            server = qluks.Server(self.dir, *args, env=self.env())
        except qluks.NotStarted as e:
            self.assertEqual(e.status, 1, e)
            self.assertIn("out of memory", str(e))
            return self.memory["hits"]
        # The last callbacks come after the pid is written.
        ready = server.is_ready()
        hits = self.memory["hits"]
        self.memory.disarm()
        if not ready:
            self.assertEqual(server.wait_for_end(), 1, server.log())
            self.assertIn("out of memory", server.log())
            return hits
        with server.connect() as h:
            self.assertGreater(h.get_size(), 0)
        server.stop()
        return hits


def tearDownModule():
    print(f"{points} points")


if __name__ == "__main__":
    qluks.main()
