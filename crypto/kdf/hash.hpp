/* SPDX-License-Identifier: BSD-3-Clause */
/* Hash functions under the names that LUKS headers use (cryptsetup's: sha256, ripemd160, …). */
#ifndef QLUKS_CRYPTO_KDF_HASH_HPP
#define QLUKS_CRYPTO_KDF_HASH_HPP

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>

#include "base/secure_buffer.hpp"

struct nettle_hash;

namespace qluks {

/* No digest that we know is longer. */
inline constexpr size_t digest_bytes_max = 64;

/* No state of nettle's for a hash that we know is larger. */
inline constexpr size_t hash_state_bytes_max = 512;

/* A running hash or HMAC by another library than nettle. */
class OtherDigest {
 public:
  virtual ~OtherDigest() = default;
  virtual void update(std::span<const std::byte> bytes) noexcept = 0;
  /* At most as many bytes as the digest has.  Starts anew, an HMAC with the same key. */
  virtual void digest(std::span<std::byte> out) noexcept = 0;
};

struct OtherHash {
  size_t digest_bytes;
  std::unique_ptr<OtherDigest> (*start_hash)();
  std::unique_ptr<OtherDigest> (*start_hmac)(std::span<const std::byte> key);
};

struct HashAlgorithm {
  std::string_view name;
  const nettle_hash* nettle; /* nullptr: it is another library's */
  const OtherHash* other = nullptr;

  size_t digest_bytes() const noexcept;
};

/* The algorithm of that name in any case of letters, as cryptsetup takes it; nullptr if it is not known.  None gives
 * less than 20 bytes, which is the least that LUKS takes. */
const HashAlgorithm* find_hash(std::string_view name);

/* The same for the hash of an ESSIV, which may be md5 as well: no header may use that for anything else. */
const HashAlgorithm* find_essiv_hash(std::string_view name);

/* Every algorithm that find_hash knows.  The whirlpool and blake2 families need a build with libgcrypt, sm3 nettle 3.8.
 */
std::span<const HashAlgorithm> hash_algorithms();

/* One digest over several pieces.  The state is wiped when it goes. */
class Hash {
 public:
  explicit Hash(const HashAlgorithm& algorithm);
  ~Hash();
  Hash(const Hash&) = delete;
  Hash& operator=(const Hash&) = delete;

  void update(std::span<const std::byte> bytes) noexcept;
  /* Writes min(out.size(), digest_bytes()) bytes and starts anew. */
  void digest(std::span<std::byte> out) noexcept;

 private:
  const HashAlgorithm& algorithm_;
  std::unique_ptr<OtherDigest> other_; /* rather than state_ */
  alignas(16) std::byte state_[hash_state_bytes_max];
};

/* The digest of a secret, which is a secret. */
SecureBuffer hash_of(const HashAlgorithm& algorithm, std::span<const std::byte> secret);

} // namespace qluks

#endif
