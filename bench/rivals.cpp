/* SPDX-License-Identifier: BSD-3-Clause */
#include "bench/rivals.hpp"

#include <nettle/aes.h>
#include <nettle/cbc.h>
#include <nettle/nettle-meta.h>
#include <nettle/pbkdf2.h>
#include <nettle/version.h>
#include <nettle/xts.h>
#if HAVE_GNUTLS
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#endif
#if HAVE_OPENSSL
#include <openssl/crypto.h>
#include <openssl/evp.h>
#endif
#if HAVE_LIBGCRYPT
#include <gcrypt.h>
#endif

#include <array>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "crypto/kdf/hash.hpp"

namespace qluks::bench {

namespace {

using Bytes = std::span<const std::byte>;

const uint8_t* u8(Bytes bytes) { return reinterpret_cast<const uint8_t*>(bytes.data()); }
const uint8_t* u8(std::string_view text) { return reinterpret_cast<const uint8_t*>(text.data()); }

/* A rival that does not work would give a wrong table. */
void require(bool done) {
  if (!done) std::abort();
}

class NettleMode final : public RivalMode {
 public:
  NettleMode(CipherMode mode, Bytes key, Direction direction) : mode_(mode), direction_(direction) {
    const size_t key_bytes = mode == CipherMode::xts ? key.size() / 2 : key.size();
    aes_ = key_bytes == 16 ? &nettle_aes128 : &nettle_aes256;
    if (direction == Direction::encrypt) {
      aes_->set_encrypt_key(data_, u8(key));
    } else {
      aes_->set_decrypt_key(data_, u8(key));
    }
    if (mode == CipherMode::xts) aes_->set_encrypt_key(tweak_, u8(key.subspan(key_bytes)));
  }

  void crypt(const uint8_t iv[16], uint8_t* data, size_t size) override {
    if (mode_ == CipherMode::xts && direction_ == Direction::encrypt) {
      xts_encrypt_message(data_, tweak_, aes_->encrypt, iv, size, data, data);
    } else if (mode_ == CipherMode::xts) {
      xts_decrypt_message(data_, tweak_, aes_->decrypt, aes_->encrypt, iv, size, data, data);
    } else {
      uint8_t chain[16];
      std::memcpy(chain, iv, sizeof chain);
      if (direction_ == Direction::encrypt) {
        cbc_encrypt(data_, aes_->encrypt, 16, chain, size, data, data);
      } else {
        cbc_decrypt(data_, aes_->decrypt, 16, chain, size, data, data);
      }
    }
  }

 private:
  CipherMode mode_;
  Direction direction_;
  const nettle_cipher* aes_;
  alignas(16) uint8_t data_[sizeof(aes256_ctx)];
  alignas(16) uint8_t tweak_[sizeof(aes256_ctx)];
};

/* What a library calls the hash. */
template <class T>
T choose(Pbkdf2Hash hash, T sha1, T sha256, T sha512) {
  return hash == Pbkdf2Hash::sha1 ? sha1 : hash == Pbkdf2Hash::sha256 ? sha256 : sha512;
}

void nettle_kdf(const Pbkdf2Input& in, std::span<std::byte> out) {
  const auto derive = choose(in.hash, &pbkdf2_hmac_sha1, &pbkdf2_hmac_sha256, &pbkdf2_hmac_sha512);
  derive(in.secret.size(), u8(in.secret), in.iterations, in.salt.size(), u8(in.salt), out.size(),
         reinterpret_cast<uint8_t*>(out.data()));
}

#if HAVE_GNUTLS

class GnutlsMode final : public RivalMode {
 public:
  GnutlsMode(CipherMode mode, Bytes key, Direction direction) : direction_(direction) {
    const bool long_key = key.size() == (mode == CipherMode::xts ? 64 : 32);
    const gnutls_cipher_algorithm_t algorithm =
        mode == CipherMode::xts ? (long_key ? GNUTLS_CIPHER_AES_256_XTS : GNUTLS_CIPHER_AES_128_XTS)
                                : (long_key ? GNUTLS_CIPHER_AES_256_CBC : GNUTLS_CIPHER_AES_128_CBC);
    const gnutls_datum_t datum{const_cast<uint8_t*>(u8(key)), static_cast<unsigned>(key.size())};
    uint8_t zero[16] = {};
    const gnutls_datum_t iv{zero, sizeof zero};
    require(gnutls_cipher_init(&handle_, algorithm, &datum, &iv) == 0);
  }
  ~GnutlsMode() override { gnutls_cipher_deinit(handle_); }

  void crypt(const uint8_t iv[16], uint8_t* data, size_t size) override {
    gnutls_cipher_set_iv(handle_, const_cast<uint8_t*>(iv), 16);
    if (direction_ == Direction::encrypt) {
      gnutls_cipher_encrypt2(handle_, data, size, data, size);
    } else {
      gnutls_cipher_decrypt2(handle_, data, size, data, size);
    }
  }

 private:
  Direction direction_;
  gnutls_cipher_hd_t handle_ = nullptr;
};

void gnutls_kdf(const Pbkdf2Input& in, std::span<std::byte> out) {
  const gnutls_datum_t secret{const_cast<uint8_t*>(u8(in.secret)), static_cast<unsigned>(in.secret.size())};
  const gnutls_datum_t salt{const_cast<uint8_t*>(u8(in.salt)), static_cast<unsigned>(in.salt.size())};
  require(gnutls_pbkdf2(choose(in.hash, GNUTLS_MAC_SHA1, GNUTLS_MAC_SHA256, GNUTLS_MAC_SHA512), &secret, &salt,
                        in.iterations, out.data(), out.size()) == 0);
}

#endif
#if HAVE_OPENSSL

class OpensslMode final : public RivalMode {
 public:
  OpensslMode(CipherMode mode, Bytes key, Direction direction) : context_(EVP_CIPHER_CTX_new()) {
    const bool long_key = key.size() == (mode == CipherMode::xts ? 64 : 32);
    const EVP_CIPHER* cipher = mode == CipherMode::xts ? (long_key ? EVP_aes_256_xts() : EVP_aes_128_xts())
                                                       : (long_key ? EVP_aes_256_cbc() : EVP_aes_128_cbc());
    const uint8_t zero[16] = {};
    require(EVP_CipherInit_ex(context_, cipher, nullptr, u8(key), zero, direction == Direction::encrypt) == 1);
    EVP_CIPHER_CTX_set_padding(context_, 0);
  }
  ~OpensslMode() override { EVP_CIPHER_CTX_free(context_); }

  void crypt(const uint8_t iv[16], uint8_t* data, size_t size) override {
    int done = 0;
    EVP_CipherInit_ex(context_, nullptr, nullptr, nullptr, iv, -1);
    EVP_CipherUpdate(context_, data, &done, data, static_cast<int>(size));
  }

 private:
  EVP_CIPHER_CTX* context_;
};

void openssl_kdf(const Pbkdf2Input& in, std::span<std::byte> out) {
  require(PKCS5_PBKDF2_HMAC(in.secret.data(), static_cast<int>(in.secret.size()), u8(in.salt),
                            static_cast<int>(in.salt.size()), static_cast<int>(in.iterations),
                            choose(in.hash, EVP_sha1(), EVP_sha256(), EVP_sha512()), static_cast<int>(out.size()),
                            reinterpret_cast<uint8_t*>(out.data())) == 1);
}

#endif
#if HAVE_LIBGCRYPT

class LibgcryptMode final : public RivalMode {
 public:
  LibgcryptMode(CipherMode mode, Bytes key, Direction direction) : direction_(direction) {
    const size_t key_bytes = mode == CipherMode::xts ? key.size() / 2 : key.size();
    require(gcry_cipher_open(&handle_, key_bytes == 16 ? GCRY_CIPHER_AES128 : GCRY_CIPHER_AES256,
                             mode == CipherMode::xts ? GCRY_CIPHER_MODE_XTS : GCRY_CIPHER_MODE_CBC, 0) == 0);
    require(gcry_cipher_setkey(handle_, key.data(), key.size()) == 0);
  }
  ~LibgcryptMode() override { gcry_cipher_close(handle_); }

  void crypt(const uint8_t iv[16], uint8_t* data, size_t size) override {
    gcry_cipher_setiv(handle_, iv, 16);
    if (direction_ == Direction::encrypt) {
      gcry_cipher_encrypt(handle_, data, size, nullptr, 0);
    } else {
      gcry_cipher_decrypt(handle_, data, size, nullptr, 0);
    }
  }

 private:
  Direction direction_;
  gcry_cipher_hd_t handle_ = nullptr;
};

void libgcrypt_kdf(const Pbkdf2Input& in, std::span<std::byte> out) {
  require(gcry_kdf_derive(in.secret.data(), in.secret.size(), GCRY_KDF_PBKDF2,
                          choose<int>(in.hash, GCRY_MD_SHA1, GCRY_MD_SHA256, GCRY_MD_SHA512), in.salt.data(),
                          in.salt.size(), in.iterations, out.size(), out.data()) == 0);
}

#endif

template <class Mode>
std::unique_ptr<RivalMode> make(CipherMode mode, Bytes key, Direction direction) {
  return std::make_unique<Mode>(mode, key, direction);
}

std::vector<Rival> find_rivals() {
  std::vector<Rival> found;
  const std::string nettle = std::to_string(nettle_version_major()) + "." + std::to_string(nettle_version_minor());
  found.push_back({"nettle", nettle, make<NettleMode>, nettle_kdf});
#if HAVE_GNUTLS
  found.push_back({"GnuTLS", gnutls_check_version(nullptr), make<GnutlsMode>, gnutls_kdf});
#endif
#if HAVE_OPENSSL
  found.push_back({"OpenSSL", OpenSSL_version(OPENSSL_VERSION_STRING), make<OpensslMode>, openssl_kdf});
#endif
#if HAVE_LIBGCRYPT
  found.push_back({"libgcrypt", gcry_check_version(nullptr), make<LibgcryptMode>, libgcrypt_kdf});
#endif
  return found;
}

} // namespace

std::span<const Rival> rivals() {
  static const std::vector<Rival> found = find_rivals();
  return found;
}

RivalCipher::RivalCipher(const Rival& rival, const CipherSpec& spec, std::span<const std::byte> key,
                         Direction direction)
    : data_(rival.make(spec.mode, key, direction)) {
  if (spec.iv != IvKind::essiv) return;
  std::array<std::byte, 32> salt;
  Hash hash(*spec.essiv_hash);
  hash.update(key);
  hash.digest(salt);
  /* One block by CBC with an IV of zeroes is plain AES. */
  essiv_ = rival.make(CipherMode::cbc, salt, Direction::encrypt);
}

void RivalCipher::run(std::span<std::byte> data, size_t sector_size) {
  constexpr uint8_t zero[16] = {};
  for (size_t at = 0; at < data.size(); at += sector_size) {
    alignas(16) uint8_t iv[16] = {};
    const uint64_t number = at / 512;
    std::memcpy(iv, &number, sizeof number);
    if (essiv_) essiv_->crypt(zero, iv, sizeof iv);
    data_->crypt(iv, reinterpret_cast<uint8_t*>(data.data()) + at, sector_size);
  }
}

} // namespace qluks::bench
