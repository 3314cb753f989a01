/* SPDX-License-Identifier: BSD-3-Clause */
/* Storage for tests that count allocations. */
#ifndef QLUKS_TESTS_SUPPORT_PLAIN_STORAGE_HPP
#define QLUKS_TESTS_SUPPORT_PLAIN_STORAGE_HPP

#include <algorithm>
#include <vector>

#include "base/block_device.hpp"

namespace qluks::test {

/* Bytes that may be written; no request allocates anything. */
class PlainStorage final : public BlockDevice {
 public:
  explicit PlainStorage(const std::vector<std::byte>& content) : bytes(content) {}
  uint64_t size() const noexcept override { return bytes.size(); }
  Limits limits() const noexcept override { return {}; }
  WriteAbilities write_abilities() const noexcept override {
    return {.write = true, .flush = true, .fua = true, .trim = true};
  }
  Status read(std::span<std::byte> dst, uint64_t offset) override {
    std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(offset), dst.size(), dst.begin());
    return ok();
  }
  Status write(std::span<const std::byte> src, uint64_t offset, Fua) override {
    std::copy(src.begin(), src.end(), bytes.begin() + static_cast<ptrdiff_t>(offset));
    return ok();
  }
  Status zero(uint64_t offset, uint64_t length, ZeroMode, Fua) override {
    std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(offset), length, std::byte{0});
    return ok();
  }
  Status trim(uint64_t offset, uint64_t length, Fua fua) override { return zero(offset, length, ZeroMode::keep, fua); }
  Result<Extent> extent(uint64_t, uint64_t max) override { return Extent{.length = max}; }

  std::vector<std::byte> bytes;
};

} // namespace qluks::test

#endif
