/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/qcow2/compressed.hpp"
#include "formats/luks/keyring.hpp"

#include <gtest/gtest.h>

#include <thread>

#include "formats/qcow2/layer.hpp"
#include "tests/support/qcow2_image.hpp"
#include "tests/support/streams.hpp"

namespace qluks {
namespace {

using Bytes = std::vector<std::byte>;
using test::deflated;
using test::zstd_frame;

constexpr size_t cluster = 65536;

Bytes sample(size_t size = cluster) { return test::compressible(size); }

Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/* What comes out, or nothing if it is refused. */
std::optional<Bytes> decompressed(Qcow2Compression type, const Bytes& in, size_t size = cluster) {
  Bytes out(size);
  const Status s = make_decompressor(type)->decompress(in, out);
  if (s) return out;
  EXPECT_EQ(s.error().code, Errc::corrupt);
  return std::nullopt;
}

constexpr auto zlib_type = Qcow2Compression::zlib;
constexpr auto zstd_type = Qcow2Compression::zstd;

TEST(Deflate, StreamOfOneCluster) { EXPECT_EQ(decompressed(zlib_type, deflated(sample())), sample()); }

TEST(Deflate, JunkBehindTheStreamIsNotLookedAt) {
  EXPECT_EQ(decompressed(zlib_type, deflated(sample()) + Bytes(700, std::byte{0xff})), sample());
}

TEST(Deflate, WindowOf32KiB) { EXPECT_EQ(decompressed(zlib_type, deflated(sample(), Z_FINISH, 15)), sample()); }

TEST(Deflate, StreamWithoutEndThatFillsTheCluster) {
  EXPECT_EQ(decompressed(zlib_type, deflated(sample(), Z_SYNC_FLUSH)), sample());
}

TEST(Deflate, LongerStreamIsCutOff) { EXPECT_EQ(decompressed(zlib_type, deflated(sample(cluster + 5000))), sample()); }

TEST(Deflate, ShorterStreamIsRefused) {
  EXPECT_FALSE(decompressed(zlib_type, deflated(sample(cluster - 1))));
  EXPECT_FALSE(decompressed(zlib_type, deflated(sample(cluster - 1), Z_SYNC_FLUSH)));
}

TEST(Deflate, TruncatedAndEmptyInputIsRefused) {
  Bytes stream = deflated(sample());
  stream.resize(stream.size() / 2);
  EXPECT_FALSE(decompressed(zlib_type, stream));
  EXPECT_FALSE(decompressed(zlib_type, Bytes(512)));
  EXPECT_FALSE(decompressed(zlib_type, Bytes(512, std::byte{0xff})));
}

TEST(Zstd, OneFrame) { EXPECT_EQ(decompressed(zstd_type, zstd_frame(sample())), sample()); }

TEST(Zstd, JunkBehindTheFrameIsNotLookedAt) {
  EXPECT_EQ(decompressed(zstd_type, zstd_frame(sample()) + Bytes(700, std::byte{0xff})), sample());
}

TEST(Zstd, SeveralFrames) {
  const Bytes all = sample();
  const Bytes first(all.begin(), all.begin() + 1000);
  const Bytes second(all.begin() + 1000, all.end());
  const Bytes skipped = {std::byte{0x50}, std::byte{0x2a}, std::byte{0x4d}, std::byte{0x18}, std::byte{2},
                         std::byte{0},    std::byte{0},    std::byte{0},    std::byte{9},    std::byte{9}};
  EXPECT_EQ(decompressed(zstd_type, zstd_frame(first) + zstd_frame({}) + skipped + zstd_frame(second)), all);
}

TEST(Zstd, WindowsOfAnySize) {
  for (int log = 10; log <= 27; ++log) EXPECT_EQ(decompressed(zstd_type, zstd_frame(sample(), log)), sample()) << log;
}

TEST(Zstd, LongerFrameIsRefused) { EXPECT_FALSE(decompressed(zstd_type, zstd_frame(sample(cluster + 1)))); }

TEST(Zstd, ShorterFrameIsRefused) {
  EXPECT_FALSE(decompressed(zstd_type, zstd_frame(sample(cluster - 1))));
  EXPECT_FALSE(decompressed(zstd_type, zstd_frame(sample(cluster - 1)) + Bytes(100)));
}

TEST(Zstd, ChecksumIsVerified) {
  Bytes frame = zstd_frame(sample(), 0, true);
  EXPECT_EQ(decompressed(zstd_type, frame), sample());
  frame.back() ^= std::byte{1};
  EXPECT_FALSE(decompressed(zstd_type, frame));
}

TEST(Zstd, FormatsFromBeforeTheStandardAreRefused) {
  Bytes frame = zstd_frame(sample());
  frame[0] = std::byte{0x27}; /* 0.7 */
  EXPECT_FALSE(decompressed(zstd_type, frame));
}

TEST(Zstd, TruncatedInputIsRefused) {
  const Bytes frame = zstd_frame(sample());
  for (size_t length = 0; length < frame.size(); length += 101) {
    EXPECT_FALSE(decompressed(zstd_type, Bytes(frame.begin(), frame.begin() + static_cast<ptrdiff_t>(length))));
  }
}

/* An image with one compressed cluster at an odd place. */
class CompressedLayer : public ::testing::Test {
 protected:
  CompressedLayer() {
    const Bytes stream = deflated(sample());
    const uint64_t at = image_.add_cluster(0xff) + 333;
    std::copy(stream.begin(), stream.end(), image_.bytes().begin() + static_cast<ptrdiff_t>(at));
    const uint64_t more_sectors = (at % 512 + stream.size() - 1) / 512;
    image_.set_l2(0, test::Qcow2Image::compressed_flag | (more_sectors << 54) | at);
  }
  test::Qcow2Image image_{{}};
  Keyring keyring_;
};

TEST_F(CompressedLayer, PartsOfAClusterAreDecompressedOnce) {
  auto device = image_.device();
  const auto format = open_qcow2(device, keyring_, {});
  ASSERT_TRUE(format);
  const auto disk = (*format)->stack_on(device);
  device.calls.clear();
  const Bytes all = sample();
  for (size_t at = 0; at < cluster; at += 4096) {
    Bytes out(4096);
    ASSERT_TRUE(disk->read(out, at));
    EXPECT_TRUE(std::equal(out.begin(), out.end(), all.begin() + static_cast<ptrdiff_t>(at)));
  }
  EXPECT_EQ(device.calls.size(), 2U); /* the L2 table, the stream */
}

TEST_F(CompressedLayer, WholeClustersDoNotFillTheCache) {
  auto device = image_.device();
  const auto format = open_qcow2(device, keyring_, {});
  ASSERT_TRUE(format);
  const auto disk = (*format)->stack_on(device);
  Bytes out(cluster);
  ASSERT_TRUE(disk->read(out, 0));
  EXPECT_EQ(out, sample());
  device.calls.clear();
  ASSERT_TRUE(disk->read(out, 0));
  EXPECT_EQ(device.calls.size(), 1U);
}

TEST(CompressedLayers, StreamsThatFollowEachOtherAreOneRead) {
  test::Qcow2Image image({});
  const Bytes stream = deflated(sample());
  image.set_l2(3, 0); /* so that the L2 table is not between the streams */
  uint64_t at = image.add_cluster(0) + 77;
  while (image.bytes().size() < at + 4 * stream.size()) image.add_cluster(0);
  for (const uint64_t guest : {0U, 1U, 2U, 5U}) {
    std::copy(stream.begin(), stream.end(), image.bytes().begin() + static_cast<ptrdiff_t>(at));
    const uint64_t more_sectors = (at % 512 + stream.size() - 1) / 512;
    image.set_l2(guest, test::Qcow2Image::compressed_flag | (more_sectors << 54) | at);
    at += stream.size();
  }
  auto device = image.device();
  Keyring keyring;
  const auto format = open_qcow2(device, keyring, {});
  ASSERT_TRUE(format);
  const auto disk = (*format)->stack_on(device);
  Bytes out(6 * cluster, std::byte{0xee});
  device.calls.clear();
  ASSERT_TRUE(disk->read(out, 0));
  EXPECT_EQ(out, sample() + sample() + sample() + Bytes(2 * cluster) + sample());
  EXPECT_EQ(device.calls.size(), 2U); /* the L2 table, the streams */
}

TEST_F(CompressedLayer, ManyThreadsReadPartsAndTheWhole) {
  auto device = image_.device();
  const auto format = open_qcow2(device, keyring_, {.cache_bytes = 1});
  ASSERT_TRUE(format);
  const Bytes all = sample();
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      const auto disk = (*format)->stack_on(device);
      for (size_t i = 0; i < 40; ++i) {
        const size_t at = (t * 40 + i) % 7 * 4096;
        Bytes out(i % 3 == 0 ? cluster - at : 4096);
        ASSERT_TRUE(disk->read(out, at));
        ASSERT_TRUE(std::equal(out.begin(), out.end(), all.begin() + static_cast<ptrdiff_t>(at)));
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

TEST_F(CompressedLayer, FailingStorageIsTriedAgain) {
  for (const size_t length : {size_t{100}, cluster}) {
    for (size_t nth = 1; nth <= 4; ++nth) { /* header, L1, L2 table, stream */
      auto device = image_.device();
      device.fail_call = nth;
      Bytes out(length);
      const auto attempt = [&]() -> Status {
        auto format = open_qcow2(device, keyring_, {});
        if (!format) return propagate(format);
        return (*format)->stack_on(device)->read(out, 0);
      };
      const Status first = attempt();
      ASSERT_FALSE(first) << nth;
      EXPECT_EQ(first.error().code, Errc::io);
      EXPECT_TRUE(attempt()) << nth;
    }
  }
}

TEST_F(CompressedLayer, DamagedStreamIsAnError) {
  auto device = image_.device();
  const auto format = open_qcow2(device, keyring_, {});
  ASSERT_TRUE(format);
  std::fill_n(device.bytes.begin() + 3 * cluster, cluster, std::byte{0xff});
  const auto disk = (*format)->stack_on(device);
  Bytes out(10);
  const Status s = disk->read(out, 0);
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error().what, "guest offset 0x0: compressed cluster at 0x3014d: not a deflate stream of one cluster");
}

} // namespace
} // namespace qluks
