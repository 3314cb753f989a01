/* SPDX-License-Identifier: BSD-3-Clause */
#include "plugin/next_device.hpp"

#include <algorithm>
#include <cerrno>

#include "base/aligned.hpp"
#include "base/checked.hpp"

/* nbdkit -D qluks.next=1: every request that goes down. */
extern "C" NBDKIT_DLL_PUBLIC int qluks_debug_next;
int qluks_debug_next = 0;

namespace qluks {

namespace {

/* nbdkit's own limit for one read. */
constexpr uint32_t read_bytes_max = 64 << 20;

/* Blocks larger than this are not widened to: the plugin is trusted to take less than it prefers. */
constexpr uint32_t minimum_bytes_max = 64 << 10;

tl::unexpected<Error> failed_below(int err) {
  return fail(Errc::io, "", err > 0 ? err : EIO); // whoever failed has told nbdkit why
}

void trace(const char* request, uint64_t offset, uint64_t length) {
  if (qluks_debug_next == 0) return;
  nbdkit_debug("qluks: next %s offset=%llu length=%llu", request, static_cast<unsigned long long>(offset),
               static_cast<unsigned long long>(length));
}

struct ExtentsDeleter {
  void operator()(nbdkit_extents* e) const noexcept { nbdkit_extents_free(e); }
};

} // namespace

Result<std::unique_ptr<NextDevice>> NextDevice::prepare(nbdkit_next* next) {
  std::unique_ptr<NextDevice> device(new NextDevice(next));
  const int64_t size = next->get_size(next);
  const int can_extents = next->can_extents(next);
  const int can_cache = next->can_cache(next);
  Limits limits;
  uint32_t minimum = 0;
  uint32_t preferred = 0;
  uint32_t maximum = 0;
  if (size < 0 || can_extents < 0 || can_cache < 0 || next->block_size(next, &minimum, &preferred, &maximum) < 0) {
    return failed_below(EIO);
  }
  if (minimum != 0) limits = {.minimum = minimum, .preferred = preferred, .maximum = maximum};
  device->size_ = static_cast<uint64_t>(size);
  device->limits_ = limits;
  device->can_extents_ = can_extents != 0;
  device->can_cache_ = can_cache != NBDKIT_CACHE_NONE;
  return device;
}

/* Layers check their own offsets; this is the last line, for a bug in one of them. */
Status NextDevice::check(const char* request, uint64_t offset, uint64_t length) const {
  if (length != 0 && range_fits(offset, length, size_)) return ok();
  return fail(Errc::out_of_bounds,
              "internal error: " + std::string(request) + " of " + std::to_string(length) + " bytes at " +
                  std::to_string(offset) + " is outside of the container of " + std::to_string(size_) + " bytes",
              EIO);
}

Status NextDevice::read(std::span<std::byte> dst, uint64_t offset) {
  if (Status s = check("read", offset, dst.size()); !s) return s;
  const uint32_t block = limits_.minimum > minimum_bytes_max ? 1 : limits_.minimum;
  return read_blocks(dst, offset, block, size_,
                     [this](std::span<std::byte> blocks, uint64_t at) { return read_pieces(blocks, at); });
}

Status NextDevice::read_pieces(std::span<std::byte> dst, uint64_t offset) {
  const uint32_t most = align_down(std::min(read_bytes_max, limits_.maximum), limits_.minimum);
  while (!dst.empty()) {
    const auto piece = dst.first(std::min<size_t>(dst.size(), most));
    trace("read", offset, piece.size());
    int err = 0;
    if (next_->pread(next_, piece.data(), static_cast<uint32_t>(piece.size()), offset, 0, &err) != 0) {
      return failed_below(err);
    }
    dst = dst.subspan(piece.size());
    offset += piece.size();
  }
  return ok();
}

Result<Extent> NextDevice::extent(uint64_t offset, uint64_t max) {
  if (Status s = check("extents", offset, max); !s) return propagate(s);
  if (!can_extents_) return Extent{.length = max};
  const uint32_t count = static_cast<uint32_t>(std::min<uint64_t>(max, align_down(UINT32_MAX, limits_.minimum)));
  const std::unique_ptr<nbdkit_extents, ExtentsDeleter> extents(nbdkit_extents_new(offset, offset + count));
  if (!extents) return failed_below(ENOMEM);
  trace("extents", offset, count);
  int err = 0;
  if (next_->extents(next_, count, offset, NBDKIT_FLAG_REQ_ONE, extents.get(), &err) != 0) return failed_below(err);
  if (nbdkit_extents_count(extents.get()) == 0) return Extent{.length = count};
  const nbdkit_extent first = nbdkit_get_extent(extents.get(), 0);
  return Extent{.length = std::min<uint64_t>(first.length, count),
                .hole = (first.type & NBDKIT_EXTENT_HOLE) != 0,
                .zero = (first.type & NBDKIT_EXTENT_ZERO) != 0};
}

Status NextDevice::cache(uint64_t offset, uint64_t length) {
  if (!can_cache_) return ok();
  if (Status s = check("cache", offset, length); !s) return s;
  while (length != 0) {
    const uint32_t count = static_cast<uint32_t>(std::min<uint64_t>(length, read_bytes_max));
    trace("cache", offset, count);
    int err = 0;
    if (next_->cache(next_, count, offset, 0, &err) != 0) return failed_below(err);
    offset += count;
    length -= count;
  }
  return ok();
}

} // namespace qluks
