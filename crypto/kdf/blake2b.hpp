/* SPDX-License-Identifier: BSD-3-Clause */
/* BLAKE2b without a key (RFC 7693), of any length of digest: what Argon2 begins and ends with. */
#ifndef QLUKS_CRYPTO_KDF_BLAKE2B_HPP
#define QLUKS_CRYPTO_KDF_BLAKE2B_HPP

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace qluks {

class Blake2b {
 public:
  static constexpr size_t digest_bytes_max = 64;

  /* `digest_bytes`: 1 to 64. */
  explicit Blake2b(size_t digest_bytes) noexcept;

  void update(std::span<const std::byte> bytes) noexcept;
  /* As many bytes as the constructor was told; nothing may follow. */
  void digest(std::span<std::byte> out) noexcept;

 private:
  static constexpr size_t block_bytes = 128;

  void compress(const std::byte* block, bool last) noexcept;

  std::array<uint64_t, 8> state_;
  std::array<std::byte, block_bytes> block_;
  size_t used_ = 0;
  uint64_t counted_ = 0;
};

} // namespace qluks

#endif
