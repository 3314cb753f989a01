/* SPDX-License-Identifier: BSD-3-Clause */
#include "crypto/block_key.hpp"

#include <nettle/nettle-meta.h>

namespace qluks {

namespace {

/* nettle knows the lengths of a cipher's key as ciphers of their own. */
const nettle_cipher& nettle_cipher_of(BlockCipher cipher, size_t key_bytes) noexcept {
  const auto of_length = [key_bytes](const nettle_cipher& k128, const nettle_cipher& k192,
                                     const nettle_cipher& k256) -> const nettle_cipher& {
    return key_bytes == 16 ? k128 : key_bytes == 24 ? k192 : k256;
  };
  switch (cipher) {
    case BlockCipher::serpent:
      return of_length(nettle_serpent128, nettle_serpent192, nettle_serpent256);
    case BlockCipher::twofish:
      return of_length(nettle_twofish128, nettle_twofish192, nettle_twofish256);
    case BlockCipher::camellia:
      return of_length(nettle_camellia128, nettle_camellia192, nettle_camellia256);
    case BlockCipher::cast5:
      return nettle_cast128;
    default:
      return of_length(nettle_aes128, nettle_aes192, nettle_aes256);
  }
}

/* Both contexts are aligned as widely as any vector that nettle may load from them. */
size_t context_stride(const nettle_cipher& cipher) noexcept { return (cipher.context_size + 63) / 64 * 64; }

} // namespace

BlockKey::BlockKey(BlockCipher cipher, std::span<const std::byte> key)
    : cipher_(nettle_cipher_of(cipher, key.size())), memory_(2 * context_stride(cipher_)) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(key.data());
  cipher_.set_encrypt_key(memory_.data(), bytes);
  cipher_.set_decrypt_key(memory_.data() + context_stride(cipher_), bytes);
}

size_t BlockKey::block_bytes() const noexcept { return cipher_.block_size; }

BlockKey::BlocksFn* BlockKey::encrypt_blocks() const noexcept { return cipher_.encrypt; }

BlockKey::BlocksFn* BlockKey::decrypt_blocks() const noexcept { return cipher_.decrypt; }

const void* BlockKey::decrypt_context() const noexcept { return memory_.data() + context_stride(cipher_); }

void BlockKey::encrypt_block(uint8_t* block) const noexcept {
  cipher_.encrypt(encrypt_context(), cipher_.block_size, block, block);
}

void BlockKey::decrypt_block(uint8_t* block) const noexcept {
  cipher_.decrypt(decrypt_context(), cipher_.block_size, block, block);
}

} // namespace qluks
