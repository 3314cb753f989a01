/* SPDX-License-Identifier: BSD-3-Clause */
#include "plugin/connection.hpp"

#include <cerrno>

#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/shutdown.hpp"
#include "formats/text.hpp"

namespace qluks {

namespace {

/* A reply may describe less than was asked for.  This bounds the work for a request of 4 GiB over an image whose
 * every other cluster of 512 bytes is allocated, or whose storage takes its time for each table. */
constexpr int extents_max = 1 << 16;
constexpr double extents_seconds_max = 0.25;

uint32_t nbdkit_type(const Extent& extent) {
  return (extent.hole ? uint32_t{NBDKIT_EXTENT_HOLE} : 0) | (extent.zero ? uint32_t{NBDKIT_EXTENT_ZERO} : 0);
}

} // namespace

Status Connection::prepare(nbdkit_next* next, ImageRegistry& registry, const ImageOptions& options) {
  auto device = NextDevice::prepare(next, key_.read_only);
  if (!device) return propagate(device);
  if (file_ && file_->may_write()) {
    if (Status s = file_->check_size((*device)->size()); !s) return s;
  }
  bool opened_now = false;
  auto image = registry.get(key_, [&] {
    opened_now = true;
    return Image::open(**device, options, key_.read_only);
  });
  if (!image) return propagate(image);
  if (!opened_now && (*image)->has_changed(**device)) say_changed(**image);
  if (!(*image)->hint().empty()) {
    const std::string line = "export " + in_quotes(key_.name) + ": " + (*image)->hint();
    if (registry.is_news(line)) log_warning(line);
  }
  next_ = std::move(*device);
  image_ = std::move(*image);
  stack_.emplace(image_->stack_on(*next_));
  description_ = image_->describe();
  next_->share_block_lock(image_->writes().blocks);
  find_abilities();
  return ok();
}

/* One line an image, whatever the number of connections. */
void Connection::say_changed(const Image& image) const {
  std::call_once(image.writes().said_changed, [&] {
    log_warning("export " + in_quotes(key_.name) +
                " was changed by another program while it is served: clients may see other data than they should until "
                "all have left and come again");
  });
}

void Connection::say_read_only(const std::string& why) const {
  std::call_once(image_->writes().said_read_only,
                 [&] { log_warning("export " + in_quotes(key_.name) + " is served read-only: " + why); });
}

void Connection::find_abilities() {
  if (key_.read_only) return;
  abilities_ = top().write_abilities();
  if (!abilities_.write) {
    const std::string why = image_->why_read_only();
    if (!next_->write_abilities().write) return say_read_only("the plugin does not write");
    return say_read_only(why.empty() ? "a layer does not write" : why);
  }
  fua_below_ = abilities_.fua;
  abilities_.fua = abilities_.fua || abilities_.flush;
  if (abilities_.flush) return;
  std::call_once(image_->writes().said_no_flush, [&] {
    log_warning("export " + in_quotes(key_.name) +
                ": the plugin has no flush, so nothing that is written is known to be stable");
  });
}

/* `write` makes the change; what is to be stable and cannot be said below is flushed behind it. */
template <class WriteFn>
Status Connection::write_with(Fua fua, WriteFn&& write) {
  image_->writes().written = true;
  if (Status s = write(fua_below_ ? fua : Fua::no); !s) return s;
  return fua == Fua::yes && !fua_below_ ? flush() : ok();
}

Status Connection::write(std::span<const std::byte> src, uint64_t offset, Fua fua) {
  return write_with(fua, [&](Fua below) { return top().write(src, offset, below); });
}

Status Connection::zero(uint64_t offset, uint64_t length, ZeroMode mode, Fua fua) {
  if (is_fast(mode) && !abilities_.fast_zero) return fail(Errc::not_fast, "zeroes of this image have to be written");
  return write_with(fua, [&](Fua below) { return top().zero(offset, length, mode, below); });
}

Status Connection::trim(uint64_t offset, uint64_t length, Fua fua) {
  return write_with(fua, [&](Fua below) { return top().trim(offset, length, below); });
}

Status Connection::flush() {
  return image_->writes().flushes.run([&] { return top().flush(); });
}

/* Whoever wrote: clusters that were freed while others had requests under way come back with the last one to leave. */
Status Connection::finalize() { return abilities_.flush && image_->writes().written ? flush() : ok(); }

Status Connection::extents(uint64_t offset, uint64_t length, bool only_one, nbdkit_extents* extents) {
  const double start = monotonic_seconds();
  std::optional<Extent> first;
  for (int n = 0; length != 0 && n < extents_max; ++n) {
    if (n != 0 && monotonic_seconds() - start > extents_seconds_max) break;
    if (shutting_down()) return given_up();
    auto extent = top().extent(offset, length);
    if (!extent) return propagate(extent);
    if (only_one && first && !first->same_kind(*extent)) break;
    if (nbdkit_add_extent(extents, offset, extent->length, nbdkit_type(*extent)) != 0) {
      return fail(Errc::no_memory, "", ENOMEM);
    }
    if (!first) first = *extent;
    offset += extent->length;
    length -= extent->length;
  }
  return ok();
}

} // namespace qluks
