/* SPDX-License-Identifier: BSD-3-Clause */
/* LUKS volumes that are written while the n-th call of the storage fails, for every n, once and for ever.
 *
 * The error reaches the caller with its number.  What was answered with success reads back; what failed has left each
 * sector as it was or as it was to be, and its neighbours alone; a failure that has passed leaves nothing behind. */
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>

#include "formats/luks/keyring.hpp"
#include "formats/luks/layer.hpp"
#include "tests/support/faulty_device.hpp"
#include "tests/support/luks_builder.hpp"
#include "tests/support/writable_device.hpp"

namespace qluks {
namespace {

using test::Fault;
using test::FaultyDevice;
using test::FaultySwitch;
using test::WritableDevice;
using Content = std::vector<std::byte>;

struct Step {
  enum class Kind : uint8_t { write, zero, trim, flush };
  Kind kind;
  uint64_t offset;
  size_t length;
};

/* Whole sectors, cut ones, across the MiB at which a request is split. */
constexpr std::array<Step, 8> steps = {{{Step::Kind::write, 0, 8192},
                                        {Step::Kind::write, 100, 5000},
                                        {Step::Kind::zero, 3000, 10000},
                                        {Step::Kind::flush, 0, 0},
                                        {Step::Kind::write, (1 << 20) - 1000, 3000},
                                        {Step::Kind::trim, 40000, 20000},
                                        {Step::Kind::write, 50000, (1 << 20) + 700},
                                        {Step::Kind::flush, 0, 0}}};

class LuksWriteFaults : public ::testing::TestWithParam<uint32_t> {
 protected:
  LuksWriteFaults() : volume_(test::make_luks2({.sector_size = GetParam(), .payload_bytes = 2 << 20})) {
    keyring_.add_secret(test::secret_of("secret"));
    std::minstd_rand random(GetParam());
    src_.resize(2 << 20);
    for (std::byte& b : src_) b = static_cast<std::byte>(random() >> 8);
  }

  void open() {
    auto memory = std::make_unique<WritableDevice>(volume_.image());
    memory_ = memory.get();
    device_ = std::make_unique<FaultyDevice>(std::move(memory), faults_);
    faults_.disarm();
    auto format = open_luks(*device_, keyring_, {.discard = true});
    ASSERT_TRUE(format) << format.error().what;
    format_ = std::move(*format);
    layer_ = format_->stack_on(*device_);
  }

  Status run(const Step& step) {
    switch (step.kind) {
      case Step::Kind::write:
        return layer_->write(std::span(src_).subspan(step.offset, step.length), step.offset, Fua::no);
      case Step::Kind::zero:
        return layer_->zero(step.offset, step.length, ZeroMode::keep, Fua::no);
      case Step::Kind::trim:
        return layer_->trim(step.offset, step.length, Fua::no);
      case Step::Kind::flush:
        break;
    }
    return layer_->flush();
  }

  /* What the disk holds after the step has succeeded. */
  void apply(const Step& step, Content& model) const {
    const auto at = [&](Content& bytes) { return bytes.begin() + static_cast<ptrdiff_t>(step.offset); };
    if (step.kind == Step::Kind::write)
      std::copy_n(src_.begin() + static_cast<ptrdiff_t>(step.offset), step.length, at(model));
    if (step.kind == Step::Kind::zero) std::fill_n(at(model), step.length, std::byte{0});
  }

  Content read_all() {
    Content bytes(layer_->size());
    const Status s = layer_->read(bytes, 0);
    EXPECT_TRUE(s) << s.error().what;
    return bytes;
  }

  /* What was trimmed may read as anything; `model` takes what it reads as. */
  void forget_trimmed(const Content& got, Content& model) const {
    for (const Step& step : steps) {
      if (step.kind != Step::Kind::trim) continue;
      const auto from = static_cast<ptrdiff_t>(step.offset);
      std::copy_n(got.begin() + from, step.length, model.begin() + from);
    }
  }

  /* Each sector of `got` is that of `old` or that of `now`. */
  void expect_old_or_new(const Content& got, const Content& old, const Content& now) const {
    const size_t sector = GetParam();
    for (size_t at = 0; at < got.size(); at += sector) {
      const auto same = [&](const Content& other) {
        const auto from = static_cast<ptrdiff_t>(at);
        return std::equal(got.begin() + from, got.begin() + from + static_cast<ptrdiff_t>(sector),
                          other.begin() + from);
      };
      ASSERT_TRUE(same(old) || same(now)) << "sector at " << at;
    }
  }

  /* All steps in turn with one call failing.  True: a call was hit. */
  bool run_with(const Fault& fault) {
    open();
    Content model = volume_.plain;
    faults_.arm(fault);
    for (const Step& step : steps) {
      Content now = model;
      apply(step, now);
      const Status s = run(step);
      if (!s) {
        EXPECT_EQ(s.error().sys, fault.error.sys);
        const size_t hits = faults_.hits();
        faults_.disarm();
        Content got = read_all();
        forget_trimmed(got, model);
        forget_trimmed(got, now);
        expect_old_or_new(got, model, now);
        if (fault.always) return hits != 0;
        EXPECT_TRUE(run(step)) << "the second time";
      }
      model = now;
    }
    const bool hit = faults_.hits() != 0;
    faults_.disarm();
    const Content got = read_all();
    forget_trimmed(got, model);
    EXPECT_EQ(got, model);
    return hit;
  }

  const test::Luks2Volume volume_;
  Content src_;
  Keyring keyring_;
  FaultySwitch faults_;
  WritableDevice* memory_ = nullptr;
  std::unique_ptr<FaultyDevice> device_;
  std::unique_ptr<Format> format_;
  std::unique_ptr<BlockDevice> layer_;
};

TEST_P(LuksWriteFaults, EachCallOfTheStorageMayFail) {
  size_t points = 0;
  for (const int sys : {5, 28}) { /* EIO, ENOSPC */
    for (const bool always : {false, true}) {
      for (size_t nth = 1;; ++nth, ++points) {
        SCOPED_TRACE("call " + std::to_string(nth));
        if (!run_with({.nth = nth, .always = always, .error = {Errc::io, sys, "injected failure"}})) break;
        ASSERT_FALSE(HasFailure());
      }
    }
  }
  std::printf("sectors of %4u: %zu failing calls\n", GetParam(), points);
  EXPECT_GT(points, 30U);
}

INSTANTIATE_TEST_SUITE_P(Sectors, LuksWriteFaults, ::testing::Values(512U, 4096U));

} // namespace
} // namespace qluks
