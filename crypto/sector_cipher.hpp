/* SPDX-License-Identifier: BSD-3-Clause */
/* Sector encryption: cipher, mode, IV and sector size in one immutable object.
 *
 * Made once for a volume key, then shared by every thread of every connection without a lock.  A call takes a whole
 * run of sectors; the key schedule, the choice of kernel and the IV generator's key are fixed at creation.
 */
#ifndef QLUKS_CRYPTO_SECTOR_CIPHER_HPP
#define QLUKS_CRYPTO_SECTOR_CIPHER_HPP

#include <memory>
#include <span>
#include <string_view>

#include "base/result.hpp"
#include "base/units.hpp"
#include "crypto/cipher_spec.hpp"

namespace qluks {

class SectorCipher {
 public:
  SectorCipher() = default;
  SectorCipher(const SectorCipher&) = delete;
  SectorCipher& operator=(const SectorCipher&) = delete;
  virtual ~SectorCipher() = default;

  /* Bytes of one sector: 512, 1024, 2048 or 4096. */
  virtual size_t sector_size() const noexcept = 0;

  /* The kernel at work, such as "vaes512". */
  virtual std::string_view engine() const noexcept = 0;

  /* `in` and `out` have the same length, a multiple of the sector size, and are equal or disjoint; neither needs to
   * be aligned.  `first` is the number of the first sector in units of 512 bytes; each sector adds
   * sector_size() / 512 to it, wrapping at 2^64.  No trace of the key is left in registers or on the stack
   * (traces.hpp). */
  virtual void decrypt(SectorNumber first, std::span<const std::byte> in, std::span<std::byte> out) const noexcept = 0;
  virtual void encrypt(SectorNumber first, std::span<const std::byte> in, std::span<std::byte> out) const noexcept = 0;
};

/* Refuses a key length that the cipher does not take, a sector size that is none of the four, and an ESSIV hash
 * whose digest is no key of the cipher. */
Result<std::shared_ptr<const SectorCipher>> make_sector_cipher(const CipherSpec& spec, std::span<const std::byte> key,
                                                               size_t sector_size);

} // namespace qluks

#endif
