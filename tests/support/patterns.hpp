/* SPDX-License-Identifier: BSD-3-Clause */
/* Bytes that are the same in every run, for the tests of ciphers. */
#ifndef QLUKS_TESTS_SUPPORT_PATTERNS_HPP
#define QLUKS_TESTS_SUPPORT_PATTERNS_HPP

#include <cstddef>
#include <vector>

namespace qluks::test {

inline std::vector<std::byte> pattern(size_t size) {
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 7 + (i >> 8));
  return bytes;
}

inline std::vector<std::byte> key_pattern(size_t size) {
  std::vector<std::byte> key(size);
  for (size_t i = 0; i < size; ++i) key[i] = static_cast<std::byte>(i * 29 + 1);
  return key;
}

} // namespace qluks::test

#endif
