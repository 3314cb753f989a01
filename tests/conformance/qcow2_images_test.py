# SPDX-License-Identifier: BSD-3-Clause
"""Images by qemu-img and qemu-io, read whole by the layers alone (dump_guest): each byte is what QEMU reads, and each
extent is what `qemu-img map` says of it."""

import json
import os

import qluks

DUMP = os.environ["QLUKS_DUMP_GUEST"]
KIB = 1024
MIB = qluks.MIB
EVERY_CLUSTER_SIZE = [1 << bits for bits in range(9, 22)]

# Over random content: zeroes that keep their cluster, that give it back, and that QEMU may forget altogether.
CHANGES = ["write -P 0x5a 100k 33k", "write -z 256k 200k", "write -z -u 640k 900k", "discard 2M 1M",
           "write -P 0xa5 2500k 7k", "write -z 3071k 3k"]

images = 0


class Images(qluks.TestCase):
    def image_options(self, image, encrypted):
        """How the tools of QEMU name the image."""
        if not encrypted:
            return ["-f", "qcow2", image]
        return [*qluks.qemu_secret(), "--image-opts",
                f"driver=qcow2,file.filename={image},encrypt.key-secret=s"]

    def change(self, image, commands, encrypted=False):
        steps = [argument for command in commands for argument in ("-c", command)]
        *options, image = self.image_options(image, encrypted)
        qluks.run("qemu-io", *options, *steps, image)

    def expected(self, image, encrypted=False, *options):
        raw = self.path("expected.raw")
        qluks.run("qemu-img", "convert", *options, *self.image_options(image, encrypted), "-O", "raw", raw)
        with open(raw, "rb") as f:
            return f.read()

    def dump(self, image, *options):
        return qluks.run(DUMP, *options, image).stdout

    def refusal(self, image, *options):
        done = qluks.run(DUMP, *options, image, check=False)
        self.assertEqual(done.returncode, 1)
        return done.stderr.decode()

    def assert_reads(self, image, encrypted=False, *options):
        if encrypted:
            options += ("--passphrase", qluks.SECRET)
        self.assert_dumps(self.expected(image, encrypted), image, *options)

    def assert_dumps(self, expected, image, *options):
        global images
        images += 1
        self.assert_same(self.dump(image, *options), expected)

    def assert_maps(self, image, *options):
        """QEMU's map, joined as base:allocation is.  A zero cluster that is kept has an offset and is no hole; an
        unallocated subcluster has one too, and is "not present"."""
        joined = []
        for e in json.loads(qluks.run("qemu-img", "map", "-f", "qcow2", "--output=json", image).stdout):
            kept = e["data"] or (e["present"] and "offset" in e)
            flags = ("" if kept else "hole") + ("zero" if e["zero"] else "")
            if joined and joined[-1][2] == flags:
                joined[-1][1] += e["length"]
            else:
                joined.append([e["start"], e["length"], flags])
        ours = []
        for line in self.dump(image, "--map", *options).decode().splitlines():
            offset, length, flags = line.split(" ")
            if ours and ours[-1][2] == flags:
                ours[-1][1] += int(length)
            else:
                ours.append([int(offset), int(length), flags])
        self.assertEqual(ours, joined)

    def cut_short(self, image, cluster):
        os.truncate(image, os.path.getsize(image) - cluster // 2)


class Plain(Images):
    def test_every_version_and_cluster_size(self):
        content = qluks.source_bytes(4 * MIB + 512 * 3)
        for version in (2, 3):
            for cluster in EVERY_CLUSTER_SIZE:
                with self.subTest(version=version, cluster=cluster):
                    image = self.qcow2("image.qcow2", content, version, cluster)
                    self.assert_reads(image)
                    self.change(image, CHANGES)
                    self.assert_reads(image)
                    self.assert_maps(image)
                    self.change(image, ["write -P 0x77 4000k 90k"])
                    self.cut_short(image, cluster)
                    self.assert_reads(image)

    def test_preallocation_and_refcount_widths(self):
        content = qluks.source_bytes(3 * MIB)
        for option in ["preallocation=metadata", "preallocation=falloc", "preallocation=full", "lazy_refcounts=on",
                       *(f"refcount_bits={1 << order}" for order in range(7))]:
            with self.subTest(option=option):
                image = self.qcow2("image.qcow2", content, 3, 65536, option)
                self.change(image, ["write -P 1 100k 300k"])
                self.assert_reads(image)

    def test_dirty_image_and_bitmaps(self):
        image = self.qcow2("image.qcow2", qluks.source_bytes(2 * MIB), 3, 65536, "lazy_refcounts=on")
        qluks.run("qemu-img", "bitmap", "--add", image, "b0")
        qluks.run("qemu-io", "-c", "write -P 9 64k 200k", "-c", "abort", image, check=False)
        self.assert_reads(image)

    def test_empty_terabytes(self):
        image = self.path("image.qcow2")
        for size in ("1T", "64T"):
            qluks.run("qemu-img", "create", "-f", "qcow2", image, size)
            self.assert_maps(image)

    def test_size_zero(self):
        image = self.path("image.qcow2")
        qluks.run("qemu-img", "create", "-f", "qcow2", image, "0")
        self.assert_reads(image)


class Compressed(Images):
    def test_every_cluster_size(self):
        content = qluks.source_bytes(4 * MIB + 512 * 3)
        # Half of it compresses, so that streams of all lengths lie side by side.
        content = bytes(b & (0x0f if (i >> 9) % 3 else 0xff) for i, b in enumerate(content))
        for version, kind in [(2, "zlib"), (3, "zlib"), (3, "zstd")]:
            for cluster in EVERY_CLUSTER_SIZE:
                with self.subTest(version=version, kind=kind, cluster=cluster):
                    image = self.compressed(content, version, cluster, kind)
                    self.assert_reads(image)
                    self.change(image, CHANGES)
                    self.assert_reads(image)
                    self.assert_maps(image)

    def test_last_stream_cut_off_in_its_last_sector(self):
        content = qluks.source_bytes(MIB)
        for kind in ("zlib", "zstd"):
            image = self.compressed(content, 3, 65536, kind)
            # The size of the file is not a multiple of a sector, and what a stream needs is all there.
            with open(image, "rb") as f:
                end = len(f.read().rstrip(b"\0"))
            os.truncate(image, end)
            self.assert_reads(image)

    def compressed(self, content, version, cluster, kind):
        raw = self.write("content", content)
        image = self.path("image.qcow2")
        compression = ",compression_type=zstd" if kind == "zstd" else ""
        qluks.run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o",
                  f"compat={'0.10' if version == 2 else '1.1'},cluster_size={cluster}{compression}", raw, image)
        return image


class ExtendedL2(Images):
    def test_every_cluster_size(self):
        """Subclusters in every mix: over data, over nothing, and compressed ones in between."""
        content = qluks.source_bytes(4 * MIB + 512 * 3)
        mix = ["write -P 1 3k 1k", "write -z 70k 9k", "write -z -u 200k 40k", "discard 1M 100k",
               "write -P 2 1030k 5k", "write -z 1060k 2k", "write -P 3 1500k 1500k", "write -z 1600k 300k"]
        for cluster in (c for c in EVERY_CLUSTER_SIZE if c >= 16 * KIB):
            with self.subTest(cluster=cluster):
                image = self.qcow2("image.qcow2", content, 3, cluster, "extended_l2=on")
                self.change(image, mix)
                self.assert_reads(image)
                self.assert_maps(image)
                image = self.path("sparse.qcow2")
                qluks.run("qemu-img", "create", "-f", "qcow2", "-o", f"extended_l2=on,cluster_size={cluster}", image,
                          "8M")
                self.change(image, [*mix, "write -c -P 4 6M 2M", "write -P 5 6200k 3k"])
                self.assert_reads(image)
                self.assert_maps(image)

    def test_encrypted(self):
        image = self.qcow2_luks("image.qcow2", qluks.source_bytes(MIB), 3, 65536, "extended_l2=on")
        self.change(image, ["discard 0 512k", "write -P 1 5k 3k", "write -z 600k 9k"], encrypted=True)
        self.assert_reads(image, encrypted=True)


class Snapshots(Images):
    def history(self, image, encrypted=False, grow=True):
        """Three snapshots and what each held; the disk grows after the first."""
        held = {}
        for name, step in [("first", "write -P 1 0 200k"), ("2", "write -P 2 100k 1M"), ("third", "write -z 64k 640k")]:
            self.change(image, [step], encrypted)
            held[name] = self.expected(image, encrypted)
            self.snapshot(image, name, encrypted)
            if grow and name == "first":
                qluks.run("qemu-img", "resize", *self.image_options(image, encrypted), "3M")
        self.change(image, ["discard 0 1M", "write -P 4 1100k 300k"], encrypted)
        return held

    def snapshot(self, image, name, encrypted):
        if encrypted:
            qluks.run("qemu-img", "snapshot", *qluks.qemu_secret(), "-c", name, "--image-opts",
                      f"driver=qcow2,file.filename={image},encrypt.key-secret=s")
        else:
            qluks.run("qemu-img", "snapshot", "-c", name, image)

    def test_each_is_read_with_its_own_size(self):
        for version, cluster in [(3, 512), (3, 65536), (3, 2 * MIB), (2, 4096)]:
            with self.subTest(version=version, cluster=cluster):
                image = self.qcow2("image.qcow2", qluks.source_bytes(2 * MIB), version, cluster)
                for name, content in self.history(image, grow=version == 3).items():
                    self.assert_dumps(content, image, "--snapshot", name)
                self.assert_reads(image)

    def test_encrypted(self):
        image = self.qcow2_luks("image.qcow2", qluks.source_bytes(2 * MIB))
        for name, content in self.history(image, encrypted=True).items():
            self.assert_dumps(content, image, "--passphrase", qluks.SECRET, "--snapshot", name)

    def test_identifier_comes_before_name(self):
        image = self.qcow2("image.qcow2", qluks.source_bytes(2 * MIB))
        held = self.history(image)
        # Their IDs are 1, 2 and 3; the second is also called "2".
        self.assert_same(self.dump(image, "--snapshot", "1"), held["first"])
        self.assert_same(self.dump(image, "--snapshot", "3"), held["third"])

    def test_unknown_name_lists_those_that_exist(self):
        image = self.qcow2("image.qcow2", bytes(MIB))
        self.assertIn('no snapshot "x": there are none', self.refusal(image, "--snapshot", "x"))
        for i in range(12):
            self.snapshot(image, f"s{i}", False)
        said = self.refusal(image, "--snapshot", "x")
        self.assertIn('no snapshot "x": there are "s0" (ID "1"), "s1" (ID "2"), ', said)
        self.assertIn(' and 2 more', said)


class BackingChains(Images):
    def overlay(self, name, backing, backing_format, size=None, *options):
        image = self.path(name)
        qluks.run("qemu-img", "create", "-f", "qcow2", "-b", backing, "-F", backing_format, *options, image,
                  *([size] if size else []))
        return image

    def test_over_raw_and_qcow2_shorter_and_longer(self):
        raw = self.write("base.raw", qluks.source_bytes(2 * MIB + 512))
        for cluster in (512, 4096, 65536, 2 * MIB):
            for size in ("1M", "2M", "3M"):
                with self.subTest(cluster=cluster, size=size):
                    middle = self.overlay("middle.qcow2", raw, "raw", size, "-o", f"cluster_size={cluster}")
                    self.change(middle, ["write -P 1 64k 100k", "write -z 300k 64k"])
                    self.assert_reads(middle, False, "--backing", f"raw:{raw}")
                    self.assert_maps(middle, "--backing", f"raw:{raw}")
                    top = self.overlay("top.qcow2", middle, "qcow2", "2500k", "-o", "extended_l2=on")
                    self.change(top, ["write -P 2 100k 3k", "write -z 110k 40k", "write -z -u 800k 100k",
                                      "write -c -P 3 1M 64k"])
                    chain = ["--backing", middle, "--backing", f"raw:{raw}"]
                    self.assert_reads(top, False, *chain)
                    self.assert_maps(top, *chain)

    def test_raw_file_that_ends_in_a_sector(self):
        base = self.write("base.raw", qluks.source_bytes(MIB + 700))
        top = self.overlay("top.qcow2", base, "raw", "2M")
        self.change(top, ["write -P 1 64k 10k"])
        self.assert_reads(top, False, "--backing", f"raw:{base}")

    def test_version_2(self):
        base = self.qcow2("base.qcow2", qluks.source_bytes(MIB), 2)
        top = self.overlay("top.qcow2", base, "qcow2", "2M", "-o", "compat=0.10")
        self.change(top, ["write -P 1 64k 10k", "write -z 300k 100k"])
        self.assert_reads(top, False, "--backing", base)

    def test_deep_chain(self):
        chain = [self.qcow2("0.qcow2", qluks.source_bytes(MIB))]
        for i in range(1, 64):
            chain.insert(0, self.overlay(f"{i}.qcow2", chain[0], "qcow2"))
            self.change(chain[0], [f"write -P {i} {i * 12}k 5k"])
        options = [o for image in chain[1:] for o in ("--backing", image)]
        self.assert_reads(chain[0], False, *options)

    def test_each_layer_has_its_own_key(self):
        base = self.qcow2_luks("base.qcow2", qluks.source_bytes(MIB))
        top = self.path("top.qcow2")
        secrets = [*qluks.qemu_secret(), "--object", "secret,id=t,data=another"]
        backing = ('json:{"driver":"qcow2","encrypt.key-secret":"s","file":{"driver":"file","filename":"%s"}}' % base)
        qluks.qemu_img_luks("create", *secrets, "-f", "qcow2", "-o",
                            "encrypt.format=luks,encrypt.key-secret=t,encrypt.iter-time=10", "-b", backing, "-F",
                            "qcow2", top, "1M")
        named = f"driver=qcow2,file.filename={top},encrypt.key-secret=t"
        qluks.run("qemu-io", *secrets, "--image-opts", "-c", "write -P 5 100k 200k", "-c", "write -z 700k 70k", named)
        raw = self.path("expected.raw")
        qluks.run("qemu-img", "convert", *secrets, "--image-opts", named, "-O", "raw", raw)
        with open(raw, "rb") as f:
            self.assert_dumps(f.read(), top, "--passphrase", qluks.SECRET, "--passphrase", "another", "--backing",
                              base)

    def test_what_the_image_says_and_what_is_given_must_agree(self):
        base = self.qcow2("base.qcow2", bytes(MIB))
        top = self.overlay("top.qcow2", "/etc/passwd", "raw", "1M", "-u")
        self.assertIn('has a backing file, "/etc/passwd": give it with qluks-backing=', self.refusal(top))
        self.assertIn("a backing file is given, but the image has none", self.refusal(base, "--backing", base))


class DataFiles(Images):
    def test_with_and_without_the_raw_bit(self):
        data = self.path("data.raw")
        for raw_bit in ("off", "on"):
            for cluster in (512, 65536, 2 * MIB):
                with self.subTest(raw_bit=raw_bit, cluster=cluster):
                    image = self.qcow2("image.qcow2", qluks.source_bytes(3 * MIB + 512), 3, cluster,
                                       f"data_file={data},data_file_raw={raw_bit}")
                    self.change(image, CHANGES[:3] + ["write -z 2M 300k"])
                    self.assert_reads(image, False, "--data-file", data)
                    if raw_bit == "off":
                        self.assert_maps(image, "--data-file", data)

    def test_extended_l2_and_backing(self):
        data, base = self.path("data.raw"), self.write("base.raw", qluks.source_bytes(MIB))
        image = self.path("image.qcow2")
        qluks.run("qemu-img", "create", "-f", "qcow2", "-b", base, "-F", "raw", "-o",
                  f"data_file={data},extended_l2=on", image, "2M")
        self.change(image, ["write -P 1 0 3k", "write -P 2 100k 3k", "write -z 200k 9k"])
        self.assert_reads(image, False, "--data-file", data, "--backing", f"raw:{base}")

    def test_encrypted(self):
        data = self.path("data.raw")
        image = self.qcow2_luks("image.qcow2", qluks.source_bytes(MIB), 3, 65536, f"data_file={data}")
        self.change(image, ["write -P 1 70k 3k"], encrypted=True)
        self.assert_reads(image, True, "--data-file", data)

    def test_what_the_image_says_and_what_is_given_must_agree(self):
        data = self.path("data.raw")
        image = self.qcow2("image.qcow2", bytes(MIB), 3, 65536, f"data_file={data}")
        self.assertIn(f"data.raw\": give it with qluks-data-file=", self.refusal(image))
        plain = self.qcow2("plain.qcow2", bytes(MIB))
        self.assertIn("the image has no external data file", self.refusal(plain, "--data-file", data))


class Encrypted(Images):
    def test_versions_and_cluster_sizes(self):
        """Few of them: qemu-img takes seconds to choose the iterations of each."""
        content = qluks.source_bytes(4 * MIB + 512 * 3)
        for version, cluster in [(2, 512), (2, 65536), (3, 512), (3, 4096), (3, 65536), (3, 2 * MIB)]:
            with self.subTest(version=version, cluster=cluster):
                image = self.qcow2_luks("image.qcow2", content, version, cluster)
                self.change(image, CHANGES, encrypted=True)
                self.assert_reads(image, encrypted=True)
                self.change(image, ["write -P 0x77 4000k 90k"], encrypted=True)
                self.assert_reads(image, encrypted=True)

    def test_preallocated_clusters_are_decrypted_as_they_are(self):
        image = self.path("image.qcow2")
        qluks.qemu_img_luks("create", *qluks.qemu_secret(), "-f", "qcow2", "-o",
                            "preallocation=metadata,encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
                            image, "2M")
        self.assert_reads(image, encrypted=True)

    def test_compressed_cluster_is_refused(self):
        """QEMU writes it in plain text, and reads it back so."""
        image = self.qcow2_luks("image.qcow2", bytes(MIB))
        self.change(image, ["write -c -P 7 64k 64k"], encrypted=True)
        self.assertIn("guest offset 0x10000: compressed cluster in an encrypted image",
                      self.refusal(image, "--passphrase", qluks.SECRET))

    def test_legacy_aes(self):
        """A key of 128 bits, by the guest sector: also after the clusters have moved."""
        for secret in ("short", "exactly 16 bytes", "much longer than a key can be"):
            image, raw = self.path("image.qcow2"), self.write("raw", qluks.source_bytes(MIB + 512))
            named = f"driver=qcow2,file.filename={image},encrypt.format=aes,encrypt.key-secret=s"
            for compat, cluster in (("0.10", 512), ("1.1", 65536)):
                with self.subTest(secret=secret, compat=compat):
                    qluks.run("qemu-img", "convert", *qluks.qemu_secret(secret), "-f", "raw", "-O", "qcow2", "-o",
                              f"compat={compat},cluster_size={cluster},encrypt.format=aes,encrypt.key-secret=s",
                              raw, image)
                    qluks.run("qemu-io", *qluks.qemu_secret(secret), "--image-opts", "-c", "discard 64k 64k",
                              "-c", "write -P 3 70k 3k", named)
                    expected = self.path("expected.raw")
                    qluks.run("qemu-img", "convert", *qluks.qemu_secret(secret), "--image-opts", named, "-O", "raw",
                              expected)
                    with open(expected, "rb") as f:
                        self.assert_dumps(f.read(), image, "--passphrase", secret)
        self.assertIn("crypt_method 1 (AES) needs a passphrase", self.refusal(image))

    def test_wrong_passphrase(self):
        image = self.qcow2_luks("image.qcow2", bytes(65536))
        self.assertIn("no key slot opens", self.refusal(image, "--passphrase", "wrong"))


def tearDownModule():
    print(f"{images} images compared with QEMU")


if __name__ == "__main__":
    qluks.main()
