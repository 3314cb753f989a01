/* SPDX-License-Identifier: BSD-3-Clause */
#include <nettle/aes.h>
#include <nettle/nettle-meta.h>

#include <new>

#include "crypto/aes/kernel_nettle.hpp"

namespace qluks {

namespace {

static_assert(sizeof(aes256_ctx) <= sizeof(NettleSchedule::encrypt) && alignof(aes256_ctx) <= 16);

const nettle_cipher& nettle_aes(size_t key_bytes) noexcept {
  switch (key_bytes) {
    case AES128_KEY_SIZE:
      return nettle_aes128;
    case AES192_KEY_SIZE:
      return nettle_aes192;
    default:
      return nettle_aes256;
  }
}

} // namespace

void expand_key_nettle(std::span<const std::byte> key, AesSchedule& schedule) noexcept {
  const nettle_cipher& aes = nettle_aes(key.size());
  const auto* key_data = reinterpret_cast<const uint8_t*>(key.data());
  NettleSchedule& nettle = *new (&schedule.nettle) NettleSchedule;
  aes.set_encrypt_key(nettle.encrypt, key_data);
  aes.set_decrypt_key(nettle.decrypt, key_data);
  nettle.encrypt_blocks = aes.encrypt;
  nettle.decrypt_blocks = aes.decrypt;
  schedule.rounds = aes_rounds(key.size());
}

void make_iv_nettle(const SectorKeys& keys, uint64_t number, uint8_t iv[block_bytes]) noexcept {
  lay_out_iv(keys.iv_layout, number, iv);
  for (size_t i = 0; i < keys.iv_keys; ++i) {
    const NettleSchedule& key = keys.iv[i].nettle;
    key.encrypt_blocks(key.encrypt, block_bytes, iv, iv);
  }
}

} // namespace qluks
