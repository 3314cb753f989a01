/* SPDX-License-Identifier: BSD-3-Clause */
/* XTS with vectors of one block, where the tweaks take as many instructions as a tenth of the rounds and more.
 *
 * An AES instruction can start on two of the three units that also do everything else to vectors.  A CPU decides when
 * it decodes an instruction which unit will execute it: the other work of a group in one piece is spread over all
 * three and keeps AES waiting, but a little of it between two rounds goes where no AES is.  So the tweaks of the next
 * group, be it of this sector or of the next one, are made between the rounds of this group.
 */
#ifndef QLUKS_CRYPTO_AES_VECTOR_XTS_INTERLEAVED_HPP
#define QLUKS_CRYPTO_AES_VECTOR_XTS_INTERLEAVED_HPP

#include "crypto/aes/vector_tweak.hpp"

namespace qluks {
namespace {

/* The tweaks of the next group of the same sector … */
struct SameSector {
  const ByProducts& by;

  QLUKS_STEP Vector operator()(Vector t, size_t /*i*/) const noexcept { return by.next(t); }
};

/* … and of the first group of another one. */
struct NewSector {
  Vector iv;
  const ByProducts& by;

  QLUKS_STEP Vector operator()(Vector /*t*/, size_t i) const noexcept { return by.first(iv, i); }
};

template <Direction D, class Keys, class Next>
QLUKS_STEP void interleaved_group(const Keys& keys, Tweaks& tweaks, const Next& next, const std::byte* in,
                                  std::byte* out) noexcept {
  constexpr unsigned rounds = Keys::rounds;
  static_assert(Vector::in_flight < rounds);
  Vector x[Vector::in_flight];
  Vector last_key[Vector::in_flight];
#pragma GCC unroll 16
  for (size_t i = 0; i < Vector::in_flight; ++i) {
    x[i] = Vector::xor3(Vector::load(in + i * vector_bytes), tweaks.t[i], keys[0]);
  }
#pragma GCC unroll 16
  for (unsigned r = 1; r < rounds; ++r) {
    aes_rounds<D>(x, keys[r]);
    if (r > Vector::in_flight) continue;
    const size_t i = r - 1;
    last_key[i] = keys[rounds] ^ tweaks.t[i];
    tweaks.t[i] = next(tweaks.t[i], i);
  }
#pragma GCC unroll 16
  for (size_t i = 0; i < Vector::in_flight; ++i) {
    aes_last_round<D>(x[i], last_key[i]).store(out + i * vector_bytes);
  }
}

/* `tweaks` are those of this sector before, and of the one with `next_iv` afterwards. */
template <Direction D, class Keys>
QLUKS_STEP void interleaved_sector(const Keys& keys, Tweaks& tweaks, Vector next_iv, const ByProducts& by,
                                   size_t sector_size, const std::byte* in, std::byte* out) noexcept {
  size_t at = 0;
  for (; at != sector_size - group_bytes; at += group_bytes) {
    prefetch_group(in + at);
    interleaved_group<D>(keys, tweaks, SameSector{by}, in + at, out + at);
  }
  prefetch_group(in + at);
  interleaved_group<D>(keys, tweaks, NewSector{next_iv, by}, in + at, out + at);
}

template <Direction D, class Keys>
QLUKS_STEP void interleaved_batch(const Keys& keys, const std::byte (*ivs)[block_bytes], const ByProducts& by,
                                  const SectorRun& batch) noexcept {
  /* Copies: the compiler would read a member again after each write to `out`. */
  const size_t sector_size = batch.sector_size;
  const size_t count = batch.count;
  const std::byte* in = batch.in;
  std::byte* out = batch.out;
  Tweaks tweaks(Vector::broadcast(ivs[0]), by);
  for (size_t i = 1; i <= count; ++i) {
    const Vector next_iv = Vector::broadcast(ivs[i < count ? i : 0]); /* after the last one, any */
    interleaved_sector<D>(keys, tweaks, next_iv, by, sector_size, in, out);
    in += sector_size;
    out += sector_size;
  }
}

} // namespace
} // namespace qluks

#endif
