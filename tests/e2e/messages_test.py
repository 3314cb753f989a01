# SPDX-License-Identifier: BSD-3-Clause
"""A message leads on: what was handed over instead of an image is named, with its way out; so is what may be wrong with
a secret; and what an image says reaches no program unseen."""

import bz2
import gzip
import lzma
import os
import signal
import struct
import subprocess
import tarfile
import zipfile

import qluks

CONTENT = qluks.source_bytes(qluks.MIB)
PASS = f"qluks-passphrase={qluks.SECRET}"


class Messages(qluks.TestCase):
    def refused(self, *args, **kwargs):
        """What the log says of an image that opens for nobody."""
        server = self.server(*args, **kwargs)
        with self.assertRaises(qluks.nbd.Error):
            server.connect()
        return server.errors()[-1]

    def file(self, name, content):
        return self.refused("file", self.write(name, content), PASS)


class InsteadOfAnImage(Messages):
    def test_compressed(self):
        image = self.luks1("image.luks", CONTENT)
        with open(image, "rb") as f:
            plain = f.read()
        self.assertRegex(self.file("a.xz", lzma.compress(plain)), "xz-compressed.*--filter=qluks --filter=xz")
        self.assertRegex(self.file("a.gz", gzip.compress(plain)), "gzip-compressed.*--filter=qluks --filter=gzip")
        self.assertRegex(self.file("a.bz2", bz2.compress(plain)), "bzip2-compressed.*bunzip2")
        packed = qluks.run("zstd", "-qc", image).stdout if self.has("zstd") else bytes.fromhex("28b52ffd") + bytes(600)
        self.assertRegex(self.file("a.zst", packed), "zstd-compressed.*zstd -d")
        # The way out is one.
        for name, compress in (("b.xz", lzma.compress), ("b.gz", gzip.compress)):
            path = self.write(name, compress(plain))
            self.assert_serves(CONTENT, "file", path, PASS, filters=({"b.xz": "xz", "b.gz": "gzip"}[name],))

    def has(self, program):
        return any(os.access(os.path.join(d, program), os.X_OK) for d in os.environ["PATH"].split(":"))

    def test_archives(self):
        image = self.luks1("image.luks", CONTENT)
        with tarfile.open(self.path("a.tar"), "w") as tar:
            tar.add(image, arcname="image.luks")
        said = self.refused("file", self.path("a.tar"), PASS)
        self.assertRegex(said, "a tar archive: .*--filter=qluks --filter=tar tar-entry=NAME")
        self.assert_serves(CONTENT, "file", self.path("a.tar"), "tar-entry=image.luks", PASS, filters=("tar",))
        with zipfile.ZipFile(self.path("a.zip"), "w") as archive:
            archive.write(image)
        self.assertRegex(self.refused("file", self.path("a.zip"), PASS), "a zip archive: .*unzip")

    def test_images_of_other_programs(self):
        raw = self.write("disk.raw", CONTENT)
        for kind, options, name in (("vmdk", [], "a VMDK image"), ("vhdx", [], "a VHDX image"),
                                    ("vdi", [], "a VDI image"), ("qed", [], "a QED image"),
                                    ("parallels", [], "a Parallels image"),
                                    ("vpc", [], "a VHD image"), ("vpc", ["-o", "subformat=fixed"], "a VHD image"),
                                    ("vmdk", ["-o", "subformat=monolithicFlat"], "the descriptor of a VMDK image")):
            path = self.path(f"disk.{kind}")
            qluks.run("qemu-img", "convert", "-f", "raw", "-O", kind, *options, raw, path)
            self.assertRegex(self.refused("file", path, PASS), f"but {name}: convert it with qemu-img convert")
        qluks.run("qemu-img", "convert", "-f", "raw", "-O", "qcow", raw, self.path("disk.qcow"))
        self.assertRegex(self.refused("file", self.path("disk.qcow"), PASS), "QCOW1 image, convert it with qemu-img")

    def test_file_systems(self):
        path = self.write("disk.ext4", bytes(8 * qluks.MIB))
        qluks.run("/sbin/mkfs.ext4", "-qF", path)
        self.assertRegex(self.refused("file", path, PASS), "an ext2, ext3 or ext4 file system: .*qluks-layers=raw")
        iso = bytearray(64 << 10)
        iso[32769:32774] = b"CD001"
        self.assertRegex(self.file("a.iso", iso), "an ISO 9660 file system: .*qluks-layers=raw")
        # Which is the way out.
        with open(path, "rb") as f:
            self.assert_serves(f.read(), "file", path, "qluks-layers=raw")

    def test_web_page_and_nothing(self):
        self.assertRegex(self.file("page", b"\n<!DOCTYPE HTML>\n<title>404</title>"), "a web page: is the URL right")
        self.assertRegex(self.file("xml", b"<?xml version='1.0'?><Error/>"), "a web page: is the URL right")
        self.assertRegex(self.file("empty", b""), "an empty file: is its download complete")
        self.assertNotRegex(self.file("noise", qluks.source_bytes(100000, seed=7)), ", but")


class Secrets(Messages):
    def test_newline_that_was_dropped(self):
        """QEMU's secret,file= counts it."""
        image = self.luks1("image.luks", CONTENT, payload=False)
        added = self.write("line", b"a line\n")
        qluks.run("cryptsetup", "luksAddKey", "-q", "--pbkdf-force-iterations", "1000", "--key-file",
                  self.secret_file(), image, added)
        self.assertRegex(self.refused("file", image, f"qluks-passphrase=+{added}"),
                         "the newline behind the passphrase was dropped: qluks-key-file= keeps it")
        self.server("file", image, f"qluks-key-file={added}").connect()
        without = self.write("without", b"a line")
        self.assertNotRegex(self.refused("file", image, f"qluks-passphrase=+{without}"), "newline")

    def test_carriage_return(self):
        image = self.luks2("image.luks", CONTENT)
        path = self.write("dos", qluks.SECRET.encode() + b"\r\n")
        self.assertRegex(self.refused("file", image, f"qluks-passphrase=+{path}"), "ends in a carriage return")


class WhatImagesSay(Messages):
    def with_uuid(self, uuid):
        image = self.luks1("image.luks", CONTENT)
        with open(image, "r+b") as f:
            f.seek(168)
            f.write(uuid.encode("latin1").ljust(40, b"\0"))
        return image

    def test_uuid_of_a_program(self):
        ran = self.path("ran")
        command = f"qluks-key-command=echo \"$QLUKS_UUID\" >>{ran}; printf %s '{qluks.SECRET}'"
        for uuid in ("../secretfile", "x; touch y", "-rf", ".hidden", "", "a b", "a\nb", "$(id)", "a/b", "\xe4"):
            with self.subTest(uuid):
                self.assertRegex(self.refused("file", self.with_uuid(uuid), command),
                                 "qluks-key-command: not run: the header's UUID .* is not of letters")
                self.assertFalse(os.path.exists(ran))
        for uuid in ("9f5b71e5-2f3d-4d3a-8ea7-1b5f7c2f3a61", "a.b_C-0"):
            self.assert_serves(CONTENT, "file", self.with_uuid(uuid), command)
            with open(ran) as f:
                self.assertEqual(f.read(), uuid + "\n")
            os.unlink(ran)

    def test_program_that_fails_where_ends_of_children_are_ignored(self):
        image = self.luks1("image.luks", CONTENT, payload=False)
        directory = self.path("ignoring")
        os.mkdir(directory)
        command = qluks.nbdkit_command(directory, "file", image,
                                       f"qluks-key-command=printf %s '{qluks.SECRET}'; exit 3",
                                       options=("--run", 'nbdinfo "$uri"'))
        done = subprocess.run(command, capture_output=True, env=qluks.environment(), check=False,
                              preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
        self.assertIn(b"it failed with status 3", done.stderr)

    def test_second_header_behind_something_else(self):
        """The disk was used for something else since; cryptsetup calls that ambiguous."""
        image = self.luks2("image.luks", CONTENT)
        with open(image, "rb") as f:
            sound = f.read()

        def start_with(content, at=0):
            with open(image, "wb") as f:
                f.write(content.ljust(4096, b"\0") if at == 0 else sound[:at] + content)
                f.write(sound[f.tell():])
            return image
        table = bytearray(512)
        table[446:462] = struct.pack("<B3sB3sII", 0, bytes(3), 0x83, bytes(3), 2048, 1024)
        table[510:] = b"\x55\xaa"
        self.assertRegex(self.refused("file", start_with(bytes(table)), PASS),
                         "starts as a partition table, .*second header of a LUKS2 volume.*qluks-layers=luks")
        done = qluks.run("cryptsetup", "open", "--test-passphrase", "--key-file", self.secret_file(), image,
                         check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex(self.refused("file", start_with(b"XFSB"), PASS),
                         "starts as an XFS file system.*qluks-layers=luks")
        self.assert_serves(CONTENT, "file", image, PASS, "qluks-layers=luks")
        # Damaged only, it opens as ever.
        self.assert_serves(CONTENT, "file", start_with(b""), PASS)

    def test_client_is_not_told_where_sources_are(self):
        header = self.path("header")
        payload = self.luks2("payload", CONTENT, header=header)
        origin = self.server("file", header, "qluks-layers=raw")
        server = self.server("file", payload, f"qluks-header={origin.uri()}", PASS)
        self.assertEqual(server.errors(), [])
        base = self.server("memory", "1M", "qluks-layers=raw")
        overlay = self.overlay("over.qcow2", "base", qluks.MIB)
        server = self.server("file", overlay, f"qluks-backing={base.uri()}")
        base.stop()
        with self.assertRaises(qluks.nbd.Error):
            with server.connect() as h:
                h.pread(512, 0)
        said = server.errors()
        self.assertTrue(any(base.dir in line for line in said), said)
        self.assertNotIn(base.dir, said[-1])
        self.assertRegex(said[-1], "qluks-backing")


class Sources(Messages):
    def test_fifo_is_none(self):
        """Nobody writes to it: to open it would be to wait for ever."""
        fifo = self.path("fifo")
        os.mkfifo(fifo)
        overlay = self.overlay("over.qcow2", "base", qluks.MIB)
        for parameter in ("qluks-header", "qluks-backing", "qluks-data-file"):
            errors = self.refusal("file", overlay, f"{parameter}={fifo}", PASS)
            self.assertRegex(errors[0], f"{parameter}.*{fifo}: neither a regular file nor a block device")

    def test_name_that_goes_up(self):
        """Also where it comes back into the directory."""
        os.makedirs(self.path("images/sub"))
        self.write("images/base.raw", CONTENT)
        for name, said in (("sub/../base.raw", "holds"), ("base.raw", None)):
            image = self.overlay("images/over.qcow2", name, qluks.MIB)
            args = ("file", image, f"qluks-backing-dir={self.path('images')}")
            if said is None:
                self.assert_serves(CONTENT, *args)
            else:
                self.assertRegex(self.refused(*args), said + ' "..": qluks-backing-dir does not follow')

    def test_server_whose_disk_changes_its_size(self):
        base = self.server("memory", "1M", "qluks-layers=raw")
        server = self.server("file", self.overlay("over.qcow2", "base", qluks.MIB), f"qluks-backing={base.uri()}")
        with server.connect() as h:
            self.assertEqual(h.pread(512, 0), bytes(512))
            base.stop(signal.SIGKILL)  # SIGTERM waits for clients
            base.restart("memory", "2M", "qluks-layers=raw")
            for _ in range(5):  # one for each connection of before
                with self.assertRaises(qluks.nbd.Error):
                    h.pread(512, 0)
            self.assertTrue(server.lines("its size changed from 1048576 to 2097152 bytes"))
            base.stop(signal.SIGKILL)
            base.restart("memory", "1M", "qluks-layers=raw")
            self.assertEqual(h.pread(512, 0), bytes(512))

    def test_exports_over_tls_are_images_of_their_own(self):
        """The plugin serves another disk there."""
        clear = self.luks1("false.luks", CONTENT)
        secret = self.luks1("true.luks", CONTENT[::-1])
        psk = self.write("psk", b"alice:" + os.urandom(16).hex().encode() + b"\n")
        size = os.path.getsize(clear)
        self.assertEqual(size, os.path.getsize(secret))
        server = self.server("eval", "open=echo $4", f"get_size=echo {size}",
                             f'pread=tail -c +$(($4 + 1)) "{self.dir}/$2.luks" | head -c $3', PASS,
                             options=("--tls=on", f"--tls-psk={psk}"))
        with server.connect() as plain:
            with qluks.Connection(server.uri(), False, tls_psk=psk) as h:
                self.assert_same(h.pread(65536, 0), CONTENT[::-1][:65536])
            self.assert_same(plain.pread(65536, 0), CONTENT[:65536])


class Detached(Messages):
    def test_payload_offset_counts_on_the_payload_alone(self):
        """As QEMU and older versions of cryptsetup write headers of their own: any that lies in the device."""
        for sectors in (0, 1, 8, 63, 2048):
            with self.subTest(sectors):
                header = self.luks1("header", CONTENT)
                offset = qluks.luks_payload_offset(header)
                with open(header, "r+b") as f:
                    f.seek(offset)
                    stored = f.read()
                    f.seek(104)
                    f.write(struct.pack(">I", sectors))
                payload = self.write("payload", bytes(sectors * 512) + stored)
                self.assert_serves(CONTENT, "file", payload, f"qluks-header={header}", PASS)
                over = self.qcow2("payload.qcow2", bytes(sectors * 512) + stored)
                self.assert_serves(CONTENT, "file", over, f"qluks-header={header}", PASS)

    def test_plugin_whose_largest_request_is_small(self):
        image = self.luks2("image.luks", CONTENT)
        server = self.server("file", image, "blocksize-minimum=512", "blocksize-preferred=512",
                             "blocksize-maximum=2048", "blocksize-error-policy=error", PASS,
                             filters=("blocksize-policy",))
        with server.connect() as h:
            self.assertEqual(h.get_block_size(qluks.nbd.SIZE_MAXIMUM), 2048)
            self.assertEqual(h.get_block_size(qluks.nbd.SIZE_PREFERRED), 2048)
            self.assert_same(h.pread(2048, 4096), CONTENT[4096:6144])


if __name__ == "__main__":
    qluks.main()
