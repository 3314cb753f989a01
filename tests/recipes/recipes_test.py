# SPDX-License-Identifier: BSD-3-Clause
"""The blocks of doc/recipes, typed as they stand there, with the real programs."""

import os
import re
import shutil

import documented
import qluks

qluks.requires("nbdcopy", "qemu-img")

ENCRYPTED = "driver=qcow2,encrypt.format=luks,encrypt.key-secret=s,file.driver=file,file.filename="
CERTIFICATES = """
    certtool --generate-privkey --outfile pki/ca-key.pem
    printf 'cn = the CA\\nca\\ncert_signing_key\\n' >ca.info
    certtool --generate-self-signed --load-privkey pki/ca-key.pem --template ca.info --outfile pki/ca-cert.pem
    certtool --generate-privkey --outfile pki/server-key.pem
    printf 'cn = localhost\\ndns_name = localhost\\ntls_www_server\\nencryption_key\\nsigning_key\\n' >server.info
    certtool --generate-certificate --load-ca-certificate pki/ca-cert.pem --load-ca-privkey pki/ca-key.pem \
        --load-privkey pki/server-key.pem --template server.info --outfile pki/server-cert.pem
"""


class RecipesTest(documented.TestCase):
    def setUp(self):
        super().setUp()
        self.recipes = documented.recipes()
        self.make_encrypted_qcow2()
        os.unlink(self.path("disk.raw"))

    def needs(self, *programs):
        for program in programs:
            qluks.requires_or_skip(self, program)

    def type_block(self, section, number=0, replace=("", "")):
        self.typed("set -e\n" + self.recipes[section][number].replace(*replace))

    def assert_copied(self):
        self.assert_same(self.content("disk.raw"), self.disk)
        os.unlink(self.path("disk.raw"))

    def same_disk(self, *images):
        qluks.run("qemu-img", "compare", *qluks.qemu_secret(), "--image-opts", *images)

    def plain(self, name, driver="raw"):
        return f"driver={driver},file.driver=file,file.filename={self.path(name)}"

    def test_copy_out(self):
        self.type_block("Copy out, in one line")
        self.assert_copied()

    def test_convert_out_and_in(self):
        self.type_block("Convert to another format")
        self.same_disk(self.plain("plain.qcow2", "qcow2"), ENCRYPTED + self.path("disk.qcow2"))
        self.type_block("Convert into an encrypted qcow2")
        self.same_disk(self.plain("plain.qcow2", "qcow2"), ENCRYPTED + self.path("new.qcow2"))

    def test_from_one_encryption_to_another(self):
        key = self.write("volume.key", os.urandom(64))
        self.luks2("volume.img", bytes(documented.SIZE), key_file=key)
        self.type_block("From one encryption to another")
        self.typed("nbdkit --filter=qluks file volume.img qluks-key-file=volume.key")
        self.assert_same(self.content("served.raw"), self.disk)

    def test_as_a_file(self):
        self.needs("nbdfuse", "fusermount3")
        if not os.path.exists("/dev/fuse"):
            self.skipTest("there is no /dev/fuse")
        os.mkdir(self.path("mnt"))
        self.type_block("As a file, with FUSE")
        self.assert_copied()

    def test_changes_that_are_thrown_away(self):
        other = qluks.source_bytes(documented.SIZE, seed=9)
        self.write("other.raw", other)
        before = self.content("disk.qcow2")
        self.type_block("Try changes, and throw them away")
        self.assert_same(self.content("disk.raw"), other)
        self.assert_same(self.content("disk.qcow2"), before)

    def test_tls_with_a_shared_key(self):
        self.needs("psktool")
        self.type_block("Encrypted on the wire as well")
        self.assert_copied()

    def test_tls_with_certificates(self):
        self.needs("certtool")
        os.mkdir(self.path("pki"))
        self.typed("set -e\n" + CERTIFICATES)
        self.type_block("Encrypted on the wire as well", 1)
        self.assert_copied()

    def test_service_of_systemd(self):
        """systemd itself is not running here: its tools check the units, and one of them starts what the unit starts."""
        self.needs("systemd-analyze", "systemd-socket-activate")
        units = os.path.join(documented.SOURCES, "doc", "systemd")
        for unit in "qluks@.socket", "qluks@.service":
            shutil.copy(os.path.join(units, unit), self.path(unit.replace("@", "@disk")))
        verified = qluks.run("systemd-analyze", "verify", "--man=no", self.path("qluks@disk.socket"),
                             self.path("qluks@disk.service"), check=False)
        self.assertEqual([l for l in verified.stderr.decode().splitlines() if "qluks" in l], [])
        exposure = qluks.run("systemd-analyze", "security", "--offline=yes", self.path("qluks@disk.service"))
        self.assertLess(float(re.search(r"exposure level.*: ([0-9.]+)", exposure.stdout.decode())[1]), 2)

        start = re.search(r"^ExecStart=(.*)$", documented.text_of("doc/systemd/qluks@.service"), re.M)[1]
        self.write("passphrase", qluks.SECRET.encode())
        start = start.replace("/srv/images/%i", "disk").replace("${CREDENTIALS_DIRECTORY}", ".")
        # It starts the server at the first client, and ends with it.
        self.typed(f"""
            systemd-socket-activate -l $PWD/sock -E PATH -E QLUKS_FILTER {start} 2>log & server=$!
            until [ -S sock ]; do sleep 0.1; done
            nbdcopy 'nbd+unix:///?socket=sock' disk.raw; status=$?
            kill $server
            exit $status""")
        self.assert_copied()

    def test_importer_of_kubevirt(self):
        self.type_block("In KubeVirt's importer", replace=("https://example.com", self.serve_on_the_web("disk.qcow2")))
        self.assert_copied()

    def test_guest_of_libvirt(self):
        self.needs("virt-xml-validate")
        shutil.copy(os.path.join(documented.SOURCES, "doc", "guest.xml"), self.path("guest.xml"))
        self.type_block("A guest of libvirt")


qluks.main()
