# SPDX-License-Identifier: BSD-3-Clause
"""LUKS volumes by cryptsetup and qemu-img: cipher, key size, hash, KDF, sector size; read back whole."""

import os
import struct

import qluks

CONTENT = qluks.source_bytes(2 * qluks.MIB + 4096)
PASS = f"qluks-passphrase={qluks.SECRET}"


class Luks1(qluks.TestCase):
    def test_ciphers_key_sizes_and_hashes(self):
        ciphers = [("aes-xts-plain64", 256), ("aes-xts-plain64", 512), ("aes-cbc-essiv:sha256", 128),
                   ("aes-cbc-essiv:sha256", 256), ("aes-cbc-plain64", 128), ("aes-cbc-plain64", 256)]
        for cipher, bits in ciphers:
            for hash in ("sha1", "sha256", "sha512"):
                with self.subTest(cipher=cipher, bits=bits, hash=hash):
                    image = self.luks1("image.luks", CONTENT, cipher=cipher, key_bits=bits, hash=hash)
                    self.assert_describes(f"LUKS1 {cipher} {bits}-bit", self.assert_serves(CONTENT, "file", image, PASS))

    def test_hashes_that_qemu_lacks(self):
        """QEMU writes the payload under a header that it can open, which another of the same key then replaces."""
        key = self.write("volume-key", bytes(range(64)))
        for hash in ("sha512-256", "sha3-224", "sha3-256", "sha3-384", "sha3-512", "sm3", *qluks.OPTIONAL_HASHES):
            with self.subTest(hash=hash):
                self.skip_unless_built_with(hash)
                image = self.luks1("image.luks", CONTENT, "--volume-key-file", key)
                header = self.luks1("header.luks", b"", "--volume-key-file", key, hash=hash, payload=False)
                with open(header, "rb") as f, open(image, "r+b") as to:
                    to.write(f.read(qluks.luks_payload_offset(header)))
                self.assert_serves(CONTENT, "file", image, PASS)

    def test_made_by_qemu(self):
        image = self.path("image.luks")
        raw = self.write("src.raw", CONTENT)
        qluks.qemu_img_luks("convert", *qluks.qemu_secret(), "-f", "raw", "-O", "luks", "-o",
                            "key-secret=s,iter-time=10,hash-alg=sha224", raw, image)
        self.assert_serves(CONTENT, "file", image, PASS)

    def test_ciphers_of_qemu(self):
        """Each costs QEMU two seconds: so a few that have every cipher, mode and kind of IV."""
        for cipher, mode, iv, name in (("serpent-256", "xts", "plain64", "serpent-xts-plain64 512-bit"),
                                       ("serpent-128", "cbc", "essiv", "serpent-cbc-essiv:sha256 128-bit"),
                                       ("serpent-256", "ctr", "plain", "serpent-ctr-plain 256-bit"),
                                       ("twofish-128", "xts", "essiv", "twofish-xts-essiv:sha256 256-bit"),
                                       ("twofish-256", "cbc", "plain64", "twofish-cbc-plain64 256-bit"),
                                       ("cast5-128", "cbc", "plain64", "cast5-cbc-plain64 128-bit"),
                                       ("cast5-128", "ctr", "plain64", "cast5-ctr-plain64 128-bit"),
                                       ("aes-256", "ctr", "essiv", "aes-ctr-essiv:sha256 256-bit")):
            with self.subTest(name=name):
                image = self.path("image.luks")
                raw = self.write("src.raw", CONTENT)
                options = f"key-secret=s,iter-time=10,cipher-alg={cipher},cipher-mode={mode},ivgen-alg={iv}"
                options += ",ivgen-hash-alg=sha256" if iv == "essiv" else ""
                qluks.qemu_img_luks("convert", *qluks.qemu_secret(), "-f", "raw", "-O", "luks", "-o", options, raw, image)
                self.assert_describes(f"LUKS1 {name}", self.assert_serves(CONTENT, "file", image, PASS))

    def test_key_slots_under_other_modes(self):
        """LUKS1 encrypts its key slots with the cipher of the payload: here by cryptsetup, the payload by QEMU."""
        for cipher, bits in (("aes-ctr-plain64", 256), ("aes-ctr-plain", 128), ("aes-cbc-essiv:md5", 256),
                             ("aes-xts-plain", 512)):
            with self.subTest(cipher=cipher):
                image = self.luks1("image.luks", CONTENT, cipher=cipher, key_bits=bits)
                self.assert_describes(f"LUKS1 {cipher} {bits}-bit", self.assert_serves(CONTENT, "file", image, PASS))

    def test_every_key_slot(self):
        image = self.luks1("image.luks", CONTENT)
        for slot in (1, 7):
            key = self.write(f"key{slot}", b"slot %d" % slot)
            qluks.run("cryptsetup", "luksAddKey", "-q", "--pbkdf-force-iterations", "1000", "--key-slot", slot,
                      "--key-file", self.secret_file(), image, key)
        self.assert_serves(CONTENT, "file", image, "qluks-passphrase=slot 7")
        self.assert_serves(CONTENT, "file", image, "qluks-passphrase=slot 1", "qluks-key-slot=1")


class Luks2(qluks.TestCase):
    def test_ciphers_sector_sizes_and_kdfs(self):
        for cipher, bits in (("aes-xts-plain64", 256), ("aes-xts-plain64", 512), ("aes-cbc-essiv:sha256", 256),
                             ("aes-cbc-plain64", 256)):
            for sector in (512, 1024, 2048, 4096):
                with self.subTest(cipher=cipher, bits=bits, sector=sector):
                    image = self.luks2("image.luks", CONTENT, "--cipher", cipher, "--key-size", bits,
                                       "--sector-size", sector)
                    self.assert_serves(CONTENT, "file", image, PASS)

    def test_other_ciphers_modes_and_ivs(self):
        cases = [(f"aes-{rest}", 256, 512) for rest in
                 ("ecb", "ctr-plain", "ctr-plain64be", "ctr-null", "ctr-essiv:sha256", "cbc-null", "cbc-benbi",
                  "cbc-eboiv", "cbc-plain", "xts-null", "xts-benbi", "xts-plain64be", "plain")]
        cases += [("aes-cbc-benbi", 128, 4096), ("aes-cbc-eboiv", 256, 4096), ("aes-ctr-plain64", 128, 4096),
                  ("aes", 128, 512)]
        cases += [(f"camellia-{rest}", 256, 512) for rest in
                  ("cbc-plain64", "cbc-essiv:sha256", "cbc-benbi", "cbc-eboiv", "ctr-plain64", "ecb")]
        cases += [("camellia-cbc-plain64", 128, 4096), ("camellia-cbc-essiv:sha256", 192, 512)]
        for cipher, bits, sector in cases:
            with self.subTest(cipher=cipher, bits=bits, sector=sector):
                image = self.luks2("image.luks", CONTENT, "--cipher", cipher, "--key-size", bits, "--sector-size", sector)
                server = self.assert_serves(CONTENT, "file", image, PASS)
                name = {"aes": "aes-cbc-plain", "aes-plain": "aes-cbc-plain"}.get(cipher, cipher)
                self.assert_describes(f"LUKS2 {name} {bits}-bit", server)

    def test_ciphers_of_key_slots(self):
        for cipher, bits in (("aes-cbc-benbi", 128), ("aes-cbc-eboiv", 256), ("aes-ecb", 256), ("aes-ctr-plain64", 192),
                             ("camellia-cbc-essiv:sha256", 256), ("aes-xts-eboiv", 256), ("aes-ctr-benbi", 128)):
            with self.subTest(cipher=cipher, bits=bits):
                image = self.luks2("image.luks", CONTENT, "--keyslot-cipher", cipher, "--keyslot-key-size", bits)
                self.assert_serves(CONTENT, "file", image, PASS)

    def test_kdfs_and_hashes(self):
        for pbkdf in (qluks.cheap_argon2("argon2i"), qluks.cheap_argon2("argon2id"),
                      *(qluks.CHEAP_PBKDF2 + ["--hash", h] for h in
                        ("sha1", "sha224", "sha256", "sha384", "sha512", "sha512-256", "ripemd160", "sha3-224",
                         "sha3-256", "sha3-384", "sha3-512", "sm3", *qluks.OPTIONAL_HASHES))):
            with self.subTest(pbkdf=pbkdf):
                self.skip_unless_built_with(pbkdf[-1])
                self.assert_serves(CONTENT, "file", self.luks2("image.luks", CONTENT, pbkdf=pbkdf), PASS)

    def test_either_header_copy_serves(self):
        image = self.luks2("image.luks", CONTENT)
        with open(image, "rb") as f:
            whole = f.read()
        for damaged in (0, 8, 200, 4096, 16384, 16384 + 4096):
            with self.subTest(damaged=damaged):
                copy = bytearray(whole)
                copy[damaged] ^= 0xff
                self.assert_serves(CONTENT, "file", self.write("damaged.luks", bytes(copy)), PASS)
        both = bytearray(whole)
        both[200] ^= 0xff
        both[16384 + 200] ^= 0xff
        server = self.server("file", self.write("damaged.luks", bytes(both)), PASS, "qluks-layers=luks")
        with self.assertRaises(qluks.nbd.Error):
            server.connect()

    def test_priorities_and_unbound_slots(self):
        image = self.luks2("image.luks", CONTENT)
        second = self.write("second", b"second")
        unbound = self.write("unbound", b"unbound")
        qluks.run("cryptsetup", "luksAddKey", "-q", *qluks.CHEAP_PBKDF2, "--key-file", self.secret_file(), image, second)
        qluks.run("cryptsetup", "luksAddKey", "-q", *qluks.CHEAP_PBKDF2, "--unbound", "--key-size", "512",
                  "--key-slot", "5", "--key-file", unbound, image, unbound, check=False)
        qluks.run("cryptsetup", "config", "--key-slot", "0", "--priority", "ignore", image)
        self.assert_serves(CONTENT, "file", image, "qluks-passphrase=second")
        self.assert_serves(CONTENT, "file", image, PASS, "qluks-key-slot=0")
        for parameters in ([PASS], ["qluks-passphrase=unbound"]):
            with self.subTest(parameters=parameters), self.assertRaises(qluks.nbd.Error):
                self.server("file", image, *parameters).connect()

    def test_argon2id_as_cryptsetup_makes_it(self):
        """1 GiB and 4 passes, once."""
        pbkdf = ["--pbkdf", "argon2id", "--pbkdf-force-iterations", "4", "--pbkdf-memory", "1048576",
                 "--pbkdf-parallel", "4"]
        if os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") < 3 << 30:
            self.skipTest("less than 3 GiB of memory are free")
        self.assert_serves(CONTENT, "file", self.luks2("image.luks", CONTENT, pbkdf=pbkdf), PASS)


class Said(qluks.TestCase):
    """nbdkit -v tells what was opened, and by what."""

    def assert_says(self, server, *patterns):
        with server.connect():
            for pattern in patterns:
                self.assertEqual(len(server.lines(pattern)), 1, f"{pattern}\n{server.log()}")

    def test_attached_volumes(self):
        image = self.luks2("image.luks", CONTENT, "--sector-size", "4096", pbkdf=qluks.cheap_argon2("argon2id"))
        qluks.run("cryptsetup", "config", "--label", "backup of may", image)
        uuid = qluks.luks_uuid(image)
        self.assert_says(self.server("file", image, PASS),
                         rf'LUKS2: uuid "{uuid}", label "backup of may", aes-xts-plain64 512-bit, key slot 0, '
                         rf'sector size 4096, payload offset {qluks.LUKS2_PAYLOAD_OFFSET}, engine \w+$',
                         rf'LUKS2 volume "{uuid}": key slot 0 \(argon2id, time 4, memory 64 KiB, 2 cpus\) opened after '
                         r'1 derivation$')
        image = self.luks1("image.luks", CONTENT, cipher="aes-cbc-essiv:sha256", key_bits=128, hash="sha1")
        uuid = qluks.luks_uuid(image)
        self.assert_says(self.server("file", image, "qluks-passphrase=wrong", "qluks-passphrase=again", PASS),
                         rf'LUKS1: uuid "{uuid}", aes-cbc-essiv:sha256 128-bit, key slot 0, sector size 512, '
                         rf'payload offset {qluks.luks_payload_offset(image)}, engine \w+$',
                         rf'LUKS1 volume "{uuid}": key slot 0 \(pbkdf2-sha1, 1000 iterations\) opened after 3 derivations$')

    def test_volume_key_and_detached_header(self):
        header = self.path("header")
        payload = self.luks2("payload", CONTENT, header=header)
        key = self.path("key")
        qluks.run("cryptsetup", "luksDump", "--dump-volume-key", "-q", "--volume-key-file", key, "--key-file",
                  self.secret_file(), header)
        self.assert_says(self.server("file", payload, f"qluks-volume-key-file={key}", f"qluks-header={header}"),
                         rf'LUKS2: uuid "{qluks.luks_uuid(header)}", aes-xts-plain64 512-bit, given volume key, '
                         r"sector size 512, payload offset 0, ")

    def test_header_in_a_qcow2(self):
        self.assert_says(self.server("file", self.qcow2_luks("image.qcow2", CONTENT), PASS),
                         r'LUKS1 volume "[-0-9a-f]{36}": key slot 0 \(pbkdf2-sha256, \d+ iterations\) opened')

    def test_block_sizes(self):
        """Any byte can be read; what is preferred is no less than a sector of any volume."""
        for sector in (512, 4096):
            image = self.luks2("image.luks", CONTENT, "--sector-size", sector)
            with self.server("file", image, PASS).connect() as h:
                self.assertEqual(h.get_block_size(qluks.nbd.SIZE_MINIMUM), 1)
                self.assertGreaterEqual(h.get_block_size(qluks.nbd.SIZE_PREFERRED), 4096)


class Layers(qluks.TestCase):
    def test_luks_in_the_guest_disk_of_a_qcow2(self):
        for make in (self.luks1, self.luks2):
            volume = make("volume.luks", CONTENT)
            with open(volume, "rb") as f:
                stored = f.read()
            image = self.qcow2("image.qcow2", stored)
            for layers in ([], ["qluks-layers=qcow2,luks"]):
                with self.subTest(make=make.__name__, layers=layers):
                    self.assert_serves(CONTENT, "file", image, PASS, *layers)
            # Without a secret the guest disk is served as it is; so it is when the layers say so.
            self.assert_serves(stored, "file", image)
            self.assert_serves(stored, "file", image, PASS, "qluks-layers=qcow2")

    def test_damaged_cluster_where_a_luks_header_may_lie(self):
        """The one at 512 KiB, which may have LUKS2's second header: the disk may be LUKS, so it is not served as it is."""
        image = self.qcow2("image.qcow2", CONTENT)
        with open(image, "r+b") as f:
            f.seek(40)
            (l1,) = struct.unpack(">Q", f.read(8))
            f.seek(l1)
            entry = (int.from_bytes(f.read(8), "big") & ~(1 << 63)) + 8 * 8
            f.seek(entry)
            misaligned = int.from_bytes(f.read(8), "big") | 512
            f.seek(entry)
            f.write(misaligned.to_bytes(8, "big"))
        server = self.server("file", image, PASS)
        with self.assertRaises(qluks.nbd.Error):
            server.connect()
        self.assertIn("guest offset 0x80000", server.errors()[0])
        for args in ((), (PASS, "qluks-layers=qcow2")):
            with self.server("file", image, *args).connect() as h:
                self.assert_same(h.pread(0x80000, 0), CONTENT[:0x80000])
                with self.assertRaises(qluks.nbd.Error):
                    h.pread(512, 0x80000)

    def test_qcow2_inside_of_a_luks_volume(self):
        image = self.qcow2("image.qcow2", CONTENT)
        with open(image, "rb") as f:
            payload = f.read()
        volume = self.luks2("volume.luks", payload)
        self.assert_serves(CONTENT, "file", volume, PASS, "qluks-layers=luks,qcow2")
        # Never by probing: a guest could write a qcow2 header into its own disk.
        self.assert_serves(payload, "file", volume, PASS)

    def test_raw_is_served_as_it_is_when_told_so(self):
        image = self.write("disk.raw", CONTENT)
        server = self.server("file", image)
        with self.assertRaises(qluks.nbd.Error):
            server.connect()
        self.assertIn("qluks-layers=", server.errors()[0])
        self.assert_serves(CONTENT, "file", image, "qluks-layers=raw")


class Detached(qluks.TestCase):
    def test_luks2_header_over_a_raw_payload(self):
        for sector in (512, 4096):
            header = self.path(f"header{sector}")
            payload = self.luks2("payload", CONTENT, "--sector-size", sector, header=header)
            self.assertEqual(os.path.getsize(payload), len(CONTENT))
            self.assert_serves(CONTENT, "file", payload, PASS, f"qluks-header={header}")

    def test_header_backup_with_its_payload_offset(self):
        for make in (self.luks1, self.luks2):
            image = make("image.luks", CONTENT)
            backup = self.path(make.__name__ + ".backup")
            qluks.run("cryptsetup", "luksHeaderBackup", image, "--header-backup-file", backup)
            with open(image, "r+b") as f:
                f.write(bytes(65536))
            self.assert_serves(CONTENT, "file", image, PASS, f"qluks-header={backup}")

    def test_header_over_a_qcow2_payload(self):
        header = self.path("header")
        payload = self.luks2("payload", CONTENT, header=header)
        with open(payload, "rb") as f:
            image = self.qcow2("payload.qcow2", f.read())
        for layers in ([], ["qluks-layers=qcow2,luks"]):
            self.assert_serves(CONTENT, "file", image, PASS, f"qluks-header={header}", *layers)


if __name__ == "__main__":
    qluks.main()
