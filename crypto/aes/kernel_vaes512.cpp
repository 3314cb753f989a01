/* SPDX-License-Identifier: BSD-3-Clause */
/* AES on 512-bit vectors: four blocks an instruction, one instruction a cycle.
 *
 * For CPUs with VAES, VPCLMULQDQ and AVX-512: Intel since Ice Lake, AMD since Zen 4.  The first generations of Intel's
 * lower their clock for it, there vaes256 ranks higher.  AES runs on port 0 alone while 512-bit vectors are in use, and
 * carry-less multiplications and shuffles on port 5, so tweaks cost Intel's AES no time; 32 registers hold all round
 * keys.  AMD has the multiplications on the units of AES and shifts beside them, and since Zen 5 starts two AES
 * instructions a cycle: vaes512shift is for those.
 */
#include "crypto/aes/kernel_x86.hpp"

#if defined(__GNUC__) && !defined(__clang__)
/* GCC 12's AVX-512 intrinsics use a variable that they leave undefined on purpose, and GCC warns of it (PR 105593). */
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "crypto/isa.hpp"

#define QLUKS_ISA QLUKS_ISA_VAES512

namespace qluks {
namespace {

struct Vector {
  static constexpr size_t lanes = 4;
  static constexpr size_t registers = 32;
  static constexpr size_t in_flight = 4; /* 1 a cycle, ready after 3 */
  static constexpr size_t wide = 16; /* 2 a cycle, ready after 4, and as many again to hide what is between groups */

  __m512i v;

  QLUKS_STEP static Vector load(const std::byte* p) noexcept { return {_mm512_loadu_si512(p)}; }
  QLUKS_STEP void store(std::byte* p) const noexcept { _mm512_storeu_si512(p, v); }

  /* Lane i to p + at[i]. */
  QLUKS_STEP void scatter(std::byte* p, const size_t* at) const noexcept {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + at[0]), _mm512_castsi512_si128(v));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + at[1]), _mm512_extracti64x2_epi64(v, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + at[2]), _mm512_extracti64x2_epi64(v, 2));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + at[3]), _mm512_extracti64x2_epi64(v, 3));
  }

  /* One block in every lane. */
  QLUKS_STEP static Vector broadcast(const std::byte* p) noexcept {
    return {_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
  }

  /* Exchange rows and columns of a square of blocks. */
  QLUKS_STEP static void transpose(Vector (&r)[4]) noexcept {
    const __m512i a = _mm512_shuffle_i32x4(r[0].v, r[1].v, 0x44); /* 00 01 10 11 */
    const __m512i b = _mm512_shuffle_i32x4(r[0].v, r[1].v, 0xee); /* 02 03 12 13 */
    const __m512i c = _mm512_shuffle_i32x4(r[2].v, r[3].v, 0x44); /* 20 21 30 31 */
    const __m512i d = _mm512_shuffle_i32x4(r[2].v, r[3].v, 0xee); /* 22 23 32 33 */
    r[0] = {_mm512_shuffle_i32x4(a, c, 0x88)};
    r[1] = {_mm512_shuffle_i32x4(a, c, 0xdd)};
    r[2] = {_mm512_shuffle_i32x4(b, d, 0x88)};
    r[3] = {_mm512_shuffle_i32x4(b, d, 0xdd)};
  }

  QLUKS_STEP friend Vector operator^(Vector a, Vector b) noexcept { return {_mm512_xor_si512(a.v, b.v)}; }
  QLUKS_STEP static Vector xor3(Vector a, Vector b, Vector c) noexcept {
    return {_mm512_ternarylogic_epi64(a.v, b.v, c.v, 0x96)};
  }

  QLUKS_STEP static Vector encrypt(Vector x, Vector k) noexcept { return {_mm512_aesenc_epi128(x.v, k.v)}; }
  QLUKS_STEP static Vector encrypt_last(Vector x, Vector k) noexcept { return {_mm512_aesenclast_epi128(x.v, k.v)}; }
  QLUKS_STEP static Vector decrypt(Vector x, Vector k) noexcept { return {_mm512_aesdec_epi128(x.v, k.v)}; }
  QLUKS_STEP static Vector decrypt_last(Vector x, Vector k) noexcept { return {_mm512_aesdeclast_epi128(x.v, k.v)}; }

  /* n, n + step, n + 2·step, … in the lower halves of the lanes. */
  QLUKS_STEP static Vector numbers(uint64_t n, uint64_t step) noexcept {
    const auto at = [n, step](uint64_t i) { return static_cast<long long>(n + i * step); };
    return {_mm512_set_epi64(0, at(3), 0, at(2), 0, at(1), 0, at(0))};
  }
  QLUKS_STEP static Vector shuffle(Vector x, Vector control) noexcept { return {_mm512_shuffle_epi8(x.v, control.v)}; }

  /* Carry-less products of 64-bit halves. */
  QLUKS_STEP static Vector multiply_low(Vector a, Vector b) noexcept {
    return {_mm512_clmulepi64_epi128(a.v, b.v, 0x00)};
  }
  QLUKS_STEP static Vector multiply_high(Vector a, Vector b) noexcept {
    return {_mm512_clmulepi64_epi128(a.v, b.v, 0x01)};
  }
  template <int Bytes>
  QLUKS_STEP static Vector shift_left(Vector x) noexcept {
    return {_mm512_bslli_epi128(x.v, Bytes)};
  }
  template <int Bytes>
  QLUKS_STEP static Vector shift_right(Vector x) noexcept {
    return {_mm512_bsrli_epi128(x.v, Bytes)};
  }

  /* Each 64-bit half by a count of its own, or all by the same. */
  QLUKS_STEP static Vector shift_halves_left(Vector x, Vector counts) noexcept {
    return {_mm512_sllv_epi64(x.v, counts.v)};
  }
  QLUKS_STEP static Vector shift_halves_right(Vector x, Vector counts) noexcept {
    return {_mm512_srlv_epi64(x.v, counts.v)};
  }
  template <int Bits>
  QLUKS_STEP static Vector shift_halves_left(Vector x) noexcept {
    return {_mm512_slli_epi64(x.v, Bits)};
  }
  template <int Bits>
  QLUKS_STEP static Vector shift_halves_right(Vector x) noexcept {
    return {_mm512_srli_epi64(x.v, Bits)};
  }
  QLUKS_STEP static Vector broadcast_half(const std::byte* p) noexcept {
    int64_t half;
    __builtin_memcpy(&half, p, sizeof half);
    return {_mm512_set1_epi64(half)};
  }
  QLUKS_STEP static Vector interleave_low(Vector a, Vector b) noexcept { return {_mm512_unpacklo_epi64(a.v, b.v)}; }
  QLUKS_STEP static Vector interleave_high(Vector a, Vector b) noexcept { return {_mm512_unpackhi_epi64(a.v, b.v)}; }

  /* The blocks one before those of `now`, given what stands before it. */
  QLUKS_STEP static Vector preceding(Vector before, Vector now) noexcept {
    return {_mm512_alignr_epi64(now.v, before.v, 6)};
  }
};

} // namespace
} // namespace qluks

#include "crypto/aes/vector_cbc.hpp"
#include "crypto/aes/vector_xts.hpp"
#include "crypto/aes/vector_xts_wide.hpp"

namespace qluks {
void xts_encrypt_vaes512(const SectorKeys& keys, const SectorRun& run) noexcept { xts<Direction::encrypt>(keys, run); }
void xts_decrypt_vaes512(const SectorKeys& keys, const SectorRun& run) noexcept { xts<Direction::decrypt>(keys, run); }
void xts_encrypt_vaes512shift(const SectorKeys& keys, const SectorRun& run) noexcept {
  xts_wide<Direction::encrypt>(keys, run);
}
void xts_decrypt_vaes512shift(const SectorKeys& keys, const SectorRun& run) noexcept {
  xts_wide<Direction::decrypt>(keys, run);
}
void cbc_encrypt_vaes512(const SectorKeys& keys, const SectorRun& run) noexcept { cbc_encrypt(keys, run); }
void cbc_decrypt_vaes512(const SectorKeys& keys, const SectorRun& run) noexcept { cbc_decrypt(keys, run); }

} // namespace qluks
