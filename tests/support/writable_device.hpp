/* SPDX-License-Identifier: BSD-3-Clause */
/* A device made of bytes that may be written, and records every request that changes it, in order. */
#ifndef QLUKS_TESTS_SUPPORT_WRITABLE_DEVICE_HPP
#define QLUKS_TESTS_SUPPORT_WRITABLE_DEVICE_HPP

#include <algorithm>
#include <mutex>
#include <stdexcept>
#include <vector>

#include "base/block_device.hpp"
#include "base/checked.hpp"

namespace qluks::test {

/* One request that reached the device. */
struct WriteCall {
  enum class Kind : uint8_t { write, zero, trim, flush };
  Kind kind;
  uint64_t offset = 0;
  uint64_t length = 0;
  Fua fua = Fua::no;
  std::vector<std::byte> bytes = {}; /* of a write */
  unsigned part = 0;                 /* of storage that is flushed in parts (see WritableDevice) */
};

class WritableDevice : public BlockDevice {
 public:
  explicit WritableDevice(std::vector<std::byte> content) : bytes(std::move(content)) {}

  uint64_t size() const noexcept override { return bytes.size(); }
  Limits limits() const noexcept override { return {}; }
  WriteAbilities write_abilities() const noexcept override { return abilities; }

  Status read(std::span<std::byte> dst, uint64_t offset) override {
    const std::lock_guard lock(mutex_);
    check("read", offset, dst.size());
    std::copy_n(at(offset), dst.size(), dst.begin());
    return ok();
  }

  Result<Extent> extent(uint64_t offset, uint64_t max) override {
    const std::lock_guard lock(mutex_);
    check("extent", offset, max);
    const auto end = at(offset) + static_cast<ptrdiff_t>(max);
    const auto data = std::find_if(at(offset), end, [](std::byte b) { return b != std::byte{0}; });
    const auto zeroes = static_cast<uint64_t>(data - at(offset));
    if (zeroes != 0) return Extent{.length = zeroes, .hole = true, .zero = true};
    const auto zero = std::find(data, end, std::byte{0});
    return Extent{.length = static_cast<uint64_t>(zero - data)};
  }

  Status write(std::span<const std::byte> src, uint64_t offset, Fua fua) override {
    const std::lock_guard lock(mutex_);
    check("write", offset, src.size());
    if (fua == Fua::yes && !abilities.fua) throw std::logic_error("FUA that the device does not have");
    std::copy(src.begin(), src.end(), at(offset));
    calls.push_back({WriteCall::Kind::write, offset, src.size(), fua, {src.begin(), src.end()}, part});
    return ok();
  }

  Status zero(uint64_t offset, uint64_t length, ZeroMode /*mode*/, Fua fua) override {
    const std::lock_guard lock(mutex_);
    check("zero", offset, length);
    std::fill_n(at(offset), length, std::byte{0});
    calls.push_back({WriteCall::Kind::zero, offset, length, fua, {}, part});
    return ok();
  }

  Status trim(uint64_t offset, uint64_t length, Fua fua) override {
    const std::lock_guard lock(mutex_);
    check("trim", offset, length);
    std::fill_n(at(offset), length, std::byte{0});
    calls.push_back({WriteCall::Kind::trim, offset, length, fua, {}, part});
    return ok();
  }

  Status flush() override {
    const std::lock_guard lock(mutex_);
    calls.push_back({WriteCall::Kind::flush, 0, 0, Fua::no, {}, part});
    return ok();
  }

  std::vector<std::byte> bytes;
  std::vector<WriteCall> calls;
  static inline thread_local unsigned part = 0; /* where the calls go that this thread makes now */
  WriteAbilities abilities{
      .write = true, .flush = true, .fua = true, .trim = true, .zero = true, .fast_zero = true, .multi_conn = true};

 private:
  /* A request outside of the device is a bug of the caller, not an error. */
  void check(const char* request, uint64_t offset, uint64_t length) const {
    if (length == 0 || !range_fits(offset, length, bytes.size())) {
      throw std::logic_error(std::string(request) + " out of bounds");
    }
  }
  std::vector<std::byte>::iterator at(uint64_t offset) { return bytes.begin() + static_cast<ptrdiff_t>(offset); }

  std::mutex mutex_;
};

} // namespace qluks::test

#endif
