/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/luks/af.hpp"

#include <gtest/gtest.h>

#include "tests/support/memory_device.hpp"

namespace qluks {
namespace {

using test::MemoryDevice;

/* Key sizes below, at, above and not a multiple of each digest. */
TEST(AntiForensic, MergeUndoesSplit) {
  for (const char* name : {"sha1", "sha256", "sha512"}) {
    for (const size_t key_bytes : {16U, 20U, 24U, 32U, 48U, 64U, 65U}) {
      for (const size_t stripes : {1U, 2U, 3U, 40U}) {
        const auto key = MemoryDevice::pattern(key_bytes);
        auto material = MemoryDevice::pattern(key_bytes * stripes);
        af_split(*find_hash(name), key, material);
        std::vector<std::byte> merged(key_bytes);
        af_merge(*find_hash(name), material, merged);
        EXPECT_EQ(merged, key) << name << " " << key_bytes << " " << stripes;
      }
    }
  }
}

/* With two stripes of zeroes the key is H of the first: two blocks, each hashed with its number in front. */
TEST(AntiForensic, HashesNumberedBlocks) {
  const std::vector<std::byte> material(80);
  std::vector<std::byte> key(40);
  af_merge(*find_hash("sha256"), material, key);
  Hash hash(*find_hash("sha256"));
  std::vector<std::byte> expected(64);
  hash.update(std::vector<std::byte>(4 + 32));
  hash.digest(std::span(expected).first(32));
  std::vector<std::byte> second(4 + 8);
  second[3] = std::byte{1};
  hash.update(second);
  hash.digest(std::span(expected).last(32));
  expected.resize(40);
  EXPECT_EQ(key, expected);
}

TEST(AntiForensic, EveryStripeCounts) {
  const auto key = MemoryDevice::pattern(32);
  auto material = MemoryDevice::pattern(32 * 8);
  af_split(*find_hash("sha256"), key, material);
  for (size_t i = 0; i < material.size(); i += 32) {
    material[i] ^= std::byte{1};
    std::vector<std::byte> merged(32);
    af_merge(*find_hash("sha256"), material, merged);
    EXPECT_NE(merged, key);
    material[i] ^= std::byte{1};
  }
}

} // namespace
} // namespace qluks
