/* SPDX-License-Identifier: BSD-3-Clause */
/* The key schedule of the vector kernels (FIPS 197, section 5.2) by AES instructions: no table, so that its time and
 * its memory accesses say nothing of the key. */
#include "crypto/aes/kernel_x86.hpp"

#include <immintrin.h>

#include <cstring>
#include <new>

#include "base/secure_buffer.hpp"
#include "crypto/isa.hpp"

#define QLUKS_ISA QLUKS_ISA_AESNI

namespace qluks {

namespace {

/* SubWord: AESKEYGENASSIST substitutes the bytes of word 1 into word 0. */
QLUKS_STEP uint32_t sub_word(uint32_t word) noexcept {
  const __m128i x = _mm_set1_epi32(static_cast<int>(word));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_aeskeygenassist_si128(x, 0)));
}

/* RotWord of a word whose first byte is its lowest. */
constexpr uint32_t rot_word(uint32_t word) noexcept { return (word >> 8) | (word << 24); }

/* Times x in GF(2^8). */
constexpr uint32_t next_rcon(uint32_t rcon) noexcept { return (rcon << 1) ^ (rcon >= 0x80 ? 0x11b : 0); }

QLUKS_ISA void store_repeated(std::byte (&slot)[64], __m128i key) noexcept {
  for (size_t i = 0; i < 4; ++i) _mm_store_si128(reinterpret_cast<__m128i*>(slot) + i, key);
}

QLUKS_ISA __m128i load_key(const std::byte (&slot)[64]) noexcept {
  return _mm_load_si128(reinterpret_cast<const __m128i*>(slot));
}

} // namespace

QLUKS_ISA void expand_key_aesni(std::span<const std::byte> key, AesSchedule& schedule) noexcept {
  const size_t key_words = key.size() / 4;
  const unsigned rounds = aes_rounds(key.size());
  uint32_t w[4 * (aes_rounds_max + 1)];
  std::memcpy(w, key.data(), key.size());
  uint32_t rcon = 1;
  for (size_t i = key_words; i < 4 * (rounds + 1); ++i) {
    uint32_t t = w[i - 1];
    if (i % key_words == 0) {
      t = rot_word(sub_word(t)) ^ rcon;
      rcon = next_rcon(rcon);
    } else if (key_words > 6 && i % key_words == 4) {
      t = sub_word(t);
    }
    w[i] = w[i - key_words] ^ t;
  }
  VectorSchedule& vector = *new (&schedule.vector) VectorSchedule;
  for (unsigned r = 0; r <= rounds; ++r) {
    store_repeated(vector.encrypt.key[r], _mm_loadu_si128(reinterpret_cast<const __m128i*>(w) + r));
  }
  for (unsigned r = 0; r <= rounds; ++r) {
    const __m128i k = load_key(vector.encrypt.key[rounds - r]);
    store_repeated(vector.decrypt.key[r], r == 0 || r == rounds ? k : _mm_aesimc_si128(k));
  }
  schedule.rounds = rounds;
  wipe(std::as_writable_bytes(std::span(w)));
}

} // namespace qluks
