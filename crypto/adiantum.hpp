/* SPDX-License-Identifier: BSD-3-Clause */
/* Adiantum (Crowley and Biggers, 2018) with XChaCha and AES-256: one wide block as long as a sector. */
#ifndef QLUKS_CRYPTO_ADIANTUM_HPP
#define QLUKS_CRYPTO_ADIANTUM_HPP

#include <array>
#include <memory>
#include <span>

#include "base/secure_buffer.hpp"
#include "crypto/block_key.hpp"
#include "crypto/sector_cipher.hpp"
#include "crypto/xchacha.hpp"

namespace qluks {

class Adiantum {
 public:
  using Bytes = std::span<const std::byte>;
  using Tweak = std::array<std::byte, 32>;

  static constexpr size_t key_bytes = 32;

  Adiantum(XChaCha xchacha, Bytes key);

  /* `in` and `out` have the same length, a multiple of 16 from 32 on, and are equal or disjoint. */
  void encrypt(const Tweak& tweak, Bytes in, std::span<std::byte> out) const noexcept;
  void decrypt(const Tweak& tweak, Bytes in, std::span<std::byte> out) const noexcept;

 private:
  struct Keys;
  struct DerivedKeys;

  static SecureBuffer derive_keys(XChaCha xchacha, Bytes key);
  Adiantum(XChaCha xchacha, Bytes key, const SecureBuffer& derived);

  XChaCha xchacha_;
  SecureBuffer memory_;
  Keys& keys_; /* in memory_ */
  BlockKey block_;
};

/* The tweak of a sector is its IV.  Key and sector size have to be legal. */
std::shared_ptr<const SectorCipher> make_adiantum_cipher(const CipherSpec& spec, std::span<const std::byte> key,
                                                         size_t sector_size);

} // namespace qluks

#endif
