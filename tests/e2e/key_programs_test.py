# SPDX-License-Identifier: BSD-3-Clause
"""The commands of the manual that find a secret, run as they stand there: Clevis with Tang, Vault, the kernel keyring."""

import http.server
import json
import os
import re
import socketserver
import subprocess
import threading

import qluks

MANUAL = os.path.join(os.path.dirname(__file__), "..", "..", "man", "nbdkit-qluks-filter.pod")
CONTENT = qluks.source_bytes(qluks.MIB)


def example(word):
    """The qluks-key-command of the manual that has this word."""
    with open(MANUAL) as f:
        commands = re.findall(r"qluks-key-command='([^']*)'", f.read())
    command = next(c for c in commands if word in c)
    # The sanitizers are for nbdkit, not for programs that know nothing of them.
    return "unset LD_PRELOAD; " + command if qluks.PRELOAD else command


class Programs(qluks.TestCase):
    def set_environment(self, **variables):
        os.environ.update(variables)
        for name in variables:
            self.addCleanup(os.environ.pop, name)

    def assert_opens(self, image, word):
        server = self.assert_serves(CONTENT, "file", image, f"qluks-key-command={example(word)}")
        self.assertEqual(server.errors(), [])

    def assert_refused(self, image, word):
        server = self.server("file", image, f"qluks-key-command={example(word)}")
        with self.assertRaises(qluks.nbd.Error):
            server.connect()
        self.assertRegex(" ".join(server.errors()), "qluks-key-command: it (failed with status|printed nothing)")

    def serve_tcp(self, make_server, handler):
        server = make_server(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return server


class Keyring(Programs):
    def test_passphrase_in_the_kernel_keyring(self):
        qluks.requires_or_skip(self, "keyctl")
        image = self.luks1("image.luks", CONTENT)
        self.assert_refused(image, "keyctl")
        added = qluks.run("keyctl", "padd", "user", f"luks:{qluks.luks_uuid(image)}", "@u", stdin=qluks.SECRET.encode(),
                          check=False)
        if added.returncode != 0:
            self.skipTest(f"no key can be added to the kernel keyring: {added.stderr.decode().strip()}")
        self.addCleanup(qluks.run, "keyctl", "unlink", added.stdout.decode().strip(), "@u")
        self.assert_opens(image, "keyctl")


class Vault(Programs):
    """There is no Vault to run here: a server that answers as its manual says stands in."""

    def start(self, secrets):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                known = self.headers["X-Vault-Token"] == "s.token" and secrets.get(self.path)
                answer = {"data": {"data": known, "metadata": {"version": 1}}} if known else {"errors": []}
                self.send_response(200 if known else 404)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *args):
                pass

        port = self.serve_tcp(http.server.ThreadingHTTPServer, Handler).server_port
        self.set_environment(VAULT_ADDR=f"http://127.0.0.1:{port}", VAULT_TOKEN="s.token")

    def test_passphrase_in_vault(self):
        qluks.requires_or_skip(self, "curl")
        qluks.requires_or_skip(self, "jq")
        image = self.luks2("image.luks", CONTENT)
        other = self.luks2("other.luks", CONTENT)
        third = self.luks2("third.luks", CONTENT)
        self.start({f"/v1/secret/data/luks/{qluks.luks_uuid(image)}": {"passphrase": qluks.SECRET},
                    f"/v1/secret/data/luks/{qluks.luks_uuid(third)}": {"password": "under another name"}})
        self.assert_opens(image, "VAULT")
        self.assert_refused(other, "VAULT")
        self.assert_refused(third, "VAULT")


class Clevis(Programs):
    tangd = "/usr/libexec/tangd"

    def start(self):
        keys = self.path("keys")
        os.mkdir(keys)
        qluks.run(self.tangd + "-keygen", keys)
        tangd = self.tangd

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                subprocess.run([tangd, keys], stdin=self.request, stdout=self.request, stderr=subprocess.DEVNULL)

        return self.serve_tcp(socketserver.ThreadingTCPServer, Handler)

    def test_volume_bound_to_a_tang_server(self):
        for program in ("clevis-luks-bind", "jose", "jq", "curl", self.tangd):
            qluks.requires_or_skip(self, program)
        image = self.luks2("image.luks", CONTENT)
        server = self.start()
        qluks.run("clevis", "luks", "bind", "-y", "-f", "-k", self.secret_file(), "-d", image, "tang",
                  json.dumps({"url": f"http://127.0.0.1:{server.server_address[1]}"}))
        self.assert_opens(image, "clevis")
        server.shutdown()
        server.server_close()
        self.assert_refused(image, "clevis")


if __name__ == "__main__":
    qluks.main()
