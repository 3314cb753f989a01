/* SPDX-License-Identifier: BSD-3-Clause */
/* The name of a cipher, as any header may hold it: what is accepted can be used, and has a name of its own. */
#include <vector>

#include "crypto/sector_cipher.hpp"
#include "tests/fuzz/checks.hpp"
#include "tests/fuzz/target.hpp"

namespace qluks::fuzz {

namespace {

/* Encrypts and decrypts two sectors. */
void use_cipher(const SectorCipher& cipher) {
  std::vector<std::byte> plain(2 * cipher.sector_size());
  for (size_t i = 0; i < plain.size(); ++i) plain[i] = static_cast<std::byte>(i * 7);
  std::vector<std::byte> text(plain.size());
  cipher.encrypt(SectorNumber{~uint64_t{0}}, plain, text);
  check(text != plain, "cipher text differs");
  cipher.decrypt(SectorNumber{~uint64_t{0}}, text, text);
  check(text == plain, "what was encrypted decrypts");
}

} // namespace

void run_target(std::span<const std::byte> input) {
  const std::string_view text(reinterpret_cast<const char*>(input.data()), input.size());
  const auto spec = parse_cipher_spec(text);
  if (!succeeded(spec)) return;
  const auto again = parse_cipher_spec(spec->name());
  check(again && again->name() == spec->name(), "a name in full is the name of the same cipher");
  for (size_t key_bytes = 0; key_bytes <= 72; ++key_bytes) {
    if (key_bytes % 8 != 0 && spec->accepts_key_bytes(key_bytes))
      continue; /* the dear keys of Blowfish, byte by byte */
    const std::vector<std::byte> key(key_bytes, std::byte{0x5a});
    const auto cipher = make_sector_cipher(*spec, key, size_t{512} << (key_bytes % 4));
    check(!cipher || spec->accepts_key_bytes(key_bytes), "a key that is not accepted makes no cipher");
    if (succeeded(cipher)) use_cipher(**cipher);
  }
}

} // namespace qluks::fuzz
