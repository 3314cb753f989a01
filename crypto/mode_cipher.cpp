/* SPDX-License-Identifier: BSD-3-Clause */
/* The IV of a sector is made in three steps, all of them fixed when the cipher is made:
 *
 *      count    number = sector · factor + addend     iv_rule.hpp
 *      lay out  number as a block
 *      encrypt  with each of the IV keys in turn: those of ESSIV or EBOIV, then XTS's tweak key
 *
 * CTR takes the IV as its first counter block, XCTR combines it with each counter block; to LRW it is the number of the
 * first block; ECB takes none.
 */
#include "crypto/mode_cipher.hpp"

#include <nettle/cbc.h>
#include <nettle/ctr.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <vector>

#include "crypto/aes/kernel.hpp"
#include "crypto/aes/xts_run.hpp"
#include "crypto/block_key.hpp"
#include "crypto/iv_rule.hpp"
#include "crypto/lrw_tweak.hpp"
#include "crypto/traces.hpp"

namespace qluks {

namespace {

using Bytes = std::span<const std::byte>;

void xor_block(uint8_t* block, const uint8_t* other, size_t size) noexcept {
  for (size_t i = 0; i < size; ++i) block[i] ^= other[i];
}

template <bool encrypts>
void turn_block(const BlockKey& key, uint8_t* block) noexcept {
  encrypts ? key.encrypt_block(block) : key.decrypt_block(block);
}

struct IvKey {
  BlockKey key;
  bool combine = false;               /* what is encrypted with the result, by exclusive or */
  std::optional<LrwTweak> tweak = {}; /* takes the block as a number, and its tweak is encrypted */

  void apply(uint8_t* block) const noexcept {
    uint8_t before[block_bytes];
    if (tweak) tweak->make(block, block);
    std::copy_n(block, key.block_bytes(), before);
    key.encrypt_block(block);
    if (combine) xor_block(block, before, key.block_bytes());
  }
};

struct ModeKeys {
  BlockKey data;
  IvRule rule;
  std::vector<IvKey> iv;
  std::optional<LrwTweak> lrw;

  void make_iv(uint64_t sector, uint8_t* block) const noexcept {
    rule.lay_out(sector, {block, data.block_bytes()});
    for (const IvKey& key : iv) key.apply(block);
  }
};

using ModeFn = void(const ModeKeys& keys, const SectorRun& run) noexcept;

/* Calls `mode(iv, length, out, in)` for each sector. */
template <class Mode>
void for_each_sector(const ModeKeys& keys, const SectorRun& run, Mode mode) noexcept {
  uint8_t iv[block_bytes];
  for (size_t i = 0; i < run.count; ++i) {
    keys.make_iv(run.first + i * run.step(), iv);
    mode(iv, run.sector_size, reinterpret_cast<uint8_t*>(run.out + i * run.sector_size),
         reinterpret_cast<const uint8_t*>(run.in + i * run.sector_size));
  }
}

/* Calls `turn(iv, number, block)` for each block, in place; `number` counts from 0 in each sector, and what is done to
 * `iv` stays until the next sector. */
template <class Turn>
void for_each_block(const ModeKeys& keys, const SectorRun& run, Turn turn) noexcept {
  const size_t size = keys.data.block_bytes();
  for_each_sector(keys, run, [&](uint8_t* iv, size_t length, uint8_t* out, const uint8_t* in) {
    if (out != in) std::copy_n(in, length, out);
    for (uint32_t number = 0; number < length / size; ++number) turn(iv, number, out + number * size);
  });
}

void cbc_encrypt_run(const ModeKeys& keys, const SectorRun& run) noexcept {
  const BlockKey& key = keys.data;
  for_each_sector(keys, run, [&key](uint8_t* iv, size_t length, uint8_t* out, const uint8_t* in) {
    cbc_encrypt(key.encrypt_context(), key.encrypt_blocks(), key.block_bytes(), iv, length, out, in);
  });
}

void cbc_decrypt_run(const ModeKeys& keys, const SectorRun& run) noexcept {
  const BlockKey& key = keys.data;
  for_each_sector(keys, run, [&key](uint8_t* iv, size_t length, uint8_t* out, const uint8_t* in) {
    cbc_decrypt(key.decrypt_context(), key.decrypt_blocks(), key.block_bytes(), iv, length, out, in);
  });
}

/* Either direction. */
void ctr_run(const ModeKeys& keys, const SectorRun& run) noexcept {
  const BlockKey& key = keys.data;
  for_each_sector(keys, run, [&key](uint8_t* iv, size_t length, uint8_t* out, const uint8_t* in) {
    ctr_crypt(key.encrypt_context(), key.encrypt_blocks(), key.block_bytes(), iv, length, out, in);
  });
}

/* Either direction: block i of a sector, from 1, is combined with IV ⊕ i encrypted. */
void xctr_run(const ModeKeys& keys, const SectorRun& run) noexcept {
  for_each_block(keys, run, [&keys](uint8_t* iv, uint32_t number, uint8_t* block) {
    uint8_t stream[block_bytes];
    std::copy_n(iv, block_bytes, stream);
    for (size_t i = 0; i < sizeof number; ++i) stream[i] ^= static_cast<uint8_t>((number + 1) >> (8 * i));
    keys.data.encrypt_block(stream);
    xor_block(block, stream, block_bytes);
  });
}

/* Either direction: the stream is the IV encrypted, that encrypted, … */
void ofb_run(const ModeKeys& keys, const SectorRun& run) noexcept {
  for_each_block(keys, run, [&keys](uint8_t* iv, uint32_t /*number*/, uint8_t* block) {
    keys.data.encrypt_block(iv);
    xor_block(block, iv, keys.data.block_bytes());
  });
}

/* The stream is the block of cipher text before, encrypted. */
void cfb_encrypt_run(const ModeKeys& keys, const SectorRun& run) noexcept {
  for_each_block(keys, run, [&keys](uint8_t* iv, uint32_t /*number*/, uint8_t* block) {
    keys.data.encrypt_block(iv);
    xor_block(block, iv, keys.data.block_bytes());
    std::copy_n(block, keys.data.block_bytes(), iv);
  });
}

void cfb_decrypt_run(const ModeKeys& keys, const SectorRun& run) noexcept {
  for_each_block(keys, run, [&keys](uint8_t* iv, uint32_t /*number*/, uint8_t* block) {
    uint8_t encrypted[block_bytes];
    std::copy_n(block, keys.data.block_bytes(), encrypted);
    keys.data.encrypt_block(iv);
    xor_block(block, iv, keys.data.block_bytes());
    std::copy_n(encrypted, keys.data.block_bytes(), iv);
  });
}

/* CBC whose next IV is plain text ⊕ cipher text. */
template <bool encrypts>
void pcbc_run(const ModeKeys& keys, const SectorRun& run) noexcept {
  for_each_block(keys, run, [&keys](uint8_t* iv, uint32_t /*number*/, uint8_t* block) {
    const size_t size = keys.data.block_bytes();
    uint8_t before[block_bytes];
    std::copy_n(block, size, before);
    if (encrypts) xor_block(block, iv, size);
    turn_block<encrypts>(keys.data, block);
    if (!encrypts) xor_block(block, iv, size);
    std::copy_n(before, size, iv);
    xor_block(iv, block, size);
  });
}

/* XTS with tweaks of LRW. */
template <bool encrypts>
void lrw_run(const ModeKeys& keys, const SectorRun& run) noexcept {
  for_each_sector(keys, run, [&keys](uint8_t* number, size_t length, uint8_t* out, const uint8_t* in) {
    if (out != in) std::copy_n(in, length, out);
    uint8_t tweak[block_bytes];
    keys.lrw->make(number, tweak);
    for (uint8_t* block = out; block != out + length; block += block_bytes) {
      xor_block(block, tweak, block_bytes);
      turn_block<encrypts>(keys.data, block);
      xor_block(block, tweak, block_bytes);
      keys.lrw->advance(number, tweak);
    }
  });
}

void ecb_encrypt_run(const ModeKeys& keys, const SectorRun& run) noexcept {
  keys.data.encrypt_blocks()(keys.data.encrypt_context(), run.count * run.sector_size,
                             reinterpret_cast<uint8_t*>(run.out), reinterpret_cast<const uint8_t*>(run.in));
}

void ecb_decrypt_run(const ModeKeys& keys, const SectorRun& run) noexcept {
  keys.data.decrypt_blocks()(keys.data.decrypt_context(), run.count * run.sector_size,
                             reinterpret_cast<uint8_t*>(run.out), reinterpret_cast<const uint8_t*>(run.in));
}

void xts_encrypt_run(const ModeKeys& keys, const SectorRun& run) noexcept {
  xts_run(run, keys.data.encrypt_blocks(), keys.data.encrypt_context(),
          [&keys](uint64_t sector, uint8_t* iv) { keys.make_iv(sector, iv); });
}

void xts_decrypt_run(const ModeKeys& keys, const SectorRun& run) noexcept {
  xts_run(run, keys.data.decrypt_blocks(), keys.data.decrypt_context(),
          [&keys](uint64_t sector, uint8_t* iv) { keys.make_iv(sector, iv); });
}

struct ModeFunctions {
  ModeFn* encrypt;
  ModeFn* decrypt;
};

ModeFunctions mode_functions(CipherMode mode) noexcept {
  switch (mode) {
    case CipherMode::cbc:
      return {cbc_encrypt_run, cbc_decrypt_run};
    case CipherMode::ecb:
      return {ecb_encrypt_run, ecb_decrypt_run};
    case CipherMode::ctr:
      return {ctr_run, ctr_run};
    case CipherMode::xctr:
      return {xctr_run, xctr_run};
    case CipherMode::pcbc:
      return {pcbc_run<true>, pcbc_run<false>};
    case CipherMode::cfb:
      return {cfb_encrypt_run, cfb_decrypt_run};
    case CipherMode::ofb:
      return {ofb_run, ofb_run};
    case CipherMode::lrw:
      return {lrw_run<true>, lrw_run<false>};
    default:
      return {xts_encrypt_run, xts_decrypt_run};
  }
}

class ModeCipher final : public SectorCipher {
 public:
  ModeCipher(ModeKeys keys, ModeFunctions functions, size_t sector_size)
      : keys_(std::move(keys)), functions_(functions), sector_size_(sector_size) {}

  size_t sector_size() const noexcept override { return sector_size_; }
  std::string_view engine() const noexcept override { return "nettle"; }

  void decrypt(SectorNumber first, Bytes in, std::span<std::byte> out) const noexcept override {
    const RequestTraces wiped;
    functions_.decrypt(keys_, {first.value, sector_size_, in.size() / sector_size_, in.data(), out.data()});
  }

  void encrypt(SectorNumber first, Bytes in, std::span<std::byte> out) const noexcept override {
    const RequestTraces wiped;
    functions_.encrypt(keys_, {first.value, sector_size_, in.size() / sector_size_, in.data(), out.data()});
  }

 private:
  ModeKeys keys_;
  ModeFunctions functions_;
  size_t sector_size_;
};

/* What encrypts the data, and what makes the tweaks, if the mode has any. */
struct SplitKey {
  Bytes data;
  Bytes tweak;
};

SplitKey split_key(const CipherSpec& spec, Bytes key) noexcept {
  const size_t data_bytes = key.size() - spec.tweak_key_bytes(key.size());
  return {key.first(data_bytes), key.subspan(data_bytes)};
}

/* dm-crypt has a block of zeroes encrypted by the cipher in its mode, with the number as the IV.  By XTS and LRW that
 * block comes out as the tweak encrypted and combined with the tweak. */
void add_eboiv_keys(const CipherSpec& spec, Bytes key, std::vector<IvKey>& keys) {
  const auto [data, tweak] = split_key(spec, key);
  if (tweak.empty() || spec.use == CipherUse::key_slot) {
    keys.push_back({BlockKey(spec.cipher, key)});
    return;
  }
  if (spec.mode == CipherMode::xts) keys.push_back({BlockKey(spec.cipher, tweak)});
  keys.push_back({.key = BlockKey(spec.cipher, data), .combine = true});
  if (spec.mode == CipherMode::lrw) keys.back().tweak.emplace(tweak);
}

std::vector<IvKey> make_iv_keys(const CipherSpec& spec, Bytes key) {
  std::vector<IvKey> keys;
  if (spec.iv == IvKind::essiv) keys.push_back({BlockKey(spec.cipher, hash_of(*spec.essiv_hash, key).span())});
  if (spec.iv == IvKind::eboiv) add_eboiv_keys(spec, key, keys);
  if (spec.mode == CipherMode::xts) keys.push_back({BlockKey(spec.cipher, split_key(spec, key).tweak)});
  return keys;
}

} // namespace

std::shared_ptr<const SectorCipher> make_mode_cipher(const CipherSpec& spec, Bytes key, size_t sector_size) {
  const auto [data, tweak] = split_key(spec, key);
  ModeKeys keys{{spec.cipher, data}, iv_rule(spec, sector_size), make_iv_keys(spec, key), {}};
  if (spec.mode == CipherMode::lrw) keys.lrw.emplace(tweak);
  return std::make_shared<const ModeCipher>(std::move(keys), mode_functions(spec.mode), sector_size);
}

} // namespace qluks
