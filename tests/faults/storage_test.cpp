/* SPDX-License-Identifier: BSD-3-Clause */
/* Failing storage: each kind of image is opened and read while the n-th call of the storage below fails, for every n.
 *
 * The error reaches the caller with its number, or what was asked for is whole and right; a failure that has passed
 * leaves nothing behind.  Storage that answers wrongly, or is cut short anywhere, is refused or read somehow, and a
 * request outside of a device is never made (MemoryDevice throws). */
#include "tests/faults/workload.hpp"
#include "tests/support/faulty_device.hpp"
#include "tests/support/memory_device.hpp"

namespace qluks {
namespace {

using test::Content;
using test::Fault;
using test::FaultKind;
using test::FaultyDevice;
using test::FaultySwitch;
using test::MemoryDevice;

class Storage : public test::Workload<Storage> {
 public:
  /* Once more after a failure that does not last, and then it has to work. */
  template <class Step>
  bool tried(Step step) {
    Status s = step();
    if (!s) expect_injected(s.error());
    if (!s && !fault_.always) s = step();
    EXPECT_TRUE(s || fault_.always) << s.error().what;
    return bool{s};
  }

 protected:
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

  void expect_injected(const Error& error) {
    EXPECT_GT(faults_.hits(), 0U) << error.what;
    EXPECT_EQ(error.sys, fault_.error.sys) << error.what;
    EXPECT_EQ(error.code, fault_.error.code) << error.what;
    EXPECT_NE(error.what.find(fault_.error.what), std::string::npos) << error.what;
  }

  /* Every n until none is hit; how many there are. */
  template <class Work>
  size_t for_each_call(Fault fault, Work work) {
    for (fault.nth = 1;; ++fault.nth) {
      SCOPED_TRACE("call " + std::to_string(fault.nth) + (fault.always ? " and all after it" : ""));
      fault_ = fault;
      faults_.arm(fault);
      work();
      if (faults_.hits() == 0 || HasFailure()) return fault.nth - 1;
    }
  }

  /* Whatever the storage says: no crash, no request out of range, and answers of the right form. */
  void use_somehow() {
    if (const Status s = open(); !s) {
      EXPECT_FALSE(s.error().what.empty());
      return;
    }
    const uint64_t end = std::min<uint64_t>(disk().size(), buffer_.size());
    if (end == 0) return;
    const auto got = std::span(buffer_);
    for (const Status& s : {disk().read(got.first(end), 0), disk().read(got.first(1), disk().size() - 1)}) {
      EXPECT_TRUE(s || !s.error().what.empty());
    }
    map_somehow(end);
  }

  void map_somehow(uint64_t end) {
    uint64_t at = 0;
    for (int i = 0; at < end && i < 100; ++i) {
      const auto extent = disk().extent(at, end - at);
      if (!extent) break;
      EXPECT_GT(extent->length, 0U);
      EXPECT_LE(extent->length, end - at);
      at += extent->length;
    }
  }

  /* A file was cut short: what is left reads right, and what is lost is an error or zeroes, never noise.  No part of
   * the guest disk becomes a hole by it, but for what a backing file does not reach any more. */
  void expect_no_noise(size_t cut_file) {
    if (!open()) return;
    const size_t end = static_cast<size_t>(std::min<uint64_t>(disk().size(), image_.guest.size()));
    constexpr size_t step = 4096 + 512;
    for (size_t at = 0; at < end; at += step) {
      const auto got = std::span(buffer_).first(std::min(step, end - at));
      if (!disk().read(got, at)) continue;
      const auto right = image_.guest.begin() + static_cast<ptrdiff_t>(at);
      const bool sound = std::equal(got.begin(), got.end(), right,
                                    [](std::byte now, std::byte then) { return now == then || now == std::byte{0}; });
      if (!sound) ADD_FAILURE() << "noise at " << at;
    }
    if (cut_file == 0) expect_zero_is_zero(end);
  }

  void expect_zero_is_zero(size_t end) {
    for (size_t at = 0; at < end;) {
      const auto extent = disk().extent(at, end - at);
      if (!extent) break;
      const auto first = image_.guest.begin() + static_cast<ptrdiff_t>(at);
      at += static_cast<size_t>(extent->length);
      EXPECT_TRUE(extent->zero || !extent->hole);
      if (!extent->zero) continue;
      EXPECT_TRUE(std::all_of(first, image_.guest.begin() + static_cast<ptrdiff_t>(at),
                              [](std::byte b) { return b == std::byte{0}; }))
          << "data is called zero before " << at;
    }
  }

  void expect_sound() {
    faults_.disarm();
    fault_ = {};
    open_read_and_map();
  }

  static void count(const char* what, size_t n) {
    total_ += n;
    std::printf("%-28s %5zu %s (%zu in all)\n", GetParam().name.c_str(), n, what, total_);
  }

  static inline size_t total_ = 0;

  FaultySwitch faults_;
  Fault fault_;
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
        opened_.reset();
        load(files);
        SCOPED_TRACE("file " + std::to_string(file) + " of " + std::to_string(files[file].size()) + " bytes");
        use_somehow();
        expect_no_noise(file);
        ++points;
      }
    }
  }
  opened_.reset();
  load(image_.files);
  expect_sound();
  count("short files", points);
}

INSTANTIATE_TEST_SUITE_P(Images, Storage, ::testing::ValuesIn(test::stored_images()),
                         [](const auto& each) { return each.param.test_name(); });

} // namespace
} // namespace qluks
