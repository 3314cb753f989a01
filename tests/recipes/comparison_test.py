# SPDX-License-Identifier: BSD-3-Clause
"""What the README's table says that other tools do not open, tried with those that are installed."""

import qluks

CONTENT = qluks.source_bytes(qluks.MIB)
PASS = f"passphrase={qluks.SECRET}"


class ComparisonTest(qluks.TestCase):
    def assert_refuses(self, pattern, *command):
        done = qluks.run(*command, check=False)
        self.assertNotEqual(done.returncode, 0, command)
        self.assertRegex(done.stderr.decode(), pattern)

    def nbdkit(self, filter, *args):
        return ["nbdkit", "-U", "-", "-r", f"--filter={filter}", "file", *args, "--run", 'nbdinfo --size "$uri"']

    def test_luks2(self):
        image = self.luks2("luks2", CONTENT)
        self.assert_refuses("LUKS version 2 is not supported", "qemu-img", "info", *qluks.qemu_secret(), "--image-opts",
                            f"driver=luks,key-secret=s,file.filename={image}")
        self.assert_refuses("only supports LUKSv1", *self.nbdkit("luks", image, PASS))
        self.assert_serves(CONTENT, "file", image, f"qluks-passphrase={qluks.SECRET}")

    def test_luks_in_a_qcow2(self):
        image = self.qcow2_luks("image.qcow2", CONTENT)
        self.assert_refuses("LUKS", *self.nbdkit("luks", image, PASS))
        if qluks.run("nbdkit", "--filter=qcow2dec", "null", "--version", check=False).returncode == 0:
            self.assert_refuses("encrypt", *self.nbdkit("qcow2dec", image))
        else:
            print("not tried: nbdkit's qcow2dec filter (nbdkit 1.44 and later)")
        self.assert_serves(CONTENT, "file", image, f"qluks-passphrase={qluks.SECRET}")


qluks.main()
