/* SPDX-License-Identifier: BSD-3-Clause */
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <thread>
#include <vector>

#include "base/checked.hpp"
#include "base/extents.hpp"
#include "base/file_device.hpp"
#include "base/memory_budget.hpp"
#include "base/page_buffer.hpp"
#include "base/window.hpp"
#include "base/wire.hpp"
#include "tests/support/memory_device.hpp"
#include "tests/support/writable_device.hpp"

namespace qluks {
namespace {

using test::MemoryDevice;
using test::WritableDevice;
using test::WriteCall;

constexpr uint64_t u64_max = std::numeric_limits<uint64_t>::max();

TEST(Checked, SumsThatWrapAreRefused) {
  EXPECT_EQ(checked_add<uint64_t>(u64_max - 1, 1), u64_max);
  EXPECT_EQ(checked_add<uint64_t>(u64_max, 1), std::nullopt);
  EXPECT_EQ(checked_mul<uint64_t>(1ULL << 32, 1ULL << 32), std::nullopt);
  EXPECT_EQ(checked_align_up<uint64_t>(u64_max - 10, 512), std::nullopt);
  EXPECT_EQ(checked_align_up<uint64_t>(513, 512), 1024U);
}

TEST(Checked, RangeMayEndAtTheLimitAndNotBeyond) {
  EXPECT_TRUE(range_fits(90, 10, 100));
  EXPECT_TRUE(range_fits(100, 0, 100));
  EXPECT_FALSE(range_fits(91, 10, 100));
  EXPECT_FALSE(range_fits(101, 0, 100));
  EXPECT_FALSE(range_fits(u64_max, u64_max, 100));
}

TEST(Wire, FieldsAreBigEndian) {
  const be32 field = 0x01020304U;
  std::array<uint8_t, 4> bytes;
  std::memcpy(bytes.data(), &field, 4);
  EXPECT_EQ(bytes, (std::array<uint8_t, 4>{1, 2, 3, 4}));
  EXPECT_EQ(static_cast<uint32_t>(field), 0x01020304U);
}

TEST(Window, ReadsPastTheEndOfTheDeviceFail) {
  MemoryDevice device(MemoryDevice::pattern(1000));
  Window window(device, 900, 200);
  std::vector<std::byte> out(150, std::byte{0xee});
  const Status s = window.read(out, 50);
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error().what, "150 bytes at offset 950 go past the end, which is at 1000: is the file cut short?");
  EXPECT_EQ(s.error().sys, EIO);
  EXPECT_TRUE(device.calls.empty());
  ASSERT_TRUE(window.read(std::span(out).first(50), 50));
  EXPECT_EQ(out[49], device.bytes[999]);
}

TEST(Window, ZeroPaddedReadsEndWithZeroes) {
  MemoryDevice device(MemoryDevice::pattern(1000));
  std::vector<std::byte> out(150, std::byte{0xee});
  ASSERT_TRUE(read_zero_padded(device, out, 950));
  EXPECT_EQ(out[49], device.bytes[999]);
  for (size_t i = 50; i < out.size(); ++i) EXPECT_EQ(out[i], std::byte{0});
  EXPECT_EQ(device.calls, (std::vector<test::ReadCall>{{950, 50}}));
}

TEST(Window, ShiftsEveryKindOfWrite) {
  WritableDevice device(MemoryDevice::pattern(4096));
  Window window(device, 1024, 2048);
  const std::vector<std::byte> ones(512, std::byte{1});
  ASSERT_TRUE(window.write(ones, 512, Fua::yes));
  ASSERT_TRUE(window.zero(1024, 256, ZeroMode::keep, Fua::no));
  ASSERT_TRUE(window.trim(1536, 512, Fua::no));
  ASSERT_TRUE(window.flush());
  using Kind = WriteCall::Kind;
  ASSERT_EQ(device.calls.size(), 4U);
  const std::pair<Kind, uint64_t> expected[] = {
      {Kind::write, 1536}, {Kind::zero, 2048}, {Kind::trim, 2560}, {Kind::flush, 0}};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(device.calls[i].kind, expected[i].first);
    EXPECT_EQ(device.calls[i].offset, expected[i].second);
  }
  EXPECT_EQ(device.calls[0].fua, Fua::yes);
}

TEST(Window, WritesNothingPastTheEndOfTheDevice) {
  WritableDevice device(MemoryDevice::pattern(1000));
  Window window(device, 900, 200);
  const std::vector<std::byte> ones(101, std::byte{1});
  EXPECT_FALSE(window.write(ones, 0, Fua::no));
  EXPECT_FALSE(window.zero(100, 1, ZeroMode::may_trim, Fua::no));
  EXPECT_FALSE(window.trim(0, 200, Fua::no));
  EXPECT_TRUE(device.calls.empty());
  EXPECT_EQ(device.bytes, MemoryDevice::pattern(1000));
}

TEST(Window, BeyondTheDeviceNothingIsRead) {
  MemoryDevice device(MemoryDevice::pattern(1000));
  Window window(device, 5000, 200);
  std::vector<std::byte> out(8, std::byte{0xee});
  EXPECT_FALSE(window.read(out, 0));
  EXPECT_FALSE(window.extent(0, 200));
  EXPECT_TRUE(device.calls.empty());
}

/* Says what it is told to say. */
class ClaimingDevice : public MemoryDevice {
 public:
  using MemoryDevice::MemoryDevice;
  Result<Extent> extent(uint64_t /*offset*/, uint64_t max) override {
    return Extent{.length = max, .hole = hole, .zero = zero};
  }
  bool hole = false, zero = false;
};

TEST(Confirmed, WhatIsCalledZeroIsLookedAt) {
  ClaimingDevice device(std::vector<std::byte>(4096));
  const auto outcome = [&](bool hole, bool zero) {
    const auto extent = confirmed(device, 512, {.length = 1024, .hole = hole, .zero = zero});
    return !extent ? "failed" : extent->hole ? extent->zero ? "hole,zero" : "hole" : extent->zero ? "zero" : "data";
  };
  EXPECT_STREQ(outcome(true, true), "hole,zero");
  EXPECT_STREQ(outcome(false, true), "zero");
  EXPECT_STREQ(outcome(false, false), "data");
  EXPECT_STREQ(outcome(true, false), "data"); /* some clients take any hole for zeroes */
  device.bytes[1535] = std::byte{1};
  EXPECT_STREQ(outcome(true, true), "data");
  device.fail_call = device.calls.size() + 1;
  EXPECT_STREQ(outcome(true, true), "failed");
}

class FileDeviceTest : public ::testing::Test {
 protected:
  FileDeviceTest() {
    std::string name = ::testing::TempDir() + "/qluks-file-XXXXXX";
    const int fd = mkstemp(name.data());
    EXPECT_GE(fd, 0);
    ::close(fd);
    path_ = name;
  }
  ~FileDeviceTest() override { ::unlink(path_.c_str()); }
  std::string path_;
};

TEST_F(FileDeviceTest, ReadsAndKnowsItsSize) {
  std::ofstream(path_) << "0123456789";
  const auto device = FileDevice::open(path_);
  ASSERT_TRUE(device);
  EXPECT_EQ((*device)->size(), 10U);
  std::array<std::byte, 3> out;
  ASSERT_TRUE((*device)->read(out, 7));
  EXPECT_EQ(out[2], std::byte{'9'});
}

TEST_F(FileDeviceTest, FileThatShrinksIsAnError) {
  std::ofstream(path_) << "0123456789";
  const auto device = FileDevice::open(path_);
  ASSERT_TRUE(device);
  ASSERT_EQ(truncate(path_.c_str(), 5), 0);
  std::array<std::byte, 10> out;
  const Status s = (*device)->read(out, 0);
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error().code, Errc::io);
}

/* What is called zero or a hole reads as zeroes, with nothing written by anybody else. */
void expect_promises_kept(BlockDevice& device) {
  for (const uint64_t max : {uint64_t{1}, uint64_t{512}, uint64_t{4096}, uint64_t{65536}, device.size()}) {
    for (uint64_t at = 0; at < device.size();) {
      const auto extent = device.extent(at, std::min(max, device.size() - at));
      ASSERT_TRUE(extent) << extent.error().what;
      ASSERT_GT(extent->length, 0U);
      ASSERT_LE(extent->length, std::min(max, device.size() - at));
      std::vector<std::byte> bytes(static_cast<size_t>(extent->length), std::byte{1});
      ASSERT_TRUE(device.read(bytes, at));
      if (extent->hole || extent->zero) {
        ASSERT_TRUE(extent->zero);
        ASSERT_EQ(bytes, std::vector<std::byte>(bytes.size())) << at << " " << max;
      }
      at += std::max(extent->length, device.size() / 512);
    }
  }
}

TEST_F(FileDeviceTest, ZeroIsOnlyWhatReadsAsZeroes) {
  for (const std::vector<uint64_t>& pieces :
       {std::vector<uint64_t>{}, {0}, {512}, {4096, 8192}, {65536, 66048, 300000}, {1048064}, {0, 524288, 1048064}}) {
    std::ofstream(path_, std::ios::trunc).close();
    ASSERT_EQ(truncate(path_.c_str(), 1 << 20), 0);
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    for (const uint64_t at : pieces)
      file.seekp(static_cast<std::streamoff>(at)).write(std::string(512, 'x').data(), 512);
    file.close();
    const auto device = FileDevice::open(path_);
    ASSERT_TRUE(device);
    expect_promises_kept(**device);
  }
}

TEST_F(FileDeviceTest, WhatWasCutOffIsNoHole) {
  std::ofstream(path_) << std::string(8192, 'x');
  ASSERT_EQ(truncate(path_.c_str(), 1 << 20), 0);
  const auto device = FileDevice::open(path_);
  ASSERT_TRUE(device);
  const auto outcome = [&](uint64_t offset, uint64_t max) -> std::string {
    const auto extent = (*device)->extent(offset, max);
    if (!extent) return extent.error().what;
    return (extent->zero ? "zero " : "data ") + std::to_string(extent->length);
  };
  for (const off_t end : {0, 4096, 8192, 10000, 65536}) {
    ASSERT_EQ(truncate(path_.c_str(), end), 0);
    const uint64_t behind = static_cast<uint64_t>(end);
    EXPECT_EQ(outcome(behind, (1 << 20) - behind), path_ + ": the file was cut short while in use") << end;
    EXPECT_EQ(outcome(1 << 19, 1), path_ + ": the file was cut short while in use") << end;
  }
  EXPECT_EQ(outcome(20000, (1 << 20) - 20000), "zero " + std::to_string(65536 - 20000)); /* a hole up to the new end */
  ASSERT_EQ(truncate(path_.c_str(), 1 << 20), 0);
  expect_promises_kept(**device);
}

TEST_F(FileDeviceTest, HolesAreKnown) {
  std::ofstream(path_) << "data";
  ASSERT_EQ(truncate(path_.c_str(), 1 << 20), 0);
  const auto device = FileDevice::open(path_);
  ASSERT_TRUE(device);
  uint64_t at = 0;
  bool hole_seen = false;
  while (at < (*device)->size()) {
    const auto extent = (*device)->extent(at, (*device)->size() - at);
    ASSERT_TRUE(extent);
    ASSERT_GT(extent->length, 0U);
    EXPECT_EQ(extent->hole, extent->zero);
    EXPECT_FALSE(at == 0 && extent->hole);
    hole_seen = hole_seen || extent->hole;
    at += extent->length;
  }
  EXPECT_TRUE(hole_seen);
}

TEST_F(FileDeviceTest, NothingOutsideOfTheDirectoryIsOpened) {
  std::string dir = ::testing::TempDir() + "/qluks-dir-XXXXXX";
  ASSERT_NE(mkdtemp(dir.data()), nullptr);
  std::ofstream(dir + "/inside") << "inside";
  ASSERT_EQ(symlink("inside", (dir + "/link").c_str()), 0);
  ASSERT_EQ(symlink(path_.c_str(), (dir + "/out").c_str()), 0);
  ASSERT_EQ(symlink("..", (dir + "/up").c_str()), 0);
  EXPECT_TRUE(FileDevice::open_beneath(dir, "inside"));
  EXPECT_TRUE(FileDevice::open_beneath(dir, "link"));
  const std::string name = path_.substr(path_.rfind('/') + 1);
  for (const std::string& bad : {std::string("out"), "../" + name, "up/" + name, path_}) {
    const auto device = FileDevice::open_beneath(dir, bad);
    ASSERT_FALSE(device) << bad;
    EXPECT_EQ(device.error().what, dir + "/" + bad + ": leads out of the directory");
  }
  EXPECT_FALSE(FileDevice::open_beneath(dir, "missing"));
  for (const char* file : {"/inside", "/link", "/out", "/up", ""}) std::remove((dir + file).c_str());
}

TEST_F(FileDeviceTest, OnlyFilesAndBlockDevicesOpen) {
  EXPECT_FALSE(FileDevice::open("/dev/null"));
  EXPECT_FALSE(FileDevice::open("/"));
  const auto missing = FileDevice::open("/nonexistent/header");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().what, "/nonexistent/header: No such file or directory");
}

TEST(MemoryBudget, ThreadsNeverHoldMoreThanItsLimit) {
  MemoryBudget budget(10);
  std::atomic<unsigned> held = 0;
  std::atomic<unsigned> most = 0;
  std::vector<std::jthread> threads;
  for (unsigned bytes = 1; bytes <= 8; ++bytes) {
    threads.emplace_back([&, bytes] {
      for (int i = 0; i < 500; ++i) {
        const auto lease = budget.lease(bytes);
        const unsigned now = held += bytes;
        for (unsigned seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
        }
        std::this_thread::yield();
        held -= bytes;
      }
    });
  }
  threads.clear();
  EXPECT_LE(most, 10U);
}

TEST(MemoryBudget, ALeaseBeyondTheLimitIsGrantedAlone) {
  MemoryBudget budget(10);
  { const auto lease = budget.lease(11); }
  const auto lease = budget.lease(12);
}

TEST(PageBuffer, EverySizeIsWritableToItsEnd) {
  for (const size_t length : {size_t{1}, page_buffer_bytes_min - 1, page_buffer_bytes_min, size_t{1234567}}) {
    const PageBuffer buffer = make_page_buffer(length);
    buffer[0] = std::byte{1};
    buffer[length - 1] = std::byte{2};
    EXPECT_EQ(buffer[length - 1], std::byte{2});
  }
}

} // namespace
} // namespace qluks
