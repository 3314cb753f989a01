/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/aligned.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "tests/support/memory_device.hpp"

namespace qluks {
namespace {

using test::MemoryDevice;
using test::ReadCall;

/* A device below that insists on whole units. */
class ReadUnaligned : public ::testing::Test {
 protected:
  static constexpr uint32_t unit = 512;
  static constexpr size_t mebibyte = 1 << 20;
  MemoryDevice device_{MemoryDevice::pattern(2 * mebibyte)};

  std::vector<std::byte> read(uint64_t offset, size_t length) {
    std::vector<std::byte> out(length);
    const Status s = read_unaligned(out, offset, unit, [&](std::span<std::byte> dst, uint64_t at) {
      EXPECT_EQ(at % unit, 0U);
      EXPECT_EQ(dst.size() % unit, 0U);
      return device_.read(dst, at);
    });
    EXPECT_TRUE(s);
    return out;
  }

  std::vector<std::byte> expected(uint64_t offset, size_t length) {
    const auto first = device_.bytes.begin() + static_cast<ptrdiff_t>(offset);
    return {first, first + static_cast<ptrdiff_t>(length)};
  }
};

TEST_F(ReadUnaligned, AlignedRequestGoesDownAsItIs) {
  EXPECT_EQ(read(1024, 4096), expected(1024, 4096));
  EXPECT_EQ(device_.calls, (std::vector<ReadCall>{{1024, 4096}}));
}

TEST_F(ReadUnaligned, SmallRequestIsOneReadBelow) {
  EXPECT_EQ(read(1023, 2), expected(1023, 2));
  EXPECT_EQ(device_.calls, (std::vector<ReadCall>{{512, 1024}}));
}

TEST_F(ReadUnaligned, OneMebibyteIsOneReadBelow) {
  EXPECT_EQ(read(1023, mebibyte), expected(1023, mebibyte));
  EXPECT_EQ(device_.calls, (std::vector<ReadCall>{{512, mebibyte + 512}}));
}

TEST_F(ReadUnaligned, LargerRequestReadsItsMiddleInPlace) {
  EXPECT_EQ(read(511, mebibyte + 2), expected(511, mebibyte + 2));
  EXPECT_EQ(device_.calls, (std::vector<ReadCall>{{0, 512}, {512, mebibyte}, {mebibyte + 512, 512}}));
}

/* Each request waits for the one inside it, as those of many threads would. */
TEST_F(ReadUnaligned, ManyAtATimeDoWithoutLargeBuffers) {
  constexpr size_t deepest = 20;
  std::vector<size_t> longest(deepest);
  std::vector<std::byte> out(mebibyte);
  const std::function<void(size_t)> go = [&](size_t depth) {
    if (depth == deepest) return;
    ASSERT_TRUE(read_unaligned(out, 1, unit, [&](std::span<std::byte> dst, uint64_t at) {
      if (at == 0) go(depth + 1);
      longest[depth] = std::max(longest[depth], dst.size());
      return device_.read(dst, at);
    }));
  };
  go(0);
  EXPECT_EQ(longest[0], mebibyte + unit);
  EXPECT_EQ(longest[15], mebibyte + unit);
  EXPECT_LE(longest[16], mebibyte);
  EXPECT_EQ(out, expected(1, mebibyte));
  EXPECT_EQ(read(1, mebibyte), expected(1, mebibyte));
  EXPECT_EQ(device_.calls.back(), (ReadCall{0, mebibyte + unit})) << "they have given back what they had";
}

TEST_F(ReadUnaligned, EveryOffsetAndLengthAroundTheUnits) {
  for (const uint64_t offset : {0U, 1U, 511U, 512U, 513U, 1023U, 1024U}) {
    for (const size_t length : {1U, 2U, 511U, 512U, 513U, 1024U, 65535U, 65536U, 65537U, 66000U, 131072U, 131073U}) {
      EXPECT_EQ(read(offset, length), expected(offset, length)) << offset << "+" << length;
    }
  }
}

TEST_F(ReadUnaligned, FailureOfEachPartIsTheResult) {
  for (size_t nth = 1; nth <= 3; ++nth) {
    device_.calls.clear();
    device_.fail_call = nth;
    std::vector<std::byte> out(mebibyte + 2);
    const Status s =
        read_unaligned(out, 511, unit, [&](std::span<std::byte> dst, uint64_t at) { return device_.read(dst, at); });
    ASSERT_FALSE(s);
    EXPECT_EQ(s.error().code, Errc::io);
    EXPECT_EQ(device_.calls.size(), nth);
  }
}

TEST(ReadBlocks, PartOfTheLastBlockIsReadAsFarAsItGoes) {
  MemoryDevice device(MemoryDevice::pattern(1000));
  std::vector<std::byte> out(5);
  ASSERT_TRUE(
      read_blocks(out, 995, 512, 1000, [&](std::span<std::byte> dst, uint64_t at) { return device.read(dst, at); }));
  EXPECT_TRUE(std::equal(out.begin(), out.end(), device.bytes.begin() + 995));
  EXPECT_EQ(device.calls, (std::vector<ReadCall>{{512, 488}}));
}

} // namespace
} // namespace qluks
