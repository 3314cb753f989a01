/* SPDX-License-Identifier: BSD-3-Clause */
/* "Adiantum: length-preserving encryption for entry-level processors", IACR ToSC 2018(4).
 *
 *      plain text   |         L          | R |     R is the last 16 bytes, L all before
 *                             ├── H(T,L) ──▶ +     + and − are modulo 2^128
 *                             │            AES
 *                             ⊕ ◀─XChaCha── │      the block that leaves AES is the nonce
 *                             ├── H(T,L) ──▶ −
 *      cipher text  |         L          | R |     decryption goes the same way, with the inverse of AES
 *
 *      H(T,L) = Poly1305(length of L in bits ‖ T) + Poly1305(NH(1st KiB of L) ‖ NH(2nd) ‖ …)
 *
 * The hashes are Poly1305 without its nonce.  nettle has only Poly1305-AES, which adds an encrypted nonce: under an
 * AES key and a nonce of zeroes that is a constant, which is taken off again.
 */
#include "crypto/adiantum.hpp"

#include <nettle/poly1305.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "crypto/iv_rule.hpp"
#include "crypto/little_endian.hpp"
#include "crypto/traces.hpp"

namespace qluks {

namespace {

using Bytes = std::span<const std::byte>;

constexpr size_t block_size = 16;
constexpr size_t nh_message_bytes = 1024;
constexpr size_t nh_passes = 4;
constexpr size_t nh_key_words = nh_message_bytes / 4 + (nh_passes - 1) * 4; /* each pass starts 4 words later */

uint8_t* u8(std::byte* bytes) noexcept { return reinterpret_cast<uint8_t*>(bytes); }

/* A number modulo 2^128, stored in little-endian order. */
struct Block {
  uint64_t low = 0;
  uint64_t high = 0;

  static Block of(const void* bytes) noexcept {
    return {load_little_endian<uint64_t>(bytes), load_little_endian<uint64_t>(static_cast<const uint8_t*>(bytes) + 8)};
  }

  void store(void* to) const noexcept {
    store_little_endian(low, to);
    store_little_endian(high, static_cast<uint8_t*>(to) + 8);
  }

  friend Block operator+(Block a, Block b) noexcept {
    const uint64_t sum = a.low + b.low;
    return {sum, a.high + b.high + (sum < a.low ? 1 : 0)};
  }
  friend Block operator-(Block a, Block b) noexcept {
    return {a.low - b.low, a.high - b.high - (a.low < b.low ? 1 : 0)};
  }
};

class Poly1305 {
 public:
  explicit Poly1305(const poly1305_aes_ctx& keyed) noexcept { state_.value = keyed; }

  void update(const void* bytes, size_t length) noexcept {
    poly1305_aes_update(&state_.value, length, static_cast<const uint8_t*>(bytes));
  }

  Block digest() noexcept {
    uint8_t digest[POLY1305_AES_DIGEST_SIZE];
    poly1305_aes_digest(&state_.value, sizeof digest, digest);
    return Block::of(digest);
  }

 private:
  Wiped<poly1305_aes_ctx> state_;
};

/* Under the key `r`, with zeroes for AES. */
void set_poly1305_key(poly1305_aes_ctx& poly, const std::byte* r) noexcept {
  Wiped<std::array<uint8_t, POLY1305_AES_KEY_SIZE>> key;
  std::memcpy(key.value.data() + block_size, r, block_size);
  poly1305_aes_set_key(&poly, key.value.data());
  const uint8_t nonce[POLY1305_AES_NONCE_SIZE] = {};
  poly1305_aes_set_nonce(&poly, nonce);
}

/* NH of at most a KiB, a multiple of 16 bytes: 4 sums of products of 32-bit sums. */
void nh(const uint32_t* key, const std::byte* message, size_t length, uint64_t sums[nh_passes]) noexcept {
  for (const std::byte* end = message + length; message != end; message += 16, key += 4) {
    const uint32_t m[4] = {load_little_endian<uint32_t>(message), load_little_endian<uint32_t>(message + 4),
                           load_little_endian<uint32_t>(message + 8), load_little_endian<uint32_t>(message + 12)};
    for (size_t pass = 0; pass < nh_passes; ++pass) {
      const uint32_t* k = key + 4 * pass;
      sums[pass] += uint64_t{m[0] + k[0]} * (m[2] + k[2]) + uint64_t{m[1] + k[1]} * (m[3] + k[3]);
    }
  }
}

/* What leaves AES, a bit that is set, and zeroes. */
XChaCha::Nonce nonce_of(const std::byte* middle) noexcept {
  XChaCha::Nonce nonce{};
  std::copy_n(middle, block_size, nonce.begin());
  nonce[block_size] = std::byte{1};
  return nonce;
}

} // namespace

struct Adiantum::Keys {
  std::byte stream[key_bytes];
  poly1305_aes_ctx tweak;
  poly1305_aes_ctx message;
  uint32_t nh[nh_key_words];
  Block pads; /* what Poly1305-AES has added to the two hashes */

  Block hash(const Tweak& bytes, const std::byte* left, size_t length) const noexcept {
    Poly1305 tweak_hash(tweak);
    const Block bits{length * 8, 0};
    std::byte bits_bytes[block_size];
    bits.store(bits_bytes);
    tweak_hash.update(bits_bytes, block_size);
    tweak_hash.update(bytes.data(), bytes.size());
    Poly1305 message_hash(message);
    for (size_t at = 0; at < length; at += nh_message_bytes) {
      Wiped<std::array<uint64_t, nh_passes>> sums;
      qluks::nh(nh, left + at, std::min(length - at, nh_message_bytes), sums.value.data());
      for (uint64_t& sum : sums.value) sum = little_endian(sum);
      message_hash.update(sums.value.data(), sizeof sums.value);
    }
    return tweak_hash.digest() + message_hash.digest() - pads;
  }
};

struct Adiantum::DerivedKeys {
  std::byte block[key_bytes];
  std::byte tweak[block_size];
  std::byte message[block_size];
  std::byte nh[nh_key_words * 4];
};

/* The keys of the parts are the stream under the nonce 1. */
SecureBuffer Adiantum::derive_keys(XChaCha xchacha, Bytes key) {
  SecureBuffer derived(sizeof(DerivedKeys));
  xchacha.crypt(key.data(), {std::byte{1}}, derived.span(), derived.data());
  return derived;
}

Adiantum::Adiantum(XChaCha xchacha, Bytes key) : Adiantum(xchacha, key, derive_keys(xchacha, key)) {}

Adiantum::Adiantum(XChaCha xchacha, Bytes key, const SecureBuffer& derived_bytes)
    : xchacha_(xchacha),
      memory_(sizeof(Keys)),
      keys_(*new (memory_.data()) Keys),
      block_(BlockCipher::aes, derived_bytes.span().first(key_bytes)) {
  const auto& derived = *reinterpret_cast<const DerivedKeys*>(derived_bytes.data());
  std::copy(key.begin(), key.end(), keys_.stream);
  set_poly1305_key(keys_.tweak, derived.tweak);
  set_poly1305_key(keys_.message, derived.message);
  for (size_t i = 0; i < nh_key_words; ++i) keys_.nh[i] = load_little_endian<uint32_t>(derived.nh + 4 * i);
  const Block pad = Poly1305(keys_.tweak).digest();
  keys_.pads = pad + pad;
}

void Adiantum::encrypt(const Tweak& tweak, Bytes in, std::span<std::byte> out) const noexcept {
  const size_t left = in.size() - block_size;
  std::byte middle[block_size];
  (Block::of(&in[left]) + keys_.hash(tweak, in.data(), left)).store(middle);
  block_.encrypt_block(u8(middle));
  xchacha_.crypt(keys_.stream, nonce_of(middle), in.first(left), out.data());
  (Block::of(middle) - keys_.hash(tweak, out.data(), left)).store(&out[left]);
}

void Adiantum::decrypt(const Tweak& tweak, Bytes in, std::span<std::byte> out) const noexcept {
  const size_t left = in.size() - block_size;
  std::byte middle[block_size];
  (Block::of(&in[left]) + keys_.hash(tweak, in.data(), left)).store(middle);
  xchacha_.crypt(keys_.stream, nonce_of(middle), in.first(left), out.data());
  block_.decrypt_block(u8(middle));
  (Block::of(middle) - keys_.hash(tweak, out.data(), left)).store(&out[left]);
}

namespace {

class AdiantumCipher final : public SectorCipher {
 public:
  AdiantumCipher(XChaCha xchacha, const IvRule& rule, Bytes key, size_t sector_size)
      : adiantum_(xchacha, key), rule_(rule), sector_size_(sector_size) {}

  size_t sector_size() const noexcept override { return sector_size_; }
  std::string_view engine() const noexcept override { return "nettle"; }

  void decrypt(SectorNumber first, Bytes in, std::span<std::byte> out) const noexcept override {
    const RequestTraces wiped;
    decrypt_sectors(first, in, out);
  }
  void encrypt(SectorNumber first, Bytes in, std::span<std::byte> out) const noexcept override {
    const RequestTraces wiped;
    encrypt_sectors(first, in, out);
  }

 private:
  /* Not inline: the frame that is wiped is that of a call. */
  __attribute__((noinline)) void decrypt_sectors(SectorNumber first, Bytes in,
                                                 std::span<std::byte> out) const noexcept {
    for (size_t at = 0; at < in.size(); at += sector_size_) {
      adiantum_.decrypt(tweak(first.value + at / 512), in.subspan(at, sector_size_), out.subspan(at, sector_size_));
    }
  }
  __attribute__((noinline)) void encrypt_sectors(SectorNumber first, Bytes in,
                                                 std::span<std::byte> out) const noexcept {
    for (size_t at = 0; at < in.size(); at += sector_size_) {
      adiantum_.encrypt(tweak(first.value + at / 512), in.subspan(at, sector_size_), out.subspan(at, sector_size_));
    }
  }

  Adiantum::Tweak tweak(uint64_t number) const noexcept {
    Adiantum::Tweak tweak;
    rule_.lay_out(number, {u8(tweak.data()), tweak.size()});
    return tweak;
  }

  Adiantum adiantum_;
  IvRule rule_;
  size_t sector_size_;
};

} // namespace

std::shared_ptr<const SectorCipher> make_adiantum_cipher(const CipherSpec& spec, Bytes key, size_t sector_size) {
  const XChaCha xchacha{.rounds = spec.cipher == BlockCipher::xchacha12_aes ? 12U : 20U};
  return std::make_shared<const AdiantumCipher>(xchacha, iv_rule(spec, sector_size), key, sector_size);
}

} // namespace qluks
