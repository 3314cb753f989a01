/* SPDX-License-Identifier: BSD-3-Clause */
#include "crypto/lrw_tweak.hpp"

#include <bit>
#include <cstring>
#include <new>

#include "base/wire.hpp"

namespace qluks {

LrwTweak::Polynomial LrwTweak::Polynomial::load(const void* block) noexcept {
  be64 halves[2];
  std::memcpy(halves, block, sizeof halves);
  return {.high = halves[0], .low = halves[1]};
}

void LrwTweak::Polynomial::store(void* block) const noexcept {
  const be64 halves[2] = {high, low};
  std::memcpy(block, halves, sizeof halves);
}

LrwTweak::LrwTweak(std::span<const std::byte> key) : memory_(sizeof(Powers)), powers_(*new (memory_.data()) Powers) {
  powers_[0] = Polynomial::load(key.data());
  for (size_t i = 1; i < powers_.size(); ++i) {
    const Polynomial& p = powers_[i - 1];
    const uint64_t carry = uint64_t{0} - (p.high >> 63);
    powers_[i] = {.high = p.high << 1 | p.low >> 63, .low = p.low << 1 ^ (carry & 0x87)};
  }
}

void LrwTweak::make(const uint8_t* number, uint8_t* tweak) const noexcept {
  const auto [high, low] = Polynomial::load(number);
  Polynomial sum{};
  for (size_t i = 0; i < powers_.size(); ++i) {
    const uint64_t chosen = uint64_t{0} - ((i < 64 ? low : high) >> i % 64 & 1);
    sum.high ^= chosen & powers_[i].high;
    sum.low ^= chosen & powers_[i].low;
  }
  sum.store(tweak);
}

/* To add one is to flip the bits up to the first that is not set. */
void LrwTweak::advance(uint8_t* number, uint8_t* tweak) const noexcept {
  auto [high, low] = Polynomial::load(number);
  const int set = low != ~uint64_t{0} ? std::countr_one(low) : 64 + std::countr_one(high);
  Polynomial sum = Polynomial::load(tweak);
  for (size_t i = 0; i < powers_.size() && i <= static_cast<size_t>(set); ++i) {
    sum.high ^= powers_[i].high;
    sum.low ^= powers_[i].low;
  }
  sum.store(tweak);
  if (++low == 0) ++high;
  Polynomial{.high = high, .low = low}.store(number);
}

} // namespace qluks
