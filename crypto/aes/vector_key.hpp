/* SPDX-License-Identifier: BSD-3-Clause */
/* The key schedule of the vector kernels (FIPS 197, section 5.2) by AES instructions: no table, so that its time and
 * its memory accesses say nothing of the key.
 *
 * Included by the kernel of 128-bit vectors, after vector_iv.hpp; the wider ones use that kernel's.
 */
#ifndef QLUKS_CRYPTO_AES_VECTOR_KEY_HPP
#define QLUKS_CRYPTO_AES_VECTOR_KEY_HPP

#include <cstring>
#include <new>

#include "base/secure_buffer.hpp"
#include "crypto/aes/vector_iv.hpp"

namespace qluks {
namespace {

static_assert(Vector::lanes == 1);

/* SubWord: the last round substitutes bytes and shifts rows, which moves nothing where all columns are the same. */
QLUKS_STEP uint32_t sub_word(uint32_t word) noexcept {
  return Vector::encrypt_last(Vector::columns(word), Vector::columns(0)).first_column();
}

/* InvMixColumns: a round of decryption undoes the substitution and the shift first. */
QLUKS_STEP Vector inverse_mix_columns(Vector k) noexcept {
  const Vector zero = Vector::columns(0);
  return Vector::decrypt(Vector::encrypt_last(k, zero), zero);
}

/* RotWord of a word whose first byte is its lowest. */
constexpr uint32_t rot_word(uint32_t word) noexcept { return (word >> 8) | (word << 24); }

/* Times x in GF(2^8). */
constexpr uint32_t next_rcon(uint32_t rcon) noexcept { return (rcon << 1) ^ (rcon >= 0x80 ? 0x11b : 0); }

QLUKS_STEP void store_repeated(std::byte (&slot)[64], Vector key) noexcept {
  for (size_t i = 0; i < sizeof slot; i += block_bytes) key.store(slot + i);
}

QLUKS_ISA void expand_key(std::span<const std::byte> key, AesSchedule& schedule) noexcept {
  const size_t key_words = key.size() / 4;
  const unsigned rounds = qluks::aes_rounds(key.size());
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
    store_repeated(vector.encrypt.key[r], Vector::load(reinterpret_cast<const std::byte*>(w + size_t{4} * r)));
  }
  for (unsigned r = 0; r <= rounds; ++r) {
    const Vector k = Vector::load(vector.encrypt.key[rounds - r]);
    store_repeated(vector.decrypt.key[r], r == 0 || r == rounds ? k : inverse_mix_columns(k));
  }
  schedule.rounds = rounds;
  wipe(std::as_writable_bytes(std::span(w)));
}

} // namespace
} // namespace qluks

#endif
