/* SPDX-License-Identifier: BSD-3-Clause */
/* An expanded key of any block cipher, by nettle. */
#ifndef QLUKS_CRYPTO_BLOCK_KEY_HPP
#define QLUKS_CRYPTO_BLOCK_KEY_HPP

#include <cstdint>
#include <span>

#include "base/secure_buffer.hpp"
#include "crypto/cipher_spec.hpp"

struct nettle_cipher;

namespace qluks {

class BlockKey {
 public:
  using BlocksFn = void(const void* context, size_t length, uint8_t* dst, const uint8_t* src);

  /* The length of the key has to be legal: is_key_bytes_of(). */
  BlockKey(BlockCipher cipher, std::span<const std::byte> key);

  size_t block_bytes() const noexcept;
  BlocksFn* encrypt_blocks() const noexcept;
  BlocksFn* decrypt_blocks() const noexcept;
  const void* encrypt_context() const noexcept { return memory_.data(); }
  const void* decrypt_context() const noexcept;

  void encrypt_block(uint8_t* block) const noexcept;
  void decrypt_block(uint8_t* block) const noexcept;

 private:
  const nettle_cipher& cipher_;
  SecureBuffer memory_; /* nettle's contexts of both directions */
};

} // namespace qluks

#endif
