# SPDX-License-Identifier: BSD-3-Clause
"""The commands that the documents show, and a place in which each of them runs as it is written.

The documents say `nbdkit --filter=qluks`, for a filter that is installed, and give names of files.  Here a program
`nbdkit` of our own, first in PATH, puts the path of the filter that was built in its place and hands over to the real
one; and the files are there.
"""

import os
import pty
import re
import subprocess

import qluks
import web_server

SOURCES = os.environ["srcdir"]
INFO = os.path.join(os.environ["QLUKS_BUILD"], "qluks-info")
SIZE = 3 * qluks.MIB
PARTITION = 2048 * 512

# A server of an example runs until its client has gone: where the example names no client and no socket, $QLUKS_RUN is
# the client.
NBDKIT = r"""#!/bin/bash
PATH=${PATH#*:}
args=() client=${LISTEN_FDS:-}
for word in "$@"; do
    case $word in --run | -P | --pidfile) client=yes ;; esac
    if [ "$word" = --filter=qluks ]; then word=--filter=$QLUKS_FILTER; fi
    args+=("$word")
done
if [ -n "$client" ]; then exec nbdkit "${args[@]}"; fi
exec nbdkit -U - "${args[@]}" --run "${QLUKS_RUN-nbdcopy \"\$uri\" served.raw}"
"""


def text_of(document):
    with open(os.path.join(SOURCES, document)) as f:
        return f.read()


def commands_of(document):
    """Indented lines that start with one of our programs, each with the lines that continue it."""
    found = []
    lines = iter(text_of(document).splitlines())
    for line in lines:
        if not re.match(r" +(nbdkit|qluks-info) ", line):
            continue
        command = line.strip()
        while command.endswith("\\") or command.count("'") % 2:
            command += "\n" + next(lines)
        found.append(command)
    return found


def blocks_of(document):
    """{title of a section: its indented blocks}"""
    found = {}
    for section in re.split(r"^#+ ", text_of(document), flags=re.M)[1:]:
        title, _, body = section.partition("\n")
        found[title] = [re.sub(r"^    ", "", block, flags=re.M)
                        for block in re.findall(r"(?:^    .*\n)+", body, re.M)]
    return found


def recipes():
    """The blocks of all pages in doc/recipes."""
    folder = os.path.join("doc", "recipes")
    found = {}
    for page in sorted(os.listdir(os.path.join(SOURCES, folder))):
        found |= blocks_of(os.path.join(folder, page))
    return found


def printed_by_demo(directory):
    """What `bootstrap demo IMAGE` tells the user to type, for a server in this directory."""
    body = re.search(r"cat <<END\n(.*?)\nEND\n", text_of("bootstrap"), re.S)[1]
    uri = f"nbd+unix:///?socket={directory}/sock"
    return [l.strip().replace("$uri", uri).replace("$dir", directory)
            for l in body.splitlines() if l.startswith("    ")]


class TestCase(qluks.TestCase):
    """A directory with the files that the documents name; `self.disk` is what each of them holds."""

    disk = qluks.source_bytes(SIZE)

    def setUp(self):
        super().setUp()
        os.mkdir(self.path("bin"))
        wrapper = self.write("bin/nbdkit", NBDKIT.encode())
        os.chmod(wrapper, 0o755)
        os.symlink(INFO, self.path("bin/qluks-info"))

    def environment(self):
        return qluks.environment() | {"PATH": self.path("bin") + ":" + os.environ["PATH"],
                                      "QLUKS_FILTER": os.path.abspath(qluks.FILTER)}

    def environment_of_appliance(self):
        """For libguestfs, which boots its machine under plain emulation, and keeps it for the next test."""
        return TestCase.environment(self) | {
            "LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg", "TMPDIR": self.dir,
            "LIBGUESTFS_CACHEDIR": "/var/tmp", "HOME": self.dir}

    def typed(self, command, client=None, stdin=None):
        """As at a shell prompt in that directory.  Its output, if it ends with 0."""
        env = self.environment()
        if client is not None:
            env["QLUKS_RUN"] = client
        done = qluks.try_again(lambda: subprocess.run(["bash", "-c", command], cwd=self.dir, env=env, input=stdin,
                                                      capture_output=True))
        self.assertEqual(done.returncode, 0, f"{command}\n{done.stderr.decode(errors='replace')}")
        return done.stdout.decode()

    def at_a_terminal(self, command):
        """The command asks for a passphrase at its terminal, serves the disk, and ends."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(self.dir)
            os.execvpe("bash", ["bash", "-c", command], self.environment())
        said = b""
        while b"assphrase" not in said:
            said += os.read(terminal, 1000)
        os.write(terminal, qluks.SECRET.encode() + b"\n")
        try:
            while part := os.read(terminal, 1000):
                said += part
        except OSError:  # the other end has gone
            pass
        os.close(terminal)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0, said)
        self.assert_same(self.content("served.raw"), self.disk)

    def serve_on_the_web(self, name):
        return web_server.serve(self, self.content(name))

    def content(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()

    def partitioned(self, name, script, start, content):
        """A disk with a partition table and these bytes in one partition."""
        disk = self.write(name, bytes(start + len(content) + 2 * qluks.MIB))
        qluks.run("sfdisk", "-q", disk, stdin=script.encode())
        with open(disk, "r+b") as f:
            f.seek(start)
            f.write(content)
        return disk

    def make_encrypted_qcow2(self):
        self.write("pass.txt", qluks.SECRET.encode())
        self.write("passphrase.txt", qluks.SECRET.encode() + b"\n")
        self.write("disk.raw", self.disk)
        self.qcow2_luks("disk.qcow2", self.disk)

    def make_volume(self):
        """volume.img: LUKS2, opened by volume.key, with a partition of its own inside."""
        key = self.write("volume.key", os.urandom(64))
        table = "label: dos\nstart=2048,size=1024\n"
        self.volume = self.content(os.path.basename(
            self.partitioned("table.raw", table, PARTITION, self.disk[:1024 * 512])))
        # cryptsetup encrypts no disk with a partition table in place: the volume is made first.
        self.luks2("volume.img", bytes(len(self.volume)), key_file=key)
        self.typed("nbdkit --filter=qluks file volume.img qluks-key-file=volume.key", 'nbdcopy table.raw "$uri"')

    def make_detached(self):
        header = self.path("header.img")
        self.luks2("payload.img", self.disk, header=header)

    def make_machine(self):
        """vm.qcow2: LUKS1 in the third partition of a GPT."""
        volume = self.content(os.path.basename(self.luks1("volume3", self.disk)))
        sectors = len(volume) // 512
        table = f"label: gpt\nstart=2048,size=2048\nstart=4096,size=4096\nstart=8192,size={sectors}\n"
        raw = self.partitioned("vm.raw", table, 8192 * 512, volume)
        qluks.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, self.path("vm.qcow2"))

    def make_chain(self, directory="."):
        """top.qcow2 → middle.qcow2 → base.img, and base.qcow2 which is the same as base.img."""
        os.makedirs(self.path(directory), exist_ok=True)
        at = lambda name: os.path.join(directory, name)
        self.write(at("base.img"), self.disk)
        self.qcow2(at("base.qcow2"), self.disk)
        self.overlay(at("middle.qcow2"), "base.img", SIZE)
        self.overlay(at("top.qcow2"), "middle.qcow2", SIZE, "qcow2")

    def make_directory(self):
        """srv/images: two volumes, each with its own passphrase."""
        os.makedirs(self.path("srv/images"))
        for name, secret in ("a.luks", "first secret"), ("b.luks", "second secret"):
            key = self.write("key", secret.encode())
            self.luks2(os.path.join("srv/images", name), self.disk, key_file=key)
        for name in "new.txt", "one.txt":
            self.write(name, b"first secret\n")
        for name in "old.txt", "two.txt":
            self.write(name, b"second secret\n")
