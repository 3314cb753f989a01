/* SPDX-License-Identifier: BSD-3-Clause */
#include "plugin/image.hpp"

#include "base/shutdown.hpp"
#include "base/wait.hpp"

namespace qluks {

Result<std::unique_ptr<Image>> Image::open(BlockDevice& container, const ImageOptions& options, bool read_only) {
  auto layers = open_layers(container, options, read_only);
  if (!layers) return propagate(layers);
  return std::unique_ptr<Image>(new Image(std::move(*layers)));
}

Stack Image::stack_on(BlockDevice& container) const {
  Stack stack(container);
  for (const auto& format : layers_.formats) stack.push(*format);
  return stack;
}

std::string Image::describe() const {
  std::string text;
  for (const auto& format : layers_.formats) text += (text.empty() ? "" : ", ") + format->describe();
  return text.empty() ? "raw" : text;
}

std::string Image::why_read_only() const {
  for (const auto& format : layers_.formats) {
    std::string why = format->why_read_only();
    if (!why.empty()) return why;
  }
  return {};
}

std::shared_ptr<ImageRegistry::Slot> ImageRegistry::slot(const ExportKey& key) {
  const std::lock_guard lock(mutex_);
  std::erase_if(slots_, [](const auto& entry) { return entry.second.expired(); });
  auto& known = slots_[key];
  auto slot = known.lock();
  if (!slot) known = slot = std::make_shared<Slot>();
  return slot;
}

bool ImageRegistry::is_news(const std::string& line) {
  constexpr size_t lines_max = 1000; // clients choose the names of exports
  const std::lock_guard lock(mutex_);
  if (said_.size() == lines_max) said_.clear();
  return said_.insert(line).second;
}

/* Whoever opens settles it on every path, also when memory runs out. */
class ImageRegistry::Opening {
 public:
  explicit Opening(Slot& slot) noexcept : slot_(slot) { slot_.opening = true; }
  Opening(const Opening&) = delete;
  Opening& operator=(const Opening&) = delete;
  ~Opening() {
    const std::lock_guard lock(slot_.mutex);
    slot_.opening = false;
    slot_.image = std::move(image);
    slot_.settled.notify_all();
  }

  std::unique_ptr<const Image> image;

 private:
  Slot& slot_;
};

Status ImageRegistry::open_in(Slot& slot, std::unique_lock<std::mutex>& lock, const OpenFn& open) {
  Opening opening(slot);
  lock.unlock();
  auto image = open();
  if (!image) return propagate(image);
  opening.image = std::move(*image);
  return ok();
}

Result<std::shared_ptr<const Image>> ImageRegistry::get(const ExportKey& key, const OpenFn& open) {
  const std::shared_ptr<Slot> slot = this->slot(key);
  std::unique_lock lock(slot->mutex);
  if (Status s = wait_until(slot->settled, lock, [&] { return !slot->opening; }); !s) return propagate(s);
  if (!slot->image) {
    if (shutting_down()) return given_up(); /* whoever wakes now starts nothing new */
    if (Status s = open_in(*slot, lock, open); !s) return propagate(s);
  }
  /* Whoever holds the image holds the slot with it, so that all connections of an export meet in one. */
  return std::shared_ptr<const Image>(slot, slot->image.get());
}

} // namespace qluks
