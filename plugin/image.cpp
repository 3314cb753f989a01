/* SPDX-License-Identifier: BSD-3-Clause */
#include "plugin/image.hpp"

#include <cerrno>

#include "formats/qcow2/layer.hpp"
#include "plugin/backing_chain.hpp"

namespace qluks {

void Stack::push(Format& format) {
  layers_.push_back(format.stack_on(*top_));
  top_ = layers_.back().get();
}

/* Opens layer after layer over the container, through the connection that came first. */
class Image::Opener {
 public:
  Opener(BlockDevice& container, const ImageOptions& options, bool read_only)
      : options_(options), read_only_(read_only), stack_(container) {}

  Result<std::unique_ptr<Image>> open() {
    const auto& layers = options_.config.layers;
    Status s = layers ? open_list(*layers) : open_auto();
    if (!s) return propagate(s);
    if (!qcow2_opened_ && (options_.config.names_files() || !options_.config.snapshot.empty())) {
      return fail(Errc::invalid_format,
                  "a backing file, data file or snapshot is given, but the image has no qcow2 layer", EINVAL);
    }
    return std::move(image_);
  }

 private:
  Status open_list(const LayerList& layers) {
    for (const LayerKind kind : layers) {
      Status s = kind == LayerKind::qcow2 ? open_qcow2_layer() : open_luks_layer();
      if (!s) return s;
    }
    return ok();
  }

  /* Probing looks at the stored bytes, and inside of a qcow2 that is not encrypted if there is a secret to open
   * what it may hold.  It never looks into a decrypted payload: whoever writes the guest disk must not choose how
   * it is read. */
  Status open_auto() {
    auto qcow2 = probe_qcow2(stack_.top());
    if (!qcow2) return propagate(qcow2);
    if (!*qcow2) return open_auto_luks();
    if (Status s = open_qcow2_layer(); !s) return s;
    if (options_.detached_header != nullptr) return open_detached_over_qcow2();
    if (qcow2_encrypted_ || !options_.config.keyring.has_secrets()) return ok();
    auto luks = probe_luks(stack_.top());
    if (!luks) return propagate(luks);
    return *luks ? open_luks_layer() : ok();
  }

  Status open_auto_luks() {
    if (options_.detached_header != nullptr) return open_luks_layer();
    auto luks = probe_luks(stack_.top());
    if (!luks) return propagate(luks);
    if (*luks) return open_luks_layer();
    return fail(Errc::invalid_format,
                "the image is neither qcow2 nor LUKS: if it is meant to be served as it is, say qluks-layers=raw; "
                "a payload whose LUKS header lies elsewhere needs qluks-header=",
                EINVAL);
  }

  Status open_detached_over_qcow2() {
    if (!qcow2_encrypted_) return open_luks_layer();
    return fail(Errc::unsupported,
                "the qcow2 is encrypted by itself, so qluks-header= is not for it: leave it out, or say "
                "qluks-layers=qcow2,luks if its guest disk is a second, headerless LUKS payload",
                EINVAL);
  }

  Status open_qcow2_layer() {
    const Config& config = options_.config;
    Qcow2Options qcow2{.cache = options_.cache, .snapshot = config.snapshot, .read_only = read_only_};
    auto header = read_qcow2_header(stack_.top());
    if (!header) return propagate(header);
    if (config.names_files()) {
      if (Status s = BackingChain(options_.config, options_.sources).open(*header, qcow2); !s) return s;
    }
    auto format = open_qcow2(stack_.top(), std::move(*header), options_.config.keyring, qcow2);
    if (!format) return propagate(format);
    qcow2_opened_ = true;
    qcow2_encrypted_ = (*format)->encrypted();
    return add(std::move(*format));
  }

  Status open_luks_layer() {
    const LuksOptions luks{.discard = options_.config.discard};
    auto format = options_.detached_header != nullptr ? options_.detached_header->open_payload(stack_.top(), luks)
                                                      : open_luks(stack_.top(), options_.config.keyring, luks);
    if (!format) return propagate(format);
    return add(std::move(*format));
  }

  Status add(std::unique_ptr<Format> format) {
    stack_.push(*format);
    image_->formats_.push_back(std::move(format));
    return ok();
  }

  const ImageOptions& options_;
  bool read_only_;
  /* Declared before the stack, whose layers borrow its formats. */
  std::unique_ptr<Image> image_{new Image};
  Stack stack_;
  bool qcow2_opened_ = false;
  bool qcow2_encrypted_ = false;
};

Result<std::unique_ptr<Image>> Image::open(BlockDevice& container, const ImageOptions& options, bool read_only) {
  return Opener(container, options, read_only).open();
}

Stack Image::stack_on(BlockDevice& container) const {
  Stack stack(container);
  for (const auto& format : formats_) stack.push(*format);
  return stack;
}

std::string Image::describe() const {
  std::string text;
  for (const auto& format : formats_) text += (text.empty() ? "" : ", ") + format->describe();
  return text.empty() ? "raw" : text;
}

std::string Image::why_read_only() const {
  for (const auto& format : formats_) {
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
