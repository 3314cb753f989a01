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
 */
#ifndef QLUKS_CRYPTO_AES_VECTOR_CBC_HPP
#define QLUKS_CRYPTO_AES_VECTOR_CBC_HPP

#include <algorithm>

#include "crypto/aes/vector_iv.hpp"

namespace qluks {
namespace {

template <unsigned Rounds>
QLUKS_STEP void cbc_decrypt_sector(const LocalKeys<Rounds>& keys, const std::byte* iv, size_t sector_size,
                                   const std::byte* in, std::byte* out) noexcept {
  constexpr size_t n = Vector::in_flight;
  Vector before = Vector::broadcast(iv);
  for (size_t at = 0; at < sector_size; at += group_bytes) {
    prefetch_group(in + at);
    Vector x[n];
    Vector last_key[n]; /* with the block before each */
#pragma GCC unroll 16
    for (size_t i = 0; i < n; ++i) {
      const Vector c = Vector::load(in + at + i * vector_bytes);
      last_key[i] = keys.key[Rounds] ^ Vector::preceding(before, c);
      x[i] = c ^ keys.key[0];
      before = c;
    }
    middle_rounds<Direction::decrypt>(x, keys);
#pragma GCC unroll 16
    for (size_t i = 0; i < n; ++i) Vector::decrypt_last(x[i], last_key[i]).store(out + at + i * vector_bytes);
  }
}

template <unsigned Rounds>
QLUKS_ISA void cbc_decrypt_run(const SectorKeys& keys, const SectorRun& run) noexcept {
  const LocalKeys<Rounds> data(keys.data.vector.decrypt);
  IvBatch ivs;
  for (size_t done = 0; done < run.count; done += iv_batch) {
    const SectorRun batch = run.part(done, std::min(run.count - done, iv_batch));
    make_ivs(keys, batch, ivs);
    for (size_t i = 0; i < batch.count; ++i) {
      const size_t at = i * run.sector_size;
      cbc_decrypt_sector(data, ivs.iv[i], run.sector_size, batch.in + at, batch.out + at);
    }
  }
  wipe_ivs(ivs, run.count);
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

/* The next Vector::lanes blocks of the sectors of one vector, so that block j of all of them is in column[j]:
 *
 *      sector 0:  a0 a1 a2 a3  …              column[0]:  a0 b0 c0 d0
 *      sector 1:  b0 b1 b2 b3  …      ⇄       column[1]:  a1 b1 c1 d1
 *      …                                      …
 */
struct Columns {
  Vector column[Vector::lanes];

  QLUKS_STEP static Columns load(const std::byte* in, const size_t* at) noexcept {
    Columns c;
#pragma GCC unroll 4
    for (size_t i = 0; i < Vector::lanes; ++i) c.column[i] = Vector::load(in + at[i]);
    Vector::transpose(c.column);
    return c;
  }

  QLUKS_STEP void store(std::byte* out, const size_t* at) noexcept {
    Vector::transpose(column);
#pragma GCC unroll 4
    for (size_t i = 0; i < Vector::lanes; ++i) column[i].store(out + at[i]);
  }
};

/* Sectors in N vectors side by side.  All that a step reads is read before it writes, as repeated lanes need it. */
template <unsigned Rounds, size_t N>
QLUKS_ISA void cbc_encrypt_strip(const RoundKeys& schedule, std::byte (*ivs)[block_bytes],
                                 const SectorRun& run) noexcept {
  const LocalKeys<Rounds> keys(schedule);
  const Strip<N> strip(ivs, run.count, run.sector_size);
  Vector x[N];
#pragma GCC unroll 16
  for (size_t i = 0; i < N; ++i) x[i] = Vector::load(ivs[i * Vector::lanes]);
  for (size_t at = 0; at < run.sector_size; at += vector_bytes) {
    Columns text[N];
#pragma GCC unroll 16
    for (size_t i = 0; i < N; ++i) text[i] = Columns::load(run.in + at, strip.at + i * Vector::lanes);
#pragma GCC unroll 4
    for (size_t j = 0; j < Vector::lanes; ++j) {
#pragma GCC unroll 16
      for (size_t i = 0; i < N; ++i) x[i] = Vector::xor3(x[i], text[i].column[j], keys.key[0]);
      middle_rounds<Direction::encrypt>(x, keys);
#pragma GCC unroll 16
      for (size_t i = 0; i < N; ++i) text[i].column[j] = x[i] = Vector::encrypt_last(x[i], keys.key[Rounds]);
    }
#pragma GCC unroll 16
    for (size_t i = 0; i < N; ++i) text[i].store(run.out + at, strip.at + i * Vector::lanes);
  }
}

/* The first sectors of `run`, in the narrowest strip that holds them all or else in one of N vectors.  Returns how
 * many they were. */
template <unsigned Rounds, size_t N = Vector::strip_vectors>
size_t cbc_encrypt_some(const RoundKeys& schedule, std::byte (*ivs)[block_bytes], const SectorRun& run) noexcept {
  if constexpr (N > 1) {
    if (run.count <= N / 2 * Vector::lanes) return cbc_encrypt_some<Rounds, N / 2>(schedule, ivs, run);
  }
  cbc_encrypt_strip<Rounds, N>(schedule, ivs, run);
  return std::min(run.count, N * Vector::lanes);
}

template <unsigned Rounds>
void cbc_encrypt_run(const SectorKeys& keys, const SectorRun& run) noexcept {
  static_assert(iv_batch % (Vector::strip_vectors * Vector::lanes) == 0, "a strip's IVs lie inside of the batch");
  IvBatch ivs;
  for (size_t done = 0; done < run.count; done += iv_batch) {
    const SectorRun batch = run.part(done, std::min(run.count - done, iv_batch));
    make_ivs(keys, batch, ivs);
    for (size_t i = 0; i < batch.count;) {
      i += cbc_encrypt_some<Rounds>(keys.data.vector.encrypt, ivs.iv + i, batch.part(i, batch.count - i));
    }
  }
  wipe_ivs(ivs, run.count);
}

void cbc_encrypt(const SectorKeys& keys, const SectorRun& run) noexcept {
  switch (keys.data.rounds) {
    case 10:
      return cbc_encrypt_run<10>(keys, run);
    case 12:
      return cbc_encrypt_run<12>(keys, run);
    default:
      return cbc_encrypt_run<14>(keys, run);
  }
}

void cbc_decrypt(const SectorKeys& keys, const SectorRun& run) noexcept {
  switch (keys.data.rounds) {
    case 10:
      return cbc_decrypt_run<10>(keys, run);
    case 12:
      return cbc_decrypt_run<12>(keys, run);
    default:
      return cbc_decrypt_run<14>(keys, run);
  }
}

} // namespace
} // namespace qluks

#endif
