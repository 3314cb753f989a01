/* SPDX-License-Identifier: BSD-3-Clause */
/* Pieces of error messages. */
#ifndef QLUKS_FORMATS_TEXT_HPP
#define QLUKS_FORMATS_TEXT_HPP

#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>

namespace qluks {

inline std::string hex(uint64_t value) {
  char digits[16];
  const auto end = std::to_chars(digits, digits + sizeof digits, value, 16).ptr;
  return "0x" + std::string(digits, end);
}

/* A name that an image holds, fit for one line of a log: quoted, and without control characters. */
inline std::string quoted(std::string_view name) {
  std::string out = "\"";
  for (const char c : name) out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f || c == '"' ? '?' : c;
  return out + "\"";
}

} // namespace qluks

#endif
