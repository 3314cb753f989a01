# SPDX-License-Identifier: BSD-3-Clause
"""What the end-to-end tests share: images made by qemu-img and cryptsetup, and real nbdkit servers over them.

A test file is a unittest module that ends in `qluks.main()`.  The build passes the filter in QLUKS_FILTER and, for
sanitizer builds, the libraries that stock nbdkit has to preload in QLUKS_PRELOAD.
"""

import ctypes
import errno
import hashlib
import mmap
import os
import random
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import nbd

FILTER = os.environ["QLUKS_FILTER"]
PRELOAD = os.environ.get("QLUKS_PRELOAD", "")
SECRET = "correct horse"
MIB = 1 << 20

# Hashes that only a build with libgcrypt has.
OPTIONAL_HASHES = ("whirlpool", "blake2b-512", "blake2s-256")

# Half of what --reduce-device-size gives; the other half is for cryptsetup's own moving about.
LUKS2_PAYLOAD_OFFSET = 16 * MIB

# Iterations and memory so low that a test costs milliseconds; real costs have tests of their own.
CHEAP_PBKDF2 = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]


# A server goes to the background, and is then a child of this process: how it ends is known.
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def cheap_argon2(kind):
    return ["--pbkdf", kind, "--pbkdf-force-iterations", "4", "--pbkdf-memory", "64", "--pbkdf-parallel", "2"]


def run(*command, stdin=None, check=True):
    """Run a program to its end; what it said is part of the failure."""
    done = subprocess.run([str(c) for c in command], input=stdin, capture_output=True)
    if check and done.returncode != 0:
        raise AssertionError(f"{command} failed with {done.returncode}:\n{done.stderr.decode(errors='replace')}")
    return done


def requires(*programs):
    """Skip the whole test file, saying why, unless these programs are there."""
    for program in programs:
        if shutil.which(program) is None:
            print(f"SKIP: {program} is not installed")
            sys.exit(77)


def requires_or_skip(test, program):
    if shutil.which(program) is None:
        test.skipTest(f"{program} is not installed")


def source_bytes(size, seed=1):
    """Bytes as a disk has them: runs of data, runs of zeroes, and a last part that is data."""
    rng = random.Random(seed)
    content = bytearray()
    while len(content) < size:
        length = min(rng.choice([512, 4096, 65536, 200 * 1024, 700 * 1024]), size - len(content))
        content += rng.randbytes(length) if rng.random() < 0.6 else bytes(length)
    content[-512:] = rng.randbytes(512)
    return bytes(content[:size])


class TestCase(unittest.TestCase):
    """A test with a directory of its own, which goes with it."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="qluks-")
        self.addCleanup(shutil.rmtree, self.dir)

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, content):
        with open(self.path(name), "wb") as f:
            f.write(content)
        return self.path(name)

    def server(self, *args, **kwargs):
        server = Server(self.dir, *args, **kwargs)
        self.addCleanup(server.stop)
        return server

    def refusal(self, *args, **kwargs):
        """What nbdkit says on standard error when it must not start."""
        directory = tempfile.mkdtemp(prefix="refused-", dir=self.dir)
        log = os.path.join(directory, "log")
        status, pid = nbdkit(directory, *args, log=log, **kwargs)
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
        with open(log, errors="replace") as f:
            text = f.read()
        self.assertEqual(status, 1, f"nbdkit started, or died: {text}")
        return error_lines(text)

    def assert_serves(self, expected, *args, **kwargs):
        """Every byte, by one reader with plain requests and by nbdcopy, which uses extents and four connections."""
        server = self.server(*args, **kwargs)
        with server.connect() as h:
            self.assertEqual(h.get_size(), len(expected))
            self.assert_same(read_all(h), expected)
        copy = self.path("copy.raw")
        run("nbdcopy", server.uri(), copy)
        with open(copy, "rb") as f:
            self.assert_same(f.read(), expected)
        return server

    def skip_unless_built_with(self, hash):
        if hash in OPTIONAL_HASHES and os.environ["QLUKS_LIBGCRYPT"] != "yes":
            self.skipTest(f"{hash} needs libgcrypt")

    def assert_describes(self, expected, server):
        with server.connect() as h:
            self.assertEqual(h.get_export_description(), expected)

    def assert_same(self, got, expected):
        if got == expected:
            return
        self.assertEqual(len(got), len(expected))
        first = next(i for i in range(len(got)) if got[i] != expected[i])
        self.fail(f"bytes differ from offset {first} on: {got[first:first+16].hex()} instead of "
                  f"{expected[first:first+16].hex()}")

    # Images.  Each returns its path.

    def qcow2(self, name, content, version=3, cluster=65536, *options):
        raw = self.write(name + ".src", content)
        path = self.path(name)
        compat = {2: "0.10", 3: "1.1"}[version]
        opts = ",".join([f"compat={compat}", f"cluster_size={cluster}", *options])
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", opts, raw, path)
        return path

    def overlay(self, name, backing, size, kind="raw"):
        """A qcow2 with no data of its own; the backing file need not exist."""
        run("qemu-img", "create", "-f", "qcow2", "-u", "-b", backing, "-F", kind, self.path(name), str(size))
        return self.path(name)

    def qcow2_luks(self, name, content, version=3, cluster=65536, *options):
        raw = self.write(name + ".src", content)
        path = self.path(name)
        compat = {2: "0.10", 3: "1.1"}[version]
        opts = ",".join([f"compat={compat}", f"cluster_size={cluster}", "encrypt.format=luks",
                         "encrypt.key-secret=s", "encrypt.iter-time=10", *options])
        qemu_img_luks("convert", *qemu_secret(), "-f", "raw", "-O", "qcow2", "-o", opts, raw, path)
        return path

    def luks1(self, name, content, *options, cipher="aes-xts-plain64", key_bits=512, hash="sha256", payload=True):
        """Header by cryptsetup, payload by QEMU: two programs that must both agree with us."""
        path = self.path(name)
        raw = self.write(name + ".src", content)
        with open(path, "wb") as f:
            f.truncate(4 * MIB + len(content))
        luks_format(path, "luks1", "--cipher", cipher, "--key-size", key_bits, "--hash", hash,
                    "--pbkdf-force-iterations", "1000", *options)
        if not payload:
            return path
        offset = luks_payload_offset(path)
        os.truncate(path, offset + len(content))
        run("qemu-img", "convert", *qemu_secret(), "-n", "-f", "raw", raw, "--target-image-opts",
            f"driver=luks,file.filename={path},key-secret=s")
        return path

    def luks2(self, name, content, *options, pbkdf=None, header=None, key_file=None):
        """Header and payload by cryptsetup, which encrypts a plain file in place without dm-crypt."""
        path = self.write(name, content)
        where = ["--header", header] if header else ["--reduce-device-size", "32M"]
        if not header:
            os.truncate(path, len(content) + 32 * MIB)
        run("cryptsetup", "reencrypt", "--encrypt", "--type", "luks2", "--force-offline-reencrypt", "-q",
            *where, *(pbkdf or CHEAP_PBKDF2), "--key-file", key_file or self.secret_file(), *options, path)
        if not header:
            os.truncate(path, LUKS2_PAYLOAD_OFFSET + len(content))
        return path

    def secret_file(self, content=SECRET.encode()):
        return self.write("secret", content)


def dump_bounded(*args):
    """What dump_guest reads (None if it refuses) and says last, for a second of CPU time and 64 MiB at the most.
    Sanitizers are slow, and have memory of their own."""
    seconds, memory = (30, 4 << 30) if PRELOAD else (1, 64 << 20)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen([os.environ["QLUKS_DUMP_GUEST"], "--peak", *map(str, args)], stdout=out, stderr=err)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        content, said = out.read(), err.read().decode()
    assert child.returncode in (0, 1), said
    assert used.ru_utime + used.ru_stime < seconds, f"it takes {used.ru_utime + used.ru_stime} s"
    peak = int(re.search(r"VmHWM:\s*(\d+) kB", said).group(1)) << 10
    assert peak < memory, f"it takes {peak} bytes of memory"
    return content if child.returncode == 0 else None, said.splitlines()[-1]


def qemu_secret(secret=SECRET):
    return ["--object", f"secret,id=s,data={secret}"]


def try_again(attempt):
    """qemu-img measures PBKDF2 to choose the iterations, and gives up when the clock is too coarse: then again.
    The first attempt that succeeded, or failed for another reason."""
    for _ in range(100):
        done = attempt()
        if b"Unable to get accurate CPU usage" not in done.stderr:
            return done
    raise AssertionError("qemu-img found no accurate CPU usage in 100 tries")


def qemu_img_luks(*args):
    done = try_again(lambda: run("qemu-img", *args, check=False))
    if done.returncode != 0:
        raise AssertionError(f"qemu-img {args} failed:\n{done.stderr.decode()}")


def luks_format(path, version, *options, secret=SECRET):
    run("cryptsetup", "luksFormat", "-q", "--type", version, *options, "--key-file", "-", path, stdin=secret.encode())


def luks_payload_offset(path):
    dump = run("cryptsetup", "luksDump", path).stdout.decode()
    return int(re.search(r"Payload offset:\s*(\d+)", dump).group(1)) * 512


def luks_uuid(path):
    return run("cryptsetup", "luksUUID", path).stdout.decode().strip()


def patch_luks2_json(f, at, old, new):
    """Replace text in one header copy and make its checksum right again."""
    f.seek(at)
    area = bytearray(f.read(16384))
    text = bytes(area[4096:]).rstrip(b"\0")
    assert old in text, text
    text = text.replace(old, new)
    area[4096:] = text.ljust(16384 - 4096, b"\0")
    area[448:512] = bytes(64)
    area[448:480] = hashlib.sha256(area).digest()
    f.seek(at)
    f.write(area)


def environment():
    env = dict(os.environ)
    if PRELOAD:
        env["LD_PRELOAD"] = PRELOAD
        env.setdefault("ASAN_OPTIONS", "detect_leaks=0:abort_on_error=1")
        # nbdkit's own locks are not seen, so that what it does alone looks like races.
        env.setdefault("TSAN_OPTIONS", "ignore_noninstrumented_modules=1")
    return env


def nbdkit_command(directory, *args, filters=(), options=()):
    command = ["nbdkit", "-U", os.path.join(directory, "sock"), "-P", os.path.join(directory, "pid"), "--log=stderr",
               *options, f"--filter={FILTER}"]
    return command + [f"--filter={f}" for f in filters] + [str(a) for a in args]


def nbdkit(directory, *args, filters=(), options=(), log=None, foreground=False, env=None, **popen):
    """Start nbdkit.  Returns when it serves, or has failed: (exit status, pid)."""
    pidfile = os.path.join(directory, "pid")
    # The server writes its pid just before it accepts clients: a FIFO makes that something to wait for.
    os.mkfifo(pidfile)
    fifo = os.open(pidfile, os.O_RDONLY | os.O_NONBLOCK)
    command = nbdkit_command(directory, *args, filters=filters, options=options)
    env = environment() | (env or {})
    foreground = foreground or "tsan" in PRELOAD  # ThreadSanitizer does not outlive a fork
    if foreground:
        command.insert(1, "-f")
    # The log is a file, not a pipe: the server keeps it open.
    with open(log, "wb") as f:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=f, env=env, **popen)
    ended = os.pidfd_open(process.pid)
    try:
        if not foreground and process.wait() != 0:
            return process.returncode, None
        ready = select.select([fifo, ended] if foreground else [fifo], [], [], 60)[0]
        if not ready:
            raise AssertionError("nbdkit did not write its pid within a minute")
        if fifo not in ready:
            return process.wait(), None
        return 0, int(os.read(fifo, 100))
    finally:
        os.close(fifo)
        os.close(ended)


def error_lines(text):
    return [re.sub(r"^nbdkit: .*?error: ", "", l) for l in text.splitlines() if "error: " in l]


class NotStarted(AssertionError):
    def __init__(self, status, log):
        super().__init__(f"nbdkit did not start, status {status}:\n{log}")
        self.status = status


class BadEnd(AssertionError):
    """A server has crashed, or a sanitizer has found something in it."""


class Server:
    """A running nbdkit with the filter, and -v in its log."""

    def __init__(self, directory, *args, **kwargs):
        self.dir = tempfile.mkdtemp(prefix="server-", dir=directory)
        self.log_path = os.path.join(self.dir, "log")
        self.start(*args, **kwargs)

    def start(self, *args, options=(), **kwargs):
        status, self.pid = nbdkit(self.dir, *args, options=("-v", *options), log=self.log_path, **kwargs)
        if status != 0:
            raise NotStarted(status, self.log())

    def uri(self, export=""):
        return f"nbd+unix:///{export}?socket={self.dir}/sock"

    def is_ready(self):
        """Waits until it greets a client; it writes its pid before the last callbacks, which may still end it."""
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(f"{self.dir}/sock")
                return client.recv(8, socket.MSG_WAITALL) == b"NBDMAGIC"
        except (ConnectionRefusedError, ConnectionResetError):
            return False

    def connect(self, export="", extents=False):
        return Connection(self.uri(export), extents)

    def wait_until_all_have_left(self):
        """A client is gone before the server has closed what it had open.  The plugin is closed last."""
        self.wait_until(lambda: len(self.lines("debug: file: open readonly=")) == len(self.lines("debug: file: close$")),
                        "end of all connections")

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def errors(self):
        return error_lines(self.log())

    def lines(self, pattern):
        return [l for l in self.log().splitlines() if re.search(pattern, l)]

    def wait_for(self, pattern):
        """Until the log has a line like this."""
        self.wait_until(lambda: self.lines(pattern), f"\"{pattern}\"")

    def wait_until(self, holds, what):
        for _ in range(6000):
            if holds():
                return
            time.sleep(0.01)
        raise AssertionError(f"no {what} within a minute:\n{self.log()}")

    def restart(self, *args):
        """Serve again at the same URI."""
        for name in ("sock", "pid"):
            if os.path.exists(os.path.join(self.dir, name)):
                os.unlink(os.path.join(self.dir, name))
        self.start(*args)
        return self

    def stop(self, how=signal.SIGTERM):
        if self.pid is None:
            return
        if PRELOAD:
            # With libasan in front, p11-kit (in nbdkit by way of GnuTLS) waits for ever for glibc's locale lock at
            # exit.  The sanitizers have reported what they saw by then.
            how = signal.SIGKILL
        os.kill(self.pid, how)
        status = self.wait_for_end()
        report = re.search(r"(ERROR: \w+Sanitizer|runtime error:|WARNING: ThreadSanitizer|Assertion .* failed).*",
                           self.log())
        if report:
            raise BadEnd(f"the server reported: {self.log()[report.start():][:4000]}")
        if status != (0 if how == signal.SIGTERM else -how):
            raise BadEnd(f"the server ended with {status}:\n{self.log()}")

    def wait_for_end(self):
        """Its exit status."""
        pid, self.pid = self.pid, None
        process = os.pidfd_open(pid)
        ended = select.select([process], [], [], 60)[0]
        os.close(process)
        if not ended:
            raise AssertionError("the server did not end within a minute")
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def is_alive(self):
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


class FaultControl:
    """The shared memory that faulty_plugin and failing_new look at."""

    WORDS = ("calls", "fail_at", "always", "error", "hits", "lie", "seed", "size", "hang", "hanging")

    def __init__(self, path):
        self.path = path
        with open(path, "w+b") as f:
            f.truncate(4096)
            self.memory = mmap.mmap(f.fileno(), 4096)

    def __getitem__(self, word):
        return struct.unpack_from("Q", self.memory, 8 * self.WORDS.index(word))[0]

    def set(self, **words):
        for word, value in words.items():
            struct.pack_into("Q", self.memory, 8 * self.WORDS.index(word), value)

    def arm(self, call, always=False, error=errno.EIO):
        self.set(fail_at=0, calls=0, hits=0, always=always, error=error)
        self.set(fail_at=call)

    def disarm(self):
        self.set(fail_at=0)


class Connection:
    """A libnbd handle that closes with its `with`."""

    def __init__(self, uri, extents, tls_psk=None):
        self.h = nbd.NBD()
        if tls_psk:
            self.h.set_tls(nbd.TLS_REQUIRE)
            self.h.set_tls_psk_file(tls_psk)
            self.h.set_tls_username("alice")
        if extents:
            self.h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        self.h.set_full_info(True)
        self.h.connect_uri(uri)

    def __enter__(self):
        return self.h

    def __exit__(self, *exc):
        self.h.shutdown()


def read_all(h, piece=MIB):
    size = h.get_size()
    return b"".join(h.pread(min(piece, size - at), at) for at in range(0, size, piece))


def in_threads(count, body):
    """body(0), body(1), … at the same time; raises what one of them raised."""
    failures = []

    def run(i):
        try:
            body(i)
        except Exception as e:
            failures.append(e)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def extents(h, offset, length, flags=0):
    """[(offset, length, "data" | "hole" | "zero" | "hole,zero")], in one request."""
    names = {0: "data", 1: "hole", 2: "zero", 3: "hole,zero"}
    found = []

    def add(context, start, entries, error):
        at = start
        for n, kind in zip(entries[0::2], entries[1::2]):
            found.append((at, n, names[kind]))
            at += n

    h.block_status(length, offset, add, flags)
    return found


def main():
    requires("nbdkit", "nbdcopy", "qemu-img", "cryptsetup")
    unittest.main(verbosity=2)
