/* SPDX-License-Identifier: BSD-3-Clause */
/* What has to hold whatever the input is.  A violation ends the program, which is how a fuzzer learns of it. */
#ifndef QLUKS_TESTS_FUZZ_CHECKS_HPP
#define QLUKS_TESTS_FUZZ_CHECKS_HPP

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>

#include "base/result.hpp"

namespace qluks::fuzz {

inline void check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: this does not hold: %s\n", what);
  std::abort();
}

/* std::equal is one instrumented comparison for each byte. */
inline bool same(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

/* Whatever an image says, a message is one line without control characters, and not a flood. */
inline void check_line(const std::string& line) {
  check(!line.empty(), "a message says something");
  check(line.size() < 16384, "a message is short");
  const bool printable =
      std::none_of(line.begin(), line.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
  check(printable, "a message holds no control character");
}

/* Is it a success?  If not, the message has to be presentable. */
template <class T>
bool succeeded(const Result<T>& result) {
  if (!result) check_line(result.error().what);
  return result.has_value();
}

} // namespace qluks::fuzz

#endif
