/* SPDX-License-Identifier: BSD-3-Clause */
/* Sector encryption by nettle's own modes, sector by sector: what every kernel must equal. */
#ifndef QLUKS_TESTS_SUPPORT_NETTLE_REFERENCE_HPP
#define QLUKS_TESTS_SUPPORT_NETTLE_REFERENCE_HPP

#include <nettle/aes.h>
#include <nettle/cbc.h>
#include <nettle/nettle-meta.h>
#include <nettle/xts.h>
/* They would rename functions of ours. */
#undef cbc_encrypt
#undef cbc_decrypt

#include <array>
#include <cstring>
#include <span>
#include <vector>

#include "crypto/cipher_spec.hpp"

namespace qluks::test {

class NettleReference {
 public:
  NettleReference(const CipherSpec& spec, std::span<const std::byte> key, size_t sector_size)
      : spec_(spec), sector_size_(sector_size) {
    const bool xts = spec.mode == CipherMode::xts;
    const std::span<const std::byte> data_key = xts ? key.first(key.size() / 2) : key;
    data_ = &aes(data_key.size());
    data_->set_encrypt_key(data_context_.data(), bytes(data_key));
    if (xts) data_->set_encrypt_key(tweak_context_.data(), bytes(key.last(key.size() / 2)));
    if (spec.iv == IvKind::essiv) set_essiv_key(key);
  }

  std::vector<std::byte> encrypt(uint64_t first, std::span<const std::byte> plain) const {
    std::vector<std::byte> cipher(plain.size());
    for (size_t at = 0; at < plain.size(); at += sector_size_) {
      std::array<uint8_t, 16> iv = make_iv(first + at / 512);
      auto* out = reinterpret_cast<uint8_t*>(cipher.data() + at);
      const uint8_t* in = bytes(plain.subspan(at, sector_size_));
      if (spec_.mode == CipherMode::xts) {
        nettle_xts_encrypt_message(data_context_.data(), tweak_context_.data(), data_->encrypt, iv.data(), sector_size_,
                                   out, in);
      } else {
        nettle_cbc_encrypt(data_context_.data(), data_->encrypt, iv.size(), iv.data(), sector_size_, out, in);
      }
    }
    return cipher;
  }

 private:
  using Context = std::array<std::byte, sizeof(aes256_ctx)>;

  static const uint8_t* bytes(std::span<const std::byte> s) { return reinterpret_cast<const uint8_t*>(s.data()); }
  static const nettle_cipher& aes(size_t key_bytes) {
    return key_bytes == 16 ? nettle_aes128 : key_bytes == 24 ? nettle_aes192 : nettle_aes256;
  }

  void set_essiv_key(std::span<const std::byte> key) {
    std::array<std::byte, digest_bytes_max> salt;
    Hash hash(*spec_.essiv_hash);
    hash.update(key);
    hash.digest(salt);
    essiv_ = &aes(spec_.essiv_hash->digest_bytes());
    essiv_->set_encrypt_key(essiv_context_.data(), bytes(salt));
  }

  std::array<uint8_t, 16> make_iv(uint64_t sector) const {
    std::array<uint8_t, 16> iv{};
    const uint64_t number = spec_.iv == IvKind::plain ? sector & 0xffffffff : sector;
    for (size_t i = 0; i < 8; ++i) {
      iv[spec_.iv == IvKind::plain64be ? 15 - i : i] = static_cast<uint8_t>(number >> (8 * i));
    }
    if (essiv_ != nullptr) essiv_->encrypt(essiv_context_.data(), iv.size(), iv.data(), iv.data());
    return iv;
  }

  CipherSpec spec_;
  size_t sector_size_;
  const nettle_cipher* data_ = nullptr;
  const nettle_cipher* essiv_ = nullptr;
  alignas(16) Context data_context_;
  alignas(16) Context tweak_context_;
  alignas(16) Context essiv_context_;
};

} // namespace qluks::test

#endif
