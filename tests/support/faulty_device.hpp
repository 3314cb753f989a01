/* SPDX-License-Identifier: BSD-3-Clause */
/* Storage that fails at the n-th call, over all devices that share it. */
#ifndef QLUKS_TESTS_SUPPORT_FAULTY_DEVICE_HPP
#define QLUKS_TESTS_SUPPORT_FAULTY_DEVICE_HPP

#include <algorithm>
#include <memory>
#include <optional>

#include "base/block_device.hpp"

namespace qluks::test {

/* What happens to a call that is hit. */
enum class FaultKind : uint8_t {
  error,       /* it fails, and has left junk in the buffer */
  junk_behind, /* it succeeds, but only the first half of the buffer is right */
  half,        /* it fails, and the first half of what was to be written is there, in whole sectors */
};

struct Fault {
  size_t nth = 0; /* from 1; 0: none */
  bool always = false;
  FaultKind kind = FaultKind::error;
  Error error{Errc::io, 5, "injected failure"};
};

/* Counts calls and says which of them are hit. */
class FaultySwitch {
 public:
  void arm(const Fault& fault) {
    fault_ = fault;
    calls_ = 0;
    hits_ = 0;
  }
  void disarm() { fault_.nth = 0; }

  /* For a while nothing fails and nothing is counted. */
  void pause(bool on) { paused_ = on; }

  size_t calls() const noexcept { return calls_; }
  size_t hits() const noexcept { return hits_; }

  /* One more call; what happens to it. */
  const Fault* next() {
    if (paused_) return nullptr;
    ++calls_;
    const bool hit = fault_.nth != 0 && (calls_ == fault_.nth || (fault_.always && calls_ > fault_.nth));
    hits_ += hit;
    return hit ? &fault_ : nullptr;
  }

 private:
  Fault fault_;
  bool paused_ = false;
  size_t calls_ = 0;
  size_t hits_ = 0;
};

class FaultyDevice final : public BlockDevice {
 public:
  FaultyDevice(std::unique_ptr<BlockDevice> below, FaultySwitch& faults) : below_(std::move(below)), faults_(faults) {}

  uint64_t size() const noexcept override { return below_->size(); }
  Limits limits() const noexcept override { return below_->limits(); }

  Status read(std::span<std::byte> dst, uint64_t offset) override {
    Status s = below_->read(dst, offset);
    const Fault* fault = faults_.next();
    if (fault == nullptr) return s;
    const auto junk = fault->kind == FaultKind::junk_behind ? dst.subspan(dst.size() / 2) : dst;
    std::fill(junk.begin(), junk.end(), std::byte{0xa5});
    return outcome(*fault, std::move(s));
  }

  Result<Extent> extent(uint64_t offset, uint64_t max) override {
    const Fault* fault = faults_.next();
    if (fault != nullptr && fault->kind != FaultKind::junk_behind) return tl::unexpected(fault->error);
    return below_->extent(offset, max);
  }

  Status cache(uint64_t offset, uint64_t length) override {
    const Fault* fault = faults_.next();
    return fault == nullptr ? below_->cache(offset, length) : outcome(*fault, ok());
  }

  WriteAbilities write_abilities() const noexcept override { return below_->write_abilities(); }

  /* What fails is not done at all, but for a half of a write. */
  Status write(std::span<const std::byte> src, uint64_t offset, Fua fua) override {
    const Fault* fault = faults_.next();
    if (fault == nullptr || fault->kind == FaultKind::junk_behind) return below_->write(src, offset, fua);
    const auto there = src.first(fault->kind == FaultKind::half ? src.size() / 1024 * 512 : 0);
    if (there.empty()) return tl::unexpected(fault->error);
    Status s = below_->write(there, offset, fua);
    return s ? Status(tl::unexpected(fault->error)) : s;
  }
  Status zero(uint64_t offset, uint64_t length, ZeroMode mode, Fua fua) override {
    return unless_hit([&] { return below_->zero(offset, length, mode, fua); });
  }
  Status trim(uint64_t offset, uint64_t length, Fua fua) override {
    return unless_hit([&] { return below_->trim(offset, length, fua); });
  }
  Status flush() override {
    return unless_hit([&] { return below_->flush(); });
  }

 private:
  template <class Call>
  Status unless_hit(Call call) {
    const Fault* fault = faults_.next();
    return fault == nullptr || fault->kind == FaultKind::junk_behind ? call() : Status(tl::unexpected(fault->error));
  }

  static Status outcome(const Fault& fault, Status s) {
    return fault.kind == FaultKind::junk_behind ? std::move(s) : Status(tl::unexpected(fault.error));
  }

  std::unique_ptr<BlockDevice> below_;
  FaultySwitch& faults_;
};

} // namespace qluks::test

#endif
