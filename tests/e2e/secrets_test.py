# SPDX-License-Identifier: BSD-3-Clause
"""Where secrets are while nbdkit serves and writes: in the locked region and nowhere else; not in core dumps, not in
logs.  And no plain text is in storage or in logs.

The test computes every secret once more and looks for it in the memory of the process.
"""

import base64
import ctypes
import os
import random
import re
import resource
import signal
import time
import unittest

import nbd

import luks_secrets
import process_memory
import qluks

# A passphrase and the first bytes of a key file that no process has by chance.
PASSPHRASE = b"Tr0ub4dor&3 " + random.Random(7).randbytes(12).hex().encode()
KEY_FILE = random.Random(8).randbytes(4000)

CAP_IPC_LOCK = 14
PR_CAPBSET_DROP = 24


class Volume:
    """A LUKS volume without a file system, and all of its secrets."""

    def __init__(self, test, kind, cipher="aes-xts-plain64", key_bits=512, kdf=qluks.CHEAP_PBKDF2, secret=PASSPHRASE,
                 hash="sha256"):
        self.cipher = cipher
        self.image = test.path("volume.img")
        with open(self.image, "wb") as f:
            f.truncate(20 * qluks.MIB)
        stored = cipher if cipher.startswith("aes-") else "aes-cbc-essiv:sha256"
        options = ["--cipher", stored, "--key-size", key_bits, "--hash", hash]
        if kind == "luks1":
            options += ["--pbkdf-force-iterations", "1000"]
        else:
            options += [*kdf, "--keyslot-cipher", "aes-xts-plain64", "--keyslot-key-size", "512"]
        qluks.run("cryptsetup", "luksFormat", "-q", "--type", kind, *options, "--key-file", test.secret_file(secret),
                  self.image)
        self.volume_key = luks_secrets.volume_key(test, self.image, secret)
        self.derived_key = luks_secrets.derived_key(self.image, secret, hash)
        if stored != cipher:  # cryptsetup needs the kernel to know a cipher
            with open(self.image, "r+b") as f:
                for at in (0, 16384):
                    qluks.patch_luks2_json(f, at, f'"encryption":"{stored}"'.encode(),
                                           f'"encryption":"{cipher}"'.encode())

    def working_keys(self):
        """What exists only while the volume is in use."""
        if not self.cipher.startswith("aes-"):
            return {}
        return luks_secrets.aes_schedules(self.cipher, self.volume_key)

    def derivation(self):
        """What exists only while it is being unlocked."""
        keys = luks_secrets.in_blocks("derived key", self.derived_key)
        for half in (self.derived_key[:len(self.derived_key) // 2], self.derived_key[len(self.derived_key) // 2:]):
            if len(half) in (16, 24, 32):
                keys[f"last round key of the derived key, {len(keys)}"] = luks_secrets.aes_round_keys(half)[-1]
        return keys

    def kept(self):
        """What the server keeps as long as it lives: connections may come later."""
        return luks_secrets.in_blocks("volume key", self.volume_key)

    def all(self):
        return {**self.working_keys(), **self.derivation(), **self.kept()}


# What a client writes: plain text that must not reach storage.
PLAIN = random.Random(10).randbytes(64)


def use_some(h):
    """By large and by small requests, aligned and not; written and read."""
    size = h.get_size()
    for at in range(0, size, qluks.MIB):
        h.pread(min(qluks.MIB, size - at), at)
    for at in range(0, 200 * 4096, 4096):
        h.pread(512, at)
    h.pread(777, 4095)
    h.pwrite(PLAIN * (qluks.MIB // len(PLAIN)), qluks.MIB)
    for at in range(0, 50 * 4096, 4096):
        h.pwrite(PLAIN, at + 512)
    h.pwrite(PLAIN * 100, 2 * qluks.MIB + 777, nbd.CMD_FLAG_FUA if h.can_fua() else 0)
    h.zero(10000, 100)
    h.flush()


@unittest.skipIf(qluks.PRELOAD, "sanitizers keep copies of memory")
class TestCase(qluks.TestCase):
    def passphrase_file(self):
        return f"qluks-passphrase=+{self.write('passphrase', PASSPHRASE)}"

    def server(self, *args, **kwargs):
        server = super().server(*args, **kwargs)
        self.assertTrue(server.is_ready())
        return server

    def assert_only_in_secret_memory(self, server, needles):
        """Returns what was found, by name."""
        found = process_memory.find(server.pid, needles)
        strays = [f"{name} at {at:x} in {mapping}" for name, mapping, at in found if not mapping.is_for_secrets()]
        self.assertEqual(strays, [])
        regions = {mapping.start for _, mapping, _ in found}
        self.assertLessEqual(len(regions), 1, f"secrets are in {len(regions)} regions")
        names = [name for name, _, _ in found]
        return {name: names.count(name) for name in needles}

    def assert_nowhere(self, server, needles):
        found = process_memory.find(server.pid, needles)
        self.assertEqual([f"{name} at {at:x} in {mapping}" for name, mapping, at in found], [])

    def assert_gone(self, server, needles):
        """The server takes leave of a client some time after the client has: so this waits."""
        deadline = time.monotonic() + 30
        while process_memory.find(server.pid, needles) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assert_nowhere(server, needles)

    def assert_keeps_secrets(self, volume, *args, given=(), **kwargs):
        """From the first client to the last."""
        given = dict(given) or {"passphrase": PASSPHRASE}
        server = self.server("file", volume.image, *(args or [self.passphrase_file()]), **kwargs)
        self.assertEqual(set(self.assert_only_in_secret_memory(server, given).values()), {1})
        self.assert_nowhere(server, volume.all())
        with server.connect() as first:
            use_some(first)
            once = self.assert_only_in_secret_memory(server, {**volume.all(), **given})
            for name in (*volume.working_keys(), *volume.kept(), *given):
                self.assertGreater(once[name], 0, f"the test does not find the {name}")
            for name in volume.derivation():
                self.assertEqual(once[name], 0, name)
            # Other connections share the schedules.
            others = [server.connect() for _ in range(4)]
            for other in others:
                use_some(other.h)
            self.assertEqual(self.assert_only_in_secret_memory(server, {**volume.all(), **given}), once)
            for other in others:
                other.h.shutdown()
        self.assert_gone(server, {**volume.working_keys(), **volume.derivation()})
        kept = {**volume.kept(), **given}
        server.wait_until(lambda: set(self.assert_only_in_secret_memory(server, kept).values()) == {1},
                          "one copy of each secret that is kept")
        return server


class Memory(TestCase):
    def test_luks2_argon2_in_the_background(self):
        volume = Volume(self, "luks2", kdf=qluks.cheap_argon2("argon2id"))
        self.assert_keeps_secrets(volume)

    def test_in_the_foreground(self):
        volume = Volume(self, "luks2", kdf=qluks.cheap_argon2("argon2i"))
        self.assert_keeps_secrets(volume, foreground=True)

    def test_every_engine(self):
        for cipher, bits in (("aes-xts-plain64", 512), ("aes-xts-plain64", 256), ("aes-cbc-essiv:sha256", 256)):
            volume = Volume(self, "luks2", cipher, bits)
            for engine in self.engines():
                with self.subTest(cipher=cipher, bits=bits, engine=engine):
                    self.assert_keeps_secrets(volume, self.passphrase_file(), f"qluks-engine={engine}")

    def engines(self):
        text = self.refusal("null", "qluks-engine=none-such")[0]
        return re.search(r"this machine's: auto, (.*)", text).group(1).split(", ")

    def test_other_ciphers(self):
        for cipher in ("xchacha20,aes-adiantum-plain64", "xchacha12,aes-adiantum-plain64", "serpent-xts-plain64",
                       "aes-ctr-plain64", "twofish-lrw-benbi"):
            with self.subTest(cipher=cipher):
                self.assert_keeps_secrets(Volume(self, "luks2", cipher, 256))

    def test_other_hashes(self):
        """They are nettle's in other code, and libgcrypt's."""
        for hash in ("sha1", "sha512", "sha3-256", "blake2b-512"):
            with self.subTest(hash=hash):
                self.skip_unless_built_with(hash)
                volume = Volume(self, "luks1", hash=hash)
                self.assert_keeps_secrets(volume)

    def test_luks1_with_a_key_file(self):
        volume = Volume(self, "luks1", "aes-cbc-plain64", 256, secret=KEY_FILE)
        key_file = self.write("key", KEY_FILE)
        self.assert_keeps_secrets(volume, f"qluks-key-file={key_file}", given={"key file": KEY_FILE[1000:1100]})

    def test_key_from_a_program(self):
        volume = Volume(self, "luks2")
        server = self.server("file", volume.image, f"qluks-key-command=cat {self.write('passphrase', PASSPHRASE)}")
        with server.connect() as h:
            use_some(h)
            self.assert_only_in_secret_memory(server, volume.all())
            self.assert_nowhere(server, {"passphrase": PASSPHRASE})

    def test_volume_key_from_a_file(self):
        volume = Volume(self, "luks2")
        key = self.write("key", volume.volume_key)
        server = self.server("file", volume.image, f"qluks-volume-key-file={key}")
        with server.connect() as h:
            use_some(h)
            self.assert_only_in_secret_memory(server, volume.all())

    def test_detached_header(self):
        """Unlocked before nbdkit forks; its schedule, too, is there only while somebody is connected."""
        volume = Volume(self, "luks2")
        server = self.server("file", volume.image, f"qluks-header={volume.image}", self.passphrase_file())
        needles = {**volume.all(), "passphrase": PASSPHRASE}
        self.assert_only_in_secret_memory(server, needles)
        with server.connect() as h:
            use_some(h)
            self.assert_only_in_secret_memory(server, needles)
        self.assert_gone(server, volume.working_keys())
        server.stop()

    def test_after_a_refusal(self):
        for kind in ("luks1", "luks2"):
            with self.subTest(kind=kind):
                volume = Volume(self, kind)
                wrong = b"not " + PASSPHRASE
                server = self.server("file", volume.image, f"qluks-passphrase=+{self.write('wrong', wrong)}")
                with self.assertRaises(qluks.nbd.Error):
                    server.connect()
                of_wrong = luks_secrets.derived_key(volume.image, wrong)
                self.assert_nowhere(server, {**volume.all(), **luks_secrets.in_blocks("wrong key", of_wrong)})
                self.assertEqual(self.assert_only_in_secret_memory(server, {"passphrase": wrong}), {"passphrase": 1})

    def test_large_key_file(self):
        """It has a region of its own, as well protected."""
        content = random.Random(9).randbytes(3 * qluks.MIB)
        volume = Volume(self, "luks2")
        server = self.server("file", volume.image, f"qluks-key-file={self.write('key', content)}")
        found = process_memory.find(server.pid, {"start": content[:32], "end": content[-32:]})
        self.assertEqual({name for name, _, _ in found}, {"start", "end"})
        self.assertEqual([str(mapping) for _, mapping, _ in found if not mapping.is_for_secrets()], [])


class CoreDump(TestCase):
    """Registers are in a core dump as well.  With few threads, and so few stacks, it is small."""

    THREADS = ["-t", "2"]

    def assert_core_holds_nothing(self, path, volume):
        self.assertEqual(process_memory.find_in_file(path, {**volume.all(), "passphrase": PASSPHRASE}), [])

    def test_taken_by_gdb(self):
        for cipher, bits in (("aes-xts-plain64", 512), ("aes-cbc-essiv:sha256", 256)):
            with self.subTest(cipher=cipher):
                volume = Volume(self, "luks2", cipher, bits)
                server = self.server("file", volume.image, self.passphrase_file(), options=self.THREADS)
                with server.connect() as h:
                    use_some(h)
                    self.assert_core_holds_nothing(process_memory.core_dump(self, server.pid), volume)

    def test_taken_by_the_kernel(self):
        with open("/proc/sys/kernel/core_pattern") as f:
            pattern = f.read().strip()
        if pattern.startswith(("|", "/")):
            self.skipTest(f"core dumps of this machine go to {pattern}")
        volume = Volume(self, "luks2")
        server = self.server("file", volume.image, self.passphrase_file(), options=self.THREADS, foreground=True,
                             cwd=self.dir, preexec_fn=allow_core_dumps)
        with server.connect() as h:
            use_some(h)
            server.stop(signal.SIGABRT)
        core = [name for name in os.listdir(self.dir) if name.startswith("core")]
        self.assertEqual(len(core), 1, f"core dumps of this machine are called {pattern}")
        self.assert_core_holds_nothing(self.path(core[0]), volume)


def allow_core_dumps():
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def forbid_locking():
    """Root is bound by the limit as well, without this capability."""
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))


class Locking(TestCase):
    def test_memory_is_locked_in_the_process_that_serves(self):
        for foreground in (False, True):
            server = self.server("memory", "1M", "qluks-layers=raw", self.passphrase_file(), foreground=foreground)
            self.assertGreaterEqual(process_memory.locked_kib(server.pid), 64)
            self.assertEqual(server.lines("cannot lock"), [])

    def test_warning_names_the_limit(self):
        server = self.server("memory", "1M", "qluks-layers=raw", self.passphrase_file(), preexec_fn=forbid_locking)
        self.assertEqual(process_memory.locked_kib(server.pid), 0)
        lines = server.lines("cannot lock")
        self.assertEqual(len(lines), 1, lines)
        self.assertRegex(lines[0], r"cannot lock 65536 bytes .*RLIMIT_MEMLOCK is 0 bytes: raise it")


class Log(TestCase):
    FLAGS = [flag for name in ("qluks.next", "nbdkit.backend.controlpath", "nbdkit.backend.datapath")
             for flag in ("-D", f"{name}=9")]

    def assert_not_in_log(self, server, secrets):
        log = server.log().encode()
        self.assertIn(b"debug", log)
        for name, secret in secrets.items():
            for coding, text in {"raw": secret, "hex": secret.hex().encode(), "HEX": secret.hex().upper().encode(),
                                 **base64_of(secret)}.items():
                self.assertNotIn(text, log, f"{name}, {coding}")

    def test_no_level_shows_a_secret(self):
        volume = Volume(self, "luks2")
        key = self.write("key", KEY_FILE[:64])
        given = {"passphrase": PASSPHRASE, "key file": KEY_FILE[:64]}
        for secrets, connects in (([self.passphrase_file()], True), ([f"qluks-key-file={key}"], False),
                                  ([f"qluks-key-command=cat {self.path('passphrase')}"], True)):
            server = self.server("file", volume.image, *secrets, options=self.FLAGS)
            try:
                with server.connect() as h:
                    use_some(h)
                self.assertTrue(connects)
                with open(volume.image, "rb") as f:
                    self.assertNotIn(PLAIN[:16], f.read())
            except qluks.nbd.Error:
                self.assertFalse(connects)
            self.assert_not_in_log(server, {**volume.all(), **given, "plain text": PLAIN[:32]})
            server.stop()


def base64_of(secret):
    """The letters that a secret has in any base64, wherever it begins there."""
    return {f"base64 at {shift}": base64.b64encode(bytes(shift) + secret)[4 if shift else 0:].rstrip(b"=")[:-1]
            for shift in range(3)}


if __name__ == "__main__":
    qluks.main()
