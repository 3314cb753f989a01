/* SPDX-License-Identifier: BSD-3-Clause */
/* The IV of a sector is made in three steps, all of them fixed when the cipher is made:
 *
 *      count    number = sector · factor + addend     benbi counts blocks from 1, eboiv bytes, the others sectors
 *      lay out  LE64(number) at the start of the block, or BE64(number) at its end
 *      encrypt  with each of the IV keys in turn: those of ESSIV or EBOIV, then XTS's tweak key
 *
 * CTR takes the IV as its first counter block; ECB takes none.
 */
#include "crypto/mode_cipher.hpp"

#include <nettle/cbc.h>
#include <nettle/ctr.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "base/wire.hpp"
#include "crypto/block_key.hpp"
#include "crypto/kernel.hpp"
#include "crypto/xts_run.hpp"

namespace qluks {

namespace {

using Bytes = std::span<const std::byte>;

struct IvRule {
  uint64_t factor = 1;
  uint64_t addend = 0;
  uint64_t mask = ~uint64_t{0};
  bool big_endian = false;
};

IvRule iv_rule(const CipherSpec& spec, size_t sector_size) noexcept {
  /* A block of CTR is a byte to dm-crypt. */
  const bool bytewise = spec.mode == CipherMode::ctr && spec.use == CipherUse::payload;
  switch (spec.iv) {
    case IvKind::none:
    case IvKind::null:
      return {.mask = 0};
    case IvKind::plain:
      return {.mask = 0xffffffff};
    case IvKind::plain64be:
      return {.big_endian = true};
    case IvKind::benbi:
      return {.factor = bytewise ? 512 : 512 / block_bytes_of(spec.cipher), .addend = 1, .big_endian = true};
    case IvKind::eboiv:
      return {.factor = sector_size}; /* of a number in units of 512 bytes: as dm-crypt has it */
    default:
      return {};
  }
}

struct IvKey {
  BlockKey key;
  bool combine = false; /* what is encrypted with the result, by exclusive or */

  void apply(uint8_t* block) const noexcept {
    uint8_t before[block_bytes];
    std::copy_n(block, key.block_bytes(), before);
    key.encrypt_block(block);
    for (size_t i = 0; combine && i < key.block_bytes(); ++i) block[i] ^= before[i];
  }
};

struct ModeKeys {
  BlockKey data;
  IvRule rule;
  std::vector<IvKey> iv;

  void make_iv(uint64_t sector, uint8_t* block) const noexcept {
    const uint64_t number = (sector * rule.factor + rule.addend) & rule.mask;
    const size_t block_size = data.block_bytes();
    be64 laid_out = rule.big_endian ? number : __builtin_bswap64(number);
    std::memset(block, 0, block_size);
    std::memcpy(rule.big_endian ? block + block_size - sizeof laid_out : block, &laid_out, sizeof laid_out);
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

 private:
  void decrypt_sectors(SectorNumber first, Bytes in, std::span<std::byte> out) const noexcept override {
    functions_.decrypt(keys_, {first.value, sector_size_, in.size() / sector_size_, in.data(), out.data()});
  }

  void encrypt_sectors(SectorNumber first, Bytes in, std::span<std::byte> out) const noexcept override {
    functions_.encrypt(keys_, {first.value, sector_size_, in.size() / sector_size_, in.data(), out.data()});
  }

  ModeKeys keys_;
  ModeFunctions functions_;
  size_t sector_size_;
};

/* dm-crypt has a block of zeroes encrypted by the cipher in its mode, with the number as the IV.  By XTS that block
 * comes out as the tweak encrypted and combined with the tweak. */
void add_eboiv_keys(const CipherSpec& spec, Bytes key, std::vector<IvKey>& keys) {
  if (spec.mode != CipherMode::xts || spec.use == CipherUse::key_slot) {
    keys.push_back({BlockKey(spec.cipher, key)});
    return;
  }
  keys.push_back({BlockKey(spec.cipher, key.subspan(key.size() / 2))});
  keys.push_back({.key = BlockKey(spec.cipher, key.first(key.size() / 2)), .combine = true});
}

std::vector<IvKey> make_iv_keys(const CipherSpec& spec, Bytes key) {
  std::vector<IvKey> keys;
  if (spec.iv == IvKind::essiv) keys.push_back({BlockKey(spec.cipher, hash_of(*spec.essiv_hash, key).span())});
  if (spec.iv == IvKind::eboiv) add_eboiv_keys(spec, key, keys);
  if (spec.mode == CipherMode::xts) keys.push_back({BlockKey(spec.cipher, key.subspan(key.size() / 2))});
  return keys;
}

} // namespace

std::shared_ptr<const SectorCipher> make_mode_cipher(const CipherSpec& spec, Bytes key, size_t sector_size) {
  const Bytes data_key = spec.mode == CipherMode::xts ? key.first(key.size() / 2) : key;
  ModeKeys keys{{spec.cipher, data_key}, iv_rule(spec, sector_size), make_iv_keys(spec, key)};
  return std::make_shared<const ModeCipher>(std::move(keys), mode_functions(spec.mode), sector_size);
}

} // namespace qluks
