/* SPDX-License-Identifier: BSD-3-Clause */
#include "crypto/cipher_spec.hpp"

#include <algorithm>
#include <array>
#include <optional>

namespace qluks {

namespace {

template <class T>
struct Named {
  std::string_view name;
  T value;
};

constexpr std::array ciphers{
    Named<BlockCipher>{"aes", BlockCipher::aes},
    Named<BlockCipher>{"serpent", BlockCipher::serpent},
    Named<BlockCipher>{"twofish", BlockCipher::twofish},
    Named<BlockCipher>{"camellia", BlockCipher::camellia},
    Named<BlockCipher>{"cast5", BlockCipher::cast5},
    Named<BlockCipher>{"blowfish", BlockCipher::blowfish},
    Named<BlockCipher>{"des3_ede", BlockCipher::des3_ede},
    Named<BlockCipher>{"xchacha20,aes", BlockCipher::xchacha20_aes},
    Named<BlockCipher>{"xchacha12,aes", BlockCipher::xchacha12_aes},
};
constexpr std::array modes{
    Named<CipherMode>{"xts", CipherMode::xts},   Named<CipherMode>{"cbc", CipherMode::cbc},
    Named<CipherMode>{"ecb", CipherMode::ecb},   Named<CipherMode>{"ctr", CipherMode::ctr},
    Named<CipherMode>{"xctr", CipherMode::xctr}, Named<CipherMode>{"pcbc", CipherMode::pcbc},
    Named<CipherMode>{"cfb", CipherMode::cfb},   Named<CipherMode>{"ofb", CipherMode::ofb},
    Named<CipherMode>{"lrw", CipherMode::lrw},   Named<CipherMode>{"adiantum", CipherMode::adiantum},
};
constexpr std::array ivs{Named<IvKind>{"plain", IvKind::plain},         Named<IvKind>{"plain64", IvKind::plain64},
                         Named<IvKind>{"plain64be", IvKind::plain64be}, Named<IvKind>{"null", IvKind::null},
                         Named<IvKind>{"benbi", IvKind::benbi},         Named<IvKind>{"eboiv", IvKind::eboiv},
                         Named<IvKind>{"essiv", IvKind::essiv}};

constexpr std::string_view mode_list = "xts, cbc, ecb, ctr, xctr, pcbc, cfb, ofb, lrw and adiantum";
constexpr std::string_view cipher_list =
    "aes, serpent, twofish, camellia, cast5, blowfish, des3_ede, xchacha20,aes and xchacha12,aes";

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

/* What follows the cipher, with dm-crypt's short forms written out. */
std::string_view mode_and_iv(std::string_view text, std::string_view cipher_name) noexcept {
  if (text == cipher_name) return "cbc-plain";
  text.remove_prefix(cipher_name.size() + 1);
  return text == "plain" ? "cbc-plain" : text;
}

/* Cut `before` and `behind` off; nullopt if they are not there. */
std::optional<std::string_view> between(std::string_view before, std::string_view text, std::string_view behind) {
  if (!text.starts_with(before) || !text.substr(before.size()).ends_with(behind)) return std::nullopt;
  return text.substr(before.size(), text.size() - before.size() - behind.size());
}

/* "capi:mode(cipher)-iv" as "cipher-mode-iv", and ESSIV, which encrypts what plain64 makes, as
 * "cipher-mode-essiv:hash".  nullopt if it is nothing of that. */
std::optional<std::string> from_capi(std::string_view text) {
  std::string_view algorithm = text.substr(5, text.rfind(')') - 4);
  std::string iv(text.substr(std::min(text.size(), 5 + algorithm.size())));
  if (const auto essiv = between("essiv(", algorithm, ")")) {
    const size_t comma = essiv->rfind(',');
    if (comma == std::string_view::npos || iv != "-plain64") return std::nullopt;
    algorithm = essiv->substr(0, comma);
    iv = "-essiv:" + std::string(essiv->substr(comma + 1));
  }
  const std::string_view mode = next_part(algorithm, '(');
  const auto cipher = between("", algorithm, ")");
  if (!cipher || !iv.starts_with('-')) return std::nullopt;
  return std::string(*cipher) + "-" + std::string(mode) + iv;
}

/* "iv" or "essiv:hash". */
Status parse_iv(std::string_view text, std::string_view rest, CipherSpec& spec) {
  const bool has_option = rest.find(':') != std::string_view::npos;
  const std::string_view name = next_part(rest, ':');
  const IvKind* iv = find_named(ivs, name);
  if (iv == nullptr) {
    return refuse(text, "iv", name, "plain, plain64, plain64be, null, benbi, eboiv and essiv:HASH");
  }
  spec.iv = *iv;
  if (*iv != IvKind::essiv) return has_option ? Status(refuse(text, "iv option", rest, "essiv takes one")) : ok();
  spec.essiv_hash = find_essiv_hash(rest);
  return spec.essiv_hash != nullptr ? ok() : Status(refuse(text, "essiv hash", rest, "sha256 and the like"));
}

constexpr bool goes_with(BlockCipher cipher, CipherMode mode) noexcept {
  const bool is_wide = cipher == BlockCipher::xchacha20_aes || cipher == BlockCipher::xchacha12_aes;
  if (is_wide || mode == CipherMode::adiantum) return is_wide && mode == CipherMode::adiantum;
  const bool needs_wide_blocks = mode == CipherMode::xts || mode == CipherMode::xctr || mode == CipherMode::lrw;
  return !needs_wide_blocks || block_bytes_of(cipher) == 16;
}

std::string modes_of(BlockCipher cipher) {
  std::string list;
  for (const auto& mode : modes) {
    if (goes_with(cipher, mode.value)) list += (list.empty() ? "" : ", ") + std::string(mode.name);
  }
  return list + " with this cipher";
}

/* Parts that are known but do not go together. */
Status check_combination(std::string_view text, const CipherSpec& spec) {
  if (spec.mode == CipherMode::adiantum && (spec.iv == IvKind::eboiv || spec.iv == IvKind::essiv)) {
    return refuse(text, "iv", name_of(ivs, spec.iv), "plain, plain64, plain64be, null and benbi with adiantum");
  }
  if (spec.iv == IvKind::eboiv && is_stream(spec.mode)) {
    return refuse(text, "iv", "eboiv", "with cbc, pcbc, xts and lrw");
  }
  return ok();
}

} // namespace

std::string CipherSpec::name() const {
  std::string text(name_of(ciphers, cipher));
  text += '-';
  text += name_of(modes, mode);
  if (iv == IvKind::none) return text;
  text += '-';
  text += name_of(ivs, iv);
  if (essiv_hash != nullptr) {
    text += ':';
    text += essiv_hash->name;
  }
  return text;
}

size_t CipherSpec::tweak_key_bytes(size_t key_bytes) const noexcept {
  if (mode == CipherMode::xts) return key_bytes / 2;
  return mode == CipherMode::lrw ? std::min(key_bytes, block_bytes_of(cipher)) : 0;
}

bool CipherSpec::accepts_key_bytes(size_t bytes) const noexcept {
  const bool must_be_one = use == CipherUse::key_slot && iv == IvKind::eboiv;
  return (mode != CipherMode::xts || bytes % 2 == 0) && is_key_bytes_of(cipher, bytes - tweak_key_bytes(bytes)) &&
         (!must_be_one || is_key_bytes_of(cipher, bytes));
}

Result<CipherSpec> parse_cipher_spec(std::string_view text, CipherUse use) {
  if (text.starts_with("capi:")) {
    const auto dm_crypt_name = use == CipherUse::payload ? from_capi(text) : std::nullopt;
    if (!dm_crypt_name) return refuse(text, "format", "capi:", "cipher-mode-iv, and capi:mode(cipher)-iv for payloads");
    return parse_cipher_spec(*dm_crypt_name);
  }
  const std::string_view cipher_name = text.substr(0, text.find('-'));
  if (cipher_name.find("null") != std::string_view::npos) return refuse(text, "null cipher", cipher_name, cipher_list);
  const BlockCipher* cipher = find_named(ciphers, cipher_name);
  if (cipher == nullptr) return refuse(text, "cipher", cipher_name, cipher_list);

  std::string_view rest = mode_and_iv(text, cipher_name);
  const std::string_view mode_name = next_part(rest, '-');
  const CipherMode* mode = find_named(modes, mode_name);
  if (mode == nullptr) return refuse(text, "mode", mode_name, mode_list);
  if (!goes_with(*cipher, *mode)) return refuse(text, "mode", mode_name, modes_of(*cipher));
  CipherSpec spec{.cipher = *cipher, .mode = *mode, .iv = IvKind::none, .use = use};
  /* QEMU writes an IV into the headers of its ecb volumes; it and dm-crypt ignore whatever the name is. */
  if (*mode == CipherMode::ecb) return spec;

  if (Status s = parse_iv(text, rest, spec); !s) return propagate(s);
  if (Status s = check_combination(text, spec); !s) return propagate(s);
  return spec;
}

std::string served_ciphers() {
  std::string list;
  for (const auto& cipher : ciphers) {
    for (const auto& mode : modes) {
      if (!goes_with(cipher.value, mode.value)) continue;
      list += (list.empty() ? "" : " ") + std::string(cipher.name) + "-" + std::string(mode.name);
    }
  }
  return list;
}

} // namespace qluks
