/* SPDX-License-Identifier: BSD-3-Clause */
#include "crypto/cpu.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include <cstdint>
#include <cstring>

namespace qluks {

#if defined(__x86_64__)

namespace {

struct CpuidLeaf {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

/* All zero when the CPU has no such leaf. */
CpuidLeaf cpuid(uint32_t leaf) noexcept {
  CpuidLeaf r;
  __get_cpuid_count(leaf, 0, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

constexpr bool has_bit(uint32_t word, unsigned bit) noexcept { return ((word >> bit) & 1U) != 0; }

/* XCR0: the register files that the operating system saves.  By mnemonic: the intrinsic would need -mxsave. */
uint64_t read_xcr0() noexcept {
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}

/* Every family of AMD's with VAES (25, 26), and Hygon's, which are of the same design. */
bool is_slow_clmul_maker(const CpuidLeaf& maker) noexcept {
  const auto is = [&maker](const char(&name)[13]) {
    return std::memcmp(&maker.ebx, name, 4) == 0 && std::memcmp(&maker.edx, name + 4, 4) == 0 &&
           std::memcmp(&maker.ecx, name + 8, 4) == 0;
  };
  return is("AuthenticAMD") || is("HygonGenuine");
}

/* Ice Lake and Tiger Lake, by family 6 model.  Their successors (Rocket Lake, Sapphire Rapids and later) and AMD's
 * CPUs are not affected. */
bool is_slow_zmm_model(uint32_t signature) noexcept {
  const uint32_t family = (signature >> 8) & 0xf;
  const uint32_t model = ((signature >> 4) & 0xf) | ((signature >> 12) & 0xf0);
  if (family != 6) return false;
  switch (model) {
    case 0x6a: /* Ice Lake-SP */
    case 0x6c: /* Ice Lake-D */
    case 0x7d: /* Ice Lake */
    case 0x7e: /* Ice Lake-L */
    case 0x8c: /* Tiger Lake-L */
    case 0x8d: /* Tiger Lake */
    case 0x9d: /* Ice Lake NNPI */
      return true;
    default:
      return false;
  }
}

} // namespace

CpuFeatures detect_cpu() noexcept {
  const CpuidLeaf basic = cpuid(1);
  const CpuidLeaf extended = cpuid(7);
  const bool sse41 = has_bit(basic.ecx, 19) && has_bit(basic.ecx, 9); /* with SSSE3 */
  const bool osxsave = has_bit(basic.ecx, 27);
  const uint64_t xcr0 = osxsave ? read_xcr0() : 0;
  const bool ymm_saved = (xcr0 & 0x06) == 0x06; /* SSE and AVX state */
  const bool zmm_saved = (xcr0 & 0xe6) == 0xe6; /* and opmask, upper halves, zmm16…31 */

  CpuFeatures cpu;
  cpu.aes = sse41 && has_bit(basic.ecx, 25) && has_bit(basic.ecx, 1); /* PCLMULQDQ */
  cpu.sha = sse41 && has_bit(extended.ebx, 29);
  cpu.avx2 = ymm_saved && has_bit(basic.ecx, 28) && has_bit(extended.ebx, 5);
  cpu.vaes = cpu.avx2 && has_bit(extended.ecx, 9);
  cpu.vpclmulqdq = cpu.avx2 && has_bit(extended.ecx, 10);
  cpu.avx512 = cpu.avx2 && zmm_saved && has_bit(extended.ebx, 16) && has_bit(extended.ebx, 17) &&
               has_bit(extended.ebx, 30) && has_bit(extended.ebx, 31);
  cpu.slow_clmul = is_slow_clmul_maker(cpuid(0));
  cpu.slow_zmm = is_slow_zmm_model(basic.eax);
  return cpu;
}

#elif defined(__aarch64__) && defined(__linux__)

CpuFeatures detect_cpu() noexcept {
  CpuFeatures cpu;
  constexpr unsigned long needed = HWCAP_AES | HWCAP_PMULL;
  cpu.aes = (getauxval(AT_HWCAP) & needed) == needed;
  return cpu;
}

#else

CpuFeatures detect_cpu() noexcept { return {}; }

#endif

const CpuFeatures& this_cpu() noexcept {
  static const CpuFeatures cpu = detect_cpu();
  return cpu;
}

} // namespace qluks
