/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/text.hpp"

#include <charconv>

namespace qluks {

namespace {

constexpr size_t quoted_chars_max = 64;

bool is_plain(char c) noexcept { return c >= 0x20 && c < 0x7f && c != '"' && c != '\\'; }

std::string escaped(char c) {
  constexpr std::string_view digits = "0123456789abcdef";
  const auto value = static_cast<unsigned char>(c);
  return {'\\', 'x', digits[value >> 4], digits[value & 15]};
}

} // namespace

std::string hex(uint64_t value) {
  char digits[16];
  const auto end = std::to_chars(digits, digits + sizeof digits, value, 16).ptr;
  return "0x" + std::string(digits, end);
}

std::string in_quotes(std::string_view text) {
  std::string out = "\"";
  for (const char c : text.substr(0, quoted_chars_max)) out += is_plain(c) ? std::string(1, c) : escaped(c);
  out += text.size() > quoted_chars_max ? "...\"" : "\"";
  return out;
}

} // namespace qluks
