/* SPDX-License-Identifier: BSD-3-Clause */
#include "crypto/kdf/hash.hpp"

#include <nettle/md5.h>
#include <nettle/nettle-meta.h>
#include <nettle/ripemd160.h>
#include <nettle/sha1.h>
#include <nettle/sha2.h>
#include <nettle/sha3.h>

#include <algorithm>
#include <iterator>
#include <vector>

#include "config.h"
#ifdef HAVE_LIBGCRYPT_HASHES
#include "crypto/kdf/hash_libgcrypt.hpp"
#endif

namespace qluks {

namespace {

constexpr HashAlgorithm hashes_of_nettle[] = {
    {"sha256", &nettle_sha256},
    {"sha1", &nettle_sha1},
    {"sha512", &nettle_sha512},
    {"sha224", &nettle_sha224},
    {"sha384", &nettle_sha384},
    {"sha512-256", &nettle_sha512_256},
    {"ripemd160", &nettle_ripemd160},
    {"sha3-224", &nettle_sha3_224},
    {"sha3-256", &nettle_sha3_256},
    {"sha3-384", &nettle_sha3_384},
    {"sha3-512", &nettle_sha3_512},
#ifdef HAVE_NETTLE_SM3
    {"sm3", &nettle_sm3},
#endif
};

std::vector<HashAlgorithm> find_algorithms() {
  std::vector<HashAlgorithm> found(std::begin(hashes_of_nettle), std::end(hashes_of_nettle));
#ifdef HAVE_LIBGCRYPT_HASHES
  for (const HashAlgorithm& hash : libgcrypt_hashes()) found.push_back(hash);
#endif
  return found;
}

constexpr HashAlgorithm md5{"md5", &nettle_md5};

static_assert(sizeof(md5_ctx) <= hash_state_bytes_max);
static_assert(sizeof(sha1_ctx) <= hash_state_bytes_max && sizeof(ripemd160_ctx) <= hash_state_bytes_max);
static_assert(sizeof(sha256_ctx) <= hash_state_bytes_max && sizeof(sha512_ctx) <= hash_state_bytes_max);
static_assert(sizeof(sha3_224_ctx) <= hash_state_bytes_max && sizeof(sha3_512_ctx) <= hash_state_bytes_max);

/* Not tolower(): the meaning of a header must not depend on a locale. */
constexpr char ascii_lower(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool equal_ignoring_case(std::string_view a, std::string_view b) noexcept {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char x, char y) { return ascii_lower(x) == ascii_lower(y); });
}

} // namespace

size_t HashAlgorithm::digest_bytes() const noexcept {
  return nettle != nullptr ? nettle->digest_size : other->digest_bytes;
}

std::span<const HashAlgorithm> hash_algorithms() {
  static const std::vector<HashAlgorithm> algorithms = find_algorithms();
  return algorithms;
}

const HashAlgorithm* find_hash(std::string_view name) {
  for (const HashAlgorithm& algorithm : hash_algorithms()) {
    if (equal_ignoring_case(algorithm.name, name)) return &algorithm;
  }
  return nullptr;
}

const HashAlgorithm* find_essiv_hash(std::string_view name) {
  return equal_ignoring_case(md5.name, name) ? &md5 : find_hash(name);
}

Hash::Hash(const HashAlgorithm& algorithm) : algorithm_(algorithm) {
  if (algorithm_.nettle != nullptr) {
    algorithm_.nettle->init(state_);
  } else {
    other_ = algorithm_.other->start_hash();
  }
}

Hash::~Hash() { wipe(state_); }

void Hash::update(std::span<const std::byte> bytes) noexcept {
  if (other_) return other_->update(bytes);
  algorithm_.nettle->update(state_, bytes.size(), reinterpret_cast<const uint8_t*>(bytes.data()));
}

void Hash::digest(std::span<std::byte> out) noexcept {
  out = out.first(std::min(out.size(), algorithm_.digest_bytes()));
  if (other_) return other_->digest(out);
  algorithm_.nettle->digest(state_, out.size(), reinterpret_cast<uint8_t*>(out.data()));
}

SecureBuffer hash_of(const HashAlgorithm& algorithm, std::span<const std::byte> secret) {
  SecureBuffer digest(algorithm.digest_bytes());
  Hash hash(algorithm);
  hash.update(secret);
  hash.digest(digest.span());
  return digest;
}

} // namespace qluks
