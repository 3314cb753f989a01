/* SPDX-License-Identifier: BSD-3-Clause */
#include "plugin/sources.hpp"

#include "plugin/nbd_device.hpp"

namespace qluks {

namespace {

Result<SharedDevice> open_source(const std::string& source, FileDevice::Access access) {
  if (is_nbd_uri(source)) {
    auto device = NbdDevice::connect(source, access == FileDevice::Access::write);
    if (!device) return propagate(device);
    return SharedDevice(std::move(*device));
  }
  auto device = FileDevice::open(source, access);
  if (!device) return propagate(device);
  return SharedDevice(std::move(*device));
}

/* A device that somebody else writes. */
class ReadOnlyDevice final : public BlockDevice {
 public:
  explicit ReadOnlyDevice(SharedDevice below) noexcept : below_(std::move(below)) {}
  uint64_t size() const noexcept override { return below_->size(); }
  Limits limits() const noexcept override { return below_->limits(); }
  Status read(std::span<std::byte> dst, uint64_t offset) override { return below_->read(dst, offset); }
  Result<Extent> extent(uint64_t offset, uint64_t max) override { return below_->extent(offset, max); }
  void refuse_missing() noexcept override { below_->refuse_missing(); }

 private:
  SharedDevice below_;
};

} // namespace

Status Sources::prepare(const std::string& source, Access access) {
  if (is_nbd_uri(source)) return ok();
  auto device = open(source, access);
  if (!device) return propagate(device);
  return ok();
}

Result<SharedDevice> Sources::open(const std::string& source, Access access) {
  const std::pair key(source, access);
  {
    const std::lock_guard lock(mutex_);
    if (const auto known = opened_.find(key); known != opened_.end()) return known->second;
  }
  /* Without the lock: an NBD server may take its time.  Of two that open it at once, the first one's device stays. */
  auto device = open_source(source, access);
  if (!device) return propagate(device);
  const std::lock_guard lock(mutex_);
  return opened_.emplace(key, std::move(*device)).first->second;
}

Result<SharedDevice> Sources::open_for_one_writer(const std::string& source) {
  auto device = open(source, Access::write);
  if (!device) return propagate(device);
  const std::lock_guard lock(mutex_);
  std::weak_ptr<void>& writer = writers_[source];
  if (!writer.expired()) return SharedDevice(std::make_shared<ReadOnlyDevice>(std::move(*device)));
  /* Another count of the same device: it ends with the image that writes. */
  const auto turn = std::make_shared<SharedDevice>(std::move(*device));
  writer = turn;
  return SharedDevice(turn, turn->get());
}

} // namespace qluks
