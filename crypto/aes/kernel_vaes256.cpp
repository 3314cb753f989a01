/* SPDX-License-Identifier: BSD-3-Clause */
/* AES on 256-bit vectors: two blocks an instruction, two instructions a cycle on CPUs with two AES units.
 *
 * For CPUs with VAES and VPCLMULQDQ but without AVX-512, or with an AVX-512 that costs clock speed.  16 registers do
 * not hold the round keys, which come from memory; one load feeds a round of all vectors in flight.  vaes256shift is
 * for AMD's CPUs, as vaes512shift is.
 */
#include <immintrin.h>

#include "crypto/aes/kernel_x86.hpp"
#include "crypto/isa.hpp"

#define QLUKS_ISA QLUKS_ISA_VAES256

namespace qluks {
namespace {

struct Vector {
  static constexpr size_t lanes = 2;
  static constexpr size_t registers = 16;
  static constexpr size_t in_flight = 4; /* more would not leave registers for the tweaks */
  static constexpr size_t wide = 8;      /* with tweaks in memory */

  __m256i v;

  QLUKS_STEP static Vector load(const std::byte* p) noexcept {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))};
  }
  QLUKS_STEP void store(std::byte* p) const noexcept { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  QLUKS_STEP void scatter(std::byte* p, const size_t* at) const noexcept {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + at[0]), _mm256_castsi256_si128(v));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + at[1]), _mm256_extracti128_si256(v, 1));
  }
  QLUKS_STEP static Vector broadcast(const std::byte* p) noexcept {
    return {_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
  }

  QLUKS_STEP static void transpose(Vector (&r)[2]) noexcept {
    const __m256i first = _mm256_permute2x128_si256(r[0].v, r[1].v, 0x20);
    r[1] = {_mm256_permute2x128_si256(r[0].v, r[1].v, 0x31)};
    r[0] = {first};
  }

  QLUKS_STEP friend Vector operator^(Vector a, Vector b) noexcept { return {_mm256_xor_si256(a.v, b.v)}; }
  QLUKS_STEP static Vector xor3(Vector a, Vector b, Vector c) noexcept { return a ^ (b ^ c); }

  QLUKS_STEP static Vector encrypt(Vector x, Vector k) noexcept { return {_mm256_aesenc_epi128(x.v, k.v)}; }
  QLUKS_STEP static Vector encrypt_last(Vector x, Vector k) noexcept { return {_mm256_aesenclast_epi128(x.v, k.v)}; }
  QLUKS_STEP static Vector decrypt(Vector x, Vector k) noexcept { return {_mm256_aesdec_epi128(x.v, k.v)}; }
  QLUKS_STEP static Vector decrypt_last(Vector x, Vector k) noexcept { return {_mm256_aesdeclast_epi128(x.v, k.v)}; }

  QLUKS_STEP static Vector numbers(uint64_t n, uint64_t step) noexcept {
    return {_mm256_set_epi64x(0, static_cast<long long>(n + step), 0, static_cast<long long>(n))};
  }
  QLUKS_STEP static Vector shuffle(Vector x, Vector control) noexcept { return {_mm256_shuffle_epi8(x.v, control.v)}; }

  QLUKS_STEP static Vector multiply_low(Vector a, Vector b) noexcept {
    return {_mm256_clmulepi64_epi128(a.v, b.v, 0x00)};
  }
  QLUKS_STEP static Vector multiply_high(Vector a, Vector b) noexcept {
    return {_mm256_clmulepi64_epi128(a.v, b.v, 0x01)};
  }
  template <int Bytes>
  QLUKS_STEP static Vector shift_left(Vector x) noexcept {
    return {_mm256_bslli_epi128(x.v, Bytes)};
  }
  template <int Bytes>
  QLUKS_STEP static Vector shift_right(Vector x) noexcept {
    return {_mm256_bsrli_epi128(x.v, Bytes)};
  }

  QLUKS_STEP static Vector shift_halves_left(Vector x, Vector counts) noexcept {
    return {_mm256_sllv_epi64(x.v, counts.v)};
  }
  QLUKS_STEP static Vector shift_halves_right(Vector x, Vector counts) noexcept {
    return {_mm256_srlv_epi64(x.v, counts.v)};
  }
  template <int Bits>
  QLUKS_STEP static Vector shift_halves_left(Vector x) noexcept {
    return {_mm256_slli_epi64(x.v, Bits)};
  }
  template <int Bits>
  QLUKS_STEP static Vector shift_halves_right(Vector x) noexcept {
    return {_mm256_srli_epi64(x.v, Bits)};
  }
  QLUKS_STEP static Vector broadcast_half(const std::byte* p) noexcept {
    long long half;
    __builtin_memcpy(&half, p, sizeof half);
    return {_mm256_set1_epi64x(half)};
  }
  QLUKS_STEP static Vector interleave_low(Vector a, Vector b) noexcept { return {_mm256_unpacklo_epi64(a.v, b.v)}; }
  QLUKS_STEP static Vector interleave_high(Vector a, Vector b) noexcept { return {_mm256_unpackhi_epi64(a.v, b.v)}; }

  QLUKS_STEP static Vector preceding(Vector before, Vector now) noexcept {
    return {_mm256_permute2x128_si256(before.v, now.v, 0x21)};
  }
};

} // namespace
} // namespace qluks

#include "crypto/aes/vector_cbc.hpp"
#include "crypto/aes/vector_xts.hpp"
#include "crypto/aes/vector_xts_wide.hpp"

namespace qluks {
void xts_encrypt_vaes256(const SectorKeys& keys, const SectorRun& run) noexcept { xts<Direction::encrypt>(keys, run); }
void xts_decrypt_vaes256(const SectorKeys& keys, const SectorRun& run) noexcept { xts<Direction::decrypt>(keys, run); }
void xts_encrypt_vaes256shift(const SectorKeys& keys, const SectorRun& run) noexcept {
  xts_wide<Direction::encrypt>(keys, run);
}
void xts_decrypt_vaes256shift(const SectorKeys& keys, const SectorRun& run) noexcept {
  xts_wide<Direction::decrypt>(keys, run);
}
void cbc_encrypt_vaes256(const SectorKeys& keys, const SectorRun& run) noexcept { cbc_encrypt(keys, run); }
void cbc_decrypt_vaes256(const SectorKeys& keys, const SectorRun& run) noexcept { cbc_decrypt(keys, run); }

} // namespace qluks
