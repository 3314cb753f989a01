/* SPDX-License-Identifier: BSD-3-Clause */
/* Argon2 on vectors of eight words, of which each four are a row of their own. */
#if defined(__GNUC__) && !defined(__clang__)
/* GCC 12's AVX-512 intrinsics use a variable that they leave undefined on purpose, and GCC warns of it (PR 105593). */
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "crypto/isa.hpp"
#include "crypto/kdf/argon2_fill.hpp"

#define QLUKS_ISA QLUKS_ISA_AVX512

namespace qluks {
namespace {

struct Vector {
  static constexpr size_t words = 8;

  __m512i v;

  QLUKS_STEP static Vector load(const uint64_t* p) noexcept { return {_mm512_load_si512(p)}; }
  QLUKS_STEP void store(uint64_t* p) const noexcept { _mm512_store_si512(p, v); }

  QLUKS_STEP friend Vector operator^(Vector x, Vector y) noexcept { return {_mm512_xor_si512(x.v, y.v)}; }
  QLUKS_STEP static Vector add(Vector x, Vector y) noexcept { return {_mm512_add_epi64(x.v, y.v)}; }
  /* Of the lower halves of words. */
  QLUKS_STEP static Vector product(Vector x, Vector y) noexcept { return {_mm512_mul_epu32(x.v, y.v)}; }

  template <int bits>
  QLUKS_STEP static Vector rotate_right(Vector x) noexcept {
    return {_mm512_ror_epi64(x.v, bits)};
  }

  /* The words of each four go down by so many places. */
  template <int places>
  QLUKS_STEP static Vector turn_fours(Vector x) noexcept {
    return {_mm512_permutex_epi64(x.v, _MM_SHUFFLE((3 + places) % 4, (2 + places) % 4, (1 + places) % 4, places))};
  }

  /* ab cd of one row and of the next: a of both, b of both, …; and back. */
  QLUKS_STEP static void rows_to_quarters(Vector (&v)[4]) noexcept {
    const Vector ab = v[0];
    const Vector cd = v[1];
    v[0] = lower_halves(ab, v[2]), v[1] = upper_halves(ab, v[2]);
    v[2] = lower_halves(cd, v[3]), v[3] = upper_halves(cd, v[3]);
  }
  QLUKS_STEP static void quarters_to_rows(Vector (&v)[4]) noexcept {
    const Vector a = v[0];
    const Vector c = v[2];
    v[0] = lower_halves(a, v[1]);
    v[2] = upper_halves(a, v[1]);
    v[1] = lower_halves(c, v[3]);
    v[3] = upper_halves(c, v[3]);
  }

  /* Of two rows p p q q s s t t: the words p and q of both, or s and t, and back. */
  QLUKS_STEP static Vector first_pairs(Vector x, Vector y) noexcept {
    return {_mm512_permutex2var_epi64(x.v, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), y.v)};
  }
  QLUKS_STEP static Vector second_pairs(Vector x, Vector y) noexcept {
    return {_mm512_permutex2var_epi64(x.v, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), y.v)};
  }
  QLUKS_STEP static Vector first_row(Vector x, Vector y) noexcept {
    return {_mm512_permutex2var_epi64(x.v, _mm512_setr_epi64(0, 1, 4, 5, 8, 9, 12, 13), y.v)};
  }
  QLUKS_STEP static Vector second_row(Vector x, Vector y) noexcept {
    return {_mm512_permutex2var_epi64(x.v, _mm512_setr_epi64(2, 3, 6, 7, 10, 11, 14, 15), y.v)};
  }

 private:
  QLUKS_STEP static Vector lower_halves(Vector x, Vector y) noexcept { return {_mm512_shuffle_i64x2(x.v, y.v, 0x44)}; }
  QLUKS_STEP static Vector upper_halves(Vector x, Vector y) noexcept { return {_mm512_shuffle_i64x2(x.v, y.v, 0xee)}; }
};

} // namespace
} // namespace qluks

#include "crypto/kdf/argon2_fill_vector.hpp"

namespace qluks {

void argon2_begin_avx512(const Argon2Block& previous, const Argon2Block& reference, Argon2Block& out, bool onto,
                         Argon2Block& scratch) noexcept {
  begin_fill(previous, reference, out, onto, scratch);
}
void argon2_finish_avx512(const Argon2Block& previous, const Argon2Block& reference, Argon2Block& out, bool onto,
                          Argon2Block& scratch) noexcept {
  finish_fill(previous, reference, out, onto, scratch);
}

} // namespace qluks
