/* SPDX-License-Identifier: BSD-3-Clause */
/* The plain part of an IV: how the number of a sector is laid out as 16 bytes.
 *
 *      number = 0x0807060504030201     plain      01 02 03 04  00 00 00 00  00 00 00 00  00 00 00 00
 *                                      plain64    01 02 03 04  05 06 07 08  00 00 00 00  00 00 00 00
 *                                      plain64be  00 00 00 00  00 00 00 00  08 07 06 05  04 03 02 01
 *
 * A layout names for each byte the byte of the number (0 is the lowest) that it takes, or zero.  It is a PSHUFB
 * control as it stands, so no kernel needs to know the kinds apart.
 */
#ifndef QLUKS_CRYPTO_IV_HPP
#define QLUKS_CRYPTO_IV_HPP

#include <array>
#include <cstddef>
#include <cstdint>

#include "crypto/cipher_spec.hpp"

namespace qluks {

using IvLayout = std::array<uint8_t, 16>;

/* Can the IV be had from the number by a layout?  The others count something else than sectors. */
constexpr bool has_iv_layout(IvKind kind) noexcept {
  return kind != IvKind::none && kind != IvKind::benbi && kind != IvKind::eboiv;
}

/* ESSIV encrypts what plain64 lays out. */
constexpr IvLayout iv_layout(IvKind kind) noexcept {
  constexpr uint8_t z = 0x80; /* PSHUFB: a zero byte */
  switch (kind) {
    case IvKind::null:
      return {z, z, z, z, z, z, z, z, z, z, z, z, z, z, z, z};
    case IvKind::plain:
      return {0, 1, 2, 3, z, z, z, z, z, z, z, z, z, z, z, z};
    case IvKind::plain64be:
      return {z, z, z, z, z, z, z, z, 7, 6, 5, 4, 3, 2, 1, 0};
    default:
      break;
  }
  return {0, 1, 2, 3, 4, 5, 6, 7, z, z, z, z, z, z, z, z};
}

/* For kernels without vectors. */
inline void lay_out_iv(const IvLayout& layout, uint64_t number, uint8_t iv[16]) noexcept {
  for (size_t i = 0; i < layout.size(); ++i) {
    iv[i] = layout[i] < 8 ? static_cast<uint8_t>(number >> (8 * layout[i])) : uint8_t{0};
  }
}

} // namespace qluks

#endif
