/* SPDX-License-Identifier: BSD-3-Clause */
#include "plugin/nbd_device.hpp"

#include <cerrno>
#include <string_view>

#include "config.h"

#ifdef HAVE_LIBNBD
#include <libnbd.h>

#include <algorithm>
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

/* What every NBD server takes in one request. */
constexpr size_t read_bytes_max = 32 << 20;

/* libnbd's own words, for the thread that failed. */
tl::unexpected<Error> nbd_error(const std::string& uri) {
  const char* what = nbd_get_error();
  return fail(Errc::io, uri + ": " + (what != nullptr ? what : "unknown error"), EIO);
}

} // namespace

/* A connection for the time of one request. */
class NbdDevice::Lease {
 public:
  explicit Lease(NbdDevice& device) : device_(device) {
    std::unique_lock lock(device.mutex_);
    device.returned_.wait(lock, [&] { return device.in_use_ < connections_max; });
    ++device.in_use_;
    if (device.idle_.empty()) return;
    handle_ = std::move(device.idle_.back());
    device.idle_.pop_back();
  }
  ~Lease() {
    const std::lock_guard lock(device_.mutex_);
    --device_.in_use_;
    if (succeeded_) device_.idle_.push_back(std::move(handle_)); /* there is room: connect() has reserved it */
    device_.returned_.notify_one();
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  /* The connection, made if there is none. */
  Result<nbd_handle*> get() {
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
  bool succeeded_ = false;
};

void NbdDevice::Close::operator()(nbd_handle* handle) const noexcept { nbd_close(handle); }

Result<NbdDevice::Handle> NbdDevice::open_connection() const {
  Handle handle(nbd_create());
  if (!handle || nbd_connect_uri(handle.get(), uri_.c_str()) != 0) return nbd_error(uri_);
  const int64_t size = nbd_get_size(handle.get());
  if (size < 0) return nbd_error(uri_);
  if (size_ != 0 && static_cast<uint64_t>(size) != size_) {
    return fail(Errc::io,
                uri_ + ": its size changed from " + std::to_string(size_) + " to " + std::to_string(size) + " bytes",
                EIO);
  }
  return handle;
}

Result<std::unique_ptr<NbdDevice>> NbdDevice::connect(const std::string& uri) {
  std::unique_ptr<NbdDevice> device(new NbdDevice(uri));
  auto handle = device->open_connection();
  if (!handle) return propagate(handle);
  device->size_ = static_cast<uint64_t>(nbd_get_size(handle->get()));
  device->idle_.reserve(connections_max);
  device->idle_.push_back(std::move(*handle));
  return device;
}

NbdDevice::~NbdDevice() = default;

Status NbdDevice::read(std::span<std::byte> dst, uint64_t offset) {
  Lease lease(*this);
  auto handle = lease.get();
  if (!handle) return propagate(handle);
  while (!dst.empty()) {
    const size_t n = std::min(dst.size(), read_bytes_max);
    if (nbd_pread(*handle, dst.data(), n, offset, 0) != 0) return nbd_error(uri_);
    dst = dst.subspan(n);
    offset += n;
  }
  lease.succeeded();
  return ok();
}

#else

void NbdDevice::Close::operator()(nbd_handle* /*handle*/) const noexcept {}

Result<std::unique_ptr<NbdDevice>> NbdDevice::connect(const std::string& uri) {
  return fail(Errc::unsupported, uri + ": this build is without libnbd, so NBD URIs cannot be opened", EINVAL);
}

NbdDevice::~NbdDevice() = default;

Status NbdDevice::read(std::span<std::byte> /*dst*/, uint64_t /*offset*/) {
  return fail(Errc::unsupported, uri_ + ": this build is without libnbd", EIO);
}

#endif

} // namespace qluks
