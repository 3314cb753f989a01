/* SPDX-License-Identifier: BSD-3-Clause */
/* PBKDF2 (RFC 8018, section 5.2) over HMAC (RFC 2104).
 *
 *      U1 = HMAC(secret, salt ‖ i)    U2 = HMAC(secret, U1)    …    output block i = U1 ⊕ U2 ⊕ …
 *
 * HMAC hashes one block made of the secret before each of its two messages.  Those two hash states (the midstates)
 * are the same for every HMAC of a derivation, so they are computed once: an iteration then costs two compressions
 * rather than four.
 */
#include <nettle/nettle-meta.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "base/secure_buffer.hpp"
#include "base/wire.hpp"
#include "crypto/pbkdf.hpp"

namespace qluks {

namespace {

/* SHA3-224 has the largest block. */
constexpr size_t block_bytes_max = 144;

/* What the secret or the derived key could be learned from; lives in a SecureBuffer. */
struct HmacMemory {
  alignas(16) uint8_t inner[hash_state_bytes_max]; /* the midstates */
  alignas(16) uint8_t outer[hash_state_bytes_max];
  alignas(16) uint8_t running[hash_state_bytes_max];
  uint8_t key_block[block_bytes_max];
  uint8_t u[digest_bytes_max];
  uint8_t sum[digest_bytes_max];
};

class Pbkdf2 {
 public:
  Pbkdf2(const nettle_hash& hash, Bytes secret)
      : hash_(hash), buffer_(sizeof(HmacMemory)), m_(*new (buffer_.data()) HmacMemory) {
    if (secret.size() > hash_.block_size) {
      hash_.init(m_.running);
      hash_.update(m_.running, secret.size(), reinterpret_cast<const uint8_t*>(secret.data()));
      hash_.digest(m_.running, hash_.digest_size, m_.key_block);
    } else {
      std::copy(secret.begin(), secret.end(), reinterpret_cast<std::byte*>(m_.key_block));
    }
    start_midstate(m_.inner, 0x36);
    start_midstate(m_.outer, 0x5c);
  }

  /* Output block `index`, counted from 1. */
  void derive_block(Bytes salt, uint32_t index, uint32_t iterations, std::span<std::byte> out) noexcept {
    const be32 index_be = index;
    std::memcpy(m_.running, m_.inner, hash_.context_size);
    hash_.update(m_.running, salt.size(), reinterpret_cast<const uint8_t*>(salt.data()));
    hash_.update(m_.running, sizeof index_be, reinterpret_cast<const uint8_t*>(&index_be));
    finish_hmac();
    std::memcpy(m_.sum, m_.u, sizeof m_.sum);
    for (uint32_t i = 1; i < iterations; ++i) {
      std::memcpy(m_.running, m_.inner, hash_.context_size);
      hash_.update(m_.running, hash_.digest_size, m_.u);
      finish_hmac();
      for (size_t j = 0; j < sizeof m_.sum; ++j) m_.sum[j] ^= m_.u[j];
    }
    std::memcpy(out.data(), m_.sum, out.size());
  }

 private:
  void start_midstate(uint8_t* state, uint8_t pad) noexcept {
    for (size_t i = 0; i < hash_.block_size; ++i) m_.key_block[i] ^= pad;
    hash_.init(state);
    hash_.update(state, hash_.block_size, m_.key_block);
    for (size_t i = 0; i < hash_.block_size; ++i) m_.key_block[i] ^= pad;
  }

  /* The message has gone into `running`: its HMAC becomes `u`. */
  void finish_hmac() noexcept {
    hash_.digest(m_.running, hash_.digest_size, m_.u);
    std::memcpy(m_.running, m_.outer, hash_.context_size);
    hash_.update(m_.running, hash_.digest_size, m_.u);
    hash_.digest(m_.running, hash_.digest_size, m_.u);
  }

  const nettle_hash& hash_;
  SecureBuffer buffer_;
  HmacMemory& m_;
};

} // namespace

Status pbkdf2(const HashAlgorithm& hash, Bytes secret, Bytes salt, uint32_t iterations, std::span<std::byte> out) {
  if (iterations == 0) return fail(Errc::invalid_format, "pbkdf2: 0 iterations: at least 1 is needed");
  Pbkdf2 kdf(*hash.nettle, secret);
  for (uint32_t index = 1; !out.empty(); ++index) {
    const size_t n = std::min(out.size(), hash.digest_bytes());
    kdf.derive_block(salt, index, iterations, out.first(n));
    out = out.subspan(n);
  }
  return ok();
}

} // namespace qluks
