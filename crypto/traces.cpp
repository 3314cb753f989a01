/* SPDX-License-Identifier: BSD-3-Clause */
#include "crypto/traces.hpp"

#include "crypto/cpu.hpp"

namespace qluks {

/* By mnemonic: a compiler may leave out an intrinsic whose result nobody uses.  Registers 16 to 31 are not among the
 * clobbers since code that is compiled for the baseline does not know them; all are the caller's to save. */
void wipe_vector_registers() noexcept {
#if defined(__x86_64__)
  if (this_cpu().avx2) {
    __asm__ volatile("vzeroall" ::
                         : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
                           "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
  } else {
    __asm__ volatile(
        "pxor %%xmm0, %%xmm0; pxor %%xmm1, %%xmm1; pxor %%xmm2, %%xmm2; pxor %%xmm3, %%xmm3;"
        "pxor %%xmm4, %%xmm4; pxor %%xmm5, %%xmm5; pxor %%xmm6, %%xmm6; pxor %%xmm7, %%xmm7;"
        "pxor %%xmm8, %%xmm8; pxor %%xmm9, %%xmm9; pxor %%xmm10, %%xmm10; pxor %%xmm11, %%xmm11;"
        "pxor %%xmm12, %%xmm12; pxor %%xmm13, %%xmm13; pxor %%xmm14, %%xmm14; pxor %%xmm15, %%xmm15" ::
            : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
              "xmm13", "xmm14", "xmm15");
  }
  if (this_cpu().avx512) {
    __asm__ volatile(
        "vpxord %xmm16, %xmm16, %xmm16; vpxord %xmm17, %xmm17, %xmm17; vpxord %xmm18, %xmm18, %xmm18;"
        "vpxord %xmm19, %xmm19, %xmm19; vpxord %xmm20, %xmm20, %xmm20; vpxord %xmm21, %xmm21, %xmm21;"
        "vpxord %xmm22, %xmm22, %xmm22; vpxord %xmm23, %xmm23, %xmm23; vpxord %xmm24, %xmm24, %xmm24;"
        "vpxord %xmm25, %xmm25, %xmm25; vpxord %xmm26, %xmm26, %xmm26; vpxord %xmm27, %xmm27, %xmm27;"
        "vpxord %xmm28, %xmm28, %xmm28; vpxord %xmm29, %xmm29, %xmm29; vpxord %xmm30, %xmm30, %xmm30;"
        "vpxord %xmm31, %xmm31, %xmm31");
  }
#elif defined(__aarch64__)
  __asm__ volatile(
      "movi v0.2d, #0; movi v1.2d, #0; movi v2.2d, #0; movi v3.2d, #0; movi v4.2d, #0; movi v5.2d, #0; movi v6.2d, #0; "
      "movi v7.2d, #0;"
      "movi v8.2d, #0; movi v9.2d, #0; movi v10.2d, #0; movi v11.2d, #0; movi v12.2d, #0; movi v13.2d, #0; movi "
      "v14.2d, #0; movi v15.2d, #0;"
      "movi v16.2d, #0; movi v17.2d, #0; movi v18.2d, #0; movi v19.2d, #0; movi v20.2d, #0; movi v21.2d, #0; movi "
      "v22.2d, #0; movi v23.2d, #0;"
      "movi v24.2d, #0; movi v25.2d, #0; movi v26.2d, #0; movi v27.2d, #0; movi v28.2d, #0; movi v29.2d, #0; movi "
      "v30.2d, #0; movi v31.2d, #0;" ::
          : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16",
            "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31");
#endif
}

} // namespace qluks
