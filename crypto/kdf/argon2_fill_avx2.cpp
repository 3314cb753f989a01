/* SPDX-License-Identifier: BSD-3-Clause */
/* Two rows, then two pairs of columns at a time, so that one waits for its products while the other goes on.
 *
 *      row r            | a a a a | b b b b | c c c c | d d d d |     a vector each
 *      columns 4k … +3  | p p q q | of rows 0 to 7: the halves of two rows are one vector of P for p, and one for q
 */
#include <immintrin.h>

#include "crypto/isa.hpp"
#include "crypto/kdf/argon2_fill.hpp"

#define QLUKS_ISA QLUKS_ISA_AVX2

namespace qluks {

namespace {

struct Quarters {
  __m256i a, b, c, d;
};

QLUKS_STEP __m256i load(const uint64_t* words) noexcept {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(words));
}
QLUKS_STEP void store(uint64_t* words, __m256i value) noexcept {
  _mm256_store_si256(reinterpret_cast<__m256i*>(words), value);
}

QLUKS_STEP __m256i add_with_product(__m256i x, __m256i y) noexcept {
  const __m256i product = _mm256_mul_epu32(x, y);
  return _mm256_add_epi64(_mm256_add_epi64(x, y), _mm256_add_epi64(product, product));
}

/* To the right. */
template <int bits>
QLUKS_STEP __m256i rotate(__m256i x) noexcept {
  if constexpr (bits == 32) return _mm256_shuffle_epi32(x, _MM_SHUFFLE(2, 3, 0, 1));
  if constexpr (bits == 24) {
    const __m256i bytes = _mm256_setr_epi8(3, 4, 5, 6, 7, 0, 1, 2, 11, 12, 13, 14, 15, 8, 9, 10, 3, 4, 5, 6, 7, 0, 1, 2,
                                           11, 12, 13, 14, 15, 8, 9, 10);
    return _mm256_shuffle_epi8(x, bytes);
  }
  if constexpr (bits == 16) {
    const __m256i bytes = _mm256_setr_epi8(2, 3, 4, 5, 6, 7, 0, 1, 10, 11, 12, 13, 14, 15, 8, 9, 2, 3, 4, 5, 6, 7, 0, 1,
                                           10, 11, 12, 13, 14, 15, 8, 9);
    return _mm256_shuffle_epi8(x, bytes);
  }
  if constexpr (bits == 63) return _mm256_xor_si256(_mm256_srli_epi64(x, 63), _mm256_add_epi64(x, x));
}

template <int d_bits, int b_bits>
QLUKS_STEP void mix_half(Quarters& x, Quarters& y) noexcept {
  x.a = add_with_product(x.a, x.b);
  y.a = add_with_product(y.a, y.b);
  x.d = rotate<d_bits>(_mm256_xor_si256(x.d, x.a));
  y.d = rotate<d_bits>(_mm256_xor_si256(y.d, y.a));
  x.c = add_with_product(x.c, x.d);
  y.c = add_with_product(y.c, y.d);
  x.b = rotate<b_bits>(_mm256_xor_si256(x.b, x.c));
  y.b = rotate<b_bits>(_mm256_xor_si256(y.b, y.c));
}

QLUKS_STEP void mix(Quarters& x, Quarters& y) noexcept {
  mix_half<32, 24>(x, y);
  mix_half<16, 63>(x, y);
}

/* Columns become diagonals, and back. */
QLUKS_STEP void to_diagonals(Quarters& x) noexcept {
  x.b = _mm256_permute4x64_epi64(x.b, _MM_SHUFFLE(0, 3, 2, 1));
  x.c = _mm256_permute4x64_epi64(x.c, _MM_SHUFFLE(1, 0, 3, 2));
  x.d = _mm256_permute4x64_epi64(x.d, _MM_SHUFFLE(2, 1, 0, 3));
}
QLUKS_STEP void to_columns(Quarters& x) noexcept {
  x.b = _mm256_permute4x64_epi64(x.b, _MM_SHUFFLE(2, 1, 0, 3));
  x.c = _mm256_permute4x64_epi64(x.c, _MM_SHUFFLE(1, 0, 3, 2));
  x.d = _mm256_permute4x64_epi64(x.d, _MM_SHUFFLE(0, 3, 2, 1));
}

QLUKS_STEP void permute(Quarters& x, Quarters& y) noexcept {
  mix(x, y);
  to_diagonals(x);
  to_diagonals(y);
  mix(x, y);
  to_columns(x);
  to_columns(y);
}

QLUKS_STEP __m256i first_halves(__m256i x, __m256i y) noexcept { return _mm256_permute2x128_si256(x, y, 0x20); }
QLUKS_STEP __m256i second_halves(__m256i x, __m256i y) noexcept { return _mm256_permute2x128_si256(x, y, 0x31); }

QLUKS_STEP __m256i input(const Argon2Block& previous, const Argon2Block& reference, size_t i) noexcept {
  return _mm256_xor_si256(load(&previous.words[i]), load(&reference.words[i]));
}

/* Two pairs of columns, from the first of their four on. */
QLUKS_STEP void permute_columns(const Argon2Block& previous, const Argon2Block& reference, Argon2Block& out, bool onto,
                                const Argon2Block& scratch, size_t column) noexcept {
  constexpr size_t row = Argon2Block::row_words;
  __m256i rows[8];
  for (size_t r = 0; r < 8; ++r) rows[r] = load(&scratch.words[r * row + column]);
  Quarters x{first_halves(rows[0], rows[1]), first_halves(rows[2], rows[3]), first_halves(rows[4], rows[5]),
             first_halves(rows[6], rows[7])};
  Quarters y{second_halves(rows[0], rows[1]), second_halves(rows[2], rows[3]), second_halves(rows[4], rows[5]),
             second_halves(rows[6], rows[7])};
  permute(x, y);
  rows[0] = first_halves(x.a, y.a), rows[1] = second_halves(x.a, y.a);
  rows[2] = first_halves(x.b, y.b), rows[3] = second_halves(x.b, y.b);
  rows[4] = first_halves(x.c, y.c), rows[5] = second_halves(x.c, y.c);
  rows[6] = first_halves(x.d, y.d), rows[7] = second_halves(x.d, y.d);
  for (size_t r = 0; r < 8; ++r) {
    const size_t i = r * row + column;
    __m256i value = _mm256_xor_si256(rows[r], input(previous, reference, i));
    if (onto) value = _mm256_xor_si256(value, load(&out.words[i]));
    store(&out.words[i], value);
  }
}

} // namespace

QLUKS_ISA void argon2_begin_avx2(const Argon2Block& previous, const Argon2Block& reference, Argon2Block& out, bool onto,
                                 Argon2Block& scratch) noexcept {
  constexpr size_t row = Argon2Block::row_words;
  const auto in = [&](size_t i) QLUKS_ISA { return input(previous, reference, i); };
  for (size_t at = 0; at < 128; at += 2 * row) {
    Quarters x{in(at), in(at + 4), in(at + 8), in(at + 12)};
    Quarters y{in(at + row), in(at + row + 4), in(at + row + 8), in(at + row + 12)};
    permute(x, y);
    uint64_t* to = &scratch.words[at];
    store(to, x.a), store(to + 4, x.b), store(to + 8, x.c), store(to + 12, x.d);
    to += row;
    store(to, y.a), store(to + 4, y.b), store(to + 8, y.c), store(to + 12, y.d);
  }
  permute_columns(previous, reference, out, onto, scratch, 0);
}

QLUKS_ISA void argon2_finish_avx2(const Argon2Block& previous, const Argon2Block& reference, Argon2Block& out,
                                  bool onto, Argon2Block& scratch) noexcept {
  for (size_t column = 4; column < Argon2Block::row_words; column += 4) {
    permute_columns(previous, reference, out, onto, scratch, column);
  }
}

} // namespace qluks
