/* SPDX-License-Identifier: BSD-3-Clause */
#include "plugin/sources.hpp"

#include "base/file_device.hpp"
#include "plugin/nbd_device.hpp"

namespace qluks {

namespace {

Result<SharedDevice> open_source(const std::string& source) {
  if (is_nbd_uri(source)) {
    auto device = NbdDevice::connect(source);
    if (!device) return propagate(device);
    return SharedDevice(std::move(*device));
  }
  auto device = FileDevice::open(source);
  if (!device) return propagate(device);
  return SharedDevice(std::move(*device));
}

} // namespace

Status Sources::prepare(const std::string& source) {
  if (is_nbd_uri(source)) return ok();
  auto device = open(source);
  if (!device) return propagate(device);
  return ok();
}

Result<SharedDevice> Sources::open(const std::string& source) {
  {
    const std::lock_guard lock(mutex_);
    if (const auto known = opened_.find(source); known != opened_.end()) return known->second;
  }
  /* Without the lock: an NBD server may take its time.  Of two that open it at once, the first one's device stays. */
  auto device = open_source(source);
  if (!device) return propagate(device);
  const std::lock_guard lock(mutex_);
  return opened_.emplace(source, std::move(*device)).first->second;
}

} // namespace qluks
