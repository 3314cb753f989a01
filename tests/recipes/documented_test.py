# SPDX-License-Identifier: BSD-3-Clause
"""Every line that the project prints or documents is typed, and does what the text around it says."""

import json
import os
import re

import documented
import qluks
from documented import PARTITION, SIZE

qluks.requires("jq", "sfdisk", "nbdcopy", "qemu-img")


class DocumentedTest(documented.TestCase):
    def served(self, command, expected, stdin=None):
        """The command starts a server, from which everything is copied."""
        self.typed(command, stdin=stdin)
        self.assert_same(self.content("served.raw"), expected)

    def each_export(self, command):
        for name in "a.luks", "b.luks":
            self.typed(command, f'nbdcopy "nbd+unix:///{name}?socket=$unixsocket" {name}.raw')
            self.assert_same(self.content(name + ".raw"), self.disk)

    def copied_into(self, command, image_options):
        """disk.raw goes into the image, which QEMU or this filter reads back."""
        fresh = qluks.source_bytes(SIZE, seed=7)
        self.write("disk.raw", fresh)
        self.typed(command)
        if image_options:
            qluks.run("qemu-img", "compare", *qluks.qemu_secret(), "--image-opts", image_options,
                      f"driver=raw,file.driver=file,file.filename={self.path('disk.raw')}")
        else:
            self.typed("nbdkit --filter=qluks file volume.img qluks-key-file=volume.key")
            self.assert_same(self.content("served.raw")[:SIZE], fresh)

    def check(self, command):
        """Types one command and looks at what it does; by what it names."""
        command = command.replace("/srv/", self.path("srv/"))
        if "https://example.com" in command:
            return self.served(command.replace("https://example.com", self.serve_on_the_web("disk.qcow2")), self.disk)
        if command.endswith("qluks-passphrase=-"):
            return self.at_a_terminal(command)
        if "dir=" in command and "qluks-backing-dir" not in command:
            return self.each_export(command)
        if command.startswith("qluks-info"):
            return self.assertRegex(self.typed(command), r"^(image: |[0-9.e-]+\n)")
        if 'disk.raw "$uri"' in command:
            into_qcow2 = "driver=qcow2,encrypt.format=luks,encrypt.key-secret=s,file.driver=file,file.filename="
            return self.copied_into(command, into_qcow2 + self.path("disk.qcow2") if "disk.qcow2" in command else None)
        if "nbdinfo" in command:
            return self.assertIn("qcow2 v3, LUKS1 aes-xts-plain64 512-bit", self.typed(command))
        if '"$uri" disk.raw' in command:
            os.unlink(self.path("disk.raw"))
            self.typed(command)
            return self.assert_same(self.content("disk.raw"), self.disk)
        if "qemu-img convert" in command:
            self.typed(command)
            return qluks.run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", self.path("table.raw"),
                             self.path("volume.qcow2"))
        if "partition=1" in command:
            return self.served(command, self.volume[PARTITION:PARTITION + 1024 * 512])
        self.served(command, self.disk)

    def check_document(self, name, at_least):
        commands = [c for c in documented.commands_of(name)
                    if "qluks-key-command" not in c and not re.search(r"PLUGIN|IMAGE", c)]
        self.assertGreaterEqual(len(commands), at_least)
        for make in self.make_encrypted_qcow2, self.make_volume, self.make_detached, self.make_machine:
            make()
        self.make_directory()
        self.make_chain(), self.make_chain("srv/images")
        for command in commands:
            if 'disk.raw "$uri"' in command:
                self.make_encrypted_qcow2(), self.make_volume()
            with self.subTest(command):
                self.check(command)

    def test_the_lines_of_the_readme(self):
        self.check_document("README.md", 12)

    def test_the_lines_of_the_man_page(self):
        # Those with qluks-key-command are in key_programs_test.py, with real servers of keys.
        self.check_document("man/nbdkit-qluks-filter.pod", 8)

    def test_the_lines_of_the_man_page_of_qluks_info(self):
        self.make_volume()
        for command in documented.commands_of("man/qluks-info.pod"):
            if "IMAGE" not in command:
                self.assertGreaterEqual(float(self.typed(command)), 0)
        self.make_encrypted_qcow2()
        shown = re.findall(r"^ \$ (qluks-info .*)\n((?: .*\n)+)", documented.text_of("man/qluks-info.pod"), re.M)
        self.assertEqual(len(shown), 1)
        command, expected = shown[0]
        got = self.typed(command).splitlines()
        for line in expected.splitlines():
            if not re.search(r"size:|\.\.\.", line):
                self.assertIn(line[1:], got)


class PrintedTest(documented.TestCase):
    def test_the_line_that_qluks_info_prints_serves_the_image(self):
        self.make_encrypted_qcow2(), self.make_machine()
        self.luks2("volume.luks2", self.disk)
        for name in "disk.qcow2", "vm.qcow2", "volume.luks2":
            line = json.loads(self.typed(f"qluks-info --json {name}"))["serve"]
            with self.subTest(line):
                self.assertEqual(self.typed(f"qluks-info {name}").splitlines()[-1], f"serve: {line}")
                self.at_a_terminal(line)

    def test_the_lines_that_the_demo_prints(self):
        """guestfish is in appliance_test.py: it boots a machine."""
        image = self.qcow2_luks("image.qcow2", self.disk)
        server = self.server("file", image, f"qluks-passphrase={qluks.SECRET}", options=("-r",))
        lines = documented.printed_by_demo(server.dir)
        self.assertEqual([l.split()[0] for l in lines], ["nbdcopy", "guestfish", "qemu-img"])
        for line in lines[0], lines[2]:
            self.typed(line)
        self.assert_same(self.content("disk.raw"), self.disk)
        qluks.run("qemu-img", "compare", self.path("disk.raw"), self.path("disk.qcow2"))


qluks.main()
