# SPDX-License-Identifier: BSD-3-Clause
"""Many connections that write one disk at random, beside a model of it."""

import random

import qluks

FUA = qluks.nbd.CMD_FLAG_FUA

# At the end of the disk, where all of them write the same blocks.
CONTESTED = 64 * 1024


def pieces(rng, size, writers):
    """[(offset, length, writer)]: the disk in pieces of any length, each with one writer.  Neighbours share sectors."""
    at, all_pieces = 0, []
    while at < size:
        length = min(rng.choice([1, 100, 511, 512, 700, 4096, 5000, 20000, 70000]), size - at)
        all_pieces.append((at, length, rng.randrange(writers)))
        at += length
    return all_pieces


def write(server, size, seed, writers=8, requests=60, block=4096):
    """Writes, zeroes, reads and flushes of each writer in its own pieces, of parts that cross sectors as they like, and
    whole blocks of one byte where all of them write.  What the disk then holds; each contested block is as one of them
    wrote it."""
    rng = random.Random(seed)
    end = size - CONTESTED
    own = pieces(rng, end, writers)
    model = bytearray(size)
    with server.connect() as h:
        model[:] = qluks.read_all(h)

    def run(number):
        rng = random.Random(seed * 100 + number)
        mine = [(offset, length) for offset, length, writer in own if writer == number]
        with server.connect() as h:
            for _ in range(requests):
                offset, length = rng.choice(mine)
                first = rng.randrange(length)
                part = rng.randrange(first, length) + 1 - first
                at = offset + first
                flags = rng.choice([0, 0, 0, FUA])
                kind = rng.randrange(10)
                if kind == 0:
                    h.flush()
                elif kind == 1:
                    h.zero(part, at, flags)
                    model[at:at + part] = bytes(part)
                elif kind == 2:
                    assert bytes(h.pread(part, at)) == model[at:at + part], f"seed {seed}: {part} bytes at {at}"
                else:
                    data = rng.randbytes(part)
                    h.pwrite(data, at, flags)
                    model[at:at + part] = data
                block_at = end + rng.randrange(CONTESTED // block) * block
                h.pwrite(bytes([1 + number]) * block, block_at)
            h.flush()

    qluks.in_threads(writers, run)
    with server.connect() as h:
        now = qluks.read_all(h)
    assert now[:end] == model[:end], f"seed {seed}: bytes of one writer were lost to another"
    for at in range(end, size, block):
        found = now[at:at + block]
        assert found == model[at:at + block] or (len(set(found)) == 1 and 1 <= found[0] <= writers), \
            f"seed {seed}: the block at {at} is of two writers"
    return now
