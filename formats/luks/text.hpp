/* SPDX-License-Identifier: BSD-3-Clause */
/* Text that comes out of a LUKS header: fixed-size strings and base64. */
#ifndef QLUKS_FORMATS_LUKS_TEXT_HPP
#define QLUKS_FORMATS_LUKS_TEXT_HPP

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qluks {

/* A field of fixed size that must hold a NUL; nullopt if it does not. */
template <size_t N>
std::optional<std::string_view> terminated(const std::array<char, N>& field) noexcept {
  const std::string_view all(field.data(), N);
  const size_t end = all.find('\0');
  if (end == std::string_view::npos) return std::nullopt;
  return all.substr(0, end);
}

/* A field that is only shown: its last byte is taken for the NUL whatever it is, as cryptsetup does. */
template <size_t N>
std::string shown(const std::array<char, N>& field) {
  const std::string_view all(field.data(), N - 1);
  return std::string(all.substr(0, all.find('\0')));
}

/* Padded base64 (RFC 4648) without white space; nullopt if it is anything else. */
std::optional<std::vector<std::byte>> decode_base64(std::string_view text);

} // namespace qluks

#endif
