# SPDX-License-Identifier: BSD-3-Clause
"""What inflating the clusters of a compressed qcow2 costs when nothing else is done: by libdeflate or libzstd alone, on one
thread, out of memory.  The floor of what a server of that image spends."""

import ctypes
import struct
import time

L2_COMPRESSED = 1 << 62
COMPRESSION_TYPE_AT = 104  # of version 3, if the header is longer
ROUNDS = 3


def compressed_clusters(image):
    """[(offset, most bytes that it has)], by the tables (qcow2 specification, "Compressed Clusters Descriptor")."""
    cluster_bits, l1_size, l1_offset = struct.unpack_from(">20xI12xIQ", image)
    offset_bits = 62 - (cluster_bits - 8)
    found = []
    for l1_entry, in struct.iter_unpack(">Q", image[l1_offset:l1_offset + 8 * l1_size]):
        l2_offset = l1_entry & 0x00fffffffffffe00
        if l2_offset == 0:
            continue
        for entry, in struct.iter_unpack(">Q", image[l2_offset:l2_offset + (1 << cluster_bits)]):
            if entry & L2_COMPRESSED:
                offset = entry & ((1 << offset_bits) - 1)
                sectors = (entry & (L2_COMPRESSED - 1)) >> offset_bits
                found.append((offset, (sectors + 1) * 512 - offset % 512))
    return 1 << cluster_bits, found


def deflate():
    library = ctypes.CDLL("libdeflate.so.0")
    library.libdeflate_alloc_decompressor.restype = ctypes.c_void_p
    state = ctypes.c_void_p(library.libdeflate_alloc_decompressor())
    done = ctypes.c_size_t()

    def inflate(source, length, target, size):
        return library.libdeflate_deflate_decompress_ex(state, source, ctypes.c_size_t(length), target,
                                                        ctypes.c_size_t(size), None, ctypes.byref(done)) == 0
    return "libdeflate", inflate, lambda source, length: length


def zstd():
    library = ctypes.CDLL("libzstd.so.1")
    for function in library.ZSTD_createDCtx, library.ZSTD_decompressDCtx, library.ZSTD_findFrameCompressedSize:
        function.restype = ctypes.c_size_t
    state = ctypes.c_void_p(library.ZSTD_createDCtx())

    def inflate(source, length, target, size):
        return library.ZSTD_decompressDCtx(state, target, ctypes.c_size_t(size), source, ctypes.c_size_t(length)) == size
    return "libzstd", inflate, lambda source, length: library.ZSTD_findFrameCompressedSize(source, ctypes.c_size_t(length))


def seconds_per_gib(path):
    """(name of the library, CPU seconds for each GiB of the guest disk); nothing for an image without such clusters."""
    with open(path, "rb") as f:
        image = bytearray(f.read())
    cluster_bytes, clusters = compressed_clusters(image)
    if not clusters:
        return None
    header_length = struct.unpack_from(">I", image, 100)[0]
    is_zstd = header_length > COMPRESSION_TYPE_AT and image[COMPRESSION_TYPE_AT] == 1
    name, inflate, exact = zstd() if is_zstd else deflate()
    base = ctypes.addressof(ctypes.c_char.from_buffer(image))
    target = ctypes.create_string_buffer(cluster_bytes)
    pieces = []
    for offset, length in clusters:
        source = ctypes.c_void_p(base + offset)
        pieces.append((source, exact(source, min(length, len(image) - offset))))
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        for source, length in pieces:
            if not inflate(source, length, target, cluster_bytes):
                raise ValueError(f"{path}: a cluster does not inflate")
        best = min(best, time.process_time() - start)
    return name, best / (len(clusters) * cluster_bytes) * (1 << 30)
