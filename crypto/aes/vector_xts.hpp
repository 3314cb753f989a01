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

#include "crypto/aes/vector_tweak.hpp"
#include "crypto/aes/vector_xts_interleaved.hpp"

namespace qluks {
namespace {

template <Direction D, class Keys>
QLUKS_STEP void xts_group(const Keys& keys, const Tweaks& tweaks, const std::byte* in, std::byte* out) noexcept {
  Vector x[Vector::in_flight];
#pragma GCC unroll 16
  for (size_t i = 0; i < Vector::in_flight; ++i) {
    x[i] = Vector::xor3(Vector::load(in + i * vector_bytes), tweaks.t[i], keys[0]);
  }
  middle_rounds<D>(x, keys);
#pragma GCC unroll 16
  for (size_t i = 0; i < Vector::in_flight; ++i) {
    aes_last_round<D>(x[i], keys[Keys::rounds] ^ tweaks.t[i]).store(out + i * vector_bytes);
  }
}

template <Direction D, class Keys>
QLUKS_STEP void xts_sector(const Keys& keys, Vector iv, const ByProducts& by, size_t sector_size, const std::byte* in,
                           std::byte* out) noexcept {
  Tweaks tweaks(iv, by);
  for (size_t at = 0;;) {
    prefetch_group(in + at);
    xts_group<D>(keys, tweaks, in + at, out + at);
    at += group_bytes;
    if (at == sector_size) break;
    tweaks.advance(by);
  }
}

template <Direction D, class Keys>
QLUKS_STEP void xts_batch(const Keys& keys, const std::byte (*ivs)[block_bytes], const ByProducts& by,
                          const SectorRun& batch) noexcept {
  for (size_t i = 0; i < batch.count; ++i) {
    const size_t at = i * batch.sector_size;
    xts_sector<D>(keys, Vector::broadcast(ivs[i]), by, batch.sector_size, batch.in + at, batch.out + at);
  }
}

template <Direction D, unsigned Rounds, size_t Batch>
QLUKS_ISA void xts_run(const SectorKeys& keys, const SectorRun& run) noexcept {
  const GroupKeys<Rounds> data(schedule_of<D>(keys));
  const ByProducts by;
  in_batches<Batch>(keys, run, [&](const SectorRun& batch, const std::byte(*ivs)[block_bytes]) QLUKS_STEP_LAMBDA {
    if constexpr (ByProducts::interleaved) {
      interleaved_batch<D>(data, ivs, by, batch);
    } else {
      xts_batch<D>(data, ivs, by, batch);
    }
  });
}

template <Direction D>
void xts(const SectorKeys& keys, const SectorRun& run) noexcept {
  with_rounds(keys, [&](auto rounds) {
    run.is_few() ? xts_run<D, rounds, few_sectors>(keys, run) : xts_run<D, rounds, iv_batch>(keys, run);
  });
}

} // namespace
} // namespace qluks

#endif
