/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/extents.hpp"

#include <array>

namespace qluks {

Result<Extent> confirmed(BlockDevice& device, uint64_t offset, const Extent& claimed) {
  const Extent data{.length = claimed.length};
  if (!claimed.zero) return data;
  std::array<std::byte, 1> last{std::byte{1}};
  if (Status s = device.read(last, offset + claimed.length - 1); !s) return propagate(s);
  return last[0] == std::byte{0} ? claimed : data;
}

} // namespace qluks
