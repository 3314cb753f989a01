/* SPDX-License-Identifier: BSD-3-Clause */
/* What the XTS and CBC bodies of a vector kernel share: AES over several vectors, and IVs in batches.
 *
 * Included by kernel_*.cpp after it has defined QLUKS_ISA and the class Vector.  A kernel is Vector plus these
 * bodies; there is no other copy of them.
 *
 * An AES instruction takes 3 or 4 cycles and a new one starts each cycle, so that a lone block would leave most of the
 * unit idle.  Everything here works on Vector::in_flight vectors at once, and the IVs of 32 sectors are encrypted
 * together rather than one in front of each sector.
 */
#ifndef QLUKS_CRYPTO_AES_VECTOR_IV_HPP
#define QLUKS_CRYPTO_AES_VECTOR_IV_HPP

#include <algorithm>

#include "base/secure_buffer.hpp"
#include "crypto/aes/kernel.hpp"
#include "crypto/isa.hpp"

#ifndef QLUKS_ISA
#error "a kernel names its instruction set and its Vector first"
#endif

namespace qluks {
namespace {

enum class Direction { encrypt, decrypt };

inline constexpr size_t vector_bytes = Vector::lanes * block_bytes;
inline constexpr size_t group_blocks = Vector::in_flight * Vector::lanes;
inline constexpr size_t group_bytes = group_blocks * block_bytes;
inline constexpr size_t iv_batch = 32; /* sectors */

/* How far ahead of the work memory is fetched, into the second level cache: the few line buffers of the first would
 * limit how much is on its way.  It is past the page in which the hardware looks ahead on its own, and nothing is read
 * past the end of a run: a prefetch of what is not there has no effect. */
inline constexpr size_t prefetch_bytes = 8192;

struct alignas(64) IvBatch {
  std::byte iv[iv_batch][block_bytes];
};

template <Direction D>
QLUKS_STEP Vector aes_round(Vector x, Vector key) noexcept {
  if constexpr (D == Direction::encrypt) return Vector::encrypt(x, key);
  return Vector::decrypt(x, key);
}

template <Direction D>
QLUKS_STEP Vector aes_last_round(Vector x, Vector key) noexcept {
  if constexpr (D == Direction::encrypt) return Vector::encrypt_last(x, key);
  return Vector::decrypt_last(x, key);
}

/* Round keys of one direction.  The copy leaves it to the compiler to keep them in registers where there are
 * enough: a pointer would not do, since the sectors that are written might overlap what it points to. */
template <unsigned Rounds>
struct LocalKeys {
  Vector key[Rounds + 1];

  QLUKS_STEP explicit LocalKeys(const RoundKeys& schedule) noexcept {
#pragma GCC unroll 16
    for (unsigned r = 0; r <= Rounds; ++r) key[r] = Vector::load(schedule.key[r]);
  }
};

/* One round of several vectors. */
template <Direction D, size_t N>
QLUKS_STEP void aes_rounds(Vector (&x)[N], Vector key) noexcept {
#pragma GCC unroll 16
  for (size_t i = 0; i < N; ++i) x[i] = aes_round<D>(x[i], key);
}

/* The rounds between the first key and the last. */
template <Direction D, unsigned Rounds, size_t N>
QLUKS_STEP void middle_rounds(Vector (&x)[N], const LocalKeys<Rounds>& keys) noexcept {
#pragma GCC unroll 16
  for (unsigned r = 1; r < Rounds; ++r) aes_rounds<D>(x, keys.key[r]);
}

QLUKS_STEP void prefetch_group(const std::byte* in) noexcept {
  constexpr size_t line_bytes = 64;
#pragma GCC unroll 16
  for (size_t at = 0; at < group_bytes; at += line_bytes) __builtin_prefetch(in + prefetch_bytes + at, 0, 2);
}

/* In groups of N vectors. */
template <unsigned Rounds, size_t N>
QLUKS_ISA void encrypt_ivs(const RoundKeys& schedule, IvBatch& ivs, size_t count) noexcept {
  const LocalKeys<Rounds> keys(schedule);
  for (size_t i = 0; i < count; i += N * Vector::lanes) {
    Vector x[N];
#pragma GCC unroll 16
    for (size_t j = 0; j < N; ++j) {
      x[j] = Vector::load(ivs.iv[i + j * Vector::lanes]) ^ keys.key[0];
    }
    middle_rounds<Direction::encrypt>(x, keys);
#pragma GCC unroll 16
    for (size_t j = 0; j < N; ++j) {
      Vector::encrypt_last(x[j], keys.key[Rounds]).store(ivs.iv[i + j * Vector::lanes]);
    }
  }
}

/* The first request of a few sectors does not pay for a whole group. */
template <unsigned Rounds>
QLUKS_STEP void encrypt_ivs(const RoundKeys& schedule, IvBatch& ivs, size_t count) noexcept {
  constexpr size_t few = Vector::in_flight / 2;
  if (count <= Vector::lanes) return encrypt_ivs<Rounds, 1>(schedule, ivs, count);
  if (count <= few * Vector::lanes) return encrypt_ivs<Rounds, few>(schedule, ivs, count);
  encrypt_ivs<Rounds, Vector::in_flight>(schedule, ivs, count);
}

/* The IVs of a batch; whole groups are made, so some past run.count as well. */
QLUKS_ISA void make_ivs(const SectorKeys& keys, const SectorRun& run, IvBatch& ivs) noexcept {
  static_assert(iv_batch % group_blocks == 0);
  const Vector layout = Vector::broadcast(reinterpret_cast<const std::byte*>(keys.iv_layout.data()));
  for (size_t i = 0; i < run.count; i += Vector::lanes) {
    Vector::shuffle(Vector::numbers(run.first + i * run.step(), run.step()), layout).store(ivs.iv[i]);
  }
  for (size_t i = 0; i < keys.iv_keys; ++i) {
    const RoundKeys& schedule = keys.iv[i].vector.encrypt;
    switch (keys.iv[i].rounds) {
      case 10:
        encrypt_ivs<10>(schedule, ivs, run.count);
        break;
      case 12:
        encrypt_ivs<12>(schedule, ivs, run.count);
        break;
      default:
        encrypt_ivs<14>(schedule, ivs, run.count);
        break;
    }
  }
}

/* Those that a run of `count` sectors has made. */
void wipe_ivs(IvBatch& ivs, size_t count) noexcept {
  const size_t made = std::min((count + group_blocks - 1) / group_blocks * group_blocks, iv_batch);
  wipe(std::as_writable_bytes(std::span(ivs.iv).first(made)));
}

} // namespace
} // namespace qluks

#endif
