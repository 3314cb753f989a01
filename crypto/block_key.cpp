/* SPDX-License-Identifier: BSD-3-Clause */
#include "crypto/block_key.hpp"

#include <nettle/blowfish.h>
#include <nettle/cast128.h>
#include <nettle/des.h>
#include <nettle/nettle-meta.h>

namespace qluks {

namespace {

template <class Context, void (*blocks)(const Context*, size_t, uint8_t*, const uint8_t*)>
void run_blocks(const void* context, size_t length, uint8_t* dst, const uint8_t* src) {
  blocks(static_cast<const Context*>(context), length, dst, src);
}

/* nettle does not describe these two. */
constexpr nettle_cipher blowfish = {"blowfish",
                                    sizeof(blowfish_ctx),
                                    BLOWFISH_BLOCK_SIZE,
                                    0,
                                    nullptr,
                                    nullptr,
                                    run_blocks<blowfish_ctx, blowfish_encrypt>,
                                    run_blocks<blowfish_ctx, blowfish_decrypt>};
constexpr nettle_cipher des3_ede = {"des3_ede",
                                    sizeof(des3_ctx),
                                    DES_BLOCK_SIZE,
                                    DES3_KEY_SIZE,
                                    nullptr,
                                    nullptr,
                                    run_blocks<des3_ctx, des3_encrypt>,
                                    run_blocks<des3_ctx, des3_decrypt>};

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
    case BlockCipher::blowfish:
      return blowfish;
    case BlockCipher::des3_ede:
      return des3_ede;
    default:
      return of_length(nettle_aes128, nettle_aes192, nettle_aes256);
  }
}

/* Whether the key is a weak one is left to those who chose it. */
void set_keys(BlockCipher cipher, const nettle_cipher& functions, void* encrypt, void* decrypt, size_t key_bytes,
              const uint8_t* key) noexcept {
  switch (cipher) {
    case BlockCipher::cast5:
      cast5_set_key(static_cast<cast128_ctx*>(encrypt), key_bytes, key);
      cast5_set_key(static_cast<cast128_ctx*>(decrypt), key_bytes, key);
      return;
    case BlockCipher::blowfish:
      blowfish_set_key(static_cast<blowfish_ctx*>(encrypt), key_bytes, key);
      blowfish_set_key(static_cast<blowfish_ctx*>(decrypt), key_bytes, key);
      return;
    case BlockCipher::des3_ede:
      des3_set_key(static_cast<des3_ctx*>(encrypt), key);
      des3_set_key(static_cast<des3_ctx*>(decrypt), key);
      return;
    default:
      functions.set_encrypt_key(encrypt, key);
      functions.set_decrypt_key(decrypt, key);
  }
}

/* Both contexts are aligned as widely as any vector that nettle may load from them. */
size_t context_stride(const nettle_cipher& cipher) noexcept { return (cipher.context_size + 63) / 64 * 64; }

} // namespace

BlockKey::BlockKey(BlockCipher cipher, std::span<const std::byte> key)
    : cipher_(nettle_cipher_of(cipher, key.size())), memory_(2 * context_stride(cipher_)) {
  set_keys(cipher, cipher_, memory_.data(), memory_.data() + context_stride(cipher_), key.size(),
           reinterpret_cast<const uint8_t*>(key.data()));
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
