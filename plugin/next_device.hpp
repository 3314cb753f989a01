/* SPDX-License-Identifier: BSD-3-Clause */
/* What lies below the filter (the plugin, or another filter) as a BlockDevice.
 *
 * The only place that calls `next`.  nbdkit asserts that every request lies inside of the size that it was told,
 * is not empty and carries only flags that it was asked about, and aborts the server otherwise; a plugin may want
 * requests of whole blocks. Both are seen to here, so no offset from an image can reach such an assert.
 */
#ifndef QLUKS_PLUGIN_NEXT_DEVICE_HPP
#define QLUKS_PLUGIN_NEXT_DEVICE_HPP

#include <nbdkit-filter.h>

#include <memory>

#include "base/block_device.hpp"
#include "base/range_lock.hpp"

namespace qluks {

class NextDevice final : public BlockDevice {
 public:
  /* Asks `next` for everything that nbdkit wants to have been asked before the first request. */
  static Result<std::unique_ptr<NextDevice>> prepare(nbdkit_next* next, bool read_only);

  uint64_t size() const noexcept override { return size_; }
  Limits limits() const noexcept override { return limits_; }
  Status read(std::span<std::byte> dst, uint64_t offset) override;
  Result<Extent> extent(uint64_t offset, uint64_t max) override;
  Status cache(uint64_t offset, uint64_t length) override;

  WriteAbilities write_abilities() const noexcept override { return abilities_; }
  Status write(std::span<const std::byte> src, uint64_t offset, Fua fua) override;
  Status zero(uint64_t offset, uint64_t length, ZeroMode mode, Fua fua) override;
  Status trim(uint64_t offset, uint64_t length, Fua fua) override;
  Status flush() override;

  bool can_cache() const noexcept { return can_cache_; }

  /* Where the plugin takes whole blocks only, a part of a block is read, changed and written: under this lock, which
   * all connections of the export share.  To be set before the first write. */
  void share_block_lock(RangeLock& lock) noexcept { block_lock_ = &lock; }

 private:
  Result<Extent> claimed_extent(uint64_t offset, uint64_t max);
  explicit NextDevice(nbdkit_next* next) noexcept : next_(next) {}

  Status ask_abilities(bool may_write);
  Status read_pieces(std::span<std::byte> dst, uint64_t offset);
  Status write_pieces(std::span<const std::byte> src, uint64_t offset, Fua fua);
  Status zero_pieces(uint64_t offset, uint64_t length, uint32_t flags);
  Status check(const char* request, uint64_t offset, uint64_t length) const;
  uint32_t block() const noexcept;
  uint32_t piece_bytes() const noexcept;

  nbdkit_next* next_;
  uint64_t size_ = 0;
  Limits limits_;
  WriteAbilities abilities_;
  RangeLock* block_lock_ = nullptr;
  bool can_extents_ = false;
  bool can_cache_ = false;
  bool can_zero_ = false; /* asking is allowed; abilities_.zero: it is worth it */
};

} // namespace qluks

#endif
