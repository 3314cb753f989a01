/* SPDX-License-Identifier: BSD-3-Clause */
/* Failing storage: each kind of image is opened and read while the n-th call of the storage below fails, for every n.
 *
 * The error reaches the caller with its number, or what was asked for is whole and right; a failure that has passed
 * leaves nothing behind.  Storage that answers wrongly, or is cut short anywhere, is refused or read somehow, and a
 * request outside of a device is never made (MemoryDevice throws). */
#include <gtest/gtest.h>

#include "tests/support/faulty_device.hpp"
#include "tests/support/luks_builder.hpp"
#include "tests/support/memory_device.hpp"
#include "tests/support/stored_image.hpp"

namespace qluks {
namespace {

using test::Content;
using test::Fault;
using test::FaultKind;
using test::FaultyDevice;
using test::FaultySwitch;
using test::MemoryDevice;
using test::OpenedImage;
using test::StoredImage;

struct Range {
  uint64_t offset;
  size_t length;
};

/* Whole, across everything, and at both ends. */
std::vector<Range> ranges_of(size_t size) {
  return {{0, size}, {1, 5000}, {size / 3, 33000}, {size - 1, 1}, {4096, 512}, {size - 4000, 4000}};
}

class Storage : public ::testing::TestWithParam<StoredImage> {
 protected:
  Storage() { keyring_.add_secret(test::secret_of(test::stored_image_secret)); }

  void SetUp() override {
    load(image_.files);
    remember_extents();
  }

  void load(const std::vector<Content>& files) {
    devices_.clear();
    for (const Content& file : files) {
      devices_.push_back(std::make_unique<FaultyDevice>(std::make_unique<MemoryDevice>(file), faults_));
    }
  }

  Result<std::unique_ptr<OpenedImage>> open() {
    auto opened = std::make_unique<OpenedImage>(*devices_[0]);
    if (Status s = image_.open(*opened, devices_, keyring_); !s) return propagate(s);
    return opened;
  }

  /* What kind each byte of the disk is when nothing fails. */
  void remember_extents() {
    auto opened = open();
    ASSERT_TRUE(opened) << opened.error().what;
    BlockDevice& disk = (*opened)->disk();
    ASSERT_EQ(disk.size(), image_.guest.size());
    for (uint64_t at = 0; at < disk.size();) {
      auto extent = disk.extent(at, disk.size() - at);
      ASSERT_TRUE(extent) << extent.error().what;
      at += extent->length;
      kinds_.resize(at, *extent);
    }
  }

  bool reads_right(const Content& got, uint64_t offset) const {
    return std::equal(got.begin(), got.end(), image_.guest.begin() + static_cast<ptrdiff_t>(offset));
  }

  bool maps_right(const Extent& extent, uint64_t at) const {
    if (extent.length == 0 || extent.length > kinds_.size() - at) return false;
    const auto first = kinds_.begin() + static_cast<ptrdiff_t>(at);
    return std::all_of(first, first + static_cast<ptrdiff_t>(extent.length),
                       [&](const Extent& kind) { return kind.same_kind(extent); });
  }

  /* Success is trusted to be right, and checked by the caller; a failure is the injected one. */
  template <class T>
  void expect_injected(const Result<T>& result) {
    if (result) return;
    EXPECT_GT(faults_.hits(), 0U) << result.error().what;
    EXPECT_EQ(result.error().sys, fault_.error.sys) << result.error().what;
    EXPECT_EQ(result.error().code, fault_.error.code) << result.error().what;
    EXPECT_NE(result.error().what.find(fault_.error.what), std::string::npos) << result.error().what;
  }

  /* Once more after a failure that does not last, and then it has to work. */
  template <class Step>
  auto tried(Step step) {
    auto result = step();
    expect_injected(result);
    if (!result && !fault_.always) result = step();
    EXPECT_TRUE(result || fault_.always) << result.error().what;
    return result;
  }

  void read_and_map(BlockDevice& disk) {
    for (const Range& range : ranges_of(image_.guest.size())) {
      Content got(range.length);
      if (tried([&] { return disk.read(got, range.offset); })) {
        EXPECT_TRUE(reads_right(got, range.offset)) << range.offset;
      }
    }
    for (uint64_t at = 0; at < disk.size();) {
      const auto extent = tried([&] { return disk.extent(at, disk.size() - at); });
      if (!extent) break;
      EXPECT_TRUE(maps_right(*extent, at)) << at;
      at += extent->length;
    }
    const Status s = tried([&] { return disk.cache(0, disk.size()); });
    EXPECT_TRUE(s || fault_.always);
  }

  /* Every n until none is hit; how many there are. */
  template <class Workload>
  size_t for_each_call(Fault fault, Workload work) {
    for (fault.nth = 1;; ++fault.nth) {
      SCOPED_TRACE("call " + std::to_string(fault.nth) + (fault.always ? " and all after it" : ""));
      fault_ = fault;
      faults_.arm(fault);
      work();
      if (faults_.hits() == 0 || ::testing::Test::HasFailure()) return fault.nth - 1;
    }
  }

  void open_read_and_map() {
    auto opened = tried([this] { return open(); });
    if (opened) read_and_map((*opened)->disk());
  }

  /* Whatever the storage says: no crash, no request out of range, and answers of the right form. */
  void use_somehow() {
    auto opened = open();
    if (!opened) {
      EXPECT_FALSE(opened.error().what.empty());
      return;
    }
    BlockDevice& disk = (*opened)->disk();
    const uint64_t end = std::min<uint64_t>(disk.size(), image_.guest.size());
    Content got(static_cast<size_t>(end));
    if (end == 0) return;
    for (const Status& s : {disk.read(got, 0), disk.read(std::span(got).first(1), disk.size() - 1)}) {
      EXPECT_TRUE(s || !s.error().what.empty());
    }
    uint64_t at = 0;
    for (int i = 0; at < end && i < 100; ++i) {
      const auto extent = disk.extent(at, end - at);
      if (!extent) break;
      EXPECT_GT(extent->length, 0U);
      EXPECT_LE(extent->length, end - at);
      at += extent->length;
    }
  }

  void expect_sound() {
    faults_.disarm();
    fault_ = {};
    open_read_and_map();
  }

  static void count(const char* what, size_t n) {
    total += n;
    std::printf("%-24s %5zu %s (%zu in all)\n", GetParam().name.c_str(), n, what, total);
  }

  static inline size_t total = 0;

  const StoredImage image_ = GetParam();
  Keyring keyring_; /* derives once for each image; the key material is read anew all the same */
  FaultySwitch faults_;
  Fault fault_;
  StoredImage::Devices devices_;
  std::vector<Extent> kinds_;
};

TEST_P(Storage, ErrorOfEachCallReachesTheCaller) {
  size_t points = 0;
  for (const Error& error :
       {Error{Errc::io, 5, "injected failure"}, Error{Errc::io, 110, "it took too long"},
        Error{Errc::no_memory, 12, "no memory below"}, Error{Errc::corrupt, 74, "damaged below"}}) {
    for (const bool always : {false, true}) {
      points += for_each_call({.always = always, .error = error}, [this] { open_read_and_map(); });
    }
  }
  expect_sound();
  count("failing calls", points);
}

TEST_P(Storage, JunkBehindTheFirstHalfOfEachCall) {
  size_t points = 0;
  for (const bool always : {false, true}) {
    points += for_each_call({.always = always, .kind = FaultKind::junk_behind}, [this] { use_somehow(); });
  }
  expect_sound();
  count("calls with junk", points);
}

TEST_P(Storage, FilesCutShortAnywhere) {
  size_t points = 0;
  for (size_t file = 0; file < image_.files.size(); ++file) {
    const size_t size = image_.files[file].size();
    for (size_t length = 0; length < size; length += std::max<size_t>(512, size / 512)) {
      for (const size_t more : {0, 1, 8, 511}) {
        std::vector<Content> files = image_.files;
        files[file].resize(std::min(length + more, size));
        load(files);
        SCOPED_TRACE("file " + std::to_string(file) + " of " + std::to_string(files[file].size()) + " bytes");
        use_somehow();
        ++points;
      }
    }
  }
  load(image_.files);
  expect_sound();
  count("short files", points);
}

INSTANTIATE_TEST_SUITE_P(Images, Storage, ::testing::ValuesIn(test::stored_images()),
                         [](const auto& each) { return each.param.test_name(); });

} // namespace
} // namespace qluks
