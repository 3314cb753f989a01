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
 * A class Hash is one hash on its way:
 *
 *      words, quads               of the hash; four rounds are a quad
 *      Words, State               the words in registers, and a state as the instructions take it
 *      load(), store(), to_state(), combine()      of Words; to combine is exclusive or
 *      begin(start, message)      the only block of a message of Words
 *      advance(start, i)          the i-th quad
 *      end(start)                 its Words
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

/* One chain of HMACs. */
template <class Hash>
class Lane {
 public:
  QLUKS_STEP void load(const HmacChain<Hash::words>& chain) noexcept {
    message_ = Hash::load(chain.u);
    sum_ = Hash::load(chain.sum);
  }
  QLUKS_STEP void store(HmacChain<Hash::words>& chain) const noexcept {
    Hash::store(chain.u, message_);
    Hash::store(chain.sum, sum_);
  }

  /* The quad-th part of an iteration: U becomes the hash from `inner`, that the hash from `outer`, and the sum grows.
   */
  QLUKS_STEP void advance(typename Hash::State inner, typename Hash::State outer, size_t quad) noexcept {
    const typename Hash::State start = quad < Hash::quads ? inner : outer;
    const size_t i = quad % Hash::quads;
    if (i == 0) hash_.begin(start, message_);
    hash_.advance(start, i);
    if (i == Hash::quads - 1) message_ = hash_.end(start);
    if (quad == 2 * Hash::quads - 1) sum_ = Hash::combine(sum_, message_);
  }

 private:
  Hash hash_;
  typename Hash::Words message_; /* replaced by its hash when that is complete */
  typename Hash::Words sum_;
};

template <class Hash, size_t Lanes>
QLUKS_ISA void iterate_lanes(const HmacMidstates<Hash::words>& hmac, HmacChain<Hash::words>* chains,
                             uint32_t iterations) noexcept {
  constexpr size_t quads = 2 * Hash::quads;
  constexpr size_t lead = Hash::quads / 2;
  const typename Hash::State inner = Hash::to_state(Hash::load(hmac.inner));
  const typename Hash::State outer = Hash::to_state(Hash::load(hmac.outer));
  Lane<Hash> lanes[Lanes];
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

template <class Hash>
void iterate_chains(const HmacMidstates<Hash::words>& hmac, std::span<HmacChain<Hash::words>> chains,
                    uint32_t iterations) noexcept {
  if (chains.size() == 2) return iterate_lanes<Hash, 2>(hmac, chains.data(), iterations);
  iterate_lanes<Hash, 1>(hmac, chains.data(), iterations);
}

} // namespace
} // namespace qluks

#endif
