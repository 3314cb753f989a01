/* SPDX-License-Identifier: BSD-3-Clause */
/* The iterations of PBKDF2-HMAC-SHA256 on CPUs with SHA instructions. */
#ifndef QLUKS_CRYPTO_KDF_PBKDF2_SHANI_HPP
#define QLUKS_CRYPTO_KDF_PBKDF2_SHANI_HPP

#include <cstddef>
#include <cstdint>
#include <span>

namespace qluks {

/* Words as SHA-256 numbers them, in the byte order of the CPU. */
struct Sha256Words {
  uint32_t word[8];
};

/* HMAC's hash states after the block of the key. */
struct HmacSha256Midstates {
  Sha256Words inner, outer;
};

/* One output block on its way. */
struct Sha256Chain {
  Sha256Words u;   /* the last HMAC */
  Sha256Words sum; /* all of them so far, combined by exclusive or */
};

/* `iterations` more steps of one chain, or of two in the same time. */
void iterate_shani(const HmacSha256Midstates& hmac, std::span<Sha256Chain> chains, uint32_t iterations) noexcept;

} // namespace qluks

#endif
