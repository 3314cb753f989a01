/* SPDX-License-Identifier: BSD-3-Clause */
/* The compression function G of Argon2 (RFC 9106, section 3.5), in which all of its time goes:
 *
 *      out = P(previous ^ reference) ^ previous ^ reference      (^ out, from the second pass on)
 *
 *      a block:   8 rows of 16 words        P: the permutation of BLAKE2b with a product, over each row,
 *                 |  .  .  .  …  .  |          then over each pair of columns
 *                 |  .  .  .  …  .  |
 */
#ifndef QLUKS_CRYPTO_KDF_ARGON2_FILL_HPP
#define QLUKS_CRYPTO_KDF_ARGON2_FILL_HPP

#include <cstddef>
#include <cstdint>

#include "crypto/cpu.hpp"

namespace qluks {

struct alignas(64) Argon2Block {
  static constexpr size_t row_words = 16;
  uint64_t words[128];
};

/* `out` may be `reference`.  What is computed on the way is in `scratch` alone, where it is not in registers.
 *
 * In two parts, since the first word of `out` may say which block is the next reference: while the second part is
 * computed, that block can come from memory. */
struct Argon2Fill {
  using Part = void(const Argon2Block& previous, const Argon2Block& reference, Argon2Block& out, bool onto,
                    Argon2Block& scratch) noexcept;

  Part* begin;  /* the rows and the first columns, word 0 of `out` among them */
  Part* finish; /* the other columns */

  void operator()(const Argon2Block& previous, const Argon2Block& reference, Argon2Block& out, bool onto,
                  Argon2Block& scratch) const noexcept {
    begin(previous, reference, out, onto, scratch);
    finish(previous, reference, out, onto, scratch);
  }
};

#ifdef __x86_64__
Argon2Fill::Part argon2_begin_avx2, argon2_finish_avx2;
Argon2Fill::Part argon2_begin_avx512, argon2_finish_avx512;
#endif

/* For any CPU. */
Argon2Fill argon2_fill_portable() noexcept;

/* The fastest of these on that CPU. */
Argon2Fill argon2_fill_for(const CpuFeatures& cpu) noexcept;

} // namespace qluks

#endif
