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

/* `out` may be `reference`.  What is computed on the way is in `scratch` alone, where it is not in registers. */
using Argon2Fill = void (*)(const Argon2Block& previous, const Argon2Block& reference, Argon2Block& out, bool onto,
                            Argon2Block& scratch) noexcept;

void argon2_fill_portable(const Argon2Block& previous, const Argon2Block& reference, Argon2Block& out, bool onto,
                          Argon2Block& scratch) noexcept;
#ifdef __x86_64__
void argon2_fill_avx2(const Argon2Block& previous, const Argon2Block& reference, Argon2Block& out, bool onto,
                      Argon2Block& scratch) noexcept;
#endif

/* The fastest of these on that CPU. */
Argon2Fill argon2_fill_for(const CpuFeatures& cpu) noexcept;

} // namespace qluks

#endif
