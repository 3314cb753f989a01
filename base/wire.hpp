/* SPDX-License-Identifier: BSD-3-Clause */
/* Big- and little-endian fields of on-disk structures.
 *
 * A be32 or le32 has alignment 1 and is read as a number, so a structure of them can be laid over the bytes of a
 * header and no field is ever swapped by hand.
 */
#ifndef QLUKS_BASE_WIRE_HPP
#define QLUKS_BASE_WIRE_HPP

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace qluks {

template <std::unsigned_integral T>
class BigEndian {
 public:
  BigEndian() = default;
  constexpr BigEndian(T value) noexcept { *this = value; } // NOLINT: a field is assigned like a number

  constexpr BigEndian& operator=(T value) noexcept {
    for (size_t i = sizeof(T); i-- > 0;) {
      bytes_[i] = static_cast<uint8_t>(value);
      if constexpr (sizeof(T) > 1) value = static_cast<T>(value >> 8);
    }
    return *this;
  }

  constexpr operator T() const noexcept { // NOLINT: a field is read like a number
    T value = 0;
    for (const uint8_t b : bytes_) value = static_cast<T>((value << 8) | b);
    return value;
  }

 private:
  std::array<uint8_t, sizeof(T)> bytes_;
};

template <std::unsigned_integral T>
class LittleEndian {
 public:
  LittleEndian() = default;
  constexpr LittleEndian(T value) noexcept { *this = value; } // NOLINT: a field is assigned like a number

  constexpr LittleEndian& operator=(T value) noexcept {
    for (uint8_t& b : bytes_) {
      b = static_cast<uint8_t>(value);
      if constexpr (sizeof(T) > 1) value = static_cast<T>(value >> 8);
    }
    return *this;
  }

  constexpr operator T() const noexcept { // NOLINT: a field is read like a number
    T value = 0;
    for (size_t i = sizeof(T); i-- > 0;) value = static_cast<T>((value << 8) | bytes_[i]);
    return value;
  }

 private:
  std::array<uint8_t, sizeof(T)> bytes_;
};

using be16 = BigEndian<uint16_t>;
using be32 = BigEndian<uint32_t>;
using be64 = BigEndian<uint64_t>;

using le16 = LittleEndian<uint16_t>;
using le32 = LittleEndian<uint32_t>;
using le64 = LittleEndian<uint64_t>;

static_assert(sizeof(be64) == 8 && alignof(be64) == 1);
static_assert(sizeof(le64) == 8 && alignof(le64) == 1);

/* Copy an on-disk structure out of `bytes`, which the caller has checked to be long enough. */
template <class OnDisk>
requires std::is_trivially_copyable_v<OnDisk> OnDisk load_on_disk(std::span<const std::byte> bytes)
noexcept {
  OnDisk value;
  std::memcpy(&value, bytes.first(sizeof value).data(), sizeof value);
  return value;
}

} // namespace qluks

#endif
