/* SPDX-License-Identifier: BSD-3-Clause */
/* The one interface that everything we stack has: the plugin below, a file, a window of another device, a format.
 *
 *     client ▶ LuksLayer ▶ Qcow2Layer ▶ NextDevice ▶ plugin
 *
 * A device is used by many threads at once.  A request lies inside [0, size()); whoever makes it has checked that.
 */
#ifndef QLUKS_BASE_BLOCK_DEVICE_HPP
#define QLUKS_BASE_BLOCK_DEVICE_HPP

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.hpp"

namespace qluks {

/* Block sizes in bytes, as NBD means them: advice to the client. */
struct Limits {
  uint32_t minimum = 1;
  uint32_t preferred = 4096;
  uint32_t maximum = 0xffffffff;
};

/* What a layer offers that takes requests of any offset and size over a device with those limits: it prefers
 * `preferred` bytes, or what is preferred below if that is more, as far as one request may be.  NBD allows no more than
 * 32 MiB. */
constexpr Limits limits_above(const Limits& below, uint32_t preferred) noexcept {
  constexpr uint32_t preferred_max = 32 << 20;
  return {.minimum = 1,
          .preferred = std::bit_floor(std::min({std::max(preferred, below.preferred), preferred_max, below.maximum})),
          .maximum = below.maximum};
}

/* A run of bytes with one allocation state, as base:allocation reports it. */
struct Extent {
  uint64_t length = 0;
  bool hole = false; /* takes no room below */
  bool zero = false; /* reads as zeroes */

  bool same_kind(const Extent& other) const noexcept { return hole == other.hole && zero == other.zero; }
};

/* Yes: the bytes are stable when the call returns, as after a flush. */
enum class Fua : bool { no, yes };

/* How a range may become zeroes. */
enum class ZeroMode : uint8_t {
  keep,      /* room that is kept for it stays kept: no hole */
  may_trim,  /* a hole will do */
  fast_keep, /* the same two, but fails with Errc::not_fast unless it is faster than writing zeroes */
  fast_may_trim,
};

constexpr bool may_trim(ZeroMode mode) noexcept {
  return mode == ZeroMode::may_trim || mode == ZeroMode::fast_may_trim;
}
constexpr bool is_fast(ZeroMode mode) noexcept {
  return mode == ZeroMode::fast_keep || mode == ZeroMode::fast_may_trim;
}

/* What a device does with writes, asked once when it is stacked. */
struct WriteAbilities {
  bool write = false;
  bool flush = false;     /* flush() makes bytes stable; without it no order can be promised */
  bool fua = false;       /* Fua::yes is passed on; without it whoever writes has to flush */
  bool trim = false;      /* trim() may free room */
  bool zero = false;      /* zero() is more than writing zeroes */
  bool fast_zero = false; /* the fast modes are answered in time, with success or Errc::not_fast */
  bool multi_conn = true; /* what one connection flushed, another one reads and a flush on any makes stable */
};

class BlockDevice {
 public:
  BlockDevice() = default;
  BlockDevice(const BlockDevice&) = delete;
  BlockDevice& operator=(const BlockDevice&) = delete;
  virtual ~BlockDevice() = default;

  virtual uint64_t size() const noexcept = 0;
  virtual Limits limits() const noexcept = 0;

  /* Fill all of `dst`; never short.  What `dst` holds after an error is undefined, and may be cipher text. */
  virtual Status read(std::span<std::byte> dst, uint64_t offset) = 0;

  /* The state of [offset, offset + n) for some 0 < n <= max; `max` > 0.  What follows may be of the same kind: whoever
   * wants to know joins it, once, at the top. */
  virtual Result<Extent> extent(uint64_t offset, uint64_t max) = 0;

  /* Ask the storage to have these bytes at hand soon; best effort. */
  virtual Status cache(uint64_t /*offset*/, uint64_t /*length*/) { return ok(); }

  /* Bytes that are missing, because a file was cut short, may pass for zeroes, as in QEMU, but not for cipher text: a
   * layer that decrypts says so to what is below it, and from then on they are errors.  From any thread. */
  virtual void refuse_missing() noexcept {}

  virtual WriteAbilities write_abilities() const noexcept { return {}; }

  /* `src` may be the client's own buffer: it is never modified, and read once, since the client may change it
   * meanwhile.  Fua::yes only where the abilities have it.  A device refuses writes unless it overrides these. */
  virtual Status write(std::span<const std::byte> /*src*/, uint64_t /*offset*/, Fua /*fua*/) { return refuse_write(); }
  /* [offset, offset + length) reads as zeroes afterwards.  Works wherever write() does; `length` > 0 of any size. */
  virtual Status zero(uint64_t /*offset*/, uint64_t /*length*/, ZeroMode /*mode*/, Fua /*fua*/) {
    return refuse_write();
  }
  /* The client needs these bytes no longer.  They may read as anything that was there, or as zeroes. */
  virtual Status trim(uint64_t /*offset*/, uint64_t /*length*/, Fua /*fua*/) { return refuse_write(); }
  /* What was written before, by whichever connection, is stable. */
  virtual Status flush() { return ok(); }

 private:
  static Status refuse_write() { return fail(Errc::read_only, "this device is read-only"); }
};

} // namespace qluks

#endif
