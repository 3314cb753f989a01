/* SPDX-License-Identifier: BSD-3-Clause */
/* What the fault tests do to a qcow2 that is written, beside what it must hold.
 *
 *      history_    h0 ── h1 ── h2 ── h3 ── …     the guest disk before and after each step; of one that failed, both
 *      stable_     for each byte, from which of them on it may be what is found when storage has come back
 *
 * Each step goes through `Derived::run_step(step)`, which returns its error if it failed. */
#ifndef QLUKS_TESTS_FAULTS_WRITE_WORKLOAD_HPP
#define QLUKS_TESTS_FAULTS_WRITE_WORKLOAD_HPP

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "tests/support/luks_builder.hpp"
#include "tests/support/qcow2_check.hpp"
#include "tests/support/stored_image.hpp"

namespace qluks::test {

struct WriteStep {
  enum class Kind : uint8_t { write, fua, zero, free, trim, flush };
  Kind kind;
  uint64_t offset = 0;
  size_t length = 0;
};

template <class Derived>
class WriteWorkload : public ::testing::TestWithParam<StoredImage> {
 protected:
  WriteWorkload() : image_(GetParam()) {
    keyring_.add_secret(secret_of(stored_image_secret));
    source_.resize(image_.guest.size());
    uint32_t x = 1;
    for (std::byte& b : source_) b = static_cast<std::byte>((x = x * 1664525 + 1013904223) >> 24);
    now_ = image_.guest;
  }

  /* In place and into new clusters, with edges, across tables, over what is compressed, zero, or in a backing file. */
  std::vector<WriteStep> steps() const {
    using Kind = WriteStep::Kind;
    const uint64_t size = image_.guest.size();
    return {{Kind::write, 0, 8192},
            {Kind::write, 100, 5000},
            {Kind::zero, 3000, 20000},
            {Kind::flush},
            {Kind::write, size / 2 - 1000, 3000},
            {Kind::trim, size / 4, 24000},
            {Kind::fua, size / 3, 30000},
            {Kind::free, size / 2, 16384},
            {Kind::flush},
            {Kind::write, size - 700, 700},
            {Kind::write, 40000, 9000},
            {Kind::fua, 41000, 600},
            {Kind::flush}};
  }

  /* A fresh copy of each file behind the device that `make` makes of it, and opened. */
  template <class Make>
  void load(Make make) {
    opened_.reset();
    devices_.clear();
    for (const Content& file : image_.files) devices_.push_back(make(file));
    const Status s = open();
    ASSERT_TRUE(s) << s.error().what;
    ASSERT_TRUE(disk().write_abilities().write);
  }

  Status open() {
    opened_ = std::make_unique<OpenedImage>(*devices_[0]);
    return image_.open(*opened_, devices_, keyring_);
  }
  BlockDevice& disk() { return opened_->disk(); }

  Status change(const WriteStep& step) {
    const auto bytes = std::span<const std::byte>(source_).subspan(step.offset, step.length);
    switch (step.kind) {
      case WriteStep::Kind::write:
        return disk().write(bytes, step.offset, Fua::no);
      case WriteStep::Kind::fua:
        return disk().write(bytes, step.offset, Fua::yes);
      case WriteStep::Kind::zero:
        return disk().zero(step.offset, step.length, ZeroMode::keep, Fua::no);
      case WriteStep::Kind::free:
        return disk().zero(step.offset, step.length, ZeroMode::may_trim, Fua::no);
      case WriteStep::Kind::trim:
        return disk().trim(step.offset, step.length, Fua::no);
      default:
        return disk().flush();
    }
  }

  /* All steps in turn, and what is left.  `for_ever`: nothing succeeds after the first failure. */
  void run_all(bool for_ever) {
    history_.assign(1, image_.guest);
    stable_.assign(image_.guest.size(), 0);
    bool failed = false;
    for (const WriteStep& step : steps()) {
      const Content before = history_.back();
      Content after = before;
      apply(step, after);
      const auto error = self().run_step(step);
      self().quietly([&] { read_whole(); });
      if (::testing::Test::HasFailure()) return;
      if (error) expect_allowed(*error, failed);
      failed = failed || error;
      settle(step, before, after, !error);
      if (failed && for_ever) break;
    }
    self().quietly([&] { look_at_the_end(failed); });
  }

  /* All that a run has left in memory. */
  void forget() {
    opened_.reset();
    devices_.clear();
    history_ = {};
  }

  StoredImage image_;
  Keyring keyring_;
  StoredImage::Devices devices_;
  std::unique_ptr<OpenedImage> opened_;

 private:
  Derived& self() { return static_cast<Derived&>(*this); }

  void apply(const WriteStep& step, Content& content) const {
    const auto from = static_cast<ptrdiff_t>(step.offset);
    const auto length = static_cast<ptrdiff_t>(step.length);
    if (step.kind == WriteStep::Kind::write || step.kind == WriteStep::Kind::fua) {
      std::copy_n(source_.begin() + from, length, content.begin() + from);
    } else if (step.kind == WriteStep::Kind::zero || step.kind == WriteStep::Kind::free) {
      std::fill_n(content.begin() + from, length, std::byte{0});
    }
  }

  void read_whole() {
    const Status s = disk().read(now_, 0);
    ASSERT_TRUE(s) << s.error().what;
  }

  /* A failure is the one that was injected, or the end of writing that came of an earlier one. */
  void expect_allowed(const Error& error, bool failed_before) {
    if (error.what.find("nothing more is written") != std::string::npos) {
      EXPECT_TRUE(failed_before) << error.what;
      EXPECT_EQ(error.sys, 5);
    } else {
      EXPECT_FALSE(failed_before) << error.what;
      self().expect_injected(error);
    }
  }

  static bool is_one_of(std::byte b, std::initializer_list<std::byte> all) {
    return std::find(all.begin(), all.end(), b) != all.end();
  }

  /* What the disk holds now is what it was, or what it was to be; trimmed bytes may also be zero. */
  void settle(const WriteStep& step, const Content& before, const Content& after, bool succeeded) {
    for (size_t i = 0; i < now_.size(); ++i) {
      const bool is_trimmed = step.kind == WriteStep::Kind::trim && i >= step.offset && i - step.offset < step.length;
      const bool is_right = is_trimmed  ? is_one_of(now_[i], {before[i], std::byte{0}})
                            : succeeded ? now_[i] == after[i]
                                        : is_one_of(now_[i], {before[i], after[i]});
      ASSERT_TRUE(is_right) << "guest byte " << i;
    }
    if (!succeeded) history_.push_back(after);
    history_.push_back(now_);
    const auto newest = static_cast<uint32_t>(history_.size() - 1);
    if (!succeeded) return;
    if (step.kind == WriteStep::Kind::flush) std::fill(stable_.begin(), stable_.end(), newest);
    if (step.kind == WriteStep::Kind::fua) {
      std::fill_n(stable_.begin() + static_cast<ptrdiff_t>(step.offset), step.length, newest);
    }
  }

  /* A failed flush ends writing for good.  What is stored is clean but for leaks, and nothing that was stable is lost.
   */
  void look_at_the_end(bool failed) {
    const Status s = disk().flush();
    EXPECT_TRUE(s || failed) << s.error().what;
    const bool ended = !s;
    EXPECT_TRUE(!ended || !disk().flush());
    if (!ended) {
      const auto newest = static_cast<uint32_t>(history_.size() - 1);
      std::fill(stable_.begin(), stable_.end(), newest);
    }
    opened_.reset();
    EXPECT_EQ(Qcow2Check(self().stored()).run(), "");
    const Status reopened = open();
    ASSERT_TRUE(reopened) << reopened.error().what;
    read_whole();
    opened_.reset();
    for (size_t i = 0; i < now_.size(); ++i) {
      bool known = false;
      for (size_t k = stable_[i]; k < history_.size() && !known; ++k) known = history_[k][i] == now_[i];
      ASSERT_TRUE(known) << "guest byte " << i << " was lost";
    }
  }

  Content source_, now_;
  std::vector<Content> history_;
  std::vector<uint32_t> stable_;
};

} // namespace qluks::test

#endif
