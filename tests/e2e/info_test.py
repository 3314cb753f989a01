# SPDX-License-Identifier: BSD-3-Clause
"""What qluks-info says of an image, beside what qemu-img and cryptsetup say of it."""

import json
import os
import re

import qluks

INFO = os.path.join(os.environ["QLUKS_BUILD"], "qluks-info")
CONTENT = qluks.source_bytes(qluks.MIB)


class InfoTest(qluks.TestCase):
    def info(self, image):
        report = json.loads(qluks.run(INFO, "--json", image, stdin=b"").stdout)
        text = qluks.run(INFO, image, stdin=b"").stdout
        self.assertTrue(text.isascii())
        self.assertNotRegex(text, rb"[^ -~\n]")
        return report["layer"], report.get("serve")

    def check_luks(self, layer, path):
        dump = qluks.run("cryptsetup", "luksDump", path).stdout.decode()
        self.assertEqual(layer["uuid"], qluks.luks_uuid(path))
        self.assertEqual(layer["version"], int(re.search(r"Version:\s*(\d)", dump)[1]))
        self.assertEqual(layer["key-bits"], 512)
        for slot in layer["key-slots"]:
            self.assertGreaterEqual(slot["seconds-here"], 0)
        return dump

    def test_a_qcow2_is_told_as_by_qemu(self):
        path = self.qcow2("disk", CONTENT, 3, 32768, "compression_type=zstd")
        qluks.run("qemu-img", "snapshot", "-c", "evil\n\"name", path)
        layer, serve = self.info(path)
        qemu = json.loads(qluks.run("qemu-img", "info", "--output=json", path).stdout)
        self.assertEqual(layer["virtual-size"], qemu["virtual-size"])
        self.assertEqual(layer["cluster-size"], qemu["cluster-size"])
        self.assertEqual(layer["features"]["compression-type"], qemu["format-specific"]["data"]["compression-type"])
        self.assertEqual(layer["features"]["refcount-bits"], qemu["format-specific"]["data"]["refcount-bits"])
        self.assertEqual([(s["id"], s["name"]) for s in layer["snapshots"]],
                         [(s["id"], s["name"]) for s in qemu["snapshots"]])
        self.assertEqual(serve, f"nbdkit --filter=qluks file {path}")

    def test_a_backing_file_is_named_and_not_opened(self):
        layer, serve = self.info(self.overlay("top", "/nowhere/base.img", qluks.MIB, "qcow2"))
        self.assertEqual((layer["backing-file"], layer["backing-format"]), ("/nowhere/base.img", "qcow2"))
        self.assertIn("qluks-backing=FILE", serve)

    def test_luks_in_a_qcow2_is_told_as_by_qemu(self):
        path = self.qcow2_luks("disk", CONTENT)
        layer, serve = self.info(path)
        qemu = json.loads(qluks.run("qemu-img", "info", "--output=json", path).stdout)
        encrypt = qemu["format-specific"]["data"]["encrypt"]
        self.assertEqual(layer["encryption"]["uuid"], encrypt["uuid"])
        self.assertEqual(layer["encryption"]["key-slots"][0]["kdf"]["iterations"], encrypt["slots"][0]["iters"])
        self.assertIn("qluks-passphrase=-", serve)

    def test_luks1_is_told_as_by_cryptsetup(self):
        path = self.luks1("volume", CONTENT)
        layer, _ = self.info(path)
        self.check_luks(layer, path)
        self.assertEqual(layer["payload-offset"], qluks.luks_payload_offset(path))
        self.assertEqual(layer["key-slots"][0]["kdf"], {"type": "pbkdf2", "hash": "sha256", "iterations": 1000})

    def test_luks2_is_told_as_by_cryptsetup(self):
        path = self.luks2("volume", CONTENT, "--sector-size", "4096", pbkdf=qluks.cheap_argon2("argon2id"))
        qluks.run("cryptsetup", "token", "add", "--key-description", "some", path)
        layer, _ = self.info(path)
        self.check_luks(layer, path)
        self.assertEqual(layer["sector-size"], 4096)
        self.assertEqual(layer["key-slots"][0]["kdf"], {"type": "argon2id", "time": 4, "memory-kib": 64, "cpus": 2})
        self.assertEqual(layer["tokens"], [{"number": "0", "type": "luks2-keyring"}])

    def test_the_command_line_that_it_prints_opens_the_partition(self):
        disk = self.write("disk", bytes(32 * qluks.MIB))
        qluks.run("sfdisk", "-q", disk, stdin=b"label: gpt\nstart=2048,size=4096\nstart=8192,size=40000\n")
        volume = self.luks1("volume", CONTENT)
        with open(volume, "rb") as source, open(disk, "r+b") as f:
            f.seek(8192 * 512)
            f.write(source.read())
        qluks.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, disk + ".qcow2")
        for image, below in (disk, ""), (disk + ".qcow2", "qcow2,"):
            layer, serve = self.info(image)
            table = layer["guest"] if below else layer
            self.assertEqual([(p["number"], p["offset"]) for p in table["partitions"]], [(1, 2048 * 512), (2, 8192 * 512)])
            self.assertEqual(table["partitions"][1]["guest"]["uuid"], qluks.luks_uuid(volume))
            words = serve.split()[3:]
            self.assertEqual(words, [image, f"qluks-layers={below}partition:2,luks", "qluks-passphrase=-"])
            words[-1] = f"qluks-passphrase={qluks.SECRET}"
            with self.server("file", *words).connect() as h:
                self.assertEqual(bytes(h.pread(len(CONTENT), 0)), CONTENT)

    def test_what_is_nothing_known_or_damaged_is_refused(self):
        for content, pattern in (b"x" * 4096, "neither qcow2 nor LUKS"), (b"QFI\xfb" + bytes(4096), "version 0"):
            done = qluks.run(INFO, self.write("image", content), check=False)
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr.decode(), pattern)


if __name__ == "__main__":
    qluks.main()
