/* SPDX-License-Identifier: BSD-3-Clause */
/* Four rows, then four pairs of columns at a time, in two sets, so that one waits for its products while the other goes
 * on.
 *
 *      rows r and r + 1     | a a a a, a a a a | b b b b, b b b b | c … | d … |       a vector each
 *      columns 8k … +7      | p p q q s s t t | of rows 0 to 7: two rows are one vector of P for p and q, and one for
 *                                               s and t
 */
#include <immintrin.h>

#include "crypto/isa.hpp"
#include "crypto/kdf/argon2_fill.hpp"

#define QLUKS_ISA QLUKS_ISA_AVX512

#if defined(__GNUC__) && !defined(__clang__)
/* GCC 12's AVX-512 intrinsics use a variable that they leave undefined on purpose, and GCC warns of it (PR 105593). */
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace qluks {

namespace {

/* Two rows, or two pairs of columns, in the halves of each vector. */
struct Quarters {
  __m512i a, b, c, d;
};

QLUKS_STEP __m512i load(const uint64_t* words) noexcept { return _mm512_load_si512(words); }
QLUKS_STEP void store(uint64_t* words, __m512i value) noexcept { _mm512_store_si512(words, value); }

QLUKS_STEP __m512i add_with_product(__m512i x, __m512i y) noexcept {
  const __m512i product = _mm512_mul_epu32(x, y);
  return _mm512_add_epi64(_mm512_add_epi64(x, y), _mm512_add_epi64(product, product));
}

template <int d_bits, int b_bits>
QLUKS_STEP void mix_half(Quarters& x, Quarters& y) noexcept {
  x.a = add_with_product(x.a, x.b);
  y.a = add_with_product(y.a, y.b);
  x.d = _mm512_ror_epi64(_mm512_xor_si512(x.d, x.a), d_bits);
  y.d = _mm512_ror_epi64(_mm512_xor_si512(y.d, y.a), d_bits);
  x.c = add_with_product(x.c, x.d);
  y.c = add_with_product(y.c, y.d);
  x.b = _mm512_ror_epi64(_mm512_xor_si512(x.b, x.c), b_bits);
  y.b = _mm512_ror_epi64(_mm512_xor_si512(y.b, y.c), b_bits);
}

QLUKS_STEP void mix(Quarters& x, Quarters& y) noexcept {
  mix_half<32, 24>(x, y);
  mix_half<16, 63>(x, y);
}

/* Columns become diagonals, and back. */
QLUKS_STEP void to_diagonals(Quarters& x) noexcept {
  x.b = _mm512_permutex_epi64(x.b, _MM_SHUFFLE(0, 3, 2, 1));
  x.c = _mm512_permutex_epi64(x.c, _MM_SHUFFLE(1, 0, 3, 2));
  x.d = _mm512_permutex_epi64(x.d, _MM_SHUFFLE(2, 1, 0, 3));
}
QLUKS_STEP void to_columns(Quarters& x) noexcept {
  x.b = _mm512_permutex_epi64(x.b, _MM_SHUFFLE(2, 1, 0, 3));
  x.c = _mm512_permutex_epi64(x.c, _MM_SHUFFLE(1, 0, 3, 2));
  x.d = _mm512_permutex_epi64(x.d, _MM_SHUFFLE(0, 3, 2, 1));
}

QLUKS_STEP void permute(Quarters& x, Quarters& y) noexcept {
  mix(x, y);
  to_diagonals(x);
  to_diagonals(y);
  mix(x, y);
  to_columns(x);
  to_columns(y);
}

QLUKS_STEP __m512i first_halves(__m512i x, __m512i y) noexcept { return _mm512_shuffle_i64x2(x, y, 0x44); }
QLUKS_STEP __m512i second_halves(__m512i x, __m512i y) noexcept { return _mm512_shuffle_i64x2(x, y, 0xee); }

/* p and q of both rows, alternately, and back: a vector is p0 p1, q0 q1 then. */
QLUKS_STEP __m512i first_pairs(__m512i x, __m512i y) noexcept {
  return _mm512_permutex2var_epi64(x, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), y);
}
QLUKS_STEP __m512i second_pairs(__m512i x, __m512i y) noexcept {
  return _mm512_permutex2var_epi64(x, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), y);
}
QLUKS_STEP __m512i first_row(__m512i x, __m512i y) noexcept {
  return _mm512_permutex2var_epi64(x, _mm512_setr_epi64(0, 1, 4, 5, 8, 9, 12, 13), y);
}
QLUKS_STEP __m512i second_row(__m512i x, __m512i y) noexcept {
  return _mm512_permutex2var_epi64(x, _mm512_setr_epi64(2, 3, 6, 7, 10, 11, 14, 15), y);
}

QLUKS_STEP __m512i input(const Argon2Block& previous, const Argon2Block& reference, size_t i) noexcept {
  return _mm512_xor_si512(load(&previous.words[i]), load(&reference.words[i]));
}

/* Two rows from word `at` on. */
QLUKS_STEP Quarters load_rows(const Argon2Block& previous, const Argon2Block& reference, size_t at) noexcept {
  const __m512i ab = input(previous, reference, at), cd = input(previous, reference, at + 8);
  const __m512i AB = input(previous, reference, at + 16), CD = input(previous, reference, at + 24);
  return {first_halves(ab, AB), second_halves(ab, AB), first_halves(cd, CD), second_halves(cd, CD)};
}

QLUKS_STEP void store_rows(uint64_t* words, const Quarters& x) noexcept {
  store(words, first_halves(x.a, x.b)), store(words + 8, first_halves(x.c, x.d));
  store(words + 16, second_halves(x.a, x.b)), store(words + 24, second_halves(x.c, x.d));
}

/* Four pairs of columns, from the first of their eight on. */
QLUKS_STEP void permute_columns(const Argon2Block& previous, const Argon2Block& reference, Argon2Block& out, bool onto,
                                const Argon2Block& scratch, size_t column) noexcept {
  constexpr size_t row = Argon2Block::row_words;
  __m512i rows[8];
  for (size_t r = 0; r < 8; ++r) rows[r] = load(&scratch.words[r * row + column]);
  Quarters x{first_pairs(rows[0], rows[1]), first_pairs(rows[2], rows[3]), first_pairs(rows[4], rows[5]),
             first_pairs(rows[6], rows[7])};
  Quarters y{second_pairs(rows[0], rows[1]), second_pairs(rows[2], rows[3]), second_pairs(rows[4], rows[5]),
             second_pairs(rows[6], rows[7])};
  permute(x, y);
  rows[0] = first_row(x.a, y.a), rows[1] = second_row(x.a, y.a);
  rows[2] = first_row(x.b, y.b), rows[3] = second_row(x.b, y.b);
  rows[4] = first_row(x.c, y.c), rows[5] = second_row(x.c, y.c);
  rows[6] = first_row(x.d, y.d), rows[7] = second_row(x.d, y.d);
  for (size_t r = 0; r < 8; ++r) {
    const size_t i = r * row + column;
    __m512i value = _mm512_xor_si512(rows[r], input(previous, reference, i));
    if (onto) value = _mm512_xor_si512(value, load(&out.words[i]));
    store(&out.words[i], value);
  }
}

} // namespace

QLUKS_ISA void argon2_begin_avx512(const Argon2Block& previous, const Argon2Block& reference, Argon2Block& out,
                                   bool onto, Argon2Block& scratch) noexcept {
  constexpr size_t row = Argon2Block::row_words;
  for (size_t at = 0; at < 128; at += 4 * row) {
    Quarters x = load_rows(previous, reference, at);
    Quarters y = load_rows(previous, reference, at + 2 * row);
    permute(x, y);
    store_rows(&scratch.words[at], x);
    store_rows(&scratch.words[at + 2 * row], y);
  }
  permute_columns(previous, reference, out, onto, scratch, 0);
}

QLUKS_ISA void argon2_finish_avx512(const Argon2Block& previous, const Argon2Block& reference, Argon2Block& out,
                                    bool onto, Argon2Block& scratch) noexcept {
  permute_columns(previous, reference, out, onto, scratch, 8);
}

} // namespace qluks
