/* SPDX-License-Identifier: BSD-3-Clause */
/* The vector kernel of AArch64: a class Vector and, compiled for it, the bodies that the kernels of x86-64 have. */
#ifndef QLUKS_CRYPTO_AES_KERNEL_ARMV8_HPP
#define QLUKS_CRYPTO_AES_KERNEL_ARMV8_HPP

#include "crypto/aes/kernel.hpp"

namespace qluks {

void expand_key_armv8(std::span<const std::byte> key, AesSchedule& schedule) noexcept;

SectorFn xts_encrypt_armv8, xts_decrypt_armv8, cbc_encrypt_armv8, cbc_decrypt_armv8;

} // namespace qluks

#endif
