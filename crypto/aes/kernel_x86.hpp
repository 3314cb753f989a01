/* SPDX-License-Identifier: BSD-3-Clause */
/* The vector kernels of x86-64.
 *
 *      file                 vector    needs                         for
 *      kernel_aesni.cpp     128 bits  AES-NI, PCLMULQDQ, SSE4.1     every x86-64 CPU since about 2011
 *      kernel_vaes256.cpp   256 bits  VAES, VPCLMULQDQ, AVX2        AMD Zen 3, Intel Alder Lake; Ice and Tiger Lake
 *      kernel_vaes512.cpp   512 bits  VAES, VPCLMULQDQ, AVX-512     Intel Sapphire Rapids, AMD Zen 4 and later
 *
 * Those of VAES are there twice: vaes256shift and vaes512shift make the tweaks of XTS in the way that AMD's CPUs like.
 *
 * Each is a class Vector and, compiled for it, the bodies in vector_iv.hpp, vector_xts.hpp and vector_cbc.hpp.
 */
#ifndef QLUKS_CRYPTO_AES_KERNEL_X86_HPP
#define QLUKS_CRYPTO_AES_KERNEL_X86_HPP

#include "crypto/aes/kernel.hpp"

namespace qluks {

void expand_key_aesni(std::span<const std::byte> key, AesSchedule& schedule) noexcept;

SectorFn xts_encrypt_aesni, xts_decrypt_aesni, cbc_encrypt_aesni, cbc_decrypt_aesni;
SectorFn xts_encrypt_vaes256, xts_decrypt_vaes256, cbc_encrypt_vaes256, cbc_decrypt_vaes256;
SectorFn xts_encrypt_vaes256shift, xts_decrypt_vaes256shift;
SectorFn xts_encrypt_vaes512shift, xts_decrypt_vaes512shift;
SectorFn xts_encrypt_vaes512, xts_decrypt_vaes512, cbc_encrypt_vaes512, cbc_decrypt_vaes512;

} // namespace qluks

#endif
