/* SPDX-License-Identifier: BSD-3-Clause */
#include "plugin/next_device.hpp"

#include <algorithm>
#include <cerrno>

#include "base/aligned.hpp"
#include "base/checked.hpp"
#include "base/extents.hpp"
#include "base/shutdown.hpp"
#include "base/zero_bytes.hpp"

/* nbdkit -D qluks.next=1: every request that goes down. */
extern "C" NBDKIT_DLL_PUBLIC int qluks_debug_next;
int qluks_debug_next = 0;

namespace qluks {

namespace {

/* nbdkit's own limit for one read or write. */
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

Result<std::unique_ptr<NextDevice>> NextDevice::prepare(nbdkit_next* next, bool read_only) {
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
  if (Status s = device->ask_abilities(!read_only); !s) return propagate(s);
  return device;
}

/* nbdkit asserts that each of these was asked before the first request that depends on it. */
Status NextDevice::ask_abilities(bool may_write) {
  const int write = may_write ? next_->can_write(next_) : 0;
  if (write < 0) return failed_below(EIO);
  const int multi_conn = next_->can_multi_conn(next_);
  if (multi_conn < 0) return failed_below(EIO);
  abilities_.multi_conn = multi_conn != 0;
  if (write == 0) return ok();
  const int flush = next_->can_flush(next_);
  const int fua = next_->can_fua(next_);
  const int trim = next_->can_trim(next_);
  const int zero = next_->can_zero(next_);
  const int fast_zero = next_->can_fast_zero(next_);
  if (flush < 0 || fua < 0 || trim < 0 || zero < 0 || fast_zero < 0) return failed_below(EIO);
  abilities_ = {.write = true,
                .flush = flush != 0,
                .fua = fua == NBDKIT_FUA_NATIVE, /* else a flush at the end does as well, and once is enough */
                .trim = trim != 0,
                .zero = zero == NBDKIT_ZERO_NATIVE,
                .fast_zero = zero != NBDKIT_ZERO_NONE && fast_zero != 0,
                .multi_conn = multi_conn != 0};
  can_zero_ = zero != NBDKIT_ZERO_NONE;
  return ok();
}

uint32_t NextDevice::block() const noexcept { return limits_.minimum > minimum_bytes_max ? 1 : limits_.minimum; }

uint32_t NextDevice::piece_bytes() const noexcept {
  return align_down(std::min(read_bytes_max, limits_.maximum), limits_.minimum);
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
  return read_blocks(dst, offset, block(), size_,
                     [this](std::span<std::byte> blocks, uint64_t at) { return read_pieces(blocks, at); });
}

Status NextDevice::read_pieces(std::span<std::byte> dst, uint64_t offset) {
  while (!dst.empty()) {
    const auto piece = dst.first(std::min<size_t>(dst.size(), piece_bytes()));
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
  const auto claimed = claimed_extent(offset, max);
  return claimed ? confirmed(*this, offset, *claimed) : claimed;
}

/* What the plugin says. */
Result<Extent> NextDevice::claimed_extent(uint64_t offset, uint64_t max) {
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

Status NextDevice::write(std::span<const std::byte> src, uint64_t offset, Fua fua) {
  if (Status s = check("write", offset, src.size()); !s) return s;
  if (block() == 1) return write_pieces(src, offset, fua);
  const auto lock = block_lock_->take(offset - offset % block(), src.size() + 2 * uint64_t{block()});
  if (!lock) return tl::unexpected(lock.error());
  return write_blocks(
      src, offset, block(), size_,
      {.read = [this](std::span<std::byte> blocks, uint64_t at) { return read_pieces(blocks, at); },
       .write = [this, fua](std::span<const std::byte> blocks, uint64_t at) { return write_pieces(blocks, at, fua); }});
}

Status NextDevice::write_pieces(std::span<const std::byte> src, uint64_t offset, Fua fua) {
  const uint32_t flags = fua == Fua::yes && abilities_.fua ? uint32_t{NBDKIT_FLAG_FUA} : 0;
  while (!src.empty()) {
    const auto piece = src.first(std::min<size_t>(src.size(), piece_bytes()));
    trace("write", offset, piece.size());
    int err = 0;
    if (next_->pwrite(next_, piece.data(), static_cast<uint32_t>(piece.size()), offset, flags, &err) != 0) {
      return failed_below(err);
    }
    src = src.subspan(piece.size());
    offset += piece.size();
  }
  return ok();
}

/* Whole blocks are zeroed by the plugin, what is cut at the ends is written. */
Status NextDevice::zero(uint64_t offset, uint64_t length, ZeroMode mode, Fua fua) {
  if (Status s = check("zero", offset, length); !s) return s;
  const bool fast = is_fast(mode);
  if (fast && !abilities_.fast_zero) return fail(Errc::not_fast, "the plugin cannot zero fast");
  const auto write_zeroes = [&](uint64_t at, uint64_t bytes) {
    return write_zero_bytes(
        at, bytes, [&](std::span<const std::byte> zeroes, uint64_t piece) { return write(zeroes, piece, fua); });
  };
  if (!can_zero_) return write_zeroes(offset, length);

  const uint64_t unit = block();
  const uint64_t end = offset + length;
  const uint64_t from = align_down(offset + unit - 1, unit);
  const uint64_t to = end == size_ ? end : align_down(end, unit);
  if (from >= to) return fast ? fail(Errc::not_fast, "less than a block of the plugin") : write_zeroes(offset, length);
  if (fast && (from != offset || to != end)) return fail(Errc::not_fast, "no whole blocks of the plugin");
  const uint32_t flags = (may_trim(mode) ? NBDKIT_FLAG_MAY_TRIM : 0U) |
                         (fast ? NBDKIT_FLAG_FAST_ZERO : 0U) |
                         (fua == Fua::yes && abilities_.fua ? NBDKIT_FLAG_FUA : 0U);
  if (from != offset) {
    if (Status s = write_zeroes(offset, from - offset); !s) return s;
  }
  if (Status s = zero_pieces(from, to - from, flags); !s) return s;
  return to == end ? ok() : write_zeroes(to, end - to);
}

Status NextDevice::zero_pieces(uint64_t offset, uint64_t length, uint32_t flags) {
  while (length != 0) {
    const uint32_t count = static_cast<uint32_t>(std::min<uint64_t>(length, align_down(UINT32_MAX, block())));
    trace("zero", offset, count);
    int err = 0;
    if (next_->zero(next_, count, offset, flags, &err) != 0) {
      const bool not_fast = (flags & NBDKIT_FLAG_FAST_ZERO) != 0 && (err == ENOTSUP || err == EOPNOTSUPP);
      return not_fast ? fail(Errc::not_fast, "") : failed_below(err == ENOTSUP || err == EOPNOTSUPP ? EIO : err);
    }
    offset += count;
    length -= count;
    if (length != 0 && shutting_down()) return given_up();
  }
  return ok();
}

/* Advice: what is cut at the ends, and what does not fit, is left out. */
Status NextDevice::trim(uint64_t offset, uint64_t length, Fua fua) {
  if (Status s = check("trim", offset, length); !s) return s;
  if (!abilities_.trim) return ok();
  const uint64_t unit = block();
  const uint64_t end = offset + length == size_ ? size_ : align_down(offset + length, unit);
  const uint32_t flags = fua == Fua::yes && abilities_.fua ? uint32_t{NBDKIT_FLAG_FUA} : 0;
  for (uint64_t at = align_down(offset + unit - 1, unit); at < end;) {
    const uint32_t count = static_cast<uint32_t>(std::min<uint64_t>(end - at, align_down(UINT32_MAX, block())));
    trace("trim", at, count);
    int err = 0;
    if (next_->trim(next_, count, at, flags, &err) != 0) return failed_below(err);
    at += count;
    if (at < end && shutting_down()) return given_up();
  }
  return ok();
}

Status NextDevice::flush() {
  if (!abilities_.flush) return ok();
  trace("flush", 0, size_);
  int err = 0;
  if (next_->flush(next_, 0, &err) != 0) return failed_below(err);
  return ok();
}

} // namespace qluks
