# SPDX-License-Identifier: BSD-3-Clause
"""One file on a web server of this machine."""

import http.server
import re
import threading


class WebServer(http.server.SimpleHTTPRequestHandler):
    """One file, whole or in ranges: what the curl plugin asks of a server of images."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(send=False)

    def do_GET(self):
        self.answer(send=True)

    def answer(self, send):
        content = self.server.content
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, last = (int(asked[1]), int(asked[2])) if asked else (0, len(content) - 1)
        part = content[first:last + 1]
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(content)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if send:
            self.wfile.write(part)

    def log_message(self, *args):
        pass


def serve(test, content):
    """The start of its URL; any path is the file.  Until the test ends."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), WebServer)
    server.content = content
    threading.Thread(target=server.serve_forever, daemon=True).start()
    test.addCleanup(server.server_close)
    test.addCleanup(server.shutdown)
    return f"http://127.0.0.1:{server.server_port}"
