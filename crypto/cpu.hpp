/* SPDX-License-Identifier: BSD-3-Clause */
/* What this CPU and its operating system let a program use. */
#ifndef QLUKS_CRYPTO_CPU_HPP
#define QLUKS_CRYPTO_CPU_HPP

namespace qluks {

/* A vector feature is set only if the operating system saves the registers it needs.  A test may build its own. */
struct CpuFeatures {
  bool aes = false; /* AES-NI with PCLMULQDQ and SSE4.1 on x86, AES and PMULL on AArch64 */
  bool avx2 = false;
  bool vaes = false;
  bool vpclmulqdq = false;
  bool avx512 = false; /* F, BW, DQ and VL together: no CPU with VAES lacks one of them */
  bool sha = false;    /* SHA-NI with SSE4.1 */

  /* The first generations with VAES and AVX-512 lower their clock, and their neighbours', when 512-bit vectors are
   * in use. */
  bool slow_zmm = false;

  /* AMD: carry-less products of vectors take the time of AES instructions, on the same units. */
  bool slow_clmul = false;
};

/* Asks the CPU. */
CpuFeatures detect_cpu() noexcept;

/* Asked once for the process. */
const CpuFeatures& this_cpu() noexcept;

} // namespace qluks

#endif
