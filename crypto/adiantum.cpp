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

#include <nettle/chacha.h>
#include <nettle/poly1305.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>

#include "crypto/iv_rule.hpp"

namespace qluks {

namespace {

using Bytes = std::span<const std::byte>;

constexpr size_t block_size = 16;
constexpr size_t nh_message_bytes = 1024;
constexpr size_t nh_passes = 4;
constexpr size_t nh_key_words = nh_message_bytes / 4 + (nh_passes - 1) * 4; /* each pass starts 4 words later */

const uint8_t* u8(const std::byte* bytes) noexcept { return reinterpret_cast<const uint8_t*>(bytes); }
uint8_t* u8(std::byte* bytes) noexcept { return reinterpret_cast<uint8_t*>(bytes); }

/* Between the order of the CPU and little-endian, both ways. */
template <class T>
T little_endian(T value) noexcept {
  if constexpr (std::endian::native == std::endian::little) return value;
  if constexpr (sizeof(T) == 4) return __builtin_bswap32(value);
  return static_cast<T>(__builtin_bswap64(value));
}

template <class T>
T load(const void* from) noexcept {
  T value;
  std::memcpy(&value, from, sizeof value);
  return little_endian(value);
}

/* A number modulo 2^128, stored in little-endian order. */
struct Block {
  uint64_t low = 0;
  uint64_t high = 0;

  static Block of(const void* bytes) noexcept {
    return {load<uint64_t>(bytes), load<uint64_t>(static_cast<const uint8_t*>(bytes) + 8)};
  }

  void store(void* to) const noexcept {
    const uint64_t words[2] = {little_endian(low), little_endian(high)};
    std::memcpy(to, words, sizeof words);
  }

  friend Block operator+(Block a, Block b) noexcept {
    const uint64_t sum = a.low + b.low;
    return {sum, a.high + b.high + (sum < a.low ? 1 : 0)};
  }
  friend Block operator-(Block a, Block b) noexcept {
    return {a.low - b.low, a.high - b.high - (a.low < b.low ? 1 : 0)};
  }
};

/* A value on the stack that is wiped when it goes. */
template <class T>
struct Wiped {
  T value{};
  ~Wiped() { wipe(std::as_writable_bytes(std::span(&value, 1))); }
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
    const uint32_t m[4] = {load<uint32_t>(message), load<uint32_t>(message + 4), load<uint32_t>(message + 8),
                           load<uint32_t>(message + 12)};
    for (size_t pass = 0; pass < nh_passes; ++pass) {
      const uint32_t* k = key + 4 * pass;
      sums[pass] += uint64_t{m[0] + k[0]} * (m[2] + k[2]) + uint64_t{m[1] + k[1]} * (m[3] + k[3]);
    }
  }
}

/* HChaCha20: the rounds of ChaCha20 without the addition of its input, which is taken off again. */
void hchacha20(const std::byte* key, const std::byte* nonce, uint8_t subkey[CHACHA_KEY_SIZE]) noexcept {
  Wiped<chacha_ctx> chacha;
  chacha_set_key(&chacha.value, u8(key));
  chacha_set_nonce(&chacha.value, u8(nonce + 8));
  chacha_set_counter(&chacha.value, u8(nonce));
  const chacha_ctx input = {{chacha.value.state[0], chacha.value.state[1], chacha.value.state[2], chacha.value.state[3],
                             0, 0, 0, 0, 0, 0, 0, 0, chacha.value.state[12], chacha.value.state[13],
                             chacha.value.state[14], chacha.value.state[15]}};
  Wiped<std::array<uint8_t, CHACHA_BLOCK_SIZE>> stream;
  chacha_crypt(&chacha.value, CHACHA_BLOCK_SIZE, stream.value.data(), stream.value.data());
  for (size_t i = 0; i < 8; ++i) {
    const size_t word = i < 4 ? i : i + 8;
    const uint32_t out = little_endian(load<uint32_t>(stream.value.data() + 4 * word) - input.state[word]);
    std::memcpy(subkey + 4 * i, &out, sizeof out);
  }
}

/* `nonce` is the first 16 bytes of it, `nonce_end` the other 8. */
void xchacha20(const std::byte* key, const std::byte* nonce, uint64_t nonce_end, size_t length, std::byte* out,
               const std::byte* in) noexcept {
  Wiped<std::array<uint8_t, CHACHA_KEY_SIZE>> subkey;
  hchacha20(key, nonce, subkey.value.data());
  Wiped<chacha_ctx> chacha;
  chacha_set_key(&chacha.value, subkey.value.data());
  const uint64_t end = little_endian(nonce_end);
  chacha_set_nonce(&chacha.value, reinterpret_cast<const uint8_t*>(&end));
  chacha_crypt(&chacha.value, length, u8(out), u8(in));
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
SecureBuffer Adiantum::derive_keys(Bytes key) {
  SecureBuffer derived(sizeof(DerivedKeys));
  const std::byte nonce[block_size] = {std::byte{1}};
  xchacha20(key.data(), nonce, 0, derived.size(), derived.data(), derived.data());
  return derived;
}

Adiantum::Adiantum(Bytes key) : Adiantum(key, derive_keys(key)) {}

Adiantum::Adiantum(Bytes key, const SecureBuffer& derived_bytes)
    : memory_(sizeof(Keys)),
      keys_(*new (memory_.data()) Keys),
      block_(BlockCipher::aes, derived_bytes.span().first(key_bytes)) {
  const auto& derived = *reinterpret_cast<const DerivedKeys*>(derived_bytes.data());
  std::copy(key.begin(), key.end(), keys_.stream);
  set_poly1305_key(keys_.tweak, derived.tweak);
  set_poly1305_key(keys_.message, derived.message);
  for (size_t i = 0; i < nh_key_words; ++i) keys_.nh[i] = load<uint32_t>(derived.nh + 4 * i);
  const Block pad = Poly1305(keys_.tweak).digest();
  keys_.pads = pad + pad;
}

void Adiantum::encrypt(const Tweak& tweak, Bytes in, std::span<std::byte> out) const noexcept {
  const size_t left = in.size() - block_size;
  std::byte middle[block_size];
  (Block::of(&in[left]) + keys_.hash(tweak, in.data(), left)).store(middle);
  block_.encrypt_block(u8(middle));
  xchacha20(keys_.stream, middle, 1, left, out.data(), in.data());
  (Block::of(middle) - keys_.hash(tweak, out.data(), left)).store(&out[left]);
}

void Adiantum::decrypt(const Tweak& tweak, Bytes in, std::span<std::byte> out) const noexcept {
  const size_t left = in.size() - block_size;
  std::byte middle[block_size];
  (Block::of(&in[left]) + keys_.hash(tweak, in.data(), left)).store(middle);
  xchacha20(keys_.stream, middle, 1, left, out.data(), in.data());
  block_.decrypt_block(u8(middle));
  (Block::of(middle) - keys_.hash(tweak, out.data(), left)).store(&out[left]);
}

namespace {

class AdiantumCipher final : public SectorCipher {
 public:
  AdiantumCipher(const IvRule& rule, Bytes key, size_t sector_size)
      : adiantum_(key), rule_(rule), sector_size_(sector_size) {}

  size_t sector_size() const noexcept override { return sector_size_; }
  std::string_view engine() const noexcept override { return "nettle"; }

 private:
  void decrypt_sectors(SectorNumber first, Bytes in, std::span<std::byte> out) const noexcept override {
    for (size_t at = 0; at < in.size(); at += sector_size_) {
      adiantum_.decrypt(tweak(first.value + at / 512), in.subspan(at, sector_size_), out.subspan(at, sector_size_));
    }
  }

  void encrypt_sectors(SectorNumber first, Bytes in, std::span<std::byte> out) const noexcept override {
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
  return std::make_shared<const AdiantumCipher>(iv_rule(spec, sector_size), key, sector_size);
}

} // namespace qluks
