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
#include <nettle/sha1.h>
#include <nettle/sha2.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <new>

#include "base/secure_buffer.hpp"
#include "base/shutdown.hpp"
#include "base/wire.hpp"
#include "crypto/kdf/pbkdf.hpp"
#if defined(__x86_64__)
#include "crypto/kdf/pbkdf2_shani.hpp"
#endif

namespace qluks {

namespace {

/* SHA3-224 has the largest block. */
constexpr size_t block_bytes_max = 144;

/* Iterations between two looks at whether to give up: one millisecond with the fastest hash, 50 with the slowest. */
constexpr uint32_t iterations_at_once = 1 << 13;

/* What the secret or the derived key could be learned from; lives in a SecureBuffer. */
struct HmacMemory {
  alignas(16) uint8_t inner[hash_state_bytes_max]; /* the midstates */
  alignas(16) uint8_t outer[hash_state_bytes_max];
  alignas(16) uint8_t running[hash_state_bytes_max];
  uint8_t key_block[block_bytes_max];
  uint8_t u[digest_bytes_max];
};

struct Derivation {
  const HashAlgorithm& hash;
  Bytes salt;
  uint32_t iterations;
  std::span<std::byte> out;
};

class Hmac {
 public:
  Hmac(const nettle_hash& hash, Bytes secret)
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

  const uint8_t* inner() const noexcept { return m_.inner; }
  const uint8_t* outer() const noexcept { return m_.outer; }
  const uint8_t* u() const noexcept { return m_.u; }

  /* The first U of output block `index`, counted from 1. */
  void start_block(Bytes salt, uint32_t index) noexcept {
    const be32 index_be = index;
    std::memcpy(m_.running, m_.inner, hash_.context_size);
    hash_.update(m_.running, salt.size(), reinterpret_cast<const uint8_t*>(salt.data()));
    hash_.update(m_.running, sizeof index_be, reinterpret_cast<const uint8_t*>(&index_be));
    finish();
  }

  /* The next U from the last. */
  void step() noexcept {
    std::memcpy(m_.running, m_.inner, hash_.context_size);
    hash_.update(m_.running, hash_.digest_size, m_.u);
    finish();
  }

 private:
  void start_midstate(uint8_t* state, uint8_t pad) noexcept {
    for (size_t i = 0; i < hash_.block_size; ++i) m_.key_block[i] ^= pad;
    hash_.init(state);
    hash_.update(state, hash_.block_size, m_.key_block);
    for (size_t i = 0; i < hash_.block_size; ++i) m_.key_block[i] ^= pad;
  }

  /* The message has gone into `running`: its HMAC becomes `u`. */
  void finish() noexcept {
    hash_.digest(m_.running, hash_.digest_size, m_.u);
    std::memcpy(m_.running, m_.outer, hash_.context_size);
    hash_.update(m_.running, hash_.digest_size, m_.u);
    hash_.digest(m_.running, hash_.digest_size, m_.u);
  }

  const nettle_hash& hash_;
  SecureBuffer buffer_;
  HmacMemory& m_;
};

/* The same by another library, which keeps the midstates to itself. */
class OtherHmac {
 public:
  OtherHmac(const OtherHash& hash, Bytes secret) : hmac_(hash.start_hmac(secret)), u_(hash.digest_bytes) {}

  const uint8_t* u() const noexcept { return reinterpret_cast<const uint8_t*>(u_.data()); }

  void start_block(Bytes salt, uint32_t index) noexcept {
    const be32 index_be = index;
    hmac_->update(salt);
    hmac_->update(std::as_bytes(std::span(&index_be, 1)));
    hmac_->digest(u_.span());
  }

  void step() noexcept {
    hmac_->update(u_.span());
    hmac_->digest(u_.span());
  }

 private:
  std::unique_ptr<OtherDigest> hmac_;
  SecureBuffer u_;
};

/* Any hash, one output block after the other, summed up in `out` itself. */
template <class AnyHmac>
Status derive_generic(AnyHmac& hmac, const Derivation& d) {
  const size_t digest_bytes = d.hash.digest_bytes();
  for (size_t at = 0, index = 1; at < d.out.size(); at += digest_bytes, ++index) {
    const std::span<std::byte> block = d.out.subspan(at, std::min(digest_bytes, d.out.size() - at));
    hmac.start_block(d.salt, static_cast<uint32_t>(index));
    std::memcpy(block.data(), hmac.u(), block.size());
    for (uint32_t i = 1; i < d.iterations; ++i) {
      if (i % iterations_at_once == 0 && shutting_down()) return given_up();
      hmac.step();
      for (size_t j = 0; j < block.size(); ++j) block[j] ^= static_cast<std::byte>(hmac.u()[j]);
    }
  }
  return ok();
}

#if defined(__x86_64__)

/* How nettle keeps a hash that has SHA instructions. */
template <size_t N>
constexpr size_t state_offset = 0;
template <>
constexpr size_t state_offset<sha1_words> = offsetof(sha1_ctx, state);
template <>
constexpr size_t state_offset<sha256_words> = offsetof(sha256_ctx, state);
static_assert(sizeof(sha1_ctx::state) == sizeof(HashWords<sha1_words>));
static_assert(sizeof(sha256_ctx::state) == sizeof(HashWords<sha256_words>));

template <size_t N>
HashWords<N> midstate_words(const uint8_t* nettle_context) noexcept {
  HashWords<N> words;
  std::memcpy(words.word, nettle_context + state_offset<N>, sizeof words.word);
  return words;
}

template <size_t N>
HashWords<N> digest_words(const uint8_t* digest) noexcept {
  be32 fields[N];
  std::memcpy(fields, digest, sizeof fields);
  HashWords<N> words;
  std::copy(std::begin(fields), std::end(fields), words.word);
  return words;
}

/* A hash of N words by SHA-NI, output blocks in pairs. */
template <size_t N>
Status derive_shani(Hmac& hmac, const Derivation& d) {
  struct Memory {
    HmacMidstates<N> midstates;
    HmacChain<N> chains[2];
    be32 digests[2][N];
  };
  SecureBuffer buffer(sizeof(Memory));
  Memory& m = *new (buffer.data()) Memory;
  m.midstates = {midstate_words<N>(hmac.inner()), midstate_words<N>(hmac.outer())};
  for (size_t at = 0, index = 1; at < d.out.size(); at += sizeof m.digests, index += 2) {
    const std::span<std::byte> blocks = d.out.subspan(at, std::min(sizeof m.digests, d.out.size() - at));
    for (size_t i = 0; i < 2; ++i) {
      hmac.start_block(d.salt, static_cast<uint32_t>(index + i));
      m.chains[i].u = m.chains[i].sum = digest_words<N>(hmac.u());
    }
    const std::span chains(m.chains, blocks.size() > sizeof m.digests[0] ? 2 : 1);
    for (uint32_t left = d.iterations - 1; left != 0;) {
      const uint32_t now = std::min(left, iterations_at_once);
      iterate_shani(m.midstates, chains, now);
      left -= now;
      if (left != 0 && shutting_down()) return given_up();
    }
    for (size_t i = 0; i < 2; ++i) {
      std::copy(std::begin(m.chains[i].sum.word), std::end(m.chains[i].sum.word), m.digests[i]);
    }
    std::memcpy(blocks.data(), m.digests, blocks.size());
  }
  return ok();
}

#endif

} // namespace

Status pbkdf2(const CpuFeatures& cpu, const HashAlgorithm& hash, Bytes secret, Bytes salt, uint32_t iterations,
              std::span<std::byte> out) {
  if (iterations == 0) return fail(Errc::invalid_format, "pbkdf2: 0 iterations: at least 1 is needed");
  const Derivation derivation{hash, salt, iterations, out};
  if (hash.other != nullptr) {
    OtherHmac hmac(*hash.other, secret);
    return derive_generic(hmac, derivation);
  }
  Hmac hmac(*hash.nettle, secret);
#if defined(__x86_64__)
  if (hash.nettle == &nettle_sha1 && cpu.sha) return derive_shani<sha1_words>(hmac, derivation);
  if (hash.nettle == &nettle_sha256 && cpu.sha) return derive_shani<sha256_words>(hmac, derivation);
#else
  static_cast<void>(cpu);
#endif
  return derive_generic(hmac, derivation);
}

Status pbkdf2(const HashAlgorithm& hash, Bytes secret, Bytes salt, uint32_t iterations, std::span<std::byte> out) {
  return pbkdf2(this_cpu(), hash, secret, salt, iterations, out);
}

} // namespace qluks
