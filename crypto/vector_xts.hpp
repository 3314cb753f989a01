/* SPDX-License-Identifier: BSD-3-Clause */
/* XTS (IEEE 1619) as vector kernels do it.
 *
 *      C = E(P ⊕ T) ⊕ T        T of block i = T·xⁱ in GF(2^128) mod x^128 + x^7 + x^2 + x + 1
 *
 * A group is Vector::in_flight vectors, or G blocks.  The tweaks of a sector's first group are T·x^0 … T·x^(G-1), all
 * made from T at once.  From group to group each is multiplied by x^G on its own:
 *
 *      first group   T·x^0   T·x^1   …  T·x^(G-1)
 *                      ↓ ·x^G  ↓ ·x^G     ↓ ·x^G
 *      second group  T·x^G   …
 *
 * so no tweak waits for its neighbour.  The first ⊕T shares its instruction with the first round key, and the second
 * goes into the last round key: AESENCLAST(x, k) ⊕ T = AESENCLAST(x, k ⊕ T).
 */
#ifndef QLUKS_CRYPTO_VECTOR_XTS_HPP
#define QLUKS_CRYPTO_VECTOR_XTS_HPP

#include <algorithm>

#include "crypto/vector_iv.hpp"

namespace qluks {
namespace {

/* x^0, x^1, … as 64-bit polynomials, each in the lower half of a lane. */
struct alignas(64) Powers {
  uint64_t power[group_blocks][2];
};

constexpr Powers make_powers() noexcept {
  Powers powers{};
  for (size_t i = 0; i < group_blocks; ++i) powers.power[i][0] = uint64_t{1} << i;
  return powers;
}

inline constexpr Powers powers_of_x = make_powers();
inline constexpr uint64_t reduction[2] = {0x87, 0}; /* x^128 = x^7 + x^2 + x + 1 */

QLUKS_STEP Vector load_constant(const uint64_t (&halves)[2]) noexcept {
  return Vector::broadcast(reinterpret_cast<const std::byte*>(halves));
}

/* x^i, x^(i+1), … */
QLUKS_STEP Vector load_powers(size_t i) noexcept {
  return Vector::load(reinterpret_cast<const std::byte*>(powers_of_x.power[i]));
}

/* T times the powers of x in the lanes of `power`.  With T = high·x^64 + low:
 *
 *      low·p                             64 + 64 bits
 *      high·p          at x^64           its upper half is past x^128: times 0x87, back at x^0
 */
QLUKS_STEP Vector multiply_by_power(Vector t, Vector power, Vector poly) noexcept {
  const Vector low = Vector::multiply_low(t, power);
  const Vector high = Vector::multiply_high(t, power);
  return Vector::xor3(low, Vector::shift_left<8>(high), Vector::multiply_high(high, poly));
}

/* Times x^G, a whole number of bytes: what is shifted out comes back times 0x87. */
QLUKS_STEP Vector next_group(Vector t, Vector poly) noexcept {
  static_assert(group_blocks % 8 == 0);
  constexpr int bytes = group_blocks / 8;
  return Vector::shift_left<bytes>(t) ^ Vector::multiply_low(Vector::shift_right<16 - bytes>(t), poly);
}

/* The tweaks of a group. */
struct Tweaks {
  Vector t[Vector::in_flight];

  QLUKS_STEP Tweaks(Vector first, Vector poly) noexcept {
    t[0] = Vector::lanes == 1 ? first : multiply_by_power(first, load_powers(0), poly);
#pragma GCC unroll 16
    for (size_t i = 1; i < Vector::in_flight; ++i) {
      t[i] = multiply_by_power(first, load_powers(i * Vector::lanes), poly);
    }
  }

  QLUKS_STEP void advance(Vector poly) noexcept {
#pragma GCC unroll 16
    for (size_t i = 0; i < Vector::in_flight; ++i) t[i] = next_group(t[i], poly);
  }
};

template <Direction D, unsigned Rounds>
QLUKS_STEP void xts_group(const LocalKeys<Rounds>& keys, const Tweaks& tweaks, const std::byte* in,
                          std::byte* out) noexcept {
  Vector x[Vector::in_flight];
#pragma GCC unroll 16
  for (size_t i = 0; i < Vector::in_flight; ++i) {
    x[i] = Vector::xor3(Vector::load(in + i * vector_bytes), tweaks.t[i], keys.key[0]);
  }
  middle_rounds<D>(x, keys);
#pragma GCC unroll 16
  for (size_t i = 0; i < Vector::in_flight; ++i) {
    aes_last_round<D>(x[i], keys.key[Rounds] ^ tweaks.t[i]).store(out + i * vector_bytes);
  }
}

template <Direction D, unsigned Rounds>
QLUKS_STEP void xts_sector(const LocalKeys<Rounds>& keys, const std::byte* tweak, size_t sector_size,
                           const std::byte* in, std::byte* out) noexcept {
  const Vector poly = load_constant(reduction);
  Tweaks tweaks(Vector::broadcast(tweak), poly);
  for (size_t at = 0;;) {
    prefetch_group(in + at);
    xts_group<D>(keys, tweaks, in + at, out + at);
    at += group_bytes;
    if (at == sector_size) break;
    tweaks.advance(poly);
  }
}

template <Direction D, unsigned Rounds>
QLUKS_ISA void xts_run(const SectorKeys& keys, const SectorRun& run) noexcept {
  const VectorSchedule& schedule = keys.data.vector;
  const LocalKeys<Rounds> data(D == Direction::encrypt ? schedule.encrypt : schedule.decrypt);
  IvBatch ivs;
  for (size_t done = 0; done < run.count; done += iv_batch) {
    const SectorRun batch = run.part(done, std::min(run.count - done, iv_batch));
    make_ivs(keys, batch, ivs);
    for (size_t i = 0; i < batch.count; ++i) {
      const size_t at = i * run.sector_size;
      xts_sector<D>(data, ivs.iv[i], run.sector_size, batch.in + at, batch.out + at);
    }
  }
  wipe_ivs(ivs);
}

template <Direction D>
void xts(const SectorKeys& keys, const SectorRun& run) noexcept {
  switch (keys.data.rounds) {
    case 10:
      return xts_run<D, 10>(keys, run);
    case 12:
      return xts_run<D, 12>(keys, run);
    default:
      return xts_run<D, 14>(keys, run);
  }
}

} // namespace
} // namespace qluks

#endif
