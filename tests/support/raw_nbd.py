# SPDX-License-Identifier: BSD-3-Clause
"""An NBD client that sends what it is told to, right or wrong.  Names are the protocol's."""

import socket
import struct

IHAVEOPT = b"IHAVEOPT"
OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_STARTTLS, OPT_INFO, OPT_GO = 1, 2, 3, 5, 6, 7
OPT_STRUCTURED_REPLY, OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT = 8, 9, 10
REP_ACK, REP_SERVER, REP_INFO, REP_META_CONTEXT = 1, 2, 3, 4
REQUEST_MAGIC, SIMPLE_MAGIC, STRUCTURED_MAGIC = 0x25609513, 0x67446698, 0x668e33ef
CMD_READ, CMD_WRITE, CMD_DISC, CMD_FLUSH, CMD_TRIM, CMD_CACHE, CMD_WRITE_ZEROES, CMD_BLOCK_STATUS = range(8)
FLAG_FUA, FLAG_NO_HOLE, FLAG_DF, FLAG_REQ_ONE, FLAG_FAST_ZERO = 1, 2, 4, 8, 16
REPLY_FLAG_DONE = 1
REPLY_NONE, REPLY_OFFSET_DATA, REPLY_OFFSET_HOLE, REPLY_BLOCK_STATUS = 0, 1, 2, 5
EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN = 1, 5, 12, 22, 28, 75, 95, 108


class Closed(Exception):
    """The server has ended the connection."""


class Client:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)
        self.handle = 0

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.socket.close()

    def send(self, data):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as e:
            raise Closed from e

    def end_sending(self):
        self.socket.shutdown(socket.SHUT_WR)

    def receive(self, length):
        data = bytearray()
        while len(data) < length:
            try:
                more = self.socket.recv(length - len(data))
            except ConnectionResetError as e:
                raise Closed from e
            if not more:
                raise Closed
            data += more
        return bytes(data)

    def is_closed(self):
        """Waits for the end of the connection, over whatever still comes."""
        try:
            while True:
                self.receive(1)
        except Closed:
            return True

    # Handshake

    def greet(self, flags=3):
        greeting = self.receive(18)
        assert greeting[:16] == b"NBDMAGIC" + IHAVEOPT, greeting
        self.send(struct.pack(">I", flags))
        return self

    def option(self, number, data=b""):
        """[(type, data)] of the replies."""
        self.send(IHAVEOPT + struct.pack(">II", number, len(data)) + data)
        replies = []
        while not replies or replies[-1][0] in (REP_SERVER, REP_INFO, REP_META_CONTEXT):
            magic, _, kind, length = struct.unpack(">QIII", self.receive(20))
            assert magic == 0x3e889045565a9, hex(magic)
            replies.append((kind, self.receive(length)))
        return replies

    def go(self, export=b"", structured=True, allocation=True):
        """Through the handshake, the way most clients go; the size of the export."""
        self.greet()
        if structured:
            assert self.option(OPT_STRUCTURED_REPLY)[-1][0] == REP_ACK
        if structured and allocation:
            query = b"base:allocation"
            replies = self.option(OPT_SET_META_CONTEXT, lengthened(export) + struct.pack(">I", 1) + lengthened(query))
            assert replies[-1][0] == REP_ACK, replies
        replies = self.option(OPT_GO, lengthened(export) + struct.pack(">H", 0))
        assert replies[-1][0] == REP_ACK, replies
        self.structured = structured
        return next(struct.unpack(">HQH", data)[1] for kind, data in replies if kind == REP_INFO and len(data) == 12)

    # Transmission

    def reply(self):
        """(handle, error, chunks): all that belongs to one reply.  Chunks are (type, data)."""
        chunks = []
        while True:
            magic = struct.unpack(">I", self.receive(4))[0]
            if magic == SIMPLE_MAGIC:
                error, handle = struct.unpack(">IQ", self.receive(12))
                return handle, error, chunks
            assert magic == STRUCTURED_MAGIC, hex(magic)
            flags, kind, handle, length = struct.unpack(">HHQI", self.receive(16))
            data = self.receive(length)
            if kind & 0x8000:
                return handle, struct.unpack(">I", data[:4])[0], chunks
            chunks.append((kind, data))
            if flags & REPLY_FLAG_DONE:
                return handle, 0, chunks

    def ask(self, command, offset=0, length=0, flags=0, payload=b""):
        """(error, data or extents): one request and its reply."""
        self.handle += 1
        self.send(request(command, offset, length, self.handle, flags) + payload)
        handle, error, chunks = self.reply()
        assert handle == self.handle
        if error != 0 or command == CMD_WRITE:
            return error, None
        if command == CMD_READ and not self.structured:
            return 0, self.receive(length)
        if command == CMD_READ:
            return 0, assembled(chunks, offset, length)
        if command == CMD_BLOCK_STATUS:
            kind, data = chunks[0]
            assert kind == REPLY_BLOCK_STATUS and len(chunks) == 1, chunks
            return 0, list(struct.iter_unpack(">II", data[4:]))
        return 0, None


def request(command, offset=0, length=0, handle=0, flags=0, magic=REQUEST_MAGIC):
    return struct.pack(">IHHQQI", magic, flags, command, handle, offset, length)


def lengthened(data):
    return struct.pack(">I", len(data)) + data


def assembled(chunks, offset, length):
    content = bytearray(length)
    for kind, data in chunks:
        at = struct.unpack(">Q", data[:8])[0] - offset if kind in (REPLY_OFFSET_DATA, REPLY_OFFSET_HOLE) else 0
        if kind == REPLY_OFFSET_DATA:
            content[at:at + len(data) - 8] = data[8:]
        else:
            assert kind in (REPLY_OFFSET_HOLE, REPLY_NONE), kind
    return bytes(content)
