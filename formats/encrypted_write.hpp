/* SPDX-License-Identifier: BSD-3-Clause */
/* Writes of any offset and length to a device whose sectors are encrypted.
 *
 *      client's buffer:      ..|#####|########|########|##......|         plain, read once, never changed
 *                        |.....+#####|                 |##+.....|         the cut sectors: read, decrypted, patched
 *                        ▼  encrypted                           ▼
 *      our buffer:       |xxxxxxxxxxx|xxxxxxxx|xxxxxxxx|xxxxxxxx|         one write below for each MiB
 *
 * Whoever calls holds a lock on all sectors that are touched: two writes of parts of one sector must both survive.
 */
#ifndef QLUKS_FORMATS_ENCRYPTED_WRITE_HPP
#define QLUKS_FORMATS_ENCRYPTED_WRITE_HPP

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "base/result.hpp"

namespace qluks {

/* A run of sectors as its format knows it.  Offsets are multiples of the sector size, and so are lengths. */
struct EncryptedSectors {
  uint32_t sector_size; /* a power of two, at most 4096 */
  std::function<Status(std::span<std::byte> plain, uint64_t offset)> read;
  std::function<void(std::span<const std::byte> plain, std::span<std::byte> cipher_text, uint64_t offset)> encrypt;
  std::function<Status(std::span<const std::byte> cipher_text, uint64_t offset)> write;
};

/* Write `plain` at `offset`.  `plain` is not empty; the sectors around it can be read and written whole. */
Status write_encrypted(std::span<const std::byte> plain, uint64_t offset, const EncryptedSectors& sectors);

} // namespace qluks

#endif
