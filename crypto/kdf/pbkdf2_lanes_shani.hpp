/* SPDX-License-Identifier: BSD-3-Clause */
/* PBKDF2 by SHA-NI, for any hash that has instructions: included by pbkdf2_sha*_shani.cpp after it has defined
 * QLUKS_ISA.
 *
 * A unit that takes several cycles for some rounds could start others meanwhile, so that the output blocks of a long
 * key, which do not depend on each other, are done two at a time.  One is half a hash ahead of the other: while this
 * one ends a hash and begins another, which is no work for the unit, the other one keeps it busy.
 *
 * SHA instructions have no VEX form.  In a function that leaves the upper halves of ymm registers dirty each of them
 * pays a microcode assist, a hundredfold loss.  So these files have no vector of more than 128 bits and are not
 * compiled for AVX.
 *
 * A class Lane is one chain of hashes:
 *
 *      words, quads_per_hash      of the hash; four rounds are a quad
 *      State                      of a hash, and load_state() makes one from words
 *      load(chain), store(chain)
 *      advance(inner, outer, quad)
 *              the quad-th part of an iteration: U becomes the hash from `inner`, that the hash from `outer`, and the
 *              sum grows
 */
#ifndef QLUKS_CRYPTO_KDF_PBKDF2_LANES_SHANI_HPP
#define QLUKS_CRYPTO_KDF_PBKDF2_LANES_SHANI_HPP

#include "crypto/isa.hpp"
#include "crypto/kdf/pbkdf2_shani.hpp"

#ifndef QLUKS_ISA
#error "a hash names its instruction set first"
#endif

namespace qluks {
namespace {

template <class Lane, size_t Lanes>
QLUKS_ISA void iterate_lanes(const HmacMidstates<Lane::words>& hmac, HmacChain<Lane::words>* chains,
                             uint32_t iterations) noexcept {
  constexpr size_t quads = 2 * Lane::quads_per_hash;
  constexpr size_t lead = Lane::quads_per_hash / 2;
  const typename Lane::State inner = Lane::load_state(hmac.inner);
  const typename Lane::State outer = Lane::load_state(hmac.outer);
  Lane lanes[Lanes];
  for (size_t l = 0; l < Lanes; ++l) lanes[l].load(chains[l]);
#pragma GCC unroll 16
  for (size_t quad = 0; Lanes == 2 && quad < lead; ++quad) lanes[Lanes - 1].advance(inner, outer, quad);
  for (uint32_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 64
    for (size_t quad = 0; quad < quads; ++quad) {
      lanes[0].advance(inner, outer, quad);
      if constexpr (Lanes == 2) lanes[1].advance(inner, outer, (quad + lead) % quads);
    }
  }
  for (size_t l = 0; l < Lanes; ++l) lanes[l].store(chains[l]);
}

template <class Lane>
void iterate_chains(const HmacMidstates<Lane::words>& hmac, std::span<HmacChain<Lane::words>> chains,
                    uint32_t iterations) noexcept {
  if (chains.size() == 2) return iterate_lanes<Lane, 2>(hmac, chains.data(), iterations);
  iterate_lanes<Lane, 1>(hmac, chains.data(), iterations);
}

} // namespace
} // namespace qluks

#endif
