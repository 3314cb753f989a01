/* SPDX-License-Identifier: BSD-3-Clause */
/* PBKDF2-HMAC-SHA256 by SHA-NI.
 *
 * A step hashes two blocks that differ from step to step in their first half only:
 *
 *      word    0 … 7      8            9 … 14   15
 *              U or the   0x80000000   0        768     (one block of key and one digest, in bits)
 *              inner hash
 */
#include <immintrin.h>

#include "crypto/isa.hpp"

#define QLUKS_ISA QLUKS_ISA_SHANI

#include "crypto/kdf/pbkdf2_lanes_shani.hpp"

namespace qluks {

namespace {

/* FIPS 180-4, section 4.2.2 */
alignas(16) constexpr uint32_t round_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

/* Eight words in two registers.  The names give the words from the lowest lane up. */
struct Natural {
  __m128i abcd, efgh;
};

/* The order in which the SHA instructions take a state. */
struct Ordered {
  __m128i feba, hgdc;
};

/* Rounds 4·i … 4·i+3. */
QLUKS_STEP void four_rounds(Ordered& s, __m128i message, size_t i) noexcept {
  const auto* constants = reinterpret_cast<const __m128i*>(round_constants);
  const __m128i sum = _mm_add_epi32(message, _mm_load_si128(constants + i));
  s.hgdc = _mm_sha256rnds2_epu32(s.hgdc, s.feba, sum);
  s.feba = _mm_sha256rnds2_epu32(s.feba, s.hgdc, _mm_shuffle_epi32(sum, 0x0e));
}

/* The next four words of the message schedule, over the oldest of the last sixteen. */
QLUKS_STEP void extend_schedule(__m128i (&w)[4], size_t i) noexcept {
  const __m128i before = w[(i + 3) % 4];
  /* Words 9 … 14 are zero: there is nothing to add to words 8 … 11, and nothing of 9 … 12 to the first new ones. */
  __m128i sum = i == 6 ? w[2] : _mm_sha256msg1_epu32(w[i % 4], w[(i + 1) % 4]);
  if (i != 4) sum = _mm_add_epi32(sum, _mm_alignr_epi8(before, w[(i + 2) % 4], 4));
  w[i % 4] = _mm_sha256msg2_epu32(sum, before);
}

class Sha256 {
 public:
  static constexpr size_t words = sha256_words;
  static constexpr size_t quads = 16;
  using Words = Natural;
  using State = Ordered;

  QLUKS_STEP static Words load(const HashWords<words>& from) noexcept {
    const auto* p = reinterpret_cast<const __m128i*>(from.word);
    return {_mm_loadu_si128(p), _mm_loadu_si128(p + 1)};
  }
  QLUKS_STEP static void store(HashWords<words>& to, Words value) noexcept {
    auto* p = reinterpret_cast<__m128i*>(to.word);
    _mm_storeu_si128(p, value.abcd);
    _mm_storeu_si128(p + 1, value.efgh);
  }
  QLUKS_STEP static State to_state(Words n) noexcept {
    const __m128i badc = _mm_shuffle_epi32(n.abcd, 0xb1);
    const __m128i hgfe = _mm_shuffle_epi32(n.efgh, 0x1b);
    return {_mm_alignr_epi8(badc, hgfe, 8), _mm_blend_epi16(hgfe, badc, 0xf0)};
  }
  QLUKS_STEP static Words combine(Words x, Words y) noexcept {
    return {_mm_xor_si128(x.abcd, y.abcd), _mm_xor_si128(x.efgh, y.efgh)};
  }

  QLUKS_STEP void begin(State start, Words message) noexcept {
    s_ = start;
    w_[0] = message.abcd;
    w_[1] = message.efgh;
    w_[2] = _mm_setr_epi32(static_cast<int>(0x80000000), 0, 0, 0);
    w_[3] = _mm_setr_epi32(0, 0, 0, 768);
  }

  QLUKS_STEP void advance(State /*start*/, size_t i) noexcept {
    if (i >= 4) extend_schedule(w_, i);
    four_rounds(s_, w_[i % 4], i);
  }

  QLUKS_STEP Words end(State start) const noexcept {
    const __m128i abef = _mm_shuffle_epi32(_mm_add_epi32(s_.feba, start.feba), 0x1b);
    const __m128i ghcd = _mm_shuffle_epi32(_mm_add_epi32(s_.hgdc, start.hgdc), 0xb1);
    return {_mm_blend_epi16(abef, ghcd, 0xf0), _mm_alignr_epi8(ghcd, abef, 8)};
  }

 private:
  State s_;
  __m128i w_[4];
};

} // namespace

void iterate_shani(const HmacMidstates<sha256_words>& hmac, std::span<HmacChain<sha256_words>> chains,
                   uint32_t iterations) noexcept {
  iterate_chains<Sha256>(hmac, chains, iterations);
}

} // namespace qluks
