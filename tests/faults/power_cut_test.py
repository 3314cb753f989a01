# SPDX-License-Identifier: BSD-3-Clause
"""The power goes while a qcow2 is written: every state that storage may be left in (see power_cut.cpp), on images of each
kind by qemu-img.  QUICK (in `make check`) takes a part of the workloads; tests/faults/power_cut_long.sh takes all."""

import os
import random
import re
import subprocess

import qluks

POWER_CUT = os.path.join(os.environ["QLUKS_BUILD"], "power_cut")
ALL = os.environ.get("QLUKS_POWER_CUT") == "all"
SIZE = 12 * 1024


class PowerCut(qluks.TestCase):
    total = 0

    def image(self, *options, size=SIZE, room=24 * 1024, source=None, backing=None):
        image = self.path("image.qcow2")
        opts = ["-o", ",".join(options)] if options else []
        crypt = qluks.qemu_secret() if any("encrypt" in o for o in options) else []
        if source is not None:
            raw = self.write("source.raw", source)
            compressed = ["-c"] if "compressed" in options else []
            opts = ["-o", ",".join(o for o in options if o != "compressed")]
            qluks.run("qemu-img", "convert", *crypt, *compressed, "-f", "raw", "-O", "qcow2", *opts, raw, image)
        else:
            create = ["create", *crypt, "-q", "-f", "qcow2", *opts, *(["-b", backing, "-F", "raw"] if backing else []),
                      image, str(size)]
            (qluks.qemu_img_luks if crypt else lambda *a: qluks.run("qemu-img", *a))(*create)
        length = os.path.getsize(image)
        if room is None:
            return image
        os.truncate(image, -(-length // 65536) * 65536 + room)
        return image

    def cut(self, image, *options, parts=8):
        if not ALL and parts > 1:
            options = ["--part", f"{random.randrange(parts)}/{parts}", *options]
        if ALL:
            options = ["--length", "4", "--part", f"{random.randrange(8)}/8", *options]
        done = subprocess.run([POWER_CUT, *options, image], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, f"{options}: {done.stdout}{done.stderr}")
        PowerCut.total += int(re.match(r"(\d+) states", done.stdout)[1])

    @classmethod
    def tearDownClass(cls):
        print(f"{cls.total} states of storage, none bad")

    def test_small_clusters_of_both_versions(self):
        for compat in ("0.10", "1.1"):
            with self.subTest(compat=compat):
                self.cut(self.image("cluster_size=512", f"compat={compat}"))

    def test_refcount_widths(self):
        for bits in (1, 2, 4, 8, 32, 64):
            with self.subTest(bits=bits):
                self.cut(self.image("cluster_size=512", f"refcount_bits={bits}"))

    def nearly_full(self, clusters):
        """Of 512 bytes; so many of them are used, and the first four of the disk are not."""
        count = clusters * 9 // 10
        for _ in range(10):
            source = bytes(4 * 512) + random.Random(1).randbytes(count * 512)
            image = self.image("cluster_size=512", "refcount_bits=64", source=source, room=None)
            used = -(-os.path.getsize(image) // 512)
            if used == clusters:
                os.truncate(image, clusters * 512 + 65536)
                return image
            count += clusters - used
        self.fail(f"no image with {clusters} clusters")

    def test_refcount_block_that_is_full(self):
        """Refcounts of 64 bits: a block counts 64 clusters."""
        self.cut(self.nearly_full(62), parts=16)

    def test_refcount_table_that_is_full(self):
        """It has 64 blocks."""
        self.cut(self.nearly_full(4094), parts=64)

    def test_larger_clusters(self):
        for cluster in (4096, 65536):
            with self.subTest(cluster=cluster):
                self.cut(self.image(f"cluster_size={cluster}", size=5 * cluster - 512, room=16 * cluster),
                         parts=cluster // 256)

    def test_extended_l2(self):
        self.cut(self.image("cluster_size=16k", "extended_l2=on", size=5 * 16384, room=16 * 16384), parts=64)

    def test_backing_file(self):
        backing = self.write("backing.raw", random.Random(2).randbytes(SIZE * 3 // 4))
        for compat in ("0.10", "1.1"):
            self.cut(self.image("cluster_size=512", f"compat={compat}", backing=backing), "--backing", backing)

    def test_snapshots(self):
        image = self.image("cluster_size=512", source=random.Random(3).randbytes(SIZE))
        os.truncate(image, os.path.getsize(image) - 24 * 1024)
        qluks.run("qemu-img", "snapshot", "-c", "one", image)
        os.truncate(image, -(-os.path.getsize(image) // 512) * 512 + 24 * 1024)
        self.cut(image)

    def test_compressed(self):
        self.cut(self.image("cluster_size=512", "compressed", source=b"abc" * 4096))

    def test_encrypted(self):
        luks = ["encrypt.format=luks", "encrypt.key-secret=s", "encrypt.iter-time=10", "encrypt.cipher-alg=aes-128"]
        self.cut(self.image("cluster_size=4096", *luks, size=20480), "--passphrase", qluks.SECRET, parts=64)
        aes = ["encrypt.format=aes", "encrypt.key-secret=s"]
        self.cut(self.image("cluster_size=512", *aes), "--passphrase", qluks.SECRET)

    def test_external_data_file(self):
        """Storage of its own, which is flushed by itself."""
        data = self.path("data.raw")
        for options in (["cluster_size=512"], ["cluster_size=512", "data_file_raw=on"],
                        ["cluster_size=16k", "extended_l2=on"]):
            with self.subTest(options=options):
                large = "cluster_size=16k" in options
                if os.path.exists(data):
                    os.unlink(data)
                image = self.image(*options, f"data_file={data}", size=5 * 16384 if large else SIZE,
                                   room=16 * 16384 if large else 24 * 1024)
                self.cut(image, "--data-file", data, parts=64 if large else 8)

    def test_storage_that_lies_about_flushes_is_found_out(self):
        self.cut(self.image("cluster_size=512"), "--lying")

    def test_qemu_agrees_with_the_check(self):
        """On a sample; leaks are no error."""
        samples = self.path("samples")
        os.mkdir(samples)
        image = self.image("cluster_size=512", source=random.Random(4).randbytes(SIZE))
        self.cut(image, "--sample", "37" if ALL else "97", samples, parts=4)
        names = os.listdir(samples)
        self.assertGreater(len(names), 10)
        for name in names:
            done = qluks.run("qemu-img", "check", "-f", "qcow2", os.path.join(samples, name), check=False)
            self.assertIn(done.returncode, (0, 3), (name, done.stdout.decode()))


if __name__ == "__main__":
    qluks.main()
