/* SPDX-License-Identifier: BSD-3-Clause */
/* Twelve registers in flight hide the latency of any CPU (3 or 4 cycles, at most two instructions a cycle).  They are
 * written down as assembly, so that no compiler can spill or drop one. */
#include "bench/limits.hpp"

#if defined(__x86_64__)

#include <immintrin.h>

namespace qluks::bench {

namespace {

#define QLUKS_TWELVE(op, r)                                                                                            \
  op " %%" r "15, %%" r "0, %%" r "0\n\t" op " %%" r "15, %%" r "1, %%" r "1\n\t" op " %%" r "15, %%" r "2, %%" r      \
     "2\n\t" op " %%" r "15, %%" r "3, %%" r "3\n\t" op " %%" r "15, %%" r "4, %%" r "4\n\t" op " %%" r "15, %%" r     \
     "5, %%" r "5\n\t" op " %%" r "15, %%" r "6, %%" r "6\n\t" op " %%" r "15, %%" r "7, %%" r "7\n\t" op " %%" r      \
     "15, %%" r "8, %%" r "8\n\t" op " %%" r "15, %%" r "9, %%" r "9\n\t" op " %%" r "15, %%" r "10, %%" r "10\n\t" op \
     " %%" r "15, %%" r "11, %%" r "11\n\t"

#define QLUKS_LIMIT(function, isa, op, r)                                                                             \
  __attribute__((target(isa))) void function(size_t rounds) {                                                         \
    for (size_t i = 0; i < rounds; ++i) {                                                                             \
      __asm__ volatile(QLUKS_TWELVE(op, r)::                                                                          \
                           : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
                             "xmm11", "xmm15");                                                                       \
    }                                                                                                                 \
    _mm256_zeroupper();                                                                                               \
  }

QLUKS_LIMIT(run_zmm, "avx512f,vaes", "vaesdec", "zmm")
QLUKS_LIMIT(run_ymm, "avx2,vaes", "vaesdec", "ymm")
QLUKS_LIMIT(run_xmm, "avx,aes", "vaesdec", "xmm")

constexpr Limit all[] = {
    {"zmm", [](const CpuFeatures& cpu) { return cpu.vaes && cpu.avx512; }, 64, run_zmm},
    {"ymm", [](const CpuFeatures& cpu) { return cpu.vaes && cpu.avx2; }, 32, run_ymm},
    {"xmm", [](const CpuFeatures& cpu) { return cpu.aes && cpu.avx2; }, 16, run_xmm},
};

} // namespace

std::span<const Limit> limits() { return all; }

} // namespace qluks::bench

#else

namespace qluks::bench {

std::span<const Limit> limits() { return {}; }

} // namespace qluks::bench

#endif
