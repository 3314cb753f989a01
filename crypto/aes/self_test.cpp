/* SPDX-License-Identifier: BSD-3-Clause */
/* The known-answer test that a kernel must pass before it is used.
 *
 * One run of 37 sectors for each key size and mode: a full batch of IVs and a part of one, ESSIV, and sector numbers
 * on both sides of 2^32.  The digests of the cipher text come from tests/vectors/make_sectors.py, as those of
 * sectors.vec do.
 */
#include <array>
#include <string>
#include <vector>

#include "crypto/aes/kernel.hpp"

namespace qluks {

namespace {

struct KnownAnswer {
  std::string_view cipher;
  size_t key_bytes;
  std::string_view sha256; /* of the cipher text */
};

constexpr std::array known_answers{
    KnownAnswer{"aes-xts-essiv:sha256", 32, "4cd994a3bc1336d22c11d8c7b4bc03ab828319919fff10006ad8d9b1cf8ee4c8"},
    KnownAnswer{"aes-xts-essiv:sha256", 48, "4493a57052f8147279cc5e14c5f98aec438e363017ec63c0261d40f515c6da7a"},
    KnownAnswer{"aes-xts-essiv:sha256", 64, "09395228ee37ddc3aeb63fe2b6429d64bcc96f3f0bb3f6969325eef4b4db18d7"},
    KnownAnswer{"aes-cbc-essiv:sha256", 16, "46e0f66ce0b3d9c2de9ec59f94881f1f71981454822dd60546871ef09103d8b7"},
    KnownAnswer{"aes-cbc-essiv:sha256", 24, "1884b3e572fbf1667102fcdb6e892ee77ef0b30c5f0f51947c95e66458246254"},
    KnownAnswer{"aes-cbc-essiv:sha256", 32, "9f2ab5ff8a75e6d38b4272e3cc0f3ff0e8def99dec0c5b8158ab77bdd711b444"},
};

constexpr size_t sectors = 37;
constexpr size_t sector_size = 512;
constexpr SectorNumber first{(uint64_t{1} << 32) - 20};

std::vector<std::byte> make_plain_text() {
  std::vector<std::byte> plain(sectors * sector_size);
  for (size_t i = 0; i < plain.size(); ++i) plain[i] = static_cast<std::byte>(i * 7 + (i >> 8));
  return plain;
}

std::array<std::byte, 64> make_key() {
  std::array<std::byte, 64> key;
  for (size_t i = 0; i < key.size(); ++i) key[i] = static_cast<std::byte>(i * 29 + 1);
  return key;
}

std::string sha256_hex(std::span<const std::byte> bytes) {
  std::array<std::byte, 32> digest;
  Hash hash(*find_hash("sha256"));
  hash.update(bytes);
  hash.digest(digest);
  std::string hex;
  for (const std::byte b : digest) {
    hex += "0123456789abcdef"[std::to_integer<size_t>(b >> 4)];
    hex += "0123456789abcdef"[std::to_integer<size_t>(b & std::byte{15})];
  }
  return hex;
}

} // namespace

bool passes_self_test(const Kernel& kernel) {
  const std::vector<std::byte> plain = make_plain_text();
  const std::array<std::byte, 64> key = make_key();
  std::vector<std::byte> text(plain.size());
  for (const KnownAnswer& known : known_answers) {
    const auto spec = parse_cipher_spec(known.cipher);
    if (!spec) return false;
    const auto cipher = make_sector_cipher(kernel, *spec, std::span(key).first(known.key_bytes), sector_size);
    if (!cipher) return false;
    (*cipher)->encrypt(first, plain, text);
    if (sha256_hex(text) != known.sha256) return false;
    (*cipher)->decrypt(first, text, text);
    if (text != plain) return false;
  }
  return true;
}

} // namespace qluks
