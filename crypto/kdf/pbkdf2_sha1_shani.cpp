/* SPDX-License-Identifier: BSD-3-Clause */
/* PBKDF2-HMAC-SHA1 by SHA-NI: what cryptsetup made LUKS1 with until 2016.
 *
 * A step hashes two blocks that differ from step to step in their first words only:
 *
 *      word    0 … 4      5            6 … 14   15
 *              U or the   0x80000000   0        672     (one block of key and one digest, in bits)
 *              inner hash
 *
 * The instructions have the first of four words in the highest lane.
 */
#include <immintrin.h>

#include "crypto/isa.hpp"

#define QLUKS_ISA QLUKS_ISA_SHANI

#include "crypto/kdf/pbkdf2_lanes_shani.hpp"

namespace qluks {

namespace {

/* Five words: the first four, and the fifth in the highest lane above zeroes. */
struct Hash {
  __m128i dcba, e;
};

QLUKS_STEP Hash load(const HashWords<sha1_words>& words) noexcept {
  const __m128i abcd = _mm_loadu_si128(reinterpret_cast<const __m128i*>(words.word));
  return {_mm_shuffle_epi32(abcd, 0x1b), _mm_setr_epi32(0, 0, 0, static_cast<int>(words.word[4]))};
}

QLUKS_STEP void store(HashWords<sha1_words>& words, Hash hash) noexcept {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(words.word), _mm_shuffle_epi32(hash.dcba, 0x1b));
  words.word[4] = static_cast<uint32_t>(_mm_extract_epi32(hash.e, 3));
}

/* Rounds 4·i … 4·i+3; the function of FIPS 180-4, section 4.1.1, changes every five quads. */
QLUKS_STEP __m128i four_rounds(__m128i dcba, __m128i e_and_message, size_t i) noexcept {
  switch (i / 5) {
    case 0:
      return _mm_sha1rnds4_epu32(dcba, e_and_message, 0);
    case 1:
      return _mm_sha1rnds4_epu32(dcba, e_and_message, 1);
    case 2:
      return _mm_sha1rnds4_epu32(dcba, e_and_message, 2);
    default:
      return _mm_sha1rnds4_epu32(dcba, e_and_message, 3);
  }
}

/* The next four words of the message schedule, over the oldest of the last sixteen. */
QLUKS_STEP void extend_schedule(__m128i (&w)[4], size_t i) noexcept {
  const __m128i sum = _mm_xor_si128(_mm_sha1msg1_epu32(w[i % 4], w[(i + 1) % 4]), w[(i + 2) % 4]);
  w[i % 4] = _mm_sha1msg2_epu32(sum, w[(i + 3) % 4]);
}

/* `message` is replaced by its hash when that is complete. */
class Sha1Lane {
 public:
  static constexpr size_t words = sha1_words;
  static constexpr size_t quads_per_hash = 20;
  using State = Hash;

  QLUKS_STEP static State load_state(const HashWords<words>& midstate) noexcept { return qluks::load(midstate); }

  QLUKS_STEP void load(const HmacChain<words>& chain) noexcept {
    message_ = qluks::load(chain.u);
    sum_ = qluks::load(chain.sum);
  }
  QLUKS_STEP void store(HmacChain<words>& chain) const noexcept {
    qluks::store(chain.u, message_);
    qluks::store(chain.sum, sum_);
  }

  QLUKS_STEP void advance(State inner, State outer, size_t quad) noexcept {
    const State start = quad < quads_per_hash ? inner : outer;
    const size_t i = quad % quads_per_hash;
    if (i == 0) begin_hash(start);
    if (i >= 4) extend_schedule(w_, i);
    /* E of these rounds is the A of four rounds before, rotated; of the first ones it is there as it is. */
    const __m128i sum = i == 0 ? _mm_add_epi32(start.e, w_[0]) : _mm_sha1nexte_epu32(before_, w_[i % 4]);
    before_ = dcba_;
    dcba_ = four_rounds(dcba_, sum, i);
    if (i == quads_per_hash - 1) end_hash(start);
    if (quad == 2 * quads_per_hash - 1) {
      sum_.dcba = _mm_xor_si128(sum_.dcba, message_.dcba);
      sum_.e = _mm_xor_si128(sum_.e, message_.e);
    }
  }

 private:
  QLUKS_STEP void begin_hash(State start) noexcept {
    dcba_ = start.dcba;
    w_[0] = message_.dcba;
    w_[1] = _mm_or_si128(message_.e, _mm_setr_epi32(0, 0, static_cast<int>(0x80000000), 0));
    w_[2] = _mm_setzero_si128();
    w_[3] = _mm_setr_epi32(672, 0, 0, 0);
  }

  QLUKS_STEP void end_hash(State start) noexcept {
    message_ = {_mm_add_epi32(dcba_, start.dcba), _mm_sha1nexte_epu32(before_, start.e)};
  }

  __m128i dcba_, before_;
  __m128i w_[4];
  Hash message_, sum_;
};

} // namespace

void iterate_shani(const HmacMidstates<sha1_words>& hmac, std::span<HmacChain<sha1_words>> chains,
                   uint32_t iterations) noexcept {
  iterate_chains<Sha1Lane>(hmac, chains, iterations);
}

} // namespace qluks
