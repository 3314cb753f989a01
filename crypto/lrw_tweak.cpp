/* SPDX-License-Identifier: BSD-3-Clause */
#include "crypto/lrw_tweak.hpp"

#include <cstring>
#include <new>

#include "base/wire.hpp"

namespace qluks {

namespace {

struct WireBlock {
  be64 high;
  be64 low;
};

WireBlock load(const void* bytes) noexcept {
  WireBlock block;
  std::memcpy(&block, bytes, sizeof block);
  return block;
}

} // namespace

LrwTweak::LrwTweak(std::span<const std::byte> key) : memory_(sizeof(Powers)), powers_(*new (memory_.data()) Powers) {
  const WireBlock one = load(key.data());
  powers_[0] = {.high = one.high, .low = one.low};
  for (size_t i = 1; i < powers_.size(); ++i) {
    const Polynomial& p = powers_[i - 1];
    const uint64_t carry = uint64_t{0} - (p.high >> 63);
    powers_[i] = {.high = p.high << 1 | p.low >> 63, .low = p.low << 1 ^ (carry & 0x87)};
  }
}

void LrwTweak::make(const uint8_t* number, uint32_t more, uint8_t* tweak) const noexcept {
  const WireBlock first = load(number);
  const uint64_t low = first.low + more;
  const uint64_t halves[] = {low, first.high + (low < more ? 1 : 0)};
  Polynomial sum{};
  for (size_t i = 0; i < powers_.size(); ++i) {
    const uint64_t chosen = uint64_t{0} - (halves[i / 64] >> i % 64 & 1);
    sum.high ^= chosen & powers_[i].high;
    sum.low ^= chosen & powers_[i].low;
  }
  const WireBlock result{.high = sum.high, .low = sum.low};
  std::memcpy(tweak, &result, sizeof result);
}

} // namespace qluks
