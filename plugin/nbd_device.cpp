/* SPDX-License-Identifier: BSD-3-Clause */
#include "plugin/nbd_device.hpp"

#include <cerrno>
#include <string_view>

#include "config.h"

#ifdef HAVE_LIBNBD
#include <libnbd.h>

#include <algorithm>
#include <bit>

#include "base/aligned.hpp"
#include "base/checked.hpp"
#include "base/clock.hpp"
#include "base/extents.hpp"
#include "base/shutdown.hpp"
#include "base/wait.hpp"
#include "base/zero_bytes.hpp"
#endif

namespace qluks {

bool is_nbd_uri(const std::string& source) {
  for (const std::string_view scheme :
       {"nbd://", "nbds://", "nbd+unix://", "nbds+unix://", "nbd+vsock://", "nbds+vsock://"}) {
    if (source.starts_with(scheme)) return true;
  }
  return false;
}

#ifdef HAVE_LIBNBD

namespace {

/* Enough to keep a remote server busy, few enough for servers that limit their clients. */
constexpr unsigned connections_max = 4;

/* What every NBD server takes in one request, unless it says less. */
constexpr uint32_t request_bytes_max = 32 << 20;

/* The protocol allows no larger block. */
constexpr uint32_t block_bytes_max = 64 << 10;

/* The time that a server has to answer when nbdkit has been told to end. */
constexpr int answer_ms = 200;

/* The time that it has at all.  Then the connection is given up, and the next request makes another one: the server may
 * have come back at the same address. */
constexpr double answer_seconds_max = 15;

/* libnbd's own words, for the thread that failed. */
tl::unexpected<Error> nbd_error(const std::string& uri) {
  const char* what = nbd_get_error();
  return fail(Errc::io, uri + ": " + (what != nullptr ? what : "unknown error"), EIO);
}

tl::unexpected<Error> no_answer(const std::string& uri) {
  return fail(Errc::io, uri + ": no answer within " + std::to_string(static_cast<int>(answer_seconds_max)) + " s", EIO);
}

/* Waiting for one answer of a server, which may come in many pieces, or never. */
class Wait {
 public:
  Wait(nbd_handle* handle, const std::string& uri) noexcept : handle_(handle), uri_(uri) {}

  /* Until something has come, or it is time to look whether nbdkit ends. */
  Status step() {
    if (nbd_poll(handle_, answer_ms) < 0) return nbd_error(uri_);
    const double waited = monotonic_seconds() - start_;
    if (waited > answer_seconds_max) return no_answer(uri_);
    if (waited <= answer_ms / 1000.0 || !shutting_down()) return ok();
    Status s = given_up();
    return propagate(s, uri_);
  }

 private:
  nbd_handle* handle_;
  const std::string& uri_;
  double start_ = monotonic_seconds();
};

/* Until the answer to a request has come; `request` is what libnbd calls it, or negative. */
Status finish(nbd_handle* handle, int64_t request, const std::string& uri) {
  if (request < 0) return nbd_error(uri);
  Wait wait(handle, uri);
  int done = 0;
  while ((done = nbd_aio_command_completed(handle, static_cast<uint64_t>(request))) == 0) {
    if (Status s = wait.step(); !s) return s;
  }
  return done > 0 ? ok() : nbd_error(uri);
}

/* What block status says of the first extent. */
struct FirstExtent {
  uint32_t length = 0;
  uint32_t flags = 0;
};

int note_first(void* first, const char* /*context*/, uint64_t /*offset*/, uint32_t* entries, size_t count,
               int* /*error*/) noexcept {
  auto& extent = *static_cast<FirstExtent*>(first);
  if (extent.length == 0 && count >= 2) extent = {.length = entries[0], .flags = entries[1]};
  return 0;
}

} // namespace

/* A connection for the time of one request. */
class NbdDevice::Lease {
 public:
  explicit Lease(NbdDevice& device) noexcept : device_(device) {}

  /* Wait for one to be free: as long as the requests in front of this one may take, or the process lives. */
  Status take() {
    std::unique_lock lock(device_.mutex_);
    Status s = wait_until(device_.returned_, lock, [&] { return device_.in_use_ < connections_max; });
    if (!s) return propagate(s, device_.uri_);
    taken_ = true;
    ++device_.in_use_;
    if (device_.idle_.empty()) return ok();
    handle_ = std::move(device_.idle_.back());
    device_.idle_.pop_back();
    return ok();
  }

  ~Lease() {
    if (!taken_) return;
    const std::lock_guard lock(device_.mutex_);
    --device_.in_use_;
    if (succeeded_) device_.idle_.push_back(std::move(handle_)); /* there is room: connect() has reserved it */
    if (!succeeded_ && device_.changes_ != device_.flushed_) device_.lost_ = true;
    device_.returned_.notify_one();
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  /* The connection, made if there is none. */
  Result<nbd_handle*> get() {
    if (Status s = take(); !s) return propagate(s);
    if (!handle_) {
      auto handle = device_.open_connection();
      if (!handle) return propagate(handle);
      handle_ = std::move(*handle);
    }
    return handle_.get();
  }
  /* The connection may be used again; else it goes with the lease. */
  void succeeded() noexcept { succeeded_ = true; }

 private:
  NbdDevice& device_;
  Handle handle_;
  bool taken_ = false;
  bool succeeded_ = false;
};

void NbdDevice::Close::operator()(nbd_handle* handle) const noexcept { nbd_close(handle); }

Result<NbdDevice::Handle> NbdDevice::open_connection() const {
  Handle handle(nbd_create());
  if (!handle || nbd_add_meta_context(handle.get(), LIBNBD_CONTEXT_BASE_ALLOCATION) != 0 ||
      nbd_aio_connect_uri(handle.get(), uri_.c_str()) != 0) {
    return nbd_error(uri_);
  }
  Wait wait(handle.get(), uri_);
  while (nbd_aio_is_connecting(handle.get()) > 0) {
    if (Status s = wait.step(); !s) return propagate(s);
  }
  const int64_t size = nbd_get_size(handle.get());
  if (size < 0) return nbd_error(uri_);
  if (size_ != 0 && static_cast<uint64_t>(size) != size_) {
    return fail(Errc::io,
                uri_ + ": its size changed from " + std::to_string(size_) + " to " + std::to_string(size) + " bytes",
                EIO);
  }
  return handle;
}

/* Block sizes that the protocol does not allow are not believed. */
void NbdDevice::learn_limits(nbd_handle* handle, bool to_write) {
  size_ = static_cast<uint64_t>(nbd_get_size(handle));
  can_extents_ = nbd_can_meta_context(handle, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0;
  const int64_t minimum = nbd_get_block_size(handle, LIBNBD_SIZE_MINIMUM);
  const int64_t maximum = nbd_get_block_size(handle, LIBNBD_SIZE_MAXIMUM);
  if (minimum > 0 && minimum <= block_bytes_max && std::has_single_bit(static_cast<uint64_t>(minimum))) {
    limits_.minimum = static_cast<uint32_t>(minimum);
  }
  limits_.maximum = request_bytes_max;
  if (maximum >= limits_.minimum && maximum < request_bytes_max) {
    limits_.maximum = align_down(static_cast<uint32_t>(maximum), limits_.minimum);
  }
  if (!to_write || limits_.minimum != 1 || nbd_is_read_only(handle) != 0) return;
  abilities_ = {.write = nbd_can_flush(handle) > 0 && nbd_can_multi_conn(handle) > 0,
                .flush = true,
                .zero = nbd_can_zero(handle) > 0};
}

Result<std::unique_ptr<NbdDevice>> NbdDevice::connect(const std::string& uri, bool to_write) {
  std::unique_ptr<NbdDevice> device(new NbdDevice(uri));
  auto handle = device->open_connection();
  if (!handle) return propagate(handle);
  device->learn_limits(handle->get(), to_write);
  device->idle_.reserve(connections_max);
  device->idle_.push_back(std::move(*handle));
  return device;
}

NbdDevice::~NbdDevice() = default;

Status NbdDevice::read(std::span<std::byte> dst, uint64_t offset) {
  return read_blocks(dst, offset, limits_.minimum, size_,
                     [this](std::span<std::byte> blocks, uint64_t at) { return read_pieces(blocks, at); });
}

Status NbdDevice::read_pieces(std::span<std::byte> dst, uint64_t offset) {
  Lease lease(*this);
  auto handle = lease.get();
  if (!handle) return propagate(handle);
  while (!dst.empty()) {
    const auto piece = dst.first(std::min<size_t>(dst.size(), limits_.maximum));
    const int64_t request = nbd_aio_pread(*handle, piece.data(), piece.size(), offset, NBD_NULL_COMPLETION, 0);
    if (Status s = finish(*handle, request, uri_); !s) return s;
    dst = dst.subspan(piece.size());
    offset += piece.size();
  }
  lease.succeeded();
  return ok();
}

/* One request that changes something, started by `start(handle)`.  An answer that says no leaves the connection as it
 * is. */
template <class Start>
Status NbdDevice::change(Start start) {
  {
    const std::lock_guard lock(mutex_);
    ++changes_;
  }
  Lease lease(*this);
  auto handle = lease.get();
  if (!handle) return propagate(handle);
  Status s = finish(*handle, start(*handle), uri_);
  if (s) {
    lease.succeeded();
  } else if (const int why = nbd_get_errno(); nbd_aio_is_ready(*handle) > 0 && why != 0) {
    lease.succeeded();
    s.error().sys = why;
  }
  return s;
}

Status NbdDevice::write(std::span<const std::byte> src, uint64_t offset, Fua /*fua*/) {
  while (!src.empty()) {
    const auto piece = src.first(std::min<size_t>(src.size(), limits_.maximum));
    Status s = change([&](nbd_handle* handle) {
      return nbd_aio_pwrite(handle, piece.data(), piece.size(), offset, NBD_NULL_COMPLETION, 0);
    });
    if (!s) return s;
    src = src.subspan(piece.size());
    offset += piece.size();
  }
  return ok();
}

Status NbdDevice::zero(uint64_t offset, uint64_t length, ZeroMode mode, Fua fua) {
  if (!abilities_.zero) {
    return write_zero_bytes(offset, length,
                            [&](std::span<const std::byte> zeroes, uint64_t at) { return write(zeroes, at, fua); });
  }
  const uint32_t flags = may_trim(mode) ? 0 : LIBNBD_CMD_FLAG_NO_HOLE;
  for (uint64_t done = 0; done < length;) {
    const uint64_t piece = std::min<uint64_t>(length - done, limits_.maximum);
    Status s = change(
        [&](nbd_handle* handle) { return nbd_aio_zero(handle, piece, offset + done, NBD_NULL_COMPLETION, flags); });
    if (!s) return s;
    done += piece;
  }
  return ok();
}

Status NbdDevice::flush() {
  if (!abilities_.write) return ok();
  uint64_t covers = 0;
  Status s = change([&](nbd_handle* handle) {
    const std::lock_guard lock(mutex_);
    covers = changes_;
    return nbd_aio_flush(handle, NBD_NULL_COMPLETION, 0);
  });
  const std::lock_guard lock(mutex_);
  lost_ = lost_ || !s;
  flushed_ = std::max(flushed_, covers);
  if (lost_) return fail(Errc::io, uri_ + ": what was written may be lost since its connection was", EIO);
  return s;
}

/* What the server says. */
Result<Extent> NbdDevice::claimed_extent(uint64_t offset, uint64_t max) {
  if (!can_extents_) return Extent{.length = max};
  const uint64_t start = align_down<uint64_t>(offset, limits_.minimum);
  const uint64_t skip = offset - start;
  const uint64_t end = std::min(size_, *checked_align_up<uint64_t>(offset + max, limits_.minimum));
  const uint64_t count = std::min<uint64_t>(end - start, align_down(UINT32_MAX, limits_.minimum));

  FirstExtent first;
  Lease lease(*this);
  auto handle = lease.get();
  if (!handle) return propagate(handle);
  const nbd_extent_callback callback{.callback = note_first, .user_data = &first, .free = nullptr};
  const int64_t request =
      nbd_aio_block_status(*handle, count, start, callback, NBD_NULL_COMPLETION, LIBNBD_CMD_FLAG_REQ_ONE);
  if (Status s = finish(*handle, request, uri_); !s) return propagate(s);
  lease.succeeded();
  if (first.length <= skip) return Extent{.length = max};
  return Extent{.length = std::min(max, first.length - skip),
                .hole = (first.flags & LIBNBD_STATE_HOLE) != 0,
                .zero = (first.flags & LIBNBD_STATE_ZERO) != 0};
}

Result<Extent> NbdDevice::extent(uint64_t offset, uint64_t max) {
  const auto claimed = claimed_extent(offset, max);
  return claimed ? confirmed(*this, offset, *claimed) : claimed;
}

#else

void NbdDevice::Close::operator()(nbd_handle* /*handle*/) const noexcept {}

Result<std::unique_ptr<NbdDevice>> NbdDevice::connect(const std::string& uri, bool /*to_write*/) {
  return fail(Errc::unsupported, uri + ": this build is without libnbd, so NBD URIs cannot be opened", EINVAL);
}

NbdDevice::~NbdDevice() = default;

Status NbdDevice::read(std::span<std::byte> /*dst*/, uint64_t /*offset*/) {
  return fail(Errc::unsupported, uri_ + ": this build is without libnbd", EIO);
}

Result<Extent> NbdDevice::extent(uint64_t /*offset*/, uint64_t max) { return Extent{.length = max}; }

Status NbdDevice::write(std::span<const std::byte> src, uint64_t offset, Fua fua) {
  return BlockDevice::write(src, offset, fua);
}
Status NbdDevice::zero(uint64_t offset, uint64_t length, ZeroMode mode, Fua fua) {
  return BlockDevice::zero(offset, length, mode, fua);
}
Status NbdDevice::flush() { return ok(); }

#endif

} // namespace qluks
