# SPDX-License-Identifier: BSD-3-Clause
"""guest_vm.py DIRECTORY KERNEL: boots the virtual machine of guest-vm.sh from an encrypted qcow2 that is served writable,
takes its power away while it writes, alone or together with the server, and looks whether all that was stable is there."""

import os
import re
import signal
import subprocess
import sys
import time

import qluks

DIRECTORY, KERNEL = sys.argv[1:3]
DISK = 192 * qluks.MIB
SECONDS_TO_BOOT = 600
FILES = 25
PASS = f"qluks-passphrase={qluks.SECRET}"


class Guest(qluks.TestCase):
    def start(self, server, *words):
        self.console = self.path(f"console-{words[0]}")
        open(self.console, "w").close()
        self.vm = subprocess.Popen(
            ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "512", "-nodefaults", "-nographic", "-no-reboot",
             "-kernel", KERNEL, "-initrd", f"{DIRECTORY}/initramfs",
             "-append", "console=ttyS0 panic=-1 random.trust_cpu=on " + " ".join(words),
             "-serial", f"file:{self.console}", "-drive", f"file={server.uri()},format=raw,if=virtio,discard=unmap"])
        self.addCleanup(self.vm.wait)
        self.addCleanup(self.vm.kill)

    def said(self):
        with open(self.console, errors="replace") as f:
            return f.read()

    def wait_to_hear(self, pattern):
        end = time.monotonic() + SECONDS_TO_BOOT
        while not re.search(pattern, self.said()):
            self.assertIsNone(self.vm.poll(), self.said()[-2000:])
            self.assertLess(time.monotonic(), end, self.said()[-2000:])
            time.sleep(0.05)

    def run_to_the_end(self, server, *words):
        self.start(server, *words)
        self.assertEqual(self.vm.wait(SECONDS_TO_BOOT), 0)
        self.assertIn("guest: done", self.said(), self.said()[-2000:])
        return self.said()

    def check(self, image, statuses):
        done = qluks.run("qemu-img", "check", *qluks.qemu_secret(), "--image-opts",
                         f"driver=qcow2,file.filename={image},encrypt.format=luks,encrypt.key-secret=s", check=False)
        self.assertIn(done.returncode, statuses, done.stdout.decode() + done.stderr.decode())

    def serve(self, image):
        return self.server("file", image, PASS, f"qluks-grow={image}")

    def live_and_lose_power(self, server_too):
        image = self.path("guest.qcow2")
        qluks.qemu_img_luks("create", *qluks.qemu_secret(), "-q", "-f", "qcow2", "-o",
                            "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", image, str(DISK))
        server = self.serve(image)
        self.assertIn("guest: installed", self.run_to_the_end(server, "step=install"))
        for _ in range(2):
            self.start(server, "step=write")
            self.wait_to_hear(f"guest: stable {FILES}")
            if server_too:
                server.stop(signal.SIGKILL)
            self.vm.kill()
            self.vm.wait()
            self.assertIn("guest: started from the disk", self.said())
            last = max(int(n) for n in re.findall(r"guest: stable (\d+)\s", self.said()))
            server.stop()
            self.check(image, (0, 3) if server_too else (0,))
            server = self.serve(image)
            said = self.run_to_the_end(server, "step=check", f"last={last}")
            self.assertIn("recovery complete", said)
            self.assertIn("guest: file system is clean", said)
            self.assertIn("guest: lost 0", said)
            print(f"power gone after {last} stable files{', of the server as well' if server_too else ''}: all there")
        server.stop()
        self.check(image, (0, 3) if server_too else (0,))

    def test_power_of_the_guest(self):
        self.live_and_lose_power(server_too=False)

    def test_power_of_guest_and_server(self):
        self.live_and_lose_power(server_too=True)


if __name__ == "__main__":
    del sys.argv[1:]
    qluks.main()
