/* SPDX-License-Identifier: BSD-3-Clause */
/* The tweaks of XTS (IEEE 1619) by shifts, for CPUs where carry-less products take AES its time: AMD's.
 *
 * Two vectors of tweaks are made at a time, from one vector that holds the lower halves of all of them and one that
 * holds the upper halves.  So no shift works on a half in vain, and nothing has to be moved between halves:
 *
 *      low:     l0 l4 l1 l5 …                                first vector:   l0 h0  l1 h1  …
 *      high:    h0 h4 h1 h5 …      interleaved to            second vector:  l4 h4  l5 h5  …      (4 lanes: 8 blocks)
 *
 * The k bits that leave a lower half enter the upper one; those that leave an upper one, c, come back times 0x87:
 *
 *      high·x^k = high≪k ⊕ low≫(64−k)
 *      low·x^k  = low≪k ⊕ c ⊕ c≪1 ⊕ c≪2 ⊕ c≪7                 c = high≫(64−k)
 *
 * On Zen 5 these shifts, ⊕ of three and interleaving of halves run on the two units without AES.  Shifts by bytes,
 * shuffles of bytes and GF2P8AFFINEQB do not.
 */
#ifndef QLUKS_CRYPTO_AES_VECTOR_TWEAK_PAIR_HPP
#define QLUKS_CRYPTO_AES_VECTOR_TWEAK_PAIR_HPP

#include "crypto/aes/vector_iv.hpp"

namespace qluks {
namespace {

inline constexpr size_t pair_blocks = 2 * Vector::lanes;
inline constexpr size_t pair_bytes = 2 * vector_bytes;

struct alignas(64) ShiftCounts {
  uint64_t count[pair_blocks];

  QLUKS_STEP Vector get() const noexcept { return Vector::load(reinterpret_cast<const std::byte*>(count)); }
};

enum class Shift { left, right };

constexpr ShiftCounts make_shift_counts(Shift direction) noexcept {
  ShiftCounts c{};
  for (size_t i = 0; i < pair_blocks; ++i) {
    const uint64_t block = i / 2 + i % 2 * Vector::lanes;
    c.count[i] = direction == Shift::left ? block : 64 - block; /* a shift by 64 gives zero */
  }
  return c;
}

inline constexpr ShiftCounts shifts_left = make_shift_counts(Shift::left);
inline constexpr ShiftCounts shifts_right = make_shift_counts(Shift::right);

/* The tweaks of 2·lanes blocks. */
class TweakPair {
 public:
  TweakPair() = default;

  /* Of the first blocks of a sector, from its IV. */
  QLUKS_STEP static TweakPair first(const std::byte* iv) noexcept {
    const Vector low = Vector::broadcast_half(iv);
    const Vector high = Vector::broadcast_half(iv + 8);
    const Vector left = shifts_left.get();
    const Vector right = shifts_right.get();
    return {Vector::shift_halves_left(low, left), Vector::shift_halves_right(low, right),
            Vector::shift_halves_left(high, left), Vector::shift_halves_right(high, right)};
  }

  /* Of the blocks after these. */
  QLUKS_STEP TweakPair next() const noexcept {
    constexpr int k = pair_blocks;
    return {Vector::shift_halves_left<k>(low_), Vector::shift_halves_right<64 - k>(low_),
            Vector::shift_halves_left<k>(high_), Vector::shift_halves_right<64 - k>(high_)};
  }

  QLUKS_STEP Vector first_vector() const noexcept { return Vector::interleave_low(low_, high_); }
  QLUKS_STEP Vector second_vector() const noexcept { return Vector::interleave_high(low_, high_); }

 private:
  QLUKS_STEP TweakPair(Vector low_left, Vector low_right, Vector high_left, Vector c) noexcept
      : low_(Vector::xor3(Vector::xor3(low_left, c, Vector::shift_halves_left<1>(c)), Vector::shift_halves_left<2>(c),
                          Vector::shift_halves_left<7>(c))),
        high_(high_left ^ low_right) {}

  Vector low_, high_;
};

} // namespace
} // namespace qluks

#endif
