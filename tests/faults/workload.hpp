/* SPDX-License-Identifier: BSD-3-Clause */
/* What the fault tests do with an image: open it, read it in several ways, map it, and compare with what it holds.
 *
 * Each step goes through `Derived::tried(step)`, which runs it while something fails, judges its failure, and says
 * whether it has succeeded in the end.  Nothing is allocated between the steps. */
#ifndef QLUKS_TESTS_FAULTS_WORKLOAD_HPP
#define QLUKS_TESTS_FAULTS_WORKLOAD_HPP

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "tests/support/luks_builder.hpp"
#include "tests/support/stored_image.hpp"

namespace qluks::test {

template <class Derived>
class Workload : public ::testing::TestWithParam<StoredImage> {
 protected:
  Workload() : image_(GetParam()), buffer_(image_.guest.size()) { new_keyring(); }

  void new_keyring() {
    keyring_ = std::make_unique<Keyring>();
    keyring_->add_secret(secret_of(stored_image_secret));
  }

  Status open() {
    opened_ = std::make_unique<OpenedImage>(*devices_[0]);
    Status s = image_.open(*opened_, devices_, *keyring_);
    if (!s) opened_.reset();
    return s;
  }

  BlockDevice& disk() { return opened_->disk(); }

  /* What kind each byte of the disk is when nothing fails. */
  void remember_extents() {
    const Status s = open();
    ASSERT_TRUE(s) << s.error().what;
    ASSERT_EQ(disk().size(), image_.guest.size());
    for (uint64_t at = 0; at < disk().size();) {
      const auto extent = disk().extent(at, disk().size() - at);
      ASSERT_TRUE(extent) << extent.error().what;
      at += extent->length;
      kinds_.resize(at, *extent);
    }
    opened_.reset();
  }

  void open_read_and_map() {
    if (!self().tried([this] { return open(); })) return;
    const size_t size = image_.guest.size();
    /* Whole, across everything, and at both ends. */
    const std::array<std::pair<uint64_t, size_t>, 6> ranges = {
        {{0, size}, {1, 5000}, {size / 3, 33000}, {size - 1, 1}, {4096, 512}, {size - 4000, 4000}}};
    for (const auto& [offset, length] : ranges) {
      const auto got = std::span(buffer_).first(length);
      if (!self().tried([&, at = offset] { return disk().read(got, at); })) continue;
      if (!reads_right(got, offset)) ADD_FAILURE() << "wrong bytes at " << offset;
    }
    map();
    self().tried([this] { return disk().cache(0, disk().size()); });
    opened_.reset();
  }

  StoredImage image_;
  std::unique_ptr<Keyring> keyring_;
  StoredImage::Devices devices_;
  std::unique_ptr<OpenedImage> opened_;
  Content buffer_;

 private:
  Derived& self() { return static_cast<Derived&>(*this); }

  void map() {
    Extent extent;
    for (uint64_t at = 0; at < disk().size(); at += extent.length) {
      const auto step = [&]() -> Status {
        auto found = disk().extent(at, disk().size() - at);
        if (!found) return propagate(found);
        extent = *found;
        return ok();
      };
      if (!self().tried(step)) return;
      if (!maps_right(extent, at)) ADD_FAILURE() << "wrong extent at " << at;
    }
  }

  bool reads_right(std::span<const std::byte> got, uint64_t offset) const {
    return std::equal(got.begin(), got.end(), image_.guest.begin() + static_cast<ptrdiff_t>(offset));
  }

  bool maps_right(const Extent& extent, uint64_t at) const {
    if (extent.length == 0 || extent.length > kinds_.size() - at) return false;
    const auto first = kinds_.begin() + static_cast<ptrdiff_t>(at);
    return std::all_of(first, first + static_cast<ptrdiff_t>(extent.length),
                       [&](const Extent& kind) { return kind.same_kind(extent); });
  }

  std::vector<Extent> kinds_;
};

} // namespace qluks::test

#endif
