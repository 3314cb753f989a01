/* SPDX-License-Identifier: BSD-3-Clause */
/* Test vectors: blocks of `Key = Value`, separated by empty lines, with `#` before comments.
 *
 * A value that a test does not ask for fails it: a misspelt key cannot switch a check off. */
#ifndef QLUKS_TESTS_SUPPORT_VECTORS_HPP
#define QLUKS_TESTS_SUPPORT_VECTORS_HPP

#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace qluks::test {

inline std::vector<std::byte> from_hex(std::string_view hex) {
  const auto nibble = [](char c) { return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10; };
  std::vector<std::byte> bytes(hex.size() / 2);
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>(nibble(hex[2 * i]) * 16 + nibble(hex[2 * i + 1]));
  }
  return bytes;
}

class Vector {
 public:
  explicit Vector(size_t line) : line_(line) {}

  void add(std::string key, std::string value) { values_[std::move(key)] = std::move(value); }

  std::string text(const std::string& key) {
    const auto node = values_.extract(key);
    if (!node.empty()) return node.mapped();
    ADD_FAILURE() << "line " << line_ << ": no " << key;
    return {};
  }
  std::vector<std::byte> bytes(const std::string& key) { return from_hex(text(key)); }
  uint64_t number(const std::string& key) { return std::stoull(text(key)); }

  bool empty() const { return values_.empty(); }
  size_t line() const { return line_; }

  void expect_all_used() const {
    for (const auto& [key, value] : values_) ADD_FAILURE() << "line " << line_ << ": " << key << " is not used";
  }

 private:
  size_t line_; /* of the file, to find the block again */
  std::map<std::string, std::string> values_;
};

/* Calls `check` with each block of a file in tests/vectors; returns how many there were. */
template <class Check>
size_t for_each_vector(const std::string& file, Check check) {
  std::ifstream in(std::string(VECTORS_DIR "/") + file);
  EXPECT_TRUE(in) << file << " cannot be read";
  size_t count = 0;
  size_t line_number = 0;
  Vector vector(1);
  const auto finish = [&] {
    if (vector.empty()) return;
    SCOPED_TRACE(file + ":" + std::to_string(vector.line()));
    check(vector);
    vector.expect_all_used();
    ++count;
  };
  for (std::string line; std::getline(in, line);) {
    ++line_number;
    if (line.empty()) {
      finish();
      vector = Vector(line_number + 1);
    } else if (line[0] != '#') {
      const size_t equals = line.find(" =");
      if (equals == std::string::npos) {
        ADD_FAILURE() << file << ":" << line_number << ": not of the form Key = Value";
        continue;
      }
      vector.add(line.substr(0, equals), line.size() > equals + 3 ? line.substr(equals + 3) : "");
    }
  }
  finish();
  EXPECT_GT(count, 0U) << file;
  return count;
}

/* A hash that a build may lack. */
inline bool is_optional_hash(std::string_view name) {
  return name == "whirlpool" || name == "blake2b-512" || name == "blake2s-256" || name == "sm3";
}

} // namespace qluks::test

#endif
