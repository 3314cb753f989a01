/* SPDX-License-Identifier: BSD-3-Clause */
/* The kernel for every CPU.  It is as fast as nettle's block functions, which use the AES instructions of x86, ARM
 * and POWER where nettle was built with them, and tables where not. */
#ifndef QLUKS_CRYPTO_AES_KERNEL_NETTLE_HPP
#define QLUKS_CRYPTO_AES_KERNEL_NETTLE_HPP

#include "crypto/aes/kernel.hpp"

namespace qluks {

void expand_key_nettle(std::span<const std::byte> key, AesSchedule& schedule) noexcept;
/* The encrypted IV of one sector. */
void make_iv_nettle(const SectorKeys& keys, uint64_t number, uint8_t iv[block_bytes]) noexcept;

SectorFn xts_encrypt_nettle, xts_decrypt_nettle, cbc_encrypt_nettle, cbc_decrypt_nettle;

} // namespace qluks

#endif
