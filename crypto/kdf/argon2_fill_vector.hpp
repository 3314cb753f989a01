/* SPDX-License-Identifier: BSD-3-Clause */
/* G of Argon2 (RFC 9106, section 3.5) on vectors of four words and more: included by argon2_fill_avx*.cpp after it has
 * defined QLUKS_ISA and the class Vector.
 *
 * Two sets of rows, then two of pairs of columns at a time, so that one waits for its products while the other goes on.
 * A set is as many rows as a vector has fours of words:
 *
 *      a row             | a a a a | b b b b | c c c c | d d d d |
 *      pairs of columns  | p p q q … | of rows 0 to 7: two rows are one vector of P for the first half of them, and one
 *                                      for the second
 */
#ifndef QLUKS_CRYPTO_KDF_ARGON2_FILL_VECTOR_HPP
#define QLUKS_CRYPTO_KDF_ARGON2_FILL_VECTOR_HPP

#include "crypto/isa.hpp"
#include "crypto/kdf/argon2_fill.hpp"

#ifndef QLUKS_ISA
#error "a kernel names its instruction set and its Vector first"
#endif

namespace qluks {
namespace {

inline constexpr size_t row = Argon2Block::row_words;

/* A set of rows, or of pairs of columns. */
struct Quarters {
  Vector a, b, c, d;
};

QLUKS_STEP Vector add_with_product(Vector x, Vector y) noexcept {
  const Vector product = Vector::product(x, y);
  return Vector::add(Vector::add(x, y), Vector::add(product, product));
}

template <int d_bits, int b_bits>
QLUKS_STEP void mix_half(Quarters& x, Quarters& y) noexcept {
  x.a = add_with_product(x.a, x.b);
  y.a = add_with_product(y.a, y.b);
  x.d = Vector::rotate_right<d_bits>(x.d ^ x.a);
  y.d = Vector::rotate_right<d_bits>(y.d ^ y.a);
  x.c = add_with_product(x.c, x.d);
  y.c = add_with_product(y.c, y.d);
  x.b = Vector::rotate_right<b_bits>(x.b ^ x.c);
  y.b = Vector::rotate_right<b_bits>(y.b ^ y.c);
}

QLUKS_STEP void mix(Quarters& x, Quarters& y) noexcept {
  mix_half<32, 24>(x, y);
  mix_half<16, 63>(x, y);
}

/* Columns become diagonals, and back: each four words go round. */
template <int Words>
QLUKS_STEP void turn(Quarters& x) noexcept {
  x.b = Vector::turn_fours<Words>(x.b);
  x.c = Vector::turn_fours<2>(x.c);
  x.d = Vector::turn_fours<4 - Words>(x.d);
}

QLUKS_STEP void permute(Quarters& x, Quarters& y) noexcept {
  mix(x, y);
  turn<1>(x);
  turn<1>(y);
  mix(x, y);
  turn<3>(x);
  turn<3>(y);
}

QLUKS_STEP Vector input(const Argon2Block& previous, const Argon2Block& reference, size_t i) noexcept {
  return Vector::load(&previous.words[i]) ^ Vector::load(&reference.words[i]);
}

/* Two sets of pairs of columns, from the first of their words in a row on. */
QLUKS_STEP void permute_columns(const Argon2Block& previous, const Argon2Block& reference, Argon2Block& out, bool onto,
                                const Argon2Block& scratch, size_t column) noexcept {
  Vector rows[8];
  for (size_t r = 0; r < 8; ++r) rows[r] = Vector::load(&scratch.words[r * row + column]);
  Quarters x{Vector::first_pairs(rows[0], rows[1]), Vector::first_pairs(rows[2], rows[3]),
             Vector::first_pairs(rows[4], rows[5]), Vector::first_pairs(rows[6], rows[7])};
  Quarters y{Vector::second_pairs(rows[0], rows[1]), Vector::second_pairs(rows[2], rows[3]),
             Vector::second_pairs(rows[4], rows[5]), Vector::second_pairs(rows[6], rows[7])};
  permute(x, y);
  rows[0] = Vector::first_row(x.a, y.a), rows[1] = Vector::second_row(x.a, y.a);
  rows[2] = Vector::first_row(x.b, y.b), rows[3] = Vector::second_row(x.b, y.b);
  rows[4] = Vector::first_row(x.c, y.c), rows[5] = Vector::second_row(x.c, y.c);
  rows[6] = Vector::first_row(x.d, y.d), rows[7] = Vector::second_row(x.d, y.d);
  for (size_t r = 0; r < 8; ++r) {
    const size_t i = r * row + column;
    const Vector value = rows[r] ^ input(previous, reference, i);
    (onto ? value ^ Vector::load(&out.words[i]) : value).store(&out.words[i]);
  }
}

/* Four vectors of rows, from word `at` on. */
QLUKS_STEP Quarters load_rows(const Argon2Block& previous, const Argon2Block& reference, size_t at) noexcept {
  Vector v[4];
  for (size_t k = 0; k < 4; ++k) v[k] = input(previous, reference, at + k * Vector::words);
  Vector::rows_to_quarters(v);
  return {v[0], v[1], v[2], v[3]};
}

QLUKS_STEP void store_rows(const Quarters& x, uint64_t* words) noexcept {
  Vector v[4] = {x.a, x.b, x.c, x.d};
  Vector::quarters_to_rows(v);
  for (size_t k = 0; k < 4; ++k) v[k].store(words + k * Vector::words);
}

QLUKS_ISA void begin_fill(const Argon2Block& previous, const Argon2Block& reference, Argon2Block& out, bool onto,
                          Argon2Block& scratch) noexcept {
  constexpr size_t set = 4 * Vector::words;
  for (size_t at = 0; at < 128; at += 2 * set) {
    Quarters x = load_rows(previous, reference, at);
    Quarters y = load_rows(previous, reference, at + set);
    permute(x, y);
    store_rows(x, &scratch.words[at]);
    store_rows(y, &scratch.words[at + set]);
  }
  permute_columns(previous, reference, out, onto, scratch, 0);
}

QLUKS_ISA void finish_fill(const Argon2Block& previous, const Argon2Block& reference, Argon2Block& out, bool onto,
                           Argon2Block& scratch) noexcept {
  for (size_t column = Vector::words; column < row; column += Vector::words) {
    permute_columns(previous, reference, out, onto, scratch, column);
  }
}

} // namespace
} // namespace qluks

#endif
