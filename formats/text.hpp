/* SPDX-License-Identifier: BSD-3-Clause */
/* Numbers in error messages. */
#ifndef QLUKS_FORMATS_TEXT_HPP
#define QLUKS_FORMATS_TEXT_HPP

#include <charconv>
#include <cstdint>
#include <string>

namespace qluks {

/* Offsets and bits are shown as QEMU's tools show them: 0x50000. */
inline std::string hex(uint64_t value) {
  char digits[16];
  const auto end = std::to_chars(digits, digits + sizeof digits, value, 16).ptr;
  return "0x" + std::string(digits, end);
}

} // namespace qluks

#endif
