/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/luks/text.hpp"

#include <cstdint>

namespace qluks {

namespace {

constexpr std::string_view base64_alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

} // namespace

std::optional<std::vector<std::byte>> decode_base64(std::string_view text) {
  if (text.size() % 4 != 0) return std::nullopt;
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  std::vector<std::byte> out;
  out.reserve(text.size() / 4 * 3);
  uint32_t group = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const size_t value = i < text.size() - padding ? base64_alphabet.find(text[i]) : 0;
    if (value == std::string_view::npos) return std::nullopt;
    group = group << 6 | static_cast<uint32_t>(value);
    if (i % 4 != 3) continue;
    for (const unsigned shift : {16U, 8U, 0U}) out.push_back(static_cast<std::byte>(group >> shift));
    group = 0;
  }
  out.resize(out.size() - padding);
  return out;
}

} // namespace qluks
