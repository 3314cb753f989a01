/* SPDX-License-Identifier: BSD-3-Clause */
/* The tweaks of LRW (IEEE P1619, drafts up to 2006): the number of a block times a key, in GF(2^128).
 *
 * Numbers, keys and tweaks are polynomials in big-endian order: the last bit of a block is 1, the one before it x;
 * x^128 is x^7 + x^2 + x + 1. */
#ifndef QLUKS_CRYPTO_LRW_TWEAK_HPP
#define QLUKS_CRYPTO_LRW_TWEAK_HPP

#include <array>
#include <cstdint>
#include <span>

#include "base/secure_buffer.hpp"

namespace qluks {

class LrwTweak {
 public:
  static constexpr size_t key_bytes = 16;

  /* `key` has key_bytes. */
  explicit LrwTweak(std::span<const std::byte> key);

  /* The tweak of the block with that number.  Both have 16 bytes and may be the same. */
  void make(const uint8_t* number, uint8_t* tweak) const noexcept;

  /* From the number and the tweak of a block to those of the next one, modulo 2^128.  The time that it takes tells how
   * many bits at the end of the number are set. */
  void advance(uint8_t* number, uint8_t* tweak) const noexcept;

 private:
  struct Polynomial {
    uint64_t high; /* x^127 … x^64 */
    uint64_t low;

    static Polynomial load(const void* block) noexcept;
    void store(void* block) const noexcept;
  };
  using Powers = std::array<Polynomial, 128>;

  SecureBuffer memory_;
  Powers& powers_; /* in memory_: key · x^i */
};

} // namespace qluks

#endif
