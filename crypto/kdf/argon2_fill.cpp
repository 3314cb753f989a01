/* SPDX-License-Identifier: BSD-3-Clause */
/* Two words at a time, in vectors as each 64-bit machine has them: SSE2, NEON, or what the compiler makes of them.
 *
 *      a row, or a pair of columns | a a | a a | b b | b b | c c | c c | d d | d d |      a vector each
 */
#include "crypto/kdf/argon2_fill.hpp"

#include <bit>

#ifdef __SSE2__
#include <emmintrin.h>
#endif
#ifdef __ARM_NEON
#include <arm_neon.h>
#endif

namespace qluks {

namespace {

using Pair = uint64_t __attribute__((vector_size(16)));

Pair load(const uint64_t* words) noexcept { return *reinterpret_cast<const Pair*>(words); }
void store(uint64_t* words, Pair value) noexcept { *reinterpret_cast<Pair*>(words) = value; }

/* Of the lower halves of both words. */
Pair product(Pair x, Pair y) noexcept {
#if defined(__SSE2__)
  return reinterpret_cast<Pair>(_mm_mul_epu32(reinterpret_cast<__m128i>(x), reinterpret_cast<__m128i>(y)));
#elif defined(__ARM_NEON)
  return reinterpret_cast<Pair>(
      vmull_u32(vmovn_u64(reinterpret_cast<uint64x2_t>(x)), vmovn_u64(reinterpret_cast<uint64x2_t>(y))));
#else
  return (x & 0xffffffff) * (y & 0xffffffff);
#endif
}

Pair add_with_product(Pair x, Pair y) noexcept {
  const Pair twice = product(x, y);
  return x + y + twice + twice;
}

/* To the right: by halves and quarters of a word as moves, else by shifts. */
template <int bits>
Pair rotate(Pair x) noexcept {
  using Halves = uint32_t __attribute__((vector_size(16)));
  using Fourths = uint16_t __attribute__((vector_size(16)));
  if constexpr (bits == 32) {
    const auto halves = reinterpret_cast<Halves>(x);
    return reinterpret_cast<Pair>(Halves{halves[1], halves[0], halves[3], halves[2]});
  } else if constexpr (bits == 16 && std::endian::native == std::endian::little) {
    const auto f = reinterpret_cast<Fourths>(x);
    return reinterpret_cast<Pair>(Fourths{f[1], f[2], f[3], f[0], f[5], f[6], f[7], f[4]});
  } else {
    return (x >> bits) | (x << (64 - bits));
  }
}

/* The upper word of `x`, then the lower one of `y`. */
Pair across(Pair x, Pair y) noexcept { return Pair{x[1], y[0]}; }

struct Quarters {
  Pair a[2], b[2], c[2], d[2];
};

template <int d_bits, int b_bits>
[[gnu::always_inline]] inline void mix_half(Quarters& x) noexcept {
  for (int i = 0; i < 2; ++i) x.a[i] = add_with_product(x.a[i], x.b[i]);
  for (int i = 0; i < 2; ++i) x.d[i] = rotate<d_bits>(x.d[i] ^ x.a[i]);
  for (int i = 0; i < 2; ++i) x.c[i] = add_with_product(x.c[i], x.d[i]);
  for (int i = 0; i < 2; ++i) x.b[i] = rotate<b_bits>(x.b[i] ^ x.c[i]);
}

[[gnu::always_inline]] inline void mix(Quarters& x) noexcept {
  mix_half<32, 24>(x);
  mix_half<16, 63>(x);
}

/* Over the columns of the sixteen words, then over their diagonals. */
[[gnu::always_inline]] inline void permute(Quarters& x) noexcept {
  mix(x);
  Quarters y{{x.a[0], x.a[1]},
             {across(x.b[0], x.b[1]), across(x.b[1], x.b[0])},
             {x.c[1], x.c[0]},
             {across(x.d[1], x.d[0]), across(x.d[0], x.d[1])}};
  mix(y);
  x = {{y.a[0], y.a[1]},
       {across(y.b[1], y.b[0]), across(y.b[0], y.b[1])},
       {y.c[1], y.c[0]},
       {across(y.d[0], y.d[1]), across(y.d[1], y.d[0])}};
}

/* The columns `first` to `last`. */
void permute_columns(const Argon2Block& previous, const Argon2Block& reference, Argon2Block& out, bool onto,
                     const Argon2Block& scratch, size_t first, size_t last) noexcept {
  constexpr size_t row = Argon2Block::row_words;
  for (size_t column = first; column <= last; column += 2) {
    const auto of_row = [&](size_t r) { return load(&scratch.words[r * row + column]); };
    Quarters x{{of_row(0), of_row(1)}, {of_row(2), of_row(3)}, {of_row(4), of_row(5)}, {of_row(6), of_row(7)}};
    permute(x);
    const Pair rows[8] = {x.a[0], x.a[1], x.b[0], x.b[1], x.c[0], x.c[1], x.d[0], x.d[1]};
    for (size_t r = 0; r < 8; ++r) {
      const size_t i = r * row + column;
      const Pair value = rows[r] ^ load(&previous.words[i]) ^ load(&reference.words[i]);
      store(&out.words[i], onto ? value ^ load(&out.words[i]) : value);
    }
  }
}

void begin_portable(const Argon2Block& previous, const Argon2Block& reference, Argon2Block& out, bool onto,
                    Argon2Block& scratch) noexcept {
  constexpr size_t row = Argon2Block::row_words;
  const auto input = [&](size_t i) { return load(&previous.words[i]) ^ load(&reference.words[i]); };
  for (size_t at = 0; at < 128; at += row) {
    Quarters x{{input(at), input(at + 2)},
               {input(at + 4), input(at + 6)},
               {input(at + 8), input(at + 10)},
               {input(at + 12), input(at + 14)}};
    permute(x);
    uint64_t* to = &scratch.words[at];
    store(to, x.a[0]), store(to + 2, x.a[1]), store(to + 4, x.b[0]), store(to + 6, x.b[1]);
    store(to + 8, x.c[0]), store(to + 10, x.c[1]), store(to + 12, x.d[0]), store(to + 14, x.d[1]);
  }
  permute_columns(previous, reference, out, onto, scratch, 0, 1);
}

void finish_portable(const Argon2Block& previous, const Argon2Block& reference, Argon2Block& out, bool onto,
                     Argon2Block& scratch) noexcept {
  permute_columns(previous, reference, out, onto, scratch, 2, 15);
}

} // namespace

Argon2Fill argon2_fill_portable() noexcept { return {begin_portable, finish_portable}; }

Argon2Fill argon2_fill_for([[maybe_unused]] const CpuFeatures& cpu) noexcept {
#ifdef __x86_64__
  if (cpu.avx512 && !cpu.slow_zmm) return {argon2_begin_avx512, argon2_finish_avx512};
  if (cpu.avx2) return {argon2_begin_avx2, argon2_finish_avx2};
#endif
  return argon2_fill_portable();
}

} // namespace qluks
