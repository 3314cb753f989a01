/* SPDX-License-Identifier: BSD-3-Clause */
/* Storage that may be written, fails when it is told to, and may lose its power:
 *
 *      SparseDevice          what the input says
 *      stable                pages as they were at the last flush
 *      pending: w w W w …    since then (W: with FUA), in order
 *      now                   pages with all of it
 *
 * A power cut leaves what is stable and any part of what is pending.
 */
#ifndef QLUKS_TESTS_FUZZ_OVERLAY_DEVICE_HPP
#define QLUKS_TESTS_FUZZ_OVERLAY_DEVICE_HPP

#include <array>
#include <cerrno>
#include <functional>
#include <unordered_map>

#include "tests/fuzz/fuzz_case.hpp"
#include "tests/fuzz/sparse_device.hpp"

namespace qluks::fuzz {

class OverlayDevice final : public BlockDevice {
 public:
  /* Fails as it says there: the n-th request that changes something. */
  OverlayDevice(SparseDevice& origin, const WritingOnDisk& writing)
      : origin_(origin),
        fua_((writing.storage & storage_has_fua) != 0),
        for_ever_((writing.storage & storage_fails_for_ever) != 0),
        countdown_(writing.fail_at) {}

  /* From now on nothing fails any more; what it lost is lost. */
  void come_back(const WritingOnDisk& writing) {
    countdown_ = 0;
    if ((writing.storage & storage_loses_power) != 0) cut_power(writing.lost);
  }

  /* Looks at each write before it is made. */
  using Guard = std::function<void(std::span<const std::byte>, uint64_t)>;
  void set_guard(Guard guard) { guard_ = std::move(guard); }

  uint64_t changes() const noexcept { return changes_; }

  uint64_t size() const noexcept override { return origin_.size(); }
  Limits limits() const noexcept override { return {}; }
  WriteAbilities write_abilities() const noexcept override {
    return {
        .write = true, .flush = true, .fua = fua_, .trim = true, .zero = true, .fast_zero = false, .multi_conn = true};
  }

  Status read(std::span<std::byte> dst, uint64_t offset) override {
    if (Status s = origin_.read(dst, offset); !s) return s;
    for_pages(offset, dst.size(), [&](uint64_t page, size_t in_page, size_t in_range, size_t length) {
      const auto found = now_.find(page);
      if (found != now_.end()) std::memcpy(&dst[in_range], &found->second[in_page], length);
    });
    return ok();
  }

  Result<Extent> extent(uint64_t offset, uint64_t max) override {
    check(max != 0 && range_fits(offset, max, size()), "extents are asked for inside of the device");
    std::array<std::byte, page_bytes> bytes;
    const auto there = std::span(bytes).first(static_cast<size_t>(std::min<uint64_t>(max, page_bytes)));
    if (Status s = read(there, offset); !s) return propagate(s);
    const bool is_zero = std::all_of(there.begin(), there.end(), [](std::byte b) { return b == std::byte{0}; });
    return Extent{.length = there.size(), .hole = is_zero, .zero = is_zero};
  }

  Status write(std::span<const std::byte> src, uint64_t offset, Fua fua) override {
    check(!src.empty() && range_fits(offset, src.size(), size()),
          "a write below is not empty and inside of the device");
    if (guard_) guard_(src, offset);
    return change({offset, {src.begin(), src.end()}, fua == Fua::yes});
  }

  Status zero(uint64_t offset, uint64_t length, ZeroMode /*mode*/, Fua fua) override {
    check(length != 0 && range_fits(offset, length, size()), "what is zeroed below is inside of the device");
    return change({offset, std::vector<std::byte>(static_cast<size_t>(length)), fua == Fua::yes});
  }

  /* Keeps the bytes, as storage may. */
  Status trim(uint64_t offset, uint64_t length, Fua /*fua*/) override {
    check(length != 0 && range_fits(offset, length, size()), "what is trimmed below is inside of the device");
    ++changes_;
    return fails() ? fail(Errc::io, "injected failure", EIO) : ok();
  }

  Status flush() override {
    if (fails()) return fail(Errc::io, "injected failure", EIO);
    for (const Pending& p : pending_) apply(stable_, p);
    pending_.clear();
    return ok();
  }

 private:
  static constexpr size_t page_bytes = 4096;
  using Pages = std::unordered_map<uint64_t, std::array<std::byte, page_bytes>>;
  struct Pending {
    uint64_t offset;
    std::vector<std::byte> bytes;
    bool fua;
  };

  /* Of what is pending, the i-th is lost if bit i % 32 says so. */
  void cut_power(uint32_t lost) {
    now_ = stable_;
    for (size_t i = 0; i < pending_.size(); ++i) {
      if (pending_[i].fua || (lost >> (i % 32) & 1) == 0) apply(now_, pending_[i]);
    }
    stable_ = now_;
    pending_.clear();
  }

  Status change(Pending pending) {
    check(fua_ || !pending.fua, "FUA is asked for only where there is FUA");
    ++changes_;
    if (fails()) return fail(Errc::io, "injected failure", EIO);
    apply(now_, pending);
    pending_.push_back(std::move(pending));
    return ok();
  }

  bool fails() {
    if (countdown_ == 0) return false;
    if (countdown_ > 1) {
      --countdown_;
      return false;
    }
    if (!for_ever_) countdown_ = 0;
    return true;
  }

  void apply(Pages& pages, const Pending& p) {
    for_pages(p.offset, p.bytes.size(), [&](uint64_t page, size_t in_page, size_t in_range, size_t length) {
      std::memcpy(&page_of(pages, page)[in_page], &p.bytes[in_range], length);
    });
  }

  std::array<std::byte, page_bytes>& page_of(Pages& pages, uint64_t page) {
    const auto [found, made] = pages.try_emplace(page);
    if (made) {
      const uint64_t begin = page * page_bytes;
      const auto length = static_cast<size_t>(std::min<uint64_t>(page_bytes, size() - begin));
      check(origin_.read(std::span(found->second).first(length), begin).has_value(), "the input can be read");
    }
    return found->second;
  }

  template <class Visit>
  static void for_pages(uint64_t offset, size_t length, Visit visit) {
    for (size_t done = 0; done < length;) {
      const auto in_page = static_cast<size_t>((offset + done) % page_bytes);
      const size_t part = std::min(page_bytes - in_page, length - done);
      visit((offset + done) / page_bytes, in_page, done, part);
      done += part;
    }
  }

  SparseDevice& origin_;
  bool fua_;
  bool for_ever_;
  unsigned countdown_; /* to the request that fails, which is 1; 0: none does */
  uint64_t changes_ = 0;
  Guard guard_;
  Pages stable_, now_;
  std::vector<Pending> pending_;
};

} // namespace qluks::fuzz

#endif
