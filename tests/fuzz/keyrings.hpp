/* SPDX-License-Identifier: BSD-3-Clause */
/* Keyrings for targets that unlock volumes.  They are made once, since measuring the speed of key derivation takes
 * time. */
#ifndef QLUKS_TESTS_FUZZ_KEYRINGS_HPP
#define QLUKS_TESTS_FUZZ_KEYRINGS_HPP

#include <array>

#include "formats/luks/keyring.hpp"

namespace qluks::fuzz {

/* Any number is the number of a keyring: with nothing in it, with a secret, with secrets for one key slot only, with a
 * source of secrets, with a volume key. */
inline Keyring& keyring(size_t number) {
  static std::array<Keyring, 6> keyrings;
  static const bool filled = [] {
    const auto secret = [] { return SecureBuffer::copy_of(std::as_bytes(std::span("secret", 6))); };
    keyrings[1].add_secret(secret());
    keyrings[2].add_secret(SecureBuffer::copy_of(std::as_bytes(std::span("newline\n", 8))));
    keyrings[2].add_secret(secret());
    keyrings[2].use_only_slot(1);
    keyrings[3].add_secret_source([secret](const LuksHeader&) { return Result<SecureBuffer>(secret()); });
    keyrings[4].use_volume_key(SecureBuffer(32));
    keyrings[5].use_volume_key(SecureBuffer(64));
    return true;
  }();
  static_cast<void>(filled);
  return keyrings[number % keyrings.size()];
}

} // namespace qluks::fuzz

#endif
