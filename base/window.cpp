/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/window.hpp"

#include <algorithm>

namespace qluks {

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
  if (at >= below_.size()) return Extent{.length = max, .hole = true, .zero = true};
  return below_.extent(at, std::min(max, below_.size() - at));
}

} // namespace qluks
