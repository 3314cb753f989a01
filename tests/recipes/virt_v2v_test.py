# SPDX-License-Identifier: BSD-3-Clause
"""virt-v2v on an encrypted guest, as doc/recipes/virt-v2v.md has it: copied out of the image, and converted inside of it.

The guest is a Debian of the release that this machine runs, made by debootstrap.  virt-v2v boots a small machine, here under
plain emulation, and has the guest build an initial file system: minutes."""

import os
import subprocess
import sys

import documented
import qluks

qluks.requires("debootstrap", "virt-v2v", "virt-v2v-in-place", "qemu-system-x86_64", "mke2fs", "sfdisk", "e2fsck")
if os.geteuid() != 0:
    print("SKIP: debootstrap needs root")
    sys.exit(77)

PACKAGES = "linux-image-cloud-amd64,initramfs-tools,grub2-common,systemd-sysv"
MIB_OF_THE_GUEST = 1400
FILES = {
    "etc/fstab": "/dev/sda1 / ext4 defaults 0 1\n",
    "etc/hostname": "inside\n",
    "etc/default/grub": 'GRUB_CMDLINE_LINUX_DEFAULT=""\n',
}


class VirtV2vTest(documented.TestCase):
    def setUp(self):
        super().setUp()
        self.make_guest()
        self.write("pass.txt", qluks.SECRET.encode())
        os.symlink(os.path.abspath(os.path.join(documented.SOURCES, "doc", "v2v.xml")), self.path("v2v.xml"))
        self.recipe = documented.recipes()["Convert a virtual machine with virt-v2v"]

    def environment(self):
        return self.environment_of_appliance()

    def make_guest(self):
        """vm.qcow2: LUKS in a qcow2, and in it a disk with a partition table and one file system."""
        with open("/etc/os-release") as f:
            release = dict(l.rstrip().split("=", 1) for l in f if "=" in l)["VERSION_CODENAME"]
        root = self.path("root")
        qluks.run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", release, root)
        kernel, = (n for n in os.listdir(f"{root}/boot") if n.startswith("vmlinuz-"))
        os.makedirs(f"{root}/boot/grub", exist_ok=True)
        menu = (f"menuentry 'Debian' {{\n  linux /boot/{kernel} root=/dev/sda1 ro\n"
                f"  initrd /boot/{kernel.replace('vmlinuz', 'initrd.img')}\n}}\n")
        for name, text in (FILES | {"boot/grub/grub.cfg": menu}).items():
            self.write(f"root/{name}", text.encode())
        part, raw = self.path("part"), self.path("guest.raw")
        for path, size in (part, MIB_OF_THE_GUEST - 2), (raw, MIB_OF_THE_GUEST):
            with open(path, "wb") as f:
                f.truncate(size * qluks.MIB)
        qluks.run("mke2fs", "-q", "-t", "ext4", "-d", root, part)
        qluks.run("rm", "-rf", "--one-file-system", root)
        qluks.run("sfdisk", "-q", raw, stdin=b"label: dos\nstart=2048,type=83,bootable\n")
        qluks.run("dd", f"if={part}", f"of={raw}", "bs=1M", "seek=1", "conv=notrunc,sparse", "status=none")
        os.unlink(part)
        qluks.qemu_img_luks("convert", "-f", "raw", "-O", "qcow2", *qluks.qemu_secret(), "-o",
                            "encrypt.format=luks,encrypt.key-secret=s", raw, self.path("vm.qcow2"))
        os.unlink(raw)

    def boot_folder(self, disk):
        """What the first partition's file system has in /boot, if it is sound."""
        qluks.run("dd", f"if={disk}", f"of={self.path('part')}", "bs=1M", "skip=1", "conv=sparse", "status=none")
        qluks.run("e2fsck", "-fn", self.path("part"))
        return qluks.run("debugfs", "-R", "ls /boot", self.path("part")).stdout.decode()

    def test_converted_twice(self):
        self.typed("set -e\n" + self.recipe[0])
        qluks.run("qemu-img", "convert", "-O", "raw", self.path("out/guest-sda"), self.path("copied.raw"))
        self.assertIn("initrd.img", self.boot_folder(self.path("copied.raw")))
        os.unlink(self.path("copied.raw"))

        self.typed("set -e\n" + self.recipe[1])
        image = f"driver=qcow2,encrypt.format=luks,encrypt.key-secret=s,file.filename={self.path('vm.qcow2')}"
        qluks.run("qemu-img", "check", *qluks.qemu_secret(), "--image-opts", image)
        self.typed("nbdkit -r --filter=qluks file vm.qcow2 qluks-passphrase=+pass.txt")
        self.assertIn(".pre-v2v", self.boot_folder(self.path("served.raw")))


qluks.main()
