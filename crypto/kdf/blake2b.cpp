/* SPDX-License-Identifier: BSD-3-Clause */
#include "crypto/kdf/blake2b.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/wire.hpp"

namespace qluks {

namespace {

/* RFC 7693, section 2.6: those of SHA-512. */
constexpr std::array<uint64_t, 8> initial_values = {0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b,
                                                    0xa54ff53a5f1d36f1, 0x510e527fade682d1, 0x9b05688c2b3e6c1f,
                                                    0x1f83d9abfb41bd6b, 0x5be0cd19137e2179};

/* RFC 7693, section 2.7; rounds 10 and 11 are as 0 and 1. */
constexpr uint8_t schedule[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};

void mix(uint64_t& a, uint64_t& b, uint64_t& c, uint64_t& d, uint64_t x, uint64_t y) noexcept {
  a += b + x;
  d = std::rotr(d ^ a, 32);
  c += d;
  b = std::rotr(b ^ c, 24);
  a += b + y;
  d = std::rotr(d ^ a, 16);
  c += d;
  b = std::rotr(b ^ c, 63);
}

} // namespace

Blake2b::Blake2b(size_t digest_bytes) noexcept : state_(initial_values), block_{} {
  state_[0] ^= 0x01010000 ^ digest_bytes; /* fan-out and depth 1, no key */
}

void Blake2b::compress(const std::byte* block, bool last) noexcept {
  uint64_t m[16];
  for (size_t i = 0; i < 16; ++i) m[i] = load_on_disk<le64>({block + 8 * i, 8});
  uint64_t v[16];
  std::copy(state_.begin(), state_.end(), v);
  std::copy(initial_values.begin(), initial_values.end(), v + 8);
  v[12] ^= counted_; /* its upper half is never needed */
  if (last) v[14] = ~v[14];
  for (size_t round = 0; round < 12; ++round) {
    const uint8_t* s = schedule[round % 10];
    for (size_t i = 0; i < 4; ++i) mix(v[i], v[4 + i], v[8 + i], v[12 + i], m[s[2 * i]], m[s[2 * i + 1]]);
    for (size_t i = 0; i < 4; ++i) {
      mix(v[i], v[4 + (i + 1) % 4], v[8 + (i + 2) % 4], v[12 + (i + 3) % 4], m[s[8 + 2 * i]], m[s[9 + 2 * i]]);
    }
  }
  for (size_t i = 0; i < 8; ++i) state_[i] ^= v[i] ^ v[8 + i];
}

/* A full block is kept until more comes: the last one is compressed in another way. */
void Blake2b::update(std::span<const std::byte> bytes) noexcept {
  while (!bytes.empty()) {
    if (used_ == block_bytes) {
      counted_ += block_bytes;
      compress(block_.data(), false);
      used_ = 0;
    }
    const size_t part = std::min(bytes.size(), block_bytes - used_);
    std::memcpy(&block_[used_], bytes.data(), part);
    used_ += part;
    bytes = bytes.subspan(part);
  }
}

void Blake2b::digest(std::span<std::byte> out) noexcept {
  counted_ += used_;
  std::fill(block_.begin() + static_cast<ptrdiff_t>(used_), block_.end(), std::byte{0});
  compress(block_.data(), true);
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<std::byte>(state_[i / 8] >> (8 * (i % 8)));
}

} // namespace qluks
