# SPDX-License-Identifier: BSD-3-Clause
"""SIGTERM ends nbdkit while it derives a key, runs a program or waits for a server, however long that would take."""

import os
import select
import signal
import socket
import struct
import subprocess
import threading
import time

import qluks

PASS = f"qluks-passphrase={qluks.SECRET}"

# nbdkit is to end within a second.  What is asserted is far below what the derivations take (hours), and far above a
# second on a busy machine.
SECONDS = 10


def patched(image, offset, value):
    with open(image, "r+b") as f:
        f.seek(offset)
        f.write(value)
    return image


class Foreground(qluks.Server):
    """A server that is our child, so that its exit status is known."""

    def start(self, *args, **kwargs):
        pid = os.path.join(self.dir, "pid")
        os.mkfifo(pid)
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(qluks.nbdkit_command(self.dir, *args, options=("-f", "-v")), stderr=log)
        # Opens when the server writes, which is when it is ready.
        with open(pid) as f:
            self.pid = int(f.read())

    def stop(self):
        if self.process.returncode is None:
            self.process.terminate()
            self.process.wait(60)
        return self.process.returncode


@qluks.unittest.skipIf(qluks.PRELOAD, "nbdkit does not end by itself under libasan")
class Shutdown(qluks.TestCase):
    def serve(self, *args):
        server = Foreground(self.dir, *args)
        self.addCleanup(server.stop)
        return server

    def connect(self, server, *client):
        client = subprocess.Popen([*(client or ("nbdinfo", "--size")), server.uri()], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        self.addCleanup(client.wait)
        self.addCleanup(client.kill)

    def assert_ends(self, server):
        start = time.monotonic()
        self.assertEqual(server.stop(), 0, server.log())
        self.assertLess(time.monotonic() - start, SECONDS)
        self.assertIn("the server has been told to end", " ".join(server.errors()))

    def assert_ends_while_deriving(self, *args, clients=1):
        server = self.serve(*args, "qluks-kdf-time=4000000000")
        for _ in range(clients):
            self.connect(server)
        server.wait_for("takes at most about|comparing the volume key")
        self.assert_ends(server)

    def luks1_of_hours(self, hash):
        """The iterations of key slot 0 are only claimed: 4 thousand million."""
        return patched(self.luks1("image.luks", b"", hash=hash, payload=False), 208 + 4, b"\xee\xee\xee\xee")

    def test_pbkdf2_of_every_kind(self):
        for hash in ("sha256", "sha512", "sha3-512"):
            with self.subTest(hash=hash):
                image = self.luks1_of_hours(hash)
                self.assert_ends_while_deriving("file", image, PASS)

    def test_digest_of_a_volume_key(self):
        image = self.luks1("image.luks", b"", payload=False)
        patched(image, 164, b"\xee\xee\xee\xee")
        self.assert_ends_while_deriving("file", image, f"qluks-volume-key-file={self.write('key', bytes(64))}")

    def test_argon2_of_a_gibibyte(self):
        for kind in ("argon2i", "argon2id"):
            with self.subTest(kind=kind):
                image = self.luks2("image.luks", bytes(4096), pbkdf=qluks.cheap_argon2(kind))
                with open(image, "r+b") as f:
                    for at in (0, 16384):
                        qluks.patch_luks2_json(f, at, b'"time":4,"memory":64', b'"time":9999,"memory":1048576')
                self.assert_ends_while_deriving("file", image, PASS)

    def test_other_clients_wait_for_the_same_key(self):
        image = self.luks1_of_hours("sha256")
        self.assert_ends_while_deriving("file", image, PASS, clients=8)

    def starting(self, command, **options):
        """A server that cannot start before COMMAND has found the secret of its detached header."""
        header = self.luks1("header.luks", b"", payload=False)
        return subprocess.Popen(
            qluks.nbdkit_command(self.dir, "null", "1M", f"qluks-header={header}", f"qluks-key-command={command}",
                                 options=("-f",)), stderr=subprocess.DEVNULL, **options)

    def test_program_is_ended_with_a_server_that_starts(self):
        pid = self.path("program")
        for sent in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with self.subTest(sent=sent.name):
                os.mkfifo(pid)
                # Whoever runs the tests in the background may ignore them, and so would the server.
                server = self.starting(f"echo $$ >{pid}; sleep 100000; true",
                                       preexec_fn=lambda sent=sent: signal.signal(sent, signal.SIG_DFL))
                with open(pid) as f:
                    program = os.pidfd_open(int(f.read()))
                os.unlink(pid)
                server.send_signal(sent)
                self.assertEqual(server.wait(SECONDS), -sent)
                self.assertTrue(select.select([program], [], [], 0)[0], "the program is still there")
                os.close(program)

    def test_ignored_signal_ends_nothing(self):
        started, ready = self.path("started"), self.path("pid")
        for fifo in (started, ready):
            os.mkfifo(fifo)
        ready = os.open(ready, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, ready)
        # Two seconds are long enough to notice a signal.
        server = self.starting(f"echo >{started}; sleep 2; printf %s '{qluks.SECRET}'",
                               preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        with open(started) as f:
            f.read()
        server.send_signal(signal.SIGHUP)
        ended = os.pidfd_open(server.pid)
        self.addCleanup(os.close, ended)
        self.assertEqual(select.select([ready, ended], [], [], 60)[0], [ready])
        server.terminate()
        self.assertEqual(server.wait(SECONDS), 0)

    def test_program_is_ended_with_the_server(self):
        image = self.luks1("image.luks", b"", payload=False)
        for what in ("sleep 100000; true", "trap '' TERM; while :; do sleep 1; done",
                     "exec >&-; while :; do sleep 1; done"):
            with self.subTest(what=what):
                pid = self.path("pid")
                os.mkfifo(pid)
                server = self.serve("file", image, f"qluks-key-command=echo $$ >{pid}; {what}")
                self.connect(server)
                with open(pid) as f:
                    program = os.pidfd_open(int(f.read()))
                os.unlink(pid)
                self.assert_ends(server)
                self.assertTrue(select.select([program], [], [], 0)[0], "the program is still there")
                os.close(program)

    def backed_by(self, source):
        """What serves a qcow2 whose data are all in SOURCE."""
        return "file", self.overlay("top.qcow2", "base", "1M"), f"qluks-backing={source}"

    def assert_ends_while_greeted(self, greet):
        """greet(socket) is all that the server of the backing file says."""
        path = self.path("greeting")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            server = self.serve(*self.backed_by(f"nbd+unix:///?socket={path}"))
            self.connect(server)
            with listener.accept()[0] as client:
                greeting = threading.Thread(target=greet, args=(client,))
                greeting.start()
                self.assert_ends(server)
                greeting.join()
        os.unlink(path)

    def test_backing_server_that_never_greets(self):
        self.assert_ends_while_greeted(lambda client: None)

    def test_backing_server_that_greets_for_ever(self):
        def greet(client):
            client.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 1))
            option = struct.unpack(">I8sII", client.recv(20, socket.MSG_WAITALL))[2]
            # The option is refused, with a message that does not come to its end.
            client.sendall(struct.pack(">QIII", 0x3e889045565a9, option, 0x80000001, 4000))
            try:
                while True:
                    client.send(b".")
                    time.sleep(0.02)
            except ConnectionError:
                pass

        self.assert_ends_while_greeted(greet)

    def test_backing_server_that_never_answers(self):
        for request, client in (("pread", ("qemu-io", "-rfraw", "-c", "read 0 512")),
                                ("extents", ("nbdinfo", "--map"))):
            with self.subTest(request=request):
                remote = self.server("memory", "1M", "qluks-layers=raw", "delay-read=100000", "delay-extents=100000",
                                     filters=["delay"])
                server = self.serve(*self.backed_by(remote.uri()))
                self.connect(server, *client)
                remote.wait_for(f"qluks: {request}")
                self.assert_ends(server)


if __name__ == "__main__":
    qluks.main()
