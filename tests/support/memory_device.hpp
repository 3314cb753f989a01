/* SPDX-License-Identifier: BSD-3-Clause */
/* A device made of bytes, that counts and records the requests that reach it. */
#ifndef QLUKS_TESTS_SUPPORT_MEMORY_DEVICE_HPP
#define QLUKS_TESTS_SUPPORT_MEMORY_DEVICE_HPP

#include <algorithm>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <vector>

#include "base/block_device.hpp"
#include "base/checked.hpp"

namespace qluks::test {

struct ReadCall {
  uint64_t offset;
  uint64_t length;
  bool operator==(const ReadCall&) const = default;
};

class MemoryDevice : public BlockDevice {
 public:
  explicit MemoryDevice(std::vector<std::byte> content) : bytes(std::move(content)) {}

  /* `size` bytes that differ from their neighbours and repeat only after 64 KiB and more. */
  static std::vector<std::byte> pattern(size_t size) {
    std::vector<std::byte> content(size);
    for (size_t i = 0; i < size; ++i) content[i] = static_cast<std::byte>((i * 131) ^ (i >> 8) ^ (i >> 15));
    return content;
  }

  uint64_t size() const noexcept override { return bytes.size(); }
  Limits limits() const noexcept override { return {}; }

  /* A request outside of the device is a bug of the caller, not an error. */
  Status read(std::span<std::byte> dst, uint64_t offset) override {
    if (!range_fits(offset, dst.size(), bytes.size()) || dst.empty()) throw std::logic_error("read out of bounds");
    const std::lock_guard lock(mutex_);
    calls.push_back({offset, dst.size()});
    if (fail_call && calls.size() == *fail_call) return fail(Errc::io, "injected failure", 5);
    std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(offset), dst.size(), dst.begin());
    return ok();
  }

  Result<Extent> extent(uint64_t offset, uint64_t max) override {
    if (!range_fits(offset, max, bytes.size()) || max == 0) throw std::logic_error("extent out of bounds");
    return Extent{.length = max};
  }

  std::vector<std::byte> bytes;
  std::vector<ReadCall> calls;
  std::optional<size_t> fail_call; /* the n-th read fails, counted from 1 */

 private:
  std::mutex mutex_;
};

} // namespace qluks::test

#endif
