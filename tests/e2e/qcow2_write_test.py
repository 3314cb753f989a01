# SPDX-License-Identifier: BSD-3-Clause
"""qcow2 images that are written: by random changes through the layers, and by clients of a real nbdkit.  Every one of them
is checked by qemu-img, which also reads back what is in it."""

import os
import random
import signal

import nbd
import parallel_writes
import qluks

SIZE = 3 * qluks.MIB + 512 * 3
CLUSTER = 65536
PASS = f"qluks-passphrase={qluks.SECRET}"


class TestCase(qluks.TestCase):
    def qemu(self, image, crypt=None):
        """How QEMU's tools are told of the image."""
        if crypt is None:
            return ["-f", "qcow2", image]
        opts = f"driver=qcow2,file.filename={image},encrypt.format={crypt},encrypt.key-secret=s"
        return [*qluks.qemu_secret(), "--image-opts", opts]

    def assert_clean(self, image, crypt=None):
        done = qluks.run("qemu-img", "check", *self.qemu(image, crypt), check=False)
        self.assertEqual(done.returncode, 0, (done.stdout + done.stderr).decode())

    def content_of(self, image, crypt=None, *options):
        raw = self.path("content.raw")
        qluks.run("qemu-img", "convert", *options, *self.qemu(image, crypt), "-O", "raw", raw)
        with open(raw, "rb") as f:
            return f.read()

    def read(self, path, length=-1):
        with open(path, "rb") as f:
            return f.read(length)

    def give_room(self, image, bytes=16 * qluks.MIB):
        os.truncate(image, os.path.getsize(image) + bytes)

    def empty(self, *options, size=SIZE, name="image.qcow2"):
        image = self.path(name)
        opts = ["-o", ",".join(options)] if options else []
        create = ["create", "-q", "-f", "qcow2", *opts, image, str(size)]
        if any("encrypt" in o for o in options):
            qluks.qemu_img_luks("create", *qluks.qemu_secret(), *create[1:])
        else:
            qluks.run("qemu-img", *create)
        return image


LUKS = ["encrypt.format=luks", "encrypt.key-secret=s", "encrypt.iter-time=10"]
AES = ["encrypt.format=aes", "encrypt.key-secret=s"]


class RandomChanges(TestCase):
    """write_guest changes an image and a model; what QEMU says of the image must be the model."""

    def change(self, image, crypt=None, backing=None, data_file=None, threads=1, operations=120, seed=None):
        model = self.write("model.raw", self.content_of(image, crypt))
        self.give_room(image)
        seed = seed or random.randrange(1, 1 << 20)
        args = ["--seed", seed, "--threads", threads, "--operations", operations]
        if crypt:
            args += ["--passphrase", qluks.SECRET]
        if backing:
            args += ["--backing", backing]
        if data_file:
            args += ["--data-file", data_file]
        with self.subTest(seed=seed):
            qluks.run(os.path.join(os.environ["QLUKS_BUILD"], "write_guest"), *args, image, model)
            self.assert_clean(image, crypt)
            with open(model, "rb") as f:
                self.assert_same(self.content_of(image, crypt), f.read())

    def test_versions_and_cluster_sizes(self):
        for cluster in (512, 4096, 65536, 2 << 20):
            for compat in ("0.10", "1.1"):
                with self.subTest(cluster=cluster, compat=compat):
                    self.change(self.empty(f"cluster_size={cluster}", f"compat={compat}"))

    def test_refcount_widths(self):
        for bits in (1, 2, 4, 8, 32, 64):
            with self.subTest(bits=bits):
                self.change(self.empty(f"refcount_bits={bits}", "cluster_size=4096"))

    def test_encrypted(self):
        for crypt, options in (("luks", LUKS), ("luks", ["cluster_size=512", *LUKS]), ("aes", AES),
                               ("luks", ["cluster_size=2M", "extended_l2=on", *LUKS])):
            with self.subTest(crypt=crypt, options=options):
                self.change(self.empty(*options), crypt)

    def test_extended_l2(self):
        for options in (["extended_l2=on"], ["extended_l2=on", "cluster_size=16k"],
                        ["extended_l2=on", "preallocation=metadata"]):
            with self.subTest(options=options):
                self.change(self.empty(*options))

    def test_clusters_that_are_there(self):
        content = qluks.source_bytes(SIZE)
        for options in (["compat=1.1"], ["preallocation=metadata"], ["extended_l2=on"]):
            with self.subTest(options=options):
                image = self.qcow2("image.qcow2", content, 3, CLUSTER, *options)
                qluks.run("qemu-io", "-c", "write -z 64k 640k", "-c", "write -zu 1M 1M", image)
                self.change(image)

    def test_compressed(self):
        raw = self.write("source.raw", qluks.source_bytes(SIZE))
        for options in (["cluster_size=4096"], ["cluster_size=65536"], ["extended_l2=on", "compression_type=zstd"]):
            with self.subTest(options=options):
                image = self.path("image.qcow2")
                qluks.run("qemu-img", "convert", "-c", "-O", "qcow2", "-o", ",".join(options), raw, image)
                self.change(image)

    def test_backing_file_is_read_and_never_written(self):
        content = qluks.source_bytes(2 * qluks.MIB)
        backing = self.write("backing.raw", content)
        for options in (["compat=0.10"], ["cluster_size=512"], ["compat=1.1"], ["extended_l2=on"]):
            with self.subTest(options=options):
                image = self.path("image.qcow2")
                qluks.run("qemu-img", "create", "-f", "qcow2", "-o", ",".join(options), "-b", backing, "-F", "raw", image,
                          str(SIZE))
                self.change(image, backing=backing)
                with open(backing, "rb") as f:
                    self.assert_same(f.read(), content)

    def test_snapshots_keep_what_they_have(self):
        content = qluks.source_bytes(SIZE)
        for options in (["cluster_size=512"], ["compat=1.1"], ["extended_l2=on"]):
            with self.subTest(options=options):
                image = self.qcow2("image.qcow2", content, 3, CLUSTER, *options)
                qluks.run("qemu-img", "snapshot", "-c", "before", image)
                self.change(image)
                between = self.content_of(image)
                qluks.run("qemu-img", "snapshot", "-c", "between", image)
                self.change(image)
                self.assert_same(self.content_of(image, None, "-l", "before"), content)
                self.assert_same(self.content_of(image, None, "-l", "between"), between)
                qluks.run("qemu-img", "snapshot", "-d", "before", image)
                self.change(image)
                qluks.run("qemu-img", "snapshot", "-a", "between", image)
                self.assert_same(self.content_of(image), between)
                self.assert_clean(image)

    def test_external_data_file(self):
        """One that can be read as it is stays so."""
        data = self.path("data.raw")
        for options, crypt in ((["cluster_size=4096"], None), (["data_file_raw=on"], None), (["extended_l2=on"], None),
                               (["extended_l2=on", "data_file_raw=on"], None), (LUKS, "luks")):
            for threads in (1, 4):
                with self.subTest(options=options, threads=threads):
                    image = self.empty(*options, f"data_file={data}")
                    self.change(image, crypt, data_file=data, threads=threads)
                    if "data_file_raw=on" in options:
                        self.assertIn("data file raw: true", qluks.run("qemu-img", "info", image).stdout.decode())
                        self.assert_same(self.read(data)[:SIZE], self.read(self.path("model.raw")))
                    os.unlink(data)

    def test_in_turns_with_qemu(self):
        """What it changes of an image that we wrote, we write on: version, size, snapshots, backing file, refcounts."""
        backing = self.write("backing.raw", qluks.source_bytes(2 * qluks.MIB))
        image = self.path("image.qcow2")
        qluks.run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "-b", backing, "-F", "raw", image,
                  str(SIZE))
        steps = (["amend", "-o", "compat=0.10", image], ["resize", image, "+1M"], ["amend", "-o", "compat=1.1", image],
                 ["snapshot", "-c", "one", image], ["amend", "-o", "lazy_refcounts=on", image],
                 ["snapshot", "-c", "two", image], ["resize", image, "+512K"], ["snapshot", "-d", "one", image],
                 ["rebase", "-b", "", image], ["resize", "--shrink", image, "-1M"],
                 ["amend", "-o", "refcount_bits=64", image], ["snapshot", "-d", "two", image],
                 ["amend", "-o", "refcount_bits=1", image], ["rebase", "-F", "raw", "-b", backing, image])
        has_backing = True
        for command, *args in steps:
            with self.subTest(command=command, args=args):
                self.change(image, backing=backing if has_backing else None)
                before = self.content_of(image)
                qluks.run("qemu-img", command, "-q", *args)
                if command == "rebase":
                    has_backing = backing in args
                self.assert_clean(image)
                after = self.content_of(image)
                common = min(len(before), len(after))
                self.assert_same(after[:common], before[:common])
        self.change(image, backing=backing)

    def test_threads(self):
        for options, crypt in ((["cluster_size=4096"], None), (["compat=1.1"], None), (LUKS, "luks"),
                               (["extended_l2=on"], None)):
            with self.subTest(options=options):
                self.change(self.empty(*options), crypt, threads=6, operations=60)

    def test_refcount_table_that_must_grow(self):
        image = self.empty("cluster_size=512", "refcount_bits=64", size=20 * qluks.MIB)
        self.give_room(image, 16 * qluks.MIB)
        self.change(image, operations=1500)


class Serving(TestCase):
    def serve(self, image, *args, **kwargs):
        return self.server("file", image, *args, **kwargs)

    def test_parallel_writers_at_random(self):
        for options, crypt in (([], None), (["cluster_size=4k"], None), (LUKS, "luks"), (AES, "aes")):
            seed = random.randrange(1 << 20)
            with self.subTest(options=options, seed=seed):
                image = self.empty(*options, size=2 * qluks.MIB)
                self.give_room(image)
                server = self.serve(image, *([PASS] if crypt else []))
                expected = parallel_writes.write(server, 2 * qluks.MIB, seed)
                server.stop()
                self.assert_clean(image, crypt)
                self.assert_same(self.content_of(image, crypt), expected)

    def test_disk_copied_into_an_external_data_file(self):
        """A local file, and one that another server has."""
        content = qluks.source_bytes(SIZE)
        raw = self.write("source.raw", content)
        for options, by_nbd in (([], False), (["data_file_raw=on"], False), ([], True), (["data_file_raw=on"], True)):
            with self.subTest(options=options, by_nbd=by_nbd):
                data = self.path("data.raw")
                image = self.empty(*options, f"data_file={data}")
                self.give_room(image)
                where = self.server("file", data, "qluks-layers=raw") if by_nbd else None
                server = self.serve(image, f"qluks-data-file={where.uri() if by_nbd else data}")
                qluks.run("nbdcopy", "--flush", raw, server.uri())
                with server.connect() as h:
                    self.assert_same(qluks.read_all(h), content)
                    h.trim(8 * CLUSTER, 0)
                    h.zero(8 * CLUSTER, 16 * CLUSTER)
                    h.zero(8 * CLUSTER, 32 * CLUSTER, nbd.CMD_FLAG_NO_HOLE)
                    h.flush()
                expected = bytearray(content)
                for first in (0, 16, 32):
                    expected[first * CLUSTER:(first + 8) * CLUSTER] = bytes(8 * CLUSTER)
                server.stop()
                if by_nbd:
                    where.stop()
                self.assert_clean(image)
                self.assert_same(self.content_of(image), bytes(expected))
                if options:
                    self.assert_same(self.read(data)[:SIZE], bytes(expected))
                os.unlink(data)

    def test_external_data_file_that_is_not_written(self):
        """It is read-only, or too short, or only the image names it, or another image writes it."""
        data = self.path("data.raw")
        image = self.empty(f"data_file={data}")
        read_only = self.server("file", data, "qluks-layers=raw", options=["-r"])
        short = self.write("short.raw", bytes(SIZE - 512))
        for args, why in (([f"qluks-data-file={read_only.uri()}"], "the external data file is read-only"),
                          ([f"qluks-data-file={short}"], f"data file has {SIZE - 512} bytes, and the disk {SIZE}"),
                          ([f"qluks-backing-dir={self.dir}"], "the external data file is read-only")):
            with self.subTest(why=why):
                server = self.serve(image, *args)
                with server.connect() as h:
                    self.assertTrue(h.is_read_only())
                self.assertEqual(len(server.lines("served read-only: qcow2: .*" + why)), 1)
                server.stop()
        os.mkdir(self.path("exports"))
        for name in "ab":
            os.link(image, self.path(f"exports/{name}"))
        server = self.server("file", f"dir={self.path('exports')}", f"qluks-data-file={data}")
        with server.connect("a") as first:
            self.assertFalse(first.is_read_only())
            with server.connect("b") as second:
                self.assertTrue(second.is_read_only())
        server.wait_until_all_have_left()
        with server.connect("b") as alone:
            self.assertFalse(alone.is_read_only())

    def test_lost_connection_to_an_external_data_file(self):
        """What it had acknowledged may be gone with it, so no flush succeeds any more; reads go on."""
        data = self.path("data.raw")
        image = self.empty(f"data_file={data}")
        self.give_room(image)
        where = self.server("file", data, "qluks-layers=raw")
        server = self.serve(image, f"qluks-data-file={where.uri()}")
        with server.connect() as h:
            h.pwrite(b"a" * CLUSTER, 0)
            h.flush()
            h.pwrite(b"b" * CLUSTER, CLUSTER)
            where.stop(signal.SIGKILL)
            where.restart("file", data, "qluks-layers=raw")
            with self.assertRaises(nbd.Error):
                h.pwrite(b"c" * CLUSTER, CLUSTER)
            for _ in range(2):
                with self.assertRaises(nbd.Error) as error:
                    h.flush()
                self.assertEqual(error.exception.errno, "EIO")
            self.assert_same(bytes(h.pread(CLUSTER, 0)), b"a" * CLUSTER)
        server.stop()
        self.assert_clean(image)

    def test_disk_copied_into_an_encrypted_image(self):
        content = qluks.source_bytes(SIZE)
        raw = self.write("source.raw", content)
        for options, crypt, args in ((LUKS, "luks", [PASS]), ([], None, [])):
            with self.subTest(crypt=crypt):
                image = self.empty(*options)
                self.give_room(image)
                server = self.serve(image, *args)
                qluks.run("nbdcopy", "--flush", raw, server.uri())
                with server.connect() as h:
                    self.assertTrue(h.can_multi_conn())
                    self.assert_same(qluks.read_all(h), content)
                server.stop()
                self.assert_clean(image, crypt)
                self.assert_same(self.content_of(image, crypt), content)

    def test_qcow2_around_and_inside_of_luks(self):
        content = qluks.source_bytes(2 * qluks.MIB)
        volume = self.luks1("volume", content)
        around = self.path("around.qcow2")
        qluks.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", volume, around)
        disk = self.read(self.qcow2("disk.qcow2", content))
        inside = self.luks1("inside", disk + bytes(8 * qluks.MIB))
        cases = ((around, [PASS], f"driver=luks,key-secret=s,file.driver=qcow2,file.file.filename={around}"),
                 (inside, [PASS, "qluks-layers=luks,qcow2"],
                  f"driver=qcow2,file.driver=luks,file.key-secret=s,file.file.filename={inside}"))
        for image, args, opts in cases:
            with self.subTest(image=image):
                if image == around:
                    self.give_room(image)
                expected = bytearray(content)
                server = self.serve(image, *args)
                with server.connect() as h:
                    for offset, length in ((100, 5000), (CLUSTER - 7, 2 * CLUSTER), (20 * CLUSTER, 3 * CLUSTER)):
                        expected[offset:offset + length] = b"w" * length
                        h.pwrite(b"w" * length, offset)
                    h.flush()
                    self.assert_same(qluks.read_all(h), bytes(expected))
                server.stop()
                raw = self.path("content.raw")
                qluks.run("qemu-img", "convert", *qluks.qemu_secret(), "--image-opts", opts, "-O", "raw", raw)
                self.assert_same(self.read(raw), bytes(expected))
                qluks.run("qemu-img", "check", *qluks.qemu_secret(), "--image-opts", opts.replace(
                    "driver=luks,key-secret=s,file.driver=qcow2,file.file", "driver=qcow2,file"))

    def test_what_was_not_flushed_is_written_when_the_client_goes(self):
        image = self.empty()
        self.give_room(image)
        server = self.serve(image)
        with server.connect() as h:
            h.pwrite(b"x" * 4096, 70000)
            h.trim(CLUSTER, 0)
        server.stop()
        self.assert_clean(image)
        self.assert_same(self.content_of(image)[70000:74096], b"x" * 4096)

    def test_what_was_freed_under_a_slow_reader_comes_back_when_it_leaves(self):
        image = self.qcow2("image.qcow2", b"\1" * SIZE)
        control = qluks.FaultControl(self.path("control"))
        faulty = os.path.join(os.environ["QLUKS_BUILD"], ".libs", "faulty_plugin.so")
        server = self.server(faulty, f"writable={image}", f"control={control.path}")
        reader = server.connect("hung").h
        with server.connect("hung") as h:
            h.pwrite(b"x" * 512, 0)
            h.flush()
            control.set(hang=1)
            buffer = nbd.Buffer(CLUSTER)
            cookie = reader.aio_pread(buffer, 0)
            while control["hanging"] == 0:
                reader.poll(10)
            h.trim(4 * CLUSTER, 8 * CLUSTER)
            h.flush()
        control.set(hang=0)
        while not reader.aio_command_completed(cookie):
            reader.poll(-1)
        reader.shutdown()
        server.stop()
        self.assert_clean(image)

    def test_no_room(self):
        image = self.empty(size=16 * qluks.MIB)
        room = 3 * CLUSTER
        self.give_room(image, room)
        server = self.serve(image)
        with server.connect() as h:
            h.pwrite(b"a" * CLUSTER, 0)
            with self.assertRaises(nbd.Error) as error:
                h.pwrite(b"b" * 8 * CLUSTER, CLUSTER)
            self.assertEqual(error.exception.errno, "ENOSPC")
            h.flush()
            # What is freed can be used again.
            h.trim(CLUSTER, 0)
            h.pwrite(b"c" * CLUSTER, 10 * CLUSTER)
            h.flush()
        lines = server.lines("no room in the container")
        self.assertRegex(lines[0], rf"it has {os.path.getsize(image)} bytes.*qluks-grow=FILE.*truncate -s \+SIZE")
        server.stop()
        self.assert_clean(image)
        self.assert_same(self.content_of(image)[10 * CLUSTER:11 * CLUSTER], b"c" * CLUSTER)

    def test_served_read_only_with_the_reason(self):
        def patched(at, value):
            image = self.qcow2("patched.qcow2", qluks.source_bytes(qluks.MIB))
            with open(image, "r+b") as f:
                f.seek(at)
                f.write(value)
            return image

        content = qluks.source_bytes(qluks.MIB)
        for at, value, why in ((79, b"\1", "dirty"), (48, (3 * CLUSTER).to_bytes(8, "big"), "overlaps|refcount"),
                               (2 * CLUSTER, bytes(8), "header at 0x0 has refcount 0")):
            with self.subTest(why=why):
                server = self.serve(patched(at, value))
                with server.connect() as h, server.connect() as other:
                    self.assertTrue(h.is_read_only() and other.is_read_only())
                    self.assert_same(qluks.read_all(h), content)
                lines = server.lines("served read-only: qcow2: ")
                self.assertEqual(len(lines), 1)
                self.assertRegex(lines[0], why)
                server.stop()

    def test_contradiction_ends_writing(self):
        """The L2 entry leads to the L1 table: found when it is first used."""
        content = qluks.source_bytes(qluks.MIB)
        image = self.qcow2("image.qcow2", content)
        with open(image, "r+b") as f:
            f.seek(40)
            l1 = int.from_bytes(f.read(8), "big")
            f.seek(l1)
            l2 = int.from_bytes(f.read(8), "big") & ((1 << 56) - 1)
            f.seek(l2 + 8 * 3)
            f.write((l1 | 1 << 63).to_bytes(8, "big"))
        before = self.read(image)
        server = self.serve(image)
        with server.connect() as h:
            for _ in range(2):
                with self.assertRaises(nbd.Error) as error:
                    h.pwrite(b"x" * 512, 3 * CLUSTER)
                self.assertEqual(error.exception.errno, "EIO")
            self.assert_same(bytes(h.pread(CLUSTER, 0)), content[:CLUSTER])
        self.assertEqual(len(server.lines("leads to the L1 table.*qemu-img check")), 1)
        server.stop()
        self.assert_same(self.read(image), before)

    def test_autoclear_bits_go_before_the_first_change_and_the_rest_of_the_header_stays(self):
        image = self.qcow2("image.qcow2", qluks.source_bytes(qluks.MIB))
        with open(image, "r+b") as f:
            f.seek(88)
            f.write((1 << 40).to_bytes(8, "big"))
            f.seek(0)
            header = f.read(4096)
        self.give_room(image)
        server = self.serve(image)
        with server.connect() as h:
            self.assertEqual(self.read(image, 4096), header)
            h.pwrite(b"x" * 512, 3 * CLUSTER)
            now = self.read(image, 4096)
        self.assertEqual(now, header[:88] + bytes(8) + header[96:])
        server.stop()

    def test_zeroes_and_trim(self):
        image = self.qcow2("image.qcow2", b"\1" * SIZE)
        server = self.serve(image)
        with server.connect(extents=True) as h:
            h.zero(4 * CLUSTER, CLUSTER)
            h.zero(4 * CLUSTER, 8 * CLUSTER, nbd.CMD_FLAG_NO_HOLE)
            h.trim(4 * CLUSTER + 100, 16 * CLUSTER - 50)
            h.zero(2 * CLUSTER, 24 * CLUSTER, nbd.CMD_FLAG_FAST_ZERO)
            with self.assertRaises(nbd.Error) as error:
                h.zero(100, 30 * CLUSTER, nbd.CMD_FLAG_FAST_ZERO)
            self.assertEqual(error.exception.errno, "ENOTSUP")
            h.flush()
        expected = bytearray(b"\1" * SIZE)
        for first, count in ((1, 4), (8, 4), (16, 4), (24, 2)):
            expected[first * CLUSTER:(first + count) * CLUSTER] = bytes(count * CLUSTER)
        server.stop()
        self.assert_clean(image)
        self.assert_same(self.content_of(image), bytes(expected))


if __name__ == "__main__":
    qluks.main()
