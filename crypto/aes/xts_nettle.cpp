/* SPDX-License-Identifier: BSD-3-Clause */
#include "crypto/aes/kernel_nettle.hpp"
#include "crypto/aes/xts_run.hpp"

namespace qluks {

void xts_encrypt_nettle(const SectorKeys& keys, const SectorRun& run) noexcept {
  xts_run(run, keys.data.nettle.encrypt_blocks, keys.data.nettle.encrypt,
          [&keys](uint64_t number, uint8_t* iv) { make_iv_nettle(keys, number, iv); });
}

void xts_decrypt_nettle(const SectorKeys& keys, const SectorRun& run) noexcept {
  xts_run(run, keys.data.nettle.decrypt_blocks, keys.data.nettle.decrypt,
          [&keys](uint64_t number, uint8_t* iv) { make_iv_nettle(keys, number, iv); });
}

} // namespace qluks
