/* SPDX-License-Identifier: BSD-3-Clause */
#include "crypto/kdf/hash_libgcrypt.hpp"

#include <gcrypt.h>

#include <algorithm>
#include <iterator>
#include <new>

namespace qluks {

namespace {

class LibgcryptDigest final : public OtherDigest {
 public:
  LibgcryptDigest(int id, unsigned flags) {
    if (gcry_md_open(&handle_, id, flags) != 0) throw std::bad_alloc();
  }
  ~LibgcryptDigest() override { gcry_md_close(handle_); } /* wipes it */
  LibgcryptDigest(const LibgcryptDigest&) = delete;
  LibgcryptDigest& operator=(const LibgcryptDigest&) = delete;

  void set_key(std::span<const std::byte> key) {
    if (gcry_md_setkey(handle_, key.data(), key.size()) != 0) throw std::bad_alloc();
  }

  void update(std::span<const std::byte> bytes) noexcept override {
    gcry_md_write(handle_, bytes.data(), bytes.size());
  }

  void digest(std::span<std::byte> out) noexcept override {
    const auto* digest = reinterpret_cast<const std::byte*>(gcry_md_read(handle_, 0));
    std::copy_n(digest, out.size(), out.begin());
    gcry_md_reset(handle_);
  }

 private:
  gcry_md_hd_t handle_ = nullptr;
};

template <int id>
std::unique_ptr<OtherDigest> start_hash() {
  return std::make_unique<LibgcryptDigest>(id, 0);
}

template <int id>
std::unique_ptr<OtherDigest> start_hmac(std::span<const std::byte> key) {
  auto hmac = std::make_unique<LibgcryptDigest>(id, GCRY_MD_FLAG_HMAC);
  hmac->set_key(key);
  return hmac;
}

template <int id, size_t digest_bytes>
constexpr OtherHash other_hash{digest_bytes, start_hash<id>, start_hmac<id>};

struct Offer {
  int id;
  HashAlgorithm algorithm;
};

constexpr Offer offers[] = {
    {GCRY_MD_WHIRLPOOL, {"whirlpool", nullptr, &other_hash<GCRY_MD_WHIRLPOOL, 64>}},
    {GCRY_MD_BLAKE2B_512, {"blake2b-512", nullptr, &other_hash<GCRY_MD_BLAKE2B_512, 64>}},
    {GCRY_MD_BLAKE2S_256, {"blake2s-256", nullptr, &other_hash<GCRY_MD_BLAKE2S_256, 32>}},
};

/* The library wants to be initialized once in a process, which another user of it may have done. */
bool initialize() {
  if (gcry_control(GCRYCTL_INITIALIZATION_FINISHED_P) != 0) return true;
  if (gcry_check_version("1.8.0") == nullptr) return false;
  gcry_control(GCRYCTL_DISABLE_SECMEM, 0);
  gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
  return true;
}

} // namespace

std::vector<HashAlgorithm> libgcrypt_hashes() {
  std::vector<HashAlgorithm> hashes;
  if (!initialize()) return hashes;
  for (const Offer& offer : offers) {
    if (gcry_md_test_algo(offer.id) == 0) hashes.push_back(offer.algorithm);
  }
  return hashes;
}

} // namespace qluks
