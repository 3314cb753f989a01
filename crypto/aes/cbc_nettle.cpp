/* SPDX-License-Identifier: BSD-3-Clause */
/* CBC by nettle.  Encryption is one block after the other, which no interface of nettle's can change. */
#include <nettle/cbc.h>

#include "crypto/aes/kernel_nettle.hpp"

namespace qluks {

void cbc_encrypt_nettle(const SectorKeys& keys, const SectorRun& run) noexcept {
  const NettleSchedule& data = keys.data.nettle;
  uint8_t iv[block_bytes];
  for (size_t i = 0; i < run.count; ++i) {
    make_iv_nettle(keys, run.first + i * run.step(), iv);
    cbc_encrypt(data.encrypt, data.encrypt_blocks, block_bytes, iv, run.sector_size,
                reinterpret_cast<uint8_t*>(run.out + i * run.sector_size),
                reinterpret_cast<const uint8_t*>(run.in + i * run.sector_size));
  }
}

void cbc_decrypt_nettle(const SectorKeys& keys, const SectorRun& run) noexcept {
  const NettleSchedule& data = keys.data.nettle;
  uint8_t iv[block_bytes];
  for (size_t i = 0; i < run.count; ++i) {
    make_iv_nettle(keys, run.first + i * run.step(), iv);
    cbc_decrypt(data.decrypt, data.decrypt_blocks, block_bytes, iv, run.sector_size,
                reinterpret_cast<uint8_t*>(run.out + i * run.sector_size),
                reinterpret_cast<const uint8_t*>(run.in + i * run.sector_size));
  }
}

} // namespace qluks
