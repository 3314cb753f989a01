/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/qcow2/layer.hpp"
#include "base/log.hpp"
#include "formats/luks/keyring.hpp"

#include <gtest/gtest.h>

#include <thread>

#include "tests/support/qcow2_image.hpp"

namespace qluks {
namespace {

using test::MemoryDevice;
using test::Qcow2Image;
using test::ReadCall;

constexpr uint64_t cluster = 65536;

/* Records what it is asked to have at hand. */
class CachingDevice : public MemoryDevice {
 public:
  using MemoryDevice::MemoryDevice;
  Status cache(uint64_t offset, uint64_t length) override {
    if (!range_fits(offset, length, bytes.size()) || length == 0) throw std::logic_error("cache out of bounds");
    cached.push_back({offset, length});
    return ok();
  }
  std::vector<ReadCall> cached;
};

Result<std::unique_ptr<Qcow2Format>> open(BlockDevice& device, const Qcow2Options& options = {}) {
  Keyring keyring;
  return open_qcow2(device, keyring, options);
}

std::string refusal(Qcow2Image& image) {
  auto device = image.device();
  const auto format = open(device);
  return format ? "not refused" : format.error().what;
}

/* An image with clusters of every kind that needs no codec, and what its guest disk holds. */
struct Sample {
  Sample() : image({.size = 20 * cluster}) {
    for (uint64_t i = 0; i < 8; ++i) add_data(i, static_cast<uint8_t>(i + 1)); /* neighbours */
    image.set_l2(9, Qcow2Image::zero_flag);
    image.set_l2(10, image.add_cluster(0xee) | Qcow2Image::zero_flag);
    add_data(13, 13);
    add_data(12, 12); /* neighbours the other way round */
    add_data(19, 19);
  }

  void add_data(uint64_t guest_cluster, uint8_t fill) {
    if (guest_cluster == 0) image.set_l2(0, 0); /* so that the L2 table is not between the clusters */
    image.set_l2(guest_cluster, image.add_cluster(fill) | (uint64_t{1} << 63));
    std::fill_n(guest.begin() + static_cast<ptrdiff_t>(guest_cluster * cluster), cluster, std::byte{fill});
  }

  Qcow2Image image;
  std::vector<std::byte> guest{20 * cluster};
};

std::vector<std::byte> slice_of(const std::vector<std::byte>& bytes, uint64_t offset, size_t length) {
  const auto first = bytes.begin() + static_cast<ptrdiff_t>(offset);
  return {first, first + static_cast<ptrdiff_t>(length)};
}

TEST(Qcow2Layer, EveryRequestAroundTheEdgesOfClusters) {
  Sample sample;
  auto device = sample.image.device();
  const auto format = open(device);
  ASSERT_TRUE(format);
  const auto disk = (*format)->stack_on(device);
  ASSERT_EQ(disk->size(), sample.guest.size());
  for (uint64_t edge = 0; edge <= 20; ++edge) {
    for (const int64_t shift : {-513, -1, 0, 1, 511}) {
      for (const size_t length : {size_t{1}, size_t{2}, size_t{513}, size_t{cluster}, size_t{3 * cluster + 1}}) {
        const uint64_t offset = edge * cluster + static_cast<uint64_t>(shift);
        if (!range_fits(offset, length, sample.guest.size())) continue;
        std::vector<std::byte> out(length, std::byte{0xaa});
        ASSERT_TRUE(disk->read(out, offset));
        EXPECT_EQ(out, slice_of(sample.guest, offset, length)) << offset << "+" << length;
      }
    }
  }
}

TEST(Qcow2Layer, ContiguousClustersAreOneReadBelow) {
  Sample sample;
  auto device = sample.image.device();
  const auto format = open(device);
  ASSERT_TRUE(format);
  const auto disk = (*format)->stack_on(device);
  std::vector<std::byte> out(8 * cluster);
  ASSERT_TRUE(disk->read(out, 0)); /* fetches the table */
  device.calls.clear();
  ASSERT_TRUE(disk->read(out, 0));
  EXPECT_EQ(device.calls.size(), 1U);
  EXPECT_EQ(device.calls[0].length, 8 * cluster);
}

TEST(Qcow2Layer, HolesAndZeroesCostNoRead) {
  Sample sample;
  auto device = sample.image.device();
  const auto format = open(device);
  ASSERT_TRUE(format);
  const auto disk = (*format)->stack_on(device);
  std::vector<std::byte> out(4 * cluster);
  ASSERT_TRUE(disk->read(std::span(out).first(1), 0));
  device.calls.clear();
  ASSERT_TRUE(disk->read(out, 8 * cluster));
  EXPECT_TRUE(device.calls.empty());
}

TEST(Qcow2Layer, ConnectionsShareTheTables) {
  Sample sample;
  auto device = sample.image.device();
  const auto format = open(device);
  ASSERT_TRUE(format);
  const auto one = (*format)->stack_on(device);
  const auto other = (*format)->stack_on(device);
  std::vector<std::byte> out(512);
  ASSERT_TRUE(one->read(out, 0));
  device.calls.clear();
  ASSERT_TRUE(other->read(out, 0));
  EXPECT_EQ(device.calls.size(), 1U);
}

TEST(Qcow2Layer, DataBeyondTheEndOfTheFileIsZero) {
  Sample sample;
  auto device = sample.image.device();
  device.bytes.resize(device.bytes.size() - cluster / 2);
  const auto format = open(device);
  ASSERT_TRUE(format);
  const auto disk = (*format)->stack_on(device);
  std::vector<std::byte> out(cluster);
  ASSERT_TRUE(disk->read(out, 19 * cluster));
  auto expected = slice_of(sample.guest, 19 * cluster, cluster);
  std::fill(expected.begin() + cluster / 2, expected.end(), std::byte{0});
  EXPECT_EQ(out, expected);
}

/* One line for an image, however often and by however many connections it is read. */
TEST(Qcow2Layer, ZeroesBeyondTheEndOfTheFileAreWarnedOfOnce) {
  static std::vector<std::string> warnings;
  warnings.clear();
  set_log_sink([](LogLevel level, const std::string& line) {
    if (level == LogLevel::warning) warnings.push_back(line);
  });
  Sample sample;
  auto device = sample.image.device();
  device.bytes.resize(device.bytes.size() - cluster);
  const auto format = open(device);
  ASSERT_TRUE(format);
  std::vector<std::byte> out(cluster);
  for (int i = 0; i < 3; ++i) {
    const auto disk = (*format)->stack_on(device);
    ASSERT_TRUE(disk->read(out, 0));
    ASSERT_TRUE(disk->read(out, 19 * cluster));
    EXPECT_EQ(out, std::vector<std::byte>(cluster));
    ASSERT_TRUE(disk->read(out, 19 * cluster));
  }
  set_log_sink(nullptr);
  EXPECT_EQ(warnings, (std::vector<std::string>{"qcow2: guest offset 0x130000: 65536 bytes at offset 983040 go past "
                                                "the end, which is at 983040: is the file cut short? "
                                                "What is not there reads as zeroes"}));
}

/* Of a compressed cluster, what is not there is neither zeroes nor a part of the stream. */
TEST(Qcow2Layer, CompressedClustersPastTheEndOfTheFileAreMissed) {
  Qcow2Image image({});
  image.set_l2(0, Qcow2Image::compressed_flag | 0x70000);
  image.set_l2(1, Qcow2Image::compressed_flag | uint64_t{1} << 54 | (image.bytes().size() - 100));
  auto device = image.device();
  const auto format = open(device);
  ASSERT_TRUE(format);
  const auto disk = (*format)->stack_on(device);
  std::vector<std::byte> out(cluster);
  const Status behind = disk->read(out, 0);
  ASSERT_FALSE(behind);
  EXPECT_EQ(behind.error().what,
            "guest offset 0x0: compressed cluster at 0x70000: 512 bytes at offset 458752 go past the end, which is at "
            "262144: is the file cut short?");
  const Status cut = disk->read(out, cluster);
  ASSERT_FALSE(cut);
  EXPECT_NE(cut.error().what.find(" go past the end, which is at 262144"), std::string::npos) << cut.error().what;
}

/* A layer tells one piece; what follows of the same kind is joined here, as it is at the top. */
Result<Extent> joined_extent(BlockDevice& disk, uint64_t at, uint64_t max) {
  auto extent = disk.extent(at, max);
  while (extent && extent->length < max) {
    const auto next = disk.extent(at + extent->length, max - extent->length);
    if (!next || !extent->same_kind(*next)) break;
    extent->length += next->length;
  }
  return extent;
}

TEST(Qcow2Layer, ExtentsOfClustersJoin) {
  Sample sample;
  auto device = sample.image.device();
  const auto format = open(device);
  ASSERT_TRUE(format);
  const auto disk = (*format)->stack_on(device);
  struct Expected {
    uint64_t at, length;
    bool hole, zero;
  };
  for (const Expected& e : {Expected{5, 8 * cluster - 5, false, false}, Expected{8 * cluster, 2 * cluster, true, true},
                            Expected{10 * cluster, cluster, false, true}, Expected{11 * cluster, cluster, true, true},
                            Expected{12 * cluster, 2 * cluster, false, false}}) {
    const auto extent = joined_extent(*disk, e.at, disk->size() - e.at);
    ASSERT_TRUE(extent);
    EXPECT_EQ(extent->length, e.length) << e.at;
    EXPECT_EQ(extent->hole, e.hole) << e.at;
    EXPECT_EQ(extent->zero, e.zero) << e.at;
  }
  const auto bounded = disk->extent(100, 1000);
  ASSERT_TRUE(bounded);
  EXPECT_EQ(bounded->length, 1000U);
}

TEST(Qcow2Layer, CacheRequestsGoDownWhereTheDataIs) {
  Sample sample;
  CachingDevice device(sample.image.bytes());
  const auto format = open(device);
  ASSERT_TRUE(format);
  const auto disk = (*format)->stack_on(device);
  ASSERT_TRUE(disk->cache(7 * cluster, 7 * cluster));
  ASSERT_EQ(device.cached.size(), 3U);
  for (const auto& [offset, length] : device.cached) EXPECT_EQ(length, cluster);
  EXPECT_EQ(device.bytes[device.cached[1].offset], std::byte{12});
}

TEST(Qcow2Layer, FailingStorageReachesTheClientAndIsTriedAgain) {
  Sample sample;
  for (size_t nth = 1;; ++nth) {
    auto device = sample.image.device();
    device.fail_call = nth;
    std::vector<std::byte> out(20 * cluster);
    const auto attempt = [&]() -> Status {
      auto format = open(device);
      if (!format) return propagate(format);
      return (*format)->stack_on(device)->read(out, 0);
    };
    const Status first = attempt();
    if (device.calls.size() < nth) break;
    ASSERT_FALSE(first) << nth;
    EXPECT_EQ(first.error().code, Errc::io);
    ASSERT_TRUE(attempt()) << nth;
    EXPECT_EQ(out, sample.guest);
  }
}

TEST(Qcow2Layer, ManyThreadsOnATinyCacheReadTheSame) {
  Qcow2Image image({.size = 4 << 20, .cluster_bits = 9}); /* 128 tables of 512 bytes */
  std::vector<std::byte> guest(4 << 20);
  for (uint64_t i = 0; i < 8192; i += 3) {
    image.set_l2(i, image.add_cluster(static_cast<uint8_t>(i)));
    std::fill_n(guest.begin() + static_cast<ptrdiff_t>(i * 512), 512, static_cast<std::byte>(i));
  }
  auto device = image.device();
  const auto format = open(device, {.cache_bytes = 4096});
  ASSERT_TRUE(format);
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      const auto disk = (*format)->stack_on(device);
      std::vector<std::byte> out(20000);
      for (uint64_t i = 0; i < 60; ++i) {
        const uint64_t offset = (i * 7919 + t * 104729) * 61 % (guest.size() - out.size());
        ASSERT_TRUE(disk->read(out, offset));
        ASSERT_EQ(out, slice_of(guest, offset, out.size()));
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

TEST(Qcow2Layer, CorruptBitIsForReadersOnly) {
  Qcow2Image image({});
  image.header().incompatible_features = 1 << qcow2_corrupt_bit;
  EXPECT_NE(refusal(image).find("marked corrupt"), std::string::npos);
  auto device = image.device();
  EXPECT_TRUE(open(device, {.read_only = true}));
}

TEST(Qcow2Layer, DirtyBitIsFineForReaders) {
  Qcow2Image image({});
  image.header().incompatible_features = 1 << qcow2_dirty_bit;
  auto device = image.device();
  EXPECT_TRUE(open(device));
}

TEST(Qcow2Layer, DamagedEntryIsAnErrorWhenItIsRead) {
  Qcow2Image image({.version = 2});
  image.set_l2(1, Qcow2Image::zero_flag);
  auto device = image.device();
  const auto format = open(device);
  ASSERT_TRUE(format);
  const auto disk = (*format)->stack_on(device);
  std::vector<std::byte> out(2 * cluster);
  EXPECT_TRUE(disk->read(std::span(out).first(cluster), 0));
  const Status s = disk->read(out, 0);
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error().code, Errc::corrupt);
  EXPECT_EQ(s.error().what, "guest offset 0x10000: zero cluster in an image of version 2");
}

TEST(Qcow2Layer, LimitsAreAClusterAndWhatIsBelow) {
  for (const unsigned bits : {9U, 16U, 21U}) {
    Qcow2Image image({.cluster_bits = bits});
    auto device = image.device();
    const auto format = open(device);
    ASSERT_TRUE(format);
    const Limits limits = (*format)->stack_on(device)->limits();
    EXPECT_EQ(limits.minimum, 1U);
    EXPECT_EQ(limits.preferred, std::max<uint32_t>(4096, 1U << bits));
    EXPECT_EQ(limits.maximum, 0xffffffffU);
  }
}

TEST(Qcow2Layer, SaysWhatItIs) {
  Qcow2Image image({.version = 2});
  auto device = image.device();
  const auto format = open(device);
  ASSERT_TRUE(format);
  EXPECT_EQ((*format)->describe(), "qcow2 v2");
  EXPECT_FALSE((*format)->encrypted());
}

TEST(Qcow2Layer, ProbeKnowsTheMagicOnly) {
  Qcow2Image image({});
  auto device = image.device();
  auto probed = probe_qcow2(device);
  EXPECT_TRUE(probed && *probed);
  device.bytes.resize(3);
  probed = probe_qcow2(device);
  EXPECT_TRUE(probed && !*probed);
}

} // namespace
} // namespace qluks
