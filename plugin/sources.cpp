/* SPDX-License-Identifier: BSD-3-Clause */
#include "plugin/sources.hpp"

#include "base/log.hpp"
#include "plugin/image_lock.hpp"
#include "plugin/nbd_device.hpp"

namespace qluks {

namespace {

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

/* An image's turn to write a source. */
class Sources::Turn {
 public:
  Turn(Sources& sources, std::string name, Source opened)
      : sources_(sources), name_(std::move(name)), opened_(std::move(opened)) {}
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  ~Turn() {
    if (!begun_) return;
    /* In this order: the next turn locks the same open file. */
    if (opened_.file != nullptr) unlock_image(opened_.file->descriptor());
    sources_.end_turn(name_);
  }

  const SharedDevice& device() const noexcept { return opened_.device; }
  bool begin() { return begun_ = sources_.begin_turn(name_); }
  Status lock() {
    if (opened_.file == nullptr || !opened_.file->write_abilities().write) return ok();
    return lock_image(opened_.file->descriptor(), name_, ImageUse::write);
  }

 private:
  Sources& sources_;
  const std::string name_;
  const Source opened_;
  bool begun_ = false;
};

Result<Sources::Source> Sources::open_source(const std::string& source, Access access) {
  if (is_nbd_uri(source)) {
    auto device = NbdDevice::connect(source, access == Access::write);
    if (!device) return propagate(device);
    return Source{SharedDevice(std::move(*device)), nullptr};
  }
  auto device = FileDevice::open(source, access);
  if (!device) return propagate(device);
  const FileDevice* file = device->get();
  return Source{SharedDevice(std::move(*device)), file};
}

Status Sources::prepare(const std::string& source, Access access) {
  if (is_nbd_uri(source)) return ok();
  auto device = open(source, access);
  if (!device) return propagate(device);
  return ok();
}

Result<SharedDevice> Sources::open(const std::string& source, Access access) {
  auto opened = open_once(source, access);
  if (!opened) return propagate(opened);
  return std::move(opened->device);
}

Result<Sources::Source> Sources::open_once(const std::string& source, Access access) {
  const std::pair key(source, access);
  {
    const std::lock_guard lock(mutex_);
    if (const auto known = opened_.find(key); known != opened_.end()) return known->second;
  }
  /* Without the lock: an NBD server may take its time.  Of two that open it at once, the first one's device stays. */
  auto opened = open_source(source, access);
  if (!opened) return propagate(opened);
  const std::lock_guard lock(mutex_);
  return opened_.emplace(key, std::move(*opened)).first->second;
}

bool Sources::begin_turn(const std::string& source) {
  const std::lock_guard lock(mutex_);
  return written_.insert(source).second;
}

void Sources::end_turn(const std::string& source) noexcept {
  const std::lock_guard lock(mutex_);
  written_.erase(source);
}

Result<SharedDevice> Sources::open_for_one_writer(const std::string& source) {
  auto opened = open_once(source, Access::write);
  if (!opened) return propagate(opened);
  const auto turn = std::make_shared<Turn>(*this, source, std::move(*opened));
  const auto read_only = [&] { return SharedDevice(std::make_shared<ReadOnlyDevice>(turn->device())); };
  if (!turn->begin()) return read_only();
  if (Status s = turn->lock(); !s) {
    log_warning("not written to: " + s.error().what);
    return read_only();
  }
  return SharedDevice(turn, turn->device().get()); /* the turn ends with the image that writes */
}

} // namespace qluks
