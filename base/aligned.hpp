/* SPDX-License-Identifier: BSD-3-Clause */
/* Requests of any offset and length over parts that only know whole units (the sectors of a cipher).
 *
 *      unit:   |......##|########|########|###.....|
 *               head     middle            tail
 *
 * A request of up to 1 MiB goes through a buffer, as a single request.  Of a longer one, or when many threads do the
 * same, the middle goes straight into the caller's buffer; head and tail go through a buffer of one unit each.  Reads
 * are widened here; writes of parts of a sector are in formats/encrypted_write.
 */
#ifndef QLUKS_BASE_ALIGNED_HPP
#define QLUKS_BASE_ALIGNED_HPP

#include <functional>

#include "base/block_device.hpp"

namespace qluks {

/* Reads whole units: offset and dst.size() are multiples of the unit. */
using AlignedReadFn = std::function<Status(std::span<std::byte> dst, uint64_t offset)>;

/* Serve [offset, offset + dst.size()) with reads of whole units.  `unit` is a power of two, at most 64 KiB; the
 * bytes around the request are read too, so offset + dst.size() rounded up must be readable. */
Status read_unaligned(std::span<std::byte> dst, uint64_t offset, uint32_t unit, const AlignedReadFn& read);

/* The same on storage of `size` bytes that takes whole blocks only: what is left behind the last whole block is asked
 * for as it is. */
Status read_blocks(std::span<std::byte> dst, uint64_t offset, uint32_t block, uint64_t size, const AlignedReadFn& read);

/* Storage that reads and writes whole units. */
struct AlignedDevice {
  AlignedReadFn read;
  std::function<Status(std::span<const std::byte> src, uint64_t offset)> write;
};

/* Write to storage of `size` bytes that takes whole blocks only: a block of which a part is written is read and changed
 * before.  The caller holds a lock on all blocks that are touched. */
Status write_blocks(std::span<const std::byte> src, uint64_t offset, uint32_t block, uint64_t size,
                    const AlignedDevice& device);

} // namespace qluks

#endif
