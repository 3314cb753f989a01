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
  const std::lock_guard lock(mutex_);
  auto& known = opened_[source];
  if (known) return known;
  auto device = open_source(source);
  if (device) known = *device;
  return device;
}

} // namespace qluks
