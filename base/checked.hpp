/* SPDX-License-Identifier: BSD-3-Clause */
/* Arithmetic on numbers that come from an image: it answers "no" instead of wrapping. */
#ifndef QLUKS_BASE_CHECKED_HPP
#define QLUKS_BASE_CHECKED_HPP

#include <concepts>
#include <cstdint>
#include <optional>

namespace qluks {

template <std::unsigned_integral T>
constexpr std::optional<T> checked_add(T a, T b) noexcept {
  T sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

template <std::unsigned_integral T>
constexpr std::optional<T> checked_mul(T a, T b) noexcept {
  T product = 0;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

/* `unit` is a power of two in the functions below. */
template <std::unsigned_integral T>
constexpr bool is_aligned(T n, T unit) noexcept {
  return (n & (unit - 1)) == 0;
}

template <std::unsigned_integral T>
constexpr T align_down(T n, T unit) noexcept {
  return n & ~(unit - 1);
}

template <std::unsigned_integral T>
constexpr std::optional<T> checked_align_up(T n, T unit) noexcept {
  const auto up = checked_add(n, static_cast<T>(unit - 1));
  if (!up) return std::nullopt;
  return align_down(*up, unit);
}

/* Does [offset, offset + length) lie inside [0, limit)? */
constexpr bool range_fits(uint64_t offset, uint64_t length, uint64_t limit) noexcept {
  return offset <= limit && length <= limit - offset;
}

} // namespace qluks

#endif
