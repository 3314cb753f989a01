# SPDX-License-Identifier: BSD-3-Clause
"""LUKS volumes that are written through the filter, and read back by QEMU (LUKS1) and cryptsetup (LUKS2)."""

import os
import random
import shutil

import parallel_writes
import qluks

CONTENT = qluks.source_bytes(2 * qluks.MIB + 4096)
PASS = f"qluks-passphrase={qluks.SECRET}"
FUA = qluks.nbd.CMD_FLAG_FUA
NO_HOLE = qluks.nbd.CMD_FLAG_NO_HOLE

LENGTHS = (1, 7, 511, 512, 513, 4095, 4096, 4097, 40000, 65536, 300000)


def write_at_random(h, model, seed, requests):
    """Writes and zeroes of any offset and length, to the disk and to `model`."""
    rng = random.Random(seed)
    for _ in range(requests):
        length = rng.choice(LENGTHS)
        offset = rng.choice([rng.randrange(len(model)), rng.randrange(len(model)) & ~4095])
        length = min(length, len(model) - offset)
        flags = rng.choice([0, 0, 0, FUA])
        if rng.random() < 0.2:
            h.zero(length, offset, flags | rng.choice([0, NO_HOLE]))
            model[offset:offset + length] = bytes(length)
        else:
            data = rng.randbytes(length)
            h.pwrite(data, offset, flags)
            model[offset:offset + length] = data


class TestCase(qluks.TestCase):
    def write_through(self, image, *args, seed=1, requests=60, **kwargs):
        """What the disk must hold after a new content, then writes at random."""
        model = bytearray(random.Random(seed).randbytes(len(CONTENT)))
        server = self.server("file", image, PASS, *args, **kwargs)
        with server.connect() as h:
            self.assertFalse(h.is_read_only())
            self.assertEqual(h.get_size(), len(model))
            h.pwrite(bytes(model), 0)
            write_at_random(h, model, seed, requests)
            h.flush()
            self.assert_same(qluks.read_all(h), bytes(model))
        self.assertEqual(server.errors(), [])
        server.stop()
        return bytes(model)

    def assert_qemu_reads(self, expected, options):
        raw = self.write("expected.raw", expected)
        qluks.run("qemu-img", "compare", *qluks.qemu_secret(), "--image-opts", f"{options},key-secret=s",
                  f"driver=raw,file.filename={raw}")

    def assert_cryptsetup_reads(self, expected, image, header=None):
        """It decrypts the volume in place; an attached header goes to a file of its own on the way."""
        exported = header or self.path("exported-header")
        if not header and os.path.exists(exported):
            os.unlink(exported)
        qluks.run("cryptsetup", "reencrypt", "--decrypt", "--force-offline-reencrypt", "-q", "--header", exported,
                  "--key-file", self.secret_file(), image)
        with open(image, "rb") as f:
            self.assert_same(f.read(len(expected)), expected)


class Luks1(TestCase):
    def test_every_cipher_that_qemu_reads(self):
        for cipher, bits in (("aes-xts-plain64", 256), ("aes-xts-plain64", 512), ("aes-xts-plain", 512),
                             ("aes-cbc-essiv:sha256", 128), ("aes-cbc-essiv:sha256", 256), ("aes-cbc-plain64", 128),
                             ("aes-cbc-plain64", 256), ("aes-ctr-plain64", 256)):
            with self.subTest(cipher=cipher, bits=bits):
                image = self.luks1("image.luks", CONTENT, cipher=cipher, key_bits=bits)
                self.assert_qemu_reads(self.write_through(image), f"driver=luks,file.filename={image}")

    def test_ciphers_that_only_qemu_makes(self):
        for cipher, mode, iv in (("serpent-256", "xts", "plain64"), ("twofish-128", "xts", "essiv"),
                                 ("twofish-256", "cbc", "plain64"), ("cast5-128", "cbc", "plain64"),
                                 ("serpent-256", "ctr", "plain")):
            with self.subTest(cipher=cipher, mode=mode, iv=iv):
                image = self.path("image.luks")
                raw = self.write("src.raw", CONTENT)
                options = f"key-secret=s,iter-time=10,cipher-alg={cipher},cipher-mode={mode},ivgen-alg={iv}"
                options += ",ivgen-hash-alg=sha256" if iv == "essiv" else ""
                qluks.qemu_img_luks("convert", *qluks.qemu_secret(), "-f", "raw", "-O", "luks", "-o", options, raw,
                                    image)
                self.assert_qemu_reads(self.write_through(image, requests=20), f"driver=luks,file.filename={image}")

    def test_parallel_writers_at_random(self):
        seed = random.randrange(1 << 20)
        with self.subTest(seed=seed):
            image = self.luks1("image.luks", CONTENT[:qluks.MIB])
            server = self.server("file", image, PASS)
            expected = parallel_writes.write(server, qluks.MIB, seed)
            server.stop()
            self.assert_qemu_reads(expected, f"driver=luks,file.filename={image}")

    def test_header_is_never_written(self):
        image = self.luks1("image.luks", CONTENT)
        offset = qluks.luks_payload_offset(image)
        with open(image, "rb") as f:
            before = f.read(offset)
        self.write_through(image, "qluks-discard=true")
        with open(image, "rb") as f:
            self.assert_same(f.read(offset), before)

    def test_copied_in_by_nbdcopy(self):
        image = self.luks1("image.luks", bytes(len(CONTENT)))
        raw = self.write("source.raw", CONTENT)
        qluks.run("nbdcopy", "--flush", raw, self.server("file", image, PASS).uri())
        self.assert_qemu_reads(CONTENT, f"driver=luks,file.filename={image}")

    def test_converted_into_by_qemu(self):
        image = self.luks1("image.luks", bytes(len(CONTENT)))
        raw = self.write("source.raw", CONTENT)
        server = self.server("file", image, PASS)
        qluks.run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", raw, server.uri())
        self.assert_qemu_reads(CONTENT, f"driver=luks,file.filename={image}")


class Luks2(TestCase):
    def test_sector_sizes(self):
        for cipher, bits, sector in (("aes-xts-plain64", 512, 512), ("aes-xts-plain64", 256, 1024),
                                     ("aes-xts-plain64", 512, 2048), ("aes-xts-plain64", 512, 4096),
                                     ("aes-cbc-essiv:sha256", 256, 512), ("aes-cbc-plain64", 256, 4096)):
            with self.subTest(cipher=cipher, bits=bits, sector=sector):
                image = self.luks2("image.luks", CONTENT, "--cipher", cipher, "--key-size", bits, "--sector-size",
                                   sector)
                self.assert_cryptsetup_reads(self.write_through(image), image)

    def test_other_ciphers_modes_and_ivs(self):
        for cipher, bits, sector in (("aes-ctr-plain64be", 256, 512), ("aes-cbc-benbi", 128, 4096),
                                     ("aes-cbc-eboiv", 256, 512), ("camellia-cbc-essiv:sha256", 192, 512),
                                     ("aes-ecb", 256, 512)):
            with self.subTest(cipher=cipher, bits=bits, sector=sector):
                image = self.luks2("image.luks", CONTENT, "--cipher", cipher, "--key-size", bits, "--sector-size",
                                   sector)
                self.assert_cryptsetup_reads(self.write_through(image, requests=20), image)

    def test_detached_header(self):
        header = self.path("header")
        payload = self.luks2("payload", CONTENT, "--sector-size", 4096, header=header)
        with open(header, "rb") as f:
            before = f.read()
        expected = self.write_through(payload, f"qluks-header={header}")
        with open(header, "rb") as f:
            self.assert_same(f.read(), before)
        self.assert_cryptsetup_reads(expected, payload, header)

    def test_parallel_writers_of_parts_of_the_same_sectors(self):
        """Eight connections, each with the bytes of its own: none may undo what another one wrote beside it."""
        writers, stride, rounds = 8, 64, 12
        image = self.luks2("image.luks", bytes(1 << 20), "--sector-size", 4096)
        server = self.server("file", image, PASS)
        sectors = [0, 4096, 8192]

        def write(number):
            with server.connect() as h:
                self.assertTrue(h.can_multi_conn())
                for round in range(rounds):
                    for sector in sectors:
                        for at in range(number * stride, 4096, writers * stride):
                            h.pwrite(bytes([number + 1 + 16 * round % 256]) * stride, sector + at)

        qluks.in_threads(writers, write)
        last = bytes(b for at in range(0, 4096, stride)
                     for b in [at // stride % writers + 1 + 16 * (rounds - 1) % 256] * stride)
        with server.connect() as h:
            h.flush()
        server.stop()
        self.assert_cryptsetup_reads(last * 3 + bytes((1 << 20) - 3 * 4096), image)

    def test_parallel_writers_at_random(self):
        for sector in (512, 4096):
            for _ in range(2):
                seed = random.randrange(1 << 20)
                with self.subTest(sector=sector, seed=seed):
                    image = self.luks2("image.luks", CONTENT[:qluks.MIB], "--sector-size", sector)
                    server = self.server("file", image, PASS)
                    expected = parallel_writes.write(server, qluks.MIB, seed)
                    server.stop()
                    self.assert_cryptsetup_reads(expected, image)

    def test_trim_reaches_the_file_only_when_it_is_said(self):
        image = self.luks2("image.luks", CONTENT)
        server = self.server("file", image, PASS, "qluks-discard=true")
        blocks = os.stat(image).st_blocks
        with server.connect() as h:
            h.trim(qluks.MIB, 0)
            h.flush()
            self.assert_same(h.pread(512, qluks.MIB), CONTENT[qluks.MIB:qluks.MIB + 512])
        self.assertLess(os.stat(image).st_blocks, blocks - 1024)


class Stacks(TestCase):
    """Whatever lies below or above: what is written is read back, and no request ends the server."""

    def fresh(self, name, content):
        """A copy of a volume that is made once."""
        if not os.path.exists(self.path(name)):
            self.luks2(name, content, "--sector-size", 4096)
        return shutil.copyfile(self.path(name), self.path("copy.luks"))

    def use(self, *args, options=(), filters=()):
        image = self.fresh("volume.luks", CONTENT)
        server = self.server("file", image, PASS, "qluks-discard=true", *args, options=options, filters=filters)
        model = bytearray(CONTENT)
        with server.connect(extents=True) as h:
            if h.is_read_only():
                return
            if h.can_fua() and h.can_zero():
                write_at_random(h, model, 3, 40)
            else:
                self.write_in_order(h, model)
            for flags in () if not h.can_zero() else (0, NO_HOLE, qluks.nbd.CMD_FLAG_FAST_ZERO if h.can_fast_zero() else 0):
                try:
                    h.zero(70000, 1000, flags)
                    model[1000:71000] = bytes(70000)
                except qluks.nbd.Error as e:
                    self.assertTrue(flags & qluks.nbd.CMD_FLAG_FAST_ZERO, e)
            if h.can_flush():
                h.flush()
            self.assert_same(qluks.read_all(h), bytes(model))
            if h.can_trim():
                h.trim(100000, 4096 + 7)
        self.assertTrue(server.is_alive())
        server.stop()

    def write_in_order(self, h, model):
        for offset, length in ((0, 5000), (4097, 1), (8192, 65536)):
            data = os.urandom(length)
            h.pwrite(data, offset)
            model[offset:offset + length] = data

    def test_below(self):
        for filters, args in ((["fua"], ["fuamode=emulate"]), (["fua"], ["fuamode=native"]),
                              (["fua"], ["fuamode=discard"]), (["nozero"], ["zeromode=none"]),
                              (["nozero"], ["zeromode=emulate"]), (["nozero"], ["zeromode=notrim"]),
                              (["noparallel"], ["serialize=requests"]), (["noparallel"], ["serialize=all-requests"]),
                              (["noparallel"], ["serialize=connections"]),
                              (["blocksize-policy"], ["blocksize-minimum=4096", "blocksize-error-policy=error"]),
                              (["blocksize-policy"], ["blocksize-minimum=4096", "blocksize-preferred=4096",
                                                      "blocksize-maximum=64k", "blocksize-error-policy=error"]),
                              (["blocksize"], ["minblock=4096", "maxdata=64k", "maxlen=64k"]), (["cow"], []),
                              (["cache"], ["cache=writethrough"]), (["cache"], ["cache=unsafe"]), (["readahead"], []),
                              (["retry"], ["retries=1"]),
                              (["log"], [f"logfile={os.devnull}"]), (["noextents"], []),
                              (["nocache"], ["cachemode=none"])):
            with self.subTest(filters=filters, args=args):
                self.use(*args, filters=filters)

    def test_above(self):
        for filters, args in ((["cow"], []), (["cache"], []), (["blocksize"], ["minblock=512", "maxdata=64k"]),
                              (["readahead"], []), (["retry"], ["retries=1"]), (["log"], [f"logfile={os.devnull}"]),
                              (["fua"], ["fuamode=force"]), (["noparallel"], ["serialize=requests"]),
                              (["stats"], [f"statsfile={os.devnull}"])):
            with self.subTest(filters=filters, args=args):
                options = [f"--filter={name}" for name in filters]
                self.use(*args, options=options)

    def test_errors_of_the_plugin_reach_the_client(self):
        """Each kind, with every number that nbdkit passes on; the server lives."""
        for request, call in (("pwrite", lambda h: h.pwrite(bytes(4096), 0)), ("zero", lambda h: h.zero(4096, 0)),
                              ("trim", lambda h: h.trim(8192, 0)), ("pread", lambda h: h.pwrite(b"x", 1))):
            for number in ("EIO", "ENOSPC", "EPERM", "ENOMEM", "EINVAL"):
                with self.subTest(request=request, number=number):
                    image = self.fresh("small.luks", bytes(65536))
                    control = self.path("inject")
                    if os.path.exists(control):
                        os.unlink(control)
                    below = "pwrite" if request == "zero" else request  # zeroes are encrypted
                    server = self.server("file", image, PASS, "qluks-discard=true", f"error-{below}={number}",
                                         f"error-{below}-rate=100%", f"error-{below}-file={control}", filters=["error"])
                    with server.connect() as h:
                        with open(control, "w"):
                            pass
                        with self.assertRaises(qluks.nbd.Error):
                            call(h)
                        os.unlink(control)
                        call(h)
                    self.assertTrue(server.is_alive())
                    server.stop()


class Contract(TestCase):
    def test_read_only_when_asked(self):
        image = self.luks1("image.luks", CONTENT)
        with self.server("file", image, PASS, options=["-r"]).connect() as h:
            self.assertTrue(h.is_read_only())

    def test_what_cannot_be_written_says_so_once(self):
        """Whatever the number of connections.  A filter below stands for a plugin that does not write."""
        image = self.luks1("image.luks", CONTENT)
        qluks.run("xz", "-0", "--block-size=1MiB", image)
        server = self.server("file", image + ".xz", PASS, filters=["xz"])
        with server.connect() as first, server.connect() as second:
            self.assertTrue(first.is_read_only() and second.is_read_only())
            self.assert_same(first.pread(512, 0), CONTENT[:512])
        self.assertEqual([e for e in server.errors() if "read-only" in e],
                         ['warning: export "" is served read-only: the plugin does not write'])

    def test_few_writes_go_down(self):
        """One for a MiB, aligned or not."""
        for sector in (512, 4096):
            image = self.luks2("image.luks", bytes(4 * qluks.MIB), "--sector-size", sector)
            server = self.server("file", image, PASS, options=["-D", "qluks.next=1"])
            with server.connect() as h:
                for offset, length, writes, reads in ((0, qluks.MIB, 1, 0), (8192, 65536, 1, 0),
                                                      (0, 4 * qluks.MIB, 4, 0), (100, 300, 1, 1), (100, 65536, 1, 2)):
                    marks = len(server.lines("qluks: next write")), len(server.lines("qluks: next read"))
                    h.pwrite(bytes(length), offset)
                    done = (len(server.lines("qluks: next write")) - marks[0],
                            len(server.lines("qluks: next read")) - marks[1])
                    self.assertEqual(done, (writes, reads), (offset, length, sector))
            server.stop()


if __name__ == "__main__":
    qluks.main()
