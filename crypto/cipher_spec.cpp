/* SPDX-License-Identifier: BSD-3-Clause */
#include "crypto/cipher_spec.hpp"

#include <array>

namespace qluks {

namespace {

template <class T>
struct Named {
  std::string_view name;
  T value;
};

constexpr std::array ciphers{Named<BlockCipher>{"aes", BlockCipher::aes}};
constexpr std::array modes{Named<CipherMode>{"xts", CipherMode::xts}, Named<CipherMode>{"cbc", CipherMode::cbc}};
constexpr std::array ivs{Named<IvKind>{"plain", IvKind::plain}, Named<IvKind>{"plain64", IvKind::plain64},
                         Named<IvKind>{"plain64be", IvKind::plain64be}, Named<IvKind>{"essiv", IvKind::essiv}};

template <class T, size_t N>
const T* find_named(const std::array<Named<T>, N>& list, std::string_view name) noexcept {
  for (const auto& entry : list) {
    if (entry.name == name) return &entry.value;
  }
  return nullptr;
}

template <class T, size_t N>
std::string_view name_of(const std::array<Named<T>, N>& list, T value) noexcept {
  for (const auto& entry : list) {
    if (entry.value == value) return entry.name;
  }
  return {};
}

/* Cut off and return what stands before the first `separator`; all of `rest` if there is none. */
std::string_view next_part(std::string_view& rest, char separator) noexcept {
  const size_t end = rest.find(separator);
  const std::string_view part = rest.substr(0, end);
  rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  return part;
}

/* A header may hold any bytes; an error message holds a short line of printable ones. */
std::string quoted(std::string_view text) {
  std::string safe = "\"";
  for (const char c : text.substr(0, 64)) safe += c >= ' ' && c <= '~' ? c : '?';
  return safe + (text.size() > 64 ? "…\"" : "\"");
}

tl::unexpected<Error> refuse(std::string_view text, std::string_view part_name, std::string_view part,
                             std::string_view served) {
  return fail(Errc::unsupported, "cipher " + quoted(text) + ": " + std::string(part_name) + " " + quoted(part) +
                                     " is not supported, only " + std::string(served));
}

} // namespace

std::string CipherSpec::name() const {
  std::string text(name_of(ciphers, cipher));
  text += '-';
  text += name_of(modes, mode);
  text += '-';
  text += name_of(ivs, iv);
  if (essiv_hash != nullptr) {
    text += ':';
    text += essiv_hash->name;
  }
  return text;
}

bool CipherSpec::accepts_key_bytes(size_t bytes) const noexcept {
  if (mode == CipherMode::xts) {
    if (bytes % 2 != 0) return false;
    bytes /= 2;
  }
  return bytes == 16 || bytes == 24 || bytes == 32;
}

Result<CipherSpec> parse_cipher_spec(std::string_view text) {
  std::string_view rest = text;
  if (text.starts_with("capi:")) return refuse(text, "format", "capi:", "cipher-mode-iv");
  const std::string_view cipher_name = next_part(rest, '-');
  const std::string_view mode_name = next_part(rest, '-');
  const std::string_view iv_name = next_part(rest, ':');
  const bool has_hash = text.find(':') != std::string_view::npos;
  if (cipher_name.find("null") != std::string_view::npos) return refuse(text, "null cipher", cipher_name, "aes");

  const BlockCipher* cipher = find_named(ciphers, cipher_name);
  if (cipher == nullptr) return refuse(text, "cipher", cipher_name, "aes");
  const CipherMode* mode = find_named(modes, mode_name);
  if (mode == nullptr) return refuse(text, "mode", mode_name, "xts and cbc");
  const IvKind* iv = find_named(ivs, iv_name);
  if (iv == nullptr) return refuse(text, "iv", iv_name, "plain, plain64, plain64be and essiv:HASH");
  CipherSpec spec{*cipher, *mode, *iv, nullptr};
  if (*iv != IvKind::essiv) {
    if (has_hash) return refuse(text, "iv option", rest, "essiv takes one");
    return spec;
  }
  spec.essiv_hash = find_hash(rest);
  if (spec.essiv_hash == nullptr) return refuse(text, "essiv hash", rest, "sha256 and the like");
  return spec;
}

} // namespace qluks
