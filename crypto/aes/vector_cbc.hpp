/* SPDX-License-Identifier: BSD-3-Clause */
/* CBC (NIST SP 800-38A, section 6.2) as vector kernels do it, with round keys in memory.
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
 * What waits is shortened to the rounds alone: the next block's text and the first key go into the last one.  Text is
 * read and exchanged for the next blocks, and the cipher text of the last blocks written, between the rounds of these.
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

template <size_t N, unsigned Rounds, size_t Batch>
QLUKS_ISA void cbc_decrypt_run(const SectorKeys& keys, const SectorRun& run) noexcept {
  const StoredKeys<Rounds> data(keys.data.vector.decrypt);
  in_batches<Batch>(keys, run, [&](const SectorRun& batch, const std::byte(*ivs)[block_bytes]) QLUKS_STEP_LAMBDA {
    if (N * vector_bytes > batch.sector_size) return cbc_decrypt_half_sectors<N>(data, ivs, batch);
    for (size_t i = 0; i < batch.count; ++i) cbc_decrypt_sector<N>(data, ivs[i], batch.part(i, 1));
  });
}

void cbc_decrypt(const SectorKeys& keys, const SectorRun& run) noexcept {
  constexpr size_t few = 8; /* vectors in flight */
  with_rounds(keys, [&](auto rounds) {
    run.is_few() ? cbc_decrypt_run<few, rounds, few_sectors>(keys, run)
                 : cbc_decrypt_run<Vector::wide, rounds, iv_batch>(keys, run);
  });
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

/* The next Vector::lanes blocks of a strip's sectors: block j of all sectors of vector i at (i, j).
 *
 *      sector 0:  a0 a1 a2 a3  …              (0, 0):  a0 b0 c0 d0
 *      sector 1:  b0 b1 b2 b3  …      →       (0, 1):  a1 b1 c1 d1
 *      …                                      …
 */
template <size_t N>
class alignas(64) StripText {
 public:
  /* Of the i-th vector's sectors. */
  QLUKS_STEP void read(size_t i, const std::byte* in, const Strip<N>& strip) noexcept {
    Vector v[Vector::lanes];
#pragma GCC unroll 4
    for (size_t j = 0; j < Vector::lanes; ++j) {
      const std::byte* p = in + strip.at[i * Vector::lanes + j];
      v[j] = Vector::load(p);
      __builtin_prefetch(p + prefetch_bytes, 0, 2);
    }
    Vector::transpose(v);
#pragma GCC unroll 4
    for (size_t j = 0; j < Vector::lanes; ++j) v[j].store(text_[i][j]);
  }

  QLUKS_STEP Vector at(size_t i, size_t j) const noexcept { return Vector::load(text_[i][j]); }

 private:
  std::byte text_[N][Vector::lanes][vector_bytes];
};

/* Vector::lanes blocks of each sector of a strip. */
template <size_t N>
struct StripStep {
  const Strip<N>& strip;
  const StripText<N>& text;
  StripText<N>& next_text;  /* to be read … */
  const std::byte* next_in; /* … from here */
  std::byte* out;
  bool first; /* of the sectors */

  /* `x` is a block of cipher text with the first key and the text (i, j) of the block behind it. */
  QLUKS_STEP void write_before(Vector x, size_t i, size_t j, Vector first_key) const noexcept {
    Vector::xor3(x, first_key, text.at(i, j))
        .scatter(out + j * block_bytes - block_bytes, &strip.at[i * Vector::lanes]);
  }
};

/* The blocks j of a step.  `x` has, before and afterwards, the first key and the text of the block that is next. */
template <unsigned Rounds, size_t N>
QLUKS_STEP void cbc_encrypt_blocks(const StoredKeys<Rounds>& keys, Vector (&x)[N], const StripStep<N>& step,
                                   size_t j) noexcept {
  /* So many vectors' text is to be read with each j. */
  constexpr unsigned reads = (N + Vector::lanes - 1) / Vector::lanes;
  constexpr unsigned rounds_per_read = (Rounds - 1) / reads;
  const Vector first_key = keys[0];
  Vector start[N];
#pragma GCC unroll 16
  for (size_t i = 0; i < N; ++i) start[i] = x[i];
#pragma GCC unroll 16
  for (unsigned r = 1; r < Rounds; ++r) {
    aes_rounds<Direction::encrypt>(x, keys[r]);
    if (r <= N && !(step.first && j == 0)) step.write_before(start[r - 1], r - 1, j, first_key);
    const unsigned read = (r - 1) / rounds_per_read;
    const size_t i = j * reads + read;
    if ((r - 1) % rounds_per_read == 0 && read < reads && i < N) step.next_text.read(i, step.next_in, step.strip);
  }
  const Vector both_keys = keys[Rounds] ^ first_key;
#pragma GCC unroll 16
  for (size_t i = 0; i < N; ++i) {
    const Vector text = j + 1 < Vector::lanes ? step.text.at(i, j + 1) : step.next_text.at(i, 0);
    x[i] = Vector::encrypt_last(x[i], both_keys ^ text);
  }
}

template <unsigned Rounds, size_t N>
QLUKS_ISA void cbc_encrypt_strip(const RoundKeys& schedule, std::byte (*ivs)[block_bytes],
                                 const SectorRun& run) noexcept {
  const StoredKeys<Rounds> keys(schedule);
  const Strip<N> strip(ivs, run.count, run.sector_size);
  StripText<N> texts[2];
  Vector x[N];
#pragma GCC unroll 16
  for (size_t i = 0; i < N; ++i) {
    texts[0].read(i, run.in, strip);
    x[i] = Vector::xor3(Vector::load(ivs[i * Vector::lanes]), texts[0].at(i, 0), keys[0]);
  }
  size_t now = 0;
  for (size_t at = 0; at < run.sector_size; at += vector_bytes) {
    const size_t next = std::min(at, run.sector_size - 2 * vector_bytes) + vector_bytes; /* after the last one, any */
    const StripStep<N> step{strip, texts[now], texts[now ^ 1], run.in + next, run.out + at, at == 0};
#pragma GCC unroll 4
    for (size_t j = 0; j < Vector::lanes; ++j) cbc_encrypt_blocks(keys, x, step, j);
    now ^= 1;
  }
  const StripStep<N> end{strip, texts[now], texts[now], nullptr, run.out + run.sector_size, false};
#pragma GCC unroll 16
  for (size_t i = 0; i < N; ++i) end.write_before(x[i], i, 0, keys[0]);
}

inline constexpr size_t strip_vectors = 8;

/* The first sectors of `run`, in the narrowest strip that holds them all or else in one of N vectors.  Returns how
 * many they were. */
template <unsigned Rounds, size_t N = strip_vectors>
size_t cbc_encrypt_some(const RoundKeys& schedule, std::byte (*ivs)[block_bytes], const SectorRun& run) noexcept {
  if constexpr (N > 1) {
    if (run.count <= N / 2 * Vector::lanes) return cbc_encrypt_some<Rounds, N / 2>(schedule, ivs, run);
  }
  cbc_encrypt_strip<Rounds, N>(schedule, ivs, run);
  return std::min(run.count, N * Vector::lanes);
}

template <unsigned Rounds, size_t Batch>
QLUKS_ISA void cbc_encrypt_run(const SectorKeys& keys, const SectorRun& run) noexcept {
  constexpr size_t lanes = strip_vectors * Vector::lanes;
  static_assert(iv_batch % lanes == 0 && few_sectors <= lanes, "the IVs of a strip lie in the batch");
  in_batches<Batch>(keys, run, [&](const SectorRun& batch, std::byte(*ivs)[block_bytes]) QLUKS_STEP_LAMBDA {
    for (size_t i = 0; i < batch.count;) {
      i += cbc_encrypt_some<Rounds>(keys.data.vector.encrypt, ivs + i, batch.part(i, batch.count - i));
    }
  });
}

void cbc_encrypt(const SectorKeys& keys, const SectorRun& run) noexcept {
  with_rounds(keys, [&](auto rounds) {
    run.is_few() ? cbc_encrypt_run<rounds, few_sectors>(keys, run) : cbc_encrypt_run<rounds, iv_batch>(keys, run);
  });
}

} // namespace
} // namespace qluks

#endif
