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
 */
#ifndef QLUKS_CRYPTO_AES_VECTOR_TWEAK_HPP
#define QLUKS_CRYPTO_AES_VECTOR_TWEAK_HPP

#include "crypto/aes/vector_iv.hpp"

namespace qluks {
namespace {

/* x^0, x^1, … as 64-bit polynomials, each in the lower half of a lane. */
struct alignas(64) Powers {
  uint64_t power[group_blocks][2];
};

constexpr Powers make_powers() noexcept {
  Powers powers{};
  for (size_t i = 0; i < group_blocks; ++i) powers.power[i][0] = uint64_t{1} << i;
  return powers;
}

inline constexpr Powers powers_of_x = make_powers();
inline constexpr uint64_t reduction[2] = {0x87, 0}; /* x^128 = x^7 + x^2 + x + 1 */

QLUKS_STEP Vector load_constant(const uint64_t (&halves)[2]) noexcept {
  return Vector::broadcast(reinterpret_cast<const std::byte*>(halves));
}

/* x^i, x^(i+1), … */
QLUKS_STEP Vector load_powers(size_t i) noexcept {
  return Vector::load(reinterpret_cast<const std::byte*>(powers_of_x.power[i]));
}

/* T times the powers of x in the lanes of `power`.  With T = high·x^64 + low:
 *
 *      low·p                             64 + 64 bits
 *      high·p          at x^64           its upper half is past x^128: times 0x87, back at x^0
 */
QLUKS_STEP Vector multiply_by_power(Vector t, Vector power, Vector poly) noexcept {
  const Vector low = Vector::multiply_low(t, power);
  const Vector high = Vector::multiply_high(t, power);
  return Vector::xor3(low, Vector::shift_left<8>(high), Vector::multiply_high(high, poly));
}

/* Times x^G, a whole number of bytes: what is shifted out comes back times 0x87. */
QLUKS_STEP Vector next_group(Vector t, Vector poly) noexcept {
  static_assert(group_blocks % 8 == 0);
  constexpr int bytes = group_blocks / 8;
  return Vector::shift_left<bytes>(t) ^ Vector::multiply_low(Vector::shift_right<16 - bytes>(t), poly);
}

/* The i-th of the first group of the sector whose IV is in every lane. */
QLUKS_STEP Vector first_tweak(Vector iv, size_t i, Vector poly) noexcept {
  if (i == 0 && Vector::lanes == 1) return iv;
  return multiply_by_power(iv, load_powers(i * Vector::lanes), poly);
}

/* The tweaks of a group. */
struct Tweaks {
  Vector t[Vector::in_flight];

  QLUKS_STEP Tweaks(Vector iv, Vector poly) noexcept {
#pragma GCC unroll 16
    for (size_t i = 0; i < Vector::in_flight; ++i) t[i] = first_tweak(iv, i, poly);
  }

  QLUKS_STEP void advance(Vector poly) noexcept {
#pragma GCC unroll 16
    for (size_t i = 0; i < Vector::in_flight; ++i) t[i] = next_group(t[i], poly);
  }
};

} // namespace
} // namespace qluks

#endif
