/* SPDX-License-Identifier: BSD-3-Clause */
/* A part of a device, as a device: [offset, offset + length) of what is below, counted from 0.
 *
 * The LUKS header of an encrypted qcow2 is read through a Window on its header clusters, so nothing outside of them
 * can be reached through an offset in that header.  A window may reach past the end of the device below, as when a file
 * was cut short: these bytes are not there, and reading them fails.
 */
#ifndef QLUKS_BASE_WINDOW_HPP
#define QLUKS_BASE_WINDOW_HPP

#include <string>

#include "base/block_device.hpp"

namespace qluks {

/* The error of whoever needs bytes that are not there; the same everywhere, with both numbers.  `what` they are starts
 * it, unless it is empty. */
tl::unexpected<Error> past_the_end(const std::string& what, uint64_t offset, uint64_t length, uint64_t end);

/* Read bytes that have to be there: a header, a table, cipher text.  What was never stored must not pass for them.
 * `what` starts every error. */
Status read_present(BlockDevice& device, std::span<std::byte> dst, uint64_t offset, const std::string& what = {});

/* Read [offset, offset + dst.size()) and fill what lies past the end of `device` with zeroes. */
Status read_zero_padded(BlockDevice& device, std::span<std::byte> dst, uint64_t offset);

class Window final : public BlockDevice {
 public:
  /* Borrows `below`.  `offset + length` must not overflow. */
  Window(BlockDevice& below, uint64_t offset, uint64_t length) noexcept
      : below_(below), offset_(offset), length_(length) {}

  uint64_t size() const noexcept override { return length_; }
  Limits limits() const noexcept override { return below_.limits(); }
  Status read(std::span<std::byte> dst, uint64_t offset) override {
    return read_present(below_, dst, offset_ + offset);
  }
  Result<Extent> extent(uint64_t offset, uint64_t max) override;
  Status cache(uint64_t offset, uint64_t length) override;
  void refuse_missing() noexcept override { below_.refuse_missing(); }

  WriteAbilities write_abilities() const noexcept override { return below_.write_abilities(); }
  Status write(std::span<const std::byte> src, uint64_t offset, Fua fua) override;
  Status zero(uint64_t offset, uint64_t length, ZeroMode mode, Fua fua) override;
  Status trim(uint64_t offset, uint64_t length, Fua fua) override;
  Status flush() override { return below_.flush(); }

 private:
  Status check_writable(uint64_t offset, uint64_t length) const;

  BlockDevice& below_;
  uint64_t offset_;
  uint64_t length_;
};

} // namespace qluks

#endif
