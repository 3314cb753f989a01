/* SPDX-License-Identifier: BSD-3-Clause */
#include "plugin/image.hpp"

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

Result<std::shared_ptr<const Image>> ImageRegistry::get(const ExportKey& key, const OpenFn& open) {
  const std::shared_ptr<Slot> slot = this->slot(key);
  const std::lock_guard lock(slot->mutex);
  if (!slot->image) {
    auto image = open();
    if (!image) return propagate(image);
    slot->image = std::move(*image);
  }
  /* Whoever holds the image holds the slot with it, so that all connections of an export meet in one. */
  return std::shared_ptr<const Image>(slot, slot->image.get());
}

} // namespace qluks
