/* SPDX-License-Identifier: BSD-3-Clause */
#include "crypto/kdf/argon2_fill.hpp"

#include <bit>

namespace qluks {

namespace {

uint64_t add_with_product(uint64_t x, uint64_t y) noexcept { return x + y + 2 * (x & 0xffffffff) * (y & 0xffffffff); }

void mix(uint64_t& a, uint64_t& b, uint64_t& c, uint64_t& d) noexcept {
  a = add_with_product(a, b);
  d = std::rotr(d ^ a, 32);
  c = add_with_product(c, d);
  b = std::rotr(b ^ c, 24);
  a = add_with_product(a, b);
  d = std::rotr(d ^ a, 16);
  c = add_with_product(c, d);
  b = std::rotr(b ^ c, 63);
}

/* Word i of the sixteen is at first + (i / 2) * pair_step + i % 2. */
void permute(uint64_t* first, size_t pair_step) noexcept {
  const auto at = [&](size_t i) -> uint64_t& { return first[i / 2 * pair_step + i % 2]; };
  for (size_t i = 0; i < 4; ++i) mix(at(i), at(4 + i), at(8 + i), at(12 + i));
  for (size_t i = 0; i < 4; ++i) mix(at(i), at(4 + (i + 1) % 4), at(8 + (i + 2) % 4), at(12 + (i + 3) % 4));
}

} // namespace

void argon2_fill_portable(const Argon2Block& previous, const Argon2Block& reference, Argon2Block& out, bool onto,
                          Argon2Block& scratch) noexcept {
  for (size_t i = 0; i < 128; ++i) scratch.words[i] = previous.words[i] ^ reference.words[i];
  for (size_t row = 0; row < 8; ++row) permute(&scratch.words[row * Argon2Block::row_words], 2);
  for (size_t pair = 0; pair < 8; ++pair) permute(&scratch.words[2 * pair], Argon2Block::row_words);
  for (size_t i = 0; i < 128; ++i) {
    out.words[i] = scratch.words[i] ^ previous.words[i] ^ reference.words[i] ^ (onto ? out.words[i] : 0);
  }
}

Argon2Fill argon2_fill_for([[maybe_unused]] const CpuFeatures& cpu) noexcept {
#ifdef __x86_64__
  if (cpu.avx2) return argon2_fill_avx2;
#endif
  return argon2_fill_portable;
}

} // namespace qluks
