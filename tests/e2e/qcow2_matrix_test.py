# SPDX-License-Identifier: BSD-3-Clause
"""qcow2 images by qemu-img, of every version and cluster size, read back whole."""

import os

import qluks

CLUSTERS = [512, 1024, 4096, 65536, 262144, 2 << 20]


class Plain(qluks.TestCase):
    def test_versions_and_cluster_sizes(self):
        content = qluks.source_bytes(5 * qluks.MIB + 512 * 3)
        for version in (2, 3):
            for cluster in CLUSTERS:
                with self.subTest(version=version, cluster=cluster):
                    image = self.qcow2("image.qcow2", content, version, cluster)
                    server = self.assert_serves(content, "file", image)
                    with server.connect() as h:
                        self.assertEqual(h.get_block_size(qluks.nbd.SIZE_PREFERRED), max(cluster, 4096))

    def test_preallocated_and_empty(self):
        content = qluks.source_bytes(3 * qluks.MIB)
        for option in ("preallocation=metadata", "preallocation=full", "lazy_refcounts=on", "refcount_bits=1",
                       "refcount_bits=64"):
            with self.subTest(option=option):
                self.assert_serves(content, "file", self.qcow2("image.qcow2", content, 3, 65536, option))
        image = self.path("empty.qcow2")
        qluks.run("qemu-img", "create", "-f", "qcow2", image, "3M")
        self.assert_serves(bytes(3 * qluks.MIB), "file", image)

    def test_zero_clusters_and_preallocated_zero_clusters(self):
        content = bytearray(qluks.source_bytes(4 * qluks.MIB))
        for cluster in (512, 65536):
            image = self.qcow2("image.qcow2", bytes(content), 3, cluster)
            # "write -z" keeps the host clusters, "write -zu" gives them back.
            qluks.run("qemu-io", "-c", "write -z 64k 640k", "-c", "write -zu 1M 1M", image)
            expected = bytearray(content)
            expected[65536:65536 + 640 * 1024] = bytes(640 * 1024)
            expected[qluks.MIB:2 * qluks.MIB] = bytes(qluks.MIB)
            self.assert_serves(bytes(expected), "file", image)

    def test_last_cluster_cut_short_by_the_end_of_the_file(self):
        content = qluks.source_bytes(qluks.MIB - 512)
        for cluster in (4096, 65536):
            image = self.qcow2("image.qcow2", content, 3, cluster)
            os.truncate(image, os.path.getsize(image) - cluster // 2)
            raw = self.path("expected.raw")
            qluks.run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw)
            with open(raw, "rb") as f:
                self.assert_serves(f.read(), "file", image)


class Encrypted(qluks.TestCase):
    def test_luks_in_the_header_extension(self):
        content = qluks.source_bytes(3 * qluks.MIB + 512 * 3)
        cases = [(2, 65536, []), (3, 65536, []), (3, 512, []), (3, 4096, []), (3, 2 << 20, []),
                 (3, 65536, ["encrypt.cipher-alg=aes-128", "encrypt.hash-alg=sha1"]),
                 (3, 65536, ["encrypt.cipher-mode=cbc", "encrypt.ivgen-alg=essiv", "encrypt.ivgen-hash-alg=sha256"]),
                 (2, 4096, ["encrypt.cipher-mode=cbc", "encrypt.ivgen-alg=plain64", "encrypt.hash-alg=sha512"])]
        for version, cluster, options in cases:
            with self.subTest(version=version, cluster=cluster, options=options):
                image = self.qcow2_luks("image.qcow2", content, version, cluster, *options)
                server = self.assert_serves(content, "file", image, f"qluks-passphrase={qluks.SECRET}")
                with server.connect() as h:
                    self.assertRegex(h.get_export_description() or "", rf"^qcow2 v{version}, LUKS1 aes-(xts|cbc)-")

    def test_zero_clusters(self):
        content = bytearray(qluks.source_bytes(2 * qluks.MIB - 512))
        image = self.qcow2_luks("image.qcow2", bytes(content))
        qluks.run("qemu-io", *qluks.qemu_secret(), "--image-opts",
                  f"driver=qcow2,file.filename={image},encrypt.format=luks,encrypt.key-secret=s",
                  "-c", "write -z 64k 128k", "-c", "write -zu 1M 256k")
        raw = self.path("expected.raw")
        qluks.run("qemu-img", "convert", *qluks.qemu_secret(), "--image-opts",
                  f"driver=qcow2,file.filename={image},encrypt.format=luks,encrypt.key-secret=s", "-O", "raw", raw)
        with open(raw, "rb") as f:
            self.assert_serves(f.read(), "file", image, f"qluks-passphrase={qluks.SECRET}")


if __name__ == "__main__":
    qluks.main()
