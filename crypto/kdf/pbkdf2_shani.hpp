/* SPDX-License-Identifier: BSD-3-Clause */
/* The iterations of PBKDF2-HMAC-SHA256 and PBKDF2-HMAC-SHA1 on CPUs with SHA instructions. */
#ifndef QLUKS_CRYPTO_KDF_PBKDF2_SHANI_HPP
#define QLUKS_CRYPTO_KDF_PBKDF2_SHANI_HPP

#include <cstddef>
#include <cstdint>
#include <span>

namespace qluks {

/* A hash of N words as its standard numbers them, in the byte order of the CPU. */
template <size_t N>
struct HashWords {
  uint32_t word[N];
};

/* HMAC's hash states after the block of the key. */
template <size_t N>
struct HmacMidstates {
  HashWords<N> inner, outer;
};

/* One output block on its way. */
template <size_t N>
struct HmacChain {
  HashWords<N> u;   /* the last HMAC */
  HashWords<N> sum; /* all of them so far, combined by exclusive or */
};

inline constexpr size_t sha1_words = 5;
inline constexpr size_t sha256_words = 8;

/* `iterations` more steps of one chain, or of two in the same time. */
void iterate_shani(const HmacMidstates<sha1_words>& hmac, std::span<HmacChain<sha1_words>> chains,
                   uint32_t iterations) noexcept;
void iterate_shani(const HmacMidstates<sha256_words>& hmac, std::span<HmacChain<sha256_words>> chains,
                   uint32_t iterations) noexcept;

} // namespace qluks

#endif
