# SPDX-License-Identifier: BSD-3-Clause
"""The tools of libguestfs on an export, each in the form of the URI that it takes.

The guest is the commonest encrypted one: a qcow2 with a partition table, and LUKS in its third partition.  libguestfs
boots a small machine for each command, here under plain emulation.
"""

import os
import select

import documented
import qluks

qluks.requires("guestfish", "virt-cat", "virt-df", "virt-filesystems", "guestmount", "qemu-system-x86_64", "mke2fs", "as", "ld")

PASS = f"qluks-passphrase={qluks.SECRET}"
FILES = {
    "hostname": "inside\n",
    "debian_version": "12.0\n",
    "fstab": "/dev/sda / ext4 defaults 0 1\n",
    "os-release": 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12"\n',
}


class ApplianceTest(documented.TestCase):
    disk = b""

    def setUp(self):
        super().setUp()
        self.make_guest()

    def environment(self):
        return self.environment_of_appliance()

    def make_guest(self):
        """The root file system of a guest, as far as the tools look at it."""
        for folder in "etc", "bin", "usr", "var", "tmp", "root", "home", "dev", "proc", "sys", "boot", "lib", "sbin":
            os.makedirs(self.path(f"root/{folder}"))
        for name, text in FILES.items():
            self.write(f"root/etc/{name}", text.encode())
        raw = self.write("root.raw", bytes(48 * qluks.MIB))
        qluks.run("mke2fs", "-q", "-t", "ext4", "-L", "inside", "-d", self.path("root"), raw)
        self.disk = self.content("root.raw")
        self.make_machine()

    def guest(self, *options):
        return self.server("file", self.path("vm.qcow2"), "qluks-layers=qcow2,partition:3,luks", PASS, options=options)

    def test_looking_into_a_guest(self):
        """The block of doc/recipes, and the line that the demo prints."""
        self.write("pass.txt", qluks.SECRET.encode())
        (block,) = documented.recipes()["Look into a guest"]
        said = self.typed("set -e\n" + block)
        self.assertRegex(said, r"^inside\n+inside\n")
        self.assertIn("/dev/sda", said)

        server = self.guest("-r")
        disk = f"--format=raw -a 'nbd://?socket={server.dir}/sock'"
        line = next(l for l in documented.printed_by_demo(server.dir) if l.startswith("guestfish"))
        self.assertIn(disk, line)
        self.assertEqual(self.typed(line, stdin=b"cat /etc/hostname\n").strip(), "inside")
        self.assertRegex(self.typed(f"virt-filesystems {disk} --long"), r"/dev/sda +filesystem +ext4 +inside")

    def test_mounting_a_guest(self):
        if not os.path.exists("/dev/fuse"):
            self.skipTest("there is no /dev/fuse")
        server = self.guest("-r")
        os.mkdir(self.path("mnt"))
        self.typed(f"guestmount --format=raw -a 'nbd://?socket={server.dir}/sock' --ro -m /dev/sda --pid-file pid mnt")
        with open(self.path("pid")) as f:
            guestmount = os.pidfd_open(int(f.read()))
        try:
            self.assertEqual(self.typed("cat mnt/etc/hostname"), "inside\n")
        finally:
            self.typed("guestunmount mnt")
            self.assertTrue(select.select([guestmount], [], [], 60)[0], "guestmount does not end")
            os.close(guestmount)

    def test_booting_from_an_export(self):
        """The block of doc/recipes; the machine starts from the first sector, and reads one further on."""
        disk = bytearray(qluks.MIB * 3)
        qluks.run("as", "--32", "-o", self.path("boot.o"), os.path.join(documented.SOURCES, "tests", "recipes",
                                                                        "boot_sector.s"))
        qluks.run("ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "-o", self.path("boot"),
                  self.path("boot.o"))
        disk[:512] = self.content("boot")
        text = b"started from an encrypted image\n"
        disk[4096 * 512:4096 * 512 + len(text)] = text
        self.qcow2_luks("vm.qcow2", bytes(disk))
        self.write("pass.txt", qluks.SECRET.encode())
        self.typed("set -e\n" + documented.recipes()["Boot a machine from the export"][0])
        self.assertEqual(self.content("console.txt"), text)

    def test_changing_a_guest(self):
        server = self.guest()
        self.typed(f"guestfish --rw --format=raw -a 'nbd://?socket={server.dir}/sock' -m /dev/sda",
                   stdin=b"write /etc/motd \"written\\n\"\nmkdir /srv\nsync\n")
        server.stop()
        qluks.run("qemu-img", "check", self.path("vm.qcow2"))
        with self.guest("-r").connect() as h, open(self.path("after.raw"), "wb") as f:
            f.write(qluks.read_all(h))
        qluks.run("e2fsck", "-fn", self.path("after.raw"))
        self.assertEqual(qluks.run("debugfs", "-R", "cat /etc/motd", self.path("after.raw")).stdout, b"written\n")


qluks.main()
