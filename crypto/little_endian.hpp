/* SPDX-License-Identifier: BSD-3-Clause */
/* Little-endian words, as ChaCha and Poly1305 have them, on any CPU. */
#ifndef QLUKS_CRYPTO_LITTLE_ENDIAN_HPP
#define QLUKS_CRYPTO_LITTLE_ENDIAN_HPP

#include <bit>
#include <cstdint>
#include <cstring>

namespace qluks {

/* Between the order of the CPU and little-endian, both ways. */
template <class T>
T little_endian(T value) noexcept {
  if constexpr (std::endian::native == std::endian::little) return value;
  if constexpr (sizeof(T) == 4) return __builtin_bswap32(value);
  return static_cast<T>(__builtin_bswap64(value));
}

template <class T>
T load_little_endian(const void* from) noexcept {
  T value;
  std::memcpy(&value, from, sizeof value);
  return little_endian(value);
}

template <class T>
void store_little_endian(T value, void* to) noexcept {
  value = little_endian(value);
  std::memcpy(to, &value, sizeof value);
}

} // namespace qluks

#endif
