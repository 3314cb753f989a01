/* SPDX-License-Identifier: BSD-3-Clause */
/* XChaCha with 20 or 12 rounds (draft-irtf-cfrg-xchacha has it with 20): ChaCha with a nonce of 24 bytes, of which the
 * first 16 go into its key. */
#ifndef QLUKS_CRYPTO_XCHACHA_HPP
#define QLUKS_CRYPTO_XCHACHA_HPP

#include <array>
#include <cstdint>
#include <span>

namespace qluks {

struct XChaCha {
  static constexpr size_t key_bytes = 32;
  using Nonce = std::array<std::byte, 24>;

  unsigned rounds; /* 20 or 12 */

  /* Combine `in`, equal to `out` or disjoint from it, with the stream from its beginning. `key` has key_bytes. */
  void crypt(const std::byte* key, const Nonce& nonce, std::span<const std::byte> in, std::byte* out) const noexcept;
};

} // namespace qluks

#endif
