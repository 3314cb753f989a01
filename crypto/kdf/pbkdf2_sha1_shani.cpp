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
struct FiveWords {
  __m128i dcba, e;
};

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

class Sha1 {
 public:
  static constexpr size_t words = sha1_words;
  static constexpr size_t quads = 20;
  using Words = FiveWords;
  using State = FiveWords;

  QLUKS_STEP static Words load(const HashWords<words>& from) noexcept {
    const __m128i abcd = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from.word));
    return {_mm_shuffle_epi32(abcd, 0x1b), _mm_setr_epi32(0, 0, 0, static_cast<int>(from.word[4]))};
  }
  QLUKS_STEP static void store(HashWords<words>& to, Words hash) noexcept {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to.word), _mm_shuffle_epi32(hash.dcba, 0x1b));
    to.word[4] = static_cast<uint32_t>(_mm_extract_epi32(hash.e, 3));
  }
  QLUKS_STEP static State to_state(Words hash) noexcept { return hash; }
  QLUKS_STEP static Words combine(Words x, Words y) noexcept {
    return {_mm_xor_si128(x.dcba, y.dcba), _mm_xor_si128(x.e, y.e)};
  }

  QLUKS_STEP void begin(State start, Words message) noexcept {
    dcba_ = start.dcba;
    w_[0] = message.dcba;
    w_[1] = _mm_or_si128(message.e, _mm_setr_epi32(0, 0, static_cast<int>(0x80000000), 0));
    w_[2] = _mm_setzero_si128();
    w_[3] = _mm_setr_epi32(672, 0, 0, 0);
  }

  QLUKS_STEP void advance(State start, size_t i) noexcept {
    if (i >= 4) extend_schedule(w_, i);
    /* E of these rounds is the A of four rounds before, rotated; of the first ones it is there as it is. */
    const __m128i sum = i == 0 ? _mm_add_epi32(start.e, w_[0]) : _mm_sha1nexte_epu32(before_, w_[i % 4]);
    before_ = dcba_;
    dcba_ = four_rounds(dcba_, sum, i);
  }

  QLUKS_STEP Words end(State start) const noexcept {
    return {_mm_add_epi32(dcba_, start.dcba), _mm_sha1nexte_epu32(before_, start.e)};
  }

 private:
  __m128i dcba_, before_;
  __m128i w_[4];
};

} // namespace

void iterate_shani(const HmacMidstates<sha1_words>& hmac, std::span<HmacChain<sha1_words>> chains,
                   uint32_t iterations) noexcept {
  iterate_chains<Sha1>(hmac, chains, iterations);
}

} // namespace qluks
