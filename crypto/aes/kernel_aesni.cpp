/* SPDX-License-Identifier: BSD-3-Clause */
/* AES on 128-bit vectors, for every x86-64 CPU with AES instructions. */
#include <immintrin.h>

#include "crypto/aes/kernel_x86.hpp"
#include "crypto/isa.hpp"

#define QLUKS_ISA QLUKS_ISA_AESNI

namespace qluks {
namespace {

struct Vector {
  static constexpr size_t lanes = 1;
  static constexpr size_t registers = 16;
  static constexpr size_t in_flight = 8;
  static constexpr size_t wide = 8;

  __m128i v;

  QLUKS_STEP static Vector load(const std::byte* p) noexcept {
    return {_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))};
  }
  QLUKS_STEP void store(std::byte* p) const noexcept { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), v); }
  QLUKS_STEP void scatter(std::byte* p, const size_t* at) const noexcept { store(p + at[0]); }
  QLUKS_STEP static Vector broadcast(const std::byte* p) noexcept { return load(p); }
  QLUKS_STEP static void transpose(Vector (&)[1]) noexcept {}
  QLUKS_STEP static Vector columns(uint32_t word) noexcept { return {_mm_set1_epi32(static_cast<int>(word))}; }
  QLUKS_STEP uint32_t first_column() const noexcept { return static_cast<uint32_t>(_mm_cvtsi128_si32(v)); }

  QLUKS_STEP friend Vector operator^(Vector a, Vector b) noexcept { return {_mm_xor_si128(a.v, b.v)}; }
  QLUKS_STEP static Vector xor3(Vector a, Vector b, Vector c) noexcept { return a ^ (b ^ c); }

  QLUKS_STEP static Vector encrypt(Vector x, Vector k) noexcept { return {_mm_aesenc_si128(x.v, k.v)}; }
  QLUKS_STEP static Vector encrypt_last(Vector x, Vector k) noexcept { return {_mm_aesenclast_si128(x.v, k.v)}; }
  QLUKS_STEP static Vector decrypt(Vector x, Vector k) noexcept { return {_mm_aesdec_si128(x.v, k.v)}; }
  QLUKS_STEP static Vector decrypt_last(Vector x, Vector k) noexcept { return {_mm_aesdeclast_si128(x.v, k.v)}; }

  QLUKS_STEP static Vector numbers(uint64_t n, uint64_t /*step*/) noexcept {
    return {_mm_set_epi64x(0, static_cast<long long>(n))};
  }
  QLUKS_STEP static Vector shuffle(Vector x, Vector control) noexcept { return {_mm_shuffle_epi8(x.v, control.v)}; }

  QLUKS_STEP static Vector multiply_low(Vector a, Vector b) noexcept { return {_mm_clmulepi64_si128(a.v, b.v, 0x00)}; }
  QLUKS_STEP static Vector multiply_high(Vector a, Vector b) noexcept { return {_mm_clmulepi64_si128(a.v, b.v, 0x01)}; }
  template <int Bytes>
  QLUKS_STEP static Vector shift_left(Vector x) noexcept {
    return {_mm_bslli_si128(x.v, Bytes)};
  }
  template <int Bytes>
  QLUKS_STEP static Vector shift_right(Vector x) noexcept {
    return {_mm_bsrli_si128(x.v, Bytes)};
  }

  QLUKS_STEP static Vector preceding(Vector before, Vector /*now*/) noexcept { return before; }
};

} // namespace
} // namespace qluks

#include "crypto/aes/vector_cbc.hpp"
#include "crypto/aes/vector_key.hpp"
#include "crypto/aes/vector_xts.hpp"

namespace qluks {
void expand_key_aesni(std::span<const std::byte> key, AesSchedule& schedule) noexcept { expand_key(key, schedule); }
void xts_encrypt_aesni(const SectorKeys& keys, const SectorRun& run) noexcept { xts<Direction::encrypt>(keys, run); }
void xts_decrypt_aesni(const SectorKeys& keys, const SectorRun& run) noexcept { xts<Direction::decrypt>(keys, run); }
void cbc_encrypt_aesni(const SectorKeys& keys, const SectorRun& run) noexcept { cbc_encrypt(keys, run); }
void cbc_decrypt_aesni(const SectorKeys& keys, const SectorRun& run) noexcept { cbc_decrypt(keys, run); }

} // namespace qluks
