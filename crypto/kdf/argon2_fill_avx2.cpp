/* SPDX-License-Identifier: BSD-3-Clause */
/* Argon2 on vectors of four words. */
#include <immintrin.h>

#include "crypto/isa.hpp"
#include "crypto/kdf/argon2_fill.hpp"

#define QLUKS_ISA QLUKS_ISA_AVX2

namespace qluks {
namespace {

struct Vector {
  static constexpr size_t words = 4;

  __m256i v;

  QLUKS_STEP static Vector load(const uint64_t* p) noexcept {
    return {_mm256_load_si256(reinterpret_cast<const __m256i*>(p))};
  }
  QLUKS_STEP void store(uint64_t* p) const noexcept { _mm256_store_si256(reinterpret_cast<__m256i*>(p), v); }

  QLUKS_STEP friend Vector operator^(Vector x, Vector y) noexcept { return {_mm256_xor_si256(x.v, y.v)}; }
  QLUKS_STEP static Vector add(Vector x, Vector y) noexcept { return {_mm256_add_epi64(x.v, y.v)}; }
  /* Of the lower halves of words. */
  QLUKS_STEP static Vector product(Vector x, Vector y) noexcept { return {_mm256_mul_epu32(x.v, y.v)}; }

  /* Each word: by bytes where that is possible. */
  template <int bits>
  QLUKS_STEP static Vector rotate_right(Vector x) noexcept {
    if constexpr (bits == 32) return {_mm256_shuffle_epi32(x.v, _MM_SHUFFLE(2, 3, 0, 1))};
    if constexpr (bits == 24) {
      const __m256i bytes = _mm256_setr_epi8(3, 4, 5, 6, 7, 0, 1, 2, 11, 12, 13, 14, 15, 8, 9, 10, 3, 4, 5, 6, 7, 0, 1,
                                             2, 11, 12, 13, 14, 15, 8, 9, 10);
      return {_mm256_shuffle_epi8(x.v, bytes)};
    }
    if constexpr (bits == 16) {
      const __m256i bytes = _mm256_setr_epi8(2, 3, 4, 5, 6, 7, 0, 1, 10, 11, 12, 13, 14, 15, 8, 9, 2, 3, 4, 5, 6, 7, 0,
                                             1, 10, 11, 12, 13, 14, 15, 8, 9);
      return {_mm256_shuffle_epi8(x.v, bytes)};
    }
    if constexpr (bits == 63) return {_mm256_xor_si256(_mm256_srli_epi64(x.v, 63), _mm256_add_epi64(x.v, x.v))};
  }

  /* The words of each four go down by so many places. */
  template <int places>
  QLUKS_STEP static Vector turn_fours(Vector x) noexcept {
    return {_mm256_permute4x64_epi64(x.v, _MM_SHUFFLE((3 + places) % 4, (2 + places) % 4, (1 + places) % 4, places))};
  }

  QLUKS_STEP static void rows_to_quarters(Vector (&)[4]) noexcept {}
  QLUKS_STEP static void quarters_to_rows(Vector (&)[4]) noexcept {}

  /* Of two rows p p q q: the words p of both, or q, and back. */
  QLUKS_STEP static Vector first_pairs(Vector x, Vector y) noexcept {
    return {_mm256_permute2x128_si256(x.v, y.v, 0x20)};
  }
  QLUKS_STEP static Vector second_pairs(Vector x, Vector y) noexcept {
    return {_mm256_permute2x128_si256(x.v, y.v, 0x31)};
  }
  QLUKS_STEP static Vector first_row(Vector x, Vector y) noexcept { return first_pairs(x, y); }
  QLUKS_STEP static Vector second_row(Vector x, Vector y) noexcept { return second_pairs(x, y); }
};

} // namespace
} // namespace qluks

#include "crypto/kdf/argon2_fill_vector.hpp"

namespace qluks {

void argon2_begin_avx2(const Argon2Block& previous, const Argon2Block& reference, Argon2Block& out, bool onto,
                       Argon2Block& scratch) noexcept {
  begin_fill(previous, reference, out, onto, scratch);
}
void argon2_finish_avx2(const Argon2Block& previous, const Argon2Block& reference, Argon2Block& out, bool onto,
                        Argon2Block& scratch) noexcept {
  finish_fill(previous, reference, out, onto, scratch);
}

} // namespace qluks
