/* SPDX-License-Identifier: BSD-3-Clause */
/* The tweaks of XTS by shifts, for vectors whose halves can each be shifted by a count of its own. */
#ifndef QLUKS_CRYPTO_AES_VECTOR_TWEAK_SHIFT_HPP
#define QLUKS_CRYPTO_AES_VECTOR_TWEAK_SHIFT_HPP

#include "crypto/aes/vector_tweak.hpp"

namespace qluks {
namespace {

enum class Shift { left, right };

constexpr Halves make_counts(Shift direction) noexcept {
  Halves h{};
  for (size_t i = 0; i < group_blocks; ++i) {
    h.half[i][0] = h.half[i][1] = direction == Shift::left ? i : 64 - i; /* a shift by 64 gives zero */
  }
  return h;
}

inline constexpr Halves shifts_left = make_counts(Shift::left);
inline constexpr Halves shifts_right = make_counts(Shift::right);

/* With shifts.  The k bits that leave a half on the left enter the other half on the right, and those that leave the
 * upper one (the carry) are multiplied by 0x87 as well, which is carry ⊕ carry≪1 ⊕ carry≪2 ⊕ carry≪7.
 *
 *      T·x^k = T≪k ⊕ c ⊕ (c≪1 ⊕ c≪2 ⊕ c≪7 in the lower half)        c = T with its halves swapped ≫ (64 − k)
 */
class ByShifts {
 public:
  static constexpr bool interleaved = true; /* they are more instructions, and AMD starts two rounds of AES a cycle */

  QLUKS_STEP ByShifts() noexcept
      : one_(load_constant(lower_by_1)), two_(load_constant(lower_by_2)), seven_(load_constant(lower_by_7)) {}

  QLUKS_STEP Vector first(Vector iv, size_t i) const noexcept {
    const Vector c = Vector::shift_halves_right(Vector::swap_halves(iv), shifts_right.at(i * Vector::lanes));
    const Vector product = Vector::xor3(Vector::shift_halves_left(c, one_), Vector::shift_halves_left(c, two_),
                                        Vector::shift_halves_left(c, seven_));
    return Vector::xor3(Vector::shift_halves_left(iv, shifts_left.at(i * Vector::lanes)), c, product);
  }

  QLUKS_STEP Vector next(Vector t) const noexcept {
    const Vector c = Vector::shift_right<16 - group_shift>(t);
    const Vector product = Vector::xor3(c, Vector::shift_halves_left<1>(c), Vector::shift_halves_left<2>(c));
    return Vector::xor3(Vector::shift_left<group_shift>(t), Vector::shift_halves_left<7>(c), product);
  }

 private:
  /* In the upper half nothing is left. */
  static constexpr uint64_t lower_by_1[2] = {1, 64};
  static constexpr uint64_t lower_by_2[2] = {2, 64};
  static constexpr uint64_t lower_by_7[2] = {7, 64};

  Vector one_, two_, seven_;
};

} // namespace
} // namespace qluks

#endif
