/* SPDX-License-Identifier: BSD-3-Clause */
/* AES on 128-bit vectors, for every AArch64 CPU with the Cryptography Extension. */
#include "crypto/aes/kernel_armv8.hpp"

#include <arm_neon.h>

#include "crypto/isa.hpp"

#define QLUKS_ISA QLUKS_ISA_ARMV8

namespace qluks {
namespace {

QLUKS_STEP uint8x16_t zero() noexcept { return vdupq_n_u8(0); }

/* An instruction of ARM's adds its key first, one of x86, for which the bodies are written, at the end.  So the last ⊕
 * of a Vector is left to whoever takes it: to the next round, which does it in the same instruction.  Where nothing is
 * left, `pending` is a zero that the compiler knows of. */
struct Vector {
  static constexpr size_t lanes = 1;
  static constexpr size_t registers = 32;
  static constexpr size_t in_flight = 8;
  static constexpr size_t wide = 8;

  uint8x16_t v;
  uint8x16_t pending;

  QLUKS_STEP uint8x16_t value() const noexcept { return veorq_u8(v, pending); }
  QLUKS_STEP static Vector of(uint8x16_t value) noexcept { return {value, zero()}; }

  QLUKS_STEP static Vector load(const std::byte* p) noexcept {
    return of(vld1q_u8(reinterpret_cast<const uint8_t*>(p)));
  }
  QLUKS_STEP void store(std::byte* p) const noexcept { vst1q_u8(reinterpret_cast<uint8_t*>(p), value()); }
  QLUKS_STEP void scatter(std::byte* p, const size_t* at) const noexcept { store(p + at[0]); }
  QLUKS_STEP static Vector broadcast(const std::byte* p) noexcept { return load(p); }
  QLUKS_STEP static void transpose(Vector (&)[1]) noexcept {}
  QLUKS_STEP static Vector columns(uint32_t word) noexcept { return of(vreinterpretq_u8_u32(vdupq_n_u32(word))); }
  QLUKS_STEP uint32_t first_column() const noexcept { return vgetq_lane_u32(vreinterpretq_u32_u8(value()), 0); }

  QLUKS_STEP friend Vector operator^(Vector a, Vector b) noexcept { return {a.value(), b.value()}; }
  QLUKS_STEP static Vector xor3(Vector a, Vector b, Vector c) noexcept { return (a ^ b) ^ c; }

  QLUKS_STEP static Vector encrypt(Vector x, Vector k) noexcept {
    return {vaesmcq_u8(vaeseq_u8(x.v, x.pending)), k.value()};
  }
  QLUKS_STEP static Vector encrypt_last(Vector x, Vector k) noexcept { return {vaeseq_u8(x.v, x.pending), k.value()}; }
  QLUKS_STEP static Vector decrypt(Vector x, Vector k) noexcept {
    return {vaesimcq_u8(vaesdq_u8(x.v, x.pending)), k.value()};
  }
  QLUKS_STEP static Vector decrypt_last(Vector x, Vector k) noexcept { return {vaesdq_u8(x.v, x.pending), k.value()}; }

  QLUKS_STEP static Vector numbers(uint64_t n, uint64_t /*step*/) noexcept {
    return of(vreinterpretq_u8_u64(vcombine_u64(vcreate_u64(n), vcreate_u64(0))));
  }
  QLUKS_STEP static Vector shuffle(Vector x, Vector control) noexcept {
    return of(vqtbl1q_u8(x.value(), control.value()));
  }

  QLUKS_STEP static Vector multiply_low(Vector a, Vector b) noexcept { return multiply(half<0>(a), half<0>(b)); }
  QLUKS_STEP static Vector multiply_high(Vector a, Vector b) noexcept { return multiply(half<1>(a), half<0>(b)); }
  template <int Bytes>
  QLUKS_STEP static Vector shift_left(Vector x) noexcept {
    return of(vextq_u8(zero(), x.value(), 16 - Bytes));
  }
  template <int Bytes>
  QLUKS_STEP static Vector shift_right(Vector x) noexcept {
    return of(vextq_u8(x.value(), zero(), Bytes));
  }

  QLUKS_STEP static Vector preceding(Vector before, Vector /*now*/) noexcept { return before; }

 private:
  template <int N>
  QLUKS_STEP static poly64_t half(Vector x) noexcept {
    return static_cast<poly64_t>(vgetq_lane_u64(vreinterpretq_u64_u8(x.value()), N));
  }
  QLUKS_STEP static Vector multiply(poly64_t a, poly64_t b) noexcept {
    return of(vreinterpretq_u8_p128(vmull_p64(a, b)));
  }
};

} // namespace
} // namespace qluks

#include "crypto/aes/vector_cbc.hpp"
#include "crypto/aes/vector_key.hpp"
#include "crypto/aes/vector_xts.hpp"

namespace qluks {
void expand_key_armv8(std::span<const std::byte> key, AesSchedule& schedule) noexcept { expand_key(key, schedule); }
void xts_encrypt_armv8(const SectorKeys& keys, const SectorRun& run) noexcept { xts<Direction::encrypt>(keys, run); }
void xts_decrypt_armv8(const SectorKeys& keys, const SectorRun& run) noexcept { xts<Direction::decrypt>(keys, run); }
void cbc_encrypt_armv8(const SectorKeys& keys, const SectorRun& run) noexcept { cbc_encrypt(keys, run); }
void cbc_decrypt_armv8(const SectorKeys& keys, const SectorRun& run) noexcept { cbc_decrypt(keys, run); }

} // namespace qluks
