/* SPDX-License-Identifier: BSD-3-Clause */
/* The tweaks of XTS (IEEE 1619): T·x^i of block i, in GF(2^128) mod x^128 + x^7 + x^2 + x + 1.
 *
 * A group is Vector::in_flight vectors, or G blocks.  The tweaks of a sector's first group are T·x^0 … T·x^(G-1), all
 * made from T at once.  From group to group each is multiplied by x^G on its own:
 *
 *      first group   T·x^0   T·x^1   …  T·x^(G-1)
 *                      ↓ ·x^G  ↓ ·x^G     ↓ ·x^G
 *      second group  T·x^G   …
 *
 * so no tweak waits for its neighbour.
 *
 * What is free on one CPU costs AES its time on another.  Intel has the carry-less products that are used here on a
 * unit beside AES, and shifts on the one with it.  AMD has it the other way round: see vector_tweak_pair.hpp.
 */
#ifndef QLUKS_CRYPTO_AES_VECTOR_TWEAK_HPP
#define QLUKS_CRYPTO_AES_VECTOR_TWEAK_HPP

#include "crypto/aes/vector_iv.hpp"

namespace qluks {
namespace {

/* A power for each block of a group, in the lower half of its lane. */
struct alignas(64) Powers {
  uint64_t half[group_blocks][2];

  QLUKS_STEP Vector at(size_t block) const noexcept {
    return Vector::load(reinterpret_cast<const std::byte*>(half[block]));
  }
};

QLUKS_STEP Vector load_constant(const uint64_t (&halves)[2]) noexcept {
  return Vector::broadcast(reinterpret_cast<const std::byte*>(halves));
}

inline constexpr int group_shift = group_blocks / 8; /* x^G is a whole number of bytes */
static_assert(group_blocks % 8 == 0);

constexpr Powers make_powers() noexcept {
  Powers p{};
  for (size_t i = 0; i < group_blocks; ++i) p.half[i][0] = uint64_t{1} << i;
  return p;
}

inline constexpr Powers powers_of_x = make_powers();

/* A product for each of the parts.  T = high·x^64 + low:
 *
 *      low·p                             64 + 64 bits
 *      high·p          at x^64           its upper half is past x^128: times 0x87, back at x^0
 */
class ByProducts {
 public:
  /* Wider vectors leave room beside AES for it all in one piece. */
  static constexpr bool interleaved = Vector::lanes == 1;

  QLUKS_STEP ByProducts() noexcept : poly_(load_constant(reduction)) {}

  /* The tweaks of a group's vector `i`, from the IV in every lane. */
  QLUKS_STEP Vector first(Vector iv, size_t i) const noexcept {
    if (i == 0 && Vector::lanes == 1) return iv;
    const Vector power = powers_of_x.at(i * Vector::lanes);
    const Vector low = Vector::multiply_low(iv, power);
    const Vector high = Vector::multiply_high(iv, power);
    return Vector::xor3(low, Vector::shift_left<8>(high), Vector::multiply_high(high, poly_));
  }

  /* Times x^G: what is shifted out comes back times 0x87. */
  QLUKS_STEP Vector next(Vector t) const noexcept {
    return Vector::shift_left<group_shift>(t) ^ Vector::multiply_low(Vector::shift_right<16 - group_shift>(t), poly_);
  }

 private:
  static constexpr uint64_t reduction[2] = {0x87, 0}; /* x^128 = x^7 + x^2 + x + 1 */

  Vector poly_;
};

/* The tweaks of a group. */
struct Tweaks {
  Vector t[Vector::in_flight];

  QLUKS_STEP Tweaks(Vector iv, const ByProducts& by) noexcept {
#pragma GCC unroll 16
    for (size_t i = 0; i < Vector::in_flight; ++i) t[i] = by.first(iv, i);
  }

  QLUKS_STEP void advance(const ByProducts& by) noexcept {
#pragma GCC unroll 16
    for (size_t i = 0; i < Vector::in_flight; ++i) t[i] = by.next(t[i]);
  }
};

} // namespace
} // namespace qluks

#endif
