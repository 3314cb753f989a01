/* SPDX-License-Identifier: BSD-3-Clause */
/* What lies below the filter (the plugin, or another filter) as a BlockDevice.
 *
 * The only place that calls `next`.  nbdkit asserts that every request lies inside of the size that it was told,
 * is not empty and carries legal flags, and aborts the server otherwise; a plugin may want requests of whole blocks.
 * Both are seen to here, so no offset from an image can reach such an assert.
 */
#ifndef QLUKS_PLUGIN_NEXT_DEVICE_HPP
#define QLUKS_PLUGIN_NEXT_DEVICE_HPP

#include <nbdkit-filter.h>

#include <memory>

#include "base/block_device.hpp"

namespace qluks {

class NextDevice final : public BlockDevice {
 public:
  /* Asks `next` for everything that nbdkit wants to have been asked before the first request. */
  static Result<std::unique_ptr<NextDevice>> prepare(nbdkit_next* next);

  uint64_t size() const noexcept override { return size_; }
  Limits limits() const noexcept override { return limits_; }
  Status read(std::span<std::byte> dst, uint64_t offset) override;
  Result<Extent> extent(uint64_t offset, uint64_t max) override;
  Status cache(uint64_t offset, uint64_t length) override;

  bool can_cache() const noexcept { return can_cache_; }

 private:
  explicit NextDevice(nbdkit_next* next) noexcept : next_(next) {}

  Status read_pieces(std::span<std::byte> dst, uint64_t offset);
  Status check(const char* request, uint64_t offset, uint64_t length) const;

  nbdkit_next* next_;
  uint64_t size_ = 0;
  Limits limits_;
  bool can_extents_ = false;
  bool can_cache_ = false;
};

} // namespace qluks

#endif
