/* SPDX-License-Identifier: BSD-3-Clause */
/* XTS for CPUs that start two rounds of AES a cycle, and have units for shifts beside them: AMD's.
 *
 * Two rounds a cycle, each ready after four, want eight vectors in flight at least; what a group of twice as many ends
 * with is hidden by what it begins with.  So many leave no registers for round keys, one load of which feeds sixteen
 * rounds, and none for tweaks, which wait in memory.  Those of the next group are made between the rounds of this one:
 *
 *      rounds of group g        1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | …
 *      tweaks of group g + 1      0   1   2   3   4   5   6   7      pairs of vectors
 *
 * Few sectors are not worth that: half as many vectors, and tweaks in registers.
 */
#ifndef QLUKS_CRYPTO_AES_VECTOR_XTS_WIDE_HPP
#define QLUKS_CRYPTO_AES_VECTOR_XTS_WIDE_HPP

#include <array>
#include <utility>

#include "crypto/aes/vector_tweak_pair.hpp"

namespace qluks {
namespace {

/* Twice as far: so much faster the data is wanted. */
inline constexpr size_t wide_prefetch_bytes = 2 * prefetch_bytes;

template <size_t N>
struct RegisterTweaks {
  static constexpr size_t vectors = N;

  Vector t[N];

  QLUKS_STEP Vector operator[](size_t i) const noexcept { return t[i]; }
  QLUKS_STEP void put(size_t i, Vector tweak) noexcept { t[i] = tweak; }
};

struct alignas(64) TweakMemory {
  std::byte tweaks[2][Vector::wide * vector_bytes];
};

struct StoredTweaks {
  static constexpr size_t vectors = Vector::wide;

  std::byte* at;

  QLUKS_STEP Vector operator[](size_t i) const noexcept { return Vector::load(at + i * vector_bytes); }
  QLUKS_STEP void put(size_t i, Vector tweak) noexcept { tweak.store(at + i * vector_bytes); }
};

/* The IVs of a batch.  The sector after the last one has any of them: its tweaks are made, and not used. */
struct BatchIvs {
  const std::byte (*ivs)[block_bytes];
  size_t count;

  QLUKS_STEP const std::byte* operator[](size_t sector) const noexcept { return ivs[sector < count ? sector : 0]; }
};

/* Makes the tweaks of a group, pair by pair: of as many sectors as it begins, from their IVs, or if that is none from
 * where the group before has ended. */
template <class Tweaks, size_t Sectors>
struct NextTweaks {
  static constexpr size_t pairs = Tweaks::vectors / 2;

  TweakPair& pair;
  Tweaks& tweaks;
  std::array<const std::byte*, Sectors> ivs;

  QLUKS_STEP void operator()(size_t i) const noexcept {
    pair = at(i);
    tweaks.put(2 * i, pair.first_vector());
    tweaks.put(2 * i + 1, pair.second_vector());
  }

  QLUKS_STEP void make_all() const noexcept {
#pragma GCC unroll 16
    for (size_t i = 0; i < pairs; ++i) (*this)(i);
  }

 private:
  QLUKS_STEP TweakPair at(size_t i) const noexcept {
    if constexpr (Sectors != 0) {
      constexpr size_t each = pairs / Sectors;
      if (i % each == 0) return TweakPair::first(ivs[i / each]);
    }
    return pair.next();
  }
};

/* N vectors, of which `tweaks` has at least that many. */
template <Direction D, size_t N, class Keys, class Tweaks, class Next>
QLUKS_STEP void wide_group(const Keys& keys, const Tweaks& tweaks, const Next& next, const std::byte* in,
                           std::byte* out) noexcept {
  static_assert(Tweaks::vectors / 2 < Keys::rounds);
  const Vector first_key = keys[0];
  Vector x[N];
#pragma GCC unroll 16
  for (size_t i = 0; i < N; ++i) x[i] = Vector::xor3(Vector::load(in + i * vector_bytes), first_key, tweaks[i]);
#pragma GCC unroll 16
  for (unsigned r = 1; r < Keys::rounds; ++r) {
    aes_rounds<D>(x, keys[r]);
    if (r <= Tweaks::vectors / 2) next(r - 1);
  }
  const Vector last_key = keys[Keys::rounds]; /* once: the compiler would read it again after each write */
#pragma GCC unroll 16
  for (size_t i = 0; i < N; ++i) {
    aes_last_round<D>(x[i], last_key ^ tweaks[i]).store(out + i * vector_bytes);
  }
}

/* Sectors of one group or several. */
template <Direction D, class Keys, class Tweaks>
QLUKS_STEP void wide_sectors(const Keys& keys, const BatchIvs& ivs, Tweaks now, Tweaks later,
                             const SectorRun& batch) noexcept {
  constexpr size_t bytes = Tweaks::vectors * vector_bytes;
  const size_t sector_size = batch.sector_size; /* copies: the compiler would read a member again after each write */
  const std::byte* in = batch.in;
  std::byte* out = batch.out;
  TweakPair pair;
  NextTweaks<Tweaks, 1>{pair, now, {ivs[0]}}.make_all();
  for (size_t sector = 0; sector < ivs.count; ++sector) {
    for (size_t at = bytes; at < sector_size; at += bytes) {
      prefetch_group<bytes, wide_prefetch_bytes>(in);
      wide_group<D, Tweaks::vectors>(keys, now, NextTweaks<Tweaks, 0>{pair, later, {}}, in, out);
      std::swap(now, later);
      in += bytes;
      out += bytes;
    }
    prefetch_group<bytes, wide_prefetch_bytes>(in);
    wide_group<D, Tweaks::vectors>(keys, now, NextTweaks<Tweaks, 1>{pair, later, {ivs[sector + 1]}}, in, out);
    std::swap(now, later);
    in += bytes;
    out += bytes;
  }
}

/* Sectors of half a group, two at a time. */
template <Direction D, class Keys>
QLUKS_STEP void wide_half_sectors(const Keys& keys, const BatchIvs& ivs, StoredTweaks now, StoredTweaks later,
                                  const SectorRun& batch) noexcept {
  constexpr size_t bytes = Vector::wide * vector_bytes;
  using FromTwo = NextTweaks<StoredTweaks, 2>;
  const std::byte* in = batch.in;
  std::byte* out = batch.out;
  TweakPair pair;
  FromTwo{pair, now, {ivs[0], ivs[1]}}.make_all();
  for (size_t sector = 0; sector + 1 < ivs.count; sector += 2) {
    prefetch_group<bytes, wide_prefetch_bytes>(in);
    wide_group<D, Vector::wide>(keys, now, FromTwo{pair, later, {ivs[sector + 2], ivs[sector + 3]}}, in, out);
    std::swap(now, later);
    in += bytes;
    out += bytes;
  }
  if (ivs.count % 2 != 0) {
    wide_group<D, Vector::wide / 2>(keys, now, FromTwo{pair, later, {ivs[0], ivs[0]}}, in, out);
  }
}

template <Direction D, unsigned Rounds>
QLUKS_ISA void wide_many(const SectorKeys& keys, const SectorRun& run) noexcept {
  constexpr size_t half_group = Vector::wide * vector_bytes / 2;
  const StoredKeys<Rounds> data(schedule_of<D>(keys));
  TweakMemory memory;
  const StoredTweaks now{memory.tweaks[0]};
  const StoredTweaks later{memory.tweaks[1]};
  in_batches<iv_batch>(keys, run, [&](const SectorRun& batch, const std::byte(*ivs)[block_bytes]) QLUKS_STEP_LAMBDA {
    if (half_group == 512 && batch.sector_size == half_group) {
      wide_half_sectors<D>(data, BatchIvs{ivs, batch.count}, now, later, batch);
    } else {
      wide_sectors<D>(data, BatchIvs{ivs, batch.count}, now, later, batch);
    }
  });
}

template <Direction D, unsigned Rounds>
QLUKS_ISA void wide_few(const SectorKeys& keys, const SectorRun& run) noexcept {
  const StoredKeys<Rounds> data(schedule_of<D>(keys));
  using FewTweaks = RegisterTweaks<Vector::wide / 2>;
  in_batches<few_sectors>(keys, run, [&](const SectorRun& batch, const std::byte(*ivs)[block_bytes]) QLUKS_STEP_LAMBDA {
    wide_sectors<D>(data, BatchIvs{ivs, batch.count}, FewTweaks{}, FewTweaks{}, batch);
  });
}

template <Direction D>
void xts_wide(const SectorKeys& keys, const SectorRun& run) noexcept {
  with_rounds(keys,
              [&](auto rounds) { run.is_few() ? wide_few<D, rounds>(keys, run) : wide_many<D, rounds>(keys, run); });
}

} // namespace
} // namespace qluks

#endif
