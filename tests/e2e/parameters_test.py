# SPDX-License-Identifier: BSD-3-Clause
"""What can be checked without the plugin fails nbdkit at start; and nbdkit's probes work without parameters."""

import os
import pty
import subprocess
import termios

import qluks

CONTENT = qluks.source_bytes(qluks.MIB)
PASS = f"qluks-passphrase={qluks.SECRET}"


def read_terminal(fd):
    """What is written to it; nothing once nobody has it open."""
    try:
        return os.read(fd, 1000)
    except OSError:
        return b""


class Refused(qluks.TestCase):
    def assert_refused(self, expected, *args):
        errors = self.refusal("memory", "1M", *args)
        self.assertEqual(errors[:1], [expected])

    def test_unknown_parameter_names_the_nearest(self):
        self.assert_refused("unknown parameter qluks-pasphrase: the nearest is qluks-passphrase", "qluks-pasphrase=x")
        self.assert_refused("unknown parameter qluks-headers: the nearest is qluks-header", "qluks-headers=x")

    def test_values_that_cannot_be(self):
        for value, why in (("qcow3", '"qcow3" is not known: it is auto, raw, or up to 8 of qcow2, luks and partition:N'),
                           ("luks,", '"" is not known: it is auto, raw, or up to 8 of qcow2, luks and partition:N'),
                           ("qcow2,raw", "raw stands alone"), ("auto,luks", "auto stands alone"),
                           ("partition:0", '"0" is no partition number, which are 1 to 8192'),
                           ("partition:2x", '"2x" is no partition number, which are 1 to 8192'),
                           ("partition:8193,luks", '"8193" is no partition number, which are 1 to 8192'),
                           (",".join(["luks"] * 9), "it has more than 8 layers")):
            self.assert_refused(f"qluks-layers={value}: {why}", f"qluks-layers={value}")
        self.assert_refused("qluks-key-slot=32: key slots are 0 to 31", "qluks-key-slot=32")
        self.assert_refused("qluks-key-file-offset must follow the qluks-key-file that it is for",
                            "qluks-key-file-offset=1")
        self.assert_refused("qluks-key-file-size must follow the qluks-key-file that it is for",
                            "qluks-passphrase=x", "qluks-key-file-size=1")
        self.assert_refused("qluks-header is given, but qluks-layers has no luks layer that it could be for",
                            f"qluks-header={self.write('h', b'x')}", "qluks-layers=qcow2")
        self.assert_refused("qluks-header is given, but qluks-layers has 2 luks layers, and only one can have its header "
                            "elsewhere", f"qluks-header={self.write('h', b'x')}", "qluks-layers=luks,luks")
        self.assert_refused("a backing file, data file or snapshot is given, but qluks-layers has no qcow2 layer",
                            "qluks-snapshot=x", "qluks-layers=partition:1,luks")
        self.assert_refused("could not decipher boolean (maybe)", "qluks-discard=maybe")
        self.assertRegex(self.refusal("memory", "1M", "qluks-engine=fast")[0],
                         r"^qluks-engine: .*fast.*\bnettle\b")

    def test_files_that_cannot_be_read(self):
        missing = self.path("missing")
        self.assert_refused(f"qluks-key-file {missing}: No such file or directory", f"qluks-key-file={missing}")
        self.assert_refused(f"qluks-key-file {self.dir}: Is a directory", f"qluks-key-file={self.dir}")
        self.assert_refused(f"qluks-header: {missing}: No such file or directory", f"qluks-header={missing}", PASS)
        self.assert_refused("qluks-header: /dev/null: neither a regular file nor a block device",
                            "qluks-header=/dev/null", PASS)

    def test_key_files_too_large_or_too_short(self):
        large = self.path("large")
        with open(large, "wb") as f:
            f.truncate((8 << 20) + 1)
        short = self.write("short", b"12345")
        self.assertIn("it is larger than 8388608 bytes", self.refusal("memory", "1M", f"qluks-key-file={large}")[0])
        self.assert_refused(f"qluks-key-file {short}: it holds 5 bytes after the offset, qluks-key-file-size asks for 6",
                            f"qluks-key-file={short}", "qluks-key-file-size=6")
        self.assert_refused(f"qluks-key-file {short}: qluks-key-file-offset 6 is past its end",
                            f"qluks-key-file={short}", "qluks-key-file-offset=6")

    def test_detached_header_is_checked_at_start(self):
        header = self.path("header")
        payload = self.luks2("payload", CONTENT, header=header)
        errors = self.refusal("file", payload, f"qluks-header={header}", "qluks-passphrase=wrong")
        self.assertRegex(errors[0], rf"^qluks-header {header}: .*no key slot opens")
        errors = self.refusal("file", payload, f"qluks-header={payload}", PASS)
        self.assertRegex(errors[0], rf"^qluks-header {payload}: .*LUKS")
        with open(header, "r+b") as f:
            f.truncate(20000)
        self.assertTrue(self.refusal("file", payload, f"qluks-header={header}", PASS))


class Discard(qluks.TestCase):
    def test_trim_goes_through_only_when_it_is_said(self):
        image = self.luks2("image.luks", CONTENT)
        for args, trims in (((), False), (("qluks-discard=false",), False), (("qluks-discard=true",), True)):
            with self.server("file", image, PASS, *args).connect() as h:
                self.assertEqual(h.can_trim(), trims)
                self.assertEqual(h.pread(512, 0), CONTENT[:512])


class Secrets(qluks.TestCase):
    def test_every_way_to_give_a_passphrase(self):
        image = self.luks2("image.luks", CONTENT)
        self.assert_serves(CONTENT, "file", image, PASS)
        # nbdkit reads the first line and drops its newline.
        line = self.write("line", qluks.SECRET.encode() + b"\nsecond line\n")
        self.assert_serves(CONTENT, "file", image, f"qluks-passphrase=+{line}")
        fd = os.open(line, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        os.set_inheritable(fd, True)
        command = ["nbdkit", "-U", "-", f"--filter={qluks.FILTER}", "file", image, f"qluks-passphrase=-{fd}",
                   "--run", f'nbdcopy "$uri" {self.path("fd.raw")}']
        subprocess.run(command, check=True, pass_fds=[fd], env=qluks.environment())
        with open(self.path("fd.raw"), "rb") as f:
            self.assert_same(f.read(), CONTENT)

    def test_passphrase_from_the_terminal_is_not_shown(self):
        image = self.luks2("image.luks", CONTENT)
        terminal, stdin = pty.openpty()
        self.addCleanup(os.close, terminal)
        before = termios.tcgetattr(stdin)
        after = os.dup(stdin)
        self.addCleanup(os.close, after)
        server = subprocess.Popen(["nbdkit", "-U", "-", f"--filter={qluks.FILTER}", "file", image, "qluks-passphrase=-",
                                   "--run", f'nbdcopy "$uri" {self.path("copy.raw")}'],
                                  stdin=stdin, stdout=stdin, env=qluks.environment(), start_new_session=True)
        os.close(stdin)
        shown = b""
        while b"passphrase: " not in shown:
            shown += os.read(terminal, 100)
        os.write(terminal, qluks.SECRET.encode() + b"\n")
        self.assertEqual(server.wait(), 0)
        self.assertEqual(termios.tcgetattr(after), before)  # it shows again what is typed
        os.set_blocking(terminal, False)
        while more := read_terminal(terminal):
            shown += more
        self.assertEqual(shown.split(), [b"passphrase:"])
        with open(self.path("copy.raw"), "rb") as f:
            self.assert_same(f.read(), CONTENT)

    def test_passphrase_that_cannot_be_read(self):
        image = self.luks2("image.luks", CONTENT)
        missing = self.path("missing")
        long = self.write("long", bytes((8 << 20) + 1))
        for value, expected in ((f"+{missing}", f" {missing}: No such file or directory"),
                                (f"+{self.dir}", f" {self.dir}: Is a directory"),
                                (f"+{long}", f" {long}: its first line is longer than 8388608 bytes"),
                                ("-0", "=-0: standard input, output and error are nbdkit's"),
                                ("-987", "=-987: Bad file descriptor"),
                                ("-", "=-: standard input is not a terminal: use +FILE or -FD")):
            with open(os.devnull, "rb") as nothing:
                errors = self.refusal("file", image, f"qluks-passphrase={value}", stdin=nothing)
            self.assertEqual(errors[0], f"qluks-passphrase{expected}")

    def test_secrets_are_tried_in_order(self):
        image = self.luks2("image.luks", CONTENT)
        key = self.write("key", b"not this one")
        server = self.assert_serves(CONTENT, "file", image, "qluks-passphrase=wrong", f"qluks-key-file={key}", PASS)
        self.assertEqual(server.errors(), [])

    def test_key_file_counts_every_byte(self):
        secret = b"\x00binary\nkey\x00\xff\n"
        key = self.write("key", secret)
        image = self.luks2("image.luks", CONTENT, key_file=key)
        self.assert_serves(CONTENT, "file", image, f"qluks-key-file={key}")
        inside = self.write("inside", b"12345" + secret + b"67890")
        self.assert_serves(CONTENT, "file", image, f"qluks-key-file={inside}", "qluks-key-file-offset=5",
                           f"qluks-key-file-size={len(secret)}")
        with open(key, "rb") as f:
            server = self.server("file", image, "qluks-key-file=-", stdin=f)
        with server.connect() as h:
            self.assertEqual(h.pread(512, 0), CONTENT[:512])

    def test_key_command_is_told_what_the_secret_is_for(self):
        image = self.luks2("image.luks", CONTENT)
        uuid = qluks.run("cryptsetup", "luksUUID", image).stdout.decode().strip()
        token = '{"type":"demo","keyslots":["0"],"where":"vault"}'
        qluks.run("cryptsetup", "token", "import", image, stdin=token.encode())
        script = self.write("command", b"""
            [ "$QLUKS_VERSION" = 2 ] && [ "$QLUKS_LAYER" = luks ] || exit 4
            cat >"$0.tokens"; echo "$QLUKS_UUID" >>"$0.uuids"; printf %s 'correct horse'
        """)
        server = self.assert_serves(CONTENT, "file", image, f"qluks-key-command=sh {script}")
        self.assertEqual(server.errors(), [])
        with open(script + ".tokens") as f:
            self.assertIn('"vault"', f.read())
        # Once for the volume, however many connections there were.
        with open(script + ".uuids") as f:
            self.assertEqual(f.read(), uuid + "\n")
        # LUKS1 has no tokens; a header in a qcow2 is called so.
        image = self.qcow2_luks("image.qcow2", CONTENT)
        command = f'[ "$QLUKS_VERSION$QLUKS_LAYER$(cat)" = "1qcow2{{}}" ] && printf %s "{qluks.SECRET}"'
        self.assert_serves(CONTENT, "file", image, f"qluks-key-command={command}")

    def test_key_command_that_fails(self):
        header = self.path("header")
        payload = self.luks2("payload", CONTENT, header=header)
        for command, pattern in (("exit 3", "status 3"), ("true", "printed nothing"), ("kill -9 $$", "signal 9"),
                                 ("yes", "more than 8388608 bytes"), ("echo wrong", "newline")):
            errors = self.refusal("file", payload, f"qluks-header={header}", f"qluks-key-command={command}")
            self.assertRegex(" ".join(errors), pattern)

    def test_volume_key_instead_of_a_secret(self):
        for make in (self.luks1, self.luks2):
            image = make("image.luks", CONTENT)
            key = self.path(make.__name__ + ".key")
            qluks.run("cryptsetup", "luksDump", "--dump-volume-key", "-q", "--volume-key-file", key, "--key-file",
                      self.secret_file(), image)
            self.assert_serves(CONTENT, "file", image, f"qluks-volume-key-file={key}")
        server = self.server("file", image, f"qluks-volume-key-file={self.write('wrong', bytes(64))}")
        with self.assertRaises(qluks.nbd.Error):
            server.connect()
        self.assertRegex(server.errors()[0], "volume key")

    def test_wrong_passphrase_is_refused_and_the_server_lives(self):
        image = self.luks2("image.luks", CONTENT)
        server = self.server("file", image, "qluks-passphrase=wrong")
        for _ in range(3):
            with self.assertRaises(qluks.nbd.Error):
                server.connect()
        self.assertRegex(server.errors()[0], "no key slot opens")

    def test_trailing_newline_is_pointed_out(self):
        image = self.luks2("image.luks", CONTENT)
        key = self.write("key", qluks.SECRET.encode() + b"\n")
        server = self.server("file", image, f"qluks-key-file={key}")
        with self.assertRaises(qluks.nbd.Error):
            server.connect()
        self.assertRegex(server.errors()[0], "newline")

    def test_cost_of_unlocking_is_limited(self):
        header = self.path("header")
        payload = self.luks2("payload", CONTENT, header=header, pbkdf=qluks.cheap_argon2("argon2id"))
        args = ("file", payload, f"qluks-header={header}", PASS)
        self.assertRegex(self.refusal(*args, "qluks-kdf-memory=32K")[0], "qluks-kdf-memory")
        slow = self.path("slow")
        payload = self.luks2("payload2", CONTENT, header=slow)
        # A cost that is only claimed: the JSON is changed, not the key slot.
        with open(slow, "r+b") as f:
            for at in (0, 16384):
                qluks.patch_luks2_json(f, at, b'"iterations":1000', b'"iterations":2000000000')
        args = ("file", payload, f"qluks-header={slow}", PASS)
        self.assertRegex(self.refusal(*args)[0], "qluks-kdf-time")

    def test_no_secret_is_named(self):
        for image in (self.luks1("a.luks", CONTENT), self.luks2("b.luks", CONTENT), self.qcow2_luks("c", CONTENT)):
            server = self.server("file", image)
            with self.assertRaises(qluks.nbd.Error):
                server.connect()
            self.assertRegex(server.errors()[0], "qluks-passphrase")


class Probes(qluks.TestCase):
    def probe(self, option):
        done = subprocess.run(["nbdkit", f"--filter={qluks.FILTER}", "null", option], capture_output=True,
                              env=qluks.environment())
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        return done.stdout.decode()

    def test_help_lists_every_parameter(self):
        text = self.probe("--help")
        for name in ("passphrase", "key-file", "key-file-offset", "key-file-size", "key-slot", "header", "layers",
                     "cache-size", "engine", "kdf-memory", "kdf-time", "backing", "backing-dir", "data-file",
                     "snapshot", "key-command", "volume-key-file", "discard"):
            self.assertRegex(text, rf"(?m)^qluks-{name}=")

    def test_version_and_dump_plugin(self):
        self.assertIn("qluks", self.probe("--version"))
        version = tuple(int(n) for n in self.probe("--version").split()[1].split(".")[:2])
        dump = self.probe("--dump-plugin")
        if version >= (1, 36):
            for key in ("version", "formats", "compression", "ciphers", "hashes", "kdfs", "engines", "engine"):
                self.assertRegex(dump, rf"(?m)^qluks_{key}=.+$")

    def test_parameters_of_the_plugin_pass_through(self):
        image = self.qcow2("image.qcow2", CONTENT)
        self.assert_serves(CONTENT, "file", f"file={image}")


if __name__ == "__main__":
    qluks.main()
