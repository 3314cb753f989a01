/* SPDX-License-Identifier: BSD-3-Clause */
/* CBC (NIST SP 800-38A, section 6.2) as vector kernels do it.
 *
 * Decryption is parallel within a sector: P = D(C) ⊕ the block of cipher text before.
 *
 * Encryption is not, each block waits for the one before.  Sectors do not wait for each other, so that several are
 * encrypted side by side, each in a lane of its own:
 *
 *                    lane 0     lane 1     lane 2    …
 *      block 0      sector 0   sector 1   sector 2         all lanes go down their sectors together
 *      block 1         ↓          ↓          ↓
 *
 * How many vectors are in flight is up to the kernel, which has a class Plan:
 *
 *      group, few_group      vectors in flight, decrypting many sectors and few
 *      strip                 vectors in flight, encrypting
 *      Keys<Rounds>          LocalKeys or StoredKeys
 *      writing               of cipher text, see StripText
 */
#ifndef QLUKS_CRYPTO_AES_VECTOR_CBC_HPP
#define QLUKS_CRYPTO_AES_VECTOR_CBC_HPP

#include <algorithm>

#include "crypto/aes/vector_iv.hpp"

namespace qluks {
namespace {

/* N vectors.  before[j] is what stands before the j-th equal part of them, in its last lane; afterwards, before[0] is
 * the end of the group. */
template <size_t N, size_t Parts, class Keys>
QLUKS_STEP void cbc_decrypt_group(const Keys& keys, Vector (&before)[Parts], const std::byte* in,
                                  std::byte* out) noexcept {
  Vector x[N];
#pragma GCC unroll 16
  for (size_t i = 0; i < N; ++i) x[i] = Vector::load(in + i * vector_bytes) ^ keys[0];
  middle_rounds<Direction::decrypt>(x, keys);
  const Vector last_key = keys[Keys::rounds]; /* once: the compiler would read it again after each write */
  const Vector end = Vector::load(in + (N - 1) * vector_bytes);
  /* From the last to the first: in place, each overwrites what only those behind it needed. */
#pragma GCC unroll 16
  for (size_t j = 1; j <= N; ++j) {
    const size_t i = N - j;
    const std::byte* c = in + i * vector_bytes;
    const Vector preceding = i % (N / Parts) == 0 ? Vector::preceding(before[i / (N / Parts)], Vector::load(c))
                                                  : Vector::load(c - block_bytes);
    Vector::decrypt_last(x[i], last_key ^ preceding).store(out + i * vector_bytes);
  }
  before[0] = end;
}

template <size_t N, class Keys>
QLUKS_STEP void cbc_decrypt_sector(const Keys& keys, const std::byte* iv, const SectorRun& sector) noexcept {
  constexpr size_t bytes = N * vector_bytes;
  Vector before[1] = {Vector::broadcast(iv)};
  for (size_t at = 0; at < sector.sector_size; at += bytes) {
    prefetch_group<bytes>(sector.in + at);
    cbc_decrypt_group<N>(keys, before, sector.in + at, sector.out + at);
  }
}

/* Sectors of half a group, two at a time. */
template <size_t N, class Keys>
QLUKS_STEP void cbc_decrypt_half_sectors(const Keys& keys, const std::byte (*ivs)[block_bytes],
                                         const SectorRun& batch) noexcept {
  size_t i = 0;
  for (; i + 1 < batch.count; i += 2) {
    const SectorRun two = batch.part(i, 2);
    Vector before[2] = {Vector::broadcast(ivs[i]), Vector::broadcast(ivs[i + 1])};
    prefetch_group<N * vector_bytes>(two.in);
    cbc_decrypt_group<N>(keys, before, two.in, two.out);
  }
  if (i < batch.count) cbc_decrypt_sector<N / 2>(keys, ivs[i], batch.part(i, 1));
}

template <size_t N, size_t Batch, class Keys>
QLUKS_ISA void cbc_decrypt_run(const SectorKeys& keys, const SectorRun& run) noexcept {
  const Keys data(keys.data.vector.decrypt);
  in_batches<Batch>(keys, run, [&](const SectorRun& batch, const std::byte(*ivs)[block_bytes]) QLUKS_STEP_LAMBDA {
    if (N * vector_bytes > batch.sector_size) return cbc_decrypt_half_sectors<N>(data, ivs, batch);
    for (size_t i = 0; i < batch.count; ++i) cbc_decrypt_sector<N>(data, ivs[i], batch.part(i, 1));
  });
}

template <class Plan, unsigned Rounds>
void cbc_decrypt_few_or_many(const SectorKeys& keys, const SectorRun& run) noexcept {
  using Keys = typename Plan::template Keys<Rounds>;
  if (run.is_few()) return cbc_decrypt_run<Plan::few_group, few_sectors, Keys>(keys, run);
  cbc_decrypt_run<Plan::group, iv_batch, Keys>(keys, run);
}

/* Where the sectors of a strip begin, of which only the first `count` exist.  The other lanes repeat the last sector:
 * they read, compute and write the same as its own lane, block by block, so this holds in place as well. */
template <size_t N>
struct Strip {
  static constexpr size_t lanes = N * Vector::lanes;
  size_t at[lanes];

  Strip(std::byte (*ivs)[block_bytes], size_t count, size_t sector_size) noexcept {
    for (size_t i = 0; i < lanes; ++i) {
      const size_t sector = i < count ? i : count - 1;
      at[i] = sector * sector_size;
      if (i >= count) std::copy_n(ivs[sector], block_bytes, ivs[i]);
    }
  }
};

/* The text of a strip, Vector::lanes blocks of each sector at a time: block j of all sectors of vector i is at (i, j).
 * It is read a vector from each sector, and exchanged:
 *
 *      sector 0:  a0 a1 a2 a3  …              (0, 0):  a0 b0 c0 d0
 *      sector 1:  b0 b1 b2 b3  …      ⇄       (0, 1):  a1 b1 c1 d1
 *      …                                      …
 *
 * It is written in the same way, or block by block, which is more stores and half as many exchanges. */
enum class Writing { exchanged, block_by_block };

template <size_t N, Writing W>
class StripText {
 public:
  QLUKS_STEP StripText(const Strip<N>& strip, const std::byte* in, std::byte* out) noexcept : at_(strip.at), out_(out) {
#pragma GCC unroll 16
    for (size_t i = 0; i < N; ++i) {
#pragma GCC unroll 4
      for (size_t j = 0; j < Vector::lanes; ++j) text_[i][j] = Vector::load(in + at_[i * Vector::lanes + j]);
      Vector::transpose(text_[i]);
    }
  }

  QLUKS_STEP Vector get(size_t i, size_t j) const noexcept { return text_[i][j]; }

  QLUKS_STEP void put(size_t i, size_t j, Vector x) noexcept {
    if constexpr (W == Writing::exchanged) {
      text_[i][j] = x;
    } else {
      x.scatter(out_ + j * block_bytes, at_ + i * Vector::lanes);
    }
  }

  QLUKS_STEP void finish() noexcept {
    if constexpr (W == Writing::block_by_block) return;
#pragma GCC unroll 16
    for (size_t i = 0; i < N; ++i) {
      Vector::transpose(text_[i]);
#pragma GCC unroll 4
      for (size_t j = 0; j < Vector::lanes; ++j) text_[i][j].store(out_ + at_[i * Vector::lanes + j]);
    }
  }

 private:
  const size_t* at_;
  std::byte* out_;
  Vector text_[N][Vector::lanes];
};

/* Sectors in N vectors side by side.  All that a step reads is read before it writes, as repeated
 * lanes need it. */
template <class Plan, unsigned Rounds, size_t N>
QLUKS_ISA void cbc_encrypt_strip(const RoundKeys& schedule, std::byte (*ivs)[block_bytes],
                                 const SectorRun& run) noexcept {
  const typename Plan::template Keys<Rounds> keys(schedule);
  const Strip<N> strip(ivs, run.count, run.sector_size);
  Vector x[N];
#pragma GCC unroll 16
  for (size_t i = 0; i < N; ++i) x[i] = Vector::load(ivs[i * Vector::lanes]);
  for (size_t at = 0; at < run.sector_size; at += vector_bytes) {
    StripText<N, Plan::writing> text(strip, run.in + at, run.out + at);
#pragma GCC unroll 4
    for (size_t j = 0; j < Vector::lanes; ++j) {
      const Vector first_key = keys[0];
#pragma GCC unroll 16
      for (size_t i = 0; i < N; ++i) x[i] = Vector::xor3(x[i], text.get(i, j), first_key);
      middle_rounds<Direction::encrypt>(x, keys);
      const Vector last_key = keys[Rounds];
#pragma GCC unroll 16
      for (size_t i = 0; i < N; ++i) x[i] = Vector::encrypt_last(x[i], last_key);
#pragma GCC unroll 16
      for (size_t i = 0; i < N; ++i) text.put(i, j, x[i]);
    }
    text.finish();
  }
}

/* The first sectors of `run`, in the narrowest strip that holds them all or else in one of N vectors.  Returns how
 * many they were. */
template <class Plan, unsigned Rounds, size_t N>
size_t cbc_encrypt_some(const RoundKeys& schedule, std::byte (*ivs)[block_bytes], const SectorRun& run) noexcept {
  if constexpr (N > 1) {
    if (run.count <= N / 2 * Vector::lanes) return cbc_encrypt_some<Plan, Rounds, N / 2>(schedule, ivs, run);
  }
  cbc_encrypt_strip<Plan, Rounds, N>(schedule, ivs, run);
  return std::min(run.count, N * Vector::lanes);
}

template <class Plan, unsigned Rounds, size_t Batch>
void cbc_encrypt_run(const SectorKeys& keys, const SectorRun& run) noexcept {
  constexpr size_t lanes_in_flight = Plan::strip * Vector::lanes;
  static_assert(iv_batch % lanes_in_flight == 0 && few_sectors <= lanes_in_flight, "IVs of a strip lie in the batch");
  IvBatch<Batch> ivs;
  for (size_t done = 0; done < run.count; done += Batch) {
    const SectorRun batch = run.part(done, std::min(run.count - done, Batch));
    make_ivs(keys, batch, ivs.iv);
    for (size_t i = 0; i < batch.count;) {
      i += cbc_encrypt_some<Plan, Rounds, Plan::strip>(keys.data.vector.encrypt, ivs.iv + i,
                                                       batch.part(i, batch.count - i));
    }
  }
}

template <class Plan, unsigned Rounds>
void cbc_encrypt_few_or_many(const SectorKeys& keys, const SectorRun& run) noexcept {
  if (run.is_few()) return cbc_encrypt_run<Plan, Rounds, few_sectors>(keys, run);
  cbc_encrypt_run<Plan, Rounds, iv_batch>(keys, run);
}

template <class Plan>
void cbc_encrypt(const SectorKeys& keys, const SectorRun& run) noexcept {
  switch (keys.data.rounds) {
    case 10:
      return cbc_encrypt_few_or_many<Plan, 10>(keys, run);
    case 12:
      return cbc_encrypt_few_or_many<Plan, 12>(keys, run);
    default:
      return cbc_encrypt_few_or_many<Plan, 14>(keys, run);
  }
}

template <class Plan>
void cbc_decrypt(const SectorKeys& keys, const SectorRun& run) noexcept {
  switch (keys.data.rounds) {
    case 10:
      return cbc_decrypt_few_or_many<Plan, 10>(keys, run);
    case 12:
      return cbc_decrypt_few_or_many<Plan, 12>(keys, run);
    default:
      return cbc_decrypt_few_or_many<Plan, 14>(keys, run);
  }
}

} // namespace
} // namespace qluks

#endif
