/* SPDX-License-Identifier: BSD-3-Clause */
/* How an IV is made from the number of a sector, for ciphers without kernels of their own:
 *
 *      number = sector · factor + addend       benbi counts blocks from 1, eboiv bytes, the others sectors
 *      iv     = LE64(number) at its start, or BE64(number) at its end, and zeroes
 */
#ifndef QLUKS_CRYPTO_IV_RULE_HPP
#define QLUKS_CRYPTO_IV_RULE_HPP

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>

#include "base/wire.hpp"
#include "crypto/cipher_spec.hpp"
#include "crypto/little_endian.hpp"

namespace qluks {

struct IvRule {
  uint64_t factor = 1;
  uint64_t addend = 0;
  uint64_t mask = ~uint64_t{0};
  bool big_endian = false;

  /* At least 8 bytes. */
  void lay_out(uint64_t sector, std::span<uint8_t> iv) const noexcept {
    const uint64_t number = (sector * factor + addend) & mask;
    std::fill(iv.begin(), iv.end(), uint8_t{0});
    if (!big_endian) return store_little_endian(number, iv.data());
    const be64 laid_out = number;
    std::memcpy(iv.data() + iv.size() - sizeof laid_out, &laid_out, sizeof laid_out);
  }
};

/* What benbi counts: to dm-crypt the blocks of the mode, to cryptsetup what is as long as the IV. */
inline size_t benbi_bytes(const CipherSpec& spec) noexcept {
  if (spec.use == CipherUse::payload) return is_stream(spec.mode) ? 1 : block_bytes_of(spec.cipher);
  return spec.mode == CipherMode::adiantum ? 32 : block_bytes_of(spec.cipher);
}

inline IvRule iv_rule(const CipherSpec& spec, size_t sector_size) noexcept {
  switch (spec.iv) {
    case IvKind::none:
    case IvKind::null:
      return {.mask = 0};
    case IvKind::plain:
      return {.mask = 0xffffffff};
    case IvKind::plain64be:
      return {.big_endian = true};
    case IvKind::benbi:
      return {.factor = 512 / benbi_bytes(spec), .addend = 1, .big_endian = true};
    case IvKind::eboiv:
      return {.factor = sector_size}; /* of a number in units of 512 bytes: as dm-crypt has it */
    default:
      return {};
  }
}

} // namespace qluks

#endif
