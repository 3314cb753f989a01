# SPDX-License-Identifier: BSD-3-Clause
"""Servers over one image on a web server: each is killed in the middle, and its client has the right bytes in the end."""

import hashlib
import signal

import qluks
import web_server

SERVERS = 4
SIZE = 16 * qluks.MIB
PIECE = 256 * 1024


class ScalingTest(qluks.TestCase):
    def copied(self, server, url):
        """The digest of the whole disk, and how often the client had to connect again."""
        digest, at, again = hashlib.sha256(), 0, 0
        h = server.connect().h
        while at < SIZE:
            if at == SIZE // 2 and again == 0:
                server.stop(signal.SIGKILL)
                server.restart("curl", url, f"qluks-passphrase={qluks.SECRET}")
            try:
                digest.update(h.pread(PIECE, at))
                at += PIECE
            except qluks.nbd.Error:
                again += 1
                h = server.connect().h
        h.shutdown()
        return digest.hexdigest(), again

    def test_servers_are_killed(self):
        disk = qluks.source_bytes(SIZE)
        image = self.qcow2_luks("disk.qcow2", disk)
        with open(image, "rb") as f:
            url = web_server.serve(self, f.read()) + "/disk.qcow2"
        servers = [self.server("curl", url, f"qluks-passphrase={qluks.SECRET}", options=["-r"]) for _ in range(SERVERS)]
        results = [None] * SERVERS

        def copy(n):
            results[n] = self.copied(servers[n], url)

        qluks.in_threads(SERVERS, copy)
        self.assertEqual(results, [(hashlib.sha256(disk).hexdigest(), 1)] * SERVERS)


qluks.main()
