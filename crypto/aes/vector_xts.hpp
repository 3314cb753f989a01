/* SPDX-License-Identifier: BSD-3-Clause */
/* XTS (IEEE 1619) as vector kernels do it.
 *
 *      C = E(P ⊕ T·xⁱ) ⊕ T·xⁱ        T: the sector's IV, encrypted; i: the block's number
 *
 * The first ⊕ shares its instruction with the first round key where there is a ⊕ of three, and the second goes into
 * the last round key: AESENCLAST(x, k) ⊕ T = AESENCLAST(x, k ⊕ T).
 */
#ifndef QLUKS_CRYPTO_AES_VECTOR_XTS_HPP
#define QLUKS_CRYPTO_AES_VECTOR_XTS_HPP

#include <algorithm>

#include "crypto/aes/vector_tweak.hpp"
#include "crypto/aes/vector_xts_interleaved.hpp"

namespace qluks {
namespace {

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

template <Direction D, unsigned Rounds, class Multiply>
QLUKS_STEP void xts_sector(const LocalKeys<Rounds>& keys, Vector iv, const Multiply& by, size_t sector_size,
                           const std::byte* in, std::byte* out) noexcept {
  Tweaks tweaks(iv, by);
  for (size_t at = 0;;) {
    prefetch_group(in + at);
    xts_group<D>(keys, tweaks, in + at, out + at);
    at += group_bytes;
    if (at == sector_size) break;
    tweaks.advance(by);
  }
}

template <Direction D, unsigned Rounds, class Multiply>
QLUKS_STEP void xts_batch(const LocalKeys<Rounds>& keys, const IvBatch& ivs, const Multiply& by,
                          const SectorRun& batch) noexcept {
  for (size_t i = 0; i < batch.count; ++i) {
    const size_t at = i * batch.sector_size;
    xts_sector<D>(keys, Vector::broadcast(ivs.iv[i]), by, batch.sector_size, batch.in + at, batch.out + at);
  }
}

template <Direction D, class Multiply, unsigned Rounds>
QLUKS_ISA void xts_run(const SectorKeys& keys, const SectorRun& run) noexcept {
  const VectorSchedule& schedule = keys.data.vector;
  const LocalKeys<Rounds> data(D == Direction::encrypt ? schedule.encrypt : schedule.decrypt);
  const Multiply by;
  IvBatch ivs;
  for (size_t done = 0; done < run.count; done += iv_batch) {
    const SectorRun batch = run.part(done, std::min(run.count - done, iv_batch));
    make_ivs(keys, batch, ivs);
    if constexpr (Multiply::interleaved) {
      interleaved_batch<D>(data, ivs, by, batch);
    } else {
      xts_batch<D>(data, ivs, by, batch);
    }
  }
  wipe_ivs(ivs, run.count);
}

template <Direction D, class Multiply = ByProducts>
void xts(const SectorKeys& keys, const SectorRun& run) noexcept {
  switch (keys.data.rounds) {
    case 10:
      return xts_run<D, Multiply, 10>(keys, run);
    case 12:
      return xts_run<D, Multiply, 12>(keys, run);
    default:
      return xts_run<D, Multiply, 14>(keys, run);
  }
}

} // namespace
} // namespace qluks

#endif
