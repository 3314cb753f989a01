/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/window.hpp"

#include <algorithm>
#include <cerrno>

#include "base/checked.hpp"

namespace qluks {

tl::unexpected<Error> past_the_end(const std::string& what, uint64_t offset, uint64_t length, uint64_t end) {
  return fail(Errc::out_of_bounds,
              (what.empty() ? what : what + ": ") + std::to_string(length) + " bytes at offset " +
                  std::to_string(offset) + " go past the end, which is at " + std::to_string(end) +
                  ": is the file cut short?",
              EIO);
}

Status read_present(BlockDevice& device, std::span<std::byte> dst, uint64_t offset, const std::string& what) {
  if (dst.empty()) return ok();
  if (!range_fits(offset, dst.size(), device.size())) return past_the_end(what, offset, dst.size(), device.size());
  Status s = device.read(dst, offset);
  return s || what.empty() ? s : propagate(s, what);
}

Status read_zero_padded(BlockDevice& device, std::span<std::byte> dst, uint64_t offset) {
  const uint64_t end = device.size();
  const uint64_t present = offset < end ? std::min<uint64_t>(dst.size(), end - offset) : 0;
  const auto tail = dst.subspan(static_cast<size_t>(present));
  std::fill(tail.begin(), tail.end(), std::byte{0});
  if (present == 0) return ok();
  return device.read(dst.first(static_cast<size_t>(present)), offset);
}

Result<Extent> Window::extent(uint64_t offset, uint64_t max) {
  const uint64_t at = offset_ + offset;
  if (at >= below_.size()) return past_the_end("", at, max, below_.size());
  return below_.extent(at, std::min(max, below_.size() - at));
}

Status Window::cache(uint64_t offset, uint64_t length) {
  const uint64_t at = offset_ + offset;
  if (at >= below_.size()) return ok();
  return below_.cache(at, std::min(length, below_.size() - at));
}

Status Window::check_writable(uint64_t offset, uint64_t length) const {
  if (range_fits(offset_ + offset, length, below_.size())) return ok();
  return fail(Errc::out_of_bounds,
              "bytes " + std::to_string(offset_ + offset) + " to " + std::to_string(offset_ + offset + length) +
                  " lie behind the end of the device, which has " + std::to_string(below_.size()) + " bytes",
              ENOSPC);
}

Status Window::write(std::span<const std::byte> src, uint64_t offset, Fua fua) {
  if (Status s = check_writable(offset, src.size()); !s) return s;
  return below_.write(src, offset_ + offset, fua);
}

Status Window::zero(uint64_t offset, uint64_t length, ZeroMode mode, Fua fua) {
  if (Status s = check_writable(offset, length); !s) return s;
  return below_.zero(offset_ + offset, length, mode, fua);
}

Status Window::trim(uint64_t offset, uint64_t length, Fua fua) {
  if (Status s = check_writable(offset, length); !s) return s;
  return below_.trim(offset_ + offset, length, fua);
}

} // namespace qluks
