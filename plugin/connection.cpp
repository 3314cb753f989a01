/* SPDX-License-Identifier: BSD-3-Clause */
#include "plugin/connection.hpp"

#include <cerrno>

namespace qluks {

namespace {

/* A reply may describe less than was asked for.  This bounds the work for a request of 4 GiB over an image whose
 * every other cluster of 512 bytes is allocated. */
constexpr int extents_max = 1 << 16;

uint32_t nbdkit_type(const Extent& extent) {
  return (extent.hole ? uint32_t{NBDKIT_EXTENT_HOLE} : 0) | (extent.zero ? uint32_t{NBDKIT_EXTENT_ZERO} : 0);
}

} // namespace

Status Connection::prepare(nbdkit_next* next, ImageRegistry& registry, const ImageOptions& options) {
  auto device = NextDevice::prepare(next);
  if (!device) return propagate(device);
  auto image = registry.get(key_, [&] { return Image::open(**device, options, key_.read_only); });
  if (!image) return propagate(image);
  next_ = std::move(*device);
  image_ = std::move(*image);
  stack_.emplace(image_->stack_on(*next_));
  description_ = image_->describe();
  return ok();
}

Status Connection::extents(uint64_t offset, uint64_t length, bool only_one, nbdkit_extents* extents) {
  for (int n = 0; length != 0 && n < extents_max; ++n) {
    auto extent = top().extent(offset, length);
    if (!extent) return propagate(extent);
    if (nbdkit_add_extent(extents, offset, extent->length, nbdkit_type(*extent)) != 0) {
      return fail(Errc::no_memory, "", ENOMEM);
    }
    if (only_one) break;
    offset += extent->length;
    length -= extent->length;
  }
  return ok();
}

} // namespace qluks
