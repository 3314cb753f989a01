/* SPDX-License-Identifier: BSD-3-Clause */
/* What the XTS and CBC bodies of a vector kernel share: AES over several vectors, and IVs in batches.
 *
 * Included by kernel_*.cpp after it has defined QLUKS_ISA and the class Vector.  A kernel is Vector plus these
 * bodies; there is no other copy of them.
 *
 * An AES instruction takes 3 or 4 cycles and one or two new ones start each cycle, so that a lone block would leave
 * most of the unit idle.  Everything here works on several vectors at once, and the IVs of 64 sectors are encrypted
 * together rather than one in front of each sector.
 *
 * Each body is compiled for many sectors and for few.  What few take of the stack is little, since all of it is wiped
 * after each request (crypto/traces.hpp), and a request of 4 KiB takes 150 ns.
 */
#ifndef QLUKS_CRYPTO_AES_VECTOR_IV_HPP
#define QLUKS_CRYPTO_AES_VECTOR_IV_HPP

#include <algorithm>
#include <type_traits>

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
inline constexpr size_t iv_batch = 64; /* sectors */

/* How far ahead of the work memory is fetched, into the second level cache: the few line buffers of the first would
 * limit how much is on its way.  It is past the page in which the hardware looks ahead on its own, and nothing is read
 * past the end of a run: a prefetch of what is not there has no effect. */
inline constexpr size_t prefetch_bytes = 8192;

/* The IVs of up to N sectors. */
template <size_t N>
struct alignas(64) IvBatch {
  std::byte iv[N][block_bytes];
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

/* Round keys of one direction.  The copy leaves it to the compiler to keep them in registers: a pointer would not do,
 * since the sectors that are written might overlap what it points to. */
template <unsigned Rounds>
class LocalKeys {
 public:
  static constexpr unsigned rounds = Rounds;

  QLUKS_STEP explicit LocalKeys(const RoundKeys& schedule) noexcept {
#pragma GCC unroll 16
    for (unsigned r = 0; r <= Rounds; ++r) key_[r] = Vector::load(schedule.key[r]);
  }
  QLUKS_STEP Vector operator[](unsigned r) const noexcept { return key_[r]; }

 private:
  Vector key_[Rounds + 1];
};

/* The same from memory, where there are no registers for them: one load feeds a round of all vectors in flight. */
template <unsigned Rounds>
class StoredKeys {
 public:
  static constexpr unsigned rounds = Rounds;

  QLUKS_STEP explicit StoredKeys(const RoundKeys& schedule) noexcept : schedule_(schedule) {}
  QLUKS_STEP Vector operator[](unsigned r) const noexcept { return Vector::load(schedule_.key[r]); }

 private:
  const RoundKeys& schedule_;
};

template <Direction D>
QLUKS_STEP const RoundKeys& schedule_of(const SectorKeys& keys) noexcept {
  return D == Direction::encrypt ? keys.data.vector.encrypt : keys.data.vector.decrypt;
}

/* `go` with the rounds of the data key as a constant. */
template <class Go>
void with_rounds(const SectorKeys& keys, const Go& go) noexcept {
  switch (keys.data.rounds) {
    case 10:
      return go(std::integral_constant<unsigned, 10>());
    case 12:
      return go(std::integral_constant<unsigned, 12>());
    default:
      return go(std::integral_constant<unsigned, 14>());
  }
}

/* For Vector::in_flight vectors. */
template <unsigned Rounds>
using GroupKeys = std::conditional_t<(Vector::registers >= 32), LocalKeys<Rounds>, StoredKeys<Rounds>>;

/* One round of several vectors. */
template <Direction D, size_t N>
QLUKS_STEP void aes_rounds(Vector (&x)[N], Vector key) noexcept {
#pragma GCC unroll 16
  for (size_t i = 0; i < N; ++i) x[i] = aes_round<D>(x[i], key);
}

/* The rounds between the first key and the last. */
template <Direction D, class Keys, size_t N>
QLUKS_STEP void middle_rounds(Vector (&x)[N], const Keys& keys) noexcept {
#pragma GCC unroll 16
  for (unsigned r = 1; r < Keys::rounds; ++r) aes_rounds<D>(x, keys[r]);
}

template <size_t Bytes = group_bytes, size_t Ahead = prefetch_bytes>
QLUKS_STEP void prefetch_group(const std::byte* in) noexcept {
  constexpr size_t line_bytes = 64;
#pragma GCC unroll 16
  for (size_t at = 0; at < Bytes; at += line_bytes) __builtin_prefetch(in + Ahead + at, 0, 2);
}

inline constexpr size_t iv_vectors = 8; /* in flight, of the IVs of many sectors */

/* In groups of N vectors. */
template <unsigned Rounds, size_t N>
QLUKS_STEP void encrypt_iv_groups(const RoundKeys& schedule, std::byte (*ivs)[block_bytes], size_t count) noexcept {
  const StoredKeys<Rounds> keys(schedule);
  for (size_t i = 0; i < count; i += N * Vector::lanes) {
    Vector x[N];
#pragma GCC unroll 16
    for (size_t j = 0; j < N; ++j) x[j] = Vector::load(ivs[i + j * Vector::lanes]) ^ keys[0];
    middle_rounds<Direction::encrypt>(x, keys);
#pragma GCC unroll 16
    for (size_t j = 0; j < N; ++j) Vector::encrypt_last(x[j], keys[Rounds]).store(ivs[i + j * Vector::lanes]);
  }
}

/* In the fewest vectors that hold them all, or in groups of N. */
template <unsigned Rounds, size_t N = iv_vectors>
QLUKS_STEP void encrypt_ivs(const RoundKeys& schedule, std::byte (*ivs)[block_bytes], size_t count) noexcept {
  if constexpr (N > 1) {
    if (count <= N / 2 * Vector::lanes) return encrypt_ivs<Rounds, N / 2>(schedule, ivs, count);
  }
  encrypt_iv_groups<Rounds, N>(schedule, ivs, count);
}

/* The IVs of a batch; whole vectors are made, so some past run.count as well. */
QLUKS_ISA void make_ivs(const SectorKeys& keys, const SectorRun& run, std::byte (*ivs)[block_bytes]) noexcept {
  static_assert(iv_batch % (iv_vectors * Vector::lanes) == 0 && few_sectors <= iv_vectors * Vector::lanes);
  const Vector layout = Vector::broadcast(reinterpret_cast<const std::byte*>(keys.iv_layout.data()));
  for (size_t i = 0; i < run.count; i += Vector::lanes) {
    Vector::shuffle(Vector::numbers(run.first + i * run.step(), run.step()), layout).store(ivs[i]);
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

/* What a run is turned by, batch by batch: `turn(batch, ivs)`. */
template <size_t Sectors, class Turn>
QLUKS_STEP void in_batches(const SectorKeys& keys, const SectorRun& run, const Turn& turn) noexcept {
  IvBatch<Sectors> ivs;
  for (size_t done = 0; done < run.count; done += Sectors) {
    const SectorRun batch = run.part(done, std::min(run.count - done, Sectors));
    make_ivs(keys, batch, ivs.iv);
    turn(batch, ivs.iv);
  }
}

} // namespace
} // namespace qluks

#endif
